//! [`Expiry`]: which deadline is next.

use super::slots::{NONE, Slots};
use crate::time::Time;

/// Children of a place in the heap.
const ARITY: usize = 4;

/// A heap of deadlines; each slot knows its place in it.
///
/// A key that is kept alive has its deadline put off again and again. That is
/// only noted: the item sinks when it comes to the top.
pub(super) struct Expiry {
    heap: Vec<Item>,
}

struct Item {
    /// What the heap is ordered by, not after `deadline`.
    at: Time,
    deadline: Time,
    slot: u32,
}

impl Expiry {
    pub(super) fn new() -> Expiry {
        Expiry { heap: Vec::new() }
    }

    /// No deadline is before this.
    pub(super) fn next(&self) -> Option<Time> {
        self.heap.first().map(|item| item.at)
    }

    /// The deadline of the slot at this place.
    #[inline]
    pub(super) fn deadline(&self, place: u32) -> Option<Time> {
        if place == NONE {
            return None;
        }
        self.heap.get(place as usize).map(|item| item.deadline)
    }

    /// Gives a slot a deadline or takes it away.
    #[inline]
    pub(super) fn set(&mut self, slots: &mut Slots, slot: u32, deadline: Option<Time>) {
        let place = slots[slot].expiry;
        match (place, deadline) {
            (NONE, None) => {}
            (NONE, Some(deadline)) => {
                self.heap.push(Item { at: deadline, deadline, slot });
                self.rise(slots, self.heap.len() - 1);
            }
            (place, None) => self.remove(slots, place as usize),
            (place, Some(deadline)) => {
                let item = &mut self.heap[place as usize];
                item.deadline = deadline;
                if deadline < item.at {
                    item.at = deadline;
                    self.rise(slots, place as usize);
                }
            }
        }
    }

    /// Takes out the slot with the first deadline if that is not after `now`.
    pub(super) fn pop(&mut self, slots: &mut Slots, now: Time) -> Option<u32> {
        loop {
            let first = self.heap.first_mut().filter(|first| first.at <= now)?;
            if first.at == first.deadline {
                let slot = first.slot;
                self.remove(slots, 0);
                return Some(slot);
            }
            first.at = first.deadline;
            self.sink(slots, 0);
        }
    }

    fn remove(&mut self, slots: &mut Slots, place: usize) {
        let removed = self.heap.swap_remove(place);
        slots[removed.slot].expiry = NONE;
        if place < self.heap.len() {
            self.rise(slots, place);
            self.sink(slots, place);
        }
    }

    /// Moves the item at `place` up to where it belongs.
    fn rise(&mut self, slots: &mut Slots, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if self.heap[parent].at <= self.heap[place].at {
                break;
            }
            self.swap(slots, parent, place);
            place = parent;
        }
        self.note(slots, place);
    }

    /// Moves the item at `place` down to where it belongs.
    fn sink(&mut self, slots: &mut Slots, mut place: usize) {
        loop {
            let children = place * ARITY + 1..(place * ARITY + 1 + ARITY).min(self.heap.len());
            let Some(child) = children.min_by_key(|&child| self.heap[child].at) else { break };
            if self.heap[place].at <= self.heap[child].at {
                break;
            }
            self.swap(slots, place, child);
            place = child;
        }
        self.note(slots, place);
    }

    /// Swaps two items and tells the slot of the one that arrived at `left`,
    /// which stays there.
    fn swap(&mut self, slots: &mut Slots, left: usize, right: usize) {
        self.heap.swap(left, right);
        self.note(slots, left);
        self.note(slots, right);
    }

    fn note(&self, slots: &mut Slots, place: usize) {
        slots[self.heap[place].slot].expiry = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::clone::store::slots::{Kind, Node};

    proptest! {
        /// Many slots, so that the heap is deep and what moves up from its end
        /// comes from under other parents.
        #[test]
        fn slots_come_out_when_they_are_due(
            steps in vec((0..300u32, proptest::option::weighted(0.7, 1..1000u64), 0..40u64), 1..400),
        ) {
            let mut slots = Slots::new();
            let numbers: Vec<u32> =
                (0..300).map(|_| slots.insert(Node::new(Kind::Live))).collect();
            let (mut expiry, mut model, mut now) = (Expiry::new(), BTreeMap::new(), 0);
            for (slot, after, passed) in steps {
                let slot = numbers[slot as usize];
                let deadline = after.map(|after| Time::from_nanos(now + after));
                expiry.set(&mut slots, slot, deadline);
                match deadline {
                    Some(deadline) => model.insert(slot, deadline),
                    None => model.remove(&slot),
                };
                prop_assert_eq!(expiry.deadline(slots[slot].expiry), deadline);
                // Mostly time stands still, so that the heap grows.
                now += passed.saturating_sub(30) * 10;
                let due = Time::from_nanos(now);
                let mut last = Time::ZERO;
                while let Some(slot) = expiry.pop(&mut slots, due) {
                    let deadline = model.remove(&slot);
                    prop_assert!(deadline.is_some_and(|deadline| last <= deadline));
                    last = deadline.unwrap_or(last);
                }
                let first = model.values().min().copied();
                prop_assert!(first.is_none_or(|first| first > due));
                prop_assert!(expiry.next() <= first);
                prop_assert_eq!(expiry.heap.len(), model.len());
            }
        }
    }
}
