//! [`Frame`]: the bytes of one frame where libzmq keeps them.

use std::alloc::{Layout, handle_alloc_error};
use std::ffi::c_int;
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::slice;

use bytes::Bytes;
use zmq_sys::zmq_msg_t;

use super::Errno;
use crate::message::Frames;

/// One frame, in the memory of libzmq: 64 bytes, with up to 33 bytes of content
/// inside and larger content behind a pointer.
///
/// Receiving into the same frame again and again costs no allocation of ours.
/// Small frames of a tcp connection share its receive buffer of 8 KiB, so one
/// that is kept pins all of it: copy what you keep, or have a context
/// [without it](super::ContextBuilder::zero_copy_receive).
#[repr(transparent)]
pub struct Frame {
    /// Always initialised: every constructor calls one of zmq_msg_init*(3).
    message: zmq_msg_t,
}

// SAFETY: a zmq_msg_t belongs to no thread: its content is its own or counted
// atomically, and libzmq itself hands messages from thread to thread.
unsafe impl Send for Frame {}

// SAFETY: through `&Frame` the content and the flags are only read. Whatever
// writes to them, `share` included, takes `&mut`.
unsafe impl Sync for Frame {}

impl Frame {
    /// An empty frame, to receive into.
    #[inline]
    pub fn new() -> Frame {
        let mut message = MaybeUninit::uninit();
        // SAFETY: zmq_msg_init writes to all of the message that it will ever read,
        // and cannot fail.
        let message = unsafe {
            zmq_sys::zmq_msg_init(message.as_mut_ptr());
            message.assume_init()
        };
        Frame { message }
    }

    /// A frame with a copy of `bytes`: up to 33 bytes lie inside, more cost one
    /// allocation. Like `Vec`, it aborts the process if memory runs out.
    #[inline]
    pub fn copy_from(bytes: &[u8]) -> Frame {
        Frame::try_copy_from(bytes).unwrap_or_else(|_| handle_alloc_error(Layout::for_value(bytes)))
    }

    /// [`copy_from`](Frame::copy_from) that answers `ENOMEM` instead.
    pub fn try_copy_from(bytes: &[u8]) -> Result<Frame, Errno> {
        let mut frame = MaybeUninit::uninit();
        Frame::write_copy(&mut frame, bytes)?;
        // SAFETY: that was no error, so it is initialised.
        Ok(unsafe { frame.assume_init() })
    }

    /// Initialises `slot` with a copy of `bytes`, without moving a frame, which would
    /// wait for the scattered writes of libzmq to arrive in the cache. After an error
    /// `slot` is not initialised.
    #[inline]
    pub(super) fn write_copy(slot: &mut MaybeUninit<Frame>, bytes: &[u8]) -> Result<(), Errno> {
        let message = slot.as_mut_ptr().cast::<zmq_msg_t>();
        // SAFETY: a frame is laid out as its message. zmq_msg_init_size initialises it and
        // its content area of `bytes.len()` bytes, unless it fails, when nothing is read.
        // The area is fresh, so it does not overlap `bytes`.
        unsafe {
            if zmq_sys::zmq_msg_init_size(message, bytes.len()) != 0 {
                return Err(Errno::last());
            }
            let area = zmq_sys::zmq_msg_data(message).cast::<u8>();
            area.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        Ok(())
    }

    /// Puts a copy of `bytes` in place of what was in it. No frame is moved, as above.
    #[inline]
    pub(super) fn assign(&mut self, bytes: &[u8]) {
        // SAFETY: the message is initialised; it is not any more, until it is written below.
        unsafe { zmq_sys::zmq_msg_close(self.as_mut_ptr()) };
        // SAFETY: a frame may be seen as one that need not be initialised, and whatever
        // happens one is written.
        let slot = unsafe { &mut *std::ptr::from_mut(self).cast::<MaybeUninit<Frame>>() };
        if Frame::write_copy(slot, bytes).is_err() {
            slot.write(Frame::new());
            handle_alloc_error(Layout::for_value(bytes));
        }
    }

    /// A second frame with the same content: a large one is counted, not copied. Not
    /// for everybody: over inproc the first one may go to a `zmq::Message`, which can be
    /// written to.
    pub(super) fn share(&mut self) -> Frame {
        let mut copy = Frame::new();
        // SAFETY: both messages are initialised. It cannot fail: both are valid.
        unsafe { zmq_sys::zmq_msg_copy(copy.as_mut_ptr(), self.as_mut_ptr()) };
        copy
    }

    /// [`share`](Frame::share) in place of what was in `copy`: no frame is moved, which
    /// would wait for the scattered writes of libzmq to arrive in the cache.
    #[inline]
    pub(super) fn share_into(&mut self, copy: &mut Frame) {
        // SAFETY: as above; what was in `copy` is released.
        unsafe { zmq_sys::zmq_msg_copy(copy.as_mut_ptr(), self.as_mut_ptr()) };
    }

    /// The length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        // SAFETY: the message is initialised.
        unsafe { zmq_sys::zmq_msg_size(&self.message) }
    }

