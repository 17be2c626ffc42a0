//! What was accepted for sending is sent, or its loss is reported.

use std::thread;
use std::time::{Duration, Instant};

use pollux::Multipart;
use pollux::socket::{Errno, Socket, SocketType, ZmqContext, pair};

use crate::{DEADLINE, bound, of, receive, send, vacant};

#[test]
fn what_was_accepted_is_sent_when_close_says_so() {
    const COUNT: u32 = 500;
    let receiving = zmq::Context::new();
    let (pull, endpoint) = bound(&receiving, of(SocketType::Pull));
    let sender = thread::spawn(move || {
        let context = ZmqContext::new().unwrap();
        let push = of(SocketType::Push).connect(endpoint).build(&context).unwrap();
        for index in 0..COUNT {
            send(&push, &[&index.to_be_bytes()[..], &[7; 1000]]);
        }
        push.close(DEADLINE).unwrap();
        context.terminate(DEADLINE).unwrap();
    });
    for index in 0..COUNT {
        assert_eq!(receive(&pull).get(0).unwrap(), &index.to_be_bytes()[..]);
    }
    sender.join().unwrap();
}

#[test]
fn a_loss_is_reported() {
    let context = zmq::Context::new();
    let (_directory, nobody) = vacant();
    let push = of(SocketType::Push).connect(&nobody).build(&context).unwrap();
    push.send("to nobody").unwrap();
    let started = Instant::now();
    let error = push.close(Duration::from_millis(50)).unwrap_err();
    assert!(started.elapsed() >= Duration::from_millis(50), "it tried");
    assert_eq!((error.errno(), error.endpoint()), (Errno::ETIMEDOUT, Some(&nobody[..])));
    assert_eq!(
        error.to_string(),
        format!("close {nobody} (PUSH): Connection timed out; what was not sent in time is lost")
    );
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::TimedOut);
}

/// A peer that is connected and reads nothing: the system's buffers are full, and so are
/// the queues.
#[test]
fn a_loss_by_a_peer_that_does_not_read_is_reported() {
    let receiving = zmq::Context::new();
    let (pull, endpoint) = bound(&receiving, of(SocketType::Pull).receive_hwm(1));
    let context = zmq::Context::new();
    let push = of(SocketType::Push).send_hwm(0).connect(endpoint).build(&context).unwrap();
    let mut sent = 0;
    for _ in 0..100 {
        send(&push, &vec![0; 1 << 20][..]);
        sent += 1;
    }
    let error = push.close(Duration::from_millis(100)).unwrap_err();
    assert_eq!(error.errno(), Errno::ETIMEDOUT);
    let mut received = 0;
    while crate::try_receive(&pull, Duration::from_millis(200)).is_some() {
        received += 1;
    }
    assert!((1..sent).contains(&received), "{received} of {sent}");
}

/// Again and again, so that sockets get the memory of those that were closed before them.
#[test]
fn nothing_to_send_is_no_loss() {
    let context = ZmqContext::new().unwrap();
    for socket_type in [crate::ALL_TYPES; 20].concat() {
        // Longer than libzmq can linger is as long as it can.
        of(socket_type).build(&context).unwrap().close(Duration::MAX).unwrap();
        let idle = of(socket_type).connect("tcp://127.0.0.1:9").build(&context).unwrap();
        idle.close(Duration::from_secs(5)).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Within a process nothing is lost while the peer is there, but it may be slow to read.
#[test]
fn over_inproc_the_peer_has_read_everything() {
    let context = ZmqContext::new().unwrap();
    let (left, right) = pair(&context).unwrap();
    left.send("to the other side").unwrap();
    let reader = thread::spawn(move || {
        assert_eq!(receive(&right), Multipart::from(["to the other side"]));
        // It learns of the end when it asks for more.
        while right.receive_message().unwrap().is_none() && right.events().unwrap().writable {}
        right
    });
    left.close(DEADLINE).unwrap();
    drop(reader.join().unwrap());

    let (left, right) = pair(&context).unwrap();
    left.send("unread").unwrap();
    let error = left.close(Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.errno(), Errno::ETIMEDOUT);
    assert_eq!(error.remedy(), Some("the peer has not read everything yet, and still can"));
    assert_eq!(receive(&right), Multipart::from(["unread"]));
}

#[test]
fn what_cannot_be_known_is_said() {
    let context = ZmqContext::new().unwrap();
    let foreign = Socket::from_zmq(zmq::Context::new().socket(zmq::PUSH).unwrap()).unwrap();
    let error = foreign.close(Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("got one of the zmq crate"), "{error}");
    let late = Socket::new(&context, SocketType::Push).unwrap();
    context.shutdown();
    assert_eq!(late.close(Duration::ZERO).unwrap_err().errno(), Errno::ETERM);
}
