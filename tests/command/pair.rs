//! Clients of two brokers, one of which is killed.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Broker, DEADLINE, Finished, Process, pollux};

/// Two brokers at paths in a directory of their own, and what to connect to.
struct Pair {
    primary: Option<Broker>,
    backup: Broker,
    connect: String,
    /// Removed at the end.
    _directory: tempfile::TempDir,
}

impl Pair {
    /// Both stand, and the standby has the state.
    fn start() -> Pair {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| format!("ipc://{}", directory.path().join(name).display());
        let (a, b) = (at("a"), at("b"));
        let start = |own: &str, seat, peer: &str| {
            Broker::start_at(own, &["--pair", seat, "--peer", peer, "--heartbeat", "100ms"])
        };
        let (primary, backup) = (start(&a, "primary", &b), start(&b, "backup", &a));
        let pair = Pair {
            primary: Some(primary),
            backup,
            connect: format!("{a},{b}"),
            _directory: directory,
        };
        // Until there is one, it says that there is none.
        let deadline = Instant::now() + DEADLINE;
        loop {
            let set = pair.pollux(&["set", "/first", "1", "--wait", "safe"]);
            set.success();
            if set.stderr().is_empty() {
                return pair;
            }
            assert!(Instant::now() < deadline, "{}", set.stderr());
        }
    }

    fn pollux(&self, args: &[&str]) -> Finished {
        let connect = ["--connect", &self.connect, "--timeout", "30s"];
        pollux([args, &connect].concat())
    }

    fn kill_primary(&mut self) {
        let broker = self.primary.take().expect("it was not killed before");
        broker.process.signal("KILL");
        drop(broker);
    }
}

#[test]
fn what_was_safe_is_there_when_the_active_was_killed() {
    let mut pair = Pair::start();
    for n in 0..4 {
        pair.pollux(&["set", &format!("/a/{n}"), "before", "--wait", "safe"]).success();
    }
    let mut watch = Process::start(["watch", "/a/", "--connect", &pair.connect]);
    pair.kill_primary();
    pair.pollux(&["set", "/a/0", "after"]).success();
    for n in 1..4 {
        assert_eq!(pair.pollux(&["get", &format!("/a/{n}")]).success(), "before");
    }
    assert_eq!(pair.pollux(&["get", "/a/0"]).success(), "after");
    pair.pollux(&["del", "/a/1", "--wait", "safe"]).success();
    assert_eq!(pair.pollux(&["get", "/a/1"]).code(), Some(1));
    pair.pollux(&["set", "/a/last", "last"]).success();
    while watch.line() != "/a/last = last" {}
}

/// With several servers each complaint names the one that it is about.
#[test]
fn of_several_servers_the_one_that_is_meant_is_named() {
    let mut pair = Pair::start();
    let (a, b) = pair.connect.split_once(',').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let mut watch = Process::start(["watch", "--no-initial", "--connect", &pair.connect]);
    // It is there once it tells of a change.
    let deadline = Instant::now() + DEADLINE;
    while watch.stdout.next(Duration::from_millis(50)).is_none() {
        pair.pollux(&["set", "/a", "1"]).success();
        assert!(Instant::now() < deadline, "no line came: {}", watch.stderr.seen());
    }
    pair.kill_primary();
    let lost = watch.complaint("silent");
    assert_eq!(lost, format!("pollux: the broker at {a} is silent; the others are asked, too"));
    assert_eq!(watch.complaint("current"), format!("pollux: the broker at {b} is current again"));
    let set = pair.pollux(&["set", "/a", "1", "--wait", "safe"]);
    set.success();
    assert!(
        set.stderr().contains(&format!("is lost with the broker at {b} (")),
        "{}",
        set.stderr()
    );
    pair.backup.process.signal("KILL");
    let none = pollux(["get", "/a", "--connect", &pair.connect, "--timeout", "1s"]).failure(3);
    assert!(none.contains(&format!("none of the brokers at {a}, {b} serves")), "{none}");
}

#[test]
fn each_server_of_a_list_shows_its_status() {
    let pair = Pair::start();
    let lines = pair.pollux(&["status", "--json"]).success();
    let roles: Vec<String> = lines
        .lines()
        .map(|line| {
            let figures: Value = serde_json::from_str(line).expect("an object");
            figures["role"].as_str().expect("a role").to_owned()
        })
        .collect();
    assert_eq!(roles, ["active", "passive"]);
    let backup = pair.backup.endpoint.clone();
    assert!(lines.contains(&backup), "{lines}");
}

#[test]
fn a_standby_alone_is_called_one() {
    let pair = Pair::start();
    for args in [&["get", "/first"][..], &["set", "/a", "1"], &["dump"]] {
        let finished =
            pollux([args, &["--connect", &pair.backup.endpoint, "--timeout", "1s"]].concat());
        let complaint = finished.failure(3);
        assert!(complaint.contains("is the standby of a pair; name both"), "{complaint}");
    }
}

