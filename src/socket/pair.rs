//! [`pair`]: a pipe of two PAIR sockets.

use super::{AnyContext, Socket, SocketError, SocketType};

/// Two PAIR sockets that are connected with each other within `context`: the
/// way of ZeroMQ to talk with another thread. Give one of them away.
///
/// Each direction holds up to 2,000 messages (the high-water marks of both ends);
/// then sending says [`WouldBlock`](super::SendError::WouldBlock).
///
/// # Errors
/// `EMFILE` if the context has no more sockets or the process no more
/// descriptors, `ETERM` if the context has ended.
pub fn pair(context: &impl AnyContext) -> Result<(Socket, Socket), SocketError> {
    let bound = Socket::new(context, SocketType::Pair)?;
    let connected = Socket::new(context, SocketType::Pair)?;
    // No two sockets alive have the same address, and a name is gone from its
    // context before the socket's memory is.
    let name = format!("inproc://pollux-pair-{:p}", bound.as_ptr());
    bound.bind(&name)?;
    connected.connect(&name)?;
    Ok((bound, connected))
}
