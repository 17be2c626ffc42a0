//! The figures of a run, and how they are shown.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use hdrhistogram::Histogram;
use pollux::clone::client::Client;
use serde_json::{Value, json};

use super::args::BenchArgs;
use super::counts::Counts;
use super::plot;
use super::producer::Produced;
use super::visitor::Visits;
use super::vitals::Vitals;
use super::watcher::Watched;
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
    pub(super) visits: Visits,
    pub(super) counts: Counts,
    pub(super) vitals: Vitals,
}

const PERCENTILES: [(&str, f64); 4] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

impl Figures {
    /// So many changes were applied and delivered in the time of full load.
    pub(super) fn new(loaded: Duration, updates: u64, deliveries: u64, vitals: Vitals) -> Figures {
        Figures {
            loaded,
            updates,
            deliveries,
            one_by_one: histogram(),
            load: histogram(),
            applied: 0,
            digest: 0,
            watched: Vec::new(),
            visits: Visits::default(),
            counts: Counts::default(),
            vitals,
        }
    }

    pub(super) fn add_producer(&mut self, produced: Produced) {
        // They have the same precision and grow as needed.
        let _ = self.one_by_one.add(produced.one_by_one);
        let _ = self.load.add(produced.load);
        self.applied += produced.applied;
        self.digest = self.digest.wrapping_add(produced.digest);
        self.counts.clients.add(&produced.counts);
    }

    pub(super) fn add_watcher(&mut self, watched: Watched) {
        self.counts.clients.add(&watched.counts);
        self.watched.push(watched);
    }

    pub(super) fn add_visits(&mut self, visits: &Visits) {
        self.counts.clients.add(&visits.counts);
        self.visits.add(visits);
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
        let mut object = json!({
            "producers": args.producers,
            "watchers": args.watchers,
            "value_size": args.value_size,
            "keys": args.keys,
            "window": args.window(),
            "rate": args.rate,
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
            "visits": self.visits.count,
            "visit_entries": self.visits.entries,
            "expiring": self.visits.set,
        });
        for part in [self.counts.json(), self.vitals.json()] {
            if let (Value::Object(object), Value::Object(part)) = (&mut object, part) {
                object.extend(part);
            }
        }
        object
    }

    pub(super) fn table(&self, args: &BenchArgs, endpoint: &str, is_own: bool) -> String {
        let head = PERCENTILES.map(|(name, _)| format!("{name:>9}")).concat();
        let mut lines = vec![
            title(args, endpoint, is_own),
            String::new(),
            format!("updates       {:>13}/s", thousands(self.per_second(self.updates))),
            format!("delivered     {:>13}/s", thousands(self.per_second(self.deliveries))),
            format!("losses        {:>13}", thousands(self.losses())),
            String::new(),
            format!("round trip    {head}      max"),
            row("one at a time", &self.one_by_one),
            row(&load_name(args), &self.load),
            String::new(),
        ];
        lines.extend(self.counts.lines());
        if args.churn > 0 {
            lines.push(format!(
                "visits        {}, with {} of snapshots and {} that expire",
                thousands(self.visits.count),
                counted(self.visits.entries, "entry").replace("entrys", "entries"),
                counted(self.visits.set, "key")
            ));
        }
        lines.extend(self.vitals.lines());
        lines.join("\n")
    }

    /// The histograms of the round trips.
    pub(super) fn plot(&self, args: &BenchArgs, endpoint: &str, is_own: bool) -> String {
        let one_by_one = ("one at a time".to_owned(), &self.one_by_one);
        plot::svg(&title(args, endpoint, is_own), &[one_by_one, (load_name(args), &self.load)])
    }

    /// Whether all have the same state, and if clients came and went, whether that
    /// left anything behind.
    pub(super) fn verdict(&self, args: &BenchArgs) -> Result<(), Failure> {
        match self.watched.iter().filter(|watched| watched.digest != self.digest).count() {
            0 => {}
            count => {
                return Err(Failure::Refused(format!(
                    "{count} of {} watchers ended with another state than the producers; \
                     this should never happen, please report it",
                    self.watched.len()
                )));
            }
        }
        if args.churn == 0 {
            return Ok(());
        }
        let faults = self.counts.faults().into_iter();
        let mut complaints: Vec<_> =
            faults.map(|(name, count)| format!("{name} {}", thousands(count))).collect();
        complaints.extend(self.vitals.complaints(args.max_growth));
        if let Some(broker) = &self.counts.broker
            && broker.expired() < self.visits.set
        {
            let left = self.visits.set - broker.expired();
            complaints.push(format!("{} did not expire", counted(left, "key")));
        }
        match complaints[..] {
            [] => Ok(()),
            _ => Err(Failure::Refused(format!("the soak failed: {}", complaints.join("; ")))),
        }
    }
}

fn title(args: &BenchArgs, endpoint: &str, is_own: bool) -> String {
    format!(
        "{}, {}, values of {}, {} each; broker {}{endpoint}",
        counted(args.producers.into(), "producer"),
        counted(args.watchers.into(), "watcher"),
        counted(args.value_size as u64, "byte"),
        counted(args.keys.into(), "key"),
        if is_own { "of its own at " } else { "at " },
    )
}

/// What the round trips under load are called.
fn load_name(args: &BenchArgs) -> String {
    match args.rate {
        Some(rate) => format!("{}/s", thousands(rate.into())),
        None => format!("window {}", thousands(args.window() as u64)),
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
