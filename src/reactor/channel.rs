//! [`Sender`]: values from other threads to a handler in the loop.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};

pub use std::sync::mpsc::{SendError, TrySendError};

use super::context::{Context, Flow, Ready};
use super::key::SourceId;
use super::registry::Registry;
use super::sources::{Served, Source, no_slots};
use super::waker::Waker;

/// Sends values from any thread to a handler in the loop, in order.
///
/// The queue holds as many values as the channel was made for. A value sent costs
/// a system call only if the loop sleeps. When the last sender has gone and all
/// values have been handled, the channel removes itself from the reactor.
pub struct Sender<T> {
    // The order matters: when the last waker goes and tells the loop, all ends of the
    // queue have gone before it.
    queue: SyncSender<T>,
    waker: Waker,
}

impl<T> Sender<T> {
    /// Sends `value` unless the queue is full.
    ///
    /// # Errors
    /// `Full`, or `Disconnected` when the channel or its reactor is gone; the value is
    /// in the error.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.queue.try_send(value)?;
        self.waker.wake();
        Ok(())
    }

    /// Sends `value`, waiting for room if the queue is full. Not from the loop's own
    /// thread, which would wait for itself for ever.
    ///
    /// # Errors
    /// When the channel or its reactor is gone, at once or while waiting; the value is
    /// in the error.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        match self.try_send(value) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(value)) => Err(SendError(value)),
            Err(TrySendError::Full(value)) => {
                self.queue.send(value)?;
                self.waker.wake();
                Ok(())
            }
        }
    }

    /// The channel as a source, by which the reactor can remove it.
    pub fn source(&self) -> SourceId {
        match self.waker.source() {
            Some(source) => source,
            None => unreachable!("a channel's waker is made with its source"),
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { queue: self.queue.clone(), waker: self.waker.clone() }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("source", &self.source()).finish_non_exhaustive()
    }
}

/// The end in the loop.
struct Channel<T, H> {
    queue: Receiver<T>,
    handler: H,
}

impl<S, T, H> Source<S> for Channel<T, H>
where
    T: 'static,
    H: FnMut(&mut S, &mut Context<'_, S>, T) -> io::Result<Flow> + 'static,
{
    fn serve(
        &mut self,
        state: &mut S,
        cx: &mut Context<'_, S>,
        _ready: Ready,
        budget: u32,
    ) -> Served {
        for events in 0..u64::from(budget) {
            let value = match self.queue.try_recv() {
                Ok(value) => value,
                Err(TryRecvError::Empty) => {
                    return Served { events, more: false, result: Ok(Flow::Continue) };
                }
                Err(TryRecvError::Disconnected) => {
                    return Served { events, more: false, result: Ok(Flow::Remove) };
                }
            };
            cx.registry.stats.values_received += 1;
            let result = (self.handler)(state, cx, value);
            if !matches!(result, Ok(Flow::Continue)) || !cx.registry.may_have_another(cx.key) {
                return Served { events: events + 1, more: true, result };
            }
        }
        Served { events: u64::from(budget), more: true, result: Ok(Flow::Continue) }
    }

    fn as_any(&mut self) -> &mut dyn Any {
        &mut self.queue
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.queue)
    }
}

/// Channels.
impl<S> Registry<S> {
    /// A channel from other threads: `handler` gets each value, in the loop's thread,
    /// up to the [budget](super::Builder::budget) in one turn. `capacity` values (at
    /// least 1, allocated at once) wait at most; then senders are told `Full`, or wait.
    ///
    /// # Errors
    /// With 2^31 sources there is no slot left.
    pub fn channel<T: Send + 'static>(
        &mut self,
        capacity: usize,
        handler: impl FnMut(&mut S, &mut Context<'_, S>, T) -> io::Result<Flow> + 'static,
    ) -> io::Result<Sender<T>> {
        let (sender, queue) = mpsc::sync_channel(capacity.max(1));
        let id = self.insert_source(Channel { queue, handler }, None).map_err(|_| no_slots())?;
        let waker = Waker::new(Arc::clone(&self.wakes), Some(id));
        Ok(Sender { queue: sender, waker })
    }
}
