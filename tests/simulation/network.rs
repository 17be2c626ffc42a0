//! Connections as libzmq has them, as far as it matters: in order each, none
//! with another; lost with all that is on the way; made again after a while,
//! when subscriptions are sent once more in byte order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::fmt;
use std::time::Duration;

use pollux::clone::broker::{Broker, BrokerConfig, BrokerOutbox};
use pollux::clone::client::{Client, ClientConfig, ClientOutbox, SetError};
use pollux::clone::{Collector, KvMsg, Limits, SendFailure, Sequence, Uuid};
use pollux::{Message, Time};

use crate::checks::Told;
use crate::history::History;
use crate::random::Random;

pub(crate) type Totals = BTreeMap<&'static str, u64>;

type Frames = Vec<Vec<u8>>;

/// How often what goes wrong: in ten thousand steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    breaks: u64,
    stalls: u64,
    restarts: u64,
    /// Longest delay of a message, in microseconds.
    latency_us: u64,
    /// Messages on the way to a subscriber, above which it misses some.
    updates_hwm: usize,
    snapshot_hwm: usize,
    changes_hwm: usize,
}

impl Faults {
    pub(crate) fn of(random: &mut Random) -> Faults {
        let mut often = |most: u64| if random.chance(40) { 0 } else { random.below(most) };
        Faults {
            breaks: often(300),
            stalls: often(300),
            restarts: often(30),
            latency_us: 100 + random.below(30_000),
            updates_hwm: 5 + random.below(200) as usize,
            snapshot_hwm: 2 + random.below(50) as usize,
            changes_hwm: 1 + random.below(50) as usize,
        }
    }
}

/// What is on the way.
enum Packet {
    /// To the XPUB: a subscription, or its end.
    Subscription {
        client: usize,
        link: u64,
        subscribe: bool,
        topic: Vec<u8>,
    },
    Update {
        client: usize,
        link: u64,
        frames: Frames,
    },
    Request {
        client: usize,
        link: u64,
        frames: Frames,
    },
    Snapshot {
        client: usize,
        link: u64,
        frames: Frames,
    },
    Change {
        client: usize,
        link: u64,
        frames: Frames,
    },
    /// A connection stands (again).
    Connected {
        client: usize,
        port: Port,
        link: u64,
    },
    /// The broker comes back.
    Up,
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Packet::Subscription { client, link, subscribe, topic } => {
                write!(f, "{client}/{link} subscribe {subscribe} {}", topic.escape_ascii())
            }
            Packet::Update { client, link, frames } => {
                write!(f, "{client}/{link} update {}", text(frames))
            }
            Packet::Request { client, link, frames } => {
                write!(f, "{client}/{link} request {}", text(frames))
            }
            Packet::Snapshot { client, link, frames } => {
                write!(f, "{client}/{link} snapshot {}", text(frames))
            }
            Packet::Change { client, link, frames } => {
                write!(f, "{client}/{link} change {}", text(frames))
            }
            Packet::Connected { client, port, link } => {
                write!(f, "{client}/{link} connected {port:?}")
            }
            Packet::Up => f.write_str("up"),
        }
    }
}

