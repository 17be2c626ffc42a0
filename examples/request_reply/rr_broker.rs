//! ROUTER for the clients, DEALER for the workers, and messages handed on as they are: the
//! envelope in front brings each reply to its asker. A request that no worker has room for is
//! held, and no other is read, until one has.

use std::io;

use pollux::reactor::{Context, Interest, Ready, SocketKey};
use pollux::socket::{SendError, Socket, SocketType};
use pollux::{Flow, Message, Multipart, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

struct Broker {
    clients: SocketKey,
    workers: SocketKey,
    /// A request that found no room.
    held: Option<Multipart>,
    requests: u64,
    replies: u64,
}

fn request(
    broker: &mut Broker,
    cx: &mut Context<'_, Broker>,
    message: Message,
) -> io::Result<Flow> {
    match cx.socket(broker.workers)?.send(&message) {
        Err(SendError::WouldBlock) => {
            broker.held = Some(message.to_multipart());
            cx.set_interest(broker.clients, None)?;
            cx.set_interest(broker.workers, Interest::READABLE | Interest::WRITABLE)?;
        }
        sent => sent?,
    }
    broker.requests += 1;
    Ok(Flow::Continue)
}

fn reply(broker: &mut Broker, cx: &mut Context<'_, Broker>, message: Message) -> io::Result<Flow> {
    // ROUTER drops what is for a client that has gone.
    cx.socket(broker.clients)?.send(&message)?;
    broker.replies += 1;
    Ok(Flow::Continue)
}

fn room(broker: &mut Broker, cx: &mut Context<'_, Broker>, _: Ready) -> io::Result<Flow> {
    if let Some(request) = &broker.held {
        match cx.own_socket()?.send(request) {
            Err(SendError::WouldBlock) => return Ok(Flow::Continue),
            sent => sent?,
        }
    }
    broker.held = None;
    cx.set_interest(broker.workers, Interest::READABLE)?;
    cx.set_interest(broker.clients, Interest::READABLE)?;
    Ok(Flow::Continue)
}

pub(crate) fn run(frontend: &str, backend: &str) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = zmq::Context::new();
    let clients = Socket::builder(SocketType::Router).bind(frontend).build(&context)?;
    let workers = Socket::builder(SocketType::Dealer).bind(backend).build(&context)?;
    println!("clients at {}", clients.last_endpoint()?);
    println!("workers at {}", workers.last_endpoint()?);
    let clients = reactor.on_message(clients, request)?;
    let workers = reactor.on_message(workers, reply)?;
    reactor.on_writable(workers, room)?;
    reactor.on_error(|_, _, error| panic!("{error}"));
    let mut broker = Broker { clients, workers, held: None, requests: 0, replies: 0 };
    reactor.run(&mut broker)?;
    println!("{} requests, {} replies", broker.requests, broker.replies);
    Ok(())
}
