//! Messages of many frames: built, read, passed on blindly; all of one or nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pollux::reactor::{Flow, Reactor};
use pollux::socket::{Frame, Interest, SendError, Socket, SocketType, pair};
use pollux::{Frames, Message, Multipart};

const DEADLINE: Duration = Duration::from_secs(20);

fn receive(socket: &Socket) -> Multipart {
    let started = Instant::now();
    loop {
        if let Some(message) = socket.receive_message().expect("receive") {
            return message;
        }
        let left = DEADLINE.checked_sub(started.elapsed()).expect("no message in time");
        socket.wait(Interest::READABLE, Some(left)).expect("wait");
    }
}

#[test]
fn it_is_built_read_and_changed() {
    let mut message: Multipart = ["b", ""].into();
    message.push_front("a");
    message.extend([b"c".to_vec()]);
    assert_eq!(message.len(), 4);
    assert_eq!(message.bytes(), 3);
    assert_eq!(&message[1][..], b"b");
    assert_eq!(message.get(4), None);
    assert!(message.iter().eq(["a", "b", "", "c"]));
    assert_eq!((&message).into_iter().count(), 4);
    assert_eq!(message.pop_back().as_deref(), Some(&b"c"[..]));
    let again: Multipart = message.clone().into_iter().collect();
    assert_eq!(again, message);
    assert!(Multipart::new().is_empty() && !Multipart::new().is_signal());
}

#[test]
fn envelopes_are_put_on_and_taken_off() {
    let mut message = Multipart::from(["body", "", "more"]);
    message.wrap("inner");
    message.push_front("outer");
    let envelope = message.unwrap_envelope().expect("an envelope");
    assert_eq!(envelope, Multipart::from(["outer", "inner", ""]));
    assert_eq!(message, Multipart::from(["body", "", "more"]), "up to the first delimiter alone");
    let mut bare = Multipart::from(["no", "envelope"]);
    assert_eq!(bare.unwrap_envelope(), None);
    assert_eq!(bare.len(), 2, "nothing is taken off");
}

/// Whatever can be sent arrives as it is, frame by frame.
#[test]
fn frames_of_all_lengths_and_numbers_go_through() {
    let context = zmq::Context::new();
    let (left, right) = pair(&context).expect("a pair");
    // 33 bytes lie within a message of libzmq, 255 have a short length on the wire.
    let lengths = [0, 1, 33, 34, 255, 256, 8192, 100_000];
    let message: Multipart = lengths.into_iter().map(|length| vec![length as u8; length]).collect();
    let many: Multipart = (0..10_000).map(|number: u32| number.to_be_bytes().to_vec()).collect();
    for message in [message, many, Multipart::from([""]), Multipart::from(["", "", ""])] {
        left.send(&message).expect("room");
        assert_eq!(receive(&right), message);
    }
    assert!(matches!(left.send(&Multipart::new()), Err(SendError::Failed(_))));
}

/// Passed on without a look, in the frames it came in: by a handler, and by hand.
#[test]
fn it_is_forwarded_blindly() {
    let context = zmq::Context::new();
    let (left, inner_left) = pair(&context).expect("a pair");
    let (inner_right, right) = pair(&context).expect("a pair");
    let message = Multipart::from([vec![], vec![1; 50_000], b"\0\xff".to_vec()]);
    left.send(&message).expect("room");
    let mut frames = Vec::new();
    assert!(inner_left.receive_frames(&mut frames).expect("received"));
    assert_eq!(frames.iter().map(Frame::len).sum::<usize>(), message.bytes());
    inner_right.send_frames(&mut frames).expect("room");
    assert_eq!(receive(&right), message);

    let mut reactor = Reactor::new().expect("a reactor");
    let out = reactor.add_socket(inner_right).expect("added");
    let forward =
        move |seen: &mut Vec<usize>, cx: &mut pollux::Context<'_, _>, all: Message<'_>| {
            seen.extend(all.frames().iter().map(|frame| frame.len()));
            cx.socket(out)?.send(&all)?;
            Ok(Flow::Stop)
        };
    reactor.on_message(inner_left, forward).expect("added");
    left.send(&message).expect("room");
    let mut seen = Vec::new();
    reactor.run(&mut seen).expect("it runs");
    assert_eq!(seen, [0, 50_000, 2]);
    assert_eq!(receive(&right), message);
}

