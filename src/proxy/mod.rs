//! Proxies and bridges: messages from one socket to another, as a part of the loop.
//!
//! A [`Proxy`] does what zmq_proxy(3) and zmq_proxy_steerable(3) do with a thread: it
//! moves whole messages between a *frontend* and a *backend*, both ways where their types
//! allow. It is a field of the application's state, so any number of them share one
//! thread with everything else that is on the loop.
//!
//! ```
//! use pollux::proxy::Proxy;
//! use pollux::socket::{Socket, SocketType};
//! use pollux::{Flow, Reactor};
//!
//! struct App {
//!     proxy: Proxy<App>,
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let context = zmq::Context::new();
//! let clients = Socket::builder(SocketType::Router).bind("inproc://clients").build(&context)?;
//! let workers = Socket::builder(SocketType::Dealer).bind("inproc://workers").build(&context)?;
//! let mut app = App { proxy: Proxy::builder(clients, workers).build()? };
//!
//! let mut reactor = Reactor::new()?;
//! Proxy::attach(&mut reactor, &mut app, |app| &mut app.proxy)?;
//!
//! // A worker and a client, here on the same loop.
//! let worker = Socket::builder(SocketType::Rep).connect("inproc://workers").build(&context)?;
//! reactor.on_message(worker, |_, cx, request| {
//!     cx.own_socket()?.send(&request)?;
//!     Ok(Flow::Continue)
//! })?;
//! let client = Socket::builder(SocketType::Req).connect("inproc://clients").build(&context)?;
//! client.send("hello")?;
//! reactor.on_message(client, |_, _, reply| {
//!     assert_eq!(&reply[0], b"hello");
//!     Ok(Flow::Stop)
//! })?;
//! reactor.run(&mut app)?;
//! assert_eq!(app.proxy.stats().backend.messages_out, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Which sockets
//! Either may be the frontend; messages flow both ways unless the table says otherwise.
//!
//! | sockets | |
//! |---|---|
//! | ROUTER, DEALER | requests to workers, replies to their clients |
//! | XSUB, XPUB | publishers to subscribers; subscriptions flow back |
//! | PULL to PUSH, PULL to PUB, SUB to PUSH, SUB to PUB | one way |
//! | DEALER, DEALER; PAIR, PAIR; ROUTER, PAIR; DEALER, PAIR | messages as they are |
//! | STREAM, DEALER; STREAM, PAIR | plain tcp peers: a routing id and a piece of the stream; an empty piece when one connects, and to disconnect one |
//! | REP, REQ | one request at a time; one that is lost stops it: ROUTER and DEALER do not have that |
//! | ROUTER, ROUTER; STREAM, ROUTER; STREAM, STREAM | with a [hook](ProxyBuilder::hook) that puts the right routing id in front |
//!
//! The two may differ in transport (tcp, ipc, inproc) and in context: then it is a
//! *bridge*, and a [hook](ProxyBuilder::hook) may rewrite or drop what crosses it.
//!
//! # Back-pressure
//! A message that one side has no room for is held, whole, and the other side is not read
//! until it has been sent; so the senders notice at their high-water marks. The other
//! direction goes on. Nothing is dropped and nothing overtakes, and waiting costs
//! nothing. Some sockets are never full, because libzmq drops for them:
//!
//! | to | drops by itself, uncounted | instead |
//! |---|---|---|
//! | ROUTER | for a client that has gone or reads too slowly | [`mandatory`]: who has gone is counted ([`unreachable`](SideStats::unreachable)); for one too slow the others wait, or with [`WhenFull::Drop`] it is counted, too |
//! | PUB, XPUB | for a subscriber that reads too slowly | [`nodrop`]: all wait for it |
//! | STREAM | nothing: unreachable is counted, slow is waited for | [`WhenFull::Drop`] |
//!
//! [`mandatory`]: crate::socket::SocketBuilder::mandatory
//! [`nodrop`]: crate::socket::SocketBuilder::nodrop
//!
//! # Speed
//! Build the loop with `Wait::SpinFor` of some 5 microseconds. A proxy is quicker than most of
//! its peers: one that sleeps as soon as it has nothing to do can be woken for each single
//! message, which costs its senders a system call each. (zmq_proxy polls its sockets twice
//! before it sleeps, which takes as long.) For many proxies on one loop take
//! [`Backend::Epoll`](crate::reactor::Backend::Epoll), which asks only those that have something.
//!
//! # Control
//! [`pause`](Proxy::pause), [`resume`](Proxy::resume), [`terminate`](Proxy::terminate) and
//! [`stats`](Proxy::stats), or the words of libzmq over a [control
//! socket](ProxyBuilder::control), in one frame each: PAUSE, RESUME, TERMINATE, STATISTICS.
//! STATISTICS is answered (REP, PAIR) by [eight frames](ProxyStats::libzmq) of 8 bytes in the
//! byte order of the machine. The other commands are answered on REP only, which must:
//! by an empty message, as of libzmq 4.3.5. Anything else is counted, logged, and answered on REP by
//! a text; libzmq's own proxy ends its process there. Unlike there, commands
//! do not go to the capture socket.

