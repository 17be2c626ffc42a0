//! Brokers on their hosts: their sockets, and what is checked of each as it goes on.

use std::time::Duration;

use pollux::Time;
use pollux::clone::broker::{Broker, BrokerOutbox};
use pollux::clone::pair::Role;
use pollux::clone::{Collector, KvMsg, Limits, Properties, SendFailure, Uuid};

use super::relays::Relayed;
use super::{Program, STALENESS_EVERY, System};
use crate::coverage::Coverage;
use crate::frames::Frames;
use crate::net::{Net, Port, SocketKind};
use crate::old::OldServer;
use crate::plan::{ServerKind, ServerPlan};
use crate::programs::broker_config;
use crate::truth::{Came, Published, Truth, Window};

/// Changes that came so long before a takeover are surely not too old: they are kept for 10 s.
const RING_AGE: Duration = Duration::from_secs(9);

/// A broker with the sockets that it has at its peer, if it is one of a pair, or at whom it
/// follows, if it is a relay.
pub(crate) struct BrokerProgram {
    pub(super) machine: Broker,
    pub(super) peer: PeerSockets,
    /// What is to be checked of a relay.
    pub(super) relayed: Option<Relayed>,
    /// What it has published and was not taken into account yet.
    published: Vec<Frames>,
    /// The position of a whole state that it has told.
    told: Option<u64>,
    replica_at: Time,
    /// Changes that came while it was passive.
    ring: Vec<Kept>,
    /// What its peer said last that it believed.
    pub(super) heard: Option<Frames>,
    /// Where its active was when it was last heard, by its changes or its own word.
    pub(super) heard_at: u64,
    /// What it last called safe.
    pub(super) stable: Option<String>,
    /// What it was last.
    role: Role,
}

/// The sockets that a broker has at another one.
#[derive(Default)]
pub(super) struct PeerSockets {
    /// The hosts where that can be, and the one of them where it is.
    pub(super) hosts: Vec<usize>,
    pub(super) at: usize,
    pub(super) line: Option<usize>,
    pub(super) follow: Option<usize>,
    pub(super) sync: Option<usize>,
    pub(super) forward: Option<usize>,
    /// The topic of the heartbeats that a relay follows.
    pub(super) heartbeats: Vec<u8>,
}

/// A change that a passive broker was sent: who takes over must not lose it.
struct Kept {
    uuid: Uuid,
    key: Vec<u8>,
    at: Time,
    /// Where the state of the broker was then.
    position: u64,
    /// Where the active had been heard to be by then.
    heard: u64,
    /// Up to here it was not applied before, as its client says that sends it again.
    retry: Option<u64>,
    expires: bool,
}

impl BrokerProgram {
    pub(super) fn new(
        machine: Broker,
        peer: PeerSockets,
        relayed: Option<Relayed>,
    ) -> BrokerProgram {
        BrokerProgram {
            role: machine.role(),
            machine,
            peer,
            relayed,
            published: Vec::new(),
            told: None,
            replica_at: Time::ZERO,
            ring: Vec::new(),
            heard: None,
            heard_at: 0,
            stable: None,
        }
    }

    /// What it has published since this was last asked.
    pub(super) fn take_published(&mut self) -> Vec<Frames> {
        std::mem::take(&mut self.published)
    }

    /// Notes a change that comes while the broker serves nobody.
    pub(super) fn keep(&mut self, frames: &Frames, at: Time) {
        if self.machine.role() == Role::Active || self.peer.line.is_none() {
            return;
        }
        let position = self.machine.sequence().get();
        frames.with(|message| {
            let Ok(change) = KvMsg::decode(message, &limits()) else { return };
            let Some(uuid) = change.uuid else { return };
            let ttl = change.properties.get("ttl");
            let expires = ttl.is_some_and(|ttl| ttl != b"0");
            let (key, retry) = (change.key.to_vec(), change.properties.parse("retry"));
            let heard = self.heard_at;
            self.ring.push(Kept { uuid, key, at, position, heard, retry, expires });
        });
    }
}

