//! What the store costs: bytes a key, and allocations an operation.
//!
//! Memory is counted as an allocator of the glibc kind takes it: a header of
//! eight bytes, a grain of sixteen, nothing under 32, large blocks in pages.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Duration;

use pollux::clone::store::{Change, Store, StoreLimits, Walk};
use pollux::clone::{KvMsg, Limits, Properties, PropertiesBuf, Sequence, Uuid};
use pollux::{Message, Time};

/// Counts by thread, so that tests may run side by side.
struct Counting;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn taken(size: usize) -> usize {
    const MMAP_THRESHOLD: usize = 128 << 10;
    if size >= MMAP_THRESHOLD {
        return (size + 16).next_multiple_of(4096);
    }
    (size + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call goes to the system's allocator as it came; counting
// touches thread-local cells without destructors and never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.set(BYTES.get().wrapping_add(taken(layout.size())));
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the rules of GlobalAlloc, and so do we.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get().wrapping_sub(taken(layout.size())));
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The sizes of the promise: keys of 20 bytes, values of 100, a uuid each.
const KEY: usize = 20;
const VALUE: usize = 100;

/// Every one of the lookup's 64 tables has doubled not long before, at 7/8 of
/// 16,384 (4,096) places: of what it has now less than half is in use, which is
/// nearly as bad as it gets.
const KEYS: usize = if cfg!(debug_assertions) { 240_000 } else { 1_000_000 };

fn key(number: usize) -> [u8; KEY] {
    let mut key = *b"/memory/key/00000000";
    let mut rest = number;
    for digit in key.iter_mut().rev().take(8) {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

fn put(store: &mut Store, key: &[u8], value: &[u8], deadline: Option<Time>) {
    let sequence = store.sequence().next();
    let uuid = Some(Uuid::from_bytes([7; 16]));
    let properties = Properties::EMPTY;
    store.put(&Change { key, sequence, uuid, properties, value, deadline }).unwrap();
}

fn delete(store: &mut Store, key: &[u8]) {
    assert!(store.delete(key, store.sequence().next(), None, Properties::EMPTY));
}

/// Numbers below `KEYS`, each once, in no order.
fn shuffled() -> impl Iterator<Item = usize> {
    // A prime that divides neither count goes through all of them.
    (0..KEYS).map(|index| index * 7_654_321 % KEYS)
}

/// Bytes a key beyond key and value.
fn overhead(store: &Store, bytes_before: usize) -> usize {
    let bytes = BYTES.get().wrapping_sub(bytes_before) - store.bytes();
    let overhead = bytes / store.len();
    println!("{} keys, {overhead} bytes a key beyond key and value", store.len());
    overhead
}

fn assert_in_order(store: &Store) {
    let mut last = Vec::new();
    for entry in store.iter(b"") {
        assert!(last.as_slice() < entry.key);
        last.clear();
        last.extend_from_slice(entry.key);
    }
}

#[test]
fn keys_in_order_cost_less_than_120_bytes() {
    let before = BYTES.get();
    let mut store = Store::new(StoreLimits::default(), Sequence::ZERO);
    for number in 0..KEYS {
        put(&mut store, &key(number), &[1; VALUE], None);
    }
    assert_eq!(store.bytes(), KEYS * (KEY + VALUE));
    assert!(overhead(&store, before) < 120);
}

#[test]
fn keys_in_no_order_cost_less_than_120_bytes() {
    let before = BYTES.get();
    let mut store = Store::new(StoreLimits::default(), Sequence::ZERO);
    for number in shuffled() {
        put(&mut store, &key(number), &[1; VALUE], None);
    }
    assert_eq!(store.len(), KEYS);
    assert!(overhead(&store, before) < 120);
    assert_in_order(&store);
}

#[test]
fn keys_that_came_and_went_leave_no_more_than_others_need() {
    let before = BYTES.get();
    let limits = |history| {
        let mut limits = StoreLimits::default();
        limits.history = history;
        limits
    };
    let mut store = Store::new(limits(1000), Sequence::ZERO);
    // Nine tenths go, then all are written long and short again: a value that
    // is much smaller than its memory moves out of it.
    for number in shuffled() {
        put(&mut store, &key(number), &[1; VALUE], None);
    }
    for number in shuffled().filter(|number| number % 10 > 0) {
        delete(&mut store, &key(number));
    }
    assert_in_order(&store);
    for number in shuffled() {
        put(&mut store, &key(number), &[1; 3 * VALUE], None);
        put(&mut store, &key(number), &[1; VALUE], None);
    }
    assert_eq!((store.len(), store.tombstones()), (KEYS, 0));
    assert!(overhead(&store, before) < 120);
    assert_in_order(&store);
}

/// How many allocations `f` makes.
fn allocations(f: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

/// A store of some keys, their values 100 bytes long.
fn small_store() -> Store {
    let mut store = Store::new(StoreLimits::default(), Sequence::ZERO);
    for number in 0..1000 {
        put(&mut store, &key(number), &[1; VALUE], Some(Time::from_nanos(number as u64)));
    }
    store
}

#[test]
fn updates_allocate_nothing_if_the_value_fits_and_once_if_not() {
    let mut store = small_store();
    let mut update = |length: usize, second: u64| {
        let value = vec![2; length];
        let deadline = Some(Time::ZERO + Duration::from_secs(second));
        allocations(|| {
            for number in 0..1000 {
                put(&mut store, &key(number), &value, deadline);
            }
        })
    };
    assert_eq!(update(VALUE, 5), 0, "the same size, a later deadline");
    assert_eq!(update(VALUE, 4), 0, "an earlier deadline");
    assert_eq!(update(VALUE - 30, 5), 0, "smaller");
    assert_eq!(update(VALUE, 5), 0, "as before");
    assert_eq!(update(3 * VALUE, 5), 1000, "larger");
    assert_eq!(update(1, 5), 1000, "much smaller");
    assert_eq!(update(1, 5), 0);
}

#[test]
fn expiry_deletion_and_return_allocate_at_most_once_each() {
    let mut store = small_store();
    let mut due = Vec::with_capacity(KEY);
    let count = allocations(|| {
        while store.pop_expired(Time::NEVER, &mut due) {
            delete(&mut store, &due);
        }
    });
    assert_eq!((store.len(), store.tombstones()), (0, 1000));
    // Beyond one each, a few for the list of sorted keys as it joins chunks.
    assert!(count <= 1010, "{count}");
}

#[test]
fn slices_of_a_snapshot_allocate_nothing() {
    let mut store = small_store();
    for number in 500..510 {
        put(&mut store, &key(number), b"changed", None);
    }
    for since in [None, Some(Sequence::ZERO)] {
        let mut cursor = store.open(b"/memory/", since).unwrap();
        // The first slice makes room for the key to go on from.
        let mut slice =
            |store: &mut Store| store.walk(&mut cursor, 30, |_| ControlFlow::Continue(()));
        assert_eq!(slice(&mut store), Walk::More);
        let count = allocations(|| while slice(&mut store) == Walk::More {});
        assert_eq!(count, 0);
        assert!(matches!(slice(&mut store), Walk::Done(_)));
        store.close(cursor);
    }
}

#[test]
fn messages_are_decoded_written_and_encoded_without_allocation() {
    let frames: [&[u8]; 5] = [b"/key", &[0, 0, 0, 0, 0, 0, 0, 7], &[9; 16], b"ttl=1\na=b\n", b"v"];
    let limits = Limits::default();
    let mut properties = PropertiesBuf::new();
    let mut round = || {
        let kvmsg = KvMsg::decode(Message::new(&frames), &limits).unwrap();
        properties.clear().push("ttlms", 12_345).copy_except(kvmsg.properties, &["ttl"]);
        KvMsg { properties: properties.as_properties(), ..kvmsg }
            .with_frames(|frames| black_box(frames.concat().len()))
    };
    // Concatenation allocates once; before it, the properties' buffer grows.
    assert!(round() > 0);
    assert_eq!(allocations(|| assert_eq!(round(), 45)), 1);
}