fn text(frames: &Frames) -> String {
    let limits = Limits::default();
    let message = with_message(frames, |m| KvMsg::decode(m, &limits).map(|k| format!("{k:?}")));
    message.unwrap_or_else(|_| {
        frames.iter().map(|f| f.escape_ascii().to_string()).collect::<Vec<_>>().join(" | ")
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Updates,
    Requests,
    Changes,
}

/// A connection of a client. What belongs to an earlier `link` is lost.
#[derive(Debug, Default)]
struct Link {
    link: u64,
    is_open: bool,
    is_connected: bool,
    /// On the way to the broker and from it, which the queues limit.
    up: usize,
    down: usize,
    /// When the last message on the way arrives: none overtakes another.
    up_until: Time,
    down_until: Time,
    /// Requests that wait for the connection.
    waiting: Vec<Frames>,
}

pub(crate) struct Node {
    client: Client,
    updates: Link,
    requests: Link,
    changes: Link,
    /// What the SUB is subscribed to.
    topics: BTreeSet<Vec<u8>>,
    /// What the XPUB knows of that, over the connection there is.
    known: BTreeSet<Vec<u8>>,
    told: Told,
    /// Its loop is not turned until then.
    stalled_until: Time,
    subtrees: Vec<Vec<u8>>,
}

pub(crate) struct Network {
    pub(crate) now: Time,
    pub(crate) clients: Vec<Node>,
    broker: Option<Broker>,
    start: Sequence,
    histories: Vec<History>,
    air: Air,
    totals: Totals,
}

/// The packets on the way, and what decides of them.
struct Air {
    random: Random,
    faults: Faults,
    packets: BinaryHeap<Reverse<(Time, u64)>>,
    by_number: HashMap<u64, Packet>,
    sent: u64,
    dropped: u64,
    blocked: u64,
}

impl Air {
    fn delay(&mut self) -> Duration {
        Duration::from_micros(20 + self.random.below(self.faults.latency_us))
    }

    fn at(&mut self, time: Time, packet: Packet) {
        self.sent += 1;
        self.packets.push(Reverse((time, self.sent)));
        self.by_number.insert(self.sent, packet);
    }

    /// Sends behind what is on the way already.
    fn after(&mut self, now: Time, until: &mut Time, packet: Packet) {
        *until = (now + self.delay()).max(*until + Duration::from_nanos(1));
        self.at(*until, packet);
    }
}

fn owned(frames: &[&[u8]]) -> Frames {
    frames.iter().map(|frame| frame.to_vec()).collect()
}

fn with_message<R>(frames: &Frames, f: impl FnOnce(Message<'_>) -> R) -> R {
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    f(Message::new(&frames))
}

/// The broker's sockets.
struct BrokerSide<'a> {
    now: Time,
    nodes: &'a mut [Node],
    history: &'a mut History,
    air: &'a mut Air,
}

impl BrokerOutbox for BrokerSide<'_> {
    fn reply(&mut self, peer: &[u8], frames: &[&[u8]]) -> Result<(), SendFailure> {
        let text = std::str::from_utf8(peer).unwrap();
        let (client, link) = text.split_once('/').unwrap();
        let (client, link): (usize, u64) = (client.parse().unwrap(), link.parse().unwrap());
        let requests = &mut self.nodes[client].requests;
        if requests.link != link || !requests.is_connected {
            return Err(SendFailure::Unreachable);
        }
        if requests.down >= self.air.faults.snapshot_hwm {
            self.air.blocked += 1;
            return Err(SendFailure::WouldBlock);
        }
        requests.down += 1;
        let packet = Packet::Snapshot { client, link, frames: owned(frames) };
        self.air.after(self.now, &mut requests.down_until, packet);
        Ok(())
    }

    fn publish(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        let message = KvMsg::decode(Message::new(frames), &Limits::default()).unwrap();
        if !message.key.starts_with(b"HUGZ") {
            self.history.publish(message.key, message.sequence.get(), message.uuid, message.body);
        }
        for (client, node) in self.nodes.iter_mut().enumerate() {
            let updates = &mut node.updates;
            if !node.known.iter().any(|topic| message.key.starts_with(topic)) {
                continue;
            }
            if updates.down >= self.air.faults.updates_hwm {
                self.air.dropped += 1;
                continue;
            }
            updates.down += 1;
            let link = updates.link;
            let packet = Packet::Update { client, link, frames: owned(frames) };
            self.air.after(self.now, &mut updates.down_until, packet);
        }
        Ok(())
    }
}

/// A client's sockets.
struct ClientSide<'a> {
    now: Time,
    client: usize,
    updates: &'a mut Link,
    requests: &'a mut Link,
    changes: &'a mut Link,
    topics: &'a mut BTreeSet<Vec<u8>>,
    air: &'a mut Air,
    is_up: bool,
}

impl ClientSide<'_> {
    fn tell_topic(&mut self, subscribe: bool, topic: &[u8]) {
        if self.updates.is_connected {
            let (client, link, topic) = (self.client, self.updates.link, topic.to_vec());
            let packet = Packet::Subscription { client, link, subscribe, topic };
            self.air.after(self.now, &mut self.updates.up_until, packet);
        }
    }

    fn connect(&mut self, port: Port) {
        let link = match port {
            Port::Updates => &mut *self.updates,
            Port::Requests => &mut *self.requests,
            Port::Changes => &mut *self.changes,
        };
        // A new socket: what was on the old one is gone.
        *link = Link { link: link.link + 1, is_open: true, ..Link::default() };
        if self.is_up {
            let (client, link) = (self.client, link.link);
            let time = self.now + self.air.delay();
            self.air.at(time, Packet::Connected { client, port, link });
        }
    }
}

