//! The standby's copy: snapshots, deltas, gaps, windows of uuids, deadlines.

use std::time::Duration;

use super::world::{A, B, HEARTBEAT, World};
use crate::clone::Sequence;
use crate::clone::kvmsg::Uuid;
use crate::clone::pair::Role;
use crate::message::Message;

fn filled(keys: usize) -> World {
    let mut world = World::down(|_, _| {});
    world.start(A);
    world.pass_ms(2500);
    for n in 0..keys {
        world.set(A, (n % 250) as u8 + 1, &format!("/{n}"), "x");
        if n % 250 == 249 {
            world.pass_ms(1);
        }
    }
    world
}

#[test]
fn a_standby_that_comes_late_takes_over_everything_while_changes_go_on() {
    let mut world = World::down(|config, _| config.snapshots.slice_entries = 2);
    world.start(A);
    world.pass_ms(2500);
    for n in 0..200u8 {
        world.set(A, n, &format!("/{n}"), "x");
    }
    world.set(A, 201, "/gone", "x");
    world.set(A, 202, "/gone", "");
    world.start(B);
    for n in 0..200u8 {
        world.pass_ms(1);
        // What was given already, what is still to be given, what is new, what goes.
        let number = n as usize * 7 % 300;
        let frames: [&[u8]; 5] = [
            format!("/{number}").as_bytes(),
            &[0; 8],
            &[n; 16],
            b"",
            if n % 5 == 0 { b"" } else { b"y" },
        ]
        .map(|frame: &[u8]| &*frame.to_vec().leak());
        world.act(A, |broker, now, net| {
            broker.handle_change(now, crate::message::Message::new(&frames), net);
        });
    }
    world.pass_ms(500);
    assert_eq!(world.map(A), world.map(B));
    assert_eq!(world.stats(B).syncs, 1);
    assert_eq!(world.broker(A).sequence(), world.broker(B).sequence());
}

#[test]
fn a_gap_is_healed_by_a_delta() {
    let mut world = filled(10);
    world.start(B);
    world.pass_ms(500);
    world.lose_changes = 3;
    for n in 0..5u8 {
        world.set(A, 100 + n, &format!("/late/{n}"), "x");
    }
    world.pass_ms(50);
    assert_eq!(world.map(A), world.map(B));
    let stats = world.stats(B);
    assert_eq!((stats.syncs, stats.delta_syncs), (1, 1));
    assert!(stats.follow_gaps > 0);
}

#[test]
fn a_lost_tail_is_noticed_by_the_next_heartbeat() {
    let mut world = filled(10);
    world.start(B);
    world.pass_ms(500);
    world.lose_changes = 1;
    world.set(A, 100, "/last", "x");
    world.pass(HEARTBEAT + Duration::from_millis(20));
    assert_eq!(world.map(B)["/last"], "x");
}

#[test]
fn uuids_that_a_delta_passed_over_are_known_to_the_standby() {
    let mut world = filled(10);
    world.start(B);
    world.pass_ms(500);
    world.cut(true);
    world.set(A, 101, "/k", "first");
    world.set(A, 102, "/k", "second");
    world.cut(false);
    world.pass_ms(300);
    assert_eq!(world.map(B)["/k"], "second");
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    assert_eq!(world.roles()[B], Some(Role::Active));
    // Its client was not told, and sends it again.
    world.set(B, 101, "/k", "first");
    assert_eq!(world.map(B)["/k"], "second");
    assert_eq!(world.broker(B).stats().changes_repeated, 1);
}

#[test]
fn a_standby_that_remembers_next_to_nothing_knows_that_it_does_not() {
    let mut world = World::down(|_, _| {});
    world.start(A);
    world.pass_ms(5000);
    let known = world.broker(A).sequence();
    for n in 1..=5 {
        world.set(A, n, "/key", &n.to_string());
    }
    world.reconfigure(|config, _| config.recent_count = 0);
    world.start(B);
    world.pass_ms(500);
    assert_eq!(world.stats(B).syncs, 1);
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    // The last one it remembers; whether it has had the one before it does not.
    for n in [5, 4, 1] {
        world.set_with(B, n, "/key", &format!("retry={known}\n"), &n.to_string());
    }
    assert_eq!(world.map(B)["/key"], "5");
    let stats = world.broker(B).stats();
    assert_eq!((stats.changes_repeated, stats.changes_forgotten), (1, 2));
}

