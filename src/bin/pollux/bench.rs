//! `pollux bench`: how many updates a second, how long a round trip takes, and whether
//! it stays so while clients come and go.

mod args;
mod broker_thread;
mod counts;
mod figures;
mod plot;
mod producer;
mod stage;
mod visitor;
mod vitals;
mod watcher;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use pollux::reactor::Waker;

pub(crate) use self::args::BenchArgs;
use self::broker_thread::BrokerThread;
use self::counts::BrokerCounts;
use self::figures::Figures;
use self::producer::{Produced, Producer};
use self::stage::{News, Reporter, Stage, Stages};
use self::visitor::Visits;
use self::vitals::{Vitals, resident_kib};
use self::watcher::{Watched, Watcher};
use crate::args::Common;
use crate::exit::Failure;
use crate::output;
use crate::text::thousands;

/// `pollux bench`.
pub(crate) fn run(common: &Common, args: &BenchArgs) -> Result<(), Failure> {
    if let Some(path) = &args.plot {
        // Before anything is measured in vain.
        write_plot(path, "")?;
    }
    let own = match common.connect[..] {
        [_, ..] => None,
        [] => Some(BrokerThread::start(args).map_err(|error| Failure::system(&error))?),
    };
    let mut common = common.clone();
    if let Some(own) = &own {
        common.connect = vec![own.endpoint().to_owned()];
    }
    let before = BrokerCounts::ask(&common)?;
    let mut bench = Bench::start(&common, args)?;
    let measured = bench.measure(&common, args);
    // Whatever happened, nobody goes on.
    bench.enter(Stage::End);
    let mut figures = bench.join(measured?)?;
    if let Some(before) = before {
        figures.counts.broker = count_broker(&common, &before, figures.visits.set)?;
    }
    if let Some(path) = &args.plot {
        write_plot(path, &figures.plot(args, common.endpoint(), own.is_some()))?;
    }
    match common.json {
        true => output::json(&figures.json(args))?,
        false => output::line(&figures.table(args, common.endpoint(), own.is_some()))?,
    }
    figures.verdict(args)
}

fn write_plot(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| {
        Failure::Refused(format!("{} could not be written: {error}", path.display()))
    })
}

/// What the broker has counted since, when all keys that were to expire have, or have
/// had their time.
fn count_broker(
    common: &Common,
    before: &BrokerCounts,
    expiring: u64,
) -> Result<Option<BrokerCounts>, Failure> {
    let began = Instant::now();
    loop {
        let Some(now) = BrokerCounts::ask(common)? else { return Ok(None) };
        let since = now.since(before);
        if since.expired() >= expiring || began.elapsed() > common.timeout {
            return Ok(Some(since));
        }
        thread::sleep(TICK);
    }
}

/// The threads, and what leads them through the stages.
struct Bench {
    run: String,
    stages: Arc<Stages>,
    reporter: Reporter,
    news: Receiver<News>,
    wakers: Vec<Waker>,
    producers: Vec<JoinHandle<Option<Produced>>>,
    watchers: Vec<JoinHandle<Option<Watched>>>,
    visitors: Vec<JoinHandle<Option<Visits>>>,
    bar: ProgressBar,
    vitals: Vitals,
}

/// What only the stages' leader knows.
struct Measured {
    loaded: Duration,
    updates: u64,
    deliveries: u64,
    visits: Visits,
}

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Samples of the memory under load; no more than one a second, nor ten.
const SAMPLES: u32 = 500;

impl Bench {
    fn start(common: &Common, args: &BenchArgs) -> Result<Bench, Failure> {
        let run = run_name();
        let stages = Arc::new(Stages::default());
        let (sender, news) = channel();
        let reporter = Reporter::new(Arc::clone(&stages), sender);
        let mut bench = Bench {
            run: run.clone(),
            stages,
            reporter: reporter.clone(),
            news,
            wakers: Vec::new(),
            producers: Vec::new(),
            watchers: Vec::new(),
            visitors: Vec::new(),
            bar: ProgressBar::hidden(),
            vitals: Vitals::default(),
        };
        for index in 0..args.watchers {
            let (common, reporter) = (common.clone(), reporter.clone());
            let subtree = format!("/bench/{run}/");
            let watcher = Watcher::new(subtree, reporter);
            let thread = spawn(format!("watcher-{index}"), move || watcher.run(&common))?;
            bench.watchers.push(thread);
        }
        for index in 0..args.producers {
            let (common, reporter) = (common.clone(), reporter.clone());
            let producer =
                Producer::new(args, format!("/bench/{run}/{index}/"), index == 0, reporter);
            let thread = spawn(format!("producer-{index}"), move || producer.run(&common))?;
            bench.producers.push(thread);
        }
        Ok(bench)
    }

