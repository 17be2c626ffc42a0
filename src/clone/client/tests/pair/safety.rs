//! What is told of a change: applied, safe, not safe; and what is kept until then.

use super::world::Pair;
use crate::clone::client::Event;
use crate::clone::client::tests::broker::Dialect;
use crate::clone::client::tests::world::{MS, SECOND};
use crate::clone::sequence::Sequence;

#[test]
fn a_change_is_told_safe_once_the_standby_has_it() {
    let mut pair = Pair::synced();
    let uuid = pair.set("/a/1", "new");
    pair.run(3 * MS);
    assert!(matches!(pair.events[..], [Event::Applied { .. }, Event::Updated { .. }]));
    assert_eq!((pair.client.pending(), pair.client.kept()), (0, 1));
    assert!(!pair.client.is_pending(uuid));
    pair.run(10 * MS);
    assert!(matches!(pair.events.last(), Some(Event::Safe { uuid: safe, .. }) if *safe == uuid));
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
    assert_eq!(pair.client.kept(), 0);
    pair.check();
    pair.check_values();
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
