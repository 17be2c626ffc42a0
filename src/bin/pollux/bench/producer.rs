//! A client that sets keys and takes the time until its own echo.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use pollux::clone::Uuid;
use pollux::clone::client::{Client, ClientConfig, Event};
use pollux::reactor::{Flow, Registry, TimerKey};
use pollux::time::Time;

use super::args::BenchArgs;
use super::counts::ClientCounts;
use super::figures::{digest, histogram};
use super::stage::{News, Reporter, Stage};
use crate::args::Common;
use crate::exit::Failure;
use crate::session::{App, Session, Step, Task};
use crate::text::counted;

/// Changes that may be applied, but not yet safe, if the broker is one of a pair.
const KEPT: usize = 100_000;

/// While the window is full, an answer wakes the loop, and this if there is none.
const NO_ROOM_WAIT: Duration = Duration::from_millis(10);

/// So many changes in a time.
#[derive(Debug, Clone, Copy)]
struct Pace {
    interval: Duration,
    /// When the next change is due; none was yet.
    next: Option<Instant>,
}

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
    pub(super) counts: ClientCounts,
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
    pace: Option<Pace>,
    /// Wakes the loop when the next change is due.
    timer: Option<TimerKey>,
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
            pace: args.interval().map(|interval| Pace { interval, next: None }),
            timer: None,
            under_way: HashMap::new(),
            reporter,
            produced: Produced {
                one_by_one: histogram(),
                load: histogram(),
                applied: 0,
                digest: 0,
                counts: ClientCounts::default(),
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
            session.app.task.timer = session.app.task.pace.map(|_| {
                session.reactor.add_standing_timer(|_: &mut App<Producer>, _| Ok(Flow::Continue))
            });
            session.run()?;
            let counts = ClientCounts::of(&session);
            Ok(Produced { counts, ..session.app.task.produced })
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

    /// Makes the changes that are due, if there is room for them, and has the loop wake
    /// for the next.
    fn produce_at_rate(
        app: &mut App<Producer>,
        registry: &mut Registry<App<Producer>>,
        pace: Pace,
    ) -> Result<(), Failure> {
        let mut next = pace.next.unwrap_or_else(Instant::now);
        while next <= Instant::now() && app.task.under_way.len() < app.task.window {
            if !Producer::set_next(app, registry, Stage::Load, next)? {
                break;
            }
            next += pace.interval;
        }
        app.task.pace = Some(Pace { next: Some(next), ..pace });
        if let Some(timer) = app.task.timer {
            // If there was no room, an answer wakes it.
            let wait = next.saturating_duration_since(Instant::now());
            let wait = if wait.is_zero() { NO_ROOM_WAIT } else { wait };
            registry
                .rearm_after(timer, wait)
                .unwrap_or_else(|_| unreachable!("a standing timer, which nobody cancels"));
        }
        Ok(())
    }

    /// Keeps `window` changes under way.
    fn produce(
        app: &mut App<Producer>,
        registry: &mut Registry<App<Producer>>,
        stage: Stage,
        window: usize,
    ) -> Result<(), Failure> {
        while app.task.under_way.len() < window {
            if !Producer::set_next(app, registry, stage, Instant::now())? {
                break;
            }
        }
        Ok(())
    }

    /// Sets the next key. False: of a pair, not before some changes are safe.
    fn set_next(
        app: &mut App<Producer>,
        registry: &mut Registry<App<Producer>>,
        stage: Stage,
        since: Instant,
    ) -> Result<bool, Failure> {
        let App { client, task, .. } = app;
        task.stamp();
        task.key(task.made % task.keys);
        let made = client.set(registry, &task.key, &task.value, None);
        if made.is_err() && client.machine().kept() > 0 {
            return Ok(false);
        }
        let uuid = made.map_err(|error| Failure::Refused(error.to_string()))?;
        task.made += 1;
        task.under_way.insert(uuid, (since, stage));
        Ok(true)
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
            Stage::Load => match app.task.pace {
                Some(pace) => Producer::produce_at_rate(app, registry, pace)?,
                None => Producer::produce(app, registry, stage, window)?,
            },
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
