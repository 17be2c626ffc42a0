//! The store against a naive model: the list of all changes ever made.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Keys that share beginnings, few enough to meet often.
const KEYS: &[&str] = &[
    "a", "a/1", "a/2", "a/3", "a/4", "a/5", "a/6", "a/7", "ab", "abc", "b", "b/1", "b/2", "b/3",
    "b/4", "b/5", "b/6", "b/7", "b/8", "c", "c/1/x", "c/1/y", "c/2/x", "c/2/y", "\u{e4}", "zz",
];
const PREFIXES: &[&str] = &["", "a", "a/", "ab", "b/", "c/1/", "nothing"];

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: &'static str,
        value_len: usize,
        tag: u8,
        ttl_ms: Option<u64>,
    },
    Delete {
        key: &'static str,
        tag: u8,
    },
    /// Lets time pass; of what expired, every key is deleted or none.
    Expire {
        ms: u64,
        delete: bool,
    },
    /// A delta since so many changes ago, or everything.
    Open {
        prefix: &'static str,
        since: Option<usize>,
    },
    /// One slice; `taken` entries in, the reader breaks off.
    Walk {
        cursor: usize,
        budget: usize,
        taken: usize,
    },
    Close {
        cursor: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let key = || select(KEYS);
    let value_len = prop_oneof![1..20usize, Just(8), 1..300usize];
    let budget = || prop_oneof![0..5usize, Just(usize::MAX)];
    prop_oneof![
        8 => (key(), value_len, any::<u8>(), proptest::option::weighted(0.3, 1..50u64))
            .prop_map(|(key, value_len, tag, ttl_ms)| Step::Put { key, value_len, tag, ttl_ms }),
        4 => (key(), any::<u8>()).prop_map(|(key, tag)| Step::Delete { key, tag }),
        1 => (1..40u64, any::<bool>()).prop_map(|(ms, delete)| Step::Expire { ms, delete }),
        1 => (select(PREFIXES), proptest::option::of(0..40usize))
            .prop_map(|(prefix, since)| Step::Open { prefix, since }),
        5 => (any::<usize>(), budget(), budget())
            .prop_map(|(cursor, budget, taken)| Step::Walk { cursor, budget, taken }),
        1 => any::<usize>().prop_map(|cursor| Step::Close { cursor }),
    ]
}

fn limits() -> impl Strategy<Value = StoreLimits> {
    let max_keys = prop_oneof![3..30usize, Just(1000)];
    let max_bytes = prop_oneof![100..2000usize, Just(1 << 20)];
    (max_keys, max_bytes, 0..12usize, 1..4usize).prop_map(
        |(max_keys, max_bytes, history, max_cursors)| StoreLimits {
            max_keys,
            max_bytes,
            history,
            max_cursors,
        },
    )
}

/// A change as it was made; the value of a deletion is empty.
#[derive(Clone, PartialEq, Debug)]
struct Made {
    key: String,
    sequence: Sequence,
    uuid: Option<Uuid>,
    properties: String,
    value: Vec<u8>,
}

impl Made {
    fn size(&self) -> usize {
        self.key.len() + self.properties.len() + self.value.len()
    }

    fn of(entry: Entry<'_>) -> Made {
        let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Made {
            key: string(entry.key),
            sequence: entry.sequence,
            uuid: entry.uuid,
            properties: string(entry.properties.as_bytes()),
            value: entry.value.to_vec(),
        }
    }
}

/// Who reads a snapshot: the newest it was given of each key.
struct Reader {
    cursor: Cursor,
    prefix: &'static str,
    opened: Sequence,
    map: BTreeMap<String, Made>,
    /// How many entries it was given, in all.
    given: usize,
    is_done: bool,
}

struct Run {
    limits: StoreLimits,
    store: Store,
    now: Time,
    changes: Vec<Made>,
    /// The last change of each key.
    last: BTreeMap<String, Made>,
    deadlines: BTreeMap<String, Time>,
    readers: Vec<Reader>,
    slices_lost: usize,
}

const START: Sequence = Sequence::new(5, 0);

impl Run {
    fn new(limits: StoreLimits) -> Run {
        Run {
            limits,
            store: Store::new(limits, START),
            now: Time::ZERO,
            changes: Vec::new(),
            last: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            readers: Vec::new(),
            slices_lost: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put { key, value_len, tag, ttl_ms } => self.put(key, value_len, tag, ttl_ms),
            Step::Delete { key, tag } => self.delete(key, tag),
            Step::Expire { ms, delete } => self.expire(ms, delete),
            Step::Open { prefix, since } => self.open(prefix, since),
            Step::Walk { cursor, budget, taken } if !self.readers.is_empty() => {
                self.walk(cursor % self.readers.len(), budget, taken);
            }
            Step::Close { cursor } if !self.readers.is_empty() => {
                let reader = self.readers.swap_remove(cursor % self.readers.len());
                self.store.close(reader.cursor);
            }
            Step::Walk { .. } | Step::Close { .. } => {}
        }
    }

