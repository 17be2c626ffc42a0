//! The command line: what can be asked for, and its help.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use pollux::node::Endpoints;

use crate::bench::BenchArgs;
use crate::pair::PairArgs;
use crate::proxy::ProxyArgs;
use crate::relay::RelayArgs;
use crate::units;

/// Where a broker is looked for unless told otherwise.
pub(crate) const DEFAULT_ENDPOINT: &str = "tcp://127.0.0.1:5556";

/// The largest value that a broker can be told to take, in bytes.
pub(crate) const MAX_VALUE: usize = 256 << 20;

const EXAMPLES: &str = "\
Try it, in two terminals:
  pollux broker                      keeps the state, until Ctrl-C
  pollux watch                       shows it, then each change as it happens
  pollux set /greeting hello         (in a third one)
  pollux get /greeting

Save and restore:
  pollux dump > state.jsonl
  pollux load state.jsonl

Exit codes:
  0 done   1 key not found   2 usage   3 no broker answered   4 refused";

/// Share live key-value state between processes.
///
/// A broker keeps a map of keys and values and tells every change to whoever
/// watches; the other commands are its clients. Keys look like paths, "/a/b";
/// a subtree is a beginning of keys that ends in "/", as "/a/".
#[derive(Debug, Parser)]
#[command(name = "pollux", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What all commands understand.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// The broker's first endpoint: tcp://HOST:PORT or ipc://PATH; of a pair
    /// pollux://HOST:PORT,HOST:PORT, or give it once for each
    /// [default: tcp://127.0.0.1:5556]
    #[arg(long, global = true, value_name = "ENDPOINT", value_parser = servers)]
    pub(crate) connect: Vec<String>,
    /// How long to wait for a broker, and later for it to go on
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = units::duration)]
    pub(crate) timeout: Duration,
    /// Print data as JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more on stderr: -v what happens, -vv in detail, -vvv everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Common {
    /// Makes one list of all servers that were named.
    pub(crate) fn join_servers(&mut self) -> Result<(), String> {
        if self.connect.len() > 1 {
            self.connect = vec![servers(&self.connect.join(","))?];
        }
        Ok(())
    }

    /// The broker to talk to, or a list of several with commas between.
    pub(crate) fn endpoint(&self) -> &str {
        self.connect.first().map_or(DEFAULT_ENDPOINT, String::as_str)
    }
}

/// How far a change must be before a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitArg {
    /// The active broker has it
    Applied,
    /// The standby has it, too, so that it survives the loss of either
    Safe,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep the state and serve it until Ctrl-C
    Broker(BrokerArgs),
    /// Set a key, and wait until the broker has applied it
    Set(SetArgs),
    /// Print the value of a key
    Get(GetArgs),
    /// Delete a key, and wait until the broker has applied it
    Del(DelArgs),
    /// Print the state, then each change as it happens
    Watch(WatchArgs),
    /// Print the state as JSON lines
    Dump(DumpArgs),
    /// Set keys from JSON lines or from a directory of files
    Load(LoadArgs),
    /// Print what the broker says of itself
    #[command(after_help = STATUS_HELP)]
    Status,
    /// Make a broker the active one of its pair
    #[command(after_help = PROMOTE_HELP)]
    Promote,
    /// Make a broker hand over to the other one of its pair
    #[command(after_help = DEMOTE_HELP)]
    Demote,
    /// Move messages between two sockets of any peers, until Ctrl-C
    Proxy(ProxyArgs),
    /// Measure updates per second and round trips
    Bench(BenchArgs),
}

const BROKER_HELP: &str = "\
The broker prints one line when it listens. It binds three ports: the one named
(requests and snapshots) and the two above it (updates, changes); over ipc the
same name with -updates and -changes. Ctrl-C or SIGTERM ends it in order with
exit code 0, a second one at once.

Examples:
  pollux broker
  pollux broker --bind 'tcp://*:5556'           for other machines, too
  pollux broker --bind 'tcp://127.0.0.1:*'      any free ports; it prints which
  pollux broker --bind ipc:///tmp/state --stats 5s
  pollux broker --collector sub                 for changes from the Guide's PUB clients

A pair, each on a machine of its own, of which one takes over from the other:
  pollux broker --bind tcp://*:5556 --pair primary --peer tcp://b:5556
  pollux broker --bind tcp://*:5556 --pair backup --peer tcp://a:5556
