//! Heartbeats: when they come, to whom, and what they say.

use super::*;

#[test]
fn a_heartbeat_each_interval_says_what_the_broker_can() {
    let mut bench = Bench::with(|config| {
        config.heartbeat = Duration::from_millis(250);
        config.limits.max_value = 777;
    });
    bench.set("/a", "v");
    bench.settle();
    bench.forget();
    for _ in 0..8 {
        bench.pass_ms(250);
    }
    bench.settle();
    let beats = bench.beats("");
    assert_eq!(beats.len(), 8);
    assert_eq!(bench.stats().heartbeats, 9);
    let beat = beats[0];
    assert_eq!(beat.key, b"HUGZ");
    assert!(beat.uuid.is_empty() && beat.body.is_empty());
    assert_eq!(beat.sequence, START.get() as i64 + 1);
    let stable = beat.sequence.to_string();
    assert_eq!(
        beat.pairs(),
        [
            ("chp", "2"),
            ("node", "00abcdef01234567"),
            ("epoch", "5"),
            ("role", "active"),
            ("collector", "pull"),
            ("hb", "250"),
            ("maxkey", "255"),
            ("maxval", "777"),
            ("stable", &stable),
            ("published", "1"),
        ]
    );
}

#[test]
fn a_late_loop_sends_one_heartbeat_not_many() {
    let mut bench = Bench::new();
    bench.settle();
    bench.forget();
    bench.now += Duration::from_secs(30);
    bench.settle();
    assert_eq!(bench.beats("").len(), 1);
    bench.pass_ms(999);
    assert_eq!(bench.beats("").len(), 1);
    bench.pass_ms(1);
    bench.settle();
    assert_eq!(bench.beats("").len(), 2);
}

#[test]
fn an_interval_of_nothing_does_not_take_the_loop() {
    let mut bench = Bench::with(|config| config.heartbeat = Duration::ZERO);
    bench.settle();
    bench.forget();
    bench.pass_ms(10);
    assert!((5..=11).contains(&bench.beats("").len()), "1 ms at least: {}", bench.beats("").len());
    assert_eq!(bench.beats("")[0].number("hb"), Some(1));
}

#[test]
fn the_collector_is_named() {
    let mut bench = Bench::with(|config| config.collector = crate::clone::Collector::Sub);
    bench.settle();
    assert_eq!(bench.beats("")[0].property("collector").as_deref(), Some("sub"));
}

#[test]
fn a_subscription_is_answered_at_once() {
    let mut bench = Bench::new();
    bench.pass(Duration::from_secs(1));
    bench.settle();
    bench.pass_ms(300);
    bench.forget();
    bench.subscribe("HUGZ");
    assert!(bench.deadline() <= bench.now, "due now");
    bench.settle();
    assert_eq!(bench.beats("").len(), 1);
    bench.subscribe("HUGZ/a/");
    bench.pass_ms(1);
    bench.settle();
    assert_eq!(bench.beats("/a/").len(), 1);
    assert_eq!(bench.beats("").len(), 1, "only whoever asked");
}

#[test]
fn simultaneous_subscriptions_share_an_answer() {
    let mut bench = Bench::new();
    bench.settle();
    bench.pass_ms(10);
    bench.forget();
    // A thousand clients join within 5 ms.
    for _ in 0..5 {
        for _ in 0..200 {
            bench.subscribe("HUGZ");
            bench.subscribe("HUGZ/a/");
            bench.settle();
        }
        bench.pass_ms(1);
    }
    bench.settle();
    assert!((2..=6).contains(&bench.beats("").len()), "{}", bench.beats("").len());
    assert!((2..=6).contains(&bench.beats("/a/").len()), "{}", bench.beats("/a/").len());
    // Each got its answer soon: none is left behind.
    bench.pass_ms(64);
    bench.forget();
    bench.pass_ms(800);
    assert!(bench.net.published.is_empty());
}

