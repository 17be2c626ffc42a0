//! Endpoints of brokers as arguments: to connect to, one or several, and to bind.

use pollux::node::Endpoints;

/// Where a broker is looked for unless told otherwise.
pub(crate) const DEFAULT_ENDPOINT: &str = "tcp://127.0.0.1:5556";

const BINDABLE: &str = "tcp://HOST:PORT (* for any host or port) or ipc://PATH";

/// The endpoint of a broker to connect to.
pub(crate) fn endpoint(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "tcp://HOST:PORT or ipc://PATH";
    if text.starts_with("tcp://*:") {
        return Err(format!("\"*\" is no host to connect to; expected {EXPECTED}"));
    }
    checked(text, EXPECTED)
}

/// Endpoints of one server or more, with commas between.
pub(crate) fn servers(text: &str) -> Result<String, String> {
    if !text.contains(',') && !text.starts_with("pollux://") {
        return endpoint(text);
    }
    let servers = Endpoints::of_servers(text).map_err(|error| {
        format!(
            "{}; expected pollux://HOST:PORT,HOST:PORT or endpoints with commas between",
            error.reason()
        )
    })?;
    let each = servers.iter().map(|server| endpoint(&server.snapshots));
    each.collect::<Result<Vec<_>, _>>().map(|each| each.join(","))
}

/// The one of this number of a list of servers.
pub(crate) fn one_of(servers: &str, number: usize) -> &str {
    servers.split(',').nth(number).unwrap_or(servers)
}

/// An endpoint to bind.
pub(crate) fn bindable(text: &str) -> Result<String, String> {
    match text.strip_prefix("tcp://").and_then(|address| address.strip_suffix(":*")) {
        Some("") => Err(format!("there is no host; expected {BINDABLE}")),
        Some(_) => Ok(text.to_owned()),
        None if text.contains(',') => Err(format!("a broker binds one; expected {BINDABLE}")),
        None => checked(text, BINDABLE),
    }
}

fn checked(text: &str, expected: &str) -> Result<String, String> {
    if text.starts_with("inproc:") {
        return Err(format!("inproc reaches only the same process; expected {expected}"));
    }
    if text == "ipc://*" {
        return Err("ipc needs a path that others can name, as in ipc:///tmp/state".to_owned());
    }
    match Endpoints::from_first(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{}; expected {expected}", error.reason())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked_before_anything_starts() {
        assert!(endpoint("tcp://127.0.0.1:5556").is_ok());
        assert!(endpoint("ipc:///tmp/state").is_ok());
        assert!(endpoint("tcp://127.0.0.1:*").is_err(), "nothing listens at any port");
        assert!(bindable("tcp://127.0.0.1:*").is_ok());
        assert!(bindable("tcp://*:5556").is_ok());
        assert!(bindable("tcp://:*").is_err());
        assert!(bindable("inproc://x").unwrap_err().contains("same process"));
        assert!(bindable("5556").is_err());
        assert!(endpoint("tcp://*:5556").unwrap_err().contains("no host to connect to"));
        for wrong in ["udp://a:1", "tcp://a", "tcp://a:99999", "tcp://a:x", "ipc://", "a"] {
            let [connect, bind] =
                [servers(wrong), bindable(wrong)].map(|result| result.unwrap_err());
            for error in [&connect, &bind] {
                assert!(error.contains("; expected tcp://HOST:PORT"), "{wrong}: {error}");
                assert!(!error.contains("inproc"), "{wrong}: {error}");
                assert!(!error.contains("comma"), "{wrong}: {error}");
            }
        }
        assert!(servers("tcp://a:1,b").unwrap_err().contains("with commas between"));
        assert!(bindable("ipc://a,ipc://b").unwrap_err().contains("binds one"));
    }
}
