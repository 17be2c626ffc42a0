//! A relay that follows a broker, both real, over connections that lose, break and are late,
//! with any messages on all of the relay's ports, those to its upstream included: it never
//! panics, comes to rest, and sends nothing that its peers could not read. As long as all that
//! it hears is the broker's, it has no entry that the broker has not had under the same
//! sequence, and when all is well again it has the broker's state.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pollux::clone::broker::{Broker, BrokerConfig, BrokerOutbox};
use pollux::clone::pair::Role;
use pollux::clone::relay::RelayConfig;
use pollux::clone::{Collector, KvMsg, Limits, SendFailure, Sequence, is_reserved};
use pollux::{Message, Time};

use super::broker_checks::{check_message, check_reply, check_store};
use super::input::{Input, refs};

const RELAY: u64 = 0x00ab_cdef_0123_4567;
/// The first broker; each that takes its place has the next number.
const BROKER: u64 = 0xb;
const START: Sequence = Sequence::new(5, 100);
const HEARTBEAT: Duration = Duration::from_millis(500);
const PEERS: [&[u8]; 3] = [b"one", b"two", b"three"];
const MAX_STEPS: usize = 200;
/// Calls of `handle_timeout` at one time, above which one asks for its timer for ever.
const MAX_TIMEOUTS: usize = 2_000;
/// In which a relay finds its upstream again and has its state: pauses, a silence that is
/// noticed, and changes that are refused or given up.
const HEALS_IN: Duration = Duration::from_secs(100);

type Frames = Vec<Vec<u8>>;

/// What the relay has sent to its upstream, and what is on the way from there. Each queue is a
/// connection, or what of one has not been delivered yet.
#[derive(Default)]
struct Relayed {
    topics: Option<Frames>,
    /// The topics are known to the broker.
    is_subscribed: bool,
    subscriptions: VecDeque<Vec<u8>>,
    updates: VecDeque<Frames>,
    /// Of the DEALER that is open.
    requests: VecDeque<Frames>,
    entries: VecDeque<Frames>,
    dealer: u64,
    has_forward: bool,
    changes: VecDeque<Frames>,
    /// The socket for changes takes nothing.
    is_full: bool,
    /// What of its own clients does not work.
    is_blocked: bool,
    is_unreachable: bool,
}

impl BrokerOutbox for Relayed {
    fn reply(&mut self, _: &[u8], frames: &[&[u8]]) -> Result<(), SendFailure> {
        check_reply(frames);
        match (self.is_unreachable, self.is_blocked) {
            (true, _) => Err(SendFailure::Unreachable),
            (_, true) => Err(SendFailure::WouldBlock),
            _ => Ok(()),
        }
    }

    fn publish(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        check_message(frames);
        if self.is_blocked { Err(SendFailure::WouldBlock) } else { Ok(()) }
    }

    fn tell_peer(&mut self, _: &[&[u8]]) -> Result<(), SendFailure> {
        panic!("a relay has no peer");
    }

    fn open_upstream(&mut self, server: usize, subtree: &[u8]) {
        assert_eq!(server, 0, "there is one");
        let heartbeat = [b"HUGZ", subtree].concat();
        self.topics = Some(vec![subtree.to_vec(), heartbeat, b"STATUS?".to_vec()]);
        self.is_subscribed = false;
        self.subscriptions.clear();
        self.updates.clear();
    }

    fn ask_heartbeat(&mut self) {
        let topics = self.topics.as_ref().expect("a SUB is open");
        if self.is_subscribed {
            self.subscriptions.extend([[b"\0", &topics[1][..]].concat(), join(&topics[1])]);
        }
    }

    fn close_follow(&mut self) {
        self.topics = None;
        self.subscriptions.clear();
        self.updates.clear();
    }

    fn open_forward(&mut self, _: Collector) {
        self.has_forward = true;
        self.changes.clear();
    }

    fn forward(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        assert!(self.has_forward, "a change without a socket");
        check_message(frames);
        if self.is_full {
            return Err(SendFailure::WouldBlock);
        }
        self.changes.push_back(own(frames));
        Ok(())
    }

    fn open_sync(&mut self) {
        self.dealer += 1;
        self.requests.clear();
        self.entries.clear();
    }

    fn request_sync(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        assert!(self.dealer > 0, "a request without a socket");
        self.requests.push_back(own(frames));
        Ok(())
    }
}

impl Relayed {
    /// The connections are lost with all that was on the way, and will be made again.
    fn disconnect(&mut self) {
        self.is_subscribed = false;
        self.subscriptions.clear();
        self.updates.clear();
        self.entries.clear();
        self.changes.clear();
    }
}

