//! Which of the two is active: starts, restarts, deaths, partitions, orders.

use std::time::Duration;

use super::world::{A, B, HEARTBEAT, World};
use crate::clone::Sequence;
use crate::clone::broker::tests::pair::world::{Frames, Net};
use crate::clone::pair::{PairConfig, Role, RoleRefusal, SafePolicy, Seat, pair_id};
use crate::message::Message;

const ACTIVE: Option<Role> = Some(Role::Active);
const PASSIVE: Option<Role> = Some(Role::Passive);
const STARTING: Option<Role> = Some(Role::Starting);

fn ready() -> World {
    let mut world = World::new();
    world.pass_ms(500);
    assert_eq!(world.roles(), [ACTIVE, PASSIVE]);
    world
}

/// Cut off from one another, with clients at both.
fn split(world: &mut World) {
    world.cut(true);
    world.pass(HEARTBEAT * 2);
    world.ask(B);
    world.pass_ms(50);
    assert_eq!(world.roles(), [ACTIVE, ACTIVE]);
}

fn heal(world: &mut World) {
    world.cut(false);
    world.pass_ms(1000);
}

#[test]
fn of_two_that_start_the_primary_is_active_whoever_is_first() {
    for first in [A, B] {
        let mut world = World::down(|_, _| {});
        world.start(first);
        world.pass_ms(700);
        assert_eq!(world.roles()[first], STARTING);
        world.start(1 - first);
        world.pass_ms(500);
        assert_eq!(world.roles(), [ACTIVE, PASSIVE], "{first} first");
    }
}

#[test]
fn a_broker_that_is_alone_does_not_wait_for_ever() {
    for (at, grace) in [(A, 2000), (B, 4000)] {
        let mut world = World::down(|_, _| {});
        world.start(at);
        world.pass_ms(grace - 10);
        assert_eq!(world.roles()[at], STARTING);
        world.pass_ms(20);
        assert_eq!(world.roles()[at], ACTIVE);
        assert_eq!(world.broker(at).sequence().epoch() % 2, at as u32);
        world.set(at, 1, "/a", "1");
        assert_eq!(world.map(at)["/a"], "1");
    }
}

#[test]
fn an_active_that_restarts_empty_does_not_wipe_the_standby() {
    for at in [A, B] {
        let mut world = ready();
        if at == B {
            world.act(A, |broker, now, net| broker.demote(now, net)).unwrap();
            world.pass_ms(500);
            assert_eq!(world.roles(), [PASSIVE, ACTIVE]);
        }
        world.set(at, 1, "/a", "1");
        world.pass_ms(50);
        world.kill(at);
        // Faster than anybody notices, and without a vote.
        world.start(at);
        world.pass_ms(1000);
        assert_eq!(world.roles()[1 - at], ACTIVE, "{at} restarted");
        assert_eq!(world.roles()[at], PASSIVE);
        assert_eq!(world.map(at)["/a"], "1");
    }
}

#[test]
fn a_standby_that_restarts_follows_again() {
    let mut world = ready();
    world.set(A, 1, "/a", "1");
    world.kill(B);
    world.set(A, 2, "/b", "2");
    world.pass_ms(1000);
    world.start(B);
    world.pass_ms(500);
    assert_eq!(world.roles(), [ACTIVE, PASSIVE]);
    assert_eq!(world.map(B), world.map(A));
}

#[test]
fn both_dead_come_back_in_any_order_empty_and_above_what_they_were() {
    for first in [A, B] {
        let mut world = ready();
        world.set(A, 1, "/a", "1");
        let before = world.broker(A).sequence();
        world.kill(A);
        world.kill(B);
        world.pass_ms(50);
        world.start(first);
        world.pass_ms(5000);
        assert_eq!(world.roles()[first], ACTIVE);
        assert!(world.broker(first).sequence() > before, "{first}");
        world.start(1 - first);
        world.pass_ms(500);
        assert_eq!(world.roles()[1 - first], PASSIVE);
    }
}

