//! Our changes: sent, sent again, answered once.

use std::time::Duration;

use super::broker::{Dialect, Frames, message};
use super::world::{MS, SECOND, World};
use crate::clone::Collector;
use crate::clone::Uuid;
use crate::clone::client::{ClientConfig, Event, SetError};
use crate::clone::sequence::Sequence;

impl World {
    /// What became of our changes, in order.
    pub(super) fn answers(&self) -> Vec<(Uuid, &'static str)> {
        let answers = self.events.iter().filter_map(|event| {
            Some(match event {
                Event::Applied { uuid, .. } => (*uuid, "applied"),
                Event::Refused { uuid, .. } => (*uuid, "refused"),
                Event::Superseded { uuid, .. } => (*uuid, "superseded"),
                Event::TimedOut { uuid, sent: true } => (*uuid, "timed out"),
                Event::TimedOut { uuid, sent: false } => (*uuid, "never sent"),
                _ => return None,
            })
        });
        answers.collect()
    }
}

#[test]
fn a_change_is_applied_when_its_echo_comes() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    assert_eq!(world.net.collector, Some(Collector::Pull));
    let uuid = world.set("/a/1", "new");
    assert_eq!(uuid.as_bytes()[6] >> 4, 8, "a uuid of version 8");
    assert_eq!(uuid.as_bytes()[8] >> 6, 2, "of RFC 9562");
    assert_eq!(world.client.get_local(b"/a/1"), Some(&b"new"[..]));
    assert_eq!(world.client.get(b"/a/1").map(|entry| entry.value), Some(&b"old"[..]));
    world.run(2 * MS);
    assert_eq!(world.answers(), [(uuid, "applied")]);
    assert_eq!(world.client.get(b"/a/1").map(|entry| entry.value), Some(&b"new"[..]));
    assert_eq!(world.client.pending(), 0);
    let now = world.now();
    let uuid = world.client.delete(now, b"/a/1", &mut world.net).expect("taken");
    assert_eq!(world.client.get_local(b"/a/1"), None);
    assert!(world.client.is_pending(uuid));
    world.run(2 * MS);
    assert!(!world.client.is_pending(uuid));
    assert_eq!(world.client.get(b"/a/1"), None);
}

#[test]
fn each_time_of_the_configuration_may_be_for_ever() {
    for dialect in [Dialect::Extended, Dialect::Rfc12, Dialect::Heartbeatless] {
        let mut config = ClientConfig::follow([""]);
        config.request_timeout = Duration::MAX;
        config.resend_after = Duration::MAX;
        config.give_up_after = Duration::MAX;
        config.keep_for = Duration::MAX;
        if dialect != Dialect::Heartbeatless {
            config.heartbeat_timeout = Duration::MAX;
        }
        let mut world = World::with(dialect, config);
        world.start();
        world.run_until("the map", |world| world.client.is_current());
        let now = world.now();
        let ttl = Some(Duration::MAX);
        let uuid = world.client.set(now, b"/a/1", b"new", ttl, &mut world.net).expect("taken");
        world.run(SECOND);
        assert_eq!(world.answers(), [(uuid, "applied")], "{dialect:?}");
        world.net.lose_updates = 1;
        world.broker.put(b"/a/2", b"lost");
        world.broker.put(b"/a/3", b"came");
        world.run(20 * SECOND);
        assert!(world.client.stats().gaps > 0);
        world.assert_equal();
    }
}

#[test]
fn a_change_may_come_before_the_broker_is_heard() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    let uuids = [world.set("/a/1", "one"), world.set("/b/1", "two"), world.set("/a/1", "three")];
    world.start();
    assert_eq!(world.net.changes.len(), 0);
    world.run(SECOND);
    let mut answers = world.answers();
    answers.sort();
    assert_eq!(answers, uuids.map(|uuid| (uuid, "applied")));
    assert_eq!(world.broker.map(b"/a/")[&b"/a/1"[..]], b"three");
}

