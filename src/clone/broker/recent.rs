//! The uuids of recent changes, so that a repeated change has no second effect.

mod transfer;

pub(super) use self::transfer::RECORD;

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use crate::clone::kvmsg::Uuid;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// More could not be told apart by 32 bits.
const MAX_COUNT: usize = 1 << 30;

/// A window of applied uuids, bounded by count and by age.
///
/// Entries lie in a ring in order of arrival. The tables find them by their
/// running numbers, of which nothing is ever taken back one by one: what has
/// left the ring does not count, and when the younger table has seen a whole
/// ring of entries, the older one is cleared and takes its place. So a change
/// touches the memory of its own entry and hardly any other; with a million
/// entries that is most of what it costs. After start-up nothing is allocated.
#[derive(Debug)]
pub(super) struct Recent {
    ring: VecDeque<Applied>,
    /// Of each entry of the ring the key, as a hash, by which one tells what replaced it.
    keys: VecDeque<KeyHash>,
    /// Running number of the entry at the front of the ring, modulo 2^32.
    first: u32,
    young: HashTable<u32>,
    old: HashTable<u32>,
    hasher: DefaultHashBuilder,
    max_count: usize,
    max_age: Duration,
    /// The sequence of the youngest entry that had to leave: of changes that may
    /// have been applied up to here one cannot say that they are new.
    forgotten_until: Sequence,
}

/// A key in four bytes, the same in each broker: see [`key_hash`].
pub(super) type KeyHash = u32;

