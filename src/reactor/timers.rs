//! Timers: handlers under keys, and when each is due.

use std::fmt;
use std::io;
use std::time::Duration;

use super::context::{Context, Flow};
use super::deadlines::Deadlines;
use super::key::{StaleKey, TimerKey};
use super::registry::Registry;
use super::slots::Slots;
use crate::time::Time;

pub(super) type TimerHandler<S> =
    Box<dyn FnMut(&mut S, &mut Context<'_, S>) -> io::Result<Flow> + 'static>;

/// What a periodic timer does about periods that passed while the loop was busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Missed {
    /// Fire once, then go on at the next multiple of the period: a heartbeat.
    #[default]
    Skip,
    /// Fire once for each missed period, one a turn, until it has caught up: a
    /// count that must come out right.
    Burst,
    /// Fire once, then a whole period later: at least a period lies between two
    /// firings, and the multiples shift.
    Delay,
}

/// How often a timer fires, and what becomes of it then.
enum Kind {
    /// Removed once it has fired, unless its handler armed it again.
    Once,
    /// Stays, unarmed, once it has fired.
    Standing,
    /// Armed again before its handler runs. `next` is where the grid of periods
    /// has its next line, which may lie in the past with `Missed::Burst`.
    Periodic { period: Duration, missed: Missed, next: Time },
}

struct Timer<S> {
    /// `None` while it runs.
    handler: Option<TimerHandler<S>>,
    kind: Kind,
}

/// All timers of a reactor.
pub(super) struct Timers<S> {
    slots: Slots<Timer<S>>,
    deadlines: Deadlines,
    /// No deadline is armed before this: a deadline in the past is due at once,
    /// and one armed while timers fire waits for the next turn.
    earliest: Time,
}

/// A timer that is due, taken out of its slot.
pub(super) struct Due<S> {
    pub(super) key: TimerKey,
    pub(super) handler: TimerHandler<S>,
    pub(super) lateness: Duration,
}

impl<S> Timers<S> {
    pub(super) const fn new() -> Timers<S> {
        Timers { slots: Slots::new(), deadlines: Deadlines::new(), earliest: Time::ZERO }
    }

    /// How many timers are armed.
    pub(super) fn armed(&self) -> usize {
        self.deadlines.len()
    }

    #[inline]
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(deadline, _)| deadline)
    }

    fn insert(&mut self, kind: Kind, handler: TimerHandler<S>) -> TimerKey {
        match self.slots.insert(Timer { handler: Some(handler), kind }) {
            Ok(key) => TimerKey(key),
            Err(_) => panic!("more than 2^31 timers"),
        }
    }

    fn arm(&mut self, key: TimerKey, at: Time) {
        self.deadlines.arm(key.0.index, at.max(self.earliest));
    }

    fn check(&self, key: TimerKey) -> Result<(), StaleKey> {
        self.slots.get(key.0).map(drop).ok_or(StaleKey(key.into()))
    }

    fn remove(&mut self, key: TimerKey) -> Result<(), StaleKey> {
        let removed = self.slots.remove(key.0).ok_or(StaleKey(key.into()))?;
        self.deadlines.disarm(key.0.index);
        drop(removed);
        Ok(())
    }

    /// Starts a pass at `now`: what is armed from here on is not due in it.
    pub(super) fn begin_pass(&mut self, now: Time) {
        self.earliest = now + Duration::from_nanos(1);
    }

    /// Ends it.
    pub(super) fn end_pass(&mut self, now: Time) {
        self.earliest = now;
    }

    /// Takes the first timer that is due at `now` out of its slot to run it.
    pub(super) fn take_due(&mut self, now: Time) -> Option<Due<S>> {
        let (deadline, index) = self.deadlines.first().filter(|(due, _)| *due <= now)?;
        let key = match self.slots.at(index) {
            Some((key, _)) => TimerKey(key),
            None => unreachable!("a timer that is removed is disarmed"),
        };
        let timer = self.slots.get_mut(key.0)?;
        let handler = timer.handler.take();
        match &mut timer.kind {
            Kind::Once | Kind::Standing => {
                self.deadlines.disarm(index);
            }
            Kind::Periodic { period, missed, next } => {
                *next = next_firing(*next, *period, *missed, now);
                let at = *next;
                self.arm(key, at);
            }
        }
        // A handler is out of its slot only while it runs, and then no turn is made.
        handler.map(|handler| Due { key, handler, lateness: now.since(deadline) })
    }

    /// Puts the handler of a timer that has run back, unless the timer is gone or
    /// has fired for the last time.
    pub(super) fn put_back(&mut self, key: TimerKey, handler: TimerHandler<S>) {
        let Some(timer) = self.slots.get_mut(key.0) else { return };
        let over =
            matches!(timer.kind, Kind::Once) && self.deadlines.deadline(key.0.index).is_none();
        if over {
            // It is there and not armed, so this cannot fail.
            let _ = self.remove(key);
        } else {
            timer.handler = Some(handler);
        }
    }
}

/// Where the grid of a periodic timer goes on after it fired at `now` for the
/// line `line`.
fn next_firing(line: Time, period: Duration, missed: Missed, now: Time) -> Time {
    match missed {
        Missed::Burst => line + period,
        Missed::Delay => now + period,
        Missed::Skip => {
            let period_ns = Time::ZERO + period;
            let over_ns = now.since(line).as_nanos() as u64 % period_ns.as_nanos();
            now - Duration::from_nanos(over_ns) + period
        }
    }
}

