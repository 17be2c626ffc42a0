//! A worker: takes one task at a time, passes the result on, and ends when the sink says so.

use std::io;
use std::time::Duration;

use pollux::reactor::{Interest, SocketKey};
use pollux::socket::{Socket, SocketType};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

struct Worker {
    tasks: SocketKey,
    results: SocketKey,
    done: u64,
}

pub(crate) fn run(tasks: &str, results: &str, control: &str) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = zmq::Context::new();
    // One task in its queue besides the one under way: the others are for the other workers.
    let tasks = Socket::builder(SocketType::Pull).receive_hwm(1).connect(tasks).build(&context)?;
    let results = Socket::builder(SocketType::Push).connect(results).build(&context)?;
    let control = Socket::builder(SocketType::Sub)
        .subscribe("")
        .linger(Duration::ZERO)
        .connect(control)
        .build(&context)?;
    let results = reactor.add_socket(results)?;
    let tasks = reactor.on_message(tasks, |worker: &mut Worker, cx, task| {
        let work_ms = std::str::from_utf8(&task[0]).ok().and_then(|text| text.parse().ok());
        let work_ms = work_ms.ok_or_else(|| io::Error::other(format!("no task: {task:?}")))?;
        // No task comes while this one is under way; the signal to end does.
        cx.set_interest(worker.tasks, None)?;
        cx.add_timer(Duration::from_millis(work_ms), move |worker: &mut Worker, cx| {
            cx.socket(worker.results)?.send(&work_ms.to_string())?;
            worker.done += 1;
            cx.set_interest(worker.tasks, Interest::READABLE)?;
            Ok(Flow::Remove)
        });
        Ok(Flow::Continue)
    })?;
    reactor.on_message(control, |_, _, _| Ok(Flow::Stop))?;
    reactor.on_error(|_, _, error| panic!("{error}"));
    let mut worker = Worker { tasks, results, done: 0 };
    reactor.run(&mut worker)?;
    println!("worked on {} tasks", worker.done);
    Ok(reactor.remove(results)?.close(Duration::from_millis(500))?)
}
