//! Changes that came while passive: kept, bounded, and applied at a promotion.

use std::time::Duration;

use super::world::{A, B, HEARTBEAT, World};
use crate::clone::kvmsg::Uuid;
use crate::clone::pair::Role;
use crate::message::Message;

#[test]
fn changes_kept_while_passive_are_applied_unless_the_active_had_them() {
    let mut world = World::new();
    world.pass_ms(500);
    // An RFC 12 client sends to both; one copy gets lost, one is newer by now.
    world.set(A, 1, "/seen", "1");
    world.set(B, 1, "/seen", "1");
    world.set(B, 2, "/unseen", "2");
    world.set(B, 3, "/older", "old");
    world.pass_ms(1);
    world.set(A, 4, "/older", "new");
    world.pass_ms(10);
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    let map = world.map(B);
    assert_eq!(map["/unseen"], "2");
    assert_eq!(map["/older"], "new");
    let stats = world.stats(B);
    assert_eq!((stats.ring_kept, stats.ring_applied, stats.ring_known), (3, 1, 2));
    assert_eq!(world.changes(B), 1, "only what is new is published");
}

#[test]
fn a_change_that_is_known_when_it_comes_is_not_kept_for_a_promotion() {
    // By then its uuid is forgotten.
    let mut world = World::with(|config, _| config.recent_count = 2);
    world.pass_ms(500);
    world.set(A, 1, "/a", "1");
    world.pass_ms(10);
    world.set(B, 1, "/a", "1");
    for n in 2..6 {
        world.set(A, n, &format!("/{n}"), "x");
    }
    world.pass_ms(10);
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    assert_eq!(world.roles()[B], Some(Role::Active));
    let stats = world.stats(B);
    assert_eq!((stats.ring_kept, stats.ring_applied, stats.ring_known), (1, 0, 1));
}

#[test]
fn a_change_that_may_have_been_forgotten_when_it_comes_is_not_kept_for_a_promotion() {
    let mut world = World::with(|config, _| config.recent_count = 2);
    world.pass_ms(500);
    let known = world.broker(A).sequence();
    for n in 1..6 {
        world.set(A, n, &format!("/{n}"), "x");
    }
    world.pass_ms(10);
    world.set_with(B, 1, "/1", &format!("retry={known}\n"), "x");
    // What was sent first when more was known is none of those.
    let known = world.broker(A).sequence();
    world.set_with(B, 6, "/6", &format!("retry={known}\n"), "x");
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    let stats = world.stats(B);
    assert_eq!((stats.ring_applied, stats.ring_dropped), (1, 1));
    assert_eq!(world.changes(B), 1);
}

#[test]
fn a_change_that_may_have_been_forgotten_since_it_came_is_not_applied_at_a_promotion() {
    let mut world = World::with(|config, _| config.recent_count = 2);
    world.pass_ms(500);
    for n in 1..6 {
        world.set(A, n, &format!("/{n}"), "x");
    }
    world.start(B);
    world.set(B, 2, "/2", "x");
    world.pass_ms(500);
    world.set(B, 6, "/6", "x");
    for n in 7..9 {
        world.set(A, n, &format!("/{n}"), "x");
    }
    world.pass_ms(10);
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    let stats = world.stats(B);
    assert_eq!((stats.ring_applied, stats.ring_dropped), (1, 1), "the one from before the sync");
    assert_eq!(world.map(B)["/6"], "x", "none that was applied since it came is forgotten");
    assert_eq!(world.changes(B), 1);
}

/// Its client may have sent all of them here, and waits for none.
#[test]
fn of_changes_kept_while_passive_each_of_a_key_is_applied_in_its_order() {
    let mut world = World::with(|config, _| config.recent_count = 2);
    world.pass_ms(500);
    world.set(A, 1, "/k", "0");
    world.pass_ms(10);
    for n in 2..6 {
        world.set(B, n, "/k", &n.to_string());
    }
    world.set(B, 2, "/k", "2");
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    assert_eq!(world.map(B)["/k"], "5");
    let stats = world.stats(B);
    assert_eq!((stats.ring_applied, stats.ring_known), (4, 1), "a copy counts for nothing");
}

