//! Sends requests, each after the reply to the one before, and checks whose replies they are.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use pollux::socket::{Socket, SocketType};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

/// How many replies there were of each kind.
type Replies = BTreeMap<String, u64>;

pub(crate) fn run(endpoint: &str, requests: u64) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = zmq::Context::new();
    // A request whose reply nobody will wait for need not be sent.
    let socket = Socket::builder(SocketType::Req)
        .linger(Duration::ZERO)
        .connect(endpoint)
        .build(&context)?;
    let request = move |number: u64| format!("Hello {number} of {}", std::process::id());
    if requests > 0 {
        socket.send(&request(0))?;
    }
    reactor.on_message(socket, move |replies: &mut Replies, cx, reply| {
        let received = replies.values().sum();
        if reply.len() != 2 || reply[0] != *request(received).as_bytes() {
            return Err(io::Error::other(format!("the reply is not ours: {reply:?}")));
        }
        *replies.entry(String::from_utf8_lossy(&reply[1]).into()).or_default() += 1;
        if received + 1 == requests {
            return Ok(Flow::Stop);
        }
        cx.own_socket()?.send(&request(received + 1))?;
        Ok(Flow::Continue)
    })?;
    reactor.on_error(|_, _, error| panic!("{error}"));
    let mut replies = Replies::new();
    if requests > 0 {
        reactor.run(&mut replies)?;
    }
    for (text, count) in &replies {
        println!("{count} times {text}");
    }
    Ok(())
}
