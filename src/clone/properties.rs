//! The fourth frame: lines `name=value\n`, borrowed as [`Properties`], written
//! by [`PropertiesBuf`].

use std::fmt;
use std::io::Write as _;
use std::str::FromStr;

use super::kvmsg::{DecodeError, Limits};

/// The properties of a message or an entry: lines `name=value\n`, in order.
///
/// They have been checked: each line holds exactly one `=` with something on
/// both sides, only the last may lack its line feed. Of lines with the same
/// name the first counts, as with the Guide's C programs.
///
/// ```
/// use pollux::clone::{Limits, Properties};
///
/// let properties = Properties::check(b"ttl=30\nowner=eva\n", &Limits::default()).unwrap();
/// assert_eq!(properties.get("owner"), Some(&b"eva"[..]));
/// assert_eq!(properties.parse::<u32>("ttl"), Some(30));
/// assert_eq!(properties.iter().count(), 2);
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties(&[]);

    /// Takes a properties frame.
    ///
    /// # Errors
    /// [`DecodeError::PropertiesSize`] above `limits.max_properties` bytes,
    /// [`DecodeError::PropertySyntax`] for the first line that is not `name=value`.
    #[inline]
    pub fn check(bytes: &'a [u8], limits: &Limits) -> Result<Properties<'a>, DecodeError> {
        if bytes.is_empty() {
            return Ok(Properties(bytes));
        }
        if bytes.len() > limits.max_properties {
            return Err(DecodeError::PropertiesSize {
                got: bytes.len(),
                max: limits.max_properties,
            });
        }
        match lines(bytes).position(|line| split(line).is_none()) {
            None => Ok(Properties(bytes)),
            Some(index) => Err(DecodeError::PropertySyntax { line: index + 1 }),
        }
    }

    /// The value of the first property `name`.
    #[inline]
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        // Most messages have none at all.
        if self.is_empty() {
            return None;
        }
        self.iter().find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    /// The value of the first property `name`, read as a `T`; `None` if it is
    /// missing or does not read as one.
    pub fn parse<T: FromStr>(self, name: &str) -> Option<T> {
        str::from_utf8(self.get(name)?).ok()?.parse().ok()
    }

    /// The value of the first property `name`, read as a number in hexadecimal digits, as
    /// those of brokers and pairs are written.
    pub(crate) fn hex(self, name: &str) -> Option<u64> {
        u64::from_str_radix(str::from_utf8(self.get(name)?).ok()?, 16).ok()
    }

    /// Names and values, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        lines(self.0).filter_map(split)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The frame as it came.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Bytes that [`Properties::as_bytes`] gave earlier.
    pub(crate) const fn from_checked(bytes: &'a [u8]) -> Properties<'a> {
        Properties(bytes)
    }
}

/// The lines of a frame without their line feeds; none if it is empty.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = bytes.strip_suffix(b"\n").or(Some(bytes).filter(|bytes| !bytes.is_empty()));
    bytes.into_iter().flat_map(|bytes| bytes.split(|&byte| byte == b'\n'))
}

/// Name and value of a line that is a property.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = line.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (&line[..equals], &line[equals + 1..]);
    (!name.is_empty() && !value.is_empty() && !value.contains(&b'=')).then_some((name, value))
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes);
        f.debug_map().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

/// A buffer that properties are written into, to be used again and again:
/// once it has grown, writing allocates nothing.
///
/// ```
/// use pollux::clone::PropertiesBuf;
///
/// let mut buffer = PropertiesBuf::new();
/// buffer.push("chp", 2).push("role", "active");
/// assert_eq!(buffer.as_properties().as_bytes(), b"chp=2\nrole=active\n");
/// ```
#[derive(Clone, Default)]
pub struct PropertiesBuf(Vec<u8>);

impl PropertiesBuf {
    /// An empty buffer.
    pub const fn new() -> PropertiesBuf {
        PropertiesBuf(Vec::new())
    }

    /// Takes all properties out and keeps the memory.
    pub fn clear(&mut self) -> &mut PropertiesBuf {
        self.0.clear();
        self
    }

    /// Adds a property. What neither side can hold, `=` and line feeds, turns
    /// into `?`, and so does a side that is empty: a line always stays a line.
    pub fn push(&mut self, name: &str, value: impl fmt::Display) -> &mut PropertiesBuf {
        self.push_side(name);
        self.0.push(b'=');
        self.push_side(value);
        self.0.push(b'\n');
        self
    }

    fn push_side(&mut self, side: impl fmt::Display) {
        let start = self.0.len();
        // Writing to a vector fails only if the value's Display does; it then
        // has written what it has written, which is made a legal side below.
        let _ = write!(self.0, "{side}");
        if self.0.len() == start {
            self.0.push(b'?');
        }
        for byte in &mut self.0[start..] {
            if matches!(byte, b'=' | b'\n') {
                *byte = b'?';
            }
        }
    }

    /// Adds all of `properties` but those with one of these names, unchanged
    /// and in order; the last line gets its line feed if it lacked one.
    pub fn copy_except(&mut self, properties: Properties<'_>, names: &[&str]) -> &mut Self {
        for (name, value) in properties.iter() {
            if !names.iter().any(|left_out| left_out.as_bytes() == name) {
                self.0.extend_from_slice(name);
                self.0.push(b'=');
                self.0.extend_from_slice(value);
                self.0.push(b'\n');
            }
        }
        self
    }

    /// What has been written.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties(&self.0)
    }
}

impl fmt::Debug for PropertiesBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_properties().fmt(f)
    }
}

#[cfg(test)]
mod tests;