impl System<'_> {
    pub(super) fn start_server(&mut self, host: usize) {
        let plan = &self.plan.servers[host];
        match plan.kind {
            ServerKind::Broker | ServerKind::Pair => self.start_broker(host, plan),
            ServerKind::Relay => {}
            ServerKind::Old { beats, wedges } => {
                let is_passive = wedges && self.starts[host] > 1;
                let server = OldServer::new(host, beats, is_passive, self.net.now);
                self.programs[host] = Program::OldServer(Box::new(server));
                self.net.listen(host, Collector::Sub);
            }
        }
    }

    fn start_broker(&mut self, host: usize, plan: &ServerPlan) {
        let last = self.truth.latest().map_or(0, |reign| reign.last);
        let config = broker_config(self.plan.seed, host, self.starts[host], plan, last);
        let machine = Broker::new(config, self.clock(host).local(self.net.now));
        let is_pair = plan.kind == ServerKind::Pair;
        let mut peer = PeerSockets::default();
        if is_pair {
            let line = self.net.open(host, SocketKind::Dealer);
            self.net.connect(line, 1 - host, Port::Snapshots);
            (peer.hosts, peer.line) = (vec![1 - host], Some(line));
        }
        let program = BrokerProgram::new(machine, peer, None);
        self.programs[host] = Program::Broker(Box::new(program));
        self.net.listen(host, plan.collector);
        if !is_pair {
            self.truth.begin(host, config.start.get(), None, self.net.now);
            if self.starts[host] == 1 {
                self.preload(host);
            }
        }
    }

    fn preload(&mut self, host: usize) {
        for number in 0..self.plan.preloaded {
            let key = ["/a/", "/b/", "/c/", "HA"][number as usize % 4];
            let (key, value) = (format!("{key}p{number}"), format!("preloaded {number}"));
            self.with_broker(host, |broker, now, out| {
                let _ = broker.set(now, key.as_bytes(), value.as_bytes(), None, out);
            });
        }
    }

    pub(super) fn with_broker<R>(
        &mut self,
        host: usize,
        f: impl FnOnce(&mut Broker, Time, &mut BrokerSide<'_>) -> R,
    ) -> Option<R> {
        let local = self.clock(host).local(self.net.now);
        let Program::Broker(program) = &mut self.programs[host] else { return None };
        let BrokerProgram { machine, peer, relayed, published, told, .. } = &mut **program;
        let is_relay = relayed.is_some();
        let (net, truth) = (&mut self.net, &mut self.truth);
        let mut side = BrokerSide { host, peer, published, told, net, truth };
        let result = f(machine, local, &mut side);
        check_bounds(machine, &mut self.net.coverage);
        match is_relay {
            false => {
                self.take_published(host, local);
                self.follow_role(host);
            }
            true => self.follow_relay(host),
        }
        Some(result)
    }

    /// Takes into account what a broker has published.
    fn take_published(&mut self, host: usize, local: Time) {
        let Program::Broker(program) = &mut self.programs[host] else { return };
        for frames in program.take_published() {
            let global = self.net.now;
            let hindered = self.net.hindered(host).max(self.frozen_until[host]);
            let (truth, coverage) = (&mut self.truth, &mut self.net.coverage);
            frames.with(|message| {
                let message = KvMsg::decode(message, &limits()).expect("a sound message");
                let properties = message.properties;
                if message.key == b"STATUS?" {
                    return;
                }
                if !message.key.starts_with(b"HUGZ") {
                    truth.publish(&Published { host, message, local, global, hindered }, coverage);
                } else if properties.get("role") == Some(b"active") {
                    let epoch = properties.parse::<u32>("epoch");
                    if epoch != truth.epoch_of(host) {
                        // The heartbeat of the whole tree comes first.
                        let fork = properties.parse("fork");
                        truth.begin(host, message.sequence.get(), fork, global);
                        coverage.count(match fork {
                            Some(_) => "pair: goes on",
                            None => "pair: begins anew",
                        });
                    }
                    truth.stable(host, properties.parse("stable").unwrap_or(0));
                    let text = properties.get("stable").map(|text| text.escape_ascii().to_string());
                    program.stable = text;
                } else {
                    truth.end(host, global);
                }
            });
        }
    }

    /// What a broker of a pair is and has after each step of it.
    fn follow_role(&mut self, host: usize) {
        let Program::Broker(program) = &mut self.programs[host] else { return };
        let BrokerProgram { machine, told, replica_at, peer, ring, role, .. } = &mut **program;
        if peer.line.is_none() {
            return;
        }
        let before = std::mem::replace(role, machine.role());
        if before != *role {
            self.net.coverage.count(&format!("pair: {before} to {role}"));
        }
        if let Some((role, _)) = machine.poll_role() {
            self.net.coverage.count(&format!("pair: becomes {role}"));
            let rules = self.truth.reign_at(host).is_some();
            assert_eq!(rules, role == Role::Active, "host {host} is {role}");
            let kept = std::mem::take(ring);
            if rules {
                let is_kept = |kept: &&Kept| kept.at + RING_AGE > self.net.now && !kept.expires;
                let plan = &self.plan.servers[host];
                if plan.ring_is_wide() && !plan.is_small() {
                    for kept in kept.iter().filter(is_kept) {
                        let window = Window {
                            since: kept.retry.unwrap_or(u64::MAX).min(kept.position),
                            count: plan.recent_count,
                            age: Duration::from_millis(plan.recent_age_ms),
                            now: self.net.now,
                        };
                        let came = Came {
                            at: kept.at,
                            position: kept.position,
                            heard: kept.heard,
                            window,
                        };
                        self.truth.check_kept(host, kept.uuid, &kept.key, &came);
                        self.net.coverage.count("pair: ring checked");
                    }
                }
                check_store(machine, &self.truth, machine.sequence().get(), host);
            }
        }
        if let Some(position) = told.take()
            && *replica_at <= self.net.now
            && machine.store().sequence().get() == position
        {
            *replica_at = self.net.now + STALENESS_EVERY;
            check_store(machine, &self.truth, position, host);
        }
    }
}

