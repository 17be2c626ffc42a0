//! The seam between state machines and what carries their messages.

use smallvec::SmallVec;

use crate::clone::SendFailure;
use crate::socket::{SendError, Socket};

/// Something that takes whole messages: a ZeroMQ socket today.
///
/// The nodes send through this trait alone and receive borrowed
/// [`Message`](crate::Message)s from the loop, so that another transport can
/// take the sockets' place.
pub(super) trait Port {
    /// Sends one message, all frames or none, without ever blocking.
    fn send(&self, frames: &[&[u8]]) -> Result<(), SendFailure>;

    /// The same behind an envelope: the routing id of one peer.
    fn send_to(&self, peer: &[u8], frames: &[&[u8]]) -> Result<(), SendFailure> {
        let mut all: SmallVec<[&[u8]; 8]> = SmallVec::with_capacity(frames.len() + 1);
        all.push(peer);
        all.extend_from_slice(frames);
        self.send(&all)
    }
}

impl Port for Socket {
    fn send(&self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        Socket::send(self, frames).map_err(|error| match error {
            SendError::WouldBlock => SendFailure::WouldBlock,
            SendError::Unreachable => SendFailure::Unreachable,
            SendError::Failed(error) => {
                log::warn!("{error}");
                SendFailure::Unreachable
            }
        })
    }
}
