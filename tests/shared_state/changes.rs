//! Changes and their answers: applied, refused, confirmed to whom, seen by whom.

use std::time::Duration;

use pollux::clone::Collector;
use pollux::clone::client::{Event, SetError, Why};
use pollux::reactor::Backend;

use crate::world::{Id, Transport, World, broker, client};

/// A broker over tcp and a client of `/a/`, which is current.
fn pair(options: pollux::node::BrokerOptions) -> (World, String, Id) {
    let mut world = World::new(2, Backend::ZmqPoll);
    let here = world.endpoint(Transport::Tcp);
    let there = world.bind(0, &here, options);
    let id = world.join(1, &there, client(&["/a/"]));
    world.until_current(&[id]);
    (world, there, id)
}

#[test]
fn applied_names_the_change_and_its_sequence() {
    let (mut world, _, id) = pair(broker());
    let uuid = world.set(id, "/a/key", "value");
    world.until_applied(id, uuid);
    let entry = world.broker(0).get(b"/a/key").unwrap();
    assert_eq!(entry.uuid, Some(uuid));
    let sequence = entry.sequence;
    assert!(world.has(id, |event| *event == Event::Applied { uuid, sequence }));
    assert_eq!(world.client(id).get(b"/a/key").unwrap().sequence, sequence);
    assert!(!world.client(id).is_pending(uuid));
    world.until("a heartbeat says it is safe", |world| world.client(id).is_safe(sequence));
}

#[test]
fn a_deletion_is_a_change_like_any_other() {
    let (mut world, _, id) = pair(broker());
    world.set(id, "/a/key", "value");
    let gone = world.delete(id, "/a/key");
    let never = world.delete(id, "/a/never/was");
    world.until_applied(id, never);
    assert!(world.is_applied(id, gone), "in order");
    assert!(world.has(id, |event| matches!(event, Event::Deleted { why: Why::Deleted, .. })));
    assert!(world.is_equal(id, 0, "/a/"));
}

#[test]
fn the_local_view_is_ahead_and_falls_back_to_the_truth() {
    let mut options = broker();
    options.config.store.max_keys = 1;
    let (mut world, _, id) = pair(options);
    let first = world.set(id, "/a/1", "confirmed");
    world.until_applied(id, first);

    let update = world.set(id, "/a/1", "mine");
    let local = |world: &World, key: &[u8]| world.client(id).get_local(key).map(<[u8]>::to_vec);
    assert_eq!(local(&world, b"/a/1").as_deref(), Some(&b"mine"[..]));
    assert_eq!(world.value(id, "/a/1").as_deref(), Some("confirmed"));
    world.until_applied(id, update);
    assert_eq!(world.value(id, "/a/1").as_deref(), Some("mine"));

    // What is refused vanishes from the local view.
    let refused = world.set(id, "/a/2", "no room");
    assert_eq!(local(&world, b"/a/2").as_deref(), Some(&b"no room"[..]));
    world.until("it is refused", |world| {
        world.has(id, |event| {
            matches!(event, Event::Refused { uuid, reason }
            if *uuid == refused && &**reason == "store-full-keys")
        })
    });
    assert_eq!(local(&world, b"/a/2"), None);

    let deletion = world.delete(id, "/a/1");
    assert_eq!(local(&world, b"/a/1"), None);
    assert_eq!(world.value(id, "/a/1").as_deref(), Some("mine"));
    world.until_applied(id, deletion);
    assert_eq!(world.value(id, "/a/1"), None);

    // Room again: the same key is taken now.
    let second = world.set(id, "/a/2", "room");
    world.until_applied(id, second);
    assert_eq!(world.broker(0).stats().changes_store_full, 1);
    assert_eq!(world.client(id).stats().refused, 1);
}

