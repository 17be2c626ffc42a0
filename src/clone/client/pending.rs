//! [`Pending`]: our changes that have no answer yet.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use slab::Slab;

use crate::clone::kvmsg::Uuid;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// A change's place in the slab.
pub(crate) type Slot = u32;
/// A list that changes wait in.
pub(crate) type ListId = u32;

const NONE: u32 = u32::MAX;

/// Ready to be sent.
pub(crate) const READY: ListId = 0;
/// For a key outside the subtrees, when too many others are watched.
pub(crate) const UNWATCHED: ListId = 1;
/// Sent once, twice, ...: one list for each length of the wait for an answer,
/// so that each is in order of the time it ends.
const SENT: ListId = 2;
/// The most often that the wait for an answer doubles.
const DOUBLINGS: u32 = 5;
/// Applied, but not known to be safe.
const KEPT: ListId = SENT + DOUBLINGS + 1;
const FIXED_LISTS: u32 = KEPT + 1;

/// By which echo a change will be known to have been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// The key lies in this subtree.
    Subtree(u32),
    /// The key lies outside and is watched for the answer.
    Echo(u32),
    /// It lies outside and is not watched yet.
    None,
}

/// One change, until its answer.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) number: u64,
    pub(crate) key: Arc<[u8]>,
    /// Empty: delete the key.
    pub(crate) value: Arc<[u8]>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) path: Path,
    pub(crate) submitted: Time,
    pub(crate) first_sent: Time,
    /// The highest sequence heard of before that: it was not applied up to here.
    pub(crate) known: Sequence,
    /// How often it was sent to this server.
    pub(crate) sends: u32,
    /// Whether it was sent to another one before.
    was_sent: bool,
    /// Whether the application was told that it is applied.
    pub(crate) is_told: bool,
    /// What it is known to be at this server, for one that was told.
    pub(crate) applied: Option<Applied>,
    /// Since when that is known.
    applied_at: Time,
    /// It was lost for certain and is to be sent again.
    is_lost: bool,
    /// A newer one of its key was sent and has left the books without a word whether it has
    /// an effect that lasts: this one must not be sent again.
    pub(crate) is_overtaken: bool,
    /// When to send it again.
    due: Time,
    /// The list it is in; `NONE` if it waits for another change of its key.
    list: ListId,
    /// Neighbours in that list.
    links: Links,
    /// Neighbours among those that wait for an answer, in the order of the times from
    /// which that is counted.
    order: Links,
    is_in_order: bool,
    /// Neighbours among the changes of the same key.
    chain: Links,
}

/// A change that a server has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applied {
    /// The sequence that it has, in whatever history gave it.
    pub(crate) sequence: Sequence,
    /// By which sequence to tell whether it is safe.
    pub(crate) safe_by: Sequence,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    previous: Slot,
    next: Slot,
}

impl Change {
    /// Whether any server may have got it.
    pub(crate) fn was_ever_sent(&self) -> bool {
        self.sends > 0 || self.was_sent
    }

    /// Whether a server that was left may have got it.
    pub(crate) fn was_sent_before(&self) -> bool {
        self.was_sent
    }

    /// Whether it has its answer and waits to be safe.
    pub(crate) fn is_kept(&self) -> bool {
        self.applied.is_some()
    }
}

const UNLINKED: Links = Links { previous: NONE, next: NONE };

#[derive(Clone, Copy, Debug)]
struct List {
    first: Slot,
    last: Slot,
}

const EMPTY: List = List { first: NONE, last: NONE };

/// A new change, as `set` and `delete` make it.
#[derive(Debug)]
pub(crate) struct NewChange {
    pub(crate) key: Arc<[u8]>,
    pub(crate) value: Arc<[u8]>,
    pub(crate) ttl: Option<Duration>,
}

/// Our changes without an answer: found by uuid and by key, in lists by what
/// they wait for. Everything is O(1).
///
/// Changes of one key form a chain in order of submission. The order of a
/// client's changes to one key is kept thus:
///
/// * a change is sent for the first time only when the one before it has been
///   sent, and not more than once: the ports are first in first out, so the
///   second overtakes the first only if the first is sent again;
/// * of the changes that were sent only the newest is ever sent again, to another
///   server, too. An older one then waits for its echo, which may be on the way, or
///   for the answer to a newer one, which shows that its own will never come;
/// * nor is one sent again behind a newer one that was sent and has left the books since,
///   unless that was refused and has no effect.
///
/// A change that is applied but not safe stays in its chain: if another server takes
/// over that may not have it, it is sent there. Whatever is before one that is kept was
/// applied, too, and is kept: it stays and becomes safe with that at the latest.
#[derive(Debug)]
pub(crate) struct Pending {
    changes: Slab<Change>,
    by_number: HashMap<u64, Slot>,
    /// The newest change of each key.
    by_key: HashMap<Arc<[u8]>, Slot>,
    lists: Slab<List>,
    order: List,
    bytes: usize,
    /// How many were told to be applied.
    told: usize,
    /// What all uuids of this client begin with.
    seed: u64,
    next_number: u64,
}

