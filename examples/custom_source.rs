//! A TCP listener of mio and ZeroMQ sockets in one loop: what comes in by plain TCP
//! goes out as ZeroMQ messages, each behind the number of its connection.
//!
//!     cargo run --example custom_source -- [LINES]
//!
//! It plays both other sides itself, the TCP client on a thread and the receiver of
//! the messages on the same loop, and ends when all lines have come through.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use pollux::reactor::{Context, Interest, Ready, SocketKey};
use pollux::{Flow, Reactor, socket};

struct Bridge {
    out: SocketKey,
    connections: u64,
    lines: usize,
}

/// Takes new connections, each a source of its own.
fn accept(
    bridge: &mut Bridge,
    cx: &mut Context<'_, Bridge>,
    listener: &mut TcpListener,
    _: Ready,
) -> io::Result<Flow> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                bridge.connections += 1;
                let id = bridge.connections;
                cx.add_source(stream, Interest::READABLE, move |bridge, cx, stream, _| {
                    forward(bridge, cx, stream, id)
                })?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Flow::Continue),
            Err(error) => return Err(error),
        }
    }
}

/// Reads until nothing is left, since readiness is told once, and sends it on.
fn forward(
    bridge: &mut Bridge,
    cx: &mut Context<'_, Bridge>,
    stream: &mut TcpStream,
    id: u64,
) -> io::Result<Flow> {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(Flow::Remove),
            Ok(length) => {
                let message = [&id.to_be_bytes()[..], &bytes[..length]];
                cx.socket(bridge.out)?.send(&message).map_err(io::Error::other)?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Flow::Continue),
            Err(error) => return Err(error),
        }
    }
}

fn main() -> io::Result<()> {
    let lines = std::env::args().nth(1).map_or(Ok(1000), |arg| arg.parse::<usize>());
    let lines = lines.map_err(io::Error::other)?;
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
    reactor.add_source(listener, Interest::READABLE, accept)?;
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