#[test]
fn a_standby_without_a_vote_stays_passive_and_one_with_a_live_active_too() {
    let mut world = ready();
    world.ask(B);
    world.pass_ms(1000);
    assert_eq!(world.roles(), [ACTIVE, PASSIVE]);
    // An old request is no vote.
    world.kill(A);
    world.pass_ms(10_000);
    assert_eq!(world.roles()[B], PASSIVE);
    world.ask(B);
    world.pass_ms(1);
    assert_eq!(world.roles()[B], ACTIVE);
}

#[test]
fn requests_are_held_and_answered_at_the_promotion() {
    let mut world = ready();
    world.set(A, 1, "/a", "1");
    world.pass_ms(10);
    world.ask(B);
    world.pass_ms(100);
    assert!(world.sides[B].net.replies.is_empty());
    world.kill(A);
    world.pass_ms(150);
    world.request(B, "other", &[b"ICANHAZ?", b""]);
    world.pass_ms(200);
    for client in ["client", "other"] {
        let answer = &world.sides[B].net.replies[client.as_bytes()];
        assert_eq!(answer.len(), 2, "{client}");
        assert_eq!(answer[1][0], b"KTHXBAI");
    }
}

#[test]
fn too_many_held_requests_push_the_oldest_out() {
    let mut world = World::with(|_, pair| pair.held_requests = 2);
    world.pass_ms(500);
    for client in ["1", "2", "3"] {
        world.request(B, client, &[b"ICANHAZ?", b""]);
    }
    assert_eq!(world.stats(B).held_dropped, 1);
    world.kill(A);
    world.pass_ms(500);
    let clients: Vec<_> = world.sides[B].net.replies.keys().cloned().collect();
    assert_eq!(clients, [b"2".to_vec(), b"3".to_vec()]);
}

#[test]
fn a_passive_broker_is_silent_but_for_who_asks_what_it_is() {
    let mut world = ready();
    world.sides[B].net.published.clear();
    let subscribe = |world: &mut World, topic: &[u8]| {
        let frame = [b"\x01", topic].concat();
        world.act(B, |broker, now, _| {
            broker.handle_subscription(now, Message::new(&[&frame]));
        });
    };
    subscribe(&mut world, b"HUGZ");
    subscribe(&mut world, b"HUGZ/a/");
    subscribe(&mut world, b"");
    world.pass_ms(1000);
    assert!(world.sides[B].net.published.is_empty());
    subscribe(&mut world, b"STATUS?");
    world.pass_ms(10);
    let text = |frames: &Frames| String::from_utf8(frames[3].clone()).unwrap();
    let published = &world.sides[B].net.published;
    assert_eq!(published.len(), 1);
    assert_eq!(published[0][0], b"STATUS?");
    assert!(text(&published[0]).contains("role=passive\n"), "{}", text(&published[0]));
    assert!(text(&published[0]).contains("peer=live\n"));
}

#[test]
fn two_actives_of_one_history_the_higher_epoch_wins_and_what_only_the_other_had_is_kept() {
    let mut world = ready();
    world.set(A, 1, "/both", "1");
    world.pass_ms(20);
    split(&mut world);
    world.set(A, 2, "/only-a", "2");
    world.set(A, 3, "/key", "of a");
    world.set(A, 4, "/twice", "first");
    world.set(A, 5, "/twice", "second");
    world.set(B, 6, "/only-b", "6");
    world.set(B, 7, "/key", "of b");
    heal(&mut world);
    assert_eq!(world.roles(), [PASSIVE, ACTIVE]);
    let map = world.map(B);
    assert_eq!(map, world.map(A));
    for (key, value) in
        [("/both", "1"), ("/only-a", "2"), ("/only-b", "6"), ("/key", "of b"), ("/twice", "second")]
    {
        assert_eq!(map.get(key).map(String::as_str), Some(value), "{key}");
    }
    // What lost is told, and nothing else.
    assert_eq!(world.stats(A).resubmit_conflicts, 1);
    assert_eq!(world.stats(B).take_over_conflicts, 1);
    assert_eq!(world.stats(B).taken_over, 2);
    // A client that sends the same again has no second effect, at either.
    world.set(B, 2, "/only-a", "again");
    assert_eq!(world.map(B)["/only-a"], "2");
    // Nor has the one that was replaced before the end of the partition.
    world.set(B, 4, "/twice", "first");
    assert_eq!(world.map(B)["/twice"], "second");
}

