//! The relay's copy: of the whole and of a subtree, after losses, over other relays, and
//! with an upstream that comes and goes.

use std::time::Duration;

use super::world::{HEARTBEAT, World};
use crate::clone::kvmsg::Uuid;
use crate::clone::pair::Role;
use crate::clone::relay::RelayConfig;
use crate::message::Message;

fn filled(keys: u8) -> World {
    let mut world = World::new();
    for n in 0..keys {
        world.set(0, n, &format!("/{n}"), "x");
    }
    world
}

#[test]
fn it_has_what_the_upstream_has_under_the_same_sequences() {
    let mut world = filled(100);
    let relay = world.relay(&[0]);
    world.pass_ms(50);
    assert_eq!(world.role(relay), Role::Relay);
    world.set(0, 101, "/new", "y");
    world.set(0, 102, "/1", "");
    world.pass_ms(5);
    assert_eq!(world.map(relay), world.map(0));
    assert_eq!(world.broker(relay).sequence(), world.broker(0).sequence());
    assert_eq!(world.stats(relay).syncs, 1);
    let told = |name| world.told(relay, "HUGZ", name);
    assert_eq!(told("role").as_deref(), Some("relay"));
    assert_eq!(told("upstream").as_deref(), Some("live"));
    assert_eq!(told("standby").as_deref(), Some("none"));
}

#[test]
fn a_gap_is_healed_by_a_delta_which_is_passed_on() {
    let mut world = filled(10);
    let relay = world.relay(&[0]);
    world.pass_ms(50);
    world.lose_updates.insert(relay, 3);
    for n in 0..5 {
        world.set(0, 100 + n, &format!("/late/{n}"), "x");
    }
    world.pass_ms(50);
    assert_eq!(world.map(relay), world.map(0));
    let stats = world.stats(relay);
    assert_eq!((stats.syncs, stats.delta_syncs), (1, 1));
    let changes = world.changes(relay);
    assert_eq!(changes.len(), 5, "{changes:?}");
    assert!(changes.is_sorted_by_key(|(sequence, _)| *sequence));
}

#[test]
fn a_lost_tail_is_noticed_by_the_next_heartbeat() {
    let mut world = filled(10);
    let relay = world.relay(&[0]);
    world.pass_ms(50);
    world.lose_updates.insert(relay, 1);
    world.set(0, 100, "/last", "x");
    world.pass(HEARTBEAT + Duration::from_millis(20));
    assert_eq!(world.map(relay), world.map(0));
}

#[test]
fn a_relay_of_a_subtree_has_that_alone_and_notices_what_it_misses() {
    let mut world = World::new();
    for n in 0..10 {
        world.set(0, n, &format!("/a/{n}"), "x");
        world.set(0, 50 + n, &format!("/b/{n}"), "x");
    }
    let relay = world.relay_with(&[0], |relay| relay.subtree = b"/a/".to_vec());
    world.pass_ms(250);
    assert_eq!(world.map(relay), world.map_below(0, "/a/"));
    for n in 0..10 {
        world.set(0, 100 + n, &format!("/b/{n}"), "y");
        world.set(0, 110 + n, &format!("/a/{n}"), if n % 2 == 0 { "" } else { "y" });
        world.pass_ms(1);
    }
    assert_eq!(world.map(relay), world.map_below(0, "/a/"));
    assert_eq!(world.stats(relay).follow_gaps, 0);
    assert_eq!(world.told(relay, "HUGZ", "subtree").as_deref(), Some("/a/"));
    // In the middle, and at the end, where only the count tells.
    for lost in [1, 2] {
        world.lose_updates.insert(relay, lost);
        world.set(0, 130 + lost as u8, "/a/lost", "1");
        world.set(0, 140 + lost as u8, "/a/lost-too", "2");
        world.pass(HEARTBEAT * 3);
        assert_eq!(world.map(relay), world.map_below(0, "/a/"), "{lost}");
    }
    assert_eq!(world.stats(relay).follow_gaps, 2);
}

