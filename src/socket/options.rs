//! [`SocketOption`]: the options of zmq_setsockopt(3) by name, with the types of
//! sockets they are for, and the values they take.

use std::ffi::{c_int, c_void};
use std::time::Duration;

use super::error::Operation;
use super::{Errno, Socket, SocketError, SocketType};

/// An option of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketOption {
    number: u32,
    /// As in zmq_setsockopt(3), without the `ZMQ_`.
    pub(super) name: &'static str,
    /// The types of sockets that have it; none stands for all.
    types: &'static [SocketType],
}

/// Names on the left are those of `zmq.h`; after `for` stand the types of sockets
/// for which libzmq heeds the option, which may be fewer than accept it.
macro_rules! socket_options {
    ($($name:ident = $number:ident $(for $($type:ident),+)?;)*) => {$(
        pub(super) const $name: SocketOption = SocketOption {
            number: zmq_sys::$number,
            name: stringify!($name),
            types: &[$($(SocketType::$type),+)?],
        };
    )*};
}

socket_options! {
    AFFINITY = ZMQ_AFFINITY;
    BACKLOG = ZMQ_BACKLOG;
    CONFLATE = ZMQ_CONFLATE for Push, Pull, Pub, Sub, Dealer;
    CONNECT_ROUTING_ID = ZMQ_CONNECT_ROUTING_ID for Router, Stream;
    CONNECT_TIMEOUT = ZMQ_CONNECT_TIMEOUT;
    CURVE_PUBLICKEY = ZMQ_CURVE_PUBLICKEY;
    CURVE_SECRETKEY = ZMQ_CURVE_SECRETKEY;
    CURVE_SERVER = ZMQ_CURVE_SERVER;
    CURVE_SERVERKEY = ZMQ_CURVE_SERVERKEY;
    EVENTS = ZMQ_EVENTS;
    FD = ZMQ_FD;
    HANDSHAKE_IVL = ZMQ_HANDSHAKE_IVL;
    HEARTBEAT_IVL = ZMQ_HEARTBEAT_IVL;
    HEARTBEAT_TIMEOUT = ZMQ_HEARTBEAT_TIMEOUT;
    HEARTBEAT_TTL = ZMQ_HEARTBEAT_TTL;
    IMMEDIATE = ZMQ_IMMEDIATE;
    INVERT_MATCHING = ZMQ_INVERT_MATCHING for Pub, XPub, Sub;
    IPV6 = ZMQ_IPV6;
    LAST_ENDPOINT = ZMQ_LAST_ENDPOINT;
    LINGER = ZMQ_LINGER;
    MAXMSGSIZE = ZMQ_MAXMSGSIZE;
    PLAIN_PASSWORD = ZMQ_PLAIN_PASSWORD;
    PLAIN_SERVER = ZMQ_PLAIN_SERVER;
    PLAIN_USERNAME = ZMQ_PLAIN_USERNAME;
    PROBE_ROUTER = ZMQ_PROBE_ROUTER for Router, Dealer, Req;
    RCVBUF = ZMQ_RCVBUF;
    RCVHWM = ZMQ_RCVHWM;
    RECONNECT_IVL = ZMQ_RECONNECT_IVL;
    RECONNECT_IVL_MAX = ZMQ_RECONNECT_IVL_MAX;
    REQ_CORRELATE = ZMQ_REQ_CORRELATE for Req;
    REQ_RELAXED = ZMQ_REQ_RELAXED for Req;
    ROUTER_HANDOVER = ZMQ_ROUTER_HANDOVER for Router;
    ROUTER_MANDATORY = ZMQ_ROUTER_MANDATORY for Router;
    ROUTER_RAW = ZMQ_ROUTER_RAW for Router;
    ROUTING_ID = ZMQ_ROUTING_ID for Req, Rep, Dealer, Router;
    SNDBUF = ZMQ_SNDBUF;
    SNDHWM = ZMQ_SNDHWM;
    STREAM_NOTIFY = ZMQ_STREAM_NOTIFY for Stream;
    SUBSCRIBE = ZMQ_SUBSCRIBE for Sub;
    TCP_KEEPALIVE = ZMQ_TCP_KEEPALIVE;
    TCP_KEEPALIVE_CNT = ZMQ_TCP_KEEPALIVE_CNT;
    TCP_KEEPALIVE_IDLE = ZMQ_TCP_KEEPALIVE_IDLE;
    TCP_KEEPALIVE_INTVL = ZMQ_TCP_KEEPALIVE_INTVL;
    TCP_MAXRT = ZMQ_TCP_MAXRT;
    TOS = ZMQ_TOS;
    TYPE = ZMQ_TYPE;
    UNSUBSCRIBE = ZMQ_UNSUBSCRIBE for Sub;
    XPUB_NODROP = ZMQ_XPUB_NODROP for Pub, XPub;
    XPUB_VERBOSE = ZMQ_XPUB_VERBOSE for XPub;
    XPUB_VERBOSER = ZMQ_XPUB_VERBOSER for XPub;
    ZAP_DOMAIN = ZMQ_ZAP_DOMAIN;
}

impl SocketOption {
    /// Refuses an option that `socket_type` does not have: libzmq accepts some and
    /// then ignores them.
    pub(super) fn check(self, socket_type: SocketType) -> Result<(), SocketError> {
        if self.types.is_empty() || self.types.contains(&socket_type) {
            return Ok(());
        }
        let names: Vec<&str> = self.types.iter().map(|expected| expected.name()).collect();
        let expected = names.join(" or ");
        Err(self.refused(socket_type, format!("expected a socket of type {expected}")))
    }

