//! Loops with brokers and clients on them, turned by the test.
//!
//! Nothing sleeps: [`World::until`] turns all loops until something is so, and
//! fails when it has not become so in time.

// Each test program uses its part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pollux::clone::broker::Broker;
use pollux::clone::client::{Client, ClientConfig, Event};
use pollux::clone::{Sequence, Uuid};
use pollux::node::{BrokerNode, BrokerOptions, ClientNode, ClientOptions};
use pollux::reactor::Backend;
use pollux::{Context, Flow, Reactor};

/// Far longer than anything here takes, on a machine that is busy, too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// The state of one loop.
#[derive(Default)]
pub(crate) struct App {
    pub(crate) broker: Option<BrokerNode>,
    clients: Vec<ClientNode<App>>,
    /// What each client has told, in order.
    events: Vec<Vec<Event>>,
    /// What no handler may give.
    errors: Vec<String>,
}

/// One loop.
struct Process {
    reactor: Reactor<App>,
    app: App,
    /// It is not turned: what comes for it stays in the sockets.
    held: bool,
}

/// Some loops that can talk with one another.
pub(crate) struct World {
    pub(crate) context: zmq::Context,
    processes: Vec<Process>,
    /// For endpoints over ipc.
    directory: tempfile::TempDir,
}

/// A client of a [`World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    process: usize,
    client: usize,
}

/// How the parts of a world are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Inproc,
    Ipc,
    Tcp,
}

