//! The JSON lines that `dump` prints and `load` reads, exact for any bytes.
//!
//! One object a line: `{"key":"/a","value":"text","sequence":7,"ttl":3.5}`. A
//! key or value that is not UTF-8 goes as base64 (RFC 4648, with padding) in
//! `key64` or `value64`. `ttl` is what remained to live, in seconds, and is
//! there only if the key expires; `sequence` tells where the value stood in the
//! broker's order and means nothing to another broker. It lies above 2^53, where
//! readers that take numbers for floating point round it; `epoch` and `counter`
//! (`sequence = epoch << 40 | counter`) are exact everywhere.
//!
//! This file needs nothing of the rest of the command, so that a fuzz target
//! can include it.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

/// Bits of a sequence below its epoch.
const COUNTER_BITS: u32 = 40;

/// The longest `ttl`, in milliseconds: up to here each is exact in a JSON number.
const MAX_TTL_MS: f64 = (1_u64 << 50) as f64;

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// The key, any bytes.
    pub(crate) key: Cow<'a, [u8]>,
    /// The value, any bytes.
    pub(crate) value: Cow<'a, [u8]>,
    /// The value's place in the broker's order, if known.
    pub(crate) sequence: Option<u64>,
    /// What remains to live, in whole milliseconds; `None`: it does not expire.
    pub(crate) ttl: Option<Duration>,
}

/// Why a line is no [`Record`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LineError {
    reason: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for LineError {}

fn error(reason: impl Into<String>) -> LineError {
    LineError { reason: reason.into() }
}

/// A line as JSON has it. Unknown names are refused: a misspelt `ttl` would
/// make a key live for ever in silence.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key64: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value64: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    // The same once more, for who reads numbers as floating point; not read here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counter: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<f64>,
}

/// Reads one line, with or without its end.
///
/// # Errors
/// A line that is no such object: what was expected, and where it stands.
pub(crate) fn parse_line(line: &[u8]) -> Result<Record<'static>, LineError> {
    // serde would take an array for the object, its values in order.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err(error("expected a JSON object, as in {\"key\":\"/a\",\"value\":\"text\"}"));
    }
    let line: Line<'_> = serde_json::from_slice(line).map_err(|at| json_error(&at))?;
    Ok(Record {
        key: either("key", line.key, line.key64)?.into(),
        value: either("value", line.value, line.value64)?.into(),
        sequence: line.sequence,
        ttl: line.ttl.map(ttl).transpose()?,
    })
}

/// The line is the caller's to count: only the column says something here.
fn json_error(at: &serde_json::Error) -> LineError {
    let text = at.to_string();
    let reason = text.rsplit_once(" at line ").map_or(&*text, |(reason, _)| reason);
    error(format!("column {}: {reason}", at.column()))
}

/// The bytes of `name`, given as text or as base64.
fn either(
    name: &str,
    text: Option<Cow<'_, str>>,
    encoded: Option<Cow<'_, str>>,
) -> Result<Vec<u8>, LineError> {
    match (text, encoded) {
        (Some(text), None) => Ok(text.into_owned().into_bytes()),
        (None, Some(encoded)) => BASE64
            .decode(encoded.as_bytes())
            .map_err(|reason| error(format!("\"{name}64\" is no base64: {reason}"))),
        (None, None) => Err(error(format!("expected \"{name}\" or \"{name}64\", got neither"))),
        (Some(_), Some(_)) => Err(error(format!("expected \"{name}\" or \"{name}64\", got both"))),
    }
}

fn ttl(seconds: f64) -> Result<Duration, LineError> {
    // At least one: whatever remains is not nothing.
    let ms = (seconds * 1000.0).round().max(1.0);
    if seconds > 0.0 && ms <= MAX_TTL_MS {
        Ok(Duration::from_millis(ms as u64))
    } else {
        Err(error(format!("\"ttl\" must be a positive number of seconds, got {seconds}")))
    }
}

