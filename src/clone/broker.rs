//! The [`Broker`]: keeps the state, gives each change its sequence, serves snapshots.

mod config;
mod recent;
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
use self::snapshots::{Request, Slice, Snapshots};
use self::watched::{Watch, Watched};
use super::SendFailure;
use super::kvmsg::{HUGZ, ICANHAZ, KvMsg, STATUS, Uuid, check_key, is_reserved};
use super::properties::{Properties, PropertiesBuf};
use super::sequence::Sequence;
use super::store::{Change, Entry, Store};
use crate::message::Message;
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

/// Subscribers that come within this time of one another share a heartbeat, so
/// that a thousand joins do not send a million heartbeats.
const ANSWER_INTERVAL: Duration = Duration::from_millis(1);

/// Properties that are between a client and the broker; what remains of a time
/// to live is told anew in each message.
const HOP_BY_HOP: [&str; 3] = ["ttl", "ttlms", "retry"];

/// What the lines `ttl=` and `ttlms=` can add to the properties of an entry, which
/// must stay within the limit that clients keep.
const TTL_ROOM: usize = "ttl=\nttlms=\n".len() + 2 * 20;

/// A shorter interval would take the loop for itself.
const MIN_HEARTBEAT: Duration = Duration::from_millis(1);

/// Expired keys deleted in one call, between which everything else is served.
const EXPIRY_BATCH: usize = 256;

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

    // Changes -------------------------------------------------------------

    /// Handles a message from P+2: a `KVSET`.
    pub fn handle_change(&mut self, now: Time, message: Message<'_>, out: &mut impl BrokerOutbox) {
        let change = match KvMsg::decode(message, &self.config.limits) {
            Ok(change) => change,
            Err(error) => {
                self.stats.changes_malformed += 1;
                warn_rarely(self.stats.changes_malformed, "change dropped", &error);
                return self.refuse_malformed(message, out);
            }
        };
        if is_reserved(change.key) {
            self.stats.changes_reserved += 1;
            warn_rarely(self.stats.changes_reserved, "change dropped", &"the key is reserved");
            return self.answer(&change, Answer::Refused("reserved-key"), out);
        }
        if let Some(known) = change.uuid.and_then(|uuid| self.recent.get(&uuid)) {
            self.stats.changes_repeated += 1;
            return self.answer(&change, Answer::Applied(known), out);
        }
        if self.may_be_a_forgotten_repeat(now, &change) {
            self.stats.changes_forgotten += 1;
            return self.answer(&change, Answer::Refused("forgotten"), out);
        }
        let ttl = self.read_ttl(change.properties);
        let size = change.properties.as_bytes().len();
        if ttl.is_some() && size + TTL_ROOM > self.config.limits.max_properties {
            self.stats.changes_malformed += 1;
            let why = "no room in its properties for the time to live";
            warn_rarely(self.stats.changes_malformed, "change refused", &why);
            return self.answer(&change, Answer::Refused("properties-too-large"), out);
        }
        if let Err(reason) = self.apply(now, &change, ttl, out) {
            warn_rarely(self.stats.changes_store_full, "change refused", &reason);
            self.answer(&change, Answer::Refused(reason), out);
        }
    }

    /// Sets a key from within the process, as a change without uuid.
    ///
    /// # Errors
    /// The limit that refuses it, in words.
    pub fn set(
        &mut self,
        now: Time,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
        out: &mut impl BrokerOutbox,
    ) -> Result<Sequence, String> {
        let limits = &self.config.limits;
        check_key(key, limits).map_err(|error| error.to_string())?;
        if value.is_empty() || value.len() > limits.max_value {
            return Err(format!(
                "value: expected 1 to {} bytes, got {}",
                limits.max_value,
                value.len()
            ));
        }
        let change = local_change(key, value);
        self.apply(now, &change, ttl, out).map_err(|reason| format!("store: {reason}"))?;
        Ok(self.sequence)
    }

    /// Deletes a key from within the process. False: it was not there.
    pub fn delete(&mut self, now: Time, key: &[u8], out: &mut impl BrokerOutbox) -> bool {
        // A deletion of a key that is there reaches no limit but the last sequence.
        self.get(key).is_some() && self.apply(now, &local_change(key, b""), None, out).is_ok()
    }

    /// Gives a change its sequence, stores and publishes it.
    fn apply(
        &mut self,
        now: Time,
        change: &KvMsg<'_>,
        ttl: Option<Duration>,
        out: &mut impl BrokerOutbox,
    ) -> Result<(), &'static str> {
        if self.sequence == Sequence::MAX {
            // To give a number twice would be worse than to stop.
            self.stats.changes_store_full += 1;
            return Err("no-sequence-left");
        }
        let sequence = self.sequence.next();
        let mut properties = change.properties;
        if HOP_BY_HOP.iter().any(|name| properties.get(name).is_some()) {
            self.scratch.clear();
            self.scratch.copy_except(change.properties, &HOP_BY_HOP);
            properties = self.scratch.as_properties();
        }
        if change.body.is_empty() {
            if !self.store.delete(change.key, sequence, change.uuid, properties) {
                self.store.advance(sequence);
            }
        } else {
            let stored = self.store.put(&Change {
                key: change.key,
                sequence,
                uuid: change.uuid,
                properties,
                value: change.body,
                deadline: ttl.map(|ttl| now + ttl),
            });
            if let Err(full) = stored {
                self.stats.changes_store_full += 1;
                return Err(full.reason());
            }
        }
        if let Some(uuid) = change.uuid {
            self.recent.insert(uuid, sequence, now);
        }
        self.sequence = sequence;
        let properties = match ttl.filter(|_| !change.body.is_empty()) {
            None => properties,
            Some(ttl) => with_ttl(properties, ttl, &mut self.ttl_scratch),
        };
        self.published += 1;
        self.watched.published(change.key, sequence);
        self.stats.changes_applied += 1;
        let message = KvMsg { sequence, properties, ..*change };
        publish(&message, &mut self.stats, out);
        Ok(())
    }

    /// What a `ttl` property means: `None` for none, zero and nonsense.
    fn read_ttl(&mut self, properties: Properties<'_>) -> Option<Duration> {
        if properties.is_empty() {
            return None;
        }
        if let Some(ms) = properties.parse::<u64>("ttlms") {
            return (ms > 0).then(|| Duration::from_millis(ms));
        }
        let text = properties.get("ttl")?;
        let seconds = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
        match seconds {
            Some(0.0) => None,
            Some(seconds) if seconds > 0.0 => Duration::try_from_secs_f64(seconds).ok(),
            _ => {
                self.stats.ttl_malformed += 1;
                warn_rarely(
                    self.stats.ttl_malformed,
                    "ttl ignored",
                    &format_args!("expected seconds, got \"{}\"", text.escape_ascii()),
                );
                None
            }
        }
    }

    /// A change that says it was sent before, by a client whose first sending
    /// may lie before everything the window of uuids remembers.
    fn may_be_a_forgotten_repeat(&self, now: Time, change: &KvMsg<'_>) -> bool {
        change.uuid.is_some()
            && change.properties.parse::<u64>("retry").is_some_and(|age_ms| {
                self.recent.may_have_forgotten(now - Duration::from_millis(age_ms))
            })
    }

    /// Refuses a change that broke a limit, if its sender can still be made out.
    fn refuse_malformed(&mut self, message: Message<'_>, out: &mut impl BrokerOutbox) {
        let (Some(key), Some(uuid)) = (message.get(0), message.get(2)) else { return };
        if let Ok(uuid) = uuid.try_into() {
            let uuid = Some(Uuid::from_bytes(uuid));
            let change = KvMsg { uuid, ..local_change(key, b"") };
            self.answer(&change, Answer::Refused("malformed"), out);
        }
    }

    /// Tells the sender of a change what became of it, by a heartbeat to each
    /// watched subtree that covers the key.
    fn answer(&mut self, change: &KvMsg<'_>, answer: Answer, out: &mut impl BrokerOutbox) {
        let Some(uuid) = change.uuid else { return };
        self.refresh_capabilities();
        let whole = self.whole_tree();
        for (prefix, watch) in self.watched.covering(change.key) {
            let watch = if prefix.is_empty() { whole } else { watch };
            let beat = Heartbeat { prefix, watch, answer: Some((uuid, answer)) };
            beat.publish(&self.capabilities, &mut self.scratch, &mut self.stats, out);
        }
    }

    fn expire(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let mut key = std::mem::take(&mut self.expired_key);
        for _ in 0..EXPIRY_BATCH {
            if !self.store.pop_expired(now, &mut key) {
                break;
            }
            let properties = Properties::from_checked(b"why=expired\n");
            let change = KvMsg { properties, ..local_change(&key, b"") };
            self.stats.expired += 1;
            if let Err(reason) = self.apply(now, &change, None, out) {
                log::error!("a key could not be expired: {reason}");
            }
        }
        self.expired_key = key;
    }

    // Subscriptions and heartbeats -----------------------------------------

    /// Handles a message from the XPUB on P+1: a subscription (first byte 1)
    /// or its end (0), then the topic. The XPUB must pass on every
    /// subscription (`XPUB_VERBOSE`) and the last unsubscription of a topic.
    pub fn handle_subscription(&mut self, now: Time, message: Message<'_>) {
        let Some((&verb, topic)) = message.get(0).and_then(<[u8]>::split_first) else { return };
        let Some(prefix) = topic.strip_prefix(HUGZ) else { return };
        // Its heartbeat must be a message that clients can decode.
        let sound = prefix.is_empty() || check_key(prefix, &self.config.limits).is_ok();
        match verb {
            1 => {
                let first = !self.watched.any_asked();
                if !sound || !self.watched.subscribe(prefix, self.sequence, self.published) {
                    self.stats.watches_refused += 1;
                    warn_rarely(
                        self.stats.watches_refused,
                        "no heartbeat for a subtree",
                        &"it is no possible key, or the limit of watched subtrees is reached",
                    );
                } else if first {
                    self.answer_at = self.answer_at.max(now);
                }
            }
            0 => self.watched.unsubscribe(prefix),
            _ => {}
        }
    }

    fn send_heartbeats(
        &mut self,
        now: Time,
        due: impl Fn(&Watch) -> bool,
        out: &mut impl BrokerOutbox,
    ) {
        self.refresh_capabilities();
        self.answer_at = now + ANSWER_INTERVAL;
        let whole = self.whole_tree();
        let watched = self.watched.due(&due);
        // The heartbeat of RFC 12 goes out whether or not somebody was seen to subscribe.
        let has_plain = watched.first().is_some_and(|(prefix, _)| prefix.is_empty());
        let plain = (!has_plain && due(&whole)).then_some((&b""[..], whole));
        for (prefix, watch) in plain.into_iter().chain(watched) {
            let watch = if prefix.is_empty() { whole } else { watch };
            let beat = Heartbeat { prefix, watch, answer: None };
            beat.publish(&self.capabilities, &mut self.scratch, &mut self.stats, out);
        }
        self.watched.clear_asked();
    }

    fn whole_tree(&self) -> Watch {
        Watch::new(self.sequence, self.published)
    }

    fn refresh_capabilities(&mut self) {
        let (config, to) = (&self.config, &mut self.capabilities);
        to.clear();
        to.push("chp", 2);
        to.push("node", format_args!("{:016x}", config.node));
        to.push("epoch", self.sequence.epoch());
        to.push("role", "active");
        to.push("collector", config.collector.name());
        to.push("hb", config.heartbeat.as_millis());
        to.push("maxkey", config.limits.max_key);
        to.push("maxval", config.limits.max_value);
        to.push("stable", self.sequence.get());
    }

    // Requests ---------------------------------------------------------------

    /// Handles a message from port P without its routing id, which is `peer`.
    pub fn handle_request(
        &mut self,
        peer: &[u8],
        message: Message<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        let delimited = message.len() > 1 && message.get(0) == Some(b"");
        let request = if delimited { message.skip(1) } else { message };
        match *request.frames() {
            [ICANHAZ] => self.take_request(peer, delimited, b"", None),
            [ICANHAZ, subtree] => self.take_request(peer, delimited, subtree, None),
            [ICANHAZ, subtree, properties] => {
                let since = Properties::check(properties, &self.config.limits)
                    .ok()
                    .and_then(|properties| properties.parse::<u64>("since"))
                    .map(Sequence::from_u64)
                    // This run never gave it: it means nothing here.
                    .filter(|since| *since <= self.sequence);
                self.take_request(peer, delimited, subtree, since);
            }
            [STATUS] => self.send_status(peer, delimited, out),
            _ => {
                self.stats.requests_malformed += 1;
                let verb = request.get(0).unwrap_or_default();
                warn_rarely(
                    self.stats.requests_malformed,
                    "request dropped",
                    &format_args!(
                        "expected ICANHAZ? with a subtree, or STATUS?; got {} frame(s), the first \
                         \"{}\"",
                        request.len(),
                        verb[..verb.len().min(32)].escape_ascii()
                    ),
                );
            }
        }
    }

    fn take_request(
        &mut self,
        peer: &[u8],
        delimited: bool,
        subtree: &[u8],
        since: Option<Sequence>,
    ) {
        let outcome = if subtree.len() > self.config.limits.max_key {
            Err("the subtree is longer than any key")
        } else {
            self.snapshots.push(peer, Request { delimited, subtree: subtree.into(), since })
        };
        match outcome {
            Ok(()) => self.stats.snapshots_requested += 1,
            Err(reason) => {
                self.stats.snapshots_refused += 1;
                warn_rarely(self.stats.snapshots_refused, "snapshot refused", &reason);
            }
        }
    }

    fn serve_snapshots(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if self.snapshots.len() == 0 {
            return;
        }
        self.refresh_capabilities();
        let mut slice = Slice {
            store: &mut self.store,
            stats: &mut self.stats,
            scratch: &mut self.scratch,
            capabilities: &self.capabilities,
            now,
        };
        self.snapshots.serve(&mut slice, out);
    }

    fn send_status(&mut self, peer: &[u8], delimited: bool, out: &mut impl BrokerOutbox) {
        self.stats.status_requests += 1;
        self.refresh_capabilities();
        let to = &mut self.scratch;
        to.clear();
        to.copy_except(self.capabilities.as_properties(), &[]);
        to.push("sequence", self.sequence.get());
        to.push("keys", self.store.len());
        to.push("bytes", self.store.bytes());
        to.push("tombstones", self.store.tombstones());
        to.push("watched_subtrees", self.watched.len());
        to.push("snapshots_active", self.snapshots.len());
        to.push("uuids_remembered", self.recent.len());
        for (name, count) in self.stats.fields() {
            to.push(name, count);
        }
        let status = KvMsg {
            key: STATUS,
            sequence: self.sequence,
            uuid: None,
            properties: to.as_properties(),
            body: b"",
        };
        let sent = status.with_frames(|frames| match delimited {
            false => out.reply(peer, frames),
            true => {
                let [key, sequence, uuid, properties, body] = *frames;
                out.reply(peer, &[b"", key, sequence, uuid, properties, body])
            }
        });
        if let Err(failure) = sent {
            log::debug!("the answer to STATUS? was not taken: {failure:?}");
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Applied(Sequence),
    Refused(&'static str),
}

struct Heartbeat<'a> {
    prefix: &'a [u8],
    watch: Watch,
    answer: Option<(Uuid, Answer)>,
}

impl Heartbeat<'_> {
    fn publish(
        &self,
        capabilities: &PropertiesBuf,
        scratch: &mut PropertiesBuf,
        stats: &mut BrokerStats,
        out: &mut impl BrokerOutbox,
    ) {
        scratch.clear();
        scratch.copy_except(capabilities.as_properties(), &[]);
        scratch.push("published", self.watch.published);
        match self.answer {
            Some((_, Answer::Applied(sequence))) => scratch.push("applied", sequence.get()),
            Some((_, Answer::Refused(reason))) => scratch.push("refused", reason),
            None => scratch,
        };
        let mut key = Vec::with_capacity(HUGZ.len() + self.prefix.len());
        key.extend_from_slice(HUGZ);
        key.extend_from_slice(self.prefix);
        let message = KvMsg {
            key: &key,
            sequence: self.watch.sequence,
            uuid: self.answer.map(|(uuid, _)| uuid),
            properties: scratch.as_properties(),
            body: b"",
        };
        stats.heartbeats += 1;
        publish(&message, stats, out);
    }
}

