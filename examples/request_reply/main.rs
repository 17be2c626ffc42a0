//! Requests shared among workers by a broker: the Guide's rrbroker, msgqueue, rrclient, rrworker.
//!
//!     cargo run --example request_reply -- rr_broker [FRONTEND] [BACKEND]   (or msg_queue)
//!     cargo run --example request_reply -- rr_worker [BACKEND] [NAME]
//!     cargo run --example request_reply -- rr_client [FRONTEND] [REQUESTS]
//!
//! `rr_broker` moves the messages by hand, `msg_queue` by the library's proxy.

mod msg_queue;
mod rr_broker;
mod rr_client;
mod rr_worker;

use std::io;

const FRONTEND: &str = "tcp://127.0.0.1:5559";
const BACKEND: &str = "tcp://127.0.0.1:5560";

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let role = args.next();
    let mut arg = |default: &str| args.next().unwrap_or(default.into());
    match role.as_deref() {
        Some("rr_broker") => rr_broker::run(&arg(FRONTEND), &arg(BACKEND)),
        Some("msg_queue") => msg_queue::run(&arg(FRONTEND), &arg(BACKEND)),
        Some("rr_worker") => rr_worker::run(&arg(BACKEND), &arg("worker")),
        Some("rr_client") => {
            let endpoint = arg(FRONTEND);
            rr_client::run(&endpoint, arg("10").parse().map_err(io::Error::other)?)
        }
        _ => {
            eprintln!(
                "usage: request_reply rr_broker|msg_queue|rr_worker|rr_client [ENDPOINT] ..."
            );
            std::process::exit(1)
        }
    }
}
