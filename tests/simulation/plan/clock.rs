//! The clocks of the hosts, none of which shows what another does.

use std::time::Duration;

use pollux::Time;

use crate::random::Random;

/// A host's monotonic clock: where it began, and how fast it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    offset_ns: u64,
    drift_ppm: i64,
}

/// No clock goes faster or slower than this.
pub(crate) const DRIFT_PPM: i64 = 5000;

impl Clock {
    pub(super) fn any(random: &mut Random) -> Clock {
        Clock {
            offset_ns: random.below(1 << 40),
            drift_ppm: random.below(2 * DRIFT_PPM as u64) as i64 - DRIFT_PPM,
        }
    }

    pub(crate) fn local(self, global: Time) -> Time {
        let ns = i128::from(global.as_nanos());
        let drifted = ns + ns * i128::from(self.drift_ppm) / 1_000_000;
        Time::from_nanos(drifted as u64 + self.offset_ns)
    }

    /// The first time at which the clock shows `local` or more.
    pub(crate) fn global(self, local: Time) -> Time {
        if local == Time::NEVER {
            return Time::NEVER;
        }
        let shown = i128::from(local.as_nanos().saturating_sub(self.offset_ns));
        let guess = shown * 1_000_000 / i128::from(1_000_000 + self.drift_ppm);
        let mut guess = Time::from_nanos(guess as u64);
        while self.local(guess) < local {
            guess += Duration::from_nanos(1);
        }
        guess
    }
}
