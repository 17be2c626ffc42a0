//! What goes wrong: the exit code, and what to do about it.

use std::time::{Duration, Instant};

use crate::common::{Broker, Process, pollux};

/// An endpoint at which nobody is.
fn nowhere(dir: &tempfile::TempDir) -> String {
    format!("ipc://{}/nobody", dir.path().display())
}

#[test]
fn without_a_broker_each_command_says_how_to_get_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = nowhere(&dir);
    let file = dir.path().join("lines");
    std::fs::write(&file, "{\"key\":\"/a\",\"value\":\"1\"}\n").expect("it is ours");
    let file = file.to_str().expect("it is text");
    let commands: [&[&str]; 9] = [
        &["set", "/a", "1"],
        &["get", "/a"],
        &["del", "/a"],
        &["watch"],
        &["dump"],
        &["load", file],
        &["load", "--dir", "."],
        &["status"],
        &["bench", "--seconds", "1"],
    ];
    for command in commands {
        let args = [&["--connect", &endpoint, "--timeout", "300ms"], command].concat();
        let started = Instant::now();
        let finished = pollux(args);
        let complaint = finished.failure(3);
        assert!(started.elapsed() >= Duration::from_millis(300), "{command:?}: too early");
        let expected = format!(
            "pollux: no broker answered at {endpoint} within 300ms; start one with \
             `pollux broker --bind {endpoint}`, or name another with --connect\n"
        );
        assert!(complaint.ends_with(&expected), "{command:?}: {complaint}");
        assert!(finished.stdout.is_empty(), "{command:?}");
    }
}

#[test]
fn a_change_made_before_its_broker_is_applied_when_it_comes() {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = format!("ipc://{}/broker", dir.path().display());
    let start = |args: &[&str]| {
        Process::start([&["--connect", &endpoint, "--timeout", "60s"], args].concat())
    };
    let set = start(&["set", "/a", "early"]);
    let mut load = start(&["load"]);
    load.write(b"{\"key\":\"/b\",\"value\":\"early, too\"}\n");
    let broker = Broker::start_at(&endpoint, &[]);
    set.finish().success();
    load.finish().success();
    assert_eq!(broker.pollux(["get", "/a"]).success(), "early");
    assert_eq!(broker.pollux(["get", "/b"]).success(), "early, too");
}

#[test]
fn a_broker_that_stops_answering_leaves_the_outcome_open() {
    let broker = Broker::start(&["--heartbeat", "50ms"]);
    let args = ["--connect", &broker.endpoint, "--timeout", "1s", "load"];
    let mut load = Process::start(args);
    load.write(b"{\"key\":\"/a\",\"value\":\"1\"}\n");
    // The first record is applied: the client and its broker know each other.
    while broker.pollux(["get", "/a"]).code() != Some(0) {}
    broker.process.signal("STOP");
    load.write(b"{\"key\":\"/b\",\"value\":\"1\"}\n");
    let complaint = load.finish().failure(3);
    assert!(complaint.contains("did not confirm 1 change"), "{complaint}");
    assert!(complaint.contains("may have been applied or not"), "{complaint}");
    assert!(complaint.contains("1 key set"), "{complaint}");
    broker.process.signal("CONT");
}

#[test]
fn what_no_broker_takes_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = nowhere(&dir);
    // Nobody needs to be asked.
    for (args, reason) in [
        (&["set", "", "1"][..], "key: expected 1"),
        (&["set", "/a\u{7}", "1"], "control byte 0x07"),
        (&["set", "HUGZ", "1"], "reserved for the protocol"),
        (&["set", "/a", ""], "pollux del"),
        (&["get", ""], "key: expected 1"),
        (&["del", "KTHXBAI"], "reserved for the protocol"),
    ] {
        let args = [&["--connect", &*endpoint, "--timeout", "60s"], args].concat();
        // No broker has refused anything: it is the command line that is wrong.
        let complaint = pollux(&args).failure(2);
        assert!(complaint.contains(reason), "{args:?}: {complaint}");
    }
    // How long a key may be is the broker's to say.
    let broker = Broker::start(&[]);
    let too_long = "k".repeat(256);
    for args in [&["set", &*too_long, "1"][..], &["get", &too_long], &["del", &too_long]] {
        let complaint = broker.pollux(args).failure(2);
        assert!(complaint.contains("key: expected 1 to 255 bytes, got 256"), "{complaint}");
    }
    broker.pollux(["set", &"k".repeat(255), "1"]).success();
}

#[test]
fn a_wrong_command_line_is_explained() {
    for (args, reason) in [
        (&[][..], "Usage"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["set", "/a"], "VALUE"),
        (&["set", "/a", "1", "--ttl", "10"], "a number and a unit"),
        (&["set", "/a", "1", "--ttl", "0s"], "more than zero"),
        (&["get", "/a", "--connect", "localhost"], "tcp://HOST:PORT"),
        (&["get", "/a", "--connect", "tcp://localhost:70000"], "tcp://HOST:PORT"),
        (&["get", "/a", "--connect", "tcp://localhost:99999"], "between 1 and 65533"),
        (&["get", "/a", "--connect", "tcp://*:5556"], "no host to connect to"),
        (&["get", "/a", "--connect", "inproc://x"], "same process"),
        (&["promote", "--connect", "pollux://a:1,b:1"], "the one broker that is to become active"),
        (&["demote", "--connect", "tcp://a:1,tcp://b:1"], "that is to become passive"),
        (&["watch", "/a"], "did you mean \"/a/\"?"),
        (&["watch", "--count", "0"], "0"),
        (&["dump", "a/"], "begins and ends"),
        (&["broker", "--connect", "tcp://127.0.0.1:1"], "use --bind"),
        (&["broker", "--timeout", "1s"], "--timeout says nothing"),
        (&["--timeout", "1s", "broker"], "--timeout says nothing"),
        (
            &[
                "proxy",
                "--timeout",
                "1s",
                "--frontend",
                "rep@tcp://*:*",
                "--backend",
                "req@tcp://*:*",
            ],
            "--timeout says nothing",
        ),
        (&["broker", "--bind", "udp://x"], "not supported"),
        (&["broker", "--heartbeat", "0.5ms"], "1ms to 1h"),
        (&["broker", "--max-value", "much"], "a number of bytes"),
        (&["broker", "--max-value", "257M"], "at most 256M"),
        (&["load", "a", "--dir", "b"], "cannot be used with"),
        (&["load", "a", "--prefix", "/b/"], "cannot be used with"),
        (&["load", "--prefix", "/b/"], "--dir <DIR>"),
        (&["load", "/does/not/exist"], "/does/not/exist: No such file"),
        (&["load", "/"], "load it with --dir"),
        (&["load", "--dir", "/does/not/exist"], "/does/not/exist: no directory"),
        (&["bench", "--seconds", "0"], "0"),
    ] {
        let complaint = pollux(args).failure(2);
        assert!(complaint.contains(reason), "{args:?}: {reason:?} is missing in\n{complaint}");
    }
}
