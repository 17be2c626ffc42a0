//! The window of uuids on its way to another broker.

use std::time::Duration;

use super::{KeyHash, Recent};
use crate::clone::kvmsg::Uuid;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// Bytes of a uuid on its way: uuid, sequence, age in milliseconds, hash of the key.
pub(in crate::clone::broker) const RECORD: usize = 16 + 8 + 4 + 4;

impl Recent {
    /// The running number of the first entry applied after `since`.
    pub(in crate::clone::broker) fn number_after(&self, since: Sequence) -> u32 {
        let index = self.entries.index_after(since);
        self.entries.first_number().wrapping_add(index as u32)
    }

    /// Writes up to `most` records from entry `number` on, none applied after
    /// `until`, and gives the number of the next. Entries that have left since are passed over.
    pub(in crate::clone::broker) fn write_records(
        &self,
        number: u32,
        most: usize,
        until: Sequence,
        now: Time,
        to: &mut Vec<u8>,
    ) -> u32 {
        let first = self.entries.first_number();
        let index = number.wrapping_sub(first);
        // The number of one that has left is a very large index.
        let index = if index > u32::MAX / 2 { 0 } else { index as usize };
        let mut next = index.min(self.len());
        let wanted = self.entries.iter_from(next).zip(self.keys.range(next..)).take(most);
        for (entry, key) in wanted.take_while(|(entry, _)| entry.sequence <= until) {
            to.extend_from_slice(entry.uuid.as_bytes());
            to.extend_from_slice(&entry.sequence.to_wire());
            let age = now.since(entry.at).as_millis().min(u32::MAX.into()) as u32;
            to.extend_from_slice(&age.to_be_bytes());
            // What nobody else knows the key by is of no use there.
            let key = if self.is_shared { key.hash } else { 0 };
            to.extend_from_slice(&key.to_be_bytes());
            next += 1;
        }
        first.wrapping_add(next as u32)
    }

    /// Takes records that another window has written; `None` if they are none.
    pub(in crate::clone::broker) fn read_records(
        &mut self,
        now: Time,
        records: &[u8],
    ) -> Option<()> {
        if !records.len().is_multiple_of(RECORD) {
            return None;
        }
        for record in records.chunks_exact(RECORD) {
            let (uuid, rest) = record.split_first_chunk::<16>()?;
            let (sequence, rest) = rest.split_first_chunk::<8>()?;
            let (age, key) = rest.split_first_chunk::<4>()?;
            let age = Duration::from_millis(u32::from_be_bytes(*age).into());
            let key = KeyHash::from_be_bytes(key.try_into().ok()?);
            let (uuid, sequence) = (Uuid::from_bytes(*uuid), Sequence::from_wire(*sequence));
            if self.get(&uuid).is_none() {
                // The ages of a ring fall; whatever comes, times must not go back.
                let last = self.last_at().unwrap_or_default();
                self.insert(uuid, sequence, key, (now - age).max(last));
            }
        }
        // Which of them were adopted there is not told.
        self.adopted_until = self.entries.last().map_or(Sequence::ZERO, |last| last.sequence);
        if self.forgotten_until > Sequence::ZERO {
            self.senders.miss();
        }
        Some(())
    }

    /// The sequence of the youngest of those that had to leave; zero if none had.
    pub(in crate::clone::broker) fn forgotten_until(&self) -> Sequence {
        self.forgotten_until
    }

    /// What was applied up to `until` may be unknown here.
    pub(in crate::clone::broker) fn forget_until(&mut self, until: Sequence) {
        self.forgotten_until = self.forgotten_until.max(until);
        if until > Sequence::ZERO {
            self.senders.miss();
        }
    }

    /// Takes uuids of changes of a key that had their effect elsewhere, as if it had been now.
    pub(in crate::clone::broker) fn adopt(
        &mut self,
        now: Time,
        sequence: Sequence,
        key: KeyHash,
        uuids: &[u8],
    ) {
        for uuid in uuids.as_chunks::<16>().0 {
            let uuid = Uuid::from_bytes(*uuid);
            if self.get(&uuid).is_none() {
                let last = self.last_at().unwrap_or_default();
                self.insert(uuid, sequence, key, now.max(last));
                self.adopted_until = sequence;
            }
        }
    }

