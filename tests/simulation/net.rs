//! The virtual network: hosts, sockets, and the connections between them.
//!
//! Connections are as libzmq has them, as far as it matters: what goes over one
//! arrives in order, over two in any order; a connection that breaks takes with
//! it what is on the way; it is made again after a while, when subscriptions are
//! sent once more in byte order. Queues have high-water marks, with the behaviour
//! of the socket they belong to: an XPUB and a PUB drop, a PUSH and a ROUTER
//! refuse. Nothing here knows what the messages mean.

mod delivery;
mod faults;
mod links;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use pollux::Time;
use pollux::clone::{Collector, SendFailure};

use self::links::{Channel, Item, Link, parse_peer};
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
}