#[test]
fn a_lost_change_is_sent_again_under_its_name() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_changes = 2;
    let uuid = world.set("/a/1", "new");
    world.run(1400 * MS);
    assert_eq!(world.answers(), []);
    world.run(200 * MS);
    assert_eq!(world.answers(), [(uuid, "applied")]);
    assert_eq!(world.client.stats().resent, 2, "after 0.5 s and after 1 s more");
    assert!(!world.broker.has_doubled());
}

#[test]
fn a_lost_echo_is_made_up_for_by_a_heartbeat() {
    // Within the subtree, and outside of it.
    for key in ["/a/1", "/x/y/1", "plain"] {
        let mut world = World::synced(Dialect::Extended, &["/a/"]);
        world.net.lose_updates = 1;
        let uuid = world.set(key, "new");
        world.run(2 * SECOND);
        assert_eq!(world.answers(), [(uuid, "applied")], "{key}");
        assert!(!world.broker.has_doubled());
        assert!(world.client.stats().resent <= 1);
        world.assert_equal();
    }
}

#[test]
fn a_snapshot_that_shows_the_change_is_an_answer() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_updates = 1;
    world.net.lose_heartbeats = 0;
    let uuid = world.set("/a/1", "new");
    world.run(5 * MS);
    // The loss shows with the next change at the latest with the next heartbeat.
    world.broker.heartbeat();
    world.run(5 * MS);
    assert_eq!(world.answers(), [(uuid, "applied")]);
    assert_eq!(world.client.stats().resent, 0);
}

#[test]
fn a_refused_change_has_no_effect() {
    for key in ["/a/1", "/outside"] {
        let mut world = World::synced(Dialect::Extended, &["/a/"]);
        let uuid = world.set(key, "refuse me");
        world.run(SECOND);
        assert_eq!(world.answers(), [(uuid, "refused")]);
        let refused = world.events.iter().find(|event| matches!(event, Event::Refused { .. }));
        assert!(
            matches!(refused, Some(Event::Refused { reason, .. }) if **reason == *"as told"),
            "{refused:?}"
        );
        assert_eq!(world.client.get_local(b"/a/1"), Some(&b"old"[..]));
    }
}

#[test]
fn what_the_broker_forgot_is_not_called_refused() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_changes = 2;
    let older = world.set("/a/1", "older");
    let uuid = world.set("/a/1", "forget me");
    world.run(SECOND);
    assert_eq!(world.answers(), [(uuid, "timed out")], "it may have been applied");
    // For the same reason the older one must not be sent again.
    world.run(10 * SECOND);
    assert_eq!(world.answers(), [(uuid, "timed out"), (older, "timed out")]);
    assert_eq!(world.client.stats().resent, 1);
}

#[test]
fn what_cannot_be_sent_again_holds_up_nothing() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_changes = 1;
    let older = world.set("/a/1", "older");
    let middle = world.set("/a/1", "refuse me");
    // That it is refused does not come through.
    world.net.lose_heartbeats = 1;
    world.run(2 * MS);
    world.net.lose_changes = 1;
    let newest = world.set("/a/1", "forget me");
    world.run(SECOND);
    assert_eq!(world.answers(), [(newest, "timed out")]);
    let refused: Frames = message(b"/a/1", Sequence::ZERO, Some(middle), b"", b"refuse me");
    world.broker.handle_change(&refused);
    world.run(2 * MS);
    assert_eq!(world.answers(), [(newest, "timed out"), (middle, "refused")]);
    // The one before it may come behind the newest, and the next need not wait for it.
    let next = world.set("/a/1", "next");
    world.run(10 * MS);
    assert_eq!(world.answers()[2..], [(older, "superseded"), (next, "applied")]);
}

