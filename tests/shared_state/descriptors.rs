//! No descriptors left: an error that says so, and loops that go on.
//!
//! One thing is out of reach: libzmq 4.3.4 aborts the process if the *first*
//! socket of a context is made when two to four descriptors are left, which is
//! too few for the epolls of its threads (epoll.cpp). With fewer or more it
//! gives an error.

use std::fs::File;
use std::process::Command;

use pollux::clone::client::Event;
use pollux::node::{BrokerNode, BrokerOptions};
use pollux::reactor::Backend;

use crate::world::{Transport, World, broker, client};

/// Set in the process that has few descriptors.
const MARK: &str = "POLLUX_TEST_FEW_DESCRIPTORS";

/// A limit holds for a whole process: the test runs itself again in a shell
/// that has lowered it. Gives what it said.
fn with_few_descriptors(test: &str, body: fn()) -> Option<String> {
    if std::env::var_os(MARK).is_some() {
        body();
        return None;
    }
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg(format!("descriptors::{test}"))
        .env(MARK, "1")
        .output()
        .unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|s| String::from_utf8(s).unwrap());
    assert!(output.status.success() && out.contains("1 passed"), "{}: {out}{err}", output.status);
    Some(out)
}

/// Takes all descriptors there are.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
fn a_socket_that_cannot_be_made_says_why() {
    let said = with_few_descriptors("a_socket_that_cannot_be_made_says_why", || {
        let mut world = World::new(1, Backend::ZmqPoll);
        let here = world.endpoint(Transport::Inproc);
        let there = world.bind(0, &here, broker());
        let id = world.join(0, &there, client(&[""]));
        world.until_current(&[id]);

        let taken = take_all();
        let endpoint = world.endpoint(Transport::Inproc);
        let bind =
            |world: &World| BrokerNode::bind(&world.context, &endpoint, BrokerOptions::default());
        println!("told: {}", bind(&world).unwrap_err());

        // What is there works on.
        let uuid = world.set(id, "/a", "without another descriptor");
        world.until_applied(id, uuid);

        // And when there are descriptors again, so does what is new.
        drop(taken);
        world.until("there are descriptors again", |world| bind(world).is_ok());
    });
    if let Some(said) = said {
        let told = said.lines().find(|line| line.contains("told: ")).expect("the error");
        assert!(told.contains("open files") && told.contains("ulimit -n"), "{told}");
    }
}

#[test]
fn a_client_that_cannot_ask_asks_again() {
    with_few_descriptors("a_client_that_cannot_ask_asks_again", || {
        let mut world = World::new(2, Backend::Epoll);
        let here = world.endpoint(Transport::Inproc);
        let mut options = broker();
        options.updates_hwm = 10;
        let there = world.bind(0, &here, options);
        let mut options = client(&["/a/"]);
        options.updates_hwm = 10;
        let id = world.join(1, &there, options);
        world.until_current(&[id]);

        // It misses something, and has no socket to ask for it.
        let mut taken = take_all();
        world.hold(1, true);
        for n in 0..100 {
            world.broker_set(0, &format!("/a/{n}"), b"v");
        }
        world.hold(1, false);
        world.until("the gap is noticed", |world| {
            world.has(id, |event| matches!(event, Event::Gap { .. }))
        });
        let asked = world.client(id).stats().requests;
        world.until("it has tried again", |world| {
            // The socket of its last request is closed now, which frees one
            // descriptor: with luck it gets that before we do.
            taken.extend(take_all());
            world.client(id).stats().requests > asked || world.client(id).is_current()
        });
        drop(taken);
        world.until_equal(&[id], 0, "/a/");
    });
}
