//! [`ProxyError`]: why a proxy cannot be, or has ended.

use std::error::Error;
use std::fmt;
use std::io;

use super::{Side, pairs};
use crate::socket::{SocketError, SocketType};

/// Why a proxy cannot be made, or has ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// These types of sockets do not go together (without a hook).
    Pair {
        /// Type of the frontend.
        frontend: SocketType,
        /// Type of the backend.
        backend: SocketType,
    },
    /// A socket for copies is PUB, PUSH, DEALER or PAIR; this one is not.
    Capture(SocketType),
    /// A socket for commands is REP, PAIR, PULL or SUB; this one is not.
    Control(SocketType),
    /// A socket of this side failed: its context has ended, or memory has run out.
    Socket {
        /// Whose it is.
        side: Side,
        /// What failed.
        error: SocketError,
    },
    /// A socket of this proxy is no longer on the loop: somebody has removed it, its
    /// context has ended, or a hook has panicked.
    Removed,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProxyError::Pair { frontend, backend } => {
                write!(f, "proxy {frontend} to {backend}: these do not go together")?;
                write!(f, "; {frontend} goes with {}", pairs::partners(*frontend))?;
                if frontend != backend {
                    write!(f, "; {backend} goes with {}", pairs::partners(*backend))?;
                }
                Ok(())
            }
            ProxyError::Capture(got) => {
                write!(f, "proxy: expected PUB, PUSH, DEALER or PAIR for capture, got {got}")
            }
            ProxyError::Control(got) => {
                write!(f, "proxy: expected REP, PAIR, PULL or SUB for control, got {got}")
            }
            ProxyError::Socket { side, error } => write!(f, "proxy, {side}: {error}"),
            ProxyError::Removed => f.write_str(
                "proxy: a socket of it is no longer on the loop; it was removed, or its context \
                 has ended",
            ),
        }
    }
}

impl Error for ProxyError {}

impl From<ProxyError> for io::Error {
    fn from(error: ProxyError) -> io::Error {
        let kind = match &error {
            ProxyError::Pair { .. } | ProxyError::Capture(_) | ProxyError::Control(_) => {
                io::ErrorKind::InvalidInput
            }
            ProxyError::Socket { error, .. } => error.errno().kind(),
            ProxyError::Removed => io::ErrorKind::NotConnected,
        };
        io::Error::new(kind, error)
    }
}
