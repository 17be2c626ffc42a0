//! ZeroMQ sockets in the loop: registering, reaching and removing them.

use std::cell::Cell;
use std::io;

use mio::Interest;

use super::context::{Context, Flow, Ready};
use super::key::{Key, Rejected, SocketKey, StaleKey};
use super::registry::Registry;
use super::slots::SlotKey;
use super::sources::no_slots;
use super::stats::SourceStats;
use crate::message::Message;
use crate::socket::{self, AnyContext, Sent, Socket};

/// Returns whether to go on; if not, what the application's handler returned is
/// in `Registry::returned`. (That result itself would be passed through memory and
/// taken apart for each message, which is a twentieth of its cost.)
pub(super) type MessageHandler<S> =
    Box<dyn FnMut(&mut S, &mut Context<'_, S>, Message<'_>) -> bool + 'static>;
pub(super) type ReadyHandler<S> =
    Box<dyn FnMut(&mut S, &mut Context<'_, S>, Ready) -> io::Result<Flow> + 'static>;

pub(super) struct SocketSlot<S> {
    pub(super) socket: Socket,
    /// What it is waited for.
    pub(super) interest: Option<Interest>,
    /// Messages are to be received for `on_message`: it has that handler, and the
    /// interest.
    pub(super) receiving: bool,
    /// Gets its messages; `None` while it runs, or if there is none.
    pub(super) on_message: Option<MessageHandler<S>>,
    /// Told that it is ready for what `on_message` does not do; `None` while it
    /// runs, or if there is none.
    pub(super) on_ready: Option<ReadyHandler<S>>,
    pub(super) role: Role,
    /// It is in the queue of what to serve.
    pub(super) queued: bool,
    /// Its `on_ready` handler has seen it empty and done nothing with it since.
    pub(super) drained: bool,
    /// A handler has had its hands on it since it was last seen empty, so that the
    /// edge of `ZMQ_FD` may be lost.
    pub(super) touched: Cell<bool>,
    /// A handler has had it in this turn, perhaps to send.
    handed_out: Cell<bool>,
    /// What it had sent when that was last counted.
    sent: Sent,
    /// The socket's own timeout (`ZMQ_RCVTIMEO`), if the loop has set it.
    receive_timeout: Option<ReceiveTimeout>,
    pub(super) budget: u32,
    pub(super) stats: SourceStats,
}

/// In milliseconds, -1 for none.
#[derive(Clone, Copy, Debug)]
struct ReceiveTimeout {
    now_ms: i32,
    before_ms: i32,
}

/// What handlers a socket has, whether or not they run just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) messages: bool,
    pub(super) readiness: bool,
}

impl<S> SocketSlot<S> {
    /// Sets the socket's receive timeout, until the socket is given back.
    pub(super) fn set_receive_timeout(&mut self, timeout_ms: i32) -> zmq::Result<()> {
        if self.receive_timeout.is_some_and(|timeout| timeout.now_ms == timeout_ms) {
            return Ok(());
        }
        let socket = self.socket.as_zmq();
        let before_ms = match self.receive_timeout {
            Some(timeout) => timeout.before_ms,
            None => socket.get_rcvtimeo()?,
        };
        socket.set_rcvtimeo(timeout_ms)?;
        self.receive_timeout = Some(ReceiveTimeout { now_ms: timeout_ms, before_ms });
        Ok(())
    }

    /// Whether a handler is to be called for what may come.
    pub(super) fn is_waited_for(&self) -> bool {
        self.receiving || (self.role.readiness && self.interest.is_some())
    }

    /// What it has sent since that was last counted.
    pub(super) fn uncounted(&self) -> Sent {
        self.socket.sent() - self.sent
    }

    /// What of `ready` the `on_ready` handler waits for, if there is one.
    pub(super) fn wanted(&self, ready: socket::Events) -> Option<Ready> {
        let interest = self.interest.filter(|_| self.role.readiness)?;
        let readable = ready.readable && interest.is_readable() && !self.role.messages;
        let writable = ready.writable && interest.is_writable();
        (readable || writable).then(|| Ready { readable, writable, ..Ready::default() })
    }
}

/// ZeroMQ sockets.
impl<S> Registry<S> {
    /// Registers a socket whose messages the reactor receives: `handler` gets each
    /// whole message, borrowed until it returns.
    ///
    /// The socket's receive timeout (`ZMQ_RCVTIMEO`) is the reactor's while it has the
    /// socket: it concerns blocking calls only, which have no place in a loop.
    ///
    /// Messages of one socket come in order. After [`budget`](super::Builder::budget)
    /// messages the other sources have their turn. To answer on the same socket, take
    /// it by [`own_socket`](Context::own_socket).
    ///
    /// If the socket's context is terminated, the [error hook](Registry::on_error) gets
    /// the error (`ETERM`), and the socket is removed and so closed, which is what
    /// the termination waits for.
    ///
    /// # Errors
    /// What epoll_ctl(2) says (no memory, `fs.epoll.max_user_watches` reached); the socket
    /// is given back.
    pub fn on_message(
        &mut self,
        socket: Socket,
        mut handler: impl FnMut(&mut S, &mut Context<'_, S>, Message<'_>) -> io::Result<Flow> + 'static,
    ) -> Result<SocketKey, Rejected<Socket>> {
        let handler: MessageHandler<S> =
            Box::new(move |state, cx, message| match handler(state, cx, message) {
                Ok(Flow::Continue) => true,
                result => {
                    cx.registry.returned = result;
                    false
                }
            });
        self.insert_socket(socket, Some(Interest::READABLE), Some(handler), None)
    }

