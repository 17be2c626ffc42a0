//! One snapshot: what is sent of it, and how far it is.

use std::ops::ControlFlow;
use std::time::Duration;

use super::{Asker, Request, Slice, SnapshotLimits};
use crate::clone::SendFailure;
use crate::clone::broker::BrokerOutbox;
use crate::clone::broker::changes::with_ttl;
use crate::clone::kvmsg::{KTHXBAI, KvMsg, UUIDS};
use crate::clone::properties::{Properties, PropertiesBuf};
use crate::clone::sequence::Sequence;
use crate::clone::store::{Cursor, Entry, Mode, Walk};
use crate::time::Time;

/// How long a client that took nothing is left alone before the next try, at
/// first; each further try that finds it so doubles that.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LAST_RETRY: Duration = Duration::from_millis(16);

/// Uuids in one message: 14 KiB.
const UUIDS_AT_ONCE: usize = 512;

#[derive(Debug)]
pub(super) struct Job {
    asker: Asker,
    cursor: Cursor,
    /// Where it began: whatever happened later it tells, deletions too.
    from: Sequence,
    /// Everything up to here was sent; only the end is missing.
    complete: Option<Sequence>,
    /// The uuid to be sent next to a broker that takes over the state.
    uuid: Option<u32>,
    /// The refusal to be sent next to a standby.
    refusal: u64,
    /// The one message that a REQ gets, once it is made.
    whole: Option<Flat>,
    sent: u64,
    /// Bytes of what was sent.
    bytes: u64,
    /// Since when the client's queue is full, if it is.
    stalled_since: Option<Time>,
    /// For how long it was before, all in all.
    stalled: Duration,
    /// The client's queue was full: not before this.
    retry_at: Time,
    retry_after: Duration,
    /// When the client last took something.
    progress_at: Time,
}

pub(super) enum Progress {
    More,
    /// The client's queue is full.
    Stalled {
        retry_at: Time,
    },
    Done,
    Abandoned(&'static str),
}

/// Why a slice ended early.
enum Halt {
    Blocked,
    Hopeless(&'static str),
}

/// A deletion that the client would have to hear of was forgotten while its
/// snapshot stood still. Without its end it asks again, and begins anew.
const LOST: Halt = Halt::Hopeless("too much was deleted while the client took nothing");

impl From<SendFailure> for Halt {
    fn from(failure: SendFailure) -> Halt {
        match failure {
            SendFailure::WouldBlock => Halt::Blocked,
            SendFailure::Unreachable => Halt::Hopeless("the client is gone"),
        }
    }
}

impl Job {
    /// Serves the first request of a client.
    pub(super) fn new(asker: Asker, cursor: Cursor, from: Sequence, now: Time) -> Job {
        debug_assert!(!asker.requests.is_empty());
        Job {
            asker,
            cursor,
            from,
            complete: None,
            uuid: None,
            refusal: 0,
            whole: None,
            sent: 0,
            bytes: 0,
            stalled_since: None,
            stalled: Duration::ZERO,
            retry_at: Time::ZERO,
            retry_after: FIRST_RETRY,
            progress_at: now,
        }
    }

    pub(super) fn asker(&mut self) -> &mut Asker {
        &mut self.asker
    }

