//! [`Cursor`]: telling somebody of the whole store, or of what changed, in
//! slices between which it goes on changing.
//!
//! A *full* walk goes through the keys in order, then through what changed since
//! it began; a *delta* only through what changed since a given sequence. The last
//! part ends with what was the newest change when the walk came to it, so it
//! ends however fast writers are. What changes later is told by whoever
//! publishes changes.

use std::ops::ControlFlow;

use super::changes::{DEAD, LIVE};
use super::slots::{Kind, Node};
use super::{Entry, Store, is_under};
use crate::clone::fault::Fault;
use crate::clone::sequence::Sequence;

/// What a walk tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Everything.
    Full,
    /// What changed since a sequence, deletions too.
    Delta,
}

/// Where a walk is. It holds a place in the store that it came from, until it
/// goes back there by [`Store::close`].
#[derive(Debug)]
#[must_use = "a cursor keeps its place in the store until it is closed"]
pub struct Cursor {
    mode: Mode,
    phase: Phase,
    prefix: Box<[u8]>,
    /// The last key given, unless none was.
    last_key: Option<Vec<u8>>,
    /// Of the changes, all up to here have been given or need not be.
    seen: Sequence,
    /// Where the changes end for this walk.
    end: Sequence,
    /// It began with the oldest of all changes, so deletions that are forgotten
    /// meanwhile are no loss: they happened before it began, to keys that it does
    /// not give, or are published.
    from_oldest: bool,
    /// Its markers in the lists of changes: all changes to be given are behind them.
    live_marker: u32,
    dead_marker: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Moving the markers back to behind `seen`.
    Rewind,
    /// Going through the keys.
    Keys,
    /// Going through the changes, up to `end`.
    Changes,
}

/// How far a slice has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Walk {
    /// There is more to give.
    More,
    /// All is given that happened up to here, but for keys that have changed
    /// since, which the publication of those changes tells.
    Done(Sequence),
    /// The walk cannot be finished: it was so slow, and so much was deleted
    /// meanwhile, that the store had to forget a deletion which it should have
    /// told. Begin again.
    Lost,
}

impl Cursor {
    /// What the walk tells of.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The beginning that all its keys have.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }
}

/// What one slice may still do.
struct Slice<'f, F> {
    budget: usize,
    give: &'f mut F,
}

