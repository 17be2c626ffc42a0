//! [`FrameList`]: memory for the frames of one message, used again for the next.

use std::ffi::c_int;

use smallvec::SmallVec;

use super::{Errno, Frame, SendError, Socket};

/// How many frames are kept for the next message; a longer one allocates.
const KEPT: usize = 16;

/// The frames of the message last received. Receiving into the same frames again
/// spares initialising, moving and closing them for each message.
#[derive(Debug)]
pub(crate) struct FrameList {
    /// Holds the first frame, which most messages have only.
    first: Frame,
    /// The first frame was received ahead; whether more follow.
    ahead: Option<bool>,
    rest: Rest,
}

#[derive(Debug, Default)]
struct Rest {
    /// As many as are kept, once there was a message of more than one frame.
    kept: Vec<Frame>,
    /// How many of them hold content of this or an earlier message.
    used: usize,
    /// What a longer message has beyond them.
    long: Vec<Frame>,
}

/// The frames of one message, as a handler sees them.
pub(crate) type Slices<'f> = SmallVec<[&'f [u8]; KEPT]>;

impl FrameList {
    pub(crate) fn new() -> FrameList {
        FrameList { first: Frame::new(), ahead: None, rest: Rest::default() }
    }

    /// Receives a whole message. A message of one frame, as most are, is returned;
    /// one of more goes into `slices`, which is empty, and the answer is `None`.
    ///
    /// # Errors
    /// `EAGAIN` if there is none. libzmq hands a message over only when all of it is
    /// there, so between frames there is no error but `ETERM`, and then the socket
    /// has no use for the rest.
    #[inline(always)]
    pub(crate) fn receive<'f>(
        &'f mut self,
        socket: &Socket,
        slices: &mut Slices<'f>,
    ) -> Result<Option<&'f [u8]>, Errno> {
        let FrameList { first, ahead, rest, .. } = self;
        let received = match ahead.take() {
            Some(more) => (&**first, more),
            None => socket.receive_bytes(first)?,
        };
        match received {
            (bytes, false) => Ok(Some(bytes)),
            (bytes, true) => {
                slices.push(bytes);
                rest.receive(socket, |frame, length| {
                    // SAFETY: libzmq has just said its length.
                    slices.push(unsafe { frame.bytes_of(length) });
                })?;
                Ok(None)
            }
        }
    }

    /// Receives the first frame of a message if there is one, so that the next
    /// [`receive`](FrameList::receive), which must be from the same socket, has it.
    ///
    /// # Errors
    /// Those of [`Socket::receive`].
    #[inline]
    pub(crate) fn try_receive_ahead(&mut self, socket: &Socket) -> Result<(), Errno> {
        self.ahead = Some(socket.receive(&mut self.first)?);
        Ok(())
    }

    /// Blocks until there is a message and receives its first frame, so that the next
    /// [`receive`](FrameList::receive), which must be from the same socket, has it.
    ///
    /// # Errors
    /// Those of [`Socket::receive_blocking`].
    pub(crate) fn receive_ahead(&mut self, socket: &Socket) -> Result<(), Errno> {
        self.ahead = Some(socket.receive_blocking(&mut self.first)?);
        Ok(())
    }

    /// Lets go of all content, so that no receive buffer is kept alive by the last
    /// message of a batch.
    pub(crate) fn clear(&mut self) {
        if self.rest.used == 0 && self.first.is_empty() {
            return;
        }
        self.first = Frame::new();
        for frame in self.rest.kept.iter_mut().take(self.rest.used) {
            *frame = Frame::new();
        }
        self.rest.used = 0;
        self.rest.long = Vec::new();
    }
}

impl Rest {
    /// Receives the frames after the first. Apart, so that it is not in the way of those who
    /// receive single frames.
    #[inline(never)]
    fn receive<'f>(
        &'f mut self,
        socket: &Socket,
        mut each: impl FnMut(&'f mut Frame, c_int),
    ) -> Result<(), Errno> {
        let Rest { kept, used, long } = self;
        if kept.is_empty() {
            kept.resize_with(KEPT - 1, Frame::new);
        }
        for (index, frame) in kept.iter_mut().enumerate() {
            *used = (*used).max(index + 1);
            let length = socket.receive_raw(frame)?;
            let more = frame.more();
            each(frame, length);
            if !more {
                return Ok(());
            }
        }
        let mut lengths = Vec::new();
        long.clear();
        let mut more = true;
        while more {
            let mut frame = Frame::new();
            lengths.push(socket.receive_raw(&mut frame)?);
            more = frame.more();
            long.push(frame);
        }
        long.iter_mut().zip(lengths).for_each(|(frame, length)| each(frame, length));
        Ok(())
    }

    fn frames(&mut self) -> impl Iterator<Item = &mut Frame> {
        self.kept.iter_mut().chain(&mut self.long)
    }
}

/// A message that is received now and looked at later, when others have been received in
/// other places.
#[derive(Debug)]
pub(crate) struct Whole {
    list: FrameList,
    /// Of each frame of the message what zmq_msg_recv(3) returned. None of them gets another
    /// length before this is cleared.
    lengths: SmallVec<[c_int; KEPT]>,
}

impl Whole {
    pub(crate) fn new() -> Whole {
        Whole { list: FrameList::new(), lengths: SmallVec::new() }
    }

    /// Receives a message.
    ///
    /// # Errors
    /// Those of [`FrameList::receive`].
    #[inline]
    pub(crate) fn receive(&mut self, socket: &Socket) -> Result<(), Errno> {
        let Whole { list: FrameList { first, rest, .. }, lengths } = self;
        lengths.clear();
        lengths.push(socket.receive_raw(first)?);
        if first.more() {
            rest.receive(socket, |_, length| lengths.push(length))?;
        }
        Ok(())
    }

