//! Relays and what they follow on virtual time, with every message between them in our hands.

mod following;
mod forwarding;
mod world;
