//! Messages and readiness to handlers: order, budgets, fairness, and what handlers
//! may do to the loop while they run.

use std::time::Duration;

use pollux::reactor::{Flow, Interest, Key, SocketKey, StaleKey, Stats};
use pollux::socket::{Frame, SendError, Socket, SocketType};

use crate::{each, pipe, reactor, received, settle, until};

#[test]
fn messages_come_whole_and_in_order() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (ours, theirs) = pipe();
        let key = reactor
            .on_message(ours, |seen: &mut Vec<Vec<Vec<u8>>>, _, message| {
                seen.push(message.frames().iter().map(|frame| frame.to_vec()).collect());
                Ok(Flow::Continue)
            })
            .unwrap();
        // One frame, none but empty ones, as many as are kept, one more, many more.
        let mut expected = Vec::new();
        for (number, frames) in [1, 2, 5, 16, 17, 1, 1000, 3].into_iter().enumerate() {
            let message: Vec<Vec<u8>> =
                (0..frames).map(|frame| vec![number as u8; frame * 7 % 100]).collect();
            theirs.send(&message[..]).unwrap();
            expected.push(message);
        }
        let mut seen = Vec::new();
        assert_eq!(settle(&mut reactor, &mut seen), expected.len());
        assert_eq!(seen, expected);

        let stats = reactor.stats();
        let frames: usize = expected.iter().map(Vec::len).sum();
        let bytes: usize = expected.iter().flatten().map(Vec::len).sum();
        assert_eq!(stats.messages_received, expected.len() as u64);
        assert_eq!(stats.frames_received, frames as u64);
        assert_eq!(stats.bytes_received, bytes as u64);
        assert_eq!(stats.events, expected.len() as u64);
        let source = reactor.source_stats(key).unwrap();
        assert_eq!(source.messages_received, stats.messages_received);
        assert_eq!(source.frames_received, stats.frames_received);
        assert_eq!(source.bytes_received, stats.bytes_received);
    });
}

#[test]
fn a_budget_gives_others_their_turn() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let pipes: Vec<_> = (0..3).map(|_| pipe()).collect();
        let mut theirs = Vec::new();
        for (number, (ours, end)) in pipes.into_iter().enumerate() {
            let key = reactor
                .on_message(ours, move |seen: &mut Vec<usize>, _, _| {
                    seen.push(number);
                    Ok(Flow::Continue)
                })
                .unwrap();
            reactor.set_budget(key, [2, 3, 1][number]).unwrap();
            theirs.push(end);
        }
        for _ in 0..6 {
            // Multipart messages count once.
            theirs.iter().for_each(|end| end.send(&["a", "b", "c"]).unwrap());
        }
        let mut seen = Vec::new();
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, [0, 0, 1, 1, 1, 2, 0, 0, 1, 1, 1, 2, 0, 0, 2, 2, 2, 2]);
        assert_eq!(reactor.stats().budgets_exhausted, 3 + 2 + 6);
    });
}

/// A source that never runs dry neither starves another one, nor timers, nor wakes.
#[test]
fn an_endless_source_starves_nobody() {
    each(|backend| {
        #[derive(Default)]
        struct State {
            endless: u64,
            quiet: u64,
            ticks: u64,
            wakes: u64,
        }
        let mut reactor = reactor(backend);
        let (endless, feed) = pipe();
        feed.send("x").unwrap();
        reactor
            .on_message(endless, move |state: &mut State, _, message| {
                state.endless += 1;
                feed.send(&message)?;
                Ok(Flow::Continue)
            })
            .unwrap();
        let (quiet, theirs) = pipe();
        reactor
            .on_message(quiet, |state: &mut State, _, _| {
                state.quiet += 1;
                Ok(Flow::Continue)
            })
            .unwrap();
        let waker = reactor
            .add_waker(|state: &mut State, _| {
                state.wakes += 1;
                Ok(Flow::Continue)
            })
            .unwrap();
        reactor.add_timer(Duration::from_millis(5), |state: &mut State, _| {
            state.ticks += 1;
            Ok(Flow::Continue)
        });
        let mut state = State::default();
        until(&mut reactor, &mut state, |state| state.endless > 1000);
        theirs.send("now").unwrap();
        waker.wake();
        until(&mut reactor, &mut state, |state| {
            state.quiet == 1 && state.ticks == 1 && state.wakes == 1
        });
        assert_eq!(reactor.stats().polls_blocked, 0);
    });
}

