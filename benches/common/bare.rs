//! libzmq without anything on top: the measure of all things here.
//!
//! [`Bare`] and [`Part`] are `zmq_msg_*` calls by way of `zmq-sys`, with no
//! check that a careful C program would not make. Whoever drains a socket here
//! does it as fast as libzmq can.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::slice;

use zmq_sys::{ZMQ_DONTWAIT, ZMQ_SNDMORE, zmq_msg_t, zmq_pollitem_t};

const NOW: c_int = ZMQ_DONTWAIT as c_int;
const MORE: c_int = ZMQ_SNDMORE as c_int;

/// A message part of libzmq.
pub(crate) struct Part(zmq_msg_t);

// SAFETY: a zmq_msg_t belongs to no thread; its content is its own or counted
// atomically.
unsafe impl Send for Part {}

impl Part {
    /// An empty part.
    #[inline]
    pub(crate) fn new() -> Part {
        let mut message = MaybeUninit::uninit();
        // SAFETY: zmq_msg_init initialises the message and cannot fail.
        unsafe {
            zmq_sys::zmq_msg_init(message.as_mut_ptr());
            Part(message.assume_init())
        }
    }

    /// A part with a copy of `bytes`.
    #[inline]
    pub(crate) fn of(bytes: &[u8]) -> Part {
        let mut message = MaybeUninit::uninit();
        // SAFETY: zmq_msg_init_size initialises the message, with fresh room for
        // `bytes.len()` bytes, or fails.
        unsafe {
            let rc = zmq_sys::zmq_msg_init_size(message.as_mut_ptr(), bytes.len());
            assert_eq!(rc, 0, "no memory");
            let data = zmq_sys::zmq_msg_data(message.as_mut_ptr()).cast::<u8>();
            data.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            Part(message.assume_init())
        }
    }

    /// The content.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the message is initialised; data and size are those of its content,
        // which nobody writes to while it is borrowed. zmq_msg_data only reads.
        unsafe {
            let message = &raw const self.0;
            let data = zmq_sys::zmq_msg_data(message.cast_mut()).cast::<u8>();
            slice::from_raw_parts(data, zmq_sys::zmq_msg_size(message))
        }
    }

    /// Whether more parts of the same message follow.
    #[inline]
    pub(crate) fn more(&self) -> bool {
        // SAFETY: the message is initialised.
        unsafe { zmq_sys::zmq_msg_more(&self.0) != 0 }
    }
}

impl Drop for Part {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the message is initialised and not used again.
        unsafe { zmq_sys::zmq_msg_close(&mut self.0) };
    }
}

/// A socket of libzmq, made by the `zmq` crate and used by bare calls.
pub(crate) struct Bare {
    /// Open as long as `socket` is.
    raw: *mut c_void,
    socket: zmq::Socket,
}

// SAFETY: libzmq lets a socket move to another thread with a fence between, which
// handing over a value is.
unsafe impl Send for Bare {}

impl Bare {
    /// A socket without limits to its queues that forgets what it has not sent
    /// when it is closed.
    pub(crate) fn new(context: &zmq::Context, socket_type: zmq::SocketType) -> Bare {
        Bare::of(context.socket(socket_type).expect("a socket"))
    }

    /// The same of a socket that is there already.
    pub(crate) fn of(mut socket: zmq::Socket) -> Bare {
        socket.set_linger(0).expect("LINGER");
        socket.set_sndhwm(0).expect("SNDHWM");
        socket.set_rcvhwm(0).expect("RCVHWM");
        Bare { raw: socket.as_mut_ptr(), socket }
    }

    /// The socket, to set it up.
    pub(crate) fn zmq(&self) -> &zmq::Socket {
        &self.socket
    }

    /// The same socket for somebody else's use.
    pub(crate) fn into_zmq(self) -> zmq::Socket {
        self.socket
    }

