//! Changes of a relay's clients on their way upstream: once each, none lost in silence.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::world::{HEARTBEAT, World};

fn relayed() -> (World, usize) {
    let mut world = World::new();
    let relay = world.relay(&[0]);
    world.pass_ms(500);
    // Somebody follows, who is told of what is refused.
    world.subscribe(relay, b"HUGZ");
    (world, relay)
}

#[test]
fn a_change_goes_upstream_under_its_uuid_and_comes_back() {
    let (mut world, relay) = relayed();
    world.set(relay, 1, "/a", "x");
    assert!(world.map(relay).is_empty(), "it is applied upstream first");
    world.pass_ms(5);
    assert_eq!(world.map(relay), world.map(0));
    assert_eq!(world.map(0)["/a"].1, "x");
    // Its sender has missed the answer.
    world.set(relay, 1, "/a", "x");
    assert_eq!(world.told(relay, "HUGZ", "applied"), Some(world.map(0)["/a"].0.to_string()));
    world.pass_ms(500);
    assert_eq!(world.broker(0).stats().changes_applied, 1);
}

#[test]
fn what_is_lost_on_the_way_is_sent_again_and_applied_once() {
    let (mut world, relay) = relayed();
    world.lose_changes = 1;
    world.set(relay, 1, "/a", "x");
    world.set(relay, 2, "/b", "x");
    world.pass_ms(3000);
    assert_eq!(world.map(relay), world.map(0));
    assert_eq!(world.map(0).len(), 2);
    assert_eq!(world.stats(relay).forwards_repeated, 1);
    assert_eq!(world.broker(0).stats().changes_applied, 2);
}

#[test]
fn an_older_change_that_was_lost_does_not_come_behind_a_newer_one() {
    let (mut world, relay) = relayed();
    world.lose_changes = 1;
    world.set(relay, 1, "/a", "older");
    world.set(relay, 2, "/a", "newer");
    world.pass_ms(5000);
    assert_eq!(world.map(0)["/a"].1, "newer");
}

#[test]
fn an_older_change_does_not_come_behind_a_newer_one_that_is_forgotten() {
    // The newer one leaves no trace: it deletes what is not there, its update is lost, and it
    // is safe when the older one is due again.
    let (mut world, relay) = relayed();
    world.lose_changes = 1;
    world.lose_updates.insert(relay, 1);
    world.set(relay, 1, "/a", "older");
    world.set(relay, 2, "/a", "");
    world.pass_ms(5000);
    assert!(world.map(0).is_empty(), "{:?}", world.map(0));
    assert_eq!(world.broker(0).stats().changes_applied, 1);
    assert!(world.stats(relay).forwards_forgotten > 0);
}

#[test]
fn what_is_refused_for_want_of_room_was_not_sent() {
    let mut world = World::new();
    let relay = world.relay_with(&[0], |relay| relay.forward_count = 1);
    world.pass_ms(500);
    world.subscribe(relay, b"HUGZ");
    world.set(relay, 1, "/a", "x");
    // There is no answer yet, and it comes twice.
    world.set(relay, 2, "/b", "x");
    world.set(relay, 2, "/b", "x");
    assert_eq!(world.told(relay, "HUGZ", "refused").as_deref(), Some("relay-full"));
    world.pass_ms(5000);
    assert_eq!(world.map(0).into_keys().collect::<Vec<_>>(), ["/a"]);
    assert_eq!(world.stats(relay).forwards_refused, 1);
}

#[test]
fn a_relay_that_is_behind_does_not_send_again_what_may_have_been_changed_since() {
    // The first node has room for all.
    let mut world =
        World::with(|config| config.store.max_keys = 1 + (config.node < 0x2000) as usize);
    let relay = world.relay(&[0]);
    world.set(0, 1, "/a", "x");
    world.pass_ms(500);
    world.lose_changes = 1;
    world.set(relay, 2, "/b", "older");
    // The relay has no room for it.
    world.set(0, 3, "/b", "newer");
    world.pass_ms(10_000);
    assert_eq!(world.map(0)["/b"].1, "newer");
    assert_eq!(world.stats(relay).forwards_repeated, 0);
}

