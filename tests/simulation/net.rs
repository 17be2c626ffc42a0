//! The virtual network: hosts, sockets, and the connections between them.
//!
//! Connections are as libzmq has them, as far as it matters: what goes over one
//! arrives in order, over two in any order; a connection that breaks takes with
//! it what is on the way; it is made again after a while, when subscriptions are
//! sent once more in byte order. Queues have high-water marks, with the behaviour
//! of the socket they belong to: an XPUB and a PUB drop, a PUSH and a ROUTER
//! refuse. Nothing here knows what the messages mean.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use pollux::Time;
use pollux::clone::{Collector, SendFailure};

use crate::coverage::Coverage;
use crate::frames::Frames;
use crate::random::Random;

/// The three ports of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Port {
    Snapshots,
    Updates,
    Changes,
}

pub(crate) const PORTS: [Port; 3] = [Port::Snapshots, Port::Updates, Port::Changes];

/// Which way along a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketKind {
    Sub,
    Dealer,
    Push,
    Pub,
}

/// Messages on the way over one connection, above which its queue is full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HighWater {
    pub(crate) updates: usize,
    pub(crate) snapshots: usize,
    pub(crate) changes: usize,
}

/// A socket that connects.
#[derive(Debug)]
struct Socket {
    host: usize,
    kind: SocketKind,
    /// Subscriptions of a SUB.
    topics: BTreeSet<Vec<u8>>,
    links: Vec<usize>,
    is_open: bool,
    /// Whether its owner takes messages from it.
    is_read: bool,
}

enum Item {
    Message(Frames),
    Subscription { subscribe: bool, topic: Vec<u8> },
}

/// One direction of a connection.
#[derive(Default)]
struct Channel {
    /// Sent and not handled, in order.
    queue: VecDeque<Item>,
    last_arrival: Time,
    /// So many of them have arrived at a partition or a socket that is not read.
    parked: usize,
    /// So many of the next messages are sent twice.
    doubled: usize,
}

/// A connection from a socket to a port.
struct Link {
    socket: usize,
    client: usize,
    server: usize,
    port: Port,
    /// What its delays are drawn from.
    name: u64,
    sent: u64,
    /// Rises each time the connection is lost: what is older is gone.
    generation: u32,
    is_connected: bool,
    /// An attempt to connect is under way.
    is_trying: bool,
    is_open: bool,
    to_server: Channel,
    to_client: Channel,
    /// What the XPUB knows of the socket's subscriptions.
    known: Vec<Vec<u8>>,
    /// Requests that wait for the connection.
    waiting: Vec<Frames>,
    /// Updates that its subscriber missed, by a full queue or a lost connection.
    missed: u64,
}

#[derive(Default)]
struct Host {
    /// Binds its three ports.
    is_listening: bool,
    collector: Option<Collector>,
    /// Its loop is not turned before this.
    ready_at: Time,
    /// Each message takes so long, until that time.
    slow: Duration,
    slow_until: Time,
    /// When its loop last stood still or was slow.
    hindered: Time,
    /// What has arrived while the loop was not turned.
    inbox: VecDeque<(usize, u32, Way)>,
    will_wake: bool,
    /// Connections to its ports.
    links: Vec<usize>,
    latency_us: u64,
    sockets: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive { link: usize, generation: u32, way: Way },
    Connect { link: usize },
    Wake { host: usize },
    Heal { from: usize, to: usize },
}

/// Something that a program on a host must be told.
pub(crate) enum Occurrence {
    /// A message came in on a server's port, from this peer.
    Request { server: usize, port: Port, peer: Vec<u8>, client: usize, frames: Frames },
    /// A subscription or the last end of one, as an XPUB tells it.
    Subscription { server: usize, frame: Vec<u8> },
    /// A message came for a client's socket.
    Message { client: usize, socket: usize, frames: Frames },
    /// A socket for changes takes more.
    Room { client: usize, socket: usize },
    /// A ROUTER's client takes more.
    RouterRoom { server: usize },
}

