//! [`Order`]: the slots of the keys that live, sorted by key.
//!
//! A list of sorted chunks: to insert moves a chunk at most, to walk reads
//! memory from front to back. Of each key a chunk keeps the four bytes behind
//! the beginning that all its keys share, and a bound that none is below; so a
//! search looks at few keys where they are, far apart in their slots.

use std::cmp::Ordering;

use super::is_under;
use super::slots::Slots;

/// Keys in a chunk, at most. Unit tests have small ones, so that a few keys
/// split and join them.
const CHUNK: usize = if cfg!(test) { 8 } else { 512 };
/// A chunk that falls below this joins a neighbour, if that leaves both room.
const SMALL: usize = CHUNK / 4;
const JOINED: usize = CHUNK * 3 / 4;

pub(super) struct Order {
    /// None is empty.
    chunks: Vec<Chunk>,
}

struct Chunk {
    /// All keys of earlier chunks are below this, none of this chunk is. That of
    /// the first chunk is never looked at.
    bound: Box<[u8]>,
    /// What all its keys begin with; not always all that they do.
    shared: Box<[u8]>,
    items: Vec<Item>,
}

#[derive(Clone, Copy)]
struct Item {
    /// The four bytes of the key behind what is shared, as a number.
    head: u32,
    slot: u32,
}

/// A place in the order, valid until a key comes or goes.
#[derive(Clone, Copy)]
pub(super) struct Place {
    chunk: usize,
    index: usize,
}

impl Order {
    pub(super) fn new() -> Order {
        Order { chunks: Vec::new() }
    }

    /// Where the first key is that is not below `key`.
    pub(super) fn at_or_after(&self, slots: &Slots, key: &[u8]) -> Place {
        self.place(slots, key, Ordering::is_lt)
    }

    /// Where the first key is that is above `key`.
    pub(super) fn after(&self, slots: &Slots, key: &[u8]) -> Place {
        self.place(slots, key, Ordering::is_le)
    }

    /// The slot at a place, and the place behind it; `None` at the end.
    #[inline]
    pub(super) fn next(&self, place: Place) -> Option<(u32, Place)> {
        let items = &self.chunks.get(place.chunk)?.items;
        let slot = items.get(place.index)?.slot;
        let next = if place.index + 1 < items.len() {
            Place { index: place.index + 1, ..place }
        } else {
            Place { chunk: place.chunk + 1, index: 0 }
        };
        Some((slot, next))
    }

    pub(super) fn iter_from(&self, place: Place) -> impl Iterator<Item = u32> {
        let mut place = place;
        std::iter::from_fn(move || {
            let (slot, next) = self.next(place)?;
            place = next;
            Some(slot)
        })
    }

    /// Adds a slot whose key is not there yet.
    pub(super) fn insert(&mut self, slots: &Slots, slot: u32) {
        let key = slots[slot].key();
        let number = self.chunk_of(key);
        let is_last = number + 1 == self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(number) else {
            self.chunks.push(Chunk::of_one(Box::default(), key, slot));
            return;
        };
        let index = chunk.index(slots, key, Ordering::is_lt);
        if chunk.items.len() < CHUNK {
            chunk.insert(slots, index, slot);
        } else if index == CHUNK && is_last {
            // Keys that come in order fill chunks wholly: the last is not
            // split but followed.
            let bound = bound(slots[chunk.items[CHUNK - 1].slot].key(), key);
            self.chunks.push(Chunk::of_one(bound, key, slot));
        } else {
            let mut upper = chunk.split(slots);
            if *upper.bound <= *key {
                upper.insert(slots, index - CHUNK / 2, slot);
            } else {
                chunk.insert(slots, index, slot);
            }
            self.chunks.insert(number + 1, upper);
        }
    }

    /// Takes out a slot that is there; its key must still be readable.
    pub(super) fn remove(&mut self, slots: &Slots, slot: u32) {
        let key = slots[slot].key();
        let number = self.chunk_of(key);
        let chunk = &mut self.chunks[number];
        let index = chunk.index(slots, key, Ordering::is_lt);
        debug_assert_eq!(chunk.items[index].slot, slot);
        chunk.items.remove(index);
        if chunk.items.is_empty() {
            self.chunks.remove(number);
        } else if chunk.items.len() < SMALL {
            self.join(slots, number);
        }
    }

