//! A broker and clients over each transport and on both backends: they share
//! a map, and say what happens to it.

use std::time::Duration;

use pollux::clone::client::{Event, SubtreeState, Why};
use pollux::reactor::Backend;

use crate::world::{Transport, World, broker, client, map_of};

const BACKENDS: [Backend; 2] = [Backend::ZmqPoll, Backend::Epoll];

/// One script for every way to connect: join, set, follow, delete, expire, join late.
fn script(loops: usize, transport: Transport, backend: Backend) {
    let mut world = World::new(loops, backend);
    let here = world.endpoint(transport);
    let there = world.bind(0, &here, broker());
    let last = loops - 1;
    let one = world.join(last, &there, client(&[""]));
    let two = world.join(last, &there, client(&[""]));
    world.until_current(&[one, two]);

    // What one sets, the other sees.
    let uuid = world.set(one, "/a", "first");
    world.until_applied(one, uuid);
    world.until("the other sees it", |world| world.value(two, "/a").as_deref() == Some("first"));
    assert_eq!(world.value(one, "/a").as_deref(), Some("first"));

    // A thousand changes from both sides at once.
    for n in 0..500 {
        world.set(one, &format!("/many/{}", n % 40), &format!("one {n}"));
        world.set(two, &format!("/many/{}", n % 40), &format!("two {n}"));
    }
    world.until("all have their answer", |world| {
        world.client(one).pending() == 0 && world.client(two).pending() == 0
    });
    world.until_equal(&[one, two], 0, "");
    assert_eq!(world.broker(0).stats().changes_applied, 1001);
    for id in [one, two] {
        let stats = world.client(id).stats();
        assert_eq!(stats.confirmed, stats.submitted);
        assert_eq!((stats.gaps, stats.refused, stats.timed_out), (0, 0, 0), "{stats:?}");
    }

    // Gone is gone, by hand and by time.
    let uuid = world.delete(two, "/a");
    world.until_applied(two, uuid);
    world.set_for(one, "/brief", b"x", Some(Duration::from_millis(50))).unwrap();
    world.until("it has expired at both", |world| {
        [one, two].iter().all(|&id| {
            world.has(id, |event| {
                matches!(event,
            Event::Deleted { key, why: Why::Expired } if **key == *b"/brief")
            })
        })
    });
    world.until("the deletion is seen", |world| {
        world.has(one, |event| {
            matches!(event,
            Event::Deleted { key, why: Why::Deleted } if **key == *b"/a")
        })
    });

    // A late joiner has it all.
    let late = world.join(0, &there, client(&[""]));
    world.until_equal(&[one, two, late], 0, "");
    assert_eq!(world.client(late).len(), 40);
    assert_eq!(world.client(late).stats().snapshots, 1);
    assert!(world.has(late, |event| matches!(event, Event::Synced { keys: 40, .. })));
}

#[test]
fn on_one_loop_over_inproc() {
    BACKENDS.iter().for_each(|&backend| script(1, Transport::Inproc, backend));
}

#[test]
fn on_two_loops_over_inproc() {
    BACKENDS.iter().for_each(|&backend| script(2, Transport::Inproc, backend));
}

#[test]
fn on_two_loops_over_ipc() {
    BACKENDS.iter().for_each(|&backend| script(2, Transport::Ipc, backend));
}

#[test]
fn on_two_loops_over_tcp() {
    BACKENDS.iter().for_each(|&backend| script(2, Transport::Tcp, backend));
}

