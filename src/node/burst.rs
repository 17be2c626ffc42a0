//! [`Burst`]: the changes of one turn, several at a time, most of which go on in the very frames
//! they came in.

use smallvec::SmallVec;

use crate::clone::kvmsg::FRAMES;
use crate::socket::{AnyContext, Errno, SendError, Slices, Socket, Whole};

/// Changes handled in one turn, before others have theirs, and published together. A
/// subscriber that has caught up sleeps, and to wake it costs the broker a system call, which
/// is a multiple of what the update costs: so it is woken once for many. The first of a full
/// burst waits some thirty microseconds; one that comes alone does not wait.
/// So many values are held until the end of a turn, as large as the limits allow (64 MiB, with 1 MiB
/// each); they had been in the socket's queue before.
const LENGTH: usize = 64;

/// Changes received, in order: those handled, the one at work, those received ahead.
#[derive(Debug)]
pub(super) struct Burst {
    places: Box<[Whole]>,
    /// How many places hold a change.
    received: usize,
    /// Of each that was handled its new sequence, if it waits to be published.
    handled: Handled,
    /// Of those handled so many first ones wait no more.
    done: usize,
    /// Whether frames that share a receive buffer are copied, see
    /// [`Whole::unshare`].
    unshare: bool,
}

type Handled = SmallVec<[Option<[u8; 8]>; LENGTH]>;

/// Those that were handled, while the next change is at work.
pub(super) struct Waiting<'a> {
    places: &'a mut [Whole],
    sequences: &'a mut [Option<[u8; 8]>],
    done: &'a mut usize,
}

impl Burst {
    /// For changes that come to `endpoint`, where a socket of `context` is bound.
    pub(super) fn new(context: &impl AnyContext, endpoint: &str) -> Burst {
        let places = (0..LENGTH).map(|_| Whole::new()).collect();
        // Over inproc each frame has memory of its own.
        let unshare = context.handle().shares_receive_buffers() && !endpoint.starts_with("inproc:");
        Burst { places, received: 0, handled: Handled::new(), done: 0, unshare }
    }

    /// Receives up to `ahead` changes; false if there are no more, or no more room.
    ///
    /// # Errors
    /// Those of [`Whole::receive`] but for `EAGAIN`; what was received before stays.
    #[inline]
    pub(super) fn receive(&mut self, changes: &Socket, ahead: usize) -> Result<bool, Errno> {
        for place in self.places[self.received..].iter_mut().take(ahead) {
            match place.receive(changes) {
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
        self.places[self.handled.len()..self.received].iter().map(Whole::first_frame)
    }

    /// The frames of the next change, and what waits before it; `None` if all are handled.
    #[inline]
    pub(super) fn next_change(&mut self) -> Option<(Slices<'_>, Waiting<'_>)> {
        let handled = self.handled.len();
        let (places, rest) = self.places[..self.received].split_at_mut(handled);
        let waiting = Waiting { places, sequences: &mut self.handled, done: &mut self.done };
        Some((rest.first_mut()?.frames(), waiting))
    }

    /// The change at work is handled. With a sequence it waits to be published under that.
    #[inline]
    pub(super) fn push(&mut self, sequence: Option<[u8; 8]>) {
        let place = &mut self.places[self.handled.len()];
        if sequence.is_none() {
            // Whatever was refused may be large, and a turn may have many.
            place.clear();
        } else if self.unshare {
            place.unshare();
        }
        self.handled.push(sequence);
    }

    /// Publishes all that wait, with a call of `failed` for each that could not be.
    #[inline]
    pub(super) fn flush(&mut self, updates: &Socket, failed: impl FnMut(SendError)) {
        let Burst { places, handled, done, .. } = self;
        Waiting { places, sequences: handled, done }.flush(updates, failed);
    }

    /// How many wait to be published.
    pub(super) fn waiting(&self) -> usize {
        self.handled.iter().flatten().count()
    }

    /// Lets go of all, be it published or not.
    pub(super) fn clear(&mut self) {
        self.handled.clear();
        self.done = 0;
        // One more: a message may have ended half way, with the context.
        self.places.iter_mut().take(self.received + 1).for_each(Whole::clear);
        self.received = 0;
    }
}

impl Waiting<'_> {
    /// Publishes them, with a call of `failed` for each that could not be.
    #[inline]
    pub(super) fn flush(&mut self, updates: &Socket, mut failed: impl FnMut(SendError)) {
        let handled = self.places.iter_mut().zip(&mut *self.sequences);
        for (place, sequence) in handled.skip(*self.done) {
            if let Some(sequence) = sequence.take()
                && let Err(error) = place.forward(updates, FRAMES, &sequence)
            {
                failed(error);
            }
        }
        *self.done = self.sequences.len();
    }
}
