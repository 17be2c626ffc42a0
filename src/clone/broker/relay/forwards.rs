//! [`Forwards`]: changes of clients on their way upstream, until they are safe there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use smallvec::SmallVec;

use crate::clone::broker::owned::Owned;
use crate::clone::broker::recent::{KeyHash, key_hash};
use crate::clone::kvmsg::Uuid;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// A change that has no answer yet, or is applied and not yet safe.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) change: Owned,
    /// When it came.
    pub(super) since: Time,
    /// When it was sent last.
    pub(super) sent: Option<Time>,
    /// The sequence known when it was sent first: up to there it was not applied.
    pub(super) known: Sequence,
    /// Another upstream, or the same in another epoch, was sent it before: that one may have
    /// applied it, whatever this one says.
    pub(super) is_elsewhere: bool,
}

impl Forward {
    fn key_hash(&self) -> KeyHash {
        key_hash(self.change.kvmsg().key)
    }
}

/// Changes by the order in which they came, those without an answer apart from those
/// that are applied.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    numbers: HashMap<Uuid, u64>,
    next: u64,
    unanswered: BTreeMap<u64, Forward>,
    /// Their numbers, each behind the hash of its key.
    unanswered_by_key: BTreeSet<(KeyHash, u64)>,
    unanswered_bytes: usize,
    /// By their sequences, with their numbers.
    applied: BTreeMap<Sequence, (u64, Forward)>,
    /// The other way round, behind the hashes of their keys. Apart from the above: of one key
    /// there may be very many, which an answer must not have to look through.
    applied_by_key: BTreeMap<(KeyHash, u64), Sequence>,
    applied_bytes: usize,
    /// The first that was never sent; those behind it are not sent either.
    unsent: u64,
}

impl Forwards {
    /// Changes without an answer.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Of these, those that were not sent yet.
    pub(super) fn unsent(&self) -> usize {
        self.unanswered.range(self.unsent..).count()
    }

    /// Whether something waits to be sent.
    pub(super) fn are_waiting(&self) -> bool {
        self.unanswered.range(self.unsent..).next().is_some()
    }

    /// Changes that are applied, but not safe.
    pub(super) fn applied(&self) -> usize {
        self.applied.len()
    }

    /// Whether a change with this uuid is under way.
    pub(super) fn contains(&self, uuid: &Uuid) -> bool {
        self.numbers.contains_key(uuid)
    }

    /// When the first of those without an answer came, and when it was sent.
    pub(super) fn first(&self) -> Option<(Time, Option<Time>)> {
        self.unanswered.values().next().map(|forward| (forward.since, forward.sent))
    }

    /// Makes room for so many bytes more within the limits; those that are applied can
    /// go. Gives how many had to, or `None`, and none has gone, if that is not enough.
    pub(super) fn make_room(&mut self, bytes: usize, max: (usize, usize)) -> Option<u64> {
        if self.unanswered.len() >= max.0 || self.unanswered_bytes + bytes > max.1 {
            return None;
        }
        let mut gone = 0;
        while self.unanswered.len() + self.applied.len() >= max.0
            || self.unanswered_bytes + self.applied_bytes + bytes > max.1
        {
            let Some((&oldest, _)) = self.applied.first_key_value() else { break };
            self.remove_applied(oldest);
            gone += 1;
        }
        Some(gone)
    }

    /// Takes a change: sent at this time, or to be sent.
    pub(super) fn push(&mut self, change: Owned, now: Time, sent: Option<Time>, known: Sequence) {
        let number = self.next;
        self.next += 1;
        if let Some(uuid) = change.kvmsg().uuid {
            self.numbers.insert(uuid, number);
        }
        if sent.is_some() {
            self.unsent = self.next;
        }
        let forward = Forward { change, since: now, sent, known, is_elsewhere: false };
        self.insert(number, forward);
    }

    fn insert(&mut self, number: u64, forward: Forward) {
        self.unanswered_by_key.insert((forward.key_hash(), number));
        self.unanswered_bytes += forward.change.size();
        self.unanswered.insert(number, forward);
    }

    /// Takes one out of those without an answer.
    fn take(&mut self, number: u64) -> Option<Forward> {
        let forward = self.unanswered.remove(&number)?;
        self.unanswered_by_key.remove(&(forward.key_hash(), number));
        self.unanswered_bytes -= forward.change.size();
        Some(forward)
    }

