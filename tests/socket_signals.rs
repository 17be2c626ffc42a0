//! Signals that arrive all the time interrupt no call and lose no message.
//!
//! A program of its own, without the test harness: a signal for the process goes to
//! its main thread, which here is the one that sends and receives.

#[path = "common/signals.rs"]
mod signals;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pollux::Multipart;
use pollux::socket::{Errno, Events, Frame, Interest, PollSet, SendError, Socket, SocketType};
use signal_hook::consts::SIGUSR1;

use signals::Signals;

const MESSAGES: u32 = 20_000;
const DEADLINE: Duration = Duration::from_secs(60);

fn main() {
    let signalled = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGUSR1, Arc::clone(&signalled)).unwrap();
    let context = zmq::Context::new();
    let pull = Socket::builder(SocketType::Pull).bind("tcp://127.0.0.1:*").build(&context).unwrap();
    let reply =
        Socket::builder(SocketType::Push).bind("tcp://127.0.0.1:*").build(&context).unwrap();
    let endpoints = [pull.last_endpoint().unwrap(), reply.last_endpoint().unwrap()];
    let peer = thread::spawn({
        let context = context.clone();
        move || echo(&context, &endpoints)
    });

    let signals = Signals::start();
    let started = Instant::now();
    let mut set = PollSet::new();
    let mut frame = Frame::new();
    let (mut received, mut interrupted) = (0, 0);
    let mut unsent: Vec<Multipart> = Vec::new();
    while received < MESSAGES || interrupted < 20 {
        assert!(started.elapsed() < DEADLINE, "{received} received, {interrupted} interrupted");
        let mut list = set.clear();
        list.push(&pull, Interest::READABLE);
        match list.poll(Some(Duration::from_millis(1))) {
            Ok(_) => {}
            Err(Errno::EINTR) => {
                interrupted += 1;
                assert!(!set.ready(0).any(), "no answer with an error");
            }
            Err(errno) => panic!("{errno}"),
        }
        loop {
            match pull.receive(&mut frame) {
                Ok(more) => {
                    assert!(!more);
                    assert_eq!(*frame, received.to_be_bytes(), "none lost, all in order");
                    received += 1;
                    unsent.insert(0, Multipart::from([frame.to_vec()]));
                }
                Err(Errno::EAGAIN) => break,
                Err(errno) => panic!("receive answered {errno:?}"),
            }
        }
        while let Some(message) = unsent.last() {
            match reply.send(message) {
                Ok(()) => drop(unsent.pop()),
                Err(SendError::WouldBlock) => break,
                Err(error) => panic!("send answered {error}"),
            }
        }
        // These are never interrupted either.
        pull.events().unwrap();
        pull.wait(Interest::READABLE, Some(Duration::from_micros(100))).unwrap();
    }
    while let Some(message) = unsent.pop() {
        while reply.send(&message) == Err(SendError::WouldBlock) {
            reply.wait(Interest::WRITABLE, Some(DEADLINE)).unwrap();
        }
    }
    peer.join().unwrap();
    calls_that_find_nothing(&signalled);
    drop(signals);
    println!("{received} messages there and back, {interrupted} polls interrupted");
}

/// Each of these looks into the kernel for news, so that about every third signal
/// arrives in the middle of it.
fn calls_that_find_nothing(signalled: &AtomicBool) {
    let context = zmq::Context::new();
    let dealer = Socket::builder(SocketType::Dealer).bind("inproc://idle").build(&context).unwrap();
    let mut frame = Frame::new();
    let started = Instant::now();
    let mut signals = 0;
    while signals < 200 {
        assert!(started.elapsed() < DEADLINE, "{signals} signals");
        signals += u32::from(signalled.swap(false, Ordering::Relaxed));
        assert_eq!(dealer.receive(&mut frame), Err(Errno::EAGAIN));
        assert_eq!(dealer.events(), Ok(Events::NONE));
        assert_eq!(dealer.wait(Interest::READABLE, Some(Duration::ZERO)), Ok(Events::NONE));
        assert_eq!(dealer.send("nobody"), Err(SendError::WouldBlock));
    }
}

/// Sends all messages and expects all of them back. The signals go to the main
/// thread.
fn echo(context: &zmq::Context, [there, back]: &[String; 2]) {
    let push = Socket::builder(SocketType::Push).connect(there).build(context).unwrap();
    let pull = Socket::builder(SocketType::Pull).connect(back).build(context).unwrap();
    for index in 0..MESSAGES {
        while push.send(&index.to_be_bytes()) == Err(SendError::WouldBlock) {
            push.wait(Interest::WRITABLE, Some(DEADLINE)).unwrap();
        }
    }
    for index in 0..MESSAGES {
        assert!(pull.wait(Interest::READABLE, Some(DEADLINE)).unwrap().readable);
        let message = pull.receive_message().unwrap().expect("readable");
        assert_eq!(message.get(0).unwrap(), &index.to_be_bytes()[..]);
    }
}