fn publish(message: &KvMsg<'_>, stats: &mut BrokerStats, out: &mut impl BrokerOutbox) {
    if let Err(failure) = message.with_frames(|frames| out.publish(frames)) {
        stats.publish_failed += 1;
        warn_rarely(stats.publish_failed, "not published", &format_args!("{failure:?}"));
    }
}

fn local_change<'a>(key: &'a [u8], body: &'a [u8]) -> KvMsg<'a> {
    KvMsg { key, sequence: Sequence::ZERO, uuid: None, properties: Properties::EMPTY, body }
}

/// `properties` with what remains of a time to live: whole seconds, rounded up,
/// for peers of RFC 12, and milliseconds. At least one of each, since zero
/// means *for ever*.
fn with_ttl<'a>(
    properties: Properties<'_>,
    remaining: Duration,
    scratch: &'a mut PropertiesBuf,
) -> Properties<'a> {
    let ms = remaining.as_nanos().div_ceil(1_000_000).max(1);
    scratch.clear();
    scratch.copy_except(properties, &[]);
    scratch.push("ttl", ms.div_ceil(1000));
    scratch.push("ttlms", ms);
    scratch.as_properties()
}

/// Logs the first of its kind and then each that doubles the count, so that a
/// flood of bad input does not become a flood of log lines.
fn warn_rarely(count: u64, what: &str, why: &dyn std::fmt::Display) {
    if count.is_power_of_two() {
        log::warn!("{what} ({count} so far): {why}");
    }
}
