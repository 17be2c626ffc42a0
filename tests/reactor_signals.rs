//! Signals: as a source, and as what interrupts a loop that has nothing to do with
//! them.
//!
//! A program of its own, without the test harness: a signal for the process goes to
//! its main thread, which here is the loop's.

#[path = "common/signals.rs"]
mod signals;

use std::io::ErrorKind;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use pollux::reactor::{Backend, Flow, Missed, Reactor, StaleKey};
use pollux::socket::{Interest, Socket, SocketType};
use signal_hook::consts::{SIGKILL, SIGSEGV, SIGTERM, SIGUSR1, SIGUSR2};

use signals::Signals;

const DEADLINE: Duration = Duration::from_secs(60);

fn main() {
    for backend in [Backend::ZmqPoll, Backend::Epoll] {
        println!("with {backend:?}");
        signals_are_a_source(backend);
        some_signals_cannot_be_handled(backend);
        signals_interrupt_nothing(backend);
    }
}

fn send(signal: &str) {
    let own = std::process::id().to_string();
    assert!(Command::new("kill").args([signal, &own]).status().unwrap().success());
}

fn signals_are_a_source(backend: Backend) {
    let mut reactor = Reactor::builder().backend(backend).build().unwrap();
    let source = reactor
        .add_signals(&[SIGUSR2, SIGTERM], |seen: &mut Vec<i32>, _, signal| {
            seen.push(signal);
            Ok(if signal == SIGTERM { Flow::Remove } else { Flow::Continue })
        })
        .unwrap();
    let mut seen = Vec::new();
    assert_eq!(reactor.turn(&mut seen, Duration::ZERO).unwrap(), 0);
    for round in 1..=3 {
        send("-USR2");
        let started = Instant::now();
        while seen.len() < round {
            assert!(started.elapsed() < DEADLINE);
            reactor.turn(&mut seen, DEADLINE).unwrap();
        }
    }
    // While the loop sleeps.
    let sender = thread::spawn(|| send("-TERM"));
    reactor.run(&mut seen).unwrap(); // until the source is removed
    sender.join().unwrap();
    assert_eq!(seen, [SIGUSR2, SIGUSR2, SIGUSR2, SIGTERM]);
    assert_eq!(reactor.stats().signals, 4);
    assert_eq!(reactor.source_stats(source), Err(StaleKey(source.into())));
    // Nobody listens any more, and nothing happens.
    send("-USR2");
    assert_eq!(reactor.turn(&mut seen, Duration::ZERO).unwrap(), 0);
    assert_eq!(seen.len(), 4);
}

fn some_signals_cannot_be_handled(backend: Backend) {
    let mut reactor: Reactor<()> = Reactor::builder().backend(backend).build().unwrap();
    for signal in [SIGKILL, SIGSEGV, 0, -1, 65, i32::MAX] {
        let error = reactor.add_signals(&[SIGUSR2, signal], |_, _, _| Ok(Flow::Stop)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{signal}");
    }
    // None of them was registered half way.
    reactor.run(&mut ()).unwrap();
}

/// Signals that arrive all the time, handled elsewhere: no message is lost, no timer
/// fires early, none is forgotten, and the loop never ends for that.
fn signals_interrupt_nothing(backend: Backend) {
    const MESSAGES: u32 = 10_000;
    signal_hook::flag::register(SIGUSR1, Arc::new(AtomicBool::new(false))).unwrap();
    let context = zmq::Context::new();
    let router =
        Socket::builder(SocketType::Router).bind("tcp://127.0.0.1:*").build(&context).unwrap();
    let endpoint = router.last_endpoint().unwrap();
    let client = thread::spawn({
        let context = context.clone();
        move || request(&context, &endpoint, MESSAGES)
    });
    struct State {
        messages: u32,
        ticks: u32,
    }
    let mut reactor = Reactor::builder().backend(backend).build().unwrap();
    reactor
        .on_message(router, |state: &mut State, cx, message| {
            assert_eq!(message[1], state.messages.to_be_bytes(), "none lost, all in order");
            state.messages += 1;
            cx.own_socket()?.send(&message)?;
            Ok(Flow::Continue)
        })
        .unwrap();
    const PERIOD: Duration = Duration::from_millis(3);
    let started = Instant::now();
    reactor.add_periodic(PERIOD, Missed::Burst, move |state: &mut State, _| {
        state.ticks += 1;
        assert!(started.elapsed() >= PERIOD * state.ticks, "a timer fires early");
        Ok(Flow::Continue)
    });
    let signals = Signals::start();
    let mut state = State { messages: 0, ticks: 0 };
    while state.messages < MESSAGES || reactor.stats().polls_interrupted < 20 {
        assert!(started.elapsed() < DEADLINE, "{:?}", reactor.stats());
        reactor.turn(&mut state, DEADLINE).unwrap();
    }
    drop(signals);
    client.join().unwrap();
    println!("{MESSAGES} requests, {:?}", reactor.stats());
}

/// One request at a time, so that the loop sleeps in between.
fn request(context: &zmq::Context, endpoint: &str, messages: u32) {
    let dealer = Socket::builder(SocketType::Dealer).connect(endpoint).build(context).unwrap();
    for number in 0..messages {
        dealer.send(&number.to_be_bytes()).unwrap();
        assert!(dealer.wait(Interest::READABLE, Some(DEADLINE)).unwrap().readable);
        let reply = dealer.receive_message().unwrap().unwrap();
        assert_eq!(reply.get(0).unwrap()[..], number.to_be_bytes());
    }
}
