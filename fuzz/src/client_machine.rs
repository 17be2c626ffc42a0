//! Any messages on the ports of a client, at any times, between changes of its own: it
//! never panics, keeps its limits, each change comes to exactly one end, and who follows
//! its events has its map.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use pollux::clone::client::{Client, ClientConfig, ClientOutbox, Event, SetError};
use pollux::clone::{Collector, KvMsg, Limits, SendFailure, Sequence, Uuid};
use pollux::{Message, Time};

use super::input::{Input, refs};

/// Where the sequences of its broker begin.
const BASE: u64 = Sequence::new(5, 100).get();
const MAX_STEPS: usize = 200;
/// Calls of `handle_timeout` at one time, above which it asks for its timer for ever.
const MAX_TIMEOUTS: usize = 1_000;
/// Topics beyond those of the subtrees and of keys with changes under way: the plain
/// heartbeat and `STATUS?`.
const FIXED_TOPICS: usize = 2;

#[derive(Default)]
struct Net {
    topics: BTreeSet<Vec<u8>>,
    server: usize,
    requests_open: bool,
    changes_open: bool,
    requests_fail: bool,
    changes_fail: bool,
    /// The changes sent last.
    sent: Vec<(Vec<u8>, Vec<u8>)>,
}

fn check_message(frames: &[&[u8]; 5]) {
    if let Err(error) = KvMsg::decode(Message::new(frames), &Limits::default()) {
        panic!("sent what nobody can read: {error}: {frames:?}");
    }
}

impl ClientOutbox for Net {
    fn subscribe(&mut self, topic: &[u8]) {
        assert!(self.topics.insert(topic.to_vec()), "subscribed twice");
    }

    fn unsubscribe(&mut self, topic: &[u8]) {
        assert!(self.topics.remove(topic), "was not subscribed");
    }

    fn open_requests(&mut self) {
        self.requests_open = true;
    }

    fn request(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        assert!(self.requests_open, "a request without a socket");
        assert!(matches!(frames, [b"ICANHAZ?", _] | [b"ICANHAZ?", _, _]), "{frames:?}");
        if self.requests_fail { Err(SendFailure::WouldBlock) } else { Ok(()) }
    }

    fn open_changes(&mut self, _: Collector) {
        self.changes_open = true;
    }

    fn change(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        assert!(self.changes_open, "a change without a socket");
        check_message(frames);
        if self.changes_fail {
            return Err(SendFailure::WouldBlock);
        }
        if self.sent.len() == 8 {
            self.sent.remove(0);
        }
        self.sent.push((frames[0].to_vec(), frames[2].to_vec()));
        Ok(())
    }

    fn turn_to(&mut self, server: usize) {
        self.server = server;
        self.topics.clear();
        self.requests_open = false;
    }
}

/// How far a change has come.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Stage {
    UnderWay,
    Applied,
}

