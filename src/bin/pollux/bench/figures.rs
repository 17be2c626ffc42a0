//! The figures of a run, and how they are shown.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use hdrhistogram::Histogram;
use pollux::clone::client::Client;
use serde_json::{Value, json};

use super::producer::Produced;
use super::watcher::Watched;
use crate::args::BenchArgs;
use crate::exit::Failure;
use crate::text::{counted, thousands};
use crate::units::show_duration;

/// Round trips in nanoseconds, exact to three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new(3).unwrap_or_else(|_| unreachable!("three digits are allowed"))
}

/// The same for the same keys, values and sequences, in whatever pieces it is
/// summed up.
pub(super) fn digest(client: &Client, subtree: &str) -> u64 {
    client.iter(subtree.as_bytes()).fold(0, |sum, entry| {
        let mut hasher = DefaultHasher::new();
        (entry.key, entry.value, entry.sequence.get()).hash(&mut hasher);
        sum.wrapping_add(hasher.finish())
    })
}

pub(super) struct Figures {
    loaded: Duration,
    updates: u64,
    deliveries: u64,
    one_by_one: Histogram<u64>,
    load: Histogram<u64>,
    applied: u64,
    digest: u64,
    watched: Vec<Watched>,
}

const PERCENTILES: [(&str, f64); 4] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

impl Figures {
    /// So many changes were applied and delivered in the time of full load.
    pub(super) fn new(loaded: Duration, updates: u64, deliveries: u64) -> Figures {
        Figures {
            loaded,
            updates,
            deliveries,
            one_by_one: histogram(),
            load: histogram(),
            applied: 0,
            digest: 0,
            watched: Vec::new(),
        }
    }

    pub(super) fn add_producer(&mut self, produced: Produced) {
        // They have the same precision and grow as needed.
        let _ = self.one_by_one.add(produced.one_by_one);
        let _ = self.load.add(produced.load);
        self.applied += produced.applied;
        self.digest = self.digest.wrapping_add(produced.digest);
    }

    pub(super) fn add_watcher(&mut self, watched: Watched) {
        self.watched.push(watched);
    }

    fn per_second(&self, count: u64) -> u64 {
        (count as f64 / self.loaded.as_secs_f64()) as u64
    }

    /// Updates that a watcher did not see, because others came before it could.
    fn losses(&self) -> u64 {
        self.watched.iter().map(|watched| self.applied.saturating_sub(watched.seen)).sum()
    }

    fn gaps(&self) -> u64 {
        self.watched.iter().map(|watched| watched.gaps).sum()
    }

    pub(super) fn json(&self, args: &BenchArgs) -> Value {
        json!({
            "producers": args.producers,
            "watchers": args.watchers,
            "value_size": args.value_size,
            "keys": args.keys,
            "window": args.window(),
            "seconds": args.seconds,
            "updates": self.applied,
            "updates_per_second": self.per_second(self.updates),
            "deliveries_per_second": self.per_second(self.deliveries),
            "round_trip_ns": {
                "one_by_one": percentiles(&self.one_by_one),
                "load": percentiles(&self.load),
            },
            "losses": self.losses(),
            "gaps": self.gaps(),
        })
    }

    pub(super) fn table(&self, args: &BenchArgs, endpoint: &str, is_own: bool) -> String {
        let head = PERCENTILES.map(|(name, _)| format!("{name:>9}")).concat();
        let lines = [
            format!(
                "{}, {}, values of {}, {} each; broker {}{endpoint}",
                counted(args.producers.into(), "producer"),
                counted(args.watchers.into(), "watcher"),
                counted(args.value_size as u64, "byte"),
                counted(args.keys.into(), "key"),
                if is_own { "of its own at " } else { "at " },
            ),
            String::new(),
            format!("updates       {:>13}/s", thousands(self.per_second(self.updates))),
            format!("delivered     {:>13}/s", thousands(self.per_second(self.deliveries))),
            format!("losses        {:>13}", thousands(self.losses())),
            String::new(),
            format!("round trip    {head}      max"),
            row("one at a time", &self.one_by_one),
            row(&format!("window {}", thousands(args.window() as u64)), &self.load),
        ];
        lines.join("\n")
    }

    /// Whether all have the same state.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        match self.watched.iter().filter(|watched| watched.digest != self.digest).count() {
            0 => Ok(()),
            count => Err(Failure::Refused(format!(
                "{count} of {} watchers ended with another state than the producers; \
                 this should never happen, please report it",
                self.watched.len()
            ))),
        }
    }
}

fn percentiles(histogram: &Histogram<u64>) -> Value {
    let mut object = json!({ "count": histogram.len(), "max": histogram.max() });
    for (name, percentile) in PERCENTILES {
        object[name] = histogram.value_at_percentile(percentile).into();
    }
    object
}

fn row(name: &str, histogram: &Histogram<u64>) -> String {
    let time = |ns| show_duration(Duration::from_nanos(ns));
    let at = PERCENTILES
        .map(|(_, percentile)| format!("{:>9}", time(histogram.value_at_percentile(percentile))));
    format!("{name:14}{}{:>9}", at.concat(), time(histogram.max()))
}
