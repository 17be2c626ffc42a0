//! [`ProxyBuilder`]: a proxy with its options.

use std::fmt;
use std::io;
use std::time::Duration;

use super::pump::Pump;
use super::{Hook, pairs};
use super::{OnEnd, Phase, Place, Proxy, ProxyError, ProxyStats, Side, Sockets, Verdict, WhenFull};
use crate::reactor::{Context, Flow};
use crate::socket::{Frame, Socket};
use crate::time::Time;

/// The sockets and options of a [`Proxy`] to be made.
///
/// Sockets come bound or connected, with the high-water marks, limits and linger times
/// that the application gave them: the proxy changes none of that.
#[must_use = "a builder does nothing until `build` is called"]
pub struct ProxyBuilder<S> {
    sockets: Sockets,
    hook: Option<Hook<S>>,
    on_end: Option<OnEnd<S>>,
    budget: u32,
    max_message_bytes: usize,
    when_full: [WhenFull; 2],
    flush_time: Duration,
}

impl<S> ProxyBuilder<S> {
    pub(super) fn new(frontend: Socket, backend: Socket) -> ProxyBuilder<S> {
        ProxyBuilder {
            sockets: Sockets { frontend, backend, capture: None, control: None },
            hook: None,
            on_end: None,
            budget: super::DEFAULT_BUDGET,
            max_message_bytes: usize::MAX,
            when_full: [WhenFull::Wait; 2],
            flush_time: super::DEFAULT_FLUSH_TIME,
        }
    }

    /// Has a second handle on every message, of both directions, sent to this socket
    /// just before the message itself is (PUB, PUSH, DEALER, PAIR). A large frame is
    /// counted, not copied.
    ///
    /// A capture socket without room holds nothing up: the copy is dropped and counted
    /// ([`capture_drops`](ProxyStats::capture_drops); what PUB drops for a slow
    /// subscriber, libzmq tells nobody). What its peers send is not read.
    pub fn capture(mut self, capture: Socket) -> ProxyBuilder<S> {
        self.sockets.capture = Some(capture);
        self
    }

    /// Obeys the commands of zmq_proxy_steerable(3) that come from this socket: PAUSE,
    /// RESUME, TERMINATE, STATISTICS (REP, PAIR, PULL, SUB; a SUB must have subscribed).
    /// The [module](super) says what is answered.
    pub fn control(mut self, control: Socket) -> ProxyBuilder<S> {
        self.sockets.control = Some(control);
        self
    }

    /// Shows every message to `hook`, which may change its frames, add some, take some
    /// away, or have it dropped. It gets the application's state, the side from which
    /// the message came, and its frames; what it leaves there is sent, if it returns
    /// [`Verdict::Forward`]. (A message without frames cannot be sent: it counts as
    /// [`refused`](super::SideStats::refused).)
    pub fn hook(
        mut self,
        hook: impl FnMut(&mut S, Side, &mut Vec<Frame>) -> Verdict + 'static,
    ) -> ProxyBuilder<S> {
        self.hook = Some(Box::new(hook));
        self
    }

    /// Is called once, when the proxy has ended: in order ([`Proxy::terminate`] or the
    /// command TERMINATE), or with the error that ended it. Its sockets are closed then.
    /// If it returns [`Flow::Stop`], the loop stops. Unless set, errors are logged.
    pub fn on_end(
        mut self,
        on_end: impl FnOnce(&mut S, &mut Context<'_, S>, Result<(), ProxyError>) -> io::Result<Flow>
        + 'static,
    ) -> ProxyBuilder<S> {
        self.on_end = Some(Box::new(on_end));
        self
    }

    /// How many messages each direction may move in one turn of the loop before other
    /// sources have theirs; 512 unless set, at least 1.
    pub fn budget(mut self, messages: u32) -> ProxyBuilder<S> {
        self.budget = messages.max(1);
        self
    }

    /// Drops, and [counts](super::SideStats::oversized), messages whose frames are
    /// together longer than this; no limit unless set.
    ///
    /// They have been received then. To have a peer disconnected before that, limit
    /// the size of its frames
    /// ([`max_message_size`](crate::socket::SocketBuilder::max_message_size)).
    pub fn max_message_bytes(mut self, bytes: usize) -> ProxyBuilder<S> {
        self.max_message_bytes = bytes;
        self
    }

    /// What becomes of a message to this side when it has no room;
    /// [`WhenFull::Wait`] unless set.
    pub fn when_full(mut self, side: Side, when_full: WhenFull) -> ProxyBuilder<S> {
        self.when_full[side as usize] = when_full;
        self
    }

    /// How long a proxy that is to terminate tries to send what it holds; one second
    /// unless set.
    pub fn flush_time(mut self, time: Duration) -> ProxyBuilder<S> {
        self.flush_time = time;
        self
    }

    /// Makes the proxy; [`Proxy::attach`] starts it.
    ///
    /// # Errors
    /// If the types of the sockets do not go together. The sockets are closed then.
    pub fn build(self) -> Result<Proxy<S>, ProxyError> {
        let Sockets { frontend, backend, capture, control } = &self.sockets;
        let (frontend, backend) = (frontend.socket_type(), backend.socket_type());
        let sources = pairs::sources(frontend, backend, self.hook.is_some())?;
        let type_of = |socket: &Option<Socket>| socket.as_ref().map(Socket::socket_type);
        if let Some(other) = type_of(capture).filter(|found| !pairs::CAPTURE.contains(found)) {
            return Err(ProxyError::Capture(other));
        }
        if let Some(other) = type_of(control).filter(|found| !pairs::CONTROL.contains(found)) {
            return Err(ProxyError::Control(other));
        }
        let mut pump = Pump::new(sources);
        pump.hook = self.hook;
        pump.budget = self.budget;
        pump.max_message_bytes = self.max_message_bytes;
        pump.when_full = self.when_full;
        Ok(Proxy {
            place: Place::Outside(Box::new(self.sockets)),
            phase: Phase::New,
            pump: Some(Box::new(pump)),
            on_end: self.on_end,
            stats: ProxyStats::default(),
            flush_time: self.flush_time,
            flush_until: Time::NEVER,
        })
    }
}

impl<S> fmt::Debug for ProxyBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyBuilder").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}
