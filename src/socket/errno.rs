//! [`Errno`]: the number by which libzmq says what went wrong.

use std::error::Error;
use std::ffi::CStr;
use std::fmt;
use std::io::{self, ErrorKind};

use zmq_sys::errno as sys;

/// An error number of libzmq or of the operating system.
///
/// Every number is allowed, also those that no table knows: making, comparing
/// and displaying one never panics.
///
/// ```
/// use pollux::socket::Errno;
///
/// assert_eq!(Errno::ETERM.to_string(), "Context was terminated");
/// assert!(!Errno::from_raw(-12_345).to_string().is_empty());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

/// `ETIMEDOUT`, which zmq-sys has only for systems without it.
const TIMED_OUT: i32 = if cfg!(target_os = "linux") { 110 } else { 60 };

macro_rules! errnos {
    ($($(#[doc = $doc:literal])* $name:ident = $number:expr,)*) => {
        impl Errno {
            $($(#[doc = $doc])* pub const $name: Errno = Errno($number);)*

            /// The symbolic name, if the number is one of the constants here.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Errno::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    /// Nothing there to receive, or no room to send.
    EAGAIN = sys::EAGAIN,
    /// A signal arrived. Sending and receiving retry and never answer it.
    EINTR = sys::EINTR,
    /// The context was terminated; the socket can only be closed.
    ETERM = sys::ETERM,
    /// No such peer: ROUTER with `mandatory`, or STREAM.
    EHOSTUNREACH = sys::EHOSTUNREACH,
    /// The port or name is taken.
    EADDRINUSE = sys::EADDRINUSE,
    /// The address belongs to no interface of this machine.
    EADDRNOTAVAIL = sys::EADDRNOTAVAIL,
    /// Sending or receiving out of turn: REQ and REP.
    EFSM = sys::EFSM,
    /// Not possible with this type of socket.
    ENOTSUP = sys::ENOTSUP,
    /// A wrong argument, option or endpoint.
    EINVAL = sys::EINVAL,
    /// No permission, as for ports below 1024.
    EACCES = sys::EACCES,
    /// Too many open file descriptors or sockets.
    EMFILE = sys::EMFILE,
    /// The open file descriptors of the whole system are used up.
    ENFILE = 23, // on every Unix; zmq-sys does not have it
    /// Out of memory.
    ENOMEM = sys::ENOMEM,
    /// No such endpoint to unbind or disconnect from.
    ENOENT = sys::ENOENT,
    /// No such network interface.
    ENODEV = sys::ENODEV,
    /// An unknown transport.
    EPROTONOSUPPORT = sys::EPROTONOSUPPORT,
    /// The transport does not carry this type of socket.
    ENOCOMPATPROTO = sys::ENOCOMPATPROTO,
    /// An `ipc` path that is too long.
    ENAMETOOLONG = sys::ENAMETOOLONG,
    /// Nobody listens there.
    ECONNREFUSED = sys::ECONNREFUSED,
    /// Not done in time: [`Socket::close`](super::Socket::close).
    ETIMEDOUT = TIMED_OUT,
    /// The socket has been closed already.
    ENOTSOCK = sys::ENOTSOCK,
    /// No I/O thread is left.
    EMTHREAD = sys::EMTHREAD,
    /// An invalid message or pointer.
    EFAULT = sys::EFAULT,
}

impl Errno {
    /// The error of this number.
    pub const fn from_raw(number: i32) -> Errno {
        Errno(number)
    }

    /// The number.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// What the calling thread's last failed call into libzmq left behind.
    #[cold]
    pub(super) fn last() -> Errno {
        // SAFETY: reads a thread-local integer; there is nothing to uphold.
        Errno(unsafe { zmq_sys::zmq_errno() })
    }

    /// The closest kind of [`io::Error`].
    pub fn kind(self) -> ErrorKind {
        match self {
            Errno::ETERM => ErrorKind::BrokenPipe,
            Errno::ENOCOMPATPROTO => ErrorKind::InvalidInput,
            Errno::EFSM | Errno::EMTHREAD => ErrorKind::Other,
            Errno(number) => io::Error::from_raw_os_error(number).kind(),
        }
    }

    /// Whether libzmq made the number up, because no system has it.
    const fn is_of_libzmq(self) -> bool {
        matches!(self, Errno::EFSM | Errno::ENOCOMPATPROTO | Errno::ETERM | Errno::EMTHREAD)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_of_libzmq() {
            // SAFETY: for its own numbers zmq_strerror returns a string literal, which
            // is terminated and lives for ever.
            let text = unsafe { CStr::from_ptr(zmq_sys::zmq_strerror(self.0)) };
            return f.write_str(&text.to_string_lossy());
        }
        // For all others zmq_strerror is strerror(3), which need not be safe with
        // threads; the standard library has the same text from strerror_r(3).
        let text = io::Error::from_raw_os_error(self.0).to_string();
        let suffix = format!(" (os error {})", self.0);
        f.write_str(text.strip_suffix(&suffix).unwrap_or(&text))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl Error for Errno {}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> io::Error {
        if errno.is_of_libzmq() {
            io::Error::new(errno.kind(), errno)
        } else {
            io::Error::from_raw_os_error(errno.0)
        }
    }
}
