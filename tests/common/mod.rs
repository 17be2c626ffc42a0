//! Real processes of the built command, and how to wait for what they do.
//!
//! Nothing here sleeps: lines and ends of processes are waited for with a
//! deadline, after which the test fails with all that the process has said.

// Each test program uses its part of this.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Far longer than anything here takes, on a machine that is busy, too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The built command.
pub(crate) const POLLUX: &str = env!("CARGO_BIN_EXE_pollux");

/// A running process of the command. Killed when dropped.
pub(crate) struct Process {
    pid: u32,
    name: String,
    stdin: Option<ChildStdin>,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
    ended: Receiver<ExitStatus>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `pollux` with these arguments and its streams in our hands.
    pub(crate) fn start<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Process {
        let mut command = Command::new(POLLUX);
        command.args(args);
        Process::spawn(command)
    }

    /// Starts any command so.
    pub(crate) fn spawn(mut command: Command) -> Process {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = Lines::of(child.stdout.take().expect("it is piped"));
        let stderr = Lines::of(child.stderr.take().expect("it is piped"));
        let stdin = child.stdin.take();
        let pid = child.id();
        Process { pid, name, stdin, stdout, stderr, ended: end_of(child), status: None }
    }

    /// Writes to its stdin, which stays open.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        let written = stdin.write_all(bytes).and_then(|()| stdin.flush());
        written.unwrap_or_else(|error| panic!("{}: {error}:\n{}", self.name, self.stderr.seen()));
    }

    /// Closes its stdin.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Reads its stdout no more; the pipe is closed once a line more has come.
    pub(crate) fn close_stdout(&mut self) {
        self.stdout = Lines::of(std::io::empty());
    }

    /// The next line of its stdout, without the end of it.
    pub(crate) fn line(&mut self) -> String {
        match self.stdout.next(DEADLINE) {
            Some(line) => String::from_utf8_lossy(&line).into_owned(),
            None => panic!("{}: no line came; stderr:\n{}", self.name, self.stderr.seen()),
        }
    }

    /// The next line of its stderr that contains `text`.
    pub(crate) fn complaint(&mut self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stderr.next(left) {
                Some(line) if contains(&line, text) => {
                    return String::from_utf8_lossy(&line).into_owned();
                }
                Some(_) => {}
                None => panic!("{}: no {text:?} in\n{}", self.name, self.stderr.seen()),
            }
        }
    }

    /// Sends a signal by its name, as `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        assert!(self.try_signal(signal), "kill -{signal} {}", self.name);
    }

    /// False: it has ended.
    fn try_signal(&self, signal: &str) -> bool {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {}", self.pid)])
            .stderr(Stdio::null())
            .status()
            .expect("there is a shell");
        sent.success()
    }

    /// Whether it handles the signal of this number.
    pub(crate) fn handles(&self, signal: u32) -> bool {
        let path = format!("/proc/{}/status", self.pid);
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        caught.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
    }

    /// The state letter that the kernel gives for it: `T` is stopped.
    pub(crate) fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?')
    }

    /// Whether it has ended by now.
    pub(crate) fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.ended.try_recv().ok();
        }
        self.status.is_some()
    }

    /// Closes its stdin and waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.close_stdin();
        if let Some(status) = self.status {
            return status;
        }
        match self.ended.recv_timeout(DEADLINE) {
            Ok(status) => *self.status.insert(status),
            Err(_) => panic!("{}: it does not end; stderr:\n{}", self.name, self.stderr.seen()),
        }
    }

    /// Waits for its end: the exit code, and all that it wrote.
    pub(crate) fn finish(mut self) -> Finished {
        let status = self.wait();
        Finished { status, stdout: self.stdout.rest(), stderr: self.stderr.rest() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() && self.ended.try_recv().is_err() {
            // It may end by itself at this moment, of an earlier signal.
            self.try_signal("KILL");
            let _ = self.ended.recv_timeout(DEADLINE);
        }
    }
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Finished {
    /// The exit code; `None` if a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// All of stdout, of a process that must have succeeded.
    #[track_caller]
    pub(crate) fn success(&self) -> String {
        assert_eq!(self.code(), Some(0), "stderr:\n{}", self.stderr());
        self.stdout()
    }

    /// All of stderr, of a process that must have ended so.
    #[track_caller]
    pub(crate) fn failure(&self, code: i32) -> String {
        let (stdout, stderr) = (self.stdout(), self.stderr());
        assert_eq!(self.code(), Some(code), "stdout:\n{stdout}\nstderr:\n{stderr}");
        stderr
    }
}

/// Runs the command to its end, without any input.
pub(crate) fn pollux<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Finished {
    Process::start(args).finish()
}

/// A broker of its own process.
pub(crate) struct Broker {
    pub(crate) process: Process,
    pub(crate) endpoint: String,
}

impl Broker {
    /// A broker at free tcp ports, with these further arguments.
    pub(crate) fn start(args: &[&str]) -> Broker {
        Broker::start_at("tcp://127.0.0.1:*", args)
    }

    /// A broker at this endpoint. It listens when this returns.
    pub(crate) fn start_at(endpoint: &str, args: &[&str]) -> Broker {
        let mut process = Process::start([&["broker", "--bind", endpoint], args].concat());
        let line = process.line();
        let endpoint = match line.strip_prefix("listening on ") {
            Some(rest) => rest.split(' ').next().unwrap_or_default().to_owned(),
            None => {
                let json: Value = serde_json::from_str(&line).expect("a greeting");
                json["listening"].as_str().expect("an endpoint").to_owned()
            }
        };
        Broker { process, endpoint }
    }

    /// Starts a client of this broker.
    pub(crate) fn client<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Process {
        let mut command = Command::new(POLLUX);
        command.args(["--connect", &self.endpoint]).args(["--timeout", "30s"]).args(args);
        Process::spawn(command)
    }

    /// Runs a client of this broker to its end.
    pub(crate) fn pollux<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Finished {
        self.client(args).finish()
    }

    /// Runs a client with something to read on its stdin.
    pub(crate) fn pipe<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        stdin: &[u8],
    ) -> Finished {
        let mut client = self.client(args);
        client.write(stdin);
        client.finish()
    }
}

