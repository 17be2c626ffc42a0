//! The loop in another loop: `turn`, and the poll descriptor.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use pollux::reactor::{Backend, Flow, Reactor, Wait};

use crate::{DEADLINE, each, pipe, reactor, settle};

#[test]
fn a_turn_of_zero_never_blocks_and_zero_events_mean_idle() {
    each(|backend| {
        for wait in [Wait::Block, Wait::Spin, Wait::SpinFor(DEADLINE)] {
            let mut reactor: Reactor<u32> =
                Reactor::builder().backend(backend).wait(wait).budget(3).build().unwrap();
            let started = Instant::now();
            assert_eq!(reactor.turn(&mut 0, Duration::ZERO).unwrap(), 0);
            let mut ends = Vec::new();
            for _ in 0..3 {
                let (ours, theirs) = pipe();
                reactor
                    .on_message(ours, |seen, _, _| {
                        *seen += 1;
                        Ok(Flow::Continue)
                    })
                    .unwrap();
                ends.push(theirs);
            }
            reactor.add_timer(DEADLINE, |_, _| Ok(Flow::Continue));
            assert_eq!(reactor.turn(&mut 0, Duration::ZERO).unwrap(), 0);
            // Exactly the budget, so that it looks as if there were more; then one on
            // another socket, which must not be overlooked.
            let mut seen = 0;
            for _ in 0..3 {
                ends[0].send("x").unwrap();
            }
            assert_eq!(reactor.turn(&mut seen, Duration::ZERO).unwrap(), 3);
            ends[1].send("x").unwrap();
            assert_eq!(reactor.turn(&mut seen, Duration::ZERO).unwrap(), 1);
            assert_eq!(reactor.turn(&mut seen, Duration::ZERO).unwrap(), 0);
            assert_eq!(seen, 4);
            assert!(started.elapsed() < DEADLINE / 2);
            assert_eq!(reactor.stats().polls_blocked, 0);
        }
    });
}

#[test]
fn a_turn_waits_as_long_as_it_may_and_no_longer() {
    each(|backend| {
        for wait in [Wait::Block, Wait::Spin, Wait::SpinFor(Duration::from_millis(2))] {
            let mut reactor: Reactor<u32> =
                Reactor::builder().backend(backend).wait(wait).build().unwrap();
            let _silent = {
                let (ours, theirs) = pipe();
                reactor.on_message(ours, |_, _, _| Ok(Flow::Continue)).unwrap();
                theirs
            };
            settle(&mut reactor, &mut 0);
            let started = Instant::now();
            assert_eq!(reactor.turn(&mut 0, Duration::from_millis(10)).unwrap(), 0);
            assert!(started.elapsed() >= Duration::from_millis(10));
            let blocked = Duration::from_nanos(reactor.stats().blocked_ns);
            match wait {
                Wait::Block => assert!(blocked >= Duration::from_millis(10)),
                Wait::Spin => assert!(blocked.is_zero()),
                Wait::SpinFor(_) => assert!(!blocked.is_zero()),
            }
            reactor.add_timer(Duration::from_millis(5), |fired, _| {
                *fired += 1;
                Ok(Flow::Continue)
            });
            let mut fired = 0;
            let started = Instant::now();
            while fired == 0 {
                reactor.turn(&mut fired, DEADLINE).unwrap();
            }
            assert!(started.elapsed() < DEADLINE / 2);
        }
    });
}

#[test]
fn a_loop_with_nothing_to_wait_for_returns() {
    each(|backend| {
        let mut reactor: Reactor<()> = reactor(backend);
        reactor.run(&mut ()).unwrap();
        reactor.add_socket(pipe().0).unwrap();
        reactor.add_standing_timer(|_, _| Ok(Flow::Continue));
        let _waker = reactor.waker();
        reactor.run(&mut ()).unwrap();
    });
}

#[test]
fn only_epoll_has_a_descriptor() {
    let error = reactor::<()>(Backend::ZmqPoll).poll_fd().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("Backend::Epoll"), "{error}");
    reactor::<()>(Backend::Epoll).poll_fd().unwrap();
}

/// An outer loop of mio sleeps on the reactor's descriptor, and wakes for a socket, a
/// waker, a channel, and (by the deadline) a timer. Whoever does one of these waits until
/// it has been seen before the next, so only the descriptor can wake the loop.
#[test]
fn an_outer_loop_sleeps_on_the_descriptor() {
    const ROUNDS: u32 = 200;
    struct State {
        seen: mpsc::Sender<&'static str>,
        rounds: u32,
        timers: u32,
    }
    fn saw(state: &mut State, what: &'static str) -> std::io::Result<Flow> {
        state.seen.send(what).map_err(std::io::Error::other)?;
        Ok(Flow::Continue)
    }
    let mut reactor: Reactor<State> = reactor(Backend::Epoll);
    let (ours, theirs) = pipe();
    reactor
        .on_message(ours, |state, cx, _| {
            // Touches the socket, too.
            cx.own_socket()?.send("reply")?;
            state.rounds += 1;
            saw(state, "message")
        })
        .unwrap();
    let waker = reactor.add_waker(|state, _| saw(state, "wake")).unwrap();
    let sender = reactor.channel(1, |state, _, ()| saw(state, "value")).unwrap();
    reactor.add_timer(Duration::from_millis(2), |state, _| {
        state.timers += 1;
        Ok(Flow::Continue)
    });

    let mut outer = Poll::new().unwrap();
    let fd = reactor.poll_fd().unwrap().as_fd().as_raw_fd();
    outer.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE).unwrap();
    let (seen, has_seen) = mpsc::channel();
    let thread = thread::spawn(move || {
        for _ in 0..ROUNDS {
            waker.wake();
            assert_eq!(has_seen.recv_timeout(DEADLINE), Ok("wake"));
            sender.send(()).unwrap();
            assert_eq!(has_seen.recv_timeout(DEADLINE), Ok("value"));
            theirs.send("x").unwrap();
            assert_eq!(has_seen.recv_timeout(DEADLINE), Ok("message"));
        }
        (theirs, waker, sender)
    });
    let mut state = State { seen, rounds: 0, timers: 0 };
    let mut events = Events::with_capacity(4);
    let started = Instant::now();
    loop {
        settle(&mut reactor, &mut state);
        if state.rounds == ROUNDS && state.timers == 1 {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{:?}", reactor.stats());
        let deadline = reactor.next_deadline();
        let timeout = deadline.map_or(DEADLINE, |deadline| deadline.since(reactor.now()));
        outer.poll(&mut events, Some(timeout)).unwrap();
    }
    thread.join().unwrap();
    assert_eq!(reactor.stats().polls_blocked, 0, "only the outer loop sleeps");
}
