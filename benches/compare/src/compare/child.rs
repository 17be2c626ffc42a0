//! Processes that print a figure, and what they need beside them.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Whoever takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is ended with its owner.
pub(crate) struct Guard(pub(crate) Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program of this crate with the contenders, beside this one.
pub(crate) fn contender() -> Command {
    let path = env::current_exe().expect("the own path").with_file_name("contender");
    Command::new(path)
}

/// Starts `command` and reads its lines in a thread of their own, for a deadline.
pub(crate) fn spawn(command: &mut Command) -> Result<(Guard, mpsc::Receiver<String>), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout.expect("piped")).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
        let mut complaint = String::new();
        let _ = stderr.expect("piped").read_to_string(&mut complaint);
        if let Some(last) = complaint.lines().rfind(|line| !line.trim().is_empty()) {
            let _ = sender.send(format!("error {last}"));
        }
    });
    Ok((Guard(child), lines))
}

/// The next line, without `prefix`.
pub(crate) fn expect(lines: &mpsc::Receiver<String>, prefix: &str) -> Result<String, String> {
    let line = match lines.recv_timeout(PATIENCE) {
        Ok(line) => line,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            return Err(format!("nothing within {} s", PATIENCE.as_secs()));
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => return Err("ended without a figure".into()),
    };
    line.strip_prefix(prefix).map(str::to_owned).ok_or(line)
}

/// The figure called `name` of a line `name=value name=value`.
pub(crate) fn figure(line: &str, name: &str) -> Result<f64, String> {
    let value = line.split_whitespace().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).ok_or_else(|| line.to_owned())
}
