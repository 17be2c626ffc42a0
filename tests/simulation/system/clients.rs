//! Clients on their hosts: their sockets, and what is checked of each as it goes on.

use std::time::Duration;

use pollux::Time;
use pollux::clone::client::{Client, ClientOutbox};
use pollux::clone::{Collector, KvMsg, SendFailure, Uuid};

use super::brokers::limits;
use super::{Program, STALENESS_EVERY, System};
use crate::asker::Asker;
use crate::checks::{Sent, Standing, Told};
use crate::frames::Frames;
use crate::net::{Net, Port, SocketKind};
use crate::old::OldClient;
use crate::plan::{ClientKind, ServerKind};
use crate::programs::client_config;
use crate::random::Random;

pub(crate) struct ClientProgram {
    pub(super) machine: Client,
    pub(super) sockets: Sockets,
    pub(super) sent: Sent,
    pub(super) told: Told,
    /// The application takes no events before this.
    pub(super) takes_events_at: Time,
    pub(super) staleness_at: Time,
}

impl ClientProgram {
    /// The machine, and what it sends by.
    pub(super) fn with<'a>(&'a mut self, net: &'a mut Net) -> (&'a mut Client, ClientSide<'a>) {
        let side = ClientSide { sockets: &mut self.sockets, sent: &mut self.sent, net };
        (&mut self.machine, side)
    }
}

/// The sockets of a client.
pub(super) struct Sockets {
    pub(super) host: usize,
    /// All that it knows, and the one it is at.
    pub(super) servers: Vec<usize>,
    pub(super) server: usize,
    pub(super) updates: usize,
    pub(super) requests: Option<usize>,
    /// The last request was for changes only.
    pub(super) asked_for_delta: bool,
    pub(super) changes: Option<usize>,
}

impl System<'_> {
    pub(super) fn start_client(&mut self, host: usize) {
        let plan = &self.plan.clients[host - self.plan.servers.len()];
        if plan.is_absent {
            return;
        }
        match plan.kind {
            ClientKind::New => {
                let seed = Random::of(&[self.plan.seed, host as u64, self.starts[host]]).next();
                let servers = self.plan.servers_of(host - self.plan.servers.len());
                let config = client_config(plan, servers.len());
                let machine = Client::new(config, seed).expect("a sound configuration");
                let updates = self.net.open(host, SocketKind::Sub);
                self.net.connect(updates, servers[0], Port::Updates);
                let sockets = Sockets {
                    host,
                    server: servers[0],
                    servers,
                    updates,
                    requests: None,
                    asked_for_delta: false,
                    changes: None,
                };
                let program = ClientProgram {
                    machine,
                    sockets,
                    sent: Sent::default(),
                    told: Told::default(),
                    takes_events_at: Time::ZERO,
                    staleness_at: Time::ZERO,
                };
                self.programs[host] = Program::Client(Box::new(program));
                self.with_client(host, |client, now, out| client.start(now, out));
            }
            ClientKind::Old => {
                let servers = self.plan.servers_of(host - self.plan.servers.len());
                let client = OldClient::new(&mut self.net, host, &servers, plan.subtrees[0]);
                self.programs[host] = Program::OldClient(Box::new(client));
            }
            ClientKind::Asker => {
                let server = self.plan.servers_of(host - self.plan.servers.len())[0];
                self.programs[host] = Program::Asker(Box::new(Asker::new(host, server)))
            }
        }
    }

    /// Runs a client, then takes and checks what it tells.
    pub(super) fn with_client<R>(
        &mut self,
        host: usize,
        f: impl FnOnce(&mut Client, Time, &mut ClientSide<'_>) -> R,
    ) -> Option<R> {
        let local = self.clock(host).local(self.net.now);
        let Program::Client(program) = &mut self.programs[host] else { return None };
        let (machine, mut side) = program.with(&mut self.net);
        let result = f(machine, local, &mut side);
        self.hear(host, local);
        Some(result)
    }

    pub(super) fn hear(&mut self, host: usize, local: Time) {
        let global = self.net.now;
        let is_with_old = matches!(self.plan.servers[0].kind, ServerKind::Old { .. });
        let plan = &self.plan.clients[host - self.plan.servers.len()];
        let servers = self.plan.servers_of(host - self.plan.servers.len());
        let is_told_safe = plan.until_safe || servers.len() > 1;
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
        let Program::Client(program) = &self.programs[host] else { return None };
        let at = program.sockets.server;
        let server = self.plan.server_at(at);
        if !self.has_room(at) {
            // A relay that is too small stays behind, which it says in its figures alone.
            return None;
        }
        if server.max_watched < 100 {
            // A subtree without heartbeats asks from time to time instead.
            return None;
        }
        let heartbeat = Duration::from_millis(server.heartbeat_ms);
        let silence = (heartbeat * 3).max(Duration::from_secs(1));
        let mut patience = silence * 2 + heartbeat * 2 + Duration::from_secs(1);
        let mut hindered = self.hindered(at, host).max(self.net.hindered(host));
        if self.plan.relay_at(at).is_some() {
            let (relay, since) = self.relay_patience(at)?;
            (patience, hindered) = (patience + relay, hindered.max(since));
        }
        (hindered.max(self.frozen_until[host]) + patience <= self.net.now).then_some(patience)
    }

    /// Until when a server, or the way from it to a host, was last held up.
    pub(super) fn hindered(&self, server: usize, host: usize) -> Time {
        let hindered = self.net.hindered(server).max(self.net.blocked(server, host));
        hindered.max(self.frozen_until[server])
    }
}

/// A client's sockets, and what goes out by them.
pub(super) struct ClientSide<'a> {
    pub(super) sockets: &'a mut Sockets,
    pub(super) sent: &'a mut Sent,
    pub(super) net: &'a mut Net,
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
        self.net.change(self.sockets.changes.expect("a socket for changes"), frames)?;
        let [key, _, uuid, ..] = *frames;
        self.sent.take(key, Uuid::from_bytes(uuid.try_into().expect("it names its changes")));
        Ok(())
    }
}

/// The change that a message says to have no effect; `forgotten` says only that nobody knows.
pub(super) fn refused(frames: &Frames) -> Option<Uuid> {
    frames.with(|message| {
        let message = KvMsg::decode(message, &limits()).ok()?;
        let reason = message.properties.get("refused")?;
        message.uuid.filter(|_| reason != b"forgotten")
    })
}
