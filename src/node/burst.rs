//! [`Burst`]: changes that go on in the very frames they came in, several at a time.

use smallvec::SmallVec;

use crate::clone::kvmsg::FRAMES;
use crate::socket::{AnyContext, FrameList, SendError, Socket};

/// Changes that may wait until they are published together. A subscriber that has
/// caught up sleeps, and to wake it costs the broker a system call, which is a
/// multiple of what the update costs: so it is woken once for many. The first of a
/// full burst waits some thirty microseconds; one that comes alone does not wait.
const LENGTH: usize = 64;

/// Received changes that wait to be published, in order, and the change at work.
#[derive(Debug)]
pub(super) struct Burst {
    /// As many as `sequences` wait; the one behind them is at work.
    lists: Box<[FrameList]>,
    /// The new sequence of each that waits; never as many as there are lists.
    sequences: Sequences,
    /// Whether frames that share a receive buffer are copied, see
    /// [`FrameList::unshare`].
    unshare: bool,
}

type Sequences = SmallVec<[[u8; 8]; LENGTH]>;

/// Those that wait, while the next change is at work.
pub(super) struct Waiting<'a> {
    lists: &'a mut [FrameList],
    sequences: &'a mut Sequences,
}

impl Burst {
    /// For changes that come to `endpoint`, where a socket of `context` is bound.
    pub(super) fn new(context: &impl AnyContext, endpoint: &str) -> Burst {
        let lists = (0..LENGTH).map(|_| FrameList::new()).collect();
        // Over inproc each frame has memory of its own.
        let unshare = context.handle().shares_receive_buffers() && !endpoint.starts_with("inproc:");
        Burst { lists, sequences: Sequences::new(), unshare }
    }

    /// Where to receive the next change, and those that wait before it.
    #[inline]
    pub(super) fn split(&mut self) -> (&mut FrameList, Waiting<'_>) {
        let (lists, rest) = self.lists.split_at_mut(self.sequences.len());
        (&mut rest[0], Waiting { lists, sequences: &mut self.sequences })
    }

    /// The change at work waits from now on, to be published under this sequence.
    /// True: there is no room for another one, flush.
    #[inline]
    pub(super) fn push(&mut self, sequence: [u8; 8]) -> bool {
        if self.unshare {
            self.lists[self.sequences.len()].unshare();
        }
        self.sequences.push(sequence);
        self.sequences.len() == self.lists.len()
    }

    /// Publishes all that wait.
    #[inline]
    pub(super) fn flush(&mut self, updates: &Socket, failed: impl FnMut(SendError)) {
        Waiting { lists: &mut self.lists, sequences: &mut self.sequences }.flush(updates, failed);
    }

    /// Lets go of what was received and not published.
    pub(super) fn clear(&mut self) {
        self.sequences.clear();
        self.lists.iter_mut().for_each(FrameList::clear);
    }
}

impl Waiting<'_> {
    /// Publishes them, with a call of `failed` for each that could not be.
    #[inline]
    pub(super) fn flush(&mut self, updates: &Socket, mut failed: impl FnMut(SendError)) {
        for (list, sequence) in self.lists.iter_mut().zip(self.sequences.drain(..)) {
            if let Err(error) = list.forward(updates, FRAMES, &sequence) {
                failed(error);
            }
        }
    }
}
