//! What the nodes do at the edges of the loop: parts that are removed, taken paths.

mod attaching;
mod pace;

use std::io;
use std::time::{Duration, Instant};

use super::{BrokerNode, BrokerOptions, ClientNode, ClientOptions};
use crate::clone::Sequence;
use crate::clone::client::{ClientConfig, Event};
use crate::reactor::{Context, Flow, Reactor};
use crate::socket::{Socket, SocketType, ZmqContext};

struct App {
    broker: BrokerNode,
    client: ClientNode<App>,
    /// What the application's handler returns for `Synced`.
    answer: fn() -> io::Result<Flow>,
}

fn on_event(app: &mut App, _: &mut Context<'_, App>, event: Event) -> io::Result<Flow> {
    match event {
        Event::Synced { .. } => (app.answer)(),
        _ => Ok(Flow::Continue),
    }
}

/// A broker and a client of it on one loop.
fn app(name: &str, answer: fn() -> io::Result<Flow>) -> (Reactor<App>, App) {
    let context = zmq::Context::new();
    let endpoint = format!("inproc://node-tests-{name}");
    let mut reactor = Reactor::new().unwrap();
    let mut options = BrokerOptions::default();
    options.config.heartbeat = Duration::from_millis(10);
    let client = ClientOptions::new(ClientConfig::follow([""]));
    let mut app = App {
        broker: BrokerNode::bind(&context, &endpoint, options).unwrap(),
        client: ClientNode::new(&context, &endpoint, client).unwrap(),
        answer,
    };
    BrokerNode::attach(&mut reactor, &mut app, |app| &mut app.broker).unwrap();
    ClientNode::attach(&mut reactor, &mut app, |app| &mut app.client, on_event).unwrap();
    (reactor, app)
}

/// Turns the loop until something is so.
fn until(reactor: &mut Reactor<App>, app: &mut App, mut is_so: impl FnMut(&mut App) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so(app) {
        assert!(Instant::now() < deadline, "not within 30 s");
        reactor.turn(app, Duration::from_millis(100)).unwrap();
    }
}

fn fails() -> io::Result<Flow> {
    Err(io::Error::other("the application cannot go on"))
}

#[test]
fn a_client_whose_handler_fails_leaves_the_loop_as_a_whole() {
    let (mut reactor, mut app) = app("fails", fails);
    until(&mut reactor, &mut app, |app| !app.client.is_attached());
    app.broker.detach(&mut reactor);
    // Nothing is left of either, or this would not return.
    reactor.run(&mut app).unwrap();
    assert!(app.client.set(&mut reactor, b"/a", b"1", None).is_err());
}

#[test]
fn a_client_stays_if_the_error_hook_says_so() {
    let (mut reactor, mut app) = app("stays", fails);
    reactor.on_error(|app: &mut App, _, _| {
        app.answer = || Ok(Flow::Continue);
        Flow::Continue
    });
    until(&mut reactor, &mut app, |app| app.client.machine().is_current());
    app.client.set(&mut reactor, b"/a", b"1", None).unwrap();
    until(&mut reactor, &mut app, |app| app.client.machine().get(b"/a").is_some());
    assert!(app.client.is_attached());
    assert_eq!(reactor.stats().errors, 1);
}

#[test]
fn a_client_that_asks_to_be_removed_goes_as_a_whole_and_for_good() {
    let (mut reactor, mut app) = app("removed", || Ok(Flow::Remove));
    until(&mut reactor, &mut app, |app| !app.client.is_attached());
    app.broker.detach(&mut reactor);
    reactor.run(&mut app).unwrap();
    assert_eq!(reactor.stats().errors, 0);
    let again = ClientNode::attach(&mut reactor, &mut app, |app| &mut app.client, on_event);
    assert!(again.unwrap_err().to_string().contains("make a new one"));
}

#[test]
fn a_broker_that_lost_a_socket_leaves_the_loop_as_a_whole() {
    let (mut reactor, mut app) = app("torn", || Ok(Flow::Continue));
    until(&mut reactor, &mut app, |app| app.client.machine().is_current());
    app.client.detach(&mut reactor);
    app.broker.lose_changes(&mut reactor);
    reactor.run(&mut app).unwrap();
    assert!(!app.broker.is_attached());
}

