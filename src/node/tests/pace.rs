//! A client beside other sources of its loop: it takes turns, and a loop that stood
//! still does not take its broker for silent.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::clone::client::{ClientConfig, Event};
use crate::node::{BrokerNode, BrokerOptions, ClientNode, ClientOptions};
use crate::reactor::{Context, Flow, Missed, Reactor};

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct App {
    broker: BrokerNode,
    client: ClientNode<App>,
    /// Times that the other source was served.
    others: u64,
    /// Of all events, what they were and how often the other source had been served.
    events: Vec<(Event, u64)>,
}

/// A broker and a client of it on one loop.
fn app(name: &str) -> (Reactor<App>, App) {
    let context = zmq::Context::new();
    let endpoint = format!("inproc://pace-{name}");
    let client = ClientOptions::new(ClientConfig::follow([""]));
    let app = App {
        broker: BrokerNode::bind(&context, &endpoint, BrokerOptions::default()).unwrap(),
        client: ClientNode::new(&context, &endpoint, client).unwrap(),
        others: 0,
        events: Vec::new(),
    };
    (Reactor::new().unwrap(), app)
}

fn attach(
    reactor: &mut Reactor<App>,
    app: &mut App,
    on_event: fn(&mut App, &mut Context<'_, App>, Event) -> io::Result<Flow>,
) {
    ClientNode::attach(reactor, app, |app| &mut app.client, on_event).unwrap();
}

fn until(reactor: &mut Reactor<App>, app: &mut App, mut is_so: impl FnMut(&mut App) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so(app) {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}");
        reactor.turn(app, Duration::from_millis(100)).unwrap();
    }
}

fn note(app: &mut App, _: &mut Context<'_, App>, event: Event) -> io::Result<Flow> {
    app.events.push((event, app.others));
    Ok(Flow::Continue)
}

const KEYS: usize = 20_000;

/// A loop with a broker that holds [`KEYS`] keys, and a source that has something to do
/// in every turn.
fn full(name: &str) -> (Reactor<App>, App) {
    let (mut reactor, mut app) = app(name);
    BrokerNode::attach(&mut reactor, &mut app, |app| &mut app.broker).unwrap();
    for key in 0..KEYS {
        let key = format!("/{key:06}");
        app.broker.set(&mut reactor, key.as_bytes(), b"value", None).unwrap();
    }
    reactor.add_periodic(Duration::from_nanos(1), Missed::Skip, |app: &mut App, _| {
        app.others += 1;
        Ok(Flow::Continue)
    });
    (reactor, app)
}

fn is_synced(app: &mut App) -> bool {
    matches!(app.events.last(), Some((Event::Synced { .. }, _)))
}

#[test]
fn what_a_snapshot_changed_is_handed_out_in_turns_with_others() {
    let (mut reactor, mut app) = full("turns");
    attach(&mut reactor, &mut app, note);
    until(&mut reactor, &mut app, is_synced);
    assert_eq!(app.events.len(), KEYS + 1, "each once, and the end behind them");
    assert!(app.events.is_sorted_by(|(before, _), (after, _)| match (before, after) {
        (Event::Updated { key: before, .. }, Event::Updated { key: after, .. }) => before < after,
        (_, after) => matches!(after, Event::Synced { .. }),
    }));
    let most = app.events.chunk_by(|one, next| one.1 == next.1).map(<[_]>::len).max();
    assert!(most <= Some(2 * super::super::client::STEPS_AT_ONCE), "{most:?} in one turn");
}

#[test]
fn what_happens_meanwhile_is_told_behind_it() {
    let (mut reactor, mut app) = full("meanwhile");
    attach(&mut reactor, &mut app, |app, cx, event| {
        if app.events.is_empty() {
            for key in 0..1000 {
                app.broker.set(cx, format!("/new/{key:03}").as_bytes(), b"1", None).unwrap();
            }
        }
        note(app, cx, event)
    });
    until(&mut reactor, &mut app, |app| app.events.len() == KEYS + 1001);
    let synced = app.events.iter().position(|(event, _)| matches!(event, Event::Synced { .. }));
    assert_eq!(synced, Some(KEYS), "{:?}", app.client.machine().stats());
    assert_eq!(app.client.machine().len(), KEYS + 1000);
    assert_eq!(app.client.machine().stats().gaps, 0);
}