mod attach;
mod builder;
mod control;
mod error;
mod pairs;
mod pump;
mod stats;

use std::fmt;
use std::io;
use std::time::Duration;

pub use builder::ProxyBuilder;
pub use error::ProxyError;
pub use stats::{ProxyStats, SideStats};

use crate::reactor::{Context, Flow, Registry, SocketKey, SourceId, TimerKey};
use crate::socket::{Frame, Socket};
use crate::time::Time;
use pump::Pump;

/// Messages of each direction in one turn.
const DEFAULT_BUDGET: u32 = 512;

const DEFAULT_FLUSH_TIME: Duration = Duration::from_secs(1);

/// How often a paused proxy, which waits for no message, looks whether its context has
/// ended.
const PAUSED_LOOK: Duration = Duration::from_millis(100);

type Hook<S> = Box<dyn FnMut(&mut S, Side, &mut Vec<Frame>) -> Verdict>;
type OnEnd<S> =
    Box<dyn FnOnce(&mut S, &mut Context<'_, S>, Result<(), ProxyError>) -> io::Result<Flow>>;

/// One of the two sides of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where the clients (publishers, producers) are, by custom.
    Frontend,
    /// Where the workers (subscribers, consumers) are.
    Backend,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Side {
        match self {
            Side::Frontend => Side::Backend,
            Side::Backend => Side::Frontend,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Frontend => "frontend",
            Side::Backend => "backend",
        })
    }
}

/// What a hook decides about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, as the hook has left it.
    Forward,
    /// It goes nowhere, and is counted.
    Drop,
}

/// What becomes of a message when a side has no room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It is held, and the other side is not read meanwhile.
    #[default]
    Wait,
    /// It is dropped and counted: for ROUTER with `mandatory`, where one slow client would
    /// hold up all others.
    Drop,
}

/// Where a proxy is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Not yet attached to a loop.
    New,
    /// Moves messages.
    Running,
    /// Receives and sends nothing, until it is resumed.
    Paused,
    /// Receives nothing more, and tries to send what it holds.
    Terminating,
    /// It has ended, and its sockets are closed.
    Ended,
}

/// A proxy on a reactor: a field of the application's state. See the [module](self).
pub struct Proxy<S> {
    place: Place,
    phase: Phase,
    /// `None` while it works, and once it has ended.
    pump: Option<Box<Pump<S>>>,
    on_end: Option<OnEnd<S>>,
    /// As of the last batch.
    stats: ProxyStats,
    flush_time: Duration,
    /// When what is still held is given up, once it is to terminate.
    flush_until: Time,
}

/// Where the sockets are.
#[derive(Debug)]
enum Place {
    Outside(Box<Sockets>),
    Loop(Ports),
    Nowhere,
}

