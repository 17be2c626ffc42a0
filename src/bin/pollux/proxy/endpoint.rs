//! `TYPE@ENDPOINT` and `TYPE>ENDPOINT`: a socket on the command line.

use std::io;
use std::str::FromStr;

use pollux::node::check_path_is_free;
use pollux::socket::{Socket, SocketType};

/// A type of socket, and an endpoint to bind it to or connect it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) socket_type: SocketType,
    binds: bool,
    pub(crate) address: String,
}

const TYPES: [SocketType; 12] = [
    SocketType::Router,
    SocketType::Dealer,
    SocketType::Req,
    SocketType::Rep,
    SocketType::Push,
    SocketType::Pull,
    SocketType::Pub,
    SocketType::Sub,
    SocketType::XPub,
    SocketType::XSub,
    SocketType::Pair,
    SocketType::Stream,
];

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Endpoint, String> {
        let at = text.find(['@', '>']).ok_or("expected TYPE@ENDPOINT or TYPE>ENDPOINT")?;
        let (name, rest) = text.split_at(at);
        let socket_type = TYPES
            .into_iter()
            .find(|socket_type| socket_type.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| {
                let names = TYPES.map(|socket_type| socket_type.name().to_lowercase());
                format!("there is no type \"{name}\"; expected one of {}", names.join(", "))
            })?;
        let address = &rest[1..];
        if address.starts_with("inproc:") {
            return Err("inproc reaches only the same process; use tcp:// or ipc://".to_owned());
        }
        let binds = rest.starts_with('@');
        check(address, binds).map_err(|reason| {
            let port = if binds { " (* for any port)" } else { "" };
            format!("\"{address}\": {reason}; expected tcp://HOST:PORT{port} or ipc://PATH")
        })?;
        Ok(Endpoint { socket_type, binds, address: address.to_owned() })
    }
}

/// libzmq takes the lower 16 bits of a port, and connects to port 0 without a word.
fn check(address: &str, binds: bool) -> Result<(), &'static str> {
    match address.split_once("://").ok_or("there is no transport")? {
        ("ipc", "") => Err("there is no path"),
        ("tcp", address) if binds => {
            let port = port_of(address)?;
            if port == "*" { Ok(()) } else { check_port(port, 0) }
        }
        ("tcp", address) => match address.split_once(';') {
            None => check_port(port_of(address)?, 1),
            // Where the connection comes from; there the system may choose.
            Some((source, address)) => {
                let port = port_of(source)?;
                if port != "*" {
                    check_port(port, 0)?;
                }
                check_port(port_of(address)?, 1)
            }
        },
        _ => Ok(()),
    }
}

fn port_of(address: &str) -> Result<&str, &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("there is no port")?;
    if host.is_empty() { Err("there is no host") } else { Ok(port) }
}

fn check_port(port: &str, least: u16) -> Result<(), &'static str> {
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("the port is no number");
    }
    match port.parse::<u16>() {
        Ok(port) if port >= least => Ok(()),
        _ => Err("the port must lie between 1 and 65535"),
    }
}

impl Endpoint {
    /// Binds or connects a socket.
    pub(crate) fn open(&self, socket: &Socket) -> io::Result<()> {
        match self.binds {
            true => {
                check_path_is_free(&self.address)?;
                socket.bind(&self.address)?;
            }
            false => socket.connect(&self.address)?,
        }
        Ok(())
    }

    /// What it binds, if it does.
    pub(crate) fn bound(&self) -> Option<&str> {
        self.binds.then_some(&*self.address)
    }

    /// Whether one of the two binds what the other binds or connects to.
    pub(crate) fn meets(&self, other: &Endpoint) -> bool {
        (self.binds || other.binds)
            && !self.has_wildcard()
            && !other.has_wildcard()
            && self.place() == other.place()
    }

    /// The address, a path in one way of those to write it.
    fn place(&self) -> String {
        match self.address.strip_prefix("ipc://").map(std::path::absolute) {
            Some(Ok(path)) => format!("ipc://{}", path.display()),
            _ => self.address.clone(),
        }
    }

    /// As it is shown, with the address as resolved.
    pub(crate) fn show(&self, address: &str) -> String {
        format!("{}{address}", if self.binds { '@' } else { '>' })
    }

    /// Whether the system chooses a part of the address.
    pub(crate) fn has_wildcard(&self) -> bool {
        self.binds && (self.address.ends_with(":*") || self.address.ends_with(":0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_in_either_case() {
        let bound: Endpoint = "router@tcp://127.0.0.1:*".parse().unwrap();
        assert_eq!(bound.socket_type, SocketType::Router);
        assert!(bound.binds && bound.has_wildcard());
        let connected: Endpoint = "XSUB>ipc:///tmp/a@b".parse().unwrap();
        assert_eq!(connected.socket_type, SocketType::XSub);
        assert_eq!(connected.address, "ipc:///tmp/a@b");
        assert!(!connected.binds && !connected.has_wildcard());
    }

    #[test]
    fn ports_may_be_chosen_by_the_system_where_one_binds() {
        for text in [
            "router@tcp://127.0.0.1:0",
            "router@tcp://*:65535",
            "router@tcp://[::1]:*",
            "router>tcp://[::1]:5559",
            "router>tcp://127.0.0.1:0;127.0.0.1:5559",
            "router>tcp://127.0.0.1:*;127.0.0.1:5559",
        ] {
            assert!(text.parse::<Endpoint>().is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_bound_meets_what_else_is_there() {
        let meet = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| text.parse::<Endpoint>().unwrap());
            assert_eq!(one.meets(&other), other.meets(&one));
            one.meets(&other)
        };
        assert!(meet("router@ipc:///tmp/a", "dealer@ipc:///tmp/./a"));
        assert!(meet("router@ipc:///tmp/a", "dealer>ipc:///tmp/a"));
        assert!(meet("router@tcp://127.0.0.1:5559", "dealer@tcp://127.0.0.1:5559"));
        assert!(!meet("router>ipc:///tmp/a", "dealer>ipc:///tmp/a"));
        assert!(!meet("router@ipc:///tmp/a", "dealer@ipc:///tmp/b"));
        assert!(!meet("router@tcp://127.0.0.1:*", "dealer@tcp://127.0.0.1:*"));
    }

    #[test]
    fn what_is_none_says_what_is_expected() {
        for (text, expected) in [
            ("tcp://127.0.0.1:5559", "TYPE@ENDPOINT"),
            ("route@tcp://127.0.0.1:5559", "router, dealer"),
            ("router@127.0.0.1:5559", "tcp://HOST:PORT"),
            (
                "router@tcp://127.0.0.1:99999",
                "between 1 and 65535; expected tcp://HOST:PORT (* for",
            ),
            ("router>tcp://127.0.0.1:65536", "between 1 and 65535; expected tcp://HOST:PORT or"),
            ("router@tcp://127.0.0.1", "no port"),
            ("router>tcp://127.0.0.1", "no port"),
            ("router>tcp://127.0.0.1:", "the port is no number"),
            ("router>tcp://127.0.0.1:*", "the port is no number"),
            ("router@tcp://127.0.0.1:x", "the port is no number"),
            ("router>tcp://127.0.0.1:0", "between 1 and 65535"),
            ("router>tcp://127.0.0.1:70000;127.0.0.1:5559", "between 1 and 65535"),
            ("router>tcp://127.0.0.1:0;127.0.0.1:0", "between 1 and 65535"),
            ("router@tcp://:5559", "no host"),
            ("router@ipc://", "no path"),
            ("router@inproc://x", "same process"),
            ("@tcp://127.0.0.1:5559", "there is no type \"\""),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
