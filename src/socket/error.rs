//! [`SocketError`] and [`SendError`]: what failed, where, and what to do.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;

use super::{Errno, SocketType};

/// An operation on a socket that failed: which one, on which type of socket,
/// at which endpoint, why, and what to do about it where that is known.
///
/// ```
/// # fn main() -> Result<(), pollux::socket::SocketError> {
/// use pollux::socket::{Errno, Socket, SocketType};
///
/// let context = zmq::Context::new();
/// let first = Socket::new(&context, SocketType::Router)?;
/// let endpoint = first.bind("tcp://127.0.0.1:*")?;
///
/// let second = Socket::new(&context, SocketType::Router)?;
/// let error = second.bind(&endpoint).unwrap_err();
/// assert_eq!(error.errno(), Errno::EADDRINUSE);
/// assert_eq!(
///     error.to_string(),
///     format!("bind {endpoint} (ROUTER): Address already in use; choose another port or stop the other process")
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SocketError(Box<Details>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Details {
    operation: Operation,
    /// The endpoint or the option that it was about.
    subject: Option<Box<str>>,
    socket_type: Option<SocketType>,
    cause: Cause,
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Bind,
    Unbind,
    Connect,
    Disconnect,
    Set,
    Get,
    Send,
    Receive,
    Close,
    Terminate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    Errno(Errno),
    /// Refused before libzmq was asked: what was expected and what came.
    Misuse(Cow<'static, str>),
}

impl SocketError {
    #[cold]
    pub(super) fn new(
        operation: Operation,
        socket_type: impl Into<Option<SocketType>>,
        errno: Errno,
    ) -> SocketError {
        SocketError::with(operation, socket_type.into(), Cause::Errno(errno))
    }

    #[cold]
    pub(super) fn misuse(
        operation: Operation,
        socket_type: impl Into<Option<SocketType>>,
        problem: impl Into<Cow<'static, str>>,
    ) -> SocketError {
        SocketError::with(operation, socket_type.into(), Cause::Misuse(problem.into()))
    }

    fn with(operation: Operation, socket_type: Option<SocketType>, cause: Cause) -> SocketError {
        SocketError(Box::new(Details { operation, subject: None, socket_type, cause }))
    }

    /// Names the endpoint or the option.
    pub(super) fn about(mut self, subject: &str) -> SocketError {
        self.0.subject = Some(subject.into());
        self
    }

    /// The error number; `EINVAL` for what was refused before libzmq was asked.
    pub fn errno(&self) -> Errno {
        match self.0.cause {
            Cause::Errno(errno) => errno,
            Cause::Misuse(_) => Errno::EINVAL,
        }
    }

    /// What was tried: `bind`, `connect`, `send`, ...
    pub fn operation(&self) -> &'static str {
        self.0.operation.name()
    }

    /// The type of the socket, if there was one.
    pub fn socket_type(&self) -> Option<SocketType> {
        self.0.socket_type
    }

    /// The endpoint, for what is done with an endpoint.
    pub fn endpoint(&self) -> Option<&str> {
        use Operation::*;
        match self.0.operation {
            Bind | Unbind | Connect | Disconnect | Close => self.0.subject.as_deref(),
            Create | Set | Get | Send | Receive | Terminate => None,
        }
    }

    /// What to do about it, where that is known.
    pub fn remedy(&self) -> Option<&'static str> {
        let Cause::Errno(errno) = self.0.cause else { return None };
        let inproc = self.endpoint().is_some_and(|endpoint| endpoint.starts_with("inproc:"));
        Some(match (errno, self.0.operation) {
            (Errno::EADDRINUSE, _) if inproc => "choose another name",
            (Errno::EADDRINUSE, _) => "choose another port or stop the other process",
            (Errno::EADDRNOTAVAIL | Errno::ENODEV, _) => {
                "bind to an IPv4 address of this machine, an IPv6 one in brackets, or * for all"
            }
            (Errno::EACCES, Operation::Bind) => "choose a port above 1023 or a path you may write",
            (Errno::EINVAL, Operation::Bind | Operation::Connect) => {
                "an endpoint reads tcp://127.0.0.1:5556, ipc:///tmp/name or inproc://name"
            }
            (Errno::EPROTONOSUPPORT, _) => "use tcp, ipc or inproc",
            (Errno::ENOCOMPATPROTO, _) => "use another transport or type of socket",
            (Errno::ENAMETOOLONG, _) => "choose a shorter path",
            (Errno::ENOENT, Operation::Unbind | Operation::Disconnect) => {
                "give the endpoint as bind returned it or as it was connected to"
            }
            (Errno::EMFILE, _) => {
                "close some sockets, or raise the limit (ulimit -n) or that of the context"
            }
            (Errno::ENFILE, _) => {
                "close files in other processes, or raise the limit (fs.file-max)"
            }
            (Errno::ETERM, _) => "close the socket",
            (Errno::EMTHREAD, _) => "give the context an I/O thread, or use inproc",
            (Errno::ETIMEDOUT, Operation::Close) if inproc => {
                "the peer has not read everything yet, and still can"
            }
            (Errno::ETIMEDOUT, Operation::Close) => "what was not sent in time is lost",
            (Errno::EFSM, Operation::Send) => "first receive the reply (REQ) or a request (REP)",
            (Errno::EFSM, Operation::Receive) => "first send the request (REQ) or the reply (REP)",
            (Errno::ENOTSUP, Operation::Send) => "this type of socket only receives",
            (Errno::ENOTSUP, Operation::Receive) => "this type of socket only sends",
            _ => return None,
        })
    }
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Bind => "bind",
            Operation::Unbind => "unbind",
            Operation::Connect => "connect",
            Operation::Disconnect => "disconnect",
            Operation::Set => "set",
            Operation::Get => "get",
            Operation::Send => "send",
            Operation::Receive => "receive",
            Operation::Close => "close",
            Operation::Terminate => "terminate",
        }
    }
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation())?;
        if let Some(subject) = &self.0.subject {
            write!(f, " {subject}")?;
        }
        if let Some(socket_type) = self.0.socket_type {
            write!(f, " ({socket_type})")?;
        }
        match &self.0.cause {
            Cause::Errno(errno) => write!(f, ": {errno}")?,
            Cause::Misuse(problem) => write!(f, ": {problem}")?,
        }
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocketError({self})")
    }
}

