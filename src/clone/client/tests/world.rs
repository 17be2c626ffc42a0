//! A client, a broker, the connections between them, and time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::broker::{Broker, Dialect, Frames, Map, Send};
use crate::clone::Collector;
use crate::clone::SendFailure;
use crate::clone::client::{Client, ClientConfig, ClientOutbox, Event};
use crate::clone::kvmsg::{FRAMES, HUGZ, KTHXBAI};
use crate::clone::sequence::Sequence;
use crate::message::Message;
use crate::time::Time;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// What a message proves when it arrives: the map when it was sent.
#[derive(Debug)]
pub(super) struct Update {
    frames: Frames,
    /// With heartbeats and ends of snapshots.
    map: Option<(Sequence, Map)>,
}

/// Client to broker on the updates connection.
#[derive(Debug)]
enum Command {
    Subscribe(Vec<u8>),
    Unsubscribe(Vec<u8>),
}

type Queue<T> = VecDeque<(Time, T)>;

/// The sockets of the client and what is on the way. Each connection is first
/// in first out with a delay of its own.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) now: Time,
    pub(super) is_up: bool,
    pub(super) update_delay: Duration,
    pub(super) request_delay: Duration,
    pub(super) change_delay: Duration,
    pub(super) topics: BTreeSet<Vec<u8>>,
    commands: Queue<Command>,
    updates: Queue<Update>,
    pub(super) dealer: u64,
    requests: Queue<(u64, Frames)>,
    answers: Queue<(u64, Update)>,
    pub(super) changes: Queue<Frames>,
    pub(super) collector: Option<Collector>,
    /// The port for changes takes no more.
    pub(super) is_full: bool,
    /// So many of the next changes under way to the client are lost.
    pub(super) lose_updates: u32,
    /// So many of the next changes of the client are lost.
    pub(super) lose_changes: u32,
    pub(super) lose_heartbeats: u32,
}

impl Net {
    fn new() -> Net {
        Net {
            now: Time::ZERO,
            is_up: true,
            update_delay: MS,
            request_delay: MS,
            change_delay: MS,
            topics: BTreeSet::new(),
            commands: VecDeque::new(),
            updates: VecDeque::new(),
            dealer: 0,
            requests: VecDeque::new(),
            answers: VecDeque::new(),
            changes: VecDeque::new(),
            collector: None,
            is_full: false,
            lose_updates: 0,
            lose_changes: 0,
            lose_heartbeats: 0,
        }
    }

    /// When the next message arrives anywhere.
    fn next_arrival(&self) -> Time {
        let fronts = [
            self.commands.front().map(|&(at, _)| at),
            self.updates.front().map(|&(at, _)| at),
            self.requests.front().map(|&(at, _)| at),
            self.answers.front().map(|&(at, _)| at),
            self.changes.front().map(|&(at, _)| at),
        ];
        fronts.into_iter().flatten().min().unwrap_or(Time::NEVER)
    }
}

fn due<T>(queue: &mut Queue<T>, now: Time) -> Option<T> {
    let is_due = queue.front().is_some_and(|&(at, _)| at <= now);
    is_due.then(|| queue.pop_front().map(|(_, item)| item)).flatten()
}

impl ClientOutbox for Net {
    fn subscribe(&mut self, topic: &[u8]) {
        assert!(self.topics.insert(topic.to_vec()), "subscribed twice");
        if self.is_up {
            let at = self.now + self.update_delay;
            self.commands.push_back((at, Command::Subscribe(topic.to_vec())));
        }
    }

    fn unsubscribe(&mut self, topic: &[u8]) {
        assert!(self.topics.remove(topic), "was not subscribed");
        if self.is_up {
            let at = self.now + self.update_delay;
            self.commands.push_back((at, Command::Unsubscribe(topic.to_vec())));
        }
    }

    fn open_requests(&mut self) {
        self.dealer += 1;
    }