#[test]
fn what_a_broker_announced_is_refused_before_it_is_sent() {
    let mut options = broker();
    options.config.limits.max_value = 1000;
    options.config.limits.max_key = 20;
    let (mut world, _, id) = pair(options);
    let too_large = world.set_for(id, "/a/v", &[b'x'; 1001], None).unwrap_err();
    assert_eq!(too_large, SetError::ValueSize { got: 1001, max: 1000 });
    assert!(too_large.to_string().contains("1000"), "{too_large}");
    let too_long = world.set_for(id, "/a/a key of 21 bytes!", b"x", None).unwrap_err();
    assert!(matches!(too_long, SetError::Key(_)), "{too_long}");
    for key in ["", "HUGZ", "HUGZ/a/", "KTHXBAI", "/a/\n"] {
        let error = world.set_for(id, key, b"x", None).unwrap_err();
        assert!(matches!(error, SetError::Key(_)), "{key}: {error}");
    }
    assert_eq!(world.set_for(id, "/a/e", b"", None).unwrap_err(), SetError::EmptyValue);
    let uuid = world.set_for(id, "/a/v", &[b'x'; 1000], None).unwrap();
    world.until_applied(id, uuid);
    assert_eq!(world.broker(0).get(b"/a/v").map(|entry| entry.value.len()), Some(1000));
    assert_eq!(world.broker(0).stats().changes_malformed, 0);
}

#[test]
fn a_value_that_only_the_broker_can_refuse_is_refused_by_it() {
    let mut options = broker();
    options.config.limits.max_value = 1000;
    let mut world = World::new(2, Backend::ZmqPoll);
    let here = world.endpoint(Transport::Tcp);
    let there = world.bind(0, &here, options);
    // Made before the client has heard of the limit.
    let id = world.join(1, &there, client(&["/a/"]));
    let uuid = world.set_for(id, "/a/v", &[b'x'; 2000], None).unwrap();
    world.until("it is refused", |world| {
        world.has(id, |event| matches!(event, Event::Refused { uuid: own, .. } if *own == uuid))
    });
    assert!(world.broker(0).get(b"/a/v").is_none());
    assert_eq!(world.client(id).pending(), 0);
}

#[test]
fn keys_outside_the_subtrees_have_their_answer_too() {
    let (mut world, there, id) = pair(broker());
    let follower = world.join(1, &there, client(&["/b/"]));
    world.until_current(&[follower]);
    let uuids: Vec<_> = ["/b/1", "/b/deep/er/1", "elsewhere", "/c/1"]
        .iter()
        .map(|key| world.set(id, key, "from outside"))
        .collect();
    let gone = world.delete(id, "/b/1");
    for &uuid in &uuids {
        world.until_applied(id, uuid);
    }
    world.until_applied(id, gone);
    assert_eq!(world.client(id).len(), 0, "they are not in its map");
    assert!(world.client(id).get(b"/b/1").is_none());
    assert!(!world.has(id, |event| matches!(event, Event::Updated { .. })));
    world.until_equal(&[follower], 0, "/b/");
    assert_eq!(world.broker(0).store().len(), 3);

    // Nothing is left that listens for them: what others change there does not
    // come before what comes to it later.
    let mut round = 0;
    world.until("the subscriptions are gone", |world| {
        round += 1;
        let before = world.client(id).stats().strays;
        world.broker_set(0, "/b/deep/er/1", b"by somebody else");
        let mark = round.to_string();
        world.broker_set(0, "/a/mark", mark.as_bytes());
        world.until("the mark", |world| world.value(id, "/a/mark").as_ref() == Some(&mark));
        world.client(id).stats().strays == before
    });
}

#[test]
fn refused_outside_the_subtrees_is_told_as_well() {
    let mut options = broker();
    options.config.store.max_keys = 1;
    let (mut world, _, id) = pair(options);
    let first = world.set(id, "/elsewhere/1", "fits");
    let second = world.set(id, "/elsewhere/2", "does not");
    world.until_applied(id, first);
    world.until("it is refused", |world| {
        world.has(id, |event| matches!(event, Event::Refused { uuid, .. } if *uuid == second))
    });
}

