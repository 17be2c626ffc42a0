//! A client for programs that do not want to see a loop.
//!
//! [`Client`] runs a reactor with a [`ClientNode`](crate::node::ClientNode) on a thread of its own
//! and talks to it by a [`Sender`]. It can be shared between threads.
//!
//! ```no_run
//! use pollux::blocking::Client;
//!
//! let client = Client::connect("tcp://127.0.0.1:5556")?;
//! client.set(b"/robot/1/speed", b"0.7")?;
//! assert_eq!(client.get(b"/robot/1/speed")?.as_deref(), Some(&b"0.7"[..]));
//! for event in client.watch(b"/robot/")? {
//!     println!("{:?}", event?);
//! }
//! # Ok::<(), pollux::blocking::Error>(())
//! ```

#[cfg(test)]
mod tests;
mod worker;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use crate::clone::Sequence;
use crate::clone::client::{Event, SetError};
use crate::reactor::Sender;

use worker::{Change, Command, Queue, Watcher};

/// What can go wrong with a blocking [`Client`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// No broker answered in time.
    NoBroker {
        /// Where it was expected.
        endpoint: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The change could not be made: a limit, at the client.
    Invalid(SetError),
    /// The broker refused the change, with its reason.
    Refused(String),
    /// The change was applied, but it could not be learned that it is safe. Only with
    /// [`Wait::Safe`].
    NotSafe,
    /// The change was lost on the way, and a later one of the same key by this
    /// client was applied since.
    Superseded,
    /// No answer to a change in time.
    TimedOut {
        /// Whether it was sent: then it may have been applied or not.
        sent: bool,
    },
    /// This reader of a watch fell behind by more than the queue holds; watch anew.
    Overrun,
    /// The state known is not current: the broker is silent, or a snapshot is under way.
    Stale,
    /// The client's thread has ended.
    Stopped,
    /// A socket or the thread could not be made.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoBroker { endpoint, waited } => write!(
                f,
                "no broker answered at {endpoint} within {waited:?}; is one running there?"
            ),
            Error::Invalid(error) => write!(f, "{error}"),
            Error::Refused(reason) => write!(f, "the broker refused the change: {reason}"),
            Error::NotSafe => f.write_str(
                "the change was applied, but whether it survives the broker is not known",
            ),
            Error::Superseded => f.write_str("a later change of the key was applied instead"),
            Error::TimedOut { sent: true } => f.write_str(
                "the broker did not confirm the change in time; it may have been applied or not",
            ),
            Error::TimedOut { sent: false } => {
                f.write_str("no broker took the change in time; it has no effect")
            }
            Error::Overrun => f.write_str("the watch was read too slowly; watch anew"),
            Error::Stale => f.write_str("the state is not current: the broker is silent"),
            Error::Stopped => f.write_str("the client's thread has ended"),
            Error::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Invalid(error) => Some(error),
            Error::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

/// How far a change must be before `set` and `delete` return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Wait {
    /// The active broker has applied it.
    #[default]
    Applied,
    /// The standby has it, too, so that it survives the loss of either broker. Without a
    /// standby it is for the broker's policy to say what is safe.
    Safe,
}

/// How a [`Client`] connects.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// What is followed: the whole tree (default), or subtrees like `/robot/`. Without
    /// any the client only writes. Keys that are not followed are not known: `get`,
    /// `watch` and `snapshot` find nothing there.
    pub subtrees: Vec<Vec<u8>>,
    /// How long `connect` waits for the state, and `set` and `delete` for the
    /// broker. Default 5 s.
    pub timeout: Duration,
    /// What `set` and `delete` wait for. Default: applied.
    pub wait: Wait,
    /// Events a watch holds for a reader that is slow, before it ends with
    /// [`Error::Overrun`]. Default 65,536. A resynchronisation after which more keys
    /// differ than this can overrun any reader.
    pub watch_capacity: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            subtrees: vec![Vec::new()],
            timeout: Duration::from_secs(5),
            wait: Wait::Applied,
            watch_capacity: 65_536,
        }
    }
}

/// Live shared state, followed by a thread of its own.
///
/// Each call blocks until it has its answer. Dropping the client ends the thread, which
/// takes up to a second if changes are still on their way into the network.
#[derive(Debug)]
pub struct Client {
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
    options: Options,
}

/// Threads that may ask at the same moment.
const COMMANDS: usize = 1024;

impl Client {
    /// Follows the whole tree of the broker at `endpoint`; returns when the
    /// state is there. Of a pair it takes both, as `pollux://a:5556,b:5556`: see
    /// [`Endpoints::of_servers`](crate::node::Endpoints::of_servers).
    ///
    /// # Errors
    /// [`Error::NoBroker`] if none answers within five seconds.
    pub fn connect(endpoint: &str) -> Result<Client, Error> {
        Client::connect_with(endpoint, Options::default())
    }

