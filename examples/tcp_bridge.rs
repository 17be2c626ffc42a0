//! A bridge from ZeroMQ to plain tcp: what a SUB hears goes, one line a message, to
//! everybody who has connected with telnet, nc or a program that knows no ZeroMQ. mio's
//! `TcpListener` and `TcpStream` are sources of the loop like any other.
//!
//!     cargo run --example tcp_bridge -- [PUBLISHERS] [ADDRESS]
//!
//! Publishers (PUB) connect to PUBLISHERS, tcp peers to ADDRESS: try `nc 127.0.0.1 5570`.
//! One that reads too slowly is cut off, so that nobody waits for it.

use std::io::{self, Write};

use mio::net::{TcpListener, TcpStream};
use pollux::Message;
use pollux::reactor::{Context, Flow, Interest, Key, Reactor, Ready, SourceKey};
use pollux::socket::{Socket, SocketType};
use signal_hook::consts::{SIGINT, SIGTERM};

type Cx<'a> = Context<'a, App>;

#[derive(Default)]
struct App {
    peers: Vec<SourceKey<TcpStream>>,
    cut_off: u64,
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let publishers = args.next().unwrap_or("tcp://127.0.0.1:5556".into());
    let address = args.next().unwrap_or("127.0.0.1:5570".into());

    let context = zmq::Context::new();
    let sub = Socket::builder(SocketType::Sub).subscribe("").bind(publishers).build(&context)?;
    let listener = TcpListener::bind(address.parse().map_err(io::Error::other)?)?;

    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    println!("from {} to {}", sub.last_endpoint()?, listener.local_addr()?);
    reactor.add_source(listener, Interest::READABLE, |app: &mut App, cx, listener, _| {
        // Until nobody waits, for it is edge-triggered, or a connection has failed already.
        while let Ok((stream, _)) = listener.accept() {
            app.peers.push(cx.add_source(stream, Interest::READABLE, gone)?);
        }
        Ok(Flow::Continue)
    })?;
    reactor.on_message(sub, |app, cx, message| Ok(tell(app, cx, message)))?;
    let mut app = App::default();
    reactor.run(&mut app)?;
    println!("{} peers are here, {} were cut off", app.peers.len(), app.cut_off);
    Ok(())
}

/// One line for each peer, its frames with a space between.
fn tell(app: &mut App, cx: &mut Cx<'_>, message: Message<'_>) -> Flow {
    let mut line = message.frames().join(&b' ');
    line.push(b'\n');
    let before = app.peers.len();
    // All of the line or, if the system has no room for it, no peer any more.
    app.peers.retain(|&key| {
        let whole = |stream: &mut TcpStream| stream.write(&line).ok() == Some(line.len());
        let taken = cx.source_mut(key).is_ok_and(whole);
        if !taken {
            let _ = cx.discard(key);
        }
        taken
    });
    app.cut_off += (before - app.peers.len()) as u64;
    Flow::Continue
}

/// What peers say is not read; when they hang up, they are forgotten.
fn gone(app: &mut App, cx: &mut Cx<'_>, _: &mut TcpStream, is: Ready) -> io::Result<Flow> {
    if !is.read_closed && !is.error {
        return Ok(Flow::Continue);
    }
    app.peers.retain(|key| Key::from(*key) != cx.key());
    Ok(Flow::Remove)
}
