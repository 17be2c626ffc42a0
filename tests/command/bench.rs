//! `bench`.

use std::time::Instant;

use pollux::node::Endpoints;
use serde_json::Value;

use crate::common::{Broker, DEADLINE, pollux};

fn check(figures: &Value, producers: u64, watchers: u64) {
    assert_eq!(figures["producers"], producers);
    assert_eq!(figures["watchers"], watchers);
    assert!(figures["updates"].as_u64() > Some(0), "{figures}");
    assert!(figures["updates_per_second"].as_u64() > Some(0), "{figures}");
    for kind in ["one_by_one", "load"] {
        let at = |name: &str| figures["round_trip_ns"][kind][name].as_u64().expect("a number");
        assert!(at("count") > 0, "{figures}");
        let rising = [at("p50"), at("p90"), at("p99"), at("p99.9"), at("max")];
        assert!(rising.is_sorted(), "{figures}");
        assert!(rising[0] > 1_000, "no round trip takes less than a microsecond: {figures}");
    }
    // None, unless a watcher starves.
    assert!(figures["losses"].is_u64(), "{figures}");
}

#[test]
fn it_measures_a_broker_of_its_own() {
    let figures = pollux(["bench", "--seconds", "1", "--json", "--value-size", "800"]).success();
    check(&serde_json::from_str(&figures).expect("an object"), 1, 1);
}

#[test]
fn it_measures_a_broker_elsewhere_and_leaves_nothing_behind() {
    let broker = Broker::start(&[]);
    broker.pollux(["set", "/mine", "1"]).success();
    let args = ["bench", "--seconds", "1", "--json", "--producers", "2", "--watchers", "2"];
    let figures = broker.pollux([&args[..], &["--keys", "100", "--window", "50"]].concat());
    let figures: Value = serde_json::from_str(&figures.success()).expect("an object");
    check(&figures, 2, 2);
    assert_eq!(broker.pollux(["dump"]).success().lines().count(), 1, "what was there before");
    let status = broker.pollux(["status", "--json"]).success();
    let status: Value = serde_json::from_str(&status).expect("an object");
    // All were applied, and each of the 200 keys deleted.
    let applied = figures["updates"].as_u64().expect("a number") + 1 + 200;
    assert_eq!(status["changes_applied"], applied);
}

#[test]
fn its_table_is_for_people() {
    let table = pollux(["bench", "--seconds", "1", "--watchers", "0"]).success();
    for what in [
        "updates",
        "/s",
        "p99.9",
        "one at a time",
        "window 1,000",
        "losses",
        "messages_received",
        "changes_applied",
        "faults        none",
        "a minute",
        "descriptors",
    ] {
        assert!(table.contains(what), "{what:?} is missing in\n{table}");
    }
    assert!(!table.contains("visits"), "{table}");
}

#[test]
fn it_draws_the_histograms_of_both_round_trips() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("out.svg");
    let name = file.to_str().expect("text");
    let table =
        pollux(["bench", "--seconds", "1", "--watchers", "0", "--rate", "500", "--plot", name]);
    assert!(table.success().contains("500/s"));
    let picture = std::fs::read_to_string(&file).expect("a picture");
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"), "{picture}");
    for what in ["one at a time", "500/s", "p50 ", "p99 ", "p99.9 ", "max "] {
        assert!(picture.contains(what), "{what:?} is missing in\n{picture}");
    }
    // Refused before anything is measured.
    let nowhere = directory.path().join("none/out.svg");
    let args = ["bench", "--plot", nowhere.to_str().expect("text")];
    assert!(pollux(args).failure(4).contains("none/out.svg"));
}

#[test]
fn a_rate_is_what_is_set_and_no_more() {
    let figures =
        pollux(["bench", "--seconds", "2", "--json", "--rate", "400", "--producers", "2"]);
    let figures: Value = serde_json::from_str(&figures.success()).expect("an object");
    check(&figures, 2, 1);
    // For a second and a half; what was late is made up for.
    let count = figures["round_trip_ns"]["load"]["count"].as_u64();
    assert!((1..=650).contains(&count.expect("a count")), "{figures}");
}

/// A soak that is short, so that its memory is shown and not judged.
const SOAK: [&str; 8] = ["bench", "--json", "--seconds", "3", "--churn", "2", "--rate", "1000"];

#[test]
fn a_soak_has_clients_that_come_and_go_and_leaves_nothing_behind() {
    let figures = pollux(SOAK.iter().chain(&["--keys", "200"])).success();
    let figures: Value = serde_json::from_str(&figures).expect("an object");
    check(&figures, 1, 1);
    let visits = figures["visits"].as_u64().expect("a number");
    assert!(visits >= 2, "{figures}");
    assert_eq!(figures["expiring"], visits * 20);
    assert!(figures["visit_entries"].as_u64() > Some(0), "{figures}");
    let broker = &figures["events"]["broker"];
    assert_eq!(broker["expired"], figures["expiring"], "{figures}");
    assert!(broker["snapshots_done"].as_u64() >= Some(visits), "{figures}");
    assert!(figures["events"]["clients"]["turns"].as_u64() > Some(0), "{figures}");
    assert_eq!(figures["faults"], serde_json::json!({}));
    let descriptors = &figures["descriptors"];
    assert!(descriptors["before"].as_u64() > Some(10), "{figures}");
    assert!(descriptors["after"].as_u64() <= descriptors["before"].as_u64(), "{figures}");
    if cfg!(target_os = "linux") {
        assert!(figures["memory"]["samples"].as_u64() > Some(5), "{figures}");
        assert!(figures["memory"]["kib_a_minute"].is_number(), "{figures}");
    }
}

#[test]
fn a_soak_fails_for_a_bad_message_and_says_so() {
    let broker = Broker::start(&[]);
    let bench = broker.client(SOAK);
    let changes = Endpoints::from_first(&broker.endpoint).expect("its own").changes;
    let push = zmq::Context::new().socket(zmq::PUSH).expect("a socket");
    push.connect(&changes).expect("an endpoint");
    // Once it has begun, whatever comes is counted to it.
    let deadline = Instant::now() + DEADLINE;
    loop {
        let status = broker.pollux(["status", "--json"]).success();
        let status: Value = serde_json::from_str(&status).expect("an object");
        if status["changes_applied"].as_u64() > Some(0) {
            break;
        }
        assert!(Instant::now() < deadline, "nothing was changed: {status}");
    }
    push.send("no change", 0).expect("room");
    let finished = bench.finish();
    let error = finished.failure(4);
    assert!(error.contains("the soak failed: broker: changes_malformed 1"), "{error}");
    let figures: Value = serde_json::from_str(&finished.stdout()).expect("an object");
    assert_eq!(figures["faults"]["broker: changes_malformed"], 1);
}