#[test]
fn an_active_that_dies_during_the_sync_does_not_hold_the_standby_up() {
    let mut world = World::down(|config, _| config.snapshots.slice_entries = 1);
    world.start(A);
    world.pass_ms(2500);
    for n in 0..200u8 {
        world.set(A, n, &format!("/{n}"), "x");
    }
    world.start(B);
    world.pass_ms(1);
    while world.roles()[B] != Some(Role::Passive) {
        world.pass_ms(1);
    }
    world.kill(A);
    assert!(world.map(B).is_empty(), "half a state is none");
    world.ask(B);
    world.pass_ms(1000);
    assert_eq!(world.roles()[B], Some(Role::Passive), "an empty one is in no hurry");
    world.pass_ms(3500);
    assert_eq!(world.roles()[B], Some(Role::Active));
    assert!(world.map(B).is_empty());
}

#[test]
fn too_much_for_the_backlog_is_asked_for_afterwards() {
    let mut world = World::down(|config, pair| {
        config.snapshots.slice_entries = 1;
        (pair.backlog_count, pair.backlog_bytes) = (10, 1 << 20);
    });
    world.start(A);
    world.pass_ms(2500);
    for n in 0..100u8 {
        world.set(A, n, &format!("/{n}"), "x");
    }
    world.start(B);
    for n in 0..100u8 {
        world.pass(Duration::from_micros(100));
        world.set(A, 100 + n, &format!("/late/{n}"), "x");
    }
    world.pass_ms(1000);
    assert_eq!(world.map(A), world.map(B));
    assert!(world.stats(B).backlogs_cut > 0);
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

/// Sends change `number` of a client that numbers them.
fn set_numbered(world: &mut World, at: usize, number: u64, key: &str) {
    let (uuid, value) = (Uuid::numbered(7, number), number.to_string());
    let frames: [&[u8]; 5] = [key.as_bytes(), &[0; 8], uuid.as_bytes(), b"", value.as_bytes()];
    world.act(at, |broker, now, net| broker.handle_change(now, Message::new(&frames), net));
}

/// What the active would have refused as overtaken the standby refuses after a takeover.
fn take_over_and_send_what_is_late(world: &mut World) {
    // One is kept there while it is passive.
    set_numbered(world, B, 1, "/a");
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    assert_eq!(world.roles()[B], Some(Role::Active));
    set_numbered(world, B, 2, "/a");
    set_numbered(world, B, 3, "/b");
    assert_eq!(world.map(B)["/a"], "other");
    assert_eq!(world.map(B)["/b"], "3", "another key");
    assert_eq!(world.broker(B).stats().changes_overtaken, 1);
}

#[test]
fn what_has_overtaken_others_is_known_after_a_takeover() {
    let mut world = World::new();
    world.pass_ms(500);
    set_numbered(&mut world, A, 9, "/a");
    world.set(A, 1, "/a", "other");
    world.pass_ms(50);
    take_over_and_send_what_is_late(&mut world);
}

#[test]
fn what_has_overtaken_others_crosses_with_the_state() {
    let mut world = World::down(|_, _| {});
    world.start(A);
    world.pass_ms(5000);
    set_numbered(&mut world, A, 9, "/a");
    world.set(A, 1, "/a", "other");
    world.start(B);
    world.pass_ms(500);
    assert_eq!(world.stats(B).syncs, 1);
    take_over_and_send_what_is_late(&mut world);
}

#[test]
fn what_has_overtaken_others_and_is_forgotten_is_told_by_the_key_after_a_takeover() {
    let mut world = World::down(|config, _| config.recent_count = 2);
    world.start(A);
    world.pass_ms(5000);
    set_numbered(&mut world, A, 9, "/a");
    for uuid in 1..=3 {
        world.set(A, uuid, "/x", "x");
    }
    world.start(B);
    world.pass_ms(500);
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    // The first it hears of that client; it is in its order, as far as can be seen.
    set_numbered(&mut world, B, 3, "/b");
    set_numbered(&mut world, B, 4, "/a");
    assert_eq!((&world.map(B)["/a"][..], &world.map(B)["/b"][..]), ("9", "3"));
    assert_eq!(world.broker(B).stats().changes_overtaken, 1);
}

#[test]
fn a_delta_that_is_too_large_becomes_a_snapshot() {
    let mut world = World::with(|_, pair| pair.backlog_count = 10);
    world.pass_ms(500);
    world.cut(true);
    for n in 0..100u8 {
        world.set(A, n, &format!("/{n}"), "x");
    }
    world.pass_ms(1);
    world.cut(false);
    world.pass_ms(5000);
    assert_eq!(world.map(A), world.map(B));
    assert!(world.stats(B).syncs_failed > 0);
    assert_eq!(world.stats(B).syncs, 2);
}

#[test]
fn a_key_expires_after_a_failover_never_early_and_late_by_an_interval() {
    let mut world = filled(1);
    world.start(B);
    world.pass_ms(500);
    world.set_with(A, 201, "/long", "ttl=2\n", "x");
    world.set_with(A, 202, "/short", "ttl=0.2\n", "x");
    let set = world.now;
    world.pass_ms(10);
    world.kill(A);
    world.pass_ms(220);
    world.ask(B);
    world.pass_ms(5);
    assert_eq!(world.roles()[B], Some(Role::Active));
    let promoted = world.now;
    assert!(world.map(B).contains_key("/short"), "its owner could not refresh it");
    world.pass(HEARTBEAT + Duration::from_millis(5));
    assert!(!world.map(B).contains_key("/short"));
    assert!(world.now.since(promoted) < HEARTBEAT * 2);
    while world.map(B).contains_key("/long") {
        world.pass_ms(1);
    }
    let lasted = world.now.since(set);
    assert!(lasted >= Duration::from_secs(2) && lasted < Duration::from_millis(2050), "{lasted:?}");
}

#[test]
fn a_deadline_crosses_in_a_snapshot_too() {
    let mut world = filled(1);
    world.set_with(A, 201, "/k", "ttl=3\n", "x");
    let set = world.now;
    world.pass_ms(500);
    world.start(B);
    world.pass_ms(500);
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    while world.map(B).contains_key("/k") {
        world.pass_ms(1);
    }
    let lasted = world.now.since(set);
    assert!(lasted >= Duration::from_secs(3) && lasted < Duration::from_millis(3050), "{lasted:?}");
}

#[test]
fn a_passive_broker_expires_nothing_by_itself() {
    let mut world = filled(1);
    world.start(B);
    world.pass_ms(500);
    world.set_with(A, 201, "/k", "ttl=0.1\n", "x");
    world.pass_ms(10);
    world.cut(true);
    world.pass_ms(1000);
    assert!(world.map(B).contains_key("/k"));
    assert!(!world.map(A).contains_key("/k"));
    world.cut(false);
    world.pass_ms(500);
    assert!(!world.map(B).contains_key("/k"));
}

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
    let mut world = filled(10);
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
        broker.handle_change(now, crate::message::Message::new(&nameless), net);
    });
    assert_eq!(world.stats(B).ring_dropped, 7, "without a name nothing can be said of it");
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    assert!(world.map(B).is_empty());
}