    /// Leads all through the stages.
    fn measure(&mut self, common: &Common, args: &BenchArgs) -> Result<Measured, Failure> {
        let (producers, watchers) = (self.producers.len(), self.watchers.len());
        self.gather(Stage::Prepare, producers + watchers)?;
        let (one_by_one, load) = args.times();
        self.bar = ProgressBar::new((one_by_one + load).as_millis() as u64);
        // The template is a constant.
        let style = ProgressStyle::with_template("{bar:40} {percent}% {msg} {eta} left");
        self.bar.set_style(style.unwrap_or(ProgressStyle::default_bar()));
        self.pass(Stage::OneByOne, one_by_one)?;
        self.vitals.begin();
        let (updates, deliveries) = (self.stages.updates(), self.stages.deliveries());
        let started = Instant::now();
        self.enter(Stage::Load);
        self.invite(common, args)?;
        self.pass(Stage::Load, load)?;
        let mut measured = Measured {
            loaded: started.elapsed(),
            updates: self.stages.updates() - updates,
            deliveries: self.stages.deliveries() - deliveries,
            visits: Visits::default(),
        };
        self.bar.finish_and_clear();
        self.enter(Stage::Drain);
        self.gather(Stage::Drain, producers)?;
        for visitor in std::mem::take(&mut self.visitors) {
            measured.visits.add(&visitor.join().ok().flatten().ok_or_else(|| self.failure())?);
        }
        self.vitals.end();
        self.enter(Stage::Check);
        self.gather(Stage::Check, producers + watchers)?;
        self.enter(Stage::Clean);
        self.gather(Stage::Clean, producers)?;
        Ok(measured)
    }

    /// Clients begin to come and go.
    fn invite(&mut self, common: &Common, args: &BenchArgs) -> Result<(), Failure> {
        for index in 0..args.churn {
            let (common, reporter, size) = (common.clone(), self.reporter.clone(), args.value_size);
            let everything = format!("/bench/{}/", self.run);
            let own = format!("/bench/{}-visitors/{index}/", self.run);
            let visits = move || visitor::visits(&common, &everything, &own, size, &reporter);
            self.visitors.push(spawn(format!("visitor-{index}"), visits)?);
        }
        Ok(())
    }

    /// Why a thread has ended, which it told before.
    fn failure(&self) -> Failure {
        let failures = self.news.try_iter().find_map(|news| match news {
            News::Failed(failure) => Some(failure),
            _ => None,
        });
        failures.unwrap_or_else(gone)
    }

    fn enter(&self, stage: Stage) {
        self.stages.enter(stage);
        self.wakers.iter().for_each(Waker::wake);
    }

    /// Waits until so many have come to the end of `stage`.
    fn gather(&mut self, stage: Stage, mut missing: usize) -> Result<(), Failure> {
        while missing > 0 {
            match self.news.recv() {
                Ok(News::Waker(waker)) => self.wakers.push(waker),
                Ok(News::Reached(reached)) => missing -= usize::from(reached == stage),
                Ok(News::Failed(failure)) => return Err(failure),
                Err(_) => return Err(gone()),
            }
        }
        Ok(())
    }

    /// Lets a stage last so long.
    fn pass(&mut self, stage: Stage, time: Duration) -> Result<(), Failure> {
        self.enter(stage);
        let (started, updates) = (Instant::now(), self.stages.updates());
        let every = (time / SAMPLES).clamp(TICK, Duration::from_secs(1));
        let mut sample_at = every;
        let position = self.bar.position();
        while let Some(left) = time.checked_sub(started.elapsed()) {
            match self.news.recv_timeout(left.min(TICK)) {
                Ok(News::Failed(failure)) => return Err(failure),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
            let elapsed = started.elapsed();
            if stage == Stage::Load && elapsed >= sample_at {
                sample_at += every;
                self.vitals.sample(elapsed);
            }
            let rate = (self.stages.updates() - updates) as f64 / elapsed.as_secs_f64();
            self.bar.set_position(position + elapsed.as_millis() as u64);
            self.bar.set_message(format!(
                "{}, {} updates/s, {} MiB,",
                stage.name(),
                thousands(rate as u64),
                resident_kib().unwrap_or(0) / 1024
            ));
        }
        Ok(())
    }

    fn join(self, measured: Measured) -> Result<Figures, Failure> {
        let Measured { loaded, updates, deliveries, visits } = measured;
        let mut figures = Figures::new(loaded, updates, deliveries, self.vitals);
        figures.add_visits(&visits);
        for thread in self.producers {
            figures.add_producer(thread.join().ok().flatten().ok_or_else(gone)?);
        }
        for thread in self.watchers {
            figures.add_watcher(thread.join().ok().flatten().ok_or_else(gone)?);
        }
        Ok(figures)
    }
}

fn spawn<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Failure> {
    let spawned = thread::Builder::new().name(name).spawn(work);
    spawned.map_err(|error| Failure::Refused(format!("no thread: {error}")))
}

fn gone() -> Failure {
    Failure::Refused("a thread of the benchmark ended before its time".to_owned())
}

/// Keys of one run are not those of another.
fn run_name() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one(Instant::now()))
}
