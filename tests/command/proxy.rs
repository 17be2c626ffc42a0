//! `proxy`: what it says, what it moves, how it ends.

use std::time::Instant;

use pollux::Multipart;
use pollux::socket::{Interest, SendError, Socket, SocketType};
use serde_json::Value;

use crate::common::{Broker, DEADLINE, Process, pollux};

/// A running proxy with these arguments, and what it said at the start.
fn start(args: &[&str]) -> (Process, Value) {
    let mut process = Process::start([&["proxy", "--json"], args].concat());
    let greeting = serde_json::from_str(&process.line()).expect("a greeting");
    (process, greeting)
}

fn endpoint(greeting: &Value, socket: &str, index: usize) -> String {
    let shown = greeting[socket]["endpoints"][index].as_str();
    shown.expect("an endpoint").trim_start_matches(['@', '>']).to_owned()
}

fn connected(context: &zmq::Context, socket_type: SocketType, endpoint: &str) -> Socket {
    Socket::builder(socket_type).connect(endpoint).build(context).expect("a socket")
}

fn receive(socket: &Socket) -> Multipart {
    let started = Instant::now();
    loop {
        if let Some(message) = socket.receive_message().expect("receive") {
            return message;
        }
        let left = DEADLINE.checked_sub(started.elapsed()).expect("no message in time");
        socket.wait(Interest::READABLE, Some(left)).expect("wait");
    }
}

fn send(socket: &Socket, text: &str) {
    while let Err(error) = socket.send(text) {
        assert_eq!(error, SendError::WouldBlock);
        socket.wait(Interest::WRITABLE, Some(DEADLINE)).expect("wait");
    }
}

fn statistics(process: Process) -> Value {
    serde_json::from_str(&process.finish().success()).expect("statistics")
}

const ANY: &str = "tcp://127.0.0.1:*";

#[test]
fn it_moves_messages_until_a_signal_and_says_how_many() {
    let (frontend, backend) = (format!("router@{ANY}"), format!("dealer@{ANY}"));
    for signal in ["INT", "TERM"] {
        let (process, greeting) = start(&["--frontend", &frontend, "--backend", &backend]);
        assert_eq!(greeting["frontend"]["type"], "ROUTER");
        let context = zmq::Context::new();
        let client = connected(&context, SocketType::Req, &endpoint(&greeting, "frontend", 0));
        let worker = connected(&context, SocketType::Rep, &endpoint(&greeting, "backend", 0));
        for round in 0..10 {
            send(&client, &format!("request {round}"));
            assert_eq!(receive(&worker), Multipart::from([format!("request {round}")]));
            send(&worker, "reply");
            assert_eq!(receive(&client), Multipart::from(["reply"]));
        }
        process.signal(signal);
        let stats = statistics(process);
        assert_eq!(stats["frontend"]["messages_out"], 10);
        assert_eq!(stats["backend"]["messages_out"], 10);
        assert_eq!(stats["lost"], 0);
    }
}

#[test]
fn its_text_is_for_people() {
    let (frontend, backend) = (format!("pull@{ANY}"), format!("push@{ANY}"));
    let mut process = Process::start(["proxy", "--frontend", &frontend, "--backend", &backend]);
    let greeting = process.line();
    assert!(greeting.starts_with("frontend PULL@tcp://127.0.0.1:"), "{greeting}");
    assert!(greeting.contains(", backend PUSH@tcp://127.0.0.1:"), "{greeting}");
    process.signal("TERM");
    let finished = process.finish();
    assert_eq!(
        finished.success(),
        "to backend 0 messages (0 bytes); to frontend 0 messages (0 bytes); 0 dropped\n"
    );
    assert_eq!(finished.stderr(), "");
}

/// Several endpoints a side, some bound and some connected, over tcp and ipc.
#[test]
fn a_side_has_as_many_endpoints_as_one_likes() {
    let directory = tempfile::tempdir().expect("a directory");
    let ipc = format!("pull@ipc://{}/in", directory.path().display());
    let context = zmq::Context::new();
    let sink = Socket::builder(SocketType::Pull).bind(ANY).build(&context).expect("bound");
    let back = format!("push>{}", sink.last_endpoint().expect("an endpoint"));
    let front = format!("pull@{ANY}");
    let (process, greeting) =
        start(&["--frontend", &front, "--frontend", &ipc, "--backend", &back]);
    for index in [0, 1] {
        let source = connected(&context, SocketType::Push, &endpoint(&greeting, "frontend", index));
        send(&source, "hello");
        assert_eq!(receive(&sink), Multipart::from(["hello"]));
    }
    process.signal("TERM");
    assert_eq!(statistics(process)["backend"]["messages_out"], 2);
    let left = std::fs::read_dir(directory.path()).expect("it is there").count();
    assert_eq!(left, 0, "the socket file is still there");
}

