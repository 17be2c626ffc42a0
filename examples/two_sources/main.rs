//! One program, two sources of messages, read in two ways: the Guide's msreader and mspoller.
//!
//!     cargo run --example two_sources -- ms_reader [TASKS] [UPDATES]
//!     cargo run --example two_sources -- ms_poller [TASKS] [UPDATES]
//!
//! TASKS is the endpoint of a PUSH socket (the ventilator of `pipeline`), UPDATES that of a
//! PUB socket (the server of `weather`).

mod ms_poller;
mod ms_reader;

use std::io;
use std::time::Duration;

use pollux::Message;
use pollux::socket::{Socket, SocketType};

/// The two sources: tasks, and the weather of places that begin with 10001.
fn connect(tasks: &str, updates: &str) -> io::Result<(Socket, Socket)> {
    let context = zmq::Context::new();
    let receiver = Socket::builder(SocketType::Pull).connect(tasks).build(&context)?;
    let subscriber = Socket::builder(SocketType::Sub)
        .subscribe("10001")
        .linger(Duration::ZERO)
        .connect(updates)
        .build(&context)?;
    Ok((receiver, subscriber))
}

/// What is to be done with a message.
fn show(source: &str, message: Message<'_>) {
    println!("{source}: {}", String::from_utf8_lossy(&message.frames().join(&b' ')));
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let way = args.next();
    let tasks = args.next().unwrap_or("tcp://127.0.0.1:5557".into());
    let updates = args.next().unwrap_or("tcp://127.0.0.1:5556".into());
    match way.as_deref() {
        Some("ms_reader") => ms_reader::run(&tasks, &updates),
        Some("ms_poller") => ms_poller::run(&tasks, &updates),
        _ => {
            eprintln!("usage: two_sources ms_reader|ms_poller [TASKS] [UPDATES]");
            std::process::exit(1)
        }
    }
}
