//! Threads on cores of our choice, where the scheduler's choice would be the figure.

/// A thread that can be pinned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    #[cfg(target_os = "linux")]
    id: rustix::thread::Pid,
}

#[cfg(target_os = "linux")]
impl Thread {
    /// The one that calls this.
    pub(crate) fn current() -> Thread {
        Thread { id: rustix::thread::gettid() }
    }

    /// Has it run on this of the process's cores and no other; without one, on any. Whether
    /// there is such a core.
    pub(crate) fn pin(self, core: Option<usize>) -> bool {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

        // The whole process's; its first thread is never pinned for longer than a round.
        static ALL: std::sync::OnceLock<CpuSet> = std::sync::OnceLock::new();
        let all = ALL.get_or_init(|| sched_getaffinity(None).expect("the cores of this process"));
        let Some(core) = core else { return sched_setaffinity(Some(self.id), all).is_ok() };
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&cpu| all.is_set(cpu));
        let Some(cpu) = cores.nth(core) else { return false };
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(Some(self.id), &set).is_ok()
    }
}

/// Elsewhere the scheduler chooses.
#[cfg(not(target_os = "linux"))]
impl Thread {
    pub(crate) fn current() -> Thread {
        Thread {}
    }

    pub(crate) fn pin(self, core: Option<usize>) -> bool {
        core.is_none_or(|core| core == 0)
    }
}