--on-active and --on-passive run with POLLUX_ROLE and POLLUX_EPOCH in their
environment; nothing waits for them, and their exit codes are logged.

A relay, which serves a copy of what another broker keeps, and forwards changes to it:
  pollux broker --bind 'tcp://*:5556' --follow tcp://a:5556
  pollux broker --bind ipc:///run/state --follow pollux://a:5556,b:5556 --subtree /config/";

/// `pollux broker`.
#[derive(Debug, Args)]
#[command(after_help = BROKER_HELP)]
pub(crate) struct BrokerArgs {
    /// First endpoint: tcp://HOST:PORT (* for any port), or ipc://PATH
    #[arg(long, value_name = "ENDPOINT", default_value = DEFAULT_ENDPOINT, value_parser = bindable)]
    pub(crate) bind: String,
    /// Socket for changes: pull holds back senders that outrun the broker, sub is RFC 12's
    #[arg(long, value_enum, default_value = "pull")]
    pub(crate) collector: CollectorArg,
    /// Time between heartbeats; clients notice a silent broker after three
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = heartbeat)]
    pub(crate) heartbeat: Duration,
    /// Deletions remembered, so that a client can catch up after a pause without a full snapshot
    /// [default: 100000]
    #[arg(long, value_name = "N")]
    pub(crate) history: Option<usize>,
    /// Largest value taken, in bytes or with K, M; up to 256M [default: 1M]
    #[arg(long, value_name = "BYTES", value_parser = value_size)]
    pub(crate) max_value: Option<usize>,
    /// Most keys kept; further ones are refused [default: 10000000]
    #[arg(long, value_name = "N")]
    pub(crate) max_keys: Option<usize>,
    /// Print a line of figures each TIME; if nobody reads them, lines are dropped
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(crate) stats: Option<Duration>,
    #[command(flatten, next_help_heading = "Pair")]
    pub(crate) pair: PairArgs,
    #[command(flatten, next_help_heading = "Relay")]
    pub(crate) relay: RelayArgs,
}

/// The broker's socket for changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CollectorArg {
    /// PULL
    Pull,
    /// SUB
    Sub,
}

const SET_HELP: &str = "\
Key and value are taken as the bytes given. An empty value is none: use del.
With --json it prints the sequence under which the change was applied.

Examples:
  pollux set /greeting hello
  pollux set /session/42 alice --ttl 30s        gone after 30 seconds
  pollux set /order/7 paid --wait safe --connect pollux://a:5556,b:5556
  pollux set /doc/notes \"$(cat notes.txt)\"";

/// `pollux set`.
#[derive(Debug, Args)]
#[command(after_help = SET_HELP)]
pub(crate) struct SetArgs {
    /// The key, 1 to 255 bytes without control characters
    pub(crate) key: OsString,
    /// The value
    pub(crate) value: OsString,
    /// Delete the key after this time, unless it is set again
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(crate) ttl: Option<Duration>,
    /// What to wait for
    #[arg(long, value_enum, default_value = "applied")]
    pub(crate) wait: WaitArg,
}

const GET_HELP: &str = "\
The value is printed as it is, byte for byte; a line end follows only on a
terminal. A key that is not there: exit code 1.

Examples:
  pollux get /greeting
  pollux get /doc/logo.png > logo.png
  pollux get /greeting --json";

/// `pollux get`.
#[derive(Debug, Args)]
#[command(after_help = GET_HELP)]
pub(crate) struct GetArgs {
    /// The key
    pub(crate) key: OsString,
}

const DEL_HELP: &str = "\
A key that is not there: exit code 1, and nothing is sent.
With --json it prints the sequence under which the deletion was applied.

Example:
  pollux del /greeting";

/// `pollux del`.
#[derive(Debug, Args)]
#[command(after_help = DEL_HELP)]
pub(crate) struct DelArgs {
    /// The key
    pub(crate) key: OsString,
    /// What to wait for
    #[arg(long, value_enum, default_value = "applied")]
    pub(crate) wait: WaitArg,
}

const WATCH_HELP: &str = "\
First comes what is there, in the order of keys, then each change. Each line is
written at once. A broker that goes away is waited for, and what changed
meanwhile is printed when it is back; stderr tells of both. Ctrl-C or SIGTERM
ends it with exit code 0. A reader of the output that stops is waited for; what
changed meanwhile comes then, of a key that changed often perhaps only the last.

