//! The time to live of a key, as different servers write it.

use std::time::Duration;

use crate::clone::properties::Properties;
use crate::time::Time;

/// No key lives longer than this for a client (a hundred years): larger ones
/// are as good as none, and nothing overflows.
const LONGEST_S: f64 = 3.2e9;

/// When the key expires by the properties of its KVPUB, or of a KVSYNC of a
/// broker that knows the extensions: what remains.
pub(crate) fn relative(properties: Properties<'_>, now: Time) -> Time {
    if properties.is_empty() {
        return Time::NEVER;
    }
    if let Some(ms) = properties.parse::<u64>("ttlms") {
        return now + Duration::from_millis(ms);
    }
    match properties.parse::<f64>("ttl") {
        Some(seconds) if seconds > 0.0 && seconds < LONGEST_S => {
            now + Duration::from_secs_f64(seconds)
        }
        _ => Time::NEVER,
    }
}

/// When the key expires by its KVSYNC from an RFC 12 server: small numbers are
/// what remains. The Guide's servers send a point in Unix time, of which a
/// machine without a calendar can make nothing: unknown. Whoever says `ttlms` knows the
/// extensions, and says what remains in any case.
pub(crate) fn in_snapshot(properties: Properties<'_>, now: Time) -> Time {
    if properties.get("ttlms").is_some() {
        return relative(properties, now);
    }
    let is_unix_time = properties.get("ttl").is_some_and(|ttl| {
        let number = str::from_utf8(ttl).ok().and_then(|text| text.parse::<f64>().ok());
        ttl.contains(&b'.') || number.is_some_and(|number| number > 1e9)
    });
    if is_unix_time { Time::NEVER } else { relative(properties, now) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone::kvmsg::Limits;

    fn remaining(properties: &[u8]) -> Option<Duration> {
        let properties = Properties::check(properties, &Limits::default()).unwrap();
        let now = Time::from_nanos(5);
        let deadline = in_snapshot(properties, now);
        (deadline != Time::NEVER).then(|| deadline.since(now))
    }

    #[test]
    fn a_time_to_live_beyond_a_thousand_million_seconds_is_kept_if_ttlms_tells_it() {
        let told = remaining(b"ttl=1000000001\nttlms=1000000001000\n");
        assert_eq!(told, Some(Duration::from_secs(1_000_000_001)));
        assert_eq!(remaining(b"ttl=1000000001\n"), None, "Unix time");
        assert_eq!(remaining(b"ttl=1000000000\n"), Some(Duration::from_secs(1_000_000_000)));
        assert_eq!(remaining(b"ttl=3.5\n"), None, "Unix time of the Guide's Python server");
        assert_eq!(remaining(b"ttl=4\nttlms=3500\n"), Some(Duration::from_millis(3500)));
    }
}
