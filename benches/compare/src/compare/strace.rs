//! System calls of the contender's own thread, counted by strace(1).

use std::fs;
use std::process::Command;

use super::child;

const FEW: usize = 200;
const MANY: usize = 1200;
/// Long enough that each message finds an idle loop, under strace too.
const GAP_US: usize = 500;

/// System calls a message: of `MANY` messages less those of `FEW`, so that what it
/// costs to start and to end is not in it. I/O threads are not followed.
pub(crate) fn calls_per_message(contender: &Command) -> Result<f64, String> {
    Ok((calls(contender, MANY)? - calls(contender, FEW)?) / (MANY - FEW) as f64)
}

fn calls(contender: &Command, count: usize) -> Result<f64, String> {
    let report = std::env::temp_dir().join(format!("compare-strace-{}", std::process::id()));
    let mut command = Command::new("strace");
    command.args(["-c", "-o"]).arg(&report).arg(contender.get_program());
    for (name, value) in contender.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    for argument in contender.get_args() {
        // The count stands where a placeholder does.
        match argument.to_str() {
            Some("COUNT") => command.arg(count.to_string()),
            _ => command.arg(argument),
        };
    }
    let (mut child, lines) = child::spawn(&mut command)?;
    let endpoint = child::expect(&lines, "endpoint ")?;
    let mut feed = child::contender();
    feed.args(["feed", &endpoint, &count.to_string(), "64", &GAP_US.to_string()]);
    let (_feed, _) = child::spawn(&mut feed)?;
    child::expect(&lines, "ns=")?;
    child.0.wait().map_err(|error| error.to_string())?;
    let text = fs::read_to_string(&report).map_err(|error| error.to_string())?;
    let _ = fs::remove_file(&report);
    // "100.00    0.012345           3      4000        12 total"
    let total = text.lines().find(|line| line.ends_with("total")).ok_or("no total by strace")?;
    let column = total.split_whitespace().nth(3).and_then(|calls| calls.parse().ok());
    column.ok_or_else(|| format!("not understood: {total}"))
}
