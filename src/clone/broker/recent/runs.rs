//! [`Runs`]: the entries of a window of uuids, many of them in one.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::clone::kvmsg::Uuid;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// Uuids that differ in these last bits alone are of one block: so are those that a sender
/// which numbers its changes gives one after the other.
const BLOCK_BITS: u32 = 6;
const BLOCK: u128 = 1 << BLOCK_BITS;

/// Runs of one block that are looked through. There are no more than it has uuids, and one that
/// has begun to leave; but a broker that we follow may remember less, and apply one again that is
/// known here.
const MAX_RUNS: usize = 1024;

/// A change that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) uuid: Uuid,
    pub(super) sequence: Sequence,
    pub(super) at: Time,
}

/// Entries in order of arrival, found by uuid, by running number and by sequence.
///
/// A run is what came together: entries of one time whose uuids and sequences rise by one, all
/// of a block. A busy sender's changes are such, and cost hardly any memory and no look at
/// a table; what comes alone is a run of one. The tables find the youngest run of a block, which
/// knows what the block has, and from which a list leads through its older ones. Nothing is
/// taken back from them one by one: what has left does not count, and when the younger table has
/// seen as many blocks as there can be entries, the older one is cleared and takes its place.
/// Memory for as many runs as there can be entries, 56 bytes each, is reserved at the first
/// entry, that of each table when it is first used; the system gives it as it is touched.
#[derive(Debug)]
pub(super) struct Runs {
    /// Of the first one some entries may have left.
    runs: VecDeque<Run>,
    /// Running number of the first run, modulo 2^32.
    first_run: u32,
    /// Running number of the first entry, modulo 2^32.
    first: u32,
    len: usize,
    max_len: usize,
    /// What would belong to the last run. Any other begins a new one.
    next: Option<Entry>,
    young: HashTable<u32>,
    old: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Entry {
    /// What comes next in its run, unless it is the last one of its block.
    #[inline]
    fn next(self) -> Option<Entry> {
        let bits = bits(&self.uuid).wrapping_add(1);
        let uuid = Uuid::from_bytes(bits.to_be_bytes());
        let sequence = Sequence::from_u64(self.sequence.get() + 1);
        (!bits.is_multiple_of(BLOCK)).then_some(Entry { uuid, sequence, ..self })
    }
}

#[derive(Debug, Clone, Copy)]
struct Run {
    /// Its first entry; of those behind it uuid and sequence are each one higher.
    uuid: Uuid,
    sequence: Sequence,
    at: Time,
    /// A bit for each uuid that the block had by then. Those of some may have left.
    had: u64,
    /// The running number of the first entry.
    start: u32,
    /// The running number of the run of its block before it; its own if there is none.
    older: u32,
    len: u8,
    /// No run of its block is younger.
    is_youngest: bool,
}

impl Run {
    #[inline]
    fn entry(&self, offset: u32) -> Entry {
        let offset = u64::from(offset);
        Entry {
            uuid: Uuid::from_bytes((bits(&self.uuid) + u128::from(offset)).to_be_bytes()),
            sequence: Sequence::from_u64(self.sequence.get() + offset),
            at: self.at,
        }
    }

    fn last(&self) -> Entry {
        self.entry(u32::from(self.len) - 1)
    }

