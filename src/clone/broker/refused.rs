//! The uuids of changes that were refused, so that no copy of one takes effect later.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::clone::kvmsg::Uuid;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// Refusals remembered: of a client that sends into a full store, each change.
const MAX_COUNT: usize = if cfg!(miri) { 256 } else { 65_536 };

/// Bytes of a refusal on its way to a standby: uuid, sequence, age in milliseconds.
const RECORD: usize = 16 + 8 + 4;

/// The reasons by which a change is refused so that no copy may take effect.
const REASONS: [&str; 6] = [
    "store-full-keys",
    "store-full-bytes",
    "entry-too-large",
    "no-sequence-left",
    "properties-too-large",
    "reserved-key",
];

/// A window of refused uuids, bounded by count and by age.
///
/// A client sends a change again when its answer is late. If the first copy was
/// refused because the store was full, and the second finds room, it must be refused
/// all the same: its sender has been told that it has no effect. For the same reason a
/// standby takes the refusals of its active over.
#[derive(Debug)]
pub(super) struct Refused {
    by_uuid: HashMap<Uuid, &'static str>,
    /// In order of refusal, with the sequence given last before it.
    order: VecDeque<(Uuid, Sequence, Time)>,
    max_age: Duration,
    /// Of changes first sent when no more than this was known one cannot say that
    /// they were never refused.
    forgotten_until: Option<Sequence>,
    /// Ever remembered.
    count: u64,
}

impl Refused {
    pub(super) fn new(max_age: Duration) -> Refused {
        Refused {
            by_uuid: HashMap::new(),
            order: VecDeque::new(),
            max_age,
            forgotten_until: None,
            count: 0,
        }
    }

