//! [`Burst`]: the changes of one turn, several at a time, most of which go on in the very frames
//! they came in.

use smallvec::SmallVec;

use crate::clone::kvmsg::FRAMES;
use crate::socket::{AnyContext, Errno, FrameList, SendError, Slices, Socket};

/// Changes handled in one turn, before others have theirs, and published together. A
/// subscriber that has caught up sleeps, and to wake it costs the broker a system call, which
/// is a multiple of what the update costs: so it is woken once for many. The first of a full
/// burst waits some thirty microseconds; one that comes alone does not wait.
const LENGTH: usize = 64;

/// Changes received, in order: those handled, the one at work, those received ahead.
#[derive(Debug)]
pub(super) struct Burst {
    lists: Box<[FrameList]>,
    /// How many lists hold a change.
    received: usize,
    /// Of each that was handled its new sequence, if it waits to be published.
    handled: Handled,
    /// Whether frames that share a receive buffer are copied, see
    /// [`FrameList::unshare`].
    unshare: bool,
}

type Handled = SmallVec<[Option<[u8; 8]>; LENGTH]>;

/// Those that were handled, while the next change is at work.
pub(super) struct Waiting<'a> {
    lists: &'a mut [FrameList],
    sequences: &'a mut [Option<[u8; 8]>],
}

impl Burst {
    /// For changes that come to `endpoint`, where a socket of `context` is bound.
    pub(super) fn new(context: &impl AnyContext, endpoint: &str) -> Burst {
        let lists = (0..LENGTH).map(|_| FrameList::new()).collect();
        // Over inproc each frame has memory of its own.
        let unshare = context.handle().shares_receive_buffers() && !endpoint.starts_with("inproc:");
        Burst { lists, received: 0, handled: Handled::new(), unshare }
    }

    /// Receives up to `ahead` changes; false if there are no more, or no more room.
    ///
    /// # Errors
    /// Those of [`FrameList::receive`] but for `EAGAIN`; what was received before stays.
    #[inline]
    pub(super) fn receive(&mut self, changes: &Socket, ahead: usize) -> Result<bool, Errno> {
        for list in self.lists[self.received..].iter_mut().take(ahead) {
            match list.receive_whole(changes) {
                Ok(()) => self.received += 1,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        Ok(self.received < LENGTH)
    }

    /// The first frames of those that were received and not handled.
    #[inline]
    pub(super) fn keys_ahead(&self) -> impl Iterator<Item = &[u8]> {
        self.lists[self.handled.len()..self.received].iter().map(FrameList::first_frame)
    }

    /// The frames of the next change, and what waits before it; `None` if all are handled.
    #[inline]
    pub(super) fn next_change(&mut self) -> Option<(Slices<'_>, Waiting<'_>)> {
        let handled = self.handled.len();
        let (lists, rest) = self.lists[..self.received].split_at_mut(handled);
        Some((rest.first_mut()?.frames(), Waiting { lists, sequences: &mut self.handled }))
    }

    /// The change at work is handled. With a sequence it waits to be published under that.
    #[inline]
    pub(super) fn push(&mut self, sequence: Option<[u8; 8]>) {
        if self.unshare && sequence.is_some() {
            self.lists[self.handled.len()].unshare();
        }
        self.handled.push(sequence);
    }

    /// Publishes all that wait, and begins anew.
    #[inline]
    pub(super) fn flush(&mut self, updates: &Socket, failed: impl FnMut(SendError)) {
        let Burst { lists, handled, .. } = self;
        Waiting { lists, sequences: handled }.flush(updates, failed);
        self.clear();
    }

    /// Lets go of what was received and not published.
    pub(super) fn clear(&mut self) {
        self.handled.clear();
        self.lists.iter_mut().take(self.received + 1).for_each(FrameList::clear);
        self.received = 0;
    }
}

impl Waiting<'_> {
    /// Publishes them, with a call of `failed` for each that could not be.
    #[inline]
    pub(super) fn flush(&mut self, updates: &Socket, mut failed: impl FnMut(SendError)) {
        for (list, sequence) in self.lists.iter_mut().zip(&mut *self.sequences) {
            if let Some(sequence) = sequence.take()
                && let Err(error) = list.forward(updates, FRAMES, &sequence)
            {
                failed(error);
            }
        }
    }
}