    fn insert_applied(&mut self, sequence: Sequence, number: u64, forward: Forward) {
        self.applied_by_key.insert((forward.key_hash(), number), sequence);
        self.applied_bytes += forward.change.size();
        self.applied.insert(sequence, (number, forward));
    }

    /// Takes one out of those that are applied.
    fn take_applied(&mut self, sequence: Sequence) -> Option<(u64, Forward)> {
        let (number, forward) = self.applied.remove(&sequence)?;
        self.applied_by_key.remove(&(forward.key_hash(), number));
        self.applied_bytes -= forward.change.size();
        Some((number, forward))
    }

    fn forget(&mut self, forward: &Forward) {
        if let Some(uuid) = forward.change.kvmsg().uuid {
            self.numbers.remove(&uuid);
        }
    }

    /// The number of the next to be sent.
    pub(super) fn next_unsent(&self) -> Option<u64> {
        self.unanswered.range(self.unsent..).next().map(|(&number, _)| number)
    }

    /// One of those without an answer.
    pub(super) fn get(&self, number: u64) -> Option<&Forward> {
        self.unanswered.get(&number)
    }

    /// It was sent, when so much was known. One without a uuid has no answer to wait for.
    pub(super) fn set_sent(&mut self, number: u64, now: Time, known: Sequence) {
        let Some(forward) = self.unanswered.get_mut(&number) else { return };
        if forward.sent.replace(now).is_none() {
            forward.known = known;
        }
        self.unsent = self.unsent.max(number + 1);
        if forward.change.kvmsg().uuid.is_none() {
            self.remove(number);
        }
    }

    /// The key of a change that has no answer.
    pub(super) fn key_of(&self, uuid: &Uuid) -> Option<Vec<u8>> {
        let forward = self.unanswered.get(self.numbers.get(uuid)?)?;
        Some(forward.change.kvmsg().key.to_vec())
    }

    fn remove(&mut self, number: u64) -> Option<Forward> {
        let forward = self.take(number)?;
        self.forget(&forward);
        Some(forward)
    }

    fn remove_applied(&mut self, sequence: Sequence) {
        if let Some((_, forward)) = self.take_applied(sequence) {
            self.forget(&forward);
        }
    }

    /// A change is applied: it stays until it is safe. Older ones of its key without an
    /// answer were lost, and sent again would come behind it, also when it is forgotten: they
    /// go. Gives how many there were.
    pub(super) fn apply(&mut self, uuid: Uuid, sequence: Sequence) -> u64 {
        let Some(&number) = self.numbers.get(&uuid) else { return 0 };
        let Some(forward) = self.take(number) else { return 0 };
        let gone = self.drop_unanswered(&forward, number);
        // Two under one sequence: only from an upstream that is confused.
        self.remove_applied(sequence);
        self.insert_applied(sequence, number, forward);
        gone
    }

    /// Drops those without an answer that came before this one of the same key. Gives how many.
    fn drop_unanswered(&mut self, forward: &Forward, number: u64) -> u64 {
        let (hash, key) = (forward.key_hash(), forward.change.kvmsg().key);
        let numbers = self.unanswered_by_key.range((hash, 0)..(hash, number));
        let is_of_key = |other: &u64| {
            self.unanswered.get(other).is_some_and(|other| other.change.kvmsg().key == key)
        };
        let older: SmallVec<[u64; 2]> =
            numbers.map(|&(_, number)| number).filter(is_of_key).collect();
        older.into_iter().filter_map(|older| self.remove(older)).count() as u64
    }

    /// A change was sent, and what became of it will not be known: those of its key before it
    /// would come behind it if they were sent again, also those that are applied: they go. Gives
    /// how many there were.
    fn drop_older(&mut self, forward: &Forward, number: u64) -> u64 {
        let (hash, key) = (forward.key_hash(), forward.change.kvmsg().key);
        let sequences = self.applied_by_key.range((hash, 0)..(hash, number));
        let is_of_key = |other: &Sequence| {
            self.applied.get(other).is_some_and(|(_, other)| other.change.kvmsg().key == key)
        };
        let older: Vec<Sequence> =
            sequences.map(|(_, &sequence)| sequence).filter(is_of_key).collect();
        older.iter().for_each(|&older| self.remove_applied(older));
        older.len() as u64 + self.drop_unanswered(forward, number)
    }

