//! A broker that the loop cannot take as a whole, and handlers for its role that fail.

use std::io;
use std::time::Duration;

use super::super::{BrokerNode, BrokerOptions};
use crate::clone::pair::{PairConfig, Role, Seat};
use crate::reactor::{Flow, Reactor};

struct Alone {
    broker: BrokerNode,
    roles: Vec<Role>,
}

/// A broker of a pair whose peer is not there.
fn alone(endpoint: &str, peer: &str) -> Alone {
    let mut options = BrokerOptions::default();
    options.config.heartbeat = Duration::from_millis(10);
    options.config.pair = Some(PairConfig::new(1, Seat::Backup));
    options.peer = Some(peer.to_owned());
    let broker = BrokerNode::bind(&zmq::Context::new(), endpoint, options).unwrap();
    Alone { broker, roles: Vec::new() }
}

#[test]
fn what_cannot_be_attached_as_a_whole_leaves_nothing_behind() {
    // Longer than a socket's address can be, which shows only when it is opened.
    let peer = format!("ipc:///tmp/{}", "x".repeat(200));
    let mut app = alone("inproc://half", &peer);
    let mut reactor: Reactor<Alone> = Reactor::new().unwrap();
    BrokerNode::attach(&mut reactor, &mut app, |app| &mut app.broker).unwrap_err();
    assert!(!app.broker.is_attached());
    // Or this would not return.
    reactor.run(&mut app).unwrap();
}

#[test]
fn attaching_once_more_takes_nothing_from_the_first_time() {
    let mut app = alone("inproc://twice", "inproc://nobody-else");
    let mut reactor: Reactor<Alone> = Reactor::new().unwrap();
    BrokerNode::attach(&mut reactor, &mut app, |app| &mut app.broker).unwrap();
    let line = app.broker.line().unwrap();
    let error = BrokerNode::attach(&mut reactor, &mut app, |app| &mut app.broker).unwrap_err();
    assert!(error.to_string().contains("make a new one"), "{error}");
    assert!(app.broker.is_attached());
    assert!(reactor.contains(line), "the connection to the peer is still there");
}

#[test]
fn a_handler_for_roles_that_fails_is_the_only_thing_that_ends() {
    let mut app = alone("inproc://roles", "inproc://nobody");
    let mut reactor = Reactor::new().unwrap();
    BrokerNode::attach_with(
        &mut reactor,
        &mut app,
        |app| &mut app.broker,
        |app, _, (role, _)| {
            app.roles.push(role);
            Err::<Flow, _>(io::Error::other("deliberate"))
        },
    )
    .unwrap();
    app.broker.promote(&mut reactor).unwrap();
    let mut turn_until = |app: &mut Alone, is_so: fn(&Alone) -> bool| {
        let deadline = reactor.now() + Duration::from_secs(30);
        while !is_so(app) {
            assert!(reactor.now() < deadline, "not within 30 s");
            reactor.turn(app, Duration::from_millis(100)).unwrap();
        }
    };
    turn_until(&mut app, |app| !app.roles.is_empty());
    let before = app.broker.machine().stats().heartbeats;
    assert_eq!(app.roles, [Role::Active]);
    assert!(before < 100);
    turn_until(&mut app, |app| app.broker.machine().stats().heartbeats >= 100);
    assert!(app.broker.is_attached());
}
