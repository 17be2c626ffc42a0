//! Writers and watchers, each on a thread of its own.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pollux::clone::client::{ClientConfig, Event};
use pollux::clone::{Sequence, Uuid};
use pollux::node::{ClientNode, ClientOptions};
use pollux::reactor::{Context, Flow, Reactor};

use crate::common::DEADLINE;
use crate::pair::{Pair, State};

/// Changes of a writer that are not safe yet, at most.
const WINDOW: usize = 500;

/// The longest wait in the loop, after which it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// What a writer saw.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Key by key, what was reported as safe: its value is the key's own number.
    pub(crate) safe: Vec<(String, Sequence)>,
    /// Keys reported as applied, the last time under this sequence.
    pub(crate) applied: HashMap<u64, Sequence>,
    pub(crate) not_safe: u64,
    pub(crate) given_up: u64,
    pub(crate) turned: u64,
}

struct Writer {
    client: ClientNode<Writer>,
    prefix: String,
    next: u64,
    /// Changes allowed beyond the window.
    spare: usize,
    under_way: HashMap<Uuid, u64>,
    record: Record,
    /// The highest epoch in which something was applied.
    epoch: u32,
    /// Tells each higher one, and when.
    epochs: Sender<(u32, Instant)>,
}

/// Sets new keys as fast as they become safe, until it is told to stop; then it
/// waits for what is under way.
pub(crate) struct WriterThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Record>,
}

impl WriterThread {
    pub(crate) fn start(servers: &str, name: &str, epochs: Sender<(u32, Instant)>) -> WriterThread {
        let stop = Arc::new(AtomicBool::new(false));
        let (servers, name, stopped) = (servers.to_owned(), name.to_owned(), Arc::clone(&stop));
        let thread = thread::spawn(move || write(&servers, &name, &stopped, epochs));
        WriterThread { stop, thread }
    }

    /// Stops it, and gives what it saw.
    pub(crate) fn finish(self) -> Record {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer did not panic")
    }
}

fn write(servers: &str, name: &str, stop: &AtomicBool, epochs: Sender<(u32, Instant)>) -> Record {
    let context = zmq::Context::new();
    let mut reactor = Reactor::new().expect("a loop");
    let prefix = format!("/{name}/");
    let mut config = ClientConfig::follow([&prefix]);
    config.until_safe = true;
    config.give_up_after = DEADLINE;
    let client = ClientNode::new(&context, servers, ClientOptions::new(config)).expect("a client");
    let (under_way, record) = (HashMap::new(), Record::default());
    let mut writer =
        Writer { client, prefix, next: 0, spare: 0, under_way, record, epoch: 0, epochs };
    let on_event = |writer: &mut Writer, cx: &mut Context<'_, Writer>, event| {
        writer.hear(event);
        writer.fill(cx);
        Ok(Flow::Continue)
    };
    ClientNode::attach(&mut reactor, &mut writer, |writer| &mut writer.client, on_event)
        .expect("it goes onto the loop");
    writer.fill(&mut reactor);
    while !stop.load(Ordering::Relaxed) {
        reactor.turn(&mut writer, LOOK).expect("the loop turns");
    }
    writer.next = u64::MAX;
    let deadline = Instant::now() + DEADLINE;
    while !writer.under_way.is_empty() {
        assert!(
            Instant::now() < deadline,
            "{name}: {} changes without an end; {:?}",
            writer.under_way.len(),
            writer.client
        );
        reactor.turn(&mut writer, LOOK).expect("the loop turns");
    }
    writer.record
}

impl Writer {
    fn fill(&mut self, registry: &mut pollux::reactor::Registry<Writer>) {
        while self.next != u64::MAX && self.under_way.len() < WINDOW + self.spare {
            let key = format!("{}{}", self.prefix, self.next);
            let value = self.next.to_string();
            match self.client.set(registry, key.as_bytes(), value.as_bytes(), None) {
                Ok(uuid) => self.under_way.insert(uuid, self.next),
                Err(_) => return,
            };
            self.next += 1;
        }
    }

    fn hear(&mut self, event: Event) {
        let record = &mut self.record;
        match event {
            Event::Applied { uuid, sequence } => {
                if let Some(&number) = self.under_way.get(&uuid) {
                    record.applied.insert(number, sequence);
                }
                if sequence.epoch() > self.epoch {
                    self.epoch = sequence.epoch();
                    // Nobody need listen.
                    let _ = self.epochs.send((self.epoch, Instant::now()));
                }
            }
            Event::Safe { uuid, sequence } => {
                let number = self.under_way.remove(&uuid).expect("a change of ours, once");
                record.safe.push((format!("{}{number}", self.prefix), sequence));
            }
            Event::NotSafe { uuid } => {
                self.under_way.remove(&uuid);
                record.not_safe += 1;
            }
            Event::Refused { uuid, .. }
            | Event::TimedOut { uuid, .. }
            | Event::Superseded { uuid, .. } => {
                self.under_way.remove(&uuid);
                record.given_up += 1;
            }
            Event::Turned { .. } => {
                record.turned += 1;
                // A window full of what is applied and not safe would never show that
                // the next active applies anything.
                self.spare += 1;
            }
            _ => {}
        }
    }
}

struct Watcher {
    client: ClientNode<Watcher>,
}

/// Follows everything, until its map is that of the broker.
pub(crate) struct WatcherThread {
    wanted: Sender<Arc<State>>,
    thread: JoinHandle<()>,
}

