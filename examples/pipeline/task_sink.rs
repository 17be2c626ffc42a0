//! The sink: counts results until there are as many as the ventilator announced, then tells the
//! workers to end, until each of them has.

use std::io;
use std::time::{Duration, Instant};

use pollux::reactor::{Context, Missed, SocketKey};
use pollux::socket::{Socket, SocketType};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

struct Sink {
    control: SocketKey,
    started: Instant,
    /// As announced, which may come after the first results.
    expected: Option<u64>,
    results: u64,
    work_ms: u64,
}

/// A worker that has just come may miss the first signal.
fn end_workers(sink: &mut Sink, cx: &mut Context<'_, Sink>) -> io::Result<Flow> {
    if sink.expected == Some(sink.results) {
        cx.socket(sink.control)?.send("KILL")?;
    }
    Ok(Flow::Continue)
}

pub(crate) fn run(results: &str, control: &str) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = zmq::Context::new();
    let results = Socket::builder(SocketType::Pull).bind(results).build(&context)?;
    let control = Socket::builder(SocketType::XPub).bind(control).build(&context)?;
    println!("results at {}", results.last_endpoint()?);
    println!("control at {}", control.last_endpoint()?);
    reactor.on_message(results, |sink: &mut Sink, cx, message| {
        let last = message.frames().last().and_then(|frame| std::str::from_utf8(frame).ok());
        let number = last.and_then(|text| text.parse::<u64>().ok());
        let number = number.ok_or_else(|| io::Error::other(format!("no result: {message:?}")))?;
        if &message[0] == b"tasks" {
            (sink.expected, sink.started) = (Some(number), Instant::now());
        } else {
            (sink.results, sink.work_ms) = (sink.results + 1, sink.work_ms + number);
        }
        end_workers(sink, cx)
    })?;
    // An XPUB receives the subscriptions: the end of the last one is the end of the last worker.
    let control = reactor.on_message(control, |sink: &mut Sink, _, subscription| {
        let gone = subscription[0] == [0];
        Ok(if gone && sink.expected == Some(sink.results) { Flow::Stop } else { Flow::Continue })
    })?;
    reactor.add_periodic(Duration::from_millis(50), Missed::Skip, end_workers);
    reactor.on_error(|_, _, error| panic!("{error}"));
    let mut sink =
        Sink { control, started: Instant::now(), expected: None, results: 0, work_ms: 0 };
    reactor.run(&mut sink)?;
    println!(
        "{} results, {} ms of work in {:?}",
        sink.results,
        sink.work_ms,
        sink.started.elapsed()
    );
    Ok(())
}
