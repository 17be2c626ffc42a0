//! Which server is active: found, followed, waited for.

use std::time::Duration;

use super::world::Pair;
use crate::clone::client::Event;
use crate::clone::client::tests::broker::Dialect;
use crate::clone::client::tests::world::SECOND;
use crate::time::Time;

#[test]
fn the_active_is_found_whichever_it_is() {
    for active in [0, 1] {
        let mut pair = Pair::new(Dialect::Extended, |_| {});
        if active == 1 {
            pair.servers.swap(0, 1);
        }
        pair.start();
        let took = pair.run_until("current", |pair| pair.client.is_current());
        assert_eq!(pair.client.server(), active);
        assert!(took < SECOND / 5, "{took:?}");
        assert!(pair.net.turned_at.len() <= 1, "{:?}", pair.net.turned_at);
    }
}

#[test]
fn a_planned_handover_is_followed_at_once() {
    let mut pair = Pair::synced();
    pair.set("/a/1", "before");
    pair.run(SECOND);
    pair.events.clear();
    // It steps down with a farewell, and the other one takes over.
    if let Some(state) = &mut pair.servers[0].broker.pair {
        state.is_active = false;
    }
    pair.servers[0].broker.tell_status();
    pair.promote(1);
    let took = pair
        .run_until("current again", |pair| pair.client.is_current() && pair.client.server() == 1);
    assert!(took < SECOND / 5, "{took:?}");
    assert!(!pair.events.iter().any(|event| matches!(event, Event::Safe { .. })));
}

#[test]
fn without_any_server_it_turns_ever_more_slowly_and_finds_the_first_that_comes() {
    let mut pair = Pair::synced();
    pair.servers[1].is_up = false;
    pair.kill();
    pair.run(600 * SECOND);
    let turns = &pair.net.turned_at;
    let early = turns.iter().filter(|&&at| at < Time::ZERO + 30 * SECOND).count();
    assert!(early >= 4, "{turns:?}");
    assert!(turns.len() < 120, "{}", turns.len());
    let gaps: Vec<Duration> = turns.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(gaps.iter().all(|gap| *gap < 16 * SECOND), "{gaps:?}");
    // Servers alike wait unlike.
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]));
    pair.servers[1].is_up = true;
    pair.servers[1].topics_of = 0;
    pair.run_until("current", |pair| pair.client.is_current());
}

#[test]
fn an_active_with_an_older_history_is_followed_only_if_there_is_no_other() {
    let mut pair = Pair::synced();
    pair.kill();
    pair.run(10 * SECOND);
    assert_eq!(pair.client.server(), 1);
    // The first comes back and knows nothing of that, and the second goes.
    pair.servers[0].is_up = true;
    pair.servers[0].topics_of = 0;
    pair.servers[1].is_up = false;
    pair.silent_since = None;
    pair.run(6 * SECOND);
    assert!(!pair.client.is_current(), "too early");
    pair.run(60 * SECOND);
    assert!(pair.client.is_current(), "{:?}", pair.events);
    assert_eq!(pair.client.server(), 0);
}

#[test]
fn a_standby_of_rfc12_that_answers_nothing_is_left() {
    let mut pair = Pair::new(Dialect::Rfc12, |_| {});
    pair.servers[0].broker.is_mute = true;
    pair.servers[1].broker.put(b"/a/1", b"there");
    pair.start();
    pair.run_until("current", |pair| pair.client.is_current());
    assert_eq!(pair.client.server(), 1);
    assert!(pair.net.reaches_all);
    // Each change goes to both, under the same name.
    let uuid = pair.set("/a/1", "new");
    assert_eq!(pair.net.changes.len(), 2);
    pair.run(SECOND);
    for server in &pair.servers {
        assert_eq!(server.broker.effects, [(uuid, b"new".to_vec())]);
    }
}
