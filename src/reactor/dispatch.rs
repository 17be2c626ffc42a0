//! Serving what was found ready: the hot path.

use std::io;
use std::mem;

use mio::Interest;

use super::context::{Context, Flow, Ready};
use super::key::{Key, SocketKey, SourceId, TimerKey};
use super::registry::{Queued, Registry};
use super::slots::SlotKey;
use super::sockets::MessageHandler;
use super::sources::{Served, Source};
use super::timers::TimerHandler;
use crate::message::Message;
use crate::socket::{Errno, FrameList, Slices};

/// How many timers fire in one turn at most, before sockets have theirs again.
const TIMERS_PER_TURN: u64 = 1024;

/// A handler at work. If it panics, what it was registered for is removed while
/// the panic unwinds, and everything else is as if the handler had returned.
struct Running<'a, S> {
    cx: Context<'a, S>,
    returned: bool,
}

impl<'a, S> Running<'a, S> {
    fn new(registry: &'a mut Registry<S>, key: impl Into<Key>) -> Running<'a, S> {
        Running { cx: Context { registry, key: key.into() }, returned: false }
    }

    fn returned(mut self) {
        self.returned = true;
    }
}

impl<S> Drop for Running<'_, S> {
    fn drop(&mut self) {
        if !self.returned {
            self.cx.registry.clock.in_turn = false;
            // The handler may have removed it before it panicked.
            let _ = self.cx.registry.discard(self.cx.key);
        }
    }
}

/// A source at work, out of its slot.
struct Serving<'a, S> {
    running: Running<'a, S>,
    source: Option<Box<dyn Source<S>>>,
}

impl<S> Serving<'_, S> {
    fn serve(&mut self, state: &mut S, ready: Ready, budget: u32) -> Option<Served> {
        let served = self.source.as_mut()?.serve(state, &mut self.running.cx, ready, budget);
        self.running.returned = true;
        Some(served)
    }

    /// Puts the source back into its slot, unless the handler has removed it.
    fn put_back(&mut self, id: SourceId) {
        if let Some(slot) = self.running.cx.registry.sources.get_mut(id.0) {
            slot.source = self.source.take();
        }
    }
}

impl<S> Drop for Serving<'_, S> {
    /// It was removed, or its handler panics: end its registration with mio before
    /// the source goes.
    fn drop(&mut self) {
        if let Some(source) = &mut self.source {
            self.running.cx.registry.deregister_source(source.as_mut());
        }
    }
}

/// Messages of one socket on their way to its handler.
struct Batch<'a, S> {
    running: Running<'a, S>,
    key: SlotKey,
    frames: FrameList,
    counted: Counted,
}

#[derive(Default)]
struct Counted {
    messages: u64,
    /// Frames after the first of each message.
    more_frames: u64,
    bytes: u64,
}

/// Why a batch ended.
enum End {
    /// The socket said that there is nothing more.
    Drained,
    /// The budget is used up, or the loop stops: there may be more.
    Interrupted { exhausted: bool },
    /// The handler has removed or paused the socket.
    Withdrawn,
    /// The handler returned something else than `Continue`: see
    /// `Registry::returned`.
    Returned,
    /// The socket cannot receive.
    Failed(Errno),
}

