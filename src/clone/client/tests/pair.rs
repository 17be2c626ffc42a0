//! A client of two servers, one of which is active: it finds that one, and nothing that
//! was reported safe is lost when it dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::broker::{Broker, Dialect, Frames, Map, Paired, Send, Stored, message};
use super::world::{MS, SECOND};
use crate::clone::client::{Client, ClientConfig, ClientOutbox, Event};
use crate::clone::kvmsg::{FRAMES, Uuid};
use crate::clone::sequence::Sequence;
use crate::clone::{Collector, SendFailure};
use crate::message::Message;
use crate::time::Time;

/// A message on its way, to or from the socket with this number.
type Queue<T> = VecDeque<(Time, u64, T)>;

/// The client's sockets, each new one with a number of its own.
#[derive(Debug, Default)]
struct Net {
    now: Time,
    at: usize,
    sub: u64,
    dealer: u64,
    push: u64,
    sockets: u64,
    topics: BTreeSet<Vec<u8>>,
    /// To the servers, which each socket leads to.
    subscriptions: Queue<Vec<u8>>,
    requests: Queue<(usize, Frames)>,
    changes: Queue<(usize, Frames)>,
    updates: Queue<Frames>,
    answers: Queue<Frames>,
    turned_at: Vec<Time>,
    reaches_all: bool,
    lose_changes: u32,
    /// Of each key the newest change that was sent, by its uuid, which tells the order.
    newest: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Net {
    fn new_socket(&mut self) -> u64 {
        self.sockets += 1;
        self.sockets
    }

    fn send_change(&mut self, server: usize, frames: Frames) {
        self.changes.push_back((self.now + MS, self.push, (server, frames)));
    }
}

fn own(frames: &[&[u8]]) -> Frames {
    frames.iter().map(|frame| frame.to_vec()).collect()
}

fn due<T>(queue: &mut Queue<T>, now: Time) -> Option<(u64, T)> {
    let is_due = queue.front().is_some_and(|&(at, ..)| at <= now);
    is_due.then(|| queue.pop_front().map(|(_, socket, item)| (socket, item))).flatten()
}

impl ClientOutbox for Net {
    fn subscribe(&mut self, topic: &[u8]) {
        assert!(self.topics.insert(topic.to_vec()), "subscribed twice");
        self.subscriptions.push_back((self.now + MS, self.sub, [b"+", topic].concat()));
    }

    fn unsubscribe(&mut self, topic: &[u8]) {
        assert!(self.topics.remove(topic), "was not subscribed");
        self.subscriptions.push_back((self.now + MS, self.sub, [b"-", topic].concat()));
    }

    fn open_requests(&mut self) {
        self.dealer = self.new_socket();
    }

    fn request(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        self.requests.push_back((self.now + MS, self.dealer, (self.at, own(frames))));
        Ok(())
    }

    fn open_changes(&mut self, _: Collector) {
        self.push = self.new_socket();
        self.reaches_all = false;
    }

    fn open_changes_to_all(&mut self, collector: Collector) {
        assert_eq!(collector, Collector::Sub);
        self.push = self.new_socket();
        self.reaches_all = true;
    }

    fn change(&mut self, frames: &[&[u8]; FRAMES]) -> Result<(), SendFailure> {
        assert_ne!(self.push, 0, "the port for changes is not open");
        let [key, _, uuid, ..] = *frames;
        let newest = self.newest.insert(key.to_vec(), uuid.to_vec());
        assert!(newest.is_none_or(|newest| *newest <= *uuid), "sent again behind a newer one");
        if self.lose_changes > 0 {
            self.lose_changes -= 1;
        } else if self.reaches_all {
            (0..2).for_each(|server| self.send_change(server, own(frames)));
        } else {
            self.send_change(self.at, own(frames));
        }
        Ok(())
    }