#[test]
fn clients_catch_up_by_a_delta_from_whichever_broker_has_the_history() {
    let mut world = World::new();
    world.pass_ms(500);
    for n in 0..20u8 {
        world.set(A, n, &format!("/{n}"), "x");
    }
    let shared = world.broker(A).sequence();
    world.pass_ms(10);
    world.cut(true);
    world.set(A, 50, "/tail", "x");
    let tail = world.broker(A).sequence();
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    world.set(B, 60, "/new", "x");
    for (client, since, mode) in [("shared", shared, "delta"), ("tail", tail, "full")] {
        let line = format!("since={since}\n");
        world.request(B, client, &[b"ICANHAZ?", b"", line.as_bytes()]);
        world.pass_ms(20);
        let answer = &world.sides[B].net.replies[client.as_bytes()];
        let end = String::from_utf8(answer.last().unwrap()[3].clone()).unwrap();
        assert!(end.contains(&format!("mode={mode}\n")), "{client}: {end}");
    }
}

/// One key is all that fits; then three changes are refused.
fn full_active() -> World {
    let mut world = World::with(|config, _| config.store.max_keys = 1);
    world.pass_ms(500);
    world.set(A, 1, "/there", "x");
    world.pass_ms(10);
    for n in 2..=4 {
        world.set(A, n, &format!("/new/{n}"), "x");
    }
    assert_eq!(world.broker(A).stats().changes_store_full, 3);
    world
}

/// The active dies, there is room, and copies of what it refused come to the other.
fn send_copies_to_the_standby(world: &mut World) {
    // One came before the takeover, as those of RFC 12 clients do.
    world.set(B, 2, "/new/2", "x");
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    world.act(B, |broker, now, net| assert!(broker.delete(now, b"/there", net)));
    world.act(B, |broker, now, _| {
        broker.handle_subscription(now, crate::message::Message::new(&[b"\x01HUGZ"]));
    });
    for n in 2..=4 {
        world.set(B, n, &format!("/new/{n}"), "x");
        assert_eq!(world.told(B, "refused").as_deref(), Some("store-full-keys"), "{n}");
    }
    assert!(world.map(B).is_empty(), "{:?}", world.map(B));
    world.set(B, 5, "/new/5", "x");
    assert_eq!(world.map(B).len(), 1, "there is room for others");
}

