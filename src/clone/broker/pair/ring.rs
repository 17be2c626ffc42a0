//! Changes that came while the broker was passive: of RFC 12 clients, which send
//! each change to both brokers, and of whoever has not noticed yet.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::super::owned::Owned;
use super::super::{Broker, BrokerOutbox, warn_rarely};
use super::stats::PairStats;
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{KvMsg, Uuid, check_key};
use crate::clone::pair::PairConfig;
use crate::clone::sequence::Sequence;
use crate::message::Message;
use crate::time::Time;

#[derive(Debug)]
pub(super) struct Ring {
    changes: VecDeque<Held>,
    bytes: usize,
    max_count: usize,
    max_bytes: usize,
    max_age: Duration,
    /// Whom we follow, and how far that one was heard to be: our copy may still be behind.
    heard: (u64, Sequence),
}

#[derive(Debug)]
struct Held {
    change: Owned,
    at: Time,
    /// Where the copy of the active's state was when it came.
    position: Sequence,
    /// Where the active was then, as far as it was heard.
    heard: Sequence,
    /// Up to here that state did not have it, as far as its uuids tell; `None`: it had it. By
    /// the time it would be applied the uuid may be forgotten.
    absent_until: Option<Sequence>,
}

/// Whether a change that was kept is to be applied.
enum Standing {
    New,
    /// The active had it, or something newer.
    Known,
    /// The active may have had it, and that is forgotten.
    Doubtful,
}

impl Ring {
    pub(super) fn new(config: &PairConfig) -> Ring {
        Ring {
            changes: VecDeque::new(),
            bytes: 0,
            max_count: config.ring_count,
            max_bytes: config.ring_bytes,
            max_age: config.ring_age,
            heard: (0, Sequence::ZERO),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    fn push(&mut self, held: Held, stats: &mut PairStats) {
        self.bytes += held.change.size();
        self.changes.push_back(held);
        while self.changes.len() > self.max_count || self.bytes > self.max_bytes {
            self.pop(stats);
            warn_rarely(stats.ring_dropped, "change dropped", &"too many are kept while passive");
        }
    }

    fn pop(&mut self, stats: &mut PairStats) {
        if let Some(held) = self.changes.pop_front() {
            self.bytes -= held.change.size();
            stats.ring_dropped += 1;
        }
    }

    /// The one that we follow was heard to be there: what it has changed up to here it has
    /// changed before what comes from now on.
    pub(super) fn hear(&mut self, node: u64, position: Sequence) {
        if self.heard.0 != node {
            // The numbers of another may be higher.
            self.changes.iter_mut().for_each(|held| held.heard = Sequence::ZERO);
            self.heard = (node, Sequence::ZERO);
        }
        self.heard.1 = self.heard.1.max(position);
    }

    /// The state is given up for another one, which is at `position`: what the former had
    /// that one need not have, and its numbers say nothing there but for those up to the `fork`.
    pub(super) fn begin_anew(&mut self, fork: Sequence, position: Sequence) {
        for held in &mut self.changes {
            held.position = position;
            held.absent_until = Some(held.absent_until.unwrap_or_default().min(fork));
        }
    }

    /// Who sent what has grown too old has sent it again by now.
    pub(super) fn forget_old(&mut self, now: Time, stats: &mut PairStats) {
        while self.changes.front().is_some_and(|held| now.since(held.at) > self.max_age) {
            self.pop(stats);
        }
    }
}

impl Broker {
    /// Keeps a change that came while the broker is not active.
    pub(in super::super) fn keep_change(&mut self, now: Time, message: Message<'_>) {
        let position = self.sequence;
        let change = match KvMsg::decode(message, &self.config.limits) {
            Ok(change) if check_key(change.key, &self.config.limits).is_ok() => change,
            _ => {
                self.stats.changes_malformed += 1;
                let why = "malformed, or of a reserved key, while passive";
                return warn_rarely(self.stats.changes_malformed, "change dropped", &why);
            }
        };
        let absent_until = match change.uuid.filter(|uuid| self.is_known(uuid)) {
            Some(_) => None,
            None if self.may_be_a_forgotten_repeat(&change) => Some(Sequence::ZERO),
            None => Some(position),
        };
        let Some(pair) = self.pair.as_deref_mut() else { return };
        pair.ring.forget_old(now, &mut pair.stats);
        if change.uuid.is_none() {
            // Nothing would tell whether the active has applied it.
            pair.stats.ring_dropped += 1;
            let why = "it has no uuid, and the broker is passive";
            return warn_rarely(pair.stats.ring_dropped, "change dropped", &why);
        }
        pair.stats.ring_kept += 1;
        let (change, heard) = (Owned::new(&change), pair.ring.heard.1);
        let held = Held { change, at: now, position, heard, absent_until };
        pair.ring.push(held, &mut pair.stats);
    }

    fn is_known(&self, uuid: &Uuid) -> bool {
        self.recent.get(uuid).is_some() || self.refused.get(uuid).is_some()
    }

    /// What a change that was kept is to the state as it is now.
    fn standing(&self, held: &Held) -> Standing {
        let change = held.change.kvmsg();
        let Some(absent_until) = held.absent_until else { return Standing::Known };
        let position = held.position.max(held.heard);
        let is_older = self.store.changed(change.key).is_some_and(|last| last > position);
        if is_older || change.uuid.is_some_and(|uuid| self.is_known(&uuid)) {
            return Standing::Known;
        }
        let absent_until = self.first_sent(&change).unwrap_or_default().max(absent_until);
        match self.may_have_forgotten(absent_until) {
            true => Standing::Doubtful,
            false => Standing::New,
        }
    }

    /// At a promotion: applies what the old active did not get to.
    pub(super) fn apply_ring(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        pair.ring.forget_old(now, &mut pair.stats);
        pair.ring.bytes = 0;
        let kept = std::mem::take(&mut pair.ring.changes);
        // By the state as the active left it, which none of them changes for those behind it.
        let mut names = HashSet::new();
        let mut new = Vec::new();
        for held in kept {
            match self.standing(&held) {
                Standing::New if names.insert(held.change.kvmsg().uuid) => new.push(held),
                Standing::New | Standing::Known => self.count(|stats| stats.ring_known += 1),
                Standing::Doubtful => self.drop_doubtful(),
            }
        }
        if Fault::ForgetTheRing.is_planted() {
            return;
        }
        for held in new {
            self.apply_held(now, &held, out);
        }
    }

    fn drop_doubtful(&mut self) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        pair.stats.ring_dropped += 1;
        let why = "whether the former active applied it is forgotten";
        warn_rarely(pair.stats.ring_dropped, "change dropped", &why);
    }

    fn apply_held(&mut self, now: Time, held: &Held, out: &mut impl BrokerOutbox) {
        let change = held.change.kvmsg();
        let ttl = self.read_ttl(change.properties);
        let left = ttl.map(|ttl| ttl.saturating_sub(now.since(held.at)));
        // One kept before it may be the later one of its sender.
        let order = self.order_of(&change);
        if left == Some(Duration::ZERO) || self.is_overtaken(&change, order) {
            return self.count(|stats| stats.ring_known += 1);
        }
        match self.apply(now, &change, left, out) {
            Ok(()) => self.count(|stats| stats.ring_applied += 1),
            Err(reason) => {
                self.count(|stats| stats.ring_dropped += 1);
                warn_rarely(self.stats.changes_store_full, "change dropped", &reason);
            }
        }
    }

    pub(super) fn count(&mut self, count: impl FnOnce(&mut PairStats)) {
        if let Some(pair) = self.pair.as_deref_mut() {
            count(&mut pair.stats);
        }
    }
}
