//! Two brokers of a pair on virtual time, with every message between them in our hands.

mod bad_input;
mod failover;
mod following;
mod overtaken;
mod refusals;
mod ring;
mod roles;
mod stream;
mod tail;
mod world;
