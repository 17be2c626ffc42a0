//! Memory and descriptors of this process.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::text::thousands;

/// Memory is judged over this time at least. Half as long goes before, in which a broker's
/// windows of uuids and deletions fill.
const JUDGED_FROM: Duration = Duration::from_secs(150);

/// For so long what was closed may be on its way to be closed at the other end, too.
const SETTLING: Duration = Duration::from_secs(10);

/// The memory over the time, and the descriptors before and after.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    /// Time since the first sample, and resident memory in KiB.
    samples: Vec<(Duration, u64)>,
    before: Option<usize>,
    after: Option<usize>,
}

/// Resident memory as a line over the time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Trend {
    /// Of the samples behind it.
    span: Duration,
    count: usize,
    kib_a_minute: f64,
}

impl Vitals {
    /// Everything stands, nobody has come or gone yet.
    pub(super) fn begin(&mut self) {
        self.before = descriptors();
    }

    pub(super) fn sample(&mut self, since_begin: Duration) {
        if let Some(kib) = resident_kib() {
            self.samples.push((since_begin, kib));
        }
    }

    /// All who came have gone: waits until that has been noticed everywhere.
    pub(super) fn end(&mut self) {
        let began = Instant::now();
        loop {
            self.after = descriptors();
            if self.leaked() == 0 || began.elapsed() > SETTLING {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn leaked(&self) -> usize {
        self.after.zip(self.before).map_or(0, |(after, before)| after.saturating_sub(before))
    }

    /// What the samples say once the first third is left out, in which buffers and
    /// tables grow to their size.
    fn trend(&self) -> Option<Trend> {
        let end = self.samples.last()?.0;
        let warm = self.samples.partition_point(|&(at, _)| at < end / 3);
        trend(&self.samples[warm..])
    }

    /// What is wrong, if `max_growth` bytes a minute are still right.
    pub(super) fn complaints(&self, max_growth: usize) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.leaked() > 0 {
            complaints.push(format!("{} descriptors more than before", self.leaked()));
        }
        if let Some(trend) = self.trend().filter(|trend| trend.span >= JUDGED_FROM)
            && trend.kib_a_minute * 1024.0 > max_growth as f64
        {
            complaints.push(format!("memory grows by {:.0} KiB a minute", trend.kib_a_minute));
        }
        complaints
    }

    pub(super) fn json(&self) -> Value {
        let kib = |sample: Option<&(Duration, u64)>| sample.map(|&(_, kib)| kib);
        let trend = self.trend();
        json!({
            "memory": {
                "first_kib": kib(self.samples.first()),
                "last_kib": kib(self.samples.last()),
                "most_kib": self.samples.iter().map(|&(_, kib)| kib).max(),
                "samples": trend.map(|trend| trend.count),
                "seconds": trend.map(|trend| trend.span.as_secs_f64()),
                "kib_a_minute": trend.map(|trend| trend.kib_a_minute),
            },
            "descriptors": { "before": self.before, "after": self.after },
        })
    }

    /// Lines for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let memory = match (self.samples.last(), self.trend()) {
            (Some((_, kib)), Some(trend)) => format!(
                "{} KiB; {:+.1} KiB a minute (regression, {} samples in the last {:.0} s)",
                thousands(*kib),
                trend.kib_a_minute,
                trend.count,
                trend.span.as_secs_f64()
            ),
            _ => "not known".to_owned(),
        };
        let descriptors = match (self.before, self.after) {
            (Some(before), Some(after)) => format!("{before} before, {after} after"),
            _ => "not known".to_owned(),
        };
        vec![format!("memory        {memory}"), format!("descriptors   {descriptors}")]
    }
}

/// The line with the least squares of the distances; `None` for less than two times.
fn trend(samples: &[(Duration, u64)]) -> Option<Trend> {
    let (first, last) = (samples.first()?.0, samples.last()?.0);
    let count = samples.len() as f64;
    let minutes = |at: Duration| (at - first).as_secs_f64() / 60.0;
    let middle = samples.iter().map(|&(at, _)| minutes(at)).sum::<f64>() / count;
    let mean = samples.iter().map(|&(_, kib)| kib as f64).sum::<f64>() / count;
    let (mut both, mut square) = (0.0, 0.0);
    for &(at, kib) in samples {
        let off = minutes(at) - middle;
        both += off * (kib as f64 - mean);
        square += off * off;
    }
    let kib_a_minute = both / square;
    (square > 0.0).then(|| Trend { span: last - first, count: samples.len(), kib_a_minute })
}

/// As Linux gives it.
pub(super) fn resident_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Open ones, the one to count them included.
fn descriptors() -> Option<usize> {
    fs::read_dir("/dev/fd").ok().map(Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(kib_a_second: u64, seconds: u64) -> Vitals {
        let at = |second| (Duration::from_secs(second), 10_000 + kib_a_second * second);
        Vitals { samples: (0..=seconds).map(at).collect(), ..Vitals::default() }
    }

    #[test]
    fn growth_is_the_slope_of_the_last_two_thirds() {
        let mut vitals = grown(2, 240);
        // What a warm-up does is no growth.
        vitals.samples.iter_mut().take(80).for_each(|(_, kib)| *kib = 1);
        let trend = vitals.trend().unwrap();
        assert!((trend.kib_a_minute - 120.0).abs() < 0.001, "{trend:?}");
        assert_eq!((trend.count, trend.span), (161, Duration::from_secs(160)));
        assert!(vitals.complaints(121 * 1024).is_empty());
        assert_eq!(vitals.complaints(119 * 1024), ["memory grows by 120 KiB a minute"]);
        assert!(grown(0, 240).complaints(0).is_empty());
    }

    #[test]
    fn what_is_too_short_is_not_judged() {
        assert!(grown(1000, 200).complaints(1).is_empty());
        assert_eq!(Vitals::default().trend(), None);
        assert_eq!(grown(1, 0).trend(), None);
    }

    #[test]
    fn a_descriptor_that_stays_open_is_a_complaint() {
        let mut vitals = Vitals { before: Some(7), after: Some(7), ..Vitals::default() };
        assert!(vitals.complaints(1).is_empty());
        vitals.after = Some(9);
        assert_eq!(vitals.complaints(1), ["2 descriptors more than before"]);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let before = descriptors().unwrap();
        let _open = fs::File::open("/dev/null").unwrap();
        // Other tests open and close some at the same time.
        assert!(before > 3);
        if cfg!(target_os = "linux") {
            assert!(resident_kib() > Some(1000));
        }
    }
}