    fn request(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        let frames = frames.iter().map(|frame| frame.to_vec()).collect();
        if self.is_up {
            self.requests.push_back((self.now + self.request_delay, (self.dealer, frames)));
        }
        Ok(())
    }

    fn open_changes(&mut self, collector: Collector) {
        self.collector = Some(collector);
        self.changes.clear();
    }

    fn change(&mut self, frames: &[&[u8]; FRAMES]) -> Result<(), SendFailure> {
        assert!(self.collector.is_some(), "the port for changes is not open");
        if self.is_full || !self.is_up {
            return Err(SendFailure::WouldBlock);
        }
        if self.lose_changes > 0 {
            self.lose_changes -= 1;
            return Ok(());
        }
        let frames = frames.iter().map(|frame| frame.to_vec()).collect();
        self.changes.push_back((self.now + self.change_delay, frames));
        Ok(())
    }
}

/// All of it.
pub(super) struct World {
    pub(super) net: Net,
    pub(super) broker: Broker,
    pub(super) client: Client,
    pub(super) subtrees: Vec<Vec<u8>>,
    pub(super) events: Vec<Event>,
    /// What an application makes of the events.
    pub(super) told: Map,
    /// The highest sequence told of each key by this run of the broker.
    sequences: BTreeMap<Vec<u8>, Sequence>,
    heartbeat_at: Time,
    slice_at: Time,
    /// Whether the broker sends heartbeats now.
    pub(super) has_heartbeats: bool,
    /// Messages wait all the time that were not handed to the client.
    pub(super) is_behind: bool,
}

impl World {
    pub(super) fn new(dialect: Dialect, subtrees: &[&str]) -> World {
        World::with(dialect, ClientConfig::follow(subtrees))
    }

    pub(super) fn with(dialect: Dialect, config: ClientConfig) -> World {
        let subtrees = config.subtrees.clone();
        World {
            net: Net::new(),
            broker: Broker::new(dialect),
            client: Client::new(config, 0x0123_4567_89ab_cdef).expect("a good configuration"),
            subtrees,
            events: Vec::new(),
            told: Map::new(),
            sequences: BTreeMap::new(),
            heartbeat_at: Time::ZERO + SECOND,
            slice_at: Time::NEVER,
            has_heartbeats: true,
            is_behind: false,
        }
    }

    /// A client that is current.
    pub(super) fn synced(dialect: Dialect, subtrees: &[&str]) -> World {
        let mut world = World::new(dialect, subtrees);
        for key in ["/a/1", "/a/2", "/b/1", "plain"] {
            world.broker.put(key.as_bytes(), b"old");
        }
        world.start();
        world.run(3 * SECOND);
        assert!(world.client.is_current(), "{:?}", world.client);
        world.assert_equal();
        world.events.clear();
        world
    }

    pub(super) fn start(&mut self) {
        self.client.start(self.net.now, &mut self.net);
        self.drain();
    }

    pub(super) fn now(&self) -> Time {
        self.net.now
    }

    pub(super) fn drain(&mut self) {
        while let Some(event) = self.client.poll_event() {
            match &event {
                Event::Updated { key, value, sequence } => {
                    let before = self.sequences.insert(key.to_vec(), *sequence);
                    assert!(before <= Some(*sequence), "{event:?} after {before:?}");
                    self.told.insert(key.to_vec(), value.to_vec());
                }
                Event::Deleted { key, .. } => {
                    assert!(self.told.remove(&**key).is_some(), "{event:?} of nothing");
                }
                _ => {}
            }
            self.events.push(event);
        }
        assert_eq!(self.told, self.map(), "the events tell another map");
    }

    /// The client's map.
    pub(super) fn map(&self) -> Map {
        let map: Map =
            self.client.iter(b"").map(|entry| (entry.key.into(), entry.value.into())).collect();
        assert_eq!(map.len(), self.client.len());
        map
    }

    /// What it should be.
    pub(super) fn model(&self) -> Map {
        self.subtrees.iter().flat_map(|subtree| self.broker.map(subtree)).collect()
    }

