//! `broker`: its lines, its limits, its end.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::common::{Broker, DEADLINE, POLLUX, Process, pollux};

#[test]
fn it_says_where_it_listens() {
    let mut process = Process::start(["broker", "--bind", "tcp://127.0.0.1:*"]);
    let line = process.line();
    let port: u16 = line
        .strip_prefix("listening on tcp://127.0.0.1:")
        .and_then(|rest| rest.split(' ').next())
        .and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));
    let expected = format!(
        "listening on tcp://127.0.0.1:{port} (updates tcp://127.0.0.1:{}, changes tcp://127.0.0.1:{})",
        port + 1,
        port + 2
    );
    assert_eq!(line, expected);
    let broker = Broker::start(&["--json"]);
    broker.pollux(["set", "/a", "1"]).success();
}

#[test]
fn ctrl_c_and_sigterm_end_it_in_order() {
    for signal in ["INT", "TERM"] {
        let broker = Broker::start(&[]);
        broker.pollux(["set", "/a", "1"]).success();
        broker.process.signal(signal);
        let finished = broker.process.finish();
        assert_eq!(finished.success(), "");
        assert_eq!(finished.stderr(), "");
    }
}

#[test]
fn an_orderly_end_leaves_no_socket_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = || std::fs::read_dir(directory.path()).expect("it is there").count();
    let endpoint = format!("ipc://{}/state", directory.path().display());
    let broker = Broker::start_at(&endpoint, &[]);
    broker.pollux(["set", "/a", "1"]).success();
    assert_eq!(files(), 3);
    broker.process.signal("TERM");
    broker.process.finish().success();
    assert_eq!(files(), 0);
    // After a kill they are left, and the next one takes their place.
    Broker::start_at(&endpoint, &[]).process.signal("KILL");
    let broker = Broker::start_at(&endpoint, &["--snapshot-hwm", "10", "--updates-hwm", "10"]);
    broker.pollux(["set", "/a", "1"]).success();
    assert_eq!(broker.pollux(["get", "/a"]).success(), "1");
    broker.process.signal("INT");
    broker.process.finish().success();
    assert_eq!(files(), 0);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    // The kernel may give the two to two threads at the same moment; then both are the
    // first. That is rare, so that it does not happen ten times in a row.
    let ended_at_once = (0..10).any(|_| {
        let code = code_after_two_signals();
        assert!(matches!(code, Some(0 | 130 | 143)), "{code:?}");
        code != Some(0)
    });
    assert!(ended_at_once);
}

/// Stopped, it gets both before it can do anything about the first.
fn code_after_two_signals() -> Option<i32> {
    let broker = Broker::start(&[]);
    broker.process.signal("STOP");
    let deadline = Instant::now() + DEADLINE;
    while broker.process.state() != 'T' {
        assert!(Instant::now() < deadline, "it does not stop");
        std::thread::yield_now();
    }
    broker.process.signal("TERM");
    broker.process.signal("INT");
    broker.process.signal("CONT");
    broker.process.finish().code()
}

#[test]
fn a_taken_port_is_named_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("it has one").port();
    let endpoint = format!("tcp://127.0.0.1:{port}");
    let complaint = pollux(["broker", "--bind", &endpoint]).failure(4);
    for what in [&*endpoint, "in use", "--bind", "stop the"] {
        assert!(complaint.contains(what), "{what:?} is missing in {complaint}");
    }
}

#[test]
fn a_running_broker_is_found_to_be_in_the_way() {
    let broker = Broker::start(&[]);
    let complaint = pollux(["broker", "--bind", &broker.endpoint]).failure(4);
    assert!(complaint.contains(&broker.endpoint), "{complaint}");
}

#[test]
fn an_address_of_ipv6_stands_in_brackets() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6: not tested");
        return;
    }
    let broker = Broker::start_at("tcp://[::1]:*", &[]);
    assert!(broker.endpoint.starts_with("tcp://[::1]:"), "{}", broker.endpoint);
    broker.pollux(["set", "/a", "1"]).success();
    assert_eq!(broker.pollux(["get", "/a"]).success(), "1");
    assert!(broker.pollux(["status"]).success().contains("changes_applied"));
    let relay = Broker::start_at("tcp://[::1]:*", &["--follow", &broker.endpoint]);
    assert_eq!(relay.pollux(["get", "/a"]).success(), "1");
}