#[test]
fn a_relay_of_a_subtree_says_up_to_where_it_lacks_nothing() {
    let mut world = World::new();
    let relay = world.relay_with(&[0], |relay| relay.subtree = b"/a/".to_vec());
    world.set(0, 1, "/a/1", "x");
    world.pass_ms(250);
    world.subscribe(relay, b"HUGZ/a/");
    world.pass_ms(2);
    let proven = |world: &World| {
        world.told(relay, "HUGZ/a/", "proven").and_then(|text| text.parse::<u64>().ok()).unwrap()
    };
    assert_eq!(proven(&world), world.broker(0).sequence().get());
    world.lose_updates.insert(relay, 1);
    world.set(0, 2, "/a/lost", "x");
    let lost = world.broker(0).sequence().get();
    world.set(0, 3, "/a/2", "x");
    world.pass_ms(2);
    world.subscribe(relay, b"HUGZ/a/");
    world.pass_ms(2);
    assert_eq!(world.told(relay, "HUGZ/a/", "at"), Some((lost + 1).to_string()));
    assert!(proven(&world) < lost, "what it lacks it has not noticed yet");
    world.pass(HEARTBEAT * 3);
    assert_eq!(proven(&world), lost + 1);
    assert_eq!(world.map(relay), world.map_below(0, "/a/"));
}

#[test]
fn relays_of_a_subtree_do_not_slip_into_a_new_history() {
    let mut world = World::new();
    let subtree = |relay: &mut RelayConfig| relay.subtree = b"/a/".to_vec();
    let first = world.relay_with(&[0], subtree);
    let second = world.relay_with(&[first], subtree);
    world.set(0, 1, "/a/gone", "x");
    world.pass_ms(500);
    assert_eq!(world.map(second), world.map(0));
    world.kill(0);
    world.pass_ms(100);
    world.start(0);
    // What the first one passes on of the new epoch comes to the second before a heartbeat.
    world.set(0, 2, "/a/new", "y");
    world.pass_ms(5000);
    assert_eq!(world.map(0).into_keys().collect::<Vec<_>>(), ["/a/new"]);
    assert_eq!(world.map(first), world.map(0));
    assert_eq!(world.map(second), world.map(0));
}

#[test]
fn what_comes_after_there_was_no_room_is_told() {
    let mut world = World::new();
    world.set(0, 1, "/a", "x");
    let relay = world.relay(&[0]);
    world.configure_start(relay, |config| config.store.max_bytes = 1000);
    world.pass_ms(500);
    assert_eq!(world.map(relay), world.map(0));
    world.set(0, 2, "/a", &"x".repeat(2000));
    world.pass_ms(500);
    assert_eq!(world.map(relay)["/a"].1, "x", "it stays where it is");
    let published = world.told(relay, "HUGZ", "published");
    world.set(0, 3, "/a", "y");
    world.pass_ms(5000);
    assert_eq!(world.map(relay), world.map(0));
    assert_eq!(world.changes(relay).last(), Some(&(world.broker(0).sequence(), "/a".into())));
    assert_ne!(world.told(relay, "HUGZ", "published"), published);
}

#[test]
fn what_a_new_history_brings_is_passed_on_with_its_time_to_live() {
    let mut world = filled(1);
    let relay = world.relay(&[0]);
    world.pass_ms(500);
    world.kill(0);
    world.start(0);
    world.set_with(0, [9; 16], "/short", "ttl=100\n", "x");
    world.pass_ms(5000);
    assert_eq!(world.map(relay), world.map(0));
    let left = world.told(relay, "/short", "ttlms").and_then(|text| text.parse::<u64>().ok());
    assert!(left.is_some_and(|ms| (90_000..=100_000).contains(&ms)), "{left:?}");
}

