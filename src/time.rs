//! [`Time`]: the monotonic reading that the loop hands to timers and state machines.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A point on a monotonic clock, in whole nanoseconds since an origin that the
/// owner of the clock chose (a reactor counts from its own start, a simulator
/// from zero).
///
/// Readings of different origins must not be mixed. Nothing in the library
/// reads a clock on its own account: `now` is always handed in, which is what
/// lets the same state machines run on virtual time.
///
/// Arithmetic saturates: [`Time::NEVER`] stays where it is, and going back
/// before the origin gives the origin.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The origin of the clock.
    pub const ZERO: Time = Time(0);
    /// Later than every reading a clock can give (584 years).
    pub const NEVER: Time = Time(u64::MAX);

    /// The reading `ns` nanoseconds after the origin.
    pub const fn from_nanos(ns: u64) -> Time {
        Time(ns)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How far `self` lies after `earlier`; zero if it does not.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, after: Duration) -> Time {
        Time(self.0.saturating_add(nanos(after)))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, after: Duration) {
        *self = *self + after;
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, before: Duration) -> Time {
        Time(self.0.saturating_sub(nanos(before)))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Time::NEVER => f.write_str("Time(never)"),
            Time(ns) => write!(f, "Time({:?})", Duration::from_nanos(ns)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let second = Duration::from_secs(1);
        assert_eq!(Time::NEVER + second, Time::NEVER);
        assert_eq!(Time::ZERO - second, Time::ZERO);
        assert_eq!(Time::ZERO.since(Time::ZERO + second), Duration::ZERO);
        assert_eq!((Time::ZERO + second).since(Time::ZERO), second);
        assert_eq!(Time::ZERO + Duration::MAX, Time::NEVER);
    }
}
