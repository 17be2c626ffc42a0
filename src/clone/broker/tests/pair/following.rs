//! The standby's copy: snapshots, deltas, gaps, windows of uuids, deadlines.

use std::time::Duration;

use super::world::{A, B, HEARTBEAT, World};
use crate::clone::pair::Role;
use crate::message::Message;

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
            broker.handle_change(now, Message::new(&frames), net);
        });
    }
    world.pass_ms(500);
    assert_eq!(world.map(A), world.map(B));
    assert_eq!(world.stats(B).syncs, 1);
    assert_eq!(world.broker(A).sequence(), world.broker(B).sequence());
}

#[test]
fn a_gap_is_healed_by_a_delta() {
    let mut world = World::filled(10);
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
    let mut world = World::filled(10);
    world.start(B);
    world.pass_ms(500);
    world.lose_changes = 1;
    world.set(A, 100, "/last", "x");
    world.pass(HEARTBEAT + Duration::from_millis(20));
    assert_eq!(world.map(B)["/last"], "x");
}

#[test]
fn uuids_that_a_delta_passed_over_are_known_to_the_standby() {
    let mut world = World::filled(10);
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
    let mut world = World::filled(1);
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
    let mut world = World::filled(1);
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
    let mut world = World::filled(1);
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