impl Pending {
    pub(crate) fn new(seed: u64) -> Pending {
        let mut lists = Slab::new();
        for _ in 0..FIXED_LISTS {
            lists.insert(EMPTY);
        }
        Pending {
            changes: Slab::new(),
            by_number: HashMap::new(),
            by_key: HashMap::new(),
            lists,
            order: EMPTY,
            bytes: 0,
            told: 0,
            seed,
            next_number: 1,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// How many have no answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.changes.len() - self.told
    }

    /// Bytes of keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The uuid of change `number`.
    pub(crate) fn uuid(&self, number: u64) -> Uuid {
        Uuid::numbered(self.seed, number)
    }

    /// The change with this uuid, if it is one of ours without an answer.
    pub(crate) fn find(&self, uuid: Uuid) -> Option<Slot> {
        if self.changes.is_empty() {
            return None;
        }
        uuid.number(self.seed).and_then(|number| self.by_number.get(&number).copied())
    }

    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.changes.contains(slot as usize)
    }

    pub(crate) fn get(&self, slot: Slot) -> &Change {
        &self.changes[slot as usize]
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> &mut Change {
        &mut self.changes[slot as usize]
    }

    /// The newest change of a key.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<Slot> {
        self.by_key.get(key).copied()
    }

    /// The change of the same key submitted before this one.
    pub(crate) fn older(&self, slot: Slot) -> Option<Slot> {
        some(self.get(slot).chain.previous)
    }

    /// The change of the same key submitted after this one.
    pub(crate) fn newer(&self, slot: Slot) -> Option<Slot> {
        some(self.get(slot).chain.next)
    }

    /// The change submitted first.
    pub(crate) fn oldest(&self) -> Option<Slot> {
        some(self.order.first)
    }

    /// Whether a change waits for another one of its key.
    pub(crate) fn is_parked(&self, slot: Slot) -> bool {
        self.get(slot).list == NONE
    }

    /// Whether a change that was never sent may be: no other one of its key is
    /// before it that is not sent, or that may have to be sent again.
    pub(crate) fn may_go(&self, slot: Slot) -> bool {
        let is_settled = |older: &Change| older.sends == 1 && !older.is_lost;
        let older = self.older(slot).map(|older| self.get(older));
        older.is_none_or(|older| older.is_kept() || is_settled(older))
    }

    /// Takes a change in, parked.
    pub(crate) fn insert(&mut self, now: Time, new: NewChange) -> Slot {
        let number = self.next_number;
        self.next_number += 1;
        self.bytes += new.key.len() + new.value.len();
        let older = self.by_key.get(&new.key).copied().unwrap_or(NONE);
        let change = Change {
            number,
            key: Arc::clone(&new.key),
            value: new.value,
            ttl: new.ttl,
            path: Path::None,
            submitted: now,
            first_sent: Time::NEVER,
            known: Sequence::ZERO,
            sends: 0,
            was_sent: false,
            is_told: false,
            applied: None,
            applied_at: Time::NEVER,
            is_lost: false,
            is_overtaken: false,
            due: Time::NEVER,
            list: NONE,
            links: UNLINKED,
            order: UNLINKED,
            is_in_order: false,
            chain: Links { previous: older, next: NONE },
        };
        // The configuration allows fewer than `u32::MAX` changes.
        let slot = self.changes.insert(change) as Slot;
        if let Some(older) = some(older) {
            self.get_mut(older).chain.next = slot;
        }
        self.order_last(slot);
        self.by_number.insert(number, slot);
        self.by_key.insert(new.key, slot);
        slot
    }

