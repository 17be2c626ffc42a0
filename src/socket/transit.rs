//! [`Transit`]: a message on its way from one socket to another.

use std::ffi::c_int;

use super::{Errno, Frame, SendError, Sent, Socket};

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
    /// How many of `frames` and of what is kept may have content.
    used: usize,
    /// What was sent of a message whose last frame may be refused.
    kept: Kept,
}

/// Frames that were sent and may have to be sent again, to another peer.
#[derive(Debug, Default)]
struct Kept {
    /// The content of the first one, if it is short, as routing ids are: a copy costs less
    /// than a second handle, and nearly all messages of several frames have one.
    head: [u8; Kept::SHORT],
    /// How long that is, or `None` if there is a second handle instead.
    head_length: Option<usize>,
    /// Second handles on the others.
    spare: Vec<Frame>,
}

impl Kept {
    const SHORT: usize = 32;

    /// Keeps a frame that was just received, with what zmq_msg_recv(3) returned, when so
    /// many have been sent.
    #[inline]
    fn keep(&mut self, frame: &mut Frame, received: c_int, sent: usize) {
        if sent == 0 && received as usize <= Kept::SHORT {
            // SAFETY: it was just received, and this is what was said of its length.
            let content = unsafe { frame.bytes_of(received) };
            self.head[..content.len()].copy_from_slice(content);
            self.head_length = Some(content.len());
        } else {
            self.share(frame, sent);
        }
    }

    fn share(&mut self, frame: &mut Frame, sent: usize) {
        if sent == 0 {
            self.head_length = None;
        }
        let index = sent - usize::from(self.head_length.is_some());
        match self.spare.get_mut(index) {
            Some(spare) => frame.share_into(spare),
            None => self.spare.push(frame.share()),
        }
    }

    /// The frames that were sent, so many.
    fn take(&mut self, sent: usize) -> impl Iterator<Item = Frame> {
        let head = self.head_length.take().filter(|_| sent > 0);
        let shared = sent - usize::from(head.is_some());
        let head = head.map(|length| Frame::copy_from(&self.head[..length]));
        // (There are none if the socket never breaks off. It has failed for good then, and so
        // has the message.)
        head.into_iter().chain(self.spare.drain(..).take(shared))
    }
}

/// Why a message was not passed on.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// There is none.
    Receive(Errno),
    /// It was not taken: it is in hand, whole, and so many bytes long.
    Send(SendError, usize),
}