#[test]
fn handlers_remove_add_and_stop_at_once() {
    each(|backend| {
        struct State {
            seen: Vec<&'static str>,
            victim: SocketKey,
            spare: Option<Socket>,
        }
        let mut reactor = reactor(backend);
        let (first, to_first) = pipe();
        let (second, to_second) = pipe();
        let (spare, to_spare) = pipe();
        let remover = reactor
            .on_message(first, |state: &mut State, cx, _| {
                state.seen.push("remover");
                // The other one has been found ready in the same turn.
                cx.discard(state.victim)?;
                assert_eq!(cx.discard(state.victim), Err(StaleKey(state.victim.into())));
                let spare = state.spare.take().expect("called once");
                let added = cx.on_message(spare, |state: &mut State, cx, message| {
                    state.seen.push(if &message[0] == b"stop" { "stopped" } else { "added" });
                    if &message[0] == b"stop" {
                        cx.stop();
                    }
                    Ok(Flow::Continue)
                })?;
                assert_ne!(added, state.victim, "a key is never used again");
                Ok(Flow::Remove)
            })
            .unwrap();
        let victim = reactor
            .on_message(second, |state: &mut State, _, _| {
                state.seen.push("removed");
                Ok(Flow::Continue)
            })
            .unwrap();
        for text in ["one", "two"] {
            to_first.send(text).unwrap();
            to_second.send(text).unwrap();
        }
        for text in ["a", "stop", "b"] {
            to_spare.send(text).unwrap();
        }
        let mut state = State { seen: Vec::new(), victim, spare: Some(spare) };
        reactor.run(&mut state).unwrap();
        assert!(reactor.is_stopped());
        assert_eq!(state.seen, ["remover", "added", "stopped"]);
        assert!(!reactor.contains(remover) && !reactor.contains(victim));
        // What was stopped goes on where it was.
        settle(&mut reactor, &mut state);
        assert!(!reactor.is_stopped());
        assert_eq!(state.seen, ["remover", "added", "stopped", "added"]);
    });
}

#[test]
fn a_handler_removes_its_own_socket_and_registers_it_anew() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (ours, theirs) = pipe();
        reactor
            .on_message(ours, |seen: &mut Vec<String>, cx, message| {
                seen.push(format!("old {message:?}"));
                let Key::Socket(key) = cx.key() else { panic!("a socket's handler") };
                let socket = cx.remove(key)?;
                assert_eq!(cx.own_socket().map(drop), Err(StaleKey(key.into())));
                let again = cx.on_message(socket, |seen: &mut Vec<String>, cx, message| {
                    seen.push(format!("new {message:?}"));
                    cx.own_socket()?.send("reply")?;
                    Ok(Flow::Continue)
                })?;
                assert_ne!(again, key);
                Ok(Flow::Continue)
            })
            .unwrap();
        for text in ["1", "2", "3"] {
            theirs.send(text).unwrap();
        }
        let mut seen = Vec::new();
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, ["old [b\"1\"]", "new [b\"2\"]", "new [b\"3\"]"]);
        assert_eq!(received(&theirs), ["reply", "reply"]);
    });
}

#[test]
fn stale_keys_are_refused_everywhere() {
    each(|backend| {
        let mut reactor = reactor::<()>(backend);
        let key = reactor.on_message(pipe().0, |_, _, _| Ok(Flow::Continue)).unwrap();
        let socket = reactor.remove(key).unwrap();
        let stale = StaleKey(Key::Socket(key));
        // Its slot has another one now.
        reactor.add_socket(socket).unwrap();
        assert_eq!(reactor.socket(key).map(drop), Err(stale));
        assert_eq!(reactor.remove(key).map(drop), Err(stale));
        assert_eq!(reactor.discard(key), Err(stale));
        assert_eq!(reactor.set_budget(key, 1), Err(stale));
        assert_eq!(reactor.source_stats(key), Err(stale));
        let error = reactor.set_interest(key, Interest::READABLE).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        let error = reactor.on_writable(key, |_, _, _| Ok(Flow::Continue)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert!(!reactor.contains(key));
    });
}

#[test]
fn a_paused_socket_is_left_alone_until_it_is_resumed() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (ours, theirs) = pipe();
        let key = reactor
            .on_message(ours, |seen: &mut Vec<String>, cx, message| {
                seen.push(format!("{message:?}"));
                let Key::Socket(key) = cx.key() else { panic!("a socket's handler") };
                if &message[0] == b"pause" {
                    cx.set_interest(key, None)?;
                }
                Ok(Flow::Continue)
            })
            .unwrap();
        for text in ["1", "pause", "2", "3"] {
            theirs.send(text).unwrap();
        }
        let mut seen = Vec::new();
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, ["[b\"1\"]", "[b\"pause\"]"]);
        theirs.send("4").unwrap();
        assert_eq!(settle(&mut reactor, &mut seen), 0);
        reactor.run(&mut seen).unwrap(); // nothing is left to wait for: it returns
        assert_eq!(seen.len(), 2);
        reactor.set_interest(key, Interest::READABLE).unwrap();
        settle(&mut reactor, &mut seen);
        assert_eq!(seen[2..], ["[b\"2\"]", "[b\"3\"]", "[b\"4\"]"]);
    });
}

