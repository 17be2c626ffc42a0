//! Waiting: not at all, spinning, or blocking, and for how long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::builder::Wait;
use super::poller::Poller;
use super::registry::Registry;
use super::slots::SlotKey;
use crate::socket::Errno;
use crate::time::Time;

/// A deadline nearer than this is not slept for: a sleep and its wake take longer.
const TOO_SHORT_TO_SLEEP: Duration = Duration::from_micros(1);

/// How often a loop that spins asks for everything, while it asks the socket that
/// had the last message all the time: that is cheaper and finds more.
const SPIN_POLL_INTERVAL: Duration = Duration::from_micros(5);

/// How often it asks that socket before it reads the clock, which takes nearly as long.
const RECEIVES_PER_CLOCK: u32 = 8;

/// Whether spinning before a sleep has found anything lately.
///
/// It finds nothing where events are rarer than it lasts, and where those who cause them wait
/// for the very core on which it spins. Then it only delays the sleep, and them.
#[derive(Debug, Default)]
pub(super) struct Spins {
    /// How many have found nothing, since one that has, at most [`FUTILE_SPINS`].
    futile: u32,
    /// Sleeps without one since the last.
    skipped: u32,
}

/// So many spins in a row that find nothing are enough to do without for the time being.
const FUTILE_SPINS: u32 = 4;

/// One sleep of so many is then preceded by a spin all the same: things may have changed.
const SPIN_AGAIN: u32 = 8;

impl Spins {
    fn is_worth_it(&mut self) -> bool {
        if self.futile < FUTILE_SPINS {
            return true;
        }
        self.skipped = (self.skipped + 1) % SPIN_AGAIN;
        self.skipped == 0
    }

    fn ended(&mut self, found: bool) {
        self.futile = if found { 0 } else { (self.futile + 1).min(FUTILE_SPINS) };
    }
}

impl<S> Registry<S> {
    /// Waits until something is ready, a timer is due, or `max_wait` is over, and
    /// reads the clock. `start` is a reading just made, if there is one.
    ///
    /// `false` if it did not look for news at all, for there is work and it looked
    /// just now.
    pub(super) fn wait(&mut self, max_wait: Duration, start: Option<Time>) -> io::Result<bool> {
        let start = start.unwrap_or_else(|| self.clock.read());
        if !self.queue.is_empty() || self.wakes.any() {
            if start.since(self.polled_at) < self.idle_poll_interval {
                self.clock.now = start;
                return Ok(false);
            }
            return self.poll_now().map(|()| true);
        }
        let until = self.next_deadline().unwrap_or(Time::NEVER).min(start + max_wait);
        if until <= start {
            return self.poll_now().map(|()| true);
        }
        let spin_until = match self.settings.wait {
            Wait::Block => start,
            Wait::Spin => Time::NEVER,
            Wait::SpinFor(duration) if self.spins.is_worth_it() => start + duration,
            Wait::SpinFor(_) => start,
        };
        let spinning = spin_until > start;
        let found = self.spin(until.min(spin_until), start)?;
        if spinning {
            self.spins.ended(found);
        }
        if found || self.clock.now >= until {
            return Ok(true);
        }
        self.block(until).map(|()| true)
    }