    /// The uuids applied after `since`, oldest first, with their keys and sequences.
    pub(in crate::clone::broker) fn uuids_after(
        &self,
        since: Sequence,
    ) -> impl Iterator<Item = (KeyHash, Sequence, Uuid)> {
        let index = self.entries.index_after(since);
        let entries = self.entries.iter_from(index).zip(self.keys.range(index..));
        entries.map(|(entry, key)| (key.hash, entry.sequence, entry.uuid))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Order;
    use super::*;

    #[test]
    fn a_window_crosses_to_another_broker() {
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let mut here = Recent::new(100, Duration::from_secs(60), true);
        for n in 1..=10u8 {
            let (uuid, sequence) = (Uuid::from_bytes([n; 16]), Sequence::new(1, n.into()));
            here.insert(uuid, sequence, n.into(), at(n.into()));
        }
        let (mut there, mut wire) = (Recent::new(100, Duration::from_secs(60), true), Vec::new());
        let mut number = here.number_after(Sequence::new(1, 4));
        loop {
            wire.clear();
            number = here.write_records(number, 4, Sequence::MAX, at(20), &mut wire);
            if wire.is_empty() {
                break;
            }
            there.read_records(at(1020), &wire).unwrap();
        }
        assert_eq!(there.len(), 6);
        assert_eq!(there.get(&Uuid::from_bytes([4; 16])), None);
        assert_eq!(there.get(&Uuid::from_bytes([5; 16])), Some(Sequence::new(1, 5)));
        assert_eq!(there.entries.first().unwrap().at, at(1005), "as old as they were");
        let keys: Vec<_> = there.uuids_after(Sequence::ZERO).map(|(key, ..)| key).collect();
        assert_eq!(keys, [5, 6, 7, 8, 9, 10]);
        assert_eq!(there.read_records(at(1020), &[0; RECORD - 1]), None);
    }

    #[test]
    fn entries_that_leave_meanwhile_are_passed_over() {
        let mut recent = Recent::new(4, Duration::from_secs(60), true);
        recent.entries.start_at(u32::MAX - 1);
        let insert = |recent: &mut Recent, n: u8| {
            recent.insert(Uuid::from_bytes([n; 16]), Sequence::new(1, n.into()), 0, Time::ZERO);
        };
        (1..=4).for_each(|n| insert(&mut recent, n));
        let mut wire = Vec::new();
        let number = recent.number_after(Sequence::ZERO);
        let number = recent.write_records(number, 1, Sequence::MAX, Time::ZERO, &mut wire);
        (5..=7).for_each(|n| insert(&mut recent, n));
        wire.clear();
        let number = recent.write_records(number, 100, Sequence::MAX, Time::ZERO, &mut wire);
        assert_eq!(wire.len(), 4 * RECORD, "4 to 7");
        wire.clear();
        recent.write_records(number, 100, Sequence::MAX, Time::ZERO, &mut wire);
        assert!(wire.is_empty());
    }

    #[test]
    fn the_order_of_a_sender_crosses_to_another_broker() {
        let (count, age) = (100, Duration::from_secs(60));
        let mut here = Recent::new(count, age, true);
        let key = here.key_hash(b"/a", 0);
        here.insert(Uuid::numbered(7, 5), Sequence::new(1, 1), key, Time::ZERO);
        let mut wire = Vec::new();
        here.write_records(0, 10, Sequence::MAX, Time::ZERO, &mut wire);
        let mut there = Recent::new(count, age, true);
        there.read_records(Time::ZERO, &wire).unwrap();
        let (late, changed) = (Uuid::numbered(7, 4), Sequence::new(1, 9));
        assert_eq!(there.order(&late), Order::Late);
        assert!(there.has_later(&late, key, changed));
        // All that it has ever changed is known there; once something is forgotten, it is not.
        assert_eq!(there.order(&Uuid::numbered(7, 6)), Order::Last);
        there.forget_until(Sequence::new(1, 1));
        assert_eq!(there.order(&Uuid::numbered(7, 6)), Order::LastRemembered);
        // What was adopted bears the number of what replaced it, or a higher one.
        there.adopt(Time::ZERO, changed, key, Uuid::numbered(8, 3).as_bytes());
        assert!(there.has_later(&Uuid::numbered(8, 2), key, Sequence::new(1, 2)));
        // Hashes that are known here alone say nothing there.
        let mut alone = Recent::new(count, age, false);
        alone.insert(Uuid::numbered(7, 5), Sequence::new(1, 1), 77, Time::ZERO);
        wire.clear();
        alone.write_records(0, 10, Sequence::MAX, Time::ZERO, &mut wire);
        assert_eq!(wire[RECORD - 4..], [0; 4]);
    }
}
