//! Publishes two kinds of messages, each as key, the sender's address, and content.

use std::io;
use std::time::Duration;

use pollux::reactor::Missed;
use pollux::socket::{Socket, SocketType};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

const PERIOD: Duration = Duration::from_millis(10);

pub(crate) fn run(endpoint: &str) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = zmq::Context::new();
    let publisher = Socket::builder(SocketType::Pub).bind(endpoint).build(&context)?;
    let address = publisher.last_endpoint()?;
    println!("publishing at {address}");
    let publisher = reactor.add_socket(publisher)?;
    reactor.add_periodic(PERIOD, Missed::Skip, move |sent: &mut u64, cx| {
        let socket = cx.socket(publisher)?;
        socket.send(&["A", &address, "We do not want to see this, B or no B"])?;
        socket.send(&["B", &address, "We would like to see this"])?;
        *sent += 2;
        Ok(Flow::Continue)
    });
    let mut sent = 0;
    reactor.run(&mut sent)?;
    println!("published {sent} messages");
    Ok(())
}