#[test]
fn what_the_active_refused_has_no_effect_after_a_takeover_either() {
    let mut world = full_active();
    world.pass_ms(10);
    assert_eq!(world.stats(B).follow_gaps, 0);
    send_copies_to_the_standby(&mut world);
}

#[test]
fn refusals_that_were_not_heard_are_noticed_by_the_next_heartbeat() {
    let mut world = full_active();
    // Three in one message.
    world.lose_changes = 1;
    world.pass_ms(10);
    assert_eq!(world.lose_changes, 0);
    world.pass(HEARTBEAT);
    assert_eq!((world.stats(B).follow_gaps, world.stats(B).delta_syncs), (1, 1));
    world.pass(HEARTBEAT * 5);
    assert_eq!(world.stats(B).follow_gaps, 1, "once is enough");
    send_copies_to_the_standby(&mut world);
}

#[test]
fn refusals_from_before_it_came_cross_to_the_standby_with_the_state() {
    let mut world = World::down(|config, _| config.store.max_keys = 1);
    world.start(A);
    world.pass_ms(5000);
    world.set(A, 1, "/there", "x");
    for n in 2..=4 {
        world.set(A, n, &format!("/new/{n}"), "x");
    }
    world.start(B);
    world.pass_ms(500);
    assert_eq!((world.stats(B).syncs, world.stats(B).follow_gaps), (1, 0));
    send_copies_to_the_standby(&mut world);
}

#[test]
fn many_changes_go_in_few_messages() {
    let mut world = filled(10);
    world.start(B);
    world.pass_ms(500);
    let before = world.streamed;
    for n in 0..100u8 {
        world.set(A, 100 + n, &format!("/late/{n}"), "x");
    }
    world.pass_ms(5);
    assert_eq!(world.map(A), world.map(B));
    assert_eq!(world.stats(B).followed, 100);
    assert_eq!(world.streamed - before, 1, "all were at hand at once");
    // A full message does not wait for more.
    let large = "x".repeat(20_000);
    for n in 0..3u8 {
        world.set(A, 200 + n, &format!("/large/{n}"), &large);
    }
    world.pass_ms(5);
    assert_eq!(world.map(A), world.map(B));
    assert_eq!(world.streamed - before, 4);
}

#[test]
fn a_standby_that_does_not_read_misses_changes_and_asks_for_them() {
    let mut world = filled(10);
    world.start(B);
    world.pass_ms(500);
    world.sides[A].net.is_full = true;
    world.set(A, 100, "/missed", "x");
    world.pass_ms(10);
    assert_eq!(world.stats(A).stream_dropped, 1);
    assert!(!world.map(B).contains_key("/missed"));
    world.sides[A].net.is_full = false;
    world.pass(HEARTBEAT + Duration::from_millis(20));
    assert_eq!(world.map(A), world.map(B));
    assert_eq!((world.stats(B).follow_gaps, world.stats(B).delta_syncs), (1, 1));
}

#[test]
fn an_active_that_has_lost_its_standby_is_asked_anew() {
    let mut world = filled(10);
    world.start(B);
    world.pass_ms(500);
    // Unreachable for one message: the active forgets whom it streamed to.
    world.sides[A].net.is_cut = true;
    world.set(A, 100, "/missed", "x");
    world.act(A, |broker, now, net| broker.handle_timeout(now, net));
    world.sides[A].net.is_cut = false;
    world.pass(HEARTBEAT * 3);
    assert_eq!(world.map(A), world.map(B));
    world.set(A, 101, "/next", "x");
    world.pass_ms(20);
    assert_eq!(world.map(A), world.map(B));
    assert_eq!(world.stats(B).syncs, 1);
}

#[test]
fn what_a_standby_lacks_that_has_lost_its_connection_is_not_called_safe() {
    let mut world = filled(10);
    world.start(B);
    world.pass_ms(1000);
    assert_eq!(world.told(A, "standby").as_deref(), Some("live"));
    world.sides[A].net.is_cut = true;
    world.set(A, 100, "/missed", "x");
    world.act(A, |broker, now, net| broker.handle_timeout(now, net));
    world.sides[A].net.is_cut = false;
    for n in 0..200u8 {
        world.set(A, n, &format!("/next/{}", n % 5), "x");
        world.pass_ms(2);
        let stable: Sequence = world.told(A, "stable").expect("it tells").parse().unwrap();
        assert!(stable <= world.broker(B).sequence(), "{stable:?}, change {n}");
        assert_eq!(world.told(A, "standby").as_deref(), Some("live"));
    }
    world.pass_ms(20);
    assert_eq!(world.map(A), world.map(B));
}
