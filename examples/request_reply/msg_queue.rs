//! The same broker by the library's proxy: back-pressure and statistics come with it.

use std::io;

use pollux::proxy::Proxy;
use pollux::socket::{Socket, SocketType};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

struct Queue {
    proxy: Proxy<Queue>,
}

pub(crate) fn run(frontend: &str, backend: &str) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = zmq::Context::new();
    let clients = Socket::builder(SocketType::Router).bind(frontend).build(&context)?;
    let workers = Socket::builder(SocketType::Dealer).bind(backend).build(&context)?;
    println!("clients at {}", clients.last_endpoint()?);
    println!("workers at {}", workers.last_endpoint()?);
    let mut queue = Queue { proxy: Proxy::builder(clients, workers).build()? };
    Proxy::attach(&mut reactor, &mut queue, |queue| &mut queue.proxy)?;
    reactor.run(&mut queue)?;
    let stats = queue.proxy.stats();
    println!("{} requests, {} replies", stats.frontend.messages_in, stats.backend.messages_in);
    Ok(())
}
