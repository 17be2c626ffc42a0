//! Snapshots under way: slices, changes meanwhile, clients that are slow.

use super::replica::Replica;
use super::*;

/// Feeds what came for `peer` since `seen` into its replica.
fn feed(bench: &Bench, peer: &str, seen: &mut usize, replica: &mut Replica) {
    for reply in &bench.received(peer)[*seen..] {
        replica.snapshot(&reply.five_frames());
        *seen += 1;
    }
}

fn state(bench: &Bench, subtree: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entries = bench.broker.store().iter(subtree.as_bytes());
    entries.map(|entry| (entry.key.to_vec(), entry.value.to_vec())).collect()
}

fn fill(bench: &mut Bench, count: usize) {
    for n in 0..count {
        bench.set(&format!("/{}/{n:05}", ["a", "b"][n % 2]), &format!("value {n}"));
    }
}

#[test]
fn a_slice_is_bounded_and_others_are_served_in_between() {
    let mut bench = Bench::with(|config| config.snapshots.slice_entries = 10);
    fill(&mut bench, 100);
    bench.settle();
    bench.request("one", &[ICANHAZ, b""]);
    bench.request("two", &[ICANHAZ, b""]);
    let mut most = (0, 0);
    while bench.deadline() <= bench.now {
        let before = (bench.received("one").len(), bench.received("two").len());
        bench.broker.handle_timeout(bench.now, &mut bench.net);
        let (one, two) = (bench.received("one").len(), bench.received("two").len());
        most = (most.0.max(one - before.0), most.1.max(two - before.1));
        assert!(one.abs_diff(two) <= 11, "in turns: {one} and {two}");
    }
    assert!(most.0 <= 11 && most.1 <= 11, "{most:?}");
    assert_eq!(bench.snapshot_map("one").len(), 100);
    assert_eq!(bench.snapshot_map("two").len(), 100);
}

#[test]
fn a_slice_is_bounded_in_bytes() {
    let mut bench = Bench::with(|config| config.snapshots.slice_bytes = 10_000);
    for n in 0..40 {
        bench.set(&format!("/{n:02}"), &"x".repeat(4000));
    }
    bench.settle();
    bench.request("peer", &[ICANHAZ, b""]);
    let mut calls = 0;
    while bench.deadline() <= bench.now {
        let before = bench.received("peer").len();
        bench.broker.handle_timeout(bench.now, &mut bench.net);
        assert!(bench.received("peer").len() - before <= 4);
        calls += 1;
    }
    assert!(calls >= 13, "{calls}");
    assert_eq!(bench.snapshot_map("peer").len(), 40);
}

/// Writers change, delete, expire and add keys between all slices; the snapshot
/// and what came behind its sequence make exactly the state.
#[test]
fn a_snapshot_under_fire_is_exact() {
    let all =
        [("/b/", 2, true), ("", 7, false), ("/a/", 3, false), ("", 1, true), ("/b/", 64, true)];
    for &(subtree, slice_entries, delta) in &all[..if cfg!(miri) { 1 } else { all.len() }] {
        let mut bench = Bench::with(|config| config.snapshots.slice_entries = slice_entries);
        fill(&mut bench, 200);
        for n in 0..20 {
            bench.delete(&format!("/a/{:05}", n * 2));
        }
        bench.settle();
        bench.forget();
        let mut base = None;
        let mut request = vec![ICANHAZ, subtree.as_bytes()];
        let since = format!("since={}\n", bench.broker.sequence().get());
        if delta {
            base = Some(state(&bench, subtree));
            request.push(since.as_bytes());
            for n in 0..60 {
                bench.set(&format!("/b/{:05}", n * 2 + 1), "since");
                bench.delete(&format!("/a/{:05}", n * 2 + 40));
            }
            bench.forget();
        }
        bench.request("peer", &request);
        let (mut replica, mut seen, mut random) = (Replica::new(subtree), 0, 12345_u64);
        while !replica.ended() {
            for _ in 0..5 {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let n = (random >> 33) % 260;
                let key = format!("/{}/{n:05}", ["a", "b"][n as usize % 2]);
                match (random >> 50) % 4 {
                    0 => bench.delete(&key),
                    1 => bench.set_with(&key, "ttl=0.003\n", "short-lived"),
                    _ => bench.set(&key, &format!("changed by {random}")),
                }
            }
            bench.now += Duration::from_micros(100);
            bench.broker.handle_timeout(bench.now, &mut bench.net);
            feed(&bench, "peer", &mut seen, &mut replica);
        }
        let mut map = replica.map_with(&bench.net.published);
        if let Some(mut base) = base {
            // A delta is laid over what the client had.
            for wire in bench.received("peer").iter().map(Reply::five_frames) {
                base.remove(&wire.key);
            }
            for wire in bench.updates() {
                base.remove(&wire.key);
            }
            map.extend(base);
        }
        assert_eq!(map, state(&bench, subtree), "{subtree:?} by {slice_entries}, delta {delta}");
    }
}

