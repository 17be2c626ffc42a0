//! The ventilator: tells the sink how many tasks there will be, and deals them out as fast as
//! the workers take them. It begins when Enter is pressed: the first worker to connect would get
//! all the tasks otherwise.

use std::io::{self, Read};
use std::time::Duration;

use pollux::reactor::{Context, Interest, Ready, SocketKey};
use pollux::socket::{SendError, Socket, SocketType};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

struct Ventilator {
    workers: SocketKey,
    next: u64,
    count: u64,
}

/// As many tasks as there is room for.
fn deal(vent: &mut Ventilator, cx: &mut Context<'_, Ventilator>, _: Ready) -> io::Result<Flow> {
    while vent.next < vent.count {
        // A task is the time that it takes, 1 to 10 ms.
        let work_ms = 1 + vent.next * 7 % 10;
        match cx.own_socket()?.send(&work_ms.to_string()) {
            Err(SendError::WouldBlock) => return Ok(Flow::Continue),
            sent => sent?,
        }
        vent.next += 1;
    }
    Ok(Flow::Stop)
}

pub(crate) fn run(tasks: &str, results: &str, count: u64) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = zmq::Context::new();
    let workers = Socket::builder(SocketType::Push).bind(tasks).build(&context)?;
    println!("tasks at {}", workers.last_endpoint()?);
    println!("press Enter when the workers are ready");
    let sink = Socket::builder(SocketType::Push).connect(results).build(&context)?;
    sink.send(&["tasks", &count.to_string()])?;
    let workers = reactor.on_ready(workers, None, deal)?;
    reactor.add_fd(io::stdin(), Interest::READABLE, |vent: &mut Ventilator, cx, stdin, _| {
        if stdin.read(&mut [0])? == 0 {
            return Ok(Flow::Stop); // Nobody will press it any more.
        }
        cx.set_interest(vent.workers, Interest::WRITABLE)?;
        Ok(Flow::Remove)
    })?;
    reactor.on_error(|_, _, error| panic!("{error}"));
    let mut vent = Ventilator { workers, next: 0, count };
    reactor.run(&mut vent)?;
    println!("dealt {} tasks", vent.next);
    // The sink gets its message, and the workers theirs, or this says which did not.
    let patience = Duration::from_millis(400);
    sink.close(patience)?;
    Ok(reactor.remove(workers)?.close(patience)?)
}