/// Up to where a message on the line tells that its sender, which is active, has published.
pub(super) fn told_position(frames: &Frames) -> Option<u64> {
    frames.with(|message| {
        if let [b"KVPUBS", mut rest] = *message.frames() {
            let mut last = None;
            // Four lengths, the sequence, and as many bytes as the lengths say.
            while let Some((head, behind)) = rest.split_first_chunk::<24>() {
                let numbers = head[..16].chunks_exact(4);
                let size: usize = numbers
                    .map(|length| u32::from_be_bytes(length.try_into().expect("four")) as usize)
                    .sum();
                last = Some(u64::from_be_bytes(head[16..].try_into().expect("eight")));
                rest = behind.get(size..)?;
            }
            return last;
        }
        let message = KvMsg::decode(message, &limits()).ok()?;
        let is_active = message.properties.get("role") == Some(b"active");
        (message.key == b"PEER?" && is_active).then_some(message.sequence.get())
    })
}

/// Nothing grows beyond its limit.
fn check_bounds(broker: &Broker, coverage: &mut Coverage) {
    let (limits, store) = (&broker.config().store, broker.store());
    assert!(store.len() <= limits.max_keys, "bounded: {store:?}");
    assert!(store.bytes() <= limits.max_bytes, "bounded: {store:?}");
    assert!(store.cursors() <= limits.max_cursors, "bounded: {store:?}");
    for (name, is_reached) in [
        ("limit: keys", store.len() == limits.max_keys),
        ("limit: cursors", store.cursors() == limits.max_cursors),
        ("limit: tombstones", store.tombstones() == limits.history),
    ] {
        if is_reached {
            coverage.count(name);
        }
    }
    // A snapshot under way may need more tombstones, and they go some at a time.
    let tombstones = limits.history.saturating_add(limits.max_keys);
    assert!(store.tombstones() <= tombstones, "bounded: {store:?}");
    assert!(
        store.cursors() > 0 || store.tombstones() <= limits.history.saturating_add(1000),
        "bounded: {store:?}"
    );
}