#[test]
fn the_end_reaches_up_to_the_last_sequence_even_if_that_changed_nothing() {
    let mut bench = Bench::new();
    bench.set("/a", "v");
    bench.delete("/never/was/there");
    bench.request("peer", &[ICANHAZ, b""]);
    bench.settle();
    let (_, end) = bench.snapshot("peer");
    assert_eq!(end.sequence as u64, bench.broker.sequence().get(), "or the next update is a gap");
    bench.forget();
    let since = format!("since={}\n", bench.broker.sequence().get());
    bench.request("peer", &[ICANHAZ, b"", since.as_bytes()]);
    bench.settle();
    let (entries, end) = bench.snapshot("peer");
    assert_eq!(end.property("mode").as_deref(), Some("delta"), "this run gave that sequence");
    assert!(entries.is_empty());
    assert_eq!(end.sequence as u64, bench.broker.sequence().get());
}

#[test]
fn no_sequence_is_behind_a_heartbeat_that_was_sent_before() {
    // A client that holds HUGZ n must not be told "up to n - 1" afterwards.
    let mut bench = Bench::new();
    bench.delete("/never/was/there");
    bench.subscribe("HUGZ");
    bench.settle();
    let beat = bench.beats("")[0].sequence;
    bench.request("peer", &[ICANHAZ, b""]);
    bench.settle();
    assert!(bench.snapshot("peer").1.sequence >= beat);
}

#[test]
fn a_full_queue_stops_only_its_own_snapshot() {
    let mut bench = Bench::with(|config| config.snapshots.slice_entries = 10);
    fill(&mut bench, 100);
    bench.settle();
    bench.net.room.insert(b"slow".to_vec(), 25);
    bench.request("slow", &[ICANHAZ, b""]);
    bench.request("fast", &[ICANHAZ, b""]);
    bench.settle();
    assert_eq!(bench.received("slow").len(), 25);
    assert_eq!(bench.snapshot_map("fast").len(), 100);
    assert!(bench.stats().snapshot_stalls >= 1);
    assert!(bench.deadline() > bench.now, "the loop rests meanwhile");
    // Nothing is lost or doubled where it goes on.
    bench.net.room.insert(b"slow".to_vec(), 3);
    bench.pass_ms(50);
    assert_eq!(bench.received("slow").len(), 28);
    bench.net.room.clear();
    bench.broker.handle_writable();
    bench.settle();
    assert_eq!(bench.snapshot_map("slow").len(), 100);
    assert_eq!(bench.stats().snapshots_done, 2);
}

#[test]
fn the_end_itself_can_find_the_queue_full() {
    let mut bench = Bench::new();
    fill(&mut bench, 10);
    bench.net.room.insert(b"peer".to_vec(), 10);
    bench.request("peer", &[ICANHAZ, b""]);
    bench.pass_ms(10);
    assert_eq!(bench.received("peer").len(), 10);
    bench.set("/a/later", "is published, not in the snapshot");
    bench.net.room.clear();
    bench.pass_ms(10);
    let (entries, end) = bench.snapshot("peer");
    assert_eq!((entries.len(), end.sequence), (10, START.get() as i64 + 10));
}

