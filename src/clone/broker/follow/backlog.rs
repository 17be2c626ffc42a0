//! [`Backlog`]: what was published by whom we follow while a sync was under way.

use std::collections::VecDeque;

use super::FollowStats;
use crate::clone::broker::owned::Owned;
use crate::clone::broker::warn_rarely;
use crate::clone::kvmsg::KvMsg;
use crate::clone::sequence::Sequence;

/// How much may wait while a snapshot is under way.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct BacklogLimits {
    pub(in super::super) count: usize,
    pub(in super::super) bytes: usize,
}

impl BacklogLimits {
    pub(super) fn is_exceeded(self, count: usize, bytes: usize) -> bool {
        count > self.count || bytes > self.bytes
    }
}

/// Changes in the order in which they came, to be applied after the sync.
#[derive(Debug)]
pub(super) struct Backlog {
    changes: VecDeque<Owned>,
    bytes: usize,
    pub(super) limits: BacklogLimits,
    /// Not all of it could be kept: after the sync, the rest is asked for.
    is_cut: bool,
}

impl Backlog {
    pub(super) fn new(limits: BacklogLimits) -> Backlog {
        Backlog { changes: VecDeque::new(), bytes: 0, limits, is_cut: false }
    }

    pub(super) fn clear(&mut self) {
        self.changes.clear();
        (self.bytes, self.is_cut) = (0, false);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The same, and from now on it is not.
    pub(super) fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.is_cut)
    }

    /// Keeps a change. The oldest are kept: they are applied first.
    pub(super) fn keep(&mut self, kvmsg: &KvMsg<'_>, stats: &mut FollowStats) {
        let change = Owned::new(kvmsg);
        let (count, bytes) = (self.changes.len() + 1, self.bytes + change.size());
        if self.limits.is_exceeded(count, bytes) || self.is_cut {
            if !std::mem::replace(&mut self.is_cut, true) {
                stats.backlogs_cut += 1;
                let why = "more changes came meanwhile than may wait, the rest is asked for then";
                warn_rarely(stats.backlogs_cut, "sync is not the last", &why);
            }
            return;
        }
        self.bytes += change.size();
        self.changes.push_back(change);
    }

    /// The oldest, to be applied.
    pub(super) fn pop(&mut self) -> Option<Owned> {
        let change = self.changes.pop_front()?;
        self.bytes -= change.size();
        Some(change)
    }

    /// Whether each change after `end` is in it up to `whole`. `None`: one is
    /// missing, and will not come.
    pub(super) fn covers(&self, end: Sequence, whole: Sequence) -> Option<bool> {
        let last = self.changes.back().map_or(end, |last| last.sequence.max(end));
        if last < whole && !self.is_cut {
            return Some(false);
        }
        let mut reached = end;
        for change in self.changes.iter().filter(|change| change.sequence > end) {
            if reached >= whole {
                break;
            }
            if change.sequence != reached.next() {
                return None;
            }
            reached = change.sequence;
        }
        (reached >= whole).then_some(true)
    }
}
