//! A bridge between transports: what comes in over ipc from this machine goes out over
//! tcp to others, and what they answer comes back; a hook lets through what may leave.
//!
//!     cargo run --example transport_bridge -- [INSIDE] [OUTSIDE] [SECRET]
//!
//! Clients of this machine (REQ, DEALER) connect to INSIDE, workers elsewhere (REP, DEALER)
//! to OUTSIDE. A request whose body begins with SECRET does not cross, and is counted.

use std::io;

use pollux::proxy::{Proxy, Side, Verdict};
use pollux::reactor::{Flow, Reactor};
use pollux::socket::{Frame, Socket, SocketType};
use signal_hook::consts::{SIGINT, SIGTERM};

struct App {
    bridge: Proxy<App>,
    kept_back: u64,
}

/// Requests that begin so do not leave this machine.
fn keep_back(app: &mut App, from: Side, frames: &[Frame], secret: &[u8]) -> Verdict {
    let body = frames.last().expect("a message has a frame");
    if from == Side::Frontend && body.starts_with(secret) {
        app.kept_back += 1;
        return Verdict::Drop;
    }
    Verdict::Forward
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let inside = args.next().unwrap_or("ipc:///tmp/pollux-bridge".into());
    let outside = args.next().unwrap_or("tcp://127.0.0.1:5560".into());
    let secret = args.next().unwrap_or("secret".into());

    let context = zmq::Context::new();
    let inside =
        Socket::builder(SocketType::Router).mandatory(true).bind(inside).build(&context)?;
    let outside = Socket::builder(SocketType::Dealer).bind(outside).build(&context)?;
    let ends = [inside.last_endpoint()?, outside.last_endpoint()?];
    let bridge = Proxy::builder(inside, outside)
        .hook(move |app: &mut App, from, frames| keep_back(app, from, frames, secret.as_bytes()))
        .on_end(|_, _, end| end.map(|()| Flow::Stop).map_err(io::Error::from))
        .build()?;
    let mut app = App { bridge, kept_back: 0 };

    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |app: &mut App, cx, _| {
        app.bridge.terminate(cx);
        Ok(Flow::Continue)
    })?;
    Proxy::attach(&mut reactor, &mut app, |app| &mut app.bridge)?;
    println!("from {} to {}", ends[0], ends[1]);
    reactor.run(&mut app)?;

    let stats = app.bridge.stats();
    println!(
        "{} requests crossed, {} replies came back, {} were kept back",
        stats.backend.messages_out, stats.frontend.messages_out, app.kept_back
    );
    Ok(())
}