    /// Changes of which the uuid is known by now are applied.
    pub(super) fn find_applied(&mut self, sequence_of: impl Fn(&Uuid) -> Option<Sequence>) -> u64 {
        let uuids = self.unanswered.values().filter_map(|forward| forward.change.kvmsg().uuid);
        let found: Vec<_> = uuids.filter_map(|uuid| Some((uuid, sequence_of(&uuid)?))).collect();
        found.into_iter().map(|(uuid, sequence)| self.apply(uuid, sequence)).sum()
    }

    /// It was refused: gives it, and how many go with it: if it is not known to have no effect
    /// (`is_known`) all the same, those of its key before it.
    pub(super) fn end(&mut self, uuid: &Uuid, is_known: bool) -> Option<(Forward, u64)> {
        let number = *self.numbers.get(uuid)?;
        let forward = self.remove(number)?;
        let gone = match is_known && !forward.is_elsewhere {
            true => 0,
            false => self.drop_older(&forward, number),
        };
        Some((forward, gone))
    }

    /// Forgets what is safe.
    pub(super) fn settle(&mut self, is_safe: impl Fn(Sequence) -> bool) {
        while let Some((&first, _)) = self.applied.first_key_value()
            && is_safe(first)
        {
            self.remove_applied(first);
        }
    }

    /// The upstream is another, or has begun another epoch, and may lack what was not
    /// safe: all of it is to be sent again, in its old order, but for what `is_kept` says
    /// is in its history, which stays as it is. Of each key the newest goes alone: an
    /// older one, unknown there, would be applied behind it.
    pub(super) fn begin_anew(&mut self, now: Time, is_kept: impl Fn(Sequence) -> bool) {
        let lost: Vec<Sequence> =
            self.applied.keys().copied().filter(|&sequence| !is_kept(sequence)).collect();
        for sequence in lost {
            if let Some((number, mut forward)) = self.take_applied(sequence) {
                // It was answered; the new answer has its time.
                forward.since = now;
                self.insert(number, forward);
            }
        }
        self.drop_replaced(|forward| forward.sent.is_some());
        for forward in self.unanswered.values_mut() {
            forward.is_elsewhere |= forward.sent.is_some();
        }
        self.unsent = self.unanswered.keys().next().copied().unwrap_or(self.next);
    }

    /// Drops those of which there is a newer one for the same key that was sent, too.
    fn drop_replaced(&mut self, is_meant: impl Fn(&Forward) -> bool) {
        let mut keys: HashSet<&[u8]> = HashSet::new();
        let meant = self.unanswered.iter().rev().filter(|(_, forward)| is_meant(forward));
        let replaced = meant.filter(|(_, forward)| !keys.insert(forward.change.kvmsg().key));
        let replaced: Vec<u64> = replaced.map(|(&number, _)| number).collect();
        for number in replaced {
            self.remove(number);
        }
    }

    /// What was sent before `limit` and has no answer is to be sent again; gives the
    /// numbers of these, and how many are not. If there is a newer change of the same key,
    /// of ours or one that `is_changed` since then, it would be applied behind that: whether it
    /// is still meant its sender knows alone.
    pub(super) fn repeat(
        &mut self,
        limit: Time,
        is_changed: impl Fn(&[u8], Sequence) -> bool,
    ) -> (Vec<u64>, u64) {
        let mut newest: HashMap<&[u8], u64> = HashMap::new();
        for (number, forward) in self.applied.values() {
            let newest = newest.entry(forward.change.kvmsg().key).or_default();
            *newest = (*newest).max(*number);
        }
        let (mut due, mut replaced) = (Vec::new(), Vec::new());
        for (&number, forward) in self.unanswered.range(..self.unsent).rev() {
            let key = forward.change.kvmsg().key;
            let newest = newest.entry(key).or_default();
            let is_newest = *newest <= number && !is_changed(key, forward.known);
            *newest = (*newest).max(number);
            match forward.sent.is_some_and(|sent| sent <= limit) {
                true if is_newest => due.push(number),
                true => replaced.push(number),
                false => {}
            }
        }
        let count = replaced.len() as u64;
        for number in replaced {
            self.remove(number);
        }
        due.reverse();
        (due, count)
    }

