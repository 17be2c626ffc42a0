//! One port, many threads: the Guide's mtserver. The loop takes requests over tcp and deals them
//! to worker threads over inproc. Nothing else is shared, and no lock is taken.
//!
//!     cargo run --example mt_server -- [ENDPOINT] [THREADS]

use std::io;
use std::thread;
use std::time::Duration;

use pollux::proxy::Proxy;
use pollux::socket::{Errno, Interest, Socket, SocketError, SocketType, ZmqContext};
use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

struct Server {
    proxy: Proxy<Server>,
}

/// Answers requests until the context is shut down, and says how many there were.
fn work(socket: &Socket, number: usize) -> Result<u64, SocketError> {
    let name = format!("thread {number}");
    for served in 0.. {
        let request = loop {
            match socket.wait(Interest::READABLE, None) {
                Err(Errno::ETERM) => return Ok(served),
                _ => match socket.receive_message() {
                    Ok(Some(request)) => break request,
                    Ok(None) => {}
                    Err(error) if error.errno() == Errno::ETERM => return Ok(served),
                    Err(error) => return Err(error),
                },
            }
        };
        let mut reply = request;
        reply.push_back(name.clone());
        // The asker may have gone: REP drops the reply then. Else only the end is an error.
        let _ = socket.send(&reply);
    }
    Ok(u64::MAX)
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let endpoint = args.next().unwrap_or("tcp://127.0.0.1:5555".into());
    let threads = args.next().map_or(Ok(5), |arg| arg.parse()).map_err(io::Error::other)?;

    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let context = ZmqContext::new()?;
    let clients = Socket::builder(SocketType::Router).bind(endpoint).build(&context)?;
    let workers = Socket::builder(SocketType::Dealer).bind("inproc://workers").build(&context)?;
    println!("serving at {}", clients.last_endpoint()?);
    let mut pool = Vec::new();
    for number in 0..threads {
        // Made here, so that an error shows here; the thread becomes its only owner.
        let worker = Socket::builder(SocketType::Rep).connect("inproc://workers");
        let worker = worker.build(&context)?;
        pool.push(thread::spawn(move || work(&worker, number)));
    }
    let mut server = Server { proxy: Proxy::builder(clients, workers).build()? };
    Proxy::attach(&mut reactor, &mut server, |server| &mut server.proxy)?;
    reactor.run(&mut server)?;

    // Threads that wait in a socket are told by the context.
    context.shutdown();
    for (number, worker) in pool.into_iter().enumerate() {
        let served = worker.join().map_err(|_| io::Error::other("a worker panicked"))??;
        println!("thread {number} served {served}");
    }
    drop((reactor, server));
    context.terminate(Duration::from_millis(500)).map_err(|in_use| in_use.error())?;
    Ok(())
}
