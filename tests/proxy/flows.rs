//! What goes through, for each pair of types.

use pollux::Multipart;
use pollux::proxy::{Proxy, ProxyError, Side, Verdict};
use pollux::reactor::Flow;
use pollux::socket::SocketType::{self, *};

use super::{App, BACKENDS, World, assert_balanced, numbered, of};

#[test]
fn requests_reach_workers_and_replies_their_askers() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let [clients, workers] = world.proxy(of(Router), of(Dealer), |proxy| proxy);
        let askers = [0, 1, 2].map(|_| world.connected(Req, &clients));
        let workers = [0, 1].map(|_| world.connected(Rep, &workers));
        for round in 0..20 {
            for (number, asker) in askers.iter().enumerate() {
                world.send(asker, &numbered(3 * round + number));
            }
            let mut served = 0;
            world.until("all are served", |_| {
                for worker in &workers {
                    if let Some(mut request) = worker.receive_message().expect("receive") {
                        request.push_back("reply");
                        worker.send(&request).expect("room");
                        served += 1;
                    }
                }
                (served == askers.len()).then_some(())
            });
            for (number, asker) in askers.iter().enumerate() {
                let mut expected = numbered(3 * round + number);
                expected.push_back("reply");
                assert_eq!(world.receive(asker), expected);
            }
        }
        let stats = world.stats();
        assert_eq!((stats.frontend.messages_in, stats.backend.messages_in), (60, 60));
        assert_eq!((stats.frontend.messages_out, stats.backend.messages_out), (60, 60));
        let replies = 60 * "reply".len() as u64;
        assert_eq!(stats.frontend.bytes_out, stats.frontend.bytes_in + replies);
        assert_eq!(stats.backend.bytes_in, stats.frontend.bytes_out);
        assert_balanced(&stats, 0);
    }
}

#[test]
fn subscriptions_flow_back_and_only_what_was_asked_for_comes() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let [publishers, subscribers] = world.proxy(of(XSub), of(XPub), |proxy| proxy);
        let publisher = world.socket(of(XPub).connect(&publishers));
        let subscriber = world.socket(of(Sub).subscribe("b").connect(&subscribers));
        assert_eq!(world.receive(&publisher), Multipart::from(["\u{1}b"]));
        for topic in ["a1", "b1", "c1", "b2"] {
            publisher.send(topic).expect("sent");
        }
        assert_eq!(world.receive(&subscriber), Multipart::from(["b1"]));
        assert_eq!(world.receive(&subscriber), Multipart::from(["b2"]));
        subscriber.unsubscribe(b"b").expect("unsubscribed");
        assert_eq!(world.receive(&publisher), Multipart::from([&b"\0b"[..]]));
        let stats = world.stats();
        assert_eq!(stats.frontend.messages_in, 2, "the publisher itself leaves the others out");
        assert_eq!(stats.backend.messages_in, 2, "a subscription and its end");
        assert_balanced(&stats, 0);
    }
}

#[test]
fn one_way_pairs_lose_and_reorder_nothing() {
    let pairs = [(Pull, Push), (Push, Pull), (Pull, Pub), (Sub, Push), (Sub, Pub)];
    for (frontend, backend) in pairs {
        let mut world = World::new(pollux::reactor::Backend::Epoll);
        let own = |socket_type| match socket_type {
            Sub => of(Sub).subscribe("").receive_hwm(0),
            other => of(other).send_hwm(0),
        };
        let peer = |socket_type| match socket_type {
            Pull => of(Push),
            Push => of(Pull),
            // It tells when the proxy has subscribed.
            Sub => of(XPub).send_hwm(0),
            _ => of(Sub).subscribe("").receive_hwm(0),
        };
        let [front, back] = world.proxy(own(frontend), own(backend), |proxy| proxy);
        let ends = [(frontend, front), (backend, back)]
            .map(|(socket_type, endpoint)| world.socket(peer(socket_type).connect(&endpoint)));
        let [source, sink] =
            if frontend == Push { [&ends[1], &ends[0]] } else { [&ends[0], &ends[1]] };
        if frontend == Sub {
            assert_eq!(world.receive(source), Multipart::from(["\u{1}"]));
        }
        if backend == Pub {
            // Until the sink's subscription is in force.
            world.until("the first message", |_| {
                source.send("probe").expect("room");
                sink.receive_message().expect("receive")
            });
            world.settle();
            while sink.receive_message().expect("receive").is_some() {}
        }
        for number in 0..2000 {
            world.send(source, &numbered(number));
        }
        for number in 0..2000 {
            assert_eq!(world.receive(sink), numbered(number), "{frontend} to {backend}");
        }
        assert_balanced(&world.stats(), 0);
    }
}

