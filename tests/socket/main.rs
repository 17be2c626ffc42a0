//! Sockets against real peers: every type, every way to be refused, every option.

mod blocking;
mod contexts;
mod ending;
mod errors;
mod frames;
mod high_water;
mod lifetime;
mod options;
mod patterns;
mod poll_set;
mod security;
mod threads;
mod types;

use std::time::{Duration, Instant};

use pollux::Multipart;
use pollux::socket::{Interest, SendError, Socket, SocketBuilder, SocketType};

/// Longer than anything that works takes; what fails may take it.
const DEADLINE: Duration = Duration::from_secs(10);

const ALL_TYPES: [SocketType; 12] = [
    SocketType::Req,
    SocketType::Rep,
    SocketType::Dealer,
    SocketType::Router,
    SocketType::Pub,
    SocketType::Sub,
    SocketType::XPub,
    SocketType::XSub,
    SocketType::Push,
    SocketType::Pull,
    SocketType::Pair,
    SocketType::Stream,
];

/// The next message, for which it waits.
fn receive(socket: &Socket) -> Multipart {
    try_receive(socket, DEADLINE).expect("no message within the deadline")
}

/// The next message, or `None` if there is none within `time`.
fn try_receive(socket: &Socket, time: Duration) -> Option<Multipart> {
    let started = Instant::now();
    loop {
        let left = time.saturating_sub(started.elapsed());
        let readable = socket.wait(Interest::READABLE, Some(left)).expect("wait").readable;
        // REQ is readable for replies that it then throws away.
        if let Some(message) = socket.receive_message().expect("receive") {
            return Some(message);
        }
        if !readable || left.is_zero() {
            return None;
        }
    }
}

/// Sends, waiting for room or for a peer.
fn send(socket: &Socket, frames: &(impl pollux::Frames + ?Sized)) {
    let started = Instant::now();
    loop {
        match socket.send(frames) {
            Ok(()) => return,
            Err(SendError::WouldBlock) => {
                let left = DEADLINE.checked_sub(started.elapsed()).expect("no room in time");
                socket.wait(Interest::WRITABLE, Some(left)).expect("wait");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Repeats `attempt` until it gives something: for what libzmq does in the
/// background and does not tell of.
fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(started.elapsed() < DEADLINE, "not within the deadline: {what}");
        std::thread::yield_now();
    }
}

/// A socket of `builder` bound to a free port, and its endpoint.
fn bound(context: &zmq::Context, builder: SocketBuilder) -> (Socket, String) {
    let socket = builder.bind("tcp://127.0.0.1:*").build(context).expect("bind");
    let endpoint = socket.last_endpoint().expect("endpoint");
    (socket, endpoint)
}

/// Two sockets connected over tcp; the first one is bound.
fn connected(bind: SocketBuilder, connect: SocketBuilder) -> (Socket, Socket) {
    let context = zmq::Context::new();
    let (first, endpoint) = bound(&context, bind);
    let second = connect.connect(endpoint).build(&context).expect("connect");
    (first, second)
}

fn of(socket_type: SocketType) -> SocketBuilder {
    Socket::builder(socket_type)
}

/// An endpoint where nobody is, and where no other test will be, in a directory that
/// is to be kept as long as it is used.
fn vacant() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("directory");
    let endpoint = format!("ipc://{}", directory.path().join("socket").display());
    (directory, endpoint)
}
