//! The programs of the Guide's second chapter, started for real: the built examples, as
//! processes, and what they did.
//!
//! `POLLUX_GUIDE_RUNNER="valgrind ..."` runs each under that command.

#[path = "../common/mod.rs"]
mod common;

mod endings;
mod http;
mod pipeline;
mod publishing;
mod request_reply;
mod threads;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{DEADLINE, Process};
use pollux::Multipart;
use pollux::socket::{Interest, SendError, Socket, SocketBuilder, SocketType};

/// The built examples by name. Cargo builds them with the tests, but not for a single test
/// program; so it is asked, which costs nothing if they are there.
fn examples() -> &'static HashMap<String, PathBuf> {
    static EXAMPLES: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
    EXAMPLES.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        // The profile of `cargo test`, so that they are those that it has built.
        let profile = if cfg!(debug_assertions) { "test" } else { "release" };
        cargo.args(["build", "--examples", "--profile", profile]);
        cargo.args(["--quiet", "--message-format=json"]);
        let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = output.stdout.split(|byte| *byte == b'\n');
        let messages = lines.filter_map(|line| serde_json::from_slice(line).ok());
        messages
            .filter_map(|message: serde_json::Value| {
                let name = message["target"]["name"].as_str()?;
                Some((name.to_owned(), message["executable"].as_str()?.into()))
            })
            .collect()
    })
}

/// Whether something slow runs the examples for us.
fn is_slowed() -> bool {
    std::env::var_os("POLLUX_GUIDE_RUNNER").is_some()
}

/// Starts an example.
fn start(name: &str, args: &[&str]) -> Process {
    let path = examples().get(name).unwrap_or_else(|| panic!("no example {name}"));
    let runner = std::env::var("POLLUX_GUIDE_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let mut command = match words.next() {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(words).arg(path);
            command
        }
        None => Command::new(path),
    };
    command.args(args);
    Process::spawn(command)
}

/// What follows `prefix` in the next line, such as an endpoint.
#[track_caller]
fn after(process: &mut Process, prefix: &str) -> String {
    let line = process.line();
    match line.strip_prefix(prefix) {
        Some(rest) => rest.trim().to_owned(),
        None => panic!("expected {prefix:?}, got {line:?}"),
    }
}

/// Ends an example by a signal: within a second, with exit code 0. Gives what else it said.
#[track_caller]
fn end(process: Process, signal: &str) -> String {
    process.signal(signal);
    let started = Instant::now();
    let finished = process.finish();
    let took = started.elapsed();
    let output = finished.success();
    assert!(is_slowed() || took.as_secs() < 1, "it took {took:?} to end; {output}");
    assert_eq!(finished.stderr(), "", "nothing to complain about");
    output
}

/// A socket of the test's own, which leaves nothing behind.
fn socket(builder: SocketBuilder) -> Socket {
    builder.linger(Duration::ZERO).build(&zmq::Context::new()).expect("a socket")
}

fn of(socket_type: SocketType) -> SocketBuilder {
    Socket::builder(socket_type)
}

/// The next message, for which it waits.
#[track_caller]
fn receive(socket: &Socket) -> Multipart {
    loop {
        let ready = socket.wait(Interest::READABLE, Some(DEADLINE)).expect("wait");
        assert!(ready.readable, "no message within the deadline");
        if let Some(message) = socket.receive_message().expect("receive") {
            return message;
        }
    }
}

/// Sends, waiting for room or for a peer.
#[track_caller]
fn send(socket: &Socket, message: &(impl pollux::Frames + ?Sized)) {
    while let Err(error) = socket.send(message) {
        assert_eq!(error, SendError::WouldBlock);
        let ready = socket.wait(Interest::WRITABLE, Some(DEADLINE)).expect("wait");
        assert!(ready.writable, "no room within the deadline");
    }
}
