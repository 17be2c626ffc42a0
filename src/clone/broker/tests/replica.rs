//! A client as the protocol describes it, as plain as can be: what the bytes of
//! a broker add up to.

use std::collections::{BTreeMap, HashMap};

use super::network::Wire;

/// Collects a snapshot and the updates that go by meanwhile.
#[derive(Default)]
pub(super) struct Replica {
    subtree: String,
    /// The newest that is known of a key: its sequence, and its value unless it
    /// is gone.
    newest: HashMap<Vec<u8>, (i64, Option<Vec<u8>>)>,
    ended: Option<i64>,
    messages: u64,
}

impl Replica {
    pub(super) fn new(subtree: &str) -> Replica {
        Replica { subtree: subtree.to_owned(), ..Replica::default() }
    }

    /// A message of the snapshot.
    pub(super) fn snapshot(&mut self, wire: &Wire) {
        assert_eq!(self.ended, None, "something came behind the end");
        if wire.key == b"KTHXBAI" {
            assert_eq!(wire.number("count"), Some(self.messages));
            assert_eq!(wire.text(), self.subtree);
            self.ended = Some(wire.sequence);
            return;
        }
        assert!(wire.key.starts_with(self.subtree.as_bytes()), "outside: {wire:?}");
        self.messages += 1;
        if let Some((before, _)) = self.newest.get(&wire.key) {
            assert!(wire.sequence >= *before, "the key went back in time: {wire:?}");
        }
        self.take(wire);
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.is_some()
    }

    /// The map from the snapshot and those updates alone that it did not
    /// promise to include.
    pub(super) fn map_with(mut self, updates: &[Wire]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let ended = self.ended.expect("an end");
        for wire in updates.iter().filter(|wire| wire.sequence > ended) {
            if !wire.is_heartbeat() && wire.key.starts_with(self.subtree.as_bytes()) {
                self.take(wire);
            }
        }
        let live = self.newest.into_iter();
        live.filter_map(|(key, (_, value))| Some((key, value?))).collect()
    }

    fn take(&mut self, wire: &Wire) {
        let value = (!wire.body.is_empty()).then(|| wire.body.clone());
        let known = self.newest.entry(wire.key.clone()).or_insert((0, None));
        if wire.sequence >= known.0 {
            *known = (wire.sequence, value);
        }
    }
}