impl Error for SocketError {}

impl From<SocketError> for io::Error {
    fn from(error: SocketError) -> io::Error {
        io::Error::new(error.errno().kind(), error)
    }
}

/// Why a message was not sent. The caller still has the whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No room: a high-water mark is reached, or there is no peer. Try again
    /// when the socket says that it is writable.
    WouldBlock,
    /// There is no such peer (any more): ROUTER with `mandatory`, or STREAM.
    Unreachable,
    /// Anything else; trying again does not help.
    Failed(SocketError),
}

impl SendError {
    #[cold]
    pub(super) fn new(socket_type: SocketType, errno: Errno) -> SendError {
        match errno {
            Errno::EAGAIN => SendError::WouldBlock,
            Errno::EHOSTUNREACH => SendError::Unreachable,
            _ => SendError::Failed(SocketError::new(Operation::Send, socket_type, errno)),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::WouldBlock => {
                f.write_str("send: no room, or no peer yet; try again when writable")
            }
            SendError::Unreachable => {
                f.write_str("send: no such peer; it has gone or was never there")
            }
            SendError::Failed(error) => error.fmt(f),
        }
    }
}

impl Error for SendError {}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> io::Error {
        match error {
            SendError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, error),
            SendError::Unreachable => io::Error::new(io::ErrorKind::HostUnreachable, error),
            SendError::Failed(error) => error.into(),
        }
    }
}
