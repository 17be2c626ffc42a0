//! What a handler gets and gives: [`Context`], [`Ready`], [`Flow`].

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::key::Key;
use super::registry::Registry;

/// What a handler wants to happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Flow {
    /// Go on.
    #[default]
    Continue,
    /// Remove what this handler was registered for; a socket is closed.
    Remove,
    /// Stop the loop: [`run`](super::Reactor::run) returns as soon as this handler
    /// has. Everything stays registered and nothing is lost: run it again, and it
    /// goes on.
    Stop,
}

/// The reactor as a handler sees it: everything of [`Registry`] (register,
/// remove, arm, cancel, reach sockets by key, whatever handler is running),
/// and what concerns the handler itself.
///
/// All of it takes effect at once. A source that the handler removes is not
/// served again, not even if it was found ready before; a timer that it
/// cancels does not fire.
pub struct Context<'a, S> {
    pub(super) registry: &'a mut Registry<S>,
    pub(super) key: Key,
}

impl<S> Context<'_, S> {
    /// The key of what this handler was registered for.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Stops the loop after this handler, like [`Flow::Stop`].
    pub fn stop(&mut self) {
        self.registry.stopping = true;
    }

    /// Has this handler called again in the next turn with the same [`Ready`],
    /// without a new event: for the handler of a descriptor or mio source that
    /// leaves off before it is drained, so that others get their turn. Without
    /// effect for others.
    pub fn serve_again(&mut self) {
        self.registry.serve_again = true;
    }
}

impl<S> Deref for Context<'_, S> {
    type Target = Registry<S>;
    fn deref(&self) -> &Registry<S> {
        self.registry
    }
}

impl<S> DerefMut for Context<'_, S> {
    fn deref_mut(&mut self) -> &mut Registry<S> {
        self.registry
    }
}

impl<S> fmt::Debug for Context<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What a source is ready for.
///
/// ZeroMQ sockets only know the first two. For file descriptors and mio
/// sources the words mean what they mean in [`mio::event::Event`], hints
/// included: try, and be ready for `WouldBlock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ready {
    /// There is something to receive or read or accept.
    pub readable: bool,
    /// There is room to send or write.
    pub writable: bool,
    /// The descriptor has an error pending.
    pub error: bool,
    /// The peer will write no more.
    pub read_closed: bool,
    /// The peer will read no more.
    pub write_closed: bool,
}

impl Ready {
    pub(super) fn from_mio(event: &mio::event::Event) -> Ready {
        Ready {
            readable: event.is_readable(),
            writable: event.is_writable(),
            error: event.is_error(),
            read_closed: event.is_read_closed(),
            write_closed: event.is_write_closed(),
        }
    }

    /// What either of the two says.
    pub(super) fn or(self, other: Ready) -> Ready {
        Ready {
            readable: self.readable | other.readable,
            writable: self.writable | other.writable,
            error: self.error | other.error,
            read_closed: self.read_closed | other.read_closed,
            write_closed: self.write_closed | other.write_closed,
        }
    }
}