#[test]
fn a_client_that_takes_nothing_loses_its_snapshot_after_a_while() {
    let mut bench = Bench::with(|config| config.snapshots.stall = Duration::from_secs(5));
    fill(&mut bench, 100);
    bench.net.room.insert(b"dead".to_vec(), 30);
    bench.request("dead", &[ICANHAZ, b""]);
    bench.pass_ms(4900);
    assert_eq!(bench.stats().snapshots_abandoned, 0);
    bench.pass_ms(200);
    assert_eq!(bench.stats().snapshots_abandoned, 1);
    assert_eq!(bench.broker.store().cursors(), 0, "its place in the store is given back");
    assert_eq!(bench.received("dead").len(), 30);
    let refused = bench.net.refused;
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.net.refused, refused, "nothing is tried any more");
    // It comes back to life and asks anew.
    bench.net.room.clear();
    bench.forget();
    bench.request("dead", &[ICANHAZ, b""]);
    bench.settle();
    assert_eq!(bench.snapshot_map("dead").len(), 100);
}

/// Each of its requests would keep a place in the store from the others for as long again.
#[test]
fn a_client_that_takes_nothing_of_a_snapshot_loses_all_that_it_has_asked_for() {
    let mut bench = Bench::with(|config| {
        config.snapshots.stall = Duration::from_secs(5);
        config.store.max_cursors = 1;
    });
    fill(&mut bench, 100);
    bench.net.room.insert(b"dead".to_vec(), 30);
    for subtree in [&b""[..], b"/1", b"/2", b"/3", b"/4"] {
        bench.request("dead", &[ICANHAZ, subtree]);
    }
    bench.pass_ms(10);
    bench.request("here", &[ICANHAZ, b""]);
    bench.pass_ms(5100);
    assert_eq!(bench.snapshot_map("here").len(), 100, "it waits for the first");
    bench.forget();
    bench.request("here", &[ICANHAZ, b""]);
    bench.pass_ms(5100);
    assert_eq!(bench.stats().snapshots_abandoned, 5);
    assert_eq!(bench.snapshot_map("here").len(), 100, "and for one that was asked for meanwhile");
    assert_eq!(bench.broker.store().cursors(), 0);
    let refused = bench.net.refused;
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.net.refused, refused, "nothing is tried any more");
}

/// What was sent of a snapshot that is given up stays in front of the next answer on the same
/// connection: `count=` tells which entries are the new one's.
#[test]
fn behind_a_snapshot_that_was_given_up_the_count_is_that_of_the_next_one() {
    let mut bench = Bench::with(|config| config.snapshots.stall = Duration::from_secs(5));
    fill(&mut bench, 100);
    bench.net.room.insert(b"slow".to_vec(), 30);
    bench.request("slow", &[ICANHAZ, b""]);
    bench.settle();
    bench.request("slow", &[ICANHAZ, b"/nothing/"]);
    bench.pass_ms(5100);
    assert_eq!(bench.stats().snapshots_abandoned, 1);
    let given = bench.received("slow")[0].five_frames().text_key();
    bench.net.room.clear();
    bench.pass_ms(20);
    let received = bench.received("slow");
    assert_eq!(received.len(), 31, "no end of the first");
    let end = received[30].five_frames();
    assert_eq!((&*end.key, end.property("count").as_deref()), (&b"KTHXBAI"[..], Some("0")));
    // What was given then may be gone now.
    bench.delete(&given);
    bench.request("slow", &[ICANHAZ, b""]);
    bench.settle();
    let received: Vec<Wire> = bench.received("slow").iter().map(Reply::five_frames).collect();
    assert_eq!(received.len(), 31 + 100);
    let (end, whole) = received[31..].split_last().expect("an end");
    assert_eq!(end.property("count").as_deref(), Some("99"));
    assert!(whole.iter().all(|entry| entry.text_key() != given));
}

