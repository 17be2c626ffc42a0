//! The command line: what can be asked for, and its help.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::bench::BenchArgs;
use crate::endpoint::{DEFAULT_ENDPOINT, bindable, one_of, servers};
use crate::pair::PairArgs;
use crate::proxy::ProxyArgs;
use crate::relay::RelayArgs;
use crate::subtree::{Bytes, own_subtree_parser, subtree_parser};
use crate::{status, units};

/// The largest value that a broker can be told to take, in bytes.
pub(crate) const MAX_VALUE: usize = 256 << 20;

const EXAMPLES: &str = "\
Try it, in three terminals:
  pollux broker                      keeps the state, until Ctrl-C
  pollux watch                       shows it, then each change as it happens
  pollux set /greeting hello
  pollux get /greeting

Save and restore:
  pollux dump > state.jsonl
  pollux load state.jsonl

A broker keeps the state in memory only: it ends with the broker, unless it is one
of a pair.

A TIME is a number and a unit (ns us ms s m h d), as 500ms, 10s or 1.5m.

Exit codes:
  0  done; also if the reader of the output has closed the pipe, and when Ctrl-C or
     SIGTERM ends a broker, proxy or watch
  1  key not found
  2  usage: arguments or input that cannot be used, a key or value that can be none
  3  no broker answered, or it stopped answering; load: it was restarted meanwhile
  4  refused, by the broker or by the system; load: some could not be set or read
     (files of --dir that can be no key or value are skipped, which is none: 0)
  128 + n  ended by signal n, a broker, proxy or watch by the second one";

