//! Changes on their way to the standby: many in a message, and a standby that is lost.

use std::time::Duration;

use super::world::{A, B, HEARTBEAT, LATENCY, World};
use crate::clone::Sequence;

#[test]
fn many_changes_go_in_few_messages() {
    let mut world = World::filled(10);
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
    let large = "x".repeat(40_000);
    for n in 0..3u8 {
        world.set(A, 200 + n, &format!("/large/{n}"), &large);
    }
    world.pass_ms(5);
    assert_eq!(world.map(A), world.map(B));
    assert_eq!(world.streamed - before, 4);
}

#[test]
fn changes_close_to_one_another_go_together_within_a_millisecond() {
    let mut world = World::filled(10);
    world.start(B);
    world.pass_ms(500);
    let before = world.streamed;
    world.set(A, 100, "/alone", "x");
    world.pass(LATENCY);
    assert_eq!(world.streamed - before, 1, "one alone does not wait");
    for n in 0..50u8 {
        world.set(A, 101 + n, &format!("/close/{n}"), "x");
        world.pass(Duration::from_micros(100));
    }
    world.pass(Duration::from_millis(1) + LATENCY);
    assert_eq!(world.map(A), world.map(B));
    let messages = world.streamed - before;
    assert!((5..=7).contains(&messages), "{messages} in 6.6 ms");
}

#[test]
fn a_standby_that_does_not_read_misses_changes_and_asks_for_them() {
    let mut world = World::filled(10);
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
    let mut world = World::filled(10);
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
    let mut world = World::filled(10);
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
