//! Any messages on all ports of a broker, alone or one of a pair, at any times: it never
//! panics, comes to rest, answers nothing that its peers could not read, and its store is
//! sound after each step. Alone, it holds what the plainest model holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use pollux::clone::broker::{Broker, BrokerConfig, BrokerOutbox};
use pollux::clone::pair::{PairConfig, Role, SafePolicy, Seat};
use pollux::clone::{Collector, KvMsg, Limits, Properties, SendFailure, Sequence, is_reserved};
use pollux::{Message, Time};

use super::broker_checks::{check_message, check_reply, check_store};
use super::input::{Input, numbering, refs};

const NODE: u64 = 0x00ab_cdef_0123_4567;
/// The name of the pair and the node of the peer, as the words of [`Input`] have them.
const PAIR: u64 = 0xb;
const START: Sequence = Sequence::new(5, 100);
const PEERS: [&[u8]; 4] = [b"one", b"two", b"three", b"line"];
const SUBTREES: [&[u8]; 5] = [b"", b"/a/", b"/a/b/", b"/b/", b"/nothing/"];
const MAX_STEPS: usize = 200;
/// Calls of `handle_timeout` at one time, above which it asks for its timer for ever.
const MAX_TIMEOUTS: usize = 2_000;

/// What the broker has open, and what of it does not work.
#[derive(Default)]
struct Net {
    /// The sequence of each change published, in order.
    changes: Vec<Sequence>,
    /// What was published in this step.
    keys: Vec<Vec<u8>>,
    /// What one client got: the one that asks at the end.
    snapshot: Vec<Vec<Vec<u8>>>,
    room: HashMap<Vec<u8>, u8>,
    gone: BTreeSet<Vec<u8>>,
    publish_fails: bool,
    is_cut: bool,
    has_sync: bool,
}

/// The client that asks for everything when all is over.
const LAST: &[u8] = b"the last";

impl BrokerOutbox for Net {
    fn reply(&mut self, peer: &[u8], frames: &[&[u8]]) -> Result<(), SendFailure> {
        check_reply(frames);
        if self.gone.contains(peer) {
            return Err(SendFailure::Unreachable);
        }
        if let Some(room) = self.room.get_mut(peer) {
            *room = room.checked_sub(1).ok_or(SendFailure::WouldBlock)?;
        }
        if peer == LAST {
            self.snapshot.push(frames.iter().map(|frame| frame.to_vec()).collect());
        }
        Ok(())
    }

    fn publish(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        check_message(frames);
        if !is_reserved(frames[0]) {
            let sequence = KvMsg::decode(Message::new(frames), &Limits::default());
            self.changes.push(sequence.expect("its properties fit for clients").sequence);
        }
        self.keys.push(frames[0].to_vec());
        if self.publish_fails { Err(SendFailure::WouldBlock) } else { Ok(()) }
    }

    fn tell_peer(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        assert!(!frames.is_empty());
        if self.is_cut { Err(SendFailure::WouldBlock) } else { Ok(()) }
    }

    fn open_sync(&mut self) {
        self.has_sync = true;
    }

    fn request_sync(&mut self, _: &[&[u8]]) -> Result<(), SendFailure> {
        assert!(self.has_sync, "a request without a socket");
        if self.is_cut { Err(SendFailure::Unreachable) } else { Ok(()) }
    }
}

type Map = BTreeMap<Vec<u8>, (Vec<u8>, Option<Time>)>;

/// Of one sender and key the numbers of its changes, each with when it was applied.
type Numbers = Vec<(u64, Time)>;

