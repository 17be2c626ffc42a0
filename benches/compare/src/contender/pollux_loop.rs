//! Pollux: `on_message`, default budget.

use std::io;

use pollux::reactor::{Backend, Flow, Reactor};
use pollux::socket::Socket;

use crate::bare::Bare;
use crate::job::{Job, Meter, NEVER, Trips};

/// A reactor with the idle sockets and the timers of the scene.
fn crowded<S: 'static>(job: &Job, backend: Backend) -> io::Result<(Reactor<S>, Vec<Bare>)> {
    let mut reactor = Reactor::builder().backend(backend).build()?;
    let (idle, silent) = job.idle_sockets();
    for socket in idle {
        reactor.on_message(wrap(socket)?, |_, _, _| Ok(Flow::Stop))?;
    }
    for _ in 0..job.timers {
        reactor.add_timer(NEVER, |_, _| Ok(Flow::Continue));
    }
    Ok((reactor, silent))
}

fn wrap(socket: Bare) -> io::Result<Socket> {
    Socket::from_zmq(socket.into_zmq()).map_err(io::Error::other)
}

pub(crate) fn receive(job: &Job, backend: Backend) -> io::Result<()> {
    let (mut reactor, _silent) = crowded(job, backend)?;
    let (pull, _peer) = job.busy();
    reactor.on_message(wrap(pull)?, |meter: &mut Meter, _, message| {
        Ok(if meter.take(&message[0]) { Flow::Stop } else { Flow::Continue })
    })?;
    reactor.run(&mut Meter::new(job))
}

pub(crate) fn trip(job: &Job, backend: Backend) -> io::Result<()> {
    let (mut reactor, _silent) = crowded(job, backend)?;
    let (dealer, _) = job.busy();
    reactor.on_message(wrap(dealer)?, |trips: &mut Trips, cx, _| {
        let goes_on = trips.next();
        let payload = if goes_on { &trips.payload[..] } else { b"" };
        cx.own_socket().map_err(io::Error::other)?.send(payload).map_err(io::Error::from)?;
        Ok(if goes_on { Flow::Continue } else { Flow::Stop })
    })?;
    reactor.run(&mut Trips::new(job))
}