#[test]
fn a_change_given_up_takes_with_it_the_older_one_of_its_key_that_is_applied() {
    let mut world = World::new();
    let relay = world.relay_with(&[0], |relay| relay.forward_age = Duration::from_secs(1));
    world.pass_ms(500);
    world.set(relay, 1, "/a", "older");
    // Applied, and not known to be safe before the next heartbeat.
    world.pass_ms(2);
    // This one never comes to the broker.
    world.set(relay, 2, "/a", "newer");
    world.kill(0);
    world.pass_ms(2000);
    assert_eq!(world.stats(relay).forwards_forgotten, 2);
    world.start(0);
    world.pass_ms(5000);
    assert!(world.map(0).is_empty(), "{:?}", world.map(0));
}

#[test]
fn what_may_have_been_applied_is_not_called_without_effect() {
    let mut world = World::new();
    let relay = world.relay_with(&[0], |relay| {
        relay.subtree = b"/a/".to_vec();
        relay.forward_count = 1;
        relay.forward_age = Duration::from_secs(10);
    });
    world.pass_ms(500);
    world.subscribe(relay, b"HUGZ");
    let refused = |world: &World| world.told(relay, "HUGZ", "refused");
    world.set_with(relay, [1; 16], "/b/1", "", "x");
    assert_eq!(refused(&world).as_deref(), Some("outside-subtree"));
    world.set_with(relay, [2; 16], "/b/1", "retry=5\n", "x");
    assert_eq!(refused(&world).as_deref(), Some("forgotten"));
    assert_eq!(world.stats(relay).changes_outside, 2);
    world.set_with(relay, [6; 16], "HUGZ/b", "", "x");
    assert_eq!(world.stats(relay).changes_outside, 2, "a reserved key is counted as that");
    world.kill(0);
    world.pass_ms(1500);
    world.set_with(relay, [3; 16], "/a/1", "retry=5\n", "x");
    world.set_with(relay, [4; 16], "/a/1", "", "x");
    assert_eq!(refused(&world).as_deref(), Some("relay-full"));
    world.set_with(relay, [5; 16], "/a/1", "retry=5\n", "x");
    assert_eq!(refused(&world).as_deref(), Some("forgotten"));
    world.set_with(relay, [4; 16], "/a/1", "", "x");
    assert_eq!(refused(&world).as_deref(), Some("relay-full"));
    // The one that waits was sent before it came here.
    world.pass_ms(11_000);
    assert_eq!(refused(&world).as_deref(), Some("forgotten"));
}

#[test]
fn what_waits_for_a_lost_upstream_has_limits_and_is_refused_beyond_them() {
    let mut world = World::new();
    let relay = world.relay_with(&[0], |relay| {
        relay.forward_count = 3;
        relay.forward_age = Duration::from_secs(20);
    });
    world.pass_ms(500);
    world.subscribe(relay, b"HUGZ");
    world.kill(0);
    world.pass_ms(1500);
    for n in 1..=3 {
        world.set(relay, n, &format!("/{n}"), "x");
    }
    assert_eq!(world.told(relay, "HUGZ", "refused"), None);
    world.set(relay, 4, "/4", "x");
    assert_eq!(world.told(relay, "HUGZ", "refused").as_deref(), Some("relay-full"));
    // Refused is refused, also when there is room again.
    world.start(0);
    world.pass_ms(5000);
    world.set(relay, 4, "/4", "x");
    world.pass_ms(500);
    assert_eq!(world.map(0).into_keys().collect::<Vec<_>>(), ["/1", "/2", "/3"]);
    assert_eq!(world.map(relay), world.map(0));

    world.kill(0);
    world.pass_ms(1500);
    world.set(relay, 5, "/5", "x");
    world.pass(Duration::from_secs(21));
    assert_eq!(world.told(relay, "HUGZ", "refused").as_deref(), Some("upstream-lost"));
    assert_eq!(world.stats(relay).forwards_refused, 2);
    world.start(0);
    world.pass_ms(5000);
    world.set(relay, 5, "/5", "x");
    world.pass_ms(500);
    assert!(world.map(0).is_empty());
}