#[test]
fn pairs_of_equals_and_of_one_request_at_a_time() {
    for (frontend, backend) in [(Dealer, Dealer), (Pair, Pair), (Dealer, Pair), (Rep, Req)] {
        let mut world = World::new(pollux::reactor::Backend::ZmqPoll);
        let peer = |socket_type| match socket_type {
            Rep => Req,
            Req => Rep,
            other => other,
        };
        let [front, back] = world.proxy(of(frontend), of(backend), |proxy| proxy);
        let left = world.connected(peer(frontend), &front);
        let right = world.connected(peer(backend), &back);
        for number in 0..100 {
            world.send(&left, &numbered(number));
            assert_eq!(world.receive(&right), numbered(number), "{frontend}, {backend}");
            world.send(&right, &numbered(number + 1));
            assert_eq!(world.receive(&left), numbered(number + 1), "{frontend}, {backend}");
        }
    }
}

/// Any number of frames, empty ones, long ones: all of them or none.
#[test]
fn frames_are_what_they_were() {
    let mut world = World::new(pollux::reactor::Backend::Epoll);
    let [front, back] = world.proxy(of(Pull), of(Push), |proxy| proxy);
    let (push, pull) = (world.connected(Push, &front), world.connected(Pull, &back));
    let large = vec![7; 3 << 20];
    let messages: Vec<Multipart> = vec![
        Multipart::from([""]),
        Multipart::from(["", "", ""]),
        (0..1000).map(|number| number.to_string()).collect(),
        Multipart::from([large.clone(), vec![], large]),
        Multipart::from(["last"]),
    ];
    for message in &messages {
        world.send(&push, message);
        assert_eq!(&world.receive(&pull), message);
    }
    let bytes: usize = messages.iter().flat_map(Multipart::iter).map(bytes::Bytes::len).sum();
    assert_eq!(world.stats().backend.bytes_out, bytes as u64);
}

#[test]
fn every_message_of_both_directions_is_captured() {
    for (capture, spy) in [(Pub, Sub), (Push, Pull), (Pair, Pair), (Dealer, Dealer)] {
        let mut world = World::new(pollux::reactor::Backend::Epoll);
        let capture = world.socket(of(capture).bind("inproc://capture"));
        let spy = match spy {
            Sub => world.socket(of(Sub).subscribe("").connect("inproc://capture")),
            other => world.connected(other, "inproc://capture"),
        };
        let [front, back] = world.proxy(of(Dealer), of(Dealer), |proxy| proxy.capture(capture));
        let (left, right) = (world.connected(Dealer, &front), world.connected(Dealer, &back));
        for number in 0..50 {
            for (from, to) in [(&left, &right), (&right, &left)] {
                let message = Multipart::from([vec![1; number], vec![2; 10_000 * (number % 3)]]);
                world.send(from, &message);
                assert_eq!(world.receive(to), message);
                assert_eq!(world.receive(&spy), message);
            }
        }
        let stats = world.stats();
        assert_eq!((stats.captured, stats.capture_drops), (100, 0));
    }
}

#[test]
fn a_hook_rewrites_and_drops_and_has_the_state() {
    let mut world = World::new(pollux::reactor::Backend::Epoll);
    let [front, back] = world.proxy(of(Dealer), of(Dealer), |proxy| {
        proxy.hook(|app: &mut App, from, frames| {
            app.seen += 1;
            if frames[0].starts_with(b"secret") {
                return Verdict::Drop;
            }
            if from == Side::Frontend {
                frames.insert(0, b"from outside"[..].into());
                frames.truncate(2);
            } else {
                frames.clear();
                frames.extend([&b"a"[..], b"b"].map(pollux::socket::Frame::from));
            }
            Verdict::Forward
        })
    });
    let (left, right) = (world.connected(Dealer, &front), world.connected(Dealer, &back));
    world.send(&left, &["secret plan"]);
    world.send(&left, &["hello", "world"]);
    assert_eq!(world.receive(&right), Multipart::from(["from outside", "hello"]));
    world.send(&right, "anything");
    assert_eq!(world.receive(&left), Multipart::from(["a", "b"]));
    assert_eq!(world.app.seen, 3);
    let stats = world.stats();
    assert_eq!((stats.frontend.hook_drops, stats.backend.hook_drops), (1, 0));
    assert_eq!(stats.frontend.bytes_in, 21);
    assert_eq!(stats.backend.bytes_out, 17, "as it was sent");
    assert_balanced(&stats, 0);
}