struct Run {
    broker: Broker,
    net: Net,
    now: Time,
    /// What a lone broker should hold.
    model: Map,
    /// When a uuid was applied.
    named: HashMap<Vec<u8>, Time>,
    /// The numbers of the changes of a sender to a key that were applied, and when.
    numbered: HashMap<(Vec<u8>, Vec<u8>), Numbers>,
    /// Messages on the changes port.
    messages: u64,
    /// Changes from within the process that were applied.
    local: u64,
    /// Such as found no room.
    local_refused: u64,
    remembers_all: bool,
}

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let mut run = Run::new(&mut input);
    for _ in 0..MAX_STEPS {
        if input.is_over() {
            break;
        }
        let role = run.broker.role();
        run.net.keys.clear();
        run.step(&mut input);
        let has_changed = run.broker.poll_role().is_some() || run.broker.role() != role;
        if role != Role::Active && !has_changed {
            let spoken = run.net.keys.iter().find(|key| *key != b"STATUS?");
            assert_eq!(spoken, None, "who is {role} is silent");
        }
        check_store(&run.broker);
        run.check_model();
    }
    run.finish();
}

impl Run {
    fn new(input: &mut Input<'_>) -> Run {
        let (kind, pair) = (input.byte(), input.byte());
        let mut config = BrokerConfig::new(NODE, START);
        config.heartbeat = Duration::from_millis(500);
        config.snapshots.pace = Duration::ZERO;
        config.snapshots.stall = Duration::from_millis(200);
        config.snapshots.slice_entries = 3;
        let is_small = kind & 1 == 1;
        if is_small {
            config.recent_count = 3;
            config.max_watched = 1;
            config.snapshots.active = 1;
            config.snapshots.waiting = 2;
            config.snapshots.per_client = 2;
            config.store.history = 1;
            config.store.max_cursors = 2;
            config.store.max_keys = 5;
            config.store.max_bytes = 200;
        }
        if kind & 2 != 0 {
            config.limits.max_key = 16;
            config.limits.max_value = 12;
            config.limits.max_properties = 96;
            config.collector = Collector::Sub;
        }
        if pair & 1 == 1 {
            let seat = if pair & 2 != 0 { Seat::Backup } else { Seat::Primary };
            let mut of = PairConfig::new(PAIR, seat);
            of.policy = if pair & 4 != 0 { SafePolicy::Wait } else { SafePolicy::Proceed };
            if is_small {
                (of.ring_count, of.ring_bytes) = (2, 60);
                (of.backlog_count, of.backlog_bytes) = (2, 60);
                of.held_requests = 1;
            }
            config.pair = Some(of);
        }
        let now = Time::ZERO + Duration::from_secs(100);
        Run {
            broker: Broker::new(config, now),
            net: Net::default(),
            now,
            model: Map::new(),
            named: HashMap::new(),
            numbered: HashMap::new(),
            messages: 0,
            local: 0,
            local_refused: 0,
            remembers_all: !is_small,
        }
    }

    fn base(&self) -> u64 {
        self.broker.sequence().get()
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let (base, peer) = (self.base(), PEERS[0]);
        match input.byte() % 32 {
            0..=5 => self.change(&input.kvmsg(base)),
            6 => self.change(&input.frames(base)),
            7 | 8 => self.request(input.pick(&PEERS), &ask(input, base)),
            9 => self.request(input.pick(&PEERS), &input.frames(base)),
            10 => {
                let frames = [vec![input.frame(base)], input.frames(base)].concat();
                self.broker.handle_subscription(self.now, Message::new(&refs(&frames)));
            }
            11..=13 => {
                self.now += Duration::from_nanos(input.nanos());
                self.settle();
            }
            14 => self.now += Duration::from_nanos(input.nanos()),
            15 => self.timeout(),
            16 => self.broker.handle_writable(),
            17 => match input.byte() {
                255 => self.net.room.clear(),
                room => _ = self.net.room.insert(input.pick(&PEERS).to_vec(), room % 8),
            },
            18 => match input.below(2) {
                0 => _ = self.net.gone.insert(input.pick(&PEERS).to_vec()),
                _ => _ = self.net.gone.remove(input.pick(&PEERS)),
            },
            19 => self.net.publish_fails = input.below(2) == 1,
            20 => self.net.is_cut = input.below(2) == 1,
            21 => self.local(input),
            22 => drop(self.broker.promote(self.now, &mut self.net)),
            23 => drop(self.broker.demote(self.now, &mut self.net)),
            24 => self.hear_peer(&input.frames(base)),
            25 | 26 => self.hear_peer(&peer_status(input, base)),
            27 => self.hear_peer(&[b"KVPUBS".to_vec(), input.frame(base)]),
            28 => self.hear_peer(&[b"KVPUBS".to_vec(), streamed(&input.kvmsg(base))]),
            29 => {
                let two = [streamed(&input.kvmsg(base)), streamed(&input.frames(base))].concat();
                self.hear_peer(&[b"KVPUBS".to_vec(), two]);
            }
            30 => self.snapshot(input),
            _ => {
                let hello = format!(
                    "pair={PAIR:016x}\nnode={PAIR:016x}\nseat=backup\nhb=500\nfollow={NODE:016x}\n"
                );
                let mut frames = vec![b"PEER?".to_vec(), hello.into_bytes()];
                if input.below(2) == 1 {
                    let base_line = format!("base={}\n", input.near(base));
                    frames = vec![b"RESUBMIT".to_vec(), base_line.into_bytes()];
                    frames.extend(input.kvmsg(base));
                }
                self.request(if input.below(4) == 0 { peer } else { PEERS[3] }, &frames);
            }
        }
    }

