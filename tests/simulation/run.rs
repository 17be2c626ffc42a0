//! One run, many runs, and the shortest schedule of one that fails.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

#[cfg(debug_assertions)]
use pollux::clone::fault::Fault;

use crate::coverage::Coverage;
use crate::plan::Plan;
use crate::system::System;

/// A promise that was broken, or a program that stopped.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// Where it was noticed: two failures of one place count as the same.
    place: String,
}

thread_local! {
    /// Whether a panic of this thread is a finding, and what it was.
    static CAPTURED: RefCell<Option<Option<Failure>>> = const { RefCell::new(None) };
}

/// Panics of a run are kept for its report; all others are told as ever.
fn capture_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_captured = CAPTURED.with_borrow_mut(|captured| match captured {
                Some(failure) => {
                    let place = panic.location().map(ToString::to_string).unwrap_or_default();
                    let message = panic.payload_as_str().unwrap_or("a panic").to_owned();
                    *failure = Some(Failure { message, place });
                    true
                }
                None => false,
            });
            if !is_captured {
                usual(panic);
            }
        }));
    });
}

/// Runs a plan to its end, or to the first promise that it breaks.
pub(crate) fn run(plan: &Plan) -> Result<Coverage, Failure> {
    run_traced(plan, false)
}

fn run_traced(plan: &Plan, is_traced: bool) -> Result<Coverage, Failure> {
    capture_panics();
    CAPTURED.set(Some(None));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut system = System::new(plan);
        system.net.is_traced = is_traced;
        system.run();
        std::mem::take(&mut system.net.coverage)
    }));
    let failure = CAPTURED.take().flatten();
    outcome.map_err(|_| failure.expect("a panic was captured"))
}

/// The first of these seeds that fails with this fault in the machines.
#[cfg(debug_assertions)]
pub(crate) fn first_failure(
    fault: Fault,
    seeds: impl IntoIterator<Item = u64>,
) -> Option<(u64, Failure)> {
    Fault::plant(Some(fault));
    let failure = seeds.into_iter().find_map(|seed| {
        let plan = Plan::of(seed);
        Some((seed, run(&plan).err()?))
    });
    Fault::plant(None);
    failure
}

/// Runs all seeds of a range, on all cores; gives what has happened, or the
/// first failure with its seed.
pub(crate) fn run_all(seeds: Range<u64>) -> Result<Coverage, (u64, Failure)> {
    let bar = ProgressBar::new(seeds.end - seeds.start);
    if seeds.end - seeds.start <= crate::DEFAULT_SEEDS {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    let style = "{bar:40} {pos}/{len} seeds, {per_sec}, {eta} to go";
    bar.set_style(ProgressStyle::with_template(style).expect("a sound template"));
    let next = AtomicU64::new(seeds.start);
    let is_survey = std::env::var_os("POLLUX_SURVEY").is_some();
    let kinds = Mutex::new(BTreeMap::<String, (Vec<u64>, Failure)>::new());
    let total = Mutex::new((Coverage::default(), None::<(u64, Failure)>));
    let work = || {
        let mut coverage = Coverage::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let plan = Plan::of(seed);
            match run(&plan) {
                Ok(run) => coverage.merge(&run),
                Err(failure) if is_survey => {
                    let mut kinds = kinds.lock().expect("no thread panics");
                    let place = failure.place.clone();
                    kinds.entry(place).or_insert((Vec::new(), failure)).0.push(seed);
                }
                Err(failure) => {
                    // No later seed is begun; an earlier one may fail, too.
                    next.store(seeds.end, Ordering::Relaxed);
                    let mut total = total.lock().expect("no thread panics");
                    if total.1.as_ref().is_none_or(|(first, _)| seed < *first) {
                        total.1 = Some((seed, failure));
                    }
                }
            }
            bar.inc(1);
        }
        total.lock().expect("no thread panics").0.merge(&coverage);
    };
    std::thread::scope(|scope| (0..threads()).for_each(|_| drop(scope.spawn(work))));
    bar.finish_and_clear();
    let kinds = kinds.into_inner().expect("no thread panics");
    for (place, (seeds, failure)) in &kinds {
        let count = seeds.len();
        println!("{count} runs fail at {place}: seeds {seeds:?}: {:.300}", failure.message);
    }
    let failed: usize = kinds.values().map(|(seeds, _)| seeds.len()).sum();
    assert_eq!(
        failed,
        0,
        "of {} seeds so many break a promise, see above",
        seeds.end - seeds.start
    );
    let (coverage, failure) = total.into_inner().expect("no thread panics");
    failure.map_or(Ok(coverage), Err)
}

pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How long to look for a shorter schedule.
const SHRINKING: Duration = Duration::from_secs(60);

/// The shortest schedule found that fails at the same place.
pub(crate) fn shrink(plan: &Plan, failure: &Failure) -> (Plan, Failure) {
    let mut best = (plan.clone(), failure.clone());
    let deadline = Instant::now() + SHRINKING;
    let attempt = |best: &mut (Plan, Failure), plan: Plan| match run(&plan) {
        Err(failure) if failure.place == best.1.place => {
            *best = (plan, failure);
            true
        }
        _ => false,
    };
    loop {
        let before = weight(&best.0);
        for client in 0..best.0.clients.len() {
            let mut plan = best.0.clone();
            if !std::mem::replace(&mut plan.clients[client].is_absent, true) {
                attempt(&mut best, plan);
            }
        }
        if best.0.preloaded > 0 {
            let plan = Plan { preloaded: 0, ..best.0.clone() };
            attempt(&mut best, plan);
        }
        // Larger and smaller parts of the schedule, until no single step can go.
        let mut size = best.0.steps.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < best.0.steps.len() && Instant::now() < deadline {
                let mut plan = best.0.clone();
                plan.steps.drain(at..(at + size).min(best.0.steps.len()));
                if !attempt(&mut best, plan) {
                    at += size;
                }
            }
            if size == 1 {
                break;
            }
            size = size.div_ceil(2);
        }
        if weight(&best.0) == before || Instant::now() >= deadline {
            return best;
        }
    }
}

fn weight(plan: &Plan) -> (usize, u64, usize) {
    let present = plan.clients.iter().filter(|client| !client.is_absent).count();
    (plan.steps.len(), plan.preloaded, present)
}

/// All there is to say of a failing seed.
pub(crate) fn report(seed: u64, failure: &Failure) -> String {
    let plan = Plan::of(seed);
    let (shortest, failure) = shrink(&plan, failure);
    let mut text = format!(
        "seed {seed}: {}\n  at {}\nreplay it: POLLUX_SEED={seed} cargo test simulation\n\
         The shortest schedule that fails so has {} of {} steps:\n",
        failure.message,
        failure.place,
        shortest.steps.len(),
        plan.steps.len(),
    );
    if std::env::var_os("POLLUX_TRACE").is_some() {
        let _ = run_traced(&shortest, true);
    }
    for (index, server) in shortest.servers.iter().enumerate() {
        text += &format!("host {index}: {server:?}\n");
    }
    let hosts = shortest.clients.iter().enumerate();
    for (index, client) in hosts.filter(|(_, client)| !client.is_absent) {
        text += &format!("host {}, client {index}: {client:?}\n", shortest.client_host(index));
    }
    for (index, relay) in shortest.relays.iter().enumerate() {
        text += &format!("host {}, relay: {relay:?}\n", shortest.relay_host(index));
    }
    text += &format!("{:?}, end at {} ms\n", shortest.high_water, shortest.end_ms);
    for step in &shortest.steps {
        text += &format!("{:>6} ms  {:?}\n", step.at_ms, step.what);
    }
    text
}
