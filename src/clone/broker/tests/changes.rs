//! What becomes of a message on the changes port.

use super::*;
use crate::clone::kvmsg::Uuid;

#[test]
fn sequences_rise_by_exactly_one() {
    let mut bench = Bench::new();
    for n in 0..50 {
        bench.set(&format!("/key/{}", n % 7), "value");
    }
    bench.delete("/key/3");
    let sequences: Vec<i64> = bench.updates().iter().map(|wire| wire.sequence).collect();
    let first = START.get() as i64 + 1;
    assert_eq!(sequences, (first..first + 51).collect::<Vec<_>>());
    assert_eq!(bench.broker.sequence().get() as i64, first + 50);
    assert_eq!(bench.stats().changes_applied, 51);
}

#[test]
fn a_refused_change_uses_no_sequence() {
    let mut bench = Bench::new();
    bench.set("/a", "1");
    bench.set("KTHXBAI", "x");
    bench.change(&[b"/a", b"", b"", b"", b"too short a sequence"]);
    bench.set("/a", "2");
    let sequences: Vec<i64> = bench.updates().iter().map(|wire| wire.sequence).collect();
    assert_eq!(sequences[1] - sequences[0], 1);
    assert_eq!(sequences.len(), 2);
}

#[test]
fn the_sequence_and_epoch_go_on_over_a_full_counter() {
    let mut bench = Bench::with(|config| config.start = Sequence::new(5, (1 << 40) - 2));
    bench.set("/a", "1");
    bench.set("/a", "2");
    bench.set("/a", "3");
    bench.settle();
    let sequences: Vec<i64> = bench.updates().iter().map(|wire| wire.sequence).collect();
    assert_eq!(sequences, [(6 << 40) - 1, 6 << 40, (6 << 40) + 1]);
    assert_eq!(bench.beats("")[0].property("epoch").as_deref(), Some("6"));
}

#[test]
fn no_sequence_is_given_twice_when_they_run_out() {
    let last = Sequence::from_u64(Sequence::MAX.get() - 1);
    let mut bench = Bench::with(|config| config.start = last);
    bench.set("/a", "1");
    assert_eq!(bench.broker.sequence(), Sequence::MAX);
    bench.settle();
    bench.subscribe("HUGZ");
    bench.forget();
    bench.set_named(7, "/a", "", "2");
    assert_eq!(bench.value("/a").as_deref(), Some("1"));
    assert!(bench.updates().is_empty());
    assert_eq!(bench.beats("")[0].property("refused").as_deref(), Some("no-sequence-left"));
    assert_eq!(bench.stats().changes_store_full, 1);
}

#[test]
fn a_change_goes_out_as_it_came() {
    let mut bench = Bench::new();
    let properties = b"zeta=1\nowner=eva\nalpha=\xc3\xa4\nzeta=2\n";
    let body = [0, 1, 0xff, b'\n', 0];
    bench.change(&[b"/room/1", &7i64.to_be_bytes(), &[9; 16], properties, &body]);
    let update = bench.last_update();
    assert_eq!(update.key, b"/room/1");
    assert_eq!(update.uuid, [9; 16]);
    assert_eq!(
        update.pairs(),
        [("zeta", "1"), ("owner", "eva"), ("alpha", "ä"), ("zeta", "2")],
        "unknown properties, in order"
    );
    assert_eq!(update.body, body);
    let entry = bench.broker.get(b"/room/1").unwrap();
    assert_eq!(entry.properties.as_bytes(), properties);
    assert_eq!(entry.value, body);
    assert_eq!(entry.deadline, None);
}

#[test]
fn a_last_property_line_may_lack_its_line_feed() {
    let mut bench = Bench::new();
    bench.set_with("/a", "x=1\ny=2", "v");
    assert_eq!(bench.last_update().pairs(), [("x", "1"), ("y", "2")]);
    bench.set_with("/a", "x=1\nttl=5", "v");
    assert_eq!(bench.last_update().pairs(), [("x", "1"), ("ttl", "5"), ("ttlms", "5000")]);
}

