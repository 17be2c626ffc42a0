//! Snapshots and deltas, and the changes that overtake them.

use super::broker::Dialect;
use super::world::{MS, SECOND, World, frames};
use crate::clone::client::{Event, Why};
use crate::clone::kvmsg::KTHXBAI;
use crate::clone::sequence::Sequence;

#[test]
fn a_delta_tells_deletions_and_why() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_updates = 3;
    world.broker.change(b"/a/1", b"", None, b"why=expired\n");
    world.broker.put(b"/a/2", b"");
    world.broker.put(b"/a/3", b"new");
    world.run(1100 * MS);
    let deleted: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Deleted { key, why } => Some((key.to_vec(), *why)),
            _ => None,
        })
        .collect();
    assert_eq!(deleted, [(b"/a/1".to_vec(), Why::Expired), (b"/a/2".to_vec(), Why::Deleted)]);
    assert_eq!(world.client.stats().deltas, 1);
    world.assert_equal();
}

#[test]
fn what_the_broker_forgot_comes_as_a_full_snapshot() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_updates = 1;
    world.broker.put(b"/a/1", b"");
    world.broker.entries.remove(&b"/a/1"[..]);
    world.broker.floor = world.broker.sequence;
    world.run(1100 * MS);
    let deleted = world.events.iter().find(|event| matches!(event, Event::Deleted { .. }));
    assert!(matches!(deleted, Some(Event::Deleted { why: Why::Absent, .. })), "{deleted:?}");
    assert_eq!(world.broker.requests[1].len(), 3, "changes were asked for");
    assert_eq!(world.client.stats().deltas, 0);
    world.assert_equal();
}

#[test]
fn updates_and_snapshots_may_overtake_each_other() {
    for (updates_ms, requests_ms) in [(1, 200), (200, 1), (50, 60), (60, 50)] {
        for slice in [1, 3, usize::MAX] {
            let mut world = World::new(Dialect::Extended, &["/a/"]);
            for index in 0..20 {
                world.broker.put(format!("/a/{index}").as_bytes(), b"old");
            }
            world.broker.slice = slice;
            world.net.update_delay = updates_ms * MS;
            world.net.request_delay = requests_ms * MS;
            world.start();
            for round in 0..if cfg!(miri) { 30 } else { 600 } {
                let key = format!("/a/{}", round * 7 % 20);
                let value = format!("{round}");
                let value = if round % 3 == 0 { "" } else { &value };
                world.broker.put(key.as_bytes(), value.as_bytes());
                world.run(2 * MS);
            }
            world.run(3 * SECOND);
            assert!(world.client.is_current());
            assert_eq!(world.client.stats().gaps, 0, "{updates_ms} {requests_ms} {slice}");
            world.assert_equal();
        }
    }
}

#[test]
fn a_deletion_lost_during_the_snapshot_leaves_no_zombie() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    world.broker.put(b"/a/1", b"old");
    world.net.request_delay = 100 * MS;
    world.start();
    world.run(10 * MS);
    // The request is on its way: one update is staged, the deletion after it is lost.
    assert_eq!(world.client.stats().requests, 1);
    world.broker.put(b"/a/2", b"short-lived");
    world.run(5 * MS);
    world.net.lose_updates = 1;
    world.broker.put(b"/a/2", b"");
    world.run(200 * MS);
    assert!(world.client.is_current());
    world.assert_equal();
}

#[test]
fn a_late_change_from_before_a_delta_brings_nothing_back() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.update_delay = 2500 * MS;
    world.broker.put(b"/a/9", b"short-lived");
    world.run(MS);
    world.net.lose_updates = 1;
    world.broker.put(b"/a/9", b"");
    let gap = |world: &mut World, properties| {
        world.inject_update(&frames(b"HUGZ/a/", Sequence::ZERO, properties, b""));
        assert!(!world.client.is_current());
    };
    gap(&mut world, b"chp=2\nnode=0000000000000abc\nepoch=1\npublished=0\n");
    world.run(10 * MS);
    assert!(world.client.is_current());
    // The next delta begins behind both changes and takes until the first has come.
    world.net.request_delay = 1300 * MS;
    gap(&mut world, b"chp=2\nnode=0000000000000abc\nepoch=1\npublished=9\n");
    world.run(10 * SECOND);
    world.assert_equal();
    let told = |event: &Event| matches!(event, Event::Updated { key, .. } if **key == *b"/a/9");
    assert!(!world.events.iter().any(told), "{:?}", world.events);
}

#[test]
fn a_truncated_snapshot_is_asked_for_again() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    for index in 0..10 {
        world.broker.put(format!("/a/{index}").as_bytes(), b"value");
    }
    world.broker.truncate = 4;
    world.start();
    world.run(SECOND);
    assert_eq!(world.client.stats().truncated, 1);
    assert_eq!(world.broker.requests.len(), 2);
    assert_eq!(world.milestones(), ["Synced"]);
    world.assert_equal();
}

#[test]
fn a_snapshot_of_another_run_is_not_trusted() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_updates = 1;
    world.broker.put(b"/a/1", b"lost");
    world.run_until("the request", |world| world.client.stats().requests == 2);
    // Only the snapshot port reaches the next process so far.
    world.inject_answer(&frames(
        KTHXBAI,
        Sequence::new(9, 9),
        b"chp=2\nnode=00000000000000ff\ncount=0\nmode=full\n",
        b"/a/",
    ));
    assert!(!world.client.is_current());
    world.run(10 * SECOND);
    assert!(world.client.is_current(), "{:?}", world.events);
    world.assert_equal();
}

#[test]
fn a_snapshot_is_not_stalled_while_its_messages_wait() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_updates = 1;
    world.broker.put(b"/a/1", b"lost");
    world.run_until("the request", |world| world.client.stats().requests == 2);
    world.net.request_delay = 30 * SECOND;
    world.is_behind = true;
    world.run(20 * SECOND);
    assert_eq!((world.client.stats().stalled, world.client.stats().requests), (0, 2));
    world.is_behind = false;
    world.net.request_delay = MS;
    world.run(20 * SECOND);
    assert!(world.client.stats().stalled > 0);
}
