//! Options whose effect only a peer can see.

use std::time::Duration;

use pollux::Multipart;
use pollux::socket::{SendError, Socket, SocketType};

use crate::{DEADLINE, bound, connected, eventually, of, receive, send, try_receive};

#[test]
fn a_peer_that_sends_too_much_is_disconnected() {
    let context = zmq::Context::new();
    let (pull, endpoint) = bound(&context, of(SocketType::Pull).max_message_size(1000));
    let push = |context| {
        of(SocketType::Push)
            .reconnect_interval(None)
            .linger(Duration::ZERO)
            .connect(&endpoint)
            .build(context)
            .unwrap()
    };
    let greedy = push(&context);
    send(&greedy, &[1; 1000][..]);
    // Only then the other: what libzmq reads together with it goes with it.
    assert_eq!(receive(&pull).get(0).unwrap().len(), 1000);
    send(&greedy, &[2; 1001][..]);
    // Once it is disconnected, for good, nothing of it can arrive any more.
    eventually("the disconnect", || {
        (greedy.send("afterwards") == Err(SendError::WouldBlock)).then_some(())
    });
    // It stays until the message is there: without linger, closing would drop it.
    let modest = push(&context);
    send(&modest, "modest");
    assert_eq!(receive(&pull), Multipart::from(["modest"]));
}

#[test]
fn a_routing_id_that_is_in_use() {
    let context = zmq::Context::new();
    for handover in [false, true] {
        let (router, endpoint) = bound(&context, of(SocketType::Router).handover(handover));
        let dealer = of(SocketType::Dealer).routing_id("same").connect(&endpoint);
        let first = dealer.clone().build(&context).unwrap();
        send(&first, "first");
        assert_eq!(receive(&router), Multipart::from(["same", "first"]));
        let second = dealer.build(&context).unwrap();
        send(&second, "second");
        let expected = handover.then(|| Multipart::from(["same", "second"]));
        // Without handover nothing comes, and there is no event for that.
        let time = if handover { DEADLINE } else { Duration::from_millis(100) };
        assert_eq!(try_receive(&router, time), expected);
        send(&router, &["same", "reply"]);
        let winner = if handover { &second } else { &first };
        assert_eq!(receive(winner), Multipart::from(["reply"]));
    }
}

#[test]
fn a_probe_announces_a_peer_that_only_listens() {
    let dealer = of(SocketType::Dealer).routing_id("listener").probe_router(true);
    let (router, dealer) = connected(of(SocketType::Router).mandatory(true), dealer);
    assert_eq!(receive(&router), Multipart::from(["listener", ""]));
    router.send(&["listener", "news"]).unwrap();
    assert_eq!(receive(&dealer), Multipart::from(["news"]));
}

#[test]
fn verboser_reports_every_subscription_and_its_end() {
    for (verboser, expected) in [(false, 1), (true, 2)] {
        let context = zmq::Context::new();
        let (publisher, endpoint) = bound(&context, of(SocketType::XPub).verboser(verboser));
        let (xsub, other) = (of(SocketType::XSub), of(SocketType::XSub));
        let subscribers =
            [xsub, other].map(|builder| builder.connect(&endpoint).build(&context).unwrap());
        let mut got = Vec::new();
        for first_byte in ["\u{1}", "\0"] {
            for subscriber in &subscribers {
                send(subscriber, &format!("{first_byte}topic"));
                // Comes after it on the same connection.
                send(subscriber, "marker");
                loop {
                    let message = receive(&publisher);
                    if message == Multipart::from(["marker"]) {
                        break;
                    }
                    got.push(message);
                }
            }
        }
        let count =
            |text: &str| got.iter().filter(|message| message.get(0).unwrap() == text).count();
        assert_eq!(count("\u{1}topic"), expected);
        assert_eq!(count("\0topic"), expected);
        assert_eq!(got.len(), 2 * expected);
    }
}

#[test]
fn verbose_reports_every_subscription_but_one_end() {
    let context = zmq::Context::new();
    let (publisher, endpoint) = bound(&context, of(SocketType::XPub).verbose(true));
    let subscribers: Vec<Socket> =
        (0..2).map(|_| of(SocketType::XSub).connect(&endpoint).build(&context).unwrap()).collect();
    for subscriber in &subscribers {
        send(subscriber, "\u{1}topic");
        assert_eq!(receive(&publisher), Multipart::from(["\u{1}topic"]));
    }
    for (subscriber, reported) in subscribers.iter().zip([false, true]) {
        send(subscriber, "\0topic");
        send(subscriber, "marker");
        if reported {
            assert_eq!(receive(&publisher), Multipart::from(["\0topic"]));
        }
        assert_eq!(receive(&publisher), Multipart::from(["marker"]));
    }
}