#[test]
fn it_obeys_its_control_socket_and_tells_the_capture() {
    let (front, back) = (format!("pull@{ANY}"), format!("push@{ANY}"));
    let (control, capture) = (format!("rep@{ANY}"), format!("push@{ANY}"));
    let (process, greeting) = start(&[
        "--frontend",
        &front,
        "--backend",
        &back,
        "--control",
        &control,
        "--capture",
        &capture,
    ]);
    let context = zmq::Context::new();
    let at = |socket_type, name| connected(&context, socket_type, &endpoint(&greeting, name, 0));
    let source = at(SocketType::Push, "frontend");
    let sink = at(SocketType::Pull, "backend");
    let spy = at(SocketType::Pull, "capture");
    let req = at(SocketType::Req, "control");
    let command = |word| {
        send(&req, word);
        receive(&req)
    };
    // Until the spy is connected, copies are dropped.
    let mut sent = 0;
    let copied = loop {
        send(&source, "hello");
        sent += 1;
        assert_eq!(receive(&sink), Multipart::from(["hello"]));
        if let Some(copy) = spy.receive_message().expect("receive") {
            break copy;
        }
    };
    assert_eq!(copied, Multipart::from(["hello"]));
    assert_eq!(command("PAUSE"), Multipart::from([""]));
    assert_eq!(command("RESUME"), Multipart::from([""]));
    let told = command("STATISTICS");
    assert_eq!(told[0][..], u64::to_ne_bytes(sent)[..]);
    assert_eq!(command("TERMINATE"), Multipart::from([""]));
    let stats = statistics(process);
    assert_eq!(stats["frontend"]["messages_in"], sent);
    assert_eq!(stats["commands"], 4);
}

#[test]
fn figures_are_printed_while_it_runs() {
    let (front, back) = (format!("pull@{ANY}"), format!("push@{ANY}"));
    let args = ["--frontend", &front, "--backend", &back, "--stats", "10ms"];
    let (mut process, _) = start(&args);
    for _ in 0..3 {
        let figures: Value = serde_json::from_str(&process.line()).expect("statistics");
        assert_eq!(figures["frontend"]["messages_in"], 0);
    }
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
}

/// What nobody takes is dropped after a second and said; a router's unknown peers are
/// counted.
#[test]
fn what_is_lost_is_said() {
    let (front, back) = (format!("pull@{ANY}"), format!("push@{ANY}"));
    let args = ["--frontend", &front, "--backend", &back, "--stats", "5ms"];
    let (mut process, greeting) = start(&args);
    let context = zmq::Context::new();
    let source = connected(&context, SocketType::Push, &endpoint(&greeting, "frontend", 0));
    send(&source, "for nobody");
    loop {
        let figures: Value = serde_json::from_str(&process.line()).expect("statistics");
        if figures["backend"]["waits"] == 1 {
            break;
        }
    }
    process.signal("TERM");
    let finished = process.finish();
    let last = finished.success().lines().last().map(str::to_owned).unwrap_or_default();
    let stats: Value = serde_json::from_str(&last).expect("statistics");
    assert_eq!(stats["lost"], 1);
    assert!(finished.stderr().contains("1 messages that were not taken"), "{}", finished.stderr());
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    for (args, expected) in [
        (
            vec!["--frontend", "router@tcp://127.0.0.1:*", "--backend", "push@tcp://127.0.0.1:*"],
            "ROUTER goes with DEALER or PAIR",
        ),
        (vec!["--frontend", "router@tcp://127.0.0.1:*"], "--backend"),
        (
            vec!["--frontend", "route@tcp://127.0.0.1:*", "--backend", "push@tcp://127.0.0.1:*"],
            "expected one of router",
        ),
        (
            vec!["--frontend", "pull@inproc://a", "--backend", "push@tcp://127.0.0.1:*"],
            "same process",
        ),
        (
            vec![
                "--frontend",
                "pull@tcp://127.0.0.1:*",
                "--frontend",
                "sub@tcp://127.0.0.1:*",
                "--backend",
                "push@tcp://127.0.0.1:*",
            ],
            "all endpoints of a side",
        ),
        (
            vec![
                "--frontend",
                "pull@tcp://127.0.0.1:*",
                "--backend",
                "push@tcp://127.0.0.1:*",
                "--control",
                "router@tcp://127.0.0.1:*",
            ],
            "expected REP, PAIR, PULL or SUB",
        ),
        (
            vec![
                "--frontend",
                "pull@tcp://nowhere.invalid:x",
                "--backend",
                "push@tcp://127.0.0.1:*",
            ],
            "the port is no number",
        ),
        (
            vec!["--frontend", "pull>tcp://127.0.0.1:0", "--backend", "push@tcp://127.0.0.1:*"],
            "the port must lie between 1 and 65535",
        ),
        (
            vec!["--frontend", "pull@tcp://127.0.0.1:70000", "--backend", "push@tcp://127.0.0.1:*"],
            "the port must lie between 1 and 65535",
        ),
        (
            vec![
                "--frontend",
                "pull@ipc:///tmp/pollux-twice",
                "--backend",
                "push@ipc:///tmp/pollux-twice",
            ],
            "--backend: ipc:///tmp/pollux-twice is given for --frontend, too",
        ),
        (
            vec![
                "--connect",
                "tcp://127.0.0.1:5556",
                "--frontend",
                "pull@tcp://127.0.0.1:*",
                "--backend",
                "push@tcp://127.0.0.1:*",
            ],
            "a proxy has no broker",
        ),
    ] {
        let complaint = pollux([&["proxy"], &args[..]].concat()).failure(2);
        assert!(complaint.contains(expected), "{expected:?} is missing in {complaint}");
    }
}

