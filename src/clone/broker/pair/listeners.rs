//! Who asked to be told of us: routing ids on port P, the peer's among them.

use std::time::Duration;

use smallvec::SmallVec;

use super::super::BrokerOutbox;
use crate::clone::SendFailure;
use crate::time::Time;

/// At most so many: the peer, and what it was before it lost its connection.
const MOST: usize = 4;

/// Who asks no more is forgotten after this long, or after a few intervals.
const FORGET_AFTER: Duration = Duration::from_secs(10);
const FORGET_INTERVALS: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// The one that asked last comes last.
    all: Vec<Listener>,
    told_at: Time,
}

#[derive(Debug)]
struct Listener {
    id: SmallVec<[u8; 16]>,
    /// What it calls itself. Nothing but answers hangs on it.
    node: u64,
    /// When it asked last, unless that has no time yet.
    asked: Option<Time>,
    is_new: bool,
    /// It wants each change.
    follows: bool,
}

impl Listeners {
    /// Somebody asked, and wants each change or does not. If there are too many, the one that
    /// asked least lately is forgotten, but not `follower`, which gets the changes.
    pub(super) fn hear(&mut self, id: &[u8], node: u64, follows: bool, follower: Option<&[u8]>) {
        let known = self.all.iter().position(|listener| *listener.id == *id);
        let is_new = known.is_none_or(|at| self.all[at].is_new);
        match known {
            Some(at) => drop(self.all.remove(at)),
            None if self.all.len() == MOST => {
                let is_other = |listener: &Listener| Some(&*listener.id) != follower;
                drop(self.all.iter().position(is_other).map(|at| self.all.remove(at)));
            }
            None => {}
        }
        self.all.push(Listener { id: id.into(), node, asked: None, is_new, follows });
    }

    /// Whether `id` is one that called itself `node`.
    pub(super) fn is(&self, id: &[u8], node: u64) -> bool {
        self.all.iter().any(|listener| *listener.id == *id && listener.node == node)
    }

    /// Under which id a broker wants each change: `current` if it asked under that less than
    /// `patience` ago, else the one under which it has asked last.
    pub(super) fn follower(
        &self,
        node: u64,
        current: Option<&[u8]>,
        (now, patience): (Time, Duration),
    ) -> Option<&[u8]> {
        let is_follower = |listener: &&Listener| listener.follows && listener.node == node;
        let mut followers = self.all.iter().filter(is_follower);
        let is_current = |listener: &&Listener| {
            Some(&*listener.id) == current && now.since(listener.asked.unwrap_or(now)) < patience
        };
        let follower = followers.clone().find(is_current).or_else(|| followers.next_back());
        follower.map(|listener| &*listener.id)
    }

    /// Forgets those who ask no more. True: there was one.
    pub(super) fn tend(&mut self, now: Time, interval: Duration) -> bool {
        let patience = FORGET_AFTER.max(interval * FORGET_INTERVALS);
        let before = self.all.len();
        self.all.retain_mut(|listener| now.since(*listener.asked.get_or_insert(now)) < patience);
        self.all.len() < before
    }

    /// At once if somebody waits to hear of us for the first time.
    pub(super) fn deadline(&self) -> Time {
        if self.waits() { Time::ZERO } else { Time::NEVER }
    }

    /// Whether somebody does.
    pub(super) fn waits(&self) -> bool {
        self.all.iter().any(|listener| listener.is_new)
    }

    /// When all were told last.
    pub(super) fn told_at(&self) -> Time {
        self.told_at
    }

    /// Tells all of them.
    pub(super) fn tell(&mut self, now: Time, frames: &[&[u8]], out: &mut impl BrokerOutbox) {
        self.told_at = now;
        self.all.retain_mut(|listener| {
            listener.is_new = false;
            out.reply(&listener.id, frames) != Err(SendFailure::Unreachable)
        });
    }
}
