//! [`Socket::close`]: an end that says whether everything was sent.

use std::ffi::{CString, c_int};
use std::time::{Duration, Instant};

use mio::Interest;

use super::error::Operation;
use super::{Errno, Socket, SocketError, SocketType};

/// How much longer than the caller libzmq is patient: its clock counts whole milliseconds,
/// and may be one or two behind.
const MARGIN: Duration = Duration::from_millis(10);

/// A linger time is an `int` of milliseconds: 24 days.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64).saturating_sub(MARGIN);

/// Names tried for the monitor of a socket.
const NAME_TRIES: u32 = 1000;

impl Socket {
    /// Closes the socket and waits, up to `patience` (at most
    /// 24 days), until all messages that it had accepted
    /// were handed over: to the operating system (tcp, ipc), to the peer, which has read them and
    /// asked for more (inproc). `patience` takes the place of the linger time; and as this blocks,
    /// its place is after the loop.
    ///
    /// Dropping a socket does the same in the background, and says nothing about what is lost.
    /// What no peer was there for (PUB without a subscriber, ROUTER) had been dropped before.
    ///
    /// # Errors
    /// `ETIMEDOUT` if that was not done in time: what was left is lost, but over inproc, where the
    /// peer can still read it. `EINVAL`, `ETERM`,
    /// `EMFILE` if it cannot be known, for a socket that came by [`from_zmq`](Socket::from_zmq),
    /// or whose context has ended or has no socket left; it is closed all the same.
    pub fn close(self, patience: Duration) -> Result<(), SocketError> {
        let socket_type = self.socket_type();
        let endpoint = self.last_endpoint().unwrap_or_default();
        let failed = |errno| {
            let error = SocketError::new(Operation::Close, socket_type, errno);
            if endpoint.is_empty() { error } else { error.about(&endpoint) }
        };
        let patience = patience.min(LONGEST);
        self.set_linger(patience.saturating_add(MARGIN)).map_err(|error| failed(error.errno()))?;
        let end = self.watch_end()?.map_err(failed)?;
        let started = Instant::now();
        drop(self);
        end.wait(Interest::READABLE, Some(patience)).map_err(failed)?;
        // Asked after the time was read: the end of the context would look the same, but for
        // the answer here.
        let in_time = started.elapsed() <= patience.max(MARGIN);
        match end.receive_message()? {
            Some(_) if in_time => Ok(()),
            _ => Err(failed(Errno::ETIMEDOUT)),
        }
    }

    /// A socket that has something to receive as soon as this one has quite gone, after its
    /// lingering: its monitor tells of its own end then (zmq_socket_monitor(3)).
    fn watch_end(&self) -> Result<Result<Socket, Errno>, SocketError> {
        let Some(context) = self.context.as_deref() else {
            let problem = "expected a socket made here, got one of the zmq crate; \
                           it was closed, and whether it delivers everything is unknown";
            return Err(SocketError::misuse(Operation::Close, self.socket_type(), problem));
        };
        let connect = |name: &str| {
            let end = Socket::new(context, SocketType::Pair)?;
            end.set_linger(Duration::ZERO)?;
            end.connect(name)?;
            Ok(end)
        };
        // No two sockets alive have the same address. But one that was closed just now may have
        // had it, and its monitor may not be gone yet.
        let mut tries = 0..NAME_TRIES;
        Ok(loop {
            let Some(number) = tries.next() else { break Err(Errno::EADDRINUSE) };
            let name = format!("inproc://pollux-end-{:p}-{number}", self.as_ptr());
            match self.monitor_end(&name) {
                Ok(()) => break connect(&name).map_err(|error: SocketError| error.errno()),
                Err(Errno::EADDRINUSE) => {}
                Err(errno) => break Err(errno),
            }
        })
    }

    fn monitor_end(&self, name: &str) -> Result<(), Errno> {
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        let events = zmq_sys::ZMQ_EVENT_MONITOR_STOPPED as c_int;
        // SAFETY: the socket is open as long as `self` is there, and on this thread, for it is
        // not `Sync`; the string is terminated and only read.
        match unsafe { zmq_sys::zmq_socket_monitor(self.as_ptr(), name.as_ptr(), events) } {
            0 => Ok(()),
            _ => Err(Errno::last()),
        }
    }
}
