//! The client against a naive broker on a virtual network, in virtual time.

mod bad_input;
mod broker;
mod changes;
mod events;
mod heartbeats;
mod histories;
mod joining;
mod limits;
mod losses;
mod pair;
mod random;
mod reading;
mod rfc12;
mod snapshots;
mod world;
