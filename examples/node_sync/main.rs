//! A publisher that begins when all its subscribers are there, so that none misses the first
//! message: the Guide's syncpub and syncsub.
//!
//!     cargo run --example node_sync -- sync_pub [UPDATES] [SYNC] [SUBSCRIBERS] [COUNT]
//!     cargo run --example node_sync -- sync_sub [UPDATES] [SYNC]
//!
//! There is no sleep, as in the Guide's programs, that is long enough most of the time: the
//! publisher says hello until the subscribers have heard it.

mod sync_pub;
mod sync_sub;

use std::io;

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let role = args.next();
    let mut arg = |default: &str| args.next().unwrap_or(default.into());
    let (updates, sync) = (arg("tcp://127.0.0.1:5561"), arg("tcp://127.0.0.1:5562"));
    match role.as_deref() {
        Some("sync_pub") => {
            let mut number = |default| arg(default).parse().map_err(io::Error::other);
            sync_pub::run(&updates, &sync, number("10")?, number("1000000")?)
        }
        Some("sync_sub") => sync_sub::run(&updates, &sync),
        _ => {
            eprintln!("usage: node_sync sync_pub|sync_sub [UPDATES] [SYNC] [SUBSCRIBERS] [COUNT]");
            std::process::exit(1)
        }
    }
}