    /// The frames of the message; none when it was sent on.
    #[inline]
    pub(crate) fn frames(&mut self) -> Slices<'_> {
        let FrameList { first, rest, .. } = &mut self.list;
        let frames = std::iter::once(first).chain(rest.frames()).zip(&self.lengths);
        // SAFETY: these are the frames that were received, in order, and what was said of their
        // lengths then: see `lengths`.
        frames.map(|(frame, length)| unsafe { frame.bytes_of(*length) }).collect()
    }

    /// The first frame, after a message was received.
    #[inline]
    pub(crate) fn first_frame(&self) -> &[u8] {
        &self.list.first
    }

    /// Sends the message on, with a copy of `second` in place of its second frame.
    /// Nothing else is copied: its frames are empty afterwards, to be received into again.
    /// `count` is how many it has.
    ///
    /// # Errors
    /// Those of [`Socket::send`], but what has been sent of it by then is lost. That
    /// cannot happen on a socket that never blocks, as PUB does not.
    pub(crate) fn forward(
        &mut self,
        socket: &Socket,
        count: usize,
        second: &[u8],
    ) -> Result<(), SendError> {
        let Whole { list: FrameList { first, rest, .. }, lengths } = self;
        lengths.clear();
        if let Some(frame) = rest.kept.first_mut() {
            frame.assign(second);
        }
        let kept = rest.kept.len().min(count - 1);
        let parts = [&mut rest.kept[..kept], &mut rest.long[..count - 1 - kept]];
        socket.send_moving(first, parts)?;
        // Unless an earlier message was longer, nothing is left to be let go of.
        if rest.used <= kept {
            rest.used = 0;
        }
        Ok(())
    }

    /// Copies the small frames of the message that have no memory of
    /// their own. Those of up to 33 bytes have it. Larger ones may share the receive
    /// buffer of their connection, and one such frame that waits in a queue keeps all
    /// 8 KiB of it (libzmq's decoder_allocators.cpp): a queue of small messages could take a
    /// hundred times their size. From 1 KiB on it is at most eight times.
    pub(crate) fn unshare(&mut self) {
        const INSIDE: usize = 33;
        const LARGE: usize = 1024;
        let FrameList { first, rest, .. } = &mut self.list;
        let rest = rest.kept.iter_mut().take(rest.used).chain(&mut rest.long);
        for frame in std::iter::once(first).chain(rest) {
            if (INSIDE + 1..LARGE).contains(&frame.len()) {
                *frame = Frame::copy_from(frame);
            }
        }
    }

    /// Lets go of all content, as [`FrameList::clear`].
    pub(crate) fn clear(&mut self) {
        self.lengths.clear();
        if self.lengths.spilled() {
            self.lengths = SmallVec::new();
        }
        self.list.clear();
    }
}

impl Default for FrameList {
    fn default() -> FrameList {
        FrameList::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::pair;

    fn numbered(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|number| format!("frame {number} of {count}").into_bytes()).collect()
    }

    #[test]
    fn messages_of_any_length_follow_one_another() {
        let context = zmq::Context::new();
        let (left, right) = pair(&context).unwrap();
        let (mut list, mut whole) = (FrameList::new(), Whole::new());
        for count in [1, 5, KEPT, KEPT + 1, 1000, 2, 1] {
            let frames = numbered(count);
            left.send(&frames[..]).unwrap();
            let mut slices = Slices::new();
            if let Some(single) = list.receive(&right, &mut slices).unwrap() {
                slices.push(single);
            }
            assert_eq!(slices[..], frames);
            drop(slices);
            assert_eq!(list.receive(&right, &mut Slices::new()), Err(Errno::EAGAIN));
            // And the same to be looked at later.
            left.send(&frames[..]).unwrap();
            whole.receive(&right).unwrap();
            assert_eq!(whole.first_frame(), frames[0]);
            assert_eq!(whole.frames()[..], frames);
            assert_eq!(whole.receive(&right), Err(Errno::EAGAIN));
            assert!(whole.frames().is_empty());
            whole.clear();
            assert!(!whole.lengths.spilled());
        }
    }

    #[test]
    fn small_frames_can_have_memory_of_their_own() {
        let context = zmq::Context::new();
        let (left, right) = pair(&context).unwrap();
        let frames = [1, 33, 34, 1023, 1024, 5000].map(|length| vec![length as u8; length]);
        left.send(&frames[..]).unwrap();
        let mut whole = Whole::new();
        whole.receive(&right).unwrap();
        let before: Vec<*const u8> = whole.frames().iter().map(|slice| slice.as_ptr()).collect();
        whole.unshare();
        for ((frame, content), before) in whole.frames().iter().zip(&frames).zip(before) {
            assert_eq!(*frame, &content[..]);
            let moved = frame.as_ptr() != before;
            assert_eq!(moved, (34..1024).contains(&content.len()), "{} bytes", content.len());
        }
    }

    #[test]
    fn what_is_sent_on_is_the_message_but_for_its_second_frame() {
        let context = zmq::Context::new();
        let (left, right) = pair(&context).unwrap();
        let mut whole = Whole::new();
        for count in [2, 5, KEPT, KEPT + 1, 40, 3] {
            let mut frames = numbered(count);
            left.send(&frames[..]).unwrap();
            whole.receive(&right).unwrap();
            whole.forward(&right, count, b"another").unwrap();
            assert!(whole.frames().is_empty());
            frames[1] = b"another".to_vec();
            let sent_on = left.receive_message().unwrap().expect("a message");
            assert!(sent_on.iter().eq(&frames));
        }
    }
}
