//! Answers requests, one at a time, until it is told to end.

use std::io;

use pollux::socket::{Socket, SocketType};
use pollux::{Flow, Message, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

pub(crate) fn run(endpoint: &str, name: &str) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = zmq::Context::new();
    let socket = Socket::builder(SocketType::Rep).connect(endpoint).build(&context)?;
    let greeting = format!("World from {name}");
    reactor.on_message(socket, move |served: &mut u64, cx, request| {
        // The request comes back, so that the client knows which one this is about.
        let mut reply = request.frames().to_vec();
        reply.push(greeting.as_bytes());
        cx.own_socket()?.send(&Message::new(&reply))?;
        *served += 1;
        Ok(Flow::Continue)
    })?;
    let mut served = 0;
    reactor.run(&mut served)?;
    println!("{name} served {served}");
    Ok(())
}
