//! Ending in order on Ctrl-C and SIGTERM: the Guide's interrupt. The signal is one more source
//! of the loop: nothing is cut off in the middle, and what was accepted is sent, or its loss is
//! reported. A second signal, while that takes its time, ends at once.
//!
//!     cargo run --example interrupt -- [ENDPOINT]
//!
//! It answers requests (of REQ sockets) at ENDPOINT with their own text.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pollux::socket::{Socket, SocketType, ZmqContext};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// How long the last replies may take.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Served {
    requests: u64,
    signal: i32,
}

fn main() -> io::Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or("tcp://127.0.0.1:5555".into());
    let mut reactor = Reactor::new()?;
    let ending = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the first signal only arms.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&ending))?;
        flag::register(signal, Arc::clone(&ending))?;
    }
    reactor.add_signals(&[SIGINT, SIGTERM], |served: &mut Served, _, signal| {
        served.signal = signal;
        Ok(Flow::Stop)
    })?;

    let context = ZmqContext::new()?;
    let socket = Socket::builder(SocketType::Rep).bind(endpoint).build(&context)?;
    println!("serving at {}", socket.last_endpoint()?);
    let socket = reactor.on_message(socket, |served: &mut Served, cx, request| {
        cx.own_socket()?.send(&request)?;
        served.requests += 1;
        Ok(Flow::Continue)
    })?;
    let mut served = Served::default();
    reactor.run(&mut served)?;

    println!("signal {} after {} requests", served.signal, served.requests);
    reactor.remove(socket)?.close(PATIENCE)?;
    context.terminate(PATIENCE).map_err(|in_use| in_use.error())?;
    println!("all replies are sent");
    Ok(())
}