    /// Gives up the first without an answer: gives it, and how many go with it: if it was sent,
    /// those of its key before it.
    pub(super) fn give_up_first(&mut self) -> Option<(Forward, u64)> {
        let (&number, _) = self.unanswered.first_key_value()?;
        let forward = self.remove(number)?;
        let gone = match forward.sent {
            Some(_) => self.drop_older(&forward, number),
            None => 0,
        };
        Some((forward, gone))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clone::kvmsg::KvMsg;
    use crate::clone::properties::Properties;

    fn uuid(number: u8) -> Uuid {
        Uuid::from_bytes([number; 16])
    }

    /// Changes of one key, sent at once.
    fn sent(numbers: &[u8]) -> Forwards {
        let mut forwards = Forwards::default();
        for &number in numbers {
            let change = KvMsg {
                key: b"/a",
                sequence: Sequence::ZERO,
                uuid: Some(uuid(number)),
                properties: Properties::EMPTY,
                body: &[number],
            };
            let now = Time::ZERO + Duration::from_millis(number.into());
            forwards.push(Owned::new(&change), now, Some(now), Sequence::new(1, 0));
        }
        forwards
    }

    /// What is in any of its lists, and bytes.
    fn left(forwards: &Forwards) -> usize {
        let lists = forwards.unanswered.len() + forwards.unanswered_by_key.len();
        let applied = forwards.applied.len() + forwards.applied_by_key.len();
        let bytes = forwards.unanswered_bytes + forwards.applied_bytes;
        lists + applied + bytes + forwards.numbers.len()
    }

    #[test]
    fn what_is_applied_makes_room_if_that_is_enough_and_else_stays() {
        let mut forwards = sent(&[1, 2, 3]);
        let size = forwards.unanswered_bytes / 3;
        for (number, counter) in [(1, 1), (2, 2)] {
            forwards.apply(uuid(number), Sequence::new(1, counter));
        }
        assert_eq!(
            forwards.make_room(2 * size, (9, 3 * size - 1)),
            None,
            "the third is in its way"
        );
        assert_eq!(forwards.applied(), 2);
        assert_eq!(forwards.make_room(size, (9, 3 * size)), Some(1));
        assert_eq!(forwards.make_room(size, (2, 9 * size)), Some(1));
        assert_eq!(forwards.make_room(size, (1, 9 * size)), None);
        assert!(forwards.contains(&uuid(3)) && !forwards.contains(&uuid(2)));
    }

    fn due(forwards: &mut Forwards) -> (Vec<u64>, u64) {
        forwards.repeat(Time::ZERO + Duration::from_secs(9), |_, _| false)
    }

    #[test]
    fn the_newest_of_a_key_is_due_again_also_behind_an_older_one_that_is_applied() {
        let mut forwards = sent(&[1, 2, 3]);
        assert_eq!(forwards.apply(uuid(1), Sequence::new(1, 1)), 0);
        assert_eq!(due(&mut forwards), (vec![2], 1));
        assert!(!forwards.contains(&uuid(2)), "it would come behind the third");
    }

    #[test]
    fn what_came_before_one_of_its_key_that_is_applied_is_never_due_again() {
        let mut forwards = sent(&[1, 2, 3]);
        assert_eq!(forwards.apply(uuid(3), Sequence::new(1, 1)), 2);
        forwards.settle(|_| true);
        assert_eq!(due(&mut forwards), (vec![], 0));
        assert_eq!(left(&forwards), 0);
    }

    #[test]
    fn what_is_applied_goes_with_a_newer_one_of_its_key_of_which_nothing_is_known() {
        let anew = |forwards: &mut Forwards| {
            forwards.begin_anew(Time::ZERO, |_| false);
            forwards.unanswered()
        };
        let mut forwards = sent(&[1, 2]);
        forwards.apply(uuid(1), Sequence::new(1, 1));
        assert_eq!(forwards.give_up_first().map(|(_, gone)| gone), Some(1));
        assert_eq!((anew(&mut forwards), left(&forwards)), (0, 0));
        // Refused is refused, unless another upstream was sent it before.
        for (is_known, is_elsewhere, left) in [(true, false, 1), (false, false, 0), (true, true, 0)]
        {
            let mut forwards = sent(&[1, 2]);
            forwards.apply(uuid(1), Sequence::new(1, 1));
            if is_elsewhere {
                forwards.begin_anew(Time::ZERO, |_| true);
            }
            forwards.end(&uuid(2), is_known);
            assert_eq!(anew(&mut forwards), left);
        }
    }
}
