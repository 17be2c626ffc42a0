//! The uuids of recent changes, so that a repeated change has no second effect.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use crate::clone::kvmsg::Uuid;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// A window of applied uuids, bounded by count and by age.
///
/// Entries lie in a ring in order of arrival; the table holds their running
/// numbers only. After start-up nothing is allocated.
#[derive(Debug)]
pub(super) struct Recent {
    ring: VecDeque<Applied>,
    /// Running number of the entry at the front of the ring.
    first: u64,
    /// Running numbers, found by the uuid of the entry.
    table: HashTable<u64>,
    hasher: DefaultHashBuilder,
    max_count: usize,
    max_age: Duration,
    /// When the youngest entry that had to leave was applied: of changes older
    /// than this one cannot say that they are new.
    forgotten_until: Option<Time>,
}

#[derive(Debug, Clone, Copy)]
struct Applied {
    uuid: Uuid,
    sequence: Sequence,
    at: Time,
}

impl Recent {
    pub(super) fn new(max_count: usize, max_age: Duration) -> Recent {
        Recent {
            ring: VecDeque::new(),
            first: 0,
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            max_count: max_count.max(1),
            max_age,
            forgotten_until: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    /// The sequence under which a change with this uuid was applied.
    pub(super) fn get(&self, uuid: &Uuid) -> Option<Sequence> {
        let (ring, first) = (&self.ring, self.first);
        let at = |number: u64| &ring[(number - first) as usize];
        self.table
            .find(self.hasher.hash_one(uuid), |&number| at(number).uuid == *uuid)
            .map(|&number| at(number).sequence)
    }

    /// Whether a change first sent at `sent` may have been applied and
    /// forgotten since.
    pub(super) fn may_have_forgotten(&self, sent: Time) -> bool {
        self.forgotten_until.is_some_and(|until| sent <= until)
    }

    /// Remembers a change that was applied now.
    pub(super) fn insert(&mut self, uuid: Uuid, sequence: Sequence, now: Time) {
        while self.ring.len() >= self.max_count
            || self.ring.front().is_some_and(|oldest| now.since(oldest.at) > self.max_age)
        {
            self.forget_oldest();
        }
        let number = self.first + self.ring.len() as u64;
        self.ring.push_back(Applied { uuid, sequence, at: now });
        let (ring, first, hasher) = (&self.ring, self.first, &self.hasher);
        self.table.insert_unique(hasher.hash_one(uuid), number, |&number| {
            hasher.hash_one(ring[(number - first) as usize].uuid)
        });
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.ring.pop_front() else { return };
        let number = self.first;
        self.first += 1;
        self.forgotten_until = Some(oldest.at);
        let found =
            self.table.find_entry(self.hasher.hash_one(oldest.uuid), |&other| other == number);
        if let Ok(entry) = found {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(n: u8) -> Uuid {
        Uuid::from_bytes([n; 16])
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn remembers_up_to_the_count() {
        let mut recent = Recent::new(3, Duration::from_secs(60));
        for n in 0..5 {
            recent.insert(uuid(n), Sequence::new(1, n.into()), at(n.into()));
        }
        assert_eq!(recent.len(), 3);
        assert_eq!(recent.get(&uuid(1)), None);
        assert_eq!(recent.get(&uuid(2)), Some(Sequence::new(1, 2)));
        assert!(recent.may_have_forgotten(at(1)));
        assert!(!recent.may_have_forgotten(at(2)));
    }

    #[test]
    fn remembers_up_to_the_age() {
        let mut recent = Recent::new(100, Duration::from_secs(10));
        recent.insert(uuid(1), Sequence::new(1, 1), at(0));
        recent.insert(uuid(2), Sequence::new(1, 2), at(5));
        assert!(!recent.may_have_forgotten(at(0)));
        recent.insert(uuid(3), Sequence::new(1, 3), at(11));
        assert_eq!(recent.get(&uuid(1)), None);
        assert_eq!(recent.get(&uuid(2)), Some(Sequence::new(1, 2)));
    }
}
