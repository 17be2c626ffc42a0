//! Another broker, another run, another history: what is given up does not stay.

use super::broker::{Dialect, Paired};
use super::world::{MS, SECOND, World};
use crate::clone::client::{Event, Why};
use crate::clone::sequence::Sequence;

/// A client of a relay that may lack something behind 1:101, with a change on top of that.
fn with_more_than_is_proven() -> World {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    let (fork, stable) = (Sequence::ZERO, Sequence::new(1, 100));
    world.broker.pair = Some(Paired { is_active: true, peer: "live", fork, stable });
    world.broker.put(b"/a/1", b"kept");
    world.broker.proven = Some(Sequence::new(1, 101));
    world.broker.put(b"/a/2", b"given up");
    world.start();
    world.run(50 * MS);
    assert!(world.client.is_current());
    assert_eq!(world.map().len(), 2);
    world
}

#[test]
fn what_is_given_up_does_not_hide_below_the_first_change_of_another_epoch() {
    let mut world = with_more_than_is_proven();
    world.broker.turn_to_another_history(Sequence::new(1, 101));
    world.broker.put(b"/a/3", b"new");
    world.run(10 * SECOND);
    assert!(world.client.is_current());
    world.assert_equal();
    assert!(world.milestones().contains(&"Resync NewBroker".to_owned()));
}

#[test]
fn what_is_given_up_does_not_hide_below_a_delta_that_ends_in_another_epoch() {
    let mut world = with_more_than_is_proven();
    world.net.lose_updates = 1;
    world.broker.put(b"/a/3", b"given up, too");
    world.net.request_delay = 100 * MS;
    world.run_until("a delta is asked for", |world| world.client.stats().requests == 2);
    world.broker.turn_to_another_history(Sequence::new(1, 101));
    world.run(10 * SECOND);
    assert!(world.broker.requests[1].len() == 3, "{:?}", world.broker.requests);
    assert!(world.client.is_current());
    world.assert_equal();
}

#[test]
fn a_restarted_broker_is_noticed_and_what_it_lacks_is_told() {
    for subtrees in [&[""][..], &["/a/"], &["/a/", "/b/"]] {
        let mut world = World::synced(Dialect::Extended, subtrees);
        world.restart_broker();
        world.broker.put(b"/a/9", b"new");
        world.run(10 * SECOND);
        let mut expected = vec!["Resync NewBroker"; subtrees.len()];
        expected.extend(vec!["Synced"; subtrees.len()]);
        assert_eq!(world.milestones(), expected);
        assert!(world.events.iter().any(|event| {
            matches!(event, Event::Deleted { key, why: Why::Absent } if **key == *b"/a/1")
        }));
        world.assert_equal();
    }
}

#[test]
fn the_first_change_of_a_new_epoch_tells_of_the_restart() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.broker.put(b"/a/1", b"before");
    world.run(5 * MS);
    world.restart_broker();
    world.net.lose_heartbeats = 1;
    world.run(5 * MS);
    world.broker.put(b"/a/9", b"new");
    world.run(5 * MS);
    assert_eq!(world.milestones(), ["Resync NewBroker"]);
    assert_eq!(world.client.get(b"/a/9"), None, "not on top of another history");
    world.run(3 * SECOND);
    world.assert_equal();
}

#[test]
fn numbers_between_two_epochs_are_no_losses() {
    let mut world = World::synced(Dialect::Extended, &[""]);
    world.broker.put(b"/a/1", b"before");
    world.run(5 * MS);
    world.restart_broker();
    world.net.lose_heartbeats = 1;
    world.run(5 * MS);
    world.broker.put(b"/a/9", b"new");
    world.run(3 * SECOND);
    assert_eq!(world.milestones(), ["Resync NewBroker", "Synced"]);
    let stats = world.client.stats();
    assert_eq!((stats.gaps, stats.missed), (0, 0));
    world.assert_equal();
}
