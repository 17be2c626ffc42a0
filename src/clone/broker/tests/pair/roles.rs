//! Which of the two is active: starts, restarts, deaths, partitions, orders.

use std::time::Duration;

use super::world::{A, ACTIVE, B, Frames, HEARTBEAT, Net, PASSIVE, World};
use crate::clone::Sequence;
use crate::clone::pair::{PairConfig, Role, RoleRefusal, SafePolicy, Seat, pair_id};
use crate::message::Message;

const STARTING: Option<Role> = Some(Role::Starting);

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
        let mut world = World::ready();
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
    let mut world = World::ready();
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
        let mut world = World::ready();
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
    let mut world = World::ready();
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
    let mut world = World::ready();
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
    let mut world = World::ready();
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
fn of_different_roots_the_older_wins_though_its_epoch_is_lower() {
    let mut world = World::ready();
    world.set(A, 1, "/old", "1");
    world.pass_ms(20);
    // The standby comes back empty where it does not see the active.
    world.cut(true);
    world.kill(B);
    world.pass(Duration::from_secs(60));
    world.start(B);
    world.pass_ms(5000);
    assert_eq!(world.roles(), [ACTIVE, ACTIVE]);
    assert!(world.broker(B).sequence() > world.broker(A).sequence());
    world.set(B, 2, "/new", "2");
    world.set(B, 3, "/old", "of b");
    let highest = world.broker(B).sequence();
    world.heal();
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
    let mut world = World::ready();
    for _ in 0..5 {
        world.split();
        let epochs = [A, B].map(|at| world.broker(at).sequence().epoch());
        assert_eq!((epochs[A] % 2, epochs[B] % 2), (0, 1));
        world.heal();
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
    let mut world = World::ready();
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
    let mut world = World::ready();
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
    let mut world = World::ready();
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
    let mut world = World::ready();
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
    let mut world = World::ready();
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
