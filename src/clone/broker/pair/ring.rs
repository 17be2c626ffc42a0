//! Changes that came while the broker was passive: of RFC 12 clients, which send
//! each change to both brokers, and of whoever has not noticed yet.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::{Broker, BrokerOutbox, warn_rarely};
use super::follow::Owned;
use super::stats::PairStats;
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{KvMsg, check_key};
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
}

#[derive(Debug)]
struct Held {
    change: Owned,
    at: Time,
    /// Where the copy of the active's state was when it came.
    position: Sequence,
}

impl Ring {
    pub(super) fn new(config: &PairConfig) -> Ring {
        Ring {
            changes: VecDeque::new(),
            bytes: 0,
            max_count: config.ring_count,
            max_bytes: config.ring_bytes,
            max_age: config.ring_age,
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
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let change = match KvMsg::decode(message, &self.config.limits) {
            Ok(change) if check_key(change.key, &self.config.limits).is_ok() => change,
            _ => {
                self.stats.changes_malformed += 1;
                let why = "malformed, or of a reserved key, while passive";
                return warn_rarely(self.stats.changes_malformed, "change dropped", &why);
            }
        };
        pair.ring.forget_old(now, &mut pair.stats);
        let Some(uuid) = change.uuid else {
            // Nothing would tell whether the active has applied it.
            pair.stats.ring_dropped += 1;
            let why = "it has no uuid, and the broker is passive";
            return warn_rarely(pair.stats.ring_dropped, "change dropped", &why);
        };
        pair.stats.ring_kept += 1;
        if self.recent.get(&uuid).is_some() {
            // By the time it would be applied that may be forgotten.
            pair.stats.ring_known += 1;
            return;
        }
        let held = Held { change: Owned::new(&change), at: now, position };
        pair.ring.push(held, &mut pair.stats);
    }

    /// At a promotion: applies what the old active did not get to.
    pub(super) fn apply_ring(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        pair.ring.forget_old(now, &mut pair.stats);
        pair.ring.bytes = 0;
        for held in std::mem::take(&mut pair.ring.changes) {
            if Fault::ForgetTheRing.is_planted() {
                continue;
            }
            let change = held.change.kvmsg();
            let is_known = change.uuid.is_some_and(|uuid| {
                self.recent.get(&uuid).is_some() || self.refused.get(&uuid).is_some()
            });
            let is_older =
                self.store.changed(change.key).is_some_and(|changed| changed > held.position);
            if is_known || is_older {
                self.count(|stats| stats.ring_known += 1);
                continue;
            }
            let ttl = self.read_ttl(change.properties);
            let left = ttl.map(|ttl| ttl.saturating_sub(now.since(held.at)));
            if left == Some(Duration::ZERO) {
                self.count(|stats| stats.ring_known += 1);
                continue;
            }
            match self.apply(now, &change, left, out) {
                Ok(()) => self.count(|stats| stats.ring_applied += 1),
                Err(reason) => {
                    self.count(|stats| stats.ring_dropped += 1);
                    warn_rarely(self.stats.changes_store_full, "change dropped", &reason);
                }
            }
        }
    }

    pub(super) fn count(&mut self, count: impl FnOnce(&mut PairStats)) {
        if let Some(pair) = self.pair.as_deref_mut() {
            count(&mut pair.stats);
        }
    }
}