#[test]
fn a_slow_client_that_takes_a_little_keeps_its_snapshot() {
    let mut bench = Bench::with(|config| {
        config.snapshots.stall = Duration::from_secs(1);
        // Entries have 15 bytes and more, one each 0.9 s.
        config.snapshots.min_rate = 16;
    });
    let count = if cfg!(miri) { 5 } else { 50 };
    fill(&mut bench, count);
    bench.request("slow", &[ICANHAZ, b""]);
    for _ in 0..=count {
        bench.net.room.insert(b"slow".to_vec(), 1);
        bench.pass_ms(900);
    }
    assert_eq!(bench.snapshot_map("slow").len(), count);
    assert_eq!(bench.stats().snapshots_abandoned, 0);
}

#[test]
fn a_client_may_stall_for_ever_if_that_is_allowed() {
    let mut bench = Bench::with(|config| {
        config.snapshots.stall = Duration::MAX;
        config.heartbeat = Duration::MAX;
    });
    fill(&mut bench, 5);
    bench.net.room.insert(b"slow".to_vec(), 1);
    bench.request("slow", &[ICANHAZ, b""]);
    bench.pass(Duration::from_secs(600));
    bench.net.room.clear();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.snapshot_map("slow").len(), 5);
}

#[test]
fn a_client_that_takes_ever_so_little_does_not_keep_its_snapshot_for_ever() {
    let mut bench = Bench::with(|config| config.snapshots.min_rate = 1000);
    // Values of 100 bytes: one every 29 s is far below the pace.
    for n in 0..if cfg!(miri) { 120 } else { 1000 } {
        bench.set(&format!("/{n:04}"), &"x".repeat(100));
    }
    bench.settle();
    bench.net.room.insert(b"slow".to_vec(), 100);
    bench.request("slow", &[ICANHAZ, b""]);
    let start = bench.now;
    while bench.stats().snapshots_abandoned == 0 {
        assert!(bench.now.since(start) < Duration::from_secs(60), "it is kept");
        bench.pass(Duration::from_secs(29));
        bench.net.room.insert(b"slow".to_vec(), 1);
    }
    assert!(bench.now.since(start) > Duration::from_secs(40), "30 s, and 10 for 100 entries");
    assert_eq!(bench.broker.store().cursors(), 0, "its place in the store is given back");
    assert_eq!(bench.stats().snapshots_done, 0);
}

#[test]
fn waiting_for_others_is_not_held_against_a_client() {
    let mut bench = Bench::with(|config| {
        config.snapshots.slice_entries = 1;
        config.snapshots.stall = Duration::from_secs(1);
        config.snapshots.min_rate = 1 << 40;
    });
    fill(&mut bench, 50);
    bench.settle();
    for peer in ["one", "two"] {
        bench.request(peer, &[ICANHAZ, b""]);
    }
    // The broker has its hands full: a slice each second.
    while bench.stats().snapshots_done < 2 {
        bench.now += Duration::from_secs(1);
        bench.broker.handle_timeout(bench.now, &mut bench.net);
        assert_eq!(bench.stats().snapshots_abandoned, 0);
    }
}

#[test]
fn a_client_that_leaves_ends_its_snapshot() {
    let mut bench = Bench::with(|config| config.snapshots.slice_entries = 10);
    fill(&mut bench, 100);
    bench.settle();
    bench.request("gone", &[ICANHAZ, b""]);
    bench.request("here", &[ICANHAZ, b""]);
    bench.broker.handle_timeout(bench.now, &mut bench.net);
    bench.net.gone.insert(b"gone".to_vec());
    bench.settle();
    assert_eq!(bench.stats().snapshots_abandoned, 1);
    assert_eq!(bench.broker.store().cursors(), 0);
    assert_eq!(bench.snapshot_map("here").len(), 100);
    assert_eq!(bench.net.refused, 1);
}

#[test]
fn a_client_that_asks_in_a_loop_gets_one_at_a_time() {
    let mut bench = Bench::new();
    fill(&mut bench, 10);
    for _ in 0..10_000 {
        bench.request("loop", &[ICANHAZ, b""]);
    }
    bench.settle();
    assert_eq!(bench.stats().snapshots_requested, 1);
    assert_eq!(bench.stats().snapshots_refused, 9_999);
    assert_eq!(bench.snapshot_map("loop").len(), 10);
    bench.forget();
    bench.request("loop", &[ICANHAZ, b""]);
    bench.settle();
    assert_eq!(bench.snapshot_map("loop").len(), 10, "afterwards it may ask again");
}