#[test]
fn the_sequence_of_a_change_is_ignored() {
    let mut bench = Bench::new();
    for sequence in [0, -1, i64::MIN, i64::MAX] {
        bench.change(&[b"/a", &sequence.to_be_bytes(), b"", b"", b"v"]);
    }
    assert_eq!(bench.stats().changes_applied, 4);
    assert_eq!(bench.last_update().sequence, START.get() as i64 + 4);
}

#[test]
fn an_empty_body_deletes() {
    let mut bench = Bench::new();
    bench.set("/a", "1");
    bench.set_named(1, "/a", "why=cleanup\n", "");
    assert_eq!(bench.value("/a"), None);
    assert_eq!(bench.broker.store().len(), 0);
    let update = bench.last_update();
    assert!(update.body.is_empty());
    assert_eq!(update.pairs(), [("why", "cleanup")]);
    assert_eq!(update.uuid, [1; 16]);
}

#[test]
fn deleting_what_is_not_there_is_published_so_that_its_sender_hears_of_it() {
    let mut bench = Bench::new();
    bench.set_named(1, "/a", "", "");
    let update = bench.last_update();
    assert_eq!((update.uuid.as_slice(), update.body.as_slice()), (&[1; 16][..], &b""[..]));
    assert_eq!(bench.broker.store().len(), 0);
}

#[test]
fn keys_that_cannot_be_are_refused_and_counted() {
    let long = "k".repeat(256);
    let mut bench = Bench::new();
    for key in ["", "\x1f", "/a\n", "/a\x7f/b", "\0", &long] {
        bench.set(key, "v");
    }
    assert_eq!(bench.stats().changes_malformed, 6);
    for key in ["KTHXBAI", "ICANHAZ?", "STATUS?", "HUGZ", "HUGZ/a/", "HUGZxyz"] {
        bench.set(key, "v");
        bench.delete(key);
    }
    assert_eq!(bench.stats().changes_reserved, 12);
    assert_eq!(bench.broker.store().len(), 0);
    assert!(bench.updates().is_empty());
    assert_eq!(bench.broker.sequence(), START);
}

#[test]
fn keys_that_only_look_reserved_are_not() {
    let mut bench = Bench::new();
    let longest = "k".repeat(255);
    let keys =
        ["KTHXBAI/", "KTHXBAI2", "ICANHAZ", "STATUS", "HUG", "hugz", "/HUGZ", " ", "é", &longest];
    for key in keys {
        bench.set(key, "v");
    }
    assert_eq!(bench.stats().changes_applied, keys.len() as u64);
    assert_eq!(bench.broker.store().len(), keys.len());
}

#[test]
fn any_number_of_frames_is_taken_in_stride() {
    let mut bench = Bench::new();
    for count in (0..40).chain([1000]).filter(|&count| count != 5) {
        let frames = vec![&b"frame"[..]; count];
        bench.change(&frames);
        bench.request("peer", &frames);
        bench.broker.handle_subscription(bench.now, Message::new(&frames));
    }
    assert_eq!(bench.stats().changes_malformed, 40);
    assert_eq!(bench.stats().requests_malformed, 40);
    bench.set("/a", "still alive");
    assert_eq!(bench.value("/a").as_deref(), Some("still alive"));
    bench.settle();
    assert!(bench.received("peer").is_empty(), "verbs that are unknown get no answer");
}

#[test]
fn frames_of_a_wrong_size_are_refused() {
    let mut bench = Bench::new();
    let wrong: [[&[u8]; 5]; 7] = [
        [b"/a", b"1234567", b"", b"", b"v"],
        [b"/a", b"123456789", b"", b"", b"v"],
        [b"/a", &[0; 8], b"15 bytes of uuid", b"nonsense", b"v"],
        [b"/a", &[0; 8], &[1; 15], b"", b"v"],
        [b"/a", &[0; 8], &[1; 17], b"", b"v"],
        [b"/a", &[0; 8], b"", b"a=b=c\n", b"v"],
        [b"/a", &[0; 8], b"", b"\n", b"v"],
    ];
    for frames in &wrong {
        bench.change(frames);
    }
    let properties = format!("x={}\n", "y".repeat(4096));
    bench.set_with("/a", &properties, "v");
    assert_eq!(bench.stats().changes_malformed, 8);
    assert!(bench.updates().is_empty());
}