pub(crate) struct Net {
    pub(crate) now: Time,
    pub(crate) coverage: Coverage,
    pub(crate) high_water: HighWater,
    /// Whether what happens is printed.
    pub(crate) is_traced: bool,
    /// All faults have ended.
    is_calm: bool,
    seed: u64,
    hosts: Vec<Host>,
    sockets: Vec<Socket>,
    links: Vec<Link>,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    numbered: u64,
    /// Nothing goes from one host to another before this.
    blocked_until: Vec<Time>,
    occurrences: VecDeque<Occurrence>,
}

impl Net {
    pub(crate) fn new(seed: u64, latencies_us: &[u64], high_water: HighWater) -> Net {
        let hosts = latencies_us.iter().map(|&latency_us| Host { latency_us, ..Host::default() });
        Net {
            now: Time::ZERO + Duration::from_secs(1),
            coverage: Coverage::default(),
            high_water,
            is_traced: false,
            is_calm: false,
            seed,
            hosts: hosts.collect(),
            sockets: Vec::new(),
            links: Vec::new(),
            events: BinaryHeap::new(),
            numbered: 0,
            blocked_until: vec![Time::ZERO; latencies_us.len() * latencies_us.len()],
            occurrences: VecDeque::new(),
        }
    }

    fn at(&mut self, time: Time, event: Event) {
        self.numbered += 1;
        self.events.push(Reverse((time.max(self.now), self.numbered, event)));
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            eprintln!("{:>12.6} {}", self.now.as_nanos() as f64 / 1e9, what());
        }
    }

    // Servers ----------------------------------------------------------------

    /// A server binds its ports.
    pub(crate) fn listen(&mut self, server: usize, collector: Collector) {
        self.hosts[server].is_listening = true;
        self.hosts[server].collector = Some(collector);
        self.retry(|link| link.server == server);
    }

    /// A host is gone: its connections, and what it has not handled yet.
    pub(crate) fn take_down(&mut self, host: usize) {
        self.hosts[host].is_listening = false;
        self.hosts[host].inbox.clear();
        for link in 0..self.links.len() {
            if self.links[link].server == host {
                self.break_link(link);
            }
        }
        for socket in 0..self.sockets.len() {
            if self.sockets[socket].host == host {
                self.close(socket);
            }
        }
    }

    /// A host stays as it is, but for its connections.
    pub(crate) fn disconnect(&mut self, host: usize) {
        for link in 0..self.links.len() {
            if self.links[link].server == host || self.links[link].client == host {
                self.cut(link);
            }
        }
    }

    /// Sends to one client of a ROUTER.
    pub(crate) fn reply(&mut self, peer: &[u8], frames: &[&[u8]]) -> Result<(), SendFailure> {
        let Some((index, generation)) = parse_peer(peer) else {
            return Err(SendFailure::Unreachable);
        };
        let Some(link) = self.links.get(index) else { return Err(SendFailure::Unreachable) };
        if link.generation != generation || !link.is_connected {
            return Err(SendFailure::Unreachable);
        }
        if link.to_client.queue.len() >= self.high_water.snapshots {
            self.coverage.count("net: router full");
            return Err(SendFailure::WouldBlock);
        }
        self.send(index, Way::ToClient, Item::Message(Frames::new(frames)));
        Ok(())
    }

    /// Sends to all subscribers of an XPUB.
    pub(crate) fn publish(&mut self, server: usize, frames: &Frames) {
        let topic_of = |message: pollux::Message<'_>| message[0].to_vec();
        let topic = frames.with(topic_of);
        self.trace(|| format!("host {server} publishes {}", frames.text()));
        for at in 0..self.hosts[server].links.len() {
            let index = self.hosts[server].links[at];
            let link = &mut self.links[index];
            let is_for = link.port == Port::Updates
                && link.is_connected
                && link.known.iter().any(|known| topic.starts_with(known));
            if !is_for {
                continue;
            }
            if link.to_client.queue.len() >= self.high_water.updates {
                link.missed += 1;
                self.coverage.count("net: update dropped");
                continue;
            }
            self.send(index, Way::ToClient, Item::Message(frames.clone()));
        }
    }

    // Clients ----------------------------------------------------------------

    /// Opens a socket on a host.
    pub(crate) fn open(&mut self, host: usize, kind: SocketKind) -> usize {
        self.sockets.push(Socket {
            host,
            kind,
            topics: BTreeSet::new(),
            links: Vec::new(),
            is_open: true,
            is_read: true,
        });
        self.sockets.len() - 1
    }

    /// Connects it to a server's port.
    pub(crate) fn connect(&mut self, socket: usize, server: usize, port: Port) {
        let client = self.sockets[socket].host;
        self.hosts[client].sockets += 1;
        let names = [self.seed, client as u64, server as u64, self.hosts[client].sockets];
        self.links.push(Link {
            socket,
            client,
            server,
            port,
            name: Random::of(&names).next(),
            sent: 0,
            generation: 0,
            is_connected: false,
            is_trying: false,
            is_open: true,
            to_server: Channel::default(),
            to_client: Channel::default(),
            known: Vec::new(),
            waiting: Vec::new(),
            missed: 0,
        });
        let link = self.links.len() - 1;
        self.sockets[socket].links.push(link);
        self.hosts[server].links.push(link);
        self.try_to_connect(link, false);
    }

    /// Closes a socket without linger.
    pub(crate) fn close(&mut self, socket: usize) {
        self.sockets[socket].is_open = false;
        for link in std::mem::take(&mut self.sockets[socket].links) {
            self.break_link(link);
            let server = self.links[link].server;
            self.links[link].is_open = false;
            self.hosts[server].links.retain(|&other| other != link);
        }
    }

    pub(crate) fn subscribe(&mut self, socket: usize, topic: &[u8]) {
        assert!(self.sockets[socket].topics.insert(topic.to_vec()), "subscribed twice");
        self.tell_topic(socket, true, topic);
    }

    pub(crate) fn unsubscribe(&mut self, socket: usize, topic: &[u8]) {
        assert!(self.sockets[socket].topics.remove(topic), "was not subscribed");
        self.tell_topic(socket, false, topic);
    }

    fn tell_topic(&mut self, socket: usize, subscribe: bool, topic: &[u8]) {
        for link in self.sockets[socket].links.clone() {
            if self.links[link].is_connected {
                let item = Item::Subscription { subscribe, topic: topic.to_vec() };
                self.send(link, Way::ToServer, item);
            }
        }
    }

    /// Sends on a DEALER: what cannot go yet waits for the connection.
    pub(crate) fn request(&mut self, socket: usize, frames: &[&[u8]]) {
        let frames = Frames::new(frames);
        for link in self.sockets[socket].links.clone() {
            match self.links[link].is_connected {
                true => self.send(link, Way::ToServer, Item::Message(frames.clone())),
                false => self.links[link].waiting.push(frames.clone()),
            }
        }
    }

    /// Sends on a DEALER with IMMEDIATE.
    pub(crate) fn tell(&mut self, socket: usize, frames: &[&[u8]]) -> Result<(), SendFailure> {
        for link in self.sockets[socket].links.clone() {
            let Link { is_connected, ref to_server, .. } = self.links[link];
            if !is_connected || to_server.queue.len() >= self.high_water.snapshots {
                return Err(SendFailure::WouldBlock);
            }
            self.send(link, Way::ToServer, Item::Message(Frames::new(frames)));
        }
        Ok(())
    }

    /// Sends on a PUSH or PUB with IMMEDIATE: nothing is queued for a
    /// connection that does not stand.
    pub(crate) fn change(&mut self, socket: usize, frames: &[&[u8]]) -> Result<(), SendFailure> {
        let frames = Frames::new(frames);
        for link in self.sockets[socket].links.clone() {
            let Link { is_connected, ref to_server, .. } = self.links[link];
            if is_connected && to_server.queue.len() < self.high_water.changes {
                self.send(link, Way::ToServer, Item::Message(frames.clone()));
            } else if self.sockets[socket].kind == SocketKind::Push {
                self.coverage.count("net: push full");
                return Err(SendFailure::WouldBlock);
            } else {
                self.coverage.count("net: pub dropped");
            }
        }
        Ok(())
    }

    /// Whether the owner of a socket takes what comes.
    pub(crate) fn read(&mut self, socket: usize, is_read: bool) {
        self.sockets[socket].is_read = is_read;
        if is_read {
            for link in self.sockets[socket].links.clone() {
                self.unpark(link, Way::ToClient);
            }
        }
    }

    /// Whether the server knows all subscriptions of a SUB.
    pub(crate) fn is_subscribed(&self, socket: usize) -> bool {
        let Socket { topics, links, .. } = &self.sockets[socket];
        links.iter().all(|&link| topics.iter().all(|topic| self.links[link].known.contains(topic)))
    }

    /// How many updates a SUB has missed.
    pub(crate) fn missed(&self, socket: usize) -> u64 {
        self.sockets[socket].links.iter().map(|&link| self.links[link].missed).sum()
    }

    // What goes wrong ----------------------------------------------------------

    /// Breaks the connections of a client to a port; they are made again.
    pub(crate) fn cut_port(&mut self, client: usize, server: usize, port: Port) {
        for index in 0..self.links.len() {
            let link = &self.links[index];
            if link.client == client && link.server == server && link.port == port {
                self.cut(index);
            }
        }
    }

    /// Sends the next messages between two hosts twice each.
    pub(crate) fn double(&mut self, client: usize, server: usize, way: Way, count: usize) {
        for link in &mut self.links {
            if link.is_open && link.client == client && link.server == server {
                channel(link, way).doubled = count;
            }
        }
    }

    /// Nothing goes from one host to another for a while; it is not lost.
    pub(crate) fn block(&mut self, from: usize, to: usize, time: Duration) {
        let until = self.now + time;
        let blocked = &mut self.blocked_until[from * self.hosts.len() + to];
        *blocked = until.max(*blocked);
        self.at(until, Event::Heal { from, to });
    }

    /// A loop stands still for a while.
    pub(crate) fn stall(&mut self, host: usize, time: Duration) {
        let until = self.now + time;
        let host = &mut self.hosts[host];
        host.ready_at = host.ready_at.max(until);
        host.hindered = host.hindered.max(until);
    }

    /// A loop takes so long for each message, for a while.
    pub(crate) fn slow(&mut self, host: usize, each: Duration, time: Duration) {
        let host = &mut self.hosts[host];
        host.slow = each;
        host.slow_until = self.now + time;
        // What has piled up takes as long again.
        host.hindered = host.hindered.max(host.slow_until + time);
    }

    /// Nothing goes wrong any more.
    pub(crate) fn calm(&mut self) {
        self.is_calm = true;
        self.high_water.updates = usize::MAX;
        let hosts = self.hosts.len();
        for host in 0..hosts {
            let now = self.now;
            self.hosts[host].slow_until = now;
            self.hosts[host].ready_at = now;
            if self.hosts[host].will_wake {
                self.at(now, Event::Wake { host });
            }
        }
        for (from, to) in (0..hosts * hosts).map(|at| (at / hosts, at % hosts)) {
            if self.blocked_until[from * hosts + to] > self.now {
                self.blocked_until[from * hosts + to] = self.now;
                self.at(self.now, Event::Heal { from, to });
            }
        }
        for link in &mut self.links {
            (link.to_server.doubled, link.to_client.doubled) = (0, 0);
        }
    }

    // Time -----------------------------------------------------------------------

    /// Before this a host's loop does nothing.
    pub(crate) fn ready_at(&self, host: usize) -> Time {
        self.hosts[host].ready_at
    }

    /// A host's loop has been busy for so long.
    pub(crate) fn busy(&mut self, host: usize, time: Duration) {
        let until = self.now + time;
        let host = &mut self.hosts[host];
        host.ready_at = host.ready_at.max(until);
    }

    /// Whether messages have arrived that a host's loop has not come to.
    pub(crate) fn has_unread(&self, host: usize) -> bool {
        !self.hosts[host].inbox.is_empty()
    }

    /// Until when a host's loop was last hindered by a stall or slowness.
    pub(crate) fn hindered(&self, host: usize) -> Time {
        self.hosts[host].hindered
    }

    /// Until when messages from one host to another are last held up.
    pub(crate) fn blocked(&self, from: usize, to: usize) -> Time {
        self.blocked_until[from * self.hosts.len() + to]
    }

    /// What happens next, up to this time.
    pub(crate) fn next(&mut self, until: Time) -> Option<Occurrence> {
        loop {
            if let Some(occurrence) = self.occurrences.pop_front() {
                return Some(occurrence);
            }
            let &Reverse((time, _, event)) = self.events.peek()?;
            if time > until {
                return None;
            }
            self.events.pop();
            self.now = self.now.max(time);
            match event {
                Event::Arrive { link, generation, way } => self.arrive(link, generation, way),
                Event::Connect { link } => self.connected(link),
                Event::Wake { host } => self.wake(host),
                Event::Heal { from, to } => self.heal(from, to),
            }
        }
    }

    fn arrive(&mut self, index: usize, generation: u32, way: Way) {
        let link = &self.links[index];
        if link.generation != generation || !link.is_open {
            return;
        }
        let (from, to) = link.ends(way);
        let is_read = way == Way::ToServer || self.sockets[link.socket].is_read;
        if self.blocked(from, to) > self.now || !is_read {
            channel(&mut self.links[index], way).parked += 1;
        } else if self.hosts[to].ready_at > self.now || !self.hosts[to].inbox.is_empty() {
            self.hosts[to].inbox.push_back((index, generation, way));
            self.wake_later(to);
        } else {
            self.deliver(index, way);
        }
    }

    fn wake_later(&mut self, host: usize) {
        if !self.hosts[host].will_wake {
            self.hosts[host].will_wake = true;
            self.at(self.hosts[host].ready_at, Event::Wake { host });
        }
    }

    fn wake(&mut self, host: usize) {
        self.hosts[host].will_wake = false;
        if self.hosts[host].ready_at <= self.now
            && let Some((link, generation, way)) = self.hosts[host].inbox.pop_front()
            && self.links[link].generation == generation
            && self.links[link].is_open
        {
            self.deliver(link, way);
        }
        if !self.hosts[host].inbox.is_empty() {
            self.wake_later(host);
        }
    }

    fn heal(&mut self, from: usize, to: usize) {
        if self.blocked(from, to) > self.now {
            return;
        }
        for link in 0..self.links.len() {
            for way in [Way::ToServer, Way::ToClient] {
                if self.links[link].ends(way) == (from, to) {
                    self.unpark(link, way);
                }
            }
        }
        self.retry(|link| link.ends(Way::ToServer) == (from, to));
        self.retry(|link| link.ends(Way::ToClient) == (from, to));
    }

    fn unpark(&mut self, index: usize, way: Way) {
        let now = self.now;
        let link = &mut self.links[index];
        let generation = link.generation;
        for _ in 0..std::mem::take(&mut channel(link, way).parked) {
            self.at(now, Event::Arrive { link: index, generation, way });
        }
    }

    /// Hands the oldest message of a channel to its receiver.
    fn deliver(&mut self, index: usize, way: Way) {
        let link = &mut self.links[index];
        let (_, to) = link.ends(way);
        let Some(item) = channel(link, way).queue.pop_front() else { return };
        let left = channel(link, way).queue.len();
        let (server, client, port, socket) = (link.server, link.client, link.port, link.socket);
        let host = &mut self.hosts[to];
        if host.slow_until > self.now {
            host.ready_at = host.ready_at.max(self.now + host.slow);
        }
        self.trace(|| {
            let text = match &self.links[index].peek_text(&item) {
                Some(text) => text.clone(),
                None => String::new(),
            };
            format!("{client} {way:?} {server} {port:?}: {text}")
        });
        let occurrence = match (item, way) {
            (Item::Subscription { subscribe, topic }, _) => {
                return self.subscription(index, subscribe, topic);
            }
            (Item::Message(frames), Way::ToServer) => {
                let peer = peer(index, self.links[index].generation);
                Occurrence::Request { server, port, peer, client, frames }
            }
            (Item::Message(frames), Way::ToClient) => {
                Occurrence::Message { client, socket, frames }
            }
        };
        self.occurrences.push_back(occurrence);
        if port == Port::Changes && left + 1 == self.high_water.changes {
            self.occurrences.push_back(Occurrence::Room { client, socket });
        } else if port == Port::Snapshots
            && way == Way::ToClient
            && left + 1 == self.high_water.snapshots
        {
            self.occurrences.push_back(Occurrence::RouterRoom { server });
        }
    }

    fn subscription(&mut self, index: usize, subscribe: bool, topic: Vec<u8>) {
        let link = &mut self.links[index];
        let server = link.server;
        if subscribe {
            link.known.push(topic.clone());
        } else {
            link.known.retain(|known| *known != topic);
            if self.is_known(server, &topic) {
                return;
            }
        }
        let frame = [&[u8::from(subscribe)], topic.as_slice()].concat();
        self.occurrences.push_back(Occurrence::Subscription { server, frame });
    }

    fn is_known(&self, server: usize, topic: &[u8]) -> bool {
        let links = &self.hosts[server].links;
        links.iter().any(|&link| self.links[link].known.iter().any(|known| known == topic))
    }

    // Connections ------------------------------------------------------------------

    fn send(&mut self, index: usize, way: Way, item: Item) {
        let now = self.now;
        let link = &mut self.links[index];
        link.sent += 1;
        let latency_us = self.hosts[link.client].latency_us + self.hosts[link.server].latency_us;
        let mut random = Random::of(&[link.name, u64::from(link.generation), link.sent]);
        let mut delay_us = 10 + random.below(latency_us);
        if self.is_calm {
            // Who waits for two heartbeats of 50 ms must not find them late by chance.
            delay_us /= 2;
        } else if random.chance(2) {
            self.coverage.count("fault: segment lost");
            delay_us *= 10;
        }
        let copies = match &item {
            Item::Message(frames) if channel(link, way).doubled > 0 => {
                channel(link, way).doubled -= 1;
                vec![Item::Message(frames.clone()), item]
            }
            _ => vec![item],
        };
        if copies.len() > 1 {
            self.coverage.count("net: message doubled");
        }
        for item in copies {
            let link = &mut self.links[index];
            let generation = link.generation;
            let channel = channel(link, way);
            let arrival = now + Duration::from_micros(delay_us);
            channel.last_arrival = arrival.max(channel.last_arrival + Duration::from_nanos(1));
            channel.queue.push_back(item);
            let arrival = channel.last_arrival;
            self.at(arrival, Event::Arrive { link: index, generation, way });
        }
    }

    /// A connection breaks and is made again.
    fn cut(&mut self, link: usize) {
        if self.links[link].is_connected {
            self.coverage.count("net: connection broken");
            self.break_link(link);
            self.try_to_connect(link, true);
        }
    }

    /// A connection breaks, with all that is on the way.
    fn break_link(&mut self, index: usize) {
        let link = &mut self.links[index];
        link.generation += 1;
        link.missed += 1;
        link.is_connected = false;
        let doubled = [link.to_server.doubled, link.to_client.doubled];
        (link.to_server, link.to_client) = (Channel::default(), Channel::default());
        [link.to_server.doubled, link.to_client.doubled] = doubled;
        let (server, known) = (link.server, std::mem::take(&mut link.known));
        for topic in known {
            if self.hosts[server].is_listening && !self.is_known(server, &topic) {
                let frame = [&[0], topic.as_slice()].concat();
                self.occurrences.push_back(Occurrence::Subscription { server, frame });
            }
        }
    }

    /// Connections of this kind that do not stand are tried again.
    fn retry(&mut self, is_it: impl Fn(&Link) -> bool) {
        for link in 0..self.links.len() {
            if is_it(&self.links[link]) {
                self.try_to_connect(link, true);
            }
        }
    }

    fn try_to_connect(&mut self, index: usize, again: bool) {
        let link = &mut self.links[index];
        if !link.is_open || link.is_connected || link.is_trying {
            return;
        }
        link.is_trying = true;
        let names = [link.name, 0xc0_44ec7, u64::from(link.generation)];
        let latency_us = self.hosts[link.client].latency_us + self.hosts[link.server].latency_us;
        let wait_us = if again { 100_000 } else { 1000 };
        let wait = 100 + Random::of(&names).below(2 * latency_us + wait_us);
        self.at(self.now + Duration::from_micros(wait), Event::Connect { link: index });
    }

    /// An attempt to connect ends. If it was in vain, the next is made when the
    /// server is back, or the partition is healed.
    fn connected(&mut self, index: usize) {
        let link = &mut self.links[index];
        link.is_trying = false;
        let (client, server, socket) = (link.client, link.server, link.socket);
        let blocked = [link.ends(Way::ToServer), link.ends(Way::ToClient)];
        let is_blocked = blocked.iter().any(|&(from, to)| self.blocked(from, to) > self.now);
        let collector = self.hosts[server].collector;
        let is_refused = match self.sockets[socket].kind {
            SocketKind::Push => collector != Some(Collector::Pull),
            SocketKind::Pub => collector != Some(Collector::Sub),
            SocketKind::Sub | SocketKind::Dealer => false,
        };
        let link = &mut self.links[index];
        let can = link.is_open && self.hosts[server].is_listening;
        if !can || link.is_connected || is_blocked || is_refused {
            return;
        }
        link.is_connected = true;
        for frames in std::mem::take(&mut link.waiting) {
            self.send(index, Way::ToServer, Item::Message(frames));
        }
        for topic in self.sockets[socket].topics.clone() {
            self.send(index, Way::ToServer, Item::Subscription { subscribe: true, topic });
        }
        if self.links[index].port == Port::Changes {
            self.occurrences.push_back(Occurrence::Room { client, socket });
        }
    }
}

impl Link {
    /// From which host to which.
    fn ends(&self, way: Way) -> (usize, usize) {
        match way {
            Way::ToServer => (self.client, self.server),
            Way::ToClient => (self.server, self.client),
        }
    }

    fn peek_text(&self, item: &Item) -> Option<String> {
        Some(match item {
            Item::Message(frames) => frames.text(),
            Item::Subscription { subscribe, topic } => {
                format!("subscribe {subscribe} {}", topic.escape_ascii())
            }
        })
    }
}

fn channel(link: &mut Link, way: Way) -> &mut Channel {
    match way {
        Way::ToServer => &mut link.to_server,
        Way::ToClient => &mut link.to_client,
    }
}

/// The routing id of a connection, as a ROUTER makes one up.
fn peer(link: usize, generation: u32) -> Vec<u8> {
    let (link, generation) = ((link as u32).to_be_bytes(), generation.to_be_bytes());
    [&[0], &link[..], &generation[..]].concat()
}

fn parse_peer(peer: &[u8]) -> Option<(usize, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(peer.get(at..at + 4)?.try_into().ok()?));
    Some((number(1)? as usize, number(5)?))
}