    fn change(&self, key: &str, tag: u8, value: Vec<u8>) -> Made {
        Made {
            key: key.into(),
            sequence: self.store.sequence().next(),
            uuid: (tag > 80).then(|| Uuid::from_bytes([tag; 16])),
            properties: if tag.is_multiple_of(2) { format!("tag={tag}\n") } else { String::new() },
            value,
        }
    }

    fn put(&mut self, key: &str, value_len: usize, tag: u8, ttl_ms: Option<u64>) {
        let made = self.change(key, tag, vec![tag; value_len]);
        let deadline = ttl_ms.map(|ms| self.now + Duration::from_millis(ms));
        let expected = self.room_for(&made);
        self.store.prefetch(made.key.as_bytes());
        let result = self.store.put(&Change {
            key: made.key.as_bytes(),
            sequence: made.sequence,
            uuid: made.uuid,
            properties: Properties::from_checked(made.properties.as_bytes()),
            value: &made.value,
            deadline,
        });
        assert_eq!(result, expected);
        if result.is_ok() {
            match deadline {
                Some(deadline) => self.deadlines.insert(key.into(), deadline),
                None => self.deadlines.remove(key),
            };
            self.made(made);
        }
    }

    fn room_for(&self, made: &Made) -> Result<(), StoreFull> {
        let others = || self.live().filter(|other| other.key != made.key);
        if others().count() >= self.limits.max_keys {
            return Err(StoreFull::Keys { max: self.limits.max_keys });
        }
        if others().map(Made::size).sum::<usize>() + made.size() > self.limits.max_bytes {
            return Err(StoreFull::Bytes { max: self.limits.max_bytes });
        }
        Ok(())
    }

    fn delete(&mut self, key: &str, tag: u8) {
        let made = self.change(key, tag, Vec::new());
        let properties = Properties::from_checked(made.properties.as_bytes());
        let lived = self.live().any(|other| other.key == key);
        let before = self.store.sequence();
        self.store.prefetch(made.key.as_bytes());
        let deleted = self.store.delete(key.as_bytes(), made.sequence, made.uuid, properties);
        assert_eq!(deleted, lived);
        if deleted {
            self.deadlines.remove(key);
            self.made(made);
        } else {
            assert_eq!(self.store.sequence(), before);
            if tag > 127 {
                self.store.advance(made.sequence);
            }
        }
    }

    fn made(&mut self, made: Made) {
        self.last.insert(made.key.clone(), made.clone());
        self.changes.push(made);
    }

    fn expire(&mut self, ms: u64, delete: bool) {
        self.now += Duration::from_millis(ms);
        let mut key = b"left over".to_vec();
        while self.store.pop_expired(self.now, &mut key) {
            let key = String::from_utf8(key.clone()).unwrap();
            let deadline = self.deadlines.remove(&key).expect("a key with a deadline");
            assert!(deadline <= self.now);
            if delete {
                self.delete(&key, 2);
            }
        }
        assert!(self.deadlines.values().all(|&deadline| deadline > self.now));
    }

    fn open(&mut self, prefix: &'static str, since: Option<usize>) {
        let since = since.map(|ago| match self.changes.len().checked_sub(ago) {
            Some(0) => START,
            Some(count) => self.changes[count - 1].sequence,
            // Never given by this store.
            None => Sequence::from_u64(START.get() - 1),
        });
        let Some(cursor) = self.store.open(prefix.as_bytes(), since) else {
            assert_eq!(self.readers.len(), self.limits.max_cursors);
            return;
        };
        let mut map = BTreeMap::new();
        let delta = since.filter(|&since| since >= self.store.history_floor());
        assert_eq!(cursor.mode() == Mode::Delta, delta.is_some());
        if let Some(since) = delta {
            map = self.state_at(since, prefix);
        }
        let opened = delta.unwrap_or(self.store.sequence());
        self.readers.push(Reader { cursor, prefix, opened, map, given: 0, is_done: false });
    }

    fn walk(&mut self, index: usize, budget: usize, taken: usize) {
        let reader = &mut self.readers[index];
        let mut given = 0;
        let mut broke = false;
        let walk = self.store.walk(&mut reader.cursor, budget, |entry| {
            assert!(!broke, "nothing is given after a break");
            if given == taken {
                broke = true;
                return ControlFlow::Break(());
            }
            given += 1;
            let made = Made::of(entry);
            assert!(made.key.starts_with(reader.prefix));
            assert_eq!(self.last.get(&made.key), Some(&made), "what is given is current");
            assert_eq!(entry.deadline, self.deadlines.get(&made.key).copied());
            let before = reader.map.insert(made.key.clone(), made.clone());
            assert!(before.is_none_or(|before| before.sequence <= made.sequence), "went back");
            ControlFlow::Continue(())
        });
        assert!(given <= budget);
        reader.given += given;
        match walk {
            Walk::More => assert!(broke || budget < usize::MAX),
            Walk::Done(sequence) => {
                assert!(!broke);
                reader.is_done = true;
                let reader = &self.readers[index];
                self.check_done(reader, sequence);
            }
            Walk::Lost => {
                assert!(reader.opened < self.store.history_floor());
                self.slices_lost += 1;
            }
        }
    }