    /// Takes a change out for good.
    pub(crate) fn remove(&mut self, slot: Slot) -> Change {
        self.unlist(slot);
        self.leave_order(slot);
        let change = self.changes.remove(slot as usize);
        self.bytes -= change.key.len() + change.value.len();
        self.told -= usize::from(change.is_told);
        self.by_number.remove(&change.number);
        let Links { previous, next } = change.chain;
        if let Some(previous) = some(previous) {
            self.get_mut(previous).chain.next = next;
        }
        match (some(next), some(previous)) {
            (Some(next), _) => self.get_mut(next).chain.previous = previous,
            (None, Some(previous)) => {
                self.by_key.insert(Arc::clone(&change.key), previous);
            }
            (None, None) => {
                self.by_key.remove(&change.key);
            }
        }
        change
    }

    /// Counts a change's time from the end of all others'.
    fn order_last(&mut self, slot: Slot) {
        let last = self.order.last;
        match some(last) {
            Some(last) => self.get_mut(last).order.next = slot,
            None => self.order.first = slot,
        }
        self.order.last = slot;
        let change = self.get_mut(slot);
        change.order = Links { previous: last, next: NONE };
        change.is_in_order = true;
    }

    fn leave_order(&mut self, slot: Slot) {
        let change = self.get_mut(slot);
        if !std::mem::take(&mut change.is_in_order) {
            return;
        }
        let Links { previous, next } = std::mem::replace(&mut change.order, UNLINKED);
        match some(previous) {
            Some(previous) => self.get_mut(previous).order.next = next,
            None => self.order.first = next,
        }
        match some(next) {
            Some(next) => self.get_mut(next).order.previous = previous,
            None => self.order.last = previous,
        }
    }

    /// The change has been applied, and is kept until it is safe.
    pub(crate) fn keep(&mut self, now: Time, slot: Slot, applied: Applied) {
        self.leave_order(slot);
        self.list(slot, KEPT);
        let change = self.get_mut(slot);
        change.applied = Some(applied);
        change.applied_at = now;
        let is_news = !std::mem::replace(&mut change.is_told, true);
        self.told += usize::from(is_news);
    }

    /// Of those that are kept, the one that was applied first, as what, and since
    /// when that is known.
    pub(crate) fn first_kept(&self) -> Option<(Slot, Applied, Time)> {
        let slot = self.first(KEPT)?;
        let change = self.get(slot);
        Some((slot, change.applied?, change.applied_at))
    }

    /// A change that was sent leaves the books, what became of it is not known: those before
    /// it are not sent again.
    pub(crate) fn overtake(&mut self, slot: Slot) {
        let mut next = self.older(slot);
        while let Some(older) = next {
            self.get_mut(older).is_overtaken = true;
            next = self.older(older);
        }
    }

    /// Another server has taken over, which may have got none of what was sent: of each
    /// key the newest that was sent is to be sent there. Gives what is to be admitted
    /// anew, in the order of submission, and what was told to be applied and can
    /// neither be sent nor become safe: it is overtaken. What is kept and `is_there` by its
    /// sequence stays as it is, and so does what is kept before it.
    pub(crate) fn start_over(
        &mut self,
        now: Time,
        is_there: impl Fn(Sequence) -> bool,
    ) -> Vec<Slot> {
        let is_there = |applied: Applied| is_there(applied.safe_by);
        self.keep_replaced(is_there);
        let mut all = Vec::new();
        for (slot, change) in self.changes.iter_mut() {
            match change.applied.is_some_and(is_there) {
                true => change.applied_at = now,
                false => all.push(slot as Slot),
            }
        }
        all.sort_unstable_by_key(|&slot| self.get(slot).number);
        for &slot in &all {
            self.unlist(slot);
            let change = self.get_mut(slot);
            change.due = Time::NEVER;
            change.is_lost = false;
            if change.applied.take().is_some() {
                change.submitted = now;
                self.order_last(slot);
            }
        }
        all.retain(|&slot| {
            let newer = self.newer(slot).map(|newer| self.get(newer));
            let is_newest_sent =
                newer.is_none_or(|newer| !newer.was_ever_sent()) && !self.get(slot).is_overtaken;
            let change = self.get_mut(slot);
            let was_sent = change.was_ever_sent();
            if was_sent {
                // The others are as good as sent once: they hold up nothing there.
                (change.was_sent, change.sends) = (true, u32::from(!is_newest_sent));
            }
            is_newest_sent || (change.is_overtaken && change.is_told)
        });
        all
    }