#[derive(Debug)]
struct Sockets {
    frontend: Socket,
    backend: Socket,
    capture: Option<Socket>,
    control: Option<Socket>,
}

/// What a proxy has on the loop.
#[derive(Clone, Copy, Debug)]
struct Ports {
    frontend: SocketKey,
    backend: SocketKey,
    capture: Option<SocketKey>,
    control: Option<SocketKey>,
    timer: TimerKey,
    /// What the timer is set to.
    armed: Time,
    /// Told when one of the sockets goes.
    watch: SourceId,
    /// What frontend and backend are waited for.
    interests: [Option<crate::socket::Interest>; 2],
}

impl Ports {
    fn of(&self, side: Side) -> SocketKey {
        match side {
            Side::Frontend => self.frontend,
            Side::Backend => self.backend,
        }
    }
}

impl<S> Proxy<S> {
    /// A proxy between these two sockets, to be given options.
    pub fn builder(frontend: Socket, backend: Socket) -> ProxyBuilder<S> {
        ProxyBuilder::new(frontend, backend)
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What it has done so far. (In a hook: before the batch that is under way.)
    pub fn stats(&self) -> ProxyStats {
        self.stats
    }

    /// The key of a side's socket, to bind or connect it to more, say; `None` unless the
    /// proxy is on a loop.
    pub fn socket_key(&self, side: Side) -> Option<SocketKey> {
        match &self.place {
            Place::Loop(ports) => Some(ports.of(side)),
            _ => None,
        }
    }

    /// Moves nothing more until it is resumed: what comes stays in the sockets, and at
    /// the high-water marks the senders notice. Without effect unless it is running.
    pub fn pause(&mut self, registry: &mut Registry<S>) {
        if self.phase == Phase::Running {
            self.phase = Phase::Paused;
            self.settle(registry);
        }
    }

    /// Goes on after [`pause`](Proxy::pause). Without effect unless it is paused.
    pub fn resume(&mut self, registry: &mut Registry<S>) {
        if self.phase == Phase::Paused {
            self.phase = Phase::Running;
            self.settle(registry);
        }
    }

    /// Ends it: nothing more is received, a message that is held is tried for the
    /// [flush time](ProxyBuilder::flush_time), then the sockets are closed (what they
    /// have accepted goes out within their linger times; what they had received and
    /// the proxy had not read is lost with them, as always) and
    /// [`on_end`](ProxyBuilder::on_end) is called from the loop. If nothing is held that
    /// is in the next turn. Without effect unless it is running or paused.
    pub fn terminate(&mut self, registry: &mut Registry<S>) {
        if matches!(self.phase, Phase::Running | Phase::Paused) {
            self.phase = Phase::Terminating;
            self.flush_until = registry.now() + self.flush_time;
            self.settle(registry);
        }
    }

    /// Has the loop wait for what there is to wait for now.
    fn settle(&mut self, registry: &mut Registry<S>) {
        // While the pump works, there is no way to call this: a hook has no registry.
        let (Place::Loop(ports), Some(pump)) = (&mut self.place, &self.pump) else { return };
        self.stats = pump.stats;
        let (reading, moving) = (self.phase == Phase::Running, self.phase != Phase::Paused);
        for side in [Side::Frontend, Side::Backend] {
            let interest = if moving { pump.interest(side, reading) } else { None };
            if interest != ports.interests[side as usize] {
                ports.interests[side as usize] = interest;
                // If it has gone, the watch will tell.
                let _ = registry.set_interest(ports.of(side), interest);
            }
        }
        let next = match self.phase {
            Phase::Paused => registry.now() + PAUSED_LOOK,
            Phase::Terminating if pump.is_empty() => registry.now(),
            Phase::Terminating => pump.next_retry().min(self.flush_until),
            _ => pump.next_retry(),
        };
        if next != ports.armed && registry.rearm(ports.timer, next).is_ok() {
            ports.armed = next;
        }
    }
}

impl<S> fmt::Debug for Proxy<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("place", &self.place)
            .field("phase", &self.phase)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