#[test]
fn answers_become_rarer_while_many_come_and_prompt_again_afterwards() {
    let mut bench = Bench::new();
    bench.settle();
    bench.pass_ms(10);
    bench.forget();
    // Thousands join, twenty in each millisecond.
    for _ in 0..500 {
        for n in 0..20 {
            bench.subscribe(&format!("HUGZ/{n}/"));
        }
        bench.pass_ms(1);
    }
    bench.settle();
    // Each is an interval of 64 ms after the other at last, of 1, 2, 4, ... at first.
    assert!((8..=20).contains(&bench.beats("/7/").len()), "{}", bench.beats("/7/").len());
    bench.pass(Duration::from_secs(2));
    bench.forget();
    for _ in 0..7 {
        bench.subscribe("HUGZ/7/");
        bench.pass_ms(64);
    }
    bench.forget();
    bench.subscribe("HUGZ/7/");
    bench.pass_ms(1);
    bench.settle();
    assert_eq!(bench.beats("/7/").len(), 1, "one alone has its answer at once");
}

/// Heartbeats of each subtree with the times at which they came, while time passes.
fn beats_over(bench: &mut Bench, time: Duration) -> (BTreeMap<Vec<u8>, Vec<Time>>, usize) {
    let (mut times, mut most) = (BTreeMap::<_, Vec<_>>::new(), 0);
    let end = bench.now + time;
    while bench.deadline() <= end {
        bench.now = bench.now.max(bench.deadline());
        bench.forget();
        bench.broker.handle_timeout(bench.now, &mut bench.net);
        most = most.max(bench.net.published.len());
        for wire in &bench.net.published {
            times.entry(wire.key.clone()).or_default().push(bench.now);
        }
    }
    bench.now = end;
    (times, most)
}

#[test]
fn heartbeats_of_many_subtrees_are_spread_over_the_interval() {
    let count = if cfg!(miri) { 80 } else { 1000 };
    let mut bench = Bench::new();
    bench.settle();
    bench.pass_ms(100);
    for n in 0..count {
        bench.subscribe(&format!("HUGZ/tree/{n:05}/"));
    }
    // The first rounds, in which they find their places.
    let second = Duration::from_secs(1);
    let (early, _) = beats_over(&mut bench, second * 3);
    let (late, most) = beats_over(&mut bench, second * 10);
    assert_eq!(late.len(), count + 1);
    assert!(most < 40, "{most} in one call");
    for (key, times) in &late {
        assert!((9..=11).contains(&times.len()), "{}: {times:?}", key.escape_ascii());
        let all = [&early[key][..], times].concat();
        let longest = all.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap();
        assert!(longest <= second, "{}: {longest:?}", key.escape_ascii());
        let regular = times.windows(2).all(|pair| pair[1].since(pair[0]) == second);
        assert!(regular, "{}: {times:?}", key.escape_ascii());
    }
    // With fewer all come together again, and none too late.
    for n in 20..count {
        bench.unsubscribe(&format!("HUGZ/tree/{n:05}/"));
    }
    let (few, most) = beats_over(&mut bench, second * 4);
    assert!(most <= 21, "{most} in one call");
    for n in 0..20 {
        let key = format!("HUGZ/tree/{n:05}/").into_bytes();
        let all = [&late[&key][..], &few[&key]].concat();
        assert!(all.windows(2).all(|pair| pair[1].since(pair[0]) <= second), "{all:?}");
    }
}

#[test]
fn a_late_loop_makes_up_for_the_heartbeats_that_it_missed() {
    let count = if cfg!(miri) { 30 } else { 300 };
    let mut bench = Bench::new();
    for n in 0..count {
        bench.subscribe(&format!("HUGZ/{n}/"));
    }
    bench.pass(Duration::from_secs(3));
    bench.forget();
    // The rest of this round, and the beginning of the next: each once.
    bench.pass_ms(400);
    bench.now += Duration::from_millis(700);
    bench.settle();
    for n in 0..count {
        assert!(!bench.beats(&format!("/{n}/")).is_empty(), "{n}");
    }
}