/// An endpoint whose port and the two above it are free.
pub(crate) fn free_endpoint() -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "no three neighbouring ports are free");
        let first = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = first.local_addr().expect("it is bound").port();
        let free = |at: Option<u16>| TcpListener::bind(("127.0.0.1", at?)).ok();
        if let (Some(_), Some(_)) = (free(port.checked_add(1)), free(port.checked_add(2))) {
            return format!("tcp://127.0.0.1:{port}");
        }
    }
}

/// What a broker says of itself, be it active, passive or a relay.
pub(crate) fn status_of(endpoint: &str) -> Option<Value> {
    let status = pollux(["status", "--json", "--timeout", "5s", "--connect", endpoint]);
    serde_json::from_slice(&status.stdout).ok()
}

/// Waits until the status of the broker at this endpoint is so.
pub(crate) fn wait_until(endpoint: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    let mut last = None;
    while Instant::now() < deadline {
        last = status_of(endpoint);
        if let Some(status) = last.take_if(|status| is_so(status)) {
            return status;
        }
    }
    panic!("{endpoint} not {what} in {DEADLINE:?}; its status: {last:#?}");
}

/// Whether programs of pyzmq can run here. If not, that is said, or the test fails if
/// `POLLUX_INSIST_INTEROP=1` is set.
pub(crate) fn has_pyzmq() -> bool {
    let found = Command::new("python3")
        .args(["-c", "import zmq"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let insisted = std::env::var("POLLUX_INSIST_INTEROP").is_ok_and(|value| value == "1");
    assert!(found || !insisted, "there is no python3 with pyzmq (pip install pyzmq)");
    if !found {
        let test = thread::current().name().unwrap_or_default().to_owned();
        println!("{test}: skipped, there is no python3 with pyzmq (pip install pyzmq)");
    }
    found
}

/// The lines of a stream, as they come.
pub(crate) struct Lines {
    lines: Receiver<Vec<u8>>,
    seen: Arc<Mutex<Vec<u8>>>,
    /// Of what was seen, what was handed out as lines.
    taken: usize,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Lines {
        let (sender, lines) = mpsc::channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            // An error is an end, too: the process is gone.
            while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                all.lock().expect("nobody panics with it").extend_from_slice(&line);
                if sender.send(std::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });
        Lines { lines, seen, taken: 0 }
    }

    /// The next line, without its end; `None` if there is none in time.
    pub(crate) fn next(&mut self, timeout: Duration) -> Option<Vec<u8>> {
        let mut line = self.lines.recv_timeout(timeout).ok()?;
        self.taken += line.len();
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        Some(line)
    }

    /// All bytes up to the end of the stream that were not handed out yet.
    pub(crate) fn rest(&self) -> Vec<u8> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the stream does not end"),
            }
        }
        self.seen.lock().expect("nobody panics with it").split_off(self.taken)
    }

    /// All that came so far.
    pub(crate) fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("nobody panics with it")).into_owned()
    }
}

/// Waits on a thread of its own, so that it can be waited for with a deadline.
fn end_of(mut child: Child) -> Receiver<ExitStatus> {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = sender.send(status);
        }
    });
    ended
}

fn contains(line: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(line).contains(text)
}
