use std::ops::ControlFlow;
use std::time::Duration;

use super::*;

/// A store to which changes are made under rising sequences.
struct Writer {
    store: Store,
}

impl Writer {
    fn new(limits: StoreLimits) -> Writer {
        Writer { store: Store::new(limits, Sequence::new(1, 0)) }
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), StoreFull> {
        self.put_until(key, value, None)
    }

    fn put_until(
        &mut self,
        key: &str,
        value: &str,
        deadline: Option<Time>,
    ) -> Result<(), StoreFull> {
        let sequence = self.store.sequence().next();
        let (key, value) = (key.as_bytes(), value.as_bytes());
        let properties = Properties::EMPTY;
        self.store.prefetch(key);
        self.store.put(&Change { key, sequence, uuid: None, properties, value, deadline })
    }

    fn delete(&mut self, key: &str) -> bool {
        let sequence = self.store.sequence().next();
        self.store.delete(key.as_bytes(), sequence, None, Properties::EMPTY)
    }

    /// What a walk gives with slices of `budget`, as `key=value`, and how it ended.
    fn walk(&mut self, cursor: &mut Cursor, budget: usize) -> (Vec<String>, Walk) {
        let mut given = Vec::new();
        loop {
            let walk = self.store.walk(cursor, budget, |entry| {
                given.push(text(entry));
                ControlFlow::Continue(())
            });
            if walk != Walk::More {
                return (given, walk);
            }
        }
    }

    /// What one slice gives.
    fn walk_slice(&mut self, cursor: &mut Cursor, budget: usize) -> String {
        let mut given = Vec::new();
        let walk = self.store.walk(cursor, budget, |entry| {
            given.push(text(entry));
            ControlFlow::Continue(())
        });
        assert_eq!(walk, Walk::More);
        given.join(" ")
    }

    /// The keys that are due at `now`.
    fn expired(&mut self, now: Time) -> String {
        let (mut key, mut keys) = (Vec::new(), Vec::new());
        while self.store.pop_expired(now, &mut key) {
            keys.push(String::from_utf8(key.clone()).unwrap());
        }
        keys.join(" ")
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        self.store.iter(prefix.as_bytes()).map(text).collect()
    }
}

fn text(entry: Entry<'_>) -> String {
    let text = String::from_utf8_lossy;
    format!("{}={}", text(entry.key), text(entry.value))
}

fn at(ms: u64) -> Time {
    Time::ZERO + Duration::from_millis(ms)
}

#[test]
fn a_full_walk_tells_keys_in_order_then_what_changed_meanwhile() {
    let mut writer = Writer::new(StoreLimits::default());
    for key in ["/b", "/a", "/c", "x"] {
        writer.put(key, "1").unwrap();
    }
    let mut cursor = writer.store.open(b"/", None).unwrap();
    assert_eq!(cursor.mode(), Mode::Full);
    assert_eq!(writer.walk_slice(&mut cursor, 2), "/a=1 /b=1");
    writer.put("/a", "2").unwrap();
    writer.delete("/b");
    writer.put("y", "1").unwrap();
    let (rest, walk) = writer.walk(&mut cursor, 1);
    assert_eq!(rest.join(" "), "/c=1 /a=2 /b=");
    assert_eq!(walk, Walk::Done(Sequence::new(1, 7)));
    writer.store.close(cursor);
    assert_eq!(writer.store.cursors(), 0);
}

/// A store of these keys, each with the value `1`, in this order.
fn store_of(keys: &[&str]) -> Writer {
    let mut writer = Writer::new(StoreLimits::default());
    for key in keys {
        writer.put(key, "1").unwrap();
    }
    writer
}

fn sequence(counter: u64) -> Sequence {
    Sequence::new(1, counter)
}