#[test]
fn a_taken_port_is_named() {
    let (running, greeting) =
        start(&["--frontend", &format!("pull@{ANY}"), "--backend", &format!("push@{ANY}")]);
    let taken = endpoint(&greeting, "backend", 0);
    let args =
        ["proxy", "--frontend", &format!("pull@{ANY}"), "--backend", &format!("push@{taken}")];
    let complaint = pollux(args).failure(4);
    assert!(complaint.contains("--backend") && complaint.contains(&taken), "{complaint}");
    drop(running);
}

/// For each of its sockets: libzmq would take the path away from whoever listens there.
#[test]
fn a_path_of_somebody_else_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let taken = format!("ipc://{}/state", directory.path().display());
    let broker = Broker::start_at(&taken, &[]);
    for (option, socket_type) in
        [("--frontend", "pull"), ("--backend", "push"), ("--capture", "pub"), ("--control", "rep")]
    {
        let socket = format!("{socket_type}@{taken}");
        let (front, back) = (format!("pull@{ANY}"), format!("push@{ANY}"));
        let mut args = vec!["proxy", option, &socket];
        if option != "--frontend" {
            args.extend(["--frontend", &front]);
        }
        if option != "--backend" {
            args.extend(["--backend", &back]);
        }
        let complaint = pollux(args).failure(4);
        let expected = format!("{option}: bind {taken}: Address already in use");
        assert!(complaint.contains(&expected), "{complaint}");
    }
    broker.pollux(["set", "/a", "1"]).success();
    // Nor is anything left of what was bound before it was noticed.
    let front = format!("pull@ipc://{}/front", directory.path().display());
    pollux(["proxy", "--frontend", &front, "--backend", &format!("push@{taken}")]).failure(4);
    assert!(!directory.path().join("front").exists());
    // What a process that was killed has left is in nobody's way.
    broker.process.signal("KILL");
    drop(broker);
    let front = format!("pull@{taken}");
    let (process, _) = start(&["--frontend", &front, "--backend", &format!("push@{ANY}")]);
    process.signal("TERM");
    statistics(process);
}

#[test]
fn it_goes_on_when_nobody_reads_its_figures() {
    let (front, back) = (format!("pull@{ANY}"), format!("push@{ANY}"));
    let args = ["--frontend", &front, "--backend", &back, "--stats", "1ms"];
    let (mut process, greeting) = start(&args);
    process.close_stdout();
    process.complaint("nothing more is printed");
    let context = zmq::Context::new();
    let source = connected(&context, SocketType::Push, &endpoint(&greeting, "frontend", 0));
    let sink = connected(&context, SocketType::Pull, &endpoint(&greeting, "backend", 0));
    send(&source, "hello");
    assert_eq!(receive(&sink), Multipart::from(["hello"]));
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
}
