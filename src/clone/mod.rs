//! Shared live key-value state: the Clone pattern as state machines.
//!
//! Nothing here opens a socket, reads a clock or draws a random number. Input
//! comes as calls with `now` and borrowed frames, output goes through a trait
//! that the caller implements; so the same machines run in production, where
//! the caller is a node on a reactor, and in a simulator on virtual time.
//!
//! * [`broker`]: keeps the map, gives each change its number, serves snapshots;
//! * [`client`]: a live copy of a broker's map, and changes to it;
//! * [`kvmsg`]: the five-frame message, decoded without a copy and without a panic;
//! * [`pair`]: two brokers, of which one takes over from the other;
//! * [`properties`]: the `name=value` lines of its fourth frame;
//! * [`relay`]: a broker that follows another one and serves its state to others;
//! * [`sequence`]: the number of a change, epoch and counter in one;
//! * [`store`]: the map, with snapshots in slices, expiry, and a memory of deletions;
//! * [`protocol`]: what goes over the wire, and why.

pub mod broker;
pub mod client;
pub mod collector;
#[cfg_attr(not(feature = "simulation-faults"), allow(unreachable_pub))]
#[doc(hidden)]
pub mod fault;
pub mod kvmsg;
pub mod pair;
pub mod properties;
pub mod relay;
pub mod sequence;
pub mod store;

/// What goes over the wire, and why.
pub mod protocol {
    #![doc = include_str!("PROTOCOL.md")]
}

pub use collector::Collector;
pub use kvmsg::{DecodeError, KeyError, KvMsg, Limits, Uuid, check_key, is_reserved};
pub use properties::{Properties, PropertiesBuf};
pub use sequence::Sequence;
pub use store::Store;

use std::fmt;

/// Why a message could not be handed to the transport.
///
/// Nothing is lost by either: the machine still has what it wanted to send and
/// decides whether to wait, to drop it with a count, or to give the peer up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendFailure {
    /// The peer's queue is full (its high-water mark). Worth trying again when
    /// the transport says that there is room.
    WouldBlock,
    /// There is no such peer, or not any more. Trying again is of no use.
    Unreachable,
}

impl fmt::Display for SendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendFailure::WouldBlock => "the peer's queue is full",
            SendFailure::Unreachable => "the peer is not connected",
        })
    }
}

impl std::error::Error for SendFailure {}
