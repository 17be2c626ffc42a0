//! The [`Broker`]: keeps the state, gives each change its sequence, serves snapshots.

mod changes;
mod config;
mod heartbeats;
mod recent;
mod refused;
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

use self::recent::Recent;
use self::refused::Refused;
use self::snapshots::Snapshots;
use self::watched::Watched;
use super::SendFailure;
use super::kvmsg::KvMsg;
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
}

/// The broker's state machine: no sockets, no clock, no randomness.
///
/// * Input: [`handle_change`](Broker::handle_change) (P+2),
///   [`handle_request`](Broker::handle_request) (P),
///   [`handle_subscription`](Broker::handle_subscription) (P+1),
///   [`handle_timeout`](Broker::handle_timeout),
///   [`handle_writable`](Broker::handle_writable). They take `now`, which must not go back,
///   and write what is to be sent into a [`BrokerOutbox`].
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
    heartbeat_at: Time,
    /// Heartbeats asked for by a subscription are due then.
    answer_at: Time,
    /// The properties every heartbeat and `KTHXBAI` carries.
    capabilities: PropertiesBuf,
    scratch: PropertiesBuf,
    ttl_scratch: PropertiesBuf,
    expired_key: Vec<u8>,
}

/// A shorter interval would take the loop for itself.
const MIN_HEARTBEAT: Duration = Duration::from_millis(1);

impl Broker {
    /// A broker that is active at once, with an empty store.
    pub fn new(mut config: BrokerConfig, now: Time) -> Broker {
        config.heartbeat = config.heartbeat.max(MIN_HEARTBEAT);
        let start = config.start;
        Broker {
            store: Store::new(config.store, start),
            sequence: start,
            published: 0,
            recent: Recent::new(config.recent_count, config.recent_age),
            refused: Refused::new(config.recent_age),
            watched: Watched::new(config.max_watched),
            snapshots: Snapshots::new(config.snapshots),
            stats: BrokerStats::default(),
            heartbeat_at: now,
            answer_at: Time::ZERO,
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
        let mut next = self.heartbeat_at;
        if self.watched.any_asked() {
            next = next.min(self.answer_at);
        }
        for other in [self.store.next_deadline(), self.snapshots.next_deadline()] {
            next = next.min(other.unwrap_or(Time::NEVER));
        }
        Some(next)
    }

    /// Does what is due: heartbeats, expiries, one slice of a snapshot.
    pub fn handle_timeout(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + self.config.heartbeat;
            self.send_heartbeats(now, |_| true, out);
            self.watched.end_round();
        } else if self.watched.any_asked() && now >= self.answer_at {
            self.send_heartbeats(now, |watch| watch.asked, out);
        }
        self.expire(now, out);
        self.serve_snapshots(now, out);
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
