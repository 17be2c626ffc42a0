//! [`Difference`]: what a snapshot changed, told one event at a time.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use super::event::{Event, Why};
use super::tree::{Record, Tree};

/// How many keys of the new map are looked up ahead: one search for that many.
const AHEAD: usize = 256;

/// The events that lead from one map of a subtree to the next, made when they
/// are asked for, so that a snapshot of a million keys does not queue a million
/// events. Each tells the state of the key when it is made.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) subtree: usize,
    kind: Kind,
}

/// What comes next of a [`Difference`].
#[derive(Debug)]
pub(crate) enum Next {
    Event(Event),
    /// The steps allowed are used up.
    Pause,
    End,
}

#[derive(Debug)]
enum Kind {
    /// From `old`, which is used up, to the whole map: a merge in order of keys.
    Full(Merge),
    /// These keys came out different.
    Keys(std::vec::IntoIter<(Arc<[u8]>, Why)>),
}

#[derive(Debug)]
struct Merge {
    old: Tree,
    /// The next keys of the new map.
    ahead: VecDeque<Arc<[u8]>>,
    /// The last key taken ahead.
    reached: Option<Arc<[u8]>>,
    is_exhausted: bool,
    /// The last key compared: nothing up to here is left to tell.
    passed: Option<Arc<[u8]>>,
}

impl Difference {
    /// From `old` to whatever the subtree's map is.
    pub(crate) fn full(subtree: usize, old: Tree) -> Difference {
        Difference { subtree, kind: Kind::Full(Merge::new(old)) }
    }

    /// These keys.
    pub(crate) fn keys(subtree: usize, changed: Vec<(Arc<[u8]>, Why)>) -> Difference {
        Difference { subtree, kind: Kind::Keys(changed.into_iter()) }
    }

    /// Whether it leads to a whole new map of this subtree.
    pub(crate) fn replaces(&self, subtree: usize) -> bool {
        self.subtree == subtree && matches!(self.kind, Kind::Full(_))
    }

    /// The next event, given the subtree's map as it is now. Each key takes one of
    /// `steps`.
    pub(crate) fn next(&mut self, tree: &Tree, steps: &mut usize) -> Next {
        while *steps > 0 {
            *steps -= 1;
            let looked_at = match &mut self.kind {
                Kind::Full(merge) => merge.step(tree),
                Kind::Keys(keys) => keys.next().map(|(key, why)| {
                    Some(updated(tree, &key).unwrap_or(Event::Deleted { key, why }))
                }),
            };
            match looked_at {
                Some(Some(event)) => return Next::Event(event),
                Some(None) => {}
                None => return Next::End,
            }
        }
        Next::Pause
    }

    /// The map is replaced again before this was told to the end: what the
    /// application knows so far is part of `tree`, which goes, and part of the
    /// one before. Starts again from there.
    pub(crate) fn rebase(&mut self, mut tree: Tree) {
        let Kind::Full(merge) = &mut self.kind else { return };
        // Up to the last key passed it was told as it is in `tree`, behind that
        // it is still known as it was in `old`.
        let told = match &merge.passed {
            Some(passed) => tree.len() - tree.keys_after(Some(passed)).count(),
            None => 0,
        };
        let mut known = std::mem::take(&mut merge.old);
        for _ in 0..told {
            if let Some((key, record)) = tree.pop_first() {
                known.put_shared(&key, record);
            }
        }
        *merge = Merge::new(known);
    }
}

fn updated(tree: &Tree, key: &Arc<[u8]>) -> Option<Event> {
    let Record { value, sequence, .. } = tree.get(key)?;
    Some(Event::Updated { key: Arc::clone(key), value: Arc::clone(value), sequence: *sequence })
}

impl Merge {
    fn new(old: Tree) -> Merge {
        let (ahead, reached, passed) = (VecDeque::new(), None, None);
        Merge { old, ahead, reached, is_exhausted: false, passed }
    }

    /// Looks at one key: the event it makes, if its value came out different.
    /// `None`: there are no more.
    fn step(&mut self, tree: &Tree) -> Option<Option<Event>> {
        self.look_ahead(tree);
        let order = match (self.old.first(), self.ahead.front()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.cmp(new),
        };
        let old = if order.is_le() { self.old.pop_first() } else { None };
        let new = if order.is_ge() { self.ahead.pop_front() } else { None };
        self.passed = new.clone().or_else(|| old.as_ref().map(|(key, _)| Arc::clone(key)));
        // The new map may have moved on since the key was taken ahead.
        Some(match new.and_then(|key| updated(tree, &key)) {
            Some(Event::Updated { value, .. })
                if old.as_ref().is_some_and(|(_, old)| old.value == value) =>
            {
                None
            }
            Some(event) => Some(event),
            None => old.map(|(key, _)| Event::Deleted { key, why: Why::Absent }),
        })
    }

    fn look_ahead(&mut self, tree: &Tree) {
        if !self.ahead.is_empty() || self.is_exhausted {
            return;
        }
        self.ahead.extend(tree.keys_after(self.reached.as_deref()).take(AHEAD).cloned());
        match self.ahead.back() {
            Some(last) => self.reached = Some(Arc::clone(last)),
            None => self.is_exhausted = true,
        }
    }
}
