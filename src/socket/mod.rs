//! ZeroMQ sockets that lose no message and panic at no error.
//!
//! [`Socket`] sends and receives whole messages and never blocks: what would block
//! is given back. It calls libzmq directly, because the `zmq` crate consumes a
//! message that would block, panics at error numbers it does not know, and cannot
//! keep poll items of sockets that it does not own. A [`zmq::Socket`] comes in by
//! [`Socket::from_zmq`] and goes out by [`Socket::into_zmq`]; contexts are those of
//! the `zmq` crate, or [`ZmqContext`] with the options that it lacks.
//!
//! | to do | there is |
//! |---|---|
//! | make a socket with options | [`Socket::builder`] |
//! | set up a context, and end it | [`ZmqContext`] |
//! | talk with a thread | [`pair`] |
//! | end, and know that nothing was lost | [`Socket::close`] |
//! | send, copying | [`Socket::send`] |
//! | send and receive without copying | [`Socket::send_frames`], [`Socket::receive_frames`] |
//! | receive as fast as libzmq does | [`Socket::receive`], a [`Frame`] at a time |
//! | wait for one, for many | [`Socket::wait`], [`PollSet`] |
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use pollux::socket::{Interest, SendError, Socket, SocketType};
//!
//! let context = zmq::Context::new();
//! let pull = Socket::builder(SocketType::Pull).bind("tcp://127.0.0.1:*").build(&context)?;
//! let push = Socket::new(&context, SocketType::Push)?;
//!
//! // Nobody there yet: the message is still ours.
//! assert_eq!(push.send(&["topic", "body"]), Err(SendError::WouldBlock));
//!
//! push.connect(&pull.last_endpoint()?)?;
//! push.send(&["topic", "body"])?;
//! pull.wait(Interest::READABLE, None)?;
//! let message = pull.receive_message()?.expect("readable");
//! assert_eq!(message.get(1).map(|frame| &frame[..]), Some(&b"body"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! # High-water marks
//! A socket keeps for each peer a queue of messages to be sent and one of messages received. Their
//! lengths are the marks: [`send_hwm`](SocketBuilder::send_hwm) here and
//! [`receive_hwm`](SocketBuilder::receive_hwm) there, 1,000 messages each unless set, 0 for no
//! limit. Messages are counted, not bytes. What a socket does when the mark of a peer is reached
//! depends on its type, and nothing but the peer's reading makes room again.
//!
//! | type | at the mark of one peer | at the marks of all, or without a peer |
//! |---|---|---|
//! | PUSH, DEALER, PAIR | goes to the others | would block: [`SendError::WouldBlock`], the message stays yours |
//! | REQ | has one request under way, so never | would block |
//! | REP | drops the reply | drops the reply |
//! | ROUTER | drops | drops; with `mandatory`, would block (at the mark) or is [`SendError::Unreachable`] (no peer) |
//! | PUB, XPUB | drops for this peer, others get it | drops; with `nodrop`, would block as soon as one is at its mark |
//! | XSUB | drops what goes upstream | drops |
//! | STREAM | would block, but claims to be writable: try again later | is `Unreachable` |
//! | PULL, SUB | receive only: what is beyond their mark stays with the sender, which is then at its own | |
//!
//! Over inproc there is one queue, as long as both marks together. Over tcp and ipc the buffers of
//! the system and up to 8 KiB on their way come on top of both: a mark bounds memory, it does not
//! count what is under way. It is checked for whole messages; room comes back in portions, when
//! half of the receiver's mark has been read.
//!
//! # Ending
//! Sockets and contexts may go in any order; a context ends with the last of its sockets and handles.
//! What a dropped socket had accepted goes on being sent for its
//! [linger time](Socket::DEFAULT_LINGER), for which the end of the context waits.
//! [`Socket::close`] waits itself, and says if something was lost. [`ZmqContext::shutdown`], from any
//! thread, makes every wait on the context's sockets end with `ETERM`.
//!
//! This is the only module of the library with `unsafe`: thin, checked calls into
//! `zmq-sys`.

mod builder;
mod close;
mod context;
mod errno;
mod error;
mod frame;
mod frame_list;
mod options;
mod pair;
mod parts;
mod peer_names;
mod poll_set;
mod receive;
mod runtime_options;
mod send;
mod sent;
mod socket_type;
mod transit;

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

