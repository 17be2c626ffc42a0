//! Errors, panics, and contexts that end.

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use pollux::reactor::{Flow, Interest, Key, Missed, Reactor};
use pollux::socket::{Errno, Socket, SocketType, ZmqContext, pair};

use crate::{DEADLINE, each, pipe, reactor, settle};

#[test]
fn an_error_removes_its_source_and_the_loop_goes_on() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (bad, to_bad) = pipe();
        let (good, to_good) = pipe();
        let bad = reactor
            .on_message(bad, |_: &mut u32, _, _| Err(io::Error::other("deliberate")))
            .unwrap();
        reactor
            .on_message(good, |seen: &mut u32, _, _| {
                *seen += 1;
                Ok(Flow::Continue)
            })
            .unwrap();
        let timer = reactor.add_periodic(Duration::from_millis(1), Missed::Skip, |_, _| {
            Err(io::Error::other("deliberate"))
        });
        let sender = reactor.channel(2, |_, _, ()| Err(io::Error::other("deliberate"))).unwrap();
        sender.try_send(()).unwrap();
        for _ in 0..3 {
            to_bad.send("x").unwrap();
            to_good.send("x").unwrap();
        }
        let mut seen = 0;
        while reactor.contains(timer) {
            reactor.turn(&mut seen, DEADLINE).unwrap();
        }
        assert_eq!(seen, 3);
        assert!(!reactor.contains(bad));
        assert!(!reactor.contains(sender.source()));
        assert_eq!(reactor.stats().errors, 3);
    });
}

#[test]
fn the_error_hook_decides() {
    each(|backend| {
        #[derive(Default)]
        struct State {
            errors: Vec<(Key, String)>,
            calls: u32,
        }
        let mut reactor = reactor(backend);
        let (ours, theirs) = pipe();
        let key = reactor
            .on_message(ours, |state: &mut State, _, message| {
                state.calls += 1;
                Err(io::Error::other(String::from_utf8_lossy(&message[0]).into_owned()))
            })
            .unwrap();
        reactor.on_error(|state: &mut State, cx, error| {
            state.errors.push((cx.key(), error.to_string()));
            match error.to_string().as_str() {
                "continue" => Flow::Continue,
                "stop" => Flow::Stop,
                _ => Flow::Remove,
            }
        });
        for text in ["continue", "stop", "continue", "remove", "never"] {
            theirs.send(text).unwrap();
        }
        let mut state = State::default();
        reactor.run(&mut state).unwrap();
        assert!(reactor.is_stopped());
        assert_eq!(state.calls, 2);
        reactor.run(&mut state).unwrap(); // until nothing is left to wait for
        assert_eq!(state.calls, 4);
        let texts: Vec<&str> = state.errors.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["continue", "stop", "continue", "remove"]);
        assert!(state.errors.iter().all(|(of, _)| *of == Key::Socket(key)));
        assert!(!reactor.contains(key));
    });
}

/// The hook has the whole context, too.
#[test]
fn the_error_hook_may_remove_and_register() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (ours, theirs) = pipe();
        reactor
            .on_message(ours, |_: &mut Vec<String>, _, _| Err(io::Error::other("first")))
            .unwrap();
        reactor.on_error(|seen: &mut Vec<String>, cx, error| {
            seen.push(error.to_string());
            let Key::Socket(key) = cx.key() else { return Flow::Remove };
            let socket = cx.remove(key).expect("it is still there");
            cx.on_message(socket, |seen: &mut Vec<String>, _, message| {
                seen.push(format!("{message:?}"));
                Ok(Flow::Continue)
            })
            .expect("registered");
            Flow::Continue
        });
        theirs.send("1").unwrap();
        theirs.send("2").unwrap();
        let mut seen = Vec::new();
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, ["first", "[b\"2\"]"]);
    });
}

/// Silences the message of a panic that is wanted.
fn panics<R>(call: impl FnOnce() -> R) -> String {
    let message = Rc::new(RefCell::new(String::new()));
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(_) => panic!("it did not panic"),
        Err(payload) => {
            *message.borrow_mut() = payload.downcast_ref::<&str>().copied().unwrap_or("?").into();
        }
    }
    message.take()
}