impl ClientOutbox for ClientSide<'_> {
    fn subscribe(&mut self, topic: &[u8]) {
        assert!(self.topics.insert(topic.to_vec()), "subscribed twice");
        self.tell_topic(true, topic);
    }

    fn unsubscribe(&mut self, topic: &[u8]) {
        assert!(self.topics.remove(topic), "was not subscribed");
        self.tell_topic(false, topic);
    }

    fn open_requests(&mut self) {
        self.connect(Port::Requests);
    }

    fn request(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        assert!(self.requests.is_open, "no socket for requests");
        if self.requests.is_connected {
            let (client, link) = (self.client, self.requests.link);
            let packet = Packet::Request { client, link, frames: owned(frames) };
            self.air.after(self.now, &mut self.requests.up_until, packet);
        } else {
            self.requests.waiting.push(owned(frames));
        }
        Ok(())
    }

    fn open_changes(&mut self, _: Collector) {
        self.connect(Port::Changes);
    }

    fn change(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        // IMMEDIATE: nothing is queued for a connection that does not stand.
        if !self.changes.is_connected || self.changes.up >= self.air.faults.changes_hwm {
            return Err(SendFailure::WouldBlock);
        }
        self.changes.up += 1;
        let (client, link) = (self.client, self.changes.link);
        let packet = Packet::Change { client, link, frames: owned(frames) };
        self.air.after(self.now, &mut self.changes.up_until, packet);
        Ok(())
    }
}

impl Network {
    pub(crate) fn new(seed: u64, faults: Faults, subtrees: &[&[&str]]) -> Network {
        let mut random = Random::new(seed);
        let node = |subtrees: &&[&str]| {
            let mut config = ClientConfig::follow(*subtrees);
            config.give_up_after = Duration::from_secs(30);
            let client = Client::new(config, random.next()).unwrap();
            Node {
                client,
                updates: Link { is_open: true, ..Link::default() },
                requests: Link::default(),
                changes: Link::default(),
                topics: BTreeSet::new(),
                known: BTreeSet::new(),
                told: Told::default(),
                stalled_until: Time::ZERO,
                subtrees: subtrees.iter().map(|subtree| subtree.as_bytes().to_vec()).collect(),
            }
        };
        let clients = subtrees.iter().map(node).collect();
        let air = Air {
            random,
            faults,
            packets: BinaryHeap::new(),
            by_number: HashMap::new(),
            sent: 0,
            dropped: 0,
            blocked: 0,
        };
        let mut network = Network {
            now: Time::ZERO + Duration::from_secs(1),
            clients,
            broker: None,
            start: Sequence::ZERO,
            histories: Vec::new(),
            air,
            totals: Totals::new(),
        };
        if network.air.random.chance(50) {
            network.up();
        } else {
            network.air.at(network.now + Duration::from_secs(3), Packet::Up);
        }
        for client in 0..network.clients.len() {
            network.drive(client, |client, now, out| client.start(now, out));
        }
        network
    }

    fn count(&mut self, name: &'static str) {
        *self.totals.entry(name).or_default() += 1;
    }

    // The broker -------------------------------------------------------------

    /// A new run of the broker, and connections to it.
    fn up(&mut self) {
        let random = &mut self.air.random;
        let start = Sequence::new(1 + self.histories.len() as u32, random.below(1000));
        let mut config = BrokerConfig::new(random.next(), start);
        config.heartbeat = Duration::from_millis(100 + random.below(900));
        config.snapshots.slice_entries = 1 + random.below(20) as usize;
        config.store.history = random.below(40) as usize;
        config.recent_age = Duration::from_secs(60);
        if random.chance(20) {
            config.max_watched = 2;
        }
        if random.chance(10) {
            config.store.max_keys = 30;
        }
        self.start = start;
        self.histories.push(History::default());
        self.broker = Some(Broker::new(config, self.now));
        for client in 0..self.clients.len() {
            for port in [Port::Updates, Port::Requests, Port::Changes] {
                self.reconnect(client, port);
            }
        }
    }

    fn down(&mut self) {
        self.broker = None;
        for client in 0..self.clients.len() {
            for port in [Port::Updates, Port::Requests, Port::Changes] {
                self.cut(client, port);
            }
        }
    }