pub use builder::SocketBuilder;
pub use context::{AnyContext, ContextBuilder, StillInUse, ZmqContext};
pub use errno::Errno;
pub use error::{SendError, SocketError};
pub use frame::Frame;
pub(crate) use frame_list::{FrameList, Slices, Whole};
pub use mio::Interest;
pub use pair::pair;
pub use poll_set::{Events, PollList, PollSet};
pub(crate) use sent::Sent;
pub use socket_type::SocketType;
pub(crate) use transit::{Stopped, Transit};

pub(crate) use context::ContextHandle;
use error::Operation;
use peer_names::PeerNames;

/// A ZeroMQ socket of any type.
///
/// It may be moved to another thread but not shared. Dropping it closes it;
/// messages accepted but not yet delivered are tried for the linger time (one
/// second unless set otherwise), during which the context cannot end.
///
/// ```
/// fn may_move_to_another_thread<T: Send>() {}
/// may_move_to_another_thread::<pollux::socket::Socket>();
/// ```
/// ```compile_fail,E0277
/// fn may_be_shared<T: Sync>() {}
/// may_be_shared::<pollux::socket::Socket>(); // libzmq's sockets are not thread-safe
/// ```
pub struct Socket {
    inner: zmq::Socket,
    /// The same socket; open as long as `inner` is there.
    raw: *mut c_void,
    socket_type: SocketType,
    fd: RawFd,
    /// How many frames a message may have that is sent: at least, at most
    /// (`u32::MAX`: any number).
    frames: (u32, u32),
    /// Boxed, to keep the size down of what every error of registering has in it.
    peers: Box<PeerNames>,
    /// REQ: a request was cut off before its last frame.
    unfinished: Cell<bool>,
    sent: Cell<Sent>,
    /// Keeps the context, and so stands after the socket, which is closed first. `None` for a
    /// socket that came from elsewhere.
    context: Option<Box<ContextHandle>>,
}

// SAFETY: libzmq lets a socket move to another thread with a full fence between
// (zmq_socket(3)), which handing over a value in Rust has. `raw` moves with the
// socket it points to.
unsafe impl Send for Socket {}

impl Socket {
    /// How long closed sockets go on delivering what they had accepted, unless
    /// set otherwise: one second.
    ///
    /// With libzmq's own default, for ever, a context with one unreachable peer
    /// never ends; with zero, what was sent just before a clean end is lost.
    pub const DEFAULT_LINGER: Duration = Duration::from_secs(1);

    /// A socket with the [default linger time](Socket::DEFAULT_LINGER) and
    /// otherwise the defaults of libzmq.
    ///
    /// # Errors
    /// `EMFILE` if the context has no more sockets or the process no more
    /// descriptors, `ETERM` if the context has ended.
    pub fn new(context: &impl AnyContext, socket_type: SocketType) -> Result<Socket, SocketError> {
        Socket::make(context.handle(), socket_type)
    }

    fn make(context: ContextHandle, socket_type: SocketType) -> Result<Socket, SocketError> {
        let inner = context
            .socket(socket_type)
            .map_err(|errno| SocketError::new(Operation::Create, socket_type, errno))?;
        let mut socket = Socket::from_zmq(inner)?;
        socket.context = Some(Box::new(context));
        socket.set_linger(Socket::DEFAULT_LINGER)?;
        Ok(socket)
    }

    /// A socket with options: see [`SocketBuilder`].
    pub fn builder(socket_type: SocketType) -> SocketBuilder {
        SocketBuilder::new(socket_type)
    }

