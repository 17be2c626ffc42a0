//! Nodes: the state machines of [`clone`](crate::clone) with sockets, on a
//! [`Reactor`](crate::Reactor).
//!
//! A [`BrokerNode`] or a [`ClientNode`] is a field of the application's state.
//! `attach` hands its sockets and its timer to the loop; from then on it lives
//! there, and the application reads and changes the field as any other.

mod broker;
mod burst;
mod client;
mod endpoint;
mod port;
#[cfg(test)]
mod tests;

pub use broker::{BrokerNode, BrokerOptions};
pub use client::{ClientNode, ClientOptions};
pub use endpoint::{EndpointError, Endpoints, check_path_is_free};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Names nodes and seeds uuids: the machines themselves have no randomness.
fn random_u64() -> u64 {
    getrandom::u64().unwrap_or_else(|error| {
        // A system without entropy: time and address still tell two runs apart.
        log::warn!("no random numbers from the system: {error}");
        let here = &raw const error as u64;
        unix_time().as_nanos() as u64 ^ here.rotate_left(32)
    })
}

/// Time since 1970, zero for a clock that stands before it.
fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
