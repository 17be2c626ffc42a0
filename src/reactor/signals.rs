//! Signals as a source, by signal-hook; nothing is installed unless asked for.

use std::any::Any;
use std::io;

use mio::Interest;
use signal_hook::consts::FORBIDDEN;
use signal_hook_mio::v1_0::Signals;

use super::context::{Context, Flow, Ready};
use super::key::SourceId;
use super::registry::Registry;
use super::sources::{Control, Served, Source};

/// The highest number of a signal on Linux (`SIGRTMAX`); elsewhere it is lower.
const SIGNAL_MAX: i32 = 64;

struct SignalSource<H> {
    signals: Signals,
    handler: H,
}

impl<S, H> Source<S> for SignalSource<H>
where
    H: FnMut(&mut S, &mut Context<'_, S>, i32) -> io::Result<Flow> + 'static,
{
    fn serve(
        &mut self,
        state: &mut S,
        cx: &mut Context<'_, S>,
        _ready: Ready,
        _budget: u32,
    ) -> Served {
        let mut events = 0;
        for signal in self.signals.pending() {
            events += 1;
            cx.registry.stats.signals += 1;
            let result = (self.handler)(state, cx, signal);
            if !matches!(result, Ok(Flow::Continue)) || !cx.registry.may_have_another(cx.key) {
                return Served { events, more: true, result };
            }
        }
        Served { events, more: false, result: Ok(Flow::Continue) }
    }

    fn control(&mut self, mio: &mio::Registry, control: Control) -> io::Result<()> {
        super::sources::control_mio(&mut self.signals, mio, control)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        &mut self.signals
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.signals)
    }
}

/// Signals.
impl<S> Registry<S> {
    /// Calls `handler` in the loop's thread, where it may do anything, with each of
    /// `signals` that the process gets. Several of one kind that arrive before the loop
    /// looks count once (signal(7)), and the order among kinds is not kept.
    ///
    /// The signal's handler is installed by this call and by nothing else. Handlers
    /// that were there before are called, too. When the source is removed nothing is
    /// called any more, but signal-hook's own handler stays installed, so the default
    /// action (to end the process, for `SIGINT`) does not come back by itself:
    /// [`signal_hook::low_level::emulate_default_handler`] does it.
    ///
    /// # Errors
    /// `InvalidInput` for a number that is no signal, or one that cannot or must not be
    /// handled so (`SIGKILL`, `SIGSTOP`, `SIGILL`, `SIGFPE`, `SIGSEGV`); what sigaction(2) says.
    pub fn add_signals(
        &mut self,
        signals: &[i32],
        handler: impl FnMut(&mut S, &mut Context<'_, S>, i32) -> io::Result<Flow> + 'static,
    ) -> io::Result<SourceId> {
        for signal in signals {
            if !(1..=SIGNAL_MAX).contains(signal) || FORBIDDEN.contains(signal) {
                let problem = format!("signal {signal} cannot be handled");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
        }
        let source = SignalSource { signals: Signals::new(signals)?, handler };
        self.register_source(source, Interest::READABLE).map_err(|(_, error)| error)
    }
}