/// Each answer says that the line has room again: nobody waits for the time after which
/// what has no answer is sent anew.
#[test]
fn what_only_the_loser_had_goes_over_as_fast_as_the_line_takes_it() {
    let mut world = ready();
    split(&mut world);
    for number in 0..250 {
        world.set(A, number + 1, &format!("/only-a/{number}"), "value");
    }
    world.sides[A].net.line_room = Some(4);
    world.cut(false);
    world.pass_ms(500);
    assert_eq!(world.roles(), [PASSIVE, ACTIVE]);
    assert_eq!(world.stats(B).taken_over, 250);
    assert_eq!(world.stats(A).resubmitted, 250);
    assert_eq!(world.map(B).len(), 250);
    assert_eq!(world.map(A), world.map(B));
}

/// The winner has said that it has the tail, but the loser has not followed it there yet.
#[test]
fn what_only_the_loser_had_survives_a_winner_that_dies_with_it() {
    let mut world = ready();
    split(&mut world);
    world.set(A, 1, "/twice", "first");
    world.set(A, 2, "/twice", "second");
    world.set(A, 3, "/once", "only");
    heal_without_changes(&mut world);
    world.pass_ms(1);
    assert_eq!(world.map(A).len(), 0, "it has the winner's state without what it has handed over");
    world.kill(B);
    world.pass(HEARTBEAT * 2);
    world.ask(A);
    world.pass_ms(50);
    assert_eq!(world.roles()[A], ACTIVE);
    let map = world.map(A);
    assert_eq!(map.get("/twice").map(String::as_str), Some("second"));
    assert_eq!(map.get("/once").map(String::as_str), Some("only"));
    world.set(A, 1, "/twice", "first");
    assert_eq!(world.map(A)["/twice"], "second");
}

/// The two hear of one another, and what the loser had is taken; but no changes come back.
fn heal_without_changes(world: &mut World) {
    world.cut(false);
    world.lose_changes = usize::MAX;
    while world.stats(B).taken_over < 2 {
        world.pass(Duration::from_micros(100));
    }
}

#[test]
fn a_deletion_that_only_the_loser_had_is_kept_and_an_expiry_is_not() {
    let mut world = ready();
    world.set(A, 1, "/a", "1");
    world.set(A, 2, "/b", "1");
    world.set_with(A, 3, "/c", "ttl=0.3\n", "1");
    world.pass_ms(20);
    split(&mut world);
    world.set(A, 4, "/a", "");
    world.set(B, 5, "/c", "kept alive");
    world.pass_ms(500);
    assert_eq!(world.map(A).get("/c"), None, "it has expired there");
    heal(&mut world);
    let map = world.map(B);
    assert_eq!(map, world.map(A));
    assert_eq!(map.get("/a"), None);
    assert_eq!(map.get("/b").map(String::as_str), Some("1"));
    assert_eq!(map.get("/c").map(String::as_str), Some("kept alive"));
    assert_eq!(world.stats(A).resubmit_conflicts, 0);
}

#[test]
fn of_different_roots_the_older_wins_though_its_epoch_is_lower() {
    let mut world = ready();
    world.set(A, 1, "/old", "1");
    world.pass_ms(20);
    // The standby comes back empty where it does not see the active.
    world.cut(true);
    world.kill(B);
    world.pass(Duration::from_secs(300));
    world.start(B);
    world.pass_ms(5000);
    assert_eq!(world.roles(), [ACTIVE, ACTIVE]);
    assert!(world.broker(B).sequence() > world.broker(A).sequence());
    world.set(B, 2, "/new", "2");
    world.set(B, 3, "/old", "of b");
    let highest = world.broker(B).sequence();
    heal(&mut world);
    assert_eq!(world.roles(), [ACTIVE, PASSIVE]);
    assert_eq!(world.map(A), world.map(B));
    assert_eq!(world.map(A)["/old"], "1");
    assert_eq!(world.map(A)["/new"], "2");
    assert!(world.broker(A).sequence() > highest, "everybody's numbers rise");
    assert_eq!(world.stats(A).epochs_lifted, 1);
    assert_eq!(world.stats(B).resubmit_conflicts, 1);
}