#[test]
fn lines_are_loaded_until_they_are_safe() {
    let pair = Pair::start();
    let lines: String =
        (0..5000).map(|n| format!("{{\"key\":\"/l/{n}\",\"value\":\"x\"}}\n")).collect();
    let mut load = Process::start([
        "load",
        "-",
        "--wait",
        "safe",
        "--json",
        "--connect",
        &pair.connect,
        "--timeout",
        "30s",
    ]);
    load.write(lines.as_bytes());
    let done: Value = serde_json::from_str(load.finish().success().trim()).expect("an object");
    assert_eq!(done["applied"], 5000);
}

#[test]
fn without_a_pair_what_is_applied_is_soon_safe() {
    let broker = Broker::start(&["--heartbeat", "50ms"]);
    let set = broker.pollux(["set", "/a", "1", "--wait", "safe"]);
    set.success();
    // But no safer than that, which must not be kept quiet.
    assert!(set.stderr().contains("applied, but there is no standby"), "{}", set.stderr());
    assert_eq!(broker.pollux(["get", "/a"]).success(), "1");
    let load = broker.pipe(["load", "--wait", "safe"], b"{\"key\":\"/b\",\"value\":\"1\"}\n");
    load.success();
    assert!(load.stderr().contains("there is no standby"), "{}", load.stderr());
    let set = broker.pollux(["set", "/a", "2"]);
    assert_eq!((set.success(), set.stderr()), (String::new(), String::new()));
}

/// Appends a line to `log` for each step; the first one waits for `gate` in between.
#[test]
fn commands_of_changes_of_role_run_in_order_one_at_a_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (a, b) = (format!("ipc://{}", path("a")), format!("ipc://{}", path("b")));
    let (gate, log) = (path("gate"), path("log"));
    let made = std::process::Command::new("mkfifo").arg(&gate).status().expect("mkfifo");
    assert!(made.success());
    let on_active = format!("echo noise; echo start >> {log}; read x < {gate}; echo up >> {log}");
    let on_passive = format!("echo noise; echo $POLLUX_ROLE >> {log}; echo x > {gate}");
    let pair = |seat, peer: &str| {
        ["--json", "--heartbeat", "50ms", "--pair", seat, "--peer", peer].map(str::to_owned)
    };
    let mut args = pair("primary", &b).to_vec();
    args.extend(["--on-active".to_owned(), on_active, "--on-passive".to_owned(), on_passive]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut primary = Broker::start_at(&a, &args);
    let role = |broker: &mut Broker, role: &str| loop {
        // Each line is ours: what commands print goes to stderr.
        let line: Value = serde_json::from_str(&broker.process.line()).expect("an object");
        if line["role"] == role {
            break;
        }
    };
    role(&mut primary, "active");
    let args = pair("backup", &a);
    let mut backup = Broker::start_at(&b, &args.each_ref().map(String::as_str));
    role(&mut backup, "passive");
    let deadline = Instant::now() + DEADLINE;
    while pollux(["promote", "--connect", &b]).code() != Some(0) {
        assert!(Instant::now() < deadline, "the standby is not there");
    }
    role(&mut primary, "passive");
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    // The first still stands at the gate; opened from outside, the second may begin. That
    // in turn opens it for whoever reads next, which is us.
    std::fs::write(&gate, "x\n").expect("somebody reads it");
    assert_eq!(std::fs::read_to_string(&gate).expect("somebody writes to it"), "x\n");
    assert_eq!(lines(), "start\nup\npassive\n");
    primary.process.complaint("noise");
}

#[test]
fn a_standby_that_stands_still_lags_in_changes_and_in_milliseconds() {
    let pair = Pair::start();
    let active = pair.primary.as_ref().expect("it runs");
    let backup = &pair.backup;
    let wait_for = |broker: &Broker, what: &str, is_so: &dyn Fn(u64, u64) -> bool| {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = broker.pollux(["status", "--json"]).success();
            let status: Value = serde_json::from_str(&status).expect("an object");
            let lag = status["lag_changes"].as_u64().zip(status["lag_ms"].as_u64());
            if lag.is_some_and(|(changes, ms)| is_so(changes, ms)) {
                return;
            }
            assert!(Instant::now() < deadline, "not {what}: {status:#}");
        }
    };
    let has_none: &dyn Fn(u64, u64) -> bool = &|changes, ms| (changes, ms) == (0, 0);
    wait_for(active, "without a lag", has_none);
    wait_for(backup, "without a lag", has_none);
    backup.process.signal("STOP");
    for n in 0..3 {
        active.pollux(["set", &format!("/lag/{n}"), "x"]).success();
    }
    wait_for(active, "behind by three", &|changes, ms| changes == 3 && ms >= 100);
    let text = active.pollux(["status"]).success();
    for name in ["lag_changes", "lag_ms"] {
        let line = text.lines().find(|line| line.starts_with(name)).expect("a line");
        assert_ne!(line.split_whitespace().last(), Some("0"), "{text}");
    }
    backup.process.signal("CONT");
    wait_for(active, "caught up", has_none);
    wait_for(backup, "caught up", has_none);
}
