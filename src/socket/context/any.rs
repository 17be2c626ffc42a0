//! [`AnyContext`]: contexts of both kinds.

use std::panic::{self, AssertUnwindSafe};

use super::super::{Errno, SocketType};
use super::ZmqContext;

/// A context to make sockets in: a [`zmq::Context`] or a [`ZmqContext`].
///
/// It cannot be implemented elsewhere.
pub trait AnyContext: Sealed {
    /// Another handle on the same context.
    #[doc(hidden)]
    fn handle(&self) -> ContextHandle;
}

/// Keeps others from implementing [`AnyContext`].
pub trait Sealed {}

/// A handle on a context of either kind, kept for as long as its sockets.
#[derive(Clone)]
pub enum ContextHandle {
    /// That of the `zmq` crate.
    Zmq(zmq::Context),
    /// Ours.
    Own(ZmqContext),
}

impl ContextHandle {
    pub(in super::super) fn socket(&self, socket_type: SocketType) -> Result<zmq::Socket, Errno> {
        let context = match self {
            ContextHandle::Own(context) => return context.socket(socket_type),
            ContextHandle::Zmq(context) => context,
        };
        // The zmq crate panics on numbers it does not know. The one that can come here is
        // ENFILE.
        panic::catch_unwind(AssertUnwindSafe(|| context.socket(socket_type.into())))
            .map_err(|_| Errno::ENFILE)?
            .map_err(|error| Errno::from_raw(error.to_raw()))
    }

    /// Whether small frames that its sockets receive may share a receive buffer, see
    /// [`ContextBuilder::zero_copy_receive`](super::ContextBuilder::zero_copy_receive).
    /// The `zmq` crate cannot turn that off.
    pub(crate) fn shares_receive_buffers(&self) -> bool {
        match self {
            ContextHandle::Zmq(_) => true,
            ContextHandle::Own(context) => context.has_zero_copy_receive(),
        }
    }
}

impl std::fmt::Debug for ContextHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContextHandle").finish_non_exhaustive()
    }
}

impl AnyContext for zmq::Context {
    fn handle(&self) -> ContextHandle {
        ContextHandle::Zmq(self.clone())
    }
}

impl AnyContext for ZmqContext {
    fn handle(&self) -> ContextHandle {
        ContextHandle::Own(self.clone())
    }
}

impl AnyContext for ContextHandle {
    fn handle(&self) -> ContextHandle {
        self.clone()
    }
}

impl<C: AnyContext + ?Sized> AnyContext for &C {
    fn handle(&self) -> ContextHandle {
        (**self).handle()
    }
}

impl Sealed for zmq::Context {}
impl Sealed for ZmqContext {}
impl Sealed for ContextHandle {}
impl<C: Sealed + ?Sized> Sealed for &C {}
