//! Two brokers, one state: the hot-standby pair, as the protocol's section
//! *Pair* ([`protocol`](super::protocol)) has it.
//!
//! A [`Broker`](super::broker::Broker) whose configuration has a [`PairConfig`]
//! is one of a pair. Beside its own three ports it then has connections *to* its
//! peer, on which alone it believes what it hears:
//!
//! | connection | what it sends | what comes goes to |
//! |---|---|---|
//! | DEALER to the peer's P, the *line*, standing | [`BrokerOutbox::tell_peer`] | [`Broker::handle_peer`] |
//! | DEALER to the peer's P, new with each [`BrokerOutbox::open_sync`] | [`BrokerOutbox::request_sync`] | [`Broker::handle_peer_snapshot`] |
//!
//! The rest is as with a lone broker: `handle_timeout` at `next_deadline`. After
//! each call [`Broker::poll_role`] tells whether its role has changed.
//!
//! [`Broker::handle_peer`]: super::broker::Broker::handle_peer
//! [`Broker::handle_peer_snapshot`]: super::broker::Broker::handle_peer_snapshot
//! [`Broker::poll_role`]: super::broker::Broker::poll_role
//! [`BrokerOutbox::tell_peer`]: super::broker::BrokerOutbox::tell_peer
//! [`BrokerOutbox::open_sync`]: super::broker::BrokerOutbox::open_sync
//! [`BrokerOutbox::request_sync`]: super::broker::BrokerOutbox::request_sync

mod lineage;

use std::fmt;
use std::time::Duration;

pub use self::lineage::{Lineage, Root};

/// A broker's place in its pair, by configuration: it decides ties, and which
/// epochs the broker may give.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Seat {
    /// Becomes active if both start; gives even epochs.
    Primary,
    /// Waits for the primary at first; gives odd epochs.
    Backup,
}

/// What a broker does at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Role {
    /// Has just started, without a state, and looks for its peer.
    Starting,
    /// Follows the active and serves nobody.
    Passive,
    /// Serves.
    Active,
    /// Serves what another broker keeps, see [`relay`](super::relay).
    Relay,
}

/// What counts as safe while no standby is live.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum SafePolicy {
    /// Nothing new, until a standby has it.
    Wait,
    /// What the active has.
    #[default]
    Proceed,
}

/// What a broker of a pair is told of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PairConfig {
    /// The pair's name, hashed; both must have the same. See [`pair_id`].
    pub pair: u64,
    /// Its place.
    pub seat: Seat,
    /// What is safe without a standby. Default `Proceed`.
    pub policy: SafePolicy,
    /// How long a primary that starts looks for its peer before it goes on alone;
    /// the backup takes twice that. Default 2 s.
    pub start_grace: Duration,
    /// How long changes that came while passive are kept for the case of
    /// promotion. Default 10 s.
    pub ring_age: Duration,
    /// How many at most. Default 100,000.
    pub ring_count: usize,
    /// Bytes of them at most. Default 64 MiB.
    pub ring_bytes: usize,
    /// Changes of the active that wait while a snapshot is under way. Default 1,000,000.
    pub backlog_count: usize,
    /// Bytes of them. Default 256 MiB.
    pub backlog_bytes: usize,
    /// Requests for a snapshot held while passive. Default 4,096.
    pub held_requests: usize,
}

impl PairConfig {
    /// The defaults for this place in the pair of this name (see [`pair_id`]).
    pub fn new(pair: u64, seat: Seat) -> PairConfig {
        PairConfig {
            pair,
            seat,
            policy: SafePolicy::Proceed,
            start_grace: Duration::from_secs(2),
            ring_age: Duration::from_secs(10),
            ring_count: 100_000,
            ring_bytes: 64 << 20,
            backlog_count: 1_000_000,
            backlog_bytes: 256 << 20,
            held_requests: 4096,
        }
    }
}

/// The number for a pair's name: FNV-1a of its bytes.
pub const fn pair_id(name: &str) -> u64 {
    let (bytes, mut hash, mut at) = (name.as_bytes(), 0xcbf2_9ce4_8422_2325u64, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

impl Seat {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Seat::Primary => "primary",
            Seat::Backup => "backup",
        }
    }

    /// The other place.
    pub const fn other(self) -> Seat {
        match self {
            Seat::Primary => Seat::Backup,
            Seat::Backup => Seat::Primary,
        }
    }
}

impl Role {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Starting => "starting",
            Role::Passive => "passive",
            Role::Active => "active",
            Role::Relay => "relay",
        }
    }
}

impl SafePolicy {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            SafePolicy::Wait => "wait",
            SafePolicy::Proceed => "proceed",
        }
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a role command was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RoleRefusal {
    /// The broker is not one of a pair.
    NoPair,
    /// There is no standby that is live and has the state: nobody to hand over to.
    NoStandby,
    /// It has no state yet, and its peer is active.
    NoState,
}

impl RoleRefusal {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            RoleRefusal::NoPair => "no-pair",
            RoleRefusal::NoStandby => "no-standby",
            RoleRefusal::NoState => "no-state",
        }
    }
}
