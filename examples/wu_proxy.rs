//! A pub-sub forwarder between two networks: the Guide's wuproxy. Publishers are on one side,
//! subscribers on the other, and each publisher sends only what somebody there wants.
//!
//!     cargo run --example wu_proxy -- [INSIDE] [OUTSIDE] [HWM]
//!
//! It connects to the publisher at INSIDE and takes subscribers at OUTSIDE, for each of whom up
//! to HWM messages (1,000) wait; one that is slower misses some.

use std::io;
use std::time::Duration;

use pollux::proxy::Proxy;
use pollux::socket::{Socket, SocketType};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

struct Forwarder {
    proxy: Proxy<Forwarder>,
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let inside = args.next().unwrap_or("tcp://127.0.0.1:5556".into());
    let outside = args.next().unwrap_or("tcp://127.0.0.1:8100".into());
    let hwm = args.next().map_or(Ok(1000), |arg| arg.parse()).map_err(io::Error::other)?;

    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = zmq::Context::new();
    let publishers =
        Socket::builder(SocketType::XSub).receive_hwm(hwm).linger(Duration::ZERO).connect(inside);
    let subscribers = Socket::builder(SocketType::XPub).send_hwm(hwm).bind(outside);
    let (publishers, subscribers) = (publishers.build(&context)?, subscribers.build(&context)?);
    println!("subscribers at {}", subscribers.last_endpoint()?);
    let mut forwarder = Forwarder { proxy: Proxy::builder(publishers, subscribers).build()? };
    Proxy::attach(&mut reactor, &mut forwarder, |forwarder| &mut forwarder.proxy)?;
    reactor.run(&mut forwarder)?;
    println!("forwarded {} messages", forwarder.proxy.stats().backend.messages_out);
    Ok(())
}