    /// A reader that is done has of each key under its prefix what it was at
    /// that sequence, or has yet to hear of a change after it.
    fn check_done(&self, reader: &Reader, done: Sequence) {
        let mut map = reader.map.clone();
        let mut expected = self.state_at(done, reader.prefix);
        for made in self.changes.iter().filter(|made| made.sequence > done) {
            expected.remove(&made.key);
            map.remove(&made.key);
        }
        map.retain(|_, made| !made.value.is_empty());
        expected.retain(|_, made| !made.value.is_empty());
        assert_eq!(map, expected, "at {done:?} under {:?}", reader.prefix);
        if reader.cursor.mode() == Mode::Full && done == reader.opened {
            assert_eq!(reader.given, reader.map.len(), "nothing changed, nothing is given twice");
        }
    }

    /// The last change of each key up to `sequence`.
    fn state_at(&self, sequence: Sequence, prefix: &str) -> BTreeMap<String, Made> {
        let until = self.changes.iter().take_while(|made| made.sequence <= sequence);
        until
            .filter(|made| made.key.starts_with(prefix))
            .map(|made| (made.key.clone(), made.clone()))
            .collect()
    }

    fn live(&self) -> impl Iterator<Item = &Made> {
        self.last.values().filter(|made| !made.value.is_empty())
    }

    /// Everything that can be asked of the store has the answer of the model.
    fn check(&self, tombstones_before: usize) {
        let store = &self.store;
        let live: Vec<_> = self.live().cloned().collect();
        assert_eq!(store.iter(b"").map(Made::of).collect::<Vec<_>>(), live);
        assert_eq!(store.len(), live.len());
        for key in KEYS {
            let expected = live.iter().find(|made| made.key == *key);
            assert_eq!(store.get(key.as_bytes()).map(Made::of).as_ref(), expected);
        }
        let floor = store.history_floor();
        let dead = self.last.values().filter(|made| made.value.is_empty() && made.sequence > floor);
        let (count, bytes) = dead.fold((0, 0), |(n, bytes), made| (n + 1, bytes + made.size()));
        assert_eq!(store.tombstones(), count, "all that was deleted after the floor is known");
        assert_eq!(store.lookup.len(), live.len() + count);
        let live_bytes: usize = live.iter().map(Made::size).sum();
        assert_eq!(store.bytes(), live_bytes + bytes);
        assert!(store.bytes() <= self.limits.max_bytes);
        let history = self.limits.history;
        let allowed =
            if self.readers.is_empty() { history } else { history + self.limits.max_keys };
        assert!(count <= allowed.max((tombstones_before + 1).saturating_sub(DROPPED_AT_ONCE)));
        assert_eq!(store.cursors(), self.readers.len());
        assert_eq!(store.next_deadline().is_some(), !self.deadlines.is_empty());
        assert!(store.next_deadline() <= self.deadlines.values().min().copied());
    }

    /// Lets every reader finish and checks what it has.
    fn finish(&mut self) {
        for reader in 0..self.readers.len() {
            let lost = self.slices_lost;
            self.walk(reader, usize::MAX, usize::MAX);
            assert!(self.readers[reader].is_done || self.slices_lost > lost);
        }
        for reader in self.readers.drain(..) {
            self.store.close(reader.cursor);
        }
        assert_eq!(self.store.cursors(), 0);
    }
}

proptest! {
    #[test]
    fn the_store_does_what_the_model_does(limits in limits(), steps in vec(step(), 1..200)) {
        let mut run = Run::new(limits);
        for step in &steps {
            let tombstones = run.store.tombstones();
            run.step(step);
            run.check(tombstones);
        }
        run.finish();
    }

    #[test]
    fn with_room_for_what_cursors_need_no_walk_is_lost(
        history in 0..4usize,
        steps in vec(step(), 1..200),
    ) {
        let limits = StoreLimits { history, max_keys: 1000, ..StoreLimits::default() };
        let mut run = Run::new(limits);
        for step in &steps {
            // A delta may find the history shortened before its first slice.
            if !matches!(step, Step::Open { since: Some(_), .. }) {
                run.step(step);
            }
        }
        run.finish();
        prop_assert_eq!(run.slices_lost, 0);
    }
}
