//! [`Store`]: the map itself, with what it takes to tell others of it.
//!
//! | noun | file | what it knows |
//! |---|---|---|
//! | slots | `slots.rs` | the entries, each in a numbered slot, key to value in one allocation |
//! | changes | `changes.rs` | the order of last change, as lists through the slots |
//! | lookup | `lookup.rs` | the slot of a key |
//! | order | `order.rs` | the keys that live, sorted |
//! | expiry | `expiry.rs` | which deadline is next |
//! | snapshot | `snapshot.rs` | walking all that, in slices, while it changes |
//!
//! An update of a key that exists touches its slot and the list of changes; the
//! sorted order is touched only when a key comes or goes.

mod changes;
mod expiry;
mod lookup;
#[cfg(test)]
mod model;
mod order;
mod slots;
mod snapshot;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hint::black_box;

use self::changes::{DEAD, LIVE};
use self::expiry::Expiry;
use self::lookup::Lookup;
use self::order::Order;
use self::slots::{Kind, Node, Slots};
pub use self::snapshot::{Cursor, Mode, Walk};
use super::fault::Fault;
use super::kvmsg::Uuid;
use super::properties::Properties;
use super::sequence::Sequence;
use crate::time::Time;

/// The longest key a store can hold, in bytes, whatever its limits say.
pub const MAX_KEY: usize = u16::MAX as usize;

/// No limit on keys or history goes beyond this, so that slots can be numbered
/// with 32 bits.
const MAX_COUNT: usize = 1 << 30;

/// How many tombstones one call drops for the sake of their number. When a
/// snapshot that needed many ends, they go over the next calls instead of in
/// one long one.
const DROPPED_AT_ONCE: usize = 64;

/// What an entry takes besides its key and value, about, in bytes.
const ENTRY: usize = 100;

/// How much a [`Store`] may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StoreLimits {
    /// Keys that live, at most 2^30: 10,000,000. One more is refused.
    pub max_keys: usize,
    /// Bytes of keys, values and properties together: 4 GiB. What would exceed
    /// it pushes tombstones out, then is refused. The memory taken is about 100
    /// bytes a key more, and where values have become shorter up to twice as much.
    pub max_bytes: usize,
    /// Deleted keys that are remembered for deltas, at most 2^30: 100,000. The
    /// oldest are forgotten first. Those that a snapshot under way still needs
    /// stay longer, up to `max_keys` more.
    pub history: usize,
    /// Snapshots under way at the same time, at most 65,536: 1,024.
    pub max_cursors: usize,
}

impl Default for StoreLimits {
    fn default() -> StoreLimits {
        StoreLimits {
            max_keys: 10_000_000,
            max_bytes: 4 << 30,
            history: 100_000,
            max_cursors: 1024,
        }
    }
}

/// A value for a key, as [`Store::put`] takes it.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The key; not empty.
    pub key: &'a [u8],
    /// The number of the change, higher than that of any before it.
    pub sequence: Sequence,
    /// The name of the change, if it has one.
    pub uuid: Option<Uuid>,
    /// The properties to be kept with the value.
    pub properties: Properties<'a>,
    /// The value; not empty, for that is how a deletion looks.
    pub value: &'a [u8],
    /// When the key expires, if ever ([`Time::NEVER`] is the same as `None`).
    pub deadline: Option<Time>,
}

/// What a [`Store`] knows of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The number of its last change.
    pub sequence: Sequence,
    /// The name of its last change, if it had one.
    pub uuid: Option<Uuid>,
    /// The properties of its last change.
    pub properties: Properties<'a>,
    /// Its value; empty for a tombstone: the key was deleted.
    pub value: &'a [u8],
    /// When it expires, if ever.
    pub deadline: Option<Time>,
}

/// What a change would have exceeded. Nothing was changed by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StoreFull {
    /// The number of keys.
    Keys {
        /// How many there may be.
        max: usize,
    },
    /// The bytes of keys, values and properties.
    Bytes {
        /// How many there may be.
        max: usize,
    },
    /// What a single entry can be: a key of 65,535 bytes, 4 GiB of value or properties.
    Entry,
}

impl fmt::Display for StoreFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            StoreFull::Keys { max } => write!(f, "store full: {max} keys"),
            StoreFull::Bytes { max } => write!(f, "store full: {max} bytes"),
            StoreFull::Entry => write!(f, "entry too large: key over {MAX_KEY} bytes or 4 GiB"),
        }
    }
}

impl std::error::Error for StoreFull {}

