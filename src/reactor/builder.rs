//! [`Builder`]: a reactor's settings.

use std::io;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::time::Duration;

use super::Reactor;

/// What the loop asks for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Backend {
    /// zmq_poll(3) over the ZeroMQ sockets and, as one item more, the descriptor of
    /// mio's epoll, which carries everything else. It costs about a quarter of a
    /// microsecond per socket and poll.
    #[default]
    ZmqPoll,
    /// epoll over the sockets' own descriptors (`ZMQ_FD`), by mio: about a tenth of
    /// a microsecond a poll, however many sockets there are. A reactor with this
    /// backend has a [descriptor](Reactor::poll_fd) that another loop can wait for.
    Epoll,
}

/// How the loop waits when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Wait {
    /// Blocks in the operating system. A thread that sleeps takes 25 to 30
    /// microseconds to wake.
    #[default]
    Block,
    /// Never blocks but asks again and again, the socket that had the last message
    /// without pause and all others every 5 microseconds (without pause, too, if that
    /// message was not received by the loop, but by an `on_ready` handler): the lowest
    /// latency, for a whole core.
    /// Only where libzmq's I/O thread has a core of its own, too: with fewer cores
    /// than busy threads it makes everything slower.
    Spin,
    /// Asks again and again for this long, then blocks. After four times in a row without
    /// success it does so before one sleep in eight only, until that finds something: where
    /// events are rarer, or come from a thread on the same core, it would but delay them.
    SpinFor(Duration),
}

/// Settings of a [`Reactor`], made by [`Reactor::builder`].
///
/// ```
/// use std::time::Duration;
/// use pollux::reactor::{Backend, Reactor, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let reactor: Reactor<()> = Reactor::builder()
///     .backend(Backend::Epoll)
///     .wait(Wait::SpinFor(Duration::from_micros(50)))
///     .budget(128)
///     .build()?;
/// # Ok(())
/// # }
/// ```
pub struct Builder<S> {
    pub(super) settings: Settings,
    state: PhantomData<fn(&mut S)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) backend: Backend,
    pub(super) wait: Wait,
    pub(super) budget: NonZeroU32,
    pub(super) idle_poll_interval: Option<Duration>,
}

impl Settings {
    pub(super) fn idle_poll_interval(&self) -> Duration {
        self.idle_poll_interval.unwrap_or(match self.backend {
            Backend::ZmqPoll => Duration::from_micros(100),
            Backend::Epoll => Duration::from_micros(10),
        })
    }
}

impl<S> Builder<S> {
    pub(super) const fn new() -> Builder<S> {
        let settings = Settings {
            backend: Backend::ZmqPoll,
            wait: Wait::Block,
            budget: NonZeroU32::new(64).expect("64 is not zero"),
            idle_poll_interval: None,
        };
        Builder { settings, state: PhantomData }
    }

    /// What to ask for events; [`Backend::ZmqPoll`] unless set.
    pub fn backend(mut self, backend: Backend) -> Builder<S> {
        self.settings.backend = backend;
        self
    }

    /// How to wait; [`Wait::Block`] unless set.
    pub fn wait(mut self, wait: Wait) -> Builder<S> {
        self.settings.wait = wait;
        self
    }

    /// How many messages (values of a channel) one source may have in one turn
    /// before the others have theirs; 64 unless set, at least 1. A multipart message
    /// counts once and is never split.
    pub fn budget(mut self, budget: u32) -> Builder<S> {
        self.settings.budget = NonZeroU32::new(budget).unwrap_or(NonZeroU32::MIN);
        self
    }

    /// How long the sources without work may go unnoticed while others have some;
    /// unless set, 100 microseconds with [`Backend::ZmqPoll`] and 10 with
    /// [`Backend::Epoll`], according to what a look costs. It holds between turns:
    /// handlers that take longer delay everything. Zero: look every turn.
    pub fn idle_poll_interval(mut self, interval: Duration) -> Builder<S> {
        self.settings.idle_poll_interval = Some(interval);
        self
    }

    /// Makes the reactor.
    ///
    /// # Errors
    /// If the process has no file descriptors left: it needs two, on Linux three.
    pub fn build(self) -> io::Result<Reactor<S>> {
        Reactor::with(self.settings)
    }
}

impl<S> std::fmt::Debug for Builder<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(f)
    }
}
