//! What is to be done, how much of it is left, and how long each change took.

use hdrhistogram::Histogram;
use indicatif::ProgressBar;

/// What all writers have to do together.
pub(crate) struct Work {
    pub(crate) keys: u64,
    pub(crate) todo: u64,
    pub(crate) left: u64,
    pub(crate) bar: ProgressBar,
    /// In nanoseconds.
    pub(crate) round_trips: Histogram<u64>,
}

impl Work {
    pub(crate) fn new(keys: u64) -> Work {
        let round_trips = Histogram::new(3).expect("three digits are allowed");
        Work { keys, todo: 0, left: 0, bar: ProgressBar::hidden(), round_trips }
    }

    pub(crate) fn begin(&mut self, changes: u64, bar: ProgressBar) {
        (self.todo, self.left, self.bar) = (changes, changes, bar);
    }

    pub(crate) fn is_done(&self) -> bool {
        self.left == 0
    }
}
