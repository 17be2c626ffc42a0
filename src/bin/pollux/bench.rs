//! `pollux bench`: how many updates a second, how long a round trip takes.

mod broker_thread;
mod figures;
mod producer;
mod stage;
mod watcher;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use pollux::reactor::Waker;

use self::broker_thread::BrokerThread;
use self::figures::Figures;
use self::producer::{Produced, Producer};
use self::stage::{News, Reporter, Stage, Stages};
use self::watcher::{Watched, Watcher};
use crate::args::{BenchArgs, Common};
use crate::exit::Failure;
use crate::output;

/// `pollux bench`.
pub(crate) fn run(common: &Common, args: &BenchArgs) -> Result<(), Failure> {
    let own = match common.connect[..] {
        [_, ..] => None,
        [] => Some(BrokerThread::start(args).map_err(|error| Failure::system(&error))?),
    };
    let mut common = common.clone();
    if let Some(own) = &own {
        common.connect = vec![own.endpoint().to_owned()];
    }
    let mut bench = Bench::start(&common, args)?;
    let measured = bench.measure(args);
    // Whatever happened, nobody goes on.
    bench.enter(Stage::End);
    let figures = bench.join(measured?)?;
    match common.json {
        true => output::json(&figures.json(args))?,
        false => output::line(&figures.table(args, common.endpoint(), own.is_some()))?,
    }
    figures.verdict()
}

/// The threads, and what leads them through the stages.
struct Bench {
    stages: Arc<Stages>,
    news: Receiver<News>,
    wakers: Vec<Waker>,
    producers: Vec<JoinHandle<Option<Produced>>>,
    watchers: Vec<JoinHandle<Option<Watched>>>,
    bar: ProgressBar,
}

/// What only the stages' leader knows.
struct Measured {
    loaded: Duration,
    updates: u64,
    deliveries: u64,
}

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

impl Bench {
    fn start(common: &Common, args: &BenchArgs) -> Result<Bench, Failure> {
        let run = run_name();
        let stages = Arc::new(Stages::default());
        let (sender, news) = channel();
        let reporter = Reporter::new(Arc::clone(&stages), sender);
        let spawn = |name: String| thread::Builder::new().name(name);
        let failed = |error: std::io::Error| Failure::Refused(format!("no thread: {error}"));
        let mut bench = Bench {
            stages,
            news,
            wakers: Vec::new(),
            producers: Vec::new(),
            watchers: Vec::new(),
            bar: ProgressBar::hidden(),
        };
        for index in 0..args.watchers {
            let (common, reporter) = (common.clone(), reporter.clone());
            let subtree = format!("/bench/{run}/");
            bench.watchers.push(
                spawn(format!("watcher-{index}"))
                    .spawn(move || Watcher::new(subtree, reporter).run(&common))
                    .map_err(failed)?,
            );
        }
        for index in 0..args.producers {
            let (common, reporter) = (common.clone(), reporter.clone());
            let producer =
                Producer::new(args, format!("/bench/{run}/{index}/"), index == 0, reporter);
            bench.producers.push(
                spawn(format!("producer-{index}"))
                    .spawn(move || producer.run(&common))
                    .map_err(failed)?,
            );
        }
        Ok(bench)
    }

    /// Leads all through the stages.
    fn measure(&mut self, args: &BenchArgs) -> Result<Measured, Failure> {
        let (producers, watchers) = (self.producers.len(), self.watchers.len());
        self.gather(Stage::Prepare, producers + watchers)?;
        let total = Duration::from_secs(args.seconds.into());
        self.bar = ProgressBar::new(total.as_millis() as u64);
        // The template is a constant.
        let style = ProgressStyle::with_template("{bar:40} {percent}% {msg} {eta} left");
        self.bar.set_style(style.unwrap_or(ProgressStyle::default_bar()));
        let quiet = total / 4;
        self.pass(Stage::OneByOne, quiet)?;
        let (updates, deliveries) = (self.stages.updates(), self.stages.deliveries());
        let started = Instant::now();
        self.pass(Stage::Load, total - quiet)?;
        let measured = Measured {
            loaded: started.elapsed(),
            updates: self.stages.updates() - updates,
            deliveries: self.stages.deliveries() - deliveries,
        };
        self.bar.finish_and_clear();
        self.enter(Stage::Drain);
        self.gather(Stage::Drain, producers)?;
        self.enter(Stage::Check);
        self.gather(Stage::Check, producers + watchers)?;
        self.enter(Stage::Clean);
        self.gather(Stage::Clean, producers)?;
        Ok(measured)
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
        let started = Instant::now();
        let position = self.bar.position();
        while let Some(left) = time.checked_sub(started.elapsed()) {
            match self.news.recv_timeout(left.min(TICK)) {
                Ok(News::Failed(failure)) => return Err(failure),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
            self.bar.set_position(position + started.elapsed().as_millis() as u64);
            self.bar.set_message(stage.name());
        }
        Ok(())
    }

    fn join(self, measured: Measured) -> Result<Figures, Failure> {
        let mut figures = Figures::new(measured.loaded, measured.updates, measured.deliveries);
        for thread in self.producers {
            figures.add_producer(thread.join().ok().flatten().ok_or_else(gone)?);
        }
        for thread in self.watchers {
            figures.add_watcher(thread.join().ok().flatten().ok_or_else(gone)?);
        }
        Ok(figures)
    }
}

fn gone() -> Failure {
    Failure::Refused("a thread of the benchmark ended before its time".to_owned())
}

/// Keys of one run are not those of another.
fn run_name() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one(Instant::now()))
}
