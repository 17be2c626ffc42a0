//! [`ContextBuilder`]: the options of a context.

use std::ffi::c_int;

use super::super::error::Operation;
use super::{SocketError, ZmqContext};

/// An option of zmq_ctx_set(3).
#[derive(Clone, Copy, Debug)]
pub(super) struct ContextOption {
    pub(super) number: c_int,
    /// As there, without the `ZMQ_`.
    pub(super) name: &'static str,
}

macro_rules! context_options {
    ($($name:ident = $number:expr;)*) => {$(
        pub(super) const $name: ContextOption =
            ContextOption { number: $number as c_int, name: stringify!($name) };
    )*};
}

context_options! {
    IO_THREADS = zmq_sys::ZMQ_IO_THREADS;
    MAX_SOCKETS = zmq_sys::ZMQ_MAX_SOCKETS;
    IPV6 = zmq_sys::ZMQ_IPV6;
    THREAD_AFFINITY_CPU_ADD = zmq_sys::ZMQ_THREAD_AFFINITY_CPU_ADD;
    THREAD_NAME_PREFIX = zmq_sys::ZMQ_THREAD_NAME_PREFIX;
    // zmq.h has it among the drafts, but ctx.cpp takes it always; zmq-sys does not have it.
    ZERO_COPY_RECV = 10;
}

/// `ZMQ_AFFINITY` of a socket can name as many.
const MAX_IO_THREADS: u32 = 64;

/// What libzmq allows.
const MAX_SOCKETS_LIMIT: u32 = 65_535;

/// Options of a [`ZmqContext`] to be made. What is not set has the default of libzmq.
///
/// Left out are three options: the scheduling policy and priority of the I/O threads, for libzmq
/// ends the process if the system refuses them; `ZMQ_MAX_MSGSZ`, which libzmq 4.3.4 stores and
/// ignores (see [`max_message_size`](super::super::SocketBuilder::max_message_size) of a
/// socket); and `ZMQ_BLOCKY`, the default of a linger time that is set on every socket anyway.
///
/// ```
/// use pollux::socket::ZmqContext;
///
/// let context = ZmqContext::builder().io_threads(4).build()?;
/// assert_eq!(context.io_threads(), 4);
///
/// let error = ZmqContext::builder().io_threads(65).build().unwrap_err();
/// assert_eq!(error.to_string(), "set IO_THREADS: expected 0 to 64, got 65");
/// # Ok::<(), pollux::socket::SocketError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ContextBuilder {
    settings: Vec<(ContextOption, c_int)>,
    /// The first mistake; `build` reports it.
    mistake: Option<SocketError>,
}

impl ContextBuilder {
    pub(super) fn new() -> ContextBuilder {
        ContextBuilder::default()
    }

    /// Makes the context. Its threads start with its first socket.
    ///
    /// # Errors
    /// The first mistake in the options, else those of [`ZmqContext::new`].
    pub fn build(self) -> Result<ZmqContext, SocketError> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let context = ZmqContext::new()?;
        for (option, value) in self.settings {
            context.set(option, value)?;
        }
        Ok(context)
    }

    /// How many threads carry the messages of tcp and ipc, 0 to 64, 1 by default
    /// (`ZMQ_IO_THREADS`). The Guide's rule is one for each gigabyte per second. With 0 there
    /// is only inproc: binding and connecting elsewhere answers `EMTHREAD`.
    pub fn io_threads(self, threads: u32) -> ContextBuilder {
        self.set(IO_THREADS, threads, 0, MAX_IO_THREADS)
    }

    /// How many sockets there may be at a time, 1 to 65,535, 1,023 by default
    /// (`ZMQ_MAX_SOCKETS`). More are refused (`EMFILE`). Each needs a file descriptor, too.
    pub fn max_sockets(self, sockets: u32) -> ContextBuilder {
        self.set(MAX_SOCKETS, sockets, 1, MAX_SOCKETS_LIMIT)
    }

    /// Whether new sockets allow IPv6 besides IPv4 (`ZMQ_IPV6`); off by default.
    pub fn ipv6(self, on: bool) -> ContextBuilder {
        self.set(IPV6, u32::from(on), 0, 1)
    }

    /// Whether frames received share the buffer that they were read into (`ZMQ_ZERO_COPY_RECV`);
    /// on by default. Off, each is copied, and a small frame that is kept does not hold
    /// kilobytes of others in memory. Who sends on what it has received loses nothing by it: one
    /// thread then allocates and frees, where two would count references to the same buffer.
    pub fn zero_copy_receive(self, on: bool) -> ContextBuilder {
        self.set(ZERO_COPY_RECV, u32::from(on), 0, 1)
    }

    /// Begins the names of the threads with this number, for debuggers (`ZMQ_THREAD_NAME_PREFIX`).
    pub fn thread_name_prefix(self, number: u16) -> ContextBuilder {
        self.set(THREAD_NAME_PREFIX, number.into(), 0, u16::MAX.into())
    }

    /// Lets the threads run on these processors only (`ZMQ_THREAD_AFFINITY_CPU_ADD`): of those
    /// that the process may use, since libzmq ends the process if the system refuses.
    pub fn io_thread_cpus(mut self, cpus: impl IntoIterator<Item = u32>) -> ContextBuilder {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = allowed_cpus(&status);
        for cpu in cpus {
            if !allowed.as_ref().is_some_and(|list| list.contains(&cpu)) {
                let problem = match &allowed {
                    Some(list) => format!("expected one of the processors {list:?}, got {cpu}"),
                    None => "expected a system that tells which processors there are".into(),
                };
                return self.mistaken(THREAD_AFFINITY_CPU_ADD, problem);
            }
            self = self.set(THREAD_AFFINITY_CPU_ADD, cpu, 0, cpu);
        }
        self
    }

    fn set(mut self, option: ContextOption, value: u32, min: u32, max: u32) -> ContextBuilder {
        match c_int::try_from(value) {
            Ok(number) if (min..=max).contains(&value) => self.settings.push((option, number)),
            _ => return self.mistaken(option, format!("expected {min} to {max}, got {value}")),
        }
        self
    }

    fn mistaken(mut self, option: ContextOption, problem: String) -> ContextBuilder {
        let mistake = SocketError::misuse(Operation::Set, None, problem).about(option.name);
        self.mistake.get_or_insert(mistake);
        self
    }
}

/// The processors that a process may run on, from its `/proc/PID/status` (proc_pid_status(5)).
/// Those beyond what fits into a `cpu_set_t` are left out.
fn allowed_cpus(status: &str) -> Option<Vec<u32>> {
    const SET_SIZE: u32 = 1024;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cpus = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        cpus.extend(first..=last.min(SET_SIZE - 1));
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_processors() {
        let status =
            "Name:\tx\nCpus_allowed:\tf\nCpus_allowed_list:\t0-2,5,7-8\nMems_allowed:\t1\n";
        assert_eq!(allowed_cpus(status), Some(vec![0, 1, 2, 5, 7, 8]));
        assert_eq!(allowed_cpus("Cpus_allowed_list:\t1020-4000000000").unwrap().len(), 4);
        assert_eq!(allowed_cpus("Cpus_allowed_list:\tmany"), None);
        assert_eq!(allowed_cpus(""), None);
    }
}