/// What the broker sends: to the relay, all others of its clients are of no interest.
struct ToRelay<'a> {
    relay: &'a mut Relayed,
    history: &'a mut BTreeMap<Sequence, (Vec<u8>, Vec<u8>)>,
}

impl BrokerOutbox for ToRelay<'_> {
    fn reply(&mut self, peer: &[u8], frames: &[&[u8]]) -> Result<(), SendFailure> {
        check_reply(frames);
        if peer != self.relay.dealer.to_be_bytes() {
            return Err(SendFailure::Unreachable);
        }
        self.relay.entries.push_back(own(frames));
        Ok(())
    }

    fn publish(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        check_message(frames);
        if !is_reserved(frames[0]) {
            let change = KvMsg::decode(Message::new(frames), &Limits::default());
            let change = change.expect("its properties fit for clients");
            let of_it = (change.key.to_vec(), change.body.to_vec());
            assert!(self.history.insert(change.sequence, of_it).is_none(), "given twice");
        }
        let is_wanted = |topics: &Frames| topics.iter().any(|topic| frames[0].starts_with(topic));
        if self.relay.is_subscribed && self.relay.topics.as_ref().is_some_and(is_wanted) {
            self.relay.updates.push_back(own(frames));
        }
        Ok(())
    }
}

struct Run {
    broker: Broker,
    relay: Broker,
    net: Relayed,
    /// What each sequence changed.
    history: BTreeMap<Sequence, (Vec<u8>, Vec<u8>)>,
    now: Time,
    /// Brokers that were there before.
    lives: u32,
    /// Something came to the relay from its upstream that the upstream has not sent.
    is_deceived: bool,
    is_cut: bool,
    has_room: bool,
    subtree: Vec<u8>,
}

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let mut run = Run::new(&mut input);
    for _ in 0..MAX_STEPS {
        if input.is_over() {
            break;
        }
        run.step(&mut input);
        run.check();
    }
    run.finish();
}

impl Run {
    fn new(input: &mut Input<'_>) -> Run {
        let kind = input.byte();
        let mut config = BrokerConfig::new(RELAY, Sequence::ZERO);
        config.heartbeat = HEARTBEAT;
        config.snapshots.pace = Duration::ZERO;
        config.snapshots.stall = Duration::from_millis(200);
        config.snapshots.slice_entries = 3;
        let mut of = RelayConfig::new(vec!["upstream".to_owned()]);
        if kind & 1 == 1 {
            config.recent_count = 3;
            config.max_watched = 1;
            config.snapshots.waiting = 2;
            config.store.history = 1;
            (of.forward_count, of.forward_bytes) = (2, 90);
            (of.backlog_count, of.backlog_bytes) = (2, 90);
            of.held_requests = 1;
            of.forward_age = Duration::from_secs(2);
        }
        let has_room = kind & 2 == 0;
        if !has_room {
            (config.store.max_keys, config.store.max_bytes) = (5, 200);
        }
        if kind & 4 != 0 {
            of.subtree = b"/a/".to_vec();
        }
        let (now, subtree) = (Time::ZERO + Duration::from_secs(100), of.subtree.clone());
        Run {
            broker: broker(0, now, kind & 8 != 0),
            relay: Broker::relay(config, of, now),
            net: Relayed::default(),
            history: BTreeMap::new(),
            now,
            lives: 0,
            is_deceived: false,
            is_cut: false,
            has_room,
            subtree,
        }
    }