    /// Of what is kept, that which `is_there` has taken the place of what is before it: be that
    /// of a history of which the server says nothing any more, it counts as there, too. Its
    /// place in the list is by the sequence that it counts with.
    fn keep_replaced(&mut self, is_there: impl Fn(Applied) -> bool + Copy) {
        let is_gone = |change: &Change| change.applied.is_some_and(|applied| !is_there(applied));
        let all = self.changes.iter();
        let there = all.filter(|(_, change)| change.applied.is_some_and(&is_there));
        for newer in there.map(|(slot, _)| slot as Slot).collect::<Vec<_>>() {
            let mut next = self.older(newer);
            while let Some(slot) = next.filter(|&slot| is_gone(self.get(slot))) {
                self.get_mut(slot).applied = self.get(newer).applied;
                self.list(slot, KEPT);
                next = self.older(slot);
            }
        }
    }

    /// A list of its own, for what waits for one thing.
    pub(crate) fn open_list(&mut self) -> ListId {
        self.lists.insert(EMPTY) as ListId
    }

    /// Closes one that is empty.
    pub(crate) fn close_list(&mut self, list: ListId) {
        let list = self.lists.remove(list as usize);
        debug_assert_eq!(list.first, NONE, "a list with changes was closed");
    }

    /// The first change in a list.
    pub(crate) fn first(&self, list: ListId) -> Option<Slot> {
        some(self.lists[list as usize].first)
    }

    /// Puts a change at the end of a list.
    pub(crate) fn list(&mut self, slot: Slot, list: ListId) {
        self.unlist(slot);
        let last = self.lists[list as usize].last;
        match some(last) {
            Some(last) => self.get_mut(last).links.next = slot,
            None => self.lists[list as usize].first = slot,
        }
        self.lists[list as usize].last = slot;
        let change = self.get_mut(slot);
        change.list = list;
        change.links = Links { previous: last, next: NONE };
    }

    /// What waited in a list is ready to be sent.
    pub(crate) fn make_ready(&mut self, list: ListId) {
        while let Some(slot) = self.first(list) {
            self.list(slot, READY);
        }
    }

    /// Takes a change out of its list: parked.
    pub(crate) fn unlist(&mut self, slot: Slot) {
        let change = self.get_mut(slot);
        let list = std::mem::replace(&mut change.list, NONE);
        if list == NONE {
            return;
        }
        let Links { previous, next } = std::mem::replace(&mut change.links, UNLINKED);
        match some(previous) {
            Some(previous) => self.get_mut(previous).links.next = next,
            None => self.lists[list as usize].first = next,
        }
        match some(next) {
            Some(next) => self.get_mut(next).links.previous = previous,
            None => self.lists[list as usize].last = previous,
        }
    }

    /// Notes that a change was sent, and when it will be due again: after
    /// `wait`, which doubles each time. Gives that time.
    pub(crate) fn sent(&mut self, now: Time, slot: Slot, wait: Duration) -> Time {
        let change = self.get_mut(slot);
        if !change.was_ever_sent() {
            change.first_sent = now;
        }
        let doublings = change.sends.min(DOUBLINGS);
        change.sends += 1;
        let due = now + wait.saturating_mul(1 << doublings);
        change.due = due;
        self.list(slot, SENT + doublings);
        due
    }

    /// Puts a change that was parked back among those due to be sent again.
    pub(crate) fn due_again(&mut self, now: Time, slot: Slot) {
        let change = self.get_mut(slot);
        change.due = now;
        change.is_lost = true;
        // Times in a list must rise; what is due now stands before all.
        self.list_first(slot, SENT);
    }

    fn list_first(&mut self, slot: Slot, list: ListId) {
        self.unlist(slot);
        let first = self.lists[list as usize].first;
        match some(first) {
            Some(first) => self.get_mut(first).links.previous = slot,
            None => self.lists[list as usize].last = slot,
        }
        self.lists[list as usize].first = slot;
        let change = self.get_mut(slot);
        change.list = list;
        change.links = Links { previous: NONE, next: first };
    }

    /// A change that is due to be sent again, if there is one.
    pub(crate) fn first_due(&self, now: Time) -> Option<Slot> {
        self.sent_firsts().find(|&slot| self.get(slot).due <= now)
    }

    /// When the next change will be due.
    pub(crate) fn next_due(&self) -> Time {
        self.sent_firsts().map(|slot| self.get(slot).due).min().unwrap_or(Time::NEVER)
    }

    fn sent_firsts(&self) -> impl Iterator<Item = Slot> {
        (SENT..KEPT).filter_map(|list| self.first(list))
    }
}

fn some(slot: Slot) -> Option<Slot> {
    (slot != NONE).then_some(slot)
}