#[test]
fn readiness_is_told_as_long_as_it_lasts() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (ours, theirs) = pipe();
        // One message a call, though several may be there.
        reactor
            .on_ready(ours, Interest::READABLE, |seen: &mut Vec<usize>, cx, ready| {
                assert!(ready.readable && !ready.writable);
                let mut frame = Frame::new();
                cx.own_socket()?.receive(&mut frame)?;
                seen.push(frame.len());
                Ok(if frame.is_empty() { Flow::Remove } else { Flow::Continue })
            })
            .unwrap();
        for text in ["1", "22", "333"] {
            theirs.send(text).unwrap();
        }
        let mut seen = Vec::new();
        assert_eq!(settle(&mut reactor, &mut seen), 3);
        assert_eq!(seen, [1, 2, 3]);
        theirs.send("4444").unwrap();
        theirs.send("").unwrap();
        reactor.run(&mut seen).unwrap();
        assert_eq!(seen, [1, 2, 3, 4, 0]);
    });
}

/// A PUSH at its high-water mark: what would block is kept, and goes on in order when
/// there is room.
#[test]
fn writability_is_waited_for_after_a_send_that_would_block() {
    each(|backend| {
        #[derive(Default)]
        struct State {
            next: u32,
            blocked: u32,
        }
        const MESSAGES: u32 = 1000;
        let context = zmq::Context::new();
        let name = "inproc://full";
        let push =
            Socket::builder(SocketType::Push).send_hwm(8).bind(name).build(&context).unwrap();
        let pull =
            Socket::builder(SocketType::Pull).receive_hwm(8).connect(name).build(&context).unwrap();
        let mut reactor = reactor(backend);
        let key = reactor.add_socket(push).unwrap();
        reactor
            .on_writable(key, move |state: &mut State, cx, ready| {
                assert!(ready.writable && !ready.readable);
                while state.next < MESSAGES {
                    match cx.socket(key)?.send(&state.next.to_be_bytes()) {
                        Ok(()) => state.next += 1,
                        Err(SendError::WouldBlock) => {
                            state.blocked += 1;
                            return Ok(Flow::Continue);
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                cx.set_interest(key, None)?;
                Ok(Flow::Continue)
            })
            .unwrap();
        reactor.set_interest(key, Interest::WRITABLE).unwrap();
        let mut state = State::default();
        settle(&mut reactor, &mut state);
        assert!(state.next < MESSAGES && state.blocked == 1, "{}", state.next);

        let receiver = std::thread::spawn(move || {
            for expected in 0..MESSAGES {
                let ready = pull.wait(pollux::socket::Interest::READABLE, Some(crate::DEADLINE));
                assert!(ready.unwrap().readable);
                let message = pull.receive_message().unwrap().unwrap();
                assert_eq!(message.get(0).unwrap()[..], expected.to_be_bytes());
            }
        });
        // It ends when all is sent, because then nothing is waited for.
        reactor.run(&mut state).unwrap();
        assert_eq!(state.next, MESSAGES);
        receiver.join().unwrap();
    });
}

/// Reading and writing interest on one socket, each with its handler.
#[test]
fn a_message_socket_waits_for_writability_besides() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (ours, theirs) = pipe();
        let key = reactor
            .on_message(ours, |seen: &mut Vec<String>, _, message| {
                seen.push(format!("{message:?}"));
                Ok(Flow::Continue)
            })
            .unwrap();
        assert!(reactor.set_interest(key, Interest::WRITABLE).is_err(), "nobody would be told");
        reactor
            .on_writable(key, move |seen: &mut Vec<String>, cx, ready| {
                assert!(ready.writable && !ready.readable);
                seen.push("writable".into());
                cx.set_interest(key, Interest::READABLE)?;
                Ok(Flow::Continue)
            })
            .unwrap();
        theirs.send("1").unwrap();
        let mut seen = Vec::new();
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, ["[b\"1\"]"]);
        reactor.set_interest(key, Interest::READABLE | Interest::WRITABLE).unwrap();
        theirs.send("2").unwrap();
        settle(&mut reactor, &mut seen);
        assert_eq!(seen[1..], ["[b\"2\"]", "writable"]);
    });
}