#[test]
fn changes_of_a_key_arrive_in_order() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.change_delay = 20 * MS;
    let uuids: Vec<_> = (0..50).map(|index| world.set("/a/1", &format!("{index}"))).collect();
    assert_eq!(world.net.changes.len(), 50, "none waits for an answer");
    assert_eq!(world.client.get_local(b"/a/1"), Some(&b"49"[..]));
    world.run(100 * MS);
    let applied: Vec<_> = uuids.iter().map(|&uuid| (uuid, "applied")).collect();
    assert_eq!(world.answers(), applied);
    let values: Vec<_> = world.broker.effects.iter().map(|(_, value)| value.clone()).collect();
    let expected: Vec<_> = (0..50).map(|index| format!("{index}").into_bytes()).collect();
    assert_eq!(values, expected);
}

#[test]
fn a_lost_change_never_undoes_a_later_one() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_changes = 1;
    let lost = world.set("/a/1", "lost");
    let came = world.set("/a/1", "came");
    world.run(5 * SECOND);
    assert_eq!(world.answers(), [(lost, "superseded"), (came, "applied")]);
    assert_eq!(world.client.get(b"/a/1").map(|entry| entry.value), Some(&b"came"[..]));
    assert_eq!(world.broker.effects.len(), 1);
}

#[test]
fn a_refused_later_change_lets_the_earlier_one_be_sent_again() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_changes = 1;
    let lost = world.set("/a/1", "lost");
    let refused = world.set("/a/1", "refuse me");
    world.run(5 * SECOND);
    assert_eq!(world.answers(), [(refused, "refused"), (lost, "applied")]);
    assert_eq!(world.client.get(b"/a/1").map(|entry| entry.value), Some(&b"lost"[..]));
}

#[test]
fn what_is_sent_again_goes_before_what_was_never_sent() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_changes = 2;
    let lost = world.set("/a/1", "lost");
    let refused = world.set("/a/1", "refuse me");
    world.run(500 * MS);
    assert_eq!(world.client.stats().resent, 1, "the newer of the two");
    let last = world.set("/a/1", "last");
    world.run(SECOND);
    assert_eq!(world.answers(), [(refused, "refused"), (lost, "applied"), (last, "applied")]);
    assert_eq!(world.client.get(b"/a/1").map(|entry| entry.value), Some(&b"last"[..]));
}

#[test]
fn a_change_waits_for_one_that_may_have_to_be_sent_again() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_changes = 2;
    let first = world.set("/a/1", "first");
    world.run(600 * MS);
    assert_eq!(world.client.stats().sent, 2);
    let second = world.set("/a/1", "second");
    let third = world.set("/a/1", "third");
    world.run(300 * MS);
    assert_eq!(world.client.stats().sent, 2, "the key is in doubt");
    world.run(2 * SECOND);
    let applied = [first, second, third].map(|uuid| (uuid, "applied"));
    assert_eq!(world.answers(), applied);
    let values: Vec<_> = world.broker.effects.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(values, [&b"first"[..], b"second", b"third"]);
}

#[test]
fn a_full_port_keeps_the_changes_in_order() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.is_full = true;
    let uuids: Vec<_> = (0..10).map(|index| world.set(&format!("/a/{index}"), "new")).collect();
    world.run(SECOND);
    assert_eq!(world.answers(), []);
    assert!(world.client.stats().blocked >= 2);
    world.net.is_full = false;
    let now = world.now();
    world.client.handle_writable(now, &mut world.net);
    assert_eq!(world.net.changes.len(), 10);
    world.run(SECOND);
    let applied: Vec<_> = uuids.iter().map(|&uuid| (uuid, "applied")).collect();
    assert_eq!(world.answers(), applied);
    // Without a word from the port it is tried again all the same.
    world.net.is_full = true;
    let uuid = world.set("/a/1", "newer");
    world.net.is_full = false;
    world.run(SECOND);
    assert_eq!(world.answers().last(), Some(&(uuid, "applied")));
}

#[test]
fn a_change_without_an_answer_is_given_up() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.is_full = true;
    let kept = world.set("/a/1", "kept");
    let next = world.set("/a/1", "next");
    world.run(11 * SECOND);
    assert_eq!(world.answers(), [(kept, "never sent"), (next, "never sent")]);
    world.net.is_full = false;
    world.net.lose_changes = u32::MAX;
    world.events.clear();
    let lost = world.set("/a/2", "lost");
    world.run(11 * SECOND);
    assert_eq!(world.answers(), [(lost, "timed out")]);
    assert_eq!(world.client.pending(), 0);
    assert_eq!(world.client.get_local(b"/a/2"), Some(&b"old"[..]));
}