    /// How many it has ever remembered.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Why a change with this uuid was refused.
    #[inline]
    pub(super) fn get(&self, uuid: &Uuid) -> Option<&'static str> {
        // Mostly there is none.
        if self.by_uuid.is_empty() {
            return None;
        }
        self.by_uuid.get(uuid).copied()
    }

    /// Whether a change may have been refused and forgotten, which was first sent
    /// when its client knew of `known`.
    pub(super) fn may_have_forgotten(&self, known: Sequence) -> bool {
        self.forgotten_until.is_some_and(|until| known <= until)
    }

    /// Remembers a change that was refused now; `last` is the sequence given last. False: it
    /// was known.
    pub(super) fn insert(
        &mut self,
        uuid: Uuid,
        reason: &'static str,
        last: Sequence,
        now: Time,
    ) -> bool {
        if self.by_uuid.contains_key(&uuid) {
            return false;
        }
        while self.order.len() >= MAX_COUNT
            || self.order.front().is_some_and(|&(_, _, at)| now.since(at) > self.max_age)
        {
            let Some((oldest, sequence, _)) = self.order.pop_front() else { break };
            self.by_uuid.remove(&oldest);
            self.forget_until(sequence);
        }
        self.by_uuid.insert(uuid, reason);
        self.order.push_back((uuid, last, now));
        self.count += 1;
        true
    }

    /// Remembers a change that the active has refused, for the reason that it gave. False: it
    /// was known, or the answer is not that the change has no effect.
    pub(super) fn adopt(&mut self, uuid: Uuid, reason: &[u8], last: Sequence, now: Time) -> bool {
        if reason == b"forgotten" {
            return false;
        }
        let known = REASONS.into_iter().find(|known| known.as_bytes() == reason);
        // The ages of the window fall; whatever comes, times must not go back.
        let at = self.order.back().map_or(now, |&(.., last)| now.max(last));
        self.insert(uuid, known.unwrap_or("refused"), last, at)
    }

    /// What was refused before this may be unknown.
    pub(super) fn forget_until(&mut self, until: Sequence) {
        self.forgotten_until = self.forgotten_until.max(Some(until));
    }

    /// Up to where it has forgotten, if it has.
    pub(super) fn forgotten_until(&self) -> Option<Sequence> {
        self.forgotten_until
    }

    /// Writes records of up to `most` refusals for one reason, from the one with this running
    /// number on. Gives the reason and the number of the next; `None` if there are no more.
    pub(super) fn write_records(
        &self,
        number: u64,
        most: usize,
        now: Time,
        to: &mut Vec<u8>,
    ) -> Option<(&'static str, u64)> {
        let first = self.count - self.order.len() as u64;
        let mut next = number.max(first);
        let (uuid, ..) = self.order.get((next - first) as usize)?;
        let reason = self.get(uuid)?;
        for (uuid, last, at) in self.order.range((next - first) as usize..).take(most) {
            if self.get(uuid) != Some(reason) {
                break;
            }
            to.extend_from_slice(uuid.as_bytes());
            to.extend_from_slice(&last.to_wire());
            let age = now.since(*at).as_millis().min(u32::MAX.into()) as u32;
            to.extend_from_slice(&age.to_be_bytes());
            next += 1;
        }
        Some((reason, next))
    }

    /// Takes records that another window has written; `None` if they are none.
    pub(super) fn read_records(&mut self, now: Time, reason: &[u8], records: &[u8]) -> Option<()> {
        if !records.len().is_multiple_of(RECORD) {
            return None;
        }
        for record in records.chunks_exact(RECORD) {
            let (uuid, rest) = record.split_first_chunk::<16>()?;
            let (last, age) = rest.split_first_chunk::<8>()?;
            let age = Duration::from_millis(u32::from_be_bytes(age.try_into().ok()?).into());
            self.adopt(Uuid::from_bytes(*uuid), reason, Sequence::from_wire(*last), now - age);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(n: u32) -> Uuid {
        Uuid::from_bytes(u128::from(n).to_be_bytes())
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn remembers_up_to_the_age_and_knows_what_it_forgot() {
        let mut refused = Refused::new(Duration::from_secs(10));
        refused.insert(uuid(1), "full", Sequence::new(1, 5), at(0));
        refused.insert(uuid(2), "full", Sequence::new(1, 6), at(5));
        assert_eq!(refused.get(&uuid(1)), Some("full"));
        assert!(!refused.may_have_forgotten(Sequence::ZERO));
        refused.insert(uuid(3), "full", Sequence::new(1, 7), at(11));
        assert_eq!(refused.get(&uuid(1)), None);
        assert_eq!(refused.get(&uuid(2)), Some("full"));
        assert!(refused.may_have_forgotten(Sequence::new(1, 5)));
        assert!(!refused.may_have_forgotten(Sequence::new(1, 6)));
    }

    #[test]
    fn remembers_up_to_the_count() {
        let mut refused = Refused::new(Duration::from_secs(10));
        for n in 0..=MAX_COUNT as u32 {
            refused.insert(uuid(n), "full", Sequence::new(1, n.into()), at(0));
            refused.insert(uuid(n), "full", Sequence::new(1, n.into()), at(0));
        }
        assert_eq!(refused.order.len(), MAX_COUNT);
        assert_eq!(refused.by_uuid.len(), MAX_COUNT);
        assert_eq!(refused.get(&uuid(0)), None);
        assert!(refused.may_have_forgotten(Sequence::new(1, 0)));
        assert!(!refused.may_have_forgotten(Sequence::new(1, 1)));
    }

    #[test]
    fn a_window_crosses_to_a_standby() {
        let mut here = Refused::new(Duration::from_secs(60));
        let reasons = ["store-full-keys", "store-full-keys", "entry-too-large", "store-full-keys"];
        for (n, reason) in (1..).zip(reasons) {
            here.insert(uuid(n), reason, Sequence::new(1, n.into()), at(n.into()));
        }
        let (mut there, mut wire) = (Refused::new(Duration::from_secs(60)), Vec::new());
        // Times here are others than there.
        assert!(there.adopt(uuid(4), b"another reason", Sequence::new(1, 4), at(1018)));
        let (mut number, mut messages) = (0, 0);
        while let Some((reason, next)) = here.write_records(number, 100, at(20), &mut wire) {
            there.read_records(at(1020), reason.as_bytes(), &wire).unwrap();
            wire.clear();
            (number, messages) = (next, messages + 1);
        }
        assert_eq!(messages, 3, "one for each run of a reason");
        for n in 1..=3 {
            assert_eq!(there.get(&uuid(n)), here.get(&uuid(n)));
        }
        assert_eq!(there.get(&uuid(4)), Some("refused"));
        assert!(there.order.iter().is_sorted_by_key(|&(.., at)| at));
        assert_eq!(there.count(), 4);
        assert_eq!(there.read_records(at(1020), b"entry-too-large", &[0; RECORD + 1]), None);
        assert!(!there.adopt(uuid(9), b"forgotten", Sequence::ZERO, at(1020)));
    }

    #[test]
    fn what_has_left_is_passed_over_on_the_way() {
        let mut refused = Refused::new(Duration::from_secs(10));
        refused.insert(uuid(1), "store-full-keys", Sequence::new(1, 1), at(0));
        refused.insert(uuid(2), "store-full-keys", Sequence::new(1, 2), at(1));
        refused.insert(uuid(3), "store-full-keys", Sequence::new(1, 3), at(20));
        let mut wire = Vec::new();
        let written = refused.write_records(0, 100, at(20), &mut wire);
        assert_eq!((written, wire.len()), (Some(("store-full-keys", 3)), RECORD));
        assert_eq!(refused.write_records(3, 100, at(20), &mut wire), None);
    }
}
