//! A TCP listener of mio and ZeroMQ sockets in one loop: what comes in by plain TCP
//! goes out as ZeroMQ messages, each behind the number of its connection.
//!
//!     cargo run --example custom_source -- [LINES]
//!
//! It plays both other sides itself (the TCP client on a thread) and ends when all
//! lines have come through.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use pollux::reactor::{Context, Interest, SocketKey};
use pollux::{Flow, Reactor, socket};

struct Bridge {
    out: SocketKey,
    connections: u64,
    lines: usize,
}

type Cx<'a> = Context<'a, Bridge>;

/// Takes a new connection, which becomes a source of its own.
fn accept(bridge: &mut Bridge, cx: &mut Cx<'_>, stream: TcpStream) -> io::Result<()> {
    bridge.connections += 1;
    let id = bridge.connections;
    cx.add_source(stream, Interest::READABLE, move |bridge, cx, stream, _| {
        until_empty(|| forward(bridge, cx, stream, id))
    })?;
    Ok(())
}

/// Sends on what has come; the end of the connection is `UnexpectedEof`.
fn forward(bridge: &Bridge, cx: &Cx<'_>, stream: &mut TcpStream, id: u64) -> io::Result<()> {
    let mut bytes = [0; 4096];
    let length = stream.read(&mut bytes)?;
    if length == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(cx.socket(bridge.out)?.send(&[&id.to_be_bytes()[..], &bytes[..length]])?)
}

/// Readiness is told once: whoever is told goes on until nothing is left.
fn until_empty(mut step: impl FnMut() -> io::Result<()>) -> io::Result<Flow> {
    loop {
        match step() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Flow::Continue),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Flow::Remove),
            Err(error) => return Err(error),
        }
    }
}

fn main() -> io::Result<()> {
    let lines = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(1000);
    let mut reactor = Reactor::new()?;
    let (near, far) = socket::pair(&zmq::Context::new())?;
    reactor.on_message(far, move |bridge: &mut Bridge, _, message| {
        bridge.lines += message[1].iter().filter(|byte| **byte == b'\n').count();
        Ok(if bridge.lines == lines { Flow::Stop } else { Flow::Continue })
    })?;
    // Whatever fails ends the program, instead of leaving it to wait for ever.
    reactor.on_error(|_: &mut Bridge, _, error| panic!("{error}"));
    let out = reactor.add_socket(near)?;
    let listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    let address = listener.local_addr()?;
    reactor.add_source(listener, Interest::READABLE, |bridge, cx, listener, _| {
        until_empty(|| listener.accept().and_then(|(stream, _)| accept(bridge, cx, stream)))
    })?;
    let client = std::thread::spawn(move || -> io::Result<()> {
        let mut stream = std::net::TcpStream::connect(address)?;
        (0..lines).try_for_each(|line| writeln!(stream, "line {line}"))
    });
    let mut bridge = Bridge { out, connections: 0, lines: 0 };
    reactor.run(&mut bridge)?;
    client.join().map_err(|_| io::Error::other("the client panicked"))??;
    println!("{} lines by {} connection; {:?}", bridge.lines, bridge.connections, reactor.stats());
    Ok(())
}
