//! What would block is given back, and nothing is lost or reordered.

use std::thread;
use std::time::{Duration, Instant};

use pollux::Multipart;
use pollux::socket::{Errno, Frame, Interest, SendError, Socket, SocketType, pair};

use crate::{DEADLINE, bound, connected, eventually, of, receive, send, vacant};

/// An inproc name of the context: contexts are not shared by tests.
const INPROC: &str = "inproc://blocking";

#[test]
fn without_a_peer() {
    let context = zmq::Context::new();
    for socket_type in [SocketType::Push, SocketType::Dealer, SocketType::Req, SocketType::Pair] {
        let socket = Socket::new(&context, socket_type).unwrap();
        assert_eq!(socket.send("nobody there"), Err(SendError::WouldBlock));
        assert_eq!(socket.send(&["nobody", "there"]), Err(SendError::WouldBlock));
        let mut frames = vec![Frame::copy_from(b"nobody"), Frame::copy_from(&[1; 100])];
        assert_eq!(socket.send_frames(&mut frames), Err(SendError::WouldBlock));
        assert_eq!(*frames[0], *b"nobody");
        assert_eq!(*frames[1], [1; 100]);
        assert!(!socket.events().unwrap().writable);
    }
}

#[test]
fn immediate_does_not_queue_for_a_peer_that_is_not_there() {
    let context = zmq::Context::new();
    let (_directory, nobody) = vacant();
    let queues = of(SocketType::Push).connect(&nobody).linger(Duration::ZERO);
    let waits = queues.clone().immediate(true);
    assert_eq!(queues.build(&context).unwrap().send("later"), Ok(()));
    assert_eq!(waits.build(&context).unwrap().send("now"), Err(SendError::WouldBlock));
}

/// Fills `sender` until it would block, receives all, in order, and goes on from the
/// message that was refused.
fn refused_at_the_mark(sender: Socket, receiver: Socket, envelope: &[&str]) {
    let message = |index: usize| -> Multipart {
        let number = index.to_string();
        let body = [number.clone(), "x".repeat(100), String::new()];
        envelope.iter().map(|part| part.to_string()).chain(body).collect()
    };
    let mut sent = 0;
    while sender.send(&message(sent)) == Ok(()) {
        sent += 1;
        assert!(sent < 1000, "a mark of a few messages is reached");
    }
    assert!(sent >= 4, "both marks are filled, not {sent}");
    assert!(!sender.wait(Interest::WRITABLE, Some(Duration::ZERO)).unwrap().writable);
    assert_eq!(sender.send(&message(sent)), Err(SendError::WouldBlock));
    let mut given_back: Vec<Frame> =
        message(sent).iter().map(|part| Frame::copy_from(part)).collect();
    assert_eq!(sender.send_frames(&mut given_back), Err(SendError::WouldBlock));
    assert_eq!(given_back.len(), message(sent).len());

    let mut next = sent;
    for index in 0..sent + 20 {
        let received = receive(&receiver);
        let number = received.get(received.len() - 3).unwrap();
        assert_eq!(number, index.to_string().as_bytes());
        assert_eq!(received.len(), 3);
        // Room comes back in portions, at the latest when all has been received.
        if next < sent + 20 && sender.send(&message(next)) == Ok(()) {
            next += 1;
        }
    }
    assert_eq!(receiver.receive_message(), Ok(None));
}

/// Over inproc the room is the sum of both marks, and nothing is in between.
fn small(socket_type: SocketType) -> pollux::socket::SocketBuilder {
    of(socket_type).send_hwm(2).receive_hwm(2)
}

#[test]
fn push_at_its_high_water_mark() {
    let context = zmq::Context::new();
    let push = small(SocketType::Push).bind(INPROC).build(&context).unwrap();
    let pull = small(SocketType::Pull).connect(INPROC).build(&context).unwrap();
    refused_at_the_mark(push, pull, &[]);
}

#[test]
fn dealer_at_its_high_water_mark() {
    let context = zmq::Context::new();
    let left = small(SocketType::Dealer).bind(INPROC).build(&context).unwrap();
    let right = small(SocketType::Dealer).connect(INPROC).build(&context).unwrap();
    refused_at_the_mark(left, right, &[]);
}

#[test]
fn pair_at_its_high_water_mark() {
    let context = zmq::Context::new();
    let left = small(SocketType::Pair).bind(INPROC).build(&context).unwrap();
    let right = small(SocketType::Pair).connect(INPROC).build(&context).unwrap();
    refused_at_the_mark(left, right, &[]);
}