#[test]
fn an_interface_is_not_named_but_its_address() {
    let complaint = pollux(["broker", "--bind", "tcp://no-such-interface:5556"]).failure(4);
    let remedy = "bind to an IPv4 address of this machine, an IPv6 one in brackets, or * for all";
    assert!(complaint.contains(remedy), "{complaint}");
}

#[test]
fn an_address_of_somebody_else_is_refused() {
    // 192.0.2.0/24 is nobody's (RFC 5737).
    let complaint = pollux(["broker", "--bind", "tcp://192.0.2.1:5556"]).failure(4);
    assert!(complaint.contains("tcp://192.0.2.1:5556"), "{complaint}");
}

#[test]
fn figures_are_printed_while_it_runs() {
    let mut broker = Broker::start(&["--stats", "20ms"]);
    broker.pollux(["set", "/a", "12345"]).success();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let line = broker.process.line();
        if line.starts_with("1 key, 7 bytes; 1 change") {
            break;
        }
        assert!(Instant::now() < deadline, "{line}");
    }
    let mut broker = Broker::start(&["--stats", "20ms", "--json"]);
    let figures: Value = serde_json::from_str(&broker.process.line()).expect("an object");
    for name in ["sequence", "keys", "bytes", "changes_per_second", "changes_applied", "heartbeats"]
    {
        assert!(figures[name].is_number(), "{name} is missing in {figures}");
    }
}

#[test]
fn it_goes_on_when_nobody_reads_its_figures() {
    let mut broker = Broker::start(&["--stats", "1ms"]);
    broker.process.close_stdout();
    broker.process.complaint("nothing more is printed");
    for value in ["1", "2", "3"] {
        broker.pollux(["set", "/a", value]).success();
    }
    broker.process.signal("TERM");
    assert_eq!(broker.process.wait().code(), Some(0));
}

#[test]
fn a_pipe_that_nobody_reads_does_not_hold_it_up() {
    let mut command = Command::new(POLLUX);
    command.args(["broker", "--bind", "tcp://127.0.0.1:*", "--stats", "1ms", "--json"]);
    let mut process =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdout = BufReader::with_capacity(1, process.stdout.take().expect("it is piped"));
    let stderr = BufReader::new(process.stderr.take().expect("it is piped"));
    let mut greeting = String::new();
    stdout.read_line(&mut greeting).expect("a line");
    let greeting: Value = serde_json::from_str(&greeting).expect("an object");
    let endpoint = greeting["listening"].as_str().expect("an endpoint");
    // The pipe, and what the broker keeps, fill up.
    let complaint = stderr.lines().next().expect("a line").expect("text");
    assert!(complaint.contains("stdout is not read"), "{complaint}");
    for value in ["1", "2", "3"] {
        pollux(["set", "/a", value, "--connect", endpoint]).success();
    }
    drop(stdout);
    process.kill().and_then(|()| process.wait()).expect("it ends");
}

#[test]
fn its_limits_are_kept_and_told() {
    let broker = Broker::start(&["--max-value", "1K", "--max-keys", "2"]);
    let at_limit = "x".repeat(1024);
    let over = "x".repeat(1025);
    let far_over = "x".repeat(100_000);
    broker.pollux(["set", "/a", &at_limit]).success();
    for value in [&over, &far_over] {
        let complaint = broker.pollux(["set", "/a", value]).failure(4);
        assert!(complaint.contains("1024"), "{complaint}");
        assert!(complaint.contains(&value.len().to_string()), "{complaint}");
    }
    assert_eq!(broker.pollux(["get", "/a"]).success(), at_limit, "it is as it was");
    broker.pollux(["set", "/b", "1"]).success();
    let complaint = broker.pollux(["set", "/c", "1"]).failure(4);
    assert!(
        complaint.contains("\"/c\": refused by the broker: the store is full (--max-keys"),
        "{complaint}"
    );
    broker.pollux(["set", "/b", "2"]).success();
    broker.pollux(["del", "/a"]).success();
    broker.pollux(["set", "/c", "1"]).success();
}

#[test]
fn the_heartbeat_is_as_told() {
    let broker = Broker::start(&["--heartbeat", "20ms"]);
    let status = broker.pollux(["status", "--json"]).success();
    let status: Value = serde_json::from_str(&status).expect("an object");
    assert_eq!(status["hb"], 20);
}