/// Share live key-value state between processes.
///
/// A broker keeps a map of keys and values and tells every change to whoever
/// watches; the other commands are its clients. Keys look like paths, "/a/b";
/// a subtree is a beginning of keys that ends in "/", as "/a/". A key that does not
/// begin with "/" lies in no subtree: a watch or dump of everything shows it.
#[derive(Debug, Parser)]
#[command(
    name = "pollux",
    version,
    propagate_version = true,
    after_help = EXAMPLES,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten, next_help_heading = "Common options")]
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
    /// How long to wait for a broker, and later for it to go on, as 500ms, 10s or 1.5m
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = units::duration)]
    pub(crate) timeout: Duration,
    /// Print data as JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more on stderr: -v what happens, -vv each event, -vvv everything; RUST_LOG
    /// (as RUST_LOG=pollux::clone=debug) goes before it
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The whole command line. Servers are not offered what only clients do; it is still
/// read, so that the error can say what to use instead.
pub(crate) fn command() -> clap::Command {
    let unused = |command: clap::Command| {
        Common::augment_args(clap::Command::new(""))
            .get_arguments()
            .filter(|arg| matches!(arg.get_id().as_str(), "connect" | "timeout"))
            .fold(command, |command, arg| command.arg(arg.clone().hide(true)))
    };
    Cli::command().mut_subcommand("broker", unused).mut_subcommand("proxy", unused)
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

    /// The one of this number of that list.
    pub(crate) fn server(&self, number: usize) -> &str {
        one_of(self.endpoint(), number)
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
    #[command(after_help = status::HELP)]
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
The state is in memory only: when the broker ends, it is gone, unless the other
one of a pair has it; `pollux dump` saves it.

The broker prints one line when it listens. It binds three ports: the one named
(requests and snapshots) and the two above it (updates, changes); over ipc the
same name with -updates and -changes. Ctrl-C or SIGTERM ends it in order with
exit code 0, a second one at once.

--json: {\"listening\":..,\"updates\":..,\"changes\":..}, its endpoints, then of a pair
        {\"role\":..,\"epoch\":..} at each change of role, and with --stats an object
        of figures each TIME: \"sequence\", \"epoch\", \"counter\", \"keys\", \"bytes\",
        \"changes_per_second\" and the counts that `pollux status --help` explains

Examples:
  pollux broker
  pollux broker --bind 'tcp://*:5556'           for other machines, too
  pollux broker --bind 'tcp://127.0.0.1:*'      any free ports; it prints which
  pollux broker --bind 'tcp://[::1]:5556'       over IPv6
  pollux broker --bind ipc:///tmp/state --stats 5s
  pollux broker --collector sub                 for changes from the Guide's PUB clients

A pair, each on a machine of its own, of which one takes over from the other:
  pollux broker --bind 'tcp://*:5556' --pair primary --peer tcp://b:5556
  pollux broker --bind 'tcp://*:5556' --pair backup --peer tcp://a:5556
--on-active and --on-passive run with POLLUX_ROLE and POLLUX_EPOCH in their
environment, one at a time and in order: while one runs, the newest change of
role waits, and those before it are left out (a command sees the last one in the
end, but perhaps not each). The broker waits for none. What they print goes to
stderr; their exit codes are logged.

A relay, which serves a copy of what another broker keeps, and forwards changes to it:
  pollux broker --bind 'tcp://*:5556' --follow tcp://a:5556
  pollux broker --bind ipc:///run/state --follow pollux://a:5556,b:5556 --subtree /config/";

/// `pollux broker`.
#[derive(Debug, Args)]
#[command(after_help = BROKER_HELP)]
pub(crate) struct BrokerArgs {
    /// First endpoint: tcp://HOST:PORT or ipc://PATH; HOST is an address of this machine, IPv6
    /// in brackets, or * for all (IPv4), no name; PORT may be * for any that is free
    #[arg(long, value_name = "ENDPOINT", default_value = DEFAULT_ENDPOINT, value_parser = bindable)]
    pub(crate) bind: String,
    /// Socket for changes: pull holds back senders that outrun the broker, sub is RFC 12's
    #[arg(long, value_enum, default_value = "pull")]
    pub(crate) collector: CollectorArg,
    /// Time between heartbeats, as 500ms or 10s; clients notice a silent broker after three, of several
    /// servers after two
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
    /// Messages of a snapshot in flight for one client; fewer for large values, since a client
    /// that does not read holds so many [default: 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pub(crate) snapshot_hwm: Option<u32>,
    /// Updates kept for a subscriber that is slow to read; fewer for large values [default: 100000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pub(crate) updates_hwm: Option<u32>,
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
Key and value are taken as the bytes given. Of a key 1 to 255, none of them a
control byte; KTHXBAI, ICANHAZ?, STATUS?, UUIDS and all that begins with HUGZ are
reserved for the protocol. Of a value 1 to what the broker takes (1M, unless it was
started with another --max-value); an empty one is none: use del.
--json: {\"sequence\":..,\"epoch\":..,\"counter\":..}, under which it was applied
        (see `pollux get --help`)
With --wait safe and no standby (a broker alone, or one of a pair with --safe
proceed) what is applied counts as safe: stderr says so, the exit code is 0.

Examples:
  pollux set /greeting hello
  pollux set /session/42 alice --ttl 30s        gone after 30 seconds
  pollux set /order/7 paid --wait safe --connect pollux://a:5556,b:5556
  pollux set /offset -5
  pollux set /doc/notes --file notes.txt        byte for byte; up to what the broker takes
  date | pollux set /now --file -";

/// `pollux set`.
#[derive(Debug, Args)]
#[command(after_help = SET_HELP)]
pub(crate) struct SetArgs {
    /// The key, 1 to 255 bytes without control bytes, and none that is reserved (see below)
    pub(crate) key: OsString,
    /// The value; one that begins with "-" and is no number after --
    #[arg(
        required_unless_present = "file",
        conflicts_with = "file",
        allow_negative_numbers = true
    )]
    pub(crate) value: Option<OsString>,
    /// Take the value from a file, byte for byte, 1 byte up to the limit of the broker (1M unless
    /// its --max-value says otherwise); - for stdin
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// Delete the key after this time, unless it is set again
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(crate) ttl: Option<Duration>,
    /// What to wait for
    #[arg(long, value_enum, default_value = "applied")]
    pub(crate) wait: WaitArg,
}

const GET_HELP: &str = "\
The value is printed as it is, byte for byte. Only on a terminal a line end follows
and control bytes are escaped, unless --raw. A key that is not there: exit code 1;
at a relay of a subtree one outside of that: 4 (so it is with del, watch, dump).
The broker sends all keys that begin with KEY, so that to get \"/a\" takes long
where there are many under \"/a/\"; so does to del it.

--json: {\"key\":..,\"value\":..,\"sequence\":..,\"epoch\":..,\"counter\":..,\"ttl\":..}
        as of dump. sequence is epoch * 2^40 + counter: above 2^53, where jq and
        JavaScript round it; epoch and counter are exact

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
    /// Print it as it is on a terminal, too, which may obey it
    #[arg(long)]
    pub(crate) raw: bool,
}

const DEL_HELP: &str = "\
A key that is not there: exit code 1, and nothing is sent.
With --subtree the keys that are there at the moment are deleted, each by a change
of its own; stderr tells how many. None: exit code 1.
--json: {\"sequence\":..,\"epoch\":..,\"counter\":..}, under which it was applied
        (see `pollux get --help`); with --subtree {\"deleted\":..}, how many
--wait safe without a standby is what `pollux set --help` says.

Examples:
  pollux del /greeting
  pollux del --subtree /bench/";

/// `pollux del`.
#[derive(Debug, Args)]
#[command(after_help = DEL_HELP)]
pub(crate) struct DelArgs {
    /// The key
    #[arg(required_unless_present = "subtree", conflicts_with = "subtree")]
    pub(crate) key: Option<OsString>,
    /// Delete all keys that begin so, as /a/b/, instead
    #[arg(long, value_parser = own_subtree_parser())]
    pub(crate) subtree: Option<Bytes>,
    /// What to wait for
    #[arg(long, value_enum, default_value = "applied")]
    pub(crate) wait: WaitArg,
}

const WATCH_HELP: &str = "\
First comes what is there, in the order of keys, then each change. Each line is
written at once. A broker that goes away is waited for, and what changed
meanwhile is printed when it is back; stderr tells of both, and of a broker alone
that was restarted, which begins empty. Ctrl-C or SIGTERM
ends it with exit code 0. A reader of the output that stops is waited for; what
changed meanwhile comes then, of a key that changed often perhaps only the last.

Lines:    /key = value      /key deleted      /key expired      /key absent
--json:   {\"event\":\"set\",\"key\":..,\"value\":..,\"sequence\":..,\"epoch\":..,
           \"counter\":..,\"ttl\":..}, numbers as of `pollux get --json`
          {\"event\":\"deleted\",\"key\":..,\"why\":\"deleted\"|\"expired\"|\"absent\"}
          bytes that are no UTF-8 as base64 in key64 and value64
absent: found missing after a pause, deleted or expired meanwhile

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
  {\"key\":\"/a\",\"value\":\"text\",\"sequence\":..,\"epoch\":..,\"counter\":..,\"ttl\":3.5}
Keys and values that are no UTF-8 go as base64 in key64 and value64; ttl (in
seconds) is there only if the key expires. It is the state of one moment. sequence
is epoch * 2^40 + counter: above 2^53, where jq and JavaScript round it; epoch and
counter are exact.

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
Reads the lines that dump prints; sequence, epoch and counter are ignored. It returns when the
broker has applied everything. A line that is none ends it with exit code 2 once
the lines before it are applied; records that the broker does not take are named
and the others are set: exit code 4. If a broker that is not of a pair is
restarted meanwhile, it ends with exit code 3: what was set before is gone; the
same load once more is harmless. At the end it tells how many were set (with
--json \"applied\"), skipped (files of --dir that can be no key or value),
refused (by the broker, or for its limit of values), invalid (of a line, a key
that can be none or an empty value) and not readable (\"unreadable\").

With --dir each file below DIR is a key: the prefix and its path, with its
content as the value. Files that are empty, too large for the broker, or whose
path makes no key (too long, control characters) are named on stderr, skipped
and counted; so is what is no file. A link to a file is read; a link to a
directory is skipped, so there are no loops. Files that cannot be read are named
and counted, the others set: exit code 4.

--wait safe without a standby is what `pollux set --help` says.

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

const PROMOTE_HELP: &str = "\
To the standby of a pair. If the active lives, it stops, the standby takes over
where it stopped, and nothing that was applied is sent again; if it is silent,
the standby takes over at once. It returns when the broker is active; exit code 4
if it refuses, as before it has taken over the state. Whoever reaches a broker's
ports can do this: keep them on a trusted network. --json: {\"role\":\"active\"}

Example:
  pollux promote --connect tcp://standby:5556";

const DEMOTE_HELP: &str = "\
To the active of a pair, which hands over to its standby as by promote there.
Without a live standby it refuses: exit code 4. --json: {\"role\":\"passive\"}

Example:
  pollux demote --connect tcp://active:5556";

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
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn servers_are_not_offered_what_only_clients_do() {
        let mut command = command();
        command.build();
        let help = |name: &str| {
            let mut command = command.find_subcommand(name).unwrap().clone();
            command.render_long_help().to_string()
        };
        for (name, is_client) in [("broker", false), ("proxy", false), ("get", true)] {
            let help = help(name);
            assert_eq!(help.contains("--connect"), is_client, "{help}");
            assert_eq!(help.contains("--timeout"), is_client, "{help}");
            assert!(help.contains("--version") && help.contains("Common options:"), "{help}");
        }
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
    fn a_heartbeat_is_a_millisecond_at_least() {
        assert!(heartbeat("100us").is_err());
        assert_eq!(heartbeat("1ms"), Ok(Duration::from_millis(1)));
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