impl<S> Batch<'_, S> {
    /// Receives and hands over up to `budget` messages.
    #[inline]
    fn run(&mut self, state: &mut S, handler: &mut MessageHandler<S>, budget: u64) -> End {
        loop {
            let cx = &mut self.running.cx;
            // Also whether it is still there: the handler may have removed it.
            let Some(slot) = cx.registry.sockets.get(self.key).filter(|slot| slot.receiving) else {
                return End::Withdrawn;
            };
            let mut slices = Slices::new();
            let go_on = match self.frames.receive(&slot.socket, &mut slices) {
                Ok(Some(frame)) => {
                    self.counted.bytes += frame.len() as u64;
                    handler(state, cx, Message::new(&[frame]))
                }
                Ok(None) => {
                    let message = Message::new(&slices);
                    self.counted.more_frames += message.len() as u64 - 1;
                    self.counted.bytes += message.bytes() as u64;
                    handler(state, cx, message)
                }
                Err(Errno::EAGAIN) => return End::Drained,
                // Not its turn to receive (REQ, REP). It has not looked for news, though.
                Err(Errno::EFSM) => match slot.socket.events() {
                    Ok(_) => return End::Drained,
                    Err(errno) => return End::Failed(errno),
                },
                Err(errno) => return End::Failed(errno),
            };
            self.counted.messages += 1;
            if !go_on {
                return End::Returned;
            }
            let exhausted = self.counted.messages == budget;
            if exhausted || self.running.cx.registry.stopping {
                return End::Interrupted { exhausted };
            }
        }
    }
}

impl<S> Drop for Batch<'_, S> {
    /// Also when the handler panics: its last message was handed over, too.
    fn drop(&mut self) {
        let Counted { mut messages, more_frames, bytes } = self.counted;
        messages += u64::from(!self.running.returned);
        let frames = messages + more_frames;
        let registry = &mut *self.running.cx.registry;
        registry.stats.messages_received += messages;
        registry.stats.frames_received += frames;
        registry.stats.bytes_received += bytes;
        if let Some(slot) = registry.sockets.get_mut(self.key) {
            slot.stats.events += messages;
            slot.stats.messages_received += messages;
            slot.stats.frames_received += frames;
            slot.stats.bytes_received += bytes;
        }
        self.frames.clear();
        registry.frames = mem::take(&mut self.frames);
    }
}

impl<S> Registry<S> {
    /// Serves what is in the queue now, each source once, and returns how many
    /// events were handled. What comes into the queue meanwhile waits.
    pub(super) fn serve_queue(&mut self, state: &mut S) -> u64 {
        let mut handled = 0;
        for _ in 0..self.queue.len() {
            handled += match self.queue.pop_front() {
                Some(Queued::Socket(key)) => self.serve_socket(state, key),
                Some(Queued::Source(key)) => self.serve_source(state, SourceId(key)),
                None => break,
            };
            if self.stopping {
                break;
            }
        }
        handled
    }

    fn serve_socket(&mut self, state: &mut S, key: SlotKey) -> u64 {
        let Some(slot) = self.sockets.get_mut(key) else { return 0 };
        slot.queued = false;
        let mut handled = 0;
        if slot.receiving {
            handled += self.serve_messages(state, key);
        }
        if !self.stopping {
            handled += self.serve_readiness(state, key);
        }
        if let Some(slot) = self.sockets.get(key)
            && !slot.is_waited_for()
            && let Err(errno) = slot.socket.events()
        {
            self.socket_failed(state, key, errno);
        }
        if handled == 0 {
            self.stats.spurious_wakes += 1;
            if let Some(slot) = self.sockets.get_mut(key) {
                slot.stats.spurious_wakes += 1;
            }
        }
        handled
    }

    fn serve_messages(&mut self, state: &mut S, key: SlotKey) -> u64 {
        let Some(slot) = self.sockets.get_mut(key) else { return 0 };
        let Some(mut handler) = slot.on_message.take() else { return 0 };
        let budget = u64::from(slot.budget);
        let frames = mem::take(&mut self.frames);
        let running = Running::new(self, SocketKey(key));
        let mut batch = Batch { running, key, frames, counted: Counted::default() };
        let end = batch.run(state, &mut handler, budget);
        batch.running.returned = true;
        let messages = batch.counted.messages;
        drop(batch);
        if let Some(slot) = self.sockets.get_mut(key) {
            slot.on_message = Some(handler);
        }
        if messages > 0 {
            self.recent = Some(key);
        }
        self.end_batch(state, key, end);
        messages
    }

