//! `status`, and servers that have none.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::common::{Broker, DEADLINE, pollux};

#[test]
fn the_broker_tells_all_its_figures() {
    let broker = Broker::start(&["--collector", "sub", "--max-value", "5000"]);
    broker.pollux(["set", "/a", "123"]).success();
    let status: Value =
        serde_json::from_str(&broker.pollux(["status", "--json"]).success()).expect("an object");
    for (name, value) in
        [("chp", 2), ("keys", 1), ("maxval", 5000), ("maxkey", 255), ("changes_applied", 1)]
    {
        assert_eq!(status[name], value, "{name}");
    }
    assert_eq!(status["role"], "active");
    assert_eq!(status["collector"], "sub");
    assert_eq!(status["node"].as_str().map(str::len), Some(16));
    assert!(status["bytes"].as_u64() >= Some(5));

    let table = broker.pollux(["status"]).success();
    let names: Vec<_> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let object = status.as_object().expect("an object");
    assert_eq!(names.len(), object.len());
    assert!(names.iter().all(|name| object.contains_key(*name)), "{table}");
    assert!(table.lines().any(|line| line.split_whitespace().eq(["keys", "1"])), "{table}");
}

/// The names of a broker's figures.
fn names(broker: &Broker) -> Vec<String> {
    let status = broker.pollux(["status", "--json"]).success();
    let status: Value = serde_json::from_str(&status).expect("an object");
    status.as_object().expect("an object").keys().cloned().collect()
}

#[test]
fn the_help_explains_each_figure_under_the_kind_of_broker_that_has_it() {
    let help = pollux(["status", "--help"]).success();
    let is_heading = |line: &str| line.ends_with(':') && !line.starts_with(' ');
    // All words below one of these headings.
    let explained = |headings: &[&str]| -> Vec<String> {
        let mut is_in = false;
        let mut words = Vec::new();
        for line in help.lines() {
            if is_heading(line) {
                is_in = headings.contains(&line);
            } else if line.is_empty() {
                is_in = false;
            } else if is_in {
                let of_line = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                words.extend(of_line.map(str::to_owned));
            }
        }
        words
    };
    const ALL: [&str; 3] = ["What it is:", "What it holds:", "Counts:"];
    const BOTH: &str = "Of a pair or a relay:";
    let check = |broker: &Broker, headings: &[&str]| {
        let words = explained(&[&ALL[..], headings].concat());
        for name in names(broker) {
            assert!(words.contains(&name), "{name} is missing under {headings:?}");
        }
    };
    let lone = Broker::start(&[]);
    check(&lone, &[]);
    let relay = Broker::start(&["--follow", &lone.endpoint, "--subtree", "/a/"]);
    relay.pollux(["dump"]).success();
    check(&relay, &[BOTH, "Of a relay:"]);
    let words = explained(&["What it is:"]);
    assert!(["active", "relay", "passive"].iter().all(|role| words.iter().any(|w| w == role)));
    let pair = Broker::start(&["--pair", "primary", "--peer", &relay.endpoint]);
    check(&pair, &[BOTH, "Of a pair:"]);
    assert!(names(&relay).iter().any(|name| name == "subtree"));
}

/// Heartbeats of RFC 12, one to each of so many who subscribe.
fn rfc12_heartbeats(context: &zmq::Context, endpoint: &str, mut count: u32) -> JoinHandle<()> {
    let publisher = context.socket(zmq::XPUB).expect("a socket");
    publisher.set_xpub_verbose(true).expect("it is one");
    publisher.set_rcvtimeo(DEADLINE.as_millis() as i32).expect("it is one");
    publisher.bind(&format!("{endpoint}-updates")).expect("it is free");
    thread::spawn(move || {
        while let Ok(subscription) = publisher.recv_bytes(0) {
            if subscription.starts_with(b"\x01HUGZ") {
                let frames: [&[u8]; 5] = [b"HUGZ", &[0, 0, 0, 0, 0, 0, 0, 1], b"", b"", b""];
                publisher.send_multipart(frames, 0).expect("somebody listens");
                count -= 1;
                if count == 0 {
                    return;
                }
            }
        }
    })
}

#[test]
fn a_server_of_rfc_12_has_no_status() {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = format!("ipc://{}/server", dir.path().display());
    let context = zmq::Context::new();
    let snapshots = context.socket(zmq::ROUTER).expect("a socket");
    snapshots.bind(&endpoint).expect("it is free");
    let server = rfc12_heartbeats(&context, &endpoint, 2);
    let complaint = pollux(["status", "--connect", &endpoint, "--timeout", "60s"]).failure(4);
    assert!(complaint.contains("speaks plain RFC 12"), "{complaint}");
    assert!(complaint.contains("pollux dump --connect"), "{complaint}");
    let complaint = pollux(["promote", "--connect", &endpoint, "--timeout", "60s"]).failure(4);
    assert!(complaint.contains("speaks plain RFC 12"), "{complaint}");
    server.join().expect("it heard the subscriptions");
    let stray = snapshots.poll(zmq::POLLIN, 0).expect("it can be asked");
    assert_eq!(stray, 0, "a question that it does not know would stop such a server");
}

#[test]
fn a_broker_that_does_not_answer_is_not_waited_for_without_end() {
    let broker = Broker::start(&[]);
    broker.process.signal("STOP");
    let timeout = Duration::from_millis(200);
    let complaint = pollux([
        "status",
        "--connect",
        &broker.endpoint,
        "--timeout",
        &format!("{}ms", timeout.as_millis()),
    ])
    .failure(3);
    assert!(complaint.contains("no broker answered"), "{complaint}");
    broker.process.signal("CONT");
}
