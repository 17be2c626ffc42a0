//! Sending: whole messages, never blocking, never losing one.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use smallvec::SmallVec;
use zmq_sys::{ZMQ_DONTWAIT, ZMQ_SNDMORE};

use super::error::Operation;
use super::parts::Parts;
use super::{Errno, Frame, SendError, Sent, Socket, SocketError, SocketType};
use crate::message::Frames;

const LAST: c_int = ZMQ_DONTWAIT as c_int;
const MORE: c_int = (ZMQ_DONTWAIT | ZMQ_SNDMORE) as c_int;

/// Second handles on all frames of a message but the last. Longer messages cost an
/// allocation.
type Heads = SmallVec<[Frame; 7]>;

impl Socket {
    /// Sends a copy of `frames` as one message, all or nothing, without ever
    /// blocking. Frames of up to 33 bytes cost no allocation, nor do lists of up to
    /// eight frames.
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
        if count == 1 {
            return self.send_single(frames.frame(0));
        }
        // All are copied before the first one goes: then memory must not run out.
        let mut parts = Parts::new();
        for index in 0..count {
            let copied = parts.push_copy(frames.frame(index));
            copied.map_err(|errno| SendError::new(self.socket_type(), errno))?;
        }
        if let Some((last, heads)) = parts.as_mut_slice().split_last_mut() {
            self.transmit(heads, last)?;
        }
        parts.sent();
        Ok(())
    }

    #[inline]
    fn send_single(&self, bytes: &[u8]) -> Result<(), SendError> {
        let mut slot = MaybeUninit::uninit();
        Frame::write_copy(&mut slot, bytes)
            .map_err(|errno| SendError::new(self.socket_type(), errno))?;
        // SAFETY: that was no error, so it is initialised.
        let part = unsafe { slot.assume_init_mut() };
        let result = self.transmit(&mut [], part);
        if result.is_err() {
            // After sending it is empty and need not be closed (zmq_msg_send(3)).
            // SAFETY: it is still initialised, and not used afterwards.
            unsafe { slot.assume_init_drop() };
        }
        result
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

    /// Sends `frames` as one message without copying what is large. What is left in
    /// them afterwards is no matter, and after an error all of it is still there.
    pub(super) fn send_from(&self, frames: &mut [Frame]) -> Result<(), SendError> {
        self.check_count(frames.len())?;
        let Some((last, first)) = frames.split_last_mut() else { return Ok(()) };
        if !self.may_break_off() {
            return self.transmit(first, last);
        }
        let mut heads: Heads = first.iter_mut().map(Frame::share).collect();
        self.transmit(&mut heads, last)
    }

    /// zmq_msg_send(3) of a frame, uncounted, and what it returned: less than zero if it was
    /// not taken. Then comes [`send_again`](Socket::send_again).
    #[inline]
    pub(super) fn send_raw(&self, frame: &mut Frame, more: bool) -> c_int {
        let flags = if more { MORE } else { LAST };
        // SAFETY: as in `send_uncounted`.
        unsafe { zmq_sys::zmq_msg_send(frame.as_mut_ptr(), self.as_ptr(), flags) }
    }

    /// Sees to a frame that [`send_raw`](Socket::send_raw) has just not sent; it is the first
    /// of its message unless `following`.
    ///
    /// # Errors
    /// Those of [`send`](Socket::send).
    #[cold]
    pub(super) fn send_again(
        &self,
        frame: &mut Frame,
        following: bool,
        more: bool,
    ) -> Result<(), SendError> {
        let flags = if more { MORE } else { LAST };
        let sent = match Errno::last() {
            Errno::EINTR => self.send_uncounted(frame, flags),
            errno => Err(errno),
        };
        match sent {
            Ok(_) => Ok(()),
            Err(errno) if following => Err(self.broken_off(flags, errno)),
            Err(errno) => self.send_first_again(frame, flags, errno).map(drop),
        }
    }

    /// Counts what was sent uncounted.
    #[inline]
    pub(super) fn count_sent(&self, sent: Sent) {
        self.sent.set(self.sent.get() + sent);
    }

    /// Whether a message may be sent frame by frame as it comes: however many there will
    /// be, if more than one, it takes them. (Not REQ, which may have an earlier request to
    /// finish, nor STREAM and others with a fixed number.)
    pub(crate) fn takes_any_number_of_frames(&self) -> bool {
        self.frames.1 == u32::MAX && self.socket_type() != SocketType::Req
    }

    /// How many frames a message must have at least.
    pub(super) fn least_frames(&self) -> usize {
        self.frames.0 as usize
    }

    /// Sends second handles on `frames` as one message.
    pub(super) fn send_shared(&self, frames: &mut [Frame]) -> Result<(), SendError> {
        self.check_count(frames.len())?;
        let mut shared: Heads = frames.iter_mut().map(Frame::share).collect();
        match shared.split_last_mut() {
            Some((last, heads)) => self.transmit(heads, last),
            None => Ok(()),
        }
    }

    /// Whether a frame that is not the first can be refused when the ones before it
    /// have gone, as those do that send each message to one peer of their own choice:
    /// it may go away in between. (ROUTER and STREAM, whose peer was chosen for them,
    /// then drop the rest and say nothing; REP is a ROUTER; the others never refuse.)
    pub(super) fn may_break_off(&self) -> bool {
        use SocketType::{Dealer, Pair, Push, Req};
        matches!(self.socket_type(), Push | Dealer | Req | Pair)
    }

    /// Sends these frames as one message, each of which is empty afterwards. What has
    /// gone by then is lost if one of them fails.
    pub(super) fn send_moving(
        &self,
        first: &mut Frame,
        rest: [&mut [Frame]; 2],
    ) -> Result<(), SendError> {
        let mut left = rest[0].len() + rest[1].len();
        self.check_count(1 + left)?;
        if self.unfinished.get() {
            self.finish_request()?;
        }
        self.count(|sent| {
            self.send_first(first, if left > 0 { MORE } else { LAST }, sent)?;
            for frame in rest.into_iter().flatten() {
                left -= 1;
                self.send_next(frame, if left > 0 { MORE } else { LAST }, sent)?;
            }
            Ok(())
        })
    }

    /// Counts what is sent by `send`, at its end: a counter that is added to for each frame has
    /// to wait for all that libzmq wrote meanwhile.
    #[inline]
    fn count<T>(&self, send: impl FnOnce(&mut Sent) -> T) -> T {
        let mut sent = Sent::default();
        let result = send(&mut sent);
        self.count_sent(sent);
        result
    }

    /// Refuses what libzmq would take and then drop, or take for something else.
    #[inline]
    fn check_count(&self, count: usize) -> Result<(), SendError> {
        let (least, most) = self.frames;
        let is_right = count >= least as usize && (count <= most as usize || most == u32::MAX);
        if is_right { Ok(()) } else { Err(self.wrong_count(count)) }
    }

    #[cold]
    pub(super) fn wrong_count(&self, count: usize) -> SendError {
        let expected = match self.frames {
            (1, 1) => "expected one frame (conflate)",
            (1, _) => "expected at least one frame",
            (_, 2) => "expected a routing id and one frame of data",
            _ => "expected a routing id and at least one frame more",
        };
        let problem = format!("{expected}, got {count}");
        SendError::Failed(SocketError::misuse(Operation::Send, self.socket_type(), problem))
    }

    #[inline]
    fn transmit(&self, heads: &mut [Frame], last: &mut Frame) -> Result<(), SendError> {
        if self.unfinished.get() {
            self.finish_request()?;
        }
        self.count(|sent| match heads.split_first_mut() {
            None => self.send_first(last, LAST, sent),
            Some((first, heads)) => {
                self.send_first(first, MORE, sent)?;
                self.send_rest(heads, last, sent)
            }
        })
    }

    #[inline]
    fn send_first(&self, part: &mut Frame, flags: c_int, sent: &mut Sent) -> Result<(), SendError> {
        let bytes = self.send_uncounted(part, flags);
        let bytes = bytes.or_else(|errno| self.send_first_again(part, flags, errno))?;
        *sent = *sent + Sent { messages: u64::from(flags == LAST), frames: 1, bytes };
        Ok(())
    }

    /// libzmq looks for news of peers (room made, connected) at most about every
    /// millisecond while sending, so a first "no" may be out of date: look, and ask
    /// once more.
    #[cold]
    fn send_first_again(
        &self,
        part: &mut Frame,
        flags: c_int,
        errno: Errno,
    ) -> Result<u64, SendError> {
        let outdated = matches!(errno, Errno::EAGAIN | Errno::EHOSTUNREACH);
        let again = match outdated && self.events().is_ok() {
            true => self.send_uncounted(part, flags),
            false => Err(errno),
        };
        again.map_err(|errno| SendError::new(self.socket_type(), errno))
    }

    fn send_rest(
        &self,
        heads: &mut [Frame],
        last: &mut Frame,
        sent: &mut Sent,
    ) -> Result<(), SendError> {
        for head in heads {
            self.send_next(head, MORE, sent)?;
        }
        self.send_next(last, LAST, sent)
    }

    /// After a frame that is not the first was refused, the peer being gone: sockets
    /// that balance load swallow what follows up to a frame without MORE (lb.cpp), and
    /// would take the next message for it. Others start afresh by themselves.
    #[cold]
    fn broken_off(&self, flags: c_int, errno: Errno) -> SendError {
        use SocketType::{Dealer, Push, Req};
        if errno == Errno::EAGAIN && matches!(self.socket_type(), Push | Dealer | Req) {
            if flags == MORE {
                let _swallowed = self.send_uncounted(&mut Frame::new(), LAST);
            } else {
                self.unfinished.set(self.socket_type() == Req);
            }
        }
        SendError::new(self.socket_type(), errno)
    }

    /// A request that was refused with its very last frame: lb.cpp is through with it,
    /// but REQ is not and would leave the delimiter out of the next one (req.cpp). So
    /// it gets an end, an empty frame, which REP ignores for want of a delimiter.
    #[cold]
    fn finish_request(&self) -> Result<(), SendError> {
        self.count(|sent| self.send_first(&mut Frame::new(), LAST, sent))?;
        self.unfinished.set(false);
        Ok(())
    }

    /// A frame that is not the first.
    #[inline]
    fn send_next(&self, part: &mut Frame, flags: c_int, sent: &mut Sent) -> Result<(), SendError> {
        let bytes = self.send_uncounted(part, flags);
        let bytes = bytes.map_err(|errno| self.broken_off(flags, errno))?;
        *sent = *sent + Sent { messages: u64::from(flags == LAST), frames: 1, bytes };
        Ok(())
    }

    /// One frame; it is empty afterwards, or untouched after an error. Gives its bytes.
    #[inline]
    fn send_uncounted(&self, part: &mut Frame, flags: c_int) -> Result<u64, Errno> {
        loop {
            // SAFETY: the message is initialised, and the socket open as long as `self` is
            // there, and on this thread, for it is not `Sync`.
            let rc = unsafe { zmq_sys::zmq_msg_send(part.as_mut_ptr(), self.as_ptr(), flags) };
            if rc >= 0 {
                return Ok(rc as u64);
            }
            match Errno::last() {
                Errno::EINTR => {}
                errno => return Err(errno),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::Multipart;
    use crate::socket::Interest;

    const ENDPOINT: &str = "inproc://broken";

    /// A socket that has sent the first frame of a message to a peer which then went
    /// away, with the pipe between them not yet taken down: the peer has its part to
    /// do for that, and is not called before it is dropped.
    fn in_the_middle(socket_type: SocketType, peer: SocketType) -> (zmq::Context, Socket, Socket) {
        let context = zmq::Context::new();
        let socket = Socket::builder(socket_type).bind(ENDPOINT).build(&context).unwrap();
        let leaving = Socket::builder(peer).connect(ENDPOINT).build(&context).unwrap();
        assert!(socket.events().unwrap().writable);
        assert_eq!(socket.send_uncounted(&mut Frame::copy_from(b"first"), MORE), Ok(5));
        leaving.disconnect(ENDPOINT).unwrap();
        // Lets the socket know.
        socket.events().unwrap();
        (context, socket, leaving)
    }

    fn send_rest(socket: &Socket, frames: &[&str]) -> Result<(), SendError> {
        let (last, heads) = frames.split_last().unwrap();
        let mut heads: Heads = heads.iter().map(|text| Frame::copy_from(text.as_bytes())).collect();
        socket.send_rest(&mut heads, &mut Frame::copy_from(last.as_bytes()), &mut Sent::default())
    }

    fn receive(socket: &Socket) -> Multipart {
        socket.wait(Interest::READABLE, Some(Duration::from_secs(10))).unwrap();
        socket.receive_message().unwrap().expect("a message within the deadline")
    }

    #[test]
    fn a_broken_message_is_given_back_and_the_next_one_is_whole() {
        for (socket_type, peer) in [
            (SocketType::Push, SocketType::Pull),
            (SocketType::Dealer, SocketType::Dealer),
            (SocketType::Pair, SocketType::Pair),
        ] {
            // The frame that is refused is the last one, or one before.
            for rest in [&["last"][..], &["second", "last"], &["second", "third", "last"]] {
                let (context, socket, leaving) = in_the_middle(socket_type, peer);
                assert_eq!(send_rest(&socket, rest), Err(SendError::WouldBlock), "{socket_type}");
                drop(leaving);
                while socket.events().unwrap().writable {}
                let again = [&["first"], rest].concat();
                let next = Socket::builder(peer).connect(ENDPOINT);
                let mut peer = next.clone().build(&context).unwrap();
                while socket.send(&again[..]) != Ok(()) {
                    // A PAIR turns the next peer away until it is done with the one before.
                    // One that was not might get the message, and must not be closed.
                    if socket_type == SocketType::Pair && !peer.events().unwrap().writable {
                        peer = next.clone().build(&context).unwrap();
                    }
                }
                assert_eq!(receive(&peer), again.into_iter().map(str::to_owned).collect());
                assert_eq!(peer.receive_message(), Ok(None), "nothing of the broken message");
            }
        }
    }

    #[test]
    fn a_broken_request_counts_as_one_without_a_reply() {
        for rest in [&["last"][..], &["second", "last"]] {
            let (context, req, leaving) = in_the_middle(SocketType::Req, SocketType::Rep);
            assert_eq!(send_rest(&req, rest), Err(SendError::WouldBlock));
            drop(leaving);
            while req.events().unwrap().writable {}
            let rep = Socket::builder(SocketType::Rep).connect(ENDPOINT).build(&context).unwrap();
            // It is relaxed only after that, so that the same socket shows both.
            match req.send("again") {
                Err(SendError::Failed(error)) => assert_eq!(error.errno(), Errno::EFSM),
                other => panic!("{other:?}"),
            }
            req.as_zmq().set_req_relaxed(true).unwrap();
            while req.send("again") == Err(SendError::WouldBlock) {}
            assert_eq!(receive(&rep), Multipart::from(["again"]));
            rep.send("reply").unwrap();
            assert_eq!(receive(&req), Multipart::from(["reply"]));
        }
    }
}
