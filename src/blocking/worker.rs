//! The thread behind a blocking client: a reactor with one client on it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use bytes::Bytes;

use super::{Error, Options, Wait};
use crate::clone::client::{ClientConfig, Event};
use crate::clone::{Sequence, Uuid};
use crate::node::{ClientNode, ClientOptions};
use crate::reactor::{Context, Flow, Missed, Reactor, Sender};

/// A change to make; no value means delete.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) ttl: Option<Duration>,
}

type Entries = Vec<(Bytes, Bytes)>;

/// What a caller asks of the thread, and where it waits for the answer.
#[derive(Debug)]
pub(super) enum Command {
    Get { key: Vec<u8>, reply: SyncSender<Result<Option<Bytes>, Error>> },
    Change { change: Change, reply: SyncSender<Result<Sequence, Error>> },
    Watch { watcher: Watcher, reply: SyncSender<Result<Vec<Event>, Error>> },
    Snapshot { subtree: Vec<u8>, reply: SyncSender<Result<Entries, Error>> },
    Stop,
}

/// What a watch and the thread share; the last one to hold it is the one that is left.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Events sent and not yet read.
    pub(super) waiting: AtomicUsize,
    /// There were too many of them; no more come.
    pub(super) overrun: AtomicBool,
}

/// Where the events of a watch go.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) subtree: Vec<u8>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) queue: Arc<Queue>,
    /// How many may wait.
    pub(super) capacity: usize,
}

/// How often a client that follows nothing, and so hears of nothing, looks
/// whether the broker is there.
const LOOK: Duration = Duration::from_millis(10);

struct State {
    client: ClientNode<State>,
    /// What they wait for.
    wait: Wait,
    /// Callers that wait for their change.
    waiting: HashMap<Uuid, SyncSender<Result<Sequence, Error>>>,
    watchers: Vec<Watcher>,
    /// Who waits for the first snapshot.
    synced: Option<SyncSender<()>>,
}