#[test]
fn keys_are_listed_in_order_and_under_their_prefix() {
    let mut writer = store_of(&["b", "a/2", "a", "a/1", "ab", "c"]);
    writer.delete("a/2");
    assert_eq!(writer.keys("").join(" "), "a=1 a/1=1 ab=1 b=1 c=1");
    assert_eq!(writer.keys("a/").join(" "), "a/1=1");
    assert_eq!(writer.keys("b0").join(" "), "");
}

#[test]
fn an_entry_has_all_that_its_last_change_had() {
    let mut writer = store_of(&["k"]);
    let uuid = Some(Uuid::from_bytes([7; 16]));
    let properties = Properties::from_checked(b"a=b\n");
    let deadline = Some(at(5));
    let change =
        Change { key: b"k", sequence: sequence(9), uuid, properties, value: b"xy", deadline };
    writer.store.put(&change).unwrap();
    let entry = writer.store.get(b"k").unwrap();
    assert_eq!((entry.key, entry.sequence, entry.uuid), (&b"k"[..], sequence(9), uuid));
    assert_eq!((entry.properties, entry.value, entry.deadline), (properties, &b"xy"[..], deadline));
    writer.put("k", "z").unwrap();
    let entry = writer.store.get(b"k").unwrap();
    assert_eq!((entry.uuid, entry.properties, entry.deadline), (None, Properties::EMPTY, None));
}

#[test]
fn one_key_too_many_is_refused_but_an_update_is_not() {
    let limits = StoreLimits { max_keys: 2, ..StoreLimits::default() };
    let mut writer = Writer::new(limits);
    writer.put("a", "1").unwrap();
    writer.put("b", "1").unwrap();
    let full = writer.put("c", "1").unwrap_err();
    assert_eq!(full, StoreFull::Keys { max: 2 });
    assert_eq!(full.to_string(), "store full: 2 keys");
    assert_eq!(writer.store.sequence(), sequence(2));
    writer.put("b", "2").unwrap();
    writer.delete("a");
    writer.put("c", "1").unwrap();
    assert_eq!(writer.put("a", "1"), Err(full), "a tombstone is no place in the store");
}

#[test]
fn bytes_are_those_of_keys_values_and_properties() {
    let mut writer = Writer::new(StoreLimits { max_bytes: 12, ..StoreLimits::default() });
    writer.put("ab", "1234").unwrap();
    assert_eq!(writer.store.bytes(), 6);
    let properties = Properties::from_checked(b"p=1\n");
    let uuid = Some(Uuid::from_bytes([1; 16]));
    let put = |store: &mut Store, value| {
        let sequence = store.sequence().next();
        store.put(&Change { key: b"c", sequence, uuid, properties, value, deadline: None })
    };
    let full = put(&mut writer.store, b"12").unwrap_err();
    assert_eq!(full.to_string(), "store full: 12 bytes");
    put(&mut writer.store, b"1").unwrap();
    assert_eq!(writer.store.bytes(), 12);
    assert_eq!(writer.put("ab", "12345"), Err(full));
    writer.put("ab", "1").unwrap();
    assert_eq!(writer.store.bytes(), 9);
}

#[test]
fn tombstones_make_room_before_a_value_is_refused() {
    let mut writer = Writer::new(StoreLimits { max_bytes: 20, ..StoreLimits::default() });
    for key in ["a123", "b123", "c123"] {
        writer.put(key, "1").unwrap();
        writer.delete(key);
    }
    assert_eq!((writer.store.tombstones(), writer.store.bytes()), (3, 12));
    writer.put("d", "123456789012").unwrap();
    assert_eq!((writer.store.tombstones(), writer.store.bytes()), (1, 17));
    assert_eq!(writer.store.history_floor(), sequence(4));
}

#[test]
fn an_entry_too_large_for_any_store_is_refused() {
    let mut writer = Writer::new(StoreLimits::default());
    let full = writer.put(&"k".repeat(MAX_KEY + 1), "1").unwrap_err();
    assert_eq!(full.to_string(), "entry too large: key over 65535 bytes or 4 GiB");
    writer.put(&"k".repeat(MAX_KEY), "1").unwrap();
    assert_eq!(writer.store.iter(b"").next().unwrap().key.len(), MAX_KEY);
}