impl WatcherThread {
    pub(crate) fn start(servers: &str) -> WatcherThread {
        let (wanted, receiver) = mpsc::channel();
        let servers = servers.to_owned();
        let thread = thread::spawn(move || watch(&servers, &receiver));
        WatcherThread { wanted, thread }
    }

    /// Waits until its map is this one.
    pub(crate) fn finish(self, state: &Arc<State>) {
        self.wanted.send(Arc::clone(state)).expect("the watcher runs");
        self.thread.join().expect("the watcher's map is the broker's");
    }
}

fn watch(servers: &str, wanted: &Receiver<Arc<State>>) {
    let context = zmq::Context::new();
    let mut reactor = Reactor::new().expect("a loop");
    let options = ClientOptions::new(ClientConfig::follow([""]));
    let client = ClientNode::new(&context, servers, options).expect("a client");
    let mut watcher = Watcher { client };
    let ignore = |_: &mut Watcher, _: &mut Context<'_, Watcher>, _| io::Result::Ok(Flow::Continue);
    ClientNode::attach(&mut reactor, &mut watcher, |watcher| &mut watcher.client, ignore)
        .expect("it goes onto the loop");
    let state = loop {
        reactor.turn(&mut watcher, LOOK).expect("the loop turns");
        match wanted.try_recv() {
            Ok(state) => break state,
            Err(mpsc::TryRecvError::Empty) => {}
            // The test has failed.
            Err(mpsc::TryRecvError::Disconnected) => return,
        }
    };
    let deadline = Instant::now() + DEADLINE;
    loop {
        reactor.turn(&mut watcher, LOOK).expect("the loop turns");
        let machine = watcher.client.machine();
        let is_same = machine.is_current() && machine.len() == state.len() && {
            machine.iter(b"").all(|entry| {
                let key = std::str::from_utf8(entry.key).expect("text");
                state.get(key).is_some_and(|(sequence, value)| {
                    *sequence == entry.sequence.get() && value.as_bytes() == entry.value
                })
            })
        };
        if is_same {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "the watcher's map is another: {} keys, current {}, expected {}; {:?}",
            machine.len(),
            machine.is_current(),
            state.len(),
            watcher.client
        );
    }
}

/// Four of each, at the same servers.
pub(crate) struct Clients {
    writers: Vec<WriterThread>,
    watchers: Vec<WatcherThread>,
    epochs: Receiver<(u32, Instant)>,
}

impl Clients {
    pub(crate) fn start(servers: &str) -> Clients {
        Clients::start_at(&[servers; 4], &[servers; 4])
    }

    pub(crate) fn start_at(writers: &[&str], watchers: &[&str]) -> Clients {
        let (sender, epochs) = mpsc::channel();
        let writers = writers.iter().enumerate();
        let writers = writers
            .map(|(number, at)| {
                WriterThread::start(at, &format!("writer-{number}"), sender.clone())
            })
            .collect();
        let watchers = watchers.iter().map(|at| WatcherThread::start(at)).collect();
        Clients { writers, watchers, epochs }
    }

    /// When the first change was applied in an epoch above this; waits for it.
    pub(crate) fn applied_above(&self, epoch: u32, pair: &Pair) -> (u32, Instant) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.epochs.recv_timeout(left) {
                Ok((found, at)) if found > epoch => return (found, at),
                Ok(_) => {}
                Err(_) => panic!(
                    "nothing was applied above epoch {epoch} within {DEADLINE:?}\n{}",
                    pair.report()
                ),
            }
        }
    }

    /// Stops the writers and lets everything that is under way end.
    pub(crate) fn stop_writing(&mut self) -> Vec<Record> {
        for writer in &self.writers {
            writer.stop.store(true, Ordering::Relaxed);
        }
        self.writers.drain(..).map(WriterThread::finish).collect()
    }

    /// Stops writing. What was safe must be at the active, and all that it has at every watcher
    /// and at the standby: the active is killed, and the standby takes over.
    pub(crate) fn end(mut self, pair: &mut Pair) {
        let records = self.stop_writing();
        let active = pair.active().at;
        let state = pair.state(active);
        check(&records, &state);
        self.compare(state.clone());
        pair.kill(active);
        assert_eq!(pair.state(1 - active), state);
    }

    /// Waits until every watcher's map is this one.
    pub(crate) fn compare(self, state: State) {
        let state = Arc::new(state);
        self.watchers.into_iter().for_each(|watcher| watcher.finish(&state));
    }
}

/// All that was reported as safe is there, each under the sequence reported.
pub(crate) fn check(records: &[Record], state: &State) {
    let mut safe = 0;
    for record in records {
        for (key, sequence) in &record.safe {
            let number = key.rsplit('/').next().expect("a number");
            let found = state.get(key).unwrap_or_else(|| panic!("{key}, which was safe, is lost"));
            assert_eq!(found.1, number, "{key} has another value");
            assert_eq!(
                found.0,
                sequence.get(),
                "{key} was safe at {sequence:?}, and was applied again"
            );
        }
        safe += record.safe.len();
    }
    let sum = |of: fn(&Record) -> u64| records.iter().map(of).sum::<u64>();
    eprintln!(
        "{safe} changes safe, {} not known to be, {} given up, {} turns to another server",
        sum(|record| record.not_safe),
        sum(|record| record.given_up),
        sum(|record| record.turned),
    );
    assert!(safe > 0, "nothing was safe");
}
