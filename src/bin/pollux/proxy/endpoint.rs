//! `TYPE@ENDPOINT` and `TYPE>ENDPOINT`: a socket on the command line.

use std::str::FromStr;

use pollux::socket::{Socket, SocketBuilder, SocketError, SocketType};

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
        if !address.contains("://") {
            return Err(format!("\"{address}\": expected tcp://HOST:PORT or ipc://PATH"));
        }
        Ok(Endpoint { socket_type, binds: rest.starts_with('@'), address: address.to_owned() })
    }
}

impl Endpoint {
    /// Adds itself to what a socket does when it is made.
    pub(crate) fn apply(&self, socket: SocketBuilder) -> SocketBuilder {
        match self.binds {
            true => socket.bind(&self.address),
            false => socket.connect(&self.address),
        }
    }

    /// Binds or connects a socket that there is.
    pub(crate) fn open(&self, socket: &Socket) -> Result<(), SocketError> {
        match self.binds {
            true => socket.bind(&self.address).map(drop),
            false => socket.connect(&self.address),
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
    fn what_is_none_says_what_is_expected() {
        for (text, expected) in [
            ("tcp://127.0.0.1:5559", "TYPE@ENDPOINT"),
            ("route@tcp://127.0.0.1:5559", "router, dealer"),
            ("router@127.0.0.1:5559", "tcp://HOST:PORT"),
            ("router@inproc://x", "same process"),
            ("@tcp://127.0.0.1:5559", "there is no type \"\""),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