    fn end_batch(&mut self, state: &mut S, key: SlotKey, end: End) {
        match end {
            End::Drained => {
                self.stats.receives_empty += 1;
                if let Some(slot) = self.sockets.get_mut(key) {
                    slot.touched.set(false);
                    slot.stats.receives_empty += 1;
                }
            }
            End::Interrupted { exhausted } => {
                self.queue_socket(key);
                self.stats.budgets_exhausted += u64::from(exhausted);
                if let Some(slot) = self.sockets.get_mut(key) {
                    slot.stats.budgets_exhausted += u64::from(exhausted);
                }
            }
            End::Withdrawn => {}
            End::Returned => {
                let result = mem::replace(&mut self.returned, Ok(Flow::Continue));
                self.obey(state, SocketKey(key).into(), result);
                self.queue_socket(key);
            }
            End::Failed(errno) => self.socket_failed(state, key, errno),
        }
    }

    /// Calls the `on_ready` handler of a socket if it is ready for what it waits for,
    /// and queues the socket again as long as it is.
    fn serve_readiness(&mut self, state: &mut S, key: SlotKey) -> u64 {
        let Some(slot) = self.sockets.get_mut(key) else { return 0 };
        if !slot.role.readiness || slot.interest.is_none() {
            return 0;
        }
        let events = match slot.socket.events() {
            Ok(events) => events,
            Err(errno) => {
                self.socket_failed(state, key, errno);
                return 0;
            }
        };
        slot.touched.set(false);
        let wanted = slot.wanted(events);
        if events.readable && slot.receiving {
            // It came since the last receive, and its edge is gone.
            self.queue_socket(key);
        }
        let Some(ready) = wanted else { return 0 };
        let Some(slot) = self.sockets.get_mut(key) else { return 0 };
        let Some(mut handler) = slot.on_ready.take() else { return 0 };
        slot.stats.events += 1;
        slot.drained = false;
        let mut running = Running::new(self, SocketKey(key));
        let result = handler(state, &mut running.cx, ready);
        running.returned();
        let mut is_done = false;
        if let Some(slot) = self.sockets.get_mut(key) {
            slot.on_ready.get_or_insert(handler);
            is_done = slot.drained && slot.interest == Some(Interest::READABLE);
            if is_done {
                slot.touched.set(false);
            }
        }
        if ready.readable {
            // What spinning is to look for is not a message to be received here.
            self.recent = None;
        }
        self.obey(state, SocketKey(key).into(), result);
        if !is_done {
            self.queue_socket(key);
        }
        1
    }

    /// A socket whose context has ended is removed in any case; and as others may
    /// be of the same context, all are asked.
    #[cold]
    fn socket_failed(&mut self, state: &mut S, key: SlotKey, errno: Errno) {
        let key = SocketKey(key);
        if errno != Errno::ETERM {
            self.obey(state, key.into(), Err(errno.into()));
            return;
        }
        let terminated: Vec<SocketKey> = self
            .sockets
            .iter()
            .filter(|(_, slot)| slot.socket.events() == Err(Errno::ETERM))
            .map(|(key, _)| SocketKey(key))
            .collect();
        for key in terminated {
            // The hook may have removed others, too.
            if !self.contains(key) {
                continue;
            }
            self.stats.sockets_terminated += 1;
            if self.failed(state, key.into(), errno.into()) == Flow::Stop {
                self.stopping = true;
            }
            // The hook may have removed it.
            let _ = self.discard(key);
        }
    }

    fn serve_source(&mut self, state: &mut S, id: SourceId) -> u64 {
        let budget = self.settings.budget.get();
        let Some(slot) = self.sources.get_mut(id.0) else { return 0 };
        slot.queued = false;
        if slot.paused {
            slot.held = true;
            return 0;
        }
        let ready = mem::take(&mut slot.ready);
        let Some(source) = slot.source.take() else { return 0 };
        let mut serving = Serving { running: Running::new(self, id), source: Some(source) };
        let Some(served) = serving.serve(state, ready, budget) else { return 0 };
        serving.put_back(id);
        drop(serving);
        if let Some(slot) = self.sources.get_mut(id.0) {
            let spurious = u64::from(served.events == 0);
            slot.stats.events += served.events;
            slot.stats.spurious_wakes += spurious;
            self.stats.spurious_wakes += spurious;
        }
        // A change that the handler made holds, whatever it returns.
        let applied = self.apply_interest(id);
        let result = served.result.and_then(|flow| applied.map(|()| flow));
        self.obey(state, id.into(), result);
        if served.more {
            self.queue_source(id, ready);
        }
        served.events
    }