    fn block(&self) -> u128 {
        block(&self.uuid)
    }
}

impl Runs {
    pub(super) fn new(max_len: usize) -> Runs {
        Runs {
            runs: VecDeque::new(),
            first_run: 0,
            first: 0,
            len: 0,
            max_len,
            next: None,
            young: HashTable::new(),
            old: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The running number of the first entry, modulo 2^32.
    #[inline]
    pub(super) fn first_number(&self) -> u32 {
        self.first
    }

    /// The sequence of the entry with this uuid.
    pub(super) fn find(&self, uuid: &Uuid) -> Option<Sequence> {
        let (hash, block) = (self.hash(block(uuid)), block(uuid));
        let mut number = self.youngest_of(&self.young, hash, block);
        number = number.or_else(|| self.youngest_of(&self.old, hash, block));
        let mut number = number?;
        if self.run(number)?.had & bit(uuid) == 0 {
            return None;
        }
        for _ in 0..MAX_RUNS {
            let run = self.run(number)?;
            let offset = bits(uuid).wrapping_sub(bits(&run.uuid));
            if offset < run.len.into() {
                let entry = run.start.wrapping_add(offset as u32);
                return (self.index(entry) >= 0).then(|| run.entry(offset as u32).sequence);
            }
            // Of those that have left a number may be in use again, for a younger one.
            if self.run_index(run.older) >= self.run_index(number) {
                return None;
            }
            number = run.older;
        }
        None
    }

    /// The entry with this running number, given that of its run.
    #[inline]
    pub(super) fn entry(&self, run: u32, number: u32) -> Option<Entry> {
        let run = self.run(run)?;
        let offset = number.wrapping_sub(run.start);
        (offset < run.len.into()).then(|| run.entry(offset))
    }

    /// The entry with this index, counted from the first.
    pub(super) fn get(&self, index: usize) -> Option<Entry> {
        self.iter_from(index).next()
    }

    pub(super) fn first(&self) -> Option<Entry> {
        let run = self.runs.front()?;
        Some(run.entry(self.first.wrapping_sub(run.start)))
    }

    /// When the first entry came.
    pub(super) fn first_at(&self) -> Option<Time> {
        self.runs.front().map(|run| run.at)
    }

    pub(super) fn last(&self) -> Option<Entry> {
        self.runs.back().map(Run::last)
    }

    /// The index of the first entry with a sequence higher than `since`.
    pub(super) fn index_after(&self, since: Sequence) -> usize {
        let first = self.runs.partition_point(|run| run.last().sequence <= since);
        let Some(run) = self.runs.get(first) else { return self.len };
        let offset = (since.get() + 1).saturating_sub(run.sequence.get());
        // Those of the first run that have left are passed over.
        self.index(run.start.wrapping_add(offset as u32)).max(0) as usize
    }

    /// The entries from this index on.
    pub(super) fn iter_from(&self, index: usize) -> impl Iterator<Item = Entry> {
        let number = self.first.wrapping_add(index as u32);
        let behind = self.runs.partition_point(|run| self.index(run.start) <= index as i32);
        let first = behind.saturating_sub(1);
        let mut offset = self.runs.get(first).map_or(0, |run| number.wrapping_sub(run.start));
        let runs = self.runs.range(first..);
        runs.flat_map(move |run| {
            let offsets = std::mem::take(&mut offset)..run.len.into();
            offsets.map(|offset| run.entry(offset))
        })
    }

    /// Adds an entry behind the last; there must be room. Gives the running number of its run.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry) -> u32 {
        debug_assert!(self.len < self.max_len);
        self.len += 1;
        if self.next == Some(entry)
            && let Some(last) = self.runs.back_mut()
        {
            last.len += 1;
            last.had |= bit(&entry.uuid);
        } else {
            self.begin(entry);
        }
        self.next = entry.next();
        self.first_run.wrapping_add(self.runs.len() as u32 - 1)
    }

    /// Begins a run with an entry that has been counted.
    #[cold]
    fn begin(&mut self, entry: Entry) {
        if self.young.len() >= self.max_len {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        if self.young.capacity() < self.max_len {
            // All at once, for to grow it later would hold everything up. The system
            // gives the memory as it is used.
            self.runs.reserve_exact(self.max_len - self.runs.len());
            self.young.reserve(self.max_len, |_| unreachable!("it is empty"));
        }
        let number = self.first_run.wrapping_add(self.runs.len() as u32);
        let older = self.replace_youngest(block(&entry.uuid), number);
        let (older, had) = older.unwrap_or((number, 0));
        let Entry { uuid, sequence, at } = entry;
        let start = self.first.wrapping_add(self.len as u32 - 1);
        let had = had | bit(&uuid);
        let new = Run { uuid, sequence, at, had, start, older, len: 1, is_youngest: true };
        self.runs.push_back(new);
    }

    /// Notes that the run with this number will be the youngest of a block, and gives the one
    /// that was, with what the block had by it.
    fn replace_youngest(&mut self, block: u128, number: u32) -> Option<(u32, u64)> {
        let hash = self.hash(block);
        let Runs { runs, first_run, young, old, .. } = self;
        let is_it = |&number: &u32| is_youngest_of(runs, *first_run, number, block);
        let older = match young.find_mut(hash, is_it) {
            Some(place) => Some(std::mem::replace(place, number)),
            None => {
                let older = old.find(hash, is_it).copied();
                young.insert_unique(hash, number, |_| unreachable!("it is large enough"));
                older
            }
        }?;
        let run = &mut self.runs[older.wrapping_sub(self.first_run) as usize];
        run.is_youngest = false;
        Some((older, run.had))
    }

    /// Removes the first entry.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let first = self.first()?;
        self.first = self.first.wrapping_add(1);
        self.len -= 1;
        let run = self.runs.front()?;
        if self.first.wrapping_sub(run.start) >= run.len.into() {
            self.runs.pop_front();
            self.first_run = self.first_run.wrapping_add(1);
        }
        Some(first)
    }

    /// The index of the entry with this number, negative if it has left.
    #[inline]
    fn index(&self, number: u32) -> i32 {
        number.wrapping_sub(self.first) as i32
    }

    fn run_index(&self, number: u32) -> usize {
        number.wrapping_sub(self.first_run) as usize
    }

    fn run(&self, number: u32) -> Option<&Run> {
        self.runs.get(self.run_index(number))
    }

    fn youngest_of(&self, table: &HashTable<u32>, hash: u64, block: u128) -> Option<u32> {
        let is_it = |&number: &u32| is_youngest_of(&self.runs, self.first_run, number, block);
        table.find(hash, is_it).copied()
    }

    fn hash(&self, block: u128) -> u64 {
        self.hasher.hash_one(block)
    }
}

/// Whether the run with this number is the youngest of a block. Tables know numbers of runs that
/// have left, too.
fn is_youngest_of(runs: &VecDeque<Run>, first_run: u32, number: u32, block: u128) -> bool {
    let run = runs.get(number.wrapping_sub(first_run) as usize);
    run.is_some_and(|run| run.is_youngest && run.block() == block)
}

#[inline]
fn bits(uuid: &Uuid) -> u128 {
    u128::from_be_bytes(*uuid.as_bytes())
}

#[inline]
fn block(uuid: &Uuid) -> u128 {
    bits(uuid) >> BLOCK_BITS
}

/// The bit of a uuid among those of its block.
#[inline]
fn bit(uuid: &Uuid) -> u64 {
    1 << (bits(uuid) % BLOCK)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    impl Runs {
        /// Gives the first entry this running number.
        pub(in super::super) fn start_at(&mut self, number: u32) {
            assert!(self.runs.is_empty());
            (self.first, self.first_run) = (number, number);
        }
    }

    fn uuid(bits: u128) -> Uuid {
        Uuid::from_bytes(bits.to_be_bytes())
    }

    fn entry(bits: u128, sequence: u64, second: u64) -> Entry {
        let at = Time::ZERO + Duration::from_secs(second);
        Entry { uuid: uuid(bits), sequence: Sequence::new(1, sequence), at }
    }

    #[test]
    fn what_comes_together_is_one_run() {
        let mut runs = Runs::new(1000);
        for (entry, expected) in [
            (entry(60, 1, 1), 1),
            (entry(61, 2, 1), 1),
            (entry(62, 3, 1), 1),
            // Another time, another sequence, another uuid, another block.
            (entry(63, 4, 2), 2),
            (entry(70, 5, 2), 3),
            (entry(71, 7, 2), 4),
            (entry(73, 8, 2), 5),
            (entry(126, 9, 2), 6),
            (entry(127, 10, 2), 6),
            (entry(128, 11, 2), 7),
        ] {
            runs.push(entry);
            assert_eq!(runs.runs.len(), expected, "{entry:?}");
            assert_eq!(runs.find(&entry.uuid), Some(entry.sequence));
        }
        assert_eq!(runs.young.len(), 3, "one place for each block");
        assert_eq!(runs.len(), 10);
    }

    #[test]
    fn a_uuid_that_comes_again_after_it_has_left_hides_no_other_of_its_run() {
        let mut runs = Runs::new(1000);
        for n in 0..10 {
            runs.push(entry(n, n as u64 + 1, 1));
        }
        (0..6).for_each(|_| assert!(runs.pop().is_some()));
        runs.push(entry(5, 20, 2));
        let found: Vec<_> = (0..12).map(|n| runs.find(&uuid(n)).map(Sequence::counter)).collect();
        let expected =
            [None, None, None, None, None, Some(20), Some(7), Some(8), Some(9), Some(10)];
        assert_eq!(found, [&expected[..], &[None, None]].concat());
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// So many of a sender's changes, one after the other.
        Push {
            sender: u64,
            count: u64,
        },
        /// One whose uuid may be of any block.
        PushOther(u64),
        /// The clock goes on, or a change that has no uuid takes a sequence.
        Tick,
        Skip,
        Pop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3u64, 1..100u64).prop_map(|(sender, count)| Step::Push { sender, count }),
            2 => (0..300u64).prop_map(Step::PushOther),
            1 => Just(Step::Tick),
            1 => Just(Step::Skip),
            2 => (1..80usize).prop_map(Step::Pop),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn runs_are_a_queue_of_entries(steps in vec(step(), 1..if cfg!(miri) { 12 } else { 60 }), start in 0..200u32) {
            const MAX: usize = 150;
            let mut runs = Runs::new(MAX);
            runs.start_at(start.wrapping_sub(100));
            let mut model = VecDeque::new();
            let (mut sequence, mut second, mut numbers) = (0, 0, [0u128; 3]);
            let mut everything = Vec::new();
            for step in steps {
                let mut uuids = Vec::new();
                match step {
                    Step::Push { sender, count } => uuids.extend((0..count).map(|_| {
                        let number = &mut numbers[sender as usize];
                        *number += 1;
                        u128::from(sender + 1) << 80 | *number
                    })),
                    Step::PushOther(bits) => uuids.push(bits.into()),
                    Step::Tick => second += 1,
                    Step::Skip => sequence += 1,
                    Step::Pop(count) => {
                        for _ in 0..count {
                            prop_assert_eq!(runs.pop(), model.pop_front());
                        }
                    }
                }
                for bits in uuids {
                    sequence += 1;
                    let new = entry(bits, sequence, second);
                    if model.iter().any(|old: &Entry| old.uuid == new.uuid) {
                        continue;
                    }
                    if runs.len() == MAX {
                        prop_assert_eq!(runs.pop(), model.pop_front());
                    }
                    let run = runs.push(new);
                    prop_assert_eq!(run.wrapping_sub(runs.first_run) as usize, runs.runs.len() - 1);
                    model.push_back(new);
                    everything.push(new);
                }
                prop_assert_eq!(runs.len(), model.len());
                prop_assert_eq!(runs.first(), model.front().copied());
                prop_assert_eq!(runs.first_at(), model.front().map(|first| first.at));
                prop_assert_eq!(runs.last(), model.back().copied());
                let index = second as usize * 7 % (model.len() + 1);
                let rest: Vec<_> = model.range(index..).copied().collect();
                prop_assert_eq!(runs.iter_from(index).collect::<Vec<_>>(), rest);
                prop_assert_eq!(runs.get(index), model.get(index).copied());
                let number = runs.first_number().wrapping_add(index as u32);
                let found: Vec<_> = (0..runs.runs.len() as u32)
                    .filter_map(|run| runs.entry(runs.first_run.wrapping_add(run), number))
                    .collect();
                prop_assert_eq!(found, model.get(index).copied().into_iter().collect::<Vec<_>>());
                for since in 0..=sequence + 1 {
                    let since = Sequence::new(1, since);
                    let index = model.partition_point(|entry| entry.sequence <= since);
                    prop_assert_eq!(runs.index_after(since), index, "{:?}", since);
                }
            }
            for entry in everything {
                let there = model.iter().find(|there| there.uuid == entry.uuid);
                prop_assert_eq!(runs.find(&entry.uuid), there.map(|there| there.sequence));
            }
        }
    }
}
