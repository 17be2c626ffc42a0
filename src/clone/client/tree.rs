//! [`Tree`]: the live keys of one subtree, found by key and walked in order.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::{self, HashTable};

use super::order::Order;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// A key of the map, as its readers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value, never empty.
    pub value: &'a [u8],
    /// The sequence of the change that made it so.
    pub sequence: Sequence,
    deadline: Time,
}

impl Entry<'_> {
    /// How long the broker will still keep the key, as far as is known; `None`
    /// if it does not expire. Zero means that its deletion is on the way: only
    /// the broker deletes, so that all clients see the same.
    pub fn remaining(&self, now: Time) -> Option<Duration> {
        (self.deadline != Time::NEVER).then(|| self.deadline.since(now))
    }
}

/// What is kept with a key.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) value: Arc<[u8]>,
    pub(crate) sequence: Sequence,
    /// When the broker will delete it, `NEVER` if it will not.
    pub(crate) deadline: Time,
}

impl Record {
    fn write(&mut self, value: &[u8], sequence: Sequence, deadline: Time) {
        match Arc::get_mut(&mut self.value) {
            // Nobody else holds the old value: no allocation for the new one.
            Some(old) if old.len() == value.len() => old.copy_from_slice(value),
            _ => self.value = Arc::from(value),
        }
        self.sequence = sequence;
        self.deadline = deadline;
    }
}

/// A key and its value, as the tree and its readers share them.
pub(crate) type Shared = (Arc<[u8]>, Arc<[u8]>);

/// A place in the table.
#[derive(Debug)]
struct Slot {
    /// Kept so that a table that grows need not look at every key.
    hash: u64,
    key: Arc<[u8]>,
    record: Record,
}

/// The keys of one subtree.
///
/// A hash table finds a key, a list beside it keeps the order; the list is
/// touched only when a key comes or goes. The table is never iterated, so
/// nothing depends on the random state of its hasher.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    slots: HashTable<Slot>,
    hasher: DefaultHashBuilder,
    order: Order,
    bytes: usize,
}

impl Tree {
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of all keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn slot(&self, key: &[u8]) -> Option<&Slot> {
        let hash = self.hasher.hash_one(key);
        self.slots.find(hash, |slot| slot.hash == hash && *slot.key == *key)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Record> {
        self.slot(key).map(|slot| &slot.record)
    }

    pub(crate) fn entry(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.slot(key).map(entry)
    }

    /// Writes a value, unless what is there is as new; gives the key and value
    /// as the tree shares them, or the sequence of what is there.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        sequence: Sequence,
        deadline: Time,
    ) -> Result<Shared, Sequence> {
        let hash = self.hasher.hash_one(key);
        let is_it = |slot: &Slot| slot.hash == hash && *slot.key == *key;
        match self.slots.entry(hash, is_it, |slot| slot.hash) {
            hash_table::Entry::Occupied(mut found) => {
                let Slot { key, record, .. } = found.get_mut();
                if record.sequence >= sequence {
                    return Err(record.sequence);
                }
                self.bytes = self.bytes - record.value.len() + value.len();
                record.write(value, sequence, deadline);
                Ok((Arc::clone(key), Arc::clone(&record.value)))
            }
            hash_table::Entry::Vacant(free) => {
                let (key, value) = (Arc::<[u8]>::from(key), Arc::<[u8]>::from(value));
                self.bytes += key.len() + value.len();
                self.order.insert(&key);
                let record = Record { value: Arc::clone(&value), sequence, deadline };
                free.insert(Slot { hash, key: Arc::clone(&key), record });
                Ok((key, value))
            }
        }
    }

    /// Writes what another tree shares already, whatever is there.
    pub(crate) fn put_shared(&mut self, key: &Arc<[u8]>, record: Record) {
        let hash = self.hasher.hash_one(&**key);
        let is_it = |slot: &Slot| slot.hash == hash && slot.key == *key;
        self.bytes += record.value.len();
        match self.slots.entry(hash, is_it, |slot| slot.hash) {
            hash_table::Entry::Occupied(mut found) => {
                self.bytes -= found.get().record.value.len();
                found.get_mut().record = record;
            }
            hash_table::Entry::Vacant(free) => {
                self.bytes += key.len();
                self.order.insert(key);
                free.insert(Slot { hash, key: Arc::clone(key), record });
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<(Arc<[u8]>, Record)> {
        let removed = self.take(key)?;
        self.order.remove(key);
        Some(removed)
    }

    /// Takes the first key in order out.
    pub(crate) fn pop_first(&mut self) -> Option<(Arc<[u8]>, Record)> {
        let key = self.order.pop_first()?;
        self.take(&key)
    }

    fn take(&mut self, key: &[u8]) -> Option<(Arc<[u8]>, Record)> {
        let hash = self.hasher.hash_one(key);
        let is_it = |slot: &Slot| slot.hash == hash && *slot.key == *key;
        let (slot, _) = self.slots.find_entry(hash, is_it).ok()?.remove();
        self.bytes -= slot.key.len() + slot.record.value.len();
        Some((slot.key, slot.record))
    }

    pub(crate) fn first(&self) -> Option<&Arc<[u8]>> {
        self.order.first()
    }

    /// The keys behind `after` in order, all if it is `None`.
    pub(crate) fn keys_after(&self, after: Option<&[u8]>) -> impl Iterator<Item = &Arc<[u8]>> {
        self.order.from(move |key| after.is_some_and(|after| key <= after))
    }

    /// The entries whose keys begin with `prefix`, in order.
    pub(crate) fn iter<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = Entry<'a>> {
        self.order
            .from(move |key| key < prefix)
            .take_while(move |key| key.starts_with(prefix))
            .filter_map(|key| self.entry(key))
    }
}

fn entry(slot: &Slot) -> Entry<'_> {
    let Slot { key, record, .. } = slot;
    Entry { key, value: &record.value, sequence: record.sequence, deadline: record.deadline }
}