#[test]
fn a_client_that_asks_for_everything_there_is_holds_up_nobody() {
    let (count, asks) = if cfg!(miri) { (20, 200) } else { (1000, 10_000) };
    let mut bench = Bench::new();
    fill(&mut bench, count);
    bench.settle();
    // It asks for thousands of subtrees and never reads an answer.
    bench.net.room.insert(b"greedy".to_vec(), 50);
    for n in 0..asks {
        bench.request("greedy", &[ICANHAZ, format!("/a/{n:05}").as_bytes()]);
    }
    bench.request("modest", &[ICANHAZ, b""]);
    bench.settle();
    assert_eq!(bench.snapshot_map("modest").len(), count);
}

#[test]
fn a_crowd_that_never_reads_holds_up_nobody() {
    let mut bench = Bench::with(|config| config.snapshots.active = 8);
    fill(&mut bench, 100);
    bench.settle();
    for n in 0..100 {
        let peer = format!("deaf {n}");
        bench.net.room.insert(peer.clone().into_bytes(), 10);
        bench.request(&peer, &[ICANHAZ, b""]);
    }
    bench.request("modest", &[ICANHAZ, b""]);
    bench.pass_ms(100);
    assert_eq!(bench.snapshot_map("modest").len(), 100);
}

#[test]
fn as_many_snapshots_as_may_be_are_served_and_the_rest_wait() {
    let mut bench = Bench::with(|config| {
        config.snapshots.active = 3;
        config.snapshots.waiting = 5;
        config.snapshots.slice_entries = 10;
    });
    fill(&mut bench, 50);
    bench.settle();
    for n in 0..5 {
        bench.request(&format!("peer {n}"), &[ICANHAZ, b""]);
    }
    bench.broker.handle_timeout(bench.now, &mut bench.net);
    assert_eq!(bench.broker.store().cursors(), 3);
    for n in 5..20 {
        bench.request(&format!("peer {n}"), &[ICANHAZ, b""]);
    }
    assert_eq!(bench.stats().snapshots_requested, 8);
    assert_eq!(bench.stats().snapshots_refused, 12);
    bench.settle();
    for n in 0..8 {
        assert_eq!(bench.snapshot_map(&format!("peer {n}")).len(), 50, "{n}");
    }
    assert!(bench.received("peer 8").is_empty());
    assert_eq!(bench.stats().snapshots_done, 8);
    assert_eq!(bench.broker.store().cursors(), 0);
}

#[test]
fn a_store_with_no_room_for_walks_lets_requests_wait() {
    let mut bench = Bench::with(|config| {
        config.store.max_cursors = 1;
        config.snapshots.slice_entries = 10;
    });
    fill(&mut bench, 30);
    bench.settle();
    for peer in ["one", "two", "three"] {
        bench.request(peer, &[ICANHAZ, b""]);
    }
    bench.settle();
    for peer in ["one", "two", "three"] {
        assert_eq!(bench.snapshot_map(peer).len(), 30);
    }
}

#[test]
fn a_subtree_longer_than_any_key_is_refused() {
    let mut bench = Bench::new();
    bench.request("peer", &[ICANHAZ, &[b'k'; 256]]);
    bench.settle();
    assert_eq!(bench.stats().snapshots_refused, 1);
    assert!(bench.received("peer").is_empty());
}

