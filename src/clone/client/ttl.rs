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
/// machine without a calendar can make nothing: unknown.
pub(crate) fn in_snapshot(properties: Properties<'_>, now: Time) -> Time {
    let is_unix_time = properties.get("ttl").is_some_and(|ttl| {
        let number = str::from_utf8(ttl).ok().and_then(|text| text.parse::<f64>().ok());
        ttl.contains(&b'.') || number.is_some_and(|number| number > 1e9)
    });
    if is_unix_time { Time::NEVER } else { relative(properties, now) }
}