    /// Joins a small chunk with a neighbour that has room for it, if there is one.
    fn join(&mut self, slots: &Slots, small: usize) {
        for first in [small.checked_sub(1), Some(small)].into_iter().flatten() {
            if let [one, other, ..] = &mut self.chunks[first..]
                && one.items.len() + other.items.len() <= JOINED
            {
                one.items.append(&mut other.items);
                one.share(slots);
                self.chunks.remove(first + 1);
                return;
            }
        }
    }

    /// The number of the chunk that `key` belongs into; 0 if there is none yet.
    fn chunk_of(&self, key: &[u8]) -> usize {
        let others = self.chunks.get(1..).unwrap_or_default();
        others.partition_point(|chunk| *chunk.bound <= *key)
    }

    fn place(&self, slots: &Slots, key: &[u8], is_before: fn(Ordering) -> bool) -> Place {
        let number = self.chunk_of(key);
        let Some(chunk) = self.chunks.get(number) else { return Place { chunk: 0, index: 0 } };
        match chunk.index(slots, key, is_before) {
            index if index < chunk.items.len() => Place { chunk: number, index },
            _ => Place { chunk: number + 1, index: 0 },
        }
    }
}

impl Chunk {
    fn of_one(bound: Box<[u8]>, key: &[u8], slot: u32) -> Chunk {
        Chunk { bound, shared: key.into(), items: vec![Item { head: 0, slot }] }
    }

    /// How many of its keys compare to `key` as `is_before` says.
    fn index(&self, slots: &Slots, key: &[u8], is_before: fn(Ordering) -> bool) -> usize {
        if !is_under(key, &self.shared) {
            return if *self.shared < *key { self.items.len() } else { 0 };
        }
        let head = head(&key[self.shared.len()..]);
        self.items.partition_point(|item| match item.head.cmp(&head) {
            Ordering::Equal => is_before(slots[item.slot].key().cmp(key)),
            unequal => unequal.is_lt(),
        })
    }

    fn insert(&mut self, slots: &Slots, index: usize, slot: u32) {
        let key = slots[slot].key();
        if !is_under(key, &self.shared) {
            self.share_first(slots, common(&self.shared, key));
        }
        self.items.insert(index, Item { head: head(&key[self.shared.len()..]), slot });
    }

    /// Gives the upper half away.
    fn split(&mut self, slots: &Slots) -> Chunk {
        let items = self.items.split_off(CHUNK / 2);
        let (last, first) = (self.items[CHUNK / 2 - 1], items[0]);
        let bound = bound(slots[last.slot].key(), slots[first.slot].key());
        let mut upper = Chunk { bound, shared: Box::default(), items };
        self.share(slots);
        upper.share(slots);
        upper
    }

    /// Shares all that its keys begin with.
    fn share(&mut self, slots: &Slots) {
        if let [first, .., last] = &*self.items {
            let shared = common(slots[first.slot].key(), slots[last.slot].key());
            self.share_first(slots, shared);
        }
    }

    /// Shares as many first bytes of its keys as are the same in all of them.
    fn share_first(&mut self, slots: &Slots, count: usize) {
        self.shared = slots[self.items[0].slot].key()[..count].into();
        for item in &mut self.items {
            item.head = head(&slots[item.slot].key()[count..]);
        }
    }
}

/// The first four bytes as a number, so that numbers compare as bytes do, but
/// for the zeros that stand for bytes that are missing.
fn head(bytes: &[u8]) -> u32 {
    let mut head = [0; 4];
    let length = bytes.len().min(4);
    head[..length].copy_from_slice(&bytes[..length]);
    u32::from_be_bytes(head)
}

/// How many first bytes are the same.
fn common(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

/// The shortest that is above `below` and not above `key`.
fn bound(below: &[u8], key: &[u8]) -> Box<[u8]> {
    key[..=common(below, key)].into()
}