#[test]
fn a_snapshot_that_lost_a_deletion_has_no_end() {
    let mut bench = Bench::with(|config| {
        config.store.history = 0;
        config.store.max_keys = 100;
        config.store.max_bytes = 1000;
        config.snapshots.slice_entries = 5;
    });
    for n in 0..20 {
        bench.set(&format!("/{n:02}"), "v");
    }
    bench.net.room.insert(b"slow".to_vec(), 10);
    bench.request("slow", &[ICANHAZ, b""]);
    bench.settle();
    // These it was given; that they are gone is pushed out of the store by a
    // value that needs all the room.
    for n in 0..5 {
        bench.delete(&format!("/{n:02}"));
    }
    bench.set("/large", &"x".repeat(934));
    assert_eq!(bench.stats().changes_store_full, 0);
    bench.net.room.clear();
    bench.pass_ms(100);
    let received = bench.received("slow");
    assert!(received.iter().all(|reply| reply.five_frames().key != b"KTHXBAI"), "that would lie");
    assert_eq!(bench.stats().snapshots_abandoned, 1);
    assert_eq!(bench.broker.store().cursors(), 0);
    bench.forget();
    bench.request("slow", &[ICANHAZ, b""]);
    bench.settle();
    assert_eq!(bench.snapshot_map("slow").len(), 16, "asked anew, it gets what there is");
}

#[test]
fn the_end_says_where_the_snapshot_began() {
    let mut bench = Bench::with(|config| config.snapshots.slice_entries = 4);
    for n in 0..10 {
        bench.set(&format!("/{n}"), "before");
    }
    bench.settle();
    bench.net.room.insert(b"peer".to_vec(), 4);
    bench.request("peer", &[ICANHAZ, b""]);
    bench.settle();
    bench.set("/0", "meanwhile");
    bench.net.room.insert(b"peer".to_vec(), 6);
    bench.pass_ms(20);
    // It changes again after the walk has come to its end, before it is told.
    bench.set("/0", "and again");
    bench.net.room.clear();
    bench.pass_ms(20);
    let (entries, end) = bench.snapshot("peer");
    let first = START.get();
    assert_eq!(end.number("from"), Some(first + 10));
    assert_eq!(end.sequence as u64, first + 11);
    let told: Vec<_> = entries.iter().filter(|wire| wire.key == b"/0").map(Wire::text).collect();
    assert_eq!(told, ["before"], "the last change comes as a KVPUB, the one before it nowhere");
    assert_eq!(bench.last_update().text(), "and again");

    bench.forget();
    let since = format!("since={}\n", first + 5);
    bench.request("peer", &[ICANHAZ, b"", since.as_bytes()]);
    bench.settle();
    assert_eq!(bench.snapshot("peer").1.number("from"), Some(first + 5));
}

const PACE: Duration = Duration::from_micros(200);

fn paced(entries: usize) -> Bench {
    let mut bench = Bench::with(|config| {
        config.snapshots.slice_entries = 10;
        config.snapshots.pace = PACE;
    });
    fill(&mut bench, entries);
    bench
}

#[test]
fn slices_make_way_for_changes() {
    let mut bench = paced(200);
    bench.request("peer", &[ICANHAZ, b""]);
    bench.broker.handle_timeout(bench.now, &mut bench.net);
    let mut times = vec![bench.now];
    while times.len() < 10 {
        let before = bench.received("peer").len();
        bench.set("/change", "while the snapshot is under way");
        bench.now = bench.deadline();
        bench.broker.handle_timeout(bench.now, &mut bench.net);
        assert_eq!(bench.received("peer").len() - before, 10);
        times.push(bench.now);
    }
    assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) == PACE), "{times:?}");
}

#[test]
fn a_late_call_makes_up_for_some_slices() {
    let mut bench = paced(1000);
    bench.request("peer", &[ICANHAZ, b""]);
    bench.broker.handle_timeout(bench.now, &mut bench.net);
    bench.now += 100 * PACE;
    bench.set("/change", "others still have to be made way for");
    let before = bench.received("peer").len();
    bench.broker.handle_timeout(bench.now, &mut bench.net);
    assert_eq!(bench.received("peer").len() - before, 80);
    assert_eq!(bench.deadline(), bench.now, "the ninth");
    bench.broker.handle_timeout(bench.now, &mut bench.net);
    assert_eq!(bench.received("peer").len() - before, 90, "the rest is let off");
    assert!(bench.deadline() > bench.now);
}

#[test]
fn without_changes_slices_follow_at_once() {
    let mut bench = paced(1000);
    bench.pass_ms(20);
    bench.request("peer", &[ICANHAZ, b""]);
    bench.settle();
    assert_eq!(bench.snapshot_map("peer").len(), 1000);
}
