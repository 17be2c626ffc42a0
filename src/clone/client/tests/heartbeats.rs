//! What heartbeats prove, and what is made of their absence.

use super::broker::Dialect;
use super::world::{MS, SECOND, World, frames};
use crate::clone::client::{ClientConfig, Event};
use crate::clone::kvmsg::HUGZ;
use crate::clone::sequence::Sequence;
use crate::time::Time;

#[test]
fn silence_is_told_once_and_healed_by_changes_only() {
    let mut world = World::synced(Dialect::Extended, &["/a/", "/b/"]);
    world.disconnect();
    world.broker.put(b"/a/2", b"");
    world.broker.put(b"/b/2", b"new");
    world.run(12 * SECOND);
    assert_eq!(world.milestones(), ["Lost"]);
    assert!(!world.client.is_current());
    assert_eq!(world.client.broker(), None);
    world.reconnect();
    world.run(3 * SECOND);
    let resynced = ["Lost", "Resync Reconnected", "Resync Reconnected", "Synced", "Synced"];
    assert_eq!(world.milestones(), resynced);
    assert_eq!(world.client.stats().deltas, 2);
    world.assert_equal();
}

#[test]
fn a_standby_is_no_sign_of_life() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.net.lose_heartbeats = u32::MAX;
    for _ in 0..6 {
        world.run(SECOND);
        world.inject_update(&frames(
            HUGZ,
            Sequence::new(1, 104),
            b"chp=2\nnode=0000000000000abc\nrole=passive\n",
            b"",
        ));
    }
    assert_eq!(world.milestones(), ["Lost"]);
}

#[test]
fn that_a_relay_has_lost_its_upstream_is_told_once_and_that_it_is_back() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    for (upstream, told) in [
        (Some("live"), None),
        (Some("lost"), Some(Event::UpstreamLost)),
        (Some("live"), Some(Event::UpstreamBack)),
        (Some("lost"), Some(Event::UpstreamLost)),
        // Another broker, which is no relay.
        (None, Some(Event::UpstreamBack)),
    ] {
        world.broker.upstream = upstream;
        if upstream.is_none() {
            world.restart_broker();
        }
        world.run(5 * SECOND);
        let news = |event: &Event| matches!(event, Event::UpstreamLost | Event::UpstreamBack);
        let news: Vec<_> = std::mem::take(&mut world.events).into_iter().filter(news).collect();
        assert_eq!(news, Vec::from_iter(told), "{upstream:?}");
        let is_lost = world.client.broker().is_some_and(|broker| broker.upstream_lost);
        assert_eq!(is_lost, upstream == Some("lost"));
    }
}

#[test]
fn without_heartbeats_of_its_own_a_subtree_is_asked_for_changes() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    world.broker.max_watches = 0;
    world.broker.put(b"/a/1", b"one");
    world.start();
    world.run(6 * SECOND);
    assert_eq!(world.milestones(), ["Synced"]);
    assert_eq!(world.client.stats().unwatched, 1);
    world.net.lose_updates = 1;
    world.broker.put(b"/a/1", b"lost");
    world.broker.put(b"/a/2", b"came");
    world.run(5 * MS);
    assert_eq!(world.client.get(b"/a/2").map(|entry| entry.value), Some(&b"came"[..]));
    world.run(4 * SECOND);
    world.assert_equal();
    assert_eq!(world.milestones(), ["Synced"], "as a matter of routine, without a word");
    assert!(world.client.stats().deltas >= 1);
    // When there is room it is watched again.
    world.broker.max_watches = 10;
    world.run(10 * SECOND);
    assert_eq!(world.client.stats().unwatched, 0);
    assert!(world.client.is_current());
    assert_eq!(world.milestones(), ["Synced"]);
}

#[test]
fn a_routine_question_without_an_answer_is_told() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    world.broker.max_watches = 0;
    world.start();
    world.run(6 * SECOND);
    world.broker.is_mute = true;
    world.run(10 * SECOND);
    assert_eq!(world.milestones(), ["Synced", "Resync Unanswered"]);
    assert!(!world.client.is_current());
}

#[test]
fn an_answer_asked_for_before_the_heartbeats_stopped_proves_nothing() {
    let mut config = ClientConfig::follow(["/a/", "/b/"]);
    config.request_timeout = 30 * SECOND;
    let mut world = World::with(Dialect::Extended, config);
    world.start();
    world.run(2 * SECOND);
    world.net.lose_updates = 1;
    world.broker.put(b"/a/1", b"lost");
    world.net.request_delay = 4 * SECOND;
    world.run_until("the gap", |world| world.client.stats().gaps == 1);
    world.broker.max_watches = 0;
    world.broker.unsubscribe(b"HUGZ/a/");
    world.run(9 * SECOND);
    assert!(world.net.dealer >= 3, "the answer is there, to a request that counts no more");
    assert!(!world.client.is_current());
    world.net.request_delay = MS;
    world.run(20 * SECOND);
    assert!(world.client.is_current());
    world.assert_equal();
}

#[test]
fn a_subtree_whose_heartbeats_stop_is_not_current() {
    let mut world = World::synced(Dialect::Extended, &["/a/", "/b/"]);
    world.broker.max_watches = 0;
    world.broker.unsubscribe(b"HUGZ/a/");
    world.run(20 * SECOND);
    assert_eq!(world.milestones(), ["Resync Unwatched", "Synced"]);
    assert_eq!(world.client.stats().unwatched, 1);
    // With one subtree only nothing is heard at all.
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.broker.max_watches = 0;
    world.broker.unsubscribe(b"HUGZ/a/");
    world.run(20 * SECOND);
    assert_eq!(world.milestones(), ["Lost", "Resync Reconnected", "Synced"]);
}

#[test]
fn an_idle_client_has_a_deadline_and_nothing_to_do_before() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.run_until("a heartbeat", |world| world.client.stats().verified > 3);
    let deadline = world.client.next_deadline().expect("silence must be noticed");
    assert!(deadline > world.now());
    let before = world.client.stats();
    world.client.handle_timeout(Time::ZERO, &mut world.net);
    assert_eq!(world.client.stats(), before);
}

#[test]
fn nothing_is_judged_by_its_absence_while_messages_wait() {
    for dialect in [Dialect::Extended, Dialect::Rfc12] {
        let mut world = World::synced(dialect, &["/a/"]);
        world.has_heartbeats = false;
        world.is_behind = true;
        world.net.lose_changes = 1;
        let uuid = world.set("/a/1", "lost");
        world.run(9 * SECOND);
        assert_eq!(world.milestones(), [] as [&str; 0]);
        assert_eq!((world.client.stats().resent, world.client.stats().votes), (0, 0));
        // But not for ever.
        world.run(10 * SECOND);
        assert_eq!(world.answers(), []);
        world.run(2 * SECOND);
        assert_eq!(world.answers(), [(uuid, "timed out")]);
        world.is_behind = false;
        world.run(SECOND);
        assert_eq!(world.milestones()[0], "Lost");
    }
}