    /// The two ends of the connection: the broker, and where it sends.
    fn upstream(&mut self) -> (&mut Broker, ToRelay<'_>) {
        let (relay, history) = (&mut self.net, &mut self.history);
        (&mut self.broker, ToRelay { relay, history })
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let (now, base) = (self.now, self.broker.sequence().get());
        match input.byte() % 32 {
            0..=3 => {
                let change = input.kvmsg(base);
                let (broker, mut out) = self.upstream();
                broker.handle_change(now, Message::new(&refs(&change)), &mut out);
            }
            4..=7 => self.change(&input.kvmsg(base)),
            8 => self.change(&input.frames(base)),
            9 => {
                let mut frames = vec![b"ICANHAZ?".to_vec(), self.subtree.clone()];
                if input.below(2) == 1 {
                    frames.push(format!("since={}\n", input.near(base)).into_bytes());
                }
                self.request(input.pick(&PEERS), &frames);
            }
            10 => self.request(input.pick(&PEERS), &input.frames(base)),
            11 => {
                let frame = input.frame(base);
                self.relay.handle_subscription(self.now, Message::new(&[&frame]));
            }
            12..=15 => self.pass(Duration::from_nanos(input.nanos())),
            16 => self.now += Duration::from_nanos(input.nanos()),
            17..=20 => _ = self.deliver(input.byte()),
            21 => self.deliver_all(),
            22 => {
                let count = input.below(4).min(self.net.updates.len());
                drop(self.net.updates.drain(..count));
            }
            23 => {
                let count = input.below(4).min(self.net.changes.len());
                drop(self.net.changes.drain(..count));
            }
            24 => {
                self.is_cut = input.below(2) == 1;
                self.net.disconnect();
            }
            25 => {
                self.lives += 1;
                self.broker = broker(self.lives, self.now, input.below(2) == 1);
                self.net.disconnect();
            }
            26 => {
                self.net.is_full = input.below(2) == 1;
                if !self.net.is_full {
                    self.relay.handle_forward_room(self.now, &mut self.net);
                }
            }
            27 => {
                let kind = input.byte();
                (self.net.is_blocked, self.net.is_unreachable) = (kind & 1 != 0, kind & 2 != 0);
                self.relay.handle_writable();
            }
            28 => {
                let key = input.key();
                self.relay.prefetch([&key[..]].into_iter());
                let (broker, mut out) = self.upstream();
                broker.delete(now, &key, &mut out);
            }
            29 => self.hear(&input.frames(base)),
            30 => self.hear(&status(input, base)),
            _ => {
                let frames =
                    if input.below(2) == 1 { input.frames(base) } else { end(input, base) };
                // Where no request was made there is no socket for an answer.
                if self.net.dealer > 0 {
                    self.is_deceived = true;
                    self.entry(&frames);
                }
            }
        }
    }

    fn change(&mut self, frames: &[Vec<u8>]) {
        self.relay.handle_change(self.now, Message::new(&refs(frames)), &mut self.net);
    }

    fn request(&mut self, peer: &[u8], frames: &[Vec<u8>]) {
        self.relay.handle_request(peer, Message::new(&refs(frames)), &mut self.net);
    }

    /// Something that the upstream has not sent.
    fn hear(&mut self, frames: &[Vec<u8>]) {
        if self.net.topics.is_some() {
            self.is_deceived = true;
            self.update(frames);
        }
    }

    fn update(&mut self, frames: &[Vec<u8>]) {
        self.relay.handle_peer_update(self.now, Message::new(&refs(frames)), &mut self.net);
    }

    fn entry(&mut self, frames: &[Vec<u8>]) {
        self.relay.handle_peer_snapshot(self.now, Message::new(&refs(frames)), &mut self.net);
    }

    /// The next message of one connection or the other, if it stands. Gives whether there was one.
    fn deliver(&mut self, which: u8) -> bool {
        if self.is_cut {
            return false;
        }
        if let (Some(topics), false) = (&self.net.topics, self.net.is_subscribed) {
            self.net.subscriptions = topics.iter().map(|topic| join(topic)).collect();
            self.net.is_subscribed = true;
        }
        let now = self.now;
        match which % 5 {
            0 => match self.net.updates.pop_front() {
                Some(frames) => self.update(&frames),
                None => return false,
            },
            1 => match self.net.entries.pop_front() {
                Some(frames) => self.entry(&frames),
                None => return false,
            },
            2 => {
                let Some(frames) = self.net.requests.pop_front() else { return false };
                let peer = self.net.dealer.to_be_bytes();
                let (broker, mut out) = self.upstream();
                broker.handle_request(&peer, Message::new(&refs(&frames)), &mut out);
            }
            3 => {
                let Some(frames) = self.net.changes.pop_front() else { return false };
                let (broker, mut out) = self.upstream();
                broker.handle_change(now, Message::new(&refs(&frames)), &mut out);
            }
            _ => {
                let Some(frame) = self.net.subscriptions.pop_front() else { return false };
                self.broker.handle_subscription(now, Message::new(&[&frame]));
            }
        }
        true
    }

    fn deliver_all(&mut self) {
        while (0..5).any(|which| self.deliver(which)) {
            self.settle();
        }
    }