    fn is_alone(&self) -> bool {
        self.broker.pair_stats().is_none()
    }

    fn change(&mut self, frames: &[Vec<u8>]) {
        self.messages += 1;
        let before = self.broker.stats();
        self.broker.handle_change(self.now, Message::new(&refs(frames)), &mut self.net);
        if !self.is_alone() {
            return;
        }
        let after = self.broker.stats();
        if after.changes_overtaken > before.changes_overtaken {
            assert!(self.is_overtaken(frames, Duration::MAX), "refused for no later change");
        }
        if after.changes_applied == before.changes_applied {
            return;
        }
        assert_eq!(after.changes_applied, before.changes_applied + 1);
        let [key, _, uuid, properties, value] = frames else { panic!("applied no change") };
        self.apply(key, ttl(properties), value);
        if uuid.is_empty() {
            return;
        }
        let age = self.broker.config().recent_age;
        let is_overtaken = self.is_overtaken(frames, age);
        assert!(!is_overtaken || !self.remembers_all, "it came behind a later change");
        if let Some((sender, number)) = numbering(uuid) {
            let of_key = self.numbered.entry((sender.to_vec(), key.clone())).or_default();
            of_key.push((number, self.now));
        }
        let applied = self.named.insert(uuid.clone(), self.now);
        let is_known = applied.is_some_and(|at| self.now < at + age);
        assert!(!is_known || !self.remembers_all, "a change took effect twice");
    }

    /// Whether its sender has changed its key by a later change already, not longer ago than that.
    fn is_overtaken(&self, frames: &[Vec<u8>], age: Duration) -> bool {
        let [key, _, uuid, ..] = frames else { return false };
        let Some((sender, number)) = numbering(uuid) else { return false };
        let of_key = self.numbered.get(&(sender.to_vec(), key.clone()));
        of_key.into_iter().flatten().any(|&(other, at)| other > number && self.now.since(at) < age)
    }

    fn apply(&mut self, key: &[u8], ttl: Option<Duration>, value: &[u8]) {
        if value.is_empty() {
            self.model.remove(key);
        } else {
            let deadline = ttl.map(|ttl| self.now + ttl).filter(|&at| at != Time::NEVER);
            self.model.insert(key.to_vec(), (value.to_vec(), deadline));
        }
    }

    fn local(&mut self, input: &mut Input<'_>) {
        let (key, value) = (input.key(), input.value());
        let ttl = (input.below(2) == 1).then(|| Duration::from_nanos(input.nanos()));
        let was_there = self.broker.get(&key).is_some();
        let full = self.broker.stats().changes_store_full;
        let is_done = if value.is_empty() {
            let deleted = self.broker.delete(self.now, &key, &mut self.net);
            assert!(deleted == was_there || self.broker.role() != Role::Active);
            deleted
        } else {
            self.broker.set(self.now, &key, &value, ttl, &mut self.net).is_ok()
        };
        self.local_refused += self.broker.stats().changes_store_full - full;
        if is_done {
            self.local += 1;
            self.apply(&key, ttl, &value);
        }
    }

