//! Messages with an envelope, a frame of its own for what is subscribed to: the Guide's
//! psenvpub and psenvsub. The filter looks at the key alone, never at the content.
//!
//!     cargo run --example envelopes -- ps_env_pub [ENDPOINT]
//!     cargo run --example envelopes -- ps_env_sub [ENDPOINT] [KEY] [MESSAGES]

mod ps_env_pub;
mod ps_env_sub;

use std::io;

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let role = args.next();
    let endpoint = args.next().unwrap_or("tcp://127.0.0.1:5563".into());
    match role.as_deref() {
        Some("ps_env_pub") => ps_env_pub::run(&endpoint),
        Some("ps_env_sub") => {
            let key = args.next().unwrap_or("B".into());
            let messages =
                args.next().map_or(Ok(5), |arg| arg.parse()).map_err(io::Error::other)?;
            ps_env_sub::run(&endpoint, &key, messages)
        }
        _ => {
            eprintln!("usage: envelopes ps_env_pub|ps_env_sub [ENDPOINT] [KEY] [MESSAGES]");
            std::process::exit(1)
        }
    }
}
