//! `set`, `get`, `del`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use serde_json::Value;

use crate::common::{Broker, pollux};

#[test]
fn a_key_is_set_read_and_deleted() {
    let broker = Broker::start(&[]);
    assert_eq!(broker.pollux(["set", "/a", "some text"]).success(), "");
    assert_eq!(broker.pollux(["get", "/a"]).success(), "some text", "no byte more");
    assert_eq!(broker.pollux(["set", "/a", "other"]).success(), "");
    assert_eq!(broker.pollux(["get", "/a"]).success(), "other");
    assert_eq!(broker.pollux(["del", "/a"]).success(), "");
    let missing = broker.pollux(["get", "/a"]);
    assert_eq!(missing.failure(1), "pollux: \"/a\" is not there\n");
    assert!(missing.stdout.is_empty());
    assert_eq!(broker.pollux(["del", "/a"]).failure(1), "pollux: \"/a\" is not there\n");
}

#[test]
fn a_key_is_not_taken_for_another_that_begins_so() {
    let broker = Broker::start(&[]);
    broker.pollux(["set", "/a/b", "longer"]).success();
    broker.pollux(["get", "/a"]).failure(1);
    broker.pollux(["get", "/a/"]).failure(1);
    broker.pollux(["del", "/a/"]).failure(1);
    assert_eq!(broker.pollux(["get", "/a/b"]).success(), "longer");
}

#[test]
fn keys_and_values_are_any_bytes() {
    let broker = Broker::start(&[]);
    let key = || OsString::from_vec(b"/\xff\xfe".to_vec());
    let value = OsString::from_vec((1..=255).collect());
    broker.pollux(["set".into(), key(), value]).success();
    let got = broker.pollux(["get".into(), key()]);
    got.success();
    assert_eq!(got.stdout, (1..=255).collect::<Vec<u8>>());
    broker.pollux(["del".into(), key()]).success();
    let missing = broker.pollux(["get".into(), key()]).failure(1);
    assert_eq!(missing, "pollux: \"/\\xff\\xfe\" is not there\n");
}

#[test]
fn keys_of_every_length_up_to_the_limit_are_confirmed() {
    let broker = Broker::start(&[]);
    let mut input = String::new();
    let mut keys = Vec::new();
    for length in 230..=255 {
        // Without a directory, in a short one, and in one that is nearly as long.
        keys.push("k".repeat(length));
        keys.push(format!("/d/{}", "k".repeat(length - 3)));
        keys.push(format!("/{}/k", "d".repeat(length - 3)));
    }
    for key in &keys {
        input.push_str(&format!("{{\"key\":\"{key}\",\"value\":\"1\"}}\n"));
    }
    broker.pipe(["load"], input.as_bytes()).success();
    for key in keys.iter().filter(|key| [240, 241, 245, 246, 251, 252, 255].contains(&key.len())) {
        assert_eq!(broker.pollux(["get", key]).success(), "1", "{}: {key}", key.len());
        broker.pollux(["set", key, "2"]).success();
        broker.pollux(["del", key]).success();
    }
}

#[test]
fn json_tells_the_sequence_and_the_whole_record() {
    let broker = Broker::start(&[]);
    let json = |text: String| serde_json::from_str::<Value>(&text).expect("one object");
    let set = json(broker.pollux(["set", "/a", "x", "--json"]).success());
    let got = json(broker.pollux(["get", "/a", "--json"]).success());
    assert_eq!(got["key"], "/a");
    assert_eq!(got["value"], "x");
    assert_eq!(got["sequence"], set["sequence"]);
    let part = |name| set[name].as_u64().expect("a number");
    assert_eq!(part("sequence"), part("epoch") << 40 | part("counter"));
    // Which is why there are the other two.
    assert!(part("sequence") > 1 << 53);
    assert!(part("epoch").max(part("counter")) < 1 << 53);
    assert_eq!(got.get("ttl"), None, "it does not expire");
    let deleted = json(broker.pollux(["del", "/a", "--json"]).success());
    assert_eq!(deleted["sequence"].as_u64(), set["sequence"].as_u64().map(|sequence| sequence + 1));
}

#[test]
fn a_key_with_a_time_to_live_goes_by_itself() {
    let broker = Broker::start(&[]);
    let mut watch = broker.client(["watch"]);
    broker.pollux(["set", "/short", "x", "--ttl", "200ms"]).success();
    assert_eq!(watch.line(), "/short = x");
    assert_eq!(watch.line(), "/short expired");
    broker.pollux(["get", "/short"]).failure(1);

    broker.pollux(["set", "/long", "x", "--ttl", "1h"]).success();
    let got: Value = serde_json::from_str(&broker.pollux(["get", "/long", "--json"]).success())
        .expect("one object");
    let left = got["ttl"].as_f64().expect("it expires");
    assert!((3_000.0..=3_600.0).contains(&left), "{left}");
}