    /// Binds, and returns where: the port that a wildcard was given.
    pub(crate) fn bind(&self, endpoint: &str) -> String {
        self.socket.bind(endpoint).expect("bind");
        self.socket.get_last_endpoint().expect("LAST_ENDPOINT").expect("text")
    }

    /// Connects.
    pub(crate) fn connect(&self, endpoint: &str) {
        self.socket.connect(endpoint).expect("connect");
    }

    /// Receives a part if one is there.
    #[inline]
    pub(crate) fn try_receive(&self, part: &mut Part) -> bool {
        // SAFETY: the message is initialised; the socket is open and on this thread, for
        // it is not `Sync`.
        unsafe { zmq_sys::zmq_msg_recv(&mut part.0, self.raw, NOW) >= 0 }
    }

    /// Receives a part, waiting for it in libzmq. False: the wait was
    /// interrupted or the context has ended.
    #[inline]
    pub(crate) fn receive(&self, part: &mut Part) -> bool {
        // SAFETY: as in `try_receive`.
        unsafe { zmq_sys::zmq_msg_recv(&mut part.0, self.raw, 0) >= 0 }
    }

    /// Waits until something can be received, by zmq_poll(3).
    #[inline]
    pub(crate) fn poll(&self) {
        let events = zmq_sys::ZMQ_POLLIN as i16;
        let mut item = zmq_pollitem_t { socket: self.raw, fd: 0, events, revents: 0 };
        // SAFETY: it is one item, whose socket is open and on this thread.
        let rc = unsafe { zmq_sys::zmq_poll(&mut item, 1, -1) };
        assert!(rc >= 0, "poll: {}", zmq::Error::from_raw(zmq_errno()));
    }

    /// What zmq_poll(3) is to wait for, of many: see [`poll_all`].
    pub(crate) fn poll_item(&self) -> zmq_pollitem_t {
        zmq_pollitem_t { socket: self.raw, fd: 0, events: zmq_sys::ZMQ_POLLIN as i16, revents: 0 }
    }

    /// Sends a part, moving its content; waits for room.
    #[inline]
    pub(crate) fn send(&self, part: &mut Part, more: bool) {
        let flags = if more { MORE } else { 0 };
        // SAFETY: as in `try_receive`.
        let rc = unsafe { zmq_sys::zmq_msg_send(&mut part.0, self.raw, flags) };
        assert!(rc >= 0, "send: {}", zmq::Error::from_raw(zmq_errno()));
    }

    /// Sends copies of `parts` as one message; waits for room.
    #[inline]
    pub(crate) fn send_all(&self, parts: &[&[u8]]) {
        for (index, bytes) in parts.iter().enumerate() {
            self.send(&mut Part::of(bytes), index + 1 < parts.len());
        }
    }
}

/// zmq_poll(3) over items of [`Bare::poll_item`], whose sockets must be open and on
/// this thread; a timeout in milliseconds, -1 for ever.
#[inline]
pub(crate) fn poll_all(items: &mut [zmq_pollitem_t], timeout_ms: i64) {
    // SAFETY: it is given as many items as there are, each of an open socket.
    let rc = unsafe { zmq_sys::zmq_poll(items.as_mut_ptr(), items.len() as c_int, timeout_ms) };
    assert!(rc >= 0, "poll: {}", zmq::Error::from_raw(zmq_errno()));
}

/// Waits by zmq_poll(3) until something can be received from one of the sockets of `items`.
/// False: the context has ended.
#[inline]
pub(crate) fn poll_until_ended(items: &mut [zmq_pollitem_t]) -> bool {
    // SAFETY: as in `poll_all`.
    let rc = unsafe { zmq_sys::zmq_poll(items.as_mut_ptr(), items.len() as c_int, -1) };
    rc >= 0 || zmq_errno() != zmq_sys::errno::ETERM
}

fn zmq_errno() -> c_int {
    // SAFETY: it only reads this thread's errno.
    unsafe { zmq_sys::zmq_errno() }
}