    fn turn_to(&mut self, server: usize) {
        self.at = server;
        self.turned_at.push(self.now);
        self.sub = self.new_socket();
        self.dealer = 0;
        if !self.reaches_all {
            self.push = 0;
        }
        self.topics.clear();
    }
}

struct Server {
    broker: Broker,
    is_up: bool,
    /// A vote was cast, and when.
    voted: Option<Time>,
    held: Vec<(u64, Frames)>,
    topics_of: u64,
}

/// What a standby is given: its entries with their keys.
type Replica = Vec<(Vec<u8>, Stored)>;

/// Both servers, the client, and time.
struct Pair {
    net: Net,
    client: Client,
    servers: [Server; 2],
    /// The active died, or lost sight of the standby.
    silent_since: Option<Time>,
    /// Changes under way from the active to the standby, and back that it has them.
    replicas: VecDeque<(Time, Replica)>,
    acknowledged: VecDeque<(Time, Sequence)>,
    heartbeat_at: Time,
    events: Vec<Event>,
    told: Map,
    /// All changes of ours in order, and what they set.
    made: Vec<(Uuid, Vec<u8>, Vec<u8>)>,
}

impl Pair {
    fn new(dialect: Dialect, configure: impl FnOnce(&mut ClientConfig)) -> Pair {
        let mut config = ClientConfig::follow(["/a/", "/b/"]);
        config.servers = 2;
        configure(&mut config);
        let server = |node, is_active| {
            let mut broker = Broker::new(dialect);
            broker.node = node;
            let stable = broker.sequence;
            if dialect == Dialect::Extended {
                let fork = Sequence::ZERO;
                broker.pair = Some(Paired { is_active, peer: "live", fork, stable });
                broker.lineage = vec![(stable, stable)];
            }
            Server { broker, is_up: true, voted: None, held: Vec::new(), topics_of: 0 }
        };
        Pair {
            net: Net::default(),
            client: Client::new(config, 0xfeed).expect("a good configuration"),
            servers: [server(1, true), server(2, false)],
            silent_since: None,
            replicas: VecDeque::new(),
            acknowledged: VecDeque::new(),
            heartbeat_at: Time::ZERO + SECOND,
            events: Vec::new(),
            told: Map::new(),
            made: Vec::new(),
        }
    }

    /// A client that is current.
    fn synced() -> Pair {
        let mut pair = Pair::new(Dialect::Extended, |_| {});
        pair.put("/a/1", "old");
        pair.put("/b/1", "old");
        pair.start();
        pair.run(2 * SECOND);
        assert!(pair.client.is_current(), "{:?}", pair.client);
        pair.events.clear();
        pair
    }

    fn start(&mut self) {
        self.client.start(self.net.now, &mut self.net);
        self.drain();
    }

    fn active(&self) -> Option<usize> {
        let serves =
            |server: &Server| server.is_up && server.broker.pair.is_none_or(|pair| pair.is_active);
        self.servers.iter().position(serves)
    }