/// FNV-1a, folded: two keys of a window share one by accident once in four billion pairs.
pub(super) fn key_hash(key: &[u8]) -> KeyHash {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as u32
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
            keys: VecDeque::new(),
            first: 0,
            young: HashTable::new(),
            old: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            max_count: max_count.clamp(1, MAX_COUNT),
            max_age,
            forgotten_until: Sequence::ZERO,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    /// The sequence under which a change with this uuid was applied.
    pub(super) fn get(&self, uuid: &Uuid) -> Option<Sequence> {
        let hash = hash(&self.hasher, uuid);
        let find = |table: &HashTable<u32>| {
            let found = table
                .find(hash, |&number| self.entry(number).is_some_and(|entry| entry.uuid == *uuid));
            found.and_then(|&number| self.entry(number)).map(|entry| entry.sequence)
        };
        find(&self.young).or_else(|| find(&self.old))
    }

    /// When the first change after `since` came that has a uuid and is remembered.
    pub(super) fn first_after(&self, since: Sequence) -> Option<Time> {
        let index = self.ring.partition_point(|entry| entry.sequence <= since);
        self.ring.get(index).map(|entry| entry.at)
    }

    /// When the last change came that has a uuid.
    pub(super) fn last_at(&self) -> Option<Time> {
        self.ring.back().map(|last| last.at)
    }

    /// Whether a change may have been applied and forgotten, of which it is only
    /// known that it was not applied up to `known`.
    pub(super) fn may_have_forgotten(&self, known: Sequence) -> bool {
        known < self.forgotten_until
    }

    /// Remembers a change that was applied now, of which it does not know.
    pub(super) fn insert(&mut self, uuid: Uuid, sequence: Sequence, key: KeyHash, now: Time) {
        while self.ring.len() >= self.max_count
            || self.ring.front().is_some_and(|oldest| now.since(oldest.at) > self.max_age)
        {
            self.forget_oldest();
        }
        if self.young.len() >= self.max_count {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        let Recent { ring, keys, young, hasher, first, max_count, .. } = self;
        if young.capacity() < *max_count {
            // All at once, for to grow it later would hold everything up. The system
            // gives the memory as it is used.
            ring.reserve_exact(*max_count - ring.len());
            keys.reserve_exact(*max_count - keys.len());
            young.reserve(*max_count, |_| unreachable!("it is empty"));
        }
        let number = first.wrapping_add(ring.len() as u32);
        ring.push_back(Applied { uuid, sequence, at: now });
        keys.push_back(key);
        young.insert_unique(hash(hasher, &uuid), number, |_| unreachable!("it is large enough"));
    }

    /// The entry with this number, if it is still in the ring.
    fn entry(&self, number: u32) -> Option<&Applied> {
        self.ring.get(number.wrapping_sub(self.first) as usize)
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.ring.pop_front() else { return };
        self.keys.pop_front();
        self.first = self.first.wrapping_add(1);
        // Of another's window even younger ones may be missing.
        self.forget_until(oldest.sequence);
    }
}

/// A hash that puts uuids which differ only in their last 6 bits next to one
/// another: those of our clients are numbered, so that one after the other is
/// found in the same few cache lines. Which lines these are cannot be foreseen
/// without the hasher's seed.
#[inline]
fn hash(hasher: &DefaultHashBuilder, uuid: &Uuid) -> u64 {
    const RUN: u64 = 0x3f;
    let bits = u128::from_be_bytes(*uuid.as_bytes());
    let within = bits as u64 & RUN;
    let run = hasher.hash_one(bits >> RUN.count_ones());
    // The table takes the place from the lower bits, and tells those in one place
    // apart by the uppermost seven.
    ((run & !RUN) | within) ^ (within << 58)
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
            recent.insert(uuid(n), Sequence::new(1, n.into()), 0, at(n.into()));
        }
        assert_eq!(recent.len(), 3);
        assert_eq!(recent.get(&uuid(1)), None);
        assert_eq!(recent.get(&uuid(2)), Some(Sequence::new(1, 2)));
        assert!(recent.may_have_forgotten(Sequence::new(1, 0)));
        assert!(!recent.may_have_forgotten(Sequence::new(1, 1)), "1:1 is the last forgotten");
    }

    #[test]
    fn remembers_the_last_ones_and_not_one_more() {
        let (count, age) = (1000, Duration::from_secs(60));
        let mut recent = Recent::new(count, age);
        // Numbered ones and such as have nothing in common.
        for uuid_of in [|n: u128| n, |n: u128| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c)] {
            let uuid = |n: usize| Uuid::from_bytes(uuid_of(n as u128).to_be_bytes());
            for n in 1..5 * count {
                recent.insert(uuid(n), Sequence::new(2, n as u64), 0, at(0));
                assert_eq!(recent.get(&uuid(n)), Some(Sequence::new(2, n as u64)));
                if n >= count {
                    assert_eq!(recent.get(&uuid(n - count)), None, "{n}");
                    let oldest = n - count + 1;
                    assert_eq!(recent.get(&uuid(oldest)), Some(Sequence::new(2, oldest as u64)));
                }
            }
            recent = Recent::new(count, age);
        }
    }

    #[test]
    fn numbers_may_wrap() {
        let mut recent = Recent::new(3, Duration::from_secs(60));
        recent.first = u32::MAX - 1;
        for n in 0..9 {
            recent.insert(uuid(n), Sequence::new(1, n.into()), 0, at(0));
        }
        assert_eq!(recent.get(&uuid(5)), None);
        for n in 6..9 {
            assert_eq!(recent.get(&uuid(n)), Some(Sequence::new(1, n.into())));
        }
    }

    #[test]
    fn remembers_up_to_the_age() {
        let mut recent = Recent::new(100, Duration::from_secs(10));
        recent.insert(uuid(1), Sequence::new(1, 1), 0, at(0));
        recent.insert(uuid(2), Sequence::new(1, 2), 0, at(5));
        assert!(!recent.may_have_forgotten(Sequence::ZERO));
        recent.insert(uuid(3), Sequence::new(1, 3), 0, at(11));
        assert!(recent.may_have_forgotten(Sequence::ZERO));
        assert_eq!(recent.get(&uuid(1)), None);
        assert_eq!(recent.get(&uuid(2)), Some(Sequence::new(1, 2)));
    }
}
