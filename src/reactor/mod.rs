//! The loop: one thread, one [`Reactor`], handlers for whatever happens.
//!
//! ```
//! use std::time::Duration;
//! use pollux::reactor::{Flow, Missed, Reactor};
//! use pollux::socket::{Socket, SocketType};
//!
//! struct Echo {
//!     requests: u32,
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let context = zmq::Context::new();
//! let router = Socket::builder(SocketType::Router).bind("inproc://echo").build(&context)?;
//! let client = Socket::builder(SocketType::Dealer).connect("inproc://echo").build(&context)?;
//!
//! let mut reactor = Reactor::new()?;
//! reactor.on_message(router, |echo: &mut Echo, cx, message| {
//!     echo.requests += 1;
//!     cx.own_socket()?.send(&message)?;
//!     Ok(Flow::Continue)
//! })?;
//! client.send("hello")?;
//! reactor.on_message(client, |_, _, message| {
//!     assert_eq!(&message[0], b"hello");
//!     Ok(Flow::Stop)
//! })?;
//! reactor.add_periodic(Duration::from_secs(5), Missed::Skip, |echo, _| {
//!     println!("{} requests", echo.requests);
//!     Ok(Flow::Continue)
//! });
//!
//! let mut echo = Echo { requests: 0 };
//! reactor.run(&mut echo)?;
//! assert_eq!(echo.requests, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # State
//! Every handler gets the application's state by `&mut S`, and the whole reactor by
//! [`Context`]. While a handler runs it is out of its slot, so what it does to the
//! reactor, to itself too, takes effect at once: what it removes is not served any
//! more, what it cancels does not fire, although it was found ready before.
//!
//! # The turn
//! Each turn
//! 1. asks the sockets that handlers have touched whether a message was overlooked,
//! 2. waits: not at all if there is work, else until something is ready or the next
//!    timer is due,
//! 3. reads the clock, once,
//! 4. serves what is ready in the order in which it was found, each source up to its
//!    budget; what has more goes to the end of the queue,
//! 5. fires the timers that are due, one by one, at most 1,024. A timer armed by another one
//!    waits for the next turn.
//!
//! [`Reactor::run`] makes turns until it is stopped or nothing is left to wait for;
//! [`Reactor::turn`] makes one, for a program that has a loop of its own.
//!
//! # Draining
//! Sockets are level-triggered: what a handler leaves is there in the next turn. File
//! descriptors and mio sources are edge-triggered, as in mio: a handler reads until
//! `WouldBlock`, or asks to be [called again](Context::serve_again).
//!
//! # Errors and panics
//! A handler's error goes to the [error hook](Registry::on_error), by default to the
//! log, and its source is removed; the loop goes on. A handler that panics is removed
//! with its source while the panic unwinds through `run` or `turn`; all else stays as it
//! is, and whoever catches the panic can go on with the next turn.
//!
//! # Threads and signals
//! A reactor stays in the thread that made it. Others reach it by a [`Waker`], by a
//! [`Sender`], or by a [pipe](Registry::add_pipe) of ZeroMQ. It starts no thread, and handles
//! no signal unless [told to](Registry::add_signals).

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
///
/// Sources are registered by the methods of [`Registry`], to which it derefs. The
/// [module](self) says how it works. It is not `Send`, since handlers need not be: make
/// it in the thread that runs it.
pub struct Reactor<S> {
    registry: Registry<S>,
}

/// How often one turn looks for work before it ends without any: more than it can take
/// until what looked like work has turned out to be some or none.
const LOOKS_PER_TURN: u32 = 8;

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
    /// wait for: no socket with an interest, no source, no channel, no waker with a handler, no
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
        mut start: Option<Time>,
    ) -> io::Result<(u64, Option<Time>)> {
        let registry = &mut self.registry;
        registry.stopping = false;
        registry.clock.in_turn = true;
        if registry.nested.get() {
            registry.wakes.leave_sleep();
        }
        let mut handled = 0;
        for _ in 0..LOOKS_PER_TURN {
            registry.probe_touched();
            let looked = match registry.wait(max_wait, start.take()) {
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
            // What was taken for work was none, or has led to some: look once more, so that
            // 0 means idle.
            if handled > 0 || registry.stopping {
                break;
            }
            if looked && registry.queue.is_empty() && registry.touched.get_mut().is_empty() {
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
