//! One takes over from the other.

use super::world::{A, B, HEARTBEAT, World};
use crate::clone::pair::Role;

#[test]
fn the_backup_takes_over_what_the_primary_had() {
    let mut world = World::ready();
    for n in 0..100 {
        world.set(A, n, &format!("/key/{n}"), "value");
    }
    world.pass_ms(50);
    assert_eq!(world.map(B), world.map(A));
    assert_eq!(world.told(A, "standby").as_deref(), Some("live"));
    let before = world.map(A);
    world.kill(A);
    // Clients notice after two intervals, too.
    let killed = world.now;
    world.pass(HEARTBEAT * 2);
    assert_eq!(world.roles()[B], Some(Role::Passive), "nobody has asked");
    world.ask(B);
    while world.roles()[B] != Some(Role::Active) {
        world.pass_ms(1);
        assert!(world.now.since(killed) < HEARTBEAT * 3, "not within three intervals");
    }
    assert_eq!(world.map(B), before);
    world.set(B, 200, "/after", "1");
    assert_eq!(world.map(B)["/after"], "1");
}

#[test]
fn a_change_that_is_sent_again_to_the_new_active_has_no_second_effect() {
    let mut world = World::ready();
    world.set(A, 1, "/a", "1");
    world.set(A, 2, "/a", "2");
    world.pass_ms(50);
    world.kill(A);
    world.ask(B);
    world.pass_ms(300);
    world.set(B, 1, "/a", "1");
    assert_eq!(world.map(B)["/a"], "2");
    assert_eq!(world.broker(B).stats().changes_repeated, 1);
}

#[test]
fn the_two_take_turns_twenty_times() {
    let mut world = World::ready();
    let mut active = A;
    let turns = if cfg!(miri) { 3 } else { 20 };
    for turn in 0..turns {
        world.set(active, turn + 1, &format!("/turn/{turn}"), "x");
        world.pass_ms(50);
        let before = world.map(active);
        world.kill(active);
        active = 1 - active;
        world.ask(active);
        world.pass_ms(250);
        assert_eq!(world.roles()[active], Some(Role::Active), "turn {turn}");
        assert_eq!(world.map(active), before);
        world.start(1 - active);
        world.pass_ms(500);
        assert_eq!(world.roles()[1 - active], Some(Role::Passive), "turn {turn}");
        assert_eq!(world.map(1 - active), before);
    }
    assert_eq!(world.map(active).len(), usize::from(turns));
}
