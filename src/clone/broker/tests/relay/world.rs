//! Brokers and relays, and the connections between them: in order each, cut and made again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::clone::broker::tests::RECENT;
use crate::clone::broker::{Broker, BrokerConfig, BrokerOutbox, RelayStats};
use crate::clone::kvmsg::{KvMsg, Limits};
use crate::clone::pair::Role;
use crate::clone::relay::RelayConfig;
use crate::clone::{Collector, SendFailure, Sequence};
use crate::message::Message;
use crate::time::Time;

type Frames = Vec<Vec<u8>>;

/// The heartbeat interval of all.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(100);

/// What a message takes from one to the other.
const LATENCY: Duration = Duration::from_micros(300);

/// A message on its way between two nodes, over the connection with this number, which is
/// a relay's own.
#[derive(Debug, Clone)]
struct Packet {
    from: usize,
    to: usize,
    connection: u64,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Subscribe(Frames),
    Update(Frames),
    Request(Frames),
    Entry(Frames),
    Change(Frames),
}

/// One broker or relay.
struct Node {
    broker: Option<Broker>,
    net: Net,
    /// Of a relay: what it is made with, and which nodes its servers are.
    relay: Option<(RelayConfig, Vec<usize>)>,
    runs: u64,
}

/// What a node sends, and what it has open.
#[derive(Default)]
pub(super) struct Net {
    own: usize,
    servers: Vec<usize>,
    at: usize,
    topics: Frames,
    follow: Option<u64>,
    is_subscribed: bool,
    sync: u64,
    forward: Option<(u64, usize)>,
    /// The socket for changes takes nothing.
    pub(super) is_full: bool,
    opened: u64,
    out: Vec<Packet>,
    /// Everything published.
    pub(super) published: Vec<Frames>,
    /// What clients got on P, by routing id.
    pub(super) replies: BTreeMap<Vec<u8>, Vec<Frames>>,
}

impl Net {
    fn send(&mut self, to: usize, connection: u64, what: What) {
        self.out.push(Packet { from: self.own, to, connection, what });
    }
}

impl BrokerOutbox for Net {
    fn reply(&mut self, peer: &[u8], frames: &[&[u8]]) -> Result<(), SendFailure> {
        let text = String::from_utf8_lossy(peer).into_owned();
        match text.strip_prefix("sync-").and_then(|rest| rest.split_once('-')) {
            Some((to, connection)) => {
                let (to, connection) = (to.parse().unwrap(), connection.parse().unwrap());
                self.send(to, connection, What::Entry(own(frames)));
            }
            None => self.replies.entry(peer.to_vec()).or_default().push(own(frames)),
        }
        Ok(())
    }

    fn publish(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        self.published.push(own(frames));
        // The world knows who follows.
        self.send(usize::MAX, 0, What::Update(own(frames)));
        Ok(())
    }

    fn open_upstream(&mut self, server: usize, subtree: &[u8]) {
        self.opened += 1;
        (self.at, self.follow, self.is_subscribed) = (server, Some(self.opened), false);
        self.topics = own(&[subtree, &[b"HUGZ", subtree].concat(), b"STATUS?"]);
    }

    fn ask_heartbeat(&mut self) {
        let topic = self.topics[1].clone();
        let verbs = vec![[&b"\0"[..], &topic].concat(), [&b"\x01"[..], &topic].concat()];
        let (to, connection) = (self.servers[self.at], self.follow.expect("it follows"));
        self.send(to, connection, What::Subscribe(verbs));
    }

    fn close_follow(&mut self) {
        self.follow = None;
    }

    fn open_sync(&mut self) {
        self.opened += 1;
        self.sync = self.opened;
    }

    fn request_sync(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        self.send(self.servers[self.at], self.sync, What::Request(own(frames)));
        Ok(())
    }

    fn open_forward(&mut self, _: Collector) {
        self.opened += 1;
        self.forward = Some((self.opened, self.servers[self.at]));
    }

    fn forward(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        let (connection, to) = self.forward.ok_or(SendFailure::Unreachable)?;
        if self.is_full {
            return Err(SendFailure::WouldBlock);
        }
        self.send(to, connection, What::Change(own(frames)));
        Ok(())
    }
}

fn own(frames: &[&[u8]]) -> Frames {
    frames.iter().map(|frame| frame.to_vec()).collect()
}

