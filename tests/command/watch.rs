//! `watch`.

use serde_json::{Value, json};

use crate::common::{Broker, Process};

#[test]
fn the_state_comes_first_in_order_then_each_change() {
    let broker = Broker::start(&[]);
    broker.pollux(["set", "/b", "2"]).success();
    broker.pollux(["set", "/a", "1"]).success();
    let mut watch = broker.client(["watch"]);
    assert_eq!(watch.line(), "/a = 1");
    assert_eq!(watch.line(), "/b = 2");
    broker.pollux(["set", "/c", "3\n\u{1b}[2J"]).success();
    assert_eq!(watch.line(), "/c = 3\\n\\u{1b}[2J", "one line, harmless to a terminal");
    broker.pollux(["del", "/a"]).success();
    assert_eq!(watch.line(), "/a deleted");
}

#[test]
fn only_the_subtree_only_changes_and_only_so_many() {
    let broker = Broker::start(&[]);
    broker.pollux(["set", "/a/old", "1"]).success();
    let mut watch = broker.client(["watch", "/a/", "--no-initial", "--count", "2", "-v"]);
    // A change that comes before this would be part of the state.
    watch.complaint("the state is there: 1 key");
    for (key, value) in [("/b/x", "1"), ("/a/x", "2"), ("/ab", "3"), ("/a/old", "4"), ("/a/y", "5")]
    {
        broker.pollux(["set", key, value]).success();
    }
    assert_eq!(watch.line(), "/a/x = 2");
    assert_eq!(watch.line(), "/a/old = 4");
    assert_eq!(watch.finish().success(), "", "two lines were asked for");
}

#[test]
fn json_lines_have_all_there_is() {
    let broker = Broker::start(&[]);
    let mut watch = broker.client(["watch", "--json"]);
    let set = broker.pollux(["set", "/a", "1", "--ttl", "1h", "--json"]).success();
    let set: Value = serde_json::from_str(&set).expect("an object");
    let mut line: Value = serde_json::from_str(&watch.line()).expect("an object");
    let ttl = line["ttl"].take().as_f64().expect("seconds");
    assert!((3_000.0..=3_600.0).contains(&ttl), "{ttl}");
    assert_eq!(
        line,
        json!({
            "event": "set", "key": "/a", "value": "1", "ttl": null,
            "sequence": set["sequence"], "epoch": set["epoch"], "counter": set["counter"],
        })
    );
    broker.pollux(["del", "/a"]).success();
    let line: Value = serde_json::from_str(&watch.line()).expect("an object");
    assert_eq!(line, json!({ "event": "deleted", "key": "/a", "why": "deleted" }));
}

#[test]
fn signals_end_it_in_order() {
    let broker = Broker::start(&[]);
    broker.pollux(["set", "/a", "1"]).success();
    for signal in ["INT", "TERM"] {
        let mut watch = broker.client(["watch"]);
        watch.line();
        watch.signal(signal);
        let finished = watch.finish();
        assert_eq!(finished.success(), "");
        assert_eq!(finished.stderr(), "");
    }
}

#[test]
fn a_reader_that_goes_away_is_an_ordinary_end() {
    let broker = Broker::start(&[]);
    broker.pollux(["set", "/a", "1"]).success();
    // Nothing more is written after the first line: the closed pipe itself is noticed.
    let pipeline = format!(
        "{{ {} --connect {} watch; echo \"code $?\" >&2; }} | head -n 1",
        env!("CARGO_BIN_EXE_pollux"),
        broker.endpoint
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &pipeline]);
    let finished = Process::spawn(command).finish();
    assert_eq!(finished.success(), "/a = 1\n");
    assert_eq!(finished.stderr(), "code 0\n");
}

#[test]
fn a_broker_that_is_killed_is_waited_for_and_what_changed_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = format!("ipc://{}/broker", dir.path().display());
    let broker = Broker::start_at(&endpoint, &["--heartbeat", "50ms"]);
    broker.pollux(["set", "/old", "1"]).success();
    let mut watch = broker.client(["watch"]);
    assert_eq!(watch.line(), "/old = 1");
    drop(broker);
    watch.complaint("silent; it is waited for");

    let broker = Broker::start_at(&endpoint, &["--heartbeat", "50ms"]);
    broker.pollux(["set", "/new", "2"]).success();
    // Whether the new key comes with the snapshot or after it is a matter of time.
    let mut lines = [watch.line(), watch.line()];
    lines.sort();
    assert_eq!(lines, ["/new = 2", "/old absent"]);
    watch.complaint("current again; it was restarted and began empty");
    watch.signal("TERM");
    watch.finish().success();
}

#[test]
fn it_waits_for_a_broker_that_is_not_there_yet() {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = format!("ipc://{}/broker", dir.path().display());
    let mut watch = Process::start(["watch", "--connect", &endpoint, "--timeout", "60s"]);
    let broker = Broker::start_at(&endpoint, &[]);
    broker.pollux(["set", "/a", "1"]).success();
    assert_eq!(watch.line(), "/a = 1");
}