    fn put(&mut self, key: &str, value: &str) {
        if let Some(active) = self.active() {
            self.servers[active].broker.put(key.as_bytes(), value.as_bytes());
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Uuid {
        let (now, key, value) = (self.net.now, key.as_bytes(), value.as_bytes());
        let uuid = self.client.set(now, key, value, None, &mut self.net).expect("taken");
        self.made.push((uuid, key.to_vec(), value.to_vec()));
        self.drain();
        uuid
    }

    /// The active dies with what was not replicated.
    fn kill(&mut self) {
        let Some(active) = self.active() else { return };
        self.servers[active].is_up = false;
        self.servers[active].held.clear();
        self.replicas.clear();
        self.acknowledged.clear();
        self.silent_since = Some(self.net.now);
        self.cut(active);
    }

    /// Nothing under way to or from this server arrives.
    fn cut(&mut self, server: usize) {
        self.net.requests.retain(|(_, _, (to, _))| *to != server);
        self.net.changes.retain(|(_, _, (to, _))| *to != server);
        if self.net.at == server {
            self.net.updates.clear();
            self.net.answers.clear();
            self.net.subscriptions.clear();
        }
    }

    /// The dead one comes back as a standby, with the state of the active.
    fn revive(&mut self) {
        let (Some(active), Some(dead)) =
            (self.active(), self.servers.iter().position(|server| !server.is_up))
        else {
            return;
        };
        let node = self.servers[dead].broker.node + 10;
        let mut broker = Broker::new(Dialect::Extended);
        broker.node = node;
        broker.copy_state(&self.servers[active].broker);
        let stable = broker.sequence;
        broker.pair = Some(Paired { is_active: false, peer: "live", fork: Sequence::ZERO, stable });
        self.servers[dead] =
            Server { broker, is_up: true, voted: None, held: Vec::new(), topics_of: 0 };
        self.servers[active].broker.unreplicated.clear();
        self.silent_since = None;
        let active = &mut self.servers[active].broker;
        if let Some(pair) = &mut active.pair {
            (pair.peer, pair.stable) = ("live", stable);
        }
        // The client's connection to it comes back by itself.
        if self.net.at == dead {
            let topics: Vec<_> = self.net.topics.iter().cloned().collect();
            for topic in topics {
                let add = [b"+", &topic[..]].concat();
                self.net.subscriptions.push_back((self.net.now + MS, self.net.sub, add));
            }
        }
    }

    /// A standby takes over if its peer is silent and a client asks.
    fn promote_if_due(&mut self) {
        let now = self.net.now;
        let Some(silent) = self.silent_since.filter(|&since| since + 2 * SECOND <= now) else {
            return;
        };
        let _ = silent;
        let Some(index) = self.servers.iter().position(|server| {
            server.is_up && server.broker.pair.is_some_and(|pair| !pair.is_active)
        }) else {
            return;
        };
        let server = &mut self.servers[index];
        let Some(pair) = &mut server.broker.pair else { return };
        if pair.peer == "live" {
            pair.peer = "silent";
            server.broker.tell_status();
        }
        if server.voted.is_some_and(|voted| voted + 4 * SECOND > now) {
            self.promote(index);
        }
    }

    fn promote(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let fork = server.broker.sequence;
        let sequence = Sequence::new(fork.epoch() + 1, 5);
        server.broker.sequence = sequence;
        if let Some(span) = server.broker.lineage.last_mut() {
            span.1 = fork;
        }
        server.broker.lineage.push((sequence, sequence));
        server.broker.pair =
            Some(Paired { is_active: true, peer: "silent", fork, stable: sequence });
        server.broker.heartbeat();
        server.broker.tell_status();
        for (dealer, frames) in std::mem::take(&mut server.held) {
            server.broker.handle_request(dealer, &frames);
        }
    }

    /// The active goes on in a new epoch with what was given up to `fork`, and nothing more is
    /// safe by that. What it has given so far its standby never gets.
    fn begin_epoch(&mut self, fork: Sequence) {
        self.replicas.clear();
        let active = self.active().expect("one is active");
        let broker = &mut self.servers[active].broker;
        let start = Sequence::new(fork.epoch() + 1, 5);
        broker.lineage.last_mut().expect("a history").1 = fork;
        broker.lineage.push((start, start));
        broker.sequence = start;
        if let Some(pair) = &mut broker.pair {
            pair.fork = fork;
        }
        broker.heartbeat();
        self.run(10 * MS);
    }

    /// Sets a key, which is applied, but not safe; gives its sequence, too.
    fn set_unsafe(&mut self, key: &str, value: &str) -> (Uuid, Sequence) {
        let made = self.set(key, value);
        let applied = |pair: &Pair| {
            pair.events.iter().find_map(|event| match event {
                Event::Applied { uuid, sequence } if *uuid == made => Some(*sequence),
                _ => None,
            })
        };
        self.run_until("the change is applied", |pair| applied(pair).is_some());
        self.replicas.clear();
        (made, applied(self).expect("as awaited"))
    }

    fn drain(&mut self) {
        while let Some(event) = self.client.poll_event() {
            match &event {
                Event::Updated { key, value, .. } => {
                    self.told.insert(key.to_vec(), value.to_vec());
                }
                Event::Deleted { key, .. } => drop(self.told.remove(&**key)),
                _ => {}
            }
            self.events.push(event);
        }
        let map: Map =
            self.client.iter(b"").map(|entry| (entry.key.into(), entry.value.into())).collect();
        assert_eq!(self.told, map, "the events tell another map");
    }

    fn run(&mut self, time: Duration) {
        let end = self.net.now + time;
        while self.net.now < end {
            let mut steps = 0;
            while self.step() {
                steps += 1;
                assert!(steps < 100_000, "the client never comes to rest");
            }
            self.net.now += MS;
        }
    }

    fn run_until(&mut self, what: &str, condition: impl Fn(&Pair) -> bool) -> Duration {
        let start = self.net.now;
        while !condition(self) {
            assert!(self.net.now.since(start) < 120 * SECOND, "not within 2 min: {what}");
            self.run(MS);
        }
        self.net.now.since(start)
    }

    fn step(&mut self) -> bool {
        let now = self.net.now;
        self.promote_if_due();
        self.send();
        if let Some((socket, topic)) = due(&mut self.net.subscriptions, now) {
            self.subscription(socket, &topic);
        } else if let Some((dealer, (to, frames))) = due(&mut self.net.requests, now) {
            let server = &mut self.servers[to];
            server.voted = Some(now);
            match server.broker.pair {
                _ if !server.is_up => {}
                Some(pair) if !pair.is_active => server.held.push((dealer, frames)),
                _ => server.broker.handle_request(dealer, &frames),
            }
        } else if let Some((_, (to, frames))) = due(&mut self.net.changes, now) {
            let server = &mut self.servers[to];
            if server.is_up && server.broker.pair.is_none_or(|pair| pair.is_active) {
                server.broker.handle_change(&frames);
            }
        } else if let Some((socket, frames)) = due(&mut self.net.updates, now) {
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            if socket == self.net.sub
                && self.net.topics.iter().any(|topic| frames[0].starts_with(topic))
            {
                self.client.handle_update(now, Message::new(&frames), &mut self.net);
            }
        } else if let Some((socket, frames)) = due(&mut self.net.answers, now) {
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            if socket == self.net.dealer {
                self.client.handle_snapshot(now, Message::new(&frames), &mut self.net);
            }
        } else if self.heartbeat_at <= now {
            self.heartbeat_at += SECOND;
            for server in self.servers.iter_mut().filter(|server| server.is_up) {
                server.broker.heartbeat();
            }
        } else if self.replication_is_due() {
        } else if self.client.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.client.handle_timeout(now, &mut self.net);
        } else {
            return false;
        }
        self.send();
        self.drain();
        true
    }

    fn subscription(&mut self, socket: u64, topic: &[u8]) {
        let server = &mut self.servers[self.net.at];
        if socket != self.net.sub || !server.is_up {
            return;
        }
        if server.topics_of != socket {
            server.broker.disconnect();
            server.topics_of = socket;
        }
        match topic[0] {
            b'+' => server.broker.subscribe(&topic[1..]),
            _ => server.broker.unsubscribe(&topic[1..]),
        }
    }

    /// Changes go to the standby, and the news that it has them back.
    fn replication_is_due(&mut self) -> bool {
        let (now, Some(active)) = (self.net.now, self.active()) else { return false };
        let changes = std::mem::take(&mut self.servers[active].broker.unreplicated);
        let standby = &mut self.servers[1 - active];
        if !changes.is_empty() && standby.is_up {
            self.replicas.push_back((now + 3 * MS, changes));
            return true;
        }
        if !standby.is_up && !changes.is_empty() {
            // Alone, by the policy `proceed`, what it has is safe.
            let broker = &mut self.servers[active].broker;
            if let Some(pair) = &mut broker.pair {
                pair.stable = broker.sequence;
            }
            return true;
        }
        if let Some((_, changes)) = self.replicas.pop_front_if(|(at, _)| *at <= now) {
            for (key, stored) in &changes {
                standby.broker.replicate(key, stored);
            }
            self.acknowledged.push_back((now + 2 * MS, standby.broker.sequence));
            return true;
        }
        if let Some((_, sequence)) = self.acknowledged.pop_front_if(|(at, _)| *at <= now) {
            let broker = &mut self.servers[active].broker;
            if let Some(pair) = &mut broker.pair {
                pair.stable = pair.stable.max(sequence);
            }
            broker.heartbeat();
            return true;
        }
        false
    }

    fn send(&mut self) {
        for (index, server) in self.servers.iter_mut().enumerate() {
            for send in std::mem::take(&mut server.broker.sends) {
                let at = self.net.now + MS;
                match send {
                    Send::Update(frames) if index == self.net.at && server.is_up => {
                        self.net.updates.push_back((at, server.topics_of, frames));
                    }
                    Send::Answer(dealer, frames) if server.is_up => {
                        self.net.answers.push_back((at, dealer, frames));
                    }
                    _ => {}
                }
            }
        }
    }

    fn count(&self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| is_it(event)).count()
    }