#[test]
fn changes_while_it_takes_over_the_state_are_not_missed() {
    for subtree in ["", "/a/"] {
        let mut world = World::with(|config| config.snapshots.slice_entries = 2);
        for n in 0..200u8 {
            world.set(0, n, &format!("/a/{n}"), "x");
        }
        let relay = world.relay_with(&[0], |relay| relay.subtree = subtree.into());
        for n in 0..200u8 {
            world.pass(Duration::from_micros(100));
            let number = n as usize * 7 % 300;
            let value = if n % 5 == 0 { "" } else { "y" };
            world.set_with(
                0,
                [n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
                &format!("/a/{number}"),
                "",
                value,
            );
        }
        world.pass_ms(500);
        assert_eq!(world.map(relay), world.map(0), "{subtree}");
        assert_eq!(world.stats(relay).syncs, 1, "{subtree}");
    }
}

#[test]
fn relays_follow_relays_and_turn_to_another_without_a_full_snapshot() {
    let mut world = filled(20);
    let (left, right) = (world.relay(&[0]), world.relay(&[0]));
    let far = world.relay(&[left, right]);
    world.pass_ms(500);
    assert_eq!(world.map(far), world.map(0));
    world.kill(left);
    world.set(0, 100, "/new", "x");
    world.pass_ms(1500);
    assert_eq!(world.map(far), world.map(0));
    assert_eq!(world.stats(far).syncs, 1);
    assert_eq!(world.stats(far).upstreams_lost, 1);
    world.set(far, 101, "/over/two", "x");
    world.pass_ms(50);
    assert_eq!(world.map(0)["/over/two"].1, "x");
    assert_eq!(world.map(far), world.map(0));
}

#[test]
fn a_lost_upstream_is_told_and_a_new_history_is_followed() {
    let mut world = filled(20);
    let relay = world.relay(&[0]);
    world.pass_ms(500);
    let before = world.map(relay);
    world.kill(0);
    world.pass_ms(1500);
    assert_eq!(world.role(relay), Role::Relay, "it serves what it has");
    assert_eq!(world.map(relay), before);
    assert_eq!(world.told(relay, "HUGZ", "upstream").as_deref(), Some("lost"));
    let epoch = world.broker(relay).sequence().epoch();
    world.pass(Duration::from_secs(60));
    world.start(0);
    world.set(0, 100, "/3", "other");
    world.pass_ms(5000);
    assert_eq!(world.map(relay), world.map(0));
    assert!(world.broker(relay).sequence().epoch() > epoch);
    assert_eq!(world.told(relay, "HUGZ", "upstream").as_deref(), Some("live"));
    // Who does not count is told what is new.
    let told = world.changes(relay).iter().filter(|(_, key)| key == "/3").count();
    assert_eq!(told, 1);
}

#[test]
fn an_upstream_with_an_older_history_is_not_followed_while_there_may_be_another() {
    let mut world = filled(5);
    let relay = world.relay(&[0]);
    world.pass_ms(500);
    let before = world.map(relay);
    world.kill(0);
    // As if its clock had gone back by years.
    world.configure_start(0, |config| config.start = crate::clone::Sequence::new(3, 0));
    world.set(0, 100, "/old", "x");
    world.pass(HEARTBEAT * 9);
    assert_eq!(world.map(relay), before);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.map(relay), world.map(0), "there is no other");
}

#[test]
fn circles_are_noticed_with_and_without_a_state() {
    let mut world = World::new();
    let (a, b, c) = (1, 2, 3);
    assert_eq!((world.relay(&[b]), world.relay(&[c]), world.relay(&[a])), (a, b, c));
    world.pass(Duration::from_secs(10));
    for relay in [a, b, c] {
        assert!(world.stats(relay).loops_refused > 0, "{relay}");
        assert_eq!(world.role(relay), Role::Starting);
        // They see the circle, and see it not, in turn, but do not do nothing else.
        let told = world.net(relay).published.len();
        assert!(told <= 100, "{told} messages in 100 heartbeats");
    }
    // With a state: what the broker had is served by one that follows itself over another.
    let mut world = filled(3);
    let near = world.relay(&[0]);
    let far = world.relay(&[near]);
    world.pass_ms(500);
    world.repoint(near, &[far]);
    world.pass(Duration::from_secs(10));
    assert!(world.stats(near).loops_refused + world.stats(far).loops_refused > 0);
    assert_eq!(world.told(far, "HUGZ", "upstream").as_deref(), Some("lost"));
}

#[test]
fn a_chain_has_a_limit() {
    let mut world = filled(3);
    let mut last = 0;
    for _ in 0..8 {
        last = world.relay(&[last]);
        world.pass_ms(300);
        assert_eq!(world.map(last), world.map(0));
    }
    let beyond = world.relay(&[last]);
    world.pass_ms(3000);
    assert_eq!(world.role(beyond), Role::Starting);
    assert!(world.stats(beyond).loops_refused > 0);
}

