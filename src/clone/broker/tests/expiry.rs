//! Time to live: what counts as one, what remains goes out, what is over goes.

use super::*;

/// The `ttl` and `ttlms` of an update.
fn remaining(wire: &Wire) -> (Option<u64>, Option<u64>) {
    (wire.number("ttl"), wire.number("ttlms"))
}

#[test]
fn seconds_are_whole_or_decimal() {
    let mut bench = Bench::new();
    for (ttl, seconds, ms) in [
        ("1", 1, 1000),
        ("10", 10, 10_000),
        ("0.5", 1, 500),
        ("1.0004", 2, 1001),
        ("2.000", 2, 2000),
        ("+3", 3, 3000),
        ("1e2", 100, 100_000),
        ("0.0000001", 1, 1),
    ] {
        bench.set_with("/a", &format!("ttl={ttl}\n"), "v");
        assert_eq!(remaining(bench.last_update()), (Some(seconds), Some(ms)), "ttl={ttl}");
    }
    assert_eq!(bench.stats().ttl_malformed, 0);
}

#[test]
fn milliseconds_go_before_seconds() {
    let mut bench = Bench::new();
    bench.set_with("/a", "ttlms=1500\nttl=7\n", "v");
    assert_eq!(bench.last_update().pairs(), [("ttl", "2"), ("ttlms", "1500")]);
    bench.set_with("/a", "ttl=7\nttlms=x\n", "v");
    assert_eq!(remaining(bench.last_update()), (Some(7), Some(7000)));
    bench.set_with("/a", "ttl=7\nttlms=0\n", "v");
    assert_eq!(remaining(bench.last_update()), (None, None));
}

#[test]
fn what_is_no_time_means_for_ever() {
    let mut bench = Bench::new();
    let nonsense = ["-1", "-0.5", "soon", "1s", "nan", "-inf", "0x10", " 1"];
    for ttl in nonsense {
        bench.set_with("/a", &format!("ttl={ttl}\nkeep=me\n"), "v");
        assert_eq!(bench.last_update().pairs(), [("keep", "me")], "ttl={ttl}");
    }
    assert_eq!(bench.stats().ttl_malformed, nonsense.len() as u64);
    // The Guide's C client always sends a zero.
    for zero in ["0", "0.0", "00"] {
        bench.set_with("/a", &format!("ttl={zero}\n"), "v");
        assert_eq!(bench.last_update().pairs(), []);
    }
    assert_eq!(bench.stats().ttl_malformed, nonsense.len() as u64);
    bench.pass(Duration::from_secs(if cfg!(miri) { 60 } else { 3600 }));
    assert_eq!(bench.value("/a").as_deref(), Some("v"));
    assert_eq!(bench.stats().expired, 0);
}

#[test]
fn a_time_beyond_all_clocks_is_for_ever() {
    let mut bench = Bench::new();
    for properties in
        ["ttl=inf\n", "ttl=1e300\n", "ttl=99999999999\n", "ttlms=18446744073709551615\n"]
    {
        bench.set_with("/a", properties, "v");
        assert_eq!(bench.value("/a").as_deref(), Some("v"), "{properties}");
    }
    bench.request("peer", &[ICANHAZ, b""]);
    bench.now += Duration::from_secs(1_000_000_000);
    bench.settle();
    assert_eq!(bench.value("/a").as_deref(), Some("v"));
    bench.snapshot("peer");
}

#[test]
fn properties_that_leave_no_room_for_a_time_to_live_are_refused() {
    let mut bench = Bench::new();
    let limits = crate::clone::Limits::default();
    for (size, taken) in [(limits.max_properties - 52, true), (limits.max_properties, false)] {
        let ttl = "ttl=99999999.5\n";
        let properties = format!("{ttl}a={}\n", "x".repeat(size - ttl.len() - 3));
        bench.set_with("/a", &properties, "v");
        assert_eq!(bench.value("/a").is_some(), taken);
        bench.delete("/a");
        bench.set_with("/b", &properties.replace("ttl", "tt1"), "without one");
        assert_eq!(bench.value("/b").as_deref(), Some("without one"));
        for update in bench.updates() {
            let sizes =
                update.pairs().iter().map(|(name, value)| name.len() + value.len() + 2).sum();
            assert!((0..=limits.max_properties).contains(&sizes));
        }
        bench.forget();
    }
    assert_eq!(bench.stats().changes_malformed, 1);
}