#[test]
fn mandatory_router_at_its_high_water_mark() {
    let context = zmq::Context::new();
    let router = small(SocketType::Router).mandatory(true).bind(INPROC).build(&context).unwrap();
    let dealer =
        small(SocketType::Dealer).routing_id("peer").connect(INPROC).build(&context).unwrap();
    send(&dealer, "hello");
    assert_eq!(receive(&router), Multipart::from(["peer", "hello"]));
    refused_at_the_mark(router, dealer, &["peer"]);
}

#[test]
fn xpub_without_drop_at_its_high_water_mark() {
    let context = zmq::Context::new();
    let publisher = small(SocketType::XPub).nodrop(true).bind(INPROC).build(&context).unwrap();
    let subscriber = small(SocketType::Sub).subscribe("").connect(INPROC).build(&context).unwrap();
    assert_eq!(receive(&publisher), Multipart::from(["\u{1}"]));
    let mut sent = 0;
    while publisher.send(&[format!("{sent}").as_str(), "body"]) == Ok(()) {
        sent += 1;
        assert!(sent < 1000, "the mark is reached");
    }
    for index in 0..sent {
        assert_eq!(receive(&subscriber).get(0).unwrap(), index.to_string().as_bytes());
    }
    eventually("room", || publisher.send(&["more", "body"]).ok());
    assert_eq!(receive(&subscriber), Multipart::from(["more", "body"]));
}

#[test]
fn pub_drops_for_a_slow_subscriber_and_goes_on() {
    let context = zmq::Context::new();
    let publisher = small(SocketType::XPub).bind(INPROC).build(&context).unwrap();
    let subscriber = small(SocketType::Sub).subscribe("").connect(INPROC).build(&context).unwrap();
    receive(&publisher);
    for index in 0..100u8 {
        publisher.send(&[&[index][..], b"body"]).unwrap();
    }
    let mut received = 0;
    while let Some(message) = subscriber.receive_message().unwrap() {
        assert_eq!(message.get(0).unwrap(), &[received][..], "the first ones, whole and in order");
        received += 1;
    }
    assert!((2..100).contains(&received), "{received} of 100");
}

#[test]
fn mandatory_router_with_an_unknown_peer() {
    let context = zmq::Context::new();
    let (router, endpoint) = bound(&context, of(SocketType::Router).mandatory(true));
    assert_eq!(router.send(&["nobody", "hello"]), Err(SendError::Unreachable));
    let mut frames = vec![Frame::copy_from(b"nobody"), Frame::copy_from(b"hello")];
    assert_eq!(router.send_frames(&mut frames), Err(SendError::Unreachable));
    assert_eq!(frames.len(), 2);

    // A peer that is there is reached; once it has gone, it is unknown again.
    let dealer =
        of(SocketType::Dealer).routing_id("peer").connect(endpoint).build(&context).unwrap();
    send(&dealer, "hello");
    receive(&router);
    router.send(&["peer", "welcome"]).unwrap();
    assert_eq!(receive(&dealer), Multipart::from(["welcome"]));
    drop(dealer);
    eventually("the peer forgotten", || {
        (router.send(&["peer", "late"]) == Err(SendError::Unreachable)).then_some(())
    });
    // That left nothing half sent.
    router.set_mandatory(false).unwrap();
    assert_eq!(router.send(&["peer", "dropped"]), Ok(()));
}

/// libzmq looks for new peers at most every millisecond while it sends; a refusal
/// must not come from that.
#[test]
fn a_peer_that_came_just_now_is_seen() {
    let context = zmq::Context::new();
    let push = of(SocketType::Push).bind(INPROC).build(&context).unwrap();
    let router =
        of(SocketType::Router).mandatory(true).bind("inproc://router").build(&context).unwrap();
    for round in 0..100 {
        // A new name each time: libzmq remembers the old ones for a while.
        let peer = &format!("peer {round}");
        assert_eq!(push.send("too early"), Err(SendError::WouldBlock));
        let pull = of(SocketType::Pull).connect(INPROC).build(&context).unwrap();
        assert_eq!(push.send("in time"), Ok(()));
        assert_eq!(receive(&pull), Multipart::from(["in time"]));
        assert_eq!(router.send(&[peer, "too early"]), Err(SendError::Unreachable));
        let dealer = of(SocketType::Dealer)
            .routing_id(peer)
            .connect("inproc://router")
            .build(&context)
            .unwrap();
        assert_eq!(router.send(&[peer, "in time"]), Ok(()));
        assert_eq!(receive(&dealer), Multipart::from(["in time"]));
        drop((pull, dealer));
        eventually("it has gone", || (!push.events().unwrap().writable).then_some(()));
    }
}