    /// Fires timers that are due, one by one, and returns how many.
    pub(super) fn fire_timers(&mut self, state: &mut S) -> u64 {
        let now = self.clock.now;
        let mut fired = 0;
        self.timers.begin_pass(now);
        while fired < TIMERS_PER_TURN
            && !self.stopping
            && let Some(due) = self.timers.take_due(now)
        {
            fired += 1;
            let lateness_ns = due.lateness.as_nanos() as u64;
            self.stats.timer_lateness_max_ns = self.stats.timer_lateness_max_ns.max(lateness_ns);
            self.stats.timers_fired += 1;
            self.fire(state, due.key, due.handler);
        }
        self.timers.end_pass(now);
        fired
    }

    fn fire(&mut self, state: &mut S, key: TimerKey, mut handler: TimerHandler<S>) {
        let mut running = Running::new(self, key);
        let result = handler(state, &mut running.cx);
        running.returned();
        if !matches!(result, Ok(Flow::Continue)) {
            self.obey(state, key.into(), result);
        }
        self.timers.put_back(key, handler);
    }

    /// Does what a handler asked for by returning.
    #[inline]
    fn obey(&mut self, state: &mut S, key: Key, result: io::Result<Flow>) {
        let flow = match result {
            Ok(flow) => flow,
            Err(error) => self.failed(state, key, error),
        };
        match flow {
            Flow::Continue => {}
            // The handler may have removed it itself.
            Flow::Remove => drop(self.discard(key)),
            Flow::Stop => self.stopping = true,
        }
    }

    /// Asks the error hook what to do.
    #[cold]
    fn failed(&mut self, state: &mut S, key: Key, error: io::Error) -> Flow {
        self.stats.errors += 1;
        let Some(mut hook) = self.error_hook.take() else {
            log::error!("{key:?} is removed from the reactor: {error}");
            return Flow::Remove;
        };
        let mut running = Running::new(self, key);
        let flow = hook(state, &mut running.cx, error);
        running.returned();
        self.error_hook.get_or_insert(hook);
        flow
    }

    /// Sockets that a handler has touched since they were last seen empty are asked
    /// once more: the edge of their descriptor may be lost.
    pub(super) fn probe_touched(&mut self) {
        if self.touched.get_mut().is_empty() {
            return;
        }
        let mut touched = self.touched.take();
        for key in touched.drain(..) {
            let Some(slot) = self.sockets.get_mut(key) else { continue };
            if !slot.touched.replace(false) || slot.queued || slot.interest.is_none() {
                continue;
            }
            self.stats.dirty_probes += 1;
            slot.stats.dirty_probes += 1;
            // What fails is served, too: then the error shows.
            let served = match slot.socket.events() {
                Ok(events) => (events.readable && slot.receiving) || slot.wanted(events).is_some(),
                Err(_) => true,
            };
            if served {
                self.queue_socket(key);
            }
        }
        self.touched.set(touched);
    }

    /// Queues the sources that were woken from elsewhere.
    pub(super) fn take_wakes(&mut self) {
        if !self.wakes.any() {
            return;
        }
        let mut woken = mem::take(&mut self.woken);
        self.wakes.take(&mut woken);
        self.stats.wakes += woken.len() as u64;
        for state in woken.drain(..) {
            if let Some(id) = state.source {
                self.queue_source(id, Ready::default());
            }
        }
        self.woken = woken;
    }
}
