//! [`Order`]: the slots of the keys that live, sorted by key.
//!
//! A list of sorted chunks: to insert moves half a chunk at most, to walk reads
//! memory from front to back. Keys are compared where they are, in the slots.

use std::cmp::Ordering;

use super::slots::Slots;

/// Slots in a chunk, at most. Unit tests have small ones, so that a few keys
/// split and join them.
const CHUNK: usize = if cfg!(test) { 8 } else { 512 };
/// A chunk that falls below this joins a neighbour, if that leaves both room.
const SMALL: usize = CHUNK / 4;
const JOINED: usize = CHUNK * 3 / 4;

pub(super) struct Order {
    /// None is empty.
    chunks: Vec<Vec<u32>>,
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
        self.first_that_is_not(slots, |other| other.cmp(key) == Ordering::Less)
    }

    /// Where the first key is that is above `key`.
    pub(super) fn after(&self, slots: &Slots, key: &[u8]) -> Place {
        self.first_that_is_not(slots, |other| other.cmp(key) != Ordering::Greater)
    }

    /// The slot at a place, and the place behind it; `None` at the end.
    #[inline]
    pub(super) fn next(&self, place: Place) -> Option<(u32, Place)> {
        let chunk = self.chunks.get(place.chunk)?;
        let slot = *chunk.get(place.index)?;
        let next = if place.index + 1 < chunk.len() {
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
        let Place { chunk, index } = self.at_or_after(slots, slots[slot].key());
        if chunk == self.chunks.len() {
            return self.push(slot);
        }
        let full = &mut self.chunks[chunk];
        if full.len() < CHUNK {
            return full.insert(index, slot);
        }
        let mut upper = full.split_off(CHUNK / 2);
        match index.checked_sub(CHUNK / 2) {
            Some(index) => upper.insert(index, slot),
            None => full.insert(index, slot),
        }
        self.chunks.insert(chunk + 1, upper);
    }

    /// Takes out a slot that is there; its key must still be readable.
    pub(super) fn remove(&mut self, slots: &Slots, slot: u32) {
        let Place { chunk, index } = self.at_or_after(slots, slots[slot].key());
        debug_assert_eq!(self.chunks[chunk][index], slot);
        self.chunks[chunk].remove(index);
        if self.chunks[chunk].len() < SMALL {
            self.join(chunk);
        }
    }

    /// Adds a slot behind all others. Keys that come in order fill chunks
    /// wholly: the last is not split but followed.
    fn push(&mut self, slot: u32) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(slot),
            _ => self.chunks.push(vec![slot]),
        }
    }

    /// Joins a small chunk with a neighbour that has room for it, or drops it
    /// if it is empty.
    fn join(&mut self, chunk: usize) {
        if self.chunks[chunk].is_empty() {
            self.chunks.remove(chunk);
            return;
        }
        for first in [chunk.checked_sub(1), Some(chunk)].into_iter().flatten() {
            if let [one, other, ..] = &mut self.chunks[first..]
                && one.len() + other.len() <= JOINED
            {
                one.append(other);
                self.chunks.remove(first + 1);
                return;
            }
        }
    }

    fn first_that_is_not(&self, slots: &Slots, below: impl Fn(&[u8]) -> bool) -> Place {
        let below = |slot: &u32| below(slots[*slot].key());
        let chunk = self.chunks.partition_point(|chunk| chunk.last().is_some_and(&below));
        let index = self.chunks.get(chunk).map_or(0, |chunk| chunk.partition_point(below));
        Place { chunk, index }
    }
}
