//! [`BrokerOptions`]: what a [`BrokerNode`](super::BrokerNode) is made with.

use std::io;

use crate::clone::Sequence;
use crate::clone::broker::BrokerConfig;
use crate::clone::relay::RelayConfig;
use crate::node::Endpoints;

/// The longest subtree that can be followed: subscriptions longer than 245 bytes do not
/// reach libzmq's other end, and that to its heartbeat has four more.
const MAX_RELAYED: usize = 240;

/// What a [`BrokerNode`](super::BrokerNode) is made with, beyond its machine's [`BrokerConfig`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BrokerOptions {
    /// The machine's configuration. `node` and `start` are new with each
    /// process unless set.
    pub config: BrokerConfig,
    /// Messages kept for a subscriber that is slow to read, before it misses
    /// some, notices, and resynchronises. Default 100,000. The limit counts
    /// messages, not bytes: what is kept for all slow subscribers together is shared,
    /// so it costs at most about this many values. With large values set it lower.
    pub updates_hwm: u32,
    /// Messages of a snapshot in flight for one client. Default 4,096. Messages, not
    /// bytes: a client that does not read holds so many values for up to
    /// [`stall`](crate::clone::broker::SnapshotLimits::stall), or until it
    /// disconnects. With large values set it lower.
    pub snapshot_hwm: u32,
    /// Changes that may wait to be read from one sender, who is then held
    /// back. Default 10,000.
    pub changes_hwm: u32,
    /// Where the peer is, the first of its ports; needed if the configuration
    /// has a [`pair`](BrokerConfig::pair). Default `None`.
    pub peer: Option<String>,
    /// Makes it a relay, which follows one of these [servers](RelayConfig::servers), each
    /// named by the first of its ports, in place of a broker with a history of its own.
    /// Default `None`.
    pub follow: Option<RelayConfig>,
}

impl Default for BrokerOptions {
    /// A broker with a name of its own, whose sequences begin above those of
    /// any earlier run (the clock of the machine tells).
    fn default() -> BrokerOptions {
        BrokerOptions {
            config: BrokerConfig::new(
                crate::node::random_u64(),
                Sequence::at_start(crate::node::unix_time()),
            ),
            updates_hwm: 100_000,
            snapshot_hwm: 4096,
            changes_hwm: 10_000,
            peer: None,
            follow: None,
        }
    }
}

/// Where a relay looks for its upstream.
pub(super) fn upstreams(own: &str, relay: &RelayConfig) -> io::Result<Vec<Endpoints>> {
    let invalid = |problem: String| Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    if relay.servers.is_empty() {
        return invalid("follow: expected an endpoint at least, got none".to_owned());
    }
    if relay.subtree.len() > MAX_RELAYED {
        let length = relay.subtree.len();
        return invalid(format!("subtree: expected at most {MAX_RELAYED} bytes, got {length}"));
    }
    if relay.servers.iter().any(|server| server == own) {
        return invalid(format!("follow: {own} is this relay itself; name the broker to follow"));
    }
    let servers = relay.servers.iter().map(|server| Endpoints::from_first(server));
    Ok(servers.collect::<Result<_, _>>()?)
}

/// Sequences have to rise from one run to the next, by the clock unless the
/// application knows better.
pub(super) fn check_start(start: Sequence) -> io::Result<()> {
    if start == Sequence::MAX {
        let problem = "start: no sequence lies above it; is the clock set beyond December 2040?";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    if start == Sequence::ZERO {
        log::warn!(
            "sequences begin at zero (a clock before 2025 does that): RFC 12 clients that know \
             an earlier run will ignore this one until they are restarted"
        );
    }
    Ok(())
}
