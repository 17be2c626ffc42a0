//! From the making of a socket to the end of its context.

use std::thread;
use std::time::{Duration, Instant};

use pollux::Multipart;
use pollux::socket::{Errno, Frame, SendError, Socket, SocketType};

use crate::{DEADLINE, bound, eventually, of, receive, send, vacant};

#[test]
fn the_end_of_the_context_is_an_error_of_its_own() {
    let mut context = zmq::Context::new();
    let socket = of(SocketType::Dealer).bind("inproc://end").build(&context).unwrap();
    let other = context.clone();
    let spare = other.socket(zmq::PULL).unwrap();
    let ending = thread::spawn(move || {
        let ended = context.destroy();
        // It has freed what dropping it would use once more (zmq 0.10).
        std::mem::forget(context);
        ended
    });
    let mut frame = Frame::new();
    eventually("the end", || (socket.receive(&mut frame) == Err(Errno::ETERM)).then_some(()));
    assert_eq!(socket.receive(&mut frame), Err(Errno::ETERM));
    assert_eq!(socket.events(), Err(Errno::ETERM));
    let message = socket.receive_message().unwrap_err();
    assert_eq!(message.to_string(), "receive (DEALER): Context was terminated; close the socket");
    let mut frames = vec![Frame::copy_from(b"kept")];
    for result in
        [socket.send("late"), socket.send(&["late", "too"]), socket.send_frames(&mut frames)]
    {
        match result {
            Err(SendError::Failed(error)) => assert_eq!(error.errno(), Errno::ETERM),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(*frames[0], *b"kept");
    for error in [
        socket.bind("tcp://127.0.0.1:*").unwrap_err(),
        socket.connect("tcp://127.0.0.1:9").unwrap_err(),
        socket.set_linger(None).unwrap_err(),
        socket.linger().unwrap_err(),
        Socket::new(&other, SocketType::Pull).unwrap_err(),
        eventually("the end", || {
            let spare = other.socket(zmq::PULL);
            spare.err().map(|_| Socket::new(&other, SocketType::Push).unwrap_err())
        }),
    ] {
        assert_eq!(error.errno(), Errno::ETERM, "{error}");
        assert!(error.remedy().is_some());
    }
    // A socket that learns of the end only now has no type and no descriptor any more.
    let spare = eventually_ended(spare);
    assert_eq!(Socket::from_zmq(spare).unwrap_err().errno(), Errno::ETERM);
    drop(socket);
    drop(other);
    ending.join().unwrap().unwrap();
}

/// `spare` once it has noticed.
fn eventually_ended(spare: zmq::Socket) -> zmq::Socket {
    eventually("the end", || (spare.get_events() == Err(zmq::Error::ETERM)).then_some(()));
    spare
}

#[test]
fn a_socket_of_the_zmq_crate_comes_in_and_goes_out_as_it_is() {
    let context = zmq::Context::new();
    let raw = context.socket(zmq::ROUTER).unwrap();
    raw.set_identity(b"name").unwrap();
    raw.set_linger(1234).unwrap();
    raw.bind("inproc://raw").unwrap();
    let socket = Socket::from_zmq(raw).unwrap();
    assert_eq!(socket.socket_type(), SocketType::Router);
    assert_eq!(socket.linger().unwrap(), Some(Duration::from_millis(1234)));
    assert_eq!(socket.routing_id().unwrap(), b"name");
    assert_eq!(socket.last_endpoint().unwrap(), "inproc://raw");
    let raw = socket.into_zmq();
    assert_eq!(raw.get_linger().unwrap(), 1234);
    let dealer = of(SocketType::Dealer).connect("inproc://raw").build(&context).unwrap();
    send(&dealer, "hello");
    assert_eq!(receive(&Socket::from_zmq(raw).unwrap()).get(1).unwrap(), "hello");
}

#[test]
fn every_new_socket_has_a_linger_time() {
    let context = zmq::Context::new();
    for socket_type in crate::ALL_TYPES {
        let socket = Socket::new(&context, socket_type).unwrap();
        assert_eq!(socket.linger().unwrap(), Some(Socket::DEFAULT_LINGER));
        let socket = of(socket_type).build(&context).unwrap();
        assert_eq!(socket.as_zmq().get_linger().unwrap(), 1000);
        socket.set_linger(None).unwrap();
        assert_eq!(socket.linger().unwrap(), None);
        socket.set_linger(Duration::ZERO).unwrap();
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
    }
}

#[test]
fn what_was_accepted_is_delivered_after_a_clean_end() {
    const COUNT: u32 = 1000;
    let receiving = zmq::Context::new();
    let (pull, endpoint) = bound(&receiving, of(SocketType::Pull));
    let sender = thread::spawn(move || {
        let context = zmq::Context::new();
        let push = of(SocketType::Push).connect(endpoint).build(&context).unwrap();
        for index in 0..COUNT {
            send(&push, &index.to_be_bytes());
        }
        // Socket and context are dropped at once.
    });
    sender.join().unwrap();
    for index in 0..COUNT {
        assert_eq!(receive(&pull).get(0).unwrap(), &index.to_be_bytes()[..]);
    }
}

#[test]
fn a_context_with_a_peer_that_never_comes_ends() {
    let started = Instant::now();
    {
        let context = zmq::Context::new();
        let (_directory, nobody) = vacant();
        let push = of(SocketType::Push).connect(nobody).build(&context).unwrap();
        push.send("to nobody").unwrap();
    }
    assert!(started.elapsed() >= Socket::DEFAULT_LINGER, "it tried to deliver");
    assert!(started.elapsed() < DEADLINE, "and gave up");
}

#[test]
fn connecting_before_anybody_is_there() {
    let context = zmq::Context::new();
    let (_directory, endpoint) = vacant();
    let push = of(SocketType::Push)
        .reconnect_interval(Duration::from_millis(10))
        .connect(&endpoint)
        .build(&context)
        .unwrap();
    push.send("early").unwrap();
    let pull = of(SocketType::Pull).bind(&endpoint).build(&context).unwrap();
    assert_eq!(receive(&pull), Multipart::from(["early"]));
    assert_eq!(push.last_endpoint().unwrap(), endpoint);
    push.disconnect(&endpoint).unwrap();
    assert_eq!(push.disconnect(&endpoint).unwrap_err().errno(), Errno::ENOENT);
}
