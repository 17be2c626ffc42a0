//! The loop: one thread, one [`Reactor`], handlers for whatever happens.

mod builder;
mod channel;
mod context;
mod deadlines;
mod dispatch;
mod key;
mod poller;
mod registry;
mod signals;
mod slots;
mod sockets;
mod sources;
mod stats;
mod timers;
mod waiting;
mod waker;

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use builder::{Backend, Builder, Wait};
pub use channel::{SendError, Sender, TrySendError};
pub use context::{Context, Flow, Ready};
pub use key::{Key, Rejected, SocketKey, SourceId, SourceKey, StaleKey, TimerKey};
pub use mio::Interest;
pub use registry::Registry;
pub use stats::{SharedStats, SourceStats, Stats};
pub use timers::Missed;
pub use waker::Waker;

use crate::time::Time;
use builder::Settings;

/// A loop over ZeroMQ sockets, file descriptors, timers, signals and wakes, which
/// passes the application's state `S` to every handler.
pub struct Reactor<S> {
    registry: Registry<S>,
}

impl<S> Reactor<S> {
    /// A reactor with the default settings: see [`builder`](Reactor::builder).
    ///
    /// # Errors
    /// If the process has no file descriptors left.
    pub fn new() -> io::Result<Reactor<S>> {
        Reactor::builder().build()
    }

    /// Settings, to be changed.
    pub fn builder() -> Builder<S> {
        Builder::new()
    }

    fn with(settings: Settings) -> io::Result<Reactor<S>> {
        Ok(Reactor { registry: Registry::new(settings)? })
    }

    /// Runs until a handler stops the loop ([`Flow::Stop`]), or nothing is left to
    /// wait for: no socket with an interest, no source, no waker or channel in use, no
    /// armed timer.
    ///
    /// # Errors
    /// Those of polling, none of which is to be expected. (Errors of handlers go to
    /// the [error hook](Registry::on_error).)
    pub fn run(&mut self, state: &mut S) -> io::Result<()> {
        let mut time = None;
        while self.registry.has_work() {
            (_, time) = self.pass(state, Duration::MAX, time)?;
            if self.registry.stopping {
                break;
            }
        }
        Ok(())
    }

    /// Makes one pass: waits up to `max_wait` for something to happen, serves what is
    /// ready, fires the timers that are due, and returns how many events were handled.
    ///
    /// 0 means idle: nothing is left to do until something happens or the
    /// [next deadline](Registry::next_deadline) comes. The wait can end early with 0, by a
    /// [`Waker`], or by news of a socket that are no messages. With a `max_wait` of zero it
    /// never blocks: this is how a program with a loop of its own steps the reactor.
    ///
    /// # Errors
    /// Those of polling, none of which is to be expected.
    pub fn turn(&mut self, state: &mut S, max_wait: Duration) -> io::Result<usize> {
        Ok(self.pass(state, max_wait, None)?.0 as usize)
    }

    /// One pass. `start` is a reading of the clock just made, if there is one; the
    /// last one of this pass is returned.
    fn pass(
        &mut self,
        state: &mut S,
        mut max_wait: Duration,
        start: Option<Time>,
    ) -> io::Result<(u64, Option<Time>)> {
        let registry = &mut self.registry;
        registry.stopping = false;
        registry.clock.in_turn = true;
        if registry.nested.get() {
            registry.wakes.leave_sleep();
        }
        let mut handled;
        loop {
            registry.probe_touched();
            let looked = match registry.wait(max_wait, start) {
                Ok(looked) => looked,
                Err(error) => {
                    registry.end_turn(0);
                    return Err(error);
                }
            };
            registry.take_wakes();
            handled = registry.serve_queue(state);
            if !registry.stopping {
                handled += registry.fire_timers(state);
            }
            // What was taken for work was none: look after all, so that 0 means idle.
            if handled > 0 || looked || registry.stopping {
                break;
            }
            max_wait = Duration::ZERO;
        }
        Ok((handled, registry.end_turn(handled)))
    }

    /// Whether a handler stopped the loop in the last turn.
    pub fn is_stopped(&self) -> bool {
        self.registry.stopping
    }

    /// The descriptor that becomes readable when there is something to do, to nest
    /// this loop in another one: level-triggered or edge-triggered, for reading.
    ///
    /// Before waiting on it, call [`turn`](Reactor::turn) with zero until it returns 0, and
    /// wait no longer than until the [next deadline](Registry::next_deadline).
    ///
    /// # Errors
    /// `Unsupported` with [`Backend::ZmqPoll`], which has no such descriptor.
    pub fn poll_fd(&self) -> io::Result<BorrowedFd<'_>> {
        let problem = "only a reactor with Backend::Epoll has a descriptor to wait on";
        let fd = self.registry.poller.fd();
        let fd = fd.ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, problem))?;
        if !self.registry.nested.replace(true) {
            self.registry.allow_outer_sleep();
        }
        Ok(fd)
    }
}

impl<S> Deref for Reactor<S> {
    type Target = Registry<S>;
    fn deref(&self) -> &Registry<S> {
        &self.registry
    }
}

impl<S> DerefMut for Reactor<S> {
    fn deref_mut(&mut self) -> &mut Registry<S> {
        &mut self.registry
    }
}

impl<S> fmt::Debug for Reactor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reactor").field(&self.registry).finish()
    }
}
