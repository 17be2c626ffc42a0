//! No room: nothing is lost, nothing overtakes, nothing spins.

use std::time::{Duration, Instant};

use pollux::Multipart;
use pollux::proxy::{Side, WhenFull};
use pollux::reactor::Backend;
use pollux::socket::SocketType::*;
use pollux::socket::{SendError, Socket, SocketBuilder, SocketType};

use super::{BACKENDS, World, assert_balanced, numbered, of};

fn narrow(socket_type: SocketType) -> SocketBuilder {
    of(socket_type).send_hwm(5).receive_hwm(5)
}

/// Sends until there is no room anywhere between here and the one who does not read,
/// and returns how many were taken.
fn fill(world: &mut World, socket: &Socket, mut next: impl FnMut(usize) -> Multipart) -> usize {
    let mut taken = 0;
    loop {
        match socket.send(&next(taken)) {
            Ok(()) => taken += 1,
            Err(SendError::WouldBlock) => {
                let before = world.stats();
                world.settle();
                if world.stats() == before && socket.send(&next(taken)).is_err() {
                    return taken;
                }
                if world.stats() == before {
                    taken += 1;
                }
            }
            Err(error) => panic!("{error}"),
        }
        assert!(taken < 10_000, "nothing holds the sender back");
    }
}

#[test]
fn a_side_without_room_stops_the_reading_of_the_other() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let [front, back] = world.proxy(narrow(Pull), narrow(Push), |proxy| proxy);
        let push = world.socket(narrow(Push).connect(&front));
        let pull = world.socket(narrow(Pull).connect(&back));
        let taken = fill(&mut world, &push, numbered);
        // Each queue holds what both its ends allow, and the proxy one more (of whose
        // place in the queue its sender may not have been told yet).
        assert!((20..=21).contains(&taken), "{taken}");
        let stats = world.stats();
        assert_eq!((stats.frontend.messages_in, stats.backend.messages_out), (11, 10));
        assert_eq!(stats.backend.waits, 1);
        assert_balanced(&stats, 1);
        for number in 0..taken {
            assert_eq!(world.receive(&pull), numbered(number));
        }
        // Again, and through it all in order.
        for number in 0..200 {
            if let Err(SendError::WouldBlock) = push.send(&numbered(number)) {
                world.send(&push, &numbered(number));
            }
            if number >= 15 {
                assert_eq!(world.receive(&pull), numbered(number - 15));
            }
        }
        for number in 185..200 {
            assert_eq!(world.receive(&pull), numbered(number));
        }
        assert_eq!(pull.receive_message().expect("receive"), None);
        assert_balanced(&world.stats(), 0);
    }
}

#[test]
fn waiting_for_room_costs_nothing() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let [front, _back] = world.proxy(narrow(Pull), narrow(Push), |proxy| proxy);
        let push = world.socket(narrow(Push).connect(&front));
        fill(&mut world, &push, numbered);
        let before = world.reactor.stats();
        for _ in 0..100 {
            assert_eq!(world.reactor.turn(&mut world.app, Duration::ZERO).expect("a turn"), 0);
        }
        let waited = Instant::now();
        assert_eq!(
            world.reactor.turn(&mut world.app, Duration::from_millis(20)).expect("a turn"),
            0
        );
        assert!(waited.elapsed() >= Duration::from_millis(20), "it did not sleep");
        assert_eq!(world.reactor.stats().events, before.events);
    }
}

#[test]
fn one_direction_waits_and_the_other_goes_on() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let [front, back] = world.proxy(narrow(Dealer), narrow(Dealer), |proxy| proxy);
        let left = world.socket(narrow(Dealer).connect(&front));
        let right = world.socket(narrow(Dealer).connect(&back));
        let taken = fill(&mut world, &left, numbered);
        for number in 0..500 {
            world.send(&right, &numbered(number));
            assert_eq!(world.receive(&left), numbered(number));
        }
        for number in 0..taken {
            assert_eq!(world.receive(&right), numbered(number));
        }
        assert_balanced(&world.stats(), 0);
    }
}

#[test]
fn what_has_nobody_to_go_to_waits_for_somebody() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let [front, back] = world.proxy(of(Router), of(Dealer), |proxy| proxy);
        let client = world.connected(Dealer, &front);
        for number in 0..300 {
            world.send(&client, &numbered(number));
        }
        world.settle();
        assert_eq!(world.stats().frontend.messages_in, 1, "one is held, the rest is not read");
        let worker = world.connected(Dealer, &back);
        for number in 0..300 {
            let mut request = world.receive(&worker);
            request.pop_front();
            assert_eq!(request, numbered(number));
        }
    }
}

/// One client of a ROUTER that does not read, and one that does.
fn slow_and_quick(world: &mut World, when_full: WhenFull) -> (Socket, Socket, Socket) {
    let [front, back] = world.proxy(narrow(Router).mandatory(true), of(Dealer), |proxy| {
        proxy.when_full(Side::Frontend, when_full)
    });
    let [slow, quick] =
        ["slow", "quick"].map(|name| world.socket(narrow(Dealer).routing_id(name).connect(&front)));
    let worker = world.connected(Dealer, &back);
    // So that the ROUTER knows them.
    for client in [&slow, &quick] {
        world.send(client, "hello");
        let _hello = world.receive(&worker);
    }
    (slow, quick, worker)
}

fn to(name: &str, number: usize) -> Multipart {
    Multipart::from([name.to_owned(), number.to_string()])
}

