//! Unmodified clients of RFC 12 over a pair of our brokers, and at relays:
//! `tests/interop/client.py`, which sends each change to both over PUB, asks each server at
//! most twice, and ends with an error at whatever would stop a program of the ZeroMQ Guide.
//!
//! They need python3 with pyzmq. Without it these tests say so and pass, unless
//! `POLLUX_INSIST_INTEROP=1` is set.
#![cfg(feature = "cli")]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::process::Command;

use common::{Broker, Process, free_endpoint, has_pyzmq, wait_until};
use serde_json::{Value, json};

/// A client of RFC 12 that knows both servers.
struct Old {
    process: Process,
    name: String,
    /// Changes it has sent.
    sent: usize,
    /// What came before it could send, which may be that it is live.
    early: VecDeque<Value>,
}

impl Old {
    fn start(name: &str, servers: &[String]) -> Old {
        let mut command = Command::new("python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/client.py"));
        servers.iter().for_each(|server| _ = command.args(["--connect", server]));
        command.args(["--collector", "sub", "--silence", "4", "--quiet"]);
        let mut process = Process::spawn(command);
        let mut early = VecDeque::new();
        // Before all have subscribed, a PUB drops what is for the others.
        let mut left = servers.len();
        while left > 0 {
            let event: Value = serde_json::from_str(&process.line()).expect("an event");
            match event["event"] == "writable" {
                true => left -= 1,
                false => early.push_back(event),
            }
        }
        Old { process, name: name.to_owned(), sent: 0, early }
    }

    fn command(&mut self, command: &Value) {
        self.process.write(format!("{command}\n").as_bytes());
    }

    /// The next event of this name.
    fn event(&mut self, name: &str) -> Value {
        loop {
            let early = self.early.pop_front();
            let event = early
                .unwrap_or_else(|| serde_json::from_str(&self.process.line()).expect("an event"));
            assert_ne!(event["event"], "timeout", "{}: {event}", self.name);
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Sets so many new keys to `x`, and returns when they have left.
    fn set(&mut self, count: usize) {
        for number in self.sent..self.sent + count {
            let key = format!("/{}/{number}", self.name);
            self.command(&json!({"set": {"key": key, "value64": "eA=="}}));
        }
        self.sent += count;
        (0..count).for_each(|_| _ = self.event("set"));
    }

    fn keys(&self) -> impl Iterator<Item = String> {
        (0..self.sent).map(|number| format!("/{}/{number}", self.name))
    }

    fn dump(&mut self) -> BTreeMap<String, String> {
        self.command(&json!({"dump": true}));
        serde_json::from_value(self.event("dump")["map"].clone()).expect("a map of texts")
    }

    /// It has found nothing wrong.
    fn quit(mut self) {
        self.command(&json!({"quit": true}));
        let finished = self.process.finish();
        assert_eq!(finished.code(), Some(0), "{}: {}", self.name, finished.stderr());
    }
}

fn start(own: &str, seat: &str, peer: &str) -> Broker {
    // At the default heartbeat: none but the kill shall end in a takeover, on a busy
    // machine either.
    let pair = ["--pair", seat, "--peer", peer, "--collector", "sub"];
    Broker::start_at(own, &pair)
}

#[test]
fn nothing_that_rfc_12_clients_set_is_lost_when_the_active_is_killed() {
    if !has_pyzmq() {
        return;
    }
    let endpoints = [free_endpoint(), free_endpoint()];
    let mut active = start(&endpoints[0], "primary", &endpoints[1]);
    let standby = start(&endpoints[1], "backup", &endpoints[0]);
    wait_until(&endpoints[0], "active with a standby", |status| {
        status["role"] == "active" && status["standby"] == "live"
    });
    let mut clients = ["left", "middle", "right"].map(|name| Old::start(name, &endpoints));
    clients.iter_mut().for_each(|client| client.set(100));
    wait_until(&endpoints[1], "up to date", |status| status["followed"] == 300);

    // At full speed, of which the active passes on what it comes to.
    clients.iter_mut().for_each(|client| client.set(200));
    active.process.signal("KILL");
    active.process.wait();
    // While there is no active: only the standby hears of these, and keeps them.
    clients.iter_mut().for_each(|client| client.set(50));
    // Nobody but these clients asks: their requests are held, and are the vote.
    for client in &mut clients {
        client.event("silence");
        let synced = client.event("synced");
        assert_eq!(synced["server"], endpoints[1].as_str(), "{synced}");
    }
    let expected: usize = clients.iter().map(|client| client.sent).sum();
    let status = wait_until(&endpoints[1], "active with all", |status| {
        status["role"] == "active" && status["keys"] == expected
    });
    // Each has one sequence: those of the active that it followed, and its own.
    let number = |name: &str| status[name].as_u64().expect("a number");
    assert_eq!(number("followed") + number("changes_applied"), expected as u64, "{status:#}");
    assert!(number("ring_applied") >= 150, "{status:#}");
    assert_eq!(number("ring_dropped"), 0, "{status:#}");
    assert_eq!(number("syncs"), 1, "{status:#}");

    clients.iter_mut().for_each(|client| client.set(20));
    let all: Vec<String> = clients.iter().flat_map(Old::keys).collect();
    wait_until(&endpoints[1], "going on", |status| status["keys"] == all.len());
    let state = standby.pollux(["dump"]).success();
    let entry = |line: &str| {
        let entry: Value = serde_json::from_str(line).expect("a line of a dump");
        assert_eq!(entry["value"], "x");
        (entry["key"].as_str().expect("text").to_owned(), entry["sequence"].as_u64())
    };
    let state: BTreeMap<_, _> = state.lines().map(entry).collect();
    assert!(all.iter().all(|key| state.contains_key(key)), "a change is lost");
    let last = state.values().max().expect("there are some").expect("a number");
    for client in &mut clients {
        client.command(&json!({"wait": {"sequence": last, "seconds": 30}}));
        client.event("waited");
        assert!(client.dump().keys().eq(state.keys()), "{}: another map", client.name);
    }
    clients.into_iter().for_each(Old::quit);
}

#[test]
fn rfc_12_clients_of_relays_see_and_change_what_the_broker_has() {
    if !has_pyzmq() {
        return;
    }
    let fast = ["--heartbeat", "100ms", "--collector", "sub"];
    let upstream = Broker::start(&fast);
    upstream.pollux(["set", "/before", "x"]).success();
    let relay = |upstream: &str| Broker::start(&[&["--follow", upstream], &fast[..]].concat());
    let near = relay(&upstream.endpoint);
    let far = relay(&near.endpoint);
    for relay in [&near, &far] {
        wait_until(&relay.endpoint, "a relay", |status| status["upstream"] == "live");
    }
    let mut clients = [("left", &near), ("right", &far)]
        .map(|(name, relay)| Old::start(name, std::slice::from_ref(&relay.endpoint)));
    for client in &mut clients {
        client.event("live");
        client.set(100);
    }
    wait_until(&upstream.endpoint, "up to date", |status| status["keys"] == 201);
    let status = wait_until(&far.endpoint, "up to date", |status| status["keys"] == 201);
    let last = upstream.pollux(["set", "/after", "x", "--json"]).success();
    let last: Value = serde_json::from_str(&last).expect("an object");
    let mut keys: Vec<String> = clients.iter().flat_map(Old::keys).collect();
    keys.extend(["/before".to_owned(), "/after".to_owned()]);
    keys.sort();
    for client in &mut clients {
        client.command(&json!({"wait": {"sequence": last["sequence"], "seconds": 30}}));
        client.event("waited");
        let map = client.dump();
        assert!(map.keys().eq(&keys), "{}: {map:?}\n{status:#}", client.name);
    }
    clients.into_iter().for_each(Old::quit);
    let applied = wait_until(&upstream.endpoint, "at rest", |_| true);
    assert_eq!(applied["changes_applied"], 202, "each once");
}
