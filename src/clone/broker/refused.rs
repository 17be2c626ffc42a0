//! The uuids of changes that were refused, so that no copy of one takes effect later.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::clone::kvmsg::Uuid;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// Refusals remembered: of a client that sends into a full store, each change.
const MAX_COUNT: usize = 65_536;

/// A window of refused uuids, bounded by count and by age.
///
/// A client sends a change again when its answer is late. If the first copy was
/// refused because the store was full, and the second finds room, it must be refused
/// all the same: its sender has been told that it has no effect.
#[derive(Debug)]
pub(super) struct Refused {
    by_uuid: HashMap<Uuid, &'static str>,
    /// In order of refusal, with the sequence given last before it.
    order: VecDeque<(Uuid, Sequence, Time)>,
    max_age: Duration,
    /// Of changes first sent when no more than this was known one cannot say that
    /// they were never refused.
    forgotten_until: Option<Sequence>,
}

impl Refused {
    pub(super) fn new(max_age: Duration) -> Refused {
        Refused { by_uuid: HashMap::new(), order: VecDeque::new(), max_age, forgotten_until: None }
    }

    /// Why a change with this uuid was refused.
    #[inline]
    pub(super) fn get(&self, uuid: &Uuid) -> Option<&'static str> {
        // Mostly there is none.
        if self.by_uuid.is_empty() {
            return None;
        }
        self.by_uuid.get(uuid).copied()
    }

    /// Whether a change may have been refused and forgotten, which was first sent
    /// when its client knew of `known`.
    pub(super) fn may_have_forgotten(&self, known: Sequence) -> bool {
        self.forgotten_until.is_some_and(|until| known <= until)
    }

    /// Remembers a change that was refused now; `last` is the sequence given last.
    pub(super) fn insert(&mut self, uuid: Uuid, reason: &'static str, last: Sequence, now: Time) {
        if self.by_uuid.contains_key(&uuid) {
            return;
        }
        while self.order.len() >= MAX_COUNT
            || self.order.front().is_some_and(|&(_, _, at)| now.since(at) > self.max_age)
        {
            let Some((oldest, sequence, _)) = self.order.pop_front() else { break };
            self.by_uuid.remove(&oldest);
            self.forgotten_until = Some(sequence);
        }
        self.by_uuid.insert(uuid, reason);
        self.order.push_back((uuid, last, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(n: u32) -> Uuid {
        Uuid::from_bytes(u128::from(n).to_be_bytes())
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn remembers_up_to_the_age_and_knows_what_it_forgot() {
        let mut refused = Refused::new(Duration::from_secs(10));
        refused.insert(uuid(1), "full", Sequence::new(1, 5), at(0));
        refused.insert(uuid(2), "full", Sequence::new(1, 6), at(5));
        assert_eq!(refused.get(&uuid(1)), Some("full"));
        assert!(!refused.may_have_forgotten(Sequence::ZERO));
        refused.insert(uuid(3), "full", Sequence::new(1, 7), at(11));
        assert_eq!(refused.get(&uuid(1)), None);
        assert_eq!(refused.get(&uuid(2)), Some("full"));
        assert!(refused.may_have_forgotten(Sequence::new(1, 5)));
        assert!(!refused.may_have_forgotten(Sequence::new(1, 6)));
    }

    #[test]
    fn remembers_up_to_the_count() {
        let mut refused = Refused::new(Duration::from_secs(10));
        for n in 0..=MAX_COUNT as u32 {
            refused.insert(uuid(n), "full", Sequence::new(1, n.into()), at(0));
            refused.insert(uuid(n), "full", Sequence::new(1, n.into()), at(0));
        }
        assert_eq!(refused.order.len(), MAX_COUNT);
        assert_eq!(refused.by_uuid.len(), MAX_COUNT);
        assert_eq!(refused.get(&uuid(0)), None);
        assert!(refused.may_have_forgotten(Sequence::new(1, 0)));
        assert!(!refused.may_have_forgotten(Sequence::new(1, 1)));
    }
}