impl<F: FnMut(Entry<'_>) -> ControlFlow<()>> Slice<'_, F> {
    /// Counts an entry as examined; `None` if the budget is spent.
    #[inline]
    fn examine(&mut self) -> Option<()> {
        self.budget = self.budget.checked_sub(1)?;
        Some(())
    }

    /// `None` if the entry was not taken.
    #[inline]
    fn give(&mut self, entry: Entry<'_>) -> Option<()> {
        (self.give)(entry).continue_value()
    }
}

impl Store {
    /// Begins a walk over the keys that begin with `prefix`: over what changed
    /// after `since` if the store knows all of that, else over everything.
    /// `None` if as many cursors are open as may be.
    ///
    /// While it is open, the store remembers deletions that the walk will have
    /// to tell, `max_keys` beyond its history. Close it when its reader is gone.
    pub fn open(&mut self, prefix: &[u8], since: Option<Sequence>) -> Option<Cursor> {
        if self.cursors >= self.limits.max_cursors {
            return None;
        }
        self.cursors += 1;
        let since = since.filter(|since| {
            let floor = match Fault::DeltaWithoutHistory.is_planted() {
                true => Sequence::ZERO,
                false => self.floor,
            };
            (floor..=self.sequence).contains(since)
        });
        let (mode, phase) = match since {
            Some(_) => (Mode::Delta, Phase::Rewind),
            None => (Mode::Full, Phase::Keys),
        };
        Some(Cursor {
            mode,
            phase,
            prefix: prefix.into(),
            last_key: None,
            seen: since.unwrap_or(self.sequence),
            end: self.sequence,
            from_oldest: false,
            live_marker: self.insert_marker(LIVE),
            dead_marker: self.insert_marker(DEAD),
        })
    }

    /// [The same](Store::open_subtree_in_order) over everything.
    pub fn open_in_order(&mut self) -> Option<Cursor> {
        self.open_subtree_in_order(b"")
    }

    /// Begins a walk over the keys that begin with `prefix` in the order of their last
    /// changes, tombstones among them: whoever stores what it gives has the lists of this store, too. What
    /// changes after this moment is left to the publication of changes.
    pub fn open_subtree_in_order(&mut self, prefix: &[u8]) -> Option<Cursor> {
        let mut cursor = self.open(prefix, None)?;
        cursor.phase = Phase::Changes;
        cursor.from_oldest = true;
        self.slots.move_marker(cursor.live_marker, LIVE);
        self.slots.move_marker(cursor.dead_marker, DEAD);
        Some(cursor)
    }

    /// Gives the next entries to `give`, tombstones among them, and examines at
    /// most `budget` of them. If `give` breaks, it has not taken the entry, which
    /// will be the first of the next slice.
    ///
    /// A key may be given more than once, never with a lower sequence than before.
    pub fn walk(
        &mut self,
        cursor: &mut Cursor,
        budget: usize,
        mut give: impl FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Walk {
        if cursor.seen < self.floor && !cursor.from_oldest {
            return Walk::Lost;
        }
        let mut slice = Slice { budget, give: &mut give };
        self.walk_slice(cursor, &mut slice).map_or(Walk::More, Walk::Done)
    }

    /// Ends a walk, finished or not.
    pub fn close(&mut self, cursor: Cursor) {
        for marker in [cursor.live_marker, cursor.dead_marker] {
            debug_assert_eq!(self.slots[marker].kind, Kind::Marker, "a cursor of this store");
            self.slots.unlink(marker);
            self.slots.remove(marker);
        }
        self.cursors -= 1;
        self.forget();
    }

    fn insert_marker(&mut self, ends: u32) -> u32 {
        let marker = self.slots.insert(Node::new(Kind::Marker));
        self.slots.link_before(marker, ends);
        marker
    }

    /// From one phase to the next while the slice lasts; the end of the changes
    /// if all is given.
    fn walk_slice<F>(&mut self, cursor: &mut Cursor, slice: &mut Slice<'_, F>) -> Option<Sequence>
    where
        F: FnMut(Entry<'_>) -> ControlFlow<()>,
    {
        if cursor.phase == Phase::Rewind {
            self.rewind(cursor, slice)?;
            cursor.phase = Phase::Changes;
            cursor.end = self.sequence;
        }
        if cursor.phase == Phase::Keys {
            self.walk_keys(cursor, slice)?;
            cursor.phase = Phase::Changes;
            cursor.end = self.sequence;
            if Fault::AnswerFromAStaleSnapshot.is_planted() {
                return Some(cursor.end);
            }
        }
        self.walk_changes(cursor, slice)
    }

    /// Moves both markers back until all that changed after `seen` is behind
    /// them. Tombstones first: those behind a marker are not forgotten.
    fn rewind<F>(&mut self, cursor: &mut Cursor, slice: &mut Slice<'_, F>) -> Option<()>
    where
        F: FnMut(Entry<'_>) -> ControlFlow<()>,
    {
        for (marker, ends) in [(cursor.dead_marker, DEAD), (cursor.live_marker, LIVE)] {
            let mut behind = marker;
            let finished = loop {
                match self.slots.previous_change(behind, ends) {
                    Some(change) if self.slots[change].sequence > cursor.seen => {
                        if slice.examine().is_none() {
                            break None;
                        }
                        behind = change;
                    }
                    _ => break Some(()),
                }
            };
            if behind != marker {
                self.slots.unlink(marker);
                self.slots.link_before(marker, behind);
            }
            finished?;
        }
        Some(())
    }

    fn walk_keys<F>(&self, cursor: &mut Cursor, slice: &mut Slice<'_, F>) -> Option<()>
    where
        F: FnMut(Entry<'_>) -> ControlFlow<()>,
    {
        let mut place = match &cursor.last_key {
            Some(key) => self.order.after(&self.slots, key),
            None => self.order.at_or_after(&self.slots, &cursor.prefix),
        };
        let mut given = None;
        let finished = loop {
            let Some((slot, next)) = self.order.next(place) else { break Some(()) };
            if !is_under(self.slots[slot].key(), &cursor.prefix) {
                break Some(());
            }
            if slice.examine().and_then(|()| slice.give(self.entry(slot))).is_none() {
                break None;
            }
            given = Some(slot);
            place = next;
        };
        if let Some(slot) = given {
            let last_key = cursor.last_key.get_or_insert_default();
            last_key.clear();
            last_key.extend_from_slice(self.slots[slot].key());
        }
        finished
    }

    /// Goes through both lists together, in order of sequence.
    fn walk_changes<F>(&mut self, cursor: &mut Cursor, slice: &mut Slice<'_, F>) -> Option<Sequence>
    where
        F: FnMut(Entry<'_>) -> ControlFlow<()>,
    {
        let (mut live, mut dead) = (cursor.live_marker, cursor.dead_marker);
        let finished = loop {
            let (slot, passed) = match self.earlier(live, dead) {
                Some((slot, LIVE)) => (slot, &mut live),
                Some((slot, _)) => (slot, &mut dead),
                None => break Some(cursor.end),
            };
            let node = &self.slots[slot];
            if node.sequence > cursor.end {
                break Some(cursor.end);
            }
            let given = slice.examine().and_then(|()| {
                let is_lost = node.kind == Kind::Dead && Fault::LoseDeletions.is_planted();
                if is_under(node.key(), &cursor.prefix) && !is_lost {
                    slice.give(self.entry(slot))
                } else {
                    Some(())
                }
            });
            if given.is_none() {
                break None;
            }
            cursor.seen = node.sequence;
            *passed = slot;
        };
        self.slots.move_marker(cursor.live_marker, live);
        self.slots.move_marker(cursor.dead_marker, dead);
        if finished.is_some() {
            cursor.seen = cursor.end;
        }
        finished
    }

    /// The first change behind these places of the two lists, and in which it is.
    #[inline]
    fn earlier(&self, live: u32, dead: u32) -> Option<(u32, u32)> {
        let live = self.slots.next_change(live, LIVE).map(|slot| (slot, LIVE));
        let dead = self.slots.next_change(dead, DEAD).map(|slot| (slot, DEAD));
        [live, dead].into_iter().flatten().min_by_key(|&(slot, _)| self.slots[slot].sequence)
    }
}
