//! A broker and two clients that share live state: one process, one thread.
//!
//! The clients load 100,000 keys, then make 1,000,000 changes to them. At the
//! end all three maps must be equal; only then does it exit with 0.
//!
//!     cargo run --release --example quickstart -- [KEYS] [CHANGES]

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use pollux::clone::client::{ClientConfig, Event};
use pollux::node::{BrokerNode, BrokerOptions, ClientNode, ClientOptions};
use pollux::{Context, Flow, Reactor};

struct App {
    broker: BrokerNode,
    clients: [ClientNode<App>; 2],
    /// When the changes under way were made, oldest first, for each client.
    under_way: [VecDeque<Instant>; 2],
    round_trips: Histogram<u64>,
    keys: u64,
    todo: u64,
    done: u64,
    bar: ProgressBar,
    /// What a handler could not cope with.
    failure: Option<io::Error>,
}

/// Changes a client has under way at a time.
const WINDOW: usize = 32;

/// Makes changes until the client's window is full.
fn fill(app: &mut App, cx: &mut Context<'_, App>, who: usize) -> io::Result<Flow> {
    while app.todo > 0 && app.under_way[who].len() < WINDOW {
        app.todo -= 1;
        let key = format!("/demo/{:06}", app.todo.wrapping_mul(7919) % app.keys);
        let value = format!("change {} by client {who}", app.todo);
        let client = &mut app.clients[who];
        client.set(cx, key.as_bytes(), value.as_bytes(), None).map_err(io::Error::other)?;
        app.under_way[who].push_back(Instant::now());
    }
    Ok(Flow::Continue)
}

fn on_event(
    app: &mut App,
    cx: &mut Context<'_, App>,
    who: usize,
    event: Event,
) -> io::Result<Flow> {
    match event {
        Event::Synced { .. } => return fill(app, cx, who),
        Event::Applied { .. } => {
            if let Some(made) = app.under_way[who].pop_front() {
                app.round_trips
                    .record(made.elapsed().as_nanos() as u64)
                    .map_err(io::Error::other)?;
            }
            app.done += 1;
            app.bar.inc(1);
            return fill(app, cx, who);
        }
        Event::TimedOut { .. } | Event::Refused { .. } | Event::Superseded { .. } => {
            return Err(io::Error::other(format!("{event:?}")));
        }
        _ => {}
    }
    Ok(Flow::Continue)
}

/// Turns the loop until `changes` are applied and seen by everybody.
fn phase(reactor: &mut Reactor<App>, app: &mut App, name: &str, changes: u64) -> io::Result<f64> {
    (app.todo, app.done, app.bar) =
        (changes, 0, ProgressBar::new(changes).with_message(name.to_owned()));
    reactor.add_timer(Duration::ZERO, |app: &mut App, cx| {
        fill(app, cx, 0).and_then(|_| fill(app, cx, 1)).map(|_| Flow::Remove)
    });
    let start = Instant::now();
    let everybody_knows = |app: &App| {
        let last = app.broker.machine().sequence();
        app.clients.iter().all(|client| client.machine().sequence() == last)
    };
    while app.done < changes || !everybody_knows(app) {
        reactor.turn(app, Duration::from_millis(100))?;
        if let Some(error) = app.failure.take() {
            return Err(error);
        }
    }
    app.bar.finish_and_clear();
    Ok(changes as f64 / start.elapsed().as_secs_f64())
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut number = |default| args.next().map_or(Ok(default), |arg| arg.parse::<u64>());
    let keys = number(100_000).map_err(io::Error::other)?.max(1);
    let changes = number(1_000_000).map_err(io::Error::other)?;
    let context = zmq::Context::new();
    let mut reactor = Reactor::new()?;
    let client = || {
        ClientNode::new(
            &context,
            "inproc://quickstart",
            ClientOptions::new(ClientConfig::follow([""])),
        )
    };
    let mut app = App {
        broker: BrokerNode::bind(&context, "inproc://quickstart", BrokerOptions::default())?,
        clients: [client()?, client()?],
        under_way: Default::default(),
        round_trips: Histogram::new(3).map_err(io::Error::other)?,
        keys,
        todo: 0,
        done: 0,
        bar: ProgressBar::hidden(),
        failure: None,
    };
    reactor.on_error(|app: &mut App, _, error| {
        app.failure = Some(error);
        Flow::Stop
    });
    BrokerNode::attach(&mut reactor, &mut app, |app| &mut app.broker)?;
    ClientNode::attach(
        &mut reactor,
        &mut app,
        |app| &mut app.clients[0],
        |app, cx, e| on_event(app, cx, 0, e),
    )?;
    ClientNode::attach(
        &mut reactor,
        &mut app,
        |app| &mut app.clients[1],
        |app, cx, e| on_event(app, cx, 1, e),
    )?;

    let loaded = phase(&mut reactor, &mut app, "loading", keys)?;
    app.round_trips.reset();
    let changed = phase(&mut reactor, &mut app, "changing", changes)?;
    let us = |quantile| app.round_trips.value_at_quantile(quantile) as f64 / 1e3;
    println!("{keys} keys loaded at {loaded:.0}/s, {changes} changes at {changed:.0}/s");
    println!("round trip, {WINDOW} under way: p50 {:.0} us, p99 {:.0} us", us(0.5), us(0.99));
    println!("{:#?}\n{:#?}", reactor.stats(), app.broker.machine().stats());

    let store = app.broker.machine().store();
    for client in &app.clients {
        let map = client.machine();
        let equal = map
            .iter(b"")
            .all(|entry| store.get(entry.key).is_some_and(|own| own.value == entry.value));
        assert!(equal && map.len() == store.len(), "a client's map differs from the broker's");
    }
    println!("both clients' maps equal the broker's: {} keys", store.len());
    Ok(())
}