Lines:    /key = value      /key deleted      /key expired
--json:   {\"event\":\"set\",\"key\":..,\"value\":..,\"sequence\":..,\"ttl\":..}
          {\"event\":\"deleted\",\"key\":..,\"why\":\"deleted\"|\"expired\"|\"absent\"}
          \"absent\": found missing after a pause; bytes that are no UTF-8 as
          base64 in key64 and value64

Examples:
  pollux watch
  pollux watch /doc/ --no-initial
  pollux watch /ready/ --count 1                ends with the first";

/// `pollux watch`.
#[derive(Debug, Args)]
#[command(after_help = WATCH_HELP)]
pub(crate) struct WatchArgs {
    /// Only keys that begin so, as /a/b/; all without it
    #[arg(default_value = "", hide_default_value = true, value_parser = subtree_parser())]
    pub(crate) subtree: Bytes,
    /// End after N lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Leave out what is there at the start: changes only
    #[arg(long)]
    pub(crate) no_initial: bool,
}

const DUMP_HELP: &str = "\
One object a line, in the order of keys:
  {\"key\":\"/a\",\"value\":\"text\",\"sequence\":7,\"ttl\":3.5}
Keys and values that are no UTF-8 go as base64 in key64 and value64; ttl (in
seconds) is there only if the key expires. It is the state of one moment.

Examples:
  pollux dump > state.jsonl
  pollux dump /doc/ | jq -r .key
  pollux dump | pollux load --connect tcp://other:5556";

/// `pollux dump`.
#[derive(Debug, Args)]
#[command(after_help = DUMP_HELP)]
pub(crate) struct DumpArgs {
    /// Only keys that begin so, as /a/b/; all without it
    #[arg(default_value = "", hide_default_value = true, value_parser = subtree_parser())]
    pub(crate) subtree: Bytes,
}

const LOAD_HELP: &str = "\
Reads the lines that dump prints; sequence is ignored. It returns when the
broker has applied everything. A line that is none ends it with exit code 2 once
the lines before it are applied; records that the broker does not take are named
and the others are set: exit code 4.

With --dir each file below DIR is a key: the prefix and its path, with its
content as the value. Files that are empty, too large for the broker, or whose
path makes no key (too long, control characters) are named on stderr, skipped
and counted; so is what is no file. A link to a file is read; a link to a
directory is skipped, so there are no loops.

Examples:
  pollux load state.jsonl
  zcat state.jsonl.gz | pollux load -
  pollux load --dir /usr/share/doc --prefix /doc/";

/// `pollux load`.
#[derive(Debug, Args)]
#[command(after_help = LOAD_HELP)]
pub(crate) struct LoadArgs {
    /// File of JSON lines; - or nothing for stdin
    #[arg(value_name = "FILE", conflicts_with = "dir")]
    pub(crate) file: Option<PathBuf>,
    /// Load the files below this directory instead
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// What the keys of --dir begin with
    #[arg(long, requires = "dir", default_value = "/", conflicts_with = "file")]
    pub(crate) prefix: OsString,
    /// What to wait for
    #[arg(long, value_enum, default_value = "applied")]
    pub(crate) wait: WaitArg,
}

const STATUS_HELP: &str = "\
Limits, sizes and event counts, as the broker gives them. A server of RFC 12
that does not announce the extensions has none to give: exit code 4.

Examples:
  pollux status
  pollux status --json | jq .keys";

const PROMOTE_HELP: &str = "\
To the standby of a pair. If the active lives, it stops, the standby takes over
where it stopped, and nothing that was applied is sent again; if it is silent,
the standby takes over at once. It returns when the broker is active; exit code 4
if it refuses, as before it has taken over the state. Whoever reaches a broker's
ports can do this: keep them on a trusted network.

Example:
  pollux promote --connect tcp://standby:5556";

const DEMOTE_HELP: &str = "\
To the active of a pair, which hands over to its standby as by promote there.
Without a live standby it refuses: exit code 4.

Example:
  pollux demote --connect tcp://active:5556";

/// Bytes of an argument, as the system gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

/// A subtree: nothing, or a beginning of keys that ends in `/`.
pub(crate) fn subtree_parser() -> impl clap::builder::TypedValueParser<Value = Bytes> {
    use clap::builder::{OsStringValueParser, TypedValueParser};
    OsStringValueParser::new().try_map(|text| subtree(text.into_vec()))
}

fn subtree(bytes: Vec<u8>) -> Result<Bytes, String> {
    let shown = String::from_utf8_lossy(&bytes).into_owned();
    match bytes.as_slice() {
        b"" => Ok(Bytes(bytes)),
        [b'/', .., b'/'] | b"/" => Ok(Bytes(bytes)),
        [b'/', ..] => Err(format!("a subtree ends in \"/\"; did you mean \"{shown}/\"?")),
        _ => Err("a subtree begins and ends with \"/\", as /a/b/".to_owned()),
    }
}

pub(crate) fn endpoint(text: &str) -> Result<String, String> {
    if text.starts_with("inproc:") {
        return Err("inproc reaches only the same process; use tcp:// or ipc://".to_owned());
    }
    if text == "ipc://*" {
        return Err("ipc needs a path that others can name, as in ipc:///tmp/state".to_owned());
    }
    Endpoints::from_first(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Endpoints of one server or more, with commas between.
pub(crate) fn servers(text: &str) -> Result<String, String> {
    let servers = Endpoints::of_servers(text).map_err(|error| error.to_string())?;
    let each = servers.iter().map(|server| endpoint(&server.snapshots));
    each.collect::<Result<Vec<_>, _>>().map(|each| each.join(","))
}

fn bindable(text: &str) -> Result<String, String> {
    match text.strip_prefix("tcp://").and_then(|address| address.strip_suffix(":*")) {
        Some("") => Err("there is no host; expected tcp://HOST:PORT".to_owned()),
        Some(_) => Ok(text.to_owned()),
        None => endpoint(text),
    }
}

pub(crate) fn value_size(text: &str) -> Result<usize, String> {
    match units::bytes(text)? {
        size if size > MAX_VALUE => Err("expected at most 256M".to_owned()),
        size => Ok(size),
    }
}

fn heartbeat(text: &str) -> Result<Duration, String> {
    let heartbeat = units::duration(text)?;
    // It travels in whole milliseconds.
    if heartbeat < Duration::from_millis(1) || heartbeat > Duration::from_secs(3600) {
        return Err("expected 1ms to 1h".to_owned());
    }
    Ok(heartbeat)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("  pollux {}", command.get_name());
            assert!(help.contains(&example), "{}", command.get_name());
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_arguments_too() {
        let key = OsString::from_vec(b"/\xff".to_vec());
        let cli = Cli::try_parse_from(["pollux".into(), "get".into(), key.clone()]).unwrap();
        assert!(matches!(cli.command, Command::Get(get) if get.key == key));
    }

    #[test]
    fn a_subtree_ends_in_a_slash_and_the_error_shows_how() {
        for good in ["", "/", "/a/", "/a/b/"] {
            assert_eq!(subtree(good.into()), Ok(Bytes(good.into())));
        }
        assert!(subtree(b"/a".to_vec()).unwrap_err().contains("\"/a/\""));
        assert!(subtree(b"a/".to_vec()).is_err());
    }

    #[test]
    fn endpoints_are_checked_before_anything_starts() {
        assert!(endpoint("tcp://127.0.0.1:5556").is_ok());
        assert!(endpoint("ipc:///tmp/state").is_ok());
        assert!(endpoint("tcp://127.0.0.1:*").is_err(), "nothing listens at any port");
        assert!(bindable("tcp://127.0.0.1:*").is_ok());
        assert!(bindable("tcp://*:5556").is_ok());
        assert!(bindable("tcp://:*").is_err());
        assert!(bindable("inproc://x").unwrap_err().contains("same process"));
        assert!(bindable("5556").is_err());
        assert!(heartbeat("100us").is_err());
    }

    #[test]
    fn several_servers_are_named_in_any_way() {
        let both = "tcp://a:1,tcp://b:2";
        for args in [
            &["--connect", "pollux://a:1,b:2"][..],
            &["--connect", "tcp://a:1", "--connect", "tcp://b:2"],
            &["--connect", "tcp://a:1,tcp://b:2"],
        ] {
            let mut cli =
                Cli::try_parse_from([&["pollux", "get", "/a"][..], args].concat()).unwrap();
            cli.common.join_servers().unwrap();
            assert_eq!(cli.common.endpoint(), both);
        }
        let twice = ["pollux", "get", "/a", "--connect", "tcp://a:1", "--connect", "pollux://a:1"];
        assert!(Cli::try_parse_from(twice).unwrap().common.join_servers().is_err());
    }
}