#[test]
fn a_value_over_the_limit_is_counted_and_its_sender_told() {
    let mut bench = Bench::with(|config| config.limits.max_value = 100);
    for subtree in ["", "/a/", "/a/b/", "/c/"] {
        bench.subscribe(&format!("HUGZ{subtree}"));
    }
    bench.settle();
    bench.forget();
    bench.set_named(7, "/a/b/key", "", &"x".repeat(100));
    assert_eq!(bench.stats().changes_applied, 1, "at the limit");
    bench.forget();
    bench.set_named(8, "/a/b/key", "", &"x".repeat(101));
    assert_eq!(bench.stats().changes_malformed, 1);
    for subtree in ["", "/a/", "/a/b/"] {
        let beats = bench.beats(subtree);
        assert_eq!(beats.len(), 1, "{subtree}");
        assert_eq!(beats[0].uuid, [8; 16]);
        assert!(beats[0].property("refused").is_some(), "{:?}", beats[0]);
        assert_eq!(beats[0].property("applied"), None);
    }
    assert!(bench.beats("/c/").is_empty(), "nothing to those that do not cover the key");
    assert_eq!(bench.value("/a/b/key").unwrap().len(), 100);
}

#[test]
fn a_reserved_key_is_refused_with_its_reason() {
    let mut bench = Bench::new();
    bench.subscribe("HUGZ");
    bench.settle();
    bench.forget();
    bench.set_named(3, "KTHXBAI", "", "v");
    let beats = bench.beats("");
    assert_eq!(beats.len(), 1);
    assert_eq!(beats[0].uuid, [3; 16]);
    assert_eq!(beats[0].property("refused").as_deref(), Some("reserved-key"));
}

#[test]
fn a_full_store_refuses_new_keys_and_says_so() {
    let mut bench = Bench::with(|config| config.store.max_keys = 2);
    bench.subscribe("HUGZ/");
    bench.settle();
    bench.set("/a", "1");
    bench.set("/b", "1");
    bench.forget();
    bench.set_named(1, "/c", "", "1");
    assert_eq!(bench.value("/c"), None);
    assert_eq!(bench.stats().changes_store_full, 1);
    assert!(bench.updates().is_empty(), "what is not applied is not published");
    assert!(bench.beats("/")[0].property("refused").is_some());
    bench.set("/a", "2");
    assert_eq!(bench.value("/a").as_deref(), Some("2"), "keys that are there go on");
    bench.delete("/b");
    bench.set_named(1, "/c", "", "1");
    assert_eq!(bench.value("/c"), None, "its sender was told that it has no effect");
    assert_eq!(bench.beats("/").len(), 2);
    assert_eq!(bench.beats("/")[0].property("refused"), bench.beats("/")[1].property("refused"));
    bench.set_named(2, "/c", "", "1");
    assert_eq!(bench.value("/c").as_deref(), Some("1"), "there is room now");
    let sequences: Vec<i64> = bench.updates().iter().map(|wire| wire.sequence).collect();
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "{sequences:?}");
}