#[test]
fn replies_out_of_turn() {
    let (rep, req) = connected(of(SocketType::Rep), of(SocketType::Req));
    let failure = |result: Result<(), SendError>| match result {
        Err(SendError::Failed(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(failure(rep.send("early")).errno(), Errno::EFSM);
    assert_eq!(req.receive(&mut Frame::new()), Err(Errno::EFSM));
    send(&req, "first");
    let error = failure(req.send("second"));
    assert_eq!(error.errno(), Errno::EFSM);
    assert!(error.to_string().contains("first receive the reply"), "{error}");
    receive(&rep);
    assert_eq!(rep.receive_message().unwrap_err().errno(), Errno::EFSM);
}

#[test]
fn relaxed_req_forgets_the_earlier_request() {
    let req = of(SocketType::Req).relaxed(true).correlate(true);
    let (rep, req) = connected(of(SocketType::Rep), req);
    send(&req, "first");
    assert_eq!(receive(&rep), Multipart::from(["first"]));
    send(&req, "second");
    send(&rep, "reply to first");
    assert_eq!(receive(&rep), Multipart::from(["second"]));
    send(&rep, "reply to second");
    assert_eq!(receive(&req), Multipart::from(["reply to second"]));
}

/// A peer that goes away in the middle of a long message: the message arrives whole
/// or not at all, the sender is told, and the next message is not taken for its
/// rest.
fn peers_come_and_go(sender: SocketType, receiver: SocketType) {
    const FRAMES: usize = 30_000;
    let context = zmq::Context::new();
    let sending = of(sender).bind(INPROC).build(&context).unwrap();
    let long = vec![b"part".to_vec(); FRAMES];
    let started = Instant::now();
    let mut refused = 0;
    let mut rounds = 0;
    // A round does not hit the middle each time: repeat until it did, within reason.
    while rounds < 20 || (refused == 0 && started.elapsed() < Duration::from_secs(5)) {
        rounds += 1;
        let leaving = of(receiver).connect(INPROC).build(&context).unwrap();
        let peer = thread::spawn(move || {
            // Leaves while the message is being sent: nothing of it can be there yet.
            for _ in 0..rounds % 7 {
                assert_ne!(
                    leaving.receive_message().map(|message| message.map(|m| m.len())),
                    Ok(Some(1))
                );
                thread::yield_now();
            }
        });
        match sending.send(&long[..]) {
            Ok(()) => {}
            Err(SendError::WouldBlock) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        peer.join().unwrap();

        the_next_message_arrives(&sending, || {
            of(receiver).connect(INPROC).build(&context).unwrap()
        });
        eventually("the peer gone", || (!sending.events().unwrap().writable).then_some(()));
    }
}

/// What arrives at a peer that stays is a whole message, and soon.
fn the_next_message_arrives(sending: &Socket, connect: impl Fn() -> Socket) {
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < DEADLINE, "nothing arrives");
        // A PAIR turns a peer away while it is not quite done with the one before.
        let staying = connect();
        match sending.send(&["short", "message"]) {
            Ok(()) | Err(SendError::WouldBlock) => {}
            Err(error) => panic!("{error}"),
        }
        if let Some(message) = crate::try_receive(&staying, Duration::from_millis(10)) {
            assert_eq!(message, Multipart::from(["short", "message"]));
            return;
        }
    }
}

#[test]
fn push_whose_peers_come_and_go() {
    peers_come_and_go(SocketType::Push, SocketType::Pull);
}

#[test]
fn dealer_whose_peers_come_and_go() {
    peers_come_and_go(SocketType::Dealer, SocketType::Dealer);
}

#[test]
fn pair_whose_peers_come_and_go() {
    peers_come_and_go(SocketType::Pair, SocketType::Pair);
}

#[test]
fn a_pair_talks_with_a_thread() {
    let context = zmq::Context::new();
    let (here, there) = pair(&context).unwrap();
    let thread = thread::spawn(move || {
        loop {
            let message = receive(&there);
            if message.get(0).unwrap().is_empty() {
                return;
            }
            send(&there, &message);
        }
    });
    for index in 1..2000u32 {
        send(&here, &[&index.to_be_bytes()[..], b"echo"]);
        if index % 100 == 0 {
            for back in index - 99..=index {
                assert_eq!(receive(&here).get(0).unwrap(), &back.to_be_bytes()[..]);
            }
        }
    }
    send(&here, "");
    thread.join().unwrap();
}

#[test]
fn pairs_of_one_context_do_not_meet() {
    let context = zmq::Context::new();
    for _ in 0..100 {
        let pairs: Vec<_> = (0..5).map(|_| pair(&context).unwrap()).collect();
        for (index, (left, _)) in pairs.iter().enumerate() {
            left.send(&index.to_string()).unwrap();
        }
        for (index, (_, right)) in pairs.iter().enumerate() {
            assert_eq!(receive(right), Multipart::from([index.to_string()]));
        }
    }
}