#[test]
fn several_subtrees_and_nothing_beside_them() {
    let mut world = World::new(2, Backend::Epoll);
    let here = world.endpoint(Transport::Tcp);
    let there = world.bind(0, &here, broker());
    for n in 0..100 {
        world.broker_set(0, &format!("/{}/{n:02}", ["a", "b", "c", "ab"][n % 4]), b"v");
    }
    let id = world.join(1, &there, client(&["/a/", "/c/", "/empty/"]));
    world.until_current(&[id]);
    assert_eq!(world.client(id).len(), 50);
    assert!(world.client(id).get(b"/b/01").is_none());
    assert!(world.client(id).get(b"/ab/03").is_none());
    for subtree in ["/a/", "/c/", "/empty/"] {
        assert!(world.is_equal(id, 0, subtree), "{subtree}");
        let synced = world.events(id).iter().filter(|event| {
            matches!(event, Event::Synced { subtree: synced, .. } if **synced == *subtree.as_bytes())
        });
        assert_eq!(synced.count(), 1, "{subtree}");
    }
    let states: Vec<_> = world.client(id).status().map(|status| status.state).collect();
    assert_eq!(states, [SubtreeState::Current; 3]);

    world.forget(id);
    world.broker_set(0, "/a/new", b"1");
    world.broker_set(0, "/b/new", b"2");
    world.broker_delete(0, "/c/02");
    world.broker_set(0, "/empty/no/more", b"3");
    world.until("the last one is there", |world| world.value(id, "/empty/no/more").is_some());
    let told: Vec<String> = world.events(id).iter().map(describe).collect();
    assert_eq!(told, ["/a/new = 1", "/c/02 gone: Deleted", "/empty/no/more = 3"]);
    // Heartbeats prove that nothing is missing, of each subtree.
    let verified = world.client(id).stats().verified;
    world.until("heartbeats have proved it", |world| {
        world.client(id).stats().verified >= verified + 6
    });
    assert!(world.client(id).is_current());
    assert_eq!(world.client(id).stats().gaps, 0);
}

fn describe(event: &Event) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match event {
        Event::Updated { key, value, .. } => format!("{} = {}", text(key), text(value)),
        Event::Deleted { key, why } => format!("{} gone: {why:?}", text(key)),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_end_of_a_snapshot_comes_after_what_it_brought() {
    let mut world = World::new(1, Backend::ZmqPoll);
    let here = world.endpoint(Transport::Inproc);
    let there = world.bind(0, &here, broker());
    for n in 0..300 {
        world.broker_set(0, &format!("/{n:03}"), b"v");
    }
    let id = world.join(0, &there, client(&["/"]));
    world.until_current(&[id]);
    let events = world.events(id);
    let synced = events.iter().position(|event| matches!(event, Event::Synced { .. })).unwrap();
    let updated = events.iter().filter(|event| matches!(event, Event::Updated { .. })).count();
    assert_eq!((synced, updated), (300, 300), "each key once, then the end");
}

#[test]
fn the_client_may_be_there_before_the_broker() {
    for transport in [Transport::Inproc, Transport::Ipc, Transport::Tcp] {
        let mut world = World::new(2, Backend::ZmqPoll);
        // Over tcp a wildcard cannot be connected to: take ports that were free.
        let there = match transport {
            Transport::Tcp => {
                let there = world.bind(0, &world.endpoint(transport), broker());
                world.kill_broker(0);
                there
            }
            _ => world.endpoint(transport),
        };
        let id = world.join(1, &there, client(&["/a/"]));
        let early = world.set(id, "/a/early", "made before there was a broker");
        for _ in 0..20 {
            world.turn();
        }
        assert!(!world.client(id).is_current());
        assert_eq!(world.client(id).get_local(b"/a/early").map(<[u8]>::len), Some(30));
        assert_eq!(world.value(id, "/a/early"), None, "nobody has confirmed it");
        world.until("the endpoint is free", |world| world.try_bind(0, &there, broker()).is_ok());
        world.until_applied(id, early);
        world.until_equal(&[id], 0, "/a/");
        assert_eq!(map_of(world.client(id), "").len(), 1);
    }
}

#[test]
fn a_client_that_left_hears_nothing_and_keeps_its_map() {
    let mut world = World::new(1, Backend::Epoll);
    let here = world.endpoint(Transport::Inproc);
    let there = world.bind(0, &here, broker());
    let (stays, leaves) =
        (world.join(0, &there, client(&[""])), world.join(0, &there, client(&[""])));
    world.broker_set(0, "/a", b"1");
    world.until_equal(&[stays, leaves], 0, "");
    world.leave(leaves);
    world.forget(leaves);
    world.broker_set(0, "/a", b"2");
    world.until_equal(&[stays], 0, "");
    assert!(world.events(leaves).is_empty());
    assert_eq!(world.value(leaves, "/a").as_deref(), Some("1"));
    let refused = world.set_for(leaves, "/a", b"3", None).unwrap_err();
    assert_eq!(refused, pollux::clone::client::SetError::NotStarted);
}
