//! `bench`.

use serde_json::Value;

use crate::common::{Broker, pollux};

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
    for what in ["updates", "/s", "p99.9", "one at a time", "window 1,000", "losses"] {
        assert!(table.contains(what), "{what:?} is missing in\n{table}");
    }
}
