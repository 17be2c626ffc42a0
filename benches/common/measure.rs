//! Rounds that take turns, and what is made of their figures.

use std::time::{Duration, Instant};

/// Runs every contender once a round and returns the figures of each, in the
/// order of the rounds.
///
/// The contenders take turns within a round, and who begins changes from round
/// to round, so that whatever slows the machine for a while slows all of them.
/// One round goes before those that count, to warm caches and the allocator.
pub(crate) fn interleave<const N: usize>(
    rounds: usize,
    contenders: [&mut dyn FnMut() -> f64; N],
) -> [Vec<f64>; N] {
    let mut figures = [const { Vec::new() }; N];
    for round in 0..=rounds {
        for turn in 0..N {
            let index = (round + turn) % N;
            let figure = contenders[index]();
            if round > 0 {
                figures[index].push(figure);
            }
        }
    }
    figures
}

/// The median of `ours / theirs` over the rounds. Each quotient is of one
/// round, whose parts ran one right after the other.
pub(crate) fn median_ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
}

/// The median; the mean of the two in the middle if there are two.
///
/// # Panics
/// If there are no figures.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    (low + high) / 2.0
}

/// The sample below which `percent` of them lie.
///
/// # Panics
/// If there are none.
pub(crate) fn percentile(samples: &mut [u64], percent: usize) -> f64 {
    let index = (samples.len() * percent / 100).min(samples.len() - 1);
    *samples.select_nth_unstable(index).1 as f64
}

/// How often something happened in a second.
pub(crate) fn per_second(count: usize, began: Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64()
}

/// Whole nanoseconds, for samples.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Pseudo-random numbers (splitmix64), the same in every run.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