    fn request(&mut self, peer: &[u8], frames: &[Vec<u8>]) {
        self.broker.handle_request(peer, Message::new(&refs(frames)), &mut self.net);
    }

    fn hear_peer(&mut self, frames: &[Vec<u8>]) {
        self.broker.handle_peer(self.now, Message::new(&refs(frames)), &mut self.net);
    }

    /// What the socket for snapshots brings, as long as it is open.
    fn synced(&mut self, frames: &[Vec<u8>]) {
        if self.net.has_sync {
            self.broker.handle_peer_snapshot(self.now, Message::new(&refs(frames)), &mut self.net);
        }
    }

    /// The peer's answer to a request for its state: entries, and perhaps the end.
    fn snapshot(&mut self, input: &mut Input<'_>) {
        let base = self.base();
        let (count, kind) = (input.below(6), input.byte());
        let mut last = base;
        for index in 0..count {
            let mut entry = input.kvmsg(base);
            if kind & 1 == 0 {
                last = base + 1 + index as u64;
                entry[1] = last.to_be_bytes().to_vec();
            }
            self.synced(&entry);
        }
        if kind & 2 != 0 {
            let body = (0..3).flat_map(|_| input.bytes(32).to_vec()).collect();
            let sequence = last.to_be_bytes().to_vec();
            self.synced(&[b"UUIDS".to_vec(), sequence, vec![], vec![], body]);
        }
        if kind & 4 == 0 {
            let end = if kind & 8 == 0 { last } else { input.near(base) };
            let first = end >> 40 << 40;
            let mode = if kind & 16 == 0 { "full" } else { "delta" };
            let count = if kind & 32 == 0 { count } else { input.below(8) };
            let floor = input.near(base);
            let properties = format!(
                "chp=2\nmode={mode}\ncount={count}\nfloor={floor}\nroot={first}-{PAIR:016x}\n\
                 lineage={first}-{end}\n"
            );
            let sequence = end.to_be_bytes().to_vec();
            self.synced(&[b"KTHXBAI".to_vec(), sequence, vec![], properties.into(), vec![]]);
        }
    }

    fn timeout(&mut self) {
        self.broker.handle_timeout(self.now, &mut self.net);
        self.model.retain(|_, (_, deadline)| deadline.is_none_or(|at| at > self.now));
    }

    fn settle(&mut self) {
        for _ in 0..MAX_TIMEOUTS {
            if self.broker.next_deadline().is_none_or(|at| at > self.now) {
                return;
            }
            self.timeout();
        }
        panic!("the broker does not come to rest");
    }

    fn check_model(&self) {
        if !self.is_alone() {
            return;
        }
        let stats = self.broker.stats();
        let counted = stats.changes_applied - stats.expired - self.local
            + stats.changes_repeated
            + stats.changes_malformed
            + stats.changes_reserved
            + stats.changes_store_full
            + stats.changes_forgotten
            + stats.changes_overtaken;
        let messages = self.messages + self.local_refused;
        assert_eq!(counted, messages, "each message is applied or counted: {stats:?}");
        let given = self.broker.sequence().get() - START.get();
        assert_eq!(given, stats.changes_applied, "each applied change has one sequence");
        assert!(
            self.net
                .changes
                .iter()
                .map(|sequence| sequence.get())
                .eq(START.get() + 1..=START.get() + given)
        );
        let live = self.broker.store().iter(b"");
        let live: Map = live.map(|e| (e.key.to_vec(), (e.value.to_vec(), e.deadline))).collect();
        assert_eq!(live, self.model);
    }

