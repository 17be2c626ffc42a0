//! [`Registry`]: all that is registered with a reactor.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::builder::{Backend, Settings};
use super::context::{Context, Flow, Ready};
use super::key::{Key, SourceId, StaleKey};
use super::poller::{Found, Poller};
use super::slots::{SlotKey, Slots};
use super::sockets::SocketSlot;
use super::sources::SourceSlot;
use super::stats::{SharedStats, SourceStats, Stats};
use super::timers::Timers;
use super::waiting::Spins;
use super::waker::{WakeQueue, WakeState};
use crate::socket::FrameList;
use crate::time::Time;

pub(super) type ErrorHook<S> =
    Box<dyn FnMut(&mut S, &mut Context<'_, S>, io::Error) -> Flow + 'static>;

/// Everything that is registered with a [`Reactor`](super::Reactor): sockets, timers,
/// descriptors, signals, wakers, channels, their keys and counters.
///
/// Reactor and [`Context`] both give access to it, so whatever can be done while
/// the loop stands still can be done from a handler, too, at once.
pub struct Registry<S> {
    pub(super) settings: Settings,
    pub(super) poller: Poller,
    pub(super) clock: Clock,
    /// How long it need not be asked while there is work.
    pub(super) idle_poll_interval: Duration,
    /// When the poller was last asked.
    pub(super) polled_at: Time,
    pub(super) sockets: Slots<SocketSlot<S>>,
    pub(super) sources: Slots<SourceSlot<S>>,
    pub(super) timers: Timers<S>,
    /// What to serve, in the order in which it was found ready. A source is in it
    /// at most once; a key that has become stale is skipped.
    pub(super) queue: VecDeque<Queued>,
    /// Sockets that a handler had its hands on (only with the epoll backend).
    pub(super) touched: Cell<Vec<SlotKey>>,
    /// Sockets that a handler had in this turn, perhaps to send: what they sent is
    /// counted at the end of it.
    pub(super) handed_out: Cell<Vec<SlotKey>>,
    /// The socket that had the last message.
    pub(super) recent: Option<SlotKey>,
    /// What spinning was good for lately.
    pub(super) spins: Spins,
    /// How many sockets are waited for.
    pub(super) waited_for: usize,
    pub(super) wakes: Arc<WakeQueue>,
    /// Memory for what is taken from `wakes`.
    pub(super) woken: Vec<Arc<WakeState>>,
    /// Memory for what a poll finds.
    pub(super) found: Vec<Found>,
    /// Memory for the frames of a message.
    pub(super) frames: FrameList,
    pub(super) error_hook: Option<ErrorHook<S>>,
    /// A handler asked for the loop to stop.
    pub(super) stopping: bool,
    /// What a message handler returned, if it was not `Continue`.
    pub(super) returned: io::Result<Flow>,
    /// The handler that runs asked to be called again.
    pub(super) serve_again: bool,
    /// The poll descriptor was given away, so somebody else may sleep on it.
    pub(super) nested: Cell<bool>,
    pub(super) stats: Stats,
    pub(super) shared_stats: Option<Arc<SharedStats>>,
}

/// A source in the queue of what to serve.
#[derive(Clone, Copy, Debug)]
pub(super) enum Queued {
    Socket(SlotKey),
    Source(SlotKey),
}

/// The monotonic clock, and its reading in this turn.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
    pub(super) now: Time,
    pub(super) in_turn: bool,
}

impl Clock {
    /// Reads the clock; does not change `now`.
    #[inline]
    pub(super) fn read(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }
}

impl<S> Registry<S> {
    pub(super) fn new(settings: Settings) -> io::Result<Registry<S>> {
        let poller = Poller::new(settings.backend)?;
        let wakes = Arc::new(WakeQueue::new(poller.waker()?));
        Ok(Registry {
            idle_poll_interval: settings.idle_poll_interval(),
            settings,
            poller,
            clock: Clock { origin: Instant::now(), now: Time::ZERO, in_turn: false },
            polled_at: Time::ZERO,
            sockets: Slots::new(),
            sources: Slots::new(),
            timers: Timers::new(),
            queue: VecDeque::new(),
            touched: Cell::new(Vec::new()),
            handed_out: Cell::new(Vec::new()),
            recent: None,
            spins: Spins::default(),
            waited_for: 0,
            wakes,
            woken: Vec::new(),
            found: Vec::new(),
            frames: FrameList::new(),
            error_hook: None,
            stopping: false,
            returned: Ok(Flow::Continue),
            serve_again: false,
            nested: Cell::new(false),
            stats: Stats::default(),
            shared_stats: None,
        })
    }

