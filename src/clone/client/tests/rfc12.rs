//! With servers that know nothing of the extensions.

use super::broker::{Dialect, message};
use super::world::{MS, SECOND, World};
use crate::clone::Uuid;
use crate::clone::client::{ClientConfig, Collector, Event};
use crate::clone::kvmsg::HUGZ;
use crate::clone::sequence::Sequence;

#[test]
fn joins_and_follows() {
    for dialect in [Dialect::Rfc12, Dialect::Heartbeatless] {
        for subtrees in [&[""][..], &["/a/"], &["/a/", "/b/"], &["zz"]] {
            let mut world = World::synced(dialect, subtrees);
            for key in ["/a/1", "/b/9", "zz"] {
                world.broker.put(key.as_bytes(), b"new");
            }
            world.broker.put(b"/a/2", b"");
            world.run(5 * MS);
            world.assert_equal();
            assert_eq!(world.milestones(), Vec::<String>::new());
            let requests = &world.broker.requests;
            assert!(requests.iter().all(|request| request.len() == 2), "{requests:?}");
            assert_eq!(requests.len(), subtrees.len());
        }
    }
}

#[test]
fn a_heartbeat_is_waited_for_but_not_for_ever() {
    let mut world = World::new(Dialect::Rfc12, &["/a/"]);
    world.start();
    world.run(900 * MS);
    assert_eq!(world.broker.requests.len(), 0);
    world.run(200 * MS);
    assert_eq!(world.broker.requests.len(), 1, "asked when HUGZ came");
    let mut world = World::new(Dialect::Heartbeatless, &["/a/"]);
    world.start();
    world.run(1400 * MS);
    assert_eq!(world.broker.requests.len(), 0);
    world.run(200 * MS);
    assert_eq!(world.broker.requests.len(), 1);
}

#[test]
fn a_lost_tail_shows_to_who_follows_everything() {
    let mut world = World::synced(Dialect::Rfc12, &[""]);
    world.net.lose_updates = 1;
    world.broker.put(b"/a/1", b"lost");
    world.run(1100 * MS);
    assert_eq!(world.milestones(), ["Gap", "Resync Gap", "Synced"]);
    world.assert_equal();
}

#[test]
fn a_loss_shows_to_who_follows_everything_by_the_next_change() {
    for dialect in [Dialect::Rfc12, Dialect::Heartbeatless] {
        let mut world = World::synced(dialect, &[""]);
        world.broker.put(b"/a/0", b"arrives");
        world.run(5 * MS);
        world.net.lose_updates = 1;
        world.broker.put(b"/a/1", b"lost");
        world.broker.put(b"/a/2", b"arrives");
        world.run(1100 * MS);
        assert_eq!(world.milestones(), ["Gap", "Resync Gap", "Synced"], "{dialect:?}");
        world.assert_equal();
    }
}

#[test]
fn a_sequence_that_goes_down_is_a_restarted_server() {
    for subtree in ["", "/a/"] {
        // By the heartbeat, or by the first change.
        for changes in [0, 1] {
            let mut world = World::synced(Dialect::Rfc12, &[subtree]);
            world.restart_broker();
            world.run(10 * MS);
            for _ in 0..changes {
                world.broker.put(b"/a/1", b"new");
            }
            world.run(1200 * MS);
            assert_eq!(world.milestones(), ["Resync SequenceDown", "Synced"]);
            world.assert_equal();
            world.broker.put(b"/a/5", b"follows");
            world.run(5 * MS);
            world.assert_equal();
        }
    }
}

/// The number of its first change is the one that was heard last, of another change.
#[test]
fn a_server_that_begins_again_and_comes_as_far_as_before_is_noticed() {
    for subtree in ["", "/a/"] {
        let mut world = World::new(Dialect::Rfc12, &[subtree]);
        world.start();
        world.run(1200 * MS);
        let uuid = |n| Some(Uuid::from_bytes([n; 16]));
        world.broker.change(b"/a/1", b"of the run before", uuid(1), b"");
        world.run(10 * MS);
        world.restart_broker();
        world.run(10 * MS);
        world.broker.change(b"/a/2", b"under the same number", uuid(2), b"");
        world.run(100 * MS);
        assert_eq!(world.milestones(), ["Synced", "Resync SequenceDown", "Synced"], "{subtree}");
        world.assert_equal();
        world.broker.change(b"/a/3", b"follows", uuid(3), b"");
        world.run(10 * MS);
        world.assert_equal();
    }
}

