//! `dump` and `load`: exact, whatever the bytes.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Broker, DEADLINE};

/// The lines of a dump without what differs from broker to broker.
fn lines(dump: &str) -> Vec<Value> {
    dump.lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).expect("each line is an object");
            assert!(line["sequence"].is_u64(), "{line}");
            for name in ["sequence", "epoch", "counter"] {
                line.as_object_mut().expect("an object").remove(name);
            }
            line
        })
        .collect()
}

#[test]
fn a_dump_loaded_elsewhere_is_the_same_dump() {
    let first = Broker::start(&[]);
    let second = Broker::start(&[]);
    // Each byte alone and in a row, text of all kinds, and a value over the limit of a frame.
    let mut input = String::new();
    for byte in 0..=255_u8 {
        let value = base64(&[byte, byte]);
        input.push_str(&format!("{{\"key\":\"/byte/{byte}\",\"value64\":\"{value}\"}}\n"));
    }
    input.push_str("{\"key\":\"/grüße/ключ\",\"value\":\"\\u0000\\n\\\"\\\\ \u{1f600}\"}\n");
    input.push_str("{\"key64\":\"L/8=\",\"value\":\"key of no text\"}\n");
    let large = "0123456789abcdef".repeat(50_000);
    input.push_str(&format!("{{\"key\":\"/large\",\"value\":\"{large}\"}}\n"));
    assert_eq!(first.pipe(["load", "-"], input.as_bytes()).success(), "");

    let dump = first.pollux(["dump"]).success();
    assert_eq!(dump.lines().count(), 256 + 3);
    second.pipe(["load"], dump.as_bytes()).success();
    let again = second.pollux(["dump"]).success();
    assert_eq!(lines(&again), lines(&dump));

    let got = second.pollux(["get", "/byte/255"]);
    assert_eq!((got.code(), got.stdout), (Some(0), vec![255, 255]));
    let got = second.pollux(["get", "/byte/0"]);
    assert_eq!((got.code(), got.stdout), (Some(0), vec![0, 0]));
    assert_eq!(second.pollux(["get", "/large"]).success(), large);
    let subtree = second.pollux(["dump", "/grüße/"]).success();
    assert_eq!(lines(&subtree), [json!({ "key": "/grüße/ключ", "value": "\0\n\"\\ \u{1f600}" })]);
}

#[test]
fn a_dump_is_in_order_of_keys_and_empty_without_any() {
    let broker = Broker::start(&[]);
    assert_eq!(broker.pollux(["dump"]).success(), "");
    for key in ["/b", "/a/z", "/a", "/ab"] {
        broker.pollux(["set", key, "x"]).success();
    }
    let keys: Vec<_> = lines(&broker.pollux(["dump"]).success())
        .iter()
        .map(|line| line["key"].as_str().expect("text").to_owned())
        .collect();
    assert_eq!(keys, ["/a", "/a/z", "/ab", "/b"]);
}

#[test]
fn what_remained_to_live_is_what_remains() {
    let first = Broker::start(&[]);
    let second = Broker::start(&[]);
    first.pipe(["load"], b"{\"key\":\"/a\",\"value\":\"1\",\"ttl\":3600.5}\n").success();
    let ttl = |broker: &Broker| {
        lines(&broker.pollux(["dump"]).success())[0]["ttl"].as_f64().expect("it expires")
    };
    let dump = first.pollux(["dump"]).success();
    second.pipe(["load"], dump.as_bytes()).success();
    assert!((3_000.0..=3_600.5).contains(&ttl(&second)), "{}", ttl(&second));
    assert!(ttl(&second) <= ttl(&first) + 1.0);
}