#[test]
fn other_topics_are_not_watched() {
    let mut bench = Bench::new();
    bench.settle();
    bench.forget();
    for topic in ["", "/a/", "HUG", "KTHXBAI", "hugz"] {
        bench.subscribe(topic);
    }
    bench.broker.handle_subscription(bench.now, Message::new(&[]));
    for frame in [&b""[..], b"\x02HUGZ", b"HUGZ", b"\x00", b"\x01"] {
        bench.broker.handle_subscription(bench.now, Message::new(&[frame]));
    }
    bench.unsubscribe("HUGZ/never/");
    bench.pass_ms(900);
    assert!(bench.net.published.is_empty(), "{:?}", bench.net.published);
    bench.pass_ms(100);
    bench.settle();
    assert_eq!(bench.net.published.len(), 1);
}

#[test]
fn a_subtree_has_its_own_sequence_and_count() {
    let mut bench = Bench::new();
    for n in 0..10 {
        bench.set(&format!("/a/{n}"), "before");
    }
    for subtree in ["", "/a/", "/a/1", "/b/"] {
        bench.subscribe(&format!("HUGZ{subtree}"));
    }
    bench.settle();
    let first = START.get() as i64;
    for subtree in ["", "/a/", "/a/1", "/b/"] {
        let beat = bench.beats(subtree)[0];
        assert_eq!(beat.sequence, first + 10, "{subtree}: the watch begins here");
        assert_eq!(beat.number("published"), Some(10), "{subtree}: at the total");
    }
    bench.set("/a/1/x", "1");
    bench.set("/a/2", "1");
    bench.set("/c/1", "1");
    bench.delete("/a/1/x");
    bench.set("reserved?", "");
    bench.forget();
    bench.pass(Duration::from_secs(1));
    bench.settle();
    for (subtree, sequence, published) in
        [("", 15, 15), ("/a/", 14, 13), ("/a/1", 14, 12), ("/b/", 10, 10)]
    {
        let beats = bench.beats(subtree);
        assert_eq!(beats.len(), 1, "{subtree}");
        assert_eq!(beats[0].sequence, first + sequence, "{subtree}");
        assert_eq!(beats[0].number("published"), Some(published), "{subtree}");
        assert_eq!(beats[0].number("stable"), Some(first as u64 + 15), "{subtree}");
    }
}

#[test]
fn refused_and_repeated_changes_are_not_counted_as_published() {
    let mut bench = Bench::new();
    bench.subscribe("HUGZ/a/");
    bench.set_named(1, "/a/x", "", "v");
    bench.set_named(1, "/a/x", "", "v");
    bench.change(&[b"/a/x", b"no sequence", b"", b"", b"v"]);
    bench.settle();
    bench.set_with("/a/y", "ttl=0.1\n", "v");
    bench.forget();
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.beats("/a/")[0].number("published"), Some(3), "two sets and an expiry");
}

#[test]
fn a_subtree_nobody_follows_has_no_heartbeat() {
    let mut bench = Bench::new();
    bench.subscribe("HUGZ/a/");
    bench.subscribe("HUGZ/a/");
    bench.settle();
    bench.unsubscribe("HUGZ/a/");
    bench.forget();
    bench.pass(Duration::from_secs(3));
    bench.settle();
    assert!(bench.beats("/a/").is_empty());
    assert_eq!(bench.beats("").len(), 3, "that of RFC 12 goes on");
    bench.subscribe("HUGZ");
    bench.pass_ms(1);
    bench.settle();
    bench.unsubscribe("HUGZ");
    bench.forget();
    bench.pass(Duration::from_secs(3));
    assert_eq!(bench.beats("").len(), 3, "whether or not anybody is subscribed");
}

