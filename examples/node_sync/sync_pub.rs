//! The publisher. Hello (an empty message) again and again; each subscriber that has heard it
//! says so by a request; when all have, numbered updates, and an end.

use std::io;
use std::time::Duration;

use pollux::reactor::{Context, Interest, Missed, Ready, SocketKey};
use pollux::socket::{SendError, Socket, SocketType};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

struct Publisher {
    updates: SocketKey,
    /// Subscribers to wait for.
    awaited: u64,
    next: u64,
    count: u64,
}

/// As many updates as all subscribers have room for, then the end.
fn publish(state: &mut Publisher, cx: &mut Context<'_, Publisher>, _: Ready) -> io::Result<Flow> {
    while state.next <= state.count {
        let last = state.next == state.count;
        let text = if last { "END".to_owned() } else { state.next.to_string() };
        match cx.own_socket()?.send(&text) {
            Err(SendError::WouldBlock) => return Ok(Flow::Continue),
            sent => sent?,
        }
        state.next += 1;
    }
    Ok(Flow::Stop)
}

pub(crate) fn run(updates: &str, sync: &str, subscribers: u64, count: u64) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = zmq::Context::new();
    // Without `nodrop` a subscriber that is slower than this loop would miss some.
    let updates = Socket::builder(SocketType::XPub).nodrop(true).bind(updates).build(&context)?;
    let sync = Socket::builder(SocketType::Rep).bind(sync).build(&context)?;
    println!("updates at {}", updates.last_endpoint()?);
    println!("sync at {}", sync.last_endpoint()?);
    let updates = reactor.on_ready(updates, None, publish)?;
    let hello = move |state: &mut Publisher, cx: &mut Context<'_, Publisher>| {
        if state.awaited == 0 {
            cx.set_interest(state.updates, Interest::WRITABLE)?;
            return Ok(Flow::Remove);
        }
        match cx.socket(state.updates)?.send("") {
            // Somebody has enough of them waiting.
            Ok(()) | Err(SendError::WouldBlock) => Ok(Flow::Continue),
            Err(error) => Err(error.into()),
        }
    };
    reactor.add_periodic(Duration::from_millis(5), Missed::Skip, hello);
    reactor.on_message(sync, |state: &mut Publisher, cx, _| {
        state.awaited = state.awaited.saturating_sub(1);
        Ok(cx.own_socket()?.send("").map(|()| Flow::Continue)?)
    })?;
    reactor.on_error(|_, _, error| panic!("{error}"));
    let mut publisher = Publisher { updates, awaited: subscribers, next: 0, count };
    reactor.run(&mut publisher)?;
    println!("published {} updates", publisher.next.min(count));
    Ok(reactor.remove(updates)?.close(Duration::from_millis(800))?)
}