    pub(super) fn assert_equal(&self) {
        assert_eq!(self.map(), self.model());
    }

    /// Lets time pass, with all that happens in it.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now() + time;
        loop {
            self.settle();
            let next = self.next();
            if next > end {
                break;
            }
            self.net.now = self.net.now.max(next);
        }
        self.net.now = end;
    }

    /// Runs until `condition`, for a minute at most.
    pub(super) fn run_until(&mut self, what: &str, condition: impl Fn(&World) -> bool) {
        let end = self.now() + 60 * SECOND;
        loop {
            self.settle();
            if condition(self) {
                return;
            }
            self.net.now = self.net.now.max(self.next());
            assert!(self.now() < end, "not within a minute: {what}; {:?}", self.client);
        }
    }

    /// When something happens of itself.
    fn next(&self) -> Time {
        let deadline = self.client.next_deadline().unwrap_or(Time::NEVER);
        let next = self.net.next_arrival().min(deadline);
        next.min(self.heartbeat_at).min(self.slice_at)
    }

    /// All that is due now.
    fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if !self.step() {
                return;
            }
            self.drain();
        }
        panic!("the client never comes to rest");
    }

    fn step(&mut self) -> bool {
        let now = self.net.now;
        self.send();
        if let Some(command) = due(&mut self.net.commands, now) {
            match command {
                Command::Subscribe(topic) => self.broker.subscribe(&topic),
                Command::Unsubscribe(topic) => self.broker.unsubscribe(&topic),
            }
        } else if let Some((dealer, frames)) = due(&mut self.net.requests, now) {
            self.broker.handle_request(dealer, &frames);
        } else if let Some(frames) = due(&mut self.net.changes, now) {
            self.broker.handle_change(&frames);
        } else if let Some(update) = due(&mut self.net.updates, now) {
            self.deliver(update, None);
        } else if let Some((dealer, update)) = due(&mut self.net.answers, now) {
            self.deliver(update, Some(dealer));
        } else if self.heartbeat_at <= now {
            self.heartbeat_at += SECOND;
            if self.has_heartbeats {
                self.broker.heartbeat();
            }
        } else if self.slice_at <= now {
            self.broker.slice();
            self.slice_at = Time::NEVER;
        } else if self.client.next_deadline().is_some_and(|deadline| deadline <= now) {
            if self.is_behind {
                self.client.handle_backlog(now);
            }
            self.client.handle_timeout(now, &mut self.net);
            let next = self.client.next_deadline();
            assert!(next.is_none_or(|next| next > now), "a deadline that stays due");
        } else {
            return false;
        }
        self.send();
        true
    }

    /// Puts what the broker wants sent on the way.
    fn send(&mut self) {
        if self.broker.is_slicing() && self.slice_at == Time::NEVER {
            self.slice_at = self.net.now + MS;
        }
        for send in std::mem::take(&mut self.broker.sends) {
            let frames = match &send {
                Send::Update(frames) | Send::Answer(_, frames) => frames,
            };
            let is_heartbeat = frames[0].starts_with(HUGZ);
            // A snapshot may end a little before the present.
            let is_end = frames[0] == KTHXBAI && frames[1] == self.broker.sequence.to_wire();
            let proves = is_heartbeat || is_end;
            let map = proves.then(|| (self.broker.sequence, self.model()));
            if !self.net.is_up {
                continue;
            }
            match send {
                Send::Update(frames) => {
                    let lose = match is_heartbeat {
                        true => &mut self.net.lose_heartbeats,
                        false => &mut self.net.lose_updates,
                    };
                    if *lose > 0 {
                        *lose -= 1;
                        continue;
                    }
                    let at = self.net.now + self.net.update_delay;
                    self.net.updates.push_back((at, Update { frames, map }));
                }
                Send::Answer(dealer, frames) => {
                    let at = self.net.now + self.net.request_delay;
                    self.net.answers.push_back((at, (dealer, Update { frames, map })));
                }
            }
        }
    }

    fn deliver(&mut self, update: Update, dealer: Option<u64>) {
        let now = self.net.now;
        let frames: Vec<&[u8]> = update.frames.iter().map(Vec::as_slice).collect();
        match dealer {
            // What an earlier DEALER receives is never seen.
            Some(dealer) if dealer != self.net.dealer => return,
            Some(_) => self.client.handle_snapshot(now, Message::new(&frames), &mut self.net),
            None => {
                let is_subscribed =
                    self.net.topics.iter().any(|topic| frames[0].starts_with(topic));
                if !is_subscribed {
                    return;
                }
                self.client.handle_update(now, Message::new(&frames), &mut self.net);
            }
        }
        if let Some((sequence, map)) = update.map {
            let topic = [HUGZ, &self.subtrees.concat()].concat();
            if frames[0] == KTHXBAI || frames[0] == topic {
                self.check_proof(sequence, &map);
            }
        }
    }

    /// No silent staleness: a client that is current after a heartbeat has all
    /// that was published before it.
    fn check_proof(&self, sequence: Sequence, map: &Map) {
        if self.broker.dialect == Dialect::Extended
            && self.client.is_current()
            && self.client.stats().unwatched == 0
            && self.client.sequence() <= sequence
            && self.subtrees.len() == 1
        {
            assert_eq!(&self.map(), map, "stale and does not know it");
        }
    }

    /// Delivers a message that no broker sent.
    pub(super) fn inject_update(&mut self, frames: &[&[u8]]) {
        self.client.handle_update(self.net.now, Message::new(frames), &mut self.net);
        self.drain();
    }

    pub(super) fn inject_answer(&mut self, frames: &[&[u8]]) {
        self.client.handle_snapshot(self.net.now, Message::new(frames), &mut self.net);
        self.drain();
    }

    pub(super) fn set(&mut self, key: &str, value: &str) -> crate::clone::Uuid {
        let now = self.net.now;
        let uuid = self.client.set(now, key.as_bytes(), value.as_bytes(), None, &mut self.net);
        self.drain();
        uuid.expect("taken")
    }

    pub(super) fn disconnect(&mut self) {
        self.net.is_up = false;
        self.net.commands.clear();
        self.net.updates.clear();
        self.net.requests.clear();
        self.net.answers.clear();
        self.net.changes.clear();
        self.broker.disconnect();
    }

    /// As libzmq does: subscriptions go out again, in byte order.
    pub(super) fn reconnect(&mut self) {
        self.net.is_up = true;
        let at = self.net.now + self.net.update_delay;
        for topic in &self.net.topics {
            self.net.commands.push_back((at, Command::Subscribe(topic.clone())));
        }
    }

    /// Another broker process takes the place of this one.
    pub(super) fn restart_broker(&mut self) {
        self.disconnect();
        self.broker.restart();
        self.sequences.clear();
        self.reconnect();
    }

    /// Names of the events that are not about keys.
    pub(super) fn milestones(&self) -> Vec<String> {
        let milestones = self.events.iter().filter_map(|event| {
            Some(match event {
                Event::Synced { .. } => "Synced".to_owned(),
                Event::Gap { .. } => "Gap".to_owned(),
                Event::Resync { reason, .. } => format!("Resync {reason:?}"),
                Event::Lost => "Lost".to_owned(),
                Event::LimitReached { .. } => "LimitReached".to_owned(),
                _ => return None,
            })
        });
        milestones.collect()
    }
}

/// A message that no broker sent.
pub(super) fn frames<'a>(
    key: &'a [u8],
    sequence: Sequence,
    properties: &'a [u8],
    body: &'a [u8],
) -> [&'a [u8]; 5] {
    let sequence: &'static [u8; 8] = Box::leak(Box::new(sequence.to_wire()));
    [key, sequence, b"", properties, body]
}