    /// What must hold when all has settled.
    fn check(&self) {
        let active = self.active().expect("one is active");
        let broker = &self.servers[active].broker;
        assert!(self.client.is_current(), "{:?} {:?}", self.client, self.events);
        let model: Map = [&b"/a/"[..], b"/b/"].iter().flat_map(|at| broker.map(at)).collect();
        assert_eq!(self.told, model);
        assert!(!broker.has_doubled(), "a change took effect twice");
        let mut ends: BTreeMap<Uuid, (u32, u32)> = BTreeMap::new();
        for event in &self.events {
            match event {
                Event::Applied { uuid, .. } => ends.entry(*uuid).or_default().0 += 1,
                Event::Refused { uuid, .. }
                | Event::Superseded { uuid, .. }
                | Event::TimedOut { uuid, .. } => ends.entry(*uuid).or_default().0 += 10,
                Event::Safe { uuid, .. } | Event::NotSafe { uuid } => {
                    assert_eq!(ends.get(uuid), Some(&(1, 0)), "{event:?} before Applied, or twice");
                    ends.entry(*uuid).or_default().1 += 1;
                }
                _ => {}
            }
        }
        for (uuid, ..) in &self.made {
            let end = ends.get(uuid).copied().unwrap_or_default();
            assert!(matches!(end, (1, 1) | (10, 0)), "{uuid:?} ends with {end:?}");
        }
        assert_eq!((self.client.pending(), self.client.kept()), (0, 0));
    }