/// All nodes, and the time.
pub(super) struct World {
    nodes: Vec<Node>,
    pub(super) now: Time,
    air: VecDeque<(Time, Packet)>,
    /// Updates to a node that are lost on the way.
    pub(super) lose_updates: BTreeMap<usize, usize>,
    /// Changes forwarded that are lost on the way.
    pub(super) lose_changes: usize,
    /// Nodes that nothing reaches, and that reach nobody.
    cut: Vec<usize>,
    configure: fn(&mut BrokerConfig),
}

impl World {
    /// One broker, node 0.
    pub(super) fn new() -> World {
        World::with(|_| {})
    }

    pub(super) fn with(configure: fn(&mut BrokerConfig)) -> World {
        let now = Time::ZERO + Duration::from_secs(1000);
        let (air, lose_updates, cut) = (VecDeque::new(), BTreeMap::new(), Vec::new());
        let mut world =
            World { nodes: Vec::new(), now, air, lose_updates, lose_changes: 0, cut, configure };
        world.add(None);
        world
    }

    /// A relay that follows one of these.
    pub(super) fn relay(&mut self, servers: &[usize]) -> usize {
        self.relay_with(servers, |_| {})
    }

    pub(super) fn relay_with(
        &mut self,
        servers: &[usize],
        configure: impl FnOnce(&mut RelayConfig),
    ) -> usize {
        let names = servers.iter().map(|server| format!("node-{server}")).collect();
        let mut relay = RelayConfig::new(names);
        configure(&mut relay);
        self.add(Some((relay, servers.to_vec())))
    }

    fn add(&mut self, relay: Option<(RelayConfig, Vec<usize>)>) -> usize {
        let at = self.nodes.len();
        self.nodes.push(Node { broker: None, net: Net::default(), relay, runs: 0 });
        self.start(at);
        at
    }

