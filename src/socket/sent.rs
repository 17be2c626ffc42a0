//! [`Sent`]: what a socket has sent.

use std::ops::{Add, Sub};

/// What a socket has sent since it was made: what libzmq has taken, whether or not
/// it has dropped it since (PUB, ROUTER).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Whole messages.
    pub(crate) messages: u64,
    /// Frames, those of messages that were broken off among them.
    pub(crate) frames: u64,
    /// Bytes of these frames.
    pub(crate) bytes: u64,
}

/// What was sent since an earlier reading.
impl Sub for Sent {
    type Output = Sent;
    fn sub(self, earlier: Sent) -> Sent {
        Sent {
            messages: self.messages - earlier.messages,
            frames: self.frames - earlier.frames,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

impl Add for Sent {
    type Output = Sent;
    #[inline]
    fn add(self, more: Sent) -> Sent {
        Sent {
            messages: self.messages + more.messages,
            frames: self.frames + more.frames,
            bytes: self.bytes + more.bytes,
        }
    }
}
