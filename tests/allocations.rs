//! In steady state the loop allocates nothing: not for a message, a send, a timer, a wake,
//! a value from a channel, or a descriptor.
//!
//! Counted is what Rust code asks for on the loop's thread. (libzmq allocates for frames
//! of more than 33 bytes, by the C library.)

#[expect(dead_code, reason = "the benches count bytes, too")]
#[path = "../benches/common/alloc.rs"]
mod alloc;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pollux::proxy::Proxy;
use pollux::reactor::{Backend, Flow, Interest, Missed, Reactor, TimerKey, Wait};
use pollux::socket::{Socket, pair};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

const WARM_UP: u32 = 1000;
const ROUNDS: u32 = 10_000;

/// Runs `round` until whatever grows has grown, and then checks that it does no more.
fn allocates_nothing<S>(
    make: impl Fn(&mut Reactor<S>) -> S,
    round: impl Fn(&mut Reactor<S>, &mut S, u32),
) {
    for backend in [Backend::ZmqPoll, Backend::Epoll] {
        for wait in [Wait::Block, Wait::SpinFor(Duration::from_micros(1))] {
            let mut reactor = Reactor::builder().backend(backend).wait(wait).build().unwrap();
            let mut state = make(&mut reactor);
            for number in 0..WARM_UP {
                round(&mut reactor, &mut state, number);
            }
            let events = reactor.stats().events;
            let before = alloc::calls();
            for number in 0..ROUNDS {
                round(&mut reactor, &mut state, number);
            }
            let calls = alloc::calls() - before;
            let events = reactor.stats().events - events;
            assert!(events >= u64::from(ROUNDS), "{events} events");
            assert_eq!(calls, 0, "for {events} events with {backend:?}, {wait:?}");
        }
    }
}

/// Turns until the reactor is idle; the first may block.
fn settle<S>(reactor: &mut Reactor<S>, state: &mut S) {
    let mut wait = Duration::from_secs(60);
    while reactor.turn(state, wait).unwrap() > 0 {
        wait = Duration::ZERO;
    }
}

#[test]
fn the_allocator_counts() {
    let before = alloc::calls();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(alloc::calls() - before, 1);
}

#[test]
fn messages_and_replies() {
    struct State {
        theirs: Socket,
        bytes: usize,
    }
    allocates_nothing(
        |reactor| {
            let (ours, theirs) = pair(&zmq::Context::new()).unwrap();
            reactor
                .on_message(ours, |state: &mut State, cx, message| {
                    state.bytes += message.bytes();
                    cx.own_socket()?.send(&message)?;
                    Ok(Flow::Continue)
                })
                .unwrap();
            State { theirs, bytes: 0 }
        },
        |reactor, state, number| {
            // One frame of each length that lies inside a message, five, and eight, which are
            // the most that sending takes without an allocation.
            let body = [7; 33];
            state.theirs.send(&body[..number as usize % 34]).unwrap();
            state.theirs.send(&[&body[..5], &[], &body[..8], &body[..33], &body[..20]]).unwrap();
            state.theirs.send(&[&body[..1]; 8]).unwrap();
            settle(reactor, state);
            let mut frame = pollux::socket::Frame::new();
            while state.theirs.receive(&mut frame).is_ok() {}
        },
    );
}

#[test]
fn timers() {
    struct State {
        standing: TimerKey,
        fired: u32,
    }
    allocates_nothing(
        |reactor| {
            reactor.add_periodic(Duration::from_nanos(1), Missed::Skip, |state: &mut State, cx| {
                // Armed and cancelled, and armed to fire, in each round. A handler without
                // a captured value takes no memory of its own.
                let passing = cx.add_timer(Duration::from_secs(1), |_, _| Ok(Flow::Continue));
                cx.add_timer(Duration::ZERO, |state: &mut State, _| {
                    state.fired += 1;
                    Ok(Flow::Continue)
                });
                cx.rearm_after(state.standing, Duration::ZERO)?;
                cx.cancel(passing)?;
                Ok(Flow::Continue)
            });
            let standing = reactor.add_standing_timer(|state: &mut State, _| {
                state.fired += 1;
                Ok(Flow::Continue)
            });
            State { standing, fired: 0 }
        },
        |reactor, state, _| {
            let fired = state.fired;
            while state.fired == fired {
                reactor.turn(state, Duration::from_secs(60)).unwrap();
            }
        },
    );
}

#[test]
fn wakes_and_values() {
    struct State {
        waker: Option<pollux::reactor::Waker>,
        sender: Option<pollux::reactor::Sender<u64>>,
        seen: u64,
    }
    allocates_nothing(
        |reactor: &mut Reactor<State>| {
            let waker = reactor
                .add_waker(|state: &mut State, _| {
                    state.seen += 1;
                    Ok(Flow::Continue)
                })
                .unwrap();
            let sender = reactor
                .channel(4, |state: &mut State, _, value: u64| {
                    state.seen += value;
                    Ok(Flow::Continue)
                })
                .unwrap();
            State { waker: Some(waker), sender: Some(sender), seen: 0 }
        },
        |reactor, state, number| {
            state.waker.as_ref().unwrap().wake();
            let sender = state.sender.as_ref().unwrap();
            (0..4).for_each(|value| sender.try_send(value + u64::from(number)).unwrap());
            settle(reactor, state);
        },
    );
}

#[test]
fn descriptors() {
    allocates_nothing(
        |reactor| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            reactor
                .add_fd(ours, Interest::READABLE, |_, _, ours, _| {
                    let mut bytes = [0; 64];
                    while ours.read(&mut bytes).is_ok() {}
                    Ok(Flow::Continue)
                })
                .unwrap();
            theirs
        },
        |reactor, theirs, _| {
            theirs.write_all(b"bytes").unwrap();
            settle(reactor, theirs);
        },
    );
}

/// Through a proxy, with a copy for a capture socket.
#[test]
fn messages_through_a_proxy() {
    struct State {
        proxy: Proxy<State>,
        peers: [Socket; 3],
    }
    allocates_nothing(
        |reactor| {
            let context = zmq::Context::new();
            let [(left, front), (right, back), (spy, capture)] =
                [(); 3].map(|()| pair(&context).unwrap());
            let proxy = Proxy::builder(front, back).capture(capture).build().unwrap();
            let mut state = State { proxy, peers: [left, right, spy] };
            Proxy::attach(reactor, &mut state, |state| &mut state.proxy).unwrap();
            state
        },
        |reactor, state, number| {
            let body = [7; 33];
            for (from, to) in [(0, 1), (1, 0)] {
                state.peers[from].send(&body[..number as usize % 34]).unwrap();
                state.peers[from].send(&[&body[..5], &[], &body[..33]]).unwrap();
                state.peers[from].send(&[&body[..1]; 7]).unwrap();
                settle(reactor, state);
                let mut frame = pollux::socket::Frame::new();
                for receiver in [to, 2] {
                    while state.peers[receiver].receive(&mut frame).is_ok() {}
                }
            }
            let moved = state.proxy.stats();
            let each = 3 * (u64::from(number) + 1);
            assert!(moved.frontend.messages_out >= each && moved.captured >= 2 * each);
        },
    );
}
