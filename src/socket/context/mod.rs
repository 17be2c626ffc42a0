//! [`ZmqContext`]: what all sockets of a program live in, with its options and its end.

mod any;
mod builder;

use std::ffi::{c_int, c_void};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use any::AnyContext;
pub(crate) use any::ContextHandle;
pub use builder::ContextBuilder;

use super::error::Operation;
use super::{Errno, SocketError, SocketType};

/// A context of ZeroMQ: I/O threads, and a name space for inproc. A program has one.
///
/// All of the library that makes sockets takes one of these or a [`zmq::Context`]. This one
/// has in addition the [options](ContextBuilder) that the `zmq` crate cannot set, a
/// [`shutdown`](ZmqContext::shutdown) that does not wait, and an end that cannot hang
/// without a word. (`destroy` of the `zmq` crate waits for ever for sockets in use, and what is
/// dropped after it uses memory that is free: zmq 0.10.)
///
/// Clones are handles on the same context, and may be in other threads. So is each socket
/// made from it: the context ends with the last of all these, in whatever order they go,
/// and in the thread where that happens, which waits until what the sockets had accepted
/// is sent, at most for their linger times.
///
/// ```
/// # fn main() -> Result<(), pollux::socket::SocketError> {
/// use std::time::Duration;
/// use pollux::socket::{Socket, SocketType, ZmqContext};
///
/// let context = ZmqContext::builder().io_threads(2).max_sockets(10_000).build()?;
/// let push = Socket::builder(SocketType::Push).bind("tcp://127.0.0.1:*").build(&context)?;
/// push.close(Duration::from_secs(1))?; // what it had accepted is sent, or this says so
/// context.terminate(Duration::from_secs(1)).map_err(|in_use| in_use.error())?;
/// # Ok(())
/// # }
/// ```
pub struct ZmqContext {
    shared: Arc<Shared>,
}

/// What the handles of a context have in common.
struct Shared {
    raw: *mut c_void,
    count: Mutex<Count>,
    /// A handle has gone.
    gone: Condvar,
}

struct Count {
    handles: usize,
    terminated: bool,
}

