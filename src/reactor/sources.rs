//! Sources other than sockets and timers: file descriptors and mio sources here,
//! wakers, channels and signals in files of their own.

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use mio::event::Source as MioSource;
use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::context::{Context, Flow, Ready};
use super::key::{Key, Rejected, SourceId, SourceKey, StaleKey};
use super::poller;
use super::registry::Registry;
use super::stats::SourceStats;

/// A source with its handler: the one owns the other, so that the handler can
/// be given the source by `&mut` while both are out of their slot.
pub(super) trait Source<S> {
    /// Calls the handler, for up to `budget` events.
    fn serve(
        &mut self,
        state: &mut S,
        cx: &mut Context<'_, S>,
        ready: Ready,
        budget: u32,
    ) -> Served;

    /// Registers with mio, changes that, or ends it. Nothing to do for a source
    /// that is woken otherwise.
    fn control(&mut self, _mio: &mio::Registry, _control: Control) -> io::Result<()> {
        Ok(())
    }

    /// What the application handed over.
    fn as_any(&mut self) -> &mut dyn Any;

    /// What the application handed over, back.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// What became of a source that was served.
pub(super) struct Served {
    /// Calls of the handler.
    pub(super) events: u64,
    /// Whether to serve it again in the next turn.
    pub(super) more: bool,
    pub(super) result: io::Result<Flow>,
}

#[derive(Clone, Copy)]
pub(super) enum Control {
    Register(Token, Interest),
    Reregister(Token, Interest),
    Deregister,
}

pub(super) struct SourceSlot<S> {
    /// `None` while it runs.
    pub(super) source: Option<Box<dyn Source<S>>>,
    /// What was found and not yet handed on.
    pub(super) ready: Ready,
    /// It is in the queue of what to serve.
    pub(super) queued: bool,
    /// What it is to be waited for with mio, if it has to do with mio at all.
    pub(super) interest: Option<Interest>,
    /// What it is registered for with mio: the same, but for changes while it runs.
    pub(super) registered: Option<Interest>,
    /// Not to be served until it has an interest again.
    pub(super) paused: bool,
    /// There was something to serve while it was paused.
    pub(super) held: bool,
    pub(super) stats: SourceStats,
}

/// A mio source or a file descriptor with its handler.
struct IoSource<E, H> {
    source: E,
    handler: H,
    control: fn(&mut E, &mio::Registry, Control) -> io::Result<()>,
}

impl<S, E, H> Source<S> for IoSource<E, H>
where
    E: 'static,
    H: FnMut(&mut S, &mut Context<'_, S>, &mut E, Ready) -> io::Result<Flow> + 'static,
{
    fn serve(
        &mut self,
        state: &mut S,
        cx: &mut Context<'_, S>,
        ready: Ready,
        _budget: u32,
    ) -> Served {
        cx.registry.serve_again = false;
        let result = (self.handler)(state, cx, &mut self.source, ready);
        Served { events: 1, more: cx.registry.serve_again, result }
    }

    fn control(&mut self, mio: &mio::Registry, control: Control) -> io::Result<()> {
        (self.control)(&mut self.source, mio, control)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        &mut self.source
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.source)
    }
}

impl<S> Registry<S> {
    /// Whether a source that has handed over one thing may hand over another in the same
    /// turn: its handler may have removed or paused it, or stopped the loop.
    pub(super) fn may_have_another(&self, key: Key) -> bool {
        let Key::Source(id) = key else { return false };
        !self.stopping && self.sources.get(id.0).is_some_and(|slot| !slot.paused)
    }
}

pub(super) fn control_mio<E: MioSource>(
    source: &mut E,
    mio: &mio::Registry,
    control: Control,
) -> io::Result<()> {
    match control {
        Control::Register(token, interest) => source.register(mio, token, interest),
        Control::Reregister(token, interest) => source.reregister(mio, token, interest),
        Control::Deregister => source.deregister(mio),
    }
}

fn control_fd<F: AsFd>(fd: &mut F, mio: &mio::Registry, control: Control) -> io::Result<()> {
    control_mio(&mut SourceFd(&fd.as_fd().as_raw_fd()), mio, control)
}

/// File descriptors, mio sources, and what is common to all sources.
impl<S> Registry<S> {
    /// Registers any source of mio. The reactor owns it and lends it to `handler`
    /// whenever it is ready.
    ///
    /// Readiness is edge-triggered, as everywhere in mio: the handler reads (writes,
    /// accepts) until `WouldBlock`, or it is not called again before something new
    /// happens; or it leaves off earlier with [`serve_again`](Context::serve_again).
    /// It may be called without need.
    ///
    /// # Errors
    /// What registering with mio says; the source is given back.
    pub fn add_source<E: MioSource + 'static>(
        &mut self,
        source: E,
        interest: Interest,
        handler: impl FnMut(&mut S, &mut Context<'_, S>, &mut E, Ready) -> io::Result<Flow> + 'static,
    ) -> Result<SourceKey<E>, Rejected<E>> {
        self.add_io(IoSource { source, handler, control: control_mio }, interest)
    }

    /// Registers anything with a file descriptor that epoll knows (sockets, pipes,
    /// terminals, timerfd, ...; not regular files). The rest is as with
    /// [`add_source`](Registry::add_source).
    ///
    /// The descriptor must be in non-blocking mode, or the handler may read only
    /// once a call; then it must not expect to see the end of what there is.
    ///
    /// # Errors
    /// `EPERM` for a regular file, `EEXIST` for a descriptor that is registered
    /// already, and what else epoll_ctl(2) says; `fd` is given back.
    pub fn add_fd<F: AsFd + 'static>(
        &mut self,
        fd: F,
        interest: Interest,
        handler: impl FnMut(&mut S, &mut Context<'_, S>, &mut F, Ready) -> io::Result<Flow> + 'static,
    ) -> Result<SourceKey<F>, Rejected<F>> {
        self.add_io(IoSource { source: fd, handler, control: control_fd }, interest)
    }

