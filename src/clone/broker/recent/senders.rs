//! [`Senders`]: of each sender that numbers its changes the highest number applied.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Senders remembered at least: those used last. Twice as many at most.
const MAX_SENDERS: usize = if cfg!(miri) { 256 } else { 65_536 };

/// How a change stands to those of its sender that have been applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::clone::broker) enum Order {
    /// It is later than all of them.
    Last,
    /// It is later than all that are remembered in the window.
    LastRemembered,
    /// There may be later ones.
    Late,
    /// Its sender does not number its changes.
    Unnumbered,
}

/// The highest number of each sender, two generations of them: when the younger one is full, it
/// takes the place of the older one. What is of the sender that was used last costs hardly anything.
#[derive(Debug)]
pub(super) struct Senders {
    young: Generation,
    old: Generation,
    /// Which of the young ones was used last.
    last: usize,
    hasher: DefaultHashBuilder,
    max_count: usize,
    /// One that is not known may have been here before.
    has_missed: bool,
}

#[derive(Debug, Default)]
struct Generation {
    senders: Vec<Sender>,
    by_seed: HashTable<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Sender {
    seed: u64,
    highest: u64,
    /// It has changed nothing here beyond that, not even what the window has forgotten.
    is_whole: bool,
}

impl Senders {
    pub(super) fn new() -> Senders {
        Senders {
            young: Generation::default(),
            old: Generation::default(),
            last: 0,
            hasher: DefaultHashBuilder::default(),
            max_count: MAX_SENDERS,
            has_missed: false,
        }
    }

    /// How the change with this number stands to those before it.
    #[inline]
    pub(super) fn order(&mut self, seed: u64, number: u64) -> Order {
        match self.young.senders.get(self.last) {
            Some(last) if last.seed == seed => last.order(number),
            _ => self.order_of_another(seed, number),
        }
    }

    #[cold]
    fn order_of_another(&mut self, seed: u64, number: u64) -> Order {
        let hash = self.hasher.hash_one(seed);
        if let Some(place) = self.young.find(hash, seed) {
            self.last = place;
            return self.young.senders[place].order(number);
        }
        match self.old.find(hash, seed) {
            Some(place) => self.old.senders[place].order(number),
            None if self.has_missed => Order::Late,
            None => Order::Last,
        }
    }

    /// A change with this number was applied.
    #[inline]
    pub(super) fn insert(&mut self, seed: u64, number: u64) {
        match self.young.senders.get_mut(self.last) {
            Some(last) if last.seed == seed => last.highest = last.highest.max(number),
            _ => self.insert_of_another(seed, number),
        }
    }

    #[cold]
    fn insert_of_another(&mut self, seed: u64, number: u64) {
        let hash = self.hasher.hash_one(seed);
        if let Some(place) = self.young.find(hash, seed) {
            self.last = place;
            let sender = &mut self.young.senders[place];
            sender.highest = sender.highest.max(number);
            return;
        }
        let known = self.old.find(hash, seed).map(|place| self.old.senders[place]);
        if self.young.senders.len() >= self.max_count {
            std::mem::swap(&mut self.young, &mut self.old);
            self.has_missed |= !self.young.senders.is_empty();
            self.young.clear();
        }
        let new = Sender { seed, highest: number, is_whole: !self.has_missed };
        let mut sender = known.unwrap_or(new);
        sender.highest = sender.highest.max(number);
        self.last = self.young.push(hash, sender, &self.hasher);
    }

    /// Changes were applied of which it was not told.
    pub(super) fn miss(&mut self) {
        self.has_missed = true;
        for sender in self.young.senders.iter_mut().chain(&mut self.old.senders) {
            sender.is_whole = false;
        }
    }
}

impl Generation {
    fn find(&self, hash: u64, seed: u64) -> Option<usize> {
        let is_it = |&place: &u32| self.senders[place as usize].seed == seed;
        self.by_seed.find(hash, is_it).map(|&place| place as usize)
    }

    fn push(&mut self, hash: u64, sender: Sender, hasher: &DefaultHashBuilder) -> usize {
        let Generation { senders, by_seed } = self;
        let place = senders.len();
        senders.push(sender);
        let hash_of = |&place: &u32| hasher.hash_one(senders[place as usize].seed);
        by_seed.insert_unique(hash, place as u32, hash_of);
        place
    }

    fn clear(&mut self) {
        self.senders.clear();
        self.by_seed.clear();
    }
}

impl Sender {
    fn order(&self, number: u64) -> Order {
        match (number > self.highest, self.is_whole) {
            (true, true) => Order::Last,
            (true, false) => Order::LastRemembered,
            (false, _) => Order::Late,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_order_is_told_from_what_comes_late() {
        let mut senders = Senders::new();
        assert_eq!(senders.order(1, 1), Order::Last, "nothing of it was ever applied");
        for (seed, number) in [(1, 5), (2, 1), (1, 7), (1, 3)] {
            senders.insert(seed, number);
        }
        for (seed, number, order) in [
            (1, 8, Order::Last),
            (1, 7, Order::Late),
            (1, 4, Order::Late),
            (2, 2, Order::Last),
            (3, 1, Order::Last),
        ] {
            assert_eq!(senders.order(seed, number), order, "{seed} {number}");
        }
    }

    #[test]
    fn of_those_that_missed_something_more_is_asked() {
        let mut senders = Senders::new();
        senders.insert(1, 5);
        senders.miss();
        assert_eq!(senders.order(1, 6), Order::LastRemembered);
        assert_eq!(senders.order(1, 4), Order::Late);
        assert_eq!(senders.order(2, 6), Order::Late, "it may have been here before");
        senders.insert(2, 6);
        assert_eq!(senders.order(2, 7), Order::LastRemembered);
    }

    #[test]
    fn those_used_last_are_remembered_and_no_more_than_twice_as_many() {
        let mut senders = Senders::new();
        let max = MAX_SENDERS as u64;
        // One is used again and again.
        for seed in 1..=3 * max {
            senders.insert(seed, 10);
            senders.insert(0, seed);
            let count = senders.young.senders.len() + senders.old.senders.len();
            assert!(count <= 2 * MAX_SENDERS, "{count}");
        }
        assert_eq!(senders.order(0, 3 * max), Order::Late);
        assert_eq!(senders.order(0, 3 * max + 1), Order::Last, "it was never forgotten");
        let first = 2 * max + 2;
        for seed in first..=3 * max {
            assert_ne!(senders.order(seed, 11), Order::Late, "{seed} is remembered");
            assert_eq!(senders.order(seed, 10), Order::Late, "{seed}");
        }
        assert_eq!(senders.order(1, 11), Order::Late, "forgotten: nothing is known of it");
        senders.insert(1, 11);
        assert_eq!(senders.order(1, 12), Order::LastRemembered);
    }
}