    /// The same with [`Options`].
    ///
    /// # Errors
    /// [`Error::NoBroker`] after the timeout; [`Error::Io`] for an endpoint or
    /// subtrees that cannot be.
    pub fn connect_with(endpoint: &str, options: Options) -> Result<Client, Error> {
        let (ready, started) = sync_channel(1);
        let (synced, in_sync) = sync_channel(1);
        let (at, with) = (endpoint.to_owned(), options.clone());
        let thread = std::thread::Builder::new()
            .name("pollux-client".to_owned())
            .spawn(move || worker::run(&at, &with, COMMANDS, &ready, synced))?;
        let commands = match started.recv() {
            Ok(result) => result?,
            Err(_) => return Err(Error::Stopped),
        };
        let client = Client { commands, thread: Some(thread), options };
        match in_sync.recv_timeout(client.options.timeout) {
            Ok(()) => Ok(client),
            Err(RecvTimeoutError::Timeout) => Err(Error::NoBroker {
                endpoint: endpoint.to_owned(),
                waited: client.options.timeout,
            }),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Stopped),
        }
    }

    /// The confirmed value of a key, or `None` if it is not there (or not under
    /// the subtrees followed).
    ///
    /// # Errors
    /// [`Error::Stale`] while the state is not current.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let key = key.to_vec();
        self.ask(|reply| Command::Get { key, reply })?
    }

    /// Sets a key; returns its sequence when the broker has applied the change, or when
    /// it is safe, as [`Options::wait`] says.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Refused`], [`Error::TimedOut`], [`Error::NotSafe`]; with several
    /// threads changing the same key, [`Error::Superseded`].
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<Sequence, Error> {
        self.change(Change { key: key.to_vec(), value: Some(value.to_vec()), ttl: None })
    }

    /// The same for a while: the broker deletes the key after `ttl`.
    ///
    /// # Errors
    /// As [`set`](Client::set).
    pub fn set_for(&self, key: &[u8], value: &[u8], ttl: Duration) -> Result<Sequence, Error> {
        self.change(Change { key: key.to_vec(), value: Some(value.to_vec()), ttl: Some(ttl) })
    }

    /// Deletes a key; returns when the broker has applied the change.
    ///
    /// # Errors
    /// As [`set`](Client::set).
    pub fn delete(&self, key: &[u8]) -> Result<Sequence, Error> {
        self.change(Change { key: key.to_vec(), value: None, ttl: None })
    }

    /// What is there now under `subtree` (any prefix of keys), then each event
    /// as it happens: `Updated` and `Deleted` of keys under it, and whatever tells how
    /// far the state can be relied on (`Lost`, `Gap`, `Resync`, `Synced`). The two join
    /// without a gap.
    ///
    /// # Errors
    /// [`Error::Stale`] while the state is not current, [`Error::Stopped`] if the
    /// thread has ended.
    pub fn watch(&self, subtree: &[u8]) -> Result<Watch, Error> {
        let (events, receiver) = mpsc::channel();
        let queue = Arc::new(Queue::default());
        let watcher = Watcher {
            subtree: subtree.to_vec(),
            events,
            queue: Arc::clone(&queue),
            capacity: self.options.watch_capacity,
        };
        let initial = self.ask(|reply| Command::Watch { watcher, reply })??;
        Ok(Watch { initial: initial.into_iter(), receiver, queue, ended: false })
    }

    /// All keys and values under `subtree` (any prefix of keys), in order of keys.
    ///
    /// # Errors
    /// [`Error::Stale`] while the state is not current.
    pub fn snapshot(&self, subtree: &[u8]) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let subtree = subtree.to_vec();
        self.ask(|reply| Command::Snapshot { subtree, reply })?
    }

    fn change(&self, change: Change) -> Result<Sequence, Error> {
        self.ask(|reply| Command::Change { change, reply })?
    }

    fn ask<R>(&self, command: impl FnOnce(SyncSender<R>) -> Command) -> Result<R, Error> {
        let (reply, answer) = sync_channel(1);
        self.commands.send(command(reply)).map_err(|_| Error::Stopped)?;
        answer.recv().map_err(|_| Error::Stopped)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// Events of a subtree, as an iterator that blocks for the next one.
///
/// Ends when the [`Client`] is dropped, or with [`Error::Overrun`] if it is
/// read too slowly.
#[derive(Debug)]
pub struct Watch {
    initial: std::vec::IntoIter<Event>,
    receiver: Receiver<Event>,
    queue: Arc<Queue>,
    ended: bool,
}

impl Iterator for Watch {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(event) = self.initial.next() {
            return Some(Ok(event));
        }
        if self.ended {
            return None;
        }
        match self.receiver.recv() {
            Ok(event) => {
                self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
                Some(Ok(event))
            }
            Err(_) => {
                self.ended = true;
                let overrun = self.queue.overrun.load(Ordering::Acquire);
                overrun.then_some(Err(Error::Overrun))
            }
        }
    }
}