// SAFETY: a context may be used by all threads at the same time (zmq_ctx_new(3)); that none
// uses it after it was terminated, `Count` sees to.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ZmqContext {
    /// A context with the options of libzmq: one I/O thread, 1,023 sockets.
    ///
    /// # Errors
    /// `ENOMEM`, or `EMFILE` if the process has no file descriptors left.
    pub fn new() -> Result<ZmqContext, SocketError> {
        // SAFETY: there is nothing to uphold.
        let raw = unsafe { zmq_sys::zmq_ctx_new() };
        if raw.is_null() {
            return Err(SocketError::new(Operation::Create, None, Errno::last()).about("context"));
        }
        let count = Mutex::new(Count { handles: 1, terminated: false });
        Ok(ZmqContext { shared: Arc::new(Shared { raw, count, gone: Condvar::new() }) })
    }

    /// Options, to be set: see [`ContextBuilder`].
    pub fn builder() -> ContextBuilder {
        ContextBuilder::new()
    }

    /// How many threads carry the messages of its sockets.
    pub fn io_threads(&self) -> u32 {
        self.get(builder::IO_THREADS)
    }

    /// How many sockets it may have at a time.
    pub fn max_sockets(&self) -> u32 {
        self.get(builder::MAX_SOCKETS)
    }

    /// Whether its new sockets allow IPv6.
    pub fn ipv6(&self) -> bool {
        self.get(builder::IPV6) != 0
    }

    /// Whether frames that its sockets receive share the buffer that they were read into, see
    /// [`ContextBuilder::zero_copy_receive`].
    pub fn has_zero_copy_receive(&self) -> bool {
        self.get(builder::ZERO_COPY_RECV) != 0
    }

    /// Ends whatever its sockets do, from any thread and without waiting (zmq_ctx_shutdown(3)):
    /// from now on they answer `ETERM`, waiting for them ends at once, and new ones cannot be
    /// made. A reactor [removes](crate::reactor::Registry::on_message) them. What they had
    /// accepted goes on being delivered, for their linger times.
    pub fn shutdown(&self) {
        // SAFETY: it is not terminated as long as there is a handle. It cannot fail.
        unsafe { zmq_sys::zmq_ctx_shutdown(self.shared.raw) };
    }

    /// Ends the context in order: [shuts it down](ZmqContext::shutdown), waits up to `patience`
    /// for other handles and sockets to go, and then until what the sockets had accepted was
    /// sent or their linger times are over.
    ///
    /// Which of the two it was, libzmq does not tell: [`Socket::close`](super::Socket::close)
    /// does, for one socket.
    ///
    /// # Errors
    /// [`StillInUse`] if some are left, with the context, to be tried again. It is shut down
    /// then, and ends when the last of them goes.
    pub fn terminate(self, patience: Duration) -> Result<(), StillInUse> {
        self.shutdown();
        let deadline = Instant::now().checked_add(patience);
        let mut count = self.shared.count();
        while count.handles > 1 {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => patience,
            };
            if left.is_zero() {
                let handles = count.handles - 1;
                drop(count);
                return Err(StillInUse { context: self, handles });
            }
            let waited = self.shared.gone.wait_timeout(count, left);
            count = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(count);
        // This is the last handle, whose drop does the rest.
        Ok(())
    }

    fn set(&self, option: builder::ContextOption, value: c_int) -> Result<(), SocketError> {
        // SAFETY: it is not terminated as long as there is a handle.
        match unsafe { zmq_sys::zmq_ctx_set(self.shared.raw, option.number, value) } {
            0 => Ok(()),
            _ => Err(SocketError::new(Operation::Set, None, Errno::last()).about(option.name)),
        }
    }

    fn get(&self, option: builder::ContextOption) -> u32 {
        // SAFETY: it is not terminated as long as there is a handle.
        let value = unsafe { zmq_sys::zmq_ctx_get(self.shared.raw, option.number) };
        value.unsigned_abs() // -1 only for options that it does not know
    }

    fn socket(&self, socket_type: SocketType) -> Result<zmq::Socket, Errno> {
        let number = zmq::SocketType::from(socket_type) as c_int;
        // SAFETY: it is not terminated as long as there is a handle.
        let socket = unsafe { zmq_sys::zmq_socket(self.shared.raw, number) };
        if socket.is_null() {
            return Err(Errno::last());
        }
        // SAFETY: it was made just now and nobody else has it; that it is closed before the
        // context is terminated, the handle beside it in `Socket` sees to.
        Ok(unsafe { zmq::Socket::from_raw(socket) })
    }
}

impl Clone for ZmqContext {
    fn clone(&self) -> ZmqContext {
        self.shared.count().handles += 1;
        ZmqContext { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for ZmqContext {
    fn drop(&mut self) {
        let mut count = self.shared.count();
        count.handles -= 1;
        let last = count.handles == 0 && !std::mem::replace(&mut count.terminated, true);
        drop(count);
        if !last {
            self.shared.gone.notify_all();
            return;
        }
        loop {
            // SAFETY: no other handle is left, so nobody uses the context any more. All its
            // sockets are closed, each having been dropped before its handle.
            let rc = unsafe { zmq_sys::zmq_ctx_term(self.shared.raw) };
            if rc == 0 || Errno::last() != Errno::EINTR {
                return;
            }
        }
    }
}

impl fmt::Debug for ZmqContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handles = self.shared.count().handles;
        f.debug_struct("ZmqContext").field("handles", &handles).finish_non_exhaustive()
    }
}

/// A context that could not be terminated, because others use it.
#[derive(Debug)]
#[must_use = "the context is in it"]
pub struct StillInUse {
    /// The context, shut down.
    pub context: ZmqContext,
    /// How many other handles and sockets there are.
    pub handles: usize,
}

impl StillInUse {
    /// What to tell the user; the context is dropped.
    pub fn error(self) -> SocketError {
        let problem = format!(
            "{} of its handles and sockets are still in use; drop them, or join their threads",
            self.handles
        );
        SocketError::misuse(Operation::Terminate, None, problem).about("context")
    }
}
