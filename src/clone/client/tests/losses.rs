//! Changes that get lost: noticed, told, and asked for again.

use super::broker::{Dialect, message};
use super::world::{MS, SECOND, World, frames};
use crate::clone::client::Event;

#[test]
fn a_loss_shows_with_the_next_heartbeat() {
    for (subtree, is_tail) in [("/a/", false), ("/a/", true), ("", false), ("", true), ("zz", true)]
    {
        let mut world = World::synced(Dialect::Extended, &[subtree]);
        let key = if subtree == "zz" { "zz1" } else { "/a/1" };
        world.net.lose_updates = 2;
        world.broker.put(key.as_bytes(), b"lost");
        world.broker.put(key.as_bytes(), b"lost, too");
        if !is_tail {
            world.broker.put(key.as_bytes(), b"came");
        }
        world.run(5 * MS);
        // Who follows everything sees the hole in the sequence at once.
        assert_eq!(world.client.stats().gaps, u64::from(subtree.is_empty() && !is_tail));
        world.run(SECOND);
        assert_eq!(world.milestones(), ["Gap", "Resync Gap", "Synced"], "{subtree} {is_tail}");
        let gap = world.events.iter().find(|event| matches!(event, Event::Gap { .. }));
        assert!(matches!(gap, Some(Event::Gap { missed: Some(2), .. })), "{gap:?}");
        assert_eq!(world.client.stats().missed, 2);
        assert_eq!(world.client.stats().deltas, 1);
        world.assert_equal();
    }
}

#[test]
fn losses_before_the_end_of_the_snapshot_do_not_matter() {
    // Only who follows everything can tell; a subtree is asked for once more.
    for (subtree, requests) in [("", 2), ("/a/", 3)] {
        let mut world = World::synced(Dialect::Extended, &[subtree]);
        world.net.request_delay = 1500 * MS;
        world.net.lose_updates = 1;
        world.broker.put(b"/a/1", b"lost");
        world.run(1100 * MS);
        assert_eq!(world.milestones(), ["Gap", "Resync Gap"]);
        // Lost before the broker hears the request, counted while it is under way.
        world.net.lose_updates = 1;
        world.broker.put(b"/a/2", b"lost, too");
        world.run(10 * SECOND);
        assert_eq!(world.milestones(), ["Gap", "Resync Gap", "Synced"]);
        assert_eq!(world.client.stats().requests, requests);
        world.assert_equal();
    }
}

#[test]
fn a_loss_behind_the_end_of_the_snapshot_is_asked_for_again() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_updates = 1;
    world.broker.put(b"/a/1", b"lost");
    world.run_until("the request", |world| world.client.stats().requests == 2);
    world.run(2 * MS);
    // Its answer takes long; what is lost now is not in it.
    world.net.request_delay = 3 * SECOND;
    world.run(2 * MS);
    world.net.lose_updates = 1;
    world.broker.put(b"/a/2", b"lost behind");
    world.net.request_delay = MS;
    world.run(20 * SECOND);
    assert!(world.client.is_current());
    world.assert_equal();
    assert_eq!(world.client.stats().missed, 2);
}

#[test]
fn a_short_break_of_the_connection_is_no_loss_if_nothing_went_by() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.disconnect();
    world.broker.put(b"/a/1", b"went by");
    world.run(20 * MS);
    world.reconnect();
    world.run(3 * SECOND);
    assert_eq!(world.milestones(), ["Gap", "Resync Gap", "Synced"]);
    world.assert_equal();
}

#[test]
fn a_count_that_goes_down_tells_a_loss_of_unknown_size() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.inject_update(&frames(
        b"HUGZ/a/",
        world.broker.sequence,
        b"chp=2\nnode=0000000000000abc\npublished=0\n",
        b"",
    ));
    assert_eq!(world.milestones(), ["Gap", "Resync Gap"]);
    assert!(matches!(world.events[0], Event::Gap { missed: None, .. }), "{:?}", world.events);
}

#[test]
fn a_loss_is_told_once_however_long_it_takes_to_heal() {
    let mut world = World::synced(Dialect::Extended, &[""]);
    world.net.request_delay = 1900 * MS;
    world.net.lose_updates = 2;
    for value in ["lost", "lost, too", "came"] {
        world.broker.put(b"/a/1", value.as_bytes());
    }
    world.run(10 * SECOND);
    assert_eq!(world.milestones(), ["Gap", "Resync Gap", "Synced"]);
    assert_eq!(world.client.stats().missed, 2);
    assert_eq!(world.client.stats().gaps, 1);
}

#[test]
fn a_repeated_change_counts_once() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.broker.put(b"/a/1", b"new");
    world.run(5 * MS);
    let again = message(b"/a/1", world.broker.sequence, None, b"", b"new");
    let again: Vec<&[u8]> = again.iter().map(Vec::as_slice).collect();
    world.inject_update(&again);
    assert_eq!(world.client.stats().repeated, 1);
    world.run(3 * SECOND);
    assert_eq!(world.client.stats().gaps, 0);
}

#[test]
fn who_loses_all_the_time_does_not_ask_all_the_time() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.broker.requests.clear();
    for _ in 0..600 {
        world.net.lose_updates = 1;
        world.broker.put(b"/a/1", b"lost");
        world.run(100 * MS);
    }
    let requests = world.broker.requests.len();
    assert!((4..40).contains(&requests), "{requests} requests in a minute");
    world.net.lose_updates = 0;
    world.run(30 * SECOND);
    assert!(world.client.is_current());
    world.assert_equal();
}
