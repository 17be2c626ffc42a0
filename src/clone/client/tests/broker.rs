//! A broker as simple as can be: it speaks the wire, in either dialect.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::clone::kvmsg::{HUGZ, ICANHAZ, KTHXBAI, KvMsg, Limits, STATUS, Uuid};
use crate::clone::properties::PropertiesBuf;
use crate::clone::sequence::Sequence;
use crate::message::Message;

/// A message in flight.
pub(super) type Frames = Vec<Vec<u8>>;
/// What a map must be.
pub(super) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Extended,
    Rfc12,
    /// As the Guide's Model Five: no heartbeats.
    Heartbeatless,
}

#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) sequence: Sequence,
    pub(super) uuid: Option<Uuid>,
    pub(super) properties: Vec<u8>,
    /// Empty: deleted.
    pub(super) value: Vec<u8>,
}

/// What a subtree's heartbeat says.
#[derive(Clone, Copy, Debug)]
struct Watch {
    published: u64,
    sequence: Sequence,
}

/// What the broker wants sent.
#[derive(Debug)]
pub(super) enum Send {
    Update(Frames),
    Answer(u64, Frames),
}

/// A snapshot that goes out in slices.
#[derive(Debug)]
struct Snapshot {
    dealer: u64,
    subtree: Vec<u8>,
    since: Option<Sequence>,
    from: Sequence,
    /// Keys still to be given as they are.
    left: Vec<Vec<u8>>,
    /// Then the changes up to this one, which was the last at that time.
    end: Option<Sequence>,
    count: u64,
    /// Of the entries given, so many are lost by the transport.
    truncate: usize,
}

#[derive(Debug)]
pub(super) struct Broker {
    pub(super) dialect: Dialect,
    pub(super) node: u64,
    /// Heartbeats of RFC 12 say the sequence, as the Guide's servers do, and not zero.
    pub(super) tells_sequence: bool,
    pub(super) sequence: Sequence,
    pub(super) entries: BTreeMap<Vec<u8>, Stored>,
    /// Deltas are answered in full below this.
    pub(super) floor: Sequence,
    pub(super) collector: &'static str,
    /// How many subtrees it watches at most.
    pub(super) max_watches: usize,
    /// Entries of a snapshot sent in one go.
    pub(super) slice: usize,
    /// Entries of the next snapshot that the transport loses.
    pub(super) truncate: usize,
    /// Requests are heard but not answered.
    pub(super) is_mute: bool,
    /// Changes are dropped until a snapshot is asked for.
    pub(super) is_wedged: bool,
    pub(super) topics: BTreeSet<Vec<u8>>,
    pub(super) requests: Vec<Vec<Vec<u8>>>,
    watches: BTreeMap<Vec<u8>, Watch>,
    published: u64,
    applied: BTreeMap<[u8; 16], Sequence>,
    /// Uuids of changes that took effect, in order, with their values.
    pub(super) effects: Vec<(Uuid, Vec<u8>)>,
    snapshots: Vec<Snapshot>,
    pub(super) sends: Vec<Send>,
    /// It is one of a pair.
    pub(super) pair: Option<Paired>,
    /// The history is known from here on.
    pub(super) lineage: Vec<(Sequence, Sequence)>,
    /// It is a relay of a part, which may lack something behind this.
    pub(super) proven: Option<Sequence>,
    /// It is a relay, and hears the broker that it follows, or does not.
    pub(super) upstream: Option<&'static str>,
    /// Changes since the standby was last given any.
    pub(super) unreplicated: Vec<(Vec<u8>, Stored)>,
}

/// What a broker of a pair says of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paired {
    pub(super) is_active: bool,
    /// What the peer is to it: `live` or `silent`.
    pub(super) peer: &'static str,
    pub(super) fork: Sequence,
    pub(super) stable: Sequence,
}

impl Broker {
    pub(super) fn new(dialect: Dialect) -> Broker {
        let sequence = match dialect {
            Dialect::Extended => Sequence::new(1, 100),
            _ => Sequence::ZERO,
        };
        Broker {
            dialect,
            node: 0xabc,
            tells_sequence: true,
            sequence,
            entries: BTreeMap::new(),
            floor: sequence,
            collector: "pull",
            max_watches: usize::MAX,
            slice: usize::MAX,
            truncate: 0,
            is_mute: false,
            is_wedged: false,
            topics: BTreeSet::new(),
            requests: Vec::new(),
            watches: BTreeMap::new(),
            published: 0,
            applied: BTreeMap::new(),
            effects: Vec::new(),
            snapshots: Vec::new(),
            sends: Vec::new(),
            pair: None,
            lineage: Vec::new(),
            proven: None,
            upstream: None,
            unreplicated: Vec::new(),
        }
    }

