//! What is checked of one client, all along.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use pollux::Time;
use pollux::clone::client::{Client, Event, SubtreeStatus};
use pollux::clone::{Sequence, Uuid};

use crate::coverage::Coverage;
use crate::plan::DRIFT_PPM;
use crate::truth::{Fate, Reign, Truth, Version};

/// What a client has told, added up.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The map that its events make.
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The newest sequence it told of each key.
    newest: HashMap<Vec<u8>, u64>,
    /// Changes without an answer.
    pub(crate) open: BTreeMap<Uuid, String>,
    /// Changes that were applied, and of which it is to be told whether they are safe.
    pub(crate) applied: BTreeSet<Uuid>,
    /// Events since the last check.
    news: usize,
    /// Some were dropped because they were not taken.
    is_incomplete: bool,
    /// The application has let events wait: it may be told the same twice, though
    /// never what was before.
    pub(crate) let_wait: bool,
    /// What each subtree said of itself when it was last checked.
    checked: Vec<(Sequence, Sequence, bool)>,
}

/// The changes that a client has sent: of those of a key it sends only the newest again.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Of each key. (Of the uuids of a client only the numbers differ, so they tell the order.)
    newest: HashMap<Vec<u8>, Uuid>,
}

impl Sent {
    /// A change goes out.
    pub(crate) fn take(&mut self, key: &[u8], uuid: Uuid) {
        let newest = self.newest.entry(key.to_vec()).or_insert(uuid);
        assert!(
            uuid >= *newest,
            "order: {uuid} of {} is sent again behind {newest}",
            key.escape_ascii()
        );
        *newest = uuid;
    }

    /// A change is refused: it has no effect, and the one before it may be sent again.
    pub(crate) fn refused(&mut self, uuid: Uuid) {
        self.newest.retain(|_, newest| *newest != uuid);
    }
}

/// How a client stands in its world when it is checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// By the client's clock and by ours.
    pub(crate) local: Time,
    pub(crate) global: Time,
    /// A change published so long ago it has, or knows that something is
    /// missing; `None` if its loop was held up of late.
    pub(crate) patience: Option<Duration>,
    /// It keeps changes until they are safe.
    pub(crate) is_told_safe: bool,
    /// It follows a server of RFC 12, whose sequences begin again.
    pub(crate) is_with_old: bool,
}

impl Told {
    /// Takes an event.
    pub(crate) fn take(
        &mut self,
        event: &Event,
        truth: &mut Truth,
        standing: Standing,
        coverage: &mut Coverage,
    ) {
        self.news += 1;
        match event {
            Event::Updated { key, value, sequence } => {
                if !standing.is_with_old {
                    self.check_update(key, value, sequence.get(), truth);
                }
                self.map.insert(key.to_vec(), value.to_vec());
            }
            Event::Deleted { key, .. } => {
                let was = self.map.remove(&**key);
                assert!(was.is_some() || self.let_wait, "{key:?} was not there");
            }
            Event::Applied { uuid, sequence } => {
                let submission = self.close(uuid, truth, Fate::Applied(sequence.get()));
                if standing.is_told_safe {
                    self.applied.insert(*uuid);
                }
                let is_true = truth.is_applied_as(*uuid, sequence.get());
                assert!(
                    is_true || standing.is_with_old,
                    "{uuid} was not applied as {sequence}: {submission}"
                );
            }
            Event::Safe { uuid, .. } => {
                assert!(self.applied.remove(uuid), "{uuid} is safe, but was not applied");
                let submission = truth.submissions.get_mut(uuid).expect("it was submitted");
                submission.fate = Fate::Safe(standing.global);
            }
            Event::NotSafe { uuid } => {
                assert!(self.applied.remove(uuid), "{uuid} is not safe, but was not applied");
            }
            Event::Refused { uuid, reason } => {
                let since = truth.latest().map_or(0, |reign| reign.start);
                self.close(uuid, truth, Fate::NoEffect { since });
                coverage.count(&format!("refused: {reason}"));
            }
            Event::Superseded { uuid, .. } => {
                self.close(uuid, truth, Fate::Unknown);
            }
            Event::TimedOut { uuid, sent } => {
                let fate = if *sent { Fate::Unknown } else { Fate::NoEffect { since: 0 } };
                self.close(uuid, truth, fate);
            }
            Event::Overrun { .. } => self.is_incomplete = true,
            _ => {}
        }
        let name = match event {
            Event::Updated { .. } => "event: Updated",
            Event::Deleted { .. } => "event: Deleted",
            Event::Applied { .. } => "event: Applied",
            Event::Refused { .. } => "event: Refused",
            Event::Superseded { .. } => "event: Superseded",
            Event::TimedOut { .. } => "event: TimedOut",
            Event::Overrun { .. } => "event: Overrun",
            Event::Synced { .. } => "event: Synced",
            Event::Gap { .. } => "event: Gap",
            Event::LimitReached { .. } => "event: LimitReached",
            Event::Lost => "event: Lost",
            Event::Safe { .. } => "event: Safe",
            Event::NotSafe { .. } => "event: NotSafe",
            Event::Turned { .. } => "event: Turned",
            Event::UpstreamLost => "event: UpstreamLost",
            Event::UpstreamBack => "event: UpstreamBack",
            Event::Resync { reason, .. } => {
                coverage.count(&format!("resync: {reason:?}"));
                "event: Resync"
            }
            _ => "event: another",
        };
        coverage.count(name);
    }

