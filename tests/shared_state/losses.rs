//! Subscribers held at their high-water mark: what is lost is noticed within
//! a heartbeat, told, and made good.

use pollux::clone::client::{ClientStats, Event, ResyncReason};
use pollux::reactor::Backend;

use crate::world::{Id, Transport, World, broker, client};

/// Few messages fit into the queues on both sides.
fn narrow(transport: Transport, subtree: &str) -> (World, Id) {
    let mut world = World::new(2, Backend::Epoll);
    let here = world.endpoint(transport);
    let mut options = broker();
    options.updates_hwm = 10;
    let there = world.bind(0, &here, options);
    let mut options = client(&[subtree]);
    options.updates_hwm = 10;
    let id = world.join(1, &there, options);
    world.until_current(&[id]);
    (world, id)
}

/// Writes far beyond the high-water mark while the client's loop stands still.
fn overrun(world: &mut World, value: &[u8], writes: usize) {
    world.hold(1, true);
    for n in 0..writes {
        world.broker_set(0, &format!("/a/{:02}", n % 50), value);
        world.broker_set(0, &format!("/b/{:02}", n % 50), value);
        if n % 10 == 0 {
            world.turn();
        }
    }
    world.broker_delete(0, "/a/07");
    world.broker_delete(0, "/b/07");
}

fn gap(event: &Event) -> bool {
    matches!(event, Event::Gap { .. })
}

fn resync(event: &Event) -> bool {
    matches!(event, Event::Resync { reason: ResyncReason::Gap, .. })
}

/// The client goes on, notices, says so, and has everything.
fn heals(world: &mut World, id: Id, subtree: &str) -> ClientStats {
    world.forget(id);
    world.hold(1, false);
    world.until("the gap is noticed", |world| world.has(id, gap) && world.has(id, resync));
    let events = world.events(id);
    let at = |is_it: fn(&Event) -> bool| events.iter().position(is_it);
    assert!(at(gap) < at(resync), "first what, then what follows from it");
    world.until_equal(&[id], 0, subtree);
    let synced = |event: &Event| matches!(event, Event::Synced { .. });
    assert!(world.has(id, synced), "and that it is good again");
    let stats = world.client(id).stats();
    assert!(stats.gaps >= 1);
    stats
}

#[test]
fn whoever_follows_everything_notices_and_heals() {
    let (mut world, id) = narrow(Transport::Inproc, "");
    overrun(&mut world, b"value", 500);
    let stats = heals(&mut world, id, "");
    assert!(stats.deltas >= 1, "by what it has missed only: {stats:?}");
}

#[test]
fn whoever_follows_a_subtree_notices_and_heals() {
    let (mut world, id) = narrow(Transport::Inproc, "/a/");
    overrun(&mut world, b"value", 500);
    let stats = heals(&mut world, id, "/a/");
    assert!(stats.deltas >= 1, "by what it has missed only: {stats:?}");
    assert!(world.client(id).get(b"/a/07").is_none(), "a deletion that was lost is made good");
}

#[test]
fn over_tcp_as_well() {
    for subtree in ["", "/a/"] {
        let (mut world, id) = narrow(Transport::Tcp, subtree);
        // 60 MB: more than the system's own buffers hold.
        overrun(&mut world, &[b'x'; 100_000], 300);
        heals(&mut world, id, subtree);
    }
}

#[test]
fn a_lost_tail_is_noticed_without_another_update() {
    for subtree in ["", "/a/"] {
        let (mut world, id) = narrow(Transport::Inproc, subtree);
        overrun(&mut world, b"value", 100);
        // From here on nothing but heartbeats.
        let applied = world.broker(0).stats().changes_applied;
        heals(&mut world, id, subtree);
        assert_eq!(world.broker(0).stats().changes_applied, applied);
    }
}

#[test]
fn again_and_again() {
    let (mut world, id) = narrow(Transport::Inproc, "/b/");
    for round in 0..10 {
        overrun(&mut world, format!("round {round}").as_bytes(), 100);
        heals(&mut world, id, "/b/");
    }
    assert_eq!(world.client(id).len(), 49);
}

#[test]
fn beyond_the_history_it_takes_a_whole_snapshot() {
    let mut world = World::new(2, Backend::ZmqPoll);
    let here = world.endpoint(Transport::Inproc);
    let mut options = broker();
    options.updates_hwm = 10;
    options.config.store.history = 5;
    let there = world.bind(0, &here, options);
    let mut options = client(&["/a/"]);
    options.updates_hwm = 10;
    let id = world.join(1, &there, options);
    world.until_current(&[id]);
    for n in 0..100 {
        world.broker_set(0, &format!("/a/{n:02}"), b"v");
    }
    world.until_equal(&[id], 0, "/a/");
    world.hold(1, true);
    for n in 0..60 {
        world.broker_set(0, &format!("/a/{n:02}"), b"before its end");
        world.broker_delete(0, &format!("/a/{n:02}"));
    }
    let snapshots = world.client(id).stats().snapshots - world.client(id).stats().deltas;
    heals(&mut world, id, "/a/");
    let stats = world.client(id).stats();
    assert!(stats.snapshots - stats.deltas > snapshots, "a full one: {stats:?}");
    assert_eq!(world.client(id).len(), 40);
}

#[test]
fn one_that_is_held_does_not_hold_others() {
    let mut world = World::new(2, Backend::ZmqPoll);
    let here = world.endpoint(Transport::Tcp);
    // libzmq learns of what was read only after half the mark: 20 at a time need room for
    // a few times as many, besides heartbeats.
    let mut options = broker();
    options.updates_hwm = 200;
    let there = world.bind(0, &here, options);
    let mut options = client(&[""]);
    options.updates_hwm = 10;
    let slow = world.join(1, &there, options);
    let fast = world.join(0, &there, client(&[""]));
    world.until_current(&[slow, fast]);
    world.hold(1, true);
    for n in 0..1000 {
        // 50 MB, at the pace of the one that reads.
        world.broker_set(0, &format!("/{}", n % 50), &[b'x'; 50_000]);
        if n % 20 == 19 {
            let last = world.broker(0).sequence();
            world.until("it keeps up", |world| world.client(fast).sequence() == last);
        }
    }
    assert!(world.is_equal(fast, 0, ""));
    assert_eq!(world.client(fast).stats().gaps, 0);
    heals(&mut world, slow, "");
}
