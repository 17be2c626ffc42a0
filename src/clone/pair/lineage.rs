//! [`Lineage`]: the epochs a state went through.

use std::fmt::{self, Write as _};
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::Seat;
use crate::clone::properties::PropertiesBuf;
use crate::clone::sequence::Sequence;

/// Epochs remembered; a sequence of an older one is answered in full.
const MAX_SPANS: usize = 16;

/// Bits of a counter.
const COUNTER_BITS: u32 = 40;

/// Where and by whom a history was begun from nothing: its name. The older is
/// the lesser.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Root {
    /// Its first sequence.
    pub start: Sequence,
    /// The broker that began it.
    pub node: u64,
}

/// The sequences that belong to a history: one span for each epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lineage {
    root: Root,
    /// Oldest first, never empty; the last one is open: its end is where the
    /// holder of the state is, and only what others said of it stands here.
    spans: Vec<Span>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span {
    first: Sequence,
    last: Sequence,
}

impl Lineage {
    /// A history begun from nothing.
    pub fn new(root: Root) -> Lineage {
        Lineage { root, spans: vec![Span { first: root.start, last: root.start }] }
    }

    /// Its name.
    pub fn root(&self) -> Root {
        self.root
    }

    /// The first sequence of its present epoch.
    pub fn first(&self) -> Sequence {
        self.spans.last().map_or(Sequence::ZERO, |span| span.first)
    }

    /// The last sequence of the epoch before the present one.
    pub fn fork(&self) -> Option<Sequence> {
        self.taken_over().map(|span| *span.end())
    }

    /// The first and the last sequence of the epoch before the present one.
    pub fn taken_over(&self) -> Option<RangeInclusive<Sequence>> {
        let before = &self.spans[self.spans.len().checked_sub(2)?];
        Some(before.first..=before.last)
    }

    /// What heartbeats say of it.
    pub(crate) fn announce(&self, to: &mut PropertiesBuf) {
        if let Some(span) = self.taken_over() {
            to.push("fork", span.end());
            to.push("fork_from", span.start());
        }
    }

    /// The present epoch has come to `position`.
    pub fn extend(&mut self, position: Sequence) {
        if let Some(span) = self.spans.last_mut() {
            span.last = span.last.max(position);
        }
    }

    /// The present epoch ended at `position`, another begins with `first`.
    pub fn begin_epoch(&mut self, position: Sequence, first: Sequence) {
        self.extend(position);
        if self.spans.len() == MAX_SPANS {
            self.spans.remove(0);
        }
        self.spans.push(Span { first, last: first });
    }

    /// Whether `sequence` was given in it, which is at `position` now.
    pub fn contains(&self, sequence: Sequence, position: Sequence) -> bool {
        let open = self.first();
        self.spans.iter().any(|span| {
            let last = if span.first == open { span.last.max(position) } else { span.last };
            (span.first..=last).contains(&sequence)
        })
    }

    /// Whether one can tell by their numbers which sequences in it were given before this one,
    /// of whatever history: those of its epoch up to there, and of epochs before; or none.
    pub(crate) fn orders(&self, sequence: Sequence) -> bool {
        let oldest = self.spans.first().map_or(Sequence::ZERO, |span| span.first);
        let is_its_epoch = |span: &Span| {
            let last = span.last.epoch().max(span.first.epoch());
            (span.first.epoch()..=last).contains(&sequence.epoch())
        };
        sequence < oldest || self.spans.iter().any(is_its_epoch)
    }

    /// The last sequence that both have in common; zero if there is none. Both
    /// must have been [extended](Lineage::extend) to where they are.
    pub fn last_common(&self, other: &Lineage) -> Sequence {
        if self.root != other.root {
            return Sequence::ZERO;
        }
        let theirs = |span: &Span| {
            let same = other.spans.iter().find(|theirs| theirs.first == span.first)?;
            Some(span.last.min(same.last))
        };
        self.spans.iter().rev().find_map(theirs).unwrap_or_default()
    }

    /// As the property `lineage` has it.
    pub fn spans(&self) -> String {
        let mut text = String::new();
        for span in &self.spans {
            let comma = if text.is_empty() { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(text, "{comma}{}-{}", span.first, span.last);
        }
        text
    }

    /// From the properties `root` and `lineage`.
    pub fn parse(root: &str, spans: &str) -> Option<Lineage> {
        let root = root.parse().ok()?;
        let spans: Option<Vec<Span>> = spans.split(',').map(parse_span).collect();
        let spans = spans.filter(|spans| (1..=MAX_SPANS).contains(&spans.len()))?;
        let rises = spans.windows(2).all(|pair| pair[0].last < pair[1].first);
        rises.then_some(Lineage { root, spans })
    }
}

fn parse_span(text: &str) -> Option<Span> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(Span { first, last })
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.start, self.node)
    }
}

impl FromStr for Root {
    type Err = ();
    fn from_str(text: &str) -> Result<Root, ()> {
        let (start, node) = text.split_once('-').ok_or(())?;
        let start = start.parse().map_err(|_| ())?;
        Ok(Root { start, node: u64::from_str_radix(node, 16).map_err(|_| ())? })
    }
}

impl Seat {
    const fn parity(self) -> u32 {
        match self {
            Seat::Primary => 0,
            Seat::Backup => 1,
        }
    }

    /// The first sequence of this seat's first epoch above `epoch`.
    pub fn epoch_above(self, epoch: u32) -> Sequence {
        let next = epoch.saturating_add(1);
        Sequence::new(next.saturating_add((next & 1) ^ self.parity()), 0)
    }

