//! A run: the programs on their hosts, what happens to them, and what must hold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use pollux::Time;
use pollux::clone::broker::{Broker, BrokerOutbox, PairStats};
use pollux::clone::client::{Client, ClientOutbox, SetError};
use pollux::clone::pair::{Role, RoleRefusal};
use pollux::clone::{Collector, KvMsg, Limits, Properties, SendFailure, Uuid};

use crate::asker::{Asker, check_snapshot};
use crate::checks::{Standing, Told};
use crate::coverage::Coverage;
use crate::frames::Frames;
use crate::impostor::{self, Before};
use crate::net::{Net, Occurrence, Port, SocketKind};
use crate::old::{OldClient, OldServer};
use crate::plan::{ClientKind, Clock, Key, Plan, ServerKind, ServerPlan, Step, What};
use crate::programs::{broker_config, client_config};
use crate::random::Random;
use crate::truth::{Fate, Published, Truth};

/// How long it may take after all faults until everything is right: longest of
/// all is the back-off of a client that has asked in vain again and again.
const RECOVERY: Duration = Duration::from_secs(90);
/// Three heartbeats at their slowest, after which a client has noticed what is wrong.
const NOTICED: Duration = Duration::from_secs(4);
/// What has come right must stay so.
const STAYS_RIGHT: Duration = Duration::from_secs(3);
/// A timer that fires so late tells a client that its loop has stood still.
const STOOD_STILL: Duration = Duration::from_millis(100);
/// How often a client is checked for staleness.
const STALENESS_EVERY: Duration = Duration::from_millis(150);
/// Changes that came so long before a takeover are surely not too old: they are kept for 10 s.
const RING_AGE: Duration = Duration::from_secs(9);

/// What runs on a host.
pub(crate) enum Program {
    Off,
    Broker(Box<BrokerProgram>),
    OldServer(Box<OldServer>),
    Client(Box<ClientProgram>),
    OldClient(Box<OldClient>),
    Asker(Box<Asker>),
}

pub(crate) struct ClientProgram {
    machine: Client,
    sockets: Sockets,
    told: Told,
    /// The application takes no events before this.
    takes_events_at: Time,
    staleness_at: Time,
}

/// A broker with the sockets that it has at its peer, if it is one of a pair.
pub(crate) struct BrokerProgram {
    machine: Broker,
    line: Option<usize>,
    sync: Option<usize>,
    /// What it has published and was not taken into account yet.
    published: Vec<Frames>,
    /// The position of a whole state that it has told.
    told: Option<u64>,
    replica_at: Time,
    /// Changes that came while it was passive.
    ring: Vec<Kept>,
    /// What its peer said last that it believed.
    heard: Option<Frames>,
    /// What it last called safe.
    stable: Option<String>,
}

/// A change that a passive broker was sent: who takes over must not lose it.
struct Kept {
    uuid: Uuid,
    key: Vec<u8>,
    at: Time,
    /// Where the state of the broker was then.
    position: u64,
    expires: bool,
}

impl BrokerProgram {
    /// Notes a change that comes while the broker serves nobody.
    fn keep(&mut self, frames: &Frames, at: Time) {
        if self.machine.role() == Role::Active || self.line.is_none() {
            return;
        }
        let position = self.machine.sequence().get();
        frames.with(|message| {
            let Ok(change) = KvMsg::decode(message, &limits()) else { return };
            let Some(uuid) = change.uuid else { return };
            let ttl = change.properties.get("ttl");
            let expires = ttl.is_some_and(|ttl| ttl != b"0");
            self.ring.push(Kept { uuid, key: change.key.to_vec(), at, position, expires });
        });
    }
}

/// The sockets of a client.
struct Sockets {
    host: usize,
    /// All that it knows, and the one it is at.
    servers: Vec<usize>,
    server: usize,
    updates: usize,
    requests: Option<usize>,
    /// The last request was for changes only.
    asked_for_delta: bool,
    changes: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Step(usize),
    Start(usize),
}

pub(crate) struct System<'p> {
    plan: &'p Plan,
    pub(crate) net: Net,
    truth: Truth,
    programs: Vec<Program>,
    timers: BinaryHeap<Reverse<(Time, Timer)>>,
    /// How often the program of each host was started.
    starts: Vec<u64>,
    /// When it was started last.
    started: Vec<Time>,
    /// Until when a host is frozen, its state kept.
    frozen_until: Vec<Time>,
    is_calm: bool,
}

