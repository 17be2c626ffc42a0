//! Edges of `ZMQ_FD` that a handler swallows: whatever is done to a socket in a
//! handler, its messages are still seen before the loop sleeps.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pollux::reactor::{Flow, Interest, SocketKey};
use pollux::socket::{Socket, SocketType};

use crate::{DEADLINE, each, pipe, reactor, settle, until};

struct State {
    seen: Vec<String>,
    other: SocketKey,
    to_other: Socket,
}

/// A handler makes another socket look for news by `touch`, just after a message has
/// come for that one: the descriptor's edge is gone, and the message must be seen.
fn seen_after(touch: impl Fn(&Socket) + Clone + 'static) {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (other, to_other) = pipe();
        let (ours, theirs) = pipe();
        let other = reactor
            .on_message(other, |state: &mut State, _, message| {
                state.seen.push(String::from_utf8_lossy(&message[0]).into_owned());
                Ok(Flow::Continue)
            })
            .unwrap();
        let touch = touch.clone();
        reactor
            .on_message(ours, move |state: &mut State, cx, message| {
                state.seen.push("toucher".into());
                // The pipe was empty, so this signals; the touch takes the signal.
                state.to_other.send(&message)?;
                touch(cx.socket(state.other)?);
                Ok(Flow::Continue)
            })
            .unwrap();
        let mut state = State { seen: Vec::new(), other, to_other };
        // So that the other one has been seen empty.
        settle(&mut reactor, &mut state);
        for round in 1..=3 {
            state.seen.clear();
            theirs.send(&round.to_string()).unwrap();
            settle(&mut reactor, &mut state);
            assert_eq!(state.seen, ["toucher".to_string(), round.to_string()]);
        }
    });
}

#[test]
fn asking_for_events_takes_an_edge() {
    seen_after(|socket| assert!(socket.events().unwrap().readable));
}

#[test]
fn sending_takes_an_edge() {
    seen_after(|socket| socket.send("out").unwrap());
}

#[test]
fn binding_and_connecting_take_an_edge() {
    seen_after(|socket| {
        socket.bind("inproc://elsewhere").unwrap();
        socket.unbind("inproc://elsewhere").unwrap();
    });
}

#[test]
fn options_take_an_edge() {
    seen_after(|socket| socket.as_zmq().set_linger(0).unwrap());
}

#[test]
fn touching_between_turns_takes_an_edge() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (ours, theirs) = pipe();
        let key = reactor
            .on_message(ours, |seen: &mut u32, _, _| {
                *seen += 1;
                Ok(Flow::Continue)
            })
            .unwrap();
        let mut seen = 0;
        settle(&mut reactor, &mut seen);
        for round in 1..=3 {
            theirs.send("x").unwrap();
            assert!(reactor.socket(key).unwrap().events().unwrap().readable);
            assert_eq!(reactor.turn(&mut seen, Duration::ZERO).unwrap(), 1);
            assert_eq!(seen, round);
        }
    });
}

/// What came before the socket was registered has signalled before.
#[test]
fn a_socket_registered_late_is_looked_at() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (ours, theirs) = pipe();
        theirs.send("early").unwrap();
        assert!(ours.events().unwrap().readable, "and the edge is gone");
        reactor
            .on_message(ours, |seen: &mut u32, _, _| {
                *seen += 1;
                Ok(Flow::Continue)
            })
            .unwrap();
        let mut seen = 0;
        assert_eq!(reactor.turn(&mut seen, Duration::ZERO).unwrap(), 1);
    });
}