    /// No key goes back, and each value is one that was published as such.
    fn check_update(&mut self, key: &[u8], value: &[u8], sequence: u64, truth: &Truth) {
        let newest = self.newest.entry(key.to_vec()).or_default();
        let text = key.escape_ascii();
        let goes_on = sequence > *newest
            // What it is told late is as it is by now, and may be told once for each change.
            || sequence == *newest && self.let_wait
            || self.is_incomplete
            || truth.is_given_up(*newest, sequence)
            // It was gone meanwhile, in a history that was given up.
            || sequence == *newest
                && !self.map.contains_key(key)
                && truth.was_gone_in_a_lost_history(key, sequence);
        assert!(goes_on, "monotonic: {text} went back from {newest} to {sequence}");
        *newest = sequence;
        let version = truth.reign_of(sequence).and_then(|reign| reign.at(key, sequence));
        assert!(
            version.is_some_and(|version| version.sequence == sequence && *version.value == *value),
            "{text} at {sequence} was {version:?}, told as {}",
            value.escape_ascii()
        );
    }

    fn close(&mut self, uuid: &Uuid, truth: &mut Truth, fate: Fate) -> String {
        let text = self.open.remove(uuid);
        let submission = truth.submissions.get_mut(uuid).expect("it was submitted");
        submission.fate = fate;
        text.unwrap_or_else(|| panic!("{uuid} has its answer already"))
    }

    /// After all events were taken: they add up to the map, and the map is what
    /// it says it is.
    pub(crate) fn check(&mut self, client: &Client, truth: &Truth, standing: Standing) {
        let said = client.status();
        let said = said.map(|status| (status.verified, status.sequence, status.is_current));
        let said: Vec<_> = said.collect();
        let is_news = std::mem::take(&mut self.news) > 0;
        self.let_wait = false;
        if !is_news && self.checked == said && standing.patience.is_none() {
            return;
        }
        self.checked = said;
        if is_news {
            self.add_up(client);
        }
        if standing.is_with_old {
            return;
        }
        for status in client.status().filter(|status| status.is_current) {
            let Some(reign) = truth.reign_of(status.verified.get()) else { continue };
            check_subtree(client, &status, reign, standing);
        }
    }

    fn add_up(&mut self, client: &Client) {
        if std::mem::take(&mut self.is_incomplete) {
            let entries = client.iter(b"");
            self.map = entries.map(|entry| (entry.key.to_vec(), entry.value.to_vec())).collect();
            // What the events that were dropped would have told: from there it goes on.
            self.newest
                .extend(client.iter(b"").map(|entry| (entry.key.to_vec(), entry.sequence.get())));
            return;
        }
        let mut entries = client.iter(b"");
        let is_same = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            entries.next().is_some_and(|entry| *entry.key == **key && *entry.value == **value)
        };
        assert!(
            self.map.iter().all(is_same) && entries.next().is_none(),
            "the events do not add up to the map"
        );
    }
}

/// Nothing up to `verified` is missing, and nothing beyond it is there, but for
/// keys that have changed since: that is on the way, though not for ever.
fn check_subtree(client: &Client, status: &SubtreeStatus, reign: &Reign, standing: Standing) {
    let verified = status.verified.get();
    let is_old =
        |at: Time| standing.patience.is_some_and(|patience| at + patience <= standing.global);
    assert!(
        !reign.ended.is_some_and(is_old),
        "no silent staleness: current with a broker that ended at {:?}: {status:?}",
        reign.ended
    );
    let is_exact = status.sequence <= status.verified;
    for (key, versions) in reign.under(&status.subtree) {
        let Some(last) = versions.last() else { continue };
        if !(is_exact && last.sequence <= verified || is_old(last.at)) {
            continue;
        }
        let entry = client.get(key);
        let is_right = match (&entry, &*last.value) {
            (None, []) => true,
            (Some(entry), value) => entry.sequence.get() == last.sequence && *entry.value == *value,
            _ => false,
        };
        assert!(
            is_right,
            "no silent staleness: {status:?}: {} is {entry:?}, should be {last:?}",
            key.escape_ascii()
        );
        if let Some(entry) = entry {
            check_remaining(&entry.remaining(standing.local), last, key, standing.global);
        }
    }
    for entry in client.iter(&status.subtree) {
        let is_known = reign.knows(entry.key) || !is_exact;
        assert!(is_known, "{} never was: {status:?}", entry.key.escape_ascii());
    }
}

/// A client never believes that a key goes earlier than it does.
fn check_remaining(remaining: &Option<Duration>, version: &Version, key: &[u8], now: Time) {
    let key = key.escape_ascii();
    let Some(expires) = version.expires else {
        assert_eq!(*remaining, None, "{key} does not expire: {version:?}");
        return;
    };
    let drift = expires.after.mul_f64(4.0 * DRIFT_PPM as f64 / 1e6);
    let least = expires.global.since(now).saturating_sub(drift + Duration::from_millis(2));
    assert!(
        remaining.is_some_and(|remaining| remaining >= least),
        "{key} goes in {least:?}, believed: {remaining:?}"
    );
}