#[test]
fn epochs_of_the_two_never_meet() {
    let mut world = ready();
    for _ in 0..5 {
        split(&mut world);
        let epochs = [A, B].map(|at| world.broker(at).sequence().epoch());
        assert_eq!((epochs[A] % 2, epochs[B] % 2), (0, 1));
        heal(&mut world);
        let active = if world.roles()[A] == ACTIVE { A } else { B };
        if active == B {
            world.act(B, |broker, now, net| broker.demote(now, net)).unwrap();
            world.pass_ms(500);
        }
        assert_eq!(world.roles(), [ACTIVE, PASSIVE]);
    }
}

#[test]
fn a_planned_handover_loses_and_repeats_nothing() {
    let mut world = ready();
    for n in 0..50 {
        world.set(A, n, &format!("/{n}"), "x");
    }
    // The last ones are still on their way to the standby.
    assert_eq!(world.act(B, |broker, now, net| broker.promote(now, net)), Ok(Role::Passive));
    world.pass_ms(100);
    assert_eq!(world.roles(), [PASSIVE, ACTIVE]);
    assert_eq!(world.map(B).len(), 50);
    world.pass_ms(500);
    assert_eq!(world.map(A), world.map(B));
    assert_eq!(world.stats(A).resubmitted, 0);
    assert_eq!(world.stats(A).syncs, 0, "a delta is enough");
    // The farewell was the last that clients heard of it.
    assert_eq!(world.told(A, "role").as_deref(), Some("passive"));
}

#[test]
fn what_was_handed_over_can_be_handed_back_at_once() {
    let mut world = ready();
    world.act(B, |broker, now, net| broker.promote(now, net)).unwrap();
    while world.roles() != [PASSIVE, ACTIVE] {
        world.pass_ms(1);
    }
    // As soon as the other is its standby.
    while world.act(B, |broker, now, net| broker.demote(now, net)).is_err() {
        world.pass_ms(1);
    }
    world.pass_ms(10);
    assert_eq!(world.roles(), [ACTIVE, PASSIVE]);
}

#[test]
fn a_change_that_comes_during_a_handover_is_applied_by_the_other() {
    let mut world = ready();
    world.act(A, |broker, now, net| broker.demote(now, net)).unwrap();
    world.set(A, 1, "/late", "1");
    world.set(B, 2, "/early", "2");
    world.pass_ms(100);
    assert_eq!(world.roles(), [PASSIVE, ACTIVE]);
    assert_eq!(world.map(B)["/early"], "2");
    // Its client has not heard of it, and sends it again.
    world.set(B, 1, "/late", "1");
    assert_eq!(world.map(B)["/late"], "1");
}

#[test]
fn a_handover_that_nobody_takes_ends() {
    let mut world = ready();
    world.set(A, 1, "/a", "1");
    world.pass_ms(20);
    world.act(A, |broker, now, net| broker.demote(now, net)).unwrap();
    world.kill(B);
    world.ask(A);
    world.pass_ms(500);
    assert_eq!(world.roles()[A], ACTIVE);
    assert_eq!(world.map(A)["/a"], "1");
}