#[test]
fn a_relay_of_more_than_the_upstream_has_is_refused() {
    let mut world = filled(3);
    let part = world.relay_with(&[0], |relay| relay.subtree = b"/a/".to_vec());
    let whole = world.relay(&[part]);
    let below = world.relay_with(&[part], |relay| relay.subtree = b"/a/b/".to_vec());
    world.pass_ms(3000);
    assert_eq!(world.role(whole), Role::Starting);
    assert!(world.stats(whole).upstream_refused > 0);
    assert_eq!(world.role(below), Role::Relay);
}

#[test]
fn a_client_that_is_ahead_is_answered_when_the_relay_has_come_as_far() {
    let mut world = filled(5);
    let relay = world.relay(&[0]);
    world.pass_ms(500);
    world.cut(relay);
    world.set(0, 100, "/new", "x");
    let ahead = world.broker(0).sequence();
    world.request(relay, "client", &[b"ICANHAZ?", b"", format!("since={ahead}\n").as_bytes()]);
    let behind = world.broker(relay).sequence();
    world.request(relay, "other", &[b"ICANHAZ?", b"", format!("since={behind}\n").as_bytes()]);
    world.pass_ms(50);
    assert_eq!(world.answered(relay, "client", "mode"), None, "it would go back in time");
    assert_eq!(world.answered(relay, "other", "mode").as_deref(), Some("delta"));
    world.heal();
    world.pass_ms(3000);
    assert_eq!(world.answered(relay, "client", "mode").as_deref(), Some("delta"));
    // A number that will never be reached holds up nobody, and they are bounded.
    let far = crate::clone::Sequence::new(ahead.epoch(), ahead.counter() + (1 << 30));
    for n in 0..5000 {
        let properties = format!("since={far}\n");
        world.request(relay, &format!("far-{n}"), &[b"ICANHAZ?", b"", properties.as_bytes()]);
    }
    world.request(relay, "near", &[b"ICANHAZ?", b"", format!("since={ahead}\n").as_bytes()]);
    world.pass_ms(50);
    assert_eq!(world.answered(relay, "near", "mode").as_deref(), Some("delta"));
    assert_eq!(world.stats(relay).held_dropped, 5000 - 4096);
}

#[test]
fn who_asks_again_is_held_rather_than_who_asked_long_ago() {
    let mut world = filled(5);
    let relay = world.relay_with(&[0], |relay| relay.held_requests = 2);
    world.pass_ms(500);
    world.cut(relay);
    world.set(0, 100, "/new", "x");
    let ahead = world.broker(0).sequence();
    for peer in ["first", "second", "third"] {
        world.request(relay, peer, &[b"ICANHAZ?", b"", format!("since={ahead}\n").as_bytes()]);
    }
    assert_eq!(world.stats(relay).held_dropped, 1);
    world.heal();
    world.pass_ms(3000);
    let answers = ["first", "second", "third"].map(|peer| world.answered(relay, peer, "mode"));
    assert_eq!(answers.map(|answer| answer.is_some()), [false, true, true]);
}

/// A frame may be longer than any key: of requests that are held, nothing so long is.
#[test]
fn a_subtree_longer_than_any_key_is_not_held() {
    let mut world = filled(5);
    let relay = world.relay(&[0]);
    let since = world.broker(0).sequence();
    let since = crate::clone::Sequence::new(since.epoch(), since.counter() + 1000);
    let request: [&[u8]; 3] =
        [b"ICANHAZ?", &[b'k'; 1 << 20], &format!("since={since}\n").into_bytes()];
    for state in ["none", "whole"] {
        assert_eq!(world.status(relay, "state"), state);
        let refused = world.broker(relay).stats().snapshots_refused;
        world.request(relay, "long", &request);
        assert_eq!(world.broker(relay).stats().snapshots_refused, refused + 1);
        assert_eq!(world.status(relay, "requests_held"), "0");
        world.pass_ms(500);
    }
}

#[test]
fn who_asks_before_there_is_a_state_is_answered_when_there_is() {
    let mut world = World::new();
    world.kill(0);
    let relay = world.relay(&[0]);
    world.request(relay, "client", &[b"ICANHAZ?", b""]);
    world.pass_ms(1000);
    assert_eq!(world.answered(relay, "client", "mode"), None);
    assert!(world.changes(relay).is_empty());
    assert_eq!(world.told(relay, "HUGZ", "role"), None, "it is silent");
    world.start(0);
    world.set(0, 1, "/a", "x");
    world.pass_ms(5000);
    assert_eq!(world.answered(relay, "client", "count").as_deref(), Some("1"));
}