#[test]
fn a_watch_begun_anew_never_matches_by_accident() {
    let mut bench = Bench::new();
    bench.subscribe("HUGZ/a/");
    bench.set("/a/1", "v");
    bench.settle();
    let before = bench.beats("/a/")[0].number("published").unwrap();
    bench.unsubscribe("HUGZ/a/");
    bench.set("/b/1", "elsewhere");
    bench.set("/a/2", "missed");
    bench.forget();
    bench.subscribe("HUGZ/a/");
    bench.pass_ms(1);
    bench.settle();
    let after = bench.beats("/a/")[0].number("published").unwrap();
    assert!(after > before, "changes went by, of which one was missed: {before}, then {after}");
    assert_eq!(bench.beats("/a/")[0].sequence, START.get() as i64 + 3);
}

#[test]
fn whoever_comes_when_the_last_one_leaves_can_count_on() {
    // The newcomer's subscription is live before the broker reads that the last
    // one has left: a heartbeat in between is the newcomer's first.
    let mut bench = Bench::new();
    bench.subscribe("HUGZ/a/");
    bench.set("/b/1", "elsewhere");
    bench.set("/a/1", "v");
    bench.settle();
    bench.forget();
    bench.pass(Duration::from_secs(1));
    bench.settle();
    let first = bench.beats("/a/")[0].number("published").unwrap();
    bench.unsubscribe("HUGZ/a/");
    bench.set("/a/2", "received");
    bench.forget();
    bench.subscribe("HUGZ/a/");
    bench.pass_ms(1);
    bench.settle();
    assert_eq!(bench.beats("/a/")[0].number("published"), Some(first + 1));
}

#[test]
fn the_limit_of_watched_subtrees_leaves_the_plain_heartbeat() {
    let mut bench = Bench::with(|config| config.max_watched = 3);
    for n in 0..5 {
        bench.subscribe(&format!("HUGZ/{n}/"));
    }
    assert_eq!(bench.stats().watches_refused, 2);
    bench.subscribe("HUGZ/1/");
    assert_eq!(bench.stats().watches_refused, 2, "a known one is no new one");
    bench.settle();
    bench.pass_ms(10);
    bench.forget();
    bench.subscribe("HUGZ");
    bench.pass_ms(1);
    bench.settle();
    assert_eq!(bench.beats("").len(), 1, "joining goes by it, it is always answered");
    bench.pass(Duration::from_secs(1));
    bench.settle();
    assert_eq!(bench.beats("/1/").len(), 1);
    assert!(bench.beats("/4/").is_empty());
    bench.unsubscribe("HUGZ/0/");
    bench.subscribe("HUGZ/4/");
    bench.pass_ms(1);
    bench.settle();
    assert_eq!(bench.beats("/4/").len(), 1, "leaving makes room");
}

#[test]
fn a_heartbeat_always_has_a_key_that_may_be_one() {
    let mut bench = Bench::new();
    bench.subscribe(&format!("HUGZ{}", "k".repeat(255)));
    for prefix in ["k".repeat(256), "/a\n".into(), "\0".into(), "\x7f".into()] {
        bench.subscribe(&format!("HUGZ{prefix}"));
    }
    // The network stops at any other key.
    bench.pass(Duration::from_secs(1));
    bench.settle();
    assert_eq!(bench.stats().watches_refused, 4);
    assert!(!bench.beats(&"k".repeat(255)).is_empty());
}

#[test]
fn heartbeats_come_in_the_same_order_in_every_run() {
    let run = || {
        let mut bench = Bench::new();
        for n in 0..200 {
            bench.subscribe(&format!("HUGZ/{}/", n * 7919 % 1000));
        }
        for n in (0..200).step_by(3) {
            bench.unsubscribe(&format!("HUGZ/{}/", n * 7919 % 1000));
        }
        bench.settle();
        bench.net.published
    };
    assert_eq!(run(), run());
}