/// What a peer sends can be nothing that the other side takes; that is not the end.
#[test]
fn what_a_side_cannot_send_is_counted_and_the_rest_goes_on() {
    let mut world = World::new(pollux::reactor::Backend::Epoll);
    let [front, back] = world.proxy(of(Router).mandatory(true), of(Dealer), |proxy| proxy);
    let client = world.connected(Req, &front);
    let worker = world.connected(Dealer, &back);
    world.send(&client, "request");
    let request = world.receive(&worker);
    worker.send("no routing id behind which anything comes").expect("room");
    worker.send(&["nobody", "", "reply"]).expect("room");
    worker.send(&request).expect("room");
    assert_eq!(world.receive(&client), Multipart::from(["request"]));
    let stats = world.stats();
    assert_eq!((stats.frontend.refused, stats.frontend.unreachable), (1, 1));
    assert_balanced(&stats, 0);
}

#[test]
fn messages_over_the_limit_are_dropped_and_counted() {
    let mut world = World::new(pollux::reactor::Backend::Epoll);
    let [front, back] = world.proxy(of(Pull), of(Push), |proxy| proxy.max_message_bytes(1000));
    let (push, pull) = (world.connected(Push, &front), world.connected(Pull, &back));
    for parts in [9, 10, 11] {
        let message: Multipart = (0..parts).map(|_| vec![0; 100]).collect();
        world.send(&push, &message);
    }
    world.send(&push, "last");
    let lengths = [0, 1, 2].map(|_| world.receive(&pull).len());
    assert_eq!(lengths, [9, 10, 1]);
    assert_eq!(world.stats().frontend.oversized, 1);
    assert_balanced(&world.stats(), 0);
}

#[test]
fn pairs_that_do_not_go_together_are_refused() {
    let world = World::new(pollux::reactor::Backend::Epoll);
    let socket = |socket_type: SocketType| world.socket(of(socket_type));
    let refused = |frontend, backend| {
        Proxy::<App>::builder(socket(frontend), socket(backend)).build().unwrap_err()
    };
    for (frontend, backend) in [(Router, Push), (XPub, Sub), (Pull, Pull), (Req, Dealer)] {
        assert_eq!(refused(frontend, backend), ProxyError::Pair { frontend, backend });
    }
    assert!(refused(Pull, Sub).to_string().contains("PULL goes with PUSH or PUB"));
    let capture = Proxy::<App>::builder(socket(Pull), socket(Push)).capture(socket(Sub));
    assert_eq!(capture.build().unwrap_err(), ProxyError::Capture(Sub));
    let control = Proxy::<App>::builder(socket(Pull), socket(Push)).control(socket(Router));
    let error = std::io::Error::from(control.build().unwrap_err());
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("expected REP, PAIR, PULL or SUB for control, got ROUTER"));
}

/// Many proxies on one loop, and something else beside them.
#[test]
fn sixteen_proxies_and_a_timer_share_a_loop() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let mut peers = Vec::new();
        for _ in 0..16 {
            let [front, back] = world.proxy(of(Pull), of(Push), |proxy| proxy.budget(8));
            peers.push((world.connected(Push, &front), world.connected(Pull, &back)));
        }
        world.reactor.add_timer(std::time::Duration::from_millis(1), |app: &mut App, _| {
            app.seen = 1;
            Ok(Flow::Remove)
        });
        for number in 0..200 {
            for (push, _) in &peers {
                push.send(&numbered(number)).expect("room");
            }
        }
        for number in 0..200 {
            for (_, pull) in &peers {
                assert_eq!(world.receive(pull), numbered(number));
            }
        }
        world.until("the timer", |app| (app.seen == 1).then_some(()));
        assert!(world.app.proxies.iter().all(|proxy| proxy.stats().backend.messages_out == 200));
    }
}