impl Transit {
    /// Receives messages and sends them on, each frame as soon as it is there, until there
    /// is none or `most` have gone; and what has. Only to a socket that [takes any
    /// number](Socket::takes_any_number_of_frames) of frames.
    ///
    /// A proxy does little else, so this looks at nothing but what libzmq returns, and has
    /// errors put into words when there is one.
    ///
    /// # Errors
    /// Those of [`receive`](Transit::receive) and of [`send`](Transit::send).
    pub(crate) fn pass(
        &mut self,
        from: &Socket,
        to: &Socket,
        most: u64,
    ) -> (Sent, Result<(), Stopped>) {
        self.count = 0;
        if self.frames.is_empty() {
            self.frames.push(Frame::new());
        }
        let frame = &mut self.frames[0];
        let (may_break_off, least) = (to.may_break_off(), to.least_frames());
        let (mut total, mut longest) = (Sent::default(), 1);
        let result = 'messages: loop {
            if total.messages == most {
                break Ok(());
            }
            let (mut sent, mut bytes) = (0, 0);
            loop {
                let length = match from.receive_raw(frame) {
                    Ok(length) => length,
                    Err(errno) => break 'messages Err(Stopped::Receive(errno)),
                };
                let more = frame.more();
                bytes += frame.length_of(length);
                if more && may_break_off {
                    self.kept.keep(frame, length, sent);
                }
                if !more && sent + 1 < least {
                    let error = to.wrong_count(sent + 1);
                    break 'messages Err(self.not_passed(from, error, sent, more, bytes));
                }
                if to.send_raw(frame, more) < 0
                    && let Err(error) = to.send_again(frame, sent > 0, more)
                {
                    // (Of a message that was broken off, the frames that went are counted.)
                    let gone = (bytes - frame.len()) as u64;
                    to.count_sent(Sent { messages: 0, frames: sent as u64, bytes: gone });
                    break 'messages Err(self.not_passed(from, error, sent, more, bytes));
                }
                sent += 1;
                if !more {
                    break;
                }
            }
            total = total + Sent { messages: 1, frames: sent as u64, bytes: bytes as u64 };
            longest = longest.max(sent);
        };
        self.used = self.used.max(longest);
        to.count_sent(total);
        (total, result)
    }

    /// Puts the message together of which `sent` frames have gone and the next one, which
    /// is there, was refused; `more` follow.
    #[cold]
    fn not_passed(
        &mut self,
        from: &Socket,
        error: SendError,
        sent: usize,
        more: bool,
        mut bytes: usize,
    ) -> Stopped {
        let refused = std::mem::take(&mut self.frames[0]);
        self.frames.clear();
        self.frames.extend(self.kept.take(sent));
        self.frames.push(refused);
        let mut more = more;
        while more {
            let mut frame = Frame::new();
            match from.receive_length(&mut frame) {
                Ok((length, follow)) => {
                    bytes += length;
                    more = follow;
                    self.frames.push(frame);
                }
                Err(errno) => return Stopped::Receive(errno),
            }
        }
        self.count = self.frames.len();
        self.used = self.count;
        Stopped::Send(error, bytes)
    }

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
    pub(crate) fn send(&mut self, socket: &Socket) -> Result<(), SendError> {
        socket.send_from(&mut self.frames[..self.count])?;
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
        for frames in [&mut self.frames, &mut self.kept.spare] {
            frames.truncate(KEPT);
            frames.shrink_to(KEPT);
            for frame in frames.iter_mut().take(self.used) {
                *frame = Frame::new();
            }
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
            assert_eq!(bytes, message.iter().map(bytes::Bytes::len).sum::<usize>());
            transit.send_copy(&inner_right).unwrap();
            transit.send(&inner_right).unwrap();
            for _ in 0..2 {
                assert_eq!(right.receive_message().unwrap().as_ref(), Some(&message));
            }
            if count > 5 {
                transit.clear();
                assert!(transit.frames.capacity() <= KEPT);
            }
        }
        assert_eq!(transit.receive(&inner_left), Err(Errno::EAGAIN));
    }

    #[test]
    fn what_is_passed_on_frame_by_frame_is_the_message() {
        let context = zmq::Context::new();
        let (left, inner_left) = pair(&context).unwrap();
        let (inner_right, right) = pair(&context).unwrap();
        let mut transit = Transit::default();
        for count in [1, 5, 1000, 2, 1] {
            let message = numbered(count);
            left.send(&message).unwrap();
            let (sent, result) = transit.pass(&inner_left, &inner_right, 1);
            result.unwrap();
            let bytes = message.bytes() as u64;
            assert_eq!(sent, Sent { messages: 1, frames: count as u64, bytes });
            assert_eq!(right.receive_message().unwrap(), Some(message));
            transit.clear();
            let kept = [&transit.frames, &transit.kept.spare].map(Vec::capacity);
            assert!(kept.iter().all(|&capacity| capacity <= KEPT), "{kept:?}");
        }
        let (sent, result) = transit.pass(&inner_left, &inner_right, 1);
        assert_eq!(sent, Sent::default());
        assert!(matches!(result, Err(Stopped::Receive(Errno::EAGAIN))), "there was a message");
    }

    #[test]
    fn what_is_not_passed_on_stays_whole() {
        let context = zmq::Context::new();
        let (left, inner) = pair(&context).unwrap();
        let lonely = Socket::new(&context, super::super::SocketType::Push).unwrap();
        for count in [1, 2, 30] {
            let message = numbered(count);
            left.send(&message).unwrap();
            let mut transit = Transit::default();
            let (sent, result) = transit.pass(&inner, &lonely, 10);
            let Err(Stopped::Send(SendError::WouldBlock, bytes)) = result else {
                panic!("somebody took it");
            };
            assert_eq!((sent, lonely.sent()), (Sent::default(), Sent::default()));
            assert_eq!(bytes, message.bytes());
            transit.send(&inner).unwrap();
            assert_eq!(left.receive_message().unwrap(), Some(message));
        }
    }

    /// The peer that was chosen goes away between two frames: each of them is there
    /// again, the ones that were sent, the refused one, and those to come.
    #[test]
    fn what_is_broken_off_is_put_together_again() {
        let context = zmq::Context::new();
        let (left, inner) = pair(&context).unwrap();
        let cases = [(2, 1), (5, 1), (5, 3), (40, 39)];
        let cases = cases.iter().flat_map(|case| [(case, true), (case, false)]);
        for (&(count, sent), is_short) in cases {
            let mut message = numbered(count);
            if !is_short {
                message.push_front(vec![1; Kept::SHORT + 1]);
                message.pop_back();
            }
            left.send(&message).unwrap();
            let mut transit = Transit::default();
            transit.frames.push(Frame::new());
            let mut bytes = 0;
            let mut more = true;
            for index in 0..=sent {
                let frame = &mut transit.frames[0];
                let length;
                (length, more) = inner.receive_length(frame).unwrap();
                bytes += length;
                if index < sent {
                    transit.kept.keep(frame, length as c_int, index);
                }
            }
            let stopped = transit.not_passed(&inner, SendError::WouldBlock, sent, more, bytes);
            let Stopped::Send(SendError::WouldBlock, bytes) = stopped else {
                panic!("{stopped:?}")
            };
            assert_eq!(bytes, message.bytes());
            transit.send(&inner).unwrap();
            assert_eq!(left.receive_message().unwrap(), Some(message));
        }
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
