//! [`FrameList`]: memory for the frames of one message, used again for the next.

use smallvec::SmallVec;

use crate::socket::{Errno, Frame, Socket};

/// How many frames are kept for the next message; a longer one allocates.
const KEPT: usize = 16;

/// The frames of the message last received. Receiving into the same frames again
/// spares initialising, moving and closing them for each message.
#[derive(Debug, Default)]
pub(super) struct FrameList {
    frames: Vec<Frame>,
    /// How many frames hold content of this or an earlier message.
    used: usize,
}

impl FrameList {
    pub(super) const fn new() -> FrameList {
        FrameList { frames: Vec::new(), used: 0 }
    }

    /// Receives a whole message and says how many frames it has.
    ///
    /// # Errors
    /// `EAGAIN` if there is none. libzmq hands a message over only when all of it is
    /// there, so between frames there is no error but `ETERM`, and then the socket
    /// has no use for the rest.
    #[inline]
    pub(super) fn receive(&mut self, socket: &Socket) -> Result<usize, Errno> {
        let mut count = 0;
        loop {
            if count == self.frames.len() {
                self.frames.push(Frame::new());
            }
            let more = socket.receive(&mut self.frames[count])?;
            count += 1;
            if !more {
                self.used = self.used.max(count);
                return Ok(count);
            }
        }
    }

    /// The first frame of the message last received.
    #[inline]
    pub(super) fn first(&self) -> &[u8] {
        &self.frames[0]
    }

    /// All `count` frames of the message last received.
    pub(super) fn slices(&self, count: usize) -> SmallVec<[&[u8]; KEPT]> {
        self.frames[..count].iter().map(|frame| &**frame).collect()
    }

    /// Lets go of all content, so that no receive buffer is kept alive by the last
    /// message of a batch.
    pub(super) fn clear(&mut self) {
        self.frames.truncate(KEPT);
        for frame in self.frames.iter_mut().take(self.used) {
            *frame = Frame::new();
        }
        self.used = 0;
    }
}