    /// Lets time pass, in which only timers are served.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.settle();
    }

    /// Lets time pass, in which all is delivered.
    fn live(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.deliver_all();
            self.settle();
            let next = self.next_deadline();
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
        }
    }

    fn next_deadline(&self) -> Time {
        let deadlines = [&self.broker, &self.relay].map(Broker::next_deadline);
        deadlines.into_iter().flatten().min().unwrap_or(Time::NEVER)
    }

    fn settle(&mut self) {
        let now = self.now;
        for _ in 0..MAX_TIMEOUTS {
            let is_due = |broker: &Broker| broker.next_deadline().is_some_and(|at| at <= now);
            let (broker_is_due, relay_is_due) = (is_due(&self.broker), is_due(&self.relay));
            if broker_is_due {
                let (broker, mut out) = self.upstream();
                broker.handle_timeout(now, &mut out);
            }
            if relay_is_due {
                self.relay.handle_timeout(now, &mut self.net);
            }
            if !broker_is_due && !relay_is_due {
                return;
            }
        }
        panic!("they do not come to rest");
    }

    fn check(&self) {
        check_store(&self.relay);
        if self.is_deceived {
            return;
        }
        for entry in self.relay.store().iter(b"") {
            assert!(entry.key.starts_with(&self.subtree), "outside of its subtree");
            let (key, value) = &self.history[&entry.sequence];
            assert_eq!((entry.key, entry.value), (&key[..], &value[..]), "not what it was given");
        }
    }

    /// All works again: the relay has what its upstream has.
    fn finish(&mut self) {
        self.is_cut = false;
        (self.net.is_full, self.net.is_blocked, self.net.is_unreachable) = (false, false, false);
        self.relay.handle_forward_room(self.now, &mut self.net);
        let can_heal = !self.is_deceived && self.has_room;
        let end = self.now + HEALS_IN;
        while can_heal && self.now < end && !self.is_healed() {
            self.live(HEARTBEAT);
        }
        // And it stays so.
        self.live(HEARTBEAT * 3);
        self.check();
        assert!(!can_heal || self.is_healed(), "{:?}\n{:?}", self.relay, self.broker);
    }

    fn is_healed(&self) -> bool {
        let map = |broker: &Broker| {
            let entries = broker.store().iter(&self.subtree);
            let own = entries.map(|e| (e.key.to_vec(), (e.sequence, e.value.to_vec())));
            own.collect::<BTreeMap<_, _>>()
        };
        let has_all = !self.subtree.is_empty() || self.relay.sequence() == self.broker.sequence();
        self.relay.role() == Role::Relay && has_all && map(&self.relay) == map(&self.broker)
    }
}

/// The broker that is followed, each of another node and with a later epoch, without a state.
fn broker(lives: u32, now: Time, is_small: bool) -> Broker {
    let start = Sequence::new(START.epoch() + lives, START.counter());
    let mut config = BrokerConfig::new(BROKER + u64::from(lives), start);
    config.heartbeat = HEARTBEAT;
    config.snapshots.pace = Duration::ZERO;
    config.snapshots.slice_entries = 3;
    if is_small {
        config.max_watched = 1;
        config.store.history = 1;
        config.store.max_keys = 5;
        config.recent_count = 3;
    }
    Broker::new(config, now)
}

fn join(topic: &[u8]) -> Vec<u8> {
    [b"\x01", topic].concat()
}

fn own(frames: &[&[u8]]) -> Frames {
    frames.iter().map(|frame| frame.to_vec()).collect()
}

/// A heartbeat, or what is said when it is asked, most times of one that can be followed.
fn status(input: &mut Input<'_>, base: u64) -> Frames {
    let kind = input.byte();
    let topic = input.pick(&["HUGZ", "HUGZ/a/", "STATUS?"]);
    let role = input.pick(&["active", "passive", "relay", "starting"]);
    let node = if kind & 1 == 0 { BROKER } else { BROKER + u64::from(kind >> 4) };
    let position = input.near(base) + (u64::from(kind >> 1 & 1) << 40);
    let mut properties = format!(
        "chp=2\nnode={node:016x}\nrole={role}\nhb=500\nepoch={}\npublished={}\n",
        position >> 40,
        input.byte()
    );
    if kind & 4 != 0 {
        let fork = input.near(base);
        properties += &format!("stable={}\nstandby=live\nfork={fork}\n", input.near(base));
    }
    if kind & 8 != 0 {
        let via = input.pick(&[BROKER, RELAY]);
        properties += &format!("hops=1\nvia={via:016x}\nproven={}\n", input.near(base));
        properties += input.pick(&["subtree=/a/\n", "subtree=/b/\n", "upstream=lost\n"]);
    }
    let sequence = position.to_be_bytes().to_vec();
    vec![topic.as_bytes().to_vec(), sequence, Vec::new(), properties.into_bytes(), Vec::new()]
}

/// The end of a snapshot.
fn end(input: &mut Input<'_>, base: u64) -> Frames {
    let (kind, end) = (input.byte(), input.near(base));
    let first = end >> 40 << 40;
    let mode = if kind & 1 == 0 { "full" } else { "delta" };
    let properties = format!(
        "chp=2\nnode={BROKER:016x}\nmode={mode}\ncount={}\nfrom={}\nfloor={}\n\
         root={first}-{BROKER:016x}\nlineage={first}-{end}\n",
        kind >> 4,
        input.near(base),
        input.near(base)
    );
    let sequence = end.to_be_bytes().to_vec();
    vec![b"KTHXBAI".to_vec(), sequence, Vec::new(), properties.into_bytes(), Vec::new()]
}
