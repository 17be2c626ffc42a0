//! Clients that join while a writer writes as fast as it can: none misses an
//! update, none sees a key go back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use pollux::clone::client::{Event, SubtreeState};
use pollux::node::{BrokerNode, Endpoints};
use pollux::reactor::Backend;
use pollux::socket::{Socket, SocketType};
use pollux::{Flow, Reactor};

use crate::world::{Id, Transport, World, broker, client, map_of, state_of};

const WAVES: usize = 20;
const WAVE: usize = 50;
const KEYS: u64 = 60;

/// Keys in two subtrees; the value is the number of the write, so that a key
/// that goes back can be seen.
fn write(number: u64) -> (String, String) {
    let key = number.wrapping_mul(7) % KEYS;
    (format!("/{}/{key:02}", ["a", "b"][(key % 2) as usize]), number.to_string())
}

/// No key went back, and no loss was noticed: nothing was lost.
fn check_events(world: &World, id: Id) {
    let mut newest: HashMap<&[u8], u64> = HashMap::new();
    for event in world.events(id) {
        match event {
            Event::Updated { key, value, .. } => {
                let number = std::str::from_utf8(value).unwrap().parse().unwrap();
                let before = newest.insert(key, number).unwrap_or(0);
                assert!(number > before, "{key:?} went from {before} to {number}");
            }
            Event::Synced { .. } => {}
            other => panic!("a client that only joins was told {other:?}"),
        }
    }
    let stats = world.client(id).stats();
    assert_eq!((stats.gaps, stats.resyncs, stats.malformed), (0, 0, 0), "{stats:?}");
    assert_eq!(stats.snapshots, 1, "joined once: {stats:?}");
}

const SUBTREES: [&str; 3] = ["", "/a/", "/b/"];

#[test]
fn a_thousand_joins_on_one_loop_with_the_writer() {
    let mut world = World::new(1, Backend::Epoll);
    let here = world.endpoint(Transport::Inproc);
    let there = world.bind(0, &here, broker());
    let mut number = 0;
    for wave in 0..WAVES {
        let ids: Vec<Id> =
            (0..WAVE).map(|n| world.join(0, &there, client(&[SUBTREES[n % 3]]))).collect();
        // Writes between all steps of all joins, and for a while after.
        let mut after = 50;
        while after > 0 {
            for _ in 0..4 {
                number += 1;
                let (key, value) = write(number);
                world.broker_set(0, &key, value.as_bytes());
            }
            world.turn();
            after -= usize::from(ids.iter().all(|&id| world.client(id).is_current()));
            assert!(number < 1_000_000, "wave {wave} does not become current");
        }
        for (n, &id) in ids.iter().enumerate() {
            world.until_equal(&[id], 0, SUBTREES[n % 3]);
            check_events(&world, id);
        }
        ids.iter().for_each(|&id| world.leave(id));
    }
    assert_eq!(world.broker(0).stats().snapshots_done, (WAVES * WAVE) as u64);
}

/// A broker and a writer, each on its own thread, over tcp.
struct Elsewhere {
    endpoints: Endpoints,
    /// Writes made so far.
    written: Arc<AtomicU64>,
    /// Writes that all who follow have seen.
    followed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    broker: thread::JoinHandle<BrokerNode>,
    writer: thread::JoinHandle<()>,
}

/// Changes that may be under way: as fast as everybody can take them, and no
/// queue that hides the joins behind minutes of backlog.
const UNDER_WAY: u64 = 1000;

fn elsewhere() -> Elsewhere {
    let context = zmq::Context::new();
    let node = BrokerNode::bind(&context, "tcp://127.0.0.1:*", broker()).unwrap();
    let endpoints = node.endpoints().clone();
    let stop = Arc::new(AtomicBool::new(false));
    let (written, followed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let broker = {
        let (stop, written) = (stop.clone(), written.clone());
        thread::spawn(move || {
            let mut reactor = Reactor::new().unwrap();
            let mut node = node;
            BrokerNode::attach(&mut reactor, &mut node, |node| node).unwrap();
            reactor.on_error(|_: &mut BrokerNode, _: &mut _, error| panic!("{error}") as Flow);
            loop {
                reactor.turn(&mut node, std::time::Duration::from_millis(1)).unwrap();
                let done = node.machine().stats().changes_applied;
                if stop.load(Ordering::Acquire) && done == written.load(Ordering::Acquire) {
                    return node;
                }
            }
        })
    };
    let writer = {
        let (stop, written, followed) = (stop.clone(), written.clone(), followed.clone());
        let changes = endpoints.changes.clone();
        thread::spawn(move || {
            let push = Socket::builder(SocketType::Push).connect(&changes).build(&context).unwrap();
            let mut number = 0_u64;
            while !stop.load(Ordering::Acquire) {
                if number >= followed.load(Ordering::Relaxed) + UNDER_WAY {
                    thread::yield_now();
                    continue;
                }
                let (key, value) = write(number + 1);
                let uuid = u128::from(number + 1).to_be_bytes();
                let frames: [&[u8]; 5] = [key.as_bytes(), &[0; 8], &uuid, b"", value.as_bytes()];
                if push.send(&frames[..]).is_ok() {
                    number += 1;
                    written.store(number, Ordering::Release);
                } else {
                    thread::yield_now();
                }
            }
        })
    };
    Elsewhere { endpoints, written, followed, stop, broker, writer }
}

/// The highest write that a client has seen.
fn seen(world: &World, id: Id) -> u64 {
    let number = |value: &[u8]| std::str::from_utf8(value).unwrap().parse().unwrap();
    world.client(id).iter(b"").map(|entry| number(entry.value)).max().unwrap_or(0)
}

#[test]
fn joins_against_a_writer_on_another_thread() {
    const WAVE: usize = 10;
    const WAVES: usize = 30;
    let elsewhere = elsewhere();
    let mut world = World::new(1, Backend::ZmqPoll);
    let follower = world.join(0, &elsewhere.endpoints.snapshots, client(&[""]));
    let follow = |world: &World| {
        elsewhere.followed.store(seen(world, follower), Ordering::Relaxed);
        elsewhere.written.load(Ordering::Relaxed)
    };
    let mut stayed = Vec::new();
    for wave in 0..WAVES {
        let ids: Vec<Id> = (0..WAVE)
            .map(|n| world.join(0, &elsewhere.endpoints.snapshots, client(&[SUBTREES[n % 3]])))
            .collect();
        let mut goal = None;
        world.until("they have joined and followed for a while", |world| {
            let written = follow(world);
            let are_current = ids.iter().all(|&id| world.client(id).is_current());
            let goal = goal.get_or_insert(u64::MAX);
            if are_current && *goal == u64::MAX {
                *goal = written + 200;
            }
            ids.iter().all(|&id| seen(world, id) >= *goal)
        });
        for (n, &id) in ids.iter().enumerate() {
            assert!(world.client(id).status().all(|s| s.state == SubtreeState::Current));
            check_events(&world, id);
            if wave % 10 == 0 && n < 3 {
                stayed.push((id, SUBTREES[n % 3]));
            } else {
                world.leave(id);
            }
        }
    }
    elsewhere.stop.store(true, Ordering::Release);
    elsewhere.writer.join().unwrap();
    // Its sockets are still open when it comes back, so what it has sent arrives.
    let node = elsewhere.broker.join().unwrap();
    for (id, subtree) in stayed.into_iter().chain([(follower, "")]) {
        let expected = state_of(node.machine(), subtree);
        world.until("the last update has arrived", |world| {
            map_of(world.client(id), subtree) == expected
        });
        check_events(&world, id);
    }
}
