//! [`PollSet`]: zmq_poll(3) without a way to hold it wrong.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::{Duration, Instant};

use mio::Interest;
use zmq_sys::{ZMQ_POLLERR, ZMQ_POLLIN, ZMQ_POLLOUT, zmq_pollitem_t};

use super::{Errno, Socket};

const POLL_IN: i16 = ZMQ_POLLIN as i16;
const POLL_OUT: i16 = ZMQ_POLLOUT as i16;
const POLL_ERR: i16 = ZMQ_POLLERR as i16;

/// What a socket or a descriptor is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// A message (on a descriptor: bytes, the end, or an error) can be received.
    pub readable: bool,
    /// A message (on a descriptor: bytes, or an error) can be sent.
    pub writable: bool,
}

impl Events {
    /// Nothing at all.
    pub const NONE: Events = Events { readable: false, writable: false };

    /// Whether there is anything.
    pub const fn any(self) -> bool {
        self.readable || self.writable
    }

    pub(super) const fn from_bits(bits: i16) -> Events {
        Events { readable: bits & POLL_IN != 0, writable: bits & POLL_OUT != 0 }
    }
}

/// The memory of zmq_poll(3): a list of sockets and descriptors that is refilled
/// for each call, without allocating once it has grown.
///
/// [`clear`](PollSet::clear) starts a list that borrows what is pushed onto it
/// until [`poll`](PollList::poll) ends it; what was found ready stays with the
/// set, so that the sockets are free again when the answer is used.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::time::Duration;
/// use mio::Interest;
/// use pollux::socket::{PollSet, pair};
///
/// let context = zmq::Context::new();
/// let (left, right) = pair(&context)?;
/// left.send("hello")?;
///
/// let mut set = PollSet::new();
/// let mut list = set.clear();
/// list.push(&left, Interest::READABLE);
/// list.push(&right, Interest::READABLE);
/// assert_eq!(list.poll(Some(Duration::from_secs(5)))?, 1);
/// assert!(!set.ready(0).readable);
/// assert!(set.ready(1).readable);
/// # Ok(())
/// # }
/// ```
///
/// A socket cannot go away while it is waited for:
///
/// ```compile_fail,E0505
/// # let context = zmq::Context::new();
/// # let (_left, right) = pollux::socket::pair(&context).unwrap();
/// let mut set = pollux::socket::PollSet::new();
/// let mut list = set.clear();
/// list.push(&right, mio::Interest::READABLE);
/// drop(right);
/// list.poll(None).unwrap();
/// ```
#[derive(Default)]
pub struct PollSet {
    /// Their pointers are followed only by `PollList::poll`, which also proves that
    /// all of them are borrowed; between two lists they may dangle.
    items: Vec<zmq_pollitem_t>,
}

// SAFETY: the set alone never follows the pointers in it, and a `PollList`, which
// does, cannot leave its thread, since it borrows sockets, which are not `Sync`.
unsafe impl Send for PollSet {}

impl PollSet {
    /// An empty set.
    pub const fn new() -> PollSet {
        PollSet { items: Vec::new() }
    }

    /// Forgets everything, answers included, and starts a new list.
    pub fn clear(&mut self) -> PollList<'_> {
        self.items.clear();
        PollList { items: &mut self.items, borrowed: PhantomData }
    }

    /// What the last poll found item `index` ready for, items being counted in
    /// the order in which they were pushed. Nothing if there is no such item.
    #[inline]
    pub fn ready(&self, index: usize) -> Events {
        self.items.get(index).map_or(Events::NONE, |item| {
            let broken = item.revents & POLL_ERR != 0;
            // A broken descriptor is reported as what was waited for: the next read or
            // write on it then tells what is wrong.
            Events::from_bits(if broken { item.events | item.revents } else { item.revents })
        })
    }

    /// How many items were pushed since the last [`clear`](PollSet::clear).
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing was pushed since the last [`clear`](PollSet::clear).
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl fmt::Debug for PollSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries((0..self.len()).map(|index| self.ready(index))).finish()
    }
}

/// A list of what to wait for, being filled: see [`PollSet`].
pub struct PollList<'a> {
    items: &'a mut Vec<zmq_pollitem_t>,
    borrowed: PhantomData<&'a Socket>,
}

