//! [`Lookup`]: from a key to its slot.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Tables that the slots are spread over. A table that is full moves all it has
/// into twice the room; with many small ones no single change waits for that long.
const SHARDS: usize = 64;

/// A hash table of slot numbers. It is never iterated: its seed is random, and
/// nothing that others see may depend on it.
pub(super) struct Lookup {
    shards: Vec<HashTable<Place>>,
    hasher: DefaultHashBuilder,
}

/// A slot and half of its key's hash: enough to move it to a larger table
/// without going to see the key.
struct Place {
    hash: u32,
    slot: u32,
}

impl Lookup {
    pub(super) fn new() -> Lookup {
        Lookup {
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The slot with this hash that `is_it` says yes to.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let half = upper(hash);
        self.shards[shard(hash)]
            .find(within(half), |place| place.hash == half && is_it(place.slot))
            .map(|place| place.slot)
    }

    pub(super) fn insert(&mut self, hash: u64, slot: u32) {
        let half = upper(hash);
        let place = Place { hash: half, slot };
        self.shards[shard(hash)].insert_unique(within(half), place, |place| within(place.hash));
    }

    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let place =
            self.shards[shard(hash)].find_entry(within(upper(hash)), |place| place.slot == slot);
        if let Ok(place) = place {
            place.remove();
        }
    }

    /// How many slots it knows.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }
}

/// The lower half of a hash chooses the shard, the upper one is kept.
#[inline]
fn shard(hash: u64) -> usize {
    hash as usize % SHARDS
}

#[inline]
fn upper(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The hash within a shard: a table takes the place from the lower bits, and
/// what tells neighbours apart from the upper ones.
#[inline]
fn within(half: u32) -> u64 {
    u64::from(half) << 32 | u64::from(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_same_hash_are_told_apart() {
        let mut lookup = Lookup::new();
        let hash = lookup.hash(b"key");
        for slot in 0..100 {
            lookup.insert(hash, slot);
        }
        assert_eq!(lookup.find(hash, |slot| slot == 70), Some(70));
        lookup.remove(hash, 70);
        assert_eq!(lookup.find(hash, |slot| slot == 70), None);
        assert_eq!(lookup.find(hash, |slot| slot == 71), Some(71));
        assert_eq!(lookup.len(), 99);
    }

    #[test]
    fn growing_tables_lose_nothing() {
        let mut lookup = Lookup::new();
        let key = |slot: u32| slot.to_le_bytes();
        for slot in 0..20_000 {
            lookup.insert(lookup.hash(&key(slot)), slot);
        }
        for slot in 0..20_000 {
            let hash = lookup.hash(&key(slot));
            assert_eq!(lookup.find(hash, |found| found == slot), Some(slot));
        }
    }
}
