//! How a client joins: what it subscribes to, what proves that, when it asks.

use super::broker::Dialect;
use super::world::{MS, SECOND, World};

#[test]
fn joins_and_follows() {
    for subtrees in [&[""][..], &["/a/"], &["/a/", "/b/"], &["zz"]] {
        let mut world = World::new(Dialect::Extended, subtrees);
        world.broker.put(b"/a/1", b"one");
        world.broker.put(b"/b/1", b"two");
        world.start();
        world.run(50 * MS);
        assert!(world.client.is_current(), "{subtrees:?} {:?}", world.client);
        assert_eq!(world.milestones(), vec!["Synced"; subtrees.len()]);
        world.assert_equal();
        for key in ["/a/1", "/a/2", "/b/1", "zz"] {
            world.broker.put(key.as_bytes(), b"three");
        }
        world.broker.put(b"/a/1", b"");
        world.run(5 * MS);
        world.assert_equal();
        world.run(10 * SECOND);
        assert_eq!(world.client.stats().gaps, 0, "{subtrees:?} {:?}", world.events);
        assert!(world.client.stats().verified >= 9, "{:?}", world.client.stats());
        assert_eq!(world.broker.requests.len(), subtrees.len());
        assert_eq!(world.client.stats().unwatched, 0);
    }
}

#[test]
fn leaves_the_plain_heartbeat_to_those_who_need_it() {
    let world = World::synced(Dialect::Extended, &["/a/", "/b/"]);
    let topics: Vec<_> = world.net.topics.iter().map(Vec::as_slice).collect();
    assert_eq!(topics, [&b"/a/"[..], b"/b/", b"HUGZ/a/", b"HUGZ/b/"]);
    let world = World::synced(Dialect::Extended, &[""]);
    let topics: Vec<_> = world.net.topics.iter().map(Vec::as_slice).collect();
    assert_eq!(topics, [&b""[..], b"HUGZ"]);
    // Sorts behind its heartbeat, which therefore proves it only once the connection stands.
    let world = World::synced(Dialect::Extended, &["zz"]);
    let topics: Vec<_> = world.net.topics.iter().map(Vec::as_slice).collect();
    assert_eq!(topics, [&b"HUGZzz"[..], b"zz"]);
}

#[test]
fn in_a_crowd_nobody_is_told_the_heartbeats_of_others() {
    let mut world = World::new(Dialect::Extended, &["/a/", "/b/"]);
    // The broker is slow to accept connections.
    world.net.update_delay = 2 * SECOND;
    world.net.request_delay = SECOND;
    world.start();
    for _ in 0..4000 {
        assert!(!world.net.topics.contains(&b"HUGZ"[..]), "at {:?}", world.now());
        world.run(MS);
    }
    world.run(10 * SECOND);
    assert!(world.client.is_current());
    world.assert_equal();
}

#[test]
fn a_broker_that_says_nothing_of_a_subtree_is_heard_by_the_plain_heartbeat() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    world.broker.max_watches = 0;
    world.start();
    world.run(8 * SECOND);
    assert!(world.client.is_current());
    assert!(world.net.topics.contains(&b"HUGZ"[..]));
    world.assert_equal();
}

#[test]
fn asks_only_when_the_subscription_is_proven() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    world.net.update_delay = 300 * MS;
    world.start();
    // There and back for HUGZ/a/.
    world.run(599 * MS);
    assert_eq!(world.broker.requests.len(), 0);
    world.run(10 * MS);
    assert_eq!(world.broker.requests, [vec![b"ICANHAZ?".to_vec(), b"/a/".to_vec()]]);
}

#[test]
fn a_snapshot_without_proof_is_a_start_and_no_more() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    world.net.lose_heartbeats = u32::MAX;
    world.broker.put(b"/a/1", b"one");
    world.start();
    world.run(4500 * MS);
    // Asked without proof, in the old dialect; readable, but not current.
    assert_eq!(world.broker.requests[0].len(), 2);
    assert_eq!(world.client.get(b"/a/1").map(|entry| entry.value), Some(&b"one"[..]));
    assert!(!world.client.is_current());
    world.broker.put(b"/a/2", b"two");
    world.net.lose_heartbeats = 0;
    world.run(3 * SECOND);
    assert_eq!(world.milestones(), ["Synced"]);
    assert_eq!(world.client.stats().deltas, 1, "the rest came as changes");
    world.assert_equal();
}

#[test]
fn without_updates_no_snapshot_makes_a_client_current() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    world.net.lose_heartbeats = u32::MAX;
    world.net.lose_updates = u32::MAX;
    world.broker.put(b"/a/1", b"one");
    world.start();
    for _ in 0..60 {
        world.run(SECOND);
        assert!(!world.client.is_current());
    }
    assert_eq!(world.client.len(), 1, "readable all the same");
    let requests = world.broker.requests.len();
    assert!((2..10).contains(&requests), "{requests}");
    world.net.lose_heartbeats = 0;
    world.net.lose_updates = 0;
    world.run(3 * SECOND);
    assert!(world.client.is_current());
}

#[test]
fn a_client_may_start_before_its_broker() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    world.net.is_up = false;
    world.start();
    world.run(40 * SECOND);
    assert_eq!(world.milestones(), Vec::<String>::new());
    world.broker.put(b"/a/1", b"one");
    world.reconnect();
    world.run(2 * SECOND);
    assert_eq!(world.milestones(), ["Synced"]);
    world.assert_equal();
}
