//! `pollux load`: keys from JSON lines or files, until all are applied.

mod directory;
mod input;
mod lines_input;

use std::collections::HashMap;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::vec;

use indicatif::{ProgressBar, ProgressStyle};
use pollux::clone::client::{BrokerInfo, Client, ClientConfig, Event, SetError};
use pollux::clone::{Limits, Uuid};
use pollux::reactor::{Registry, Waker};
use pollux::time::Time;
use serde_json::json;

use self::directory::Directory;
use self::input::{Batches, Item, Name, Pair};
use self::lines_input::{LinesInput, open};
use crate::args::{Common, LoadArgs, WaitArg};
use crate::change::{NOT_SAFE, refused};
use crate::exit::Failure;
use crate::output;
use crate::session::{self, App, Session, Step, Task};
use crate::text::{counted, thousands};

/// Batches between the thread that reads and the loop.
const BATCHES_AHEAD: usize = 4;

/// Changes under way at the same time.
const MAX_UNDER_WAY: usize = 10_000;

/// `pollux load`.
pub(crate) fn run(common: &Common, args: LoadArgs) -> Result<(), Failure> {
    let wait = args.wait;
    let source = Source::of(args)?;
    let mut config = ClientConfig::default();
    config.max_pending = MAX_UNDER_WAY;
    config.echo_directories = true;
    config.until_safe = wait == WaitArg::Safe;
    let bar = source.bar();
    let mut session = Session::open(common, config, Load::new(source, bar, wait))?;
    let outcome = session.run();
    session.app.task.bar.finish_and_clear();
    if wait == WaitArg::Safe && outcome.is_ok() {
        session.warn_if_alone();
    }
    let load = session.app.task;
    load.report(common.json)?;
    outcome.and_then(|()| load.verdict())
}

/// What is read.
#[derive(Debug)]
enum Source {
    Lines(LinesInput),
    Directory { dir: PathBuf, prefix: Vec<u8> },
}

impl Source {
    fn of(args: LoadArgs) -> Result<Source, Failure> {
        match args.dir {
            None => open(args.file.as_deref()).map(Source::Lines),
            Some(dir) if dir.is_dir() => {
                Ok(Source::Directory { dir, prefix: args.prefix.into_vec() })
            }
            Some(dir) => Err(Failure::Usage(format!("{}: no directory", dir.display()))),
        }
    }

    fn bar(&self) -> ProgressBar {
        let (bar, style) = match self {
            Source::Lines(LinesInput { size: Some(size), .. }) => (
                ProgressBar::new(*size),
                "{bar:40} {binary_bytes}/{binary_total_bytes} {msg} {eta} left",
            ),
            _ => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
        };
        // Both templates are constants.
        bar.with_style(ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar()))
    }

    fn batches(self, limits: Limits) -> Batches {
        match self {
            Source::Lines(lines) => Batches::Lines(lines),
            Source::Directory { dir, prefix } => {
                Batches::Directory(Directory::new(dir, prefix, limits))
            }
        }
    }
}

#[derive(Debug)]
struct Load {
    /// Not read yet: the limits of the broker must be known first.
    source: Option<Source>,
    batches: Option<Receiver<Vec<Item>>>,
    batch: vec::IntoIter<Item>,
    /// A pair that had no room yet.
    held: Option<Pair>,
    is_at_end: bool,
    wait: WaitArg,
    /// The run of the broker that has what was set so far.
    node: Option<u64>,
    under_way: HashMap<Uuid, UnderWay>,
    bar: ProgressBar,
    counts: Counts,
    /// The input stopped being one.
    bad: Option<String>,
}

/// A change that has no answer yet.
#[derive(Debug)]
struct UnderWay {
    name: Name,
    key: Vec<u8>,
    value_size: usize,
    /// It waits to be safe.
    is_applied: bool,
}

#[derive(Debug, Default)]
struct Counts {
    applied: u64,
    skipped: u64,
    /// By the broker, or for a limit of it.
    refused: u64,
    /// Keys and values that can be none, which no broker was asked to take.
    invalid: u64,
    unreadable: u64,
}

