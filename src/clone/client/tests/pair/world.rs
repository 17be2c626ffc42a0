//! Both servers, what passes between them, and the client.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::net::{Net, due};
use crate::clone::client::tests::broker::{Broker, Dialect, Frames, Map, Paired, Send, Stored};
use crate::clone::client::tests::world::{MS, SECOND};
use crate::clone::client::{Client, ClientConfig, Event};
use crate::clone::kvmsg::Uuid;
use crate::clone::sequence::Sequence;
use crate::message::Message;
use crate::time::Time;

/// After so long without a word of the active a standby takes over, if a client asks.
const SILENCE: Duration = Duration::from_secs(2);

pub(super) struct Server {
    pub(super) broker: Broker,
    pub(super) is_up: bool,
    /// A vote was cast, and when.
    voted: Option<Time>,
    held: Vec<(u64, Frames)>,
    pub(super) topics_of: u64,
}

/// What a standby is given: its entries with their keys.
type Replica = Vec<(Vec<u8>, Stored)>;

/// Both servers, the client, and time.
pub(super) struct Pair {
    pub(super) net: Net,
    pub(super) client: Client,
    pub(super) servers: [Server; 2],
    /// The active died, or lost sight of the standby.
    pub(super) silent_since: Option<Time>,
    /// Changes under way from the active to the standby, and back that it has them.
    pub(super) replicas: VecDeque<(Time, Replica)>,
    acknowledged: VecDeque<(Time, Sequence)>,
    heartbeat_at: Time,
    pub(super) events: Vec<Event>,
    told: Map,
    /// All changes of ours in order, and what they set.
    pub(super) made: Vec<(Uuid, Vec<u8>, Vec<u8>)>,
}

impl Pair {
    pub(super) fn new(dialect: Dialect, configure: impl FnOnce(&mut ClientConfig)) -> Pair {
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
    pub(super) fn synced() -> Pair {
        let mut pair = Pair::new(Dialect::Extended, |_| {});
        pair.put("/a/1", "old");
        pair.put("/b/1", "old");
        pair.start();
        pair.run(2 * SECOND);
        assert!(pair.client.is_current(), "{:?}", pair.client);
        pair.events.clear();
        pair
    }

    pub(super) fn start(&mut self) {
        self.client.start(self.net.now, &mut self.net);
        self.drain();
    }

    fn active(&self) -> Option<usize> {
        let serves =
            |server: &Server| server.is_up && server.broker.pair.is_none_or(|pair| pair.is_active);
        self.servers.iter().position(serves)
    }

    pub(super) fn put(&mut self, key: &str, value: &str) {
        if let Some(active) = self.active() {
            self.servers[active].broker.put(key.as_bytes(), value.as_bytes());
        }
    }

    pub(super) fn set(&mut self, key: &str, value: &str) -> Uuid {
        let (now, key, value) = (self.net.now, key.as_bytes(), value.as_bytes());
        let uuid = self.client.set(now, key, value, None, &mut self.net).expect("taken");
        self.made.push((uuid, key.to_vec(), value.to_vec()));
        self.drain();
        uuid
    }

    /// The active dies with what was not replicated.
    pub(super) fn kill(&mut self) {
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
    pub(super) fn revive(&mut self) {
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
        if self.silent_since.is_none_or(|since| now < since + SILENCE) {
            return;
        }
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

    pub(super) fn promote(&mut self, index: usize) {
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
    pub(super) fn begin_epoch(&mut self, fork: Sequence) {
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
    pub(super) fn set_unsafe(&mut self, key: &str, value: &str) -> (Uuid, Sequence) {
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

    /// Lets time pass, with all that happens in it, up to what is due at its end.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.net.now + time;
        while self.net.now < end {
            self.settle();
            self.net.now = self.next().min(end);
        }
    }

    pub(super) fn run_until(&mut self, what: &str, condition: impl Fn(&Pair) -> bool) -> Duration {
        let start = self.net.now;
        loop {
            self.settle();
            if condition(self) {
                return self.net.now.since(start);
            }
            self.net.now = self.next();
            assert!(self.net.now.since(start) < 120 * SECOND, "not within 2 min: {what}");
        }
    }

    /// All that is due now.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the client never comes to rest");
    }

    /// When something happens of itself after now.
    fn next(&self) -> Time {
        let times = [
            self.net.next_arrival(),
            self.client.next_deadline(),
            self.replicas.front().map(|&(at, _)| at),
            self.acknowledged.front().map(|&(at, _)| at),
            self.silent_since.map(|since| since + SILENCE),
        ];
        let times = times.into_iter().flatten().filter(|&at| at > self.net.now);
        times.fold(self.heartbeat_at, Time::min)
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

    pub(super) fn count(&self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| is_it(event)).count()
    }

    /// What must hold when all has settled.
    pub(super) fn check(&self) {
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
    pub(super) fn check_values(&self) {
        let broker = &self.servers[self.active().expect("one is active")].broker;
        let last: BTreeMap<_, _> =
            self.made.iter().map(|(_, key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in last {
            assert_eq!(broker.entries[&key].value, value, "{}", key.escape_ascii());
        }
    }
}
