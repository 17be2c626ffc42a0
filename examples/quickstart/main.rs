//! A broker and two clients that share live state: one process, one thread.
//!
//! The clients load 100,000 keys, then make 1,000,000 changes to them. Exits with 0
//! only if all three maps are equal at the end.
//!
//!     cargo run --release --example quickstart -- [KEYS] [CHANGES]

mod work;
mod writer;

use std::{io, time::Duration, time::Instant};

use indicatif::ProgressBar;
use pollux::node::{BrokerNode, BrokerOptions};
use pollux::{Flow, Reactor};
use work::Work;
use writer::{WINDOW, Writer};

struct App {
    broker: BrokerNode,
    writers: [Writer; 2],
    work: Work,
    /// What a handler could not cope with.
    failure: Option<io::Error>,
}

/// Turns the loop until `changes` are applied and seen by everybody; gives how many a second.
fn phase(reactor: &mut Reactor<App>, app: &mut App, name: &str, changes: u64) -> io::Result<f64> {
    app.work.begin(changes, ProgressBar::new(changes).with_message(name.to_owned()));
    reactor.add_timer(Duration::ZERO, |app: &mut App, cx| {
        app.writers.iter_mut().try_for_each(|writer| writer.fill(&mut app.work, cx))?;
        Ok(Flow::Remove)
    });
    let start = Instant::now();
    let everybody_knows = |app: &App| {
        let last = app.broker.machine().sequence();
        app.writers.iter().all(|writer| writer.client.machine().sequence() == last)
    };
    while !app.work.is_done() || !everybody_knows(app) {
        reactor.turn(app, Duration::from_millis(100))?;
        app.failure.take().map_or(Ok(()), Err)?;
    }
    app.work.bar.finish_and_clear();
    Ok(changes as f64 / start.elapsed().as_secs_f64())
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut number = |default| args.next().map_or(Ok(default), |arg| arg.parse::<u64>());
    let keys = number(100_000).map_err(io::Error::other)?.max(1);
    let changes = number(1_000_000).map_err(io::Error::other)?;
    let (context, endpoint) = (zmq::Context::new(), "inproc://quickstart");
    let broker = BrokerNode::bind(&context, endpoint, BrokerOptions::default())?;
    let writers = [Writer::new(&context, endpoint, 0)?, Writer::new(&context, endpoint, 1)?];
    let mut app = App { broker, writers, work: Work::new(keys), failure: None };
    let mut reactor = Reactor::new()?;
    reactor.on_error(|app: &mut App, _, error| {
        app.failure = Some(error);
        Flow::Stop
    });
    BrokerNode::attach(&mut reactor, &mut app, |app| &mut app.broker)?;
    Writer::attach(&mut reactor, &mut app, |app| (&mut app.writers[0], &mut app.work))?;
    Writer::attach(&mut reactor, &mut app, |app| (&mut app.writers[1], &mut app.work))?;

    let loaded = phase(&mut reactor, &mut app, "loading", keys)?;
    app.work.round_trips.reset();
    let changed = phase(&mut reactor, &mut app, "changing", changes)?;
    let us = |quantile| app.work.round_trips.value_at_quantile(quantile) as f64 / 1e3;
    println!("{keys} keys loaded at {loaded:.0}/s, {changes} changes at {changed:.0}/s");
    println!("round trip, {WINDOW} under way: p50 {:.0} us, p99 {:.0} us", us(0.5), us(0.99));
    println!("{:#?}\n{:#?}", reactor.stats(), app.broker.machine().stats());
    let store = app.broker.machine().store();
    for writer in &app.writers {
        let mut map = writer.client.machine().iter(b"");
        let equal = map.all(|own| store.get(own.key).is_some_and(|all| all.value == own.value));
        assert!(equal && writer.client.machine().len() == store.len(), "the maps differ");
    }
    println!("both clients' maps equal the broker's: {} keys", store.len());
    Ok(())
}
