//! Every type of socket sends and receives over tcp.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use pollux::Multipart;
use pollux::socket::{Errno, Frame, SendError, Socket, SocketType};

use crate::{ALL_TYPES, DEADLINE, bound, connected, of, receive, send};

#[test]
fn every_type_can_be_made_and_keeps_its_type() {
    let context = zmq::Context::new();
    for socket_type in ALL_TYPES {
        let socket = Socket::new(&context, socket_type).unwrap();
        assert_eq!(socket.socket_type(), socket_type);
        let number = socket.as_zmq().get_socket_type().unwrap();
        assert_eq!(SocketType::from(number), socket_type);
        assert_eq!(zmq::SocketType::from(socket_type), number);
    }
}

#[test]
fn req_and_rep() {
    let (rep, req) = connected(of(SocketType::Rep), of(SocketType::Req));
    send(&req, &["question", "in two parts"]);
    assert_eq!(receive(&rep), Multipart::from(["question", "in two parts"]));
    send(&rep, "answer");
    assert_eq!(receive(&req), Multipart::from(["answer"]));
}

#[test]
fn dealer_and_router() {
    let (router, dealer) =
        connected(of(SocketType::Router), of(SocketType::Dealer).routing_id("dealer-1"));
    send(&dealer, &["", "hello"]);
    let request = receive(&router);
    assert_eq!(request, Multipart::from(["dealer-1", "", "hello"]));
    send(&router, &["dealer-1", "", "world"]);
    assert_eq!(receive(&dealer), Multipart::from(["", "world"]));
}

#[test]
fn pub_and_sub() {
    let (publisher, subscriber) =
        connected(of(SocketType::XPub), of(SocketType::Sub).subscribe("a").subscribe("b"));
    // Either order: libzmq sends its subscriptions sorted by a trie.
    let mut topics = [receive(&publisher), receive(&publisher)];
    topics.sort_by_key(|message| message.get(0).cloned());
    assert_eq!(topics, [Multipart::from(["\u{1}a"]), Multipart::from(["\u{1}b"])]);
    for topic in ["a1", "c1", "b1"] {
        publisher.send(&[topic, "value"]).unwrap();
    }
    assert_eq!(receive(&subscriber), Multipart::from(["a1", "value"]));
    assert_eq!(receive(&subscriber), Multipart::from(["b1", "value"]));

    subscriber.unsubscribe(b"a").unwrap();
    assert_eq!(receive(&publisher), Multipart::from(["\0a"]));
    publisher.send("a2").unwrap();
    publisher.send("b2").unwrap();
    assert_eq!(receive(&subscriber), Multipart::from(["b2"]));
}

#[test]
fn plain_pub() {
    let (subscriber, publisher) = connected(of(SocketType::Sub).subscribe(""), of(SocketType::Pub));
    // A PUB does not tell who is there: send until it arrives.
    let message = crate::eventually("a subscription", || {
        publisher.send("news").unwrap();
        subscriber.receive_message().unwrap()
    });
    assert_eq!(message, Multipart::from(["news"]));
}

#[test]
fn xpub_and_xsub() {
    let (publisher, subscriber) = connected(of(SocketType::XPub), of(SocketType::XSub));
    send(&subscriber, b"\x01topic");
    assert_eq!(receive(&publisher), Multipart::from(["\u{1}topic"]));
    publisher.send(&["topic", "value"]).unwrap();
    assert_eq!(receive(&subscriber), Multipart::from(["topic", "value"]));
    // What is no subscription goes upstream as it is.
    send(&subscriber, &["upstream", "message"]);
    assert_eq!(receive(&publisher), Multipart::from(["upstream", "message"]));
}

