//! The [`Broker`]: keeps the state, gives each change its sequence, serves snapshots.

mod changes;
mod config;
mod follow;
mod heartbeats;
mod owned;
mod pair;
mod recent;
mod refused;
mod relay;
mod requests;
mod snapshots;
mod stats;
#[cfg(test)]
mod tests;
mod watched;

use std::time::Duration;

pub use config::BrokerConfig;
pub use snapshots::SnapshotLimits;
pub use stats::BrokerStats;

use self::follow::{Follow, FollowStats};
use self::heartbeats::Rounds;
use self::pair::Pair;
pub use self::pair::PairStats;
use self::recent::Recent;
use self::refused::Refused;
use self::relay::Relay;
pub use self::relay::RelayStats;
use self::snapshots::Snapshots;
use self::watched::Watched;
use super::SendFailure;
use super::collector::Collector;
use super::fault::Fault;
use super::kvmsg::KvMsg;
use super::pair::{Lineage, Role, Root};
use super::properties::PropertiesBuf;
use super::sequence::Sequence;
use super::store::{Entry, Store};
use crate::time::Time;

/// Where a [`Broker`] puts its messages.
///
/// An implementation writes at once, into sockets or into a virtual network; it
/// keeps nothing back, so that the order of calls is the order on the wire.
pub trait BrokerOutbox {
    /// Sends a message to one client on port P, by the routing id its request came with.
    ///
    /// # Errors
    /// [`SendFailure::WouldBlock`] if the client's queue is full, then nothing was
    /// sent; [`SendFailure::Unreachable`] if the client is gone.
    fn reply(&mut self, peer: &[u8], frames: &[&[u8]]) -> Result<(), SendFailure>;

