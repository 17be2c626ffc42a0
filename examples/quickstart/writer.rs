//! A client that makes changes, so many at a time, and measures how long each takes.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use pollux::clone::client::{ClientConfig, Event};
use pollux::node::{ClientNode, ClientOptions};
use pollux::{Flow, Reactor, reactor::Registry};

use crate::App;
use crate::work::Work;

/// Changes a client has under way at a time.
pub(crate) const WINDOW: usize = 32;

pub(crate) struct Writer {
    pub(crate) client: ClientNode<App>,
    name: usize,
    /// When the changes under way were made, oldest first.
    under_way: VecDeque<Instant>,
}

impl Writer {
    pub(crate) fn new(context: &zmq::Context, endpoint: &str, name: usize) -> io::Result<Writer> {
        let options = ClientOptions::new(ClientConfig::follow([""]));
        let client = ClientNode::new(context, endpoint, options)?;
        Ok(Writer { client, name, under_way: VecDeque::new() })
    }

    pub(crate) fn attach(
        reactor: &mut Reactor<App>,
        app: &mut App,
        parts: fn(&mut App) -> (&mut Writer, &mut Work),
    ) -> io::Result<()> {
        ClientNode::attach(
            reactor,
            app,
            move |app| &mut parts(app).0.client,
            move |app, cx, event| {
                let (writer, work) = parts(app);
                match event {
                    Event::Synced { .. } => writer.fill(work, cx)?,
                    Event::Applied { .. } => writer.applied(work, cx)?,
                    Event::TimedOut { .. } | Event::Refused { .. } | Event::Superseded { .. } => {
                        return Err(io::Error::other(format!("{event:?}")));
                    }
                    _ => {}
                }
                Ok(Flow::Continue)
            },
        )
    }

    fn applied(&mut self, work: &mut Work, cx: &mut Registry<App>) -> io::Result<()> {
        if let Some(made) = self.under_way.pop_front() {
            let ns = made.elapsed().as_nanos() as u64;
            work.round_trips.record(ns).map_err(io::Error::other)?;
        }
        work.left -= 1;
        work.bar.inc(1);
        self.fill(work, cx)
    }

    /// Makes changes until the window is full.
    pub(crate) fn fill(&mut self, work: &mut Work, cx: &mut Registry<App>) -> io::Result<()> {
        while work.todo > 0 && self.under_way.len() < WINDOW {
            work.todo -= 1;
            let key = format!("/demo/{:06}", work.todo.wrapping_mul(7919) % work.keys);
            let value = format!("change {} by client {}", work.todo, self.name);
            self.client
                .set(cx, key.as_bytes(), value.as_bytes(), None)
                .map_err(io::Error::other)?;
            self.under_way.push_back(Instant::now());
        }
        Ok(())
    }
}
