//! The uuids of recent changes, so that a repeated change has no second effect.

mod runs;
mod senders;
mod transfer;

pub(super) use self::senders::Order;
pub(super) use self::transfer::RECORD;

use std::collections::VecDeque;
use std::time::Duration;

use self::runs::{Entry, Runs};
use self::senders::Senders;
use crate::clone::kvmsg::Uuid;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// More could not be told apart by 32 bits.
const MAX_COUNT: usize = 1 << 30;

/// Entries to a list, on average, if the ring is full: so few lists that they stay in the cache.
const LIST: usize = 256;

/// How many entries of a list are looked through.
const MAX_STEPS: usize = 1024;

/// A window of applied uuids, bounded by count and by age.
///
/// It also knows whether a change that comes late was overtaken by a later one of its sender to
/// the same key. By the highest number of each sender nearly all are seen to come in their
/// order. Only for the others one has to look through the changes of the sender to the key:
/// they are in one list, each linked to the one before it, with a few of others. To put one more
/// in front costs a write there and one to the entry.
#[derive(Debug)]
pub(super) struct Recent {
    entries: Runs,
    /// Of each entry its key.
    keys: VecDeque<Key>,
    /// The running number of the youngest entry of each list, a power of two of them.
    lists: Vec<u32>,
    senders: Senders,
    /// Up to here an entry may bear a higher sequence than its key had by it.
    adopted_until: Sequence,
    /// Whether others know the keys by the same hashes.
    is_shared: bool,
    max_count: usize,
    max_age: Duration,
    /// When the first entry is too old.
    first_until: Time,
    /// The sequence of the youngest entry that had to leave: of changes that may
    /// have been applied up to here one cannot say that they are new.
    forgotten_until: Sequence,
}

/// A key in four bytes: see [`Recent::key_hash`].
pub(super) type KeyHash = u32;

/// The same in each broker. FNV-1a, folded: two keys of a window share one by accident once in
/// four billion pairs.
pub(super) fn key_hash(key: &[u8]) -> KeyHash {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as u32
}

/// The key of an entry, as a hash, by which one tells what replaced it.
#[derive(Debug, Clone, Copy)]
struct Key {
    hash: KeyHash,
    /// The running number of the entry before it in its list; its own if there is none.
    older: u32,
    /// The running number of its run.
    run: u32,
}

