//! What the loop asks for events: [`mio`](self::mio) alone, or
//! [`zmq_poll`](self::zmq) with mio's epoll as one item of it.

mod fine_timer;
mod mio;
mod zmq;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use ::mio::unix::SourceFd;
use ::mio::{Events, Interest, Poll, Token};

use super::builder::Backend;
use super::context::Ready;
use super::slots::{SlotKey, Slots};
use super::sockets::SocketSlot;
use crate::socket::Socket;

use self::fine_timer::FineTimer;
pub(super) use self::zmq::ZmqPoll;

/// How many events mio takes over at once; more wait for the next poll.
const EVENTS: usize = 512;

/// The token of the reactor's own waker.
const WAKER: Token = Token(usize::MAX);

/// The token of what ends waits that are no whole number of milliseconds.
const FINE_TIMER: Token = Token(usize::MAX - 1);

/// A source's token: its slot, and a bit for what kind it is. There is no
/// generation in it: a source is deregistered before its slot is free, and what
/// a poll has found is looked up before any handler runs.
pub(super) const fn source_token(key: SlotKey) -> Token {
    Token((key.index as usize) << 1)
}

const fn socket_token(key: SlotKey) -> Token {
    Token((key.index as usize) << 1 | 1)
}

/// Something that was found ready, by its slot.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// A socket that may have something.
    Socket(u32),
    Source(u32, Ready),
}

#[derive(Debug)]
pub(super) struct Poller {
    poll: Poll,
    events: Events,
    fine_timer: FineTimer,
    /// With the other backend, the ZeroMQ sockets are registered with mio.
    zmq: Option<ZmqPoll>,
}

impl Poller {
    pub(super) fn new(backend: Backend) -> io::Result<Poller> {
        let zmq = match backend {
            Backend::ZmqPoll => Some(ZmqPoll::default()),
            Backend::Epoll => None,
        };
        let poll = Poll::new()?;
        let fine_timer = FineTimer::new(poll.registry())?;
        Ok(Poller { poll, events: Events::with_capacity(EVENTS), fine_timer, zmq })
    }

    /// Whether a wait of this length ends in time only if it is made by
    /// [`poll`](Poller::poll).
    pub(super) fn is_fine(timeout: Duration) -> bool {
        FineTimer::is_worth(timeout)
    }

    pub(super) fn registry(&self) -> &::mio::Registry {
        self.poll.registry()
    }

    pub(super) fn waker(&self) -> io::Result<::mio::Waker> {
        ::mio::Waker::new(self.registry(), WAKER)
    }

    pub(super) fn backend(&self) -> Backend {
        if self.zmq.is_some() { Backend::ZmqPoll } else { Backend::Epoll }
    }

    /// Whether a socket must be seen empty before a poll tells of news.
    #[inline]
    pub(super) fn is_edge_triggered(&self) -> bool {
        self.zmq.is_none()
    }

    /// The descriptor that is readable when a poll would find something; not with
    /// zmq_poll, which asks the sockets themselves.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.zmq.is_none().then(|| self.registry().as_fd())
    }

    /// Has `socket` watched, if it takes that.
    pub(super) fn add_socket(&self, key: SlotKey, socket: &Socket) -> io::Result<()> {
        match self.zmq {
            Some(_) => Ok(()),
            // Readable means: look. Also for write interest (zmq_getsockopt(3)).
            None => self.registry().register(
                &mut SourceFd(&socket.fd()),
                socket_token(key),
                Interest::READABLE,
            ),
        }
    }

    pub(super) fn remove_socket(&self, socket: &Socket) -> io::Result<()> {
        match self.zmq {
            Some(_) => Ok(()),
            None => self.registry().deregister(&mut SourceFd(&socket.fd())),
        }
    }

    /// Asks once what is ready, waiting up to `timeout` (`None`: for ever), and tells
    /// `found`. On Linux a wait of less than 10 ms is as long as it says, others are
    /// rounded up to milliseconds.
    ///
    /// # Errors
    /// `Interrupted` if a signal arrived.
    pub(super) fn poll<S>(
        &mut self,
        sockets: &Slots<SocketSlot<S>>,
        timeout: Option<Duration>,
        found: impl FnMut(Found),
    ) -> io::Result<()> {
        if let Some(timeout) = timeout {
            self.fine_timer.arm(timeout)?;
        }
        match &mut self.zmq {
            None => mio::poll(&mut self.poll, &mut self.events, timeout, found),
            Some(zmq) => zmq.poll(&mut self.poll, &mut self.events, sockets, timeout, found),
        }
    }
}
