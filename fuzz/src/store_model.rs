//! Any calls of the store, against the plainest model: the list of all changes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use pollux::Time;
use pollux::clone::store::{Change, Cursor, Entry, Mode, StoreFull, StoreLimits, Walk};
use pollux::clone::{Limits, Properties, Sequence, Store, Uuid};

use super::input::Input;

const PREFIXES: [&[u8]; 7] = [b"", b"/a", b"/a/", b"/a/b/", b"/b/", b"nothing", b"/b/3"];
const START: Sequence = Sequence::new(5, 0);
const MAX_STEPS: usize = 300;

/// A change as it was made; the value of a deletion is empty.
#[derive(Clone, PartialEq, Debug)]
struct Made {
    key: Vec<u8>,
    sequence: Sequence,
    uuid: Option<Uuid>,
    properties: Vec<u8>,
    value: Vec<u8>,
}

impl Made {
    fn size(&self) -> usize {
        self.key.len() + self.properties.len() + self.value.len()
    }

    fn lives(&self) -> bool {
        !self.value.is_empty()
    }

    fn of(entry: Entry<'_>) -> Made {
        Made {
            key: entry.key.to_vec(),
            sequence: entry.sequence,
            uuid: entry.uuid,
            properties: entry.properties.as_bytes().to_vec(),
            value: entry.value.to_vec(),
        }
    }
}

type Map = BTreeMap<Vec<u8>, Made>;

/// Who reads a snapshot: the newest it was given of each key.
struct Reader {
    cursor: Cursor,
    prefix: &'static [u8],
    /// What was known when it began.
    opened: Sequence,
    map: Map,
    in_order: bool,
    last_given: Sequence,
}

struct Run {
    limits: StoreLimits,
    store: Store,
    now: Time,
    changes: Vec<Made>,
    /// The last change of each key.
    last: Map,
    deadlines: BTreeMap<Vec<u8>, Time>,
    readers: Vec<Reader>,
}

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let mut limits = StoreLimits::default();
    limits.max_keys = input.pick(&[3, 8, 20, 1000]);
    limits.max_bytes = input.pick(&[60, 200, 1000, 1 << 20]);
    limits.history = input.pick(&[0, 1, 4, 12]);
    limits.max_cursors = input.pick(&[1, 2, 4]);
    let mut run = Run {
        limits,
        store: Store::new(limits, START),
        now: Time::ZERO,
        changes: Vec::new(),
        last: Map::new(),
        deadlines: BTreeMap::new(),
        readers: Vec::new(),
    };
    for _ in 0..MAX_STEPS {
        if input.is_over() {
            break;
        }
        run.step(&mut input);
        run.check();
    }
    run.finish();
}