#[test]
fn a_change_does_not_come_behind_a_later_one_of_its_sender() {
    let mut bench = Bench::new();
    bench.subscribe("HUGZ");
    bench.settle();
    bench.forget();
    let set = |bench: &mut Bench, uuid: Uuid, value: &str| {
        bench.change(&[b"/a", &[0; 8], uuid.as_bytes(), b"", value.as_bytes()]);
    };
    let [first, second, third] = [1, 2, 3].map(|number| Uuid::numbered(7, number));
    set(&mut bench, second, "2");
    set(&mut bench, first, "1");
    assert_eq!(bench.value("/a").as_deref(), Some("2"));
    assert_eq!(bench.beats("")[0].property("refused").as_deref(), Some("overtaken"));
    assert_eq!(bench.stats().changes_overtaken, 1);
    // Another sender's are in no order to them; a copy stays refused behind those, too.
    set(&mut bench, Uuid::numbered(8, 1), "other");
    set(&mut bench, first, "1");
    assert_eq!(bench.value("/a").as_deref(), Some("other"));
    // Nor does it come behind a deletion.
    bench.change(&[b"/a", &[0; 8], third.as_bytes(), b"", b""]);
    set(&mut bench, Uuid::numbered(7, 0), "0");
    assert_eq!(bench.value("/a"), None);
    // Of a key that is not there, too.
    bench.change(&[b"/e", &[0; 8], Uuid::numbered(7, 9).as_bytes(), b"", b""]);
    bench.change(&[b"/e", &[0; 8], Uuid::numbered(7, 8).as_bytes(), b"", b"8"]);
    assert_eq!(bench.value("/e"), None);
    // Other keys are in no order to this one, nor are names that do not count.
    bench.change(&[b"/b", &[0; 8], Uuid::numbered(7, 5).as_bytes(), b"", b"5"]);
    bench.change(&[b"/d", &[0; 8], Uuid::numbered(7, 4).as_bytes(), b"", b"4"]);
    assert_eq!(bench.value("/d").as_deref(), Some("4"));
    bench.set_named(9, "/c", "", "1");
    bench.set_named(8, "/c", "", "2");
    assert_eq!(bench.value("/c").as_deref(), Some("2"));
}

/// Sends change `number` of a client that numbers them; an empty value deletes.
fn set_numbered(bench: &mut Bench, (seed, number): (u64, u64), key: &str, value: &str) {
    let uuid = Uuid::numbered(seed, number);
    bench.change(&[key.as_bytes(), &[0; 8], uuid.as_bytes(), b"", value.as_bytes()]);
}

#[test]
fn nor_if_somebody_else_has_changed_the_key_since() {
    let mut bench = Bench::with(|config| config.store.history = 1);
    set_numbered(&mut bench, (7, 5), "/a", "5");
    set_numbered(&mut bench, (7, 9), "/b", "9");
    bench.set("/a", "other");
    bench.set("/b", "other");
    // They come late, as what has lain at a relay does.
    set_numbered(&mut bench, (7, 4), "/a", "4");
    set_numbered(&mut bench, (7, 6), "/a", "6");
    set_numbered(&mut bench, (7, 7), "/b", "7");
    set_numbered(&mut bench, (7, 8), "/c", "8");
    assert_eq!(bench.stats().changes_overtaken, 2);
    assert_eq!(bench.value("/a").as_deref(), Some("6"), "later than what it had changed there");
    assert_eq!(bench.value("/b").as_deref(), Some("other"));
    assert_eq!(bench.value("/c").as_deref(), Some("8"), "another key");
    // By whatever the later one has replaced it, be it gone and that forgotten.
    for key in ["/a", "/b", "/c", "/d"] {
        bench.delete(key);
    }
    set_numbered(&mut bench, (7, 3), "/a", "3");
    assert_eq!(bench.value("/a"), None);
    // A deletion is a change as any other, and so is one of a key that is not there.
    set_numbered(&mut bench, (7, 20), "/e", "");
    bench.set("/e", "other");
    set_numbered(&mut bench, (7, 19), "/e", "19");
    assert_eq!(bench.value("/e").as_deref(), Some("other"));
    assert_eq!(bench.stats().changes_overtaken, 4);
}

#[test]
fn what_was_refused_has_overtaken_nothing() {
    let mut bench = Bench::with(|config| config.store.max_keys = 1);
    set_numbered(&mut bench, (7, 1), "/there", "1");
    set_numbered(&mut bench, (7, 5), "/a", "5");
    assert_eq!(bench.stats().changes_store_full, 1);
    bench.delete("/there");
    set_numbered(&mut bench, (7, 4), "/a", "4");
    assert_eq!(bench.value("/a").as_deref(), Some("4"));
}

