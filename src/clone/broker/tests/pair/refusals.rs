//! What one of the two has refused has no effect at the other either.

use super::world::{A, ACTIVE, B, HEARTBEAT, PASSIVE, World};
use crate::message::Message;

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
        broker.handle_subscription(now, Message::new(&[b"\x01HUGZ"]));
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
fn what_the_winner_refused_is_not_taken_from_the_loser() {
    let mut world = World::with(|config, _| config.store.max_keys = 1);
    world.pass_ms(500);
    world.split();
    world.set(A, 2, "/x", "1");
    world.set(B, 1, "/b", "1");
    // Who sent it to the loser first is told that it has no effect.
    world.set(B, 2, "/x", "1");
    assert_eq!(world.broker(B).stats().changes_store_full, 1);
    world.act(B, |broker, now, net| assert!(broker.delete(now, b"/b", net)));
    world.heal();
    assert_eq!(world.roles(), [PASSIVE, ACTIVE]);
    assert_eq!(world.stats(A).resubmit_refused, 1);
    assert!(world.map(B).is_empty(), "{:?}", world.map(B));
}

/// Who sent it to the loser was told that it has no effect; a copy may still be on its way.
#[test]
fn what_the_loser_refused_has_no_effect_at_the_winner() {
    let mut world = World::with(|config, _| config.store.max_keys = 1);
    world.pass_ms(500);
    world.split();
    world.set(A, 1, "/a", "1");
    let count = if cfg!(miri) { 50 } else { 5000 };
    let changes = (0..u128::from(count)).map(|n| (n << 8).to_be_bytes());
    let send = |world: &mut World, at| {
        for uuid in changes.clone() {
            let frames: [&[u8]; 5] = [b"/x", &[0; 8], &uuid, b"", b"x"];
            world.act(at, |broker, now, net| {
                broker.handle_change(now, Message::new(&frames), net);
            });
        }
    };
    send(&mut world, A);
    assert_eq!(world.broker(A).stats().changes_store_full, count);
    world.act(A, |broker, now, net| assert!(broker.delete(now, b"/a", net)));
    world.heal();
    assert_eq!(world.roles(), [PASSIVE, ACTIVE]);
    assert!(world.map(B).is_empty());
    send(&mut world, B);
    assert_eq!(world.broker(B).stats().changes_repeated, count);
    assert!(world.map(B).is_empty(), "{:?}", world.map(B));
    // The standby knows that it has them all, and has nothing more to tell.
    world.pass_ms(3000);
    let gaps = world.stats(A).follow_gaps;
    world.pass_ms(3000);
    assert_eq!(world.stats(A).follow_gaps, gaps);
    let batches = if cfg!(miri) { 1 } else { 3 };
    assert_eq!((world.stats(B).refusals_taken, world.stats(B).peer_refused), (batches, 0));
}
