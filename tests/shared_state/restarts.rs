//! A broker that ends and comes back under the same endpoint, with clients
//! attached.

use std::time::Duration;

use pollux::clone::client::{Event, Why};
use pollux::reactor::Backend;

use crate::world::{Id, Transport, World, broker, client};

/// Over inproc there is no reconnecting: both ends live in one process, and
/// libzmq forgets the connection with the socket.
const RECONNECTING: [Transport; 2] = [Transport::Ipc, Transport::Tcp];

fn restart(world: &mut World, endpoint: &str) {
    world.kill_broker(0);
    // libzmq closes sockets behind our back; the endpoint is free a moment later.
    world.until("the endpoint is free", |world| world.try_bind(0, endpoint, broker()).is_ok());
}

fn resynced(event: &Event) -> bool {
    matches!(event, Event::Resync { .. })
}

#[test]
fn clients_say_so_and_converge() {
    for transport in RECONNECTING {
        let mut world = World::new(2, Backend::ZmqPoll);
        let here = world.endpoint(transport);
        let there = world.bind(0, &here, broker());
        let all = world.join(1, &there, client(&[""]));
        let part = world.join(1, &there, client(&["/a/"]));
        for n in 0..100 {
            world.broker_set(0, &format!("/{}/{n:02}", ["a", "b"][n % 2]), b"first run");
        }
        world.until_equal(&[all], 0, "");
        world.until_equal(&[part], 0, "/a/");
        let before = world.broker(0).sequence();

        restart(&mut world, &there);
        world.forget(all);
        world.forget(part);
        assert!(world.broker(0).sequence() > before, "old clients follow by the number alone");
        world.broker_set(0, "/a/new", b"second run");
        world.until("both have noticed", |world| {
            world.has(all, resynced) && world.has(part, resynced)
        });
        world.until_equal(&[all], 0, "");
        world.until_equal(&[part], 0, "/a/");
        // The new run knows nothing of the old keys: they are told to be gone.
        let absent = |world: &World, id: Id| {
            let is_absent = |e: &&Event| matches!(e, Event::Deleted { why: Why::Absent, .. });
            world.events(id).iter().filter(is_absent).count()
        };
        assert_eq!((absent(&world, all), absent(&world, part)), (100, 50));
        let synced = |event: &Event| matches!(event, Event::Synced { .. });
        assert!(world.has(all, synced) && world.has(part, synced));

        // And it goes on as before.
        let uuid = world.set(all, "/a/later", "by a client");
        world.until_applied(all, uuid);
        world.until("the other sees it", |world| world.value(part, "/a/later").is_some());
    }
}

#[test]
fn a_broker_that_is_gone_is_lost_and_then_found() {
    let mut world = World::new(2, Backend::Epoll);
    let here = world.endpoint(Transport::Tcp);
    let there = world.bind(0, &here, broker());
    let id = world.join(1, &there, client(&["/a/"]));
    world.broker_set(0, "/a/1", b"v");
    world.until_equal(&[id], 0, "/a/");
    world.kill_broker(0);
    let lost = |event: &Event| matches!(event, Event::Lost);
    world.until("silence is noticed", |world| world.has(id, lost));
    assert!(!world.client(id).is_current());
    assert!(world.client(id).broker().is_none());
    assert_eq!(world.value(id, "/a/1").as_deref(), Some("v"), "it stays readable");
    // A change made meanwhile is sent to the next run.
    let uuid = world.set(id, "/a/2", "made in the dark");
    assert_eq!(world.client(id).get_local(b"/a/2"), Some(&b"made in the dark"[..]));
    world.until("the endpoint is free", |world| world.try_bind(0, &there, broker()).is_ok());
    world.until_applied(id, uuid);
    world.until_equal(&[id], 0, "/a/");
    assert_eq!(world.events(id).iter().filter(|event| lost(event)).count(), 1, "told once");
    assert_eq!(world.client(id).len(), 1);
}

#[test]
fn many_restarts_with_writers_that_never_stop() {
    let mut world = World::new(2, Backend::ZmqPoll);
    let here = world.endpoint(Transport::Tcp);
    let there = world.bind(0, &here, broker());
    let mut options = client(&[""]);
    options.config.give_up_after = Duration::from_secs(60);
    options.config.resend_after = Duration::from_millis(50);
    let ids = [world.join(1, &there, options.clone()), world.join(1, &there, options)];
    world.until_current(&ids);
    let (mut number, mut last) = (0, world.broker(0).sequence());
    for _ in 0..5 {
        for _ in 0..200 {
            number += 1;
            let key = format!("/{}/{}", number % 2, number % 20);
            world.set(ids[number % 2], &key, &number.to_string());
            world.turn();
        }
        restart(&mut world, &there);
        assert!(world.broker(0).sequence() > last);
        world.until("they are back", |world| ids.iter().all(|&id| world.client(id).is_current()));
        last = world.broker(0).sequence();
    }
    world.until("all have their answer", |world| {
        ids.iter().all(|&id| world.client(id).pending() == 0)
    });
    world.until_equal(&ids, 0, "");
    for &id in &ids {
        let stats = world.client(id).stats();
        assert_eq!(stats.timed_out, 0, "{stats:?}");
        assert_eq!(stats.submitted, stats.confirmed + stats.superseded, "{stats:?}");
        assert!(world.has(id, resynced), "it says so");
    }
}

#[test]
fn a_taken_endpoint_is_named_with_the_remedy() {
    let mut world = World::new(2, Backend::ZmqPoll);
    let here = world.endpoint(Transport::Tcp);
    let there = world.bind(0, &here, broker());
    let error = world.try_bind(1, &there, broker()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let text = error.to_string();
    assert!(text.contains(&there) && text.contains("choose another"), "{text}");
}

/// A broker takes three ports in a row. The first of them is free here, the next is not.
#[test]
fn a_taken_neighbour_is_the_one_that_is_named() {
    // Other programs take ports, too: then the first one is named, and it is another try.
    let found = (0..100).any(|_| {
        let mut world = World::new(2, Backend::ZmqPoll);
        let here = world.endpoint(Transport::Tcp);
        let there = world.bind(0, &here, broker());
        let Some((host, port)) = there.rsplit_once(':') else { panic!("{there}") };
        let before = format!("{host}:{}", port.parse::<u16>().unwrap() - 1);
        let error = world.try_bind(1, &before, broker()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.contains(&there) || text.contains(&before), "{text}");
        text.contains(&there)
    });
    assert!(found);
}