#[test]
fn a_socket_that_is_full_holds_changes_up_in_their_order() {
    let (mut world, relay) = relayed();
    world.net(relay).is_full = true;
    for n in 0..5 {
        world.set(relay, n + 1, "/a", &n.to_string());
    }
    world.pass_ms(1000);
    assert!(world.map(0).is_empty());
    world.net(relay).is_full = false;
    world.act(relay, |broker, now, net| broker.handle_forward_room(now, net));
    world.set(relay, 9, "/a", "last");
    world.pass_ms(50);
    assert_eq!(world.map(0)["/a"].1, "last");
    assert_eq!(world.broker(0).stats().changes_applied, 6);
}

#[test]
fn what_the_upstream_refuses_is_refused_to_the_client() {
    let mut world = World::with(|config| config.store.max_keys = 1);
    let relay = world.relay(&[0]);
    world.pass_ms(500);
    world.subscribe(relay, b"HUGZ/b/");
    world.set(relay, 1, "/a/1", "x");
    world.set(relay, 2, "/b/1", "x");
    world.pass_ms(50);
    assert!(world.told(relay, "HUGZ/b/", "refused").is_some());
    world.set(relay, 3, "HUGZ", "x");
    assert_eq!(world.map(relay).len(), 1);
}

#[test]
fn a_restarted_upstream_gets_what_was_not_safe_but_of_each_key_the_newest_alone() {
    let (mut world, relay) = relayed();
    // Applied, and not known to be safe before the next heartbeat.
    world.set(relay, 1, "/a", "1");
    world.set(relay, 2, "/a", "2");
    world.set(relay, 3, "/b", "3");
    world.pass_ms(2);
    world.kill(0);
    world.pass_ms(2000);
    world.start(0);
    world.pass_ms(5000);
    let values: BTreeMap<_, _> =
        world.map(0).into_iter().map(|(key, (_, value))| (key, value)).collect();
    assert_eq!(values, BTreeMap::from([("/a".into(), "2".into()), ("/b".into(), "3".into())]));
    assert_eq!(world.broker(0).stats().changes_applied, 2);
    assert_eq!(world.map(relay), world.map(0));
}

#[test]
fn a_change_that_is_due_again_while_the_socket_is_full_costs_no_busy_loop() {
    let (mut world, relay) = relayed();
    world.lose_changes = 1;
    world.set(relay, 1, "/a", "x");
    world.net(relay).is_full = true;
    world.pass_ms(5000);
    assert!(world.map(0).is_empty());
    world.net(relay).is_full = false;
    world.pass_ms(200);
    assert_eq!(world.map(0)["/a"].1, "x");
}

#[test]
fn what_was_long_not_safe_is_sent_again_all_the_same() {
    let mut world = World::new();
    let relay = world.relay_with(&[0], |relay| relay.forward_age = Duration::from_millis(10));
    world.pass_ms(500);
    world.set(relay, 1, "/a", "x");
    // Applied, and for longer than a change without an answer is kept.
    world.pass_ms(30);
    world.kill(0);
    world.pass_ms(2000);
    world.start(0);
    world.pass_ms(5000);
    assert_eq!(world.map(0)["/a"].1, "x");
    assert_eq!(world.map(relay), world.map(0));
}

