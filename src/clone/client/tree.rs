//! [`Tree`]: the live keys of one subtree, found by key and walked in order.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;

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

/// The keys of one subtree.
///
/// A hash table finds a key, a set beside it keeps the order; the set is
/// touched only when a key comes or goes. The table is never iterated, so
/// nothing depends on the random state of its hasher.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    records: HashMap<Arc<[u8]>, Record>,
    order: BTreeSet<Arc<[u8]>>,
    bytes: usize,
}

impl Tree {
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Bytes of all keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Record> {
        self.records.get(key)
    }

    pub(crate) fn entry(&self, key: &[u8]) -> Option<Entry<'_>> {
        let (key, record) = self.records.get_key_value(key)?;
        Some(entry(key, record))
    }

    /// Writes a value; gives the key and value as the tree shares them.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        sequence: Sequence,
        deadline: Time,
    ) -> (Arc<[u8]>, Arc<[u8]>) {
        match self.records.entry_ref(key) {
            EntryRef::Occupied(mut found) => {
                let key = Arc::clone(found.key());
                let record = found.get_mut();
                self.bytes = self.bytes - record.value.len() + value.len();
                record.write(value, sequence, deadline);
                (key, Arc::clone(&record.value))
            }
            EntryRef::Vacant(free) => {
                let (key, value) = (Arc::<[u8]>::from(key), Arc::<[u8]>::from(value));
                self.bytes += key.len() + value.len();
                self.order.insert(Arc::clone(&key));
                let record = Record { value: Arc::clone(&value), sequence, deadline };
                free.insert_entry_with_key(Arc::clone(&key), record);
                (key, value)
            }
        }
    }

    /// Writes what another tree shares already.
    pub(crate) fn put_shared(&mut self, key: &Arc<[u8]>, record: Record) {
        self.bytes += record.value.len();
        match self.records.insert(Arc::clone(key), record) {
            Some(old) => self.bytes -= old.value.len(),
            None => {
                self.bytes += key.len();
                self.order.insert(Arc::clone(key));
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<(Arc<[u8]>, Record)> {
        let (key, record) = self.records.remove_entry(key)?;
        self.order.remove(&key);
        self.bytes -= key.len() + record.value.len();
        Some((key, record))
    }

    /// Takes the first key in order out.
    pub(crate) fn pop_first(&mut self) -> Option<(Arc<[u8]>, Record)> {
        let key = self.order.pop_first()?;
        let (key, record) = self.records.remove_entry(&*key)?;
        self.bytes -= key.len() + record.value.len();
        Some((key, record))
    }

    pub(crate) fn first(&self) -> Option<&Arc<[u8]>> {
        self.order.first()
    }

    /// The keys behind `after` in order, all if it is `None`.
    pub(crate) fn keys_after(&self, after: Option<&[u8]>) -> impl Iterator<Item = &Arc<[u8]>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.order.range::<[u8], _>((from, Bound::Unbounded))
    }

    /// The entries whose keys begin with `prefix`, in order.
    pub(crate) fn iter<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = Entry<'a>> {
        self.order
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |key| key.starts_with(prefix))
            .filter_map(|key| self.records.get(key).map(|record| entry(key, record)))
    }
}

fn entry<'a>(key: &'a [u8], record: &'a Record) -> Entry<'a> {
    Entry { key, value: &record.value, sequence: record.sequence, deadline: record.deadline }
}