#[test]
fn a_loop_that_was_stopped_in_the_middle_goes_on_there() {
    let (mut reactor, mut app) = full("stopped");
    attach(&mut reactor, &mut app, |app, cx, event| {
        note(app, cx, event)?;
        let is_stop = app.events.len() % 777 == 5 || is_synced(app);
        Ok(if is_stop { Flow::Stop } else { Flow::Continue })
    });
    let mut stops = 0;
    while !is_synced(&mut app) {
        reactor.run(&mut app).unwrap();
        stops += 1;
        assert!(stops <= KEYS);
    }
    assert_eq!(app.events.len(), KEYS + 1);
    assert!(stops >= KEYS / 777, "{stops}");
}

/// A broker on a thread of its own that changes 20 keys each millisecond. Tells after
/// each second, and ends when nobody listens.
fn busy_broker(context: &zmq::Context, endpoint: &str) -> mpsc::Receiver<()> {
    struct Busy {
        broker: BrokerNode,
        round: u64,
        seconds: mpsc::SyncSender<()>,
    }
    let mut options = BrokerOptions::default();
    options.config.heartbeat = Duration::from_millis(20);
    let broker = BrokerNode::bind(context, endpoint, options).unwrap();
    let (seconds, told) = mpsc::sync_channel(0);
    thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        let mut busy = Busy { broker, round: 0, seconds };
        BrokerNode::attach(&mut reactor, &mut busy, |busy| &mut busy.broker).unwrap();
        reactor.add_periodic(Duration::from_millis(1), Missed::Skip, |busy: &mut Busy, cx| {
            busy.round += 1;
            for key in 0..20 {
                let value = busy.round.to_be_bytes();
                busy.broker.set(cx, format!("/a/{key}").as_bytes(), &value, None)?;
            }
            Ok(Flow::Continue)
        });
        reactor.add_periodic(Duration::from_secs(1), Missed::Skip, |busy: &mut Busy, _| match busy
            .seconds
            .try_send(())
        {
            Err(mpsc::TrySendError::Disconnected(())) => Ok(Flow::Stop),
            _ => Ok(Flow::Continue),
        });
        reactor.run(&mut busy).unwrap();
    });
    told
}

/// Nothing can be read while the loop stands still, and much waits afterwards, the
/// heartbeats in between: that is no reason to take the broker for silent.
#[test]
fn a_loop_that_stood_still_reads_what_waits_before_it_judges() {
    struct Follower {
        client: ClientNode<Follower>,
        events: Vec<Event>,
    }
    let context = zmq::Context::new();
    let endpoint = "inproc://pace-behind";
    let seconds = busy_broker(&context, endpoint);
    // Not the whole tree: it has heartbeats of its own, which must not be missed either.
    let options = ClientOptions::new(ClientConfig::follow(["/a/"]));
    let client = ClientNode::new(&context, endpoint, options).unwrap();
    let mut follower = Follower { client, events: Vec::new() };
    let mut reactor = Reactor::new().unwrap();
    ClientNode::attach(
        &mut reactor,
        &mut follower,
        |follower| &mut follower.client,
        |follower, _, event| {
            if !matches!(event, Event::Updated { .. }) {
                follower.events.push(event);
            }
            Ok(Flow::Continue)
        },
    )
    .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut verified = 0;
    for _ in 0..3 {
        // Twice the patience with the broker is between the second of these.
        let wait = || seconds.recv_timeout(PATIENCE).expect("the broker is busy");
        (0..3).for_each(|_| wait());
        // Until it has caught up, to the last heartbeat.
        let start = follower.client.machine().stats().verified;
        verified += start;
        while follower.client.machine().stats().verified < start + 10
            || reactor.turn(&mut follower, Duration::ZERO).unwrap() > 0
        {
            assert!(Instant::now() < deadline, "it does not catch up");
            reactor.turn(&mut follower, Duration::from_millis(100)).unwrap();
        }
    }
    assert!(verified > 0);
    assert!(matches!(follower.events[..], [Event::Synced { .. }]), "{:?}", follower.events);
}
