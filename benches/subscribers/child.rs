//! Processes of this bench, and what the system grants them.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use pollux::reactor::Sender;

use crate::Outcome;

/// A process that is told and tells by lines, and ends with this.
pub(crate) struct Child {
    process: process::Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Child {
    /// This program again, with as many descriptors as it may have.
    pub(crate) fn start(words: &[&str]) -> Outcome<Child> {
        let mut process = Command::new("sh")
            .args(["-c", "ulimit -Sn \"$(ulimit -Hn)\"; exec \"$0\" \"$@\""])
            .arg(env::current_exe()?)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = process.stdin.take().ok_or("no stdin")?;
        let stdout = BufReader::new(process.stdout.take().ok_or("no stdout")?);
        Ok(Child { process, stdin, stdout })
    }

    pub(crate) fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line)? {
            0 => Err("a process of the bench has ended".into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    pub(crate) fn say(&mut self, word: &str) -> Outcome<()> {
        Ok(writeln!(self.stdin, "{word}")?)
    }

    pub(crate) fn resident_kib(&self) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        Ok(kib.ok_or("no VmRSS")?.trim().parse()?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether a process may have so many descriptors, and what to do if not.
pub(crate) fn check_descriptors(needed: usize) -> Outcome<()> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(4)).ok_or("no hard limit")?;
    match hard.parse::<usize>() {
        Ok(hard) if hard < needed => Err(format!(
            "needs {needed} descriptors in one process, the hard limit is {hard}: raise it \
             (`ulimit -Hn {needed}` as root), or ask for fewer subscribers"
        )
        .into()),
        _ => Ok(()),
    }
}

/// In such a process: what it is told goes to its loop, line by line, and then "end".
pub(crate) fn pass_on_stdin(words: Sender<String>) {
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if words.send(line).is_err() {
                return;
            }
        }
        let _ = words.send("end".to_owned());
    });
}