#[test]
fn changes_survive_a_lost_broker() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.set("/a/1", "on the way");
    world.disconnect();
    let kept = world.set("/a/2", "kept");
    world.run(4 * SECOND);
    assert_eq!(world.milestones(), ["Lost"]);
    world.restart_broker();
    world.run(4 * SECOND);
    assert_eq!(world.answers().len(), 2);
    assert!(world.answers().contains(&(kept, "applied")));
    assert!(world.answers().iter().all(|(_, answer)| *answer == "applied"));
    world.assert_equal();
}

#[test]
fn a_key_outside_is_watched_for_the_answer_only() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    let topics = world.net.topics.clone();
    let uuid = world.set("/x/y/1", "new");
    assert_eq!(world.net.changes.len(), 0, "the echo could be missed");
    assert!(world.net.topics.contains(&b"/x/y/1"[..]));
    assert!(world.net.topics.contains(&b"HUGZ/x/y/"[..]));
    world.run(10 * MS);
    assert_eq!(world.answers(), [(uuid, "applied")]);
    // Again, while the subscription lingers: at once.
    world.set("/x/y/1", "newer");
    assert_eq!(world.net.changes.len(), 1);
    world.run(5 * SECOND);
    assert_eq!(world.net.topics, topics, "all subscriptions are gone");
    assert_eq!(world.client.get(b"/x/y/1"), None, "not followed");
    assert_eq!(world.client.stats().gaps, 0);
}

#[test]
fn a_heartbeat_asked_for_before_proves_nothing_of_a_later_key() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.update_delay = 10 * MS;
    world.set("/x/1", "new");
    world.run(5 * MS);
    world.set("/x/2", "new");
    world.run(16 * MS);
    assert_eq!(world.client.stats().sent, 1, "there and back for the first");
    world.run(20 * MS);
    assert_eq!(world.client.stats().sent, 2, "and again for the second");
    world.run(SECOND);
    assert_eq!(world.client.stats().confirmed, 2);
    assert_eq!(world.client.stats().resent, 0);
}

#[test]
fn keys_outside_can_be_watched_by_directory() {
    let config = ClientConfig { echo_directories: true, ..ClientConfig::default() };
    let mut world = World::with(Dialect::Extended, config);
    world.start();
    world.run(100 * MS);
    let keys = ["/d/1", "/d/2", "/d/3", "alone"];
    let uuids = keys.map(|key| world.set(key, "new"));
    let topics: Vec<_> = world.net.topics.iter().map(Vec::as_slice).collect();
    assert_eq!(topics, [&b"/d/"[..], b"HUGZ", b"HUGZ/d/", b"alone"]);
    world.run(10 * MS);
    let mut answers = world.answers();
    answers.sort();
    assert_eq!(answers, uuids.map(|uuid| (uuid, "applied")));
    // Once the directory is proven, another key of it need not wait.
    world.set("/d/4", "new");
    assert_eq!(world.net.changes.len(), 1);
    world.run(5 * SECOND);
    let topics: Vec<_> = world.net.topics.iter().collect();
    assert_eq!(topics, [b"HUGZ"], "all others are gone");
}

#[test]
fn without_the_heartbeat_of_the_directory_a_change_goes_all_the_same() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.broker.max_watches = 0;
    let uuid = world.set("/x/1", "new");
    world.run(1100 * MS);
    assert_eq!(world.answers(), [(uuid, "applied")]);
}