    pub(super) fn is_delta(&self) -> bool {
        self.cursor.mode() == Mode::Delta
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn retry_at(&self) -> Time {
        self.retry_at
    }

    pub(super) fn into_parts(self) -> (Asker, Cursor) {
        (self.asker, self.cursor)
    }

    fn request(&self) -> &Request {
        // An asker has a request as long as it is asking.
        &self.asker.requests[0]
    }

    /// Sends as much as one turn allows.
    pub(super) fn advance(
        &mut self,
        slice: &mut Slice<'_>,
        limits: &SnapshotLimits,
        out: &mut impl BrokerOutbox,
    ) -> Progress {
        let sent_before = self.sent;
        if let Some(since) = self.stalled_since.take() {
            self.stalled += slice.now.since(since);
        }
        let outcome = if self.request().delimited {
            self.send_whole(slice, limits, out)
        } else {
            self.send_slice(slice, limits, out)
        };
        slice.stats.entries_sent += self.sent - sent_before;
        if self.sent > sent_before {
            self.progress_at = slice.now;
            self.retry_after = FIRST_RETRY;
        }
        match outcome {
            Ok(true) => Progress::Done,
            Ok(false) => Progress::More,
            Err(Halt::Hopeless(why)) => Progress::Abandoned(why),
            Err(Halt::Blocked) => {
                slice.stats.snapshot_stalls += 1;
                if slice.now.since(self.progress_at) > limits.stall {
                    if self.sent == 0 {
                        // What else it has asked for would keep a place for as long, each.
                        let others = self.asker.requests.drain(1..).count();
                        slice.stats.snapshots_abandoned += others as u64;
                    }
                    return Progress::Abandoned("the client takes nothing");
                }
                if self.stalled > self.patience(limits) {
                    return Progress::Abandoned("the client takes too little");
                }
                self.stalled_since = Some(slice.now);
                self.retry_at = slice.now + self.retry_after;
                self.retry_after = (self.retry_after * 2).min(LAST_RETRY);
                Progress::Stalled { retry_at: self.retry_at }
            }
        }
    }

    /// How long the client may keep it standing, for what it has taken so far.
    fn patience(&self, limits: &SnapshotLimits) -> Duration {
        match limits.min_rate {
            0 => Duration::MAX,
            rate => {
                let earned = Duration::from_secs_f64(self.bytes as f64 / rate as f64);
                limits.stall.saturating_add(earned)
            }
        }
    }

    /// One slice of KVSYNCs, or the end. True: all is sent.
    fn send_slice(
        &mut self,
        slice: &mut Slice<'_>,
        limits: &SnapshotLimits,
        out: &mut impl BrokerOutbox,
    ) -> Result<bool, Halt> {
        if self.complete.is_none() {
            let (mut failure, mut bytes) = (None, 0);
            let (sent, peer, scratch) = (&mut self.sent, &self.asker.peer, &mut *slice.scratch);
            let now = slice.now;
            let walk = slice.store.walk(&mut self.cursor, limits.slice_entries, |entry| {
                if bytes >= limits.slice_bytes {
                    return ControlFlow::Break(());
                }
                let message = kvsync(&entry, now, scratch);
                if let Err(error) = message.with_frames(|frames| out.reply(peer, frames)) {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
                *sent += 1;
                bytes += entry.key.len() + entry.value.len();
                ControlFlow::Continue(())
            });
            self.bytes += bytes as u64;
            if let Some(failure) = failure {
                return Err(failure.into());
            }
            match walk {
                Walk::More => return Ok(false),
                Walk::Done(sequence) => self.complete = Some(sequence),
                Walk::Lost => return Err(LOST),
            }
        }
        let sequence = self.complete.unwrap_or_default();
        if self.request().replica && !self.send_uuids(sequence, slice, out)? {
            return Ok(false);
        }
        if self.request().refusals && !self.send_refusals(sequence, slice, out)? {
            return Ok(false);
        }
        self.end_properties(self.sent, slice.capabilities, slice.scratch);
        if self.request().replica {
            replica_properties(sequence, slice);
        }
        if self.request().refusals {
            slice.scratch.push("refusals", slice.refused.count());
            if let Some(until) = slice.refused.forgotten_until() {
                slice.scratch.push("refusals_forgotten", until);
            }
        }
        kthxbai(sequence, slice.scratch.as_properties(), &self.request().subtree)
            .with_frames(|frames| out.reply(&self.asker.peer, frames))?;
        Ok(true)
    }

    /// One message of uuids that were applied up to `until`. True: all are sent.
    fn send_uuids(
        &mut self,
        until: Sequence,
        slice: &mut Slice<'_>,
        out: &mut impl BrokerOutbox,
    ) -> Result<bool, Halt> {
        let since = if self.is_delta() { self.from } else { Sequence::ZERO };
        let number = self.uuid.unwrap_or_else(|| slice.recent.number_after(since));
        let mut body = Vec::new();
        let next = slice.recent.write_records(number, UUIDS_AT_ONCE, until, slice.now, &mut body);
        if body.is_empty() {
            return Ok(true);
        }
        let properties = Properties::EMPTY;
        let message = KvMsg { key: UUIDS, sequence: until, uuid: None, properties, body: &body };
        message.with_frames(|frames| out.reply(&self.asker.peer, frames))?;
        self.uuid = Some(next);
        Ok(false)
    }

    /// One message of uuids that were refused. True: all are sent.
    fn send_refusals(
        &mut self,
        sequence: Sequence,
        slice: &mut Slice<'_>,
        out: &mut impl BrokerOutbox,
    ) -> Result<bool, Halt> {
        let mut body = Vec::new();
        let written =
            slice.refused.write_records(self.refusal, UUIDS_AT_ONCE, slice.now, &mut body);
        let Some((reason, next)) = written else { return Ok(true) };
        let properties = slice.scratch.clear().push("refused", reason).as_properties();
        let message = KvMsg { key: UUIDS, sequence, uuid: None, properties, body: &body };
        message.with_frames(|frames| out.reply(&self.asker.peer, frames))?;
        self.refusal = next;
        Ok(false)
    }

    /// The whole answer as one message, as a REQ must get it.
    fn send_whole(
        &mut self,
        slice: &mut Slice<'_>,
        limits: &SnapshotLimits,
        out: &mut impl BrokerOutbox,
    ) -> Result<bool, Halt> {
        let whole = match self.whole.take() {
            Some(whole) => whole,
            None => self.make_whole(slice, limits)?,
        };
        let whole = self.whole.insert(whole);
        out.reply(&self.asker.peer, &whole.frames())?;
        self.sent = whole.entries;
        Ok(true)
    }

    fn make_whole(&mut self, slice: &mut Slice<'_>, limits: &SnapshotLimits) -> Result<Flat, Halt> {
        let mut answer = Flat::default();
        answer.push(&[b""]);
        let (scratch, now) = (&mut *slice.scratch, slice.now);
        let walk = slice.store.walk(&mut self.cursor, usize::MAX, |entry| {
            if answer.bytes.len() > limits.whole_answer_bytes {
                return ControlFlow::Break(());
            }
            kvsync(&entry, now, scratch).with_frames(|frames| answer.push(frames));
            answer.entries += 1;
            ControlFlow::Continue(())
        });
        let sequence = match walk {
            Walk::Done(sequence) => sequence,
            Walk::Lost => return Err(LOST),
            Walk::More => {
                log::warn!(
                    "a REQ asked for a snapshot of over {} bytes, which must be one message; \
                     use a DEALER, or ask for a smaller subtree",
                    limits.whole_answer_bytes
                );
                return Err(Halt::Hopeless("too large for one message"));
            }
        };
        self.end_properties(answer.entries, slice.capabilities, slice.scratch);
        kthxbai(sequence, slice.scratch.as_properties(), &self.request().subtree)
            .with_frames(|frames| answer.push(frames));
        Ok(answer)
    }

    fn end_properties(
        &self,
        count: u64,
        capabilities: &PropertiesBuf,
        scratch: &mut PropertiesBuf,
    ) {
        scratch.clear();
        scratch.copy_except(capabilities.as_properties(), &[]);
        scratch.push("mode", if self.is_delta() { "delta" } else { "full" });
        scratch.push("from", self.from);
        scratch.push("count", count);
    }
}

/// The message for one entry; `scratch` takes its properties if it expires.
pub(in super::super) fn kvsync<'a>(
    entry: &Entry<'a>,
    now: Time,
    scratch: &'a mut PropertiesBuf,
) -> KvMsg<'a> {
    let properties = match entry.deadline {
        None => entry.properties,
        Some(deadline) => with_ttl(entry.properties, deadline.since(now), scratch),
    };
    KvMsg {
        key: entry.key,
        sequence: entry.sequence,
        uuid: entry.uuid,
        properties,
        body: entry.value,
    }
}

/// What a broker must know beside, to take over the history with the state.
fn replica_properties(sequence: Sequence, slice: &mut Slice<'_>) {
    let mut lineage = slice.lineage.clone();
    lineage.extend(sequence);
    let to = &mut *slice.scratch;
    to.push("floor", slice.store.history_floor());
    // Keys that changed behind the end of the walk are as they were, or missing.
    to.push("whole", slice.store.sequence());
    to.push("forgotten", slice.recent.forgotten_until());
    to.push("root", lineage.root());
    to.push("lineage", lineage.spans());
}

fn kthxbai<'a>(sequence: Sequence, properties: Properties<'a>, subtree: &'a [u8]) -> KvMsg<'a> {
    KvMsg { key: KTHXBAI, sequence, uuid: None, properties, body: subtree }
}

/// Frames one behind the other in one buffer.
#[derive(Debug, Default)]
struct Flat {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// KVSYNCs among them.
    entries: u64,
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