impl StoreFull {
    /// The limit in one word, as the refusal of a change names it on the wire.
    pub fn reason(&self) -> &'static str {
        match self {
            StoreFull::Keys { .. } => "store-full-keys",
            StoreFull::Bytes { .. } => "store-full-bytes",
            StoreFull::Entry => "entry-too-large",
        }
    }
}

/// The map: keys with values, each with the number of its last change, when it
/// expires, and a bounded memory of what was deleted.
///
/// Its methods, in kinds:
/// * changes: [`put`](Store::put), [`delete`](Store::delete), their sequences
///   strictly rising;
/// * questions: [`get`](Store::get), [`iter`](Store::iter), [`len`](Store::len),
///   [`bytes`](Store::bytes), [`tombstones`](Store::tombstones),
///   [`sequence`](Store::sequence), [`history_floor`](Store::history_floor);
/// * expiry: [`next_deadline`](Store::next_deadline), then
///   [`pop_expired`](Store::pop_expired), each to be followed by a `delete`;
/// * snapshots in slices, while changes go on: [`open`](Store::open), then
///   [`walk`](Store::walk) until it says [`Walk::Done`], then
///   [`close`](Store::close).
///
/// Memory: about 100 bytes a key beyond key and value. Slots of deleted keys are
/// used again, not given back.
pub struct Store {
    limits: StoreLimits,
    slots: Slots,
    lookup: Lookup,
    order: Order,
    expiry: Expiry,
    /// The number of the last change.
    sequence: Sequence,
    /// The number of the newest deletion that has been forgotten.
    floor: Sequence,
    live: Tally,
    dead: Tally,
    cursors: usize,
}

/// How many entries there are of a kind and their bytes.
#[derive(Clone, Copy, Default)]
struct Tally {
    count: usize,
    bytes: usize,
}

impl Store {
    /// An empty store in which changes begin after `start`.
    pub fn new(limits: StoreLimits, start: Sequence) -> Store {
        Store {
            limits: StoreLimits {
                max_keys: limits.max_keys.min(MAX_COUNT),
                history: limits.history.min(MAX_COUNT),
                max_cursors: limits.max_cursors.min(1 << 16),
                ..limits
            },
            slots: Slots::new(),
            lookup: Lookup::new(),
            order: Order::new(),
            expiry: Expiry::new(),
            sequence: start,
            floor: start,
            live: Tally::default(),
            dead: Tally::default(),
            cursors: 0,
        }
    }

