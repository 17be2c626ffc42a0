//! What is told of a change: applied, safe, not safe; and what is kept until then.

use super::world::Pair;
use crate::clone::client::Event;
use crate::clone::client::tests::broker::{Broker, Dialect, message};
use crate::clone::client::tests::world::{MS, SECOND};
use crate::clone::kvmsg::Uuid;
use crate::clone::sequence::Sequence;

#[test]
fn a_change_is_told_safe_once_the_standby_has_it() {
    let mut pair = Pair::synced();
    let uuid = pair.set("/a/1", "new");
    pair.run(3 * MS);
    assert!(matches!(pair.events[..], [Event::Applied { .. }, Event::Updated { .. }]));
    assert_eq!((pair.client.pending(), pair.client.kept()), (0, 1));
    assert!(!pair.client.is_pending(uuid) && pair.client.is_kept(uuid));
    pair.run(10 * MS);
    assert!(matches!(pair.events.last(), Some(Event::Safe { uuid: safe, .. }) if *safe == uuid));
    assert!(!pair.client.is_kept(uuid));
    pair.check();
}

#[test]
fn what_the_next_one_has_from_before_its_last_takeover_becomes_safe() {
    let mut pair = Pair::synced();
    let uuid = pair.set("/a/1", "new");
    // The standby has it, and could not say so.
    pair.run(5 * MS);
    assert_eq!(pair.client.kept(), 1);
    pair.kill();
    // It was active for a while, unseen, so its last takeover says nothing of the first epoch.
    let standby = &mut pair.servers[1].broker;
    let start = Sequence::new(2, 5);
    standby.lineage.last_mut().expect("a history").1 = standby.sequence;
    standby.lineage.push((start, start));
    standby.sequence = start;
    pair.run(20 * SECOND);
    assert_eq!(pair.servers[1].broker.sequence.epoch(), 3);
    let is_safe = |event: &Event| matches!(event, Event::Safe { uuid: safe, .. } if *safe == uuid);
    assert_eq!(pair.count(is_safe), 1, "{:?}", pair.events);
    // Under the sequence that it has there, not the one that proves it.
    let sequence = pair.client.get(b"/a/1").expect("it is there").sequence;
    assert_eq!(sequence.epoch(), 1);
    assert!(pair.events.contains(&Event::Safe { uuid, sequence }), "{:?}", pair.events);
    assert_eq!(pair.client.kept(), 0);
    pair.check();
    pair.check_values();
}

#[test]
fn what_becomes_safe_with_a_later_change_is_told_under_its_own_sequence() {
    let mut pair = Pair::synced();
    let [first, second] = ["first", "second"].map(|value| pair.set_unsafe("/x/1", value));
    // The answer to the first comes once more.
    let copy = message(b"/x/1", Sequence::ZERO, Some(first.0), b"", b"first");
    pair.servers[0].broker.handle_change(&copy);
    pair.run(10 * MS);
    assert_eq!(pair.client.kept(), 2, "{:?}", pair.events);
    let broker = &mut pair.servers[0].broker;
    broker.pair.as_mut().expect("a pair").stable = second.1;
    broker.heartbeat();
    pair.run(10 * MS);
    for (uuid, sequence) in [first, second] {
        assert!(pair.events.contains(&Event::Safe { uuid, sequence }), "{:?}", pair.events);
    }
}

#[test]
fn what_was_never_safe_is_kept_no_longer_than_told() {
    let mut pair = Pair::new(Dialect::Extended, |config| config.keep_for = 3 * SECOND);
    pair.start();
    pair.run(2 * SECOND);
    pair.replicas.clear();
    pair.set("/a/1", "x");
    pair.run(2 * MS);
    pair.servers[0].broker.unreplicated.clear();
    pair.replicas.clear();
    pair.run(4 * SECOND);
    assert_eq!(pair.count(|event| matches!(event, Event::NotSafe { .. })), 1, "{:?}", pair.events);
    assert_eq!(pair.client.stats().not_safe, 1);
    assert_eq!(pair.client.kept(), 0);
}

#[test]
fn what_is_kept_counts_for_the_limit() {
    let mut pair = Pair::new(Dialect::Extended, |config| config.max_pending = 3);
    pair.start();
    pair.run(2 * SECOND);
    for n in 0..3 {
        pair.set("/a/1", &format!("{n}"));
        pair.run(2 * MS);
    }
    let now = pair.net.now;
    assert!(pair.client.set(now, b"/a/1", b"x", None, &mut pair.net).is_err());
    pair.run(SECOND);
    assert!(pair.client.set(now, b"/a/1", b"x", None, &mut pair.net).is_ok());
}

