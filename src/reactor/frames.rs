//! [`FrameList`]: memory for the frames of one message, used again for the next.

use smallvec::SmallVec;

use crate::socket::{Errno, Frame, Socket};

/// How many frames are kept for the next message; a longer one allocates.
const KEPT: usize = 16;

/// The frames of the message last received. Receiving into the same frames again
/// spares initialising, moving and closing them for each message.
#[derive(Debug)]
pub(super) struct FrameList {
    /// Holds the first frame, which most messages have only.
    first: Frame,
    rest: Vec<Frame>,
    /// How many of the rest hold content of this or an earlier message.
    used: usize,
}

/// What was received.
pub(super) enum Received<'a> {
    /// A message of one frame.
    Single(&'a [u8]),
    /// A message of more, to be had as [`FrameList::slices`].
    Multipart { frames: usize },
}

impl FrameList {
    pub(super) fn new() -> FrameList {
        FrameList { first: Frame::new(), rest: Vec::new(), used: 0 }
    }

    /// Receives a whole message.
    ///
    /// # Errors
    /// `EAGAIN` if there is none. libzmq hands a message over only when all of it is
    /// there, so between frames there is no error but `ETERM`, and then the socket
    /// has no use for the rest.
    #[inline]
    pub(super) fn receive(&mut self, socket: &Socket) -> Result<Received<'_>, Errno> {
        let FrameList { first, rest, used } = self;
        match socket.receive_bytes(first)? {
            (bytes, false) => Ok(Received::Single(bytes)),
            (_, true) => Ok(Received::Multipart { frames: 1 + receive_rest(socket, rest, used)? }),
        }
    }

    /// All `count` frames of the message last received.
    pub(super) fn slices(&self, count: usize) -> SmallVec<[&[u8]; KEPT]> {
        let all = std::iter::once(&self.first).chain(&self.rest);
        all.take(count).map(|frame| &**frame).collect()
    }

    /// Lets go of all content, so that no receive buffer is kept alive by the last
    /// message of a batch.
    pub(super) fn clear(&mut self) {
        self.first = Frame::new();
        self.rest.truncate(KEPT);
        for frame in self.rest.iter_mut().take(self.used) {
            *frame = Frame::new();
        }
        self.used = 0;
    }
}

/// Receives the frames after the first and returns how many there are.
fn receive_rest(socket: &Socket, rest: &mut Vec<Frame>, used: &mut usize) -> Result<usize, Errno> {
    let mut count = 0;
    loop {
        if count == rest.len() {
            rest.push(Frame::new());
        }
        let more = socket.receive(&mut rest[count])?;
        count += 1;
        *used = count.max(*used);
        if !more {
            return Ok(count);
        }
    }
}

impl Default for FrameList {
    fn default() -> FrameList {
        FrameList::new()
    }
}