impl Recent {
    /// One that is shared knows keys by the hashes that the others of its kind have.
    pub(super) fn new(max_count: usize, max_age: Duration, is_shared: bool) -> Recent {
        let max_count = max_count.clamp(1, MAX_COUNT);
        Recent {
            entries: Runs::new(max_count),
            keys: VecDeque::new(),
            lists: Vec::new(),
            senders: Senders::new(),
            adopted_until: Sequence::ZERO,
            is_shared,
            max_count,
            max_age,
            first_until: Time::NEVER,
            forgotten_until: Sequence::ZERO,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many it remembers at most: one at least.
    pub(super) fn max_count(&self) -> usize {
        self.max_count
    }

    /// The sequence under which a change with this uuid was applied.
    pub(super) fn get(&self, uuid: &Uuid) -> Option<Sequence> {
        self.entries.find(uuid)
    }

    /// When the first change after `since` came that has a uuid and is remembered.
    pub(super) fn first_after(&self, since: Sequence) -> Option<Time> {
        self.entries.get(self.entries.index_after(since)).map(|entry| entry.at)
    }

    /// When the last change came that has a uuid.
    pub(super) fn last_at(&self) -> Option<Time> {
        self.entries.last().map(|last| last.at)
    }

    /// Whether a change may have been applied and forgotten, of which it is only
    /// known that it was not applied up to `known`.
    pub(super) fn may_have_forgotten(&self, known: Sequence) -> bool {
        known < self.forgotten_until
    }

    /// Whether a change can come behind a later one of its sender.
    #[inline]
    pub(super) fn order(&mut self, uuid: &Uuid) -> Order {
        match uuid.numbering() {
            Some((seed, number)) => self.senders.order(seed, number),
            None => Order::Unnumbered,
        }
    }

    /// Whether a later change of the same sender to this key is remembered, which was last
    /// changed at `changed`, as far as the first entries of its list tell.
    pub(super) fn has_later(&self, uuid: &Uuid, key: KeyHash, changed: Sequence) -> bool {
        let Some((seed, _)) = uuid.numbering() else { return false };
        let Some(&youngest) = self.lists.get(self.list(seed, key)) else { return false };
        // What is younger is of another key with the same hash.
        let until = changed.max(self.adopted_until);
        let mut number = youngest;
        for _ in 0..MAX_STEPS {
            let index = number.wrapping_sub(self.entries.first_number()) as usize;
            let Some(found) = self.keys.get(index) else { return false };
            if found.hash == key
                && let Some(entry) = self.entries.entry(found.run, number)
                && entry.sequence <= until
                && uuid.is_before(&entry.uuid)
            {
                return true;
            }
            if found.older == number {
                return false;
            }
            number = found.older;
        }
        false
    }

    /// The list of a sender's changes to a key.
    #[inline]
    fn list(&self, seed: u64, key: KeyHash) -> usize {
        let hash = (seed ^ u64::from(key)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 32) as usize & self.lists.len().wrapping_sub(1)
    }

    /// A key as the entries have it. If nobody else has to know it, that is by the hash which
    /// the store has of it; one that others know, too, takes longer.
    #[inline]
    pub(super) fn key_hash(&self, key: &[u8], stored: u64) -> KeyHash {
        if self.is_shared { key_hash(key) } else { stored as KeyHash }
    }

    /// Remembers a change that was applied now, of which it does not know.
    pub(super) fn insert(&mut self, uuid: Uuid, sequence: Sequence, key: KeyHash, now: Time) {
        while self.entries.len() >= self.max_count || now > self.first_until {
            self.forget_oldest();
        }
        if self.lists.is_empty() {
            self.reserve();
        }
        let first = self.entries.first_number();
        let number = first.wrapping_add(self.entries.len() as u32);
        let run = self.entries.push(Entry { uuid, sequence, at: now });
        if self.entries.len() == 1 {
            self.first_until = now + self.max_age;
        }
        let mut older = number;
        if let Some((seed, highest)) = uuid.numbering() {
            self.senders.insert(seed, highest);
            let list = self.list(seed, key);
            let last = std::mem::replace(&mut self.lists[list], number);
            // One that has left may have a number that is in use again.
            if (last.wrapping_sub(first) as usize) < self.keys.len() {
                older = last;
            }
        }
        self.keys.push_back(Key { hash: key, older, run });
    }

    #[cold]
    fn reserve(&mut self) {
        // All at once, for to grow it later would hold everything up. The system
        // gives the memory as it is used.
        self.keys.reserve_exact(self.max_count);
        let lists = self.max_count.div_ceil(LIST).next_power_of_two();
        self.lists.resize(lists, self.entries.first_number().wrapping_sub(1));
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.entries.pop() else { return };
        self.keys.pop_front();
        self.first_until = self.entries.first_at().map_or(Time::NEVER, |at| at + self.max_age);
        // Of another's window even younger ones may be missing.
        self.forgotten_until = self.forgotten_until.max(oldest.sequence);
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
        let mut recent = Recent::new(3, Duration::from_secs(60), true);
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
        let (count, age) = (if cfg!(miri) { 50 } else { 1000 }, Duration::from_secs(60));
        let mut recent = Recent::new(count, age, true);
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
            recent = Recent::new(count, age, true);
        }
    }

    #[test]
    fn numbers_may_wrap() {
        let mut recent = Recent::new(3, Duration::from_secs(60), true);
        recent.entries.start_at(u32::MAX - 1);
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
        let mut recent = Recent::new(100, Duration::from_secs(10), true);
        recent.insert(uuid(1), Sequence::new(1, 1), 0, at(0));
        recent.insert(uuid(2), Sequence::new(1, 2), 0, at(5));
        assert!(!recent.may_have_forgotten(Sequence::ZERO));
        recent.insert(uuid(3), Sequence::new(1, 3), 0, at(11));
        assert!(recent.may_have_forgotten(Sequence::ZERO));
        assert_eq!(recent.get(&uuid(1)), None);
        assert_eq!(recent.get(&uuid(2)), Some(Sequence::new(1, 2)));
    }

    fn numbered(seed: u64, number: u64) -> Uuid {
        Uuid::numbered(seed, number)
    }

    #[test]
    fn a_later_change_to_the_key_is_found() {
        let mut recent = Recent::new(1000, Duration::from_secs(60), false);
        let [a, b] = [&b"/a"[..], b"/b"].map(key_hash);
        for (n, (uuid, key)) in (1..).zip([
            (numbered(7, 5), a),
            (numbered(8, 20), a),
            (uuid(3), a),
            (numbered(7, 9), b),
            (numbered(7, 3), a),
        ]) {
            recent.insert(uuid, Sequence::new(1, n), key, at(n));
        }
        let changed = Sequence::new(1, 5);
        assert!(recent.has_later(&numbered(7, 4), a, changed));
        assert!(recent.has_later(&numbered(7, 2), a, changed));
        assert!(recent.has_later(&numbered(7, 8), b, changed));
        assert!(!recent.has_later(&numbered(7, 5), a, changed), "it is itself the last");
        assert!(!recent.has_later(&numbered(7, 6), a, changed));
        assert!(!recent.has_later(&numbered(9, 1), a, changed), "another sender");
        assert!(!recent.has_later(&uuid(1), a, changed), "one that is not numbered");
        // The key was not changed by that one, but has its hash.
        assert!(!recent.has_later(&numbered(7, 8), b, Sequence::new(1, 3)));
        assert_eq!(recent.order(&numbered(7, 10)), Order::Last);
        assert_eq!(recent.order(&numbered(7, 8)), Order::Late);
        assert_eq!(recent.order(&uuid(9)), Order::Unnumbered);
    }

    #[test]
    fn a_later_change_is_found_as_long_as_it_is_in_the_window() {
        let mut recent = Recent::new(64, Duration::from_secs(60), true);
        recent.entries.start_at(u32::MAX - 100);
        for n in 0..if cfg!(miri) { 150 } else { 1000 } {
            // Of two senders to 40 keys, in turn; three quarters are in the window.
            let (seed, key) = (n % 2, n as KeyHash % 40);
            recent.insert(numbered(seed, n + 1), Sequence::new(1, n + 1), key, at(0));
            let changed = Sequence::new(1, n + 1);
            for back in (0..100.min(n)).step_by(if cfg!(miri) { 9 } else { 1 }) {
                let (seed, key) = ((n - back) % 2, (n - back) as KeyHash % 40);
                // The last change of that sender to that key, which is younger if there was one.
                let last = n - back % 40;
                let is_there = recent.has_later(&numbered(seed, last), key, changed);
                assert!(is_there, "{n} {back}");
                let is_later = recent.has_later(&numbered(seed, last + 1), key, changed);
                assert!(!is_later, "{n} {back}");
            }
        }
        // Those of keys that were not changed for longer have left.
        for n in 0..64 {
            recent.insert(numbered(5, n + 1), Sequence::new(2, n), 1, at(0));
        }
        assert!(!recent.has_later(&numbered(0, 1), 0, Sequence::new(2, 64)));
    }

    #[test]
    fn a_list_is_looked_through_so_far_and_no_further() {
        let mut recent = Recent::new(4 * MAX_STEPS, Duration::from_secs(60), true);
        recent.insert(numbered(1, 2), Sequence::new(1, 1), 77, at(0));
        assert_eq!(recent.lists.len(), 4 * MAX_STEPS / LIST);
        // Another key of the sender that is in the same list.
        let other = (78..).find(|&key| recent.list(1, key) == recent.list(1, 77)).unwrap();
        for n in 2..=MAX_STEPS as u64 {
            recent.insert(numbered(1, n + 1), Sequence::new(1, n), other, at(0));
        }
        let changed = Sequence::new(1, 2 * MAX_STEPS as u64);
        assert!(recent.has_later(&numbered(1, 1), 77, changed));
        let one_more = numbered(1, 2 * MAX_STEPS as u64);
        recent.insert(one_more, changed, other, at(0));
        assert!(!recent.has_later(&numbered(1, 1), 77, changed));
        assert!(recent.has_later(&numbered(1, 1), other, changed));
    }
}