impl World {
    /// So many loops on this backend.
    pub(crate) fn new(loops: usize, backend: Backend) -> World {
        let process = |_| {
            let mut reactor = Reactor::builder().backend(backend).build().unwrap();
            reactor.on_error(|app: &mut App, cx: &mut Context<'_, App>, error| {
                app.errors.push(format!("{:?}: {error}", cx.key()));
                Flow::Continue
            });
            Process { reactor, app: App::default(), held: false }
        };
        World {
            context: zmq::Context::new(),
            processes: (0..loops).map(process).collect(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// An endpoint that nobody else has, for a broker to bind.
    pub(crate) fn endpoint(&self, transport: Transport) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        match transport {
            Transport::Inproc => format!("inproc://shared-state-{number}"),
            Transport::Ipc => format!("ipc://{}/{number}", self.directory.path().display()),
            Transport::Tcp => "tcp://127.0.0.1:*".to_owned(),
        }
    }

    /// Puts a broker on a loop. Gives the endpoint that clients connect to.
    pub(crate) fn bind(
        &mut self,
        process: usize,
        endpoint: &str,
        options: BrokerOptions,
    ) -> String {
        self.try_bind(process, endpoint, options).unwrap()
    }

    pub(crate) fn try_bind(
        &mut self,
        process: usize,
        endpoint: &str,
        options: BrokerOptions,
    ) -> std::io::Result<String> {
        let broker = BrokerNode::bind(&self.context, endpoint, options)?;
        let endpoint = broker.endpoints().snapshots.clone();
        let Process { reactor, app, .. } = &mut self.processes[process];
        assert!(app.broker.replace(broker).is_none(), "one broker a loop");
        BrokerNode::attach(reactor, app, |app| app.broker.as_mut().expect("a broker"))?;
        Ok(endpoint)
    }

    /// Takes the broker off its loop, as if its process had ended.
    pub(crate) fn kill_broker(&mut self, process: usize) {
        let Process { reactor, app, .. } = &mut self.processes[process];
        app.broker.take().expect("a broker").detach(reactor);
    }

    /// Puts a client on a loop.
    pub(crate) fn join(&mut self, process: usize, endpoint: &str, options: ClientOptions) -> Id {
        let client = ClientNode::new(&self.context, endpoint, options).unwrap();
        let Process { reactor, app, .. } = &mut self.processes[process];
        let index = app.clients.len();
        app.clients.push(client);
        app.events.push(Vec::new());
        ClientNode::attach(
            reactor,
            app,
            move |app| &mut app.clients[index],
            move |app, _, event| {
                app.events[index].push(event);
                Ok(Flow::Continue)
            },
        )
        .unwrap();
        Id { process, client: index }
    }

    /// Takes a client off its loop; its map stays readable.
    pub(crate) fn leave(&mut self, id: Id) {
        let Process { reactor, app, .. } = &mut self.processes[id.process];
        app.clients[id.client].detach(reactor);
    }

    /// Turns a loop no more, or again.
    pub(crate) fn hold(&mut self, process: usize, held: bool) {
        self.processes[process].held = held;
    }

    /// Turns the loops until it is so.
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut World) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so(self) {
            if Instant::now() > deadline {
                self.report();
                panic!("in {DEADLINE:?} it did not come to this: {what}");
            }
            self.turn();
        }
    }

    /// One pass of each loop; waits up to a millisecond if nothing is to be done.
    pub(crate) fn turn(&mut self) {
        let mut running: Vec<&mut Process> =
            self.processes.iter_mut().filter(|process| !process.held).collect();
        let events: usize = running.iter_mut().map(|process| process.turn(Duration::ZERO)).sum();
        if events == 0 {
            for process in running {
                process.turn(Duration::from_millis(1));
            }
        }
    }

    fn report(&self) {
        for (index, process) in self.processes.iter().enumerate() {
            if let Some(broker) = &process.app.broker {
                let machine = broker.machine();
                eprintln!(
                    "loop {index}: sequence {:?}, {:#?}",
                    machine.sequence(),
                    machine.stats()
                );
            }
            for (client, events) in process.app.clients.iter().zip(&process.app.events) {
                let status: Vec<_> = client.machine().status().collect();
                let last = &events[events.len().saturating_sub(10)..];
                eprintln!("{:#?}\n{status:#?}\nlast events {last:?}", client.machine().stats());
            }
        }
    }

    // Brokers ----------------------------------------------------------------

    pub(crate) fn broker(&self, process: usize) -> &Broker {
        self.processes[process].app.broker.as_ref().expect("a broker").machine()
    }

    /// Sets a key in the broker itself.
    pub(crate) fn broker_set(&mut self, process: usize, key: &str, value: &[u8]) -> Sequence {
        let Process { reactor, app, .. } = &mut self.processes[process];
        let broker = app.broker.as_mut().expect("a broker");
        broker.set(reactor, key.as_bytes(), value, None).unwrap()
    }

    pub(crate) fn broker_delete(&mut self, process: usize, key: &str) -> bool {
        let Process { reactor, app, .. } = &mut self.processes[process];
        app.broker.as_mut().expect("a broker").delete(reactor, key.as_bytes()).unwrap()
    }

    // Clients ----------------------------------------------------------------

    pub(crate) fn client(&self, id: Id) -> &Client {
        self.processes[id.process].app.clients[id.client].machine()
    }

    pub(crate) fn set(&mut self, id: Id, key: &str, value: &str) -> Uuid {
        self.set_for(id, key, value.as_bytes(), None).unwrap()
    }

    pub(crate) fn set_for(
        &mut self,
        id: Id,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Uuid, pollux::clone::client::SetError> {
        let Process { reactor, app, .. } = &mut self.processes[id.process];
        app.clients[id.client].set(reactor, key.as_bytes(), value, ttl)
    }

    /// How long a client believes that a key will live.
    pub(crate) fn remaining(&self, id: Id, key: &str) -> Option<Duration> {
        let now = self.processes[id.process].reactor.now();
        self.client(id).get(key.as_bytes())?.remaining(now)
    }

    pub(crate) fn delete(&mut self, id: Id, key: &str) -> Uuid {
        let Process { reactor, app, .. } = &mut self.processes[id.process];
        app.clients[id.client].delete(reactor, key.as_bytes()).unwrap()
    }

    /// What a client has told so far.
    pub(crate) fn events(&self, id: Id) -> &[Event] {
        &self.processes[id.process].app.events[id.client]
    }

    /// Forgets what a client has told.
    pub(crate) fn forget(&mut self, id: Id) {
        self.processes[id.process].app.events[id.client].clear();
    }

    pub(crate) fn has(&self, id: Id, is_it: impl Fn(&Event) -> bool) -> bool {
        self.events(id).iter().any(is_it)
    }

    pub(crate) fn is_applied(&self, id: Id, uuid: Uuid) -> bool {
        self.has(id, |event| matches!(event, Event::Applied { uuid: own, .. } if *own == uuid))
    }

    pub(crate) fn until_current(&mut self, ids: &[Id]) {
        self.until("clients are current", |world| {
            ids.iter().all(|&id| world.client(id).is_current())
        });
    }

    pub(crate) fn until_applied(&mut self, id: Id, uuid: Uuid) {
        self.until("a change is applied", |world| world.is_applied(id, uuid));
    }

    /// The value of a key as a client sees it, confirmed.
    pub(crate) fn value(&self, id: Id, key: &str) -> Option<String> {
        let entry = self.client(id).get(key.as_bytes())?;
        Some(String::from_utf8(entry.value.to_vec()).unwrap())
    }

    /// Whether a client is current and its map that of the broker.
    pub(crate) fn is_equal(&self, id: Id, broker: usize, subtree: &str) -> bool {
        let client = self.client(id);
        client.is_current() && map_of(client, subtree) == state_of(self.broker(broker), subtree)
    }

    pub(crate) fn until_equal(&mut self, ids: &[Id], broker: usize, subtree: &str) {
        self.until("maps are equal", |world| {
            ids.iter().all(|&id| world.is_equal(id, broker, subtree))
        });
    }
}

impl Process {
    fn turn(&mut self, max_wait: Duration) -> usize {
        let events = self.reactor.turn(&mut self.app, max_wait).unwrap();
        assert!(self.app.errors.is_empty(), "{:?}", self.app.errors);
        events
    }
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) fn map_of(client: &Client, subtree: &str) -> Map {
    client.iter(subtree.as_bytes()).map(|e| (e.key.to_vec(), e.value.to_vec())).collect()
}

pub(crate) fn state_of(broker: &Broker, subtree: &str) -> Map {
    let entries = broker.store().iter(subtree.as_bytes());
    entries.map(|e| (e.key.to_vec(), e.value.to_vec())).collect()
}

/// A broker whose heartbeats come every 100 ms, so that what they heal is
/// healed soon.
pub(crate) fn broker() -> BrokerOptions {
    let mut options = BrokerOptions::default();
    options.config.heartbeat = Duration::from_millis(100);
    options
}

/// A client of these subtrees.
pub(crate) fn client(subtrees: &[&str]) -> ClientOptions {
    ClientOptions::new(ClientConfig::follow(subtrees))
}
