//! [`Client`]: a live copy of a broker's map, and changes to it.

mod attempt;
mod broker_info;
mod changes;
mod config;
mod difference;
mod echo;
mod event;
mod order;
mod outbox;
mod pending;
mod presence;
mod receive;
mod servers;
mod staging;
mod stats;
mod subtree;
mod sync;
mod timeouts;
mod topics;
mod tree;
mod ttl;

#[cfg(test)]
mod tests;

pub use broker_info::BrokerInfo;
pub use changes::SetError;
pub use config::{ClientConfig, ConfigError};
pub use event::{Event, ResyncReason, Why};
pub use outbox::ClientOutbox;
pub use stats::ClientStats;
pub use subtree::{SubtreeState, SubtreeStatus};
pub use tree::Entry;

use std::fmt;
use std::time::Duration;

use attempt::Attempt;
use difference::Next;
use echo::EchoKeys;
use event::{Events, Queued};
use pending::Pending;
use receive::Tells;
use servers::Servers;
use subtree::Subtree;
use topics::Topics;

use super::kvmsg::{HUGZ, Limits, STATUS, Uuid};
use super::properties::PropertiesBuf;
use super::sequence::Sequence;
use crate::clone::collector::Collector;
use crate::time::Time;

/// Servers that send no heartbeat (the Guide's Model Five) are asked all the
/// same after this long.
const HEARTBEATLESS: Duration = Duration::from_millis(1500);

/// A broker that knows the extensions answers the subscriptions to heartbeats of subtrees
/// within this time, unless thousands join at once. Else it is asked what it is.
const KIND_AFTER: Duration = Duration::from_millis(200);

/// A client: follows subtrees of a broker's map and changes keys of it.
///
/// A state machine: no sockets, no clock, no random source. Its owner carries
/// messages to it, gives it the time, and does what it asks through a
/// [`ClientOutbox`]. Three sockets belong to it: a SUB to the broker's updates
/// port, a DEALER to its snapshot port, a PUSH or PUB to its changes port (see
/// [`protocol`](super::protocol)).
///
/// # How to drive it
/// 1. Connect the SUB, call [`start`](Client::start) once.
/// 2. Each message of the SUB goes to [`handle_update`](Client::handle_update),
///    each of the DEALER opened last to
///    [`handle_snapshot`](Client::handle_snapshot). When the changes port may
///    take more after it would block, call
///    [`handle_writable`](Client::handle_writable).
/// 3. At [`next_deadline`](Client::next_deadline), which may have moved after
///    any of these calls, call [`handle_timeout`](Client::handle_timeout).
///    Calling it early does no harm. If messages wait that could not be handed in
///    yet, say so first by [`handle_backlog`](Client::handle_backlog).
/// 4. After each call, `set` and `delete` included, take events from
///    [`poll_event`](Client::poll_event) until there are none.
///
/// `now` must never go back from call to call.
///
/// # What it promises
/// * A subtree that [is current](Client::is_current) equals the broker's, up
///   to what is on the way and to losses of the last heartbeat interval.
/// * No key goes back to an older value, as long as the broker does not.
/// * After a loss the map stays readable as it was until a snapshot is whole.
/// * Each change ends with exactly one of `Applied`, `Refused`, `Superseded`
///   and `TimedOut`; where changes are kept until they are safe, `Applied` is followed by
///   exactly one of `Safe` and `NotSafe`.
/// * With [several servers](ClientConfig::servers) it follows the one that is active, and
///   sends there what the one before may have been alone to have.
/// * Nothing grows without limit, and no message can make it panic.
///
/// ```
/// use pollux::Time;
/// use pollux::clone::client::{Client, ClientConfig, ClientOutbox};
/// use pollux::clone::{Collector, SendFailure};
///
/// struct Sockets; // the SUB, the DEALER, the PUSH or PUB
/// impl ClientOutbox for Sockets {
///     fn subscribe(&mut self, topic: &[u8]) {}
///     fn unsubscribe(&mut self, topic: &[u8]) {}
///     fn open_requests(&mut self) {}
///     fn request(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
///         Ok(())
///     }
///     fn open_changes(&mut self, collector: Collector) {}
///     fn change(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
///         Ok(())
///     }
/// }
///
/// let seed = 0x5eed; // from the operating system's random source
/// let mut client = Client::new(ClientConfig::follow(["/room/"]), seed)?;
/// client.start(Time::ZERO, &mut Sockets);
///
/// let uuid = client.set(Time::ZERO, b"/room/1", b"open", None, &mut Sockets)?;
/// assert_eq!(client.get_local(b"/room/1"), Some(&b"open"[..]));
/// assert_eq!(client.get(b"/room/1"), None); // not confirmed
/// assert!(client.is_pending(uuid)); // until Event::Applied
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With servers of RFC 12, which neither count nor confirm, a loss under a
/// subtree that is not the whole tree goes unnoticed, and a change that is sent
/// again may be applied again.
pub struct Client {
    config: ClientConfig,
    /// In order of their prefixes, none the start of another.
    subtrees: Vec<Subtree>,
    topics: Topics,
    /// Whether the plain `HUGZ` is subscribed to.
    has_plain: bool,
    /// What the broker told; `None` before it did and after it was lost.
    broker: Option<BrokerInfo>,
    /// It was told that what serves is a relay which has lost its upstream.
    upstream_lost: bool,
    /// The socket for changes, if it is open.
    collector: Option<Collector>,
    /// Whether it leads to all servers.
    reaches_all: bool,
    servers: Servers,
    /// When the SUB last brought something.
    heard: Time,
    /// Whether that is not too long ago.
    is_online: bool,
    /// Whether this server sends heartbeats.
    has_heartbeats: bool,
    /// What they tell of an RFC 12 server.
    tells: Tells,
    /// When to ask a server that sends none.
    ask_unproven_at: Time,
    /// When to ask a server that was not heard what it is.
    ask_kind_at: Time,
    /// The sequence of the last change on the SUB.
    last: Option<Sequence>,
    /// Of a server of RFC 12 the number and name of its last change: another one under that
    /// number is of a run that has begun again.
    last_named: Option<(Sequence, Uuid)>,
    /// The highest sequence that any broker told.
    heard_of: Sequence,
    /// The request under way; one at a time.
    attempt: Option<Attempt>,
    /// Keys and bytes of all subtrees.
    keys: usize,
    bytes: usize,
    pending: Pending,
    echo: EchoKeys,
    /// The changes port would block: not before.
    blocked_until: Option<Time>,
    /// When a snapshot was last asked for to wake a wedged server.
    voted: Option<Time>,
    events: Events,
    stats: ClientStats,
    /// No deadline is earlier.
    wake: Time,
    /// Messages may wait that were not handed in: nothing is judged by its absence
    /// before this.
    behind_until: Time,
    /// The state of the generator for back-off times.
    random: u64,
    properties: PropertiesBuf,
}