/// Timers.
impl<S> Registry<S> {
    /// Calls `handler` once, `after` from [now](Registry::now). The key is stale
    /// afterwards, unless the handler itself armed it again
    /// ([`rearm`](Registry::rearm)).
    ///
    /// A timer never fires early. It fires late by as long as the loop is busy, and,
    /// if the loop blocks, by up to a millisecond, which is what the operating
    /// system's calls count in.
    ///
    /// # Panics
    /// With 2^31 timers alive.
    pub fn add_timer(
        &mut self,
        after: Duration,
        handler: impl FnMut(&mut S, &mut Context<'_, S>) -> io::Result<Flow> + 'static,
    ) -> TimerKey {
        self.add_timer_at(self.now() + after, handler)
    }

    /// [`add_timer`](Registry::add_timer) for a point in time. One in the past is
    /// due at once. At [`Time::NEVER`] it is not armed.
    pub fn add_timer_at(
        &mut self,
        at: Time,
        handler: impl FnMut(&mut S, &mut Context<'_, S>) -> io::Result<Flow> + 'static,
    ) -> TimerKey {
        let key = self.timers.insert(Kind::Once, Box::new(handler));
        if at < Time::NEVER {
            self.timers.arm(key, at);
        }
        key
    }

    /// A timer that is not armed yet, and stays when it has fired, unarmed, until it
    /// is cancelled: for a state machine with one moving deadline.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use pollux::reactor::{Flow, Reactor};
    /// # fn main() -> std::io::Result<()> {
    /// # let mut reactor = Reactor::new()?;
    /// let timer = reactor.add_standing_timer(|fired: &mut u32, _| {
    ///     *fired += 1;
    ///     Ok(Flow::Continue)
    /// });
    /// let mut fired = 0;
    /// for _ in 0..3 {
    ///     reactor.rearm_after(timer, Duration::from_millis(1))?;
    ///     reactor.run(&mut fired)?; // until there is nothing left to wait for
    /// }
    /// assert_eq!(fired, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_standing_timer(
        &mut self,
        handler: impl FnMut(&mut S, &mut Context<'_, S>) -> io::Result<Flow> + 'static,
    ) -> TimerKey {
        self.timers.insert(Kind::Standing, Box::new(handler))
    }

    /// Calls `handler` every `period` (at least 1 ns), first a period from now;
    /// `missed` says what becomes of periods during which the loop was busy. At
    /// most one firing a turn.
    pub fn add_periodic(
        &mut self,
        period: Duration,
        missed: Missed,
        handler: impl FnMut(&mut S, &mut Context<'_, S>) -> io::Result<Flow> + 'static,
    ) -> TimerKey {
        let period = period.max(Duration::from_nanos(1));
        let next = self.now() + period;
        let key = self.timers.insert(Kind::Periodic { period, missed, next }, Box::new(handler));
        if next < Time::NEVER {
            self.timers.arm(key, next);
        }
        key
    }

    /// Moves the deadline of a timer, armed or not, its own handler included; a
    /// periodic one goes on from there. A time in the past is due at once (for a
    /// timer armed while timers fire: in the next turn), [`Time::NEVER`] disarms.
    ///
    /// To a later deadline in O(1), to an earlier one in O(log n).
    ///
    /// # Errors
    /// [`StaleKey`] if the timer was cancelled or has fired for the last time.
    pub fn rearm(&mut self, key: TimerKey, at: Time) -> Result<(), StaleKey> {
        let timer = self.timers.slots.get_mut(key.0).ok_or(StaleKey(key.into()))?;
        if let Kind::Periodic { next, .. } = &mut timer.kind {
            *next = at;
        }
        if at < Time::NEVER {
            self.timers.arm(key, at);
        } else {
            self.timers.deadlines.disarm(key.0.index);
        }
        Ok(())
    }

    /// [`rearm`](Registry::rearm) counted from [now](Registry::now).
    ///
    /// # Errors
    /// As for [`rearm`](Registry::rearm).
    pub fn rearm_after(&mut self, key: TimerKey, after: Duration) -> Result<(), StaleKey> {
        self.rearm(key, self.now() + after)
    }

    /// Removes a timer. It does not fire again, not even if it was due already.
    ///
    /// # Errors
    /// [`StaleKey`] if it was cancelled before, or has fired for the last time.
    pub fn cancel(&mut self, key: TimerKey) -> Result<(), StaleKey> {
        self.timers.remove(key)
    }

    /// When a timer is due; `None` if it is not armed.
    ///
    /// # Errors
    /// [`StaleKey`] if the timer was cancelled or has fired for the last time.
    pub fn deadline(&self, key: TimerKey) -> Result<Option<Time>, StaleKey> {
        self.timers.check(key)?;
        Ok(self.timers.deadlines.deadline(key.0.index))
    }

    /// When the first timer is due: until then an embedder may wait.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline()
    }
}

impl<S> fmt::Debug for Timers<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers")
            .field("live", &self.slots.len())
            .field("armed", &self.armed())
            .field("next_deadline", &self.next_deadline())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn missed_periods_follow_the_policy() {
        let period = Duration::from_millis(10);
        let next = |missed, now| next_firing(at_ms(10), period, missed, at_ms(now));
        assert_eq!(next(Missed::Skip, 10), at_ms(20));
        assert_eq!(next(Missed::Skip, 19), at_ms(20));
        assert_eq!(next(Missed::Skip, 20), at_ms(30));
        assert_eq!(next(Missed::Skip, 47), at_ms(50));
        assert_eq!(next(Missed::Burst, 47), at_ms(20));
        assert_eq!(next(Missed::Delay, 47), at_ms(57));
    }
}