    /// The entry of a key that lives.
    pub fn get(&self, key: &[u8]) -> Option<Entry<'_>> {
        let slot = self.find(self.lookup.hash(key), key)?;
        (self.slots[slot].kind == Kind::Live).then(|| self.entry(slot))
    }

    /// The entries of all keys that begin with `prefix`, in order of their keys.
    pub fn iter<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = Entry<'a>> {
        let first = self.order.at_or_after(&self.slots, prefix);
        (self.order.iter_from(first))
            .map(|slot| self.entry(slot))
            .take_while(move |entry| is_under(entry.key, prefix))
    }

    /// Gives a key a value, be it new or not. A value that fits where the old
    /// one was is written over it, without an allocation.
    ///
    /// # Errors
    /// [`StoreFull`], and nothing has changed.
    pub fn put(&mut self, change: &Change<'_>) -> Result<(), StoreFull> {
        self.put_hashed(change, self.hash(change.key))
    }

    /// What this store finds a key by, for who has a use for it, too.
    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.lookup.hash(key)
    }

    /// [`put`](Store::put), given the [`hash`](Store::hash) of the key.
    pub(super) fn put_hashed(&mut self, change: &Change<'_>, hash: u64) -> Result<(), StoreFull> {
        debug_assert!(change.sequence > self.sequence, "sequences rise");
        debug_assert!(!change.key.is_empty() && !change.value.is_empty());
        let found = self.find(hash, change.key);
        self.check_room(found, change)?;
        let slot = match found {
            Some(slot) => {
                self.take_out(slot);
                slot
            }
            None => {
                let slot = self.slots.insert(Node::new(Kind::Free));
                self.lookup.insert(hash, slot);
                slot
            }
        };
        self.put_in(slot, change);
        self.forget();
        Ok(())
    }

    /// Deletes a key and remembers that it did: uuid and properties say which
    /// deletion it was. False, and nothing has changed, if there is no such key.
    pub fn delete(
        &mut self,
        key: &[u8],
        sequence: Sequence,
        uuid: Option<Uuid>,
        properties: Properties<'_>,
    ) -> bool {
        debug_assert!(sequence > self.sequence, "sequences rise");
        let Some(slot) = self.find(self.lookup.hash(key), key) else { return false };
        if self.slots[slot].kind != Kind::Live {
            return false;
        }
        self.order.remove(&self.slots, slot);
        self.expiry.set(&mut self.slots, slot, None);
        self.take_out(slot);
        let node = &mut self.slots[slot];
        node.kind = Kind::Dead;
        node.sequence = sequence;
        node.write(key, uuid, properties, &[]);
        self.dead.add(node.size());
        self.slots.link_before(slot, DEAD);
        self.sequence = sequence;
        self.forget();
        true
    }

    /// Deletes a key, and remembers that it did also if it is not here: whoever has it
    /// elsewhere, or has set it before, is told by this.
    pub fn bury(
        &mut self,
        key: &[u8],
        sequence: Sequence,
        uuid: Option<Uuid>,
        properties: Properties<'_>,
    ) {
        debug_assert!(sequence > self.sequence, "sequences rise");
        if self.delete(key, sequence, uuid, properties) {
            return;
        }
        let hash = self.lookup.hash(key);
        let slot = match self.find(hash, key) {
            Some(slot) => {
                self.take_out(slot);
                slot
            }
            None => {
                let slot = self.slots.insert(Node::new(Kind::Dead));
                self.lookup.insert(hash, slot);
                slot
            }
        };
        let node = &mut self.slots[slot];
        node.sequence = sequence;
        node.write(key, uuid, properties, &[]);
        self.dead.add(node.size());
        self.slots.link_before(slot, DEAD);
        self.sequence = sequence;
        self.forget();
    }

    /// When a key was changed last, be it by its deletion, as far as that is
    /// remembered.
    pub fn changed(&self, key: &[u8]) -> Option<Sequence> {
        self.find(self.lookup.hash(key), key).map(|slot| self.slots[slot].sequence)
    }

    /// The uuid of the change by which a key was changed last, be it by its deletion, as far as
    /// that is remembered and had one.
    pub fn changed_by(&self, key: &[u8]) -> Option<Uuid> {
        self.slots[self.find(self.lookup.hash(key), key)?].uuid()
    }

    /// Deletions up to `floor` may be unknown here.
    pub fn raise_floor(&mut self, floor: Sequence) {
        self.floor = self.floor.max(floor);
    }

    /// Notes a change that changed nothing here, such as the deletion of a key
    /// that is not there: its number counts as included from now on.
    pub fn advance(&mut self, sequence: Sequence) {
        debug_assert!(sequence > self.sequence, "sequences rise");
        self.sequence = sequence;
    }

    /// How many keys live.
    pub fn len(&self) -> usize {
        self.live.count
    }

    /// Whether no key lives.
    pub fn is_empty(&self) -> bool {
        self.live.count == 0
    }

    /// Bytes of keys, values and properties, those of tombstones among them.
    pub fn bytes(&self) -> usize {
        self.live.bytes + self.dead.bytes
    }

    /// How many deleted keys are remembered.
    pub fn tombstones(&self) -> usize {
        self.dead.count
    }

    /// How many snapshots are under way.
    pub fn cursors(&self) -> usize {
        self.cursors
    }

    /// The number of the last change.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// Everything that happened after this is known: a delta is possible since
    /// this or later.
    pub fn history_floor(&self) -> Sequence {
        self.floor
    }

    /// No key expires before this; `None` if none ever does. It may be too
    /// early, for a key whose deadline was put off: then [`Store::pop_expired`]
    /// finds nothing and the next answer is a later one.
    pub fn next_deadline(&self) -> Option<Time> {
        self.expiry.next()
    }

    /// Puts a key that is due at `now` into `key` and takes its deadline away;
    /// false if none is. The key stays until it is deleted. No scan: the cost
    /// grows with the logarithm of the number of deadlines.
    pub fn pop_expired(&mut self, now: Time, key: &mut Vec<u8>) -> bool {
        let Some(slot) = self.expiry.pop(&mut self.slots, now) else { return false };
        key.clear();
        key.extend_from_slice(self.slots[slot].key());
        true
    }

    /// Brings what a change of the key will touch into the processor's caches: its entry, and
    /// the two beside it in the order of change, from which it is taken out. Several in a row
    /// take hardly longer than one, for they wait for memory at the same time.
    pub(super) fn prefetch(&self, key: &[u8]) {
        let Some(slot) = self.find(self.lookup.hash(key), key) else { return };
        let node = &self.slots[slot];
        // Any field of theirs will do.
        let neighbours = self.slots[node.older].expiry ^ self.slots[node.newer].expiry;
        black_box((neighbours, node.value().last()));
    }

    /// About how many bytes of memory all that is in use.
    pub(super) fn footprint(&self) -> usize {
        self.bytes() + ENTRY * (self.len() + self.tombstones())
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.lookup.find(hash, |slot| self.slots[slot].key() == key)
    }

    #[inline]
    fn entry(&self, slot: u32) -> Entry<'_> {
        let node = &self.slots[slot];
        Entry {
            key: node.key(),
            sequence: node.sequence,
            uuid: node.uuid(),
            properties: node.properties(),
            value: node.value(),
            deadline: self.expiry.deadline(node.expiry),
        }
    }

    /// Tombstones do not count: they make room when they must.
    fn check_room(&self, found: Option<u32>, change: &Change<'_>) -> Result<(), StoreFull> {
        let fits = |bytes: &[u8]| u32::try_from(bytes.len()).is_ok();
        if change.key.len() > MAX_KEY || !fits(change.value) || !fits(change.properties.as_bytes())
        {
            return Err(StoreFull::Entry);
        }
        let replaced = match found.map(|slot| &self.slots[slot]) {
            Some(node) if node.kind == Kind::Live => node.size(),
            _ if self.live.count
                >= self.limits.max_keys + usize::from(Fault::ExceedTheLimit.is_planted()) =>
            {
                return Err(StoreFull::Keys { max: self.limits.max_keys });
            }
            _ => 0,
        };
        let size = change.key.len() + change.properties.as_bytes().len() + change.value.len();
        if self.live.bytes - replaced + size > self.limits.max_bytes {
            return Err(StoreFull::Bytes { max: self.limits.max_bytes });
        }
        Ok(())
    }

    /// Takes an entry out of its list and its tally.
    fn take_out(&mut self, slot: u32) {
        self.slots.unlink(slot);
        let node = &self.slots[slot];
        match node.kind {
            Kind::Live => self.live.remove(node.size()),
            _ => self.dead.remove(node.size()),
        }
    }

    /// Writes a change into the slot of its key, which is in no list.
    fn put_in(&mut self, slot: u32, change: &Change<'_>) {
        let node = &mut self.slots[slot];
        let comes_to_life = node.kind != Kind::Live;
        node.kind = Kind::Live;
        node.sequence = change.sequence;
        node.write(change.key, change.uuid, change.properties, change.value);
        self.live.add(node.size());
        self.slots.link_before(slot, LIVE);
        if comes_to_life {
            self.order.insert(&self.slots, slot);
        }
        let deadline = change.deadline.filter(|&deadline| deadline != Time::NEVER);
        if deadline.is_some() || !Fault::KeepDeadline.is_planted() {
            self.expiry.set(&mut self.slots, slot, deadline);
        }
        self.sequence = change.sequence;
    }

    /// Drops the oldest tombstones while there are too many, or too many bytes.
    fn forget(&mut self) {
        let mut left = DROPPED_AT_ONCE;
        while self.dead.count > 0 {
            let too_large = self.bytes() > self.limits.max_bytes;
            if !too_large && (left == 0 || self.dead.count <= self.remembered()) {
                return;
            }
            left = left.saturating_sub(1);
            self.forget_oldest();
        }
    }

    /// How many tombstones may stay. A cursor's marker before the oldest says
    /// that a snapshot has yet to tell of it.
    fn remembered(&self) -> usize {
        let oldest = self.slots[DEAD].newer;
        match self.slots[oldest].kind {
            Kind::Marker => self.limits.history + self.limits.max_keys,
            _ => self.limits.history,
        }
    }

    fn forget_oldest(&mut self) {
        let Some(slot) = self.slots.next_change(DEAD, DEAD) else { return };
        let node = &self.slots[slot];
        self.floor = node.sequence;
        self.lookup.remove(self.lookup.hash(node.key()), slot);
        self.take_out(slot);
        self.slots.remove(slot);
    }
}

/// Whether a key begins with `prefix`.
///
/// To compare no bytes at all, at the address that an empty box has, takes 40 ns
/// with glibc's AVX-512 code, which is more than all the rest of a walk's step.
#[inline]
fn is_under(key: &[u8], prefix: &[u8]) -> bool {
    prefix.is_empty() || key.starts_with(prefix)
}

impl Tally {
    fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.count -= 1;
        self.bytes -= bytes;
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("len", &self.len())
            .field("bytes", &self.bytes())
            .field("tombstones", &self.tombstones())
            .field("cursors", &self.cursors)
            .field("sequence", &self.sequence)
            .field("history_floor", &self.floor)
            .finish_non_exhaustive()
    }
}