    /// Registers a socket whose handler does its own receiving and sending, through
    /// [`own_socket`](Context::own_socket).
    ///
    /// This is level-triggered: the handler is called, once a turn, as long as the
    /// socket is ready for what it is waited for. Wait for writability only after a
    /// send said `WouldBlock`: otherwise a socket is writable nearly always.
    ///
    /// # Errors
    /// As for [`on_message`](Registry::on_message).
    pub fn on_ready(
        &mut self,
        socket: Socket,
        interest: impl Into<Option<Interest>>,
        handler: impl FnMut(&mut S, &mut Context<'_, S>, Ready) -> io::Result<Flow> + 'static,
    ) -> Result<SocketKey, Rejected<Socket>> {
        self.insert_socket(socket, interest.into(), None, Some(Box::new(handler)))
    }

    /// Lets a socket live in the loop without a handler, so that handlers can send
    /// through its key. Such a socket does not keep [`run`](super::Reactor::run)
    /// going. It is closed when its context is terminated, as all others are; while the loop
    /// blocks in receiving from the only socket that it waits for, and that one is of another
    /// context, not before something comes.
    ///
    /// # Errors
    /// As for [`on_message`](Registry::on_message).
    pub fn add_socket(&mut self, socket: Socket) -> Result<SocketKey, Rejected<Socket>> {
        self.insert_socket(socket, None, None, None)
    }

    /// Makes a PAIR pipe over inproc, registers one end as by
    /// [`on_message`](Registry::on_message), and returns the other, to be moved to a
    /// thread that speaks ZeroMQ. ([`channel`](Registry::channel) is cheaper where Rust
    /// values are sent.)
    ///
    /// # Errors
    /// Those of [`pair`](socket::pair), and of registering.
    pub fn add_pipe(
        &mut self,
        context: &impl AnyContext,
        handler: impl FnMut(&mut S, &mut Context<'_, S>, Message<'_>) -> io::Result<Flow> + 'static,
    ) -> io::Result<(SocketKey, Socket)> {
        let (ours, theirs) = socket::pair(context)?;
        let key = self.on_message(ours, handler)?;
        Ok((key, theirs))
    }

    fn insert_socket(
        &mut self,
        socket: Socket,
        interest: Option<Interest>,
        on_message: Option<MessageHandler<S>>,
        on_ready: Option<ReadyHandler<S>>,
    ) -> Result<SocketKey, Rejected<Socket>> {
        let Some(key) = self.sockets.next_key() else {
            return Err(Rejected { source: socket, error: no_slots() });
        };
        let role = Role { messages: on_message.is_some(), readiness: on_ready.is_some() };
        if let Err(error) = self.poller.add_socket(key, &socket) {
            return Err(Rejected { source: socket, error });
        }
        let slot = SocketSlot {
            sent: socket.sent(),
            socket,
            interest: None,
            receiving: false,
            on_message,
            on_ready,
            role,
            queued: false,
            drained: false,
            touched: Cell::new(false),
            handed_out: Cell::new(false),
            receive_timeout: None,
            budget: self.settings.budget.get(),
            stats: SourceStats::default(),
        };
        match self.sockets.insert(slot) {
            Ok(inserted) => debug_assert_eq!(inserted, key),
            Err(_) => unreachable!("there was a free slot"),
        }
        self.change_interest(key, interest);
        Ok(SocketKey(key))
    }

    /// Has `handler` called, level-triggered, while the socket is writable and
    /// [waited for](Registry::set_interest) to be: the way to go on after a send that
    /// said `WouldBlock`. [`Flow::Remove`] from it removes the whole socket; to stop
    /// waiting, set the interest back. A former such handler is replaced.
    ///
    /// # Errors
    /// `NotFound` ([`StaleKey`]) if the socket was removed, `InvalidInput` if it was
    /// registered by [`on_ready`](Registry::on_ready), whose handler is told already; what
    /// epoll_ctl(2) says.
    pub fn on_writable(
        &mut self,
        key: SocketKey,
        handler: impl FnMut(&mut S, &mut Context<'_, S>, Ready) -> io::Result<Flow> + 'static,
    ) -> io::Result<()> {
        let slot = self.sockets.get_mut(key.0).ok_or(StaleKey(key.into()))?;
        if slot.role.readiness && !slot.role.messages {
            let problem = "the socket has an on_ready handler, which is told of writability";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        slot.role.readiness = true;
        slot.on_ready = Some(Box::new(handler));
        Ok(())
    }

    /// What a socket is waited for from now on; `None` pauses it: its messages stay
    /// where they are, and at the high-water marks the senders notice. Takes effect
    /// at once, also on the socket whose handler is running.
    ///
    /// # Errors
    /// `NotFound` ([`StaleKey`]) if the socket was removed; `InvalidInput` if it has no
    /// handler for that interest.
    pub fn set_interest(
        &mut self,
        key: SocketKey,
        interest: impl Into<Option<Interest>>,
    ) -> io::Result<()> {
        let interest = interest.into();
        let role = self.sockets.get(key.0).ok_or(StaleKey(key.into()))?.role;
        let readable = interest.is_some_and(Interest::is_readable);
        let writable = interest.is_some_and(Interest::is_writable);
        if (readable && !role.messages && !role.readiness) || (writable && !role.readiness) {
            let problem =
                "the socket has no handler for that: see on_message, on_ready, on_writable";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        self.change_interest(key.0, interest);
        Ok(())
    }

    fn change_interest(&mut self, key: SlotKey, interest: Option<Interest>) {
        let Some(slot) = self.sockets.get_mut(key) else { return };
        let before = std::mem::replace(&mut slot.interest, interest);
        slot.receiving = slot.role.messages && interest.is_some_and(Interest::is_readable);
        self.waited_for += usize::from(interest.is_some());
        self.waited_for -= usize::from(before.is_some());
        if interest.is_some() {
            // What it is ready for already may have had its edge before.
            self.queue_socket(key);
        }
    }

    /// How many messages this socket may have in one turn, instead of the reactor's
    /// [`budget`](super::Builder::budget); at least 1.
    ///
    /// # Errors
    /// [`StaleKey`] if the socket was removed.
    pub fn set_budget(&mut self, key: SocketKey, budget: u32) -> Result<(), StaleKey> {
        self.sockets.get_mut(key.0).ok_or(StaleKey(key.into()))?.budget = budget.max(1);
        Ok(())
    }

    /// The socket, to send, to subscribe, to bind. Several can be had at once.
    ///
    /// Whatever a handler does with it, no message is missed for that: the loop
    /// asks the socket again before it sleeps.
    ///
    /// # Errors
    /// [`StaleKey`] if it was removed.
    #[inline]
    pub fn socket(&self, key: SocketKey) -> Result<&Socket, StaleKey> {
        match self.sockets.get(key.0) {
            Some(slot) => {
                self.touch(key.0, slot);
                Ok(&slot.socket)
            }
            None => Err(StaleKey(Key::Socket(key))),
        }
    }

    /// Notes that a socket may send, and that the edge of its descriptor may be lost.
    #[inline]
    fn touch(&self, key: SlotKey, slot: &SocketSlot<S>) {
        if !slot.handed_out.replace(true) {
            let mut handed_out = self.handed_out.take();
            handed_out.push(key);
            self.handed_out.set(handed_out);
        }
        if slot.interest.is_some() && self.poller.is_edge_triggered() && !slot.touched.replace(true)
        {
            let mut touched = self.touched.take();
            touched.push(key);
            self.touched.set(touched);
        }
    }

    /// Counts what was sent since the last turn.
    pub(super) fn count_sent(&mut self) {
        if self.handed_out.get_mut().is_empty() {
            return;
        }
        let mut handed_out = self.handed_out.take();
        for key in handed_out.drain(..) {
            let Some(slot) = self.sockets.get_mut(key) else { continue };
            slot.handed_out.set(false);
            let sent = slot.uncounted();
            slot.sent = slot.socket.sent();
            slot.stats.add_sent(sent);
            self.stats.add_sent(sent);
        }
        self.handed_out.set(handed_out);
    }

    /// For a handler of `on_ready` that has received until there was nothing more, as the
    /// last thing it has done with the socket: it need not be asked once more whether it
    /// is still readable.
    pub(crate) fn seen_empty(&mut self, key: SocketKey) {
        if let Some(slot) = self.sockets.get_mut(key.0) {
            slot.drained = true;
        }
    }

    /// Removes a socket and gives it back, with whatever it has not delivered yet.
    ///
    /// # Errors
    /// [`StaleKey`] if it was removed before.
    pub fn remove(&mut self, key: SocketKey) -> Result<Socket, StaleKey> {
        let slot = self.sockets.remove(key.0).ok_or(StaleKey(key.into()))?;
        self.waited_for -= usize::from(slot.interest.is_some());
        self.stats.add_sent(slot.uncounted());
        if let Err(error) = self.poller.remove_socket(&slot.socket) {
            log::warn!("the descriptor of {key:?} was not registered any more: {error}");
        }
        if let Some(timeout) = slot.receive_timeout {
            // It fails if the context has ended, and is of no use then.
            let _ = slot.socket.as_zmq().set_rcvtimeo(timeout.before_ms);
        }
        Ok(slot.socket)
    }
}

impl<S> Context<'_, S> {
    /// The socket whose handler this is.
    ///
    /// # Errors
    /// [`StaleKey`] if the handler has removed it, or is not that of a socket.
    #[inline]
    pub fn own_socket(&self) -> Result<&Socket, StaleKey> {
        match self.key {
            Key::Socket(key) => self.registry.socket(key),
            key => Err(StaleKey(key)),
        }
    }
}