impl Load {
    fn new(source: Source, bar: ProgressBar, wait: WaitArg) -> Load {
        Load {
            source: Some(source),
            batches: None,
            batch: Vec::new().into_iter(),
            held: None,
            is_at_end: false,
            wait,
            node: None,
            under_way: HashMap::new(),
            bar,
            counts: Counts::default(),
            bad: None,
        }
    }

    /// Reads on a thread of its own, which wakes the loop: a pipe that is slow
    /// must not keep the client from hearing the broker.
    fn start_reading(&mut self, limits: Limits, waker: Waker) {
        let Some(source) = self.source.take() else { return };
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        self.batches = Some(receiver);
        thread::spawn(move || {
            for batch in source.batches(limits) {
                if sender.send(batch).is_err() {
                    break;
                }
                waker.wake();
            }
            // The loop must see the end, too, and not before all that came before.
            drop(sender);
            waker.wake();
        });
    }

    /// The next item, if there is one now.
    fn next(&mut self) -> Option<Item> {
        if let Some(pair) = self.held.take() {
            return Some(Item::Pair(pair));
        }
        loop {
            if let Some(item) = self.batch.next() {
                return Some(item);
            }
            match self.batches.as_ref()?.try_recv() {
                Ok(batch) => self.batch = batch.into_iter(),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => {
                    self.is_at_end = true;
                    return None;
                }
            }
        }
    }

    /// Tells of something that was not loaded, above the bar.
    fn tell(&self, name: &Name, what: &str) {
        self.bar.suspend(|| eprintln!("pollux: {name}: {what}"));
    }

    fn refuse(&mut self, name: &Name, failure: &Failure) {
        match failure {
            Failure::Usage(_) => self.counts.invalid += 1,
            _ => self.counts.refused += 1,
        }
        self.tell(name, &failure.to_string());
    }

    fn answered(&mut self, client: &Client, uuid: Uuid, refusal: Option<&str>) {
        let Some(UnderWay { name, key, value_size, .. }) = self.under_way.remove(&uuid) else {
            return;
        };
        match refusal {
            None => {
                self.counts.applied += 1;
            }
            Some(reason) => {
                self.refuse(&name, &refused(client, &key, value_size, reason));
            }
        }
        self.move_bar(&name);
    }

    fn move_bar(&self, name: &Name) {
        if self.bar.is_hidden() {
            return;
        }
        self.bar.set_message(counted(self.counts.applied, "key"));
        match self.bar.length() {
            Some(_) => self.bar.set_position(name.position()),
            None => self.bar.tick(),
        }
    }

    /// The summary, whatever the outcome.
    fn report(&self, json: bool) -> Result<(), Failure> {
        let Counts { applied, skipped, refused, invalid, unreadable } = self.counts;
        if json {
            return output::json(&json!({
                "applied": applied, "skipped": skipped, "refused": refused, "invalid": invalid,
                "unreadable": unreadable,
            }));
        }
        let mut text = format!("{} set", counted(applied, "key"));
        for (count, what) in [
            (skipped, "skipped"),
            (refused, "refused"),
            (invalid, "invalid"),
            (unreadable, "not readable"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {} {what}", thousands(count)));
            }
        }
        eprintln!("pollux: {text}");
        Ok(())
    }

    fn verdict(self) -> Result<(), Failure> {
        let Counts { applied, refused, invalid, unreadable, .. } = self.counts;
        match (self.bad, refused + invalid + unreadable) {
            (Some(bad), _) => Err(Failure::Usage(bad)),
            (None, 0) => Ok(()),
            (None, count) => {
                let others = match applied {
                    0 => "nothing is set".to_owned(),
                    1 => "the other one is set".to_owned(),
                    _ => format!("the other {} are set", thousands(applied)),
                };
                Err(Failure::Refused(format!(
                    "{} could not be set, see above; {others}",
                    thousands(count)
                )))
            }
        }
    }