    /// As a relay does when the history that it follows is given up behind `fork` for one that
    /// goes on in another epoch.
    pub(super) fn turn_to_another_history(&mut self, fork: Sequence) {
        let first = self.floor;
        let (is_active, peer) = (true, "live");
        self.entries.retain(|_, stored| stored.sequence <= fork);
        self.sequence = Sequence::new(fork.epoch() + 1, 7);
        self.lineage = vec![(first, fork), (self.sequence, self.sequence)];
        self.pair = Some(Paired { is_active, peer, fork, stable: self.sequence });
        self.proven = self.proven.map(|_| self.sequence);
        // Nobody's count may fit by accident.
        self.published += 1;
        for watch in self.watches.values_mut() {
            *watch = Watch { published: self.published, sequence: self.sequence };
        }
    }

    /// Another process in its place, without its state.
    pub(super) fn restart(&mut self) {
        let mut fresh = Broker::new(self.dialect);
        fresh.node = self.node + 1;
        if self.dialect == Dialect::Extended {
            fresh.sequence = Sequence::new(self.sequence.epoch() + 1, 7);
        }
        fresh.floor = fresh.sequence;
        fresh.collector = self.collector;
        fresh.slice = self.slice;
        *self = fresh;
    }

    pub(super) fn map(&self, prefix: &[u8]) -> Map {
        let live = self.entries.iter().filter(|(_, stored)| !stored.value.is_empty());
        live.filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, stored)| (key.clone(), stored.value.clone()))
            .collect()
    }

    fn is_extended(&self) -> bool {
        self.dialect == Dialect::Extended
    }

    /// A change by somebody else.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.change(key, value, None, b"");
    }

    pub(super) fn change(&mut self, key: &[u8], value: &[u8], uuid: Option<Uuid>, extra: &[u8]) {
        self.sequence = self.sequence.next();
        let stored = Stored {
            sequence: self.sequence,
            uuid,
            properties: extra.to_vec(),
            value: value.to_vec(),
        };
        let frames = message(key, self.sequence, uuid, extra, value);
        if self.pair.is_some() {
            self.unreplicated.push((key.to_vec(), stored.clone()));
        }
        self.entries.insert(key.to_vec(), stored);
        self.published += 1;
        for (_, watch) in self.watches.iter_mut().filter(|(prefix, _)| key.starts_with(prefix)) {
            watch.published += 1;
            watch.sequence = self.sequence;
        }
        self.publish(frames);
    }

    fn publish(&mut self, frames: Frames) {
        if self.topics.iter().any(|topic| frames[0].starts_with(topic)) {
            self.sends.push(Send::Update(frames));
        }
    }

    pub(super) fn handle_change(&mut self, frames: &Frames) {
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let kvmsg = KvMsg::decode(Message::new(&frames), &Limits::default()).expect("a KVSET");
        let uuid = kvmsg.uuid.expect("a client names its changes");
        if self.is_wedged {
            return;
        }
        if kvmsg.body == b"refuse me" && self.is_extended() {
            return self.confirm(kvmsg.key, uuid, "refused", "as told");
        }
        if kvmsg.body == b"forget me" && kvmsg.properties.get("retry").is_some() {
            return self.confirm(kvmsg.key, uuid, "refused", "forgotten");
        }
        if let Some(&sequence) = self.applied.get(uuid.as_bytes())
            && self.is_extended()
        {
            return self.confirm(kvmsg.key, uuid, "applied", &sequence.to_string());
        }
        self.effects.push((uuid, kvmsg.body.to_vec()));
        self.change(kvmsg.key, kvmsg.body, Some(uuid), kvmsg.properties.as_bytes());
        self.applied.insert(*uuid.as_bytes(), self.sequence);
    }

    fn confirm(&mut self, key: &[u8], uuid: Uuid, name: &str, value: &str) {
        let covering: Vec<_> =
            self.watches.keys().filter(|prefix| key.starts_with(prefix)).cloned().collect();
        for prefix in covering {
            let frames = self.heartbeat_of(&prefix, Some(uuid), Some((name, value)));
            self.publish(frames);
        }
    }

    fn properties(&self, buffer: &mut PropertiesBuf) {
        buffer.push("chp", 2).push("node", format_args!("{:016x}", self.node));
        buffer.push("epoch", self.sequence.epoch());
        buffer.push("collector", self.collector).push("hb", 1000);
        buffer.push("maxkey", 255).push("maxval", 1 << 20);
        match self.pair {
            Some(Paired { is_active, peer, fork, stable }) => {
                buffer.push("role", if is_active { "active" } else { "passive" });
                buffer.push("standby", if peer == "live" { "live" } else { "none" });
                buffer.push("peer", peer).push("fork", fork).push("stable", stable);
                if let [.., (first, _), _] = self.lineage[..] {
                    buffer.push("fork_from", first);
                }
            }
            None => {
                buffer.push("role", "active").push("stable", self.sequence);
            }
        }
        if let Some(proven) = self.proven {
            buffer.push("subtree", "/").push("proven", proven);
        }
        if let Some(upstream) = self.upstream {
            buffer.push("upstream", upstream);
        }
    }

    fn is_passive(&self) -> bool {
        self.pair.is_some_and(|pair| !pair.is_active)
    }

    /// Says what it does to who asks by a subscription.
    pub(super) fn tell_status(&mut self) {
        let mut buffer = PropertiesBuf::new();
        self.properties(&mut buffer);
        let properties = buffer.as_properties().as_bytes();
        self.publish(message(STATUS, self.sequence, None, properties, b""));
    }

    /// Takes what the active has.
    pub(super) fn replicate(&mut self, key: &[u8], stored: &Stored) {
        self.sequence = stored.sequence;
        if let Some(uuid) = stored.uuid {
            self.applied.insert(*uuid.as_bytes(), stored.sequence);
            self.effects.push((uuid, stored.value.clone()));
        }
        self.entries.insert(key.to_vec(), stored.clone());
    }

    /// Takes all of it.
    pub(super) fn copy_state(&mut self, active: &Broker) {
        self.sequence = active.sequence;
        self.entries = active.entries.clone();
        self.applied = active.applied.clone();
        self.effects = active.effects.clone();
        self.lineage = active.lineage.clone();
        self.floor = active.floor;
    }

    /// Whether a delta from there is possible.
    fn knows(&self, since: Sequence) -> bool {
        let is_in_lineage = self.pair.is_none()
            || since.epoch() == self.sequence.epoch()
            || self.lineage.iter().any(|(first, last)| (first..=last).contains(&&since));
        since >= self.floor && since <= self.sequence && is_in_lineage
    }

    fn heartbeat_of(
        &self,
        prefix: &[u8],
        uuid: Option<Uuid>,
        extra: Option<(&str, &str)>,
    ) -> Frames {
        let mut buffer = PropertiesBuf::new();
        if !self.is_extended() {
            let sequence = if self.tells_sequence { self.sequence } else { Sequence::ZERO };
            return message(HUGZ, sequence, uuid, b"", b"");
        }
        self.properties(&mut buffer);
        let mut sequence = self.sequence;
        if let Some(watch) = self.watches.get(prefix) {
            buffer.push("published", watch.published);
            if !prefix.is_empty() {
                sequence = watch.sequence;
            }
        }
        if let Some((name, value)) = extra {
            buffer.push(name, value);
        }
        message(&[HUGZ, prefix].concat(), sequence, uuid, buffer.as_properties().as_bytes(), b"")
    }

    /// One heartbeat interval is over.
    pub(super) fn heartbeat(&mut self) {
        if self.dialect == Dialect::Heartbeatless || self.is_passive() {
            return;
        }
        let mut prefixes: BTreeSet<Vec<u8>> = self.watches.keys().cloned().collect();
        prefixes.insert(Vec::new());
        for prefix in prefixes {
            let frames = self.heartbeat_of(&prefix, None, None);
            self.publish(frames);
        }
    }

    pub(super) fn subscribe(&mut self, topic: &[u8]) {
        self.topics.insert(topic.to_vec());
        if topic == STATUS && self.pair.is_some() {
            self.tell_status();
        }
        let Some(prefix) = topic.strip_prefix(HUGZ).filter(|_| self.is_extended()) else { return };
        if !self.watches.contains_key(prefix)
            && (prefix.is_empty() || self.watches.len() < self.max_watches)
        {
            let under = self.entries.iter().filter(|(key, _)| key.starts_with(prefix));
            let sequence = under.map(|(_, stored)| stored.sequence).max().unwrap_or_default();
            self.watches.insert(prefix.to_vec(), Watch { published: self.published, sequence });
        }
        if self.watches.contains_key(prefix) && !self.is_passive() {
            let frames = self.heartbeat_of(prefix, None, None);
            self.publish(frames);
        }
    }

    pub(super) fn unsubscribe(&mut self, topic: &[u8]) {
        self.topics.remove(topic);
        if let Some(prefix) = topic.strip_prefix(HUGZ) {
            self.watches.remove(prefix);
        }
    }

    /// The connections are gone.
    pub(super) fn disconnect(&mut self) {
        self.topics.clear();
        self.watches.clear();
        self.snapshots.clear();
    }

    pub(super) fn handle_request(&mut self, dealer: u64, frames: &Frames) {
        assert_eq!(frames[0], ICANHAZ);
        if frames[1] != ICANHAZ {
            // Not only asked to hear what it is.
            self.requests.push(frames.clone());
        }
        self.is_wedged = false;
        if self.is_mute {
            return;
        }
        assert!(frames.len() == 2 || self.is_extended(), "two frames only for RFC 12");
        let since = frames.get(2).map(|properties| {
            let text = str::from_utf8(properties).expect("properties are text");
            let number = text.strip_prefix("since=").and_then(|text| text.strip_suffix('\n'));
            number.and_then(|number| number.parse().ok()).expect("since is a sequence")
        });
        let since: Option<Sequence> = since.filter(|&since| self.knows(since));
        let subtree = frames[1].clone();
        let left = match since {
            Some(_) => Vec::new(),
            None => self.map(&subtree).into_keys().rev().collect(),
        };
        self.snapshots.push(Snapshot {
            dealer,
            subtree,
            since,
            from: self.sequence,
            left,
            end: None,
            count: 0,
            truncate: std::mem::take(&mut self.truncate),
        });
        // An old server sends everything in one go.
        self.slices(if self.is_extended() { self.slice } else { usize::MAX });
    }

    /// Sends a slice of each snapshot that is under way.
    pub(super) fn slice(&mut self) {
        self.slices(self.slice);
    }

    pub(super) fn is_slicing(&self) -> bool {
        !self.snapshots.is_empty()
    }

    fn slices(&mut self, budget: usize) {
        for mut snapshot in std::mem::take(&mut self.snapshots) {
            match self.slice_of(&mut snapshot, budget) {
                Some(end) => self.end(snapshot, end),
                None => self.snapshots.push(snapshot),
            }
        }
    }

    /// Gives the end if that is reached.
    fn slice_of(&mut self, snapshot: &mut Snapshot, budget: usize) -> Option<Sequence> {
        for _ in 0..budget {
            if let Some(key) = snapshot.left.pop() {
                self.give(snapshot, &key);
                continue;
            }
            let Some(end) = snapshot.end else {
                snapshot.end = Some(self.sequence);
                snapshot.left = self.changes(snapshot);
                continue;
            };
            return Some(end);
        }
        None
    }

    /// Keys changed since the snapshot began, or what it is a delta of; the
    /// last one first.
    fn changes(&self, snapshot: &Snapshot) -> Vec<Vec<u8>> {
        let from = snapshot.since.unwrap_or(snapshot.from);
        let changed = self
            .entries
            .iter()
            .filter(|(key, stored)| stored.sequence > from && key.starts_with(&snapshot.subtree));
        let mut keys: Vec<_> =
            changed.map(|(key, stored)| (stored.sequence, key.clone())).collect();
        keys.sort_unstable_by(|one, other| other.cmp(one));
        keys.into_iter().map(|(_, key)| key).collect()
    }

    fn give(&mut self, snapshot: &mut Snapshot, key: &[u8]) {
        let stored = &self.entries[key];
        if snapshot.end.is_some_and(|end| stored.sequence > end) {
            // Changed yet again: that is on its way as a change.
            return;
        }
        let frames = message(key, stored.sequence, stored.uuid, &stored.properties, &stored.value);
        snapshot.count += 1;
        if snapshot.truncate > 0 {
            snapshot.truncate -= 1;
        } else {
            self.sends.push(Send::Answer(snapshot.dealer, frames));
        }
    }

    fn end(&mut self, snapshot: Snapshot, end: Sequence) {
        let mut buffer = PropertiesBuf::new();
        if self.is_extended() {
            self.properties(&mut buffer);
            buffer.push("count", snapshot.count).push("from", snapshot.from);
            buffer.push("mode", if snapshot.since.is_some() { "delta" } else { "full" });
        }
        let properties = buffer.as_properties().as_bytes();
        // The Guide's C server leaves the body empty.
        let body: &[u8] = if self.is_extended() { &snapshot.subtree } else { b"" };
        let frames = message(KTHXBAI, end, None, properties, body);
        self.sends.push(Send::Answer(snapshot.dealer, frames));
    }

    /// Whether each change took effect at most once.
    pub(super) fn has_doubled(&self) -> bool {
        let mut seen = HashSet::new();
        self.effects.iter().any(|(uuid, _)| !seen.insert(*uuid.as_bytes()))
    }
}

pub(super) fn message(
    key: &[u8],
    sequence: Sequence,
    uuid: Option<Uuid>,
    properties: &[u8],
    body: &[u8],
) -> Frames {
    let uuid = uuid.map_or(Vec::new(), |uuid| uuid.as_bytes().to_vec());
    let sequence = sequence.to_wire().to_vec();
    vec![key.to_vec(), sequence, uuid, properties.to_vec(), body.to_vec()]
}
