//! [`Slots`]: a slab whose keys carry a generation.

use std::fmt;

/// Names one occupied slot. Once its value is removed a key is *stale*, for
/// ever: the slot's next value has another generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl fmt::Debug for SlotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.index, self.generation)
    }
}

/// Values in numbered slots, found again by [`SlotKey`] in constant time.
///
/// Removing a value frees its slot for another one and changes the slot's
/// generation. A slot whose generations are used up (after 2^32 removals) is
/// retired instead of starting over, so no key is ever given out twice.
pub(crate) struct Slots<T> {
    entries: Vec<Entry<T>>,
    /// The first free slot; each free slot names the next.
    free: Option<u32>,
    len: usize,
}

struct Entry<T> {
    generation: u32,
    content: Content<T>,
}

enum Content<T> {
    Occupied(T),
    Free { next: Option<u32> },
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Slots<T> {
        Slots { entries: Vec::new(), free: None, len: 0 }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key that the next [`insert`](Slots::insert) will return. `None` if
    /// all of the 2^31 slots are in use.
    pub(crate) fn next_key(&self) -> Option<SlotKey> {
        match self.free {
            Some(index) => {
                Some(SlotKey { index, generation: self.entries[index as usize].generation })
            }
            // The top bit of an index stays free: a poll token has its tag there.
            None if self.entries.len() < 1 << 31 => {
                Some(SlotKey { index: self.entries.len() as u32, generation: 0 })
            }
            None => None,
        }
    }

    /// Puts `value` into a free slot; gives it back if there is none left.
    pub(crate) fn insert(&mut self, value: T) -> Result<SlotKey, T> {
        let Some(key) = self.next_key() else { return Err(value) };
        match self.entries.get_mut(key.index as usize) {
            Some(entry) => {
                let Content::Free { next } = entry.content else {
                    unreachable!("the free list holds free slots only")
                };
                self.free = next;
                entry.content = Content::Occupied(value);
            }
            None => {
                let content = Content::Occupied(value);
                self.entries.push(Entry { generation: key.generation, content });
            }
        }
        self.len += 1;
        Ok(key)
    }

    #[inline]
    pub(crate) fn get(&self, key: SlotKey) -> Option<&T> {
        match self.entries.get(key.index as usize) {
            Some(Entry { generation, content: Content::Occupied(value) })
                if *generation == key.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: SlotKey) -> Option<&mut T> {
        match self.entries.get_mut(key.index as usize) {
            Some(Entry { generation, content: Content::Occupied(value) })
                if *generation == key.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: SlotKey) -> Option<T> {
        self.get(key)?;
        let entry = &mut self.entries[key.index as usize];
        let retired = key.generation == u32::MAX;
        let next = if retired { None } else { self.free.replace(key.index) };
        entry.generation = if retired { key.generation } else { key.generation + 1 };
        self.len -= 1;
        match std::mem::replace(&mut entry.content, Content::Free { next }) {
            Content::Occupied(value) => Some(value),
            Content::Free { .. } => unreachable!("get() found the slot occupied"),
        }
    }

    /// The value in slot `index`, whatever its generation, with its key.
    pub(crate) fn at(&self, index: u32) -> Option<(SlotKey, &T)> {
        let entry = self.entries.get(index as usize)?;
        match &entry.content {
            Content::Occupied(value) => {
                Some((SlotKey { index, generation: entry.generation }, value))
            }
            Content::Free { .. } => None,
        }
    }

    /// All values, in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotKey, &T)> {
        (0..self.entries.len() as u32).filter_map(|index| self.at(index))
    }
}

impl<T> fmt::Debug for Slots<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(key, _)| key)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_key_dies_with_its_value() {
        let mut slots = Slots::new();
        let first = slots.insert("first").unwrap();
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second").unwrap();
        assert_eq!(second.index, first.index, "the slot is used again");
        assert_ne!(second, first);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
    }

    #[test]
    fn a_slot_without_generations_left_is_retired() {
        let mut slots = Slots::new();
        let first = slots.insert(1).unwrap();
        slots.entries[0].generation = u32::MAX;
        let last = SlotKey { generation: u32::MAX, ..first };
        assert_eq!(slots.remove(last), Some(1));
        assert_eq!(slots.get(last), None);
        let next = slots.insert(2).unwrap();
        assert_eq!(next.index, 1);
        assert_eq!(slots.get(last), None);
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_that_never_repeats_a_key(
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..200)
        ) {
            let mut slots = Slots::new();
            let mut model: HashMap<SlotKey, usize> = HashMap::new();
            let mut given: Vec<SlotKey> = Vec::new();
            for (number, (insert, which)) in steps.into_iter().enumerate() {
                if insert || given.is_empty() {
                    let expected = slots.next_key();
                    let key = slots.insert(number).unwrap();
                    prop_assert_eq!(Some(key), expected);
                    prop_assert!(!given.contains(&key));
                    given.push(key);
                    model.insert(key, number);
                } else {
                    let key = given[which.index(given.len())];
                    prop_assert_eq!(slots.remove(key), model.remove(&key));
                }
                prop_assert_eq!(slots.len(), model.len());
                for key in &given {
                    prop_assert_eq!(slots.get(*key), model.get(key));
                }
                prop_assert_eq!(slots.iter().count(), model.len());
            }
        }
    }
}
