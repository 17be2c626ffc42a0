//! Pause, resume, statistics: by methods and by libzmq's words.

use pollux::Multipart;
use pollux::proxy::Phase;
use pollux::reactor::Backend;
use pollux::socket::Socket;
use pollux::socket::SocketType::*;

use super::{BACKENDS, World, numbered, of};

/// A PULL/PUSH proxy with a control socket of this type, its peers, and the controller.
fn controlled(
    backend: Backend,
    control: pollux::socket::SocketType,
    controller: pollux::socket::SocketType,
) -> (World, [Socket; 3]) {
    let mut world = World::new(backend);
    let control = match control {
        Sub => of(Sub).subscribe(""),
        other => of(other),
    };
    let control = world.socket(control.bind("inproc://control"));
    let [front, back] = world.proxy(of(Pull), of(Push), |proxy| proxy.control(control));
    let (push, pull) = (world.connected(Push, &front), world.connected(Pull, &back));
    let controller = world.connected(controller, "inproc://control");
    (world, [push, pull, controller])
}

fn statistics(message: &Multipart) -> Vec<u64> {
    message.iter().map(|frame| u64::from_ne_bytes(frame[..].try_into().expect("8 bytes"))).collect()
}

#[test]
fn the_words_of_libzmq_are_obeyed_and_answered() {
    for backend in BACKENDS {
        let (mut world, [push, pull, req]) = controlled(backend, Rep, Req);
        let command = |world: &mut World, word: &str| {
            req.send(word).expect("room");
            world.receive(&req)
        };
        world.send(&push, &["a", "bc"]);
        let _first = world.receive(&pull);
        let answer = command(&mut world, "STATISTICS");
        assert_eq!(statistics(&answer), [1, 3, 0, 0, 0, 0, 1, 3]);

        let done = Multipart::from([""]);
        assert_eq!(command(&mut world, "PAUSE"), done);
        assert_eq!(world.phase(), Phase::Paused);
        for number in 0..10 {
            world.send(&push, &numbered(number));
        }
        world.settle();
        assert_eq!(pull.receive_message().expect("receive"), None, "it is paused");
        assert_eq!(statistics(&command(&mut world, "STATISTICS"))[0], 1);

        assert_eq!(command(&mut world, "RESUME"), done);
        for number in 0..10 {
            assert_eq!(world.receive(&pull), numbered(number), "nothing is lost for it");
        }
        assert_eq!(command(&mut world, "TERMINATE"), done);
        world.until("it ends", |app| app.ended.pop()).expect("in order");
        assert_eq!(world.phase(), Phase::Ended);
        assert_eq!(world.stats().commands, 5);
        assert_eq!(world.stats().commands_refused, 0);
    }
}

#[test]
fn what_is_no_command_does_no_harm() {
    let (mut world, [push, pull, req]) = controlled(Backend::Epoll, Rep, Req);
    let nonsense: [&[&str]; 4] = [&["pause"], &[""], &["PAUSE", "RESUME"], &["KILL"]];
    for message in nonsense {
        req.send(message).expect("room");
        let answer = world.receive(&req);
        assert_eq!(answer, Multipart::from(["expected PAUSE, RESUME, TERMINATE or STATISTICS"]));
    }
    world.send(&push, "still here");
    assert_eq!(world.receive(&pull), Multipart::from(["still here"]));
    assert_eq!((world.stats().commands, world.stats().commands_refused), (0, 4));
}

#[test]
fn a_pair_is_answered_its_statistics_alone() {
    let (mut world, [_push, _pull, pair]) = controlled(Backend::ZmqPoll, Pair, Pair);
    for word in ["PAUSE", "STATISTICS", "RESUME", "STATISTICS"] {
        pair.send(word).expect("room");
    }
    assert_eq!(statistics(&world.receive(&pair)), [0; 8]);
    assert_eq!(world.receive(&pair).len(), 8);
    assert_eq!(pair.receive_message().expect("receive"), None);
    assert_eq!(world.phase(), Phase::Running);
}

#[test]
fn one_way_controls_command_and_are_not_answered() {
    for (control, controller) in [(Pull, Push), (Sub, Pub)] {
        let (mut world, [_push, _pull, controller]) =
            controlled(Backend::Epoll, control, controller);
        // A SUB hears only what is said after its subscription has come.
        world.until("it is paused", |app| {
            controller.send("PAUSE").expect("room");
            (app.proxies[0].phase() == Phase::Paused).then_some(())
        });
        controller.send("STATISTICS").expect("room");
        controller.send("RESUME").expect("room");
        world.until("it goes on", |app| (app.proxies[0].phase() == Phase::Running).then_some(()));
        assert_eq!(world.stats().commands_refused, 1, "statistics cannot be told");
    }
}

#[test]
fn methods_do_the_same() {
    for backend in BACKENDS {
        let mut world = World::new(backend);
        let [front, back] = world.proxy(of(Pull), of(Push), |proxy| proxy);
        let (push, pull) = (world.connected(Push, &front), world.connected(Pull, &back));
        for round in 0..3 {
            world.app.proxies[0].pause(&mut world.reactor);
            world.send(&push, &numbered(round));
            world.settle();
            assert_eq!(world.stats().frontend.messages_in, round as u64);
            world.app.proxies[0].resume(&mut world.reactor);
            assert_eq!(world.receive(&pull), numbered(round));
        }
    }
}