    /// Every key that only the client writes has the value it gave it last, if all its
    /// changes were applied.
    fn check_values(&self) {
        let broker = &self.servers[self.active().expect("one is active")].broker;
        let last: BTreeMap<_, _> =
            self.made.iter().map(|(_, key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in last {
            assert_eq!(broker.entries[&key].value, value, "{}", key.escape_ascii());
        }
    }
}

#[test]
fn the_active_is_found_whichever_it_is() {
    for active in [0, 1] {
        let mut pair = Pair::new(Dialect::Extended, |_| {});
        if active == 1 {
            pair.servers.swap(0, 1);
        }
        pair.start();
        let took = pair.run_until("current", |pair| pair.client.is_current());
        assert_eq!(pair.client.server(), active);
        assert!(took < SECOND / 5, "{took:?}");
        assert!(pair.net.turned_at.len() <= 1, "{:?}", pair.net.turned_at);
    }
}

#[test]
fn a_change_is_told_safe_once_the_standby_has_it() {
    let mut pair = Pair::synced();
    let uuid = pair.set("/a/1", "new");
    pair.run(3 * MS);
    assert!(matches!(pair.events[..], [Event::Applied { .. }, Event::Updated { .. }]));
    assert_eq!((pair.client.pending(), pair.client.kept()), (0, 1));
    assert!(!pair.client.is_pending(uuid));
    pair.run(10 * MS);
    assert!(matches!(pair.events.last(), Some(Event::Safe { uuid: safe, .. }) if *safe == uuid));
    pair.check();
}

#[test]
fn after_the_death_of_the_active_a_change_is_applied_within_three_heartbeats() {
    // Wherever in the interval it dies.
    for phase in 0..20 {
        let mut pair = Pair::synced();
        pair.run(phase * 50 * MS);
        pair.kill();
        let uuid = pair.set("/a/1", "after");
        let took = pair.run_until("the change is applied", |pair| {
            pair.events.iter().any(
                |event| matches!(event, Event::Applied { uuid: applied, .. } if *applied == uuid),
            )
        });
        assert!(took <= 3 * SECOND, "{took:?} at phase {phase}: {:?}", pair.events);
        pair.run(20 * SECOND);
        pair.check();
        pair.check_values();
        assert_eq!(pair.client.server(), 1);
        assert_eq!(pair.client.stats().deltas, 2, "both subtrees go on where they were");
    }
}

#[test]
fn what_only_the_dead_one_had_is_sent_to_the_next() {
    let mut pair = Pair::synced();
    let lost: Vec<Uuid> =
        (0..5).map(|n| pair.set(&format!("/a/{n}"), &format!("unsafe {n}"))).collect();
    let twice = pair.set("/a/0", "unsafe, second");
    // Applied, and the standby has none of it.
    pair.run(3 * MS);
    assert_eq!(pair.count(|event| matches!(event, Event::Applied { .. })), 6);
    assert_eq!(pair.client.kept(), 6);
    pair.kill();
    pair.run(20 * SECOND);
    pair.check();
    pair.check_values();
    let safe: BTreeSet<Uuid> = pair
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Safe { uuid, .. } => Some(*uuid),
            _ => None,
        })
        .collect();
    assert!(safe.is_superset(&lost.into_iter().chain([twice]).collect()), "{:?}", pair.events);
}

#[test]
fn what_the_next_one_has_is_not_sent_again() {
    let mut pair = Pair::synced();
    let uuid = pair.set("/a/1", "new");
    // The standby has it, and could not say so.
    pair.run(5 * MS);
    assert_eq!(pair.client.kept(), 1);
    pair.kill();
    let sent = pair.client.stats().sent;
    pair.run(20 * SECOND);
    assert_eq!(pair.client.stats().sent, sent);
    assert!(
        pair.events
            .iter()
            .any(|event| matches!(event, Event::Safe { uuid: safe, .. } if *safe == uuid))
    );
    pair.check();
    pair.check_values();
}

#[test]
fn what_the_next_one_has_from_before_its_last_takeover_becomes_safe() {
    let mut pair = Pair::synced();
    let uuid = pair.set("/a/1", "new");
    // The standby has it, and could not say so.
    pair.run(5 * MS);
    assert_eq!(pair.client.kept(), 1);
    pair.kill();
    // It was active for a while, unseen, so its last takeover says nothing of the first epoch.
    let standby = &mut pair.servers[1].broker;
    let start = Sequence::new(2, 5);
    standby.lineage.last_mut().expect("a history").1 = standby.sequence;
    standby.lineage.push((start, start));
    standby.sequence = start;
    pair.run(20 * SECOND);
    assert_eq!(pair.servers[1].broker.sequence.epoch(), 3);
    let is_safe = |event: &Event| matches!(event, Event::Safe { uuid: safe, .. } if *safe == uuid);
    assert_eq!(pair.count(is_safe), 1, "{:?}", pair.events);
    // Under the sequence that it has there, not the one that proves it.
    let sequence = pair.client.get(b"/a/1").expect("it is there").sequence;
    assert_eq!(sequence.epoch(), 1);
    assert!(pair.events.contains(&Event::Safe { uuid, sequence }), "{:?}", pair.events);
    assert_eq!(pair.client.kept(), 0);
    pair.check();
    pair.check_values();
}

#[test]
fn what_has_a_number_of_another_history_in_the_same_epoch_is_sent_again() {
    let mut pair = Pair::synced();
    pair.set("/a/1", "new");
    pair.run(3 * MS);
    assert_eq!(pair.client.kept(), 1);
    pair.kill();
    // Both were started anew, unseen, in the same epoch; the other has all numbers by now.
    let standby = &mut pair.servers[1].broker;
    let start = Sequence::new(1, 500);
    (standby.sequence, standby.lineage) = (start, vec![(start, start)]);
    pair.run(20 * SECOND);
    pair.check();
    pair.check_values();
}

#[test]
fn an_own_later_change_is_never_undone_by_an_earlier_one() {
    // The first is lost on the way, the second reaches both; which was applied is not known.
    let mut pair = Pair::synced();
    pair.net.lose_changes = 1;
    pair.set("/a/1", "first");
    pair.set("/a/1", "second");
    pair.run(MS);
    pair.net.updates.clear();
    pair.run(6 * MS);
    pair.kill();
    pair.run(20 * SECOND);
    pair.check();
    pair.check_values();
}

#[test]
fn what_a_later_change_has_replaced_becomes_safe_with_it_and_is_not_sent_again() {
    // The second time the first one is confirmed once more, which says nothing new.
    for is_confirmed_again in [false, true] {
        let mut pair = Pair::synced();
        let (first, sequence) = pair.set_unsafe("/x/1", "first");
        pair.begin_epoch(sequence);
        let (second, sequence) = pair.set_unsafe("/x/1", "second");
        // This epoch tells of the one before it alone, in which the second was given; no
        // snapshot shows the key.
        pair.begin_epoch(sequence);
        if is_confirmed_again {
            let copy = message(b"/x/1", Sequence::ZERO, Some(first), b"", b"first");
            pair.servers[0].broker.handle_change(&copy);
        }
        // The first waits with the second, for longer than what has no answer does.
        pair.run(20 * SECOND);
        assert_eq!((pair.client.pending(), pair.client.kept()), (0, 2), "{:?}", pair.events);
        let broker = &mut pair.servers[0].broker;
        broker.pair.as_mut().expect("a pair").stable = sequence;
        broker.heartbeat();
        pair.run(10 * MS);
        for change in [first, second] {
            let is_safe =
                |event: &Event| matches!(event, Event::Safe { uuid, .. } if *uuid == change);
            assert_eq!(pair.count(is_safe), 1, "{:?}", pair.events);
        }
        // Whoever is next may not know either.
        pair.begin_epoch(Sequence::new(3, 5));
        assert_eq!((pair.client.kept(), pair.client.stats().sent), (0, 2));
        assert!(pair.client.is_current());
        pair.check_values();
    }
}

#[test]
fn what_was_before_a_change_that_is_given_up_is_not_sent_again() {
    let mut pair = Pair::new(Dialect::Extended, |config| config.give_up_after = 3 * SECOND);
    pair.start();
    pair.run(2 * SECOND);
    let (first, sequence) = pair.set_unsafe("/a/1", "first");
    let (second, _) = pair.set_unsafe("/a/1", "second");
    // The next one has the first. The second is sent to it again and again, in vain.
    pair.net.lose_changes = u32::MAX;
    pair.begin_epoch(sequence);
    pair.run(4 * SECOND);
    let is_not_safe = |change: Uuid| move |event: &Event| matches!(event, Event::NotSafe { uuid } if *uuid == change);
    assert_eq!(pair.count(is_not_safe(second)), 1, "{:?}", pair.events);
    assert_eq!((pair.client.pending(), pair.client.kept()), (0, 1));
    // Nobody knows whether the next but one has either.
    let sent = pair.client.stats().sent;
    pair.begin_epoch(Sequence::new(2, 5));
    assert_eq!(pair.count(is_not_safe(first)), 1, "{:?}", pair.events);
    assert_eq!((pair.client.kept(), pair.client.stats().sent), (0, sent));
}

#[test]
fn at_a_server_of_rfc12_what_a_change_has_replaced_goes_with_it() {
    let mut pair = Pair::new(Dialect::Extended, |config| config.give_up_after = 60 * SECOND);
    pair.start();
    pair.run(2 * SECOND);
    let (first, _) = pair.set_unsafe("/a/1", "first");
    // The next epoch does not have it, nor is it heard of what is sent there.
    pair.net.lose_changes = u32::MAX;
    pair.begin_epoch(Sequence::new(1, 100));
    let second = pair.set("/a/1", "second");
    pair.run(SECOND);
    pair.kill();
    pair.servers[1].broker = Broker::new(Dialect::Rfc12);
    pair.net.lose_changes = 0;
    let is_applied =
        |event: &Event| matches!(event, Event::Applied { uuid, .. } if *uuid == second);
    pair.run_until("the second is applied", |pair| pair.count(is_applied) == 1);
    let is_not_safe = |event: &Event| matches!(event, Event::NotSafe { uuid } if *uuid == first);
    assert_eq!(pair.count(is_not_safe), 1, "{:?}", pair.events);
    assert_eq!((pair.client.pending(), pair.client.kept()), (0, 0));
}

#[test]
fn what_was_never_safe_is_kept_no_longer_than_told() {
    let mut pair = Pair::new(Dialect::Extended, |config| config.keep_for = 3 * SECOND);
    pair.start();
    pair.run(2 * SECOND);
    pair.replicas.clear();
    pair.set("/a/1", "x");
    pair.run(2 * MS);
    pair.servers[0].broker.unreplicated.clear();
    pair.replicas.clear();
    pair.run(4 * SECOND);
    assert_eq!(pair.count(|event| matches!(event, Event::NotSafe { .. })), 1, "{:?}", pair.events);
    assert_eq!(pair.client.stats().not_safe, 1);
    assert_eq!(pair.client.kept(), 0);
}

#[test]
fn what_is_kept_counts_for_the_limit() {
    let mut pair = Pair::new(Dialect::Extended, |config| config.max_pending = 3);
    pair.start();
    pair.run(2 * SECOND);
    for n in 0..3 {
        pair.set("/a/1", &format!("{n}"));
        pair.run(2 * MS);
    }
    let now = pair.net.now;
    assert!(pair.client.set(now, b"/a/1", b"x", None, &mut pair.net).is_err());
    pair.run(SECOND);
    assert!(pair.client.set(now, b"/a/1", b"x", None, &mut pair.net).is_ok());
}

#[test]
fn a_planned_handover_is_followed_at_once() {
    let mut pair = Pair::synced();
    pair.set("/a/1", "before");
    pair.run(SECOND);
    pair.events.clear();
    // It steps down with a farewell, and the other one takes over.
    if let Some(state) = &mut pair.servers[0].broker.pair {
        state.is_active = false;
    }
    pair.servers[0].broker.tell_status();
    pair.promote(1);
    let took = pair
        .run_until("current again", |pair| pair.client.is_current() && pair.client.server() == 1);
    assert!(took < SECOND / 5, "{took:?}");
    assert!(!pair.events.iter().any(|event| matches!(event, Event::Safe { .. })));
}

#[test]
fn without_any_server_it_turns_ever_more_slowly_and_finds_the_first_that_comes() {
    let mut pair = Pair::synced();
    pair.servers[1].is_up = false;
    pair.kill();
    pair.run(600 * SECOND);
    let turns = &pair.net.turned_at;
    let early = turns.iter().filter(|&&at| at < Time::ZERO + 30 * SECOND).count();
    assert!(early >= 4, "{turns:?}");
    assert!(turns.len() < 120, "{}", turns.len());
    let gaps: Vec<Duration> = turns.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(gaps.iter().all(|gap| *gap < 16 * SECOND), "{gaps:?}");
    // Servers alike wait unlike.
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]));
    pair.servers[1].is_up = true;
    pair.servers[1].topics_of = 0;
    pair.run_until("current", |pair| pair.client.is_current());
}

