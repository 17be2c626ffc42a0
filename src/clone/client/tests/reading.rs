//! The map as it is read.

use std::time::Duration;

use super::broker::Dialect;
use super::world::{MS, SECOND, World};
use crate::clone::client::{Event, SubtreeState, Why};

#[test]
fn the_map_stays_readable_while_it_is_not_current() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.broker.is_mute = true;
    world.net.lose_updates = 1;
    world.broker.put(b"/a/1", b"");
    world.broker.put(b"/a/3", b"new");
    world.run(5 * SECOND);
    assert!(!world.client.is_current());
    assert_eq!(world.client.get(b"/a/1").map(|entry| entry.value), Some(&b"old"[..]));
    let status = world.client.status().next().expect("one subtree");
    assert!(!status.is_current);
    assert!(matches!(status.state, SubtreeState::Syncing | SubtreeState::Queued));
    world.broker.is_mute = false;
    world.run(30 * SECOND);
    assert!(world.client.is_current());
    world.assert_equal();
    // Each attempt had a DEALER of its own, and they grew rare.
    let requests = world.broker.requests.len();
    assert!((3..10).contains(&requests), "{requests}");
    assert_eq!(world.net.dealer, requests as u64);
}

#[test]
fn times_to_live_count_down_and_only_the_broker_deletes() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    world.broker.change(b"/a/1", b"one", None, b"ttl=30\nttlms=29500\n");
    world.start();
    world.run(100 * MS);
    world.broker.change(b"/a/2", b"two", None, b"ttl=2.5\n");
    world.broker.change(b"/a/3", b"three", None, b"ttl=0\n");
    world.run(5 * MS);
    let remaining =
        |world: &World, key: &[u8]| world.client.get(key).expect("there").remaining(world.now());
    let first = remaining(&world, b"/a/1").expect("it expires");
    assert!(first < 29_500 * MS && first > 29_300 * MS, "{first:?}");
    let second = remaining(&world, b"/a/2").expect("it expires");
    assert!(second <= 2500 * MS && second > 2400 * MS, "{second:?}");
    assert_eq!(remaining(&world, b"/a/3"), None);
    world.run(5 * SECOND);
    assert_eq!(remaining(&world, b"/a/2"), Some(Duration::ZERO), "due, the broker has not said so");
    world.broker.change(b"/a/2", b"", None, b"why=expired\n");
    world.run(5 * MS);
    assert_eq!(world.client.get(b"/a/2"), None);
    assert!(matches!(world.events.last(), Some(Event::Deleted { why: Why::Expired, .. })));
}

#[test]
fn subtrees_are_read_in_order_across_their_borders() {
    let mut world = World::new(Dialect::Extended, &["/b/", "/a/"]);
    for key in ["/b/2", "/a/2", "/a/10", "/b/1", "/c/1"] {
        world.broker.put(key.as_bytes(), key.as_bytes());
    }
    world.start();
    world.run(SECOND);
    let keys = |prefix: &'static [u8]| -> Vec<String> {
        let entries = world.client.iter(prefix);
        entries.map(|entry| String::from_utf8_lossy(entry.key).into_owned()).collect()
    };
    assert_eq!(keys(b""), ["/a/10", "/a/2", "/b/1", "/b/2"]);
    assert_eq!(keys(b"/a/1"), ["/a/10"]);
    assert_eq!(keys(b"/c"), Vec::<String>::new());
    assert_eq!(world.client.len(), 4);
    assert_eq!(world.client.bytes(), 2 * "/a/2/a/10/b/1/b/2".len());
}
