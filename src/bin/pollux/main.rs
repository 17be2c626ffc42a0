//! The command `pollux`: a broker, clients of it for the shell, and a proxy.

mod args;
mod bench;
mod broker;
mod change;
mod clear;
mod dump;
mod endpoint;
mod exit;
mod get;
mod interrupt;
mod lines;
mod load;
mod output;
mod pair;
mod printer;
mod proxy;
mod relay;
mod session;
mod socket_files;
mod status;
mod subtree;
mod text;
mod units;
mod watch;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use args::{Cli, Command};
use printer::{Log, Printer};

fn main() -> ExitCode {
    let matches = args::command().get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Err(problem) = cli.common.join_servers() {
        Cli::command().error(ErrorKind::ValueValidation, format!("--connect: {problem}")).exit();
    }
    let is_broker = matches!(cli.command, Command::Broker(_));
    let is_proxy = matches!(cli.command, Command::Proxy(_));
    let log = log_to_stderr(cli.common.verbose, is_broker || is_proxy);
    let common = &cli.common;
    if let Some(problem) = misplaced(&cli, &matches) {
        Cli::command().error(ErrorKind::ArgumentConflict, problem).exit();
    }
    let result = match cli.command {
        Command::Broker(args) => broker::run(&args, common.json),
        Command::Set(args) => change::set(common, args),
        Command::Get(args) => get::run(common, args),
        Command::Del(args) => change::del(common, args),
        Command::Watch(args) => watch::run(common, &args),
        Command::Dump(args) => dump::run(common, &args),
        Command::Load(args) => load::run(common, args),
        Command::Status => status::run(common),
        Command::Promote => pair::promote(common),
        Command::Demote => pair::demote(common),
        Command::Proxy(args) => proxy::run(&args, common.json),
        Command::Bench(args) => bench::run(common, &args),
    };
    if let Some(log) = log {
        log.finish();
    }
    exit::report(result)
}

/// An option of clients that was given to a server, and what to use instead.
fn misplaced(cli: &Cli, matches: &ArgMatches) -> Option<&'static str> {
    let has_timeout = matches.subcommand().is_some_and(|(_, matches)| {
        matches.value_source("timeout") == Some(ValueSource::CommandLine)
    });
    let has_connect = !cli.common.connect.is_empty();
    match cli.command {
        Command::Broker(_) if has_connect => {
            Some("a broker connects to nothing; use --bind, and --follow for a relay")
        }
        Command::Broker(_) if has_timeout => {
            Some("a broker waits for none, so that --timeout says nothing; see --heartbeat")
        }
        Command::Proxy(_) if has_connect => {
            Some("a proxy has no broker; use --frontend 'TYPE>ENDPOINT'")
        }
        Command::Proxy(_) if has_timeout => {
            Some("a proxy waits for none, so that --timeout says nothing")
        }
        _ => None,
    }
}

/// Warnings by default; `RUST_LOG` is for those who want to choose by module, and goes
/// before `--verbose`. A
/// server must go on when nobody reads them: then the printer that is returned does
/// the writing.
fn log_to_stderr(verbose: u8, is_server: bool) -> Option<Printer> {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let mut log =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    let printer = if is_server { Printer::start(std::io::stderr()).ok() } else { None };
    if let Some(printer) = &printer {
        let log_lines = Log { printer: printer.clone(), dropped: 0 };
        log.target(env_logger::Target::Pipe(Box::new(log_lines)));
    }
    log.init();
    printer
}
