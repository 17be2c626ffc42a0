//! Snapshots under way: in slices, one client after the other, each at its own pace.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use smallvec::SmallVec;

use super::BrokerOutbox;
use super::stats::BrokerStats;
use crate::clone::SendFailure;
use crate::clone::kvmsg::{KTHXBAI, KvMsg};
use crate::clone::properties::{Properties, PropertiesBuf};
use crate::clone::sequence::Sequence;
use crate::clone::store::{Cursor, Entry, Mode, Store, Walk};
use crate::time::Time;

/// How long a client that took nothing is left alone before the next try.
const RETRY: Duration = Duration::from_millis(1);

/// A request as it came.
#[derive(Debug)]
pub(super) struct Request {
    /// Routing id of the client.
    pub(super) peer: SmallVec<[u8; 16]>,
    /// From a REQ: an empty frame before the answer, which is one message.
    pub(super) delimited: bool,
    pub(super) subtree: Box<[u8]>,
    /// Only what changed after this.
    pub(super) since: Option<Sequence>,
}

#[derive(Debug)]
struct Job {
    request: Request,
    cursor: Cursor,
    /// Everything up to here was sent; only the end is missing.
    complete: Option<Sequence>,
    sent: u64,
    /// The client's queue was full: not before this.
    retry_at: Option<Time>,
    /// When the client last took something.
    progress_at: Time,
}

/// What a slice needs of the broker around it.
pub(super) struct Slice<'a> {
    pub(super) store: &'a mut Store,
    pub(super) stats: &'a mut BrokerStats,
    pub(super) scratch: &'a mut PropertiesBuf,
    /// Properties of `KTHXBAI`, but for `mode` and `count`.
    pub(super) capabilities: &'a PropertiesBuf,
    pub(super) now: Time,
}

/// The queue of snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    waiting: VecDeque<Request>,
    active: VecDeque<Job>,
    limits: SnapshotLimits,
}

/// Limits on the snapshots a broker serves at a time.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SnapshotLimits {
    /// Snapshots served in turns; further ones wait. Default 64.
    pub active: usize,
    /// Requests that may wait; further ones are dropped, and the client asks
    /// again. Default 4,096.
    pub waiting: usize,
    /// Entries in one slice, between which everything else is served. Default 64.
    pub slice_entries: usize,
    /// Bytes after which a slice ends. Default 256 KiB.
    pub slice_bytes: usize,
    /// A client that takes nothing for so long has lost its snapshot. Default 30 s.
    pub stall: Duration,
    /// Bytes in the one-message answer that a REQ gets; a larger one is
    /// refused. Default 64 MiB.
    pub whole_answer_bytes: usize,
}

impl Default for SnapshotLimits {
    fn default() -> SnapshotLimits {
        SnapshotLimits {
            active: 64,
            waiting: 4096,
            slice_entries: 64,
            slice_bytes: 256 * 1024,
            stall: Duration::from_secs(30),
            whole_answer_bytes: 64 * 1024 * 1024,
        }
    }
}

impl Snapshots {
    pub(super) fn new(limits: SnapshotLimits) -> Snapshots {
        Snapshots { waiting: VecDeque::new(), active: VecDeque::new(), limits }
    }

    /// Snapshots under way and waiting.
    pub(super) fn len(&self) -> usize {
        self.active.len() + self.waiting.len()
    }

    /// Takes a request. Refused is one that repeats what the same client waits
    /// for already, and one that finds the queue full.
    pub(super) fn push(&mut self, request: Request) -> Result<(), &'static str> {
        let same = |other: &Request| other.peer == request.peer && other.subtree == request.subtree;
        if self.active.iter().any(|job| same(&job.request)) || self.waiting.iter().any(same) {
            return Err("the client's snapshot of this subtree is already under way");
        }
        if self.waiting.len() >= self.limits.waiting {
            return Err("too many requests wait");
        }
        self.waiting.push_back(request);
        Ok(())
    }

    /// When there is something to do: at once if a client can take more.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        if !self.waiting.is_empty() && self.active.len() < self.limits.active {
            return Some(Time::ZERO);
        }
        self.active.iter().map(|job| job.retry_at.unwrap_or(Time::ZERO)).min()
    }

    /// Some client's queue has room again.
    pub(super) fn unblock(&mut self) {
        self.active.iter_mut().for_each(|job| job.retry_at = None);
    }

    /// Sends one slice to the next client that can take it.
    pub(super) fn serve(&mut self, slice: &mut Slice<'_>, out: &mut impl BrokerOutbox) {
        self.activate(slice);
        for _ in 0..self.active.len() {
            let Some(mut job) = self.active.pop_front() else { return };
            if job.retry_at.is_some_and(|at| at > slice.now) {
                self.active.push_back(job);
                continue;
            }
            match job.advance(slice, &self.limits, out) {
                Progress::More => self.active.push_back(job),
                Progress::Done => {
                    slice.stats.snapshots_done += 1;
                    slice.stats.snapshots_delta += u64::from(job.is_delta());
                    slice.store.close(job.cursor);
                }
                Progress::Abandoned(why) => {
                    slice.stats.snapshots_abandoned += 1;
                    log::debug!("snapshot given up after {} entries: {why}", job.sent);
                    slice.store.close(job.cursor);
                }
            }
            return;
        }
    }

    /// Moves requests from waiting to active while there is room.
    fn activate(&mut self, slice: &mut Slice<'_>) {
        while self.active.len() < self.limits.active {
            let Some(request) = self.waiting.pop_front() else { return };
            let Some(cursor) = slice.store.open(&request.subtree, request.since) else {
                self.waiting.push_front(request);
                return;
            };
            self.active.push_back(Job {
                request,
                cursor,
                complete: None,
                sent: 0,
                retry_at: None,
                progress_at: slice.now,
            });
        }
    }
}

