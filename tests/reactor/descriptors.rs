//! File descriptors and mio sources.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;

use mio::net::{TcpListener, TcpStream};
use pollux::reactor::{Flow, Interest, Key, SourceKey, StaleKey};

use crate::{DEADLINE, each, pipe, reactor, settle, until};

fn stream_pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, theirs)
}

/// All that is there to read; `true` if the peer has closed.
fn read_all(mut stream: impl Read, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut chunk = [0; 16];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(true),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

#[test]
fn a_descriptor_is_read_until_its_end() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (ours, mut theirs) = stream_pair();
        reactor
            .add_fd(ours, Interest::READABLE, |bytes: &mut Vec<u8>, _, stream, ready| {
                assert!(ready.readable);
                Ok(if read_all(stream, bytes)? { Flow::Remove } else { Flow::Continue })
            })
            .unwrap();
        let text: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
        let writer = thread::spawn({
            let text = text.clone();
            move || theirs.write_all(&text).unwrap()
        });
        let mut bytes = Vec::new();
        reactor.run(&mut bytes).unwrap();
        writer.join().unwrap();
        assert!(bytes == text);
    });
}

#[test]
fn a_handler_may_leave_off_and_be_called_again() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (ours, mut theirs) = stream_pair();
        let key = reactor
            .add_fd(ours, Interest::READABLE, |bytes: &mut Vec<u8>, cx, stream, _| {
                let mut one = [0; 1];
                match stream.read(&mut one) {
                    Ok(_) => {
                        bytes.push(one[0]);
                        cx.serve_again();
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                Ok(Flow::Continue)
            })
            .unwrap();
        theirs.write_all(b"edge").unwrap();
        let mut bytes = Vec::new();
        settle(&mut reactor, &mut bytes);
        assert_eq!(bytes, b"edge");
        assert_eq!(reactor.source_stats(key).unwrap().events, 5);
    });
}

