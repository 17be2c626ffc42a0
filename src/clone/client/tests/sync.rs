//! Joining, following, noticing losses, joining again.

use std::time::Duration;

use super::broker::{Dialect, Paired, message};
use super::world::{MS, SECOND, World};
use crate::clone::client::{ClientConfig, Event, SubtreeState, Why};
use crate::clone::kvmsg::{HUGZ, KTHXBAI};
use crate::clone::sequence::Sequence;
use crate::time::Time;

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
fn entries_over_the_limit_of_a_new_run_are_taken() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    let frames = frames(
        HUGZ,
        world.broker.sequence,
        b"chp=2\nnode=0000000000000abc\nmaxval=3\nmaxkey=4\n",
        b"",
    );
    world.inject_update(&frames);
    let now = world.now();
    assert!(world.client.set(now, b"/a/1", b"long", None, &mut world.net).is_err());
    world.broker.put(b"/a/long", b"and longer");
    world.run(5 * MS);
    world.assert_equal();
}

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
            for round in 0..600 {
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
fn that_a_relay_has_lost_its_upstream_is_told_once_and_that_it_is_back() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    for (upstream, told) in [
        (Some("live"), None),
        (Some("lost"), Some(Event::UpstreamLost)),
        (Some("live"), Some(Event::UpstreamBack)),
        (Some("lost"), Some(Event::UpstreamLost)),
        // Another broker, which is no relay.
        (None, Some(Event::UpstreamBack)),
    ] {
        world.broker.upstream = upstream;
        if upstream.is_none() {
            world.restart_broker();
        }
        world.run(5 * SECOND);
        let news = |event: &Event| matches!(event, Event::UpstreamLost | Event::UpstreamBack);
        let news: Vec<_> = std::mem::take(&mut world.events).into_iter().filter(news).collect();
        assert_eq!(news, Vec::from_iter(told), "{upstream:?}");
        let is_lost = world.client.broker().is_some_and(|broker| broker.upstream_lost);
        assert_eq!(is_lost, upstream == Some("lost"));
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
fn silence_is_told_once_and_healed_by_changes_only() {
    let mut world = World::synced(Dialect::Extended, &["/a/", "/b/"]);
    world.disconnect();
    world.broker.put(b"/a/2", b"");
    world.broker.put(b"/b/2", b"new");
    world.run(12 * SECOND);
    assert_eq!(world.milestones(), ["Lost"]);
    assert!(!world.client.is_current());
    assert_eq!(world.client.broker(), None);
    world.reconnect();
    world.run(3 * SECOND);
    let resynced = ["Lost", "Resync Reconnected", "Resync Reconnected", "Synced", "Synced"];
    assert_eq!(world.milestones(), resynced);
    assert_eq!(world.client.stats().deltas, 2);
    world.assert_equal();
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

#[test]
fn a_map_over_its_limit_is_never_called_current() {
    for limit in ["keys", "bytes"] {
        let mut config = ClientConfig::follow(["/a/"]);
        match limit {
            "keys" => config.max_keys = 10,
            _ => config.max_bytes = 10 * "/a/10value".len(),
        }
        let mut world = World::with(Dialect::Extended, config);
        for index in 10..20 {
            world.broker.put(format!("/a/{index}").as_bytes(), b"value");
        }
        world.start();
        world.run(SECOND);
        assert_eq!(world.milestones(), ["Synced"]);
        // A live update too many.
        world.broker.put(b"/a/20", b"value");
        world.run(SECOND);
        let milestones = world.milestones();
        assert_eq!(milestones[..3], ["Synced", "LimitReached", "Resync Limit"], "{limit}");
        assert!(!world.client.is_current());
        assert_eq!(world.client.len(), 10);
        world.run(60 * SECOND);
        assert!(!world.client.is_current());
        let requests = world.broker.requests.len();
        assert!((4..12).contains(&requests), "{requests} requests for a map that does not fit");
        world.broker.put(b"/a/10", b"");
        world.run(20 * SECOND);
        assert!(world.client.is_current());
        world.assert_equal();
    }
}

#[test]
fn a_smaller_value_fits_at_the_limit() {
    let mut config = ClientConfig::follow(["/a/"]);
    config.max_keys = 1;
    let mut world = World::with(Dialect::Extended, config);
    world.broker.put(b"/a/1", b"value");
    world.start();
    world.run(SECOND);
    world.broker.put(b"/a/1", b"less");
    world.run(SECOND);
    assert_eq!(world.client.stats().limits, 0);
    world.broker.put(b"/a/1", b"longer");
    world.run(SECOND);
    assert_eq!(world.client.stats().limits, 0, "keys are at their limit, bytes are not");
    world.assert_equal();
}

#[test]
fn without_heartbeats_of_its_own_a_subtree_is_asked_for_changes() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    world.broker.max_watches = 0;
    world.broker.put(b"/a/1", b"one");
    world.start();
    world.run(6 * SECOND);
    assert_eq!(world.milestones(), ["Synced"]);
    assert_eq!(world.client.stats().unwatched, 1);
    world.net.lose_updates = 1;
    world.broker.put(b"/a/1", b"lost");
    world.broker.put(b"/a/2", b"came");
    world.run(5 * MS);
    assert_eq!(world.client.get(b"/a/2").map(|entry| entry.value), Some(&b"came"[..]));
    world.run(4 * SECOND);
    world.assert_equal();
    assert_eq!(world.milestones(), ["Synced"], "as a matter of routine, without a word");
    assert!(world.client.stats().deltas >= 1);
    // When there is room it is watched again.
    world.broker.max_watches = 10;
    world.run(10 * SECOND);
    assert_eq!(world.client.stats().unwatched, 0);
    assert!(world.client.is_current());
    assert_eq!(world.milestones(), ["Synced"]);
}

#[test]
fn a_routine_question_without_an_answer_is_told() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    world.broker.max_watches = 0;
    world.start();
    world.run(6 * SECOND);
    world.broker.is_mute = true;
    world.run(10 * SECOND);
    assert_eq!(world.milestones(), ["Synced", "Resync Unanswered"]);
    assert!(!world.client.is_current());
}

#[test]
fn an_answer_asked_for_before_the_heartbeats_stopped_proves_nothing() {
    let mut config = ClientConfig::follow(["/a/", "/b/"]);
    config.request_timeout = 30 * SECOND;
    let mut world = World::with(Dialect::Extended, config);
    world.start();
    world.run(2 * SECOND);
    world.net.lose_updates = 1;
    world.broker.put(b"/a/1", b"lost");
    world.net.request_delay = 4 * SECOND;
    world.run_until("the gap", |world| world.client.stats().gaps == 1);
    world.broker.max_watches = 0;
    world.broker.unsubscribe(b"HUGZ/a/");
    world.run(9 * SECOND);
    assert!(world.net.dealer >= 3, "the answer is there, to a request that counts no more");
    assert!(!world.client.is_current());
    world.net.request_delay = MS;
    world.run(20 * SECOND);
    assert!(world.client.is_current());
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
fn a_subtree_whose_heartbeats_stop_is_not_current() {
    let mut world = World::synced(Dialect::Extended, &["/a/", "/b/"]);
    world.broker.max_watches = 0;
    world.broker.unsubscribe(b"HUGZ/a/");
    world.run(20 * SECOND);
    assert_eq!(world.milestones(), ["Resync Unwatched", "Synced"]);
    assert_eq!(world.client.stats().unwatched, 1);
    // With one subtree only nothing is heard at all.
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.broker.max_watches = 0;
    world.broker.unsubscribe(b"HUGZ/a/");
    world.run(20 * SECOND);
    assert_eq!(world.milestones(), ["Lost", "Resync Reconnected", "Synced"]);
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

fn frames<'a>(
    key: &'a [u8],
    sequence: Sequence,
    properties: &'a [u8],
    body: &'a [u8],
) -> [&'a [u8]; 5] {
    let sequence: &'static [u8; 8] = Box::leak(Box::new(sequence.to_wire()));
    [key, sequence, b"", properties, body]
}

#[test]
fn answers_that_make_no_sense_are_counted_and_asked_for_again() {
    let ends: [(&[u8], &[u8]); 4] = [
        (b"chp=2\nnode=0000000000000abc\nmode=delta\ncount=0\n", b"/a/"),
        (b"chp=2\nnode=0000000000000abc\ncount=0\n", b"/b/"),
        (b"chp=2\nnode=0000000000000abc\ncount=7\n", b"/a/"),
        (b"chp=2\nnode=0000000000000abc\ncount=0\nrole=passive\n", b"/a/"),
    ];
    for (properties, body) in ends {
        let mut world = World::new(Dialect::Extended, &["/a/"]);
        world.broker.put(b"/a/1", b"one");
        world.net.request_delay = 50 * MS;
        world.start();
        world.run_until("the request", |world| world.client.stats().requests == 1);
        world.inject_answer(&frames(KTHXBAI, Sequence::new(1, 101), properties, body));
        let stats = world.client.stats();
        assert_eq!(stats.malformed + stats.truncated, 1, "{properties:?}");
        assert!(!world.client.is_current());
        world.run(2 * SECOND);
        assert_eq!(world.milestones(), ["Synced"]);
        world.assert_equal();
    }
}

#[test]
fn what_nobody_asked_for_is_counted() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.inject_answer(&frames(b"/a/1", Sequence::new(1, 500), b"", b"evil"));
    world.inject_answer(&frames(KTHXBAI, Sequence::new(1, 500), b"", b"/a/"));
    assert_eq!(world.client.stats().unasked, 2);
    world.inject_update(&frames(KTHXBAI, Sequence::new(1, 500), b"", b"/a/"));
    world.inject_update(&frames(b"/a/1", Sequence::ZERO, b"", b"evil"));
    world.inject_update(&[b"/a/1", b"short"]);
    assert_eq!(world.client.stats().malformed, 3);
    world.inject_update(&frames(b"/elsewhere", world.broker.sequence.next(), b"", b"x"));
    assert_eq!(world.client.stats().strays, 1);
    world.assert_equal();
    assert_eq!(world.milestones(), Vec::<String>::new());
}

#[test]
fn a_standby_is_no_sign_of_life() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_heartbeats = u32::MAX;
    for _ in 0..6 {
        world.run(SECOND);
        world.inject_update(&frames(
            HUGZ,
            Sequence::new(1, 104),
            b"chp=2\nnode=0000000000000abc\nrole=passive\n",
            b"",
        ));
    }
    assert_eq!(world.milestones(), ["Lost"]);
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

#[test]
fn an_idle_client_has_a_deadline_and_nothing_to_do_before() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.run_until("a heartbeat", |world| world.client.stats().verified > 3);
    let deadline = world.client.next_deadline().expect("silence must be noticed");
    assert!(deadline > world.now());
    let before = world.client.stats();
    world.client.handle_timeout(Time::ZERO, &mut world.net);
    assert_eq!(world.client.stats(), before);
}

#[test]
fn nothing_is_judged_by_its_absence_while_messages_wait() {
    for dialect in [Dialect::Extended, Dialect::Rfc12] {
        let mut world = World::synced(dialect, &["/a/"]);
        world.has_heartbeats = false;
        world.is_behind = true;
        world.net.lose_changes = 1;
        let uuid = world.set("/a/1", "lost");
        world.run(9 * SECOND);
        assert_eq!(world.milestones(), [] as [&str; 0]);
        assert_eq!((world.client.stats().resent, world.client.stats().votes), (0, 0));
        // But not for ever.
        world.run(10 * SECOND);
        assert_eq!(world.answers(), []);
        world.run(2 * SECOND);
        assert_eq!(world.answers(), [(uuid, "timed out")]);
        world.is_behind = false;
        world.run(SECOND);
        assert_eq!(world.milestones()[0], "Lost");
    }
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