#[test]
fn a_slow_client_of_a_mandatory_router_is_waited_for_without_spinning() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let (slow, quick, worker) = slow_and_quick(&mut world, WhenFull::Wait);
        for number in 0..15 {
            world.send(&worker, &to("slow", number));
        }
        world.send(&worker, &to("quick", 0));
        world.until("a reply has to wait", |app| {
            (app.proxies[0].stats().frontend.waits > 0).then_some(())
        });
        world.settle();
        let waiting = world.stats().frontend;
        assert_eq!(waiting.messages_out, 10);
        // A ROUTER calls itself writable as long as any client has room, so this is where
        // a proxy would spin.
        let before = world.reactor.stats();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(100) {
            world.reactor.turn(&mut world.app, Duration::from_millis(100)).expect("a turn");
        }
        let events = world.reactor.stats().events - before.events;
        assert!(events <= 100, "{events} events in 100 ms of waiting");
        assert_eq!(
            quick.receive_message().expect("receive"),
            None,
            "it stands behind the slow one"
        );
        for number in 0..15 {
            assert_eq!(world.receive(&slow), Multipart::from([number.to_string()]));
        }
        assert_eq!(world.receive(&quick), Multipart::from(["0"]));
        assert_eq!(world.stats().frontend.dropped(), 0);
        assert_balanced(&world.stats(), 0);
    }
}

#[test]
fn or_what_it_does_not_take_is_dropped_and_counted() {
    let mut world = World::new(Backend::Epoll);
    let (slow, quick, worker) = slow_and_quick(&mut world, WhenFull::Drop);
    for number in 0..100 {
        world.send(&worker, &to("slow", number));
        world.send(&worker, &to("quick", number));
        assert_eq!(world.receive(&quick), Multipart::from([number.to_string()]));
    }
    world.settle();
    let mut got = 0;
    while slow.receive_message().expect("receive").is_some() {
        got += 1;
    }
    let stats = world.stats().frontend;
    assert!(got >= 10 && stats.full_drops > 0);
    assert_eq!(got + stats.full_drops, 100);
    assert_eq!(stats.waits, 0);
    assert_balanced(&world.stats(), 0);
}

#[test]
fn a_slow_subscriber_is_waited_for_if_nothing_may_be_dropped() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let xpub = narrow(XPub).nodrop(true);
        let [front, back] = world.proxy(narrow(XSub), xpub, |proxy| proxy);
        let publisher = world.socket(narrow(XPub).nodrop(true).connect(&front));
        let subscriber = world.socket(narrow(Sub).subscribe("").connect(&back));
        let _subscription = world.receive(&publisher);
        let taken = fill(&mut world, &publisher, numbered);
        for number in 0..taken {
            assert_eq!(world.receive(&subscriber), numbered(number));
        }
        assert!(world.stats().backend.waits > 0);
        assert_balanced(&world.stats(), 0);
    }
}

#[test]
fn a_capture_without_room_loses_copies_only() {
    let mut world = World::new(Backend::Epoll);
    let capture = world.socket(narrow(Push).bind("inproc://capture"));
    let spy = world.socket(narrow(Pull).connect("inproc://capture"));
    let [front, back] = world.proxy(of(Pull), of(Push), |proxy| proxy.capture(capture));
    let (push, pull) = (world.connected(Push, &front), world.connected(Pull, &back));
    for number in 0..100 {
        world.send(&push, &numbered(number));
        assert_eq!(world.receive(&pull), numbered(number));
    }
    for number in 0..10 {
        assert_eq!(world.receive(&spy), numbered(number), "copies are whole and in order");
    }
    assert_eq!(spy.receive_message().expect("receive"), None);
    let stats = world.stats();
    assert_eq!((stats.captured, stats.capture_drops), (10, 90));
}

#[test]
fn a_copy_is_made_once_however_long_the_message_waits() {
    let mut world = World::new(Backend::Epoll);
    let capture = world.socket(of(Push).bind("inproc://capture"));
    let spy = world.connected(Pull, "inproc://capture");
    let [front, back] = world.proxy(of(Pull), of(Push), |proxy| proxy.capture(capture));
    let push = world.connected(Push, &front);
    world.send(&push, &numbered(5));
    assert_eq!(world.receive(&spy), numbered(5));
    let pull = world.connected(Pull, &back);
    assert_eq!(world.receive(&pull), numbered(5));
    assert_eq!(spy.receive_message().expect("receive"), None);
    assert_eq!(world.stats().captured, 1);
}

#[test]
fn a_turn_moves_no_more_than_the_budget_in_each_direction() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let [front, back] = world.proxy(of(Dealer), of(Dealer), |proxy| proxy.budget(7));
        let (left, right) = (world.connected(Dealer, &front), world.connected(Dealer, &back));
        for number in 0..100 {
            left.send(&numbered(number)).expect("room");
            right.send(&numbered(number)).expect("room");
        }
        let mut before = world.stats();
        world.until("all have gone through", |app| {
            let now = app.proxies[0].stats();
            let moved =
                |now: u64, before: u64| assert!(now - before <= 7, "{} at once", now - before);
            moved(now.frontend.messages_in, before.frontend.messages_in);
            moved(now.backend.messages_in, before.backend.messages_in);
            before = now;
            (now.frontend.messages_out + now.backend.messages_out == 200).then_some(())
        });
    }
}