    /// Takes over a socket of the `zmq` crate, with the options it has. (Mind its
    /// linger time: it is for ever unless you set one.)
    ///
    /// # Errors
    /// `ETERM` if its context has ended, `EINVAL` if it is of a type that
    /// [`SocketType`] does not name (a draft type).
    pub fn from_zmq(mut inner: zmq::Socket) -> Result<Socket, SocketError> {
        let raw = inner.as_mut_ptr();
        let failed = |errno| SocketError::new(Operation::Create, None, errno);
        // SAFETY: `inner` is open and on this thread; both options are a `c_int`.
        let number = unsafe { options::get_int(raw, options::TYPE) }.map_err(failed)?;
        let socket_type = SocketType::from_raw(number).ok_or_else(|| failed(Errno::EINVAL))?;
        // SAFETY: as above.
        let fd = unsafe { options::get_int(raw, options::FD) }.map_err(failed)?;
        let mut socket = Socket {
            inner,
            raw,
            socket_type,
            fd,
            frames: (1, u32::MAX),
            peers: Box::default(),
            unfinished: Cell::new(false),
            sent: Cell::default(),
            context: None,
        };
        if !socket.last_endpoint()?.is_empty() {
            socket.peers.let_in_unnamed();
        }
        let conflate = socket.get_int(options::CONFLATE).map_err(failed)? != 0;
        socket.limit_frames(conflate, false);
        Ok(socket)
    }

    /// Messages of other lengths are dropped or torn apart by libzmq.
    fn limit_frames(&mut self, conflate: bool, raw: bool) {
        use SocketType::*;
        self.frames = match self.socket_type {
            Router if raw => (2, 2),
            Router => (2, u32::MAX),
            Stream => (2, 2),
            Push | Pull | Pub | Sub | Dealer if conflate => (1, 1),
            _ => (1, u32::MAX),
        };
    }

    /// Gives the socket of the `zmq` crate away.
    ///
    /// One that was made in a [`ZmqContext`] then no longer keeps that alive, so the context is
    /// kept to the end of the process instead: what such a socket has not sent by then is lost.
    pub fn into_zmq(self) -> zmq::Socket {
        if let Some(context) = self.context
            && let ContextHandle::Own(_) = *context
        {
            std::mem::forget(context);
        }
        self.inner
    }

    /// The socket of the `zmq` crate, for what is missing here.
    pub fn as_zmq(&self) -> &zmq::Socket {
        &self.inner
    }

    /// The type that it was made with.
    #[inline]
    pub fn socket_type(&self) -> SocketType {
        self.socket_type
    }

    /// Accepts peers at `endpoint` and returns the endpoint as resolved: with the
    /// port that `tcp://127.0.0.1:*` was given. An IPv6 address stands in brackets,
    /// `tcp://[::1]:5556`, and needs no [`ipv6`](SocketBuilder::ipv6).
    ///
    /// # Errors
    /// `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES`, `EINVAL`, ...: see zmq_bind(3). The
    /// error names endpoint and remedy.
    pub fn bind(&self, endpoint: &str) -> Result<String, SocketError> {
        self.peers.let_in_unnamed();
        self.open(endpoint, Operation::Bind, zmq_sys::zmq_bind)?;
        self.last_endpoint()
    }

    /// Connects to `endpoint`. That succeeds whether or not somebody is there yet;
    /// libzmq connects, and reconnects, in the background. An IPv6 address stands in
    /// brackets, as in [`bind`](Socket::bind).
    ///
    /// # Errors
    /// `EINVAL`, `EPROTONOSUPPORT`, ...: see zmq_connect(3).
    pub fn connect(&self, endpoint: &str) -> Result<(), SocketError> {
        if self.peers.left_over() {
            let problem = "expected `connect_as`, because the last one left its name behind";
            let error = SocketError::misuse(Operation::Connect, self.socket_type, problem);
            return Err(error.about(endpoint));
        }
        self.peers.let_in_unnamed();
        self.open(endpoint, Operation::Connect, zmq_sys::zmq_connect)
    }

    /// ROUTER, STREAM: connects to `endpoint` and calls the peer there `routing_id`,
    /// 1 to 255 bytes, so that messages can be sent to it before it has sent any
    /// (`ZMQ_CONNECT_ROUTING_ID`).
    ///
    /// libzmq ends the whole process if another peer has this name, which a peer
    /// from the network may have chosen. So names come first: each one once, and
    /// none after a [`bind`](Socket::bind) or plain [`connect`](Socket::connect).
    ///
    /// # Errors
    /// `EINVAL` on other types of sockets, with another length, out of the order
    /// above or with `immediate`, or those of [`connect`](Socket::connect).
    pub fn connect_as(&self, routing_id: &[u8], endpoint: &str) -> Result<(), SocketError> {
        const OPTION: options::SocketOption = options::CONNECT_ROUTING_ID;
        OPTION.check(self.socket_type)?;
        if self.int(options::IMMEDIATE)? != 0 {
            // The name would go to another connection (socket_base.cpp).
            return Err(OPTION.refused(self.socket_type, "expected `immediate` to be off".into()));
        }
        let value = self.peers.name(routing_id);
        self.set(OPTION, value)?;
        self.peers.set_left_over(true);
        self.open(endpoint, Operation::Connect, zmq_sys::zmq_connect)?;
        self.peers.set_left_over(false);
        Ok(())
    }

