//! Receiving: frame by frame where speed counts, whole messages elsewhere.

use std::ffi::c_int;

use bytes::Bytes;
use zmq_sys::ZMQ_DONTWAIT;

use super::error::Operation;
use super::{Errno, Frame, Socket, SocketError};
use crate::message::Multipart;

impl Socket {
    /// Receives the next frame, replacing the content of `frame`, without ever
    /// blocking. `true` if more frames of the same message follow; they are there
    /// already.
    ///
    /// This is zmq_msg_recv(3) and nothing else. After an error the content of `frame`
    /// is the old one or none.
    ///
    /// # Errors
    /// `EAGAIN` if there is nothing, `ETERM` if the context ended, `EFSM` out of turn
    /// (REQ, REP), `ENOTSUP` on a socket that only sends. Never `EINTR`.
    #[inline]
    pub fn receive(&self, frame: &mut Frame) -> Result<bool, Errno> {
        self.receive_raw(frame)?;
        Ok(frame.more())
    }

    /// [`receive`](Socket::receive) that also gives the bytes, for a loop that counts
    /// its calls: libzmq has just said how many there are.
    #[inline]
    pub(crate) fn receive_bytes<'f>(
        &self,
        frame: &'f mut Frame,
    ) -> Result<(&'f [u8], bool), Errno> {
        let length = self.receive_raw(frame)?;
        let more = frame.more();
        // SAFETY: libzmq has just said its length.
        Ok((unsafe { frame.bytes_of(length) }, more))
    }

    /// [`receive`](Socket::receive) that also tells the length, for those who do not look
    /// at the content.
    ///
    /// # Errors
    /// Those of [`receive`](Socket::receive).
    #[inline]
    pub(super) fn receive_length(&self, frame: &mut Frame) -> Result<(usize, bool), Errno> {
        let length = self.receive_raw(frame)?;
        Ok((frame.length_of(length), frame.more()))
    }

    /// [`receive`](Socket::receive) that gives what zmq_msg_recv(3) returned: the length, or
    /// the largest `c_int` if it is more than that.
    ///
    /// # Errors
    /// Those of [`receive`](Socket::receive).
    #[inline]
    pub(super) fn receive_raw(&self, frame: &mut Frame) -> Result<c_int, Errno> {
        loop {
            // SAFETY: the message is initialised, and the socket open as long as `self` is
            // there, and on this thread, for it is not `Sync`.
            let rc = unsafe {
                zmq_sys::zmq_msg_recv(frame.as_mut_ptr(), self.as_ptr(), ZMQ_DONTWAIT as c_int)
            };
            if rc >= 0 {
                return Ok(rc);
            }
            match Errno::last() {
                Errno::EINTR => {}
                errno => return Err(errno),
            }
        }
    }

    /// [`receive`](Socket::receive) that blocks until there is something, or for as long
    /// as the socket's receive timeout (`ZMQ_RCVTIMEO`) says.
    ///
    /// # Errors
    /// Those of [`receive`](Socket::receive), `EAGAIN` meaning that the time is over;
    /// `EINTR` if a signal arrived, upon which it must be called again, for libzmq may
    /// have taken the news of a message without handing it over.
    pub(crate) fn receive_blocking(&self, frame: &mut Frame) -> Result<bool, Errno> {
        // SAFETY: as in `receive_raw`.
        let rc = unsafe { zmq_sys::zmq_msg_recv(frame.as_mut_ptr(), self.as_ptr(), 0) };
        if rc >= 0 { Ok(frame.more()) } else { Err(Errno::last()) }
    }

    /// Receives a whole message and copies it; `None` if there is none.
    ///
    /// How long a message may get is up to the peer, unless a limit for its frames
    /// was set (`max_message_size`).
    ///
    /// # Errors
    /// Those of [`receive`](Socket::receive) but for `EAGAIN`.
    pub fn receive_message(&self) -> Result<Option<Multipart>, SocketError> {
        let mut message = Multipart::new();
        let mut frame = Frame::new();
        let there = self.receive_each(&mut frame, |frame| {
            message.push_back(Bytes::copy_from_slice(frame));
        })?;
        Ok(there.then_some(message))
    }

    /// Receives a whole message into `frames` without copying, replacing what was
    /// there; `false`, and no frames, if there is none.
    ///
    /// # Errors
    /// Those of [`receive`](Socket::receive) but for `EAGAIN`.
    pub fn receive_frames(&self, frames: &mut Vec<Frame>) -> Result<bool, SocketError> {
        frames.clear();
        let mut frame = Frame::new();
        self.receive_each(&mut frame, |frame| frames.push(std::mem::take(frame)))
    }

    /// What an error of [`receive`](Socket::receive) is called where it is reported.
    #[cold]
    pub(crate) fn receive_failed(&self, errno: Errno) -> SocketError {
        SocketError::new(Operation::Receive, self.socket_type(), errno)
    }

    fn receive_each(
        &self,
        frame: &mut Frame,
        mut take: impl FnMut(&mut Frame),
    ) -> Result<bool, SocketError> {
        let mut there = false;
        loop {
            match self.receive(frame) {
                Ok(more) => {
                    there = true;
                    take(frame);
                    if !more {
                        return Ok(true);
                    }
                }
                // libzmq hands over a message only when all of it is there.
                Err(Errno::EAGAIN) if !there => return Ok(false),
                Err(errno) => return Err(self.receive_failed(errno)),
            }
        }
    }
}
