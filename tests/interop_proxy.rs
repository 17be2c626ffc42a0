//! `pollux proxy` between clients and workers that are not ours: pyzmq, by
//! `tests/interop/proxied.py`, which checks what it gets.
//!
//! They need python3 with pyzmq. Without it these tests say so and pass, unless
//! `POLLUX_INSIST_INTEROP=1` is set.
#![cfg(feature = "cli")]

mod common;

use std::process::Command;

use common::{Process, has_pyzmq};
use serde_json::Value;

fn spawn(args: &[&str]) -> Process {
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/proxied.py")).args(args);
    Process::spawn(command)
}

/// What a scenario prints when it has found nothing wrong.
fn scenario(args: &[&str]) -> Value {
    serde_json::from_str(&spawn(args).finish().success()).expect("an object")
}

/// A running proxy, and where its sockets are.
struct Proxy {
    process: Process,
    greeting: Value,
}

impl Proxy {
    fn start(frontend: &str, backend: &str, more: &[&str]) -> Proxy {
        let sides = ["proxy", "--json", "--frontend", frontend, "--backend", backend];
        let mut process = Process::start([&sides, more].concat());
        let greeting = serde_json::from_str(&process.line()).expect("a greeting");
        Proxy { process, greeting }
    }

    fn endpoint(&self, socket: &str) -> String {
        let shown = self.greeting[socket]["endpoints"][0].as_str().expect("an endpoint");
        shown.trim_start_matches(['@', '>']).to_owned()
    }

    /// Ends it by a signal; its statistics.
    fn end(self) -> Value {
        self.process.signal("TERM");
        serde_json::from_str(&self.process.finish().success()).expect("statistics")
    }
}

const ROUTER: &str = "router@tcp://127.0.0.1:*";
const DEALER: &str = "dealer@tcp://127.0.0.1:*";

#[test]
fn requests_and_replies() {
    if !has_pyzmq() {
        return;
    }
    let proxy = Proxy::start(ROUTER, DEALER, &[]);
    let (front, back) = (proxy.endpoint("frontend"), proxy.endpoint("backend"));
    let result = scenario(&["request-reply", &front, &back]);
    for worker in ["rep", "dealer"] {
        assert!(result["served"][worker].as_u64() > Some(300), "{result}");
    }
    let stats = proxy.end();
    for side in ["frontend", "backend"] {
        assert_eq!(stats[side]["messages_in"], 1002, "{stats}");
        assert_eq!(stats[side]["messages_out"], 1002, "{stats}");
    }
}

#[test]
fn publishers_and_subscribers() {
    if !has_pyzmq() {
        return;
    }
    let proxy = Proxy::start("xsub@tcp://127.0.0.1:*", "xpub@tcp://127.0.0.1:*", &[]);
    let (front, back) = (proxy.endpoint("frontend"), proxy.endpoint("backend"));
    assert_eq!(scenario(&["publish-subscribe", &front, &back])["received"], 500);
    proxy.end();
}

#[test]
fn producers_and_consumers_with_a_capture() {
    if !has_pyzmq() {
        return;
    }
    let more = ["--capture", "push@tcp://127.0.0.1:*"];
    let proxy = Proxy::start("pull@tcp://127.0.0.1:*", "push@tcp://127.0.0.1:*", &more);
    let mut spy = spawn(&["capture", &proxy.endpoint("capture"), "500"]);
    let (front, back) = (proxy.endpoint("frontend"), proxy.endpoint("backend"));
    assert_eq!(scenario(&["pipeline", &front, &back])["received"], 1000);
    // The spy may have come late, so more copies than it waits for are made for it.
    while !spy.has_ended() {
        assert_eq!(scenario(&["pipeline", &front, &back])["received"], 1000);
    }
    spy.finish().success();
    let stats = proxy.end();
    let (captured, missed) = (stats["captured"].as_u64(), stats["capture_drops"].as_u64());
    assert!(captured >= Some(500), "{stats}");
    assert_eq!(captured.zip(missed).map(|(a, b)| a + b), stats["frontend"]["messages_in"].as_u64());
}

#[test]
fn libzmqs_own_words() {
    if !has_pyzmq() {
        return;
    }
    let proxy = Proxy::start(ROUTER, DEALER, &["--control", "rep@tcp://127.0.0.1:*"]);
    let (front, back) = (proxy.endpoint("frontend"), proxy.endpoint("backend"));
    scenario(&["request-reply", &front, &back]);
    let told = scenario(&["control", &proxy.endpoint("control")]);
    // It was told to end, and does without a signal.
    let stats: Value = serde_json::from_str(&proxy.process.finish().success()).expect("statistics");
    let mut expected = Vec::new();
    for side in ["frontend", "backend"] {
        for name in ["messages_in", "bytes_in", "messages_out", "bytes_out"] {
            expected.push(stats[side][name].clone());
        }
    }
    assert_eq!(told["statistics"], Value::from(expected));
    assert_eq!(stats["commands"], 4);
}