    /// Stops accepting at `endpoint`, which is as [`bind`](Socket::bind) returned it.
    ///
    /// # Errors
    /// `ENOENT` if it is not bound there: see zmq_unbind(3).
    pub fn unbind(&self, endpoint: &str) -> Result<(), SocketError> {
        self.at(endpoint, Operation::Unbind, zmq_sys::zmq_unbind)
    }

    /// Ends the connection to `endpoint`, which is as it was connected to.
    ///
    /// # Errors
    /// `ENOENT` if it is not connected there: see zmq_disconnect(3).
    pub fn disconnect(&self, endpoint: &str) -> Result<(), SocketError> {
        self.at(endpoint, Operation::Disconnect, zmq_sys::zmq_disconnect)
    }

    fn open(
        &self,
        endpoint: &str,
        operation: Operation,
        call: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    ) -> Result<(), SocketError> {
        // Over inproc a peer that is no STREAM would end the process with a message of
        // several frames (stream.cpp).
        if self.socket_type == SocketType::Stream && endpoint.starts_with("inproc:") {
            let problem = "expected tcp, over which STREAM talks with what is not ZeroMQ";
            return Err(SocketError::misuse(operation, self.socket_type, problem).about(endpoint));
        }
        // An address in brackets can be nothing else; for this endpoint alone, since with the
        // option names and `*` mean something else, too.
        let is_ipv6 = endpoint.starts_with("tcp://") && endpoint.contains('[');
        if !is_ipv6 || self.int(options::IPV6)? != 0 {
            return self.at(endpoint, operation, call);
        }
        self.set(options::IPV6, options::flag(true))?;
        let opened = self.at(endpoint, operation, call);
        self.set(options::IPV6, options::flag(false))?;
        opened
    }

    fn at(
        &self,
        endpoint: &str,
        operation: Operation,
        call: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    ) -> Result<(), SocketError> {
        let Ok(terminated) = CString::new(endpoint) else {
            return Err(self.failed(
                operation,
                &endpoint.escape_default().to_string(),
                Errno::EINVAL,
            ));
        };
        loop {
            // SAFETY: the socket is open as long as `self` is there, and on this thread, for
            // it is not `Sync`; the string is terminated and only read.
            if unsafe { call(self.raw, terminated.as_ptr()) } == 0 {
                return Ok(());
            }
            match Errno::last() {
                Errno::EINTR => {}
                errno => return Err(self.failed(operation, endpoint, errno)),
            }
        }
    }

    #[cold]
    fn failed(&self, operation: Operation, endpoint: &str, errno: Errno) -> SocketError {
        SocketError::new(operation, self.socket_type, errno).about(endpoint)
    }

    /// Whether a message can be received or sent now (`ZMQ_EVENTS`). It also makes
    /// libzmq look for news, so whoever waits on [`fd`](Socket::fd) must ask this,
    /// or receive until `EAGAIN`, before waiting.
    ///
    /// # Errors
    /// `ETERM` if the context ended. Never `EINTR`.
    #[inline]
    pub fn events(&self) -> Result<Events, Errno> {
        self.get_int(options::EVENTS).map(|bits| Events::from_bits(bits as i16))
    }

    /// What it has sent so far.
    #[inline]
    pub(crate) fn sent(&self) -> Sent {
        self.sent.get()
    }

    /// The descriptor that becomes *readable* when [`events`](Socket::events) may
    /// have changed (`ZMQ_FD`); it is edge-triggered by nature and must be neither
    /// read nor written nor closed. It is valid as long as the socket.
    #[inline]
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// The raw socket, open as long as `self` is there.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.raw
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("socket_type", &self.socket_type)
            .field("fd", &self.fd)
            .finish()
    }
}