/// The state of a broker is the history up to its position, and nothing else.
pub(super) fn check_store(broker: &Broker, truth: &Truth, position: u64, host: usize) {
    let Some(reign) = truth.reign_of(position) else { return };
    let mut live = 0;
    for (key, _) in reign.under(b"") {
        let Some(version) = reign.at(key, position) else { continue };
        let entry = broker.store().get(key);
        let is_right = match &entry {
            None => version.value.is_empty(),
            Some(entry) => {
                live += 1;
                entry.sequence.get() == version.sequence && *entry.value == *version.value
            }
        };
        assert!(
            is_right,
            "one history: host {host} at {position} has {} as {entry:?}, not as {version:?}",
            key.escape_ascii()
        );
    }
    let keys = broker.store().len();
    assert_eq!(keys, live, "one history: host {host} at {position} has keys that never were");
}

/// The key of a heartbeat has a name in front.
pub(super) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_key += 4;
    limits
}

/// A broker's sockets.
pub(super) struct BrokerSide<'a> {
    host: usize,
    peer: &'a mut PeerSockets,
    published: &'a mut Vec<Frames>,
    told: &'a mut Option<u64>,
    net: &'a mut Net,
    truth: &'a mut Truth,
}

impl BrokerOutbox for BrokerSide<'_> {
    fn reply(&mut self, peer: &[u8], frames: &[&[u8]]) -> Result<(), SendFailure> {
        if let [b"PEER?", sequence, _, properties, _] = *frames {
            // Only a whole state has a history.
            let properties = Properties::check(properties, &Limits::default());
            let says = |name| properties.is_ok_and(|properties| properties.get(name).is_some());
            let position = sequence.try_into().map(u64::from_be_bytes).ok();
            *self.told = position.filter(|_| says("lineage"));
            if let Some(position) = self.told.filter(|_| says("of")) {
                self.truth.confirm(position, self.net.now);
            }
        }
        self.net.reply(peer, frames)
    }

    fn publish(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        let frames = Frames::new(frames);
        self.net.publish(self.host, &frames);
        self.published.push(frames);
        Ok(())
    }

    fn tell_peer(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        let line = self.peer.line.ok_or(SendFailure::Unreachable)?;
        self.net.tell(line, frames)
    }

    fn open_upstream(&mut self, server: usize, subtree: &[u8]) {
        self.peer.at = server;
        self.peer.heartbeats = [b"HUGZ", subtree].concat();
        let heartbeats = self.peer.heartbeats.clone();
        self.subscribe(&[subtree, &heartbeats, b"STATUS?"]);
    }

    fn ask_heartbeat(&mut self) {
        if let Some(socket) = self.peer.follow {
            self.net.unsubscribe(socket, &self.peer.heartbeats);
            self.net.subscribe(socket, &self.peer.heartbeats);
        }
    }

    fn close_follow(&mut self) {
        if let Some(socket) = self.peer.follow.take() {
            self.net.close(socket);
        }
    }

    fn open_forward(&mut self, collector: Collector) {
        let kind = match collector {
            Collector::Pull => SocketKind::Push,
            Collector::Sub => SocketKind::Pub,
        };
        let before = self.peer.forward.take();
        self.peer.forward = Some(self.open(before, kind, Port::Changes));
    }

    fn forward(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        self.net.change(self.peer.forward.ok_or(SendFailure::Unreachable)?, frames)
    }

    fn open_sync(&mut self) {
        let before = self.peer.sync.take();
        self.peer.sync = Some(self.open(before, SocketKind::Dealer, Port::Snapshots));
    }

    fn request_sync(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        self.net.request(self.peer.sync.ok_or(SendFailure::Unreachable)?, frames);
        Ok(())
    }
}

impl BrokerSide<'_> {
    fn open(&mut self, before: Option<usize>, kind: SocketKind, port: Port) -> usize {
        if let Some(before) = before {
            self.net.close(before);
        }
        let socket = self.net.open(self.host, kind);
        self.net.connect(socket, self.peer.hosts[self.peer.at], port);
        socket
    }

    /// A new SUB, in place of the one before.
    fn subscribe(&mut self, topics: &[&[u8]]) {
        self.close_follow();
        let socket = self.net.open(self.host, SocketKind::Sub);
        topics.iter().for_each(|topic| self.net.subscribe(socket, topic));
        self.net.connect(socket, self.peer.hosts[self.peer.at], Port::Updates);
        self.peer.follow = Some(socket);
    }
}