#[test]
fn an_active_with_an_older_history_is_followed_only_if_there_is_no_other() {
    let mut pair = Pair::synced();
    pair.kill();
    pair.run(10 * SECOND);
    assert_eq!(pair.client.server(), 1);
    // The first comes back and knows nothing of that, and the second goes.
    pair.servers[0].is_up = true;
    pair.servers[0].topics_of = 0;
    pair.servers[1].is_up = false;
    pair.silent_since = None;
    pair.run(6 * SECOND);
    assert!(!pair.client.is_current(), "too early");
    pair.run(60 * SECOND);
    assert!(pair.client.is_current(), "{:?}", pair.events);
    assert_eq!(pair.client.server(), 0);
}

#[test]
fn a_standby_of_rfc12_that_answers_nothing_is_left() {
    let mut pair = Pair::new(Dialect::Rfc12, |_| {});
    pair.servers[0].broker.is_mute = true;
    pair.servers[1].broker.put(b"/a/1", b"there");
    pair.start();
    pair.run_until("current", |pair| pair.client.is_current());
    assert_eq!(pair.client.server(), 1);
    assert!(pair.net.reaches_all);
    // Each change goes to both, under the same name.
    let uuid = pair.set("/a/1", "new");
    assert_eq!(pair.net.changes.len(), 2);
    pair.run(SECOND);
    for server in &pair.servers {
        assert_eq!(server.broker.effects, [(uuid, b"new".to_vec())]);
    }
}