/// Runs until told to stop. What cannot be made is told to `ready`.
pub(super) fn run(
    endpoint: &str,
    options: &Options,
    capacity: usize,
    ready: &SyncSender<io::Result<Sender<Command>>>,
    synced: SyncSender<()>,
) {
    let (mut reactor, mut state) = match make(endpoint, options, synced) {
        Ok(made) => made,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let commands =
        reactor.channel(capacity, |state: &mut State, cx, command| Ok(state.obey(cx, command)));
    if ready.send(commands).is_err() {
        return;
    }
    if let Err(error) = reactor.run(&mut state) {
        log::error!("the client's loop ended: {error}");
    }
}

fn make(
    endpoint: &str,
    options: &Options,
    synced: SyncSender<()>,
) -> io::Result<(Reactor<State>, State)> {
    let context = zmq::Context::new();
    let mut config = ClientConfig::follow(&options.subtrees);
    config.give_up_after = options.timeout;
    if options.wait == Wait::Safe {
        config.until_safe = true;
        config.keep_for = options.timeout;
    }
    let mut reactor = Reactor::new()?;
    let client = ClientNode::new(&context, endpoint, ClientOptions::new(config))?;
    let mut state = State {
        client,
        wait: options.wait,
        waiting: HashMap::new(),
        watchers: Vec::new(),
        synced: Some(synced),
    };
    if options.subtrees.is_empty() {
        reactor.add_periodic(LOOK, Missed::Skip, |state: &mut State, _| {
            state.tell_if_current();
            Ok(if state.synced.is_some() { Flow::Continue } else { Flow::Remove })
        });
    }
    ClientNode::attach(
        &mut reactor,
        &mut state,
        |state| &mut state.client,
        |state, _, event| {
            state.hear(event);
            Ok(Flow::Continue)
        },
    )?;
    Ok((reactor, state))
}

impl State {
    fn obey(&mut self, cx: &mut Context<'_, State>, command: Command) -> Flow {
        match command {
            Command::Get { key, reply } => {
                let machine = self.client.machine();
                let value = match machine.is_current() {
                    true => Ok(machine.get(&key).map(|entry| Bytes::copy_from_slice(entry.value))),
                    false => Err(Error::Stale),
                };
                // A caller that has gone away needs no answer, here and below.
                let _ = reply.send(value);
            }
            Command::Change { change, reply } => {
                let Change { key, value, ttl } = change;
                let made = match value {
                    Some(value) => self.client.set(cx, &key, &value, ttl),
                    None => self.client.delete(cx, &key),
                };
                match made {
                    Ok(uuid) => drop(self.waiting.insert(uuid, reply)),
                    Err(error) => drop(reply.send(Err(Error::Invalid(error)))),
                }
            }
            Command::Watch { watcher, reply } => {
                // Under a quiet subtree nothing else tells that a reader has gone.
                self.watchers.retain(|other| !other.is_alone());
                let machine = self.client.machine();
                let initial = match machine.is_current() {
                    true => Ok(machine
                        .iter(&watcher.subtree)
                        .map(|entry| Event::Updated {
                            key: entry.key.into(),
                            value: entry.value.into(),
                            sequence: entry.sequence,
                        })
                        .collect()),
                    false => Err(Error::Stale),
                };
                if initial.is_ok() {
                    self.watchers.push(watcher);
                }
                let _ = reply.send(initial);
            }
            Command::Snapshot { subtree, reply } => {
                let machine = self.client.machine();
                let copy = Bytes::copy_from_slice;
                let entries = match machine.is_current() {
                    true => Ok(machine
                        .iter(&subtree)
                        .map(|entry| (copy(entry.key), copy(entry.value)))
                        .collect()),
                    false => Err(Error::Stale),
                };
                let _ = reply.send(entries);
            }
            Command::Stop => return Flow::Stop,
        }
        Flow::Continue
    }

    fn hear(&mut self, event: Event) {
        let outcome = match &event {
            Event::Applied { .. } if self.wait == Wait::Safe => return,
            Event::Applied { uuid, sequence } | Event::Safe { uuid, sequence } => {
                Some((uuid, Ok(*sequence)))
            }
            Event::NotSafe { uuid } => Some((uuid, Err(Error::NotSafe))),
            Event::Refused { uuid, reason } => {
                Some((uuid, Err(Error::Refused(reason.to_string()))))
            }
            Event::Superseded { uuid, .. } => Some((uuid, Err(Error::Superseded))),
            Event::TimedOut { uuid, sent } => Some((uuid, Err(Error::TimedOut { sent: *sent }))),
            _ => None,
        };
        if let Some((uuid, result)) = outcome {
            if let Some(reply) = self.waiting.remove(uuid) {
                let _ = reply.send(result);
            }
            return;
        }
        if matches!(event, Event::Synced { .. }) {
            self.tell_if_current();
        }
        self.watchers.retain(|watcher| watcher.hear(&event));
    }

    /// Lets `connect` return once the state is there.
    fn tell_if_current(&mut self) {
        if self.client.machine().is_current()
            && let Some(synced) = self.synced.take()
        {
            let _ = synced.send(());
        }
    }
}

impl Watcher {
    /// Whether its reader is gone.
    fn is_alone(&self) -> bool {
        Arc::strong_count(&self.queue) == 1
    }

    /// False: this watcher is gone, or has fallen too far behind.
    fn hear(&self, event: &Event) -> bool {
        if let Event::Updated { key, .. } | Event::Deleted { key, .. } = event
            && !key.starts_with(&self.subtree)
        {
            return true;
        }
        if self.queue.waiting.load(Ordering::Relaxed) >= self.capacity {
            self.queue.overrun.store(true, Ordering::Release);
            return false;
        }
        self.queue.waiting.fetch_add(1, Ordering::Relaxed);
        self.events.send(event.clone()).is_ok()
    }
}