#[test]
fn a_client_without_subtrees_only_writes() {
    let config = ClientConfig { max_echo_keys: 8, ..ClientConfig::default() };
    let mut world = World::with(Dialect::Extended, config);
    world.start();
    world.run(100 * MS);
    assert!(world.client.is_current());
    let mut uuids = Vec::new();
    for index in 0..200 {
        uuids.push(world.set(&format!("/d{}/{}", index % 7, index % 100), &format!("{index}")));
        assert!(world.net.topics.len() <= 1 + 8 + 8, "{:?}", world.net.topics);
    }
    world.run(2 * SECOND);
    let mut answers = world.answers();
    answers.sort();
    let applied: Vec<_> = uuids.iter().map(|&uuid| (uuid, "applied")).collect();
    assert_eq!(answers, applied);
    assert_eq!(world.client.stats().resent, 0);
    assert_eq!(world.broker.map(b"/")[&b"/d1/1"[..]], b"1");
    world.run(5 * SECOND);
    let topics: Vec<_> = world.net.topics.iter().collect();
    assert_eq!(topics, [b"HUGZ"]);
}

#[test]
fn what_cannot_be_a_change_is_refused_at_once() {
    let mut config = ClientConfig::follow(["/a/"]);
    config.max_pending = 2;
    config.max_pending_bytes = 100;
    config.limits.max_value = 50;
    let mut world = World::with(Dialect::Extended, config);
    let now = world.now();
    let (client, net) = (&mut world.client, &mut world.net);
    for key in [&b""[..], b"HUGZ", b"HUGZ/a/", b"KTHXBAI", b"/a\n", &[b'x'; 256]] {
        assert!(matches!(client.set(now, key, b"x", None, net), Err(SetError::Key(_))));
        assert!(matches!(client.delete(now, key, net), Err(SetError::Key(_))));
    }
    assert_eq!(client.set(now, b"/a/1", b"", None, net), Err(SetError::EmptyValue));
    let zero = Some(Duration::ZERO);
    assert_eq!(client.set(now, b"/a/1", b"x", zero, net), Err(SetError::ZeroTtl));
    let long = client.set(now, b"/a/1", &[b'x'; 51], None, net);
    assert_eq!(long, Err(SetError::ValueSize { got: 51, max: 50 }));
    assert!(client.set(now, b"/a/1", &[b'x'; 50], None, net).is_ok());
    let full = client.set(now, b"/a/1", &[b'x'; 50], None, net);
    assert_eq!(full, Err(SetError::TooManyPending { changes: 1 }));
    assert!(client.set(now, b"/a/1", b"x", None, net).is_ok());
    let full = client.set(now, b"/a/1", b"x", None, net);
    assert_eq!(full, Err(SetError::TooManyPending { changes: 2 }));
    assert_eq!(client.stats().submitted, 2);
    // A broker that is heard announces limits of its own.
    world.start();
    world.run(SECOND);
    let now = world.now();
    assert!(world.client.set(now, b"/a/1", &[b'x'; 80], None, &mut world.net).is_ok());
}

#[test]
fn a_time_to_live_goes_with_the_change() {
    for (dialect, ttl_ms, text) in [
        (Dialect::Extended, 2500, &b"ttl=2.5\n"[..]),
        (Dialect::Extended, 30_000, b"ttl=30\n"),
        (Dialect::Rfc12, 30_000, b"ttl=30\n"),
        (Dialect::Rfc12, 2500, b"ttl=3\n"),
    ] {
        let mut world = World::synced(dialect, &["/a/"]);
        let ttl = Some(Duration::from_millis(ttl_ms));
        let now = world.now();
        world.client.set(now, b"/a/1", b"x", ttl, &mut world.net).expect("taken");
        world.run(5 * MS);
        assert_eq!(world.broker.entries[&b"/a/1"[..]].properties, text);
    }
}

#[test]
fn a_change_is_safe_when_the_broker_says_so() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.set("/a/1", "new");
    world.run(5 * MS);
    let Some(Event::Applied { sequence, .. }) =
        world.events.iter().find(|event| matches!(event, Event::Applied { .. })).cloned()
    else {
        panic!("not applied: {:?}", world.events);
    };
    assert!(!world.client.is_safe(sequence));
    world.run(SECOND);
    assert!(world.client.is_safe(sequence));
}
