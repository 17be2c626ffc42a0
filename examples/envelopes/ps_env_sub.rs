//! Shows messages of one kind: takes the envelope off first.

use std::io;
use std::time::Duration;

use pollux::socket::{Socket, SocketType};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

pub(crate) fn run(endpoint: &str, key: &str, messages: u64) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = zmq::Context::new();
    let subscriber = Socket::builder(SocketType::Sub)
        .subscribe(key)
        .linger(Duration::ZERO)
        .connect(endpoint)
        .build(&context)?;
    reactor.on_message(subscriber, move |shown: &mut u64, _, message| {
        let text = |index| message.get(index).map(String::from_utf8_lossy).unwrap_or_default();
        println!("[{}] from {}: {}", text(0), text(1), text(2));
        *shown += 1;
        Ok(if *shown == messages { Flow::Stop } else { Flow::Continue })
    })?;
    reactor.run(&mut 0)
}