    /// Asks without waiting.
    fn poll_now(&mut self) -> io::Result<()> {
        self.stats.polls += 1;
        let result = self.poll(Some(Duration::ZERO));
        self.clock.now = self.clock.read();
        self.polled_at = self.clock.now;
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.stats.polls_interrupted += 1;
                Ok(())
            }
            result => result,
        }
    }

    /// Asks again and again until something is there (`true`) or `until` has come.
    /// `start` is a fresh reading of the clock.
    fn spin(&mut self, until: Time, start: Time) -> io::Result<bool> {
        self.clock.now = start;
        while self.clock.now < until {
            let mut asked = self.recent_has_message();
            for _ in 1..RECEIVES_PER_CLOCK {
                if asked != Some(false) {
                    break;
                }
                asked = self.recent_has_message();
            }
            if asked == Some(true) {
                return Ok(true);
            }
            let others_can_wait = self.clock.now.since(self.polled_at) < SPIN_POLL_INTERVAL;
            if asked.is_some() && others_can_wait {
                self.clock.now = self.clock.read();
            } else {
                self.poll_now()?;
            }
            if !self.queue.is_empty() || self.wakes.any() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Receives from the socket that had the last message, and queues it if it has
    /// another; `None` if there is no such socket. To ask it only, and receive when it is
    /// served, would take a call more.
    fn recent_has_message(&mut self) -> Option<bool> {
        let key = self.recent?;
        let Some(slot) = self.sockets.get(key).filter(|slot| slot.receiving) else {
            self.recent = None;
            return None;
        };
        debug_assert!(self.queue.is_empty(), "it is served next, with what was received ahead");
        let queue = match self.frames.try_receive_ahead(&slot.socket) {
            Ok(()) => true,
            Err(Errno::EAGAIN) => false,
            // Out of turn (REQ, REP).
            Err(Errno::EFSM) => slot.socket.events().map_or(true, |events| events.readable),
            // Any other error shows when it is served.
            Err(_) => true,
        };
        if queue {
            self.queue_socket(key);
        }
        Some(queue)
    }

    /// Blocks until something is there or `until` has come.
    fn block(&mut self, until: Time) -> io::Result<()> {
        loop {
            let start = self.clock.now;
            let left = until.since(start);
            if left < TOO_SHORT_TO_SLEEP || !self.wakes.fall_asleep() {
                self.wakes.leave_sleep();
                return self.poll_now();
            }
            self.stats.polls += 1;
            self.stats.polls_blocked += 1;
            let timeout = (until < Time::NEVER).then_some(left);
            let fine = timeout.is_some_and(Poller::is_fine);
            let result = match self.sole_receiver().filter(|_| !fine) {
                Some(key) => self.block_in_receive(key, timeout),
                None => self.poll(timeout),
            };
            self.wakes.leave_sleep();
            self.clock.now = self.clock.read();
            self.polled_at = self.clock.now;
            self.stats.blocked_ns += self.clock.now.since(start).as_nanos() as u64;
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.stats.polls_interrupted += 1;
                }
                result => return result,
            }
        }
    }

    /// The socket that had the last message, if nothing but its next one and timers can
    /// wake the loop: no other socket, no source, no waker, no outer loop.
    fn sole_receiver(&self) -> Option<SlotKey> {
        let sole = self.waited_for == 1
            && self.sources.is_empty()
            && Arc::strong_count(&self.wakes) == 1
            && !self.nested.get();
        let key = self.recent.filter(|_| sole)?;
        let slot = self.sockets.get(key)?;
        (slot.receiving && !slot.role.readiness).then_some(key)
    }

    /// Blocks in receiving itself, which saves half of the system calls that polling
    /// and then receiving take.
    fn block_in_receive(&mut self, key: SlotKey, timeout: Option<Duration>) -> io::Result<()> {
        let Some(slot) = self.sockets.get_mut(key) else { return Ok(()) };
        if slot.set_receive_timeout(timeout.map_or(-1, round_up_to_ms)).is_err() {
            // That it cannot receive any more shows when it is served.
            self.queue_socket(key);
            return Ok(());
        }
        match self.frames.receive_ahead(&slot.socket) {
            Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR) => return Err(Errno::EINTR.into()),
            // Out of turn (REQ, REP): it must be polled after all.
            Err(Errno::EFSM) => return self.poll(timeout),
            // Any other error shows when the socket is served.
            Ok(()) | Err(_) => self.queue_socket(key),
        }
        Ok(())
    }

    /// Counts the turn, lets others see it, and returns the time if it was worth
    /// reading the clock.
    pub(super) fn end_turn(&mut self, handled: u64) -> Option<Time> {
        self.clock.in_turn = false;
        self.stats.turns += 1;
        self.stats.events += handled;
        self.count_sent();
        let end = (handled > 0).then(|| self.clock.read());
        if let Some(end) = end {
            let turn_ns = end.since(self.clock.now).as_nanos() as u64;
            self.stats.turn_max_ns = self.stats.turn_max_ns.max(turn_ns);
        }
        if let Some(shared) = &self.shared_stats {
            shared.publish(&self.stats);
        }
        if self.nested.get() {
            self.allow_outer_sleep();
        }
        end
    }

    /// Between turns somebody else may sleep on the poll descriptor.
    pub(super) fn allow_outer_sleep(&self) {
        if !self.wakes.fall_asleep() {
            self.wakes.interrupt();
        }
    }
}

/// Rounded up, so that a deadline is never found "not yet due" in a busy loop; at most
/// 24 days.
fn round_up_to_ms(duration: Duration) -> i32 {
    duration.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spins_that_find_nothing_become_rare_until_one_finds_something() {
        let mut spins = Spins::default();
        let mut spun = |finds: bool| {
            let spins_now = spins.is_worth_it();
            if spins_now {
                spins.ended(finds);
            }
            spins_now
        };
        let futile: Vec<bool> = (0..4 + 3 * 8).map(|_| spun(false)).collect();
        assert!(futile[..4].iter().all(|spun| *spun));
        for eight in futile[4..].chunks(8) {
            assert_eq!(eight.iter().filter(|spun| **spun).count(), 1, "{futile:?}");
        }
        while !spun(true) {}
        assert!((0..4).all(|_| spun(false)), "it is worth it again");
        assert!(!spun(false));
    }
}
