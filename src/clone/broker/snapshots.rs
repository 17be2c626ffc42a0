//! Snapshots under way: in slices, one client after the other, each at its own pace.

mod job;

use std::collections::VecDeque;
use std::time::Duration;

use smallvec::SmallVec;

pub(super) use self::job::kvsync;
use self::job::{Job, Progress};
use super::BrokerOutbox;
use super::recent::Recent;
use super::refused::Refused;
use super::stats::BrokerStats;
use crate::clone::pair::Lineage;
use crate::clone::properties::PropertiesBuf;
use crate::clone::sequence::Sequence;
use crate::clone::store::{Mode, Store};
use crate::time::Time;

/// So long after a change others may follow.
const BUSY: Duration = Duration::from_millis(10);

/// Slices in one call at most, if they were due one after the other while the loop
/// slept or had something else to do.
const LATE_SLICES: usize = 8;

/// A request as it came.
#[derive(Debug)]
pub(super) struct Request {
    /// From a REQ: an empty frame before the answer, which is one message.
    pub(super) delimited: bool,
    pub(super) subtree: Box<[u8]>,
    /// Only what changed after this.
    pub(super) since: Option<Sequence>,
    /// From a broker that wants the state in order, with the window of uuids.
    pub(super) replica: bool,
    /// From a standby, which wants the uuids that were refused, too.
    pub(super) refusals: bool,
}

impl Request {
    /// One for everything under a subtree.
    pub(super) fn new(delimited: bool, subtree: &[u8]) -> Request {
        Request { delimited, subtree: subtree.into(), since: None, replica: false, refusals: false }
    }
}

/// A client with what it has asked for. The first request is the one that is
/// served; whatever the client asks on top waits behind it and delays nobody else.
#[derive(Debug)]
struct Asker {
    /// Routing id of the client.
    peer: SmallVec<[u8; 16]>,
    /// Never empty.
    requests: VecDeque<Request>,
}

/// What a slice needs of the broker around it.
pub(super) struct Slice<'a> {
    pub(super) store: &'a mut Store,
    pub(super) stats: &'a mut BrokerStats,
    pub(super) recent: &'a Recent,
    pub(super) refused: &'a Refused,
    /// The history of the store, for brokers that take it over.
    pub(super) lineage: &'a Lineage,
    pub(super) scratch: &'a mut PropertiesBuf,
    /// Properties of `KTHXBAI`, but for `mode`, `from` and `count`.
    pub(super) capabilities: &'a PropertiesBuf,
    pub(super) now: Time,
}

/// The queue of snapshots, in which each client is at one place.
#[derive(Debug)]
pub(super) struct Snapshots {
    waiting: VecDeque<Asker>,
    /// Served in turns.
    active: VecDeque<Job>,
    /// Those whose client's queue is full; they take no turn from others.
    stalled: Vec<Job>,
    /// When the first of the stalled is tried again.
    retry_at: Time,
    /// The store has no place for another walk until one ends.
    no_place: bool,
    /// Changes came in until then, or shortly before.
    busy_until: Time,
    /// The next slice is due then.
    slice_at: Time,
    limits: SnapshotLimits,
}

/// Limits on the snapshots a broker serves at a time.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SnapshotLimits {
    /// Snapshots served in turns; further ones wait. Those whose clients take
    /// nothing do not count here, but all together have no more places than the
    /// store has [cursors](crate::clone::store::StoreLimits::max_cursors). Default 64.
    pub active: usize,
    /// Clients that may wait; the requests of further ones are dropped, and
    /// they ask again. Default 4,096.
    pub waiting: usize,
    /// Requests of one client, the one that is served among them; further ones
    /// are dropped. Default 16.
    pub per_client: usize,
    /// Entries in one slice, between which everything else is served. Default 64.
    pub slice_entries: usize,
    /// Bytes after which a slice ends. Default 256 KiB.
    pub slice_bytes: usize,
    /// Time between two slices while changes come in, so that whoever sends and follows
    /// them is served first: by the broker, and by the processors that it shares
    /// with libzmq's threads and the clients. Default 200 µs, which comes to 320,000 entries
    /// a second for all snapshots together. Without changes slices follow at once.
    pub pace: Duration,
    /// A client that takes nothing for so long has lost its snapshot; if it has taken
    /// nothing of it at all, what else it has asked for, too. Default 30 s.
    pub stall: Duration,
    /// Bytes a second that a client must take of its snapshot on the whole. It has lost
    /// it, too, once it has kept it standing for longer than `stall` and what was sent
    /// takes at this rate. So no client can hold a place in the store for ever. Only
    /// time in which its queue is full counts. 0: as slow as it likes. Default 16 KiB.
    pub min_rate: u64,
    /// Bytes in the one-message answer that a REQ gets; a larger one is
    /// refused. Such an answer is made in one go, so everybody else waits for it, and
    /// a peer that asks on without reading has up to `snapshot_hwm` of them kept.
    /// Default 4 MiB.
    pub whole_answer_bytes: usize,
}

