//! Options: zmq_setsockopt(3) and zmq_getsockopt(3) with names and types.

use std::ffi::{c_int, c_void};

use super::error::Operation;
use super::{Errno, Socket, SocketError};

/// An option of a socket: its number and the name it has in zmq_setsockopt(3),
/// without the `ZMQ_`.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketOption {
    pub(super) number: u32,
    pub(super) name: &'static str,
}

macro_rules! socket_options {
    ($($name:ident = $number:ident,)*) => {$(
        pub(super) const $name: SocketOption =
            SocketOption { number: zmq_sys::$number, name: stringify!($name) };
    )*};
}

socket_options! {
    EVENTS = ZMQ_EVENTS,
    FD = ZMQ_FD,
    LAST_ENDPOINT = ZMQ_LAST_ENDPOINT,
    LINGER = ZMQ_LINGER,
    SUBSCRIBE = ZMQ_SUBSCRIBE,
    TYPE = ZMQ_TYPE,
    UNSUBSCRIBE = ZMQ_UNSUBSCRIBE,
}

/// The number that [`SocketOption`] `option` of the raw socket has now.
///
/// # Safety
/// `socket` is an open socket on this thread, and the option is a `c_int`.
pub(super) unsafe fn get_int(socket: *mut c_void, option: SocketOption) -> Result<c_int, Errno> {
    let mut value: c_int = 0;
    let mut size = size_of::<c_int>();
    loop {
        // SAFETY: the socket is open, and libzmq writes at most `size` bytes to `value`.
        let rc = unsafe {
            let value = (&raw mut value).cast();
            zmq_sys::zmq_getsockopt(socket, option.number as c_int, value, &mut size)
        };
        if rc == 0 {
            return Ok(value);
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
        // it is not `Sync`. A wrong size is an error of libzmq.
        unsafe { get_int(self.as_ptr(), option) }
    }

    /// The bytes of an option of at most `capacity` bytes.
    pub(super) fn get_bytes(
        &self,
        option: SocketOption,
        capacity: usize,
    ) -> Result<Vec<u8>, Errno> {
        let mut value = vec![0u8; capacity];
        let mut size = value.len();
        // SAFETY: the socket is open, and libzmq writes at most `size` bytes to `value`.
        let rc = unsafe {
            let value = value.as_mut_ptr().cast();
            zmq_sys::zmq_getsockopt(self.as_ptr(), option.number as c_int, value, &mut size)
        };
        if rc != 0 {
            return Err(Errno::last());
        }
        value.truncate(size);
        Ok(value)
    }

    pub(super) fn set_bytes(&self, option: SocketOption, value: &[u8]) -> Result<(), SocketError> {
        loop {
            // SAFETY: the socket is open, and libzmq reads `value.len()` bytes of `value`.
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

    pub(super) fn set_int(&self, option: SocketOption, value: c_int) -> Result<(), SocketError> {
        self.set_bytes(option, &value.to_ne_bytes())
    }
}