    /// Publishes a message to all subscribers on P+1.
    ///
    /// # Errors
    /// Any failure means that no subscriber can get the message; those that
    /// should have had it will notice the gap.
    fn publish(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure>;

    /// Sends a message to the peer's port P, on the connection that stands (see
    /// [`pair`](crate::clone::pair)). A lone broker has none.
    ///
    /// # Errors
    /// Any: the peer does not get it.
    fn tell_peer(&mut self, _frames: &[&[u8]]) -> Result<(), SendFailure> {
        Err(SendFailure::Unreachable)
    }

    /// Opens a SUB at the updates port of the server with this number in a relay's list,
    /// in place of one opened earlier, of which nothing may come any more: with the topics
    /// `subtree`, `HUGZ` + `subtree`, and `STATUS?`, in this order (see
    /// [`relay`](crate::clone::relay)). What is opened next is opened there.
    fn open_upstream(&mut self, _server: usize, _subtree: &[u8]) {}

    /// Subscribes anew to `HUGZ` + `subtree` on that SUB, so that the heartbeat comes at once.
    fn ask_heartbeat(&mut self) {}

    /// Closes that SUB.
    fn close_follow(&mut self) {}

    /// Opens the socket for changes at a relay's upstream, a PUSH for
    /// [`Collector::Pull`], a PUB for [`Collector::Sub`], in place of one opened earlier.
    fn open_forward(&mut self, _collector: Collector) {}

    /// Sends a change on it.
    ///
    /// # Errors
    /// Any: it was not sent, and is tried again after
    /// [`Broker::handle_forward_room`] or a while.
    fn forward(&mut self, _frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        Err(SendFailure::Unreachable)
    }

    /// Opens a DEALER at the port P of the peer or the upstream for the next request, in place of one
    /// opened earlier, of which nothing may come any more.
    fn open_sync(&mut self) {}

    /// Sends a request on that DEALER, where it may wait for the connection.
    ///
    /// # Errors
    /// Any: the request was not sent.
    fn request_sync(&mut self, _frames: &[&[u8]]) -> Result<(), SendFailure> {
        Err(SendFailure::Unreachable)
    }
}

/// The broker's state machine: no sockets, no clock, no randomness.
///
/// * Input: [`handle_change`](Broker::handle_change) (P+2),
///   [`handle_request`](Broker::handle_request) (P),
///   [`handle_subscription`](Broker::handle_subscription) (P+1),
///   [`handle_timeout`](Broker::handle_timeout),
///   [`handle_writable`](Broker::handle_writable). They take `now`, which must not go back,
///   and write what is to be sent into a [`BrokerOutbox`]. Who has several changes at hand
///   may [`prefetch`](Broker::prefetch) before.
/// * Time: after any input ask [`next_deadline`](Broker::next_deadline), and call
///   `handle_timeout` when it is reached.
/// * Direct use by the process that holds it: [`get`](Broker::get), [`set`](Broker::set),
///   [`delete`](Broker::delete).
///
/// Whatever arrives from the network is applied, answered, or counted in
/// [`stats`](Broker::stats) and logged; nothing of it can make the broker panic or wait.
#[derive(Debug)]
pub struct Broker {
    config: BrokerConfig,
    store: Store,
    sequence: Sequence,
    /// Changes published since the start.
    published: u64,
    recent: Recent,
    refused: Refused,
    watched: Watched,
    snapshots: Snapshots,
    stats: BrokerStats,
    /// Only an active broker takes changes, expires keys and answers.
    role: Role,
    /// The history of what is in the store.
    lineage: Lineage,
    /// Its part in a pair.
    pair: Option<Box<Pair>>,
    /// What it knows as a relay.
    relay: Option<Box<Relay>>,
    /// The broker that it follows: as a standby, or as a relay.
    follow: Option<Follow>,
    follow_stats: FollowStats,
    /// No key expires before this.
    expire_from: Time,
    /// Somebody asked by a subscription what it is.
    status_asked: bool,
    /// When heartbeats are due.
    rounds: Rounds,
    /// The properties every heartbeat and `KTHXBAI` carries.
    capabilities: PropertiesBuf,
    scratch: PropertiesBuf,
    ttl_scratch: PropertiesBuf,
    expired_key: Vec<u8>,
}

/// A shorter interval would take the loop for itself.
const MIN_HEARTBEAT: Duration = Duration::from_millis(1);
/// A longer one nobody believes.
const MAX_HEARTBEAT: Duration = Duration::from_secs(3600);

impl Broker {
    /// A broker with an empty store: active at once if it is alone; one of a pair
    /// looks for its peer first.
    pub fn new(mut config: BrokerConfig, now: Time) -> Broker {
        config.heartbeat = config.heartbeat.clamp(MIN_HEARTBEAT, MAX_HEARTBEAT);
        let start = match config.pair {
            None => config.start,
            Some(pair) => pair.seat.start(config.start),
        };
        Broker {
            store: Store::new(config.store, start),
            sequence: start,
            published: 0,
            recent: new_window(&config),
            refused: Refused::new(config.recent_age),
            watched: Watched::new(config.max_watched),
            snapshots: Snapshots::new(config.snapshots),
            stats: BrokerStats::default(),
            role: if config.pair.is_some() { Role::Starting } else { Role::Active },
            lineage: Lineage::new(Root { start, node: config.node }),
            pair: config.pair.map(|pair| Box::new(Pair::new(pair, now))),
            relay: None,
            follow: None,
            follow_stats: FollowStats::default(),
            expire_from: Time::ZERO,
            status_asked: false,
            rounds: Rounds::new(now),
            capabilities: PropertiesBuf::new(),
            scratch: PropertiesBuf::new(),
            ttl_scratch: PropertiesBuf::new(),
            expired_key: Vec::new(),
            config,
        }
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// The sequence given last.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The state itself, for reading.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The entry of a key that is there.
    pub fn get(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.store.get(key).filter(|entry| !entry.value.is_empty())
    }

    /// Event counts since the start.
    pub fn stats(&self) -> BrokerStats {
        self.stats
    }

    /// When [`handle_timeout`](Broker::handle_timeout) is due; a time that has
    /// passed already means at once.
    pub fn next_deadline(&self) -> Option<Time> {
        let mut next = self.next_pair_deadline().min(self.next_relay_deadline());
        if self.status_asked {
            next = next.min(self.rounds.answer_at);
        }
        if !self.serves() {
            return Some(next);
        }
        next = next.min(self.rounds.due_at(self.config.heartbeat));
        if self.watched.any_asked() {
            next = next.min(self.rounds.answer_at);
        }
        let expiry = self.store.next_deadline().filter(|_| self.expires());
        let expiry = expiry.map(|expiry| expiry.max(self.expire_from));
        for other in [expiry, self.snapshots.next_deadline()] {
            next = next.min(other.unwrap_or(Time::NEVER));
        }
        Some(next)
    }

    /// Does what is due: heartbeats, expiries, one slice of a snapshot.
    pub fn handle_timeout(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if self.pair.is_some() {
            self.tend_pair(now, out);
        }
        if self.relay.is_some() {
            self.tend_relay(now, out);
        }
        if self.status_asked && now >= self.rounds.answer_at {
            self.publish_status(now, out);
        }
        if !self.serves() {
            return;
        }
        self.tend_heartbeats(now, out);
        if self.expires() {
            self.expire(now, out);
        }
        self.serve_snapshots(now, out);
    }

    /// Whether it answers clients and sends heartbeats.
    fn serves(&self) -> bool {
        matches!(self.role, Role::Active | Role::Relay)
    }

    /// Whether it deletes what has expired: what a relay has, whose history it is does.
    fn expires(&self) -> bool {
        let is_mistaken = self.role == Role::Relay && Fault::ExpireInARelay.is_planted();
        self.role == Role::Active || is_mistaken
    }

    /// Whether the store holds a whole state, be it empty.
    fn has_state(&self) -> bool {
        match (&self.pair, &self.relay) {
            (Some(pair), _) => pair.has_state(),
            (None, Some(relay)) => relay.has_state(),
            (None, None) => true,
        }
    }

    fn set_state(&mut self, has_state: bool) {
        match (&mut self.pair, &mut self.relay) {
            (Some(pair), _) => pair.set_state(has_state),
            (None, Some(relay)) => relay.set_state(has_state),
            (None, None) => {}
        }
    }

    /// A client's queue has room again: its snapshot goes on at the next
    /// [`handle_timeout`](Broker::handle_timeout), which is then due at once.
    pub fn handle_writable(&mut self) {
        self.snapshots.unblock();
    }

    /// A change that [`BrokerOutbox::publish`] took could not be published after
    /// all: counted; those that should have had it will notice the gap.
    pub(crate) fn handle_unpublished(&mut self, why: &dyn std::fmt::Display) {
        self.stats.publish_failed += 1;
        warn_rarely(self.stats.publish_failed, "not published", why);
    }
}

/// An empty window of uuids. Of a pair, each takes over the other's.
fn new_window(config: &BrokerConfig) -> Recent {
    Recent::new(config.recent_count, config.recent_age, config.pair.is_some())
}

#[inline]
fn publish(message: &KvMsg<'_>, stats: &mut BrokerStats, out: &mut impl BrokerOutbox) {
    if let Err(failure) = message.with_frames(|frames| out.publish(frames)) {
        stats.publish_failed += 1;
        warn_rarely(stats.publish_failed, "not published", &format_args!("{failure:?}"));
    }
}

/// Logs the first of its kind and then each that doubles the count, so that a
/// flood of bad input does not become a flood of log lines.
fn warn_rarely(count: u64, what: &str, why: &dyn std::fmt::Display) {
    if count.is_power_of_two() {
        log::warn!("{what} ({count} so far): {why}");
    }
}