#[test]
fn a_value_may_be_a_negative_number_or_come_from_a_file() {
    let broker = Broker::start(&[]);
    broker.pollux(["set", "/n", "-5"]).success();
    assert_eq!(broker.pollux(["get", "/n"]).success(), "-5");
    broker.pollux(["set", "/n", "-1.5", "--ttl", "1h"]).success();
    assert_eq!(broker.pollux(["get", "/n"]).success(), "-1.5");
    broker.pollux(["set", "/n", "--", "--x"]).success();
    assert_eq!(broker.pollux(["get", "/n"]).success(), "--x");
    // Misspelt options are no values.
    broker.pollux(["set", "/n", "--tll", "1h"]).failure(2);

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("value");
    // Larger than an argument can be, and with an end that a shell would cut off.
    let large = [b"x".repeat(200_000), b"\n\n".to_vec()].concat();
    std::fs::write(&path, &large).expect("it is ours");
    let path = path.to_str().expect("text");
    broker.pollux(["set", "/f", "--file", path]).success();
    assert_eq!(broker.pollux(["get", "/f"]).stdout, large);
    broker.pipe(["set", "/s", "--file", "-"], b"from \0 stdin\n").success();
    assert_eq!(broker.pollux(["get", "/s"]).stdout, b"from \0 stdin\n");
    assert_eq!(broker.pollux(["get", "/s", "--raw"]).stdout, b"from \0 stdin\n");
    let complaint = broker.pollux(["set", "/f", "--file", "/does/not/exist"]).failure(2);
    assert!(complaint.contains("/does/not/exist: No such file"), "{complaint}");
    broker.pollux(["set", "/f", "x", "--file", path]).failure(2);
    assert!(broker.pipe(["set", "/f", "--file", "-"], b"").failure(2).contains("pollux del"));
}

#[test]
fn a_subtree_is_deleted_and_nothing_beside_it() {
    let broker = Broker::start(&[]);
    let mut input = String::new();
    for n in 0..25_000 {
        input.push_str(&format!("{{\"key\":\"/a/{n}\",\"value\":\"x\"}}\n"));
    }
    input.push_str("{\"key\":\"/ab\",\"value\":\"x\"}\n{\"key\":\"/a\",\"value\":\"x\"}\n");
    broker.pipe(["load"], input.as_bytes()).success();
    let deleted = broker.pollux(["del", "--subtree", "/a/", "--json"]).success();
    let deleted: Value = serde_json::from_str(&deleted).expect("an object");
    assert_eq!(deleted["deleted"], 25_000);
    assert_eq!(broker.pollux(["dump"]).success().lines().count(), 2);
    let none = broker.pollux(["del", "--subtree", "/a/"]).failure(1);
    assert!(none.contains("no key under \"/a/\""), "{none}");
    let one = broker.pollux(["del", "--subtree", "/", "--wait", "safe"]);
    one.success();
    assert!(one.stderr().contains("2 keys deleted"), "{}", one.stderr());
    // An empty variable is no order to delete everything.
    for wrong in [&["--subtree", ""][..], &["--subtree", "/a"], &["/a", "--subtree", "/a/"], &[]] {
        broker.pollux([&["del"], wrong].concat()).failure(2);
    }
}

#[test]
fn what_happens_is_said_when_asked_for() {
    let broker = Broker::start(&[]);
    let told = broker.pollux(["set", "/a", "x", "-v"]);
    told.success();
    for what in
        ["found the broker at tcp://", "chp=2", "of no pair", "goes to the broker", "applied"]
    {
        assert!(told.stderr().contains(what), "{what:?} is missing in {}", told.stderr());
    }
    assert!(broker.pollux(["get", "/a", "-v"]).stderr().contains("the state is there: 1 key"));
}

#[test]
fn all_works_over_ipc_and_with_either_collector() {
    let dir = tempfile::tempdir().expect("a directory");
    for collector in ["pull", "sub"] {
        let endpoint = format!("ipc://{}/{collector}", dir.path().display());
        let broker = Broker::start_at(&endpoint, &["--collector", collector]);
        assert_eq!(broker.endpoint, endpoint);
        broker.pollux(["set", "/a", "x"]).success();
        assert_eq!(broker.pollux(["get", "/a"]).success(), "x");
        broker.pollux(["del", "/a"]).success();
        broker.pollux(["get", "/a"]).failure(1);
    }
}

#[test]
fn the_help_shows_how_to_begin() {
    let help = pollux(["--help"]).success();
    for what in ["pollux broker", "pollux watch", "pollux set /greeting hello", "Exit codes"] {
        assert!(help.contains(what), "{what:?} is missing in\n{help}");
    }
    for (command, what) in [
        (&["--help"][..], "as 500ms, 10s or 1.5m"),
        (&["--help"], "which is none: 0"),
        (&["set", "--help"], "KTHXBAI, ICANHAZ?, STATUS?, UUIDS and all that begins with HUGZ"),
        (&["set", "--help"], "(1M unless its --max-value says otherwise)"),
        (&["watch", "--help"], "/key absent"),
        (&["load", "--help"], "invalid"),
        (&["proxy", "--help"], "router with dealer or pair"),
    ] {
        let help = pollux(command).success();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(what), "{what:?} is missing in {command:?}:\n{help}");
    }
    assert!(pollux(["--version"]).success().starts_with("pollux "));
}
