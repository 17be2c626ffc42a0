//! The broker as its peers see it: every rule of the protocol, on virtual time
//! and a network that records.

mod changes;
mod expiry;
mod heartbeats;
mod network;
mod pair;
mod random;
mod relay;
mod replica;
mod requests;
mod snapshots;

use std::collections::BTreeMap;
use std::time::Duration;

use self::network::{Network, Reply, Wire};
use super::{Broker, BrokerConfig, BrokerStats};
use crate::clone::Sequence;
use crate::message::Message;
use crate::time::Time;

/// A broker, its network and its clock.
pub(super) struct Bench {
    pub(super) broker: Broker,
    pub(super) net: Network,
    pub(super) now: Time,
}

/// The node and the first sequence of a [`Bench`].
const NODE: u64 = 0x00ab_cdef_0123_4567;
const START: Sequence = Sequence::new(5, 100);

/// Calls of `handle_timeout` for one step of time, above which the broker asks
/// for its timer without an end.
const MAX_TIMEOUTS: usize = 100_000;

/// The window of uuids, all of which a broker asks for with its first change: to Miri, which
/// is thousands of times slower, that is what takes longest.
const RECENT: usize = if cfg!(miri) { 1 << 10 } else { 1 << 20 };

impl Bench {
    fn new() -> Bench {
        Bench::with(|_| {})
    }

    fn with(configure: impl FnOnce(&mut BrokerConfig)) -> Bench {
        let mut config = BrokerConfig::new(NODE, START);
        // Most tests do everything at one time; those of the pace set it.
        config.snapshots.pace = Duration::ZERO;
        config.recent_count = RECENT;
        configure(&mut config);
        let now = Time::ZERO + Duration::from_secs(100);
        Bench { broker: Broker::new(config, now), net: Network::default(), now }
    }

    /// Drops what was recorded: the next assertion is about what comes now.
    fn forget(&mut self) -> &mut Bench {
        self.net.published.clear();
        self.net.replies.clear();
        self
    }

    /// A message on the changes port.
    fn change(&mut self, frames: &[&[u8]]) {
        self.broker.handle_change(self.now, Message::new(frames), &mut self.net);
    }

    /// A change without uuid and properties.
    fn set(&mut self, key: &str, value: &str) {
        self.change(&[key.as_bytes(), &[0; 8], b"", b"", value.as_bytes()]);
    }

    fn set_with(&mut self, key: &str, properties: &str, value: &str) {
        self.change(&[key.as_bytes(), &[0; 8], b"", properties.as_bytes(), value.as_bytes()]);
    }

    fn delete(&mut self, key: &str) {
        self.set(key, "");
    }

    /// A change that has a name.
    fn set_named(&mut self, uuid: u8, key: &str, properties: &str, value: &str) {
        let (properties, value) = (properties.as_bytes(), value.as_bytes());
        self.change(&[key.as_bytes(), &[0; 8], &[uuid; 16], properties, value]);
    }

    /// A message on the snapshot port.
    fn request(&mut self, peer: &str, frames: &[&[u8]]) {
        let message = Message::new(frames);
        self.broker.handle_request(peer.as_bytes(), message, &mut self.net);
    }

    /// A message on the updates port: a subscription.
    fn subscribe(&mut self, topic: &str) {
        let frame = [&[1], topic.as_bytes()].concat();
        self.broker.handle_subscription(self.now, Message::new(&[&frame]));
    }

    fn unsubscribe(&mut self, topic: &str) {
        let frame = [&[0], topic.as_bytes()].concat();
        self.broker.handle_subscription(self.now, Message::new(&[&frame]));
    }

    /// Does what is due now. The broker must come to rest.
    fn settle(&mut self) {
        for _ in 0..MAX_TIMEOUTS {
            if self.deadline() > self.now {
                return;
            }
            self.broker.handle_timeout(self.now, &mut self.net);
        }
        panic!("the broker does not come to rest");
    }

    /// Lets time pass, and the broker do what becomes due on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..MAX_TIMEOUTS {
            self.settle();
            if self.deadline() > end {
                self.now = end;
                return;
            }
            self.now = self.deadline();
        }
        panic!("the broker does not come to rest");
    }

    fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    fn deadline(&self) -> Time {
        self.broker.next_deadline().unwrap_or(Time::NEVER)
    }

    fn value(&self, key: &str) -> Option<String> {
        let entry = self.broker.get(key.as_bytes())?;
        Some(String::from_utf8(entry.value.to_vec()).unwrap())
    }

    fn stats(&self) -> BrokerStats {
        self.broker.stats()
    }

    /// Updates published, without the heartbeats.
    fn updates(&self) -> Vec<&Wire> {
        self.net.published.iter().filter(|wire| !wire.is_heartbeat()).collect()
    }

    /// Heartbeats published under exactly this subtree.
    fn beats(&self, subtree: &str) -> Vec<&Wire> {
        let key = format!("HUGZ{subtree}");
        self.net.published.iter().filter(|wire| wire.key == key.as_bytes()).collect()
    }

    /// The last update published.
    fn last_update(&self) -> &Wire {
        self.updates().last().expect("an update")
    }

    /// What a peer has received, whole messages.
    fn received(&self, peer: &str) -> &[Reply] {
        self.net.replies.get(peer.as_bytes()).map_or(&[], Vec::as_slice)
    }

    /// A snapshot that a peer has received in full: its entries and its end.
    fn snapshot(&self, peer: &str) -> (Vec<Wire>, Wire) {
        let mut entries: Vec<Wire> = self.received(peer).iter().map(Reply::five_frames).collect();
        let end = entries.pop().unwrap_or_else(|| panic!("{peer} received nothing"));
        assert_eq!(end.key, b"KTHXBAI", "the snapshot has no end");
        assert!(entries.iter().all(|wire| wire.key != b"KTHXBAI"), "more than one end");
        assert_eq!(end.property("count"), Some(entries.len().to_string()));
        (entries, end)
    }

    /// The same as a map, for a snapshot in which no key comes twice.
    fn snapshot_map(&self, peer: &str) -> BTreeMap<String, String> {
        let (entries, _) = self.snapshot(peer);
        let count = entries.len();
        let map: BTreeMap<_, _> =
            entries.into_iter().map(|wire| (wire.text_key(), wire.text())).collect();
        assert_eq!(map.len(), count, "a key came twice");
        map
    }
}

/// The frames of a request.
const ICANHAZ: &[u8] = b"ICANHAZ?";

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}