impl<'a> PollList<'a> {
    /// Adds a socket. The same socket may be there more than once.
    #[inline]
    pub fn push(&mut self, socket: &'a Socket, interest: Interest) {
        self.items.push(item(socket, interest));
    }

    /// Adds a socket for nothing but the end of its context. That it is never ready for
    /// anything is in zmq_poll(3): `ZMQ_POLLERR` does not concern sockets. But their
    /// commands are attended to meanwhile, and so the one that says `ETERM`.
    #[inline]
    pub fn push_end(&mut self, socket: &'a Socket) {
        let mut item = item(socket, Interest::READABLE);
        item.events = POLL_ERR;
        self.items.push(item);
    }

    /// Adds a file descriptor.
    #[inline]
    pub fn push_fd(&mut self, fd: BorrowedFd<'a>, interest: Interest) {
        self.items.push(zmq_pollitem_t {
            socket: ptr::null_mut(),
            fd: fd.as_raw_fd(),
            events: bits(interest),
            revents: 0,
        });
    }

    /// Waits until something is ready or `timeout` is over, rounded up to whole
    /// milliseconds and at most 24 days; `None` waits for ever. Returns how many
    /// items are ready; which, [`PollSet::ready`] tells.
    ///
    /// An empty list waits, too, for at most an hour; without a timeout it returns
    /// at once.
    ///
    /// # Errors
    /// `EINTR` if a signal arrived: nothing is lost, and the caller knows how much
    /// of its time is left. `ETERM` if the context of a socket ended. No item is
    /// ready then.
    pub fn poll(self, timeout: Option<Duration>) -> Result<usize, Errno> {
        // zmq_poll has usleep(3) do it, which takes 32 bits of microseconds.
        const EMPTY_MAX: Duration = Duration::from_secs(3600);
        let timeout = match self.items.is_empty() {
            true => Some(timeout.unwrap_or_default().min(EMPTY_MAX)),
            false => timeout,
        };
        // SAFETY: every socket in the list is alive and on this thread, every descriptor
        // open, for they are borrowed for 'a.
        unsafe { poll(self.items, timeout) }
    }
}

/// # Safety
/// Every socket in `items` is open and on this thread, every descriptor open.
unsafe fn poll(items: &mut [zmq_pollitem_t], timeout: Option<Duration>) -> Result<usize, Errno> {
    let timeout_ms = timeout.map_or(-1, milliseconds);
    let count = items.len() as i32; // every item costs 16 bytes: far below 2^31
    // SAFETY: pointer and count are those of one slice, which is borrowed exclusively; what
    // is in it, the caller answers for.
    let ready = unsafe { zmq_sys::zmq_poll(items.as_mut_ptr(), count, timeout_ms) };
    if ready >= 0 {
        return Ok(ready as usize);
    }
    let errno = Errno::last();
    // It may have stopped half way, with the answers of some.
    items.iter_mut().for_each(|item| item.revents = 0);
    Err(errno)
}

impl Socket {
    /// Waits until this socket is ready for `interest` or `timeout` is over, rounded
    /// up to whole milliseconds; `None` waits for ever. For threads that have nothing
    /// else to wait for.
    ///
    /// # Errors
    /// `ETERM` if the context ended. Never `EINTR`.
    pub fn wait(&self, interest: Interest, timeout: Option<Duration>) -> Result<Events, Errno> {
        let started = Instant::now();
        let mut item = [item(self, interest)];
        loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
            // SAFETY: the socket is open as long as `self` is there, and on this thread, for
            // it is not `Sync`.
            match unsafe { poll(&mut item, left) } {
                Ok(_) => return Ok(Events::from_bits(item[0].revents)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

fn item(socket: &Socket, interest: Interest) -> zmq_pollitem_t {
    zmq_pollitem_t { socket: socket.as_ptr(), fd: -1, events: bits(interest), revents: 0 }
}

impl fmt::Debug for PollList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollList").field("len", &self.items.len()).finish_non_exhaustive()
    }
}

fn bits(interest: Interest) -> i16 {
    let mut bits = 0;
    if interest.is_readable() {
        bits |= POLL_IN;
    }
    if interest.is_writable() {
        bits |= POLL_OUT;
    }
    bits
}

/// Rounded up, so that a deadline is never found "not yet due" in a busy loop.
fn milliseconds(timeout: Duration) -> std::ffi::c_long {
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    ms.min(i32::MAX as u128) as std::ffi::c_long
}
