//! The subtrees that somebody follows, each with a heartbeat of its own.

use hashbrown::HashMap;

use crate::clone::sequence::Sequence;

/// What a heartbeat tells of one subtree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch {
    /// Last sequence published under the subtree, or the broker's current one
    /// when the watch began.
    pub(super) sequence: Sequence,
    /// Changes published under it, counted from the broker's total at that time.
    pub(super) published: u64,
    /// Somebody subscribed since the last heartbeat and waits for one.
    pub(super) asked: bool,
    /// Its place in the interval, below [`SLOTS`], if heartbeats are spread over that.
    pub(super) slot: u8,
    /// The last subscriber has left. It goes on counting for a while: who comes
    /// at the same moment may have had a heartbeat already, to which the next
    /// must fit.
    is_left: bool,
    /// It was so at the last round of heartbeats.
    was_left: bool,
}

impl Watch {
    pub(super) fn new(sequence: Sequence, published: u64) -> Watch {
        Watch { sequence, published, asked: false, slot: 0, is_left: false, was_left: false }
    }
}

/// Places in an interval over which heartbeats are spread.
pub(super) const SLOTS: u8 = 128;

/// The slot of a subtree, the same in every run. That of the whole tree is the first.
fn slot(prefix: &[u8]) -> u8 {
    // FNV-1a.
    let hash = prefix.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The high bits, which all bytes have a part in.
    if prefix.is_empty() { 0 } else { (hash >> 57) as u8 % SLOTS }
}

/// Watched subtrees by prefix.
///
/// Each published change must find all prefixes of its key. Prefixes are
/// looked up by their distinct lengths, of which real trees have a handful, so
/// that the cost does not grow with the number of subtrees.
#[derive(Debug)]
pub(super) struct Watched {
    by_prefix: HashMap<Box<[u8]>, Watch>,
    /// Distinct prefix lengths with their number of prefixes, ascending.
    lengths: Vec<(usize, usize)>,
    limit: usize,
    /// Watches with `asked` set.
    asked: usize,
    /// Subscriptions since the last heartbeats to those who asked.
    subscriptions: usize,
    /// Watches with `is_left` set.
    left: usize,
}

impl Watched {
    pub(super) fn new(limit: usize) -> Watched {
        Watched {
            by_prefix: HashMap::new(),
            lengths: Vec::new(),
            limit,
            asked: 0,
            subscriptions: 0,
            left: 0,
        }
    }

    /// How many somebody is subscribed to.
    pub(super) fn len(&self) -> usize {
        self.by_prefix.len() - self.left
    }

    pub(super) fn contains(&self, prefix: &[u8]) -> bool {
        self.by_prefix.contains_key(prefix)
    }

    /// Somebody subscribed to the heartbeat of `prefix`. False: the limit is
    /// reached, there will be none. The whole tree's is always there, since
    /// clients join by it.
    pub(super) fn subscribe(&mut self, prefix: &[u8], sequence: Sequence, published: u64) -> bool {
        if !self.contains(prefix) {
            if self.is_full() && self.left > 0 {
                self.retain(|_| false);
            }
            if self.is_full() && !prefix.is_empty() {
                return false;
            }
            self.insert(prefix, Watch { slot: slot(prefix), ..Watch::new(sequence, published) });
        }
        self.subscriptions += 1;
        if let Some(watch) = self.by_prefix.get_mut(prefix) {
            self.asked += usize::from(!watch.asked);
            self.left -= usize::from(watch.is_left);
            (watch.asked, watch.is_left, watch.was_left) = (true, false, false);
        }
        true
    }

    fn is_full(&self) -> bool {
        let subtrees = self.by_prefix.len() - usize::from(self.contains(b""));
        subtrees >= self.limit
    }

    fn insert(&mut self, prefix: &[u8], watch: Watch) {
        self.by_prefix.insert(prefix.into(), watch);
        match self.lengths.binary_search_by_key(&prefix.len(), |&(length, _)| length) {
            Ok(at) => self.lengths[at].1 += 1,
            Err(at) => self.lengths.insert(at, (prefix.len(), 1)),
        }
    }

    /// The last subscriber of the heartbeat of `prefix` has left.
    pub(super) fn unsubscribe(&mut self, prefix: &[u8]) {
        if let Some(watch) = self.by_prefix.get_mut(prefix) {
            self.asked -= usize::from(watch.asked);
            watch.asked = false;
            self.left += usize::from(!watch.is_left);
            watch.is_left = true;
        }
    }

    /// A round of heartbeats went out: stops to count where nobody has come
    /// back since the last one.
    pub(super) fn end_round(&mut self) {
        if self.left > 0 {
            self.retain(|watch| !watch.was_left);
            self.by_prefix.values_mut().for_each(|watch| watch.was_left = watch.is_left);
        }
    }

