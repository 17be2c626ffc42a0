//! The reactor from outside. Every script runs through both backends and must see
//! the same events.

mod descriptors;
mod dispatch;
mod edges;
mod ending;
mod failures;
mod nesting;
mod scripts;
mod threads;
mod timers;

use std::time::{Duration, Instant};

use pollux::reactor::{Backend, Reactor};
use pollux::socket::{Socket, pair};

/// Far longer than anything here takes, on a machine that is busy, too.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a test with both backends.
fn each(test: impl Fn(Backend)) {
    for backend in [Backend::ZmqPoll, Backend::Epoll] {
        println!("with {backend:?}");
        test(backend);
    }
}

fn reactor<S>(backend: Backend) -> Reactor<S> {
    Reactor::builder().backend(backend).build().unwrap()
}

/// The two ends of a pipe: the first for the reactor, the second for the test.
fn pipe() -> (Socket, Socket) {
    pair(&zmq::Context::new()).unwrap()
}

/// Makes turns until nothing is left to do, without waiting. Returns the events.
fn settle<S>(reactor: &mut Reactor<S>, state: &mut S) -> usize {
    let started = Instant::now();
    let mut events = 0;
    loop {
        match reactor.turn(state, Duration::ZERO).unwrap() {
            0 => return events,
            handled => events += handled,
        }
        assert!(started.elapsed() < DEADLINE, "the reactor does not come to rest");
    }
}

/// Makes turns until `state` is as expected.
fn until<S>(reactor: &mut Reactor<S>, state: &mut S, expected: impl Fn(&S) -> bool) {
    let started = Instant::now();
    while !expected(state) {
        let left = DEADLINE.saturating_sub(started.elapsed());
        assert!(!left.is_zero(), "it did not happen; {:?}", reactor.stats());
        reactor.turn(state, left).unwrap();
    }
}

/// What the test's end of a pipe has got.
fn received(socket: &Socket) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(message) = socket.receive_message().unwrap() {
        let frames: Vec<_> =
            message.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect();
        all.push(frames.join("|"));
    }
    all
}
