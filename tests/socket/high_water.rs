//! The table of high-water marks in the documentation of `pollux::socket`, row by row.
//! What would block is tested to come back, whole and in order, in `blocking.rs`.

use pollux::Multipart;
use pollux::socket::{Interest, SendError, Socket, SocketBuilder, SocketType, ZmqContext};
use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use crate::{DEADLINE, eventually, of, receive, send};

const INPROC: &str = "inproc://marks";

/// More than any marks here hold.
const MANY: usize = 100;

/// Over inproc the room is the sum of both marks: five messages.
fn marked(socket_type: SocketType) -> SocketBuilder {
    of(socket_type).send_hwm(3).receive_hwm(2)
}

const ROOM: usize = 5;

struct Ends {
    _context: ZmqContext,
    sender: Socket,
    receiver: Socket,
}

fn ends(sender: SocketBuilder, receiver: SocketBuilder) -> Ends {
    let context = ZmqContext::new().unwrap();
    let sender = sender.bind(INPROC).build(&context).unwrap();
    let receiver = receiver.connect(INPROC).build(&context).unwrap();
    Ends { _context: context, sender, receiver }
}

fn number(index: usize, envelope: &[&str]) -> Multipart {
    envelope.iter().map(|frame| frame.to_string()).chain([index.to_string()]).collect()
}

/// How many of [`MANY`] messages are accepted before one would block.
fn accepted(sender: &Socket, envelope: &[&str]) -> usize {
    for index in 0..MANY {
        match sender.send(&number(index, envelope)) {
            Ok(()) => {}
            Err(SendError::WouldBlock) => return index,
            Err(error) => panic!("{error}"),
        }
    }
    MANY
}

/// The numbers of the messages that have come.
fn arrived(receiver: &Socket) -> Vec<usize> {
    let mut numbers = Vec::new();
    while let Some(message) = receiver.receive_message().unwrap() {
        let last = message.get(message.len() - 1).unwrap();
        numbers.push(std::str::from_utf8(last).unwrap().parse().unwrap());
    }
    numbers
}

fn in_order(count: usize) -> Vec<usize> {
    (0..count).collect()
}

/// PUSH, DEALER, PAIR: would block.
#[test]
fn sockets_that_balance_would_block() {
    for (sender, receiver) in [
        (SocketType::Push, SocketType::Pull),
        (SocketType::Dealer, SocketType::Dealer),
        (SocketType::Pair, SocketType::Pair),
    ] {
        let ends = ends(marked(sender), marked(receiver));
        assert_eq!(accepted(&ends.sender, &[]), ROOM, "{sender}");
        assert!(!ends.sender.events().unwrap().writable, "{sender}");
        assert_eq!(arrived(&ends.receiver), in_order(ROOM), "{sender}");
        eventually("room", || ends.sender.events().unwrap().writable.then_some(()));
    }
}

/// Each peer has a mark of its own: the room is that of all peers together.
#[test]
fn the_mark_counts_for_each_peer() {
    let context = ZmqContext::new().unwrap();
    let push = marked(SocketType::Push).bind(INPROC).build(&context).unwrap();
    let pulls: Vec<_> =
        (0..3).map(|_| marked(SocketType::Pull).connect(INPROC).build(&context).unwrap()).collect();
    assert_eq!(accepted(&push, &[]), 3 * ROOM);
    assert!(pulls.iter().all(|pull| arrived(pull).len() == ROOM));
}

/// REQ has one request under way and never reaches a mark; without a peer it would block.
#[test]
fn req_would_block_without_a_peer() {
    let context = ZmqContext::new().unwrap();
    let req = marked(SocketType::Req).bind(INPROC).build(&context).unwrap();
    assert_eq!(req.send("request"), Err(SendError::WouldBlock));
    let rep = marked(SocketType::Rep).connect(INPROC).build(&context).unwrap();
    send(&req, "request");
    assert_eq!(receive(&rep), Multipart::from(["request"]));
}

/// REP drops replies to somebody who does not read them.
#[test]
fn rep_drops() {
    let ends = ends(marked(SocketType::Dealer), marked(SocketType::Rep));
    for index in 0..MANY {
        send(&ends.sender, &["", &index.to_string()]);
        let request = receive(&ends.receiver);
        ends.receiver.send(&request).unwrap();
    }
    assert_eq!(arrived(&ends.sender), in_order(ROOM));
}

/// ROUTER drops, or would block if it is `mandatory`.
#[test]
fn router_drops_unless_mandatory() {
    for (mandatory, expected) in [(false, MANY), (true, ROOM)] {
        let router = marked(SocketType::Router).mandatory(mandatory);
        let ends = ends(router, marked(SocketType::Dealer).routing_id("peer"));
        send(&ends.receiver, "hello");
        receive(&ends.sender);
        assert_eq!(accepted(&ends.sender, &["peer"]), expected);
        assert_eq!(arrived(&ends.receiver), in_order(ROOM));
    }
}

