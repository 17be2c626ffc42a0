//! Sending: whole messages, never blocking, never losing one.

use std::ffi::c_int;

use smallvec::SmallVec;
use zmq_sys::{ZMQ_DONTWAIT, ZMQ_SNDMORE};

use super::error::Operation;
use super::{Errno, Frame, SendError, Socket, SocketError, SocketType};
use crate::message::Frames;

const LAST: c_int = ZMQ_DONTWAIT as c_int;
const MORE: c_int = (ZMQ_DONTWAIT | ZMQ_SNDMORE) as c_int;

/// All frames of a message but the last. Longer messages cost an allocation.
type Heads = SmallVec<[Frame; 7]>;

impl Socket {
    /// Sends a copy of `frames` as one message, all or nothing, without ever
    /// blocking. Up to 33 bytes a frame cost no allocation.
    ///
    /// A message that is not sent has never left the caller: send it again when
    /// the socket is writable, and the order is kept. Once it is accepted, libzmq
    /// keeps it until the peer takes it, the peer goes away, or the linger time
    /// ends.
    ///
    /// What libzmq drops on its own account is dropped here, too: PUB and XPUB
    /// (without `nodrop`) for a subscriber that is too slow, ROUTER (without
    /// `mandatory`) for a peer that is unknown or too slow.
    ///
    /// # Errors
    /// * [`SendError::WouldBlock`]: no room or no peer, or the peer that had been
    ///   chosen went away in the middle of the message. (On REQ the latter
    ///   counts as a request without a reply: unless it is `relaxed`, the next
    ///   attempt fails with `EFSM`, as when a peer dies with a request.)
    /// * [`SendError::Unreachable`]: no such peer.
    /// * [`SendError::Failed`]: no frame at all, no frame after the routing id
    ///   (ROUTER), not exactly two frames (STREAM), out of turn (REQ, REP), a
    ///   socket that only receives, a context that ended, no memory.
    pub fn send(&self, frames: &(impl Frames + ?Sized)) -> Result<(), SendError> {
        let count = frames.frame_count();
        self.check_count(count)?;
        let copy = |index| {
            Frame::try_copy_from(frames.frame(index))
                .map_err(|errno| SendError::new(self.socket_type(), errno))
        };
        // Memory must not run out after the first frame has gone.
        let mut heads = Heads::new();
        for index in 0..count - 1 {
            heads.push(copy(index)?);
        }
        self.transmit(&mut heads, &mut copy(count - 1)?)
    }

    /// Sends `frames` as one message without copying what is large, and leaves the
    /// list empty, with its capacity, for the next one.
    ///
    /// # Errors
    /// Those of [`send`](Socket::send); all frames are still there then.
    pub fn send_frames(&self, frames: &mut Vec<Frame>) -> Result<(), SendError> {
        self.check_count(frames.len())?;
        // A later frame may fail when the earlier ones have gone, so those that go first
        // are second handles on the content.
        if let Some((last, first)) = frames.split_last_mut() {
            let mut heads: Heads = first.iter_mut().map(Frame::share).collect();
            self.transmit(&mut heads, last)?;
        }
        frames.clear();
        Ok(())
    }

    /// Refuses what libzmq would take and then drop, or take for something else.
    #[inline]
    fn check_count(&self, count: usize) -> Result<(), SendError> {
        if self.frames.contains(&count) { Ok(()) } else { Err(self.wrong_count(count)) }
    }

    #[cold]
    fn wrong_count(&self, count: usize) -> SendError {
        let expected = match (self.frames.start(), self.frames.end()) {
            (1, 1) => "expected one frame (conflate)",
            (1, _) => "expected at least one frame",
            (_, 2) => "expected a routing id and one frame of data",
            _ => "expected a routing id and at least one frame more",
        };
        let problem = format!("{expected}, got {count}");
        SendError::Failed(SocketError::misuse(Operation::Send, self.socket_type(), problem))
    }

    fn transmit(&self, heads: &mut [Frame], last: &mut Frame) -> Result<(), SendError> {
        let first = if heads.is_empty() {
            self.send_part(last, LAST)
        } else {
            self.send_part(&mut heads[0], MORE)
        };
        if let Err(errno) = first {
            self.retry_first(heads, last, errno)?;
        }
        if heads.is_empty() {
            return Ok(());
        }
        for index in 1..heads.len() {
            if let Err(errno) = self.send_part(&mut heads[index], MORE) {
                self.finish_broken(&mut heads[index + 1..], Some(last), errno);
                return Err(SendError::new(self.socket_type(), errno));
            }
        }
        self.send_part(last, LAST).map_err(|errno| {
            self.finish_broken(&mut [], None, errno);
            SendError::new(self.socket_type(), errno)
        })
    }

    /// libzmq looks for news of peers (room made, connected) at most about every
    /// millisecond while sending, so a first "no" may be out of date: look, and ask
    /// once more.
    #[cold]
    fn retry_first(
        &self,
        heads: &mut [Frame],
        last: &mut Frame,
        errno: Errno,
    ) -> Result<(), SendError> {
        let outdated = matches!(errno, Errno::EAGAIN | Errno::EHOSTUNREACH);
        if !outdated || self.events().is_err() {
            return Err(SendError::new(self.socket_type(), errno));
        }
        match heads.first_mut() {
            Some(head) => self.send_part(head, MORE),
            None => self.send_part(last, LAST),
        }
        .map_err(|errno| SendError::new(self.socket_type(), errno))
    }

    /// After a frame that is not the first was refused, the peer being gone:
    /// sockets that balance load swallow the rest of that message, up to the frame
    /// without MORE (lb.cpp), and would take the next message for it. Others start
    /// afresh by themselves.
    #[cold]
    fn finish_broken(&self, heads: &mut [Frame], last: Option<&mut Frame>, errno: Errno) {
        use SocketType::{Dealer, Push, Req};
        if errno != Errno::EAGAIN || !matches!(self.socket_type(), Push | Dealer | Req) {
            return;
        }
        for head in heads {
            let _swallowed = self.send_part(head, MORE);
        }
        match last {
            Some(last) => drop(self.send_part(last, LAST)),
            // Without an end, REQ would leave the delimiter out of the next request. REP
            // ignores an empty frame alone.
            None if self.socket_type() == Req => drop(self.send_part(&mut Frame::new(), LAST)),
            None => {}
        }
    }

    /// One frame; it is empty afterwards, or untouched after an error.
    #[inline]
    fn send_part(&self, part: &mut Frame, flags: c_int) -> Result<(), Errno> {
        loop {
            // SAFETY: the message is initialised, and the socket open as long as `self` is
            // there, and on this thread, for it is not `Sync`.
            let rc = unsafe { zmq_sys::zmq_msg_send(part.as_mut_ptr(), self.as_ptr(), flags) };
            if rc >= 0 {
                return Ok(());
            }
            match Errno::last() {
                Errno::EINTR => {}
                errno => return Err(errno),
            }
        }
    }
}