    /// Whether there are no bytes, which is normal for a delimiter.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it was received as a part of a message of which more parts follow.
    #[inline]
    pub fn more(&self) -> bool {
        // SAFETY: the message is initialised.
        unsafe { zmq_sys::zmq_msg_more(&self.message) != 0 }
    }

    /// The length, given what zmq_msg_recv(3) returned when it was received: that, unless
    /// it is more than a `c_int` holds.
    #[inline]
    pub(super) fn length_of(&self, received: c_int) -> usize {
        if received == c_int::MAX { self.len() } else { received as usize }
    }

    /// The content, given what zmq_msg_recv(3) returned when it was received.
    ///
    /// # Safety
    /// Its content is as long as it was then.
    #[inline]
    pub(super) unsafe fn bytes_of(&mut self, received: c_int) -> &[u8] {
        if received == c_int::MAX {
            return self;
        }
        debug_assert_eq!(received as usize, self.len());
        // SAFETY: the message is initialised, and its content is as long as libzmq has
        // said; for the rest see `deref`.
        unsafe {
            let data = zmq_sys::zmq_msg_data(self.as_mut_ptr()).cast::<u8>();
            slice::from_raw_parts(data, received as usize)
        }
    }

    #[inline]
    pub(super) fn as_mut_ptr(&mut self) -> *mut zmq_msg_t {
        &mut self.message
    }
}

impl Deref for Frame {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let message = &raw const self.message;
        // SAFETY: the message is initialised, so its content is `len` readable bytes
        // which nobody writes to while `self` is borrowed: messages that share the
        // content only read it, too. zmq_msg_data takes a mutable pointer but only reads.
        // Its pointer is not null, not even for an empty message.
        unsafe {
            let data = zmq_sys::zmq_msg_data(message.cast_mut()).cast::<u8>();
            slice::from_raw_parts(data, self.len())
        }
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the message is initialised and not used afterwards.
        unsafe { zmq_sys::zmq_msg_close(&mut self.message) };
    }
}

impl Default for Frame {
    fn default() -> Frame {
        Frame::new()
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for Frame {
    fn from(bytes: &[u8]) -> Frame {
        Frame::copy_from(bytes)
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Frame) -> bool {
        **self == **other
    }
}

impl Eq for Frame {}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Bytes::copy_from_slice(self).fmt(f)
    }
}

impl Frames for Frame {
    fn frame_count(&self) -> usize {
        1
    }
    fn frame(&self, index: usize) -> &[u8] {
        assert_eq!(index, 0, "a single frame was asked for frame {index}");
        self
    }
}

impl Frames for [Frame] {
    fn frame_count(&self) -> usize {
        self.len()
    }
    fn frame(&self, index: usize) -> &[u8] {
        &self[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_content_outlives_either_frame() {
        let large = vec![5; 100_000];
        let mut first = Frame::copy_from(&large);
        let mut second = first.share();
        assert_eq!(first.as_ptr(), second.as_ptr());
        let third = second.share();
        drop(first);
        drop(second);
        assert_eq!(*third, *large);
        let mut small = Frame::copy_from(b"small");
        assert_ne!(small.share().as_ptr(), small.as_ptr());
        assert_eq!(small.share(), small);
    }
}