    /// A broker alone that was restarted has nothing of what was set before.
    fn check_run(&mut self, broker: &BrokerInfo) -> Result<(), Failure> {
        let has_set = self.counts.applied > 0 || !self.under_way.is_empty();
        let is_another = broker.extended && self.node != broker.node;
        if has_set && is_another && self.node.is_some() && !broker.paired {
            return Err(Failure::NoAnswer(
                "the broker was restarted meanwhile; what was set before is gone; run the same \
                 load again (it is harmless)"
                    .to_owned(),
            ));
        }
        self.node = broker.node;
        Ok(())
    }
}

impl Task for Load {
    fn hear(&mut self, client: &Client, _: Time, event: Event) -> Result<(), Failure> {
        match event {
            // One that a later line for the same key has overtaken counts as done.
            Event::Superseded { uuid, .. } | Event::Safe { uuid, .. } => {
                self.answered(client, uuid, None);
            }
            Event::Applied { uuid, .. } if self.wait == WaitArg::Applied => {
                self.answered(client, uuid, None);
            }
            Event::Applied { uuid, .. } => {
                if let Some(change) = self.under_way.get_mut(&uuid) {
                    change.is_applied = true;
                }
            }
            Event::NotSafe { uuid } => self.answered(client, uuid, Some(NOT_SAFE)),
            Event::Refused { uuid, reason } => self.answered(client, uuid, Some(&reason)),
            _ => {}
        }
        Ok(())
    }

    fn step(app: &mut App<Load>, registry: &mut Registry<App<Load>>) -> Result<Step, Failure> {
        let App { client, task, .. } = app;
        let Some(broker) = client.machine().broker().copied() else { return Ok(Step::Wait) };
        task.check_run(&broker)?;
        task.start_reading(broker.limits, registry.waker());
        while let Some(item) = task.next() {
            match item {
                Item::Pair(pair) => {
                    let made = client.set(registry, &pair.key, &pair.value, pair.ttl);
                    match made {
                        Ok(uuid) => drop(task.under_way.insert(uuid, pair.into())),
                        Err(error)
                            if is_full(&error)
                                && (!task.under_way.is_empty() || client.machine().kept() > 0) =>
                        {
                            task.held = Some(pair);
                            return Ok(Step::Wait);
                        }
                        Err(error) => {
                            task.refuse(&pair.name, &session::unsent(&pair.key, &error));
                        }
                    }
                }
                Item::Skipped(name, reason) => {
                    task.counts.skipped += 1;
                    task.tell(&name, &format!("skipped: {reason}"));
                }
                Item::Unreadable(name, reason) => {
                    task.counts.unreadable += 1;
                    task.tell(&name, &reason);
                }
                Item::Bad(name, reason) => {
                    task.bad = Some(format!("{name}: {reason}; what comes before it is set"));
                }
            }
        }
        match task.is_at_end && task.under_way.is_empty() {
            true => Ok(Step::Done),
            false => Ok(Step::Wait),
        }
    }

    /// A pause of the input is none of the broker's.
    fn progress(&self, client: &Client) -> Option<u64> {
        let is_idle = self.batches.is_some() && self.under_way.is_empty();
        (!is_idle || client.broker().is_none()).then_some(self.counts.applied + self.counts.refused)
    }

    fn complaint(&self) -> String {
        if self.under_way.is_empty() {
            return "was not heard any more".to_owned();
        }
        let applied = self.under_way.values().filter(|change| change.is_applied).count();
        let open = self.under_way.len() - applied;
        let unsafe_yet = format!(
            "applied {}, but did not say that they are safe (has it a live standby?),",
            counted(applied as u64, "change")
        );
        let unknown = format!(
            "did not confirm {}, which may have been applied or not,",
            counted(open as u64, "change")
        );
        match (applied, open) {
            (0, _) => unknown,
            (_, 0) => unsafe_yet,
            _ => format!("{unsafe_yet} and {unknown}"),
        }
    }
}

impl From<Pair> for UnderWay {
    fn from(pair: Pair) -> UnderWay {
        UnderWay { name: pair.name, key: pair.key, value_size: pair.value.len(), is_applied: false }
    }
}

/// Whether there is room again once changes are answered.
fn is_full(error: &SetError) -> bool {
    matches!(error, SetError::TooManyPending { .. })
}
