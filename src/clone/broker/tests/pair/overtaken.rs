//! What the active would have refused as overtaken the standby refuses after a takeover.

use super::world::{A, B, World};
use crate::clone::kvmsg::Uuid;
use crate::clone::pair::Role;
use crate::message::Message;

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
