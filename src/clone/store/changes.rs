//! The order of last change: two lists through the slots, one of what lives,
//! one of what was deleted, each from old to new.
//!
//! A list is a ring through its *ends*, a node that is no entry, so that linking
//! has no special cases. Cursors put markers into both lists; whatever happens
//! around a marker, it stays between what its cursor has seen and what it has not.

use super::slots::{Kind, Node, Slots};

/// The ends of the list of entries that live.
pub(super) const LIVE: u32 = 0;
/// The ends of the list of tombstones.
pub(super) const DEAD: u32 = 1;

impl Slots {
    /// Makes both lists, empty, in the first two slots.
    pub(super) fn insert_list_ends(&mut self) {
        for ends in [LIVE, DEAD] {
            let slot = self.insert(Node::new(Kind::Ends));
            debug_assert_eq!(slot, ends);
            self[slot].older = slot;
            self[slot].newer = slot;
        }
    }

    /// Puts a slot that is in no list before `newer`, which is in one; before
    /// the ends of a list, it is the newest.
    pub(super) fn link_before(&mut self, slot: u32, newer: u32) {
        let older = self[newer].older;
        self[slot].older = older;
        self[slot].newer = newer;
        self[older].newer = slot;
        self[newer].older = slot;
    }

    /// Puts a slot that is in no list behind `older`, which is in one.
    pub(super) fn link_after(&mut self, slot: u32, older: u32) {
        let newer = self[older].newer;
        self.link_before(slot, newer);
    }

    /// Takes a slot out of its list.
    pub(super) fn unlink(&mut self, slot: u32) {
        let (older, newer) = (self[slot].older, self[slot].newer);
        self[older].newer = newer;
        self[newer].older = older;
    }

    /// The entry changed next after `slot` in the list with these ends.
    pub(super) fn next_change(&self, slot: u32, ends: u32) -> Option<u32> {
        let mut next = self[slot].newer;
        while self[next].kind == Kind::Marker {
            next = self[next].newer;
        }
        (next != ends).then_some(next)
    }

    /// The entry changed last before `slot` in the list with these ends.
    pub(super) fn previous_change(&self, slot: u32, ends: u32) -> Option<u32> {
        let mut previous = self[slot].older;
        while self[previous].kind == Kind::Marker {
            previous = self[previous].older;
        }
        (previous != ends).then_some(previous)
    }

    /// Moves a marker to just behind `older`, which may be itself.
    pub(super) fn move_marker(&mut self, marker: u32, older: u32) {
        if marker != older {
            self.unlink(marker);
            self.link_after(marker, older);
        }
    }
}