#[test]
fn a_socket_without_a_handler_lives_in_the_loop() {
    each(|backend| {
        struct State {
            out: SocketKey,
        }
        let mut reactor = reactor(backend);
        let (ours, theirs) = pipe();
        let (out, theirs_out) = pipe();
        let out = reactor.add_socket(out).unwrap();
        assert!(reactor.set_interest(out, Interest::READABLE).is_err());
        reactor
            .on_message(ours, |state: &mut State, cx, message| {
                cx.socket(state.out)?.send(&message)?;
                Ok(if message.len() == 1 { Flow::Remove } else { Flow::Continue })
            })
            .unwrap();
        theirs.send(&["a", "b"]).unwrap();
        theirs.send("c").unwrap();
        // It does not keep the loop running.
        reactor.run(&mut State { out }).unwrap();
        assert_eq!(received(&theirs_out), ["a|b", "c"]);
        drop(reactor.remove(out).unwrap());
    });
}

/// REP cannot receive before it has replied, which need not be in its handler.
#[test]
fn a_reply_may_come_later_than_its_request() {
    each(|backend| {
        let context = zmq::Context::new();
        let rep = Socket::builder(SocketType::Rep).bind("inproc://late").build(&context).unwrap();
        let requesters: Vec<Socket> = (0..3)
            .map(|_| {
                let req = Socket::builder(SocketType::Req).connect("inproc://late");
                let req = req.build(&context).unwrap();
                req.send("request").unwrap();
                req
            })
            .collect();
        let mut reactor = reactor(backend);
        let key = reactor
            .on_message(rep, |requests: &mut u32, cx, _| {
                *requests += 1;
                let Key::Socket(key) = cx.key() else { panic!("a socket's handler") };
                cx.add_timer(Duration::from_millis(1), move |_, cx| {
                    cx.socket(key)?.send("reply")?;
                    Ok(Flow::Continue)
                });
                Ok(Flow::Continue)
            })
            .unwrap();
        let mut requests = 0;
        until(&mut reactor, &mut requests, |requests| *requests == 3);
        while reactor.next_deadline().is_some() {
            reactor.turn(&mut requests, crate::DEADLINE).unwrap();
        }
        for req in requesters {
            let reply = req.receive_message().unwrap().unwrap();
            assert_eq!(reply.get(0).unwrap()[..], b"reply"[..]);
        }
        assert_eq!(reactor.source_stats(key).unwrap().messages_received, 3);
    });
}

#[test]
fn what_is_sent_through_the_loops_sockets_is_counted() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let shared = reactor.shared_stats();
        let (ours, theirs) = pipe();
        ours.send("before it was registered").unwrap();
        let lonely = Socket::new(&zmq::Context::new(), SocketType::Push).unwrap();
        let lonely = reactor.add_socket(lonely).unwrap();
        let key = reactor
            .on_message(ours, move |_: &mut (), cx, message| {
                let own = cx.own_socket()?;
                own.send(&message)?;
                own.send(&["one", "", "three"])?;
                assert_eq!(cx.socket(lonely)?.send("to nobody"), Err(SendError::WouldBlock));
                assert_eq!(cx.stats().messages_sent, 2, "at once");
                Ok(Flow::Continue)
            })
            .unwrap();
        theirs.send("request").unwrap();
        settle(&mut reactor, &mut ());
        let sent = |stats: Stats| (stats.messages_sent, stats.frames_sent, stats.bytes_sent);
        assert_eq!(sent(reactor.stats()), (2, 4, 7 + 8));
        assert_eq!(sent(shared.load()), (2, 4, 7 + 8));
        let source = reactor.source_stats(key).unwrap();
        assert_eq!((source.messages_sent, source.frames_sent, source.bytes_sent), (2, 4, 15));
        assert_eq!(reactor.source_stats(lonely).unwrap().messages_sent, 0);
        // Between turns, and by a socket that is removed before the next one.
        reactor.socket(key).unwrap().send("more").unwrap();
        assert_eq!(sent(reactor.stats()), (3, 5, 19));
        assert_eq!(reactor.source_stats(key).unwrap().messages_sent, 3);
        drop(reactor.remove(key));
        assert_eq!(sent(reactor.stats()), (3, 5, 19));
        reactor.turn(&mut (), Duration::ZERO).unwrap();
        assert_eq!(sent(reactor.stats()), (3, 5, 19));
        assert_eq!(sent(shared.load()), (3, 5, 19));
    });
}