/// Prints one line, with its end.
///
/// # Errors
/// Those of `out`.
pub(crate) fn write_line(out: &mut impl io::Write, record: &Record<'_>) -> io::Result<()> {
    let (key, key64) = text_or_base64(&record.key);
    let (value, value64) = text_or_base64(&record.value);
    let ttl = record.ttl.map(seconds);
    let sequence = record.sequence;
    let epoch = sequence.map(|sequence| sequence >> COUNTER_BITS);
    let counter = sequence.map(|sequence| sequence & ((1 << COUNTER_BITS) - 1));
    let line = Line { key, key64, value, value64, sequence, epoch, counter, ttl };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

/// Whole milliseconds, rounded up: nothing that still lives is printed as dead.
pub(crate) fn seconds(ttl: Duration) -> f64 {
    let ms = ttl.as_nanos().div_ceil(1_000_000).max(1) as f64;
    ms.min(MAX_TTL_MS) / 1000.0
}

/// The text, if it is UTF-8; else its base64: one of the two.
pub(crate) fn text_or_base64(bytes: &[u8]) -> (Option<Cow<'_, str>>, Option<Cow<'_, str>>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(Cow::Borrowed(text)), None),
        Err(_) => (None, Some(Cow::Owned(BASE64.encode(bytes)))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(key: &[u8], value: &[u8]) -> Record<'static> {
        Record { key: key.to_vec().into(), value: value.to_vec().into(), sequence: None, ttl: None }
    }

    fn line(record: &Record<'_>) -> String {
        let mut out = Vec::new();
        write_line(&mut out, record).expect("a Vec takes everything");
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn text_is_printed_as_text() {
        let full = Record {
            sequence: Some(7),
            ttl: Some(Duration::from_millis(3500)),
            ..record(b"/a", b"text")
        };
        assert_eq!(
            line(&full),
            "{\"key\":\"/a\",\"value\":\"text\",\"sequence\":7,\"epoch\":0,\"counter\":7,\"ttl\":3.5}\n"
        );
        assert_eq!(parse_line(line(&full).as_bytes()), Ok(full));
    }

    #[test]
    fn what_is_not_utf8_is_printed_as_base64() {
        let binary = record(b"/\xff", b"\0\xfe");
        assert_eq!(line(&binary), "{\"key64\":\"L/8=\",\"value64\":\"AP4=\"}\n");
        assert_eq!(parse_line(line(&binary).as_bytes()), Ok(binary));
    }

    #[test]
    fn text_may_come_as_base64_and_with_escapes() {
        let read = parse_line(br#" {"value64":"dGV4dA==","key":"\u002fa\n"} "#);
        assert_eq!(read, Ok(record(b"/a\n", b"text")));
    }

    #[test]
    fn what_is_no_record_says_why() {
        for (line, reason) in [
            (&b""[..], "expected a JSON object"),
            (b"[\"/a\",null,\"x\"]", "expected a JSON object"),
            (b"{\"key\":\"/a\",\"value\":1}", "column 21: invalid type"),
            (b"{\"key\":\"/a\"}", "expected \"value\" or \"value64\", got neither"),
            (b"{\"value\":\"\"}", "expected \"key\" or \"key64\", got neither"),
            (b"{\"key\":\"/a\",\"key64\":\"\",\"value\":\"\"}", "got both"),
            (b"{\"key\":\"/a\",\"key\":\"/b\",\"value\":\"\"}", "duplicate field"),
            (b"{\"key\":\"/a\",\"value\":\"x\",\"tll\":1}", "unknown field `tll`"),
            (b"{\"key\":\"/a\",\"value64\":\"AP4\"}", "\"value64\" is no base64"),
            (b"{\"key\":\"/a\",\"value\":\"x\",\"ttl\":0}", "positive number of seconds, got 0"),
            (b"{\"key\":\"/a\",\"value\":\"x\",\"ttl\":-1}", "got -1"),
            (b"{\"key\":\"/a\",\"value\":\"x\",\"ttl\":1e300}", "positive number"),
            (b"{\"key\":\"/a\",\"value\":\"x\",\"sequence\":-1}", "invalid value"),
            (b"{\"key\":\"/a\",\"value\":\"x\"} {", "trailing characters"),
            (b"{\"key\":\"\xff\",\"value\":\"x\"}", "column"),
            (b"{\"key\":\"\\ud800\",\"value\":\"x\"}", "column"),
            (b"{\"key\":\"/a", "EOF"),
        ] {
            let error = parse_line(line).unwrap_err().to_string();
            assert!(error.contains(reason), "{}: {error}", line.escape_ascii());
            assert!(!error.contains("at line"), "{error}");
        }
    }

    #[test]
    fn a_moment_left_is_not_printed_as_none() {
        assert_eq!(seconds(Duration::from_nanos(1)), 0.001);
        assert_eq!(ttl(1e-9), Ok(Duration::from_millis(1)));
    }

    proptest! {
        #[test]
        fn any_record_is_read_back(
            key in bytes(), value in bytes(),
            sequence in any::<Option<u64>>(), ms in proptest::option::of(1..1_u64 << 50),
        ) {
            let record = Record { sequence, ttl: ms.map(Duration::from_millis), ..record(&key, &value) };
            let line = line(&record);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            prop_assert_eq!(parse_line(line.as_bytes()), Ok(record));
        }

        #[test]
        fn no_line_panics_and_what_is_read_is_written_back(
            line in prop_oneof![bytes(), "[{}\":,a-z0-9/\\\\]{0,40}".prop_map(String::into_bytes)]
        ) {
            if let Ok(record) = parse_line(&line) {
                prop_assert_eq!(parse_line(self::line(&record).as_bytes()), Ok(record));
            }
        }
    }

    /// Arbitrary bytes, often text.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            any::<String>().prop_map(String::into_bytes),
        ]
    }
}
