//! The examples of bridges, started for real: what crosses them, and how they end.

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use common::{DEADLINE, Process};
use pollux::Multipart;
use pollux::socket::{Interest, SendError, Socket, SocketType};

/// The built examples by name. Cargo builds them with the tests, but not for a single
/// test program; so it is asked, which costs nothing if they are there.
fn start(name: &str, args: &[&str]) -> Process {
    static EXAMPLES: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
    let examples = EXAMPLES.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--examples", "--quiet", "--message-format=json"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = output.stdout.split(|byte| *byte == b'\n');
        let executable = |message: serde_json::Value| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, message["executable"].as_str()?.into()))
        };
        lines.filter_map(|line| serde_json::from_slice(line).ok()).filter_map(executable).collect()
    });
    let mut command = Command::new(&examples[name]);
    command.args(args);
    Process::spawn(command)
}

/// The two endpoints of a greeting: `from A to B`.
fn ends(process: &mut Process) -> [String; 2] {
    let line = process.line();
    let ends = line.strip_prefix("from ").and_then(|rest| rest.split_once(" to "));
    let (from, to) = ends.unwrap_or_else(|| panic!("{line}"));
    [from.to_owned(), to.to_owned()]
}

fn connected(socket_type: SocketType, endpoint: &str) -> Socket {
    let socket = Socket::builder(socket_type).linger(Duration::ZERO).connect(endpoint);
    socket.build(&zmq::Context::new()).expect("a socket")
}

fn receive(socket: &Socket) -> Multipart {
    loop {
        let ready = socket.wait(Interest::READABLE, Some(DEADLINE)).expect("wait");
        assert!(ready.readable, "no message within the deadline");
        if let Some(message) = socket.receive_message().expect("receive") {
            return message;
        }
    }
}

fn send(socket: &Socket, text: &str) {
    while let Err(error) = socket.send(text) {
        assert_eq!(error, SendError::WouldBlock);
        let ready = socket.wait(Interest::WRITABLE, Some(DEADLINE)).expect("wait");
        assert!(ready.writable, "no room within the deadline");
    }
}

#[test]
fn from_ipc_to_tcp_but_for_what_is_secret() {
    let directory = tempfile::tempdir().expect("a directory");
    let ipc = format!("ipc://{}/bridge", directory.path().display());
    for signal in ["INT", "TERM"] {
        let mut bridge = start("transport_bridge", &[&ipc, "tcp://127.0.0.1:*", "secret"]);
        let [inside, outside] = ends(&mut bridge);
        let client = connected(SocketType::Req, &inside);
        let other = connected(SocketType::Req, &inside);
        let worker = connected(SocketType::Rep, &outside);
        send(&other, "secret plan");
        for round in 0..100 {
            let text = format!("request {round}");
            send(&client, &text);
            assert_eq!(receive(&worker), Multipart::from([text.clone()]));
            send(&worker, &text);
            assert_eq!(receive(&client), Multipart::from([text]));
        }
        bridge.signal(signal);
        let said = bridge.finish().success();
        assert_eq!(said, "100 requests crossed, 100 replies came back, 1 were kept back\n");
    }
}

#[test]
fn from_a_publisher_to_whoever_has_a_tcp_connection() {
    let mut bridge = start("tcp_bridge", &["tcp://127.0.0.1:*", "127.0.0.1:0"]);
    let [publishers, address] = ends(&mut bridge);
    let publisher = connected(SocketType::XPub, &publishers);
    assert_eq!(receive(&publisher), Multipart::from(["\u{1}"]));
    let mut readers: Vec<_> = (0..3)
        .map(|_| {
            let stream = TcpStream::connect(&address).expect("connected");
            stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
            BufReader::new(stream)
        })
        .collect();
    // Until each has been accepted, which only hearing something shows.
    let mut line = String::new();
    for reader in &mut readers {
        while !line.ends_with('\n') {
            publisher.send(&["are you", "there"]).expect("room");
            // What came of a line before the time was over stays in it.
            let _ = reader.read_line(&mut line);
        }
        assert_eq!(line, "are you there\n");
        line.clear();
    }
    publisher.send(&["the", "end"]).expect("room");
    for reader in &mut readers {
        reader.get_ref().set_read_timeout(Some(DEADLINE)).expect("a timeout");
        while line != "the end\n" {
            line.clear();
            assert!(reader.read_line(&mut line).expect("a line") > 0, "cut off");
        }
        line.clear();
    }
    bridge.signal("TERM");
    assert_eq!(bridge.finish().success(), "3 peers are here, 0 were cut off\n");
}