/// The last heartbeat before said zero, too.
#[test]
fn a_server_that_begins_again_before_it_told_its_number_is_noticed() {
    for subtree in ["", "/a/"] {
        let mut world = World::new(Dialect::Rfc12, &[subtree]);
        world.start();
        world.run(1200 * MS);
        // Twice, since after the first time one knows no more than before.
        for _ in 0..2 {
            world.broker.put(b"/a/1", b"of the run before");
            world.run(10 * MS);
            world.restart_broker();
            world.run(1100 * MS);
            world.assert_equal();
        }
        let again = ["Resync SequenceDown", "Synced"];
        assert_eq!(world.milestones(), [&["Synced"][..], &again, &again].concat(), "{subtree}");
        world.run(3 * SECOND);
        assert_eq!(world.broker.requests.len(), 1, "of this run");
    }
}

/// It may always say zero: that costs a snapshot once, not with each heartbeat.
#[test]
fn a_server_that_never_tells_its_number_is_doubted_once() {
    for subtree in ["", "/a/"] {
        let mut world = World::new(Dialect::Rfc12, &[subtree]);
        world.broker.put(b"/a/0", b"before");
        world.broker.tells_sequence = false;
        world.start();
        world.run(3 * SECOND);
        for n in 0..5 {
            world.broker.put(b"/a/1", &[b'0' + n]);
            world.run(1100 * MS);
            world.assert_equal();
        }
        let milestones = ["Synced", "Resync SequenceDown", "Synced"];
        assert_eq!(world.milestones(), milestones, "{subtree}");
        assert_eq!(world.broker.requests.len(), 2);
    }
}

/// A client that took the snapshot of a server before any of its heartbeats came.
fn synced_without_proof(dialect: Dialect, subtree: &str) -> World {
    let mut world = World::new(dialect, &[subtree]);
    for key in ["/a/1", "/a/2", "/b/1"] {
        world.broker.put(key.as_bytes(), b"old");
    }
    world.has_heartbeats = false;
    world.start();
    world.run(2 * SECOND);
    assert_eq!(world.milestones(), ["Synced"]);
    world.assert_equal();
    world.events.clear();
    world
}

#[test]
fn a_server_that_begins_again_before_its_first_heartbeat_is_noticed() {
    for subtree in ["", "/a/"] {
        for changes in [0, 1] {
            let mut world = synced_without_proof(Dialect::Rfc12, subtree);
            world.restart_broker();
            world.net.lose_updates = changes;
            for _ in 0..changes {
                world.broker.put(b"/a/3", b"new");
            }
            world.has_heartbeats = true;
            world.run(1200 * MS);
            assert_eq!(world.milestones(), ["Resync Reconnected", "Synced"], "{subtree} {changes}");
            world.assert_equal();
        }
    }
}

/// Its first heartbeat says zero, which may be all that it ever says: but the number that
/// was heard before it is given again.
#[test]
fn a_number_of_before_the_first_heartbeat_is_given_again_by_a_server_that_begins_again() {
    for subtree in ["", "/a/"] {
        let mut world = World::new(Dialect::Rfc12, &[subtree]);
        world.has_heartbeats = false;
        world.start();
        world.run(2 * SECOND);
        world.broker.put(b"/a/1", b"of the run before");
        world.run(10 * MS);
        world.assert_equal();
        world.restart_broker();
        world.has_heartbeats = true;
        world.run(1200 * MS);
        world.broker.put(b"/a/2", b"under the same number");
        world.run(10 * MS);
        world.assert_equal();
        assert_eq!(world.milestones(), ["Synced", "Resync Reconnected", "Synced"], "{subtree}");
    }
}

