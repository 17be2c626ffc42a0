//! What comes in on the snapshot port, and who gets which answer.

use super::*;

fn three_keys() -> Bench {
    let mut bench = Bench::new();
    bench.set("/a/1", "one");
    bench.set("/a/2", "two");
    bench.set("/b/1", "three");
    bench.settle();
    bench
}

#[test]
fn a_request_of_one_frame_means_everything() {
    let mut bench = three_keys();
    bench.request("peer", &[ICANHAZ]);
    bench.settle();
    let all = map(&[("/a/1", "one"), ("/a/2", "two"), ("/b/1", "three")]);
    assert_eq!(bench.snapshot_map("peer"), all);
    let (entries, end) = bench.snapshot("peer");
    assert_eq!(end.body, b"");
    assert_eq!(end.sequence, START.get() as i64 + 3);
    let sequences: Vec<i64> =
        entries.iter().map(|wire| wire.sequence - START.get() as i64).collect();
    assert_eq!(sequences, [1, 2, 3], "each its own");
}

#[test]
fn a_subtree_is_any_prefix_and_comes_back_in_the_end() {
    let mut bench = three_keys();
    for (subtree, count) in [("", 3), ("/", 3), ("/a/", 2), ("/a/1", 1), ("/b", 1), ("/c/", 0)] {
        bench.forget();
        bench.request("peer", &[ICANHAZ, subtree.as_bytes()]);
        bench.settle();
        let (entries, end) = bench.snapshot("peer");
        assert_eq!(entries.len(), count, "{subtree}");
        assert_eq!(end.text(), subtree);
        assert_eq!(end.property("mode").as_deref(), Some("full"));
        assert_eq!(end.sequence, START.get() as i64 + 3, "up to here, whatever the subtree");
        assert!(entries.iter().all(|wire| wire.text_key().starts_with(subtree)));
    }
    assert_eq!(bench.stats().snapshots_requested, 6);
    assert_eq!(bench.stats().snapshots_done, 6);
    assert_eq!(bench.stats().entries_sent, 10);
}

#[test]
fn an_empty_store_has_a_snapshot_too() {
    let mut bench = Bench::new();
    bench.request("peer", &[ICANHAZ, b""]);
    bench.settle();
    let (entries, end) = bench.snapshot("peer");
    assert!(entries.is_empty());
    assert_eq!(end.sequence, START.get() as i64);
}

#[test]
fn the_end_says_what_the_broker_can() {
    let mut bench = three_keys();
    bench.request("peer", &[ICANHAZ, b""]);
    bench.settle();
    let (_, end) = bench.snapshot("peer");
    for (name, value) in [("chp", "2"), ("node", "00abcdef01234567"), ("hb", "1000")] {
        assert_eq!(end.property(name).as_deref(), Some(value));
    }
    assert!(end.uuid.is_empty());
}

#[test]
fn entries_come_with_uuid_and_properties() {
    let mut bench = Bench::new();
    bench.set_named(7, "/a", "owner=eva\nretry=5\n", "v");
    bench.request("peer", &[ICANHAZ, b""]);
    bench.settle();
    let (entries, _) = bench.snapshot("peer");
    assert_eq!(entries[0].uuid, [7; 16]);
    assert_eq!(entries[0].pairs(), [("owner", "eva")], "without what was for the broker alone");
}

#[test]
fn a_req_gets_everything_in_one_message_behind_a_delimiter() {
    let mut bench = three_keys();
    for frames in
        [&[&b""[..], ICANHAZ][..], &[b"", ICANHAZ, b""], &[b"", ICANHAZ, b"", b"since=1\n"]]
    {
        bench.forget();
        bench.request("req", frames);
        bench.settle();
        let [reply] = bench.received("req") else { panic!("not one message") };
        let mut messages = reply.groups();
        let end = messages.pop().unwrap();
        assert_eq!((end.key.as_slice(), end.number("count")), (&b"KTHXBAI"[..], Some(3)));
        let keys: Vec<String> = messages.iter().map(Wire::text_key).collect();
        assert_eq!(keys, ["/a/1", "/a/2", "/b/1"]);
    }
}

#[test]
fn a_req_gets_the_whole_answer_even_if_its_queue_was_full_at_first() {
    let mut bench = three_keys();
    bench.net.room.insert(b"req".to_vec(), 0);
    bench.request("req", &[b"", ICANHAZ, b""]);
    bench.pass_ms(20);
    assert!(bench.received("req").is_empty());
    // What changes meanwhile may be in it or not, but nothing may be missing.
    bench.set("/b/2", "four");
    bench.net.room.clear();
    bench.pass_ms(20);
    let [reply] = bench.received("req") else { panic!("not one message") };
    let messages = reply.groups();
    let end = messages.last().unwrap();
    assert!(messages.len() >= 4, "{messages:?}");
    assert_eq!(end.number("count"), Some(messages.len() as u64 - 1));
    let told = end.sequence - START.get() as i64;
    assert!(told == 3 || (told == 4 && messages.len() == 5), "{messages:?}");
}

#[test]
fn an_answer_too_large_for_one_message_is_not_given() {
    let mut bench = Bench::with(|config| config.snapshots.whole_answer_bytes = 1000);
    for n in 0..20 {
        bench.set(&format!("/a/{n:02}"), &"x".repeat(100));
    }
    bench.request("req", &[b"", ICANHAZ, b""]);
    bench.settle();
    assert!(bench.received("req").is_empty());
    assert_eq!(bench.stats().snapshots_abandoned, 1);
    bench.request("req", &[b"", ICANHAZ, b"/a/00"]);
    bench.request("dealer", &[ICANHAZ, b""]);
    bench.settle();
    assert_eq!(bench.received("req").len(), 1, "a smaller subtree is");
    assert_eq!(bench.snapshot("dealer").0.len(), 20, "a DEALER gets all");
}

