//! What is checked of one client, all along.

use std::collections::{BTreeMap, HashMap};

use pollux::clone::client::{Client, Event};
use pollux::clone::{Sequence, Uuid};

use crate::history::{History, Map};

/// What a client has told, added up.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The map that its events make.
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The newest sequence it told of each key.
    newest: HashMap<Vec<u8>, u64>,
    /// Changes without an answer.
    pub(crate) open: HashMap<Uuid, String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Events since the last check.
    news: usize,
    /// What each subtree said of itself when it was last checked.
    checked: Vec<(Sequence, Sequence, bool)>,
}

impl Told {
    fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    /// Takes an event. `histories` are the runs of the broker so far.
    pub(crate) fn take(&mut self, event: &Event, histories: &[History]) {
        self.news += 1;
        match event {
            Event::Updated { key, value, sequence } => {
                // A restart begins above all that was, so this holds across it, too.
                let before = self.newest.insert(key.to_vec(), sequence.get()).unwrap_or(0);
                assert!(sequence.get() > before, "{key:?} went back from {before} to {sequence}");
                self.map.insert(key.to_vec(), value.to_vec());
                self.count("updated");
            }
            Event::Deleted { key, .. } => {
                assert!(self.map.remove(&**key).is_some(), "{key:?} was not there");
                self.count("deleted");
            }
            Event::Applied { uuid, sequence } => {
                self.close(uuid);
                let truth = histories.iter().filter_map(|history| history.applied(*uuid));
                assert!(
                    truth.into_iter().any(|applied| applied == sequence.get()),
                    "{uuid} was not applied as {sequence}"
                );
                self.count("applied");
            }
            Event::Refused { uuid, reason } => {
                self.close(uuid);
                assert!(matches!(&**reason, "forgotten" | "store-full-keys"), "{reason}");
                self.count("refused");
            }
            Event::Superseded { uuid, .. } => {
                self.close(uuid);
                self.count("superseded");
            }
            Event::TimedOut { uuid, sent } => {
                self.close(uuid);
                let is_applied = histories.iter().any(|history| history.applied(*uuid).is_some());
                assert!(*sent || !is_applied, "{uuid} was applied, but never sent");
                self.count("timed out");
            }
            Event::Synced { .. } => self.count("synced"),
            Event::Gap { .. } => self.count("gaps"),
            Event::Resync { .. } => self.count("resyncs"),
            Event::Lost => self.count("losts"),
            other => panic!("not to be expected here: {other:?}"),
        }
    }

    fn close(&mut self, uuid: &Uuid) {
        assert!(self.open.remove(uuid).is_some(), "{uuid} has its answer already");
    }

    /// After all events were taken: they add up to the map, and the map is what
    /// it says it is.
    pub(crate) fn check(&mut self, client: &Client, history: &mut History, start: Sequence) {
        let status = client.status();
        let said = status.map(|status| (status.verified, status.sequence, status.is_current));
        let said: Vec<_> = said.collect();
        if std::mem::take(&mut self.news) == 0 && said == self.checked {
            return;
        }
        self.checked = said;
        let mut entries = client.iter(b"");
        assert!(
            self.map.iter().all(|(key, value)| {
                entries.next().is_some_and(|entry| *entry.key == **key && *entry.value == **value)
            }) && entries.next().is_none(),
            "the events do not add up to the map"
        );
        for status in client.status() {
            let is_told =
                status.is_current && status.verified > start && status.sequence <= status.verified;
            if !is_told {
                continue;
            }
            // Nothing up to `verified` is missing, and nothing beyond it is there,
            // but for keys that have changed since: that is on the way.
            let verified = status.verified.get();
            let map: Map = (client.iter(&status.subtree))
                .map(|entry| (entry.key.to_vec(), (entry.sequence.get(), entry.value.to_vec())))
                .collect();
            let truth = history.state_at(verified).clone();
            let truth: Map =
                truth.into_iter().filter(|(key, _)| key.starts_with(&status.subtree)).collect();
            for key in map.keys().chain(truth.keys()) {
                assert!(
                    map.get(key) == truth.get(key) || history.is_changed_after(key, verified),
                    "{status:?}: {:?} is {:?}, should be {:?}",
                    String::from_utf8_lossy(key),
                    map.get(key),
                    truth.get(key),
                );
            }
        }
    }
}