impl<'p> System<'p> {
    pub(crate) fn new(plan: &'p Plan) -> System<'p> {
        let hosts = plan.servers.len() + plan.clients.len();
        let mut system = System {
            plan,
            net: Net::new(plan.seed, &plan.latencies_us, plan.high_water),
            truth: Truth::default(),
            programs: (0..hosts).map(|_| Program::Off).collect(),
            timers: BinaryHeap::new(),
            starts: vec![0; hosts],
            started: vec![Time::ZERO; hosts],
            frozen_until: vec![Time::ZERO; hosts],
            is_calm: false,
        };
        let steps = plan.steps.iter().enumerate();
        let steps = steps.map(|(index, step)| (Plan::time_of(step.at_ms), Timer::Step(index)));
        system.timers.extend(steps.map(Reverse));
        let servers = plan.servers.iter().map(|server| server.starts_at_ms);
        let clients = plan.clients.iter().map(|client| client.starts_at_ms);
        let starts = servers.chain(clients).enumerate();
        let starts = starts.map(|(host, at_ms)| (Plan::time_of(at_ms), Timer::Start(host)));
        system.timers.extend(starts.map(Reverse));
        system
    }

    /// Runs it all, and checks it: a promise that is broken panics.
    pub(crate) fn run(&mut self) {
        self.pass(Plan::time_of(self.plan.end_ms));
        self.calm();
        // What was lost last is noticed first.
        self.pass(self.net.now + NOTICED);
        let end = self.net.now + RECOVERY;
        while let Some(problem) = self.problem() {
            assert!(self.net.now < end, "convergence: it does not come right: {problem}");
            self.pass(self.net.now + Duration::from_millis(100));
        }
        self.pass(self.net.now + STAYS_RIGHT);
        if let Some(problem) = self.problem() {
            panic!("convergence: it does not stay right: {problem}");
        }
        self.truth.check_fates();
        self.check_safe();
        self.check_old_clients();
        self.count_machines();
    }

    // Time -----------------------------------------------------------------------

    fn clock(&self, host: usize) -> Clock {
        self.plan.clocks[host]
    }

    /// When a host's program wants to be called.
    fn due(&self, host: usize) -> Time {
        let local = match &self.programs[host] {
            Program::Off | Program::Asker(_) => Time::NEVER,
            Program::Broker(broker) => broker.machine.next_deadline().unwrap_or(Time::NEVER),
            Program::Client(client) => client.machine.next_deadline().unwrap_or(Time::NEVER),
            Program::OldServer(server) => return server.deadline(),
            Program::OldClient(client) => return client.deadline(),
        };
        self.clock(host).global(local)
    }

    /// When it can be.
    fn deadline(&self, host: usize) -> Time {
        self.due(host).max(self.net.ready_at(host))
    }

    /// Lets time go by.
    fn pass(&mut self, until: Time) {
        let (mut steps, mut last) = (0u32, Time::ZERO);
        loop {
            let hosts = (0..self.programs.len()).map(|host| (self.deadline(host), host));
            let (deadline, host) = hosts.min().expect("there are hosts");
            let timer = self.timers.peek().map_or(Time::NEVER, |Reverse((time, _))| *time);
            let next = deadline.min(timer);
            if let Some(occurrence) = self.net.next(next.min(until)) {
                self.dispatch(occurrence);
            } else if next > until {
                self.net.now = until.max(self.net.now);
                return;
            } else {
                self.net.now = next.max(self.net.now);
                if timer <= deadline {
                    let Some(Reverse((_, timer))) = self.timers.pop() else { continue };
                    self.timer(timer);
                } else {
                    self.timeout(host);
                }
            }
            steps = if self.net.now > last { 0 } else { steps + 1 };
            last = self.net.now;
            assert!(steps < 100_000, "time stands still");
        }
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Start(host) => self.start(host),
            Timer::Step(index) => {
                let plan = self.plan;
                self.step(&plan.steps[index]);
            }
        }
    }

    fn timeout(&mut self, host: usize) {
        match &mut self.programs[host] {
            Program::Off | Program::Asker(_) => {}
            Program::OldServer(server) => server.timeout(&mut self.net),
            Program::OldClient(client) => client.timeout(&mut self.net),
            Program::Broker(_) => {
                self.with_broker(host, |broker, now, out| broker.handle_timeout(now, out));
                let turn = Duration::from_micros(self.plan.servers[host].turn_us);
                self.net.busy(host, turn);
            }
            Program::Client(_) => {
                // A loop that stood still comes to its timers before its messages.
                let due = self.due(host);
                let is_behind = due + STOOD_STILL < self.net.now || self.net.has_unread(host);
                self.with_client(host, |client, now, out| {
                    if is_behind {
                        client.handle_backlog(now);
                    }
                    client.handle_timeout(now, out);
                });
            }
        }
    }

    // Programs -------------------------------------------------------------------

    fn start(&mut self, host: usize) {
        if !matches!(self.programs[host], Program::Off) {
            return;
        }
        self.starts[host] += 1;
        self.started[host] = self.net.now;
        let servers = self.plan.servers.len();
        if host < servers {
            self.start_server(host);
        } else {
            self.start_client(host);
        }
    }

