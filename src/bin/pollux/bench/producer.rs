//! A client that sets keys and takes the time until its own echo.

use std::collections::HashMap;
use std::io::Write;
use std::time::Instant;

use hdrhistogram::Histogram;
use pollux::clone::Uuid;
use pollux::clone::client::{Client, ClientConfig, Event};
use pollux::reactor::Registry;
use pollux::time::Time;

use super::figures::{digest, histogram};
use super::stage::{News, Reporter, Stage};
use crate::args::{BenchArgs, Common};
use crate::exit::Failure;
use crate::session::{App, Session, Step, Task};
use crate::text::counted;

/// Changes that may be applied, but not yet safe, if the broker is one of a pair.
const KEPT: usize = 100_000;

/// What a producer has measured.
#[derive(Debug)]
pub(super) struct Produced {
    /// Round trips in nanoseconds with one change under way.
    pub(super) one_by_one: Histogram<u64>,
    /// And under full load.
    pub(super) load: Histogram<u64>,
    /// Changes applied.
    pub(super) applied: u64,
    /// Of its part of the state before it was deleted.
    pub(super) digest: u64,
}

#[derive(Debug)]
pub(super) struct Producer {
    subtree: String,
    /// The one that goes one by one.
    is_first: bool,
    keys: u64,
    window: usize,
    value: Vec<u8>,
    key: Vec<u8>,
    /// Changes made; each sets the next key.
    made: u64,
    /// Keys deleted at the end.
    deleted: u64,
    under_way: HashMap<Uuid, (Instant, Stage)>,
    reporter: Reporter,
    produced: Produced,
}

impl Producer {
    pub(super) fn new(
        args: &BenchArgs,
        subtree: String,
        is_first: bool,
        reporter: Reporter,
    ) -> Producer {
        Producer {
            subtree,
            is_first,
            keys: args.keys.into(),
            window: args.window(),
            value: vec![b'.'; args.value_size],
            key: Vec::new(),
            made: 0,
            deleted: 0,
            under_way: HashMap::new(),
            reporter,
            produced: Produced {
                one_by_one: histogram(),
                load: histogram(),
                applied: 0,
                digest: 0,
            },
        }
    }

    /// Goes through the stages. `None`: it failed, and told so.
    pub(super) fn run(self, common: &Common) -> Option<Produced> {
        let reporter = self.reporter.clone();
        let mut config = ClientConfig::follow([&self.subtree]);
        config.max_pending = self.window + KEPT;
        let outcome = Session::open(common, config, self).and_then(|mut session| {
            reporter.tell(News::Waker(session.reactor.waker()));
            session.run()?;
            Ok(session.app.task.produced)
        });
        outcome.map_err(|failure| reporter.tell(News::Failed(failure))).ok()
    }

    fn key(&mut self, number: u64) -> &[u8] {
        self.key.clear();
        self.key.extend_from_slice(self.subtree.as_bytes());
        // A Vec takes everything.
        let _ = write!(self.key, "{number}");
        &self.key
    }

    /// A value of the right size that is another one each time.
    fn stamp(&mut self) {
        let digits = self.made.to_string();
        let length = digits.len().min(self.value.len());
        self.value[..length].copy_from_slice(&digits.as_bytes()[digits.len() - length..]);
    }

    /// Keeps `window` changes under way.
    fn produce(
        app: &mut App<Producer>,
        registry: &mut Registry<App<Producer>>,
        stage: Stage,
        window: usize,
    ) -> Result<(), Failure> {
        let App { client, task, .. } = app;
        while task.under_way.len() < window {
            task.stamp();
            task.key(task.made % task.keys);
            let made = client.set(registry, &task.key, &task.value, None);
            if made.is_err() && client.machine().kept() > 0 {
                // Of a pair: until some are safe.
                return Ok(());
            }
            let uuid = made.map_err(|error| Failure::Refused(error.to_string()))?;
            task.made += 1;
            task.under_way.insert(uuid, (Instant::now(), stage));
        }
        Ok(())
    }

    /// Deletes what was set; true when done.
    fn clean(
        app: &mut App<Producer>,
        registry: &mut Registry<App<Producer>>,
    ) -> Result<bool, Failure> {
        let App { client, task, .. } = app;
        let keys = task.made.min(task.keys);
        while task.deleted < keys && task.under_way.len() < task.window {
            task.key(task.deleted);
            let made = client.delete(registry, &task.key);
            if made.is_err() && client.machine().kept() > 0 {
                return Ok(false);
            }
            let uuid = made.map_err(|error| Failure::Refused(error.to_string()))?;
            task.deleted += 1;
            task.under_way.insert(uuid, (Instant::now(), Stage::Clean));
        }
        Ok(task.deleted == keys && task.under_way.is_empty())
    }
}

impl Task for Producer {
    fn hear(&mut self, _: &Client, _: Time, event: Event) -> Result<(), Failure> {
        match event {
            Event::Applied { uuid, sequence } => {
                let Some((sent, stage)) = self.under_way.remove(&uuid) else { return Ok(()) };
                let ns = sent.elapsed().as_nanos() as u64;
                let histogram = match stage {
                    Stage::OneByOne => &mut self.produced.one_by_one,
                    Stage::Load => &mut self.produced.load,
                    _ => return Ok(()),
                };
                // It grows to hold any number of nanoseconds.
                let _ = histogram.record(ns);
                self.produced.applied += 1;
                self.reporter.count_update(sequence);
                Ok(())
            }
            Event::Superseded { uuid, .. } => {
                self.under_way.remove(&uuid);
                Ok(())
            }
            Event::Refused { reason, .. } => {
                Err(Failure::Refused(format!("the broker refused a change: {reason}")))
            }
            _ => Ok(()),
        }
    }

    fn step(
        app: &mut App<Producer>,
        registry: &mut Registry<App<Producer>>,
    ) -> Result<Step, Failure> {
        let stage = app.task.reporter.stage();
        let window = app.task.window;
        match stage {
            Stage::Prepare if app.client.machine().is_current() => {
                app.task.reporter.reached(stage);
            }
            Stage::OneByOne if app.task.is_first => Producer::produce(app, registry, stage, 1)?,
            Stage::Load => Producer::produce(app, registry, stage, window)?,
            Stage::Drain if app.task.under_way.is_empty() => app.task.reporter.reached(stage),
            Stage::Check if app.client.machine().is_current() => {
                app.task.produced.digest = digest(app.client.machine(), &app.task.subtree);
                app.task.reporter.reached(stage);
            }
            Stage::Clean if Producer::clean(app, registry)? => app.task.reporter.reached(stage),
            Stage::End => return Ok(Step::Done),
            _ => {}
        }
        Ok(Step::Wait)
    }

    fn progress(&self, client: &Client) -> Option<u64> {
        let waits = !self.under_way.is_empty() || !client.is_current();
        waits.then(|| client.stats().confirmed + client.stats().synced_entries)
    }

    fn complaint(&self) -> String {
        match self.under_way.len() {
            0 => "sent no whole snapshot".to_owned(),
            count => format!("did not confirm {}", counted(count as u64, "change")),
        }
    }
}