    /// The time since the reactor was made. In a handler it is the clock's one reading
    /// of this turn, the same for all handlers; between turns the clock is read.
    #[inline]
    pub fn now(&self) -> Time {
        if self.clock.in_turn { self.clock.now } else { self.clock.read() }
    }

    /// Which backend the loop was built with.
    pub fn backend(&self) -> Backend {
        self.poller.backend()
    }

    /// Removes and drops whatever `key` names; a socket is closed. For those who
    /// want it back: [`remove`](Registry::remove), [`remove_source`](Registry::remove_source).
    ///
    /// # Errors
    /// [`StaleKey`] if it was removed before.
    pub fn discard(&mut self, key: impl Into<Key>) -> Result<(), StaleKey> {
        match key.into() {
            Key::Socket(key) => self.remove(key).map(drop),
            Key::Source(id) => self.take_source(id).map(drop).ok_or(StaleKey(id.into())),
            Key::Timer(key) => self.cancel(key),
        }
    }

    /// Whether `key` still names something.
    pub fn contains(&self, key: impl Into<Key>) -> bool {
        match key.into() {
            Key::Socket(key) => self.sockets.get(key.0).is_some(),
            Key::Source(id) => self.sources.get(id.0).is_some(),
            Key::Timer(key) => self.deadline(key).is_ok(),
        }
    }

    /// Sets what is done about errors: those that handlers return, and those of the
    /// sockets themselves. `cx.key()` says whose it is. The hook's answer is treated as
    /// if the handler had returned it, so [`Flow::Continue`] keeps the source. (A socket
    /// whose context was terminated is removed whatever the answer.)
    ///
    /// Unless set, errors are logged (`log::error!`), the source is removed, and the loop
    /// goes on. A hook that panics is dropped.
    pub fn on_error(
        &mut self,
        hook: impl FnMut(&mut S, &mut Context<'_, S>, io::Error) -> Flow + 'static,
    ) {
        self.error_hook = Some(Box::new(hook));
    }

    /// The counters of the whole reactor.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        let handed_out = self.handed_out.take();
        for slot in handed_out.iter().filter_map(|&key| self.sockets.get(key)) {
            stats.add_sent(slot.uncounted());
        }
        self.handed_out.set(handed_out);
        stats
    }

    /// The counters of one socket or other source.
    ///
    /// # Errors
    /// [`StaleKey`] if it was removed, and for timers, which have none.
    pub fn source_stats(&self, key: impl Into<Key>) -> Result<SourceStats, StaleKey> {
        let key = key.into();
        match key {
            Key::Socket(key) => self.sockets.get(key.0).map(|slot| {
                let mut stats = slot.stats;
                stats.add_sent(slot.uncounted());
                stats
            }),
            Key::Source(id) => self.sources.get(id.0).map(|slot| slot.stats),
            Key::Timer(_) => None,
        }
        .ok_or(StaleKey(key))
    }

    /// A copy of the counters for other threads, published once a turn from now on.
    pub fn shared_stats(&mut self) -> Arc<SharedStats> {
        Arc::clone(self.shared_stats.get_or_insert_default())
    }

    /// Whether anything can ever happen: without, waiting would be for ever.
    pub(super) fn has_work(&self) -> bool {
        self.waited_for > 0
            || !self.sources.is_empty()
            || self.timers.armed() > 0
            || !self.queue.is_empty()
    }

    #[inline]
    pub(super) fn queue_socket(&mut self, key: SlotKey) {
        if let Some(slot) = self.sockets.get_mut(key)
            && !slot.queued
        {
            slot.queued = true;
            self.queue.push_back(Queued::Socket(key));
        }
    }

    pub(super) fn queue_source(&mut self, id: SourceId, ready: Ready) {
        if let Some(slot) = self.sources.get_mut(id.0) {
            slot.ready = slot.ready.or(ready);
            if !slot.queued {
                slot.queued = true;
                self.queue.push_back(Queued::Source(id.0));
            }
        }
    }

    /// Queues what a poll finds.
    pub(super) fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut found = std::mem::take(&mut self.found);
        let result = self.poller.poll(&self.sockets, timeout, |one| found.push(one));
        for one in found.drain(..) {
            match one {
                Found::Socket(index) => {
                    if let Some((key, _)) = self.sockets.at(index) {
                        self.queue_socket(key);
                    }
                }
                Found::Source(index, ready) => {
                    if let Some((key, _)) = self.sources.at(index) {
                        self.queue_source(SourceId(key), ready);
                    }
                }
            }
        }
        self.found = found;
        result
    }
}

impl<S> fmt::Debug for Registry<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("sockets", &self.sockets)
            .field("sources", &self.sources)
            .field("timers", &self.timers)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}