#[test]
fn that_a_change_was_overtaken_is_known_as_long_as_the_later_one_is() {
    let mut bench = Bench::with(|config| config.recent_count = 2);
    set_numbered(&mut bench, (7, 2), "/a", "2");
    bench.set_named(1, "/x", "", "x");
    bench.set("/a", "other");
    set_numbered(&mut bench, (7, 1), "/a", "1");
    assert_eq!(bench.value("/a").as_deref(), Some("other"), "the window has it");
    bench.set_named(2, "/x", "", "x");
    bench.set_named(3, "/x", "", "x");
    set_numbered(&mut bench, (7, 1), "/a", "1");
    assert_eq!(bench.value("/a").as_deref(), Some("1"), "it has left the window");
    // As the last change of its key it is known for ever.
    set_numbered(&mut bench, (7, 4), "/a", "4");
    bench.set_named(4, "/x", "", "x");
    bench.set_named(5, "/x", "", "x");
    set_numbered(&mut bench, (7, 3), "/a", "3");
    assert_eq!(bench.value("/a").as_deref(), Some("4"));
    assert_eq!(bench.stats().changes_overtaken, 2);
}

#[test]
fn many_that_were_overtaken_push_no_other_refusal_out() {
    let mut bench = Bench::with(|config| config.store.max_keys = 1);
    bench.subscribe("HUGZ");
    set_numbered(&mut bench, (7, 1 << 20), "/a", "last");
    bench.set_named(1, "/full", "", "x");
    let many = if cfg!(miri) { 300 } else { 70_000 };
    for number in 0..many {
        set_numbered(&mut bench, (7, number), "/a", "late");
        bench.forget();
    }
    assert_eq!(bench.stats().changes_overtaken, many);
    // Somebody's who has sent it first before all that.
    bench.set_named(1, "/full", "retry=0\n", "x");
    assert_eq!(bench.beats("")[0].property("refused").as_deref(), Some("store-full-keys"));
    bench.set_named(2, "/a", "retry=0\n", "new");
    assert_eq!(bench.value("/a").as_deref(), Some("new"), "nothing is forgotten");
}

#[test]
fn a_store_full_of_bytes_keeps_the_value_it_has() {
    let mut bench = Bench::with(|config| config.store.max_bytes = 1000);
    bench.set("/a", "small");
    bench.set_with("/a", "ttl=5\n", &"x".repeat(2000));
    assert_eq!(bench.stats().changes_store_full, 1);
    assert_eq!(bench.value("/a").as_deref(), Some("small"));
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.value("/a").as_deref(), Some("small"), "nor did it get the deadline");
}

#[test]
fn a_repeated_uuid_is_applied_once_and_confirmed() {
    let mut bench = Bench::new();
    bench.subscribe("HUGZ/a/");
    bench.subscribe("HUGZ/b/");
    bench.settle();
    bench.set_named(1, "/a/x", "", "first");
    let applied = bench.last_update().sequence as u64;
    bench.set("/a/x", "second");
    bench.forget();
    bench.set_named(1, "/a/x", "retry=20\n", "first");
    assert!(bench.updates().is_empty());
    assert_eq!(bench.value("/a/x").as_deref(), Some("second"));
    assert_eq!(bench.stats().changes_repeated, 1);
    let beats = bench.beats("/a/");
    assert_eq!(beats.len(), 1);
    assert_eq!(beats[0].uuid, [1; 16]);
    assert_eq!(beats[0].number("applied"), Some(applied));
    assert_eq!(beats[0].property("refused"), None);
    assert_eq!(beats[0].number("published"), Some(2));
    assert!(bench.beats("/b/").is_empty());
}

#[test]
fn a_change_without_uuid_is_taken_each_time() {
    let mut bench = Bench::new();
    bench.set("/a", "same");
    bench.set("/a", "same");
    assert_eq!(bench.updates().len(), 2);
}

