//! [`Parts`]: the frames of a message on its way out.

use std::mem::MaybeUninit;
use std::slice;

use smallvec::SmallVec;

use super::{Errno, Frame};

/// The frames of a message that is being sent, built in place. More than eight cost
/// one allocation.
pub(super) struct Parts {
    /// All of them are initialised, but are not dropped by themselves: after sending
    /// they are empty and need not be closed (zmq_msg_send(3)).
    slots: SmallVec<[MaybeUninit<Frame>; 8]>,
}

impl Parts {
    #[inline]
    pub(super) fn new() -> Parts {
        Parts { slots: SmallVec::new() }
    }

    /// Adds a frame with a copy of `bytes`.
    #[inline]
    pub(super) fn push_copy(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.slots.push(MaybeUninit::uninit());
        let last = self.slots.len() - 1;
        Frame::write_copy(&mut self.slots[last], bytes).inspect_err(|_| {
            self.slots.pop(); // it is not initialised
        })
    }

    #[inline]
    pub(super) fn as_mut_slice(&mut self) -> &mut [Frame] {
        let (pointer, length) = (self.slots.as_mut_ptr(), self.slots.len());
        // SAFETY: these are the slots, all of them initialised, borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(pointer.cast(), length) }
    }

    /// Forgets the frames, which were all sent.
    #[inline]
    pub(super) fn sent(mut self) {
        debug_assert!(self.as_mut_slice().iter().all(|frame| frame.is_empty()));
        self.slots.clear();
    }
}

impl Drop for Parts {
    #[inline]
    fn drop(&mut self) {
        for slot in &mut self.slots {
            // SAFETY: all slots are initialised, and not used afterwards.
            unsafe { slot.assume_init_drop() };
        }
    }
}
