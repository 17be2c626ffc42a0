//! [`Waker`]: how another thread gets the loop's attention.

use std::any::Any;
use std::fmt;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::context::{Context, Flow, Ready};
use super::key::SourceId;
use super::registry::Registry;
use super::sources::{Served, Source, no_slots};

/// Wakes a reactor from any thread.
///
/// Waking costs a system call only if the loop sleeps, else an atomic
/// operation or two. Wakes coalesce: however many come before the loop looks,
/// it wakes once, and the handler, if there is one, runs once. A wake is never
/// lost: what was written before [`wake`](Waker::wake) is seen by the handler
/// that runs after it.
///
/// Once the reactor is gone, waking does nothing.
#[derive(Clone)]
pub struct Waker {
    handle: Arc<Handle>,
}

/// One for all clones of a waker; the last one to go tells the loop.
struct Handle {
    state: Arc<WakeState>,
    queue: Arc<WakeQueue>,
}

/// What the handles of a waker share with its source in the loop.
#[derive(Debug)]
pub(super) struct WakeState {
    /// The source to serve. `None`: the loop is only to leave its sleep.
    pub(super) source: Option<SourceId>,
    /// It is in the queue of wakes.
    pending: AtomicBool,
    /// Woken since the handler last ran.
    woken: AtomicBool,
    /// No handle is left.
    abandoned: AtomicBool,
}

impl Waker {
    pub(super) fn new(queue: Arc<WakeQueue>, source: Option<SourceId>) -> Waker {
        let state = Arc::new(WakeState {
            source,
            pending: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        });
        Waker { handle: Arc::new(Handle { state, queue }) }
    }

    /// Interrupts the loop's sleep and has the waker's handler, if it has one, run
    /// in the loop's thread.
    pub fn wake(&self) {
        let Handle { state, queue } = &*self.handle;
        state.woken.store(true, Ordering::SeqCst);
        queue.push(state);
    }

    /// The source that it wakes, by which the reactor can remove it; `None` for a
    /// waker without a handler.
    pub fn source(&self) -> Option<SourceId> {
        self.handle.state.source
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("source", &self.source()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.state.abandoned.store(true, Ordering::SeqCst);
        if self.state.source.is_some() {
            self.queue.push(&self.state);
        }
    }
}

/// A waker's handler in the loop.
struct Woken<H> {
    state: Arc<WakeState>,
    handler: H,
}

impl<S, H> Source<S> for Woken<H>
where
    H: FnMut(&mut S, &mut Context<'_, S>) -> io::Result<Flow> + 'static,
{
    fn serve(
        &mut self,
        state: &mut S,
        cx: &mut Context<'_, S>,
        _ready: Ready,
        _budget: u32,
    ) -> Served {
        // In this order: once the last handle has gone, all wakes have been made.
        let abandoned = self.state.abandoned.load(Ordering::SeqCst);
        let woken = self.state.woken.swap(false, Ordering::SeqCst);
        let result = if woken { (self.handler)(state, cx) } else { Ok(Flow::Continue) };
        let result = match result {
            Ok(Flow::Continue) if abandoned => Ok(Flow::Remove),
            result => result,
        };
        // If it stops the loop with the last wake, it is still to be removed.
        Served { events: u64::from(woken), more: abandoned, result }
    }

    fn as_any(&mut self) -> &mut dyn Any {
        &mut self.handler
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.handler)
    }
}

/// Wakers.
impl<S> Registry<S> {
    /// A waker without a handler: it ends the loop's sleep, so that
    /// [`turn`](super::Reactor::turn) returns, and nothing else.
    pub fn waker(&self) -> Waker {
        Waker::new(Arc::clone(&self.wakes), None)
    }

    /// A waker whose `handler` runs in the loop's thread, once for all wakes made
    /// since it last ran. It is removed when the last clone of the waker is dropped.
    ///
    /// # Errors
    /// With 2^31 sources there is no slot left.
    pub fn add_waker(
        &mut self,
        handler: impl FnMut(&mut S, &mut Context<'_, S>) -> io::Result<Flow> + 'static,
    ) -> io::Result<Waker> {
        let key = self.sources.next_key().ok_or_else(no_slots)?;
        let waker = Waker::new(Arc::clone(&self.wakes), Some(SourceId(key)));
        let state = Arc::clone(&waker.handle.state);
        match self.insert_source(Woken { state, handler }, None) {
            Ok(id) => debug_assert_eq!(id.0, key),
            Err(_) => unreachable!("there was a free slot"),
        }
        Ok(waker)
    }
}

/// The wakes that the loop has not looked at, between it and everybody else.
pub(super) struct WakeQueue {
    waker: mio::Waker,
    /// The loop sleeps, or will before it looks at `any` again.
    sleeping: AtomicBool,
    /// Something was pushed since the loop last looked.
    any: AtomicBool,
    /// Each waker is in it at most once, so it is no longer than there are wakers.
    pending: Mutex<Vec<Arc<WakeState>>>,
}

impl WakeQueue {
    pub(super) fn new(waker: mio::Waker) -> WakeQueue {
        WakeQueue {
            waker,
            sleeping: AtomicBool::new(false),
            any: AtomicBool::new(false),
            pending: Mutex::new(Vec::new()),
        }
    }

    fn push(&self, state: &Arc<WakeState>) {
        if state.pending.swap(true, Ordering::SeqCst) {
            return;
        }
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(state));
        self.any.store(true, Ordering::SeqCst);
        // The loop sets `sleeping` and then looks at `any`; this sets `any` and then
        // looks at `sleeping`: one of the two sees the other.
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.interrupt();
        }
    }

    /// Makes the loop's current or next wait end at once.
    pub(super) fn interrupt(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("waking the reactor failed: {error}");
        }
    }

    /// Whether something was pushed that the loop has not taken yet.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Announces that the loop will sleep. `false` if it must not, because
    /// something was pushed.
    pub(super) fn fall_asleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        !self.any()
    }

    /// Whoever wakes from now on need not interrupt.
    pub(super) fn leave_sleep(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Moves the pending wakes into `taken`, which is empty.
    pub(super) fn take(&self, taken: &mut Vec<Arc<WakeState>>) {
        debug_assert!(taken.is_empty());
        self.any.store(false, Ordering::SeqCst);
        mem::swap(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner), taken);
        for state in &*taken {
            // From here on a wake counts anew, for the handler has yet to run. The swap
            // also reads, so that the handler sees what any earlier waker wrote.
            state.pending.swap(false, Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for WakeQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakeQueue").field("any", &self.any).finish_non_exhaustive()
    }
}