/// What happens to a broker, two relays, and one behind them.
#[derive(Debug, Clone)]
enum Step {
    Set { at: usize, key: u8, value: u8 },
    Delete { at: usize, key: u8 },
    LoseUpdates { at: usize, count: usize },
    LoseChanges(usize),
    Disconnect(usize),
    Cut(usize),
    Heal,
    Restart(usize),
    Full(usize, bool),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (node, relay) = (0..4usize, 1..4usize);
    prop_oneof![
        8 => (node.clone(), 0..12u8, any::<u8>())
            .prop_map(|(at, key, value)| Step::Set { at, key, value }),
        3 => (node.clone(), 0..12u8).prop_map(|(at, key)| Step::Delete { at, key }),
        1 => (relay.clone(), 1..4usize).prop_map(|(at, count)| Step::LoseUpdates { at, count }),
        1 => (1..3usize).prop_map(Step::LoseChanges),
        1 => relay.clone().prop_map(Step::Disconnect),
        1 => relay.clone().prop_map(Step::Cut),
        1 => Just(Step::Heal),
        1 => relay.clone().prop_map(Step::Restart),
        1 => (relay, any::<bool>()).prop_map(|(at, full)| Step::Full(at, full)),
        4 => (1..400u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// When the faults stop, every copy is what the broker has, every change that was
    /// not lost with a relay has been applied, each once, and no relay has gone back.
    #[test]
    fn copies_come_to_be_what_the_broker_has(
        steps in proptest::collection::vec(step(), 1..if cfg!(miri) { 8 } else { 60 }),
        subtree in any::<bool>(),
    ) {
        let mut world = World::new();
        let prefix: &[u8] = if subtree { b"/a/" } else { b"" };
        let of = |relay: &mut crate::clone::relay::RelayConfig| relay.subtree = prefix.to_vec();
        let (left, right) = (world.relay_with(&[0], of), world.relay_with(&[0], of));
        let far = world.relay_with(&[left, right], of);
        world.pass_ms(1000);
        let (mut number, mut sent, mut was_restarted) = (0u64, 0, false);
        let mut positions = [world.broker(0).sequence(); 4];
        for step in steps {
            match step {
                Step::Set { at, key, value } => {
                    number += 1;
                    sent += 1;
                    let uuid = u128::from(number).to_be_bytes();
                    world.set_with(at, uuid, &format!("/a/{key}"), "", &format!("v{value}"));
                }
                Step::Delete { at, key } => {
                    number += 1;
                    sent += 1;
                    world.set_with(at, u128::from(number).to_be_bytes(), &format!("/a/{key}"), "", "");
                }
                Step::LoseUpdates { at, count } => _ = world.lose_updates.insert(at, count),
                Step::LoseChanges(count) => world.lose_changes = count,
                Step::Disconnect(at) => world.disconnect(at),
                Step::Cut(at) => world.cut(at),
                Step::Heal => world.heal(),
                Step::Restart(at) => {
                    was_restarted = true;
                    world.kill(at);
                    world.start(at);
                    positions[at] = crate::clone::Sequence::ZERO;
                }
                Step::Full(at, is_full) => world.net(at).is_full = is_full,
                Step::Pass(ms) => world.pass_ms(ms),
            }
            for (at, before) in positions.iter_mut().enumerate() {
                let position = world.broker(at).sequence();
                prop_assert!(position >= *before, "node {} went back", at);
                *before = position;
            }
        }
        world.heal();
        world.lose_updates.clear();
        world.lose_changes = 0;
        (1..4).for_each(|at| world.net(at).is_full = false);
        world.pass(Duration::from_secs(15) + HEARTBEAT);
        for relay in [left, right, far] {
            prop_assert_eq!(world.map(relay), world.map(0), "node {}", relay);
        }
        let applied = world.broker(0).stats().changes_applied;
        prop_assert!(applied <= sent);
        let stats = [left, right, far].map(|at| world.stats(at));
        let repeated: u64 =
            stats.iter().map(|stats| stats.forwards_repeated + stats.forwards_forgotten).sum();
        if !was_restarted && repeated == 0 {
            // Only what was sent again may have given way to a newer change of its key.
            prop_assert_eq!(applied, sent);
        }
    }
}