#[test]
fn inverted_matching() {
    let sub = of(SocketType::Sub).invert_matching(true).subscribe("unwanted");
    let (publisher, subscriber) = connected(of(SocketType::XPub).invert_matching(true), sub);
    receive(&publisher);
    publisher.send("unwanted").unwrap();
    publisher.send("wanted").unwrap();
    assert_eq!(receive(&subscriber), Multipart::from(["wanted"]));
}

#[test]
fn conflate_keeps_the_last_message() {
    let context = zmq::Context::new();
    let pull = of(SocketType::Pull).conflate(true).bind("inproc://last").build(&context).unwrap();
    let push =
        of(SocketType::Push).conflate(true).connect("inproc://last").build(&context).unwrap();
    for index in 0..100u8 {
        send(&push, &[index]);
    }
    assert_eq!(receive(&pull), [[99]].map(Vec::from).into());
    assert_eq!(pull.receive_message(), Ok(None));
}

#[test]
fn names_for_peers() {
    let context = zmq::Context::new();
    let (first, first_endpoint) = bound(&context, of(SocketType::Dealer).routing_id("its own"));
    let (second, second_endpoint) = bound(&context, of(SocketType::Dealer));
    let router = of(SocketType::Router)
        .mandatory(true)
        .bind("tcp://127.0.0.1:*")
        .connect_as(b"first", first_endpoint)
        .connect_as(b"second", second_endpoint)
        .build(&context)
        .unwrap();
    // No handshake is needed to be known.
    router.send(&["first", "1"]).unwrap();
    router.send(&["second", "2"]).unwrap();
    assert_eq!(receive(&first), Multipart::from(["1"]));
    assert_eq!(receive(&second), Multipart::from(["2"]));
    send(&first, "reply");
    assert_eq!(receive(&router), Multipart::from(["first", "reply"]));
}

/// Each of these would end the process within libzmq.
#[test]
fn names_that_may_be_in_use_are_refused() {
    let context = zmq::Context::new();
    let router = || of(SocketType::Router).linger(Duration::ZERO).build(&context).unwrap();
    let somewhere = "tcp://127.0.0.1:9";
    let text =
        |socket: &Socket, name: &[u8]| socket.connect_as(name, somewhere).unwrap_err().to_string();

    let twice = router();
    twice.connect_as(b"name", somewhere).unwrap();
    assert!(text(&twice, b"name").contains("expected a name that no peer"));
    twice.disconnect(somewhere).unwrap();
    assert!(text(&twice, b"name").contains("expected a name that no peer"));
    twice.connect_as(b"other", somewhere).unwrap();

    let late = router();
    late.bind("tcp://127.0.0.1:*").unwrap();
    assert!(text(&late, b"name").contains("before every bind"));
    let late = Socket::from_zmq(late.into_zmq()).unwrap();
    assert!(text(&late, b"name").contains("before every bind"));
    let late = router();
    late.connect("tcp://127.0.0.1:9").unwrap();
    assert!(text(&late, b"name").contains("before every bind"));

    let half = router();
    half.connect_as(b"name", "nonsense").unwrap_err();
    let error = half.connect(somewhere).unwrap_err();
    assert!(error.to_string().contains("left its name behind"), "{error}");
    half.connect_as(b"other", somewhere).unwrap();
    half.connect(somewhere).unwrap();

    let immediate = of(SocketType::Router).immediate(true).build(&context).unwrap();
    assert!(text(&immediate, b"name").contains("`immediate`"));
    assert!(text(&router(), b"").contains("1 to 255 bytes"));
    assert!(text(&router(), &[0]).contains("first byte other than 0"));
}

#[test]
fn ipc_and_ipv6() {
    let context = zmq::Context::new();
    let directory = tempfile::tempdir().unwrap();
    let path = format!("ipc://{}", directory.path().join("socket").display());
    let pull = of(SocketType::Pull).bind(&path).build(&context).unwrap();
    assert_eq!(pull.last_endpoint().unwrap(), path);
    let push = of(SocketType::Push).connect(&path).build(&context).unwrap();
    send(&push, "over a file");
    assert_eq!(receive(&pull), Multipart::from(["over a file"]));

    // Machines without IPv6 refuse; they must do so in words.
    match of(SocketType::Pull).ipv6(true).bind("tcp://[::1]:*").build(&context) {
        Ok(pull) => {
            let endpoint = pull.last_endpoint().unwrap();
            assert!(endpoint.starts_with("tcp://[::1]:"), "{endpoint}");
            let push = of(SocketType::Push).ipv6(true).connect(endpoint).build(&context).unwrap();
            send(&push, "over IPv6");
            assert_eq!(receive(&pull), Multipart::from(["over IPv6"]));
        }
        Err(error) => assert!(error.remedy().is_some(), "{error}"),
    }
}