/// Whatever handler panics: it is removed, all others are there and go on, and the
/// counters are right.
#[test]
fn a_panic_leaves_a_usable_loop() {
    each(|backend| {
        let mut reactor: Reactor<Vec<&str>> = reactor(backend);
        let (ours, theirs) = pipe();
        let (ready, to_ready) = pipe();
        let (other, to_other) = pipe();
        let (stream, mut to_stream) = std::os::unix::net::UnixStream::pair().unwrap();
        let deliberate = || -> io::Result<Flow> { panic!("deliberate") };
        let keys: Vec<Key> = vec![
            reactor.on_message(ours, move |_, _, _| deliberate()).unwrap().into(),
            reactor
                .on_ready(ready, Interest::READABLE, move |_, _, _| deliberate())
                .unwrap()
                .into(),
            reactor
                .add_fd(stream, Interest::READABLE, move |_, _, _, _| deliberate())
                .unwrap()
                .into(),
            reactor.add_timer(Duration::ZERO, move |_, _| deliberate()).into(),
        ];
        let sender = reactor.channel(2, move |_, _, ()| deliberate()).unwrap();
        let waker = reactor.add_waker(move |_, _| deliberate()).unwrap();
        let mut keys = keys;
        keys.push(sender.source().into());
        keys.push(waker.source().unwrap().into());
        let survivor = reactor
            .on_message(other, |seen, _, _| {
                seen.push("survivor");
                Ok(Flow::Continue)
            })
            .unwrap();
        for _ in 0..2 {
            theirs.send(&["a", "b"]).unwrap();
            to_ready.send("x").unwrap();
            to_other.send("x").unwrap();
        }
        std::io::Write::write_all(&mut to_stream, b"x").unwrap();
        sender.try_send(()).unwrap();
        waker.wake();

        let mut seen = Vec::new();
        let mut alive = keys.len();
        while alive > 0 {
            assert_eq!(panics(|| settle(&mut reactor, &mut seen)), "deliberate");
            let left = keys.iter().filter(|key| reactor.contains(**key)).count();
            assert_eq!(left, alive - 1, "each panic removes one");
            alive = left;
        }
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, ["survivor", "survivor"]);
        assert!(reactor.contains(survivor));
        assert_eq!(reactor.stats().messages_received, 1 + 2);
        assert_eq!(reactor.stats().frames_received, 2 + 2);
        assert!(sender.try_send(()).is_err());
        to_other.send("x").unwrap();
        reactor.add_timer(Duration::ZERO, |seen, _| {
            seen.push("timer");
            Ok(Flow::Continue)
        });
        settle(&mut reactor, &mut seen);
        assert_eq!(seen.len(), 4);
    });
}

#[test]
fn a_panic_in_the_error_hook_drops_the_hook() {
    each(|backend| {
        let mut reactor: Reactor<()> = reactor(backend);
        reactor.on_error(|_, _, _| panic!("deliberate"));
        let fail = |_: &mut (), _: &mut pollux::Context<'_, ()>| Err(io::Error::other("cause"));
        let first = reactor.add_periodic(Duration::from_nanos(1), Missed::Skip, fail);
        assert_eq!(panics(|| reactor.turn(&mut (), DEADLINE)), "deliberate");
        assert!(!reactor.contains(first));
        let second = reactor.add_timer(Duration::ZERO, fail);
        settle(&mut reactor, &mut ());
        assert!(!reactor.contains(second));
        assert_eq!(reactor.stats().errors, 2);
    });
}

/// A context that is terminated from another thread: all its sockets are closed, which
/// lets the termination end, and those of other contexts stay.
#[test]
fn a_terminated_context_ends_its_sockets() {
    each(|backend| {
        let ending = ZmqContext::new().unwrap();
        let (one, _kept) = pair(&ending).unwrap();
        let two = Socket::builder(SocketType::Rep).bind("inproc://rep").build(&ending).unwrap();
        let silent = Socket::new(&ending, SocketType::Push).unwrap();
        let (stays, to_stays) = pipe();
        let mut reactor = reactor(backend);
        let ended = [
            reactor.on_message(one, |_, _, _| Ok(Flow::Continue)).unwrap(),
            reactor.on_message(two, |_, _, _| Ok(Flow::Continue)).unwrap(),
            reactor.add_socket(silent).unwrap(),
        ];
        let stays = reactor
            .on_message(stays, |seen: &mut Vec<Key>, cx, _| {
                seen.push(cx.key());
                Ok(Flow::Continue)
            })
            .unwrap();
        reactor.on_error(|seen: &mut Vec<Key>, cx, error| {
            let errno = error.get_ref().and_then(|inner| inner.downcast_ref::<Errno>());
            assert_eq!(errno, Some(&Errno::ETERM));
            seen.push(cx.key());
            Flow::Continue // which is of no use
        });
        let mut seen = Vec::new();
        settle(&mut reactor, &mut seen);
        drop(_kept);
        let terminating = thread::spawn(move || ending.terminate(DEADLINE).unwrap());
        let started = Instant::now();
        while ended.iter().any(|key| reactor.contains(*key)) {
            reactor.turn(&mut seen, DEADLINE).unwrap();
            assert!(started.elapsed() < DEADLINE, "{seen:?}");
        }
        terminating.join().unwrap();
        // libzmq tells each socket by itself, in no order.
        assert_eq!(seen.len(), ended.len());
        assert!(ended.iter().all(|key| seen.contains(&Key::Socket(*key))), "{seen:?}");
        assert_eq!(reactor.stats().sockets_terminated, 3);
        to_stays.send("x").unwrap();
        settle(&mut reactor, &mut seen);
        assert_eq!(seen.last(), Some(&Key::Socket(stays)));
    });
}