    /// Removes watches that have been left.
    fn retain(&mut self, keep: impl Fn(&Watch) -> bool) {
        let (lengths, left) = (&mut self.lengths, &mut self.left);
        self.by_prefix.retain(|prefix, watch| {
            let keep = !watch.is_left || keep(watch);
            if !keep {
                *left -= 1;
                if let Ok(at) = lengths.binary_search_by_key(&prefix.len(), |&(len, _)| len) {
                    lengths[at].1 -= 1;
                }
            }
            keep
        });
        lengths.retain(|&(_, prefixes)| prefixes > 0);
    }

    /// All watches begin anew: what happened under them is not known.
    pub(super) fn restart(&mut self, sequence: Sequence, published: u64) {
        for watch in self.by_prefix.values_mut() {
            (watch.sequence, watch.published) = (sequence, published);
        }
    }

    /// A change of `key` was published. The whole tree's figures are the
    /// broker's own and not kept here.
    #[inline]
    pub(super) fn published(&mut self, key: &[u8], sequence: Sequence) {
        for &(length, _) in self.lengths.iter().filter(|&&(length, _)| length > 0) {
            let Some(prefix) = key.get(..length) else { break };
            if let Some(watch) = self.by_prefix.get_mut(prefix) {
                watch.sequence = sequence;
                watch.published += 1;
            }
        }
    }

    /// The watched prefixes that cover `key`.
    pub(super) fn covering<'a>(
        &'a self,
        key: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], Watch)> + 'a {
        self.lengths.iter().filter_map(move |&(length, _)| {
            let (prefix, watch) = self.by_prefix.get_key_value(key.get(..length)?)?;
            (!watch.is_left).then_some((&**prefix, *watch))
        })
    }

    /// The watched prefixes whose watch is `due`, in their own order: that of
    /// the map is another in each run, and a simulation must replay exactly.
    pub(super) fn due(&self, due: impl Fn(&Watch) -> bool) -> Vec<(&[u8], Watch)> {
        let watched = self.by_prefix.iter().map(|(prefix, watch)| (&**prefix, *watch));
        let mut due: Vec<_> = watched.filter(|(_, watch)| !watch.is_left && due(watch)).collect();
        due.sort_unstable_by_key(|&(prefix, _)| prefix);
        due
    }

    /// Whether somebody waits for an answer to its subscription.
    pub(super) fn any_asked(&self) -> bool {
        self.asked > 0
    }

    /// How many subscriptions the heartbeats are for that go out now.
    pub(super) fn take_subscriptions(&mut self) -> usize {
        std::mem::take(&mut self.subscriptions)
    }

    /// Heartbeats of all that are `due` went out: nobody waits for them any more.
    pub(super) fn clear_asked(&mut self, due: impl Fn(&Watch) -> bool) {
        if self.asked == 0 {
            return;
        }
        let watched = self.by_prefix.values_mut().filter(|watch| watch.asked && due(watch));
        self.asked -= watched.map(|watch| watch.asked = false).count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(n: u64) -> Sequence {
        Sequence::new(1, n)
    }

    #[test]
    fn counts_under_every_covering_prefix() {
        let mut watched = Watched::new(10);
        for prefix in [&b""[..], b"/a/", b"/a/b/", b"/c/"] {
            assert!(watched.subscribe(prefix, sequence(0), 0));
        }
        watched.published(b"/a/b/x", sequence(1));
        watched.published(b"/a/y", sequence(2));
        let count = |prefix: &[u8]| {
            watched.by_prefix.get(prefix).map(|watch| (watch.published, watch.sequence))
        };
        assert_eq!(count(b"/a/"), Some((2, sequence(2))));
        assert_eq!(count(b"/a/b/"), Some((1, sequence(1))));
        assert_eq!(count(b"/c/"), Some((0, sequence(0))));
        assert_eq!(watched.covering(b"/a/b/z").count(), 3);
    }

    #[test]
    fn the_limit_refuses_and_leaving_makes_room() {
        let mut watched = Watched::new(1);
        assert!(watched.subscribe(b"/a/", sequence(0), 0));
        assert!(watched.subscribe(b"/a/", sequence(0), 0), "a known one is no new one");
        assert!(!watched.subscribe(b"/b/", sequence(0), 0));
        watched.unsubscribe(b"/a/");
        watched.unsubscribe(b"/a/");
        watched.unsubscribe(b"/never/");
        assert!(!watched.any_asked());
        assert!(watched.subscribe(b"/b/", sequence(0), 7));
        assert!(watched.any_asked());
        watched.clear_asked(|_| true);
        assert!(!watched.any_asked());
        assert_eq!(watched.len(), 1);
        assert_eq!(watched.lengths, vec![(3, 1)]);
    }
}
