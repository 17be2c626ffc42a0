//! The command `pollux`: a broker, clients of it for the shell, and a proxy.

mod args;
mod bench;
mod broker;
mod change;
mod dump;
mod exit;
mod get;
mod interrupt;
mod lines;
mod load;
mod output;
mod proxy;
mod session;
mod status;
mod text;
mod units;
mod watch;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.common.verbose);
    let common = &cli.common;
    if matches!(cli.command, Command::Broker(_)) && common.connect.is_some() {
        Cli::command()
            .error(ErrorKind::ArgumentConflict, "a broker connects to nothing; use --bind")
            .exit();
    }
    if matches!(cli.command, Command::Proxy(_)) && common.connect.is_some() {
        Cli::command()
            .error(
                ErrorKind::ArgumentConflict,
                "a proxy has no broker; use --frontend 'TYPE>ENDPOINT'",
            )
            .exit();
    }
    exit::report(match cli.command {
        Command::Broker(args) => broker::run(&args, common.json),
        Command::Set(args) => change::set(common, args),
        Command::Get(args) => get::run(common, args),
        Command::Del(args) => change::del(common, args),
        Command::Watch(args) => watch::run(common, &args),
        Command::Dump(args) => dump::run(common, &args),
        Command::Load(args) => load::run(common, args),
        Command::Status => status::run(common),
        Command::Proxy(args) => proxy::run(&args, common.json),
        Command::Bench(args) => bench::run(common, &args),
    })
}

/// Warnings by default; `RUST_LOG` is for those who want to choose by module.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
}
