//! What a broker published: the truth that maps are held against.

use std::collections::BTreeMap;
use std::collections::HashMap;

use pollux::clone::Uuid;

pub(crate) type Map = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

/// One change as it was published.
#[derive(Debug, Clone)]
struct Published {
    sequence: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// All changes of one run of a broker, in order.
#[derive(Debug, Default)]
pub(crate) struct History {
    published: Vec<Published>,
    /// Under which sequence a named change was applied.
    applied: HashMap<Uuid, u64>,
    /// The last change of each key.
    last: HashMap<Vec<u8>, u64>,
    /// The state at the last place asked for, and how many changes lead to it.
    state: Map,
    reached: usize,
}

impl History {
    pub(crate) fn publish(&mut self, key: &[u8], sequence: u64, uuid: Option<Uuid>, value: &[u8]) {
        if let Some(last) = self.published.last() {
            assert_eq!(sequence, last.sequence + 1, "sequences rise by one");
        }
        if let Some(uuid) = uuid {
            let before = self.applied.insert(uuid, sequence);
            assert_eq!(before, None, "{uuid} was applied twice");
        }
        self.last.insert(key.to_vec(), sequence);
        self.published.push(Published { sequence, key: key.to_vec(), value: value.to_vec() });
    }

    /// The sequence under which a change was applied.
    pub(crate) fn applied(&self, uuid: Uuid) -> Option<u64> {
        self.applied.get(&uuid).copied()
    }

    /// Whether a key was changed after this.
    pub(crate) fn is_changed_after(&self, key: &[u8], sequence: u64) -> bool {
        self.last.get(key).is_some_and(|&last| last > sequence)
    }

    /// The state when `sequence` was the last one.
    pub(crate) fn state_at(&mut self, sequence: u64) -> &Map {
        let count = self.published.partition_point(|change| change.sequence <= sequence);
        if count < self.reached {
            self.state.clear();
            self.reached = 0;
        }
        for change in &self.published[self.reached..count] {
            match change.value.is_empty() {
                true => self.state.remove(&change.key),
                false => {
                    self.state.insert(change.key.clone(), (change.sequence, change.value.clone()))
                }
            };
        }
        self.reached = count;
        &self.state
    }
}
