//! Relays between the clients and the broker, each killed in its turn.

use serde_json::Value;

use crate::clients::{Clients, check};
use crate::common::{Broker, Process, free_endpoint, pollux, wait_until};
use crate::pair::{Pair, State};

/// A relay that can be killed and started again at its place.
struct Relay {
    endpoint: String,
    args: Vec<String>,
    broker: Option<Broker>,
}

impl Relay {
    fn start(upstream: &str, args: &[&str]) -> Relay {
        let args = ["--follow", upstream, "--heartbeat", "100ms"].into_iter().chain(args.to_vec());
        let args = args.map(str::to_owned).collect();
        let mut relay = Relay { endpoint: free_endpoint(), args, broker: None };
        relay.run();
        relay
    }

    fn run(&mut self) {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.broker = Some(Broker::start_at(&self.endpoint, &args));
    }

    fn kill(&mut self) {
        let mut broker = self.broker.take().expect("it runs");
        broker.process.signal("KILL");
        broker.process.wait();
    }

    fn process(&mut self) -> &mut Process {
        &mut self.broker.as_mut().expect("it runs").process
    }

    fn said(&self) -> String {
        self.broker
            .as_ref()
            .map_or("it does not run".to_owned(), |broker| broker.process.stderr.seen())
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        wait_until(&self.endpoint, what, is_so)
    }
}

fn is_current(status: &Value) -> bool {
    status["role"] == "relay" && status["upstream"] == "live" && status["lag_changes"] == 0
}

/// The whole state of a broker: each key with its sequence and value.
fn state(endpoint: &str, subtree: &[&str]) -> State {
    let args = [&["dump", "--timeout", "30s", "--connect", endpoint], subtree].concat();
    let entry = |line: &str| {
        let entry: Value = serde_json::from_str(line).expect("a line of a dump");
        let text = |name: &str| entry[name].as_str().expect("text").to_owned();
        (text("key"), (entry["sequence"].as_u64().expect("a number"), text("value")))
    };
    pollux(args).success().lines().map(entry).collect()
}

#[test]
fn clients_of_relays_lose_nothing_when_relays_and_the_active_are_killed() {
    let mut pair = Pair::start(&["--heartbeat", "100ms", "--safe", "wait"]);
    let mut relays = [(); 2].map(|()| Relay::start(&pair.list(), &[]));
    for relay in &relays {
        relay.wait_until("current", is_current);
    }
    let list = relays.iter().map(|relay| relay.endpoint.as_str()).collect::<Vec<_>>().join(",");
    let other_way = format!("{},{}", relays[1].endpoint, relays[0].endpoint);
    let places = [&*list, &*other_way];
    let mut clients = Clients::start_at(&places, &places);
    for round in 0..6 {
        let active = pair.progressing();
        match round % 3 {
            0 | 1 => {
                relays[round % 3].kill();
                pair.progressing();
                relays[round % 3].run();
            }
            _ => {
                pair.kill(active.at);
                clients.applied_above(active.epoch, &pair);
                pair.run(active.at);
            }
        }
        for relay in &relays {
            relay.wait_until("found its upstream", |status| {
                status["role"] == "relay" && status["upstream"] == "live"
            });
        }
    }
    pair.active();
    let records = clients.stop_writing();
    let expected = pair.state(pair.active().at);
    check(&records, &expected);
    for relay in &relays {
        relay.wait_until("current", is_current);
        assert!(state(&relay.endpoint, &[]) == expected, "{}", relay.said());
    }
    clients.compare(expected);
}