#[test]
fn a_pipe_from_a_process_is_a_descriptor() {
    each(|backend| {
        use std::process::{Command, Stdio};
        let mut reactor = reactor(backend);
        let mut child = Command::new("echo").arg("hello").stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        // It blocks, so one read a call: epoll said that there is something.
        reactor
            .add_fd(stdout, Interest::READABLE, |text: &mut String, cx, stdout, ready| {
                if !ready.readable && ready.read_closed {
                    return Ok(Flow::Remove);
                }
                let mut chunk = [0; 100];
                let count = stdout.read(&mut chunk)?;
                text.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
                cx.serve_again();
                Ok(if count == 0 { Flow::Remove } else { Flow::Continue })
            })
            .unwrap();
        let mut text = String::new();
        reactor.run(&mut text).unwrap();
        assert_eq!(text, "hello\n");
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn what_epoll_does_not_take_is_given_back() {
    each(|backend| {
        let mut reactor = reactor::<()>(backend);
        let file = File::open("/proc/self/exe").unwrap();
        let rejected =
            reactor.add_fd(file, Interest::READABLE, |_, _, _, _| Ok(Flow::Continue)).unwrap_err();
        assert_eq!(rejected.error.kind(), ErrorKind::PermissionDenied, "a regular file");
        let mut magic = [0; 4];
        (&rejected.source).read_exact(&mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF");
        assert_eq!(std::io::Error::from(rejected).kind(), ErrorKind::PermissionDenied);
    });
}

#[test]
fn a_removed_descriptor_comes_back_and_its_key_is_stale() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (first, mut to_first) = stream_pair();
        let (second, mut to_second) = stream_pair();
        struct State {
            victim: Option<SourceKey<UnixStream>>,
            back: Option<UnixStream>,
            served: u32,
        }
        // Both are found ready in one poll; whoever comes first removes the other.
        let mut keys = Vec::new();
        for stream in [first, second] {
            keys.push(
                reactor
                    .add_fd(stream, Interest::READABLE, |state: &mut State, cx, _, _| {
                        state.served += 1;
                        if let Some(victim) = state.victim.take() {
                            state.back = cx.remove_source(victim)?;
                            assert_eq!(
                                cx.remove_source(victim).map(drop),
                                Err(StaleKey(victim.into()))
                            );
                            assert!(cx.source_mut(victim).is_err());
                        }
                        Ok(Flow::Continue)
                    })
                    .unwrap(),
            );
        }
        let mut state = State { victim: Some(keys[1]), back: None, served: 0 };
        to_first.write_all(b"1").unwrap();
        reactor.turn(&mut state, DEADLINE).unwrap();
        to_second.write_all(b"2").unwrap();
        settle(&mut reactor, &mut state);
        assert_eq!(state.served, 1);
        let mut byte = [0; 1];
        state.back.unwrap().read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"2");
        // Its own removal, from inside: it is dropped when the handler is done.
        let (own, mut theirs) = stream_pair();
        reactor
            .add_fd(own, Interest::READABLE, |state: &mut State, cx, _, _| {
                let pollux::reactor::Key::Source(id) = cx.key() else { panic!("a source") };
                cx.discard(id)?;
                state.served += 1;
                Ok(Flow::Continue)
            })
            .unwrap();
        theirs.write_all(b"x").unwrap();
        state.back = None;
        until(&mut reactor, &mut state, |state| state.served == 2);
        assert_eq!(theirs.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_paused_descriptor_waits() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (ours, mut theirs) = stream_pair();
        let key = reactor
            .add_fd(ours, Interest::READABLE, |bytes: &mut Vec<u8>, cx, stream, _| {
                read_all(stream, bytes)?;
                let pollux::reactor::Key::Source(own) = cx.key() else { panic!("a source") };
                if bytes.ends_with(b"!") {
                    cx.set_source_interest(own, None)?;
                }
                Ok(Flow::Continue)
            })
            .unwrap();
        let mut bytes = Vec::new();
        theirs.write_all(b"stop!").unwrap();
        settle(&mut reactor, &mut bytes);
        theirs.write_all(b"more").unwrap();
        assert_eq!(settle(&mut reactor, &mut bytes), 0);
        assert_eq!(bytes, b"stop!");
        reactor.set_source_interest(key, Interest::READABLE).unwrap();
        settle(&mut reactor, &mut bytes);
        assert_eq!(bytes, b"stop!more");
    });
}

/// Plain TCP in, ZeroMQ out, and back: all in one loop.
#[test]
fn mio_sources_and_sockets_share_a_loop() {
    each(|backend| {
        struct State {
            to_worker: pollux::reactor::SocketKey,
            streams: Vec<SourceKey<TcpStream>>,
            closed: u32,
        }
        let mut reactor = reactor(backend);
        let (ours, worker) = pipe();
        let to_worker = reactor
            .on_message(ours, |state: &mut State, cx, message| {
                let stream = usize::from(message[0][0]);
                cx.source_mut(state.streams[stream])?.write_all(&message[1])?;
                Ok(Flow::Continue)
            })
            .unwrap();
        let listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = reactor
            .add_source(listener, Interest::READABLE, |state: &mut State, cx, listener, _| {
                loop {
                    let stream = match listener.accept() {
                        Ok((stream, _)) => stream,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            return Ok(Flow::Continue);
                        }
                        Err(error) => return Err(error),
                    };
                    let number = state.streams.len() as u8;
                    let key = cx.add_source(
                        stream,
                        Interest::READABLE,
                        move |state: &mut State, cx, stream, _| {
                            let mut bytes = Vec::new();
                            let closed = read_all(stream, &mut bytes)?;
                            if !bytes.is_empty() {
                                cx.socket(state.to_worker)?.send(&[&[number][..], &bytes])?;
                            }
                            state.closed += u32::from(closed);
                            Ok(if closed { Flow::Remove } else { Flow::Continue })
                        },
                    )?;
                    state.streams.push(key);
                }
            })
            .unwrap();
        let worker = thread::spawn(move || {
            let mut count = 0;
            while count < 3 {
                worker.wait(pollux::socket::Interest::READABLE, Some(DEADLINE)).unwrap();
                while let Some(message) = worker.receive_message().unwrap() {
                    worker.send(&message).unwrap();
                    count += 1;
                }
            }
        });
        let clients: Vec<_> = (0..3)
            .map(|number| {
                thread::spawn(move || {
                    let mut stream = std::net::TcpStream::connect(address).unwrap();
                    let text = format!("client {number}");
                    stream.write_all(text.as_bytes()).unwrap();
                    let mut back = vec![0; text.len()];
                    stream.read_exact(&mut back).unwrap();
                    assert_eq!(back, text.as_bytes());
                })
            })
            .collect();
        let mut state = State { to_worker, streams: Vec::new(), closed: 0 };
        until(&mut reactor, &mut state, |state| state.closed == 3);
        clients.into_iter().for_each(|client| client.join().unwrap());
        worker.join().unwrap();
        let listener = reactor.remove_source(listener).unwrap().expect("it does not run");
        assert_eq!(listener.local_addr().unwrap(), address);
    });
}

