//! A pair of brokers in processes of their own, over tcp, with clients at full
//! speed, while brokers are killed, stopped, and cut off from one another.
//!
//! Whatever was reported as safe must be there at the end, under the sequence that
//! was reported: applied a second time, it would have a higher one.

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod command;
mod kills;
mod pair;
mod partitions;
mod relay;
mod relays;
mod stalls;
