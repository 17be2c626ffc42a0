//! Ctrl-C and SIGTERM: the first ends in order, the second at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pollux::reactor::{Flow, Registry};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Has the first of these signals call `handler` in the loop, which is then to
/// end in order. The second ends the process on the spot, with the exit code
/// that shells give to a process killed by it.
pub(crate) fn on_interrupt<S>(
    registry: &mut Registry<S>,
    mut handler: impl FnMut(&mut S) + 'static,
) -> io::Result<()> {
    let ending = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the first signal only arms.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&ending))?;
        flag::register(signal, Arc::clone(&ending))?;
    }
    registry.add_signals(&[SIGINT, SIGTERM], move |state, _, _| {
        handler(state);
        Ok(Flow::Stop)
    })?;
    Ok(())
}