    /// The error that says what was expected.
    #[cold]
    pub(super) fn refused(self, socket_type: SocketType, problem: String) -> SocketError {
        SocketError::misuse(Operation::Set, socket_type, problem).about(self.name)
    }
}

/// What an option takes: the bytes for zmq_setsockopt(3), or what was expected.
pub(super) type Value = Result<Vec<u8>, String>;

pub(super) fn flag(on: bool) -> Value {
    Ok(c_int::from(on).to_ne_bytes().into())
}

pub(super) fn number(number: impl TryInto<c_int> + Copy + std::fmt::Display) -> Value {
    match number.try_into() {
        Ok(number) => Ok(number.to_ne_bytes().into()),
        Err(_) => Err(format!("expected at most {}, got {number}", c_int::MAX)),
    }
}

/// Rounded up, so that a short time never becomes zero, which often means "never".
pub(super) fn milliseconds(duration: Duration) -> Value {
    whole_units(duration, Duration::from_millis(1))
}

/// Rounded up, as above.
pub(super) fn seconds(duration: Duration) -> Value {
    whole_units(duration, Duration::from_secs(1))
}

fn whole_units(duration: Duration, unit: Duration) -> Value {
    let count = duration.as_nanos().div_ceil(unit.as_nanos());
    match c_int::try_from(count) {
        Ok(count) => Ok(count.to_ne_bytes().into()),
        Err(_) => Err(format!("expected at most {:?}, got {duration:?}", unit * c_int::MAX as u32)),
    }
}

/// -1 in place of a time, for what lasts for ever or never happens.
pub(super) fn milliseconds_or_none(duration: Option<Duration>) -> Value {
    duration.map_or_else(|| number(-1), milliseconds)
}

/// The lengths that libzmq allows for names of all kinds.
pub(super) fn short_bytes(bytes: &[u8]) -> Value {
    match bytes.len() {
        1..=255 => Ok(bytes.into()),
        length => Err(format!("expected 1 to 255 bytes, got {length}")),
    }
}

/// A name for a peer. Those that begin with a zero byte are made by libzmq.
pub(super) fn routing_id(id: &[u8]) -> Value {
    if id.first() == Some(&0) {
        return Err("expected a first byte other than 0, which libzmq keeps for itself".into());
    }
    short_bytes(id)
}

/// The value that `option` has now.
///
/// # Safety
/// `socket` is an open socket on this thread.
pub(super) unsafe fn get_int(socket: *mut c_void, option: SocketOption) -> Result<c_int, Errno> {
    let mut value: c_int = 0;
    // SAFETY: the socket is open on this thread, says the caller.
    unsafe { get(socket, option, (&raw mut value).cast(), size_of::<c_int>()) }?;
    Ok(value)
}

/// # Safety
/// `socket` is an open socket on this thread, and `value` points to `size` bytes
/// that may be written to.
unsafe fn get(
    socket: *mut c_void,
    option: SocketOption,
    value: *mut c_void,
    size: usize,
) -> Result<usize, Errno> {
    let mut size = size;
    loop {
        // SAFETY: libzmq writes at most `size` bytes; a size that the option does not have
        // is an error of its own.
        let rc =
            unsafe { zmq_sys::zmq_getsockopt(socket, option.number as c_int, value, &mut size) };
        if rc == 0 {
            return Ok(size);
        }
        match Errno::last() {
            Errno::EINTR => {}
            errno => return Err(errno),
        }
    }
}

impl Socket {
    pub(super) fn get_int(&self, option: SocketOption) -> Result<c_int, Errno> {
        // SAFETY: the socket is open as long as `self` is there, and on this thread, for
        // it is not `Sync`.
        unsafe { get_int(self.as_ptr(), option) }
    }

    /// An option of 64 bits.
    pub(super) fn get_wide(&self, option: SocketOption) -> Result<i64, Errno> {
        let mut value: i64 = 0;
        // SAFETY: the socket as above; the pointer is that of an `i64`.
        unsafe { get(self.as_ptr(), option, (&raw mut value).cast(), size_of::<i64>()) }?;
        Ok(value)
    }

    /// The bytes of an option of at most `capacity` bytes.
    pub(super) fn get_bytes(
        &self,
        option: SocketOption,
        capacity: usize,
    ) -> Result<Vec<u8>, Errno> {
        let mut value = vec![0u8; capacity];
        // SAFETY: the socket as above; the pointer is that of `capacity` bytes.
        let size = unsafe { get(self.as_ptr(), option, value.as_mut_ptr().cast(), capacity) }?;
        value.truncate(size);
        Ok(value)
    }

    /// Sets an option after checking that this type of socket has it and that the
    /// value is allowed.
    pub(super) fn set(&self, option: SocketOption, value: Value) -> Result<(), SocketError> {
        option.check(self.socket_type())?;
        let value = value.map_err(|problem| option.refused(self.socket_type(), problem))?;
        self.set_bytes(option, &value)
    }

    pub(super) fn set_bytes(&self, option: SocketOption, value: &[u8]) -> Result<(), SocketError> {
        loop {
            // SAFETY: the socket is open as long as `self` is there, and on this thread, for
            // it is not `Sync`; libzmq reads `value.len()` bytes of `value`.
            let rc = unsafe {
                let number = option.number as c_int;
                zmq_sys::zmq_setsockopt(self.as_ptr(), number, value.as_ptr().cast(), value.len())
            };
            if rc == 0 {
                return Ok(());
            }
            match Errno::last() {
                Errno::EINTR => {}
                errno => {
                    let error = SocketError::new(Operation::Set, self.socket_type(), errno);
                    return Err(error.about(option.name));
                }
            }
        }
    }
}