    fn with_broker(&mut self, f: impl FnOnce(&mut Broker, Time, &mut BrokerSide<'_>)) {
        let Some(broker) = &mut self.broker else { return };
        let mut side = BrokerSide {
            now: self.now,
            nodes: &mut self.clients,
            history: self.histories.last_mut().expect("a run has a history"),
            air: &mut self.air,
        };
        f(broker, self.now, &mut side);
    }

    pub(crate) fn change_in_broker(&mut self, key: &str, value: &str, ttl: Option<Duration>) {
        let (key, value) = (key.as_bytes(), value.as_bytes());
        self.with_broker(|broker, now, out| {
            if value.is_empty() {
                broker.delete(now, key, out);
            } else {
                let _ = broker.set(now, key, value, ttl, out);
            }
        });
    }

    // Connections ------------------------------------------------------------

    fn link(&mut self, client: usize, port: Port) -> &mut Link {
        let node = &mut self.clients[client];
        match port {
            Port::Updates => &mut node.updates,
            Port::Requests => &mut node.requests,
            Port::Changes => &mut node.changes,
        }
    }

    /// A connection breaks, with all that is on the way.
    fn cut(&mut self, client: usize, port: Port) {
        let link = self.link(client, port);
        *link = Link {
            link: link.link + 1,
            is_open: link.is_open,
            waiting: std::mem::take(&mut link.waiting),
            ..Link::default()
        };
        if port == Port::Updates {
            // The XPUB tells of topics that nobody else is subscribed to.
            for topic in std::mem::take(&mut self.clients[client].known) {
                self.end_of_subscription(&topic);
            }
        }
    }

    fn end_of_subscription(&mut self, topic: &[u8]) {
        if !self.clients.iter().any(|node| node.known.contains(topic)) {
            let frame = [&[0], topic].concat();
            self.with_broker(|broker, now, _| {
                broker.handle_subscription(now, Message::new(&[&frame]));
            });
        }
    }

    /// libzmq tries again after a while, if the broker is there.
    fn reconnect(&mut self, client: usize, port: Port) {
        let time = self.now + Duration::from_micros(100 + self.air.random.below(300_000));
        let link = self.link(client, port);
        if link.is_open && !link.is_connected {
            let link = link.link;
            self.air.at(time, Packet::Connected { client, port, link });
        }
    }

    fn connected(&mut self, client: usize, port: Port) {
        let is_up = self.broker.is_some();
        let link = self.link(client, port);
        if !link.is_open || link.is_connected || !is_up {
            return;
        }
        link.is_connected = true;
        match port {
            Port::Updates => {
                let node = &mut self.clients[client];
                for topic in node.topics.clone() {
                    let link = node.updates.link;
                    let packet = Packet::Subscription { client, link, subscribe: true, topic };
                    self.air.after(self.now, &mut node.updates.up_until, packet);
                }
            }
            Port::Requests => {
                let requests = &mut self.clients[client].requests;
                for frames in std::mem::take(&mut requests.waiting) {
                    let packet = Packet::Request { client, link: requests.link, frames };
                    self.air.after(self.now, &mut requests.up_until, packet);
                }
            }
            Port::Changes => {
                self.drive(client, |client, now, out| client.handle_writable(now, out));
            }
        }
    }

    // Clients ------------------------------------------------------------------

    /// Runs a client, then takes and checks what it tells.
    fn drive<R>(
        &mut self,
        index: usize,
        f: impl FnOnce(&mut Client, Time, &mut ClientSide<'_>) -> R,
    ) -> R {
        let node = &mut self.clients[index];
        let mut side = ClientSide {
            now: self.now,
            client: index,
            updates: &mut node.updates,
            requests: &mut node.requests,
            changes: &mut node.changes,
            topics: &mut node.topics,
            air: &mut self.air,
            is_up: self.broker.is_some(),
        };
        let result = f(&mut node.client, self.now, &mut side);
        while let Some(event) = node.client.poll_event() {
            node.told.take(&event, &self.histories);
        }
        if let Some(history) = self.histories.last_mut() {
            node.told.check(&node.client, history, self.start);
        }
        result
    }

    pub(crate) fn set(&mut self, client: usize, key: &str, value: &str, ttl: Option<Duration>) {
        let set = self.drive(client, |client, now, out| {
            client.set(now, key.as_bytes(), value.as_bytes(), ttl, out)
        });
        self.submitted(client, key, set);
    }

    pub(crate) fn delete(&mut self, client: usize, key: &str) {
        let deleted =
            self.drive(client, |client, now, out| client.delete(now, key.as_bytes(), out));
        self.submitted(client, key, deleted);
    }

    fn submitted(&mut self, client: usize, key: &str, outcome: Result<Uuid, SetError>) {
        let uuid = outcome.expect("nothing refuses it");
        let before = self.clients[client].told.open.insert(uuid, key.to_owned());
        assert_eq!(before, None, "a uuid came twice");
        self.count("submitted");
    }

    // Time -----------------------------------------------------------------------

    /// Something may go wrong.
    pub(crate) fn trouble(&mut self) {
        let faults = self.air.faults;
        for client in 0..self.clients.len() {
            for port in [Port::Updates, Port::Requests, Port::Changes] {
                if self.air.random.rarely(faults.breaks) && self.link(client, port).is_connected {
                    self.count("connections broken");
                    self.cut(client, port);
                    self.reconnect(client, port);
                }
            }
            if self.air.random.rarely(faults.stalls) {
                self.count("loops stalled");
                let stall = Duration::from_millis(self.air.random.below(3000));
                let until = &mut self.clients[client].stalled_until;
                *until = (*until).max(self.now + stall);
            }
        }
        if self.broker.is_some() && self.air.random.rarely(faults.restarts) {
            self.count("brokers restarted");
            self.down();
            let time = self.now + Duration::from_millis(self.air.random.below(4000));
            self.air.at(time, Packet::Up);
        }
    }

    /// Nothing goes wrong any more.
    pub(crate) fn calm(&mut self) {
        self.air.faults.updates_hwm = usize::MAX;
    }

    /// Lets so much time go by.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        while let Some(next) = self.step_time().filter(|next| *next <= end) {
            steps += 1;
            assert!(steps < 1_000_000, "time stands still at {:?}:\n{self:#?}", self.now);
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn client_deadline(node: &Node) -> Time {
        node.client.next_deadline().unwrap_or(Time::NEVER).max(node.stalled_until)
    }

    fn step_time(&self) -> Option<Time> {
        let packet = self.air.packets.peek().map(|Reverse((time, _))| *time);
        let broker = self.broker.as_ref().and_then(Broker::next_deadline);
        let clients = self.clients.iter().map(Network::client_deadline).min();
        [packet, broker, clients].into_iter().flatten().min()
    }

    fn step(&mut self) {
        let now = self.now;
        if self.broker.as_ref().and_then(Broker::next_deadline).is_some_and(|time| time <= now) {
            self.with_broker(|broker, now, out| broker.handle_timeout(now, out));
        }
        for client in 0..self.clients.len() {
            if Network::client_deadline(&self.clients[client]) <= now {
                self.drive(client, |client, now, out| client.handle_timeout(now, out));
            }
        }
        while let Some(&Reverse((time, number))) = self.air.packets.peek()
            && time <= now
        {
            self.air.packets.pop();
            let packet = self.air.by_number.remove(&number).expect("it was sent");
            self.deliver(packet);
        }
    }

    /// Keeps what comes to a loop that stands still.
    fn deliver(&mut self, packet: Packet) {
        if std::env::var_os("POLLUX_SIM_TRACE").is_some() {
            eprintln!("{:?} {packet:?}", self.now);
        }
        if let Packet::Update { client, .. } | Packet::Snapshot { client, .. } = packet
            && self.clients[client].stalled_until > self.now
        {
            let time = self.clients[client].stalled_until;
            return self.air.at(time, packet);
        }
        match packet {
            Packet::Up if self.broker.is_none() => self.up(),
            Packet::Up => {}
            Packet::Connected { client, port, link } => {
                if self.link(client, port).link == link {
                    self.connected(client, port);
                }
            }
            Packet::Subscription { client, link, subscribe, topic } => {
                if self.clients[client].updates.link == link {
                    self.subscription(client, subscribe, topic);
                }
            }
            Packet::Update { client, link, frames } => {
                let updates = &mut self.clients[client].updates;
                if updates.link == link {
                    updates.down -= 1;
                    self.drive(client, |client, now, out| {
                        with_message(&frames, |message| client.handle_update(now, message, out));
                    });
                }
            }
            Packet::Snapshot { client, link, frames } => {
                let requests = &mut self.clients[client].requests;
                if requests.link == link {
                    requests.down -= 1;
                    self.drive(client, |client, now, out| {
                        with_message(&frames, |message| client.handle_snapshot(now, message, out));
                    });
                }
            }
            Packet::Request { client, link, frames } => {
                if self.clients[client].requests.link == link {
                    let peer = format!("{client}/{link}").into_bytes();
                    self.with_broker(|broker, _, out| {
                        with_message(&frames, |message| {
                            broker.handle_request(&peer, message, out);
                        });
                    });
                }
            }
            Packet::Change { client, link, frames } => {
                let changes = &mut self.clients[client].changes;
                if changes.link == link {
                    let was_full = changes.up >= self.air.faults.changes_hwm;
                    changes.up -= 1;
                    self.with_broker(|broker, now, out| {
                        with_message(&frames, |message| broker.handle_change(now, message, out));
                    });
                    if was_full && self.clients[client].stalled_until <= self.now {
                        self.drive(client, |client, now, out| client.handle_writable(now, out));
                    }
                }
            }
        }
    }

    fn subscription(&mut self, client: usize, subscribe: bool, topic: Vec<u8>) {
        let frame = [&[u8::from(subscribe)], topic.as_slice()].concat();
        if subscribe {
            self.clients[client].known.insert(topic);
            self.with_broker(|broker, now, _| {
                broker.handle_subscription(now, Message::new(&[&frame]));
            });
        } else {
            self.clients[client].known.remove(&topic);
            self.end_of_subscription(&topic);
        }
    }

    // The end ----------------------------------------------------------------------

    /// Whether every map is the broker's, and every change has its answer.
    pub(crate) fn is_right(&self) -> bool {
        let Some(broker) = &self.broker else { return false };
        self.clients.iter().all(|node| {
            let maps_are_equal = node.subtrees.iter().all(|subtree| {
                let truth = broker.store().iter(subtree).map(|entry| (entry.key, entry.value));
                truth.eq(node.client.iter(subtree).map(|entry| (entry.key, entry.value)))
            });
            node.client.is_current() && maps_are_equal && node.told.open.is_empty()
        })
    }

    /// What has happened in this run.
    pub(crate) fn finish(mut self) -> Totals {
        let broker = self.broker.as_ref().expect("it is right").stats();
        let mut totals = std::mem::take(&mut self.totals);
        let mut add = |name, count| *totals.entry(name).or_default() += count;
        for name in ["connections broken", "loops stalled", "brokers restarted", "submitted"] {
            add(name, 0);
        }
        add("updates dropped", self.air.dropped);
        add("snapshots that had to wait", self.air.blocked);
        add("changes repeated", broker.changes_repeated);
        add("expired", broker.expired);
        add("changes that found the store full", broker.changes_store_full);
        add("subtrees over the limit of watches", broker.watches_refused);
        for node in &mut self.clients {
            let stats = node.client.stats();
            add("deltas", stats.deltas);
            add("full snapshots", stats.snapshots - stats.deltas);
            add("changes resent", stats.resent);
            add("changes blocked", stats.blocked);
            assert_eq!(stats.malformed, 0);
            let names = ["updated", "deleted", "applied", "gaps", "resyncs", "losts", "synced"];
            for name in names.into_iter().chain(["superseded", "refused"]) {
                add(name, node.told.counts.get(name).copied().unwrap_or(0));
            }
        }
        totals
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "at {:?}, {:?}", self.now, self.air.faults)?;
        if let Some(broker) = &self.broker {
            writeln!(f, "broker: {:?} {:?}", broker.sequence(), broker.stats())?;
            writeln!(f, "{:?} {:?}", broker.store(), broker.config())?;
        }
        for node in &self.clients {
            writeln!(
                f,
                "client of {:?}",
                node.subtrees.iter().map(|s| s.escape_ascii().to_string()).collect::<Vec<_>>()
            )?;
            for status in node.client.status() {
                writeln!(f, "  {status:?}")?;
            }
            let missing = node.told.open.iter().collect::<Vec<_>>();
            writeln!(f, "  {:?}\n  without answer: {missing:?}", node.client.stats())?;
            let topics = |topics: &BTreeSet<Vec<u8>>| {
                topics.iter().map(|t| t.escape_ascii().to_string()).collect::<Vec<_>>()
            };
            writeln!(
                f,
                "  topics {:?}, of which known {:?}",
                topics(&node.topics),
                topics(&node.known)
            )?;
            writeln!(f, "  {:?}\n  {:?}\n  {:?}", node.updates, node.requests, node.changes)?;
        }
        Ok(())
    }
}