#[test]
fn uuids_are_remembered_up_to_count_and_age() {
    let mut bench = Bench::with(|config| {
        config.recent_count = 4;
        config.recent_age = Duration::from_secs(10);
    });
    for uuid in 0..5 {
        bench.set_named(uuid, "/a", "", "v");
    }
    bench.set_named(1, "/a", "", "v");
    assert_eq!(bench.stats().changes_repeated, 1, "within the count");
    bench.set_named(0, "/a", "", "v");
    assert_eq!(bench.stats().changes_applied, 6, "beyond the count, and not said to be a retry");
    bench.pass(Duration::from_secs(11));
    bench.set_named(9, "/a", "", "v");
    bench.set_named(4, "/a", "", "v");
    assert_eq!(bench.stats().changes_applied, 8, "beyond the age");
    assert_eq!(bench.stats().changes_repeated, 1);
}

#[test]
fn a_retry_from_a_history_that_was_given_up_is_no_news_if_something_is_forgotten() {
    let mut bench = Bench::with(|config| config.recent_count = 1);
    bench.subscribe("HUGZ");
    bench.set_named(1, "/a", "", "v");
    // Above all that was given here: that says nothing of what was applied here.
    let above = bench.last_update().sequence as u64 + (5 << 40);
    bench.set_named(2, "/a", &format!("retry={above}\n"), "v");
    assert_eq!(bench.last_update().uuid, [2; 16], "nothing is forgotten yet");
    bench.forget();
    bench.set_named(1, "/a", &format!("retry={above}\n"), "v");
    assert_eq!(bench.beats("")[0].property("refused").as_deref(), Some("forgotten"));
    assert!(bench.updates().is_empty());
}

#[test]
fn a_retry_from_before_the_window_is_refused_rather_than_applied_twice() {
    let mut bench = Bench::with(|config| config.recent_count = 2);
    bench.subscribe("HUGZ");
    bench.set_named(1, "/a", "", "v");
    let forgotten = bench.last_update().sequence as u64;
    bench.set_named(2, "/a", "", "v");
    bench.set_named(3, "/a", "", "v");
    bench.forget();
    // Sent first when the change that has left the window was not known of.
    bench.set_named(1, "/a", &format!("retry={}\n", forgotten - 1), "v");
    assert_eq!(bench.stats().changes_forgotten, 1);
    let beats = bench.beats("");
    assert_eq!(beats[0].uuid, [1; 16]);
    assert_eq!(beats[0].property("refused").as_deref(), Some("forgotten"));
    assert!(bench.updates().is_empty());
    // First sent after that: it was never applied, whatever came in between.
    bench.set_named(4, "/a", &format!("retry={forgotten}\n"), "v");
    assert_eq!(bench.last_update().uuid, [4; 16]);
    for nonsense in ["retry=-1\n", "retry=x\n", "retry=99999999999999999999999\n"] {
        bench.set_named(5, "/a", nonsense, "v");
    }
    bench.set_named(6, "/a", "retry=0\n", "v");
    assert_eq!(bench.stats().changes_forgotten, 2);
}

#[test]
fn changes_from_within_the_process() {
    let mut bench = Bench::with(|config| config.limits.max_value = 10);
    let Bench { broker, net, now } = &mut bench;
    let sequence = broker.set(*now, b"/a", b"1", None, net).unwrap();
    assert_eq!(sequence, broker.sequence());
    assert!(broker.delete(*now, b"/a", net));
    assert!(!broker.delete(*now, b"/a", net), "it is gone");
    let refused: [(&[u8], &[u8]); 6] = [
        (b"", b"v"),
        (b"HUGZ", b"v"),
        (b"/a\n", b"v"),
        (&[b'k'; 256], b"v"),
        (b"/a", b""),
        (b"/a", b"eleven char"),
    ];
    for (key, value) in refused {
        let error = broker.set(*now, key, value, None, net).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(bench.updates().len(), 2);
    assert!(bench.last_update().body.is_empty());
    assert!(bench.last_update().uuid.is_empty());
}

#[test]
fn nobody_can_be_published_to_and_the_state_goes_on() {
    let mut bench = Bench::new();
    bench.net.publish_fails = true;
    bench.set("/a", "1");
    assert_eq!(bench.stats().publish_failed, 1);
    bench.net.publish_fails = false;
    bench.set("/a", "2");
    assert_eq!(bench.last_update().sequence, START.get() as i64 + 2, "the gap can be seen");
}
