//! A TCP listener of mio and a ZeroMQ socket in one loop: whoever connects by
//! plain TCP and sends a line gets it back from a ZeroMQ worker, in capitals.
//!
//!     cargo run --example custom_source -- [LINES]
//!
//! It plays the TCP client itself, on another thread, and ends when all lines are
//! answered.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};

use mio::net::{TcpListener, TcpStream};
use pollux::reactor::{Context, Ready, SocketKey, SourceKey};
use pollux::socket::{Interest, Socket, SocketType};
use pollux::{Flow, Reactor};

struct Bridge {
    /// The way to the worker.
    worker: SocketKey,
    streams: HashMap<u64, SourceKey<TcpStream>>,
    accepted: u64,
}

/// Takes new connections, each a source of its own.
fn accept(
    bridge: &mut Bridge,
    cx: &mut Context<'_, Bridge>,
    listener: &mut TcpListener,
    _: Ready,
) -> io::Result<Flow> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flow::Continue),
            Err(error) => return Err(error),
        };
        bridge.accepted += 1;
        let id = bridge.accepted;
        let key = cx.add_source(stream, Interest::READABLE, move |bridge, cx, stream, _| {
            forward(bridge, cx, stream, id)
        })?;
        bridge.streams.insert(id, key);
    }
}

/// Sends what came by TCP to the worker, behind the number of the connection.
fn forward(
    bridge: &mut Bridge,
    cx: &mut Context<'_, Bridge>,
    stream: &mut TcpStream,
    id: u64,
) -> io::Result<Flow> {
    let mut bytes = [0; 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => {
                bridge.streams.remove(&id);
                return Ok(if bridge.streams.is_empty() { Flow::Stop } else { Flow::Remove });
            }
            Ok(length) => {
                let worker = cx.socket(bridge.worker).map_err(io::Error::other)?;
                worker
                    .send(&[&id.to_be_bytes()[..], &bytes[..length]])
                    .map_err(io::Error::other)?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flow::Continue),
            Err(error) => return Err(error),
        }
    }
}

fn main() -> io::Result<()> {
    let lines = std::env::args().nth(1).map_or(Ok(1000), |arg| arg.parse::<u32>());
    let lines = lines.map_err(io::Error::other)?;
    let context = zmq::Context::new();
    let mut reactor = Reactor::new()?;
    let answers = Socket::builder(SocketType::Pair).bind("inproc://worker").build(&context)?;
    let work = Socket::builder(SocketType::Pair).connect("inproc://worker").build(&context)?;
    // The worker is a handler of the same loop; it could as well be another process.
    reactor.on_message(work, |_: &mut Bridge, cx, message| {
        let capitals = message[1].to_ascii_uppercase();
        let socket = cx.own_socket().map_err(io::Error::other)?;
        socket.send(&[&message[0], &capitals[..]]).map_err(io::Error::other)?;
        Ok(Flow::Continue)
    })?;
    let worker = reactor.on_message(answers, |bridge: &mut Bridge, cx, message| {
        let id = message[0].try_into().map(u64::from_be_bytes).map_err(io::Error::other)?;
        if let Some(&key) = bridge.streams.get(&id) {
            cx.source_mut(key).map_err(io::Error::other)?.write_all(&message[1])?;
        }
        Ok(Flow::Continue)
    })?;
    let listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    let address = listener.local_addr()?;
    reactor.add_source(listener, Interest::READABLE, accept)?;

    let client = std::thread::spawn(move || -> io::Result<u32> {
        let mut stream = BufReader::new(std::net::TcpStream::connect(address)?);
        let mut right = 0;
        for line in 0..lines {
            stream.get_mut().write_all(format!("line {line}\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_line(&mut answer)?;
            right += u32::from(answer == format!("LINE {line}\n"));
        }
        Ok(right)
    });
    let mut bridge = Bridge { worker, streams: HashMap::new(), accepted: 0 };
    reactor.run(&mut bridge)?;
    let right = client.join().map_err(|_| io::Error::other("the client panicked"))??;
    println!("{right} of {lines} lines answered; {:?}", reactor.stats());
    assert_eq!(right, lines);
    Ok(())
}