impl Client {
    /// A client of this configuration. The uuids of its changes are made of
    /// `seed`, so no two clients of a broker may ever have the same, nor one after a
    /// restart: take it from the operating system's random source.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: ClientConfig, seed: u64) -> Result<Client, ConfigError> {
        let prefixes = config.checked_subtrees()?;
        let mut pending = Pending::new(seed);
        let subtrees =
            prefixes.iter().map(|prefix| Subtree::new(prefix, pending.open_list())).collect();
        Ok(Client {
            subtrees,
            topics: Topics::default(),
            has_plain: false,
            broker: None,
            upstream_lost: false,
            collector: None,
            reaches_all: false,
            servers: Servers::new(config.servers),
            heard: Time::ZERO,
            is_online: false,
            has_heartbeats: false,
            tells: Tells::Unknown,
            ask_unproven_at: Time::NEVER,
            ask_kind_at: Time::NEVER,
            last: None,
            last_named: None,
            heard_of: Sequence::ZERO,
            attempt: None,
            keys: 0,
            bytes: 0,
            pending,
            echo: EchoKeys::new(config.max_echo_keys, config.echo_directories),
            blocked_until: None,
            voted: None,
            events: Events::new(config.max_events),
            stats: ClientStats::default(),
            wake: Time::NEVER,
            behind_until: Time::ZERO,
            random: seed,
            properties: PropertiesBuf::new(),
            config,
        })
    }

    /// Subscribes; what follows comes by messages and timeouts. Call it once.
    pub fn start(&mut self, now: Time, out: &mut impl ClientOutbox) {
        // Subtrees first: the heartbeat then proves them.
        for subtree in &self.subtrees {
            self.topics.add(&subtree.prefix, out);
        }
        if self.servers.are_many() {
            self.topics.add(STATUS, out);
        }
        if self.needs_plain() {
            self.subscribe_plain(out);
        }
        self.subscribe_proofs(out);
        self.heard = now;
        self.ask_unproven_at = now + HEARTBEATLESS;
        self.ask_kind_soon(now);
        self.wake_at(self.ask_unproven_at);
        self.seek(now, out);
    }

    /// The next event, in order; `None` if nothing more happened.
    ///
    /// Take them all after each call: up to
    /// [`max_events`](ClientConfig::max_events) may wait, then those of keys are
    /// dropped with [`Event::Overrun`]. What a snapshot changed is found out
    /// here, event by event; keys that came out the same are passed over on the
    /// way, which takes about 0.2 µs each. Who lets events wait may be told the
    /// same state of a key twice, never an older one.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.poll_event_within(&mut { usize::MAX })
    }

    /// The same, for who has other work in between: takes one of `steps` for each
    /// event and each key passed over, and gives `None` when they are used up, too.
    /// Then [`has_events`](Client::has_events) tells whether to come back.
    pub fn poll_event_within(&mut self, steps: &mut usize) -> Option<Event> {
        while *steps > 0 {
            match self.events.front()? {
                Queued::Event(_) => match self.events.pop() {
                    Some(Queued::Event(event)) => {
                        *steps -= 1;
                        return Some(event);
                    }
                    _ => return None,
                },
                Queued::Difference(difference) => {
                    let tree = &self.subtrees[difference.subtree].tree;
                    match difference.next(tree, steps) {
                        Next::Event(event) => return Some(event),
                        Next::Pause => return None,
                        Next::End => self.events.pop(),
                    };
                }
            }
        }
        None
    }

    /// Whether [`poll_event`](Client::poll_event) may have something. (What is left of a
    /// snapshot may turn out to have changed nothing.)
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// When [`handle_timeout`](Client::handle_timeout) is to be called, unless
    /// something happens before. O(1).
    pub fn next_deadline(&self) -> Option<Time> {
        (self.wake != Time::NEVER).then_some(self.wake)
    }

    /// The confirmed entry of a key: what the broker last said of it. Keys
    /// outside the subtrees are not known.
    pub fn get(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.subtrees[self.subtree_of(key)?].tree.entry(key)
    }

    /// The value of a key with our own changes on top that have no answer yet;
    /// they may still be refused or give way to those of others.
    pub fn get_local(&self, key: &[u8]) -> Option<&[u8]> {
        match self.pending.newest(key).filter(|&slot| !self.pending.get(slot).is_told) {
            Some(slot) => Some(&*self.pending.get(slot).value).filter(|value| !value.is_empty()),
            None => self.get(key).map(|entry| entry.value),
        }
    }

    /// The confirmed entries whose keys begin with `prefix`, in order of their
    /// keys. The prefix may cover several subtrees, or be part of one.
    pub fn iter<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = Entry<'a>> {
        self.subtrees.iter().flat_map(move |subtree| subtree.tree.iter(prefix))
    }

    /// How many keys the map holds, all subtrees together.
    pub fn len(&self) -> usize {
        self.keys
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all subtrees are known to follow the broker. A client without
    /// subtrees is current when a broker is heard.
    pub fn is_current(&self) -> bool {
        match self.subtrees.is_empty() {
            true => self.broker.is_some() && self.is_online,
            false => self.subtrees.iter().all(Subtree::is_current),
        }
    }

    /// How far each subtree is, in order of their prefixes.
    pub fn status(&self) -> impl ExactSizeIterator<Item = SubtreeStatus> {
        self.subtrees.iter().map(Subtree::status)
    }

    /// The highest sequence in the map.
    pub fn sequence(&self) -> Sequence {
        self.subtrees.iter().map(|subtree| subtree.sequence).max().unwrap_or_default()
    }

    /// What the broker told of itself; `None` before it was heard, and after it
    /// was lost until it is heard again.
    pub fn broker(&self) -> Option<&BrokerInfo> {
        self.broker.as_ref()
    }

    /// Whether a change with this sequence is safe: it survives the loss of the
    /// broker that applied it. False of one from before the last takeover but one, of which
    /// a broker says nothing any more; what [`Event::Safe`] has told holds.
    pub fn is_safe(&self, sequence: Sequence) -> bool {
        self.broker.is_some_and(|broker| broker.is_safe(sequence))
    }

    /// Our changes without an answer.
    pub fn pending(&self) -> usize {
        self.pending.unanswered()
    }

    /// Our changes that are applied, but not yet safe, as far as they are
    /// [kept](ClientConfig::until_safe).
    pub fn kept(&self) -> usize {
        self.pending.len() - self.pending.unanswered()
    }

    /// Whether this change has no answer yet.
    pub fn is_pending(&self, uuid: Uuid) -> bool {
        self.pending.find(uuid).is_some_and(|slot| !self.pending.get(slot).is_told)
    }

    /// Whether this change was applied and is [kept](ClientConfig::until_safe) until it is
    /// safe, so that [`Event::Safe`] or [`Event::NotSafe`] follows. What a server of RFC 12
    /// applied is not, unless [`until_safe`](ClientConfig::until_safe) asks for it: such a
    /// server never says what is safe.
    pub fn is_kept(&self, uuid: Uuid) -> bool {
        self.pending.find(uuid).is_some_and(|slot| self.pending.get(slot).is_told)
    }

    /// Whether changes are kept until they are safe.
    fn keeps(&self) -> bool {
        self.config.until_safe || self.servers.are_many()
    }

    /// The counts so far.
    pub fn stats(&self) -> ClientStats {
        let unwatched = self.subtrees.iter().filter(|subtree| subtree.watch.is_absent).count();
        ClientStats { unwatched: unwatched as u64, ..self.stats }
    }

    /// The subtree that a key lies in.
    fn subtree_of(&self, key: &[u8]) -> Option<usize> {
        // No prefix is the start of another, so only the greatest one that is
        // not above the key can be a start of it.
        let above = self.subtrees.partition_point(|subtree| *subtree.prefix <= *key);
        let index = above.checked_sub(1)?;
        key.starts_with(&self.subtrees[index].prefix).then_some(index)
    }

    fn limits(&self) -> Limits {
        self.broker.map_or(self.config.limits, |broker| broker.limits)
    }

    /// A broker may still have larger entries than it takes by now.
    fn decode_limits(&self) -> Limits {
        let (mut limits, ours) = (self.limits(), self.config.limits);
        limits.max_key = limits.max_key.max(ours.max_key);
        limits.max_value = limits.max_value.max(ours.max_value);
        limits
    }

    fn is_extended(&self) -> bool {
        self.broker.is_some_and(|broker| broker.extended)
    }

    /// When it may be judged that something due at `time` has not come.
    fn judged_at(&self, time: Time) -> Time {
        time.max(self.behind_until)
    }

    fn wake_at(&mut self, time: Time) {
        self.wake = self.wake.min(time);
    }

    fn subscribe_plain(&mut self, out: &mut impl ClientOutbox) {
        if !self.has_plain {
            self.has_plain = true;
            self.topics.add(HUGZ, out);
        }
    }

    /// Whether only the plain heartbeat can tell that the broker is there. Where the
    /// subtrees' own do, a client must not have the plain one as well: when thousands join,
    /// each would get the heartbeats of all.
    fn needs_plain(&self) -> bool {
        self.subtrees.is_empty()
            || self.subtrees.iter().any(|subtree| !subtree.proves_itself())
            || self.broker.is_some_and(|broker| !broker.extended)
    }

    /// A server that says nothing is asked what it is; of several each is asked anyway.
    fn ask_kind_soon(&mut self, now: Time) {
        self.ask_kind_at = match self.has_plain || self.servers.are_many() {
            true => Time::NEVER,
            false => now + KIND_AFTER,
        };
        self.wake_at(self.ask_kind_at);
    }

    /// Subscribes to the heartbeats that prove the subtrees before them in one go.
    fn subscribe_proofs(&mut self, out: &mut impl ClientOutbox) {
        let proofs = self.subtrees.iter_mut().filter(|subtree| subtree.proves_itself());
        for subtree in proofs.filter(|subtree| !subtree.watch.is_subscribed) {
            subtree.watch.is_subscribed = true;
            self.topics.add(&subtree.topic, out);
        }
    }

    /// The plain heartbeat comes with those of all subtrees that anybody
    /// watches: it is left when every subtree has its own.
    fn leave_plain_if_idle(&mut self, out: &mut impl ClientOutbox) {
        let has_own = |subtree: &Subtree| !subtree.is_whole() && subtree.watch.baseline.is_some();
        if self.has_plain
            && self.is_extended()
            && !self.subtrees.is_empty()
            && self.subtrees.iter().all(has_own)
        {
            self.has_plain = false;
            self.topics.remove(HUGZ, out);
        }
    }

    /// SplitMix64: spreads the clients of a broker over time, nothing else.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("broker", &self.broker)
            .field("is_current", &self.is_current())
            .field("keys", &self.keys)
            .field("sequence", &self.sequence())
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}