impl Run {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=5 => self.put(input),
            6..=8 => self.delete(input),
            9 => self.bury(input),
            10 => self.expire(input.nanos(), input.byte() & 1 == 1),
            11 => self.open(input),
            _ if self.readers.is_empty() => {}
            12..=14 => {
                let reader = input.below(self.readers.len());
                let (budget, taken) = (input.byte(), input.byte());
                let number = |byte| if byte == 255 { usize::MAX } else { usize::from(byte % 8) };
                self.walk(reader, number(budget), number(taken));
            }
            _ => {
                let reader = self.readers.swap_remove(input.below(self.readers.len()));
                self.store.close(reader.cursor);
            }
        }
    }

    fn change(&self, input: &mut Input<'_>, value: Vec<u8>) -> Made {
        let tag = input.byte();
        Made {
            key: input.key(),
            sequence: Sequence::from_u64(self.store.sequence().get() + 1 + u64::from(tag & 1)),
            uuid: (tag & 2 != 0).then(|| Uuid::from_bytes([tag; 16])),
            properties: if tag & 4 != 0 { format!("tag={tag}\n").into_bytes() } else { vec![] },
            value,
        }
    }

    fn put(&mut self, input: &mut Input<'_>) {
        let value = match input.byte() {
            length @ 250.. => vec![b'v'; 40 * usize::from(length - 249)],
            length => vec![length; 1 + usize::from(length % 32)],
        };
        let made = self.change(input, value);
        let deadline = match input.below(4) {
            0 => Some(self.now + Duration::from_nanos(input.nanos())),
            1 => Some(Time::NEVER),
            _ => None,
        };
        let result = self.store.put(&Change {
            key: &made.key,
            sequence: made.sequence,
            uuid: made.uuid,
            properties: properties(&made.properties),
            value: &made.value,
            deadline,
        });
        assert_eq!(result, self.room_for(&made));
        if result.is_ok() {
            match deadline.filter(|&deadline| deadline != Time::NEVER) {
                Some(deadline) => self.deadlines.insert(made.key.clone(), deadline),
                None => self.deadlines.remove(&made.key),
            };
            self.made(made);
        }
    }

    fn room_for(&self, made: &Made) -> Result<(), StoreFull> {
        let others = || self.last.values().filter(|other| other.lives() && other.key != made.key);
        if others().count() >= self.limits.max_keys {
            return Err(StoreFull::Keys { max: self.limits.max_keys });
        }
        if others().map(Made::size).sum::<usize>() + made.size() > self.limits.max_bytes {
            return Err(StoreFull::Bytes { max: self.limits.max_bytes });
        }
        Ok(())
    }

    fn delete(&mut self, input: &mut Input<'_>) {
        let made = self.change(input, Vec::new());
        let lived = self.last.get(&made.key).is_some_and(Made::lives);
        let before = self.store.sequence();
        let properties = properties(&made.properties);
        let deleted = self.store.delete(&made.key, made.sequence, made.uuid, properties);
        assert_eq!(deleted, lived);
        if deleted {
            self.deadlines.remove(&made.key);
            self.made(made);
        } else {
            assert_eq!(self.store.sequence(), before);
            self.store.advance(made.sequence);
        }
    }

    fn bury(&mut self, input: &mut Input<'_>) {
        let made = self.change(input, Vec::new());
        self.store.bury(&made.key, made.sequence, made.uuid, properties(&made.properties));
        self.deadlines.remove(&made.key);
        self.made(made);
    }

    fn made(&mut self, made: Made) {
        assert_eq!(self.store.sequence(), made.sequence);
        self.last.insert(made.key.clone(), made.clone());
        self.changes.push(made);
    }

    /// Of what expired, every key is deleted or none.
    fn expire(&mut self, nanos: u64, delete: bool) {
        self.now += Duration::from_nanos(nanos);
        let mut key = b"left over".to_vec();
        while self.store.pop_expired(self.now, &mut key) {
            let deadline = self.deadlines.remove(&key).expect("a key with a deadline");
            assert!(deadline <= self.now);
            if delete {
                let made = Made {
                    key: key.clone(),
                    sequence: self.store.sequence().next(),
                    uuid: None,
                    properties: b"why=expired\n".to_vec(),
                    value: Vec::new(),
                };
                let properties = properties(&made.properties);
                assert!(self.store.delete(&key, made.sequence, None, properties));
                self.made(made);
            }
        }
        assert!(self.deadlines.values().all(|&deadline| deadline > self.now));
    }

    fn open(&mut self, input: &mut Input<'_>) {
        let (kind, prefix, ago) = (input.byte(), input.pick(&PREFIXES), input.below(40));
        let in_order = kind & 3 == 0;
        let prefix = if in_order { b"" } else { prefix };
        let since = (kind & 3 == 1).then(|| match self.changes.len().checked_sub(ago) {
            Some(0) => START,
            Some(count) => self.changes[count - 1].sequence,
            // Never given by this store.
            None => Sequence::from_u64(START.get() - 1),
        });
        let opened = match in_order {
            true => self.store.open_in_order(),
            false => self.store.open(prefix, since),
        };
        let Some(cursor) = opened else {
            return assert_eq!(self.readers.len(), self.limits.max_cursors);
        };
        let delta = since.filter(|&since| since >= self.store.history_floor());
        assert_eq!(cursor.mode() == Mode::Delta, delta.is_some());
        assert_eq!(cursor.prefix(), prefix);
        self.readers.push(Reader {
            cursor,
            prefix,
            opened: delta.unwrap_or(self.store.sequence()),
            map: delta.map_or(Map::new(), |since| self.state_at(since, prefix)),
            in_order,
            last_given: Sequence::ZERO,
        });
    }

    fn walk(&mut self, index: usize, budget: usize, taken: usize) {
        let floor = self.store.history_floor();
        let reader = &mut self.readers[index];
        let (mut given, mut broke) = (0, false);
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
            if reader.in_order {
                assert!(made.sequence > reader.last_given, "in the order of the changes");
                reader.last_given = made.sequence;
            }
            let before = reader.map.insert(made.key.clone(), made.clone());
            assert!(before.is_none_or(|before| before.sequence <= made.sequence), "went back");
            ControlFlow::Continue(())
        });
        assert!(given <= budget);
        match walk {
            Walk::More => assert!(broke || budget < usize::MAX),
            Walk::Done(sequence) => {
                assert!(!broke);
                let reader = &self.readers[index];
                self.check_done(reader, sequence);
            }
            Walk::Lost => assert!(reader.opened < floor && !reader.in_order),
        }
    }

    /// A reader that is done has of each key under its prefix what it was at that
    /// sequence, or has yet to hear of a change after it.
    fn check_done(&self, reader: &Reader, done: Sequence) {
        let mut map = reader.map.clone();
        let mut expected = self.state_at(done, reader.prefix);
        for made in self.changes.iter().filter(|made| made.sequence > done) {
            expected.remove(&made.key);
            map.remove(&made.key);
        }
        map.retain(|_, made| made.lives());
        expected.retain(|_, made| made.lives());
        assert_eq!(map, expected, "at {done:?} under {:?}", reader.prefix.escape_ascii());
    }

    /// The last change of each key up to `sequence`.
    fn state_at(&self, sequence: Sequence, prefix: &[u8]) -> Map {
        let until = self.changes.iter().take_while(|made| made.sequence <= sequence);
        let under = until.filter(|made| made.key.starts_with(prefix));
        under.map(|made| (made.key.clone(), made.clone())).collect()
    }

    /// Everything that can be asked of the store has the answer of the model.
    fn check(&self) {
        let store = &self.store;
        let live: Vec<&Made> = self.last.values().filter(|made| made.lives()).collect();
        assert!(store.iter(b"").map(Made::of).eq(live.iter().copied().cloned()));
        assert_eq!((store.len(), store.is_empty()), (live.len(), live.is_empty()));
        for (key, made) in &self.last {
            assert_eq!(store.get(key).map(Made::of).as_ref(), Some(made).filter(|m| m.lives()));
        }
        for prefix in PREFIXES {
            let under = live.iter().filter(|made| made.key.starts_with(prefix)).count();
            assert_eq!(store.iter(prefix).count(), under);
        }
        let floor = store.history_floor();
        let dead: Vec<&Made> =
            self.last.values().filter(|made| !made.lives() && made.sequence > floor).collect();
        assert_eq!(store.tombstones(), dead.len(), "all deleted after the floor is known");
        for made in &dead {
            assert_eq!(store.changed(&made.key), Some(made.sequence));
        }
        let bytes = live.iter().chain(&dead).map(|made| made.size()).sum::<usize>();
        assert_eq!(store.bytes(), bytes);
        assert!(bytes <= self.limits.max_bytes);
        // A call drops 64 at once, and more than that are never over here.
        let allowed = match self.readers.is_empty() {
            true => self.limits.history,
            false => self.limits.history + self.limits.max_keys,
        };
        assert!(dead.len() <= allowed, "{} tombstones", dead.len());
        assert_eq!(store.cursors(), self.readers.len());
        assert_eq!(store.next_deadline().is_some(), !self.deadlines.is_empty());
        assert!(store.next_deadline() <= self.deadlines.values().min().copied());
    }

    /// Lets every reader finish and checks what it has.
    fn finish(&mut self) {
        for reader in 0..self.readers.len() {
            self.walk(reader, usize::MAX, usize::MAX);
        }
        for reader in std::mem::take(&mut self.readers) {
            self.store.close(reader.cursor);
        }
        self.check();
    }
}

fn properties(bytes: &[u8]) -> Properties<'_> {
    Properties::check(bytes, &Limits::default()).expect("made here")
}