#[test]
fn at_its_time_a_key_is_deleted_and_everybody_told_why() {
    let mut bench = Bench::new();
    bench.set_with("/a", "ttl=2.5\nowner=eva\n", "v");
    bench.set("/b", "stays");
    bench.forget();
    bench.pass_ms(2499);
    assert_eq!(bench.value("/a").as_deref(), Some("v"));
    assert!(bench.updates().is_empty());
    bench.pass_ms(1);
    bench.settle();
    assert_eq!(bench.value("/a"), None);
    let update = bench.last_update();
    assert_eq!((update.key.as_slice(), update.body.as_slice()), (&b"/a"[..], &b""[..]));
    assert_eq!(update.property("why").as_deref(), Some("expired"));
    assert_eq!(update.sequence, START.get() as i64 + 3);
    assert_eq!(bench.updates().len(), 1);
    assert_eq!((bench.stats().expired, bench.stats().changes_applied), (1, 3));
    assert_eq!(bench.value("/b").as_deref(), Some("stays"));
}

#[test]
fn a_later_set_replaces_the_deadline() {
    let mut bench = Bench::new();
    bench.set_with("/longer", "ttl=1\n", "v");
    bench.set_with("/shorter", "ttl=9\n", "v");
    bench.set_with("/permanent", "ttl=1\n", "v");
    bench.set_with("/deleted", "ttl=1\n", "v");
    bench.set_with("/again", "ttl=1\n", "v");
    bench.pass_ms(500);
    bench.set_with("/longer", "ttl=2\n", "w");
    bench.set_with("/shorter", "ttl=0.1\n", "w");
    bench.set("/permanent", "w");
    bench.delete("/deleted");
    bench.delete("/again");
    bench.set("/again", "w");
    bench.pass_ms(600);
    assert_eq!(bench.value("/shorter"), None);
    bench.forget();
    bench.pass_ms(1300);
    assert!(bench.updates().is_empty(), "no deadline of before holds");
    assert_eq!(bench.value("/longer").as_deref(), Some("w"));
    bench.pass_ms(100);
    bench.settle();
    assert_eq!(bench.last_update().key, b"/longer");
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.value("/permanent").as_deref(), Some("w"));
    assert_eq!(bench.value("/again").as_deref(), Some("w"));
    assert_eq!(bench.stats().expired, 2);
}

#[test]
fn a_snapshot_says_what_remains() {
    let mut bench = Bench::new();
    bench.set_with("/a", "x=1\nttl=10\ny=2\n", "v");
    bench.pass_ms(3001);
    bench.request("peer", &[ICANHAZ, b""]);
    bench.settle();
    let (entries, _) = bench.snapshot("peer");
    assert_eq!(entries[0].pairs(), [("x", "1"), ("y", "2"), ("ttl", "7"), ("ttlms", "6999")]);
}

#[test]
fn what_is_due_but_not_yet_deleted_still_has_a_positive_time() {
    let mut bench = Bench::new();
    bench.set_with("/a", "ttl=1\n", "v");
    // The loop was busy: the snapshot is asked for after the deadline.
    bench.now += Duration::from_secs(5);
    bench.request("peer", &[ICANHAZ, b""]);
    bench.settle();
    let (entries, _) = bench.snapshot("peer");
    for entry in entries {
        let zero = [entry.property("ttl"), entry.property("ttlms")].contains(&Some("0".into()));
        assert!(!zero, "zero would mean for ever: {entry:?}");
    }
    assert_eq!(bench.value("/a"), None);
}

#[test]
fn many_keys_expire_in_batches_in_which_others_are_served() {
    let count: usize = if cfg!(miri) { 300 } else { 1000 };
    let mut bench = Bench::new();
    for n in 0..count {
        bench.set_with(&format!("/k/{n}"), "ttl=1\n", "v");
    }
    bench.settle();
    bench.forget();
    bench.now += Duration::from_secs(1);
    let mut calls = 0;
    while !bench.broker.store().is_empty() {
        let before = bench.broker.store().len();
        assert!(bench.deadline() <= bench.now);
        bench.broker.handle_timeout(bench.now, &mut bench.net);
        let gone = before - bench.broker.store().len();
        assert!((1..=256).contains(&gone), "{gone} in one call");
        calls += 1;
    }
    assert_eq!(calls, count.div_ceil(256));
    assert_eq!(bench.updates().len(), count);
    assert!(bench.updates().iter().all(|wire| wire.property("why").as_deref() == Some("expired")));
}

#[test]
fn set_from_within_the_process_expires_as_well() {
    let mut bench = Bench::new();
    let Bench { broker, net, now } = &mut bench;
    broker.set(*now, b"/a", b"v", Some(Duration::from_millis(1500)), net).unwrap();
    assert_eq!(remaining(bench.last_update()), (Some(2), Some(1500)));
    bench.pass_ms(1500);
    bench.settle();
    assert_eq!(bench.value("/a"), None);
}

#[test]
fn the_time_of_a_deletion_means_nothing() {
    let mut bench = Bench::new();
    bench.set("/a", "v");
    bench.set_with("/a", "ttl=1\n", "");
    assert_eq!(bench.last_update().pairs(), []);
    bench.forget();
    bench.pass(Duration::from_secs(10));
    assert!(bench.updates().is_empty());
    assert_eq!(bench.stats().expired, 0);
}