#[test]
fn what_went_by_before_the_first_heartbeat_is_asked_for_once() {
    for (subtree, milestones) in [
        ("", ["Gap", "Resync Gap", "Synced"].as_slice()),
        ("/a/", &["Resync Reconnected", "Synced"]),
    ] {
        let mut world = synced_without_proof(Dialect::Rfc12, subtree);
        world.net.lose_updates = 1;
        world.broker.put(b"/a/1", b"went by");
        world.has_heartbeats = true;
        world.run(5 * SECOND);
        assert_eq!(world.milestones(), milestones);
        assert_eq!(world.broker.requests.len(), 2);
        world.assert_equal();
        // Nothing went by: the heartbeat says so.
        let mut world = synced_without_proof(Dialect::Rfc12, subtree);
        world.has_heartbeats = true;
        world.run(5 * SECOND);
        assert_eq!(world.milestones(), Vec::<String>::new());
        assert_eq!(world.broker.requests.len(), 1);
    }
}

#[test]
fn a_server_without_heartbeats_that_begins_again_is_noticed_by_its_first_change() {
    for subtree in ["", "/a/"] {
        let mut world = synced_without_proof(Dialect::Heartbeatless, subtree);
        world.restart_broker();
        world.run(10 * MS);
        world.broker.put(b"/a/3", b"new");
        world.run(10 * MS);
        assert_eq!(world.milestones(), ["Resync SequenceDown", "Synced"]);
        world.assert_equal();
    }
}

#[test]
fn changes_go_by_pub_or_as_configured() {
    let mut world = World::synced(Dialect::Rfc12, &["/a/"]);
    assert_eq!(world.net.collector, Some(Collector::Sub));
    let inside = world.set("/a/1", "new");
    let outside = world.set("/x/1", "new");
    world.run(SECOND);
    assert_eq!(world.answers(), [(inside, "applied"), (outside, "applied")]);
    let mut config = ClientConfig::follow(["/a/"]);
    config.rfc12_collector = Collector::Pull;
    let mut world = World::with(Dialect::Heartbeatless, config);
    world.start();
    world.run(3 * SECOND);
    assert_eq!(world.net.collector, Some(Collector::Pull));
}

#[test]
fn a_lost_change_is_sent_again_but_not_soon() {
    let mut world = World::synced(Dialect::Rfc12, &["/a/"]);
    world.net.lose_changes = 1;
    let uuid = world.set("/a/1", "new");
    world.run(1900 * MS);
    assert_eq!(world.client.stats().sent, 1);
    world.run(200 * MS);
    assert_eq!(world.answers(), [(uuid, "applied")]);
}

#[test]
fn a_wedged_server_is_asked_for_a_snapshot_which_frees_it() {
    // In the subtree the snapshot is one, outside it is only a vote.
    for (key, milestones) in [("/a/1", &["Resync Wedged", "Synced"][..]), ("/outside", &[])] {
        let mut world = World::synced(Dialect::Rfc12, &["/a/"]);
        world.broker.is_wedged = true;
        let uuid = world.set(key, "new");
        world.run(9 * SECOND);
        assert_eq!(world.answers(), [(uuid, "applied")], "{key}");
        assert_eq!(world.client.stats().votes, 1);
        assert_eq!(world.milestones(), milestones);
        assert!(world.client.is_current());
    }
}

#[test]
fn a_server_without_heartbeats_is_asked_now_and_then() {
    let mut world = World::synced(Dialect::Heartbeatless, &["/a/"]);
    world.net.lose_updates = 1;
    world.broker.put(b"/a/1", b"lost");
    world.run(8 * SECOND);
    world.assert_equal();
    assert_eq!(world.milestones(), Vec::<String>::new(), "routine");
    world.broker.is_mute = true;
    world.run(20 * SECOND);
    assert_eq!(world.milestones(), ["Resync Unanswered", "Lost"]);
    world.broker.is_mute = false;
    world.run(60 * SECOND);
    assert!(world.client.is_current(), "{:?}", world.milestones());
    world.assert_equal();
}