    /// At last all peers read, and one more client asks for everything.
    fn finish(&mut self) {
        self.net.room.clear();
        self.net.publish_fails = false;
        self.now += Duration::from_secs(1);
        self.settle();
        check_store(&self.broker);
        self.check_model();
        if !self.is_alone() {
            return;
        }
        self.request(LAST, &[b"ICANHAZ?".to_vec(), Vec::new()]);
        self.settle();
        let stats = self.broker.stats();
        assert_eq!(stats.snapshots_requested, stats.snapshots_done + stats.snapshots_abandoned);
        assert_eq!(self.broker.store().cursors(), 0);
        let end = self.net.snapshot.pop().expect("an answer");
        assert_eq!(end[0], b"KTHXBAI");
        assert_eq!(end[1], self.broker.sequence().to_wire());
        let entries = self.net.snapshot.iter().map(|frames| (&frames[0], &frames[4]));
        let expected = self.broker.store().iter(b"");
        let expected: Vec<_> = expected.map(|e| (e.key.to_vec(), e.value.to_vec())).collect();
        assert!(entries.eq(expected.iter().map(|(key, value)| (key, value))));
    }
}

/// What the properties of a change mean for the life of its key.
fn ttl(properties: &[u8]) -> Option<Duration> {
    let properties = Properties::check(properties, &Limits::default()).expect("it was applied");
    if let Some(ms) = properties.parse::<u64>("ttlms") {
        return (ms > 0).then(|| Duration::from_millis(ms));
    }
    let seconds = properties.parse::<f64>("ttl").filter(|&seconds| seconds > 0.0)?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A request for a snapshot, most times one that makes sense.
fn ask(input: &mut Input<'_>, base: u64) -> Vec<Vec<u8>> {
    let kind = input.byte();
    let mut frames = vec![b"ICANHAZ?".to_vec(), input.pick(&SUBTREES).to_vec()];
    match kind & 3 {
        0 => frames.push(format!("since={}\n", input.near(base)).into_bytes()),
        1 => frames.push(format!("order=changes\nuuids=1\nsince={}\n", input.near(base)).into()),
        _ => {}
    }
    if kind & 4 != 0 {
        frames.insert(0, Vec::new());
    }
    frames
}

/// Changes as an active streams them; of other numbers of frames than five, nonsense.
fn streamed(frames: &[Vec<u8>]) -> Vec<u8> {
    let [key, sequence, uuid, properties, body] = frames else { return frames.concat() };
    let mut bytes = Vec::new();
    for frame in [key, uuid, properties, body] {
        bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    }
    for frame in [sequence, key, uuid, properties, body] {
        bytes.extend_from_slice(frame);
    }
    bytes
}

/// What the peer says of itself, most times something that can be.
fn peer_status(input: &mut Input<'_>, base: u64) -> Vec<Vec<u8>> {
    let kind = input.byte();
    let role = input.pick(&["passive", "active", "starting"]);
    let mut position = input.near(base);
    if kind & 1 != 0 {
        // Its next epoch.
        position += 1 << 40;
    }
    let seat = if kind & 2 != 0 { "primary" } else { "backup" };
    let mut properties =
        format!("chp=2\npair={PAIR:016x}\nnode={PAIR:016x}\nseat={seat}\nrole={role}\nhb=500\n");
    if role == "starting" {
        position = 0;
    } else {
        let first = position >> 40 << 40;
        let root = if kind & 4 != 0 { NODE } else { PAIR };
        properties += &format!("root={first}-{root:016x}\nlineage={first}-{position}\n");
        properties += &format!("stable={}\n", input.near(base));
    }
    if role == "passive" {
        properties += &format!("of={NODE:016x}\n");
    }
    if role == "active" && kind & 32 == 0 {
        properties += &format!("to={NODE:016x}\n");
    }
    if kind & 8 != 0 {
        properties += input.pick(&["want=handover\n", "want=yield\n", "want=none\n"]);
    }
    if kind & 16 != 0 {
        properties += &format!("handover={position}\n");
    }
    let sequence = position.to_be_bytes().to_vec();
    vec![b"PEER?".to_vec(), sequence, Vec::new(), properties.into_bytes(), Vec::new()]
}