struct Run {
    client: Client,
    config: ClientConfig,
    net: Net,
    now: Time,
    /// The changes that have not come to their end.
    changes: HashMap<Uuid, Stage>,
    /// The map, as the events tell it. Of a key that comes out of a snapshot with the value
    /// that it had, and another sequence, they say nothing.
    told: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Events of keys were dropped: what was told is not the whole.
    has_overrun: bool,
    /// Whether an applied change is kept until it is safe: all of them, unless at a server
    /// of RFC 12.
    keeps: bool,
    /// Applied since the events were drained last.
    news: Vec<Uuid>,
    /// The newest sequence the broker is said to have.
    base: u64,
}

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let mut run = Run::new(&mut input);
    run.client.start(run.now, &mut run.net);
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
        let (kind, many) = (input.byte(), input.byte());
        let subtrees: &[&str] =
            input.pick(&[&["/a/"], &["/a/", "/b/"], &[""], &[], &["/a/b/", "/b/", "HUG"]]);
        let mut config = ClientConfig::follow(subtrees);
        config.until_safe = kind & 1 != 0;
        config.echo_directories = kind & 2 != 0;
        if kind & 4 != 0 {
            (config.max_pending, config.max_pending_bytes) = (3, 60);
            (config.max_keys, config.max_bytes) = (4, 60);
            config.max_echo_keys = 1;
        }
        if kind & 8 != 0 {
            config.max_events = 2;
        }
        config.servers = 1 + usize::from(many % 3);
        Run {
            client: Client::new(config.clone(), 0x5eed).expect("a good configuration"),
            keeps: config.until_safe || config.servers > 1,
            config,
            net: Net::default(),
            now: Time::ZERO + Duration::from_secs(100),
            changes: HashMap::new(),
            told: BTreeMap::new(),
            has_overrun: false,
            news: Vec::new(),
            base: BASE,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let base = self.base;
        match input.byte() % 32 {
            0..=4 => {
                let mut frames = input.kvmsg(base);
                if input.below(4) == 0 {
                    self.echo(input, &mut frames);
                }
                self.update(&frames);
            }
            5 => self.update(&input.frames(base)),
            6..=10 => self.heartbeat(input),
            11..=13 => self.snapshot(input),
            14 => self.answer(&input.frames(base)),
            15 => self.answer(&input.kvmsg(base)),
            16..=18 => {
                self.now += Duration::from_nanos(input.nanos());
                self.settle();
            }
            19 => {
                self.client.handle_backlog(self.now);
                self.client.handle_timeout(self.now, &mut self.net);
            }
            20 => self.now += Duration::from_nanos(input.nanos()),
            21..=24 => {
                let (key, value) = (input.key(), input.value());
                let ttl = (input.below(3) == 0).then(|| Duration::from_nanos(input.nanos()));
                let made = self.client.set(self.now, &key, &value, ttl, &mut self.net);
                let is_bad = value.is_empty() || ttl.is_some_and(|ttl| ttl.is_zero());
                assert!(made.is_err() || !is_bad);
                self.submitted(made);
            }
            25 => {
                let made = self.client.delete(self.now, &input.key(), &mut self.net);
                self.submitted(made);
            }
            26 => self.net.changes_fail = input.below(2) == 1,
            27 => self.net.requests_fail = input.below(2) == 1,
            28 => self.client.handle_writable(self.now, &mut self.net),
            29 => self.status(input),
            30 => self.base += u64::from(input.byte()),
            // Another epoch, or an earlier state of a server that counts by itself.
            _ => self.base = BASE + (input.below(3) as u64) * (1 << 40),
        }
        if input.below(8) != 7 {
            self.drain();
        }
    }

    fn submitted(&mut self, made: Result<Uuid, SetError>) {
        match made {
            Ok(uuid) => {
                assert_eq!(self.changes.insert(uuid, Stage::UnderWay), None, "a name given twice");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }

    fn update(&mut self, frames: &[Vec<u8>]) {
        self.client.handle_update(self.now, Message::new(&refs(frames)), &mut self.net);
    }

    /// What the DEALER opened last brings.
    fn answer(&mut self, frames: &[Vec<u8>]) {
        if self.net.requests_open {
            self.client.handle_snapshot(self.now, Message::new(&refs(frames)), &mut self.net);
        }
    }

    /// Makes it the echo, or the confirmation, of a change of the client.
    fn echo(&mut self, input: &mut Input<'_>, frames: &mut [Vec<u8>]) {
        if self.net.sent.is_empty() {
            return;
        }
        let (key, uuid) = &self.net.sent[input.below(self.net.sent.len())];
        if frames[0].starts_with(b"HUGZ") {
            let answer: &[u8] =
                input.pick(&[b"refused=no\n", b"refused=forgotten\n", b"refused=malformed\n", b""]);
            let applied = format!("applied={}\n", input.near(self.base));
            let answer = if answer.is_empty() { applied.as_bytes() } else { answer };
            frames[3].extend_from_slice(answer);
        } else {
            frames[0].clone_from(key);
        }
        frames[2].clone_from(uuid);
    }

    fn heartbeat(&mut self, input: &mut Input<'_>) {
        let mut topic = b"HUGZ".to_vec();
        let subtrees = &self.config.subtrees;
        match input.below(4) {
            0 if !subtrees.is_empty() => topic.extend(&subtrees[input.below(subtrees.len())]),
            1 => topic.extend(input.key()),
            2 => topic.extend_from_slice(b"/b/"),
            _ => {}
        }
        let sequence = self.base + u64::from(input.byte() % 4);
        let properties = self.capabilities(input);
        let mut frames =
            vec![topic, sequence.to_be_bytes().to_vec(), vec![], properties, Vec::new()];
        if input.below(3) == 0 {
            self.echo(input, &mut frames);
        }
        self.update(&frames);
    }

    fn capabilities(&self, input: &mut Input<'_>) -> Vec<u8> {
        let kind = input.byte();
        if kind & 3 == 0 {
            return Vec::new();
        }
        let node = if kind & 4 == 0 { 1 } else { input.byte() % 3 };
        let role = if kind & 0x78 == 0x78 { "passive" } else { "active" };
        let epoch = self.base >> 40;
        let mut properties =
            format!("chp=2\nnode={node:016x}\nrole={role}\nepoch={epoch}\nhb=500\n");
        properties += &format!("published={}\n", input.byte() % 8);
        properties += &format!("stable={}\n", self.base + u64::from(input.byte()) - 64);
        if kind & 128 != 0 {
            properties += "standby=live\npolicy=wait\n";
            properties += &format!("fork={}\n", self.base + u64::from(input.byte()) - 64);
        }
        let mut properties = properties.into_bytes();
        if input.below(8) == 0 {
            properties.extend(input.properties(self.base));
        }
        properties
    }

    /// The answer to a request: entries, and most times the end.
    fn snapshot(&mut self, input: &mut Input<'_>) {
        let (kind, count) = (input.byte(), input.below(8));
        for _ in 0..count {
            let entry = input.kvmsg(self.base);
            self.answer(&entry);
        }
        if kind & 1 != 0 {
            return;
        }
        let subtrees = &self.config.subtrees;
        let subtree = match subtrees.is_empty() {
            true => Vec::new(),
            false => subtrees[input.below(subtrees.len())].clone(),
        };
        let mut properties = self.capabilities(input);
        if !properties.is_empty() {
            let mode = if kind & 2 == 0 { "full" } else { "delta" };
            let told = if kind & 4 == 0 { count } else { input.below(8) };
            let from = self.client.sequence();
            properties.extend(format!("mode={mode}\ncount={told}\nfrom={from}\n").into_bytes());
        }
        let sequence = (self.base + u64::from(input.byte() % 4)).to_be_bytes().to_vec();
        self.answer(&[b"KTHXBAI".to_vec(), sequence, vec![], properties, subtree]);
    }

    fn status(&mut self, input: &mut Input<'_>) {
        let role = input.pick(&["active", "passive", "starting"]);
        let peer = input.pick(&["live", "silent", "none"]);
        let properties = format!("chp=2\nrole={role}\npeer={peer}\nhb=500\nnode=1\n");
        let sequence = self.base.to_be_bytes().to_vec();
        self.update(&[b"STATUS?".to_vec(), sequence, vec![], properties.into(), vec![]]);
    }

    fn settle(&mut self) {
        for _ in 0..MAX_TIMEOUTS {
            if self.client.next_deadline().is_none_or(|at| at > self.now) {
                return;
            }
            self.client.handle_timeout(self.now, &mut self.net);
        }
        panic!("the client does not come to rest");
    }

    fn drain(&mut self) {
        while let Some(event) = self.client.poll_event() {
            self.hear(event);
        }
        assert!(!self.client.has_events());
        self.drop_unkept();
        let under_way = self.changes.values().filter(|&&stage| stage == Stage::UnderWay).count();
        assert_eq!(self.client.pending(), under_way);
        assert_eq!(self.client.kept(), self.changes.len() - under_way);
        for (&uuid, &stage) in &self.changes {
            assert_eq!(self.client.is_pending(uuid), stage == Stage::UnderWay);
            assert_eq!(self.client.is_kept(uuid), stage == Stage::Applied);
        }
        if !self.has_overrun {
            let map = self.client.iter(b"");
            let map: Vec<_> = map.map(|e| (e.key.to_vec(), e.value.to_vec())).collect();
            let told = self.told.clone();
            assert_eq!(map, told.into_iter().collect::<Vec<_>>(), "what the events told");
        }
    }

    /// What a server of RFC 12 has applied is not kept: it would never say that it is safe.
    fn drop_unkept(&mut self) {
        for uuid in std::mem::take(&mut self.news) {
            if !self.client.is_kept(uuid) {
                assert!(!self.config.until_safe, "neither kept nor safe: {uuid}");
                self.changes.remove(&uuid);
            }
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Updated { key, value, .. } => {
                assert!(!value.is_empty());
                self.told.insert(key.to_vec(), value.to_vec());
            }
            Event::Deleted { key, .. } => _ = self.told.remove(&*key),
            Event::Overrun { dropped } => {
                assert!(dropped > 0);
                self.has_overrun = true;
            }
            Event::Applied { uuid, .. } => {
                let before = match self.keeps {
                    true => self.changes.insert(uuid, Stage::Applied),
                    false => self.changes.remove(&uuid),
                };
                assert_eq!(before, Some(Stage::UnderWay), "{uuid}");
                self.news.push(uuid);
            }
            Event::Safe { uuid, .. } | Event::NotSafe { uuid } => {
                let before = self.changes.remove(&uuid);
                assert_eq!(before, Some(Stage::Applied), "{uuid}");
                self.news.retain(|&news| news != uuid);
            }
            Event::Refused { uuid, .. }
            | Event::Superseded { uuid, .. }
            | Event::TimedOut { uuid, .. } => {
                let before = self.changes.remove(&uuid);
                assert_eq!(before, Some(Stage::UnderWay), "{uuid}");
            }
            Event::Turned { server } => assert!(server < self.config.servers),
            _ => {}
        }
    }

    fn check(&self) {
        let (mut keys, mut bytes) = (0, 0);
        let mut last: Option<&[u8]> = None;
        for entry in self.client.iter(b"") {
            assert!(last.is_none_or(|last| last < entry.key), "out of order");
            assert!(!entry.value.is_empty() && !entry.key.is_empty());
            let is_followed = |subtree: &Vec<u8>| entry.key.starts_with(subtree);
            assert!(self.config.subtrees.iter().any(is_followed), "outside the subtrees");
            assert_eq!(self.client.get(entry.key).map(|found| found.value), Some(entry.value));
            keys += 1;
            bytes += entry.key.len() + entry.value.len();
            last = Some(entry.key);
        }
        assert_eq!((self.client.len(), self.client.bytes()), (keys, bytes));
        let config = &self.config;
        // The map that a snapshot replaces is still held beside it.
        assert!(keys <= 2 * config.max_keys);
        assert!(!self.client.is_current() || keys <= config.max_keys);
        assert!(self.client.pending() + self.client.kept() <= config.max_pending);
        assert_eq!(self.net.server, self.client.server());
        // A subtree has a topic, and one for its heartbeat; so has an echo.
        let topics = 2 * config.subtrees.len() + 2 * config.max_echo_keys + FIXED_TOPICS;
        assert!(self.net.topics.len() <= topics, "{} topics", self.net.topics.len());
    }

    /// At last nothing comes any more: each change ends.
    fn finish(&mut self) {
        self.drain();
        (self.net.changes_fail, self.net.requests_fail) = (false, false);
        self.wait();
        assert_eq!((self.client.pending(), self.client.kept()), (0, 0));
        assert!(self.changes.is_empty());
    }

    /// Longer than any change is kept.
    fn wait(&mut self) {
        let end = self.now + 2 * (self.config.give_up_after + self.config.keep_for);
        while self.now < end {
            self.now += Duration::from_secs(10);
            self.settle();
            self.check();
            self.drain();
        }
    }
}
