//! Weather by publish and subscribe: the Guide's wuserver and wuclient.
//!
//!     cargo run --example weather -- server [ENDPOINT]
//!     cargo run --example weather -- client [ENDPOINT] [ZIPCODE] [UPDATES]

mod weather_client;
mod weather_server;

use std::io;

const ENDPOINT: &str = "tcp://127.0.0.1:5556";

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let role = args.next();
    let endpoint = args.next().unwrap_or(ENDPOINT.into());
    match role.as_deref() {
        Some("server") => weather_server::run(&endpoint),
        Some("client") => {
            let zipcode = args.next().unwrap_or("10001".into());
            let updates =
                args.next().map_or(Ok(10), |arg| arg.parse()).map_err(io::Error::other)?;
            weather_client::run(&endpoint, &zipcode, updates)
        }
        _ => {
            eprintln!("usage: weather server|client [ENDPOINT] [ZIPCODE] [UPDATES]");
            std::process::exit(1)
        }
    }
}