/// PUB and XPUB drop for the subscriber that is too slow, and would block with `nodrop`.
#[test]
fn publishers_drop_unless_told_otherwise() {
    for publisher in [SocketType::Pub, SocketType::XPub] {
        for nodrop in [false, true] {
            let publisher_end = marked(publisher).nodrop(nodrop);
            let ends = ends(publisher_end, marked(SocketType::Sub).subscribe(""));
            if publisher == SocketType::XPub {
                receive(&ends.sender);
            } else {
                // It looks for subscriptions whenever it is asked anything.
                eventually("the subscription", || {
                    ends.sender.events().unwrap();
                    ends.sender.send("0").unwrap();
                    ends.receiver.receive_message().unwrap()
                });
                arrived(&ends.receiver);
            }
            let accepted = accepted(&ends.sender, &[]);
            let arrived = arrived(&ends.receiver);
            assert!((2..=ROOM).contains(&arrived.len()), "{publisher}: {arrived:?}");
            assert_eq!(arrived, in_order(arrived.len()), "{publisher}");
            assert_eq!(accepted, if nodrop { arrived.len() } else { MANY }, "{publisher}");
        }
    }
}

/// One subscriber is at its mark, another one reads: only the first misses something.
#[test]
fn a_slow_subscriber_costs_others_nothing() {
    let context = ZmqContext::new().unwrap();
    let publisher = marked(SocketType::XPub).verbose(true).bind(INPROC).build(&context).unwrap();
    let join = || marked(SocketType::Sub).subscribe("").connect(INPROC).build(&context).unwrap();
    let (slow, quick) = (join(), join());
    receive(&publisher);
    receive(&publisher);
    for index in 0..MANY {
        // While it sends, libzmq looks only now and then whether somebody has read.
        publisher.events().unwrap();
        publisher.send(&number(index, &[])).unwrap();
        assert_eq!(receive(&quick), number(index, &[]));
    }
    assert_eq!(arrived(&slow), in_order(ROOM));
}

/// XSUB drops what it sends upstream.
#[test]
fn xsub_drops() {
    let ends = ends(marked(SocketType::XSub), marked(SocketType::XPub));
    assert_eq!(accepted(&ends.sender, &["upstream"]), MANY);
    assert_eq!(arrived(&ends.receiver), in_order(ROOM));
}

/// STREAM would block, but does not say when there is room: it claims to be writable.
#[test]
fn stream_would_block() {
    let context = ZmqContext::new().unwrap();
    let stream = marked(SocketType::Stream).bind("tcp://127.0.0.1:*").build(&context).unwrap();
    let address = stream.last_endpoint().unwrap().replace("tcp://", "");
    let mut peer = TcpStream::connect(address).unwrap();
    let id = receive(&stream).get(0).unwrap().clone();
    let frame = vec![7; 1 << 20];
    let mut sent = 0;
    // The system's own buffers take some before anything waits.
    while stream.send(&[&id[..], &frame]) == Ok(()) {
        sent += 1;
        assert!(sent < 1000, "the mark is reached");
    }
    assert!(stream.events().unwrap().writable);
    let mut rest = sent << 20;
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut bytes = vec![0; 1 << 20];
    while rest > 0 {
        rest -= peer.read(&mut bytes).unwrap();
    }
    eventually("room", || stream.send(&[&id[..], b"again"]).ok());
}

/// PULL, SUB, and all that receive: what is beyond the mark stays with the sender.
#[test]
fn receivers_hold_no_more_than_their_mark() {
    let ends = ends(of(SocketType::Push).send_hwm(1), of(SocketType::Pull).receive_hwm(4));
    assert_eq!(accepted(&ends.sender, &[]), 5);
    receive(&ends.receiver);
}

/// Over tcp the system's buffers come in between: a sender is stopped later, but it is.
#[test]
fn over_tcp_the_mark_is_a_bound_of_the_queue_alone() {
    let context = ZmqContext::new().unwrap();
    let pull = marked(SocketType::Pull).bind("tcp://127.0.0.1:*").build(&context).unwrap();
    let endpoint = pull.last_endpoint().unwrap();
    let push = marked(SocketType::Push).connect(endpoint).build(&context).unwrap();
    let frame = vec![7; 1 << 20];
    let mut sent = 0;
    while push.wait(Interest::WRITABLE, Some(Duration::from_millis(300))).unwrap().writable {
        match push.send(&frame[..]) {
            Ok(()) => sent += 1,
            Err(error) => assert_eq!(error, SendError::WouldBlock),
        }
        assert!(sent < 1000, "the mark is reached");
    }
    assert!(sent >= ROOM, "{sent}");
    for _ in 0..sent {
        assert_eq!(receive(&pull).get(0).unwrap().len(), frame.len());
    }
}

/// 0 is no mark. It can be changed while peers are connected.
#[test]
fn no_mark_and_a_changed_mark() {
    let unlimited = of(SocketType::Push).send_hwm(0);
    let ends = ends(unlimited, of(SocketType::Pull).receive_hwm(0));
    assert_eq!(accepted(&ends.sender, &[]), MANY);
    ends.sender.set_send_hwm(7).unwrap();
    ends.receiver.set_receive_hwm(1).unwrap();
    assert_eq!((ends.sender.send_hwm(), ends.receiver.receive_hwm()), (Ok(7), Ok(1)));
    assert_eq!(arrived(&ends.receiver), in_order(MANY));
}