#[test]
fn of_changes_kept_while_passive_none_is_applied_behind_a_later_one_of_its_sender() {
    let mut world = World::new();
    world.pass_ms(500);
    for number in [1, 3, 2] {
        let uuid = Uuid::numbered(7, number);
        let frames: [&[u8]; 5] = [b"/k", &[0; 8], uuid.as_bytes(), b"", &[b'0' + number as u8]];
        world.act(B, |broker, now, net| broker.handle_change(now, Message::new(&frames), net));
    }
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    assert_eq!(world.map(B)["/k"], "3");
    let stats = world.stats(B);
    assert_eq!((stats.ring_applied, stats.ring_known), (2, 1));
}

/// That it knows a change by a state which it gives up says nothing: the winner may have refused
/// that one.
#[test]
fn changes_that_come_before_a_state_is_given_up_count_by_the_one_after_it() {
    let mut world = World::new();
    world.pass_ms(500);
    world.cut(true);
    world.pass(HEARTBEAT * 2);
    world.ask(B);
    world.pass_ms(50);
    for (number, key) in [(1, "/a"), (2, "/b")] {
        world.set(A, number, key, "of a");
        world.set(B, number + 2, key, "of b");
    }
    world.cut(false);
    while world.roles()[A] != Some(Role::Passive) {
        world.pass(Duration::from_micros(100));
    }
    assert_eq!(world.map(A)["/a"], "of a");
    world.set(A, 1, "/a", "of a");
    world.set(A, 2, "/b", "of a");
    world.pass_ms(500);
    assert_eq!(world.map(A)["/a"], "of b");
    assert_eq!(world.stats(A).resubmit_conflicts, 2);
    world.set(B, 5, "/b", "newer");
    world.pass_ms(50);
    world.kill(B);
    world.ask(A);
    world.pass_ms(300);
    assert_eq!(world.map(A)["/a"], "of a", "its sender was told nothing and sent it again");
    assert_eq!(world.map(A)["/b"], "newer");
}

/// It came behind them, from a client whose copy for the active was lost.
#[test]
fn what_was_heard_before_a_change_that_is_kept_is_not_newer_for_being_applied_later() {
    let mut world = World::filled(10);
    world.hold_snapshots();
    world.start(B);
    world.pass_ms(500);
    // Streamed behind the snapshot, which is still on its way.
    world.set(A, 100, "/k", "of the active");
    world.pass_ms(1);
    world.set(B, 101, "/k", "behind it");
    world.pass_ms(1);
    assert_eq!(world.stats(B).syncs, 0);
    world.let_snapshots_go();
    world.pass_ms(10);
    assert_eq!(world.stats(B).syncs, 1);
    assert_eq!(world.map(B)["/k"], "of the active");
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    assert_eq!(world.map(B)["/k"], "behind it");
    assert_eq!(world.stats(B).ring_applied, 1);
}

#[test]
fn changes_kept_while_passive_are_bounded_by_count_bytes_and_age() {
    let mut world = World::with(|_, pair| {
        (pair.ring_count, pair.ring_bytes) = (3, 10_000);
    });
    world.pass_ms(500);
    for n in 1..=5 {
        world.set(B, n, &format!("/{n}"), "x");
    }
    assert_eq!(world.stats(B).ring_dropped, 2);
    world.set(B, 6, "/large", &"x".repeat(9_900));
    assert_eq!(world.stats(B).ring_dropped, 5, "it pushes the others out");
    world.pass_ms(10_500);
    assert_eq!(world.stats(B).ring_dropped, 6, "and is too old in the end");
    world.act(B, |broker, now, net| {
        let nameless: [&[u8]; 5] = [b"/k", &[0; 8], b"", b"", b"x"];
        broker.handle_change(now, Message::new(&nameless), net);
    });
    assert_eq!(world.stats(B).ring_dropped, 7, "without a name nothing can be said of it");
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    assert!(world.map(B).is_empty());
}