#[test]
fn many_records_are_under_way_at_a_time() {
    let broker = Broker::start(&[]);
    let mut input = String::new();
    for number in 0..30_000 {
        input.push_str(&format!("{{\"key\":\"/{}/{number}\",\"value\":\"x\"}}\n", number % 100));
    }
    // The last of several values for a key is the one that stays.
    for number in 0..1_000 {
        input.push_str(&format!("{{\"key\":\"/same\",\"value\":\"{number}\"}}\n"));
    }
    let finished = broker.pipe(["load", "--json"], input.as_bytes());
    let summary: Value = serde_json::from_str(&finished.success()).expect("an object");
    assert_eq!(
        summary,
        json!({ "applied": 31_000, "skipped": 0, "refused": 0, "invalid": 0, "unreadable": 0 })
    );
    assert_eq!(broker.pollux(["dump"]).success().lines().count(), 30_001);
    assert_eq!(broker.pollux(["get", "/same"]).success(), "999");
}

#[test]
fn a_slow_pipe_is_applied_as_it_comes() {
    let broker = Broker::start(&["--heartbeat", "50ms"]);
    // Its patience with the broker has nothing to do with that for its input.
    let mut load = broker.client(["load", "--timeout", "1s"]);
    let mut watch = broker.client(["watch"]);
    load.write(b"{\"key\":\"/a\",\"value\":\"1\"}\n{\"key\":\"/b\",");
    assert_eq!(watch.line(), "/a = 1");
    let patience = Instant::now() + Duration::from_millis(1_500);
    // Something happens meanwhile, but not for the one that loads.
    while Instant::now() < patience {
        broker.pollux(["get", "/a"]).success();
    }
    load.write(b"\"value\":\"2\"}");
    assert_eq!(load.finish().success(), "");
    assert_eq!(watch.line(), "/b = 2");
}

#[test]
fn a_bad_line_is_named_and_what_comes_before_it_is_set() {
    let broker = Broker::start(&[]);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("state.jsonl");
    let text = "{\"key\":\"/a\",\"value\":\"1\"}\n\n{\"key\":\"/b\",\"valu\":\"2\"}\n{\"key\":\"/c\",\"value\":\"3\"}\n";
    fs::write(&file, text).expect("it is ours");
    let complaint = broker.pollux(["load", file.to_str().expect("text")]).failure(2);
    assert!(complaint.contains("line 3: column 18: unknown field `valu`"), "{complaint}");
    assert!(complaint.contains("1 key set"), "{complaint}");
    assert_eq!(lines(&broker.pollux(["dump"]).success()), [json!({ "key": "/a", "value": "1" })]);
}

#[test]
fn records_that_are_refused_are_named_and_the_others_set() {
    let broker = Broker::start(&["--max-value", "10"]);
    let input = "{\"key\":\"/a\",\"value\":\"1\"}\n\
                 {\"key\":\"/b\",\"value\":\"12345678901\"}\n\
                 {\"key\":\"HUGZ\",\"value\":\"1\"}\n\
                 {\"key\":\"/c\",\"value\":\"\"}\n\
                 {\"key\":\"/d\\n\",\"value\":\"1\"}\n\
                 {\"key\":\"/e\",\"value\":\"1\"}\n";
    let too_long = "k".repeat(256);
    let input = format!("{input}{{\"key\":\"{too_long}\",\"value\":\"1\"}}\n");
    let complaint = broker.pipe(["load"], input.as_bytes()).failure(4);
    for reason in [
        "line 2: \"/b\": value: expected at most 10 bytes, got 11",
        "line 3: \"HUGZ\": key: reserved for the protocol",
        "line 4: \"/c\": an empty value is none; to delete the key use `pollux del`",
        "line 5: \"/d\\n\": key: control byte 0x0a",
        "line 7: \"kkk",
        "key: expected 1 to 255 bytes, got 256",
        "2 keys set, 1 refused, 4 invalid",
        "5 could not be set, see above; the other 2 are set",
    ] {
        assert!(complaint.contains(reason), "{reason:?} is missing in\n{complaint}");
    }
    assert_eq!(broker.pollux(["dump"]).success().lines().count(), 2);
    let finished = broker.pipe(["load", "--json"], input.as_bytes());
    finished.failure(4);
    let summary: Value = serde_json::from_str(&finished.stdout()).expect("an object");
    assert_eq!(
        summary,
        json!({ "applied": 2, "skipped": 0, "refused": 1, "invalid": 4, "unreadable": 0 })
    );
}