    fn add_io<E, H>(
        &mut self,
        source: IoSource<E, H>,
        interest: Interest,
    ) -> Result<SourceKey<E>, Rejected<E>>
    where
        E: 'static,
        H: FnMut(&mut S, &mut Context<'_, S>, &mut E, Ready) -> io::Result<Flow> + 'static,
    {
        match self.register_source(source, interest) {
            Ok(id) => Ok(SourceKey::new(id)),
            Err((IoSource { source, .. }, error)) => Err(Rejected { source, error }),
        }
    }

    /// Puts `source` into a slot and registers it with mio.
    pub(super) fn register_source<T: Source<S> + 'static>(
        &mut self,
        mut source: T,
        interest: Interest,
    ) -> Result<SourceId, (T, io::Error)> {
        let Some(key) = self.sources.next_key() else {
            return Err((source, no_slots()));
        };
        let control = Control::Register(poller::source_token(key), interest);
        if let Err(error) = source.control(self.poller.registry(), control) {
            return Err((source, error));
        }
        self.insert_source(source, Some(interest)).map_err(|source| (source, no_slots()))
    }

    /// Puts `source` into a slot, unless there is none left.
    pub(super) fn insert_source<T: Source<S> + 'static>(
        &mut self,
        source: T,
        interest: Option<Interest>,
    ) -> Result<SourceId, T> {
        if self.sources.next_key().is_none() {
            return Err(source);
        }
        let slot = SourceSlot {
            source: Some(Box::new(source)),
            ready: Ready::default(),
            queued: false,
            interest,
            registered: interest,
            paused: false,
            held: false,
            stats: SourceStats::default(),
        };
        match self.sources.insert(slot) {
            Ok(key) => Ok(SourceId(key)),
            Err(_) => unreachable!("there was a free slot"),
        }
    }

    /// What a file descriptor or mio source is waited for from now on; `None`
    /// pauses it, as it does wakers and channels. What is ready already, or was when
    /// it was paused, is reported again. A handler may do this to its own source, too.
    ///
    /// # Errors
    /// `NotFound` ([`StaleKey`]) if the source was removed; what mio says.
    pub fn set_source_interest(
        &mut self,
        source: impl Into<SourceId>,
        interest: impl Into<Option<Interest>>,
    ) -> io::Result<()> {
        let id = source.into();
        let slot = self.sources.get_mut(id.0).ok_or(StaleKey(id.into()))?;
        slot.interest = interest.into();
        slot.paused = slot.interest.is_none();
        if !slot.paused && std::mem::take(&mut slot.held) {
            self.queue_source(id, Ready::default());
        }
        self.apply_interest(id)
    }

    /// Registers a source anew if its interest has changed and it is not running.
    pub(super) fn apply_interest(&mut self, id: SourceId) -> io::Result<()> {
        let Some(slot) = self.sources.get_mut(id.0) else { return Ok(()) };
        let Some(source) = &mut slot.source else { return Ok(()) };
        let token = poller::source_token(id.0);
        let control = match (slot.registered, slot.interest) {
            (before, now) if before == now => return Ok(()),
            (None, Some(interest)) => Control::Register(token, interest),
            (Some(_), Some(interest)) => Control::Reregister(token, interest),
            (_, None) => Control::Deregister,
        };
        source.control(self.poller.registry(), control)?;
        slot.registered = slot.interest;
        Ok(())
    }

    /// The source itself, to write to it from another handler, say.
    ///
    /// # Errors
    /// [`StaleKey`] if it was removed, and while its own handler runs, which has it.
    pub fn source_mut<E: 'static>(&mut self, key: SourceKey<E>) -> Result<&mut E, StaleKey> {
        self.sources
            .get_mut(key.id.0)
            .and_then(|slot| slot.source.as_mut())
            .and_then(|source| source.as_any().downcast_mut())
            .ok_or(StaleKey(key.into()))
    }

    /// Removes a source and gives it back; `None` if its own handler is running: it
    /// is dropped then when the handler returns.
    ///
    /// # Errors
    /// [`StaleKey`] if it was removed before.
    pub fn remove_source<E: 'static>(&mut self, key: SourceKey<E>) -> Result<Option<E>, StaleKey> {
        let source = self.take_source(key.id).ok_or(StaleKey(key.into()))?;
        // A key of another reactor may find a source of another type, which is lost.
        Ok(source.and_then(|source| source.into_any().downcast().ok()).map(|source| *source))
    }

    /// Empties a source's slot; `None` if it was empty, `Some(None)` if it runs.
    pub(super) fn take_source(&mut self, id: SourceId) -> Option<Option<Box<dyn Source<S>>>> {
        let mut source = self.sources.remove(id.0)?.source;
        if let Some(source) = &mut source {
            self.deregister_source(source.as_mut());
        }
        Some(source)
    }

    /// Ends a source's registration with mio, before its descriptor is closed.
    pub(super) fn deregister_source(&self, source: &mut dyn Source<S>) {
        // It fails if it is not registered (paused), or the handler has closed the
        // descriptor: either way there is nothing left to end.
        let _ = source.control(self.poller.registry(), Control::Deregister);
    }
}

pub(super) fn no_slots() -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, "the reactor has no slot left: 2^31 are in use")
}

impl<S> fmt::Debug for SourceSlot<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceSlot").field("interest", &self.interest).finish_non_exhaustive()
    }
}