    /// Where this seat begins a history from nothing at what is `start` for a
    /// lone broker ([`Sequence::at_start`]): two minutes an epoch, so that each
    /// seat has its own, and no start lies below an earlier one.
    pub fn start(self, start: Sequence) -> Sequence {
        let half = u64::from(start.epoch() & 1) << (COUNTER_BITS - 1);
        let epoch = (start.epoch() & !1).saturating_add(2 + self.parity());
        Sequence::new(epoch, half + start.counter() / 2)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(epoch: u32, counter: u64) -> Sequence {
        Sequence::new(epoch, counter)
    }

    fn root(epoch: u32) -> Root {
        Root { start: at(epoch, 0), node: 7 }
    }

    #[test]
    fn numbers_of_epochs_that_are_none_of_its_own_are_not_compared() {
        let mut lineage = Lineage::new(root(10));
        lineage.begin_epoch(at(10, 450), at(12, 0));
        for (sequence, expected) in [
            (at(9, 7), true),
            (at(10, 450), true),
            // Given by the same broker as what is in it, in a tail.
            (at(10, 460), true),
            (at(11, 1), false),
            (at(12, 9), true),
            (at(13, 0), false),
        ] {
            assert_eq!(lineage.orders(sequence), expected, "{sequence:?}");
        }
    }

    #[test]
    fn it_contains_what_was_given_in_it_and_no_more() {
        let mut lineage = Lineage::new(root(10));
        lineage.begin_epoch(at(10, 450), at(11, 0));
        for (sequence, expected) in
            [(at(10, 0), true), (at(10, 450), true), (at(10, 451), false), (at(11, 5), true)]
        {
            assert_eq!(lineage.contains(sequence, at(11, 5)), expected, "{sequence:?}");
        }
        assert!(!lineage.contains(at(11, 6), at(11, 5)));
        assert!(!lineage.contains(at(9, 1), at(11, 5)));
        assert_eq!(lineage.fork(), Some(at(10, 450)));
    }

    #[test]
    fn the_last_common_sequence_is_the_fork() {
        let mut loser = Lineage::new(root(10));
        let mut winner = loser.clone();
        winner.begin_epoch(at(10, 450), at(11, 0));
        loser.extend(at(10, 500));
        assert_eq!(loser.last_common(&winner), at(10, 450));
        assert_eq!(winner.last_common(&loser), at(10, 450));
        winner.begin_epoch(at(11, 20), at(12, 0));
        assert_eq!(loser.last_common(&winner), at(10, 450));
        let other = Lineage::new(Root { node: 8, ..root(10) });
        assert_eq!(loser.last_common(&other), Sequence::ZERO);
    }

    #[test]
    fn the_wire_and_back() {
        let mut lineage = Lineage::new(root(10));
        for epoch in 11..40 {
            lineage.begin_epoch(at(epoch - 1, 5), at(epoch, 0));
        }
        assert_eq!(lineage.spans.len(), MAX_SPANS);
        let again = Lineage::parse(&lineage.root().to_string(), &lineage.spans());
        assert_eq!(again, Some(lineage));
        for (root, spans) in [
            ("5-7", ""),
            ("5-7", "5"),
            ("5-7", "9-5"),
            ("5-7", "1-5,5-9"),
            ("5", "1-5"),
            ("x-7", "1-5"),
            (
                "5-7",
                "1-2,3-4,5-6,7-8,9-10,11-12,13-14,15-16,17-18,19-20,21-22,23-24,25-26,27-28,29-30,31-32,33-34",
            ),
        ] {
            assert_eq!(Lineage::parse(root, spans), None, "{root} {spans}");
        }
    }

    #[test]
    fn each_seat_has_its_own_epochs() {
        let above = |seat: Seat, epoch| seat.epoch_above(epoch).epoch();
        assert_eq!((above(Seat::Primary, 10), above(Seat::Primary, 11)), (12, 12));
        assert_eq!((above(Seat::Backup, 10), above(Seat::Backup, 11)), (11, 13));
    }

    /// Promotions take an epoch each, the clock one a minute: as long as there are fewer of
    /// them than minutes, less three, a new start of either lies above them all.
    #[test]
    fn a_start_lies_above_as_many_promotions_as_there_were_minutes() {
        let start = |seat: Seat, minutes: u64| {
            seat.start(Sequence::at_start(Duration::from_secs(1_735_689_600 + 60 * minutes)))
        };
        for begin in 100..104 {
            for first in [Seat::Primary, Seat::Backup] {
                for minutes in 4..60 {
                    let (mut seat, mut epoch) = (first, start(first, begin).epoch());
                    for _ in 0..minutes - 3 {
                        seat = seat.other();
                        epoch = seat.epoch_above(epoch).epoch();
                    }
                    for again in [Seat::Primary, Seat::Backup] {
                        let start = start(again, begin + minutes);
                        assert!(start.epoch() >= epoch, "{begin} {minutes} {start:?} {epoch}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_start_lies_above_every_earlier_one() {
        let new_year = Duration::from_secs(1_735_689_600);
        let mut last = [Sequence::ZERO; 2];
        let mut lone = Sequence::ZERO;
        for ms in (0..600_000).step_by(500) {
            let now = Sequence::at_start(new_year + Duration::from_millis(60_000 + ms));
            for seat in [Seat::Primary, Seat::Backup] {
                let start = seat.start(now);
                assert_eq!(start.epoch() % 2, seat.parity());
                assert!(start > last[seat.parity() as usize] && start > lone, "{ms} {start:?}");
                last[seat.parity() as usize] = start;
            }
            lone = now;
        }
    }
}