#[test]
fn the_oldest_tombstones_are_forgotten_first() {
    let mut writer = Writer::new(StoreLimits { history: 2, ..StoreLimits::default() });
    for key in ["a", "b", "c"] {
        writer.put(key, "1").unwrap();
    }
    assert_eq!(writer.store.history_floor(), sequence(0));
    for key in ["b", "a", "c"] {
        assert!(writer.delete(key));
        assert!(!writer.delete(key), "deleted twice");
    }
    assert_eq!((writer.store.len(), writer.store.tombstones()), (0, 2));
    assert_eq!(writer.store.history_floor(), sequence(4));
    writer.put("a", "2").unwrap();
    assert_eq!(writer.store.tombstones(), 1, "a key that lives has no tombstone");
    assert_eq!(writer.store.history_floor(), sequence(4));
}

#[test]
fn a_store_without_history_remembers_no_deletion() {
    let mut writer = Writer::new(StoreLimits { history: 0, ..StoreLimits::default() });
    writer.put("a", "1").unwrap();
    assert!(writer.delete("a"));
    assert_eq!((writer.store.tombstones(), writer.store.bytes()), (0, 0));
    assert_eq!(writer.store.history_floor(), sequence(2));
}

#[test]
fn a_delta_tells_what_changed_in_the_order_in_which_it_did() {
    let mut writer = store_of(&["a", "b", "c", "d"]);
    writer.put("b", "2").unwrap();
    writer.delete("a");
    writer.put("e", "1").unwrap();
    for (since, expected) in [(2, "c=1 d=1 b=2 a= e=1"), (4, "b=2 a= e=1"), (6, "e=1"), (7, "")] {
        let mut cursor = writer.store.open(b"", Some(sequence(since))).unwrap();
        assert_eq!(cursor.mode(), Mode::Delta);
        let (given, walk) = writer.walk(&mut cursor, 1);
        assert_eq!((given.join(" ").as_str(), walk), (expected, Walk::Done(sequence(7))));
        writer.store.close(cursor);
    }
}

#[test]
fn a_delta_needs_a_sequence_that_the_store_gave_and_remembers() {
    let mut writer = Writer::new(StoreLimits { history: 0, ..StoreLimits::default() });
    writer.put("a", "1").unwrap();
    writer.put("b", "1").unwrap();
    writer.delete("a");
    let before_the_epoch = Sequence::new(0, u64::from(u32::MAX));
    for since in [before_the_epoch, sequence(0), sequence(2), sequence(4), Sequence::MAX] {
        let mut cursor = writer.store.open(b"", Some(since)).unwrap();
        assert_eq!(cursor.mode(), Mode::Full, "{since:?}");
        assert_eq!(writer.walk(&mut cursor, 9).0.join(" "), "b=1");
        writer.store.close(cursor);
    }
}

#[test]
fn a_walk_ends_however_fast_the_writer_is() {
    let mut writer = store_of(&["a", "b", "c"]);
    let mut cursor = writer.store.open(b"", Some(sequence(0))).unwrap();
    let mut slices = 0;
    loop {
        let walk = writer.store.walk(&mut cursor, 1, |_| ControlFlow::Continue(()));
        for key in ["a", "b", "c", "d"] {
            writer.put(key, "again").unwrap();
        }
        slices += 1;
        if walk != Walk::More {
            assert!(matches!(walk, Walk::Done(_)));
            break;
        }
        assert!(slices < 100);
    }
    writer.store.close(cursor);
}

