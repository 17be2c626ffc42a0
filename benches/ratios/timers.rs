//! Timers armed and cancelled among many.

use std::time::{Duration, Instant};

use pollux::reactor::{Flow, Reactor, TimerKey};

use super::common::measure::{Random, interleave, median, median_ratio};
use super::outcome::Outcome;

const ROUNDS: usize = 31;
/// Armed together, then cancelled together, so that not all of them lie where
/// the last one left the cache warm.
const BATCH: usize = 64;
const BATCHES: usize = 1000;
/// All deadlines lie somewhere in this hour.
const SPREAD: Duration = Duration::from_secs(3600);

pub(crate) fn arm_and_cancel() -> Vec<Outcome> {
    let (mut few, mut many) = (Crowd::of(1_000), Crowd::of(1_000_000));
    let [few, many] = interleave(ROUNDS, [&mut || few.time(), &mut || many.time()]);
    let figures =
        format!("{:.1} ns a pair among 1,000,000, {:.1} among 1,000", median(&many), median(&few));
    vec![Outcome::new("timers", median_ratio(&many, &few), figures)]
}

struct Crowd {
    reactor: Reactor<()>,
    random: Random,
    batch: Vec<TimerKey>,
}

impl Crowd {
    fn of(live: usize) -> Crowd {
        let reactor = Reactor::new().expect("a reactor");
        let mut crowd = Crowd { reactor, random: Random(1), batch: Vec::with_capacity(BATCH) };
        for _ in 0..live {
            crowd.arm();
        }
        crowd
    }

    fn arm(&mut self) -> TimerKey {
        let after = SPREAD + Duration::from_nanos(self.random.below(SPREAD.as_nanos() as u64));
        self.reactor.add_timer(after, |_, _| Ok(Flow::Continue))
    }

    /// Nanoseconds for one armed and cancelled.
    fn time(&mut self) -> f64 {
        let began = Instant::now();
        for _ in 0..BATCHES {
            for _ in 0..BATCH {
                let key = self.arm();
                self.batch.push(key);
            }
            for key in self.batch.drain(..) {
                self.reactor.cancel(key).expect("it is armed");
            }
        }
        began.elapsed().as_nanos() as f64 / (BATCHES * BATCH) as f64
    }
}