    /// Starts a node without a state.
    pub(super) fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.runs += 1;
        let name = (at as u64 + 1) * 0x1000 + node.runs;
        // A millisecond of the wall clock for each of ours.
        let minutes = 1000 + self.now.as_nanos() / 60_000_000_000;
        let ms = self.now.as_nanos() / 1_000_000 % 60_000;
        let mut config = BrokerConfig::new(name, Sequence::new(minutes as u32, ms << 24));
        config.heartbeat = HEARTBEAT;
        config.recent_count = RECENT;
        (self.configure)(&mut config);
        let servers = node.relay.as_ref().map_or(Vec::new(), |(_, servers)| servers.clone());
        let opened = node.net.opened + 1;
        node.net = Net { own: at, servers, opened, ..Net::default() };
        node.broker = Some(match &node.relay {
            None => Broker::new(config, self.now),
            Some((relay, _)) => Broker::relay(config, relay.clone(), self.now),
        });
    }

    /// Starts a broker that is configured otherwise.
    pub(super) fn configure_start(&mut self, at: usize, configure: fn(&mut BrokerConfig)) {
        let before = std::mem::replace(&mut self.configure, configure);
        self.start(at);
        self.configure = before;
    }

    /// The servers of a relay are others from now on, as if a name led elsewhere.
    pub(super) fn repoint(&mut self, at: usize, servers: &[usize]) {
        self.disconnect(at);
        self.nodes[at].net.servers = servers.to_vec();
    }

    /// It is gone without a word, and all that is on the way from it and to it.
    pub(super) fn kill(&mut self, at: usize) {
        self.nodes[at].broker = None;
        self.disconnect(at);
    }

    /// Its connections are lost, with what was on the way; they are made again.
    pub(super) fn disconnect(&mut self, at: usize) {
        self.air.retain(|(_, packet)| packet.from != at && packet.to != at);
        for node in &mut self.nodes {
            if node.net.own == at || node.net.servers.get(node.net.at) == Some(&at) {
                node.net.is_subscribed = false;
            }
        }
    }

    pub(super) fn cut(&mut self, at: usize) {
        self.disconnect(at);
        self.cut.push(at);
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(super) fn broker(&self, at: usize) -> &Broker {
        self.nodes[at].broker.as_ref().expect("it runs")
    }

    pub(super) fn net(&mut self, at: usize) -> &mut Net {
        &mut self.nodes[at].net
    }

    pub(super) fn stats(&self, at: usize) -> RelayStats {
        self.broker(at).relay_stats().expect("a relay")
    }

    /// Does something with one of them, and takes what it sends.
    pub(super) fn act<R>(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Broker, Time, &mut Net) -> R,
    ) -> R {
        let node = &mut self.nodes[at];
        let result = act(node.broker.as_mut().expect("it runs"), self.now, &mut node.net);
        for packet in std::mem::take(&mut node.net.out) {
            self.post(packet);
        }
        result
    }

    fn post(&mut self, packet: Packet) {
        let due = self.now + LATENCY;
        if let What::Update(frames) = &packet.what {
            for node in &self.nodes {
                let net = &node.net;
                let is_followed = net.servers.get(net.at) == Some(&packet.from);
                let is_wanted = net.topics.iter().any(|topic| frames[0].starts_with(topic));
                if let (Some(connection), true) = (net.follow, net.is_subscribed)
                    && is_followed
                    && is_wanted
                {
                    let packet = Packet { to: net.own, connection, ..packet.clone() };
                    self.air.push_back((due, packet));
                }
            }
            return;
        }
        self.air.push_back((due, packet));
    }

    /// A change of a client of this node, with a name of its own.
    pub(super) fn set(&mut self, at: usize, uuid: u8, key: &str, value: &str) {
        self.set_with(at, [uuid; 16], key, "", value);
    }

    pub(super) fn set_with(
        &mut self,
        at: usize,
        uuid: [u8; 16],
        key: &str,
        lines: &str,
        value: &str,
    ) {
        let frames: [&[u8]; 5] =
            [key.as_bytes(), &[0; 8], &uuid, lines.as_bytes(), value.as_bytes()];
        self.act(at, |broker, now, net| broker.handle_change(now, Message::new(&frames), net));
    }

    pub(super) fn request(&mut self, at: usize, peer: &str, frames: &[&[u8]]) {
        self.act(at, |broker, _, net| {
            broker.handle_request(peer.as_bytes(), Message::new(frames), net);
        });
    }

    pub(super) fn subscribe(&mut self, at: usize, topic: &[u8]) {
        let verb = [&b"\x01"[..], topic].concat();
        self.act(at, |broker, now, _| broker.handle_subscription(now, Message::new(&[&verb])));
    }

    fn is_reachable(&self, packet: &Packet) -> bool {
        let ends = [packet.from, packet.to];
        !ends.iter().any(|end| self.cut.contains(end)) && self.nodes[packet.to].broker.is_some()
    }

    fn deliver(&mut self, packet: Packet) {
        if !self.is_reachable(&packet) {
            return;
        }
        let Packet { from, to, connection, what } = packet;
        let net = &self.nodes[to].net;
        let (follow, sync) = (net.follow, net.sync);
        let (What::Subscribe(frames)
        | What::Update(frames)
        | What::Request(frames)
        | What::Entry(frames)
        | What::Change(frames)) = &what;
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let message = Message::new(&frames);
        match what {
            What::Update(_) if follow != Some(connection) => {}
            What::Update(_) => self.act(to, |broker, now, net| {
                broker.handle_peer_update(now, message, net);
            }),
            What::Entry(_) if sync != connection => {}
            What::Entry(_) => self.act(to, |broker, now, net| {
                broker.handle_peer_snapshot(now, message, net);
            }),
            What::Request(_) => {
                let peer = format!("sync-{from}-{connection}");
                self.act(to, |broker, _, net| {
                    broker.handle_request(peer.as_bytes(), message, net);
                });
            }
            What::Change(_) => self.act(to, |broker, now, net| {
                broker.handle_change(now, message, net);
            }),
            What::Subscribe(_) => {
                if self.nodes[from].net.follow == Some(connection) {
                    self.nodes[from].net.is_subscribed = true;
                }
                self.act(to, |broker, now, _| {
                    for verb in &frames {
                        broker.handle_subscription(now, Message::new(&[verb]));
                    }
                });
            }
        }
    }

    /// A SUB that is new, or whose connection was lost, is connected.
    fn reconnect(&mut self) {
        for at in 0..self.nodes.len() {
            let net = &self.nodes[at].net;
            let (Some(connection), false) = (net.follow, net.is_subscribed) else { continue };
            let verbs = net.topics.iter().map(|topic| [&b"\x01"[..], topic].concat()).collect();
            let to = net.servers[net.at];
            let what = What::Subscribe(verbs);
            let packet = Packet { from: at, to, connection, what };
            let is_under_way = self.air.iter().any(|(_, other)| {
                other.connection == connection
                    && other.from == at
                    && matches!(other.what, What::Subscribe(_))
            });
            if !is_under_way && self.is_reachable(&packet) {
                self.air.push_back((self.now + LATENCY, packet));
            }
        }
    }

    fn next_event(&self) -> Time {
        let deadline = |node: &Node| node.broker.as_ref().and_then(Broker::next_deadline);
        let timers = self.nodes.iter().filter_map(deadline);
        let first = self.air.front().map(|&(at, _)| at);
        timers.chain(first).min().unwrap_or(Time::NEVER).max(self.now)
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..200_000 {
            self.reconnect();
            let next = self.next_event();
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            while self.air.front().is_some_and(|&(at, _)| at <= self.now) {
                let Some((_, packet)) = self.air.pop_front() else { break };
                let lost = match packet.what {
                    What::Update(_) => self.lose_updates.entry(packet.to).or_default(),
                    What::Change(_) => &mut self.lose_changes,
                    _ => &mut 0,
                };
                if *lost > 0 {
                    *lost -= 1;
                    continue;
                }
                self.deliver(packet);
            }
            for at in 0..self.nodes.len() {
                let is_due = |broker: &Broker| {
                    broker.next_deadline().is_some_and(|deadline| deadline <= self.now)
                };
                if self.nodes[at].broker.as_ref().is_some_and(is_due) {
                    self.act(at, Broker::handle_timeout);
                }
            }
        }
        panic!("the brokers do not come to rest");
    }

    pub(super) fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    pub(super) fn role(&self, at: usize) -> Role {
        self.broker(at).role()
    }

    /// Keys with their sequences and values.
    pub(super) fn map(&self, at: usize) -> BTreeMap<String, (Sequence, String)> {
        self.map_below(at, "")
    }

    pub(super) fn map_below(
        &self,
        at: usize,
        subtree: &str,
    ) -> BTreeMap<String, (Sequence, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let entries = self.broker(at).store().iter(subtree.as_bytes());
        entries.map(|entry| (text(entry.key), (entry.sequence, text(entry.value)))).collect()
    }

    /// A property of the last message with this key that was published.
    pub(super) fn told(&self, at: usize, key: &str, name: &str) -> Option<String> {
        self.nodes[at]
            .net
            .published
            .iter()
            .rev()
            .filter(|frames| frames[0] == key.as_bytes())
            .find_map(|frames| property(frames, "", name))
    }

    /// The sequences and keys of the changes published, in their order.
    pub(super) fn changes(&self, at: usize) -> Vec<(Sequence, String)> {
        let is_change =
            |frames: &&Frames| !frames[0].starts_with(b"HUGZ") && frames[0] != b"STATUS?";
        let changes = self.nodes[at].net.published.iter().filter(is_change);
        changes
            .map(|frames| {
                let sequence = Sequence::from_wire(frames[1].as_slice().try_into().unwrap());
                (sequence, String::from_utf8(frames[0].clone()).unwrap())
            })
            .collect()
    }

    /// What a client was sent last: the property of its `KTHXBAI`.
    pub(super) fn answered(&self, at: usize, peer: &str, name: &str) -> Option<String> {
        property(self.nodes[at].net.replies.get(peer.as_bytes())?.last()?, "KTHXBAI", name)
    }

    /// What it says of itself when asked.
    pub(super) fn status(&mut self, at: usize, name: &str) -> String {
        self.request(at, "who asks for the status", &[b"STATUS?"]);
        let answer = &self.nodes[at].net.replies[&b"who asks for the status"[..]];
        property(answer.last().expect("an answer"), "STATUS?", name).expect(name)
    }
}

/// Of a message with this key, or if it is empty with any.
fn property(frames: &Frames, key: &str, name: &str) -> Option<String> {
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let limits = Limits { max_properties: 64 << 10, ..Limits::default() };
    let kvmsg = KvMsg::decode(Message::new(&frames), &limits).ok()?;
    assert!(key.is_empty() || kvmsg.key == key.as_bytes());
    Some(String::from_utf8(kvmsg.properties.get(name)?.to_vec()).unwrap())
}