#[test]
fn a_writable_descriptor_is_told() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (ours, theirs) = stream_pair();
        let text = vec![7; 1_000_000];
        struct State {
            unsent: Vec<u8>,
            calls: u32,
        }
        reactor
            .add_fd(ours, Interest::WRITABLE, |state: &mut State, _, stream, ready| {
                assert!(ready.writable);
                state.calls += 1;
                while !state.unsent.is_empty() {
                    match stream.write(&state.unsent) {
                        Ok(count) => drop(state.unsent.drain(..count)),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            return Ok(Flow::Continue);
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(Flow::Remove)
            })
            .unwrap();
        let mut state = State { unsent: text.clone(), calls: 0 };
        settle(&mut reactor, &mut state);
        assert!(state.calls == 1 && !state.unsent.is_empty(), "the kernel does not take it all");
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            (&theirs).read_to_end(&mut bytes).unwrap();
            bytes
        });
        reactor.run(&mut state).unwrap();
        assert!(reader.join().unwrap() == text);
        assert!(state.calls > 1);
    });
}

#[test]
fn an_interest_changed_by_a_handler_that_fails_holds() {
    each(|backend| {
        let mut reactor = reactor(backend);
        let (ours, mut theirs) = stream_pair();
        reactor.on_error(|_, _, _| Flow::Continue);
        reactor
            .add_fd(ours, Interest::READABLE, |seen: &mut Vec<&str>, cx, _, ready| {
                if ready.writable {
                    seen.push("writable");
                    return Ok(Flow::Remove);
                }
                seen.push("readable");
                let Key::Source(own) = cx.key() else { panic!("{:?}", cx.key()) };
                cx.set_source_interest(own, Interest::WRITABLE)?;
                Err(std::io::Error::other("deliberate"))
            })
            .unwrap();
        theirs.write_all(b"x").unwrap();
        let mut seen = Vec::new();
        reactor.run(&mut seen).unwrap();
        assert_eq!(seen, ["readable", "writable"]);
    });
}

/// What handlers hold goes when they are removed.
#[test]
fn removing_drops_the_handler() {
    each(|backend| {
        let mut reactor = reactor::<()>(backend);
        let held = Rc::new(());
        let (ours, _theirs) = stream_pair();
        let key = reactor
            .add_fd(ours, Interest::READABLE, {
                let held = Rc::clone(&held);
                move |_, _, _, _| {
                    assert_eq!(*held, ());
                    Ok(Flow::Continue)
                }
            })
            .unwrap();
        assert_eq!(Rc::strong_count(&held), 2);
        reactor.discard(key).unwrap();
        assert_eq!(Rc::strong_count(&held), 1);
    });
}