#[test]
fn orders_that_cannot_be_carried_out_are_refused() {
    let mut world = World::new();
    let promote =
        |world: &mut World, at| world.act(at, |broker, now, net| broker.promote(now, net));
    let demote = |world: &mut World, at| world.act(at, |broker, now, net| broker.demote(now, net));
    world.pass_ms(500);
    assert_eq!(promote(&mut world, A), Ok(Role::Active));
    assert_eq!(demote(&mut world, B), Ok(Role::Passive));
    world.kill(B);
    world.pass_ms(500);
    assert_eq!(demote(&mut world, A), Err(RoleRefusal::NoStandby));
    world.start(B);
    world.pass_ms(2);
    assert_eq!(promote(&mut world, B), Err(RoleRefusal::NoState));
    world.pass_ms(500);
    world.kill(A);
    world.pass_ms(300);
    assert_eq!(promote(&mut world, B), Ok(Role::Active), "at once, and without a vote");
    let mut lone = crate::clone::broker::Broker::new(
        crate::clone::broker::BrokerConfig::new(1, Sequence::new(1, 0)),
        world.now,
    );
    assert_eq!(lone.promote(world.now, &mut Net::default()), Err(RoleRefusal::NoPair));
    assert_eq!(lone.demote(world.now, &mut Net::default()), Err(RoleRefusal::NoPair));
}

#[test]
fn orders_over_the_wire_are_answered() {
    let mut world = ready();
    world.request(B, "admin", &[b"PROMOTE?"]);
    world.pass_ms(200);
    assert_eq!(world.roles(), [PASSIVE, ACTIVE]);
    let answer = &world.sides[B].net.replies[&b"admin"[..]][0];
    assert_eq!((&*answer[0], &*answer[3]), (&b"PROMOTE?"[..], &b"ok=passive\n"[..]));
    world.pass_ms(500);
    world.request(B, "admin", &[b"DEMOTE?"]);
    world.pass_ms(200);
    assert_eq!(world.roles(), [ACTIVE, PASSIVE]);
}

#[test]
fn two_primaries_are_told_and_one_of_them_takes_the_other_place() {
    let mut world = World::down(|_, pair| *pair = PairConfig::new(pair_id("test"), Seat::Primary));
    world.start(A);
    world.start(B);
    world.pass_ms(1000);
    assert_eq!(world.roles(), [ACTIVE, PASSIVE]);
    assert!(world.stats(A).same_seat + world.stats(B).same_seat > 0);
    world.set(A, 1, "/a", "1");
    world.pass_ms(20);
    world.kill(A);
    world.ask(B);
    world.pass_ms(500);
    assert_eq!(world.roles()[B], ACTIVE);
    assert_eq!(world.broker(B).sequence().epoch() % 2, 1, "it gives the other's epochs");
}

#[test]
fn what_is_safe_follows_the_standby() {
    for (policy, proceeds) in [(SafePolicy::Wait, false), (SafePolicy::Proceed, true)] {
        let mut world = match policy {
            SafePolicy::Wait => World::with(|_, pair| pair.policy = SafePolicy::Wait),
            SafePolicy::Proceed => World::new(),
        };
        world.pass_ms(500);
        world.set(A, 1, "/a", "1");
        let sequence = world.broker(A).sequence().get().to_string();
        assert_ne!(world.told(A, "stable"), Some(sequence.clone()));
        world.pass_ms(10);
        assert_eq!(world.told(A, "stable"), Some(sequence.clone()), "told without a heartbeat");
        world.cut(true);
        world.set(A, 2, "/b", "2");
        let next = world.broker(A).sequence().get().to_string();
        world.pass_ms(300);
        assert_eq!(world.told(A, "stable"), Some(sequence.clone()), "one waits a while at least");
        world.pass_ms(300);
        let expected = if proceeds { &next } else { &sequence };
        assert_eq!(world.told(A, "stable").as_ref(), Some(expected), "{policy:?}");
        assert_eq!(world.told(A, "standby").as_deref(), Some("none"));
        world.cut(false);
        world.pass_ms(500);
        assert_eq!(world.told(A, "stable"), Some(next));
        assert_eq!(world.told(A, "standby").as_deref(), Some("live"));
    }
}

#[test]
fn a_counter_that_runs_out_goes_on_in_the_next_epoch_of_its_own() {
    let mut world = World::with(|config, _| {
        config.start = Sequence::new(1000, (1 << 40) - 1);
    });
    world.pass_ms(500);
    let (start, before) = (world.broker(A).sequence(), world.stats(A).promotions);
    assert_eq!(before, 1);
    assert_eq!(start.epoch() % 2, 0);
    world.set(A, 1, "/a", "1");
    world.pass_ms(500);
    assert_eq!(world.map(B)["/a"], "1");
}

