//! The active dies: what it alone had goes to the next, and nothing twice.

use std::collections::BTreeSet;

use super::world::Pair;
use crate::clone::client::Event;
use crate::clone::client::tests::world::{MS, SECOND};
use crate::clone::kvmsg::Uuid;
use crate::clone::sequence::Sequence;

#[test]
fn after_the_death_of_the_active_a_change_is_applied_within_three_heartbeats() {
    // Wherever in the interval it dies.
    for phase in (0..20).step_by(if cfg!(miri) { 10 } else { 1 }) {
        let mut pair = Pair::synced();
        pair.run(phase * 50 * MS);
        pair.kill();
        let uuid = pair.set("/a/1", "after");
        let took = pair.run_until("the change is applied", |pair| {
            pair.events.iter().any(
                |event| matches!(event, Event::Applied { uuid: applied, .. } if *applied == uuid),
            )
        });
        assert!(took <= 3 * SECOND, "{took:?} at phase {phase}: {:?}", pair.events);
        pair.run(20 * SECOND);
        pair.check();
        pair.check_values();
        assert_eq!(pair.client.server(), 1);
        assert_eq!(pair.client.stats().deltas, 2, "both subtrees go on where they were");
    }
}

#[test]
fn what_only_the_dead_one_had_is_sent_to_the_next() {
    let mut pair = Pair::synced();
    let lost: Vec<Uuid> =
        (0..5).map(|n| pair.set(&format!("/a/{n}"), &format!("kept {n}"))).collect();
    let twice = pair.set("/a/0", "kept, second");
    // Applied, and the standby has none of it.
    pair.run(3 * MS);
    assert_eq!(pair.count(|event| matches!(event, Event::Applied { .. })), 6);
    assert_eq!(pair.client.kept(), 6);
    pair.kill();
    pair.run(20 * SECOND);
    pair.check();
    pair.check_values();
    let safe: BTreeSet<Uuid> = pair
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Safe { uuid, .. } => Some(*uuid),
            _ => None,
        })
        .collect();
    assert!(safe.is_superset(&lost.into_iter().chain([twice]).collect()), "{:?}", pair.events);
}

#[test]
fn what_the_next_one_has_is_not_sent_again() {
    let mut pair = Pair::synced();
    let uuid = pair.set("/a/1", "new");
    // The standby has it, and could not say so.
    pair.run(5 * MS);
    assert_eq!(pair.client.kept(), 1);
    pair.kill();
    let sent = pair.client.stats().sent;
    pair.run(20 * SECOND);
    assert_eq!(pair.client.stats().sent, sent);
    assert!(
        pair.events
            .iter()
            .any(|event| matches!(event, Event::Safe { uuid: safe, .. } if *safe == uuid))
    );
    pair.check();
    pair.check_values();
}

#[test]
fn what_has_a_number_of_another_history_in_the_same_epoch_is_sent_again() {
    let mut pair = Pair::synced();
    pair.set("/a/1", "new");
    pair.run(3 * MS);
    assert_eq!(pair.client.kept(), 1);
    pair.kill();
    // Both were started anew, unseen, in the same epoch; the other has all numbers by now.
    let standby = &mut pair.servers[1].broker;
    let start = Sequence::new(1, 500);
    (standby.sequence, standby.lineage) = (start, vec![(start, start)]);
    pair.run(20 * SECOND);
    pair.check();
    pair.check_values();
}

#[test]
fn an_own_later_change_is_never_undone_by_an_earlier_one() {
    // The first is lost on the way, the second reaches both; which was applied is not known.
    let mut pair = Pair::synced();
    pair.net.lose_changes = 1;
    pair.set("/a/1", "first");
    pair.set("/a/1", "second");
    pair.run(MS);
    pair.net.updates.clear();
    pair.run(6 * MS);
    pair.kill();
    pair.run(20 * SECOND);
    pair.check();
    pair.check_values();
}