#[test]
fn where_nothing_can_be_set_no_others_are() {
    let broker = Broker::start(&["--max-value", "10"]);
    let input = b"{\"key\":\"/b\",\"value\":\"12345678901\"}\n";
    let complaint = broker.pipe(["load"], input).failure(4);
    assert!(complaint.contains("0 keys set, 1 refused"), "{complaint}");
    assert!(complaint.contains("1 could not be set, see above; nothing is set"), "{complaint}");
}

#[test]
fn a_broker_that_was_restarted_meanwhile_has_not_what_was_loaded() {
    let directory = tempfile::tempdir().expect("a directory");
    let endpoint = format!("ipc://{}", directory.path().join("state").display());
    let broker = Broker::start_at(&endpoint, &["--heartbeat", "50ms"]);
    let mut load = broker.client(["load"]);
    load.write(b"{\"key\":\"/a\",\"value\":\"1\"}\n");
    let deadline = Instant::now() + DEADLINE;
    while broker.pollux(["get", "/a"]).code() != Some(0) {
        assert!(Instant::now() < deadline, "it is not applied");
    }
    broker.process.signal("KILL");
    drop(broker);
    let broker = Broker::start_at(&endpoint, &["--heartbeat", "50ms"]);
    load.write(b"{\"key\":\"/b\",\"value\":\"1\"}\n");
    let complaint = load.finish().failure(3);
    assert!(complaint.contains("was restarted meanwhile"), "{complaint}");
    broker.pollux(["get", "/a"]).failure(1);
    // The same once more is what it says to do.
    let both = b"{\"key\":\"/a\",\"value\":\"1\"}\n{\"key\":\"/b\",\"value\":\"1\"}\n";
    broker.pipe(["load"], both).success();
    assert_eq!(broker.pollux(["dump"]).success().lines().count(), 2);
}

#[test]
fn a_very_long_life_stays_one() {
    let (first, second) = (Broker::start(&[]), Broker::start(&[]));
    let input = b"{\"key\":\"/a\",\"value\":\"1\",\"ttl\":1000000001}\n";
    first.pipe(["load"], input).success();
    let dump = first.pollux(["dump"]).success();
    second.pipe(["load"], dump.as_bytes()).success();
    for broker in [&first, &second] {
        let left = lines(&broker.pollux(["dump"]).success())[0]["ttl"].as_f64();
        let left = left.expect("it expires");
        assert!((999_999_000.0..=1_000_000_001.0).contains(&left), "{left}");
    }
}

#[test]
fn a_dump_into_a_closed_pipe_ends_quietly() {
    let broker = Broker::start(&[]);
    let mut input = String::new();
    for number in 0..2_000 {
        input.push_str(&format!("{{\"key\":\"/{number}\",\"value\":\"{}\"}}\n", "x".repeat(1_000)));
    }
    broker.pipe(["load"], input.as_bytes()).success();
    let pipeline = format!(
        "{{ {} --connect {} dump; echo \"code $?\" >&2; }} | head -n 1",
        env!("CARGO_BIN_EXE_pollux"),
        broker.endpoint
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &pipeline]);
    let finished = crate::common::Process::spawn(command).finish();
    assert_eq!(finished.success().lines().count(), 1);
    assert_eq!(finished.stderr(), "code 0\n");
}

/// Base64 of two bytes (RFC 4648).
fn base64(bytes: &[u8; 2]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u32::from(bytes[0]) << 10 | u32::from(bytes[1]) << 2;
    let digit = |shift: u32| char::from(ALPHABET[(bits >> shift & 63) as usize]);
    [digit(12), digit(6), digit(0), '='].iter().collect()
}