#[test]
fn a_signal_says_all_by_coming() {
    let context = zmq::Context::new();
    let (left, right) = pair(&context).expect("a pair");
    left.send("").expect("room");
    let signal = receive(&right);
    assert!(signal.is_signal());
    assert_eq!((signal.len(), signal.bytes()), (1, 0));
    left.send(&["", ""]).expect("room");
    assert!(!receive(&right).is_signal(), "two empty frames are a message");
}

/// A PULL whose connections can be seen to end, and a raw connection to it that has
/// shaken hands as a PUSH.
fn raw_push(pull: &Socket) -> TcpStream {
    let endpoint = pull.last_endpoint().expect("an endpoint");
    let mut tcp = TcpStream::connect(endpoint.trim_start_matches("tcp://")).expect("connected");
    tcp.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    // ZMTP 3.0: a greeting of 64 bytes with the mechanism, then READY.
    let mut greeting = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0];
    greeting.extend(b"NULL");
    greeting.resize(64, 0);
    tcp.write_all(&greeting).expect("written");
    tcp.write_all(b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PUSH").expect("written");
    tcp.read_exact(&mut [0; 64]).expect("a greeting");
    tcp
}

/// Over tcp, limited to frames of 1,000 bytes, with what tells of connections that end.
fn watched_pull(context: &zmq::Context) -> (Socket, Socket) {
    let pull = Socket::builder(SocketType::Pull).max_message_size(1000);
    let pull = pull.bind("tcp://127.0.0.1:*").build(context).expect("a socket");
    let disconnected = zmq::SocketEvent::DISCONNECTED.to_raw();
    pull.as_zmq().monitor("inproc://monitor", disconnected.into()).expect("monitored");
    let monitor = Socket::builder(SocketType::Pair).connect("inproc://monitor");
    (pull, monitor.build(context).expect("a socket"))
}

#[test]
fn a_peer_that_goes_in_the_middle_of_a_message_has_sent_nothing() {
    let context = zmq::Context::new();
    let (pull, monitor) = watched_pull(&context);
    let mut tcp = raw_push(&pull);
    tcp.write_all(b"\0\x05whole").expect("written");
    assert_eq!(receive(&pull), Multipart::from(["whole"]));
    // Two frames that say that more follows, and then the end.
    tcp.write_all(b"\x01\x05first\x01\x06second").expect("written");
    drop(tcp);
    let _gone = receive(&monitor);
    assert_eq!(pull.receive_message().expect("receive"), None);
}

#[test]
fn a_frame_over_the_maximum_takes_its_message_and_its_connection_with_it() {
    let context = zmq::Context::new();
    let (pull, monitor) = watched_pull(&context);
    let mut tcp = raw_push(&pull);
    // A short frame, and one that is announced with a gigabyte: nobody waits for that.
    tcp.write_all(b"\x01\x05first\x02\0\0\0\0\x40\0\0\0").expect("written");
    let _gone = receive(&monitor);
    assert_eq!(pull.receive_message().expect("receive"), None);
    let mut left = Vec::new();
    // The end of the connection, whether orderly or not.
    let _ = tcp.read_to_end(&mut left);
    let push = Socket::builder(SocketType::Push).connect(pull.last_endpoint().expect("bound"));
    let push = push.build(&context).expect("a socket");
    push.wait(Interest::WRITABLE, Some(DEADLINE)).expect("wait");
    let allowed = Multipart::from([vec![0; 1000], vec![0; 1000]]);
    push.send(&allowed).expect("room");
    assert_eq!(receive(&pull), allowed, "the limit is for each frame");
}

#[test]
fn borrowed_and_owned_are_the_same() {
    let frames: [&[u8]; 3] = [b"a", b"", b"bc"];
    let message = Message::new(&frames);
    let owned = message.to_multipart();
    assert_eq!(owned.frame_count(), message.frame_count());
    assert_eq!(owned.bytes(), message.bytes());
    assert_eq!(message.skip(1).to_multipart(), Multipart::from(["", "bc"]));
}
