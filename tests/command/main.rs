//! The command from outside: real processes, over tcp and ipc.
#![cfg(feature = "cli")]

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod broker;
mod dump_load;
mod failures;
mod keys;
mod load_dir;
mod pair;
mod proxy;
mod status;
mod watch;