#[derive(Clone, Debug)]
enum Act {
    Set(u8, u8),
    Put(u8),
    Wait(u16),
    Kill,
    Revive,
    LoseChanges(u8),
    LoseUpdates,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Act::Set(key, value)),
        4 => any::<u8>().prop_map(Act::Put),
        12 => (0..12u16).prop_map(Act::Wait),
        4 => (0..4000u16).prop_map(Act::Wait),
        2 => Just(Act::Kill),
        3 => Just(Act::Revive),
        2 => (0..4u8).prop_map(Act::LoseChanges),
        1 => Just(Act::LoseUpdates),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60),
        ..ProptestConfig::default()
    })]

    /// Brokers die and come back, never both dead at a time: what was applied survives.
    #[test]
    fn nothing_that_was_applied_is_lost(acts in vec(act(), 0..60)) {
        let mut pair = Pair::new(Dialect::Extended, |config| {
            // A broker may be looked for longer than ten seconds here.
            config.give_up_after = 100 * SECOND;
            config.keep_for = 100 * SECOND;
        });
        pair.start();
        pair.run(2 * SECOND);
        for act in &acts {
            match *act {
                Act::Set(key, value) => {
                    let key = format!("{}{}", ["/a/", "/b/"][usize::from(key % 2)], key / 2 % 3);
                    pair.set(&key, &format!("mine {value} {}", pair.made.len()));
                }
                Act::Put(key) => pair.put(&format!("/a/other{}", key % 3), &format!("{key}")),
                Act::Wait(ms) => pair.run(u32::from(ms) * MS),
                // Only with a standby that is whole.
                Act::Kill if pair.servers.iter().all(|server| server.is_up) => pair.kill(),
                Act::Kill => {}
                Act::Revive => pair.revive(),
                Act::LoseChanges(count) => pair.net.lose_changes = count.into(),
                Act::LoseUpdates => pair.net.updates.clear(),
            }
        }
        pair.net.lose_changes = 0;
        pair.run(90 * SECOND);
        pair.check();
        let stats = pair.client.stats();
        prop_assert_eq!(stats.timed_out + stats.refused + stats.not_safe, 0, "{:?}", stats);
        pair.check_values();
    }
}
