//! Two actives: what only the loser had goes to the winner.

use std::time::Duration;

use super::world::{A, ACTIVE, B, HEARTBEAT, PASSIVE, World};

#[test]
fn two_actives_of_one_history_the_higher_epoch_wins_and_what_only_the_other_had_is_kept() {
    let mut world = World::ready();
    world.set(A, 1, "/both", "1");
    world.pass_ms(20);
    world.split();
    world.set(A, 2, "/only-a", "2");
    world.set(A, 3, "/key", "of a");
    world.set(A, 4, "/twice", "first");
    world.set(A, 5, "/twice", "second");
    world.set(B, 6, "/only-b", "6");
    world.set(B, 7, "/key", "of b");
    world.heal();
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
    let mut world = World::ready();
    world.split();
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
    let mut world = World::ready();
    world.split();
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
    let mut world = World::ready();
    world.set(A, 1, "/a", "1");
    world.set(A, 2, "/b", "1");
    world.set_with(A, 3, "/c", "ttl=0.3\n", "1");
    world.pass_ms(20);
    world.split();
    world.set(A, 4, "/a", "");
    world.set(B, 5, "/c", "kept alive");
    world.pass_ms(500);
    assert_eq!(world.map(A).get("/c"), None, "it has expired there");
    world.heal();
    let map = world.map(B);
    assert_eq!(map, world.map(A));
    assert_eq!(map.get("/a"), None);
    assert_eq!(map.get("/b").map(String::as_str), Some("1"));
    assert_eq!(map.get("/c").map(String::as_str), Some("kept alive"));
    assert_eq!(world.stats(A).resubmit_conflicts, 0);
}
