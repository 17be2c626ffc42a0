//! The broker's process.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use pollux::node::{BrokerNode, BrokerOptions};
use pollux::reactor::{Flow, Reactor};
use pollux::socket::ZmqContext;

use crate::{HEARTBEAT, Outcome, child};

struct App {
    broker: BrokerNode,
    /// The longest turn without its waiting since the last reset.
    longest: Duration,
    /// Heartbeats by then.
    heartbeats: u64,
    since: Instant,
    word: Option<String>,
}

/// Serves until its stdin ends; `reset` and `report` are answered with a line.
pub(crate) fn run() -> Outcome<()> {
    let context = ZmqContext::builder().zero_copy_receive(false).build()?;
    let mut options = BrokerOptions::default();
    options.config.heartbeat = HEARTBEAT;
    let mut reactor = Reactor::new()?;
    let broker = BrokerNode::bind(&context, "tcp://127.0.0.1:*", options)?;
    let at = broker.endpoints();
    println!("{} {} {}", at.changes, at.updates, at.snapshots);
    io::stdout().flush()?;
    let since = Instant::now();
    let mut app = App { broker, longest: Duration::ZERO, heartbeats: 0, since, word: None };
    BrokerNode::attach(&mut reactor, &mut app, |app| &mut app.broker)?;
    let words = reactor.channel(1, |app: &mut App, _, word: String| {
        app.word = Some(word);
        Ok(Flow::Continue)
    })?;
    child::pass_on_stdin(words);
    loop {
        let (began, blocked) = (Instant::now(), reactor.stats().blocked_ns);
        reactor.turn(&mut app, Duration::MAX)?;
        let blocked = Duration::from_nanos(reactor.stats().blocked_ns - blocked);
        app.longest = app.longest.max(began.elapsed().saturating_sub(blocked));
        match app.word.take().as_deref() {
            None => {}
            Some("end") => return Ok(()),
            Some(_) => app.report()?,
        }
    }
}

impl App {
    fn report(&mut self) -> io::Result<()> {
        let heartbeats = self.broker.machine().stats().heartbeats;
        let rate = (heartbeats - self.heartbeats) as f64 / self.since.elapsed().as_secs_f64();
        println!("longest turn {:.2?}, {rate:.0} heartbeats/s", self.longest);
        (self.longest, self.heartbeats, self.since) = (Duration::ZERO, heartbeats, Instant::now());
        io::stdout().flush()
    }
}