#[test]
fn a_silent_server_is_lost_after_the_configured_time() {
    let mut world = World::synced(Dialect::Rfc12, &["/a/"]);
    world.disconnect();
    world.run(3900 * MS);
    assert_eq!(world.milestones(), Vec::<String>::new());
    world.run(1200 * MS);
    assert_eq!(world.milestones(), ["Lost"]);
    world.broker.put(b"/a/1", b"went by");
    world.reconnect();
    world.run(60 * SECOND);
    assert_eq!(world.milestones(), ["Lost", "Resync Reconnected", "Synced"]);
    world.assert_equal();
}

#[test]
fn a_new_kind_of_broker_in_its_place_is_made_use_of() {
    let mut world = World::synced(Dialect::Rfc12, &["/a/"]);
    world.broker.dialect = Dialect::Extended;
    world.restart_broker();
    world.run(5 * SECOND);
    assert_eq!(world.milestones(), ["Resync NewBroker", "Synced"]);
    assert!(world.client.broker().is_some_and(|broker| broker.extended));
    assert_eq!(world.net.collector, Some(Collector::Pull));
    // And back.
    world.broker.dialect = Dialect::Rfc12;
    world.restart_broker();
    world.run(40 * SECOND);
    assert!(world.client.is_current(), "{:?}", world.milestones());
    assert!(world.client.broker().is_some_and(|broker| !broker.extended));
    world.assert_equal();
}

#[test]
fn odd_frames_of_no_consequence_do_not_cost_the_change() {
    let mut world = World::synced(Dialect::Rfc12, &["/a/"]);
    let sequence = world.broker.sequence.next();
    // A Java server's uuid in text, a C server's line without an equals sign.
    let odd = message(b"/a/1", sequence, None, b"x=y=z\nnonsense\n", b"odd");
    let mut odd: Vec<&[u8]> = odd.iter().map(Vec::as_slice).collect();
    odd[2] = b"01234567-89ab-cdef-0123-456789abcdef";
    world.inject_update(&odd);
    assert_eq!(world.client.get(b"/a/1").map(|entry| entry.value), Some(&b"odd"[..]));
    assert_eq!(world.client.stats().lenient, 1);
    assert_eq!(world.client.stats().malformed, 0);
    // Python's heartbeats have a random uuid.
    let uuid = Uuid::from_bytes([7; 16]);
    let hugz = message(HUGZ, sequence, Some(uuid), b"", b"");
    let hugz: Vec<&[u8]> = hugz.iter().map(Vec::as_slice).collect();
    world.inject_update(&hugz);
    assert_eq!(world.client.stats().malformed, 0);
}

#[test]
fn a_change_that_cannot_be_read_makes_the_map_suspect() {
    let mut config = ClientConfig::follow(["/a/"]);
    config.limits.max_value = 100;
    let mut world = World::with(Dialect::Rfc12, config);
    world.start();
    world.run(2 * SECOND);
    world.broker.put(b"/a/1", &[b'x'; 101]);
    world.run(500 * MS);
    // It is in no snapshot that could be read either: never silently incomplete.
    assert!(!world.client.is_current());
    assert_eq!(world.milestones()[..4], ["Synced", "Gap", "Resync Gap", "LimitReached"]);
    world.broker.put(b"/a/1", b"short");
    world.run(30 * SECOND);
    assert!(world.client.is_current());
    world.assert_equal();
}

#[test]
fn times_to_live_of_snapshots_are_read_by_their_size() {
    let mut world = World::new(Dialect::Rfc12, &["/a/"]);
    world.broker.change(b"/a/relative", b"x", None, b"ttl=30\n");
    world.broker.change(b"/a/python", b"x", None, b"ttl=1795320588.020000\n");
    world.broker.change(b"/a/c", b"x", None, b"ttl=1795320588020\n");
    world.start();
    world.run(1500 * MS);
    let remaining = |key: &[u8]| world.client.get(key).expect("there").remaining(world.now());
    assert!(remaining(b"/a/relative").is_some_and(|left| left > 29 * SECOND));
    assert_eq!(remaining(b"/a/python"), None, "a date, of which nothing can be made");
    assert_eq!(remaining(b"/a/c"), None);
    assert!(world.events.iter().any(|event| matches!(event, Event::Synced { keys: 3, .. })));
    assert!(world.client.sequence() > Sequence::ZERO);
}