#[test]
fn what_cannot_be_is_refused_and_counted() {
    let mut world = filled(3);
    let relay = world.relay(&[0]);
    world.pass_ms(500);
    let (before, position) = (world.map(relay), world.broker(relay).sequence());
    let next = position.next().to_wire();
    let messages: [&[&[u8]]; 5] = [
        &[b"HUGZ"],
        &[b"HUGZ", &next, b"", b"", b""],
        &[b"HUGZ", &next, b"", b"chp=2\nnode=xyz\n", b""],
        &[b"HUGZ", &next, b"", b"chp=2\nnode=1\nvia=1,xyz\n", b""],
        &[b"HUGZ", &next, b"", b"chp=2\nnode=1\nsubtree=/b/\n", b""],
    ];
    for (number, frames) in messages.iter().enumerate() {
        world.act(relay, |broker, now, net| {
            broker.handle_peer_update(now, Message::new(frames), net);
        });
        assert_eq!(world.stats(relay).upstream_refused, number as u64 + 1, "{frames:?}");
    }
    // Nobody has asked for a snapshot.
    let entry: [&[u8]; 5] = [b"/x", &next, b"", b"", b"x"];
    world.act(relay, |broker, now, net| {
        broker.handle_peer_snapshot(now, Message::new(&entry), net);
    });
    // Only a broker of a pair is told of these.
    world.request(relay, "client", &[b"PEER?", b"pair=1\n"]);
    world.request(relay, "client", &[b"PROMOTE?"]);
    world.pass_ms(500);
    assert_eq!((world.map(relay), world.broker(relay).sequence()), (before, position));
    assert_eq!(world.broker(relay).stats().requests_malformed, 1);
    assert_eq!(world.role(relay), Role::Relay);
}

#[test]
fn who_remembers_fewer_uuids_than_come_keeps_the_youngest() {
    let mut world = World::new();
    let uuid = |n: u16| {
        let mut uuid = [7; 16];
        uuid[..2].copy_from_slice(&n.to_be_bytes());
        uuid
    };
    for n in 0..2000 {
        world.set_with(0, uuid(n), &format!("/{}", n % 10), "", "x");
    }
    let relay = world.relay(&[0]);
    world.configure_start(relay, |config| config.recent_count = 5);
    world.pass_ms(50);
    assert_eq!(world.map(relay), world.map(0));
    assert_eq!((world.stats(relay).syncs, world.stats(relay).syncs_failed), (1, 0));
    let (recent, last) = (&world.broker(relay).recent, world.broker(0).sequence());
    assert_eq!(recent.len(), 5);
    assert_eq!(recent.get(&Uuid::from_bytes(uuid(1999))), Some(last));
    assert_eq!(recent.forgotten_until().get(), last.get() - 5);
}

#[test]
fn what_came_meanwhile_and_has_no_room_is_not_passed_over() {
    for delay_ms in (0..60).step_by(if cfg!(miri) { 30 } else { 1 }) {
        let mut world = World::with(|config| config.snapshots.slice_entries = 1);
        for n in 0..20 {
            world.set(0, n, &format!("/{n}"), "x");
        }
        let relay = world.relay_with(&[0], |relay| relay.subtree = b"/".to_vec());
        world.configure_start(relay, |config| config.store.max_keys = 20);
        world.pass_ms(delay_ms);
        world.set(0, 100, "/too-many", "x");
        let lost = world.broker(0).sequence();
        world.pass_ms(20);
        world.set(0, 101, "/1", "y");
        world.pass(HEARTBEAT * 3);
        assert!(world.broker(relay).sequence() < lost, "after {delay_ms} ms: {lost:?} is missing");
        // As soon as there is room, all is there.
        world.set(0, 102, "/2", "");
        world.pass_ms(5000);
        assert_eq!(world.map(relay), world.map_below(0, "/"), "after {delay_ms} ms");
        assert_eq!(world.role(relay), Role::Relay);
    }
}