#[test]
fn the_socket_for_changes_is_opened_again_if_there_was_none_to_be_had() {
    let (mut reactor, mut app) = app("reopened", || Ok(Flow::Continue));
    until(&mut reactor, &mut app, |app| app.client.machine().is_current());
    app.client.lose_changes(&mut reactor);
    app.client.set(&mut reactor, b"/a", b"1", None).unwrap();
    until(&mut reactor, &mut app, |app| app.client.machine().get(b"/a").is_some());
}

#[test]
fn a_path_at_which_somebody_listens_is_not_taken_over() {
    let context = zmq::Context::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let bind = |endpoint: &str| BrokerNode::bind(&context, endpoint, BrokerOptions::default());
    let endpoint = format!("ipc://{}", path.display());
    let first = bind(&endpoint).unwrap();
    let error = bind(&endpoint).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&endpoint), "{error}");
    assert!(error.to_string().contains("choose another path"), "{error}");
    drop(first);
    // A file that was left behind by a process that was killed is in nobody's way.
    drop(std::os::unix::net::UnixListener::bind(&path));
    let deadline = Instant::now() + Duration::from_secs(30);
    // Closing a socket of ZeroMQ takes a moment.
    while let Err(error) = bind(&endpoint) {
        assert!(Instant::now() < deadline, "{error}");
    }
}

#[test]
fn a_start_that_leaves_no_sequence_is_refused() {
    let mut options = BrokerOptions::default();
    options.config.start = Sequence::MAX;
    let error = BrokerNode::bind(&zmq::Context::new(), "inproc://none", options).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("clock"), "{error}");
}

/// More than one burst of changes, among them such as go on in their own frames, such
/// as do not, and such as are only answered.
#[test]
fn updates_go_out_in_the_order_of_their_sequences() {
    let tcp = "tcp://127.0.0.1:*";
    for (first, shares) in [("inproc://node-tests-order", true), (tcp, true), (tcp, false)] {
        let context = ZmqContext::builder().zero_copy_receive(shares).build().unwrap();
        let mut broker = BrokerNode::bind(&context, first, BrokerOptions::default()).unwrap();
        let endpoints = broker.endpoints().clone();
        let sub = Socket::builder(SocketType::Sub)
            .subscribe("HUGZ")
            .subscribe("")
            .connect(&endpoints.updates);
        let sub = sub.build(&context).unwrap();
        let push = Socket::builder(SocketType::Push).connect(&endpoints.changes);
        let push = push.build(&context).unwrap();
        let mut reactor = Reactor::new().unwrap();
        BrokerNode::attach(&mut reactor, &mut broker, |broker| broker).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        // Its heartbeat says that the subscription is there.
        while sub.receive_message().unwrap().is_none() {
            assert!(Instant::now() < deadline, "no heartbeat within 30 s");
            reactor.turn(&mut broker, Duration::from_millis(10)).unwrap();
        }
        let value = [7; 300];
        for n in 0..200_u8 {
            let properties: &[u8] = if n % 7 == 3 { b"ttl=1000\n" } else { b"by=test\n" };
            // Each tenth is sent twice: the second one is answered by a heartbeat.
            for _ in 0..if n % 10 == 9 { 2 } else { 1 } {
                let key = [b"/key", &[b'a' + n % 20][..]].concat();
                push.send(&[&key, &[0; 8][..], &[n; 16], properties, &value][..]).unwrap();
            }
        }
        let (mut updates, mut answers) = (Vec::new(), 0);
        while updates.len() < 200 || answers < 20 {
            assert!(Instant::now() < deadline, "{} updates, {answers} answers", updates.len());
            reactor.turn(&mut broker, Duration::from_millis(10)).unwrap();
            while let Some(message) = sub.receive_message().unwrap() {
                let message: Vec<_> = message.iter().collect();
                match (&message[0][..], message[2].first()) {
                    ([b'/', b'k', b'e', b'y', of], Some(n)) => {
                        assert_eq!(*of, b'a' + n % 20);
                        assert_eq!(message[4][..], value);
                        let sequence = u64::from_be_bytes(message[1][..].try_into().unwrap());
                        updates.push((*n, sequence));
                    }
                    // The answer to a repeated one follows the update that it repeats.
                    (_, Some(n)) => {
                        assert_eq!(updates.last().unwrap().0, *n);
                        answers += 1;
                    }
                    _ => {}
                }
            }
        }
        let first = updates[0].1;
        let expected: Vec<_> = (0..200).map(|n| (n, first + u64::from(n))).collect();
        assert_eq!(updates, expected);
        assert_eq!(broker.machine().stats().publish_failed, 0);
    }
}