#[test]
fn since_gives_only_what_changed() {
    let mut bench = three_keys();
    let since = bench.broker.sequence();
    bench.set("/a/2", "new");
    bench.delete("/b/1");
    bench.set("/a/3", "short-lived");
    bench.delete("/a/3");
    let ask = |bench: &mut Bench, subtree: &str| {
        bench.forget();
        let since = format!("since={}\n", since.get());
        bench.request("peer", &[ICANHAZ, subtree.as_bytes(), since.as_bytes()]);
        bench.settle();
        let (entries, end) = bench.snapshot("peer");
        assert_eq!(end.property("mode").as_deref(), Some("delta"));
        assert_eq!(end.sequence, START.get() as i64 + 7);
        entries.into_iter().map(|wire| (wire.text_key(), wire.text())).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(ask(&mut bench, ""), map(&[("/a/2", "new"), ("/a/3", ""), ("/b/1", "")]));
    assert_eq!(ask(&mut bench, "/a/"), map(&[("/a/2", "new"), ("/a/3", "")]));
    assert_eq!(ask(&mut bench, "/c/"), map(&[]));
    assert_eq!(bench.stats().snapshots_delta, 3);
}

#[test]
fn since_now_gives_nothing() {
    let mut bench = three_keys();
    let since = format!("since={}\n", bench.broker.sequence().get());
    bench.request("peer", &[ICANHAZ, b"", since.as_bytes()]);
    bench.settle();
    let (entries, end) = bench.snapshot("peer");
    assert!(entries.is_empty());
    assert_eq!(end.property("mode").as_deref(), Some("delta"));
}

#[test]
fn since_what_is_not_known_gives_everything() {
    let mut bench = three_keys();
    let future = format!("since={}\n", bench.broker.sequence().get() + 1);
    let before = format!("since={}\n", START.get() - 1);
    for since in [
        &future,
        &before,
        "since=0\n",
        "since=-1\n",
        "since=x\n",
        "since=9223372036854775807\n",
        "since=18446744073709551615\n",
        "since=99999999999999999999999999\n",
        "since\n",
        "=\n",
        "other=1\n",
        "",
    ] {
        bench.forget();
        bench.request("peer", &[ICANHAZ, b"", since.as_bytes()]);
        bench.settle();
        let (entries, end) = bench.snapshot("peer");
        assert_eq!(entries.len(), 3, "{since}");
        assert_eq!(end.property("mode").as_deref(), Some("full"), "{since}");
    }
    bench.forget();
    bench.request("peer", &[ICANHAZ, b"", &[0xff; 10_000]]);
    bench.settle();
    assert_eq!(bench.snapshot("peer").0.len(), 3);
}

#[test]
fn beyond_the_history_a_delta_becomes_a_full_snapshot() {
    let mut bench = Bench::with(|config| config.store.history = 2);
    for n in 0..5 {
        bench.set(&format!("/{n}"), "v");
    }
    let since = format!("since={}\n", bench.broker.sequence().get());
    for (deleted, mode) in [("/0", "delta"), ("/1", "delta"), ("/2", "full")] {
        bench.delete(deleted);
        bench.forget();
        bench.request("peer", &[ICANHAZ, b"", since.as_bytes()]);
        bench.settle();
        let (_, end) = bench.snapshot("peer");
        assert_eq!(end.property("mode").as_deref(), Some(mode), "{deleted} deleted");
    }
    assert_eq!(bench.snapshot_map("peer"), map(&[("/3", "v"), ("/4", "v")]));
}

#[test]
fn verbs_that_are_none_are_counted_and_not_answered() {
    let mut bench = three_keys();
    let requests: [&[&[u8]]; 8] = [
        &[b""],
        &[b"", b""],
        &[b"icanhaz?"],
        &[b"ICANHAZ?", b"", b"", b""],
        &[b"ICANHAZ?\0"],
        &[b"STATUS?", b""],
        &[b"GET", b"/a/1"],
        &[&[0xff; 1000]],
    ];
    for request in requests {
        bench.request("peer", request);
    }
    bench.request("peer", &[]);
    bench.settle();
    assert_eq!(bench.stats().requests_malformed, 9);
    assert!(bench.net.replies.is_empty());
}

#[test]
fn status_tells_the_figures() {
    let mut bench = three_keys();
    bench.delete("/b/1");
    bench.subscribe("HUGZ/a/");
    bench.request("dealer", &[b"STATUS?"]);
    bench.request("req", &[b"", b"STATUS?"]);
    let [reply] = bench.received("dealer") else { panic!("not one message") };
    let status = reply.five_frames();
    assert_eq!(status.key, b"STATUS?");
    assert_eq!(status.sequence, START.get() as i64 + 4);
    for (name, value) in [
        ("chp", "2"),
        ("role", "active"),
        ("epoch", "5"),
        ("keys", "2"),
        ("tombstones", "1"),
        ("watched_subtrees", "1"),
        ("changes_applied", "4"),
        ("status_requests", "1"),
    ] {
        assert_eq!(status.property(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(status.number("sequence"), Some(status.sequence as u64));
    for (name, _) in bench.stats().fields() {
        assert!(status.property(name).is_some(), "{name}");
    }
    let [reply] = bench.received("req") else { panic!("not one message") };
    assert_eq!(reply.groups().len(), 1);
}