/// Nobody of the context is waited for: one only sends, one is paused. libzmq tells each of
/// them by itself, so that the end of one says nothing of the others yet.
#[test]
fn a_terminated_context_ends_sockets_that_wait_for_nothing() {
    each(|backend| {
        let ending = ZmqContext::new().unwrap();
        let silent = Socket::new(&ending, SocketType::Push).unwrap();
        let (paused, peer) = pair(&ending).unwrap();
        let mut reactor = reactor(backend);
        let silent = reactor.add_socket(silent).unwrap();
        let paused = reactor.on_message(paused, |_: &mut (), _, _| Ok(Flow::Continue)).unwrap();
        reactor.set_interest(paused, None).unwrap();
        peer.send("stays where it is").unwrap();
        settle(&mut reactor, &mut ());
        drop(peer);
        let terminating = thread::spawn(move || ending.terminate(DEADLINE).unwrap());
        let started = Instant::now();
        while reactor.contains(silent) || reactor.contains(paused) {
            reactor.turn(&mut (), DEADLINE).unwrap();
            assert!(started.elapsed() < DEADLINE, "{:?}", reactor.stats());
        }
        terminating.join().unwrap();
        assert_eq!(reactor.stats().sockets_terminated, 2);
    });
}

/// The loop blocks in receiving from its only socket, and it is a handler that takes the
/// news that the context has ended.
#[test]
fn a_context_that_ends_behind_a_receive_is_an_error_of_the_socket() {
    each(|backend| {
        let context = ZmqContext::new().unwrap();
        let (ours, theirs) = pair(&context).unwrap();
        let mut reactor = reactor(backend);
        let key = reactor.on_message(ours, |_: &mut u32, _, _| Ok(Flow::Continue)).unwrap();
        theirs.send("x").unwrap();
        settle(&mut reactor, &mut 0);
        let ending = context.clone();
        reactor.add_timer(Duration::from_millis(20), move |_, cx| {
            ending.shutdown();
            assert!(cx.socket(key)?.send("y").is_err());
            Ok(Flow::Continue)
        });
        // The next time to wait is another one, and so is the socket's receive timeout.
        reactor.add_timer(Duration::from_millis(50), |_, _| Ok(Flow::Continue));
        reactor.on_error(|errors, _, error| {
            let errno = error.get_ref().and_then(|inner| inner.downcast_ref::<Errno>());
            assert_eq!(errno, Some(&Errno::ETERM));
            *errors += 1;
            Flow::Continue
        });
        let mut errors = 0;
        reactor.run(&mut errors).unwrap();
        assert_eq!(errors, 1);
        assert!(!reactor.contains(key));
        drop((reactor, theirs));
        context.terminate(DEADLINE).unwrap();
    });
}

/// An event that is none leads to work: a turn that says 0 must have done it.
#[test]
fn idle_is_not_said_while_the_error_hook_has_made_work() {
    each(|backend| {
        let ending = ZmqContext::new().unwrap();
        let (ours, _kept) = pair(&ending).unwrap();
        let (late, to_late) = pipe();
        to_late.send("it is there already").unwrap();
        struct State {
            late: Option<Socket>,
            seen: bool,
        }
        let mut reactor = reactor(backend);
        let key = reactor.on_message(ours, |_: &mut State, _, _| Ok(Flow::Continue)).unwrap();
        reactor.on_error(|state, cx, _| {
            if let Some(late) = state.late.take() {
                cx.on_message(late, |state: &mut State, _, _| {
                    state.seen = true;
                    Ok(Flow::Continue)
                })
                .unwrap();
            }
            Flow::Continue
        });
        let mut state = State { late: Some(late), seen: false };
        settle(&mut reactor, &mut state);
        ending.shutdown();
        while reactor.contains(key) {
            let handled = reactor.turn(&mut state, DEADLINE).unwrap();
            assert!(handled > 0 || state.late.is_some(), "it was not idle");
        }
        assert!(state.seen);
    });
}

#[test]
fn a_socket_that_is_given_back_has_its_receive_timeout() {
    each(|backend| {
        let (ours, theirs) = pipe();
        ours.as_zmq().set_rcvtimeo(77).unwrap();
        let mut reactor = reactor(backend);
        let key = reactor.on_message(ours, |_: &mut (), _, _| Ok(Flow::Continue)).unwrap();
        theirs.send("x").unwrap();
        settle(&mut reactor, &mut ());
        reactor.add_timer(Duration::from_millis(20), |_, _| Ok(Flow::Stop));
        reactor.run(&mut ()).unwrap();
        let ours = reactor.remove(key).unwrap();
        assert_eq!(ours.as_zmq().get_rcvtimeo(), Ok(77));
    });
}

/// A socket that cannot do what its handler is for tells so.
#[test]
fn a_socket_that_only_sends_cannot_have_messages() {
    each(|backend| {
        let mut reactor: Reactor<Vec<String>> = reactor(backend);
        let push = Socket::new(&zmq::Context::new(), SocketType::Push).unwrap();
        let key = reactor.on_message(push, |_, _, _| Ok(Flow::Continue)).unwrap();
        reactor.on_error(|seen, _, error| {
            seen.push(error.to_string());
            Flow::Remove
        });
        let mut seen = Vec::new();
        reactor.run(&mut seen).unwrap();
        assert!(!reactor.contains(key));
        assert_eq!(seen.len(), 1);
    });
}