#[test]
fn an_entry_that_was_not_taken_comes_again() {
    let mut writer = store_of(&["a", "b"]);
    let mut cursor = writer.store.open(b"", None).unwrap();
    for _ in 0..3 {
        let mut offered = Vec::new();
        let walk = writer.store.walk(&mut cursor, 10, |entry| {
            offered.push(text(entry));
            ControlFlow::Break(())
        });
        assert_eq!((offered.join(" ").as_str(), walk), ("a=1", Walk::More));
    }
    writer.delete("a");
    let (given, walk) = writer.walk(&mut cursor, 10);
    assert_eq!((given.join(" ").as_str(), walk), ("b=1 a=", Walk::Done(sequence(3))));
    writer.store.close(cursor);
}

#[test]
fn a_budget_counts_what_is_examined_not_what_is_given() {
    let mut writer = store_of(&["x", "a/1"]);
    let mut cursor = writer.store.open(b"a/", Some(sequence(0))).unwrap();
    let mut slice = |writer: &mut Writer| {
        let mut given = Vec::new();
        let walk = writer.store.walk(&mut cursor, 1, |entry| {
            given.push(text(entry));
            ControlFlow::Continue(())
        });
        (given.join(" "), walk)
    };
    // Back over two changes, then over both again, one of them the reader's.
    for _ in 0..3 {
        assert_eq!(slice(&mut writer), (String::new(), Walk::More));
    }
    assert_eq!(slice(&mut writer), ("a/1=1".into(), Walk::Done(sequence(2))));
    writer.store.close(cursor);
}

#[test]
fn no_more_cursors_than_the_limit() {
    let mut writer = Writer::new(StoreLimits { max_cursors: 2, ..StoreLimits::default() });
    let cursor = writer.store.open(b"", None).unwrap();
    let other = writer.store.open(b"", None).unwrap();
    assert!(writer.store.open(b"", None).is_none());
    writer.store.close(other);
    assert_eq!(writer.store.cursors(), 1);
    let again = writer.store.open(b"x", None).unwrap();
    assert_eq!(again.prefix(), b"x");
    writer.store.close(again);
    writer.store.close(cursor);
}

#[test]
fn deletions_that_a_cursor_has_to_tell_stay_beyond_the_history() {
    let limits = StoreLimits { history: 1, max_keys: 3, ..StoreLimits::default() };
    let mut writer = Writer::new(limits);
    for key in ["a", "b", "c"] {
        writer.put(key, "1").unwrap();
    }
    let mut cursor = writer.store.open(b"", None).unwrap();
    assert_eq!(writer.walk_slice(&mut cursor, 2), "a=1 b=1");
    for key in ["a", "b", "c"] {
        writer.delete(key);
    }
    assert_eq!((writer.store.tombstones(), writer.store.history_floor()), (3, sequence(0)));
    let (given, walk) = writer.walk(&mut cursor, 10);
    assert_eq!((given.join(" ").as_str(), walk), ("a= b= c=", Walk::Done(sequence(6))));
    writer.store.close(cursor);
    assert_eq!((writer.store.tombstones(), writer.store.history_floor()), (1, sequence(5)));
}

#[test]
fn a_walk_too_slow_for_the_store_to_remember_is_lost() {
    let limits = StoreLimits { history: 0, max_keys: 2, ..StoreLimits::default() };
    let mut writer = Writer::new(limits);
    writer.put("a", "1").unwrap();
    writer.put("z", "1").unwrap();
    let mut cursor = writer.store.open(b"", None).unwrap();
    assert_eq!(writer.walk_slice(&mut cursor, 1), "a=1");
    for key in ["a", "b", "c"] {
        assert_eq!(writer.walk_slice(&mut cursor, 0), "");
        writer.put(key, "2").unwrap();
        writer.delete(key);
    }
    assert_eq!(writer.store.tombstones(), 2);
    assert_eq!(writer.walk(&mut cursor, 10), (Vec::new(), Walk::Lost));
    writer.store.close(cursor);
    assert_eq!(writer.store.tombstones(), 0);
}

