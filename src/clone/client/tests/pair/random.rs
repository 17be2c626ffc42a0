//! Random deaths, losses and changes: what was applied survives.

use proptest::collection::vec;
use proptest::prelude::*;

use super::world::Pair;
use crate::clone::client::tests::broker::Dialect;
use crate::clone::client::tests::world::{MS, SECOND};

#[derive(Clone, Debug)]
enum Act {
    Set(u8, u8),
    Put(u8),
    Wait(u16),
    Kill,
    Revive,
    LoseChanges(u8),
    LoseUpdates,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Act::Set(key, value)),
        4 => any::<u8>().prop_map(Act::Put),
        12 => (0..12u16).prop_map(Act::Wait),
        4 => (0..4000u16).prop_map(Act::Wait),
        2 => Just(Act::Kill),
        3 => Just(Act::Revive),
        2 => (0..4u8).prop_map(Act::LoseChanges),
        1 => Just(Act::LoseUpdates),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60),
        ..ProptestConfig::default()
    })]

    /// Brokers die and come back, never both dead at a time: what was applied survives.
    #[test]
    fn nothing_that_was_applied_is_lost(acts in vec(act(), 0..if cfg!(miri) { 8 } else { 60 })) {
        let mut pair = Pair::new(Dialect::Extended, |config| {
            // A broker may be looked for longer than ten seconds here.
            config.give_up_after = 100 * SECOND;
            config.keep_for = 100 * SECOND;
        });
        pair.start();
        pair.run(2 * SECOND);
        for act in &acts {
            match *act {
                Act::Set(key, value) => {
                    let key = format!("{}{}", ["/a/", "/b/"][usize::from(key % 2)], key / 2 % 3);
                    pair.set(&key, &format!("mine {value} {}", pair.made.len()));
                }
                Act::Put(key) => pair.put(&format!("/a/other{}", key % 3), &format!("{key}")),
                Act::Wait(ms) => pair.run(u32::from(ms) * MS),
                // Only with a standby that is whole.
                Act::Kill if pair.servers.iter().all(|server| server.is_up) => pair.kill(),
                Act::Kill => {}
                Act::Revive => pair.revive(),
                Act::LoseChanges(count) => pair.net.lose_changes = count.into(),
                Act::LoseUpdates => pair.net.updates.clear(),
            }
        }
        pair.net.lose_changes = 0;
        pair.run(90 * SECOND);
        pair.check();
        let stats = pair.client.stats();
        prop_assert_eq!(stats.timed_out + stats.refused + stats.not_safe, 0, "{:?}", stats);
        pair.check_values();
    }
}
