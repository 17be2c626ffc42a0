//! Waits that are no whole number of milliseconds.
//!
//! epoll and zmq_poll count in milliseconds, so a timer that is due in 0.2 ms would fire
//! after one. On Linux a timer of the system (timerfd_create(2)) among the sources ends such
//! a wait in time. Elsewhere waits are rounded up.

use std::io;
use std::time::Duration;

use ::mio::Registry;

/// Only shorter waits are made exact: to longer ones a fraction of a millisecond
/// matters less than the system call that it costs.
#[cfg(target_os = "linux")]
const LONGEST: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct FineTimer {
    #[cfg(target_os = "linux")]
    fd: std::os::fd::OwnedFd,
}

#[cfg(target_os = "linux")]
impl FineTimer {
    pub(super) fn new(registry: &Registry) -> io::Result<FineTimer> {
        use std::os::fd::AsRawFd;

        use ::mio::{Interest, unix::SourceFd};
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), super::FINE_TIMER, Interest::READABLE)?;
        Ok(FineTimer { fd })
    }

    /// Has the poll that comes next return after `timeout` at the latest, if that is
    /// worth it.
    ///
    /// It goes off even if that poll has returned earlier, and then makes a later one
    /// return once without a reason. To disarm it would cost more than that. Its news is
    /// edge-triggered, so it need not be read.
    pub(super) fn arm(&self, timeout: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        if timeout >= LONGEST || timeout.is_zero() {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
        let once = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Whether such a wait had better be made by a poll than in a receive.
    pub(super) fn is_worth(timeout: Duration) -> bool {
        timeout < LONGEST
    }
}

#[cfg(not(target_os = "linux"))]
impl FineTimer {
    pub(super) fn new(_: &Registry) -> io::Result<FineTimer> {
        Ok(FineTimer {})
    }

    pub(super) fn arm(&self, _: Duration) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn is_worth(_: Duration) -> bool {
        false
    }
}