#[test]
fn tombstones_that_a_cursor_kept_go_a_few_at_a_time() {
    let limits = StoreLimits { history: 10, ..StoreLimits::default() };
    let mut writer = Writer::new(limits);
    let cursor = writer.store.open(b"", None).unwrap();
    for key in 0..200 {
        writer.put(&key.to_string(), "1").unwrap();
        writer.delete(&key.to_string());
    }
    assert_eq!(writer.store.tombstones(), 200);
    writer.store.close(cursor);
    assert_eq!(writer.store.tombstones(), 200 - DROPPED_AT_ONCE);
    for key in ["a", "b", "c", "d"] {
        writer.put(key, "1").unwrap();
    }
    assert_eq!(writer.store.tombstones(), 10);
}

#[test]
fn keys_expire_in_the_order_of_their_deadlines() {
    let mut writer = Writer::new(StoreLimits::default());
    assert_eq!(writer.store.next_deadline(), None);
    for (key, ms) in [("c", 30), ("a", 10), ("e", 50), ("b", 20), ("d", 40), ("f", 40)] {
        writer.put_until(key, "1", Some(at(ms))).unwrap();
    }
    writer.put_until("never", "1", Some(Time::NEVER)).unwrap();
    assert_eq!(writer.store.get(b"never").unwrap().deadline, None);
    assert_eq!(writer.store.next_deadline(), Some(at(10)));
    assert_eq!(writer.expired(at(9)), "");
    assert_eq!(writer.expired(at(30)), "a b c");
    assert_eq!(writer.store.next_deadline(), Some(at(40)));
    assert_eq!(writer.store.len(), 7, "they stay until they are deleted");
    assert_eq!(writer.store.get(b"a").unwrap().deadline, None);
    writer.delete("d");
    assert_eq!(writer.expired(at(99)), "f e");
    assert_eq!(writer.store.next_deadline(), None);
}

#[test]
fn a_deadline_put_off_is_early_once_and_one_brought_forward_never_late() {
    let mut writer = Writer::new(StoreLimits::default());
    writer.put_until("a", "1", Some(at(10))).unwrap();
    writer.put_until("b", "1", Some(at(20))).unwrap();
    writer.put_until("a", "1", Some(at(30))).unwrap();
    assert_eq!(writer.store.get(b"a").unwrap().deadline, Some(at(30)));
    assert_eq!(writer.store.next_deadline(), Some(at(10)));
    assert_eq!(writer.expired(at(10)), "");
    assert_eq!(writer.store.next_deadline(), Some(at(20)));
    writer.put_until("a", "1", Some(at(15))).unwrap();
    assert_eq!(writer.store.next_deadline(), Some(at(15)));
    writer.put("a", "1").unwrap();
    assert_eq!(writer.expired(at(100)), "b");
}

#[test]
fn debug_shows_figures_and_no_values() {
    let mut writer = store_of(&["apple"]);
    let cursor = writer.store.open(b"", None).unwrap();
    let text = format!("{:?} {cursor:?}", writer.store);
    assert!(text.contains("len: 1") && text.contains("history_floor: 1:0"), "{text}");
    assert!(!text.contains("apple"), "{text}");
    writer.store.close(cursor);
}

#[test]
fn a_number_without_a_change_is_part_of_what_a_walk_tells() {
    let mut writer = store_of(&["a"]);
    assert!(!writer.delete("b"));
    writer.store.advance(sequence(2));
    for since in [None, Some(sequence(1)), Some(sequence(2))] {
        let mut cursor = writer.store.open(b"", since).unwrap();
        assert_eq!(writer.walk(&mut cursor, 10).1, Walk::Done(sequence(2)));
        writer.store.close(cursor);
    }
}

#[test]
fn what_is_full_has_a_name_that_fits_into_a_property() {
    let full = [StoreFull::Keys { max: 1 }, StoreFull::Bytes { max: 1 }, StoreFull::Entry];
    let reasons = full.map(|full| full.reason());
    assert_eq!(reasons, ["store-full-keys", "store-full-bytes", "entry-too-large"]);
}