#[test]
fn push_and_pull() {
    let (pull, push) = connected(of(SocketType::Pull), of(SocketType::Push));
    for index in 0u32..100 {
        send(&push, &[&index.to_be_bytes()[..], b"", &[7; 1000]]);
    }
    for index in 0u32..100 {
        let message = receive(&pull);
        assert_eq!(message.len(), 3);
        assert_eq!(message.get(0).unwrap(), &index.to_be_bytes()[..]);
        assert_eq!(message.get(2).unwrap(), &[7; 1000][..]);
    }
}

#[test]
fn pair_with_pair() {
    let (left, right) = connected(of(SocketType::Pair), of(SocketType::Pair));
    send(&right, "to the left");
    assert_eq!(receive(&left), Multipart::from(["to the left"]));
    send(&left, "to the right");
    assert_eq!(receive(&right), Multipart::from(["to the right"]));
}

#[test]
fn stream_with_a_plain_tcp_client() {
    let context = zmq::Context::new();
    let (stream, endpoint) = bound(&context, of(SocketType::Stream));
    let mut client = TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"GET /").unwrap();

    let greeting = receive(&stream);
    assert_eq!(greeting.len(), 2);
    assert!(greeting.get(1).unwrap().is_empty(), "the notice of the connection is empty");
    let request = receive(&stream);
    assert_eq!(request.get(0), greeting.get(0));
    assert_eq!(request.get(1).unwrap(), &b"GET /"[..]);

    let id = request.get(0).unwrap();
    stream.send(&[&id[..], b"HTTP/1.0 200 OK"]).unwrap();
    let mut answer = [0; 15];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.0 200 OK");

    // An empty frame closes the connection, in steps for which libzmq wants to be called.
    stream.send(&[&id[..], b""]).unwrap();
    client.set_nonblocking(true).unwrap();
    crate::eventually("the end of the connection", || {
        stream.events().unwrap();
        client.read(&mut answer).ok().filter(|&length| length == 0)
    });
    crate::eventually("the peer forgotten", || {
        (stream.send(&[&id[..], b"late"]) == Err(SendError::Unreachable)).then_some(())
    });
}

#[test]
fn raw_router_with_a_plain_tcp_client() {
    let context = zmq::Context::new();
    let (router, endpoint) = bound(&context, of(SocketType::Router).raw(true));
    let mut client = TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"ping").unwrap();
    let request = crate::eventually("the bytes of the client", || {
        Some(receive(&router)).filter(|message| !message.get(1).unwrap().is_empty())
    });
    router.send(&[&request.get(0).unwrap()[..], b"pong"]).unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong");
}

#[test]
fn stream_connects_to_a_plain_tcp_server_by_name() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let context = zmq::Context::new();
    let stream = of(SocketType::Stream)
        .notify(false)
        .connect_as(b"server", format!("tcp://{}", server.local_addr().unwrap()))
        .build(&context)
        .unwrap();
    send(&stream, &["server", "hello"]);
    let (mut connection, _) = server.accept().unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut bytes = [0; 5];
    connection.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    connection.write_all(b"welcome").unwrap();
    // Without `notify`, the first thing to be received is data.
    assert_eq!(receive(&stream), Multipart::from(["server", "welcome"]));
}

#[test]
fn frame_by_frame() {
    let (pull, push) = connected(of(SocketType::Pull), of(SocketType::Push));
    send(&push, &["first", "", "third"]);
    pull.wait(pollux::socket::Interest::READABLE, Some(DEADLINE)).unwrap();
    let mut frame = Frame::new();
    for (content, more) in [("first", true), ("", true), ("third", false)] {
        assert_eq!(pull.receive(&mut frame), Ok(more));
        assert_eq!(&*frame, content.as_bytes());
        assert_eq!(frame.more(), more);
    }
    assert_eq!(pull.receive(&mut frame), Err(Errno::EAGAIN));
    assert_eq!(pull.receive_message(), Ok(None));
    let mut frames = vec![Frame::copy_from(b"old")];
    assert_eq!(pull.receive_frames(&mut frames), Ok(false));
    assert!(frames.is_empty());
}