enum Progress {
    More,
    Done,
    Abandoned(&'static str),
}

impl Job {
    fn is_delta(&self) -> bool {
        self.cursor.mode() == Mode::Delta
    }

    fn advance(
        &mut self,
        slice: &mut Slice<'_>,
        limits: &SnapshotLimits,
        out: &mut impl BrokerOutbox,
    ) -> Progress {
        let sent_before = self.sent;
        let outcome = if self.request.delimited {
            self.send_whole(slice, limits, out)
        } else {
            self.send_slice(slice, limits, out)
        };
        slice.stats.entries_sent += self.sent - sent_before;
        if self.sent > sent_before {
            self.progress_at = slice.now;
        }
        self.retry_at = None;
        match outcome {
            Ok(true) => Progress::Done,
            Ok(false) => Progress::More,
            Err(SendFailure::Unreachable) => Progress::Abandoned("the client is gone"),
            Err(SendFailure::WouldBlock) => {
                slice.stats.snapshot_stalls += 1;
                if slice.now.since(self.progress_at) > limits.stall {
                    return Progress::Abandoned("the client takes nothing");
                }
                self.retry_at = Some(slice.now + RETRY);
                Progress::More
            }
        }
    }

    /// One slice of KVSYNCs, or the end. True: all is sent.
    fn send_slice(
        &mut self,
        slice: &mut Slice<'_>,
        limits: &SnapshotLimits,
        out: &mut impl BrokerOutbox,
    ) -> Result<bool, SendFailure> {
        if self.complete.is_none() {
            let (mut failure, mut bytes) = (None, 0);
            let (sent, request, scratch) = (&mut self.sent, &self.request, &mut *slice.scratch);
            let now = slice.now;
            let walk = slice.store.walk(&mut self.cursor, limits.slice_entries, |entry| {
                if bytes >= limits.slice_bytes {
                    return ControlFlow::Break(());
                }
                let message = kvsync(&entry, now, scratch);
                if let Err(error) = message.with_frames(|frames| out.reply(&request.peer, frames)) {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
                *sent += 1;
                bytes += entry.key.len() + entry.value.len();
                ControlFlow::Continue(())
            });
            if let Some(failure) = failure {
                return Err(failure);
            }
            match walk {
                Walk::More => return Ok(false),
                Walk::Done(sequence) => self.complete = Some(sequence),
                // Without its end the client asks again, and begins anew.
                Walk::Lost => return Err(SendFailure::Unreachable),
            }
        }
        let sequence = self.complete.unwrap_or_default();
        self.end_properties(slice.capabilities, slice.scratch);
        kthxbai(sequence, slice.scratch.as_properties(), &self.request.subtree)
            .with_frames(|frames| out.reply(&self.request.peer, frames))?;
        Ok(true)
    }

    /// The whole answer as one message, as a REQ must get it.
    fn send_whole(
        &mut self,
        slice: &mut Slice<'_>,
        limits: &SnapshotLimits,
        out: &mut impl BrokerOutbox,
    ) -> Result<bool, SendFailure> {
        let mut answer = Flat::default();
        answer.push(&[b""]);
        let (scratch, now) = (&mut *slice.scratch, slice.now);
        let mut count = 0;
        let walk = slice.store.walk(&mut self.cursor, usize::MAX, |entry| {
            if answer.bytes.len() > limits.whole_answer_bytes {
                return ControlFlow::Break(());
            }
            kvsync(&entry, now, scratch).with_frames(|frames| answer.push(frames));
            count += 1;
            ControlFlow::Continue(())
        });
        let Walk::Done(sequence) = walk else {
            log::warn!(
                "a REQ asked for a snapshot of over {} bytes, which must be one message; \
                 use a DEALER, or ask for a smaller subtree",
                limits.whole_answer_bytes
            );
            return Err(SendFailure::Unreachable);
        };
        self.sent = count;
        self.end_properties(slice.capabilities, slice.scratch);
        kthxbai(sequence, slice.scratch.as_properties(), &self.request.subtree)
            .with_frames(|frames| answer.push(frames));
        out.reply(&self.request.peer, &answer.frames())?;
        Ok(true)
    }

    fn end_properties(&self, capabilities: &PropertiesBuf, scratch: &mut PropertiesBuf) {
        scratch.clear();
        scratch.copy_except(capabilities.as_properties(), &[]);
        scratch.push("mode", if self.is_delta() { "delta" } else { "full" });
        scratch.push("count", self.sent);
    }
}

/// The message for one entry; `scratch` takes its properties if it expires.
fn kvsync<'a>(entry: &Entry<'a>, now: Time, scratch: &'a mut PropertiesBuf) -> KvMsg<'a> {
    let properties = match entry.deadline {
        None => entry.properties,
        Some(deadline) => super::with_ttl(entry.properties, deadline.since(now), scratch),
    };
    KvMsg {
        key: entry.key,
        sequence: entry.sequence,
        uuid: entry.uuid,
        properties,
        body: entry.value,
    }
}

fn kthxbai<'a>(sequence: Sequence, properties: Properties<'a>, subtree: &'a [u8]) -> KvMsg<'a> {
    KvMsg { key: KTHXBAI, sequence, uuid: None, properties, body: subtree }
}

/// Frames one behind the other in one buffer.
#[derive(Default)]
struct Flat {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Flat {
    fn push(&mut self, frames: &[&[u8]]) {
        for frame in frames {
            self.bytes.extend_from_slice(frame);
            self.ends.push(self.bytes.len());
        }
    }

    fn frames(&self) -> Vec<&[u8]> {
        let mut start = 0;
        self.ends.iter().map(|&end| &self.bytes[std::mem::replace(&mut start, end)..end]).collect()
    }
}
