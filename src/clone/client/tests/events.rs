//! The queue of events, and the differences that snapshots make.

use super::broker::Dialect;
use super::world::{MS, SECOND, World};
use crate::clone::client::{Client, ClientConfig, ConfigError, Event};
use crate::message::Message;

/// More than the client looks at in one step of a difference.
const KEYS: usize = if cfg!(miri) { 300 } else { 600 };

/// A world whose application does not take events for a while.
fn deaf(world: &mut World, times: usize, mut between: impl FnMut(&mut World, usize)) {
    for index in 0..times {
        between(world, index);
        let update = std::mem::take(&mut world.broker.sends);
        for send in update {
            let super::broker::Send::Update(frames) = send else { continue };
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            world.client.handle_update(world.net.now, Message::new(&frames), &mut world.net);
        }
    }
}

#[test]
fn events_that_nobody_takes_are_bounded_and_the_loss_is_told() {
    let mut config = ClientConfig::follow(["/a/"]);
    config.max_events = 10;
    let mut world = World::with(Dialect::Extended, config);
    world.start();
    world.run(SECOND);
    world.events.clear();
    deaf(&mut world, 25, |world, index| {
        world.broker.put(format!("/a/{index}").as_bytes(), b"value");
    });
    let mut events = Vec::new();
    while let Some(event) = world.client.poll_event() {
        events.push(event);
    }
    assert_eq!(events.len(), 11);
    assert!(matches!(events[9], Event::Updated { .. }));
    assert_eq!(events[10], Event::Overrun { dropped: 15 });
    assert_eq!(world.client.stats().overrun, 15);
    assert_eq!(world.client.len(), 25, "the map has them all");
}

#[test]
fn a_difference_is_told_in_order_of_keys_before_synced() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.restart_broker();
    world.broker.put(b"/a/0", b"before");
    world.broker.put(b"/a/1", b"old");
    world.broker.put(b"/a/3", b"behind");
    world.run(3 * SECOND);
    let told: Vec<String> = world
        .events
        .iter()
        .map(|event| match event {
            Event::Updated { key, .. } => format!("+{}", String::from_utf8_lossy(key)),
            Event::Deleted { key, .. } => format!("-{}", String::from_utf8_lossy(key)),
            Event::Resync { .. } => "resync".to_owned(),
            Event::Synced { keys, .. } => format!("synced {keys}"),
            other => panic!("{other:?}"),
        })
        .collect();
    // The value of /a/1 is the same as before: nothing to tell.
    assert_eq!(told, ["resync", "+/a/0", "-/a/2", "+/a/3", "synced 3"]);
}

/// Snapshots that replace the map while the events of the one before are only
/// partly taken: the application must come out with the last map.
#[test]
fn snapshots_may_follow_each_other_before_events_are_taken() {
    let counts: &[usize] = if cfg!(miri) { &[257] } else { &[0, 1, 5, 255, 256, 257, 300, 1000] };
    for &taken in counts {
        let mut world = World::new(Dialect::Extended, &["/a/"]);
        for index in 0..KEYS {
            world.broker.put(format!("/a/{index:03}").as_bytes(), b"first");
        }
        world.start();
        world.run(SECOND);
        let mut told = world.told.clone();
        for round in 0..3 {
            // A broker without history, so that the whole map is replaced; some
            // keys stay as they were, some change, some go, some come.
            world.broker.restart();
            // The last map but one is small: all of it is told, then what is gone.
            let keys = if round == 1 { 10 } else { KEYS };
            for index in (0..keys).filter(|index| index % 5 != round) {
                let value = if index % 3 == 0 { "first" } else { "again" };
                let key = format!("/a/{index:03}{}", if index % 7 == 0 { "x" } else { "" });
                world.broker.put(key.as_bytes(), value.as_bytes());
            }
            replace(&mut world);
            take(&mut world, &mut told, taken);
        }
        take(&mut world, &mut told, usize::MAX);
        assert_eq!(told, world.map(), "{taken} taken");
        assert_eq!(told, world.model());
    }
}

/// Lets the client resync with a new broker without its events being taken.
fn replace(world: &mut World) {
    world.broker.topics.clear();
    let topics: Vec<_> = world.net.topics.iter().cloned().collect();
    let requests = world.client.stats().requests;
    world.broker.sends.clear();
    for topic in topics {
        world.broker.subscribe(&topic);
    }
    let mut snapshots = 0;
    while snapshots == 0 {
        for send in std::mem::take(&mut world.broker.sends) {
            let super::broker::Send::Update(frames) = send else { continue };
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            world.client.handle_update(world.net.now, Message::new(&frames), &mut world.net);
        }
        if world.client.stats().requests > requests {
            let request = vec![b"ICANHAZ?".to_vec(), b"/a/".to_vec()];
            world.broker.handle_request(world.net.dealer, &request);
        } else {
            world.broker.heartbeat();
        }
        let answers = std::mem::take(&mut world.broker.sends);
        for send in answers {
            match send {
                super::broker::Send::Answer(_, frames) => {
                    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
                    let message = Message::new(&frames);
                    world.client.handle_snapshot(world.net.now, message, &mut world.net);
                    snapshots += 1;
                }
                update => world.broker.sends.push(update),
            }
        }
        world.net.now += MS;
    }
}