#[test]
fn who_was_away_itself_does_not_call_its_peer_silent() {
    let mut world = World::new();
    world.pass_ms(500);
    assert_eq!(world.roles(), [Some(Role::Active), Some(Role::Passive)]);
    // A long call: the loop comes to its timers first, and to what waits to be read then.
    world.now += HEARTBEAT * 5;
    world.ask(B);
    world.act(B, |broker, now, net| broker.handle_timeout(now, net));
    assert_eq!(world.roles()[B], Some(Role::Passive));
    world.pass_ms(500);
    assert_eq!(world.roles(), [Some(Role::Active), Some(Role::Passive)]);
    // One that is silent is so an interval later, once.
    world.kill(A);
    world.now += HEARTBEAT * 5;
    world.ask(B);
    world.act(B, |broker, now, net| broker.handle_timeout(now, net));
    assert_eq!(world.roles()[B], Some(Role::Passive));
    world.now += HEARTBEAT * 2;
    world.act(B, |broker, now, net| broker.handle_timeout(now, net));
    assert_eq!(world.roles()[B], Some(Role::Active));
}

#[test]
fn what_the_winner_refused_is_not_taken_from_the_loser() {
    let mut world = World::with(|config, _| config.store.max_keys = 1);
    world.pass_ms(500);
    split(&mut world);
    world.set(A, 2, "/x", "1");
    world.set(B, 1, "/b", "1");
    // Who sent it to the loser first is told that it has no effect.
    world.set(B, 2, "/x", "1");
    assert_eq!(world.broker(B).stats().changes_store_full, 1);
    world.act(B, |broker, now, net| assert!(broker.delete(now, b"/b", net)));
    heal(&mut world);
    assert_eq!(world.roles(), [PASSIVE, ACTIVE]);
    assert_eq!(world.stats(A).resubmit_refused, 1);
    assert!(world.map(B).is_empty(), "{:?}", world.map(B));
}

/// Who sent it to the loser was told that it has no effect; a copy may still be on its way.
#[test]
fn what_the_loser_refused_has_no_effect_at_the_winner() {
    let mut world = World::with(|config, _| config.store.max_keys = 1);
    world.pass_ms(500);
    split(&mut world);
    world.set(A, 1, "/a", "1");
    let changes = (0..5000_u128).map(|n| (n << 8).to_be_bytes());
    let send = |world: &mut World, at| {
        for uuid in changes.clone() {
            let frames: [&[u8]; 5] = [b"/x", &[0; 8], &uuid, b"", b"x"];
            world.act(at, |broker, now, net| {
                broker.handle_change(now, Message::new(&frames), net);
            });
        }
    };
    send(&mut world, A);
    assert_eq!(world.broker(A).stats().changes_store_full, 5000);
    world.act(A, |broker, now, net| assert!(broker.delete(now, b"/a", net)));
    heal(&mut world);
    assert_eq!(world.roles(), [PASSIVE, ACTIVE]);
    assert!(world.map(B).is_empty());
    send(&mut world, B);
    assert_eq!(world.broker(B).stats().changes_repeated, 5000);
    assert!(world.map(B).is_empty(), "{:?}", world.map(B));
    // The standby knows that it has them all, and has nothing more to tell.
    world.pass_ms(3000);
    let gaps = world.stats(A).follow_gaps;
    world.pass_ms(3000);
    assert_eq!(world.stats(A).follow_gaps, gaps);
    assert_eq!((world.stats(B).refusals_taken, world.stats(B).peer_refused), (3, 0));
}

#[test]
fn who_was_away_itself_does_not_take_a_dead_peer_for_live() {
    let mut world = World::new();
    world.pass_ms(500);
    world.kill(A);
    world.pass_ms(1000);
    world.now += HEARTBEAT * 5;
    world.act(B, |broker, now, net| broker.handle_timeout(now, net));
    let pair = world.broker(B).pair.as_ref().expect("one of a pair");
    assert_eq!(pair.peer_state(world.now), "silent");
}
