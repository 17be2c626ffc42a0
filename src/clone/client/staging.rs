//! [`Staging`]: what a snapshot brings, beside the visible map until it is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::event::Why;
use super::tree::Tree;
use crate::clone::fault::Fault;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// One thing that was learned of a key while its snapshot is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Learned<'a> {
    pub(crate) key: &'a [u8],
    /// Empty: the key is deleted.
    pub(crate) value: &'a [u8],
    pub(crate) sequence: Sequence,
    pub(crate) deadline: Time,
    pub(crate) why: Why,
    /// Whether the snapshot gave it; else a live update did.
    pub(crate) given: bool,
}

#[derive(Debug)]
struct Deletion {
    sequence: Sequence,
    why: Why,
}

/// A map in the making: the snapshot's entries and the live updates that came
/// meanwhile, the newest of each key.
///
/// The two travel on different connections, so either may be ahead. Deletions
/// are remembered until the end, else an older value that comes late would
/// bring the key back.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    tree: Tree,
    deleted: BTreeMap<Arc<[u8]>, Deletion>,
    /// Keys whose newest value only a live update told.
    unconfirmed: BTreeSet<Arc<[u8]>>,
    newest: Sequence,
}

impl Staging {
    /// Keys and deletions held.
    pub(crate) fn len(&self) -> usize {
        self.tree.len() + self.deleted.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.tree.bytes()
    }

    /// The highest sequence seen in here.
    pub(crate) fn newest(&self) -> Sequence {
        self.newest
    }

    /// Takes what was learned, unless something newer is known of the key.
    pub(crate) fn offer(&mut self, learned: &Learned<'_>) {
        let Learned { key, value, sequence, deadline, why, given } = *learned;
        self.newest = self.newest.max(sequence);
        if let Some(deletion) = self.deletion(key)
            && deletion >= sequence
        {
            return;
        }
        if value.is_empty() {
            return self.delete(key, Deletion { sequence, why });
        }
        match self.tree.put(key, value, sequence, deadline) {
            Ok((key, _)) => {
                if !self.deleted.is_empty() {
                    self.deleted.remove(&key);
                }
                match given {
                    true => self.confirm(&key),
                    false => {
                        self.unconfirmed.insert(key);
                    }
                }
            }
            Err(known) if known == sequence && given => self.confirm(key),
            Err(_) => {}
        }
    }

    fn deletion(&self, key: &[u8]) -> Option<Sequence> {
        // Mostly there is none, which is known without a search.
        if self.deleted.is_empty() {
            return None;
        }
        self.deleted.get(key).map(|deletion| deletion.sequence)
    }

    fn delete(&mut self, key: &[u8], deletion: Deletion) {
        if self.tree.get(key).is_some_and(|record| record.sequence >= deletion.sequence) {
            return;
        }
        let key = self.tree.remove(key).map_or_else(|| Arc::from(key), |(key, _)| key);
        self.confirm(&key);
        self.deleted.insert(key, deletion);
    }

    fn confirm(&mut self, key: &[u8]) {
        if !self.unconfirmed.is_empty() {
            self.unconfirmed.remove(key);
        }
    }

    /// The whole map, of a full snapshot that tells all that happened after
    /// `from`.
    pub(crate) fn into_tree(mut self, from: Sequence) -> Tree {
        self.drop_unconfirmed(from);
        self.tree
    }

    /// Lays the changes over `tree`; gives the keys that came out different,
    /// and why those that are gone went.
    pub(crate) fn lay_over(mut self, tree: &mut Tree) -> Vec<(Arc<[u8]>, Why)> {
        let mut changed = Vec::new();
        for (key, deletion) in self.deleted {
            if tree.get(&key).is_some_and(|old| old.sequence < deletion.sequence) {
                tree.remove(&key);
                changed.push((key, deletion.why));
            }
        }
        while let Some((key, record)) = self.tree.pop_first() {
            let old = tree.get(&key);
            if old.is_some_and(|old| old.sequence >= record.sequence) {
                continue;
            }
            if old.is_none_or(|old| old.value != record.value) {
                changed.push((Arc::clone(&key), Why::Absent));
            }
            tree.put_shared(&key, record);
        }
        changed
    }

    /// A key that was changed up to `from`, but is not in the snapshot, was
    /// deleted before that began, and the deletion was lost on the way. If it
    /// was changed later, it is missing because it was changed yet again after
    /// the end of the snapshot; else its deletion would be told.
    fn drop_unconfirmed(&mut self, from: Sequence) {
        if Fault::KeepTheUndone.is_planted() {
            return;
        }
        for key in std::mem::take(&mut self.unconfirmed) {
            if self.tree.get(&key).is_some_and(|record| record.sequence <= from) {
                self.tree.remove(&key);
            }
        }
    }
}
