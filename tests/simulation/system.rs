//! A run: the programs on their hosts, what happens to them, and what must hold.

mod brokers;
mod clients;
mod ending;
mod relays;
mod steps;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use pollux::Time;
use pollux::clone::{KvMsg, Limits};

use self::brokers::{BrokerProgram, told_position};
use self::clients::{ClientProgram, refused};
use crate::asker::{Asker, check_snapshot};
use crate::frames::Frames;
use crate::net::{Net, Occurrence, Port};
use crate::old::{OldClient, OldServer};
use crate::plan::{Clock, Plan};
use crate::truth::Truth;

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

/// What runs on a host.
pub(crate) enum Program {
    Off,
    Broker(Box<BrokerProgram>),
    OldServer(Box<OldServer>),
    Client(Box<ClientProgram>),
    OldClient(Box<OldClient>),
    Asker(Box<Asker>),
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
        let hosts = plan.relay_host(plan.relays.len());
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
        let relays = plan.relays.iter().map(|relay| relay.server.starts_at_ms);
        let starts = servers.chain(clients).chain(relays).enumerate();
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
                let turn = Duration::from_micros(self.plan.server_at(host).turn_us);
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
        } else if let Some(relay) = self.plan.relay_at(host) {
            self.start_relay(host, relay);
        } else {
            self.start_client(host);
        }
    }

    /// A program ends, as if its process were killed.
    fn stop(&mut self, host: usize) {
        self.count_machine(host);
        self.truth.end(host, self.net.now);
        self.programs[host] = Program::Off;
        self.net.take_down(host);
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
                if let Program::Broker(program) = &self.programs[client]
                    && program.peer.forward == Some(socket)
                    && self.net.ready_at(client) <= self.net.now
                {
                    self.with_broker(client, |relay, now, out| relay.handle_forward_room(now, out));
                }
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
            client.is_asking(&self.net, server);
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
                frames.with(|message| {
                    self.truth.deliver(server, message.get(2).unwrap_or_default());
                });
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
                    if let Some(uuid) = refused(frames) {
                        program.sent.refused(uuid);
                    }
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
                    let relay = self.plan.clients[host - self.plan.servers.len()].relay;
                    let is_all = |relay: usize| self.plan.relays[relay].subtree.is_empty();
                    if relay.is_none_or(is_all) {
                        // A relay of a part may have missed what it has not noticed yet.
                        check_snapshot(&self.truth, snapshot.sequence, subtree.as_bytes(), &given);
                    }
                }
            }
            Program::Asker(asker) => asker.message(&mut self.net, &self.truth, frames),
            Program::Broker(program) => {
                let socket = Some(socket);
                if socket == program.peer.line {
                    program.heard_at = told_position(frames).unwrap_or(program.heard_at);
                }
                let peer = &program.peer;
                let (line, follow, sync) = (peer.line, peer.follow, peer.sync);
                let refused = program.machine.pair_stats().map(|stats| stats.peer_refused);
                self.with_broker(host, |broker, now, out| {
                    frames.with(|message| {
                        if socket == line {
                            broker.handle_peer(now, message, out);
                        } else if socket == follow {
                            broker.handle_peer_update(now, message, out);
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
}

/// Whether a message ends a snapshot of everything.
fn is_full(frames: &Frames) -> bool {
    frames.with(|message| {
        KvMsg::decode(message, &Limits::default()).is_ok_and(|message| {
            message.key == b"KTHXBAI" && message.properties.get("mode") == Some(b"full")
        })
    })
}