#[test]
fn what_a_later_change_has_replaced_becomes_safe_with_it_and_is_not_sent_again() {
    // The second time the first one is confirmed once more, which says nothing new.
    for is_confirmed_again in [false, true] {
        let mut pair = Pair::synced();
        let (first, sequence) = pair.set_unsafe("/x/1", "first");
        pair.begin_epoch(sequence);
        let (second, sequence) = pair.set_unsafe("/x/1", "second");
        // This epoch tells of the one before it alone, in which the second was given; no
        // snapshot shows the key.
        pair.begin_epoch(sequence);
        if is_confirmed_again {
            let copy = message(b"/x/1", Sequence::ZERO, Some(first), b"", b"first");
            pair.servers[0].broker.handle_change(&copy);
        }
        // The first waits with the second, for longer than what has no answer does.
        pair.run(20 * SECOND);
        assert_eq!((pair.client.pending(), pair.client.kept()), (0, 2), "{:?}", pair.events);
        let broker = &mut pair.servers[0].broker;
        broker.pair.as_mut().expect("a pair").stable = sequence;
        broker.heartbeat();
        pair.run(10 * MS);
        for change in [first, second] {
            let is_safe =
                |event: &Event| matches!(event, Event::Safe { uuid, .. } if *uuid == change);
            assert_eq!(pair.count(is_safe), 1, "{:?}", pair.events);
        }
        // Whoever is next may not know either.
        pair.begin_epoch(Sequence::new(3, 5));
        assert_eq!((pair.client.kept(), pair.client.stats().sent), (0, 2));
        assert!(pair.client.is_current());
        pair.check_values();
    }
}

#[test]
fn what_was_before_a_change_that_is_given_up_is_not_sent_again() {
    let mut pair = Pair::new(Dialect::Extended, |config| config.give_up_after = 3 * SECOND);
    pair.start();
    pair.run(2 * SECOND);
    let (first, sequence) = pair.set_unsafe("/a/1", "first");
    let (second, _) = pair.set_unsafe("/a/1", "second");
    // The next one has the first. The second is sent to it again and again, in vain.
    pair.net.lose_changes = u32::MAX;
    pair.begin_epoch(sequence);
    pair.run(4 * SECOND);
    let is_not_safe = |change: Uuid| move |event: &Event| matches!(event, Event::NotSafe { uuid } if *uuid == change);
    assert_eq!(pair.count(is_not_safe(second)), 1, "{:?}", pair.events);
    assert_eq!((pair.client.pending(), pair.client.kept()), (0, 1));
    // Nobody knows whether the next but one has either.
    let sent = pair.client.stats().sent;
    pair.begin_epoch(Sequence::new(2, 5));
    assert_eq!(pair.count(is_not_safe(first)), 1, "{:?}", pair.events);
    assert_eq!((pair.client.kept(), pair.client.stats().sent), (0, sent));
}

#[test]
fn at_a_server_of_rfc12_what_a_change_has_replaced_goes_with_it() {
    let mut pair = Pair::new(Dialect::Extended, |config| config.give_up_after = 60 * SECOND);
    pair.start();
    pair.run(2 * SECOND);
    let (first, _) = pair.set_unsafe("/a/1", "first");
    // The next epoch does not have it, nor is it heard of what is sent there.
    pair.net.lose_changes = u32::MAX;
    pair.begin_epoch(Sequence::new(1, 100));
    let second = pair.set("/a/1", "second");
    pair.run(SECOND);
    pair.kill();
    pair.servers[1].broker = Broker::new(Dialect::Rfc12);
    pair.net.lose_changes = 0;
    let is_applied =
        |event: &Event| matches!(event, Event::Applied { uuid, .. } if *uuid == second);
    pair.run_until("the second is applied", |pair| pair.count(is_applied) == 1);
    let is_not_safe = |event: &Event| matches!(event, Event::NotSafe { uuid } if *uuid == first);
    assert_eq!(pair.count(is_not_safe), 1, "{:?}", pair.events);
    assert_eq!((pair.client.pending(), pair.client.kept()), (0, 0));
    assert!(!pair.client.is_kept(second), "nothing says when it is safe");
}