    fn start_server(&mut self, host: usize) {
        let plan = &self.plan.servers[host];
        match plan.kind {
            ServerKind::Broker | ServerKind::Pair => self.start_broker(host, plan),
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
        let line = is_pair.then(|| {
            let line = self.net.open(host, SocketKind::Dealer);
            self.net.connect(line, 1 - host, Port::Snapshots);
            line
        });
        let program = BrokerProgram {
            machine,
            line,
            sync: None,
            published: Vec::new(),
            told: None,
            replica_at: Time::ZERO,
            ring: Vec::new(),
            heard: None,
            stable: None,
        };
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

    fn start_client(&mut self, host: usize) {
        let plan = &self.plan.clients[host - self.plan.servers.len()];
        if plan.is_absent {
            return;
        }
        match plan.kind {
            ClientKind::New => {
                let seed = Random::of(&[self.plan.seed, host as u64, self.starts[host]]).next();
                let servers: Vec<_> = (0..self.plan.servers.len()).collect();
                let config = client_config(plan, servers.len());
                let machine = Client::new(config, seed).expect("a sound configuration");
                let updates = self.net.open(host, SocketKind::Sub);
                self.net.connect(updates, 0, Port::Updates);
                let sockets = Sockets {
                    host,
                    servers,
                    server: 0,
                    updates,
                    requests: None,
                    asked_for_delta: false,
                    changes: None,
                };
                let program = ClientProgram {
                    machine,
                    sockets,
                    told: Told::default(),
                    takes_events_at: Time::ZERO,
                    staleness_at: Time::ZERO,
                };
                self.programs[host] = Program::Client(Box::new(program));
                self.with_client(host, |client, now, out| client.start(now, out));
            }
            ClientKind::Old => {
                let servers: Vec<_> = (0..self.plan.servers.len()).collect();
                let client = OldClient::new(&mut self.net, host, &servers, plan.subtrees[0]);
                self.programs[host] = Program::OldClient(Box::new(client));
            }
            ClientKind::Asker => {
                self.programs[host] = Program::Asker(Box::new(Asker::new(host, 0)))
            }
        }
    }

    /// A program ends, as if its process were killed.
    fn stop(&mut self, host: usize) {
        self.count_machine(host);
        self.truth.end(host, self.net.now);
        self.programs[host] = Program::Off;
        self.net.take_down(host);
    }

    fn with_broker<R>(
        &mut self,
        host: usize,
        f: impl FnOnce(&mut Broker, Time, &mut BrokerSide<'_>) -> R,
    ) -> Option<R> {
        let local = self.clock(host).local(self.net.now);
        let Program::Broker(program) = &mut self.programs[host] else { return None };
        let BrokerProgram { machine, line, sync, published, told, .. } = &mut **program;
        let (net, truth) = (&mut self.net, &mut self.truth);
        let mut side = BrokerSide { host, line, sync, published, told, net, truth };
        let result = f(machine, local, &mut side);
        check_bounds(machine, &mut self.net.coverage);
        self.take_published(host, local);
        self.follow_role(host);
        Some(result)
    }

    /// Takes into account what a broker has published.
    fn take_published(&mut self, host: usize, local: Time) {
        let Program::Broker(program) = &mut self.programs[host] else { return };
        for frames in std::mem::take(&mut program.published) {
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
        let BrokerProgram { machine, told, replica_at, line, ring, .. } = &mut **program;
        if line.is_none() {
            return;
        }
        if let Some((role, _)) = machine.poll_role() {
            self.net.coverage.count(&format!("pair: becomes {role}"));
            let rules = self.truth.reign_at(host).is_some();
            assert_eq!(rules, role == Role::Active, "host {host} is {role}");
            let kept = std::mem::take(ring);
            if rules {
                let is_kept = |kept: &&Kept| kept.at + RING_AGE > self.net.now && !kept.expires;
                if self.plan.servers[host].ring_is_wide() {
                    for kept in kept.iter().filter(is_kept) {
                        self.truth.check_kept(host, kept.uuid, &kept.key, kept.position);
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

    /// Runs a client, then takes and checks what it tells.
    fn with_client<R>(
        &mut self,
        host: usize,
        f: impl FnOnce(&mut Client, Time, &mut ClientSide<'_>) -> R,
    ) -> Option<R> {
        let local = self.clock(host).local(self.net.now);
        let Program::Client(program) = &mut self.programs[host] else { return None };
        let mut side = ClientSide { sockets: &mut program.sockets, net: &mut self.net };
        let result = f(&mut program.machine, local, &mut side);
        self.hear(host, local);
        Some(result)
    }

    fn hear(&mut self, host: usize, local: Time) {
        let global = self.net.now;
        let is_with_old = matches!(self.plan.servers[0].kind, ServerKind::Old { .. });
        let plan = &self.plan.clients[host - self.plan.servers.len()];
        let is_told_safe = plan.until_safe || self.plan.servers.len() > 1;
        let patience = self.patience(host);
        let Program::Client(program) = &mut self.programs[host] else { return };
        if program.takes_events_at > global {
            return;
        }
        let is_due = program.staleness_at <= global;
        let patience = patience.filter(|_| is_due);
        if is_due {
            program.staleness_at = global + STALENESS_EVERY;
        }
        let standing = Standing { local, global, patience, is_told_safe, is_with_old };
        while let Some(event) = program.machine.poll_event() {
            program.told.take(&event, &mut self.truth, standing, &mut self.net.coverage);
        }
        program.told.check(&program.machine, &self.truth, standing);
    }

    /// How long a client may be wrong about being current: its broker's heartbeat,
    /// or three of them in vain, a second at least, and all delays. `None` if its
    /// loop has been held up so recently that it cannot know.
    fn patience(&self, host: usize) -> Option<Duration> {
        let server = &self.plan.servers[0];
        if server.max_watched < 100 {
            // A subtree without heartbeats asks from time to time instead.
            return None;
        }
        let heartbeat = Duration::from_millis(server.heartbeat_ms);
        let silence = (heartbeat * 3).max(Duration::from_secs(1));
        let patience = silence * 2 + heartbeat * 2 + Duration::from_secs(1);
        let Program::Client(program) = &self.programs[host] else { return None };
        let at = program.sockets.server;
        let hindered = self.net.hindered(host).max(self.net.hindered(at));
        let hindered = hindered.max(self.net.blocked(at, host)).max(self.frozen_until[at]);
        (hindered.max(self.frozen_until[host]) + patience <= self.net.now).then_some(patience)
    }

    // Messages -------------------------------------------------------------------

    fn dispatch(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Request { server, port, peer, client, frames } => {
                self.request(server, port, &peer, client, &frames);
            }
            Occurrence::Subscription { server, frame } => {
                self.with_broker(server, |broker, now, _| {
                    broker.handle_subscription(now, pollux::Message::new(&[&frame]));
                });
            }
            Occurrence::Message { client, socket, frames } => self.message(client, socket, &frames),
            Occurrence::Room { client, socket } => {
                if let Program::Client(program) = &self.programs[client]
                    && program.sockets.changes == Some(socket)
                    && self.net.ready_at(client) <= self.net.now
                {
                    self.with_client(client, |client, now, out| client.handle_writable(now, out));
                }
            }
            Occurrence::RouterRoom { server } => {
                self.with_broker(server, |broker, _, _| broker.handle_writable());
            }
        }
    }

    fn request(&mut self, server: usize, port: Port, peer: &[u8], client: usize, frames: &Frames) {
        if port == Port::Snapshots
            && let Program::OldClient(client) = &mut self.programs[client]
        {
            client.is_asking(&self.net);
        }
        match (&mut self.programs[server], port) {
            (Program::OldServer(server), Port::Snapshots) => {
                server.request(&mut self.net, peer, frames);
            }
            (Program::OldServer(server), Port::Changes) => server.change(&mut self.net, frames),
            (Program::Broker(_), Port::Snapshots) => {
                self.with_broker(server, |broker, _, out| {
                    frames.with(|message| broker.handle_request(peer, message, out));
                });
            }
            (Program::Broker(program), Port::Changes) => {
                program.keep(frames, self.net.now);
                self.with_broker(server, |broker, now, out| {
                    frames.with(|message| broker.handle_change(now, message, out));
                });
            }
            _ => {}
        }
    }

    fn message(&mut self, host: usize, socket: usize, frames: &Frames) {
        match &mut self.programs[host] {
            Program::Client(program) => {
                let (updates, requests) = (program.sockets.updates, program.sockets.requests);
                if socket == updates {
                    self.with_client(host, |client, now, out| {
                        frames.with(|message| client.handle_update(now, message, out));
                    });
                } else if Some(socket) == requests {
                    if program.sockets.asked_for_delta && is_full(frames) {
                        self.net.coverage.count("limit: history");
                    }
                    self.with_client(host, |client, now, out| {
                        frames.with(|message| client.handle_snapshot(now, message, out));
                    });
                }
            }
            Program::OldClient(client) => {
                if let Some(mut snapshot) = client.message(&mut self.net, socket, frames) {
                    let subtree = self.plan.clients[host - self.plan.servers.len()].subtrees[0];
                    let given = snapshot.given.end(snapshot.count, &self.truth);
                    check_snapshot(&self.truth, snapshot.sequence, subtree.as_bytes(), &given);
                }
            }
            Program::Asker(asker) => asker.message(&mut self.net, &self.truth, frames),
            Program::Broker(program) => {
                let socket = Some(socket);
                let (line, sync) = (program.line, program.sync);
                let refused = program.machine.pair_stats().map(|stats| stats.peer_refused);
                self.with_broker(host, |broker, now, out| {
                    frames.with(|message| {
                        if socket == line {
                            broker.handle_peer(now, message, out);
                        } else if socket == sync {
                            broker.handle_peer_snapshot(now, message, out);
                        }
                    });
                });
                if let Program::Broker(program) = &mut self.programs[host]
                    && socket == line
                    && frames.with(|message| message.get(0) == Some(b"PEER?"))
                    && program.machine.pair_stats().map(|stats| stats.peer_refused) == refused
                {
                    program.heard = Some(frames.clone());
                }
            }
            _ => {}
        }
    }

    // Steps ----------------------------------------------------------------------

    fn step(&mut self, step: &Step) {
        // Who is never called notices nothing by itself.
        for host in self.plan.servers.len()..self.programs.len() {
            if let Program::Client(program) = &self.programs[host]
                && program.staleness_at + STALENESS_EVERY <= self.net.now
            {
                self.hear(host, self.clock(host).local(self.net.now));
            }
        }
        if self.net.is_traced {
            eprintln!("{:>12.6} {:?}", self.net.now.as_nanos() as f64 / 1e9, step.what);
        }
        let mut random = Random::of(&[self.plan.seed, 0x57e9, step.number]);
        match step.what {
            What::Set { client, key, bytes, ttl_ms } => {
                let value = format!("{}{}", step.number, ".".repeat(bytes));
                self.set(client, key, &value, ttl_ms);
            }
            What::Delete { client, key } => self.set(client, key, "", None),
            What::Burst { client, count } => {
                for number in 0..count {
                    let key = Key::any(&mut random, self.plan.names);
                    self.set(client, key, &format!("{}/{number}", step.number), None);
                }
            }
            What::SetInBroker { server, key, ttl_ms } => {
                let (key, value) = (key.to_string(), step.number.to_string());
                let ttl = ttl_ms.map(Duration::from_millis);
                self.with_broker(server, |broker, now, out| {
                    let _ = broker.set(now, key.as_bytes(), value.as_bytes(), ttl, out);
                });
            }
            What::DeleteInBroker { server, key } => {
                let key = key.to_string();
                self.with_broker(server, |broker, now, out| {
                    broker.delete(now, key.as_bytes(), out);
                });
            }
            What::LeaveEvents { client, ms } => {
                let host = self.plan.client_host(client);
                if let Program::Client(program) = &mut self.programs[host] {
                    program.takes_events_at = self.net.now + Duration::from_millis(ms);
                    program.told.let_wait = true;
                }
            }
            What::Ask { client, subtree, delimited, times, reads } => {
                let host = self.plan.client_host(client);
                if let Program::Asker(asker) = &mut self.programs[host] {
                    asker.ask(&mut self.net, subtree, delimited, times, reads);
                }
            }
            What::AskStatus { client } => {
                let host = self.plan.client_host(client);
                if let Program::Asker(asker) = &mut self.programs[host] {
                    asker.ask_status(&mut self.net);
                }
            }
            _ => self.fault(&step.what, &mut random),
        }
    }

    fn fault(&mut self, what: &What, random: &mut Random) {
        let ms = Duration::from_millis;
        match *what {
            What::Cut { client, server, port } => self.net.cut_port(client, server, port),
            What::Block { from, to, ms: time, both } => {
                self.net.coverage.count("fault: partition");
                self.net.block(from, to, ms(time));
                if both {
                    self.net.block(to, from, ms(time));
                }
            }
            What::Stall { host, ms: time } => {
                self.net.coverage.count("fault: stall");
                self.net.stall(host, ms(time));
            }
            What::Slow { host, each_us, ms: time } => {
                self.net.coverage.count("fault: slow reader");
                self.net.slow(host, Duration::from_micros(each_us), ms(time));
            }
            What::Double { client, server, way, count } => {
                self.net.double(client, server, way, count);
            }
            What::Restart { host, ms: time } => {
                if !matches!(self.programs[host], Program::Off) {
                    self.net.coverage.count("fault: restart");
                    self.stop(host);
                    self.timers.push(Reverse((self.net.now + ms(time), Timer::Start(host))));
                }
            }
            What::Usurp { server, ms: time } => {
                let other = 1 - server;
                if self.plan.servers.len() == 2 && !matches!(self.programs[server], Program::Off) {
                    self.net.coverage.count("fault: usurped");
                    for host in (0..self.programs.len()).filter(|&host| host != other) {
                        self.net.block(host, other, ms(time));
                        self.net.block(other, host, ms(time));
                    }
                    self.stop(server);
                    self.timers.push(Reverse((self.net.now + ms(10), Timer::Start(server))));
                }
            }
            What::Freeze { host, ms: time } => {
                self.net.coverage.count("fault: freeze");
                self.net.stall(host, ms(time));
                for other in (0..self.programs.len()).filter(|&other| other != host) {
                    self.net.block(host, other, ms(time));
                    self.net.block(other, host, ms(time));
                }
                self.net.disconnect(host);
                let until = &mut self.frozen_until[host];
                *until = (*until).max(self.net.now + ms(time));
            }
            What::Promote { server } => {
                let role = self.with_broker(server, |broker, now, out| broker.promote(now, out));
                self.count_order("promote", role);
            }
            What::Demote { server } => {
                let role = self.with_broker(server, |broker, now, out| broker.demote(now, out));
                self.count_order("demote", role);
            }
            What::Garbage { server, port } => self.garbage(server, port, random),
            What::Claim { server, kind } => self.claim(server, kind),
            _ => unreachable!("{what:?} is no fault"),
        }
    }

    fn count_order(&mut self, name: &str, outcome: Option<Result<Role, RoleRefusal>>) {
        if let Some(outcome) = outcome {
            let outcome = outcome.map_or_else(RoleRefusal::name, Role::name);
            self.net.coverage.count(&format!("pair: {name}: {outcome}"));
        }
    }

    fn set(&mut self, client: usize, key: Key, value: &str, ttl_ms: Option<u64>) {
        let host = self.plan.client_host(client);
        let key = key.to_string();
        if let Program::OldClient(client) = &mut self.programs[host] {
            let number = self.truth.submissions.len() as u64;
            let bits = Random::of(&[self.plan.seed, host as u64, number]).next();
            let uuid =
                Uuid::from_bytes((u128::from(bits) << 64 | u128::from(number)).to_be_bytes());
            self.truth.submit(uuid, host, key.as_bytes(), value.as_bytes());
            let ttl_s = ttl_ms.map_or(0, |ms| ms.div_ceil(1000));
            client.set(&mut self.net, key.as_bytes(), value.as_bytes(), uuid, ttl_s);
            return;
        }
        let ttl = ttl_ms.map(Duration::from_millis);
        let local = self.clock(host).local(self.net.now);
        let Program::Client(program) = &mut self.programs[host] else { return };
        let mut side = ClientSide { sockets: &mut program.sockets, net: &mut self.net };
        let set = match value.is_empty() {
            true => program.machine.delete(local, key.as_bytes(), &mut side),
            false => program.machine.set(local, key.as_bytes(), value.as_bytes(), ttl, &mut side),
        };
        match set {
            Ok(uuid) => {
                // Nothing answers before the call has returned.
                self.truth.submit(uuid, host, key.as_bytes(), value.as_bytes());
                let before = program.told.open.insert(uuid, key);
                assert_eq!(before, None, "a uuid came twice");
            }
            Err(SetError::TooManyPending { .. }) => {
                self.net.coverage.count("limit: client pending");
            }
            Err(SetError::ValueSize { .. }) => self.net.coverage.count("limit: value size"),
            Err(error) => panic!("{key}: {error}"),
        }
        self.hear(host, local);
    }

    /// Whatever bytes: the broker neither stops nor gives anything away.
    fn garbage(&mut self, server: usize, port: Port, random: &mut Random) {
        const PARTS: [&[u8]; 14] = [
            b"",
            b"ICANHAZ?",
            b"STATUS?",
            b"KTHXBAI",
            b"HUGZ",
            b"\x01HUGZ",
            b"\x00HUGZ/a/",
            b"\x01",
            b"/a/\x07",
            b"12345678",
            b"0123456789abcdef",
            b"a=b",
            b"==\n",
            b"since=5497558138985\n",
        ];
        let frames: Vec<&[u8]> = (0..random.below(8)).map(|_| random.pick(&PARTS)).collect();
        if frames.is_empty() {
            return;
        }
        let frames = match random.chance(10) {
            // In form, but of a key that nobody may have.
            true => Frames::new(&[b"HUGZ", b"12345678", b"0123456789abcdef", b"", b"x"]),
            false => Frames::new(&frames),
        };
        self.net.coverage.count("fault: garbage");
        self.with_broker(server, |broker, now, out| {
            frames.with(|message| match port {
                Port::Snapshots => broker.handle_request(b"nobody", message, out),
                Port::Changes => broker.handle_change(now, message, out),
                Port::Updates => broker.handle_subscription(now, message),
            });
        });
    }

    /// What a peer cannot say, or who is none says, changes nothing, and is counted.
    fn claim(&mut self, host: usize, kind: u64) {
        let Program::Broker(program) = &self.programs[host] else { return };
        let Some(stats) = program.machine.pair_stats() else { return };
        let Some(claim) = impostor::claim(kind, &program.machine, program.heard.as_ref()) else {
            return;
        };
        if self.net.is_traced {
            eprintln!("{}", impostor::trace(self.net.now, host, &claim));
        }
        let before = Before::of(&program.machine, program.stable.clone());
        self.with_broker(host, |broker, now, out| {
            claim.frames.with(|message| match claim.way {
                impostor::Way::Line => broker.handle_peer(now, message, out),
                impostor::Way::Port => broker.handle_request(b"nobody", message, out),
            });
        });
        let Program::Broker(program) = &self.programs[host] else { return };
        let after = Before::of(&program.machine, program.stable.clone());
        assert_eq!(before, after, "host {host} believes: {}", claim.name);
        let refused = program.machine.pair_stats().map_or(0, |stats| stats.peer_refused);
        let expected = stats.peer_refused + u64::from(claim.is_refused);
        assert_eq!(refused, expected, "host {host} does not count: {}", claim.name);
        self.net.coverage.count(&format!("claim: {}", claim.name));
    }

    // The end ----------------------------------------------------------------------

    /// Faults end: what is down comes up, what was held up goes on.
    fn calm(&mut self) {
        self.is_calm = true;
        self.net.calm();
        self.timers.clear();
        for host in 0..self.programs.len() {
            self.start(host);
            if let Program::Client(program) = &mut self.programs[host] {
                program.takes_events_at = Time::ZERO;
            }
        }
    }

    /// Why not everything is right, if it is not: every map is the broker's, and
    /// every change has its answer.
    fn problem(&self) -> Option<String> {
        let Some(active) = self.active() else {
            return Some("not exactly one broker is active".to_owned());
        };
        (0..self.programs.len()).find_map(|host| {
            let Program::Client(program) = &self.programs[host] else { return None };
            let plan = &self.plan.clients[host - self.plan.servers.len()];
            let Told { open, .. } = &program.told;
            if !open.is_empty() {
                return Some(format!("host {host} waits for answers: {open:?}"));
            }
            if plan.max_keys < 1000 || plan.max_bytes < 100_000 {
                // It may rightly never be.
                return None;
            }
            if !program.machine.is_current() {
                let status: Vec<_> = program.machine.status().collect();
                return Some(format!("host {host} is not current: {status:?}"));
            }
            if !program.told.applied.is_empty() {
                return Some(format!("host {host}: are these safe? {:?}", program.told.applied));
            }
            let is_counted = matches!(self.programs[0], Program::Broker(_));
            if !is_counted && plan.subtrees != [""] {
                // Of a server that does not count, a loss under a part goes unnoticed.
                return None;
            }
            plan.subtrees
                .iter()
                .find_map(|subtree| self.difference(active, &program.machine, subtree))
        })
    }

    /// The server that serves, if there is one and no other.
    fn active(&self) -> Option<usize> {
        let mut active = (0..self.plan.servers.len()).filter(|&host| match &self.programs[host] {
            Program::Broker(broker) => broker.machine.role() == Role::Active,
            program => matches!(program, Program::OldServer(_)),
        });
        active.next().filter(|_| active.next().is_none())
    }

    fn difference(&self, active: usize, client: &Client, subtree: &str) -> Option<String> {
        let subtree = subtree.as_bytes();
        let truth: BTreeMap<&[u8], &[u8]> = match &self.programs[active] {
            Program::Broker(broker) => {
                broker.machine.store().iter(subtree).map(|entry| (entry.key, entry.value)).collect()
            }
            Program::OldServer(server) => {
                let entries = server.map.iter().filter(|(key, _)| key.starts_with(subtree));
                entries.map(|(key, (_, value))| (&**key, &**value)).collect()
            }
            _ => return Some("there is no server".to_owned()),
        };
        let map: BTreeMap<&[u8], &[u8]> =
            client.iter(subtree).map(|entry| (entry.key, entry.value)).collect();
        let keys = truth.keys().chain(map.keys());
        keys.map(|key| (key, map.get(key), truth.get(key)))
            .find(|(_, map, truth)| map != truth)
            .map(|(key, map, truth)| {
                let text =
                    |value: Option<&&[u8]>| value.map(|value| value.escape_ascii().to_string());
                format!("{} is {:?}, not {:?}", key.escape_ascii(), text(map), text(truth))
            })
    }

    /// What was called safe is there at the end, as long as one broker that had it
    /// lives: by the policy that waits for a standby, both had it.
    fn check_safe(&self) {
        let Some(active) = self.active().filter(|_| self.plan.servers[0].waits_for_standby) else {
            return;
        };
        if self.plan.servers.len() == 1 {
            // Alone, its word is all there is.
            return;
        }
        for (uuid, submission) in &self.truth.submissions {
            let Fate::Safe(since) = submission.fate else { continue };
            if self.truth.is_kept_by(active, submission, *uuid) {
                continue;
            }
            let since = self.truth.confirmed_at(*uuid).map_or(since, |at| at.min(since));
            let survives = (0..self.plan.servers.len()).any(|host| self.started[host] <= since);
            assert!(
                !survives,
                "no lost change: {uuid}, safe since {since:?}, is gone: {submission:?}"
            );
        }
    }

    /// Clients of RFC 12 cannot know what they have missed; who missed nothing
    /// has what the broker has.
    fn check_old_clients(&mut self) {
        for program in &self.programs {
            let Program::OldClient(client) = program else { continue };
            let Some(Program::Broker(broker)) =
                client.active_with().map(|host| &self.programs[host])
            else {
                continue;
            };
            // What a server learned while it was passive it has not published: a client
            // that did not notice has no way to know.
            let reign = client.active_with().and_then(|host| self.truth.reign_at(host));
            let serves_since = reign.map_or(Time::NEVER, |reign| reign.began);
            if !client.is_clean(&self.net) || client.synced_at < serves_since {
                continue;
            }
            self.net.coverage.count("old client: in step");
            if broker.machine.role() != Role::Active {
                continue;
            }
            for entry in broker.machine.store().iter(client.subtree()) {
                let value = client.map.get(entry.key).map(|(_, value)| &**value);
                assert!(
                    value == Some(entry.value) || client.own.contains(entry.key),
                    "an old client has {} as {value:?}, the broker as {entry:?}",
                    entry.key.escape_ascii()
                );
            }
        }
    }

    fn count_machines(&mut self) {
        for host in 0..self.programs.len() {
            self.count_machine(host);
        }
    }

    /// Adds the counts of a program to what has happened.
    fn count_machine(&mut self, host: usize) {
        let coverage = &mut self.net.coverage;
        match &self.programs[host] {
            Program::Broker(broker) => {
                for (name, count) in broker.machine.stats().fields() {
                    coverage.add(&format!("broker: {name}"), count);
                }
                for (name, count) in broker.machine.pair_stats().iter().flat_map(PairStats::fields)
                {
                    coverage.add(&format!("pair: {name}"), count);
                }
            }
            Program::Client(program) => {
                let stats = program.machine.stats();
                for (name, count) in [
                    ("applied", stats.applied),
                    ("repeated", stats.repeated),
                    ("strays", stats.strays),
                    ("verified", stats.verified),
                    ("snapshots", stats.snapshots),
                    ("deltas", stats.deltas),
                    ("truncated", stats.truncated),
                    ("stalled", stats.stalled),
                    ("gaps", stats.gaps),
                    ("unwatched", stats.unwatched),
                    ("limits", stats.limits),
                    ("submitted", stats.submitted),
                    ("resent", stats.resent),
                    ("blocked", stats.blocked),
                    ("votes", stats.votes),
                    ("overrun", stats.overrun),
                    ("timed_out", stats.timed_out),
                    ("superseded", stats.superseded),
                ] {
                    coverage.add(&format!("client: {name}"), count);
                }
                assert_eq!(stats.malformed, 0, "malformed messages came to host {host}");
            }
            _ => {}
        }
    }
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

/// Whether a message ends a snapshot of everything.
fn is_full(frames: &Frames) -> bool {
    frames.with(|message| {
        KvMsg::decode(message, &Limits::default()).is_ok_and(|message| {
            message.key == b"KTHXBAI" && message.properties.get("mode") == Some(b"full")
        })
    })
}

/// The state of a broker is the history up to its position, and nothing else.
fn check_store(broker: &Broker, truth: &Truth, position: u64, host: usize) {
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
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_key += 4;
    limits
}

/// A broker's sockets.
struct BrokerSide<'a> {
    host: usize,
    line: &'a Option<usize>,
    sync: &'a mut Option<usize>,
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
        let line = self.line.ok_or(SendFailure::Unreachable)?;
        self.net.tell(line, frames)
    }

    fn open_sync(&mut self) {
        if let Some(socket) = self.sync.take() {
            self.net.close(socket);
        }
        let socket = self.net.open(self.host, SocketKind::Dealer);
        self.net.connect(socket, 1 - self.host, Port::Snapshots);
        *self.sync = Some(socket);
    }

    fn request_sync(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        self.net.request(self.sync.ok_or(SendFailure::Unreachable)?, frames);
        Ok(())
    }
}

/// A client's sockets.
struct ClientSide<'a> {
    sockets: &'a mut Sockets,
    net: &'a mut Net,
}

impl ClientSide<'_> {
    fn open(&mut self, before: Option<usize>, kind: SocketKind, port: Port) -> Option<usize> {
        if let Some(before) = before {
            self.net.close(before);
        }
        let socket = self.net.open(self.sockets.host, kind);
        self.net.connect(socket, self.sockets.server, port);
        Some(socket)
    }
}

impl ClientOutbox for ClientSide<'_> {
    fn subscribe(&mut self, topic: &[u8]) {
        self.net.subscribe(self.sockets.updates, topic);
    }

    fn unsubscribe(&mut self, topic: &[u8]) {
        self.net.unsubscribe(self.sockets.updates, topic);
    }

    fn open_requests(&mut self) {
        self.sockets.requests =
            self.open(self.sockets.requests, SocketKind::Dealer, Port::Snapshots);
    }

    fn request(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        self.sockets.asked_for_delta = frames.len() > 2;
        self.net.request(self.sockets.requests.expect("a socket for requests"), frames);
        Ok(())
    }

    fn open_changes(&mut self, collector: Collector) {
        let kind = match collector {
            Collector::Pull => SocketKind::Push,
            Collector::Sub => SocketKind::Pub,
        };
        self.sockets.changes = self.open(self.sockets.changes, kind, Port::Changes);
    }

    fn open_changes_to_all(&mut self, collector: Collector) {
        self.open_changes(collector);
        let socket = self.sockets.changes.expect("it was opened");
        let current = self.sockets.server;
        for server in self.sockets.servers.iter().filter(|&&server| server != current) {
            self.net.connect(socket, *server, Port::Changes);
        }
    }

    fn turn_to(&mut self, server: usize) {
        self.sockets.server = self.sockets.servers[server];
        if let Some(requests) = self.sockets.requests.take() {
            self.net.close(requests);
        }
        let updates = self.sockets.updates;
        self.sockets.updates =
            self.open(Some(updates), SocketKind::Sub, Port::Updates).expect("it was opened");
    }

    fn change(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        self.net.change(self.sockets.changes.expect("a socket for changes"), frames)
    }
}
