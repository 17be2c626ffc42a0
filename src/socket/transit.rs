//! [`Transit`]: a message on its way from one socket to another.

use super::{Errno, Frame, SendError, Socket};

/// How many frames are kept to receive into; a longer message allocates.
const KEPT: usize = 16;

/// A message between two sockets, in the frames in which it was received: nothing of
/// it is copied, and it stays whole until the other socket has taken all of it.
#[derive(Debug, Default)]
pub(crate) struct Transit {
    /// Those before `count` are the message in hand; the others are kept to receive
    /// into, with whatever is left of earlier messages.
    frames: Vec<Frame>,
    /// 0 <= count <= frames.len()
    count: usize,
    /// How many frames may have content: count <= used <= frames.len()
    used: usize,
    /// Memory to send from; empty between messages.
    spare: Vec<Frame>,
}

impl Transit {
    /// Receives a whole message in place of the one before, and returns its length
    /// in bytes.
    ///
    /// # Errors
    /// Those of [`Socket::receive`]; there is no message in hand then.
    #[inline]
    pub(crate) fn receive(&mut self, socket: &Socket) -> Result<usize, Errno> {
        self.count = 0;
        let (mut count, mut bytes) = (0, 0);
        loop {
            if count == self.frames.len() {
                self.frames.push(Frame::new());
            }
            let (length, more) = socket.receive_length(&mut self.frames[count])?;
            bytes += length;
            count += 1;
            self.used = self.used.max(count);
            if !more {
                self.count = count;
                return Ok(bytes);
            }
        }
    }

    /// Sends the message in hand, all or nothing, and has none in hand then.
    ///
    /// # Errors
    /// Those of [`Socket::send`]; the message is still in hand, whole.
    #[inline]
    pub(crate) fn send(&mut self, socket: &Socket) -> Result<(), SendError> {
        socket.send_from(&mut self.frames[..self.count], &mut self.spare)?;
        self.count = 0;
        Ok(())
    }

    /// Sends a second handle on the message, which stays in hand. Large frames are
    /// counted, not copied.
    ///
    /// # Errors
    /// Those of [`Socket::send`].
    pub(crate) fn send_copy(&mut self, socket: &Socket) -> Result<(), SendError> {
        socket.send_shared(&mut self.frames[..self.count])
    }

    /// The frames of the message in hand and no others, to be changed at will. Call
    /// [`changed`](Transit::changed) afterwards.
    pub(crate) fn frames_mut(&mut self) -> &mut Vec<Frame> {
        self.frames.truncate(self.count);
        &mut self.frames
    }

    /// Takes what is in the list of frames for the message in hand, and returns its
    /// length in bytes.
    pub(crate) fn changed(&mut self) -> usize {
        self.count = self.frames.len();
        self.used = self.count;
        self.frames.iter().map(Frame::len).sum()
    }

    /// Lets go of all content, so that no receive buffer is kept alive by the last
    /// message of a batch, nor much memory by a long one.
    pub(crate) fn clear(&mut self) {
        self.frames.truncate(KEPT);
        self.spare.truncate(KEPT);
        for frame in self.frames.iter_mut().take(self.used) {
            *frame = Frame::new();
        }
        (self.count, self.used) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Multipart;
    use crate::socket::pair;

    fn numbered(count: usize) -> Multipart {
        (0..count).map(|number| format!("frame {number} of {count}")).collect()
    }

    #[test]
    fn messages_of_any_length_go_on_as_they_came() {
        let context = zmq::Context::new();
        let (left, inner_left) = pair(&context).unwrap();
        let (inner_right, right) = pair(&context).unwrap();
        let mut transit = Transit::default();
        for count in [1, 5, KEPT, KEPT + 1, 1000, 2, 1] {
            let message = numbered(count);
            left.send(&message).unwrap();
            let bytes = transit.receive(&inner_left).unwrap();
            assert_eq!(bytes, message.iter().map(bytes::Bytes::len).sum());
            transit.send_copy(&inner_right).unwrap();
            transit.send(&inner_right).unwrap();
            for _ in 0..2 {
                assert_eq!(right.receive_message().unwrap().as_ref(), Some(&message));
            }
            if count > 5 {
                transit.clear();
                assert!(transit.frames.len() <= KEPT);
            }
        }
        assert_eq!(transit.receive(&inner_left), Err(Errno::EAGAIN));
    }

    #[test]
    fn what_is_not_taken_stays_whole() {
        let context = zmq::Context::new();
        let (left, inner) = pair(&context).unwrap();
        let lonely = Socket::new(&context, super::super::SocketType::Push).unwrap();
        let message = numbered(3);
        left.send(&message).unwrap();
        let mut transit = Transit::default();
        transit.receive(&inner).unwrap();
        assert_eq!(transit.send(&lonely), Err(SendError::WouldBlock));
        assert_eq!(transit.send_copy(&lonely), Err(SendError::WouldBlock));
        transit.send(&inner).unwrap();
        assert_eq!(left.receive_message().unwrap(), Some(message));
    }
}
