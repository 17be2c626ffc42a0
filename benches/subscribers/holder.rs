//! A process full of subscribers.

use std::io::{self, Write};
use std::time::Instant;

use hdrhistogram::Histogram;
use pollux::clone::client::{ClientConfig, Event};
use pollux::node::{ClientNode, ClientOptions};
use pollux::reactor::{Flow, Reactor};

use crate::{Outcome, child, clock_ns, new_histogram, subtree, written};

/// Of one context of libzmq, which has 1,023 sockets.
const A_CONTEXT: usize = 250;

struct App {
    clients: Vec<ClientNode<App>>,
    began: Instant,
    /// Nanoseconds until a client was current.
    joins: Histogram<u64>,
    /// Clients that are.
    current: usize,
    /// Nanoseconds from when a change was sent until a client had it.
    delays: Histogram<u64>,
}

/// Clients `from` to `from + count`; says when all are current, and the rest when it is asked.
pub(crate) fn run(endpoint: &str, from: usize, count: usize, subtrees: usize) -> Outcome<()> {
    let mut reactor = Reactor::new()?;
    let mut app = App {
        clients: Vec::new(),
        began: Instant::now(),
        joins: new_histogram(),
        current: 0,
        delays: new_histogram(),
    };
    let mut context = zmq::Context::new();
    for index in 0..count {
        if index % A_CONTEXT == 0 {
            context = zmq::Context::new();
        }
        let config = ClientConfig::follow([subtree((from + index) % subtrees)]);
        app.clients.push(ClientNode::new(&context, endpoint, ClientOptions::new(config))?);
        ClientNode::attach(
            &mut reactor,
            &mut app,
            move |app| &mut app.clients[index],
            move |app, _, event| app.hear(&event),
        )?;
    }
    let words = reactor.channel(1, |app: &mut App, _, word: String| {
        if word == "report" {
            app.report()?;
        }
        Ok(if word == "end" { Flow::Stop } else { Flow::Continue })
    })?;
    child::pass_on_stdin(words);
    Ok(reactor.run(&mut app)?)
}

impl App {
    fn hear(&mut self, event: &Event) -> io::Result<Flow> {
        match event {
            Event::Synced { .. } => {
                self.joins.record(self.began.elapsed().as_nanos() as u64).expect("it grows");
                self.current += 1;
                if self.current == self.clients.len() {
                    println!("{}", written(&self.joins));
                    io::stdout().flush()?;
                }
            }
            Event::Updated { value, .. } if self.current >= self.clients.len() => {
                if let Some(sent) = value.first_chunk() {
                    let sent = u64::from_be_bytes(*sent);
                    self.delays.record(clock_ns().saturating_sub(sent)).expect("it grows");
                }
            }
            _ => {}
        }
        Ok(Flow::Continue)
    }

    fn report(&self) -> io::Result<()> {
        println!("{}", written(&self.delays));
        let (mut faults, mut not_current) = ([0; 7], 0);
        for client in &self.clients {
            let stats = client.machine().stats();
            let each = [
                stats.gaps,
                stats.missed,
                stats.malformed,
                stats.losts,
                stats.unwatched,
                stats.resyncs,
                stats.overrun,
            ];
            faults.iter_mut().zip(each).for_each(|(sum, count)| *sum += count);
            not_current += usize::from(!client.machine().is_current());
        }
        let names = ["gaps", "missed", "malformed", "losts", "unwatched", "resyncs", "overrun"];
        let mut told: Vec<_> = names
            .iter()
            .zip(faults)
            .filter(|&(_, count)| count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        if not_current > 0 {
            told.push(format!("not current {not_current}"));
        }
        println!("{}", if told.is_empty() { "none".to_owned() } else { told.join(", ") });
        io::stdout().flush()
    }
}
