//! calloop with `ZMQ_FD`: edge-triggered, drained until nothing is there.

use std::error::Error;
use std::os::fd::BorrowedFd;

use calloop::generic::Generic;
use calloop::timer::{TimeoutAction, Timer};
use calloop::{EventLoop, Interest, Mode, PostAction};

use crate::bare::{Bare, Part};
use crate::job::{Job, Meter, NEVER, Trips};

struct Loop<S> {
    state: S,
    is_over: bool,
}

/// Runs a loop over `busy` and the idle sockets of the scene. `handle` gets each
/// message of the busy one and says whether it was the last.
fn run<S: 'static>(
    job: &Job,
    busy: Bare,
    state: S,
    handle: impl Fn(&mut S, &Bare, &Part) -> bool + Clone + 'static,
) -> Result<(), Box<dyn Error>> {
    let mut event_loop: EventLoop<'_, Loop<S>> = EventLoop::try_new()?;
    let (mut sockets, _silent) = job.idle_sockets();
    sockets.insert(0, busy);
    let mut state = Loop { state, is_over: false };
    for socket in sockets {
        let handle = handle.clone();
        let mut part = Part::new();
        // SAFETY: the descriptor is open as long as its socket, which the closure owns
        // and drops after the source: both live until the loop ends.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.zmq().get_fd()?) };
        let mut drain = move |state: &mut Loop<S>| {
            while !state.is_over && socket.try_receive(&mut part) {
                state.is_over = handle(&mut state.state, &socket, &part);
            }
        };
        // What came before the descriptor was registered gives no edge.
        drain(&mut state);
        let source = Generic::new(fd, Interest::READ, Mode::Edge);
        event_loop
            .handle()
            .insert_source(source, move |_, _, state| {
                drain(state);
                Ok(PostAction::Continue)
            })
            .map_err(|error| error.error)?;
    }
    for _ in 0..job.timers {
        event_loop
            .handle()
            .insert_source(Timer::from_duration(NEVER), |_, _, _| TimeoutAction::Drop)
            .map_err(|error| error.error)?;
    }
    while !state.is_over {
        event_loop.dispatch(None, &mut state)?;
    }
    Ok(())
}

pub(crate) fn receive(job: &Job) -> Result<(), Box<dyn Error>> {
    let (pull, _peer) = job.busy();
    run(job, pull, Meter::new(job), |meter, _, part| meter.take(part.bytes()))
}

pub(crate) fn trip(job: &Job) -> Result<(), Box<dyn Error>> {
    let (dealer, _) = job.busy();
    run(job, dealer, Trips::new(job), |trips, socket, _| {
        let goes_on = trips.next();
        let payload = if goes_on { &trips.payload[..] } else { b"" };
        socket.send(&mut Part::of(payload), false);
        !goes_on
    })
}