/// Write interest has the same edges: the room that a peer makes is told by a
/// command, which a receive takes.
#[test]
fn receiving_takes_the_edge_of_room() {
    each(|backend| {
        struct State {
            received: u32,
            writable: u32,
        }
        let context = zmq::Context::new();
        let ours = Socket::builder(SocketType::Pair)
            .send_hwm(4)
            .bind("inproc://room")
            .build(&context)
            .unwrap();
        let theirs = Socket::builder(SocketType::Pair)
            .receive_hwm(4)
            .connect("inproc://room")
            .build(&context)
            .unwrap();
        let mut reactor = reactor(backend);
        let key = reactor
            .on_message(ours, |state: &mut State, _, _| {
                state.received += 1;
                Ok(Flow::Continue)
            })
            .unwrap();
        reactor
            .on_writable(key, move |state: &mut State, cx, _| {
                state.writable += 1;
                cx.set_interest(key, Interest::READABLE)?;
                Ok(Flow::Continue)
            })
            .unwrap();
        let mut state = State { received: 0, writable: 0 };
        settle(&mut reactor, &mut state);
        for round in 1..=3 {
            while reactor.socket(key).unwrap().send("fill").is_ok() {}
            reactor.set_interest(key, Interest::READABLE | Interest::WRITABLE).unwrap();
            settle(&mut reactor, &mut state);
            assert_eq!(state.writable, round - 1, "it is full");
            // Room is made, and a message comes, which is received first.
            while theirs.receive_message().unwrap().is_some() {}
            theirs.send("news").unwrap();
            settle(&mut reactor, &mut state);
            assert_eq!((state.received, state.writable), (round, round));
        }
    });
}

/// Room is told of in each turn, also while there is always more to be received: what a handler
/// could not send might be what slows the peer down.
#[test]
fn room_is_told_of_while_messages_keep_coming() {
    const MESSAGES: u32 = 1000;
    each(|backend| {
        let (ours, theirs) = pipe();
        for number in 0..MESSAGES {
            theirs.send(&number.to_be_bytes()).unwrap();
        }
        let mut reactor = reactor(backend);
        // Received messages, and how many there were when there was room.
        let key = reactor
            .on_message(ours, |(received, _): &mut (u32, Vec<u32>), _, _| {
                *received += 1;
                Ok(Flow::Continue)
            })
            .unwrap();
        reactor
            .on_writable(key, move |(received, rooms): &mut (u32, Vec<u32>), cx, ready| {
                assert!(ready.writable && !ready.readable);
                rooms.push(*received);
                if rooms.len() == 3 {
                    cx.set_interest(key, Interest::READABLE)?;
                }
                Ok(Flow::Continue)
            })
            .unwrap();
        reactor.set_interest(key, Interest::READABLE | Interest::WRITABLE).unwrap();
        let mut state = (0, Vec::new());
        settle(&mut reactor, &mut state);
        assert_eq!(state.0, MESSAGES);
        let [first, second, third] = state.1[..] else { panic!("{:?}", state.1) };
        assert!(first < second && second < third && third < MESSAGES, "{:?}", state.1);
    });
}

/// Messages that come just while the socket is asked for room.
#[test]
fn a_message_that_comes_while_room_is_asked_for_is_seen() {
    const MESSAGES: u32 = 20_000;
    each(|backend| {
        struct State {
            received: u32,
            seen: mpsc::Sender<()>,
        }
        let context = zmq::Context::new();
        let ours = Socket::builder(SocketType::Pair)
            .send_hwm(1)
            .bind("inproc://no-room")
            .build(&context)
            .unwrap();
        let theirs = Socket::builder(SocketType::Pair)
            .receive_hwm(1)
            .connect("inproc://no-room")
            .build(&context)
            .unwrap();
        let mut reactor = reactor(backend);
        let key = reactor
            .on_message(ours, |state: &mut State, _, _| {
                state.received += 1;
                state.seen.send(()).map_err(std::io::Error::other)?;
                Ok(Flow::Continue)
            })
            .unwrap();
        reactor.on_writable(key, |_, _, _| panic!("nobody makes room")).unwrap();
        while reactor.socket(key).unwrap().send("fill").is_ok() {}
        reactor.set_interest(key, Interest::READABLE | Interest::WRITABLE).unwrap();
        let (seen, has_seen) = mpsc::channel();
        let thread = thread::spawn(move || {
            for number in 0..MESSAGES {
                theirs.send("news").unwrap();
                // At once after the one before was seen, while that one's turn goes on.
                assert_eq!(has_seen.recv_timeout(DEADLINE), Ok(()), "message {number}");
            }
            theirs
        });
        let mut state = State { received: 0, seen };
        until(&mut reactor, &mut state, |state| state.received == MESSAGES);
        thread.join().unwrap();
    });
}