impl Default for SnapshotLimits {
    fn default() -> SnapshotLimits {
        SnapshotLimits {
            active: 64,
            waiting: 4096,
            per_client: 16,
            slice_entries: 64,
            slice_bytes: 256 * 1024,
            pace: Duration::from_micros(200),
            stall: Duration::from_secs(30),
            min_rate: 16 * 1024,
            whole_answer_bytes: 4 * 1024 * 1024,
        }
    }
}

impl Snapshots {
    pub(super) fn new(limits: SnapshotLimits) -> Snapshots {
        Snapshots {
            waiting: VecDeque::new(),
            active: VecDeque::new(),
            stalled: Vec::new(),
            retry_at: Time::NEVER,
            no_place: false,
            busy_until: Time::ZERO,
            slice_at: Time::ZERO,
            limits,
        }
    }

    /// Clients that are served or wait.
    pub(super) fn len(&self) -> usize {
        self.active.len() + self.stalled.len() + self.waiting.len()
    }

    /// Takes a request. Refused is one that repeats what the same client waits
    /// for already, and one over a limit.
    pub(super) fn push(&mut self, peer: &[u8], request: Request) -> Result<(), &'static str> {
        let full = self.waiting.len() >= self.limits.waiting;
        let served = self.active.iter_mut().chain(&mut self.stalled).map(Job::asker);
        let known = served.chain(&mut self.waiting).find(|asker| *asker.peer == *peer);
        match known {
            Some(asker) if asker.requests.iter().any(|other| other.subtree == request.subtree) => {
                return Err("the client's snapshot of this subtree is already under way");
            }
            Some(asker) if asker.requests.len() >= self.limits.per_client => {
                return Err("too many requests of this client wait");
            }
            Some(asker) => asker.requests.push_back(request),
            None if full => return Err("too many clients wait"),
            None => {
                let requests = VecDeque::from([request]);
                self.waiting.push_back(Asker { peer: peer.into(), requests });
            }
        }
        Ok(())
    }

    /// When there is something to do: at once if a client can take more.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let can_begin = !self.waiting.is_empty() && !self.no_place;
        if can_begin || !self.active.is_empty() {
            return Some(self.slice_at);
        }
        (!self.stalled.is_empty()).then_some(self.retry_at)
    }

    /// A change came in.
    #[inline]
    pub(super) fn make_way(&mut self, now: Time) {
        self.busy_until = now + BUSY;
    }

    /// Some client's queue has room again.
    pub(super) fn unblock(&mut self) {
        self.active.extend(self.stalled.drain(..));
        self.retry_at = Time::NEVER;
    }

    /// Sends the slices that are due: one, or if this call is late and others have to be
    /// made way for, some.
    pub(super) fn serve(&mut self, slice: &mut Slice<'_>, out: &mut impl BrokerOutbox) {
        let now = slice.now;
        if now >= self.busy_until || self.limits.pace.is_zero() {
            self.slice_at = now;
            return self.serve_next(slice, out);
        }
        if self.active.is_empty() {
            // Nothing was under way, so nothing is late.
            self.slice_at = self.slice_at.max(now);
        }
        for _ in 0..LATE_SLICES {
            if now < self.slice_at {
                return;
            }
            self.slice_at += self.limits.pace;
            self.serve_next(slice, out);
        }
        self.slice_at = self.slice_at.max(now);
    }

    /// Sends one slice to the next client that can take it.
    fn serve_next(&mut self, slice: &mut Slice<'_>, out: &mut impl BrokerOutbox) {
        if slice.now >= self.retry_at {
            self.retry(slice.now);
        }
        self.activate(slice);
        let Some(mut job) = self.active.pop_front() else { return };
        match job.advance(slice, &self.limits, out) {
            Progress::More => self.active.push_back(job),
            Progress::Stalled { retry_at } => {
                self.retry_at = self.retry_at.min(retry_at);
                self.stalled.push(job);
            }
            Progress::Done => {
                slice.stats.snapshots_done += 1;
                slice.stats.snapshots_delta += u64::from(job.is_delta());
                self.end(job, slice.store);
            }
            Progress::Abandoned(why) => {
                slice.stats.snapshots_abandoned += 1;
                log::debug!("snapshot given up after {} entries: {why}", job.sent());
                self.end(job, slice.store);
            }
        }
    }

    /// Gives the stalled whose time has come another turn.
    fn retry(&mut self, now: Time) {
        self.retry_at = Time::NEVER;
        for job in std::mem::take(&mut self.stalled) {
            if job.retry_at() <= now {
                self.active.push_back(job);
            } else {
                self.retry_at = self.retry_at.min(job.retry_at());
                self.stalled.push(job);
            }
        }
    }

    /// Moves clients from waiting to active while there is room.
    fn activate(&mut self, slice: &mut Slice<'_>) {
        while self.active.len() < self.limits.active.max(1) && !self.no_place {
            let Some(asker) = self.waiting.pop_front() else { return };
            let Some(request) = asker.requests.front() else { continue };
            let store = &mut *slice.store;
            let known = store.history_floor()..=store.sequence();
            let in_order = request.replica && !request.since.is_some_and(|s| known.contains(&s));
            let cursor = match in_order {
                true => store.open_subtree_in_order(&request.subtree),
                false => store.open(&request.subtree, request.since),
            };
            match cursor {
                Some(cursor) => {
                    let from = match (cursor.mode(), request.since) {
                        (Mode::Delta, Some(since)) => since,
                        _ => slice.store.sequence(),
                    };
                    self.active.push_back(Job::new(asker, cursor, from, slice.now));
                }
                None => {
                    self.no_place = true;
                    self.waiting.push_front(asker);
                }
            }
        }
    }

    /// The state gives way to another: gives up what is under way. Who was served asks
    /// again; who waits is served from the new one.
    pub(super) fn drop_under_way(&mut self, store: &mut Store) {
        for job in self.active.drain(..).chain(self.stalled.drain(..)) {
            store.close(job.into_parts().1);
        }
        (self.retry_at, self.no_place) = (Time::NEVER, false);
    }

    /// Nothing can be served any more: forgets what was under way and what waits.
    /// Gives how many clients that were.
    pub(super) fn abandon(&mut self, store: &mut Store) -> usize {
        let count = self.len();
        self.drop_under_way(store);
        self.waiting.clear();
        count
    }

    /// Forgets the client that has waited longest while `most` wait. False: fewer do.
    pub(super) fn make_room(&mut self, most: usize) -> bool {
        self.waiting.len() >= most && self.waiting.pop_front().is_some()
    }

    /// What clients that wait asked for means nothing unless it is in the history.
    pub(super) fn check_since(&mut self, is_known: impl Fn(Sequence) -> bool) {
        let requests = self.waiting.iter_mut().flat_map(|asker| &mut asker.requests);
        requests.for_each(|request| request.since = request.since.filter(|&since| is_known(since)));
    }

    /// What else its client has asked for queues up behind all others.
    fn end(&mut self, job: Job, store: &mut Store) {
        let (mut asker, cursor) = job.into_parts();
        store.close(cursor);
        self.no_place = false;
        asker.requests.pop_front();
        if !asker.requests.is_empty() {
            self.waiting.push_back(asker);
        }
    }
}
