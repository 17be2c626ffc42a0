//! The client against a naive broker on a virtual network, in virtual time.

mod broker;
mod changes;
mod events;
mod pair;
mod random;
mod rfc12;
mod sync;
mod world;
