//! What `pollux bench` can be asked for.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::args::value_size;
use crate::units;

const BENCH_HELP: &str = "\
Producers set keys of a subtree of their own, watchers follow it. First one
change is under way at a time (the bare round trip, from set to the producer's
own echo), then --window of them for each producer, or as many as --rate says;
with a rate a round trip counts from when its change was due, sent or not.
Without --connect it starts a broker of its own on loopback. At the end all
states are compared (exit code 4 if they differ) and the keys, below /bench/,
deleted. Losses are updates that a watcher was too slow to see; it then caught
up by a snapshot.

--churn makes it a soak: clients come and go under full load, each with a
snapshot of everything and with keys that expire. It fails with exit code 4 if
 * anything was lost, refused, malformed, or silent for too long, by the counts
   of clients and broker (\"faults\"),
 * there are more descriptors after the last of them has left than before,
 * the memory of this process, which a broker of its own shares, grows by more
   than --max-growth a minute: by regression over the last two thirds of the
   load, judged if they are two and a half minutes at least. (A broker of its
   own then remembers 5,000 deletions and 65,536 uuids only, so that it has
   as many when that begins.)

Examples:
  pollux bench
  pollux bench --producers 4 --watchers 4 --value-size 800 --seconds 10
  pollux bench --connect tcp://server:5556 --json
  pollux bench --rate 20000 --plot latency.svg
  pollux bench --seconds 600 --churn 4 --rate 5000";

/// `pollux bench`.
#[derive(Debug, Args)]
#[command(after_help = BENCH_HELP)]
pub(crate) struct BenchArgs {
    /// Clients that set keys, each on a thread of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) producers: u16,
    /// Clients that follow all keys, each on a thread of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(0..=256))]
    pub(crate) watchers: u16,
    /// Bytes in a value
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = value_size)]
    pub(crate) value_size: usize,
    /// Keys of each producer, set in turn
    #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keys: u32,
    /// Changes under way for each producer, and at most 16M of values
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) window: u32,
    /// Changes a second under load, of all producers together [default: as many as go]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,
    /// How long to measure, a quarter of it (10 at most) the bare round trip
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// Clients that come and go meanwhile, so many at a time
    #[arg(long, value_name = "N", default_value = "0", value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(crate) churn: u16,
    /// Growth of the memory in a minute that --churn still lets pass
    #[arg(long, value_name = "BYTES", default_value = "512K", value_parser = units::bytes)]
    pub(crate) max_growth: usize,
    /// Draw the histograms of the round trips into this file
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
}

/// The bare round trip needs no longer.
const MOST_ONE_BY_ONE: Duration = Duration::from_secs(10);

impl BenchArgs {
    /// The window that the size of the values leaves.
    pub(crate) fn window(&self) -> usize {
        (self.window as usize).min(((16 << 20) / self.value_size).max(1))
    }

    /// How long one change is under way at a time, and how long the load lasts.
    pub(crate) fn times(&self) -> (Duration, Duration) {
        let total = Duration::from_secs(self.seconds.into());
        let one_by_one = (total / 4).min(MOST_ONE_BY_ONE);
        (one_by_one, total - one_by_one)
    }

    /// Time between two changes of one producer under load.
    pub(crate) fn interval(&self) -> Option<Duration> {
        let rate = f64::from(self.rate?) / f64::from(self.producers);
        Some(Duration::from_secs_f64(1.0 / rate))
    }
}