#[test]
fn a_relay_whose_upstream_is_lost_goes_on_and_what_waits_is_not_lost() {
    let endpoint = free_endpoint();
    let start = |endpoint: &str| Broker::start_at(endpoint, &["--heartbeat", "50ms"]);
    let mut upstream = start(&endpoint);
    upstream.pollux(["set", "/a", "1"]).success();
    let mut relay = Relay::start(&endpoint, &[]);
    let status = relay.wait_until("current", is_current);
    assert_eq!(status["upstream_at"], endpoint.as_str());
    assert_eq!(status["lag_ms"], 0);
    let at_relay = |args: &[&str]| {
        pollux([args, &["--connect", &relay.endpoint, "--timeout", "30s"]].concat())
    };
    assert_eq!(at_relay(&["get", "/a"]).success(), "1");
    at_relay(&["set", "/b", "2"]).success();
    assert_eq!(upstream.pollux(["get", "/b"]).success(), "2");
    let before = state(&endpoint, &[]);
    assert_eq!(state(&relay.endpoint, &[]), before, "with the sequences of the upstream");

    upstream.process.signal("KILL");
    upstream.process.wait();
    let lost = wait_until(&relay.endpoint, "lost", |status| status["upstream"] == "lost");
    assert!(lost["lag_ms"].as_u64() > Some(0), "{lost}");
    assert_eq!(state(&relay.endpoint, &[]), before, "it serves what it has");
    let waits =
        Process::start(["set", "/c", "3", "--connect", &relay.endpoint, "--timeout", "30s"]);
    wait_until(&relay.endpoint, "keeping the change", |status| status["forwards_unsent"] == 1);

    // Without its state: another epoch, in which only what waited is there.
    let upstream = start(&endpoint);
    waits.finish().success();
    relay.wait_until("current", is_current);
    let after = state(&endpoint, &[]);
    assert_eq!(after.keys().collect::<Vec<_>>(), ["/c"]);
    assert_eq!(state(&relay.endpoint, &[]), after);
    drop(upstream);
    relay.process().complaint("is lost");
}

#[test]
fn a_relay_of_a_subtree_has_that_and_refuses_other_keys() {
    let upstream = Broker::start(&["--heartbeat", "50ms"]);
    for key in ["/a/1", "/a/b/1", "/c/1"] {
        upstream.pollux(["set", key, "x"]).success();
    }
    let relay = Relay::start(&upstream.endpoint, &["--subtree", "/a/"]);
    relay.wait_until("current", is_current);
    let behind = Relay::start(&relay.endpoint, &["--subtree", "/a/b/"]);
    behind.wait_until("current", is_current);
    let at = |endpoint: &str, args: &[&str]| {
        pollux([args, &["--connect", endpoint, "--timeout", "10s"]].concat())
    };
    at(&relay.endpoint, &["set", "/a/2", "y"]).success();
    at(&behind.endpoint, &["set", "/a/b/2", "z"]).success();
    let refused = at(&relay.endpoint, &["set", "/c/2", "z"]).failure(4);
    assert!(refused.contains("outside of the subtree that this relay has"), "{refused}");
    relay.wait_until("counted", |status| {
        status["changes_outside"] == 1 && status["changes_reserved"] == 0
    });
    // What it cannot have it does not call missing.
    let has_only = format!("the relay at {} has only the subtree \"/a/\"", relay.endpoint);
    for args in [
        &["get", "/c/1"][..],
        &["del", "/c/1"],
        &["del", "--subtree", "/c/"],
        &["dump", "/c/"],
        &["watch", "/c/"],
    ] {
        let complaint = at(&relay.endpoint, args).failure(4);
        assert!(complaint.contains(&has_only), "{args:?}: {complaint}");
    }
    at(&relay.endpoint, &["get", "/a/none"]).failure(1);
    assert_eq!(at(&relay.endpoint, &["dump", "/a/none/"]).success(), "");
    upstream.pollux(["del", "/a/1"]).success();
    relay.wait_until("current", |status| is_current(status) && status["keys"] == 3);
    behind.wait_until("current", |status| is_current(status) && status["keys"] == 2);
    assert_eq!(state(&relay.endpoint, &["/a/"]), state(&upstream.endpoint, &["/a/"]));
    assert_eq!(state(&behind.endpoint, &["/a/b/"]), state(&upstream.endpoint, &["/a/b/"]));
    assert_eq!(state(&relay.endpoint, &[]), state(&upstream.endpoint, &["/a/"]));
}

#[test]
fn relays_that_would_go_in_a_circle_are_refused() {
    let [a, b] = [free_endpoint(), free_endpoint()];
    let itself = pollux(["broker", "--bind", &a, "--follow", &a]).failure(2);
    assert!(itself.contains("is this relay itself"), "{itself}");
    let start = |at: &str, upstream: &str| {
        Broker::start_at(at, &["--follow", upstream, "--heartbeat", "100ms"])
    };
    let (mut a, mut b) = (start(&a, &b), start(&b, &a));
    a.process.complaint("circle");
    b.process.complaint("circle");
    let status =
        wait_until(&a.endpoint, "refusing", |status| status["loops_refused"].as_u64() > Some(0));
    assert_eq!((&status["role"], &status["state"]), (&"passive".into(), &"none".into()));
}