#[test]
fn a_client_that_only_writes() {
    for collector in [Collector::Pull, Collector::Sub] {
        let mut options = broker();
        options.config.collector = collector;
        let mut world = World::new(2, Backend::Epoll);
        let here = world.endpoint(Transport::Tcp);
        let there = world.bind(0, &here, options);
        let id = world.join(1, &there, client(&[]));
        for n in 0..300 {
            world.set(id, &format!("/log/{}/{n}", n % 3), "line");
        }
        world.until("all are applied", |world| world.client(id).pending() == 0);
        assert_eq!(world.client(id).stats().confirmed, 300, "{collector:?}");
        assert_eq!(world.broker(0).store().len(), 300);
        assert_eq!(world.broker(0).stats().changes_applied, 300, "each once");
        assert_eq!(world.client(id).len(), 0);
    }
}

#[test]
fn over_pub_and_sub_as_rfc_12_says() {
    let mut options = broker();
    options.config.collector = Collector::Sub;
    let (mut world, _, id) = pair(options);
    for n in 0..1000 {
        world.set(id, &format!("/a/{}", n % 10), &format!("{n}"));
    }
    world.until("all have their answer", |world| world.client(id).pending() == 0);
    world.until_equal(&[id], 0, "/a/");
    assert_eq!(world.broker(0).stats().changes_applied, 1000);
    assert_eq!(world.client(id).stats().confirmed, 1000);
}

#[test]
fn time_to_live_is_seen_by_everybody() {
    let (mut world, there, id) = pair(broker());
    let uuid = world.set_for(id, "/a/brief", b"x", Some(Duration::from_millis(700))).unwrap();
    let kept = world.set_for(id, "/a/kept", b"x", Some(Duration::from_millis(700))).unwrap();
    world.until_applied(id, uuid);
    world.until_applied(id, kept);
    let permanent = world.set(id, "/a/kept", "for ever");
    world.until_applied(id, permanent);
    let late = world.join(1, &there, client(&["/a/"]));
    world.until_equal(&[late], 0, "/a/");
    world.until("it has expired", |world| {
        [id, late].iter().all(|&id| {
            world.has(id, |event| {
                matches!(event,
            Event::Deleted { key, why: Why::Expired } if **key == *b"/a/brief")
            })
        })
    });
    assert!(world.is_equal(id, 0, "/a/") && world.is_equal(late, 0, "/a/"));
    assert_eq!(world.value(late, "/a/kept").as_deref(), Some("for ever"));
    assert_eq!(world.broker(0).stats().expired, 1);
}

#[test]
fn more_changes_than_fit_anywhere_wait_their_turn() {
    let mut options = broker();
    options.changes_hwm = 5;
    let mut world = World::new(2, Backend::ZmqPoll);
    let here = world.endpoint(Transport::Inproc);
    let there = world.bind(0, &here, options);
    let mut options = client(&["/a/"]);
    options.changes_hwm = 5;
    options.config.max_pending = 2000;
    let id = world.join(1, &there, options);
    world.until_current(&[id]);
    // The broker stands still; the client fills its list.
    world.hold(0, true);
    for n in 0..2000 {
        world.set(id, &format!("/a/{}", n % 100), &format!("{n}"));
    }
    let full = world.set_for(id, "/a/one more", b"x", None).unwrap_err();
    assert!(matches!(full, SetError::TooManyPending { changes: 2000 }), "{full}");
    for _ in 0..10 {
        world.turn();
    }
    assert!(world.client(id).stats().blocked > 0, "the queues are full");
    world.hold(0, false);
    world.until("all have their answer", |world| world.client(id).pending() == 0);
    world.until_equal(&[id], 0, "/a/");
    for n in 1900..2000 {
        assert_eq!(world.value(id, &format!("/a/{}", n % 100)), Some(n.to_string()), "in order");
    }
    assert_eq!(world.client(id).stats().confirmed, 2000);
    assert_eq!(world.broker(0).stats().changes_applied, 2000, "each once");
}
