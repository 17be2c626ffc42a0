//! A broker that serves what another one keeps: the relay, as the protocol's section
//! *Relay* ([`protocol`](super::protocol)) has it.
//!
//! A [`Broker`](super::broker::Broker) made by [`Broker::relay`] has no history of its
//! own. It follows an *upstream*, which is a broker, the active of a pair, or a relay
//! again, keeps a copy of the state or of a subtree under the upstream's sequences, and
//! serves its clients from it. Their changes it forwards. Beside its own three ports it
//! has connections to one of the servers that it was told of:
//!
//! | connection | what it sends | what comes goes to |
//! |---|---|---|
//! | SUB to P+1; [`BrokerOutbox::open_upstream`], [`BrokerOutbox::close_follow`] | | [`Broker::handle_peer_update`] |
//! | DEALER to P, new with each [`BrokerOutbox::open_sync`] | [`BrokerOutbox::request_sync`] | [`Broker::handle_peer_snapshot`] |
//! | PUSH or PUB to P+2; [`BrokerOutbox::open_forward`] | [`BrokerOutbox::forward`] | |
//!
//! [`Broker::relay`]: super::broker::Broker::relay
//! [`Broker::handle_peer_update`]: super::broker::Broker::handle_peer_update
//! [`Broker::handle_peer_snapshot`]: super::broker::Broker::handle_peer_snapshot
//! [`BrokerOutbox::open_upstream`]: super::broker::BrokerOutbox::open_upstream
//! [`BrokerOutbox::close_follow`]: super::broker::BrokerOutbox::close_follow
//! [`BrokerOutbox::open_sync`]: super::broker::BrokerOutbox::open_sync
//! [`BrokerOutbox::request_sync`]: super::broker::BrokerOutbox::request_sync
//! [`BrokerOutbox::open_forward`]: super::broker::BrokerOutbox::open_forward
//! [`BrokerOutbox::forward`]: super::broker::BrokerOutbox::forward

use std::time::Duration;

/// What a relay is told of its upstream, and its limits.
///
/// ```
/// use pollux::clone::relay::RelayConfig;
/// use pollux::node::{BrokerNode, BrokerOptions};
///
/// let mut relay = RelayConfig::new(vec!["tcp://10.0.0.1:5556".to_owned()]);
/// relay.subtree = b"/config/".to_vec();
/// let mut options = BrokerOptions::default();
/// options.follow = Some(relay);
/// let relay = BrokerNode::bind(&zmq::Context::new(), "inproc://doc-relay", options)?;
/// assert!(relay.machine().relay_stats().is_some());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RelayConfig {
    /// The names of the servers that can be the upstream, one at least: their endpoints,
    /// for the log and for `STATUS?`.
    pub servers: Vec<String>,
    /// Only keys that begin so; all if it is empty. Default empty.
    pub subtree: Vec<u8>,
    /// Changes of clients kept until they are safe upstream. Beyond it those that are
    /// applied are forgotten, the oldest first; if none is, further ones are refused
    /// (`relay-full`). Default 100,000.
    pub forward_count: usize,
    /// Bytes of them. Default 64 MiB.
    pub forward_bytes: usize,
    /// How long a change waits for the upstream. One that could not be sent is then
    /// refused (`upstream-lost`); one that was sent, and had no answer, is forgotten, as it
    /// may have been applied. Default 60 s.
    pub forward_age: Duration,
    /// Changes of the upstream that wait while a snapshot is under way. Default 1,000,000.
    pub backlog_count: usize,
    /// Bytes of them. Default 256 MiB.
    pub backlog_bytes: usize,
    /// Requests of clients held while there is no state, or while it is behind theirs.
    /// Beyond it one is dropped: of those that ask for what is furthest ahead the oldest.
    /// Default 4,096.
    pub held_requests: usize,
}

impl RelayConfig {
    /// The defaults, for a relay that follows one of these servers, of which it takes the
    /// first that serves.
    pub fn new(servers: Vec<String>) -> RelayConfig {
        RelayConfig {
            servers,
            subtree: Vec::new(),
            forward_count: 100_000,
            forward_bytes: 64 << 20,
            forward_age: Duration::from_secs(60),
            backlog_count: 1_000_000,
            backlog_bytes: 256 << 20,
            held_requests: 4096,
        }
    }
}
