//! Where a broker's three ports lie, from the endpoint of the first.

use std::fmt;
use std::io;

/// The endpoints of the three ports of a broker, in the order P, P+1, P+2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Requests and snapshots (ROUTER).
    pub snapshots: String,
    /// Updates and heartbeats (XPUB).
    pub updates: String,
    /// Changes (PULL or SUB).
    pub changes: String,
}

/// An endpoint from which the other two cannot be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointError {
    endpoint: String,
    reason: &'static str,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "endpoint {:?}: {}; expected tcp://HOST:PORT, ipc://PATH or inproc://NAME, of \
             several servers with commas between or pollux://HOST:PORT,HOST:PORT",
            self.endpoint, self.reason
        )
    }
}

impl std::error::Error for EndpointError {}

impl EndpointError {
    /// What is wrong with it, without what was expected: for who takes fewer kinds.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

impl From<EndpointError> for io::Error {
    fn from(error: EndpointError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

impl Endpoints {
    /// Three neighbouring tcp ports, the first as given; over ipc and inproc
    /// the suffixes `-updates` and `-changes`.
    ///
    /// ```
    /// use pollux::node::Endpoints;
    ///
    /// let tcp = Endpoints::from_first("tcp://127.0.0.1:5556")?;
    /// assert_eq!(tcp.changes, "tcp://127.0.0.1:5558");
    /// let ipc = Endpoints::from_first("ipc:///run/state")?;
    /// assert_eq!(ipc.updates, "ipc:///run/state-updates");
    /// # Ok::<(), pollux::node::EndpointError>(())
    /// ```
    ///
    /// # Errors
    /// Another transport, no port number, or one above 65,533.
    pub fn from_first(endpoint: &str) -> Result<Endpoints, EndpointError> {
        let error = |reason| EndpointError { endpoint: endpoint.to_owned(), reason };
        let (transport, address) =
            endpoint.split_once("://").ok_or_else(|| error("there is no transport"))?;
        let all = |updates, changes| Endpoints { snapshots: endpoint.to_owned(), updates, changes };
        match transport {
            "tcp" => {
                let (host, port) =
                    address.rsplit_once(':').ok_or_else(|| error("there is no port"))?;
                let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
                if !is_number {
                    return Err(error("the port is no number"));
                }
                let port: u16 = port.parse().unwrap_or(0);
                if host.is_empty() {
                    return Err(error("there is no host"));
                }
                if host.contains('/') {
                    return Err(error("the host has a slash"));
                }
                if port == 0 || port > u16::MAX - 2 {
                    return Err(error("the port must lie between 1 and 65533"));
                }
                let at = |offset| format!("tcp://{host}:{}", port + offset);
                Ok(all(at(1), at(2)))
            }
            "ipc" | "inproc" if address.is_empty() => Err(error("there is no name")),
            "ipc" | "inproc" => {
                Ok(all(format!("{endpoint}-updates"), format!("{endpoint}-changes")))
            }
            _ => Err(error("this transport is not supported")),
        }
    }

    /// Those of each server of a list: endpoints with commas between, or
    /// `pollux://HOST:PORT,HOST:PORT`, which is the same over tcp.
    ///
    /// ```
    /// use pollux::node::Endpoints;
    ///
    /// let pair = Endpoints::of_servers("pollux://a:5556,b:5556")?;
    /// assert_eq!(pair, Endpoints::of_servers("tcp://a:5556,tcp://b:5556")?);
    /// assert_eq!(pair[1].snapshots, "tcp://b:5556");
    /// # Ok::<(), pollux::node::EndpointError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`from_first`](Endpoints::from_first) for each, one that is there twice,
    /// more than 64.
    pub fn of_servers(list: &str) -> Result<Vec<Endpoints>, EndpointError> {
        let (transport, list_of) = match list.strip_prefix("pollux://") {
            Some(addresses) => ("tcp://", addresses),
            None => ("", list),
        };
        let mut servers: Vec<Endpoints> = Vec::new();
        let error = |reason| EndpointError { endpoint: list.to_owned(), reason };
        for address in list_of.split(',') {
            let server = Endpoints::from_first(&format!("{transport}{}", address.trim()))?;
            if servers.contains(&server) {
                return Err(error("a server is there twice"));
            }
            if servers.len() == MAX_SERVERS {
                return Err(error("these are too many servers"));
            }
            servers.push(server);
        }
        Ok(servers)
    }
}

/// The most servers that a client may be told of.
const MAX_SERVERS: usize = 64;

/// To be called before an `ipc://` endpoint is bound: libzmq removes the socket file that
/// it finds at a path, also if another process listens there, who then is cut off without
/// a word. The file of one that has ended is no hindrance, and other transports tell by
/// themselves. [`BrokerNode::bind`](super::BrokerNode::bind) calls it.
///
/// # Errors
/// [`AddrInUse`](io::ErrorKind::AddrInUse) if somebody listens at the path; the text names
/// endpoint and remedy.
pub fn check_path_is_free(endpoint: &str) -> io::Result<()> {
    let Some(path) = endpoint.strip_prefix("ipc://") else { return Ok(()) };
    // Never blocks: a listener with a full queue would block.
    match mio::net::UnixStream::connect(path) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "bind {endpoint}: Address already in use; choose another path or stop the other \
                 process"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_an_endpoint_says_why() {
        for (endpoint, reason) in [
            ("5556", "no transport"),
            ("tcp://localhost", "no port"),
            ("tcp://localhost:x", "no number"),
            ("tcp://:5556", "no host"),
            ("tcp://a:65534", "between"),
            ("tcp://a:0", "between"),
            ("tcp://a:99999", "between"),
            ("tcp://a:+1", "no number"),
            ("tcp://a:", "no number"),
            ("udp://a:1", "not supported"),
            ("ipc://", "no name"),
        ] {
            let error = Endpoints::from_first(endpoint).unwrap_err().to_string();
            assert!(error.contains(reason), "{endpoint}: {error}");
        }
    }

    #[test]
    fn a_list_names_each_server_once() {
        for (list, reason) in [
            ("tcp://a:1,tcp://a:1", "twice"),
            ("pollux://a:1,", "no port"),
            ("pollux://", "no port"),
            ("tcp://a:1,b:2", "no transport"),
            ("pollux://a:1,tcp://b:2", "slash"),
        ] {
            let error = Endpoints::of_servers(list).unwrap_err().to_string();
            assert!(error.contains(reason), "{list}: {error}");
        }
        let many: Vec<String> = (1..66).map(|port| format!("tcp://a:{}", port * 3)).collect();
        assert!(Endpoints::of_servers(&many.join(",")).unwrap_err().to_string().contains("many"));
        assert_eq!(Endpoints::of_servers(&many[..64].join(", ")).unwrap().len(), 64);
    }

    #[test]
    fn a_path_is_taken_while_somebody_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let endpoint = format!("ipc://{}", path.display());
        check_path_is_free(&endpoint).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = check_path_is_free(&endpoint).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&endpoint), "{error}");
        drop(listener);
        assert!(path.exists());
        check_path_is_free(&endpoint).unwrap();
        check_path_is_free("tcp://127.0.0.1:1").unwrap();
    }

    #[test]
    fn ipv6_hosts_keep_their_brackets() {
        let endpoints = Endpoints::from_first("tcp://[::1]:5556").unwrap();
        assert_eq!(endpoints.updates, "tcp://[::1]:5557");
    }
}
