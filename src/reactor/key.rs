//! Keys: the names of what is registered with a reactor, and what failed
//! registrations give back.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::marker::PhantomData;

use super::slots::SlotKey;

/// Names a socket in a reactor.
///
/// A key is good until its socket is removed; after that it is *stale* and
/// every use of it answers [`StaleKey`], for ever: keys are never given out
/// twice. A key means nothing to another reactor than the one it came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketKey(pub(crate) SlotKey);

/// Names a timer in a reactor; stale once the timer is cancelled, or has fired
/// for the last time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey(pub(crate) SlotKey);

/// Names any source that is neither a ZeroMQ socket nor a timer: a file
/// descriptor, a [`mio::event::Source`], signals, a waker, a channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub(crate) SlotKey);

/// Names a source whose type is known: removing it gives the `E` back.
pub struct SourceKey<E> {
    pub(crate) id: SourceId,
    source: PhantomData<fn() -> E>,
}

impl<E> SourceKey<E> {
    pub(crate) const fn new(id: SourceId) -> SourceKey<E> {
        SourceKey { id, source: PhantomData }
    }
}

// Derived impls would ask the same of `E`, of which a key holds nothing.
impl<E> Clone for SourceKey<E> {
    fn clone(&self) -> SourceKey<E> {
        *self
    }
}
impl<E> Copy for SourceKey<E> {}
impl<E> PartialEq for SourceKey<E> {
    fn eq(&self, other: &SourceKey<E>) -> bool {
        self.id == other.id
    }
}
impl<E> Eq for SourceKey<E> {}
impl<E> Hash for SourceKey<E> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// The key of anything that has a handler.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// A ZeroMQ socket.
    Socket(SocketKey),
    /// A file descriptor, a mio source, signals, a waker or a channel.
    Source(SourceId),
    /// A timer.
    Timer(TimerKey),
}

impl From<SocketKey> for Key {
    fn from(key: SocketKey) -> Key {
        Key::Socket(key)
    }
}
impl From<TimerKey> for Key {
    fn from(key: TimerKey) -> Key {
        Key::Timer(key)
    }
}
impl From<SourceId> for Key {
    fn from(id: SourceId) -> Key {
        Key::Source(id)
    }
}
impl<E> From<SourceKey<E>> for Key {
    fn from(key: SourceKey<E>) -> Key {
        Key::Source(key.id)
    }
}
impl<E> From<SourceKey<E>> for SourceId {
    fn from(key: SourceKey<E>) -> SourceId {
        key.id
    }
}

impl fmt::Debug for SocketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "socket {:?}", self.0)
    }
}
impl fmt::Debug for TimerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timer {:?}", self.0)
    }
}
impl fmt::Debug for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source {:?}", self.0)
    }
}
impl<E> fmt::Debug for SourceKey<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Socket(key) => key.fmt(f),
            Key::Source(id) => id.fmt(f),
            Key::Timer(key) => key.fmt(f),
        }
    }
}

/// The key names nothing any more: its source was removed, ended, or fired for
/// the last time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaleKey(pub Key);

impl fmt::Display for StaleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stale key: {:?} is no longer registered", self.0)
    }
}

impl std::error::Error for StaleKey {}

impl From<StaleKey> for io::Error {
    fn from(error: StaleKey) -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, error)
    }
}

/// A registration that failed, with the source that was to be registered.
///
/// Where the source does not matter, `?` turns it into its [`io::Error`].
pub struct Rejected<T> {
    /// What was to be registered.
    pub source: T,
    /// Why that failed.
    pub error: io::Error,
}

impl<T> fmt::Debug for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the source was not registered: {}", self.error)
    }
}

impl<T> std::error::Error for Rejected<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<T> From<Rejected<T>> for io::Error {
    fn from(rejected: Rejected<T>) -> io::Error {
        rejected.error
    }
}