fn take(world: &mut World, told: &mut super::broker::Map, count: usize) {
    for _ in 0..count {
        match world.client.poll_event() {
            Some(Event::Updated { key, value, .. }) => {
                told.insert(key.to_vec(), value.to_vec());
            }
            Some(Event::Deleted { key, .. }) => {
                assert!(told.remove(&*key).is_some(), "deletion of what was never told");
            }
            Some(_) => {}
            None => return,
        }
    }
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let refused = |config: ClientConfig| Client::new(config, 1).map(drop).unwrap_err().to_string();
    let follow = |subtrees: &[&str]| refused(ClientConfig::follow(subtrees));
    assert_eq!(follow(&["/a/b/", "/a/"]), r#"subtree "/a/b/" lies within "/a/": leave it out"#);
    assert_eq!(follow(&["/a/", ""]), r#"subtree "/a/" lies within "": leave it out"#);
    assert_eq!(follow(&["/a/", "/a/"]), r#"subtree "/a/" lies within "/a/": leave it out"#);
    assert_eq!(follow(&["/a\n/"]), r#"subtree "/a\n/": has a control byte, which no key has"#);
    assert!(follow(&["HUGZ"]).contains("reserved"));
    assert!(follow(&[&"x".repeat(256)]).contains("longer than any key"));
    let config = ClientConfig { max_pending: 0, ..ClientConfig::default() };
    assert!(refused(config).starts_with("max_pending: expected 1 to"));
    let resend_after = std::time::Duration::ZERO;
    let config = ClientConfig { resend_after, ..ClientConfig::default() };
    assert_eq!(refused(config), "resend_after: expected at least 1 ms");
    assert!(matches!(
        Client::new(ClientConfig::follow(["/a/", "/a/b"]), 1),
        Err(ConfigError::Overlap { .. })
    ));
}

#[test]
fn a_difference_is_told_in_steps_and_nothing_overtakes_it() {
    let mut world = World::new(Dialect::Extended, &["/a/"]);
    for index in 0..KEYS {
        world.broker.put(format!("/a/{index:03}").as_bytes(), b"first");
    }
    world.start();
    world.run(SECOND);
    world.broker.restart();
    for index in 0..KEYS {
        // Most are as they were: found out key by key, too.
        let value: &[u8] = if index % 100 == 7 { b"again" } else { b"first" };
        world.broker.put(format!("/a/{index:03}").as_bytes(), value);
    }
    replace(&mut world);
    let (mut events, mut rounds) = (Vec::new(), 0);
    while world.client.has_events() {
        let mut steps = 50;
        while let Some(event) = world.client.poll_event_within(&mut steps) {
            events.push(event);
        }
        assert!(steps == 0 || !world.client.has_events(), "it came back early");
        rounds += 1;
    }
    assert!(rounds >= KEYS / 50, "{rounds}");
    let updated = |event: &Event| matches!(event, Event::Updated { .. });
    assert_eq!(events.iter().filter(|event| updated(event)).count(), KEYS / 100);
    assert!(matches!(events.last(), Some(Event::Synced { keys: KEYS, .. })));
    assert_eq!(world.client.poll_event_within(&mut 50), None);
}

/// Updates that wait behind a snapshot's difference: whatever is told of a key is
/// never older than what was told of it before.
#[test]
fn what_waits_behind_a_difference_tells_nothing_older() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.broker.restart();
    world.broker.put(b"/a/1", b"before");
    replace(&mut world);
    world.broker.sends.clear();
    deaf(&mut world, 3, |world, index| {
        world.broker.put(b"/a/1", format!("update {index}").as_bytes());
    });
    let (mut last, mut told) = (None, 0);
    while let Some(event) = world.client.poll_event() {
        if let Event::Updated { key, sequence, value } = event
            && *key == *b"/a/1"
        {
            assert!(last.is_none_or(|last| last <= sequence), "{value:?} after a newer one");
            last = Some(sequence);
            told += 1;
        }
    }
    assert_eq!(told, 4, "the difference and three updates");
    assert_eq!(world.client.get(b"/a/1").map(|entry| entry.sequence), last);
}
