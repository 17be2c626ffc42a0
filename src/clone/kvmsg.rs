//! [`KvMsg`]: the five-frame message of RFC 12, and what may be in it.

use std::fmt;

use super::properties::Properties;
use super::sequence::Sequence;
use crate::message::Message;

/// Frames of a message: key, sequence, uuid, properties, body.
pub const FRAMES: usize = 5;

/// The key of a heartbeat, or the start of it: the rest is the subtree.
pub const HUGZ: &[u8] = b"HUGZ";
/// The key of the message that ends a snapshot.
pub const KTHXBAI: &[u8] = b"KTHXBAI";
/// The first frame of a request for a snapshot.
pub const ICANHAZ: &[u8] = b"ICANHAZ?";
/// The first frame of a request for figures, and the key of its answer.
pub const STATUS: &[u8] = b"STATUS?";

/// The first frame of what a broker tells its peer, and the key of the answer.
pub const PEER: &[u8] = b"PEER?";
/// The first frame of a change that a broker hands to its peer, and the key of the answer.
pub const RESUBMIT: &[u8] = b"RESUBMIT";
/// The first frame of a message with many changes, from an active to its standby.
pub const KVPUBS: &[u8] = b"KVPUBS";
/// The key of a message with the uuids of changes.
pub const UUIDS: &[u8] = b"UUIDS";
/// The first frame of the order to become active, and the key of the answer.
pub const PROMOTE: &[u8] = b"PROMOTE?";
/// The first frame of the order to become passive, and the key of the answer.
pub const DEMOTE: &[u8] = b"DEMOTE?";

/// What a message may hold. Whatever exceeds a limit is refused with its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The longest key, in bytes: 255, which is what the Guide's C programs can
    /// hold. The key of a heartbeat may have its `HUGZ` on top.
    pub max_key: usize,
    /// The largest body, in bytes: 1 MiB.
    pub max_value: usize,
    /// The largest properties frame, in bytes: 4 KiB.
    pub max_properties: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_key: 255, max_value: 1 << 20, max_properties: 4 << 10 }
    }
}

/// The 16 bytes that name a change wherever it goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// The uuid with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Uuid {
        Uuid(bytes)
    }

    /// Its bytes, as on the wire.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// What a sender that numbers its changes calls one of them: version 8, the seed that it
    /// has drawn in the upper 64 of its 122 free bits, the number in the lower 58.
    pub(crate) fn numbered(seed: u64, number: u64) -> Uuid {
        let seed = u128::from(seed);
        let bits = (seed >> 16) << 80
            | 8 << 76
            | ((seed >> 4) & 0xfff) << 64
            | 0b10 << 62
            | (seed & 0xf) << NUMBER_BITS
            | u128::from(number);
        Uuid(bits.to_be_bytes())
    }

    /// The number that it has if it is one of a sender with this seed.
    pub(crate) fn number(&self, seed: u64) -> Option<u64> {
        self.numbering().filter(|&(other, _)| other == seed).map(|(_, number)| number)
    }

    /// The seed and the number that it has if it is of a sender that numbers its changes.
    #[inline]
    pub(crate) fn numbering(&self) -> Option<(u64, u64)> {
        let bits = u128::from_be_bytes(self.0);
        let (upper, lower) = ((bits >> 64) as u64, bits as u64);
        if (upper >> 12) & 0xf != 8 || lower >> 62 != 0b10 {
            return None;
        }
        let seed = upper & !0xffff | (upper & 0xfff) << 4 | lower >> NUMBER_BITS & 0xf;
        Some((seed, lower & ((1 << NUMBER_BITS) - 1)))
    }

    /// Whether both are of one sender that numbers its changes, and this one is of an
    /// earlier change than the other.
    #[inline]
    pub(crate) fn is_before(&self, other: &Uuid) -> bool {
        match (self.numbering(), other.numbering()) {
            (Some((seed, number)), Some((others, later))) => seed == others && number < later,
            _ => false,
        }
    }
}

/// The bits of a numbered uuid that hold the number of the change.
const NUMBER_BITS: u32 = 58;

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A message of five frames, decoded: all that clients and brokers tell each
/// other but for the requests on the snapshot port.
///
/// It borrows the frames it came in. An empty body means *delete the key*.
///
/// ```
/// use pollux::Message;
/// use pollux::clone::{KvMsg, Limits, Properties, Sequence};
///
/// let kvmsg = KvMsg {
///     key: b"/room/1",
///     sequence: Sequence::new(0, 7),
///     uuid: None,
///     properties: Properties::EMPTY,
///     body: b"open",
/// };
/// let again = kvmsg.with_frames(|frames| {
///     KvMsg::decode(Message::new(frames), &Limits::default()).map(|kvmsg| kvmsg.sequence)
/// });
/// assert_eq!(again, Ok(Sequence::new(0, 7)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KvMsg<'a> {
    /// The key, or the name of a control message; never empty.
    pub key: &'a [u8],
    /// The number of the change, or what a control message says it means.
    pub sequence: Sequence,
    /// The name of the change, if it has one.
    pub uuid: Option<Uuid>,
    /// The properties, checked.
    pub properties: Properties<'a>,
    /// The value; empty for a deletion.
    pub body: &'a [u8],
}

impl<'a> KvMsg<'a> {
    /// Takes a received message apart: neither copies nor allocates nor panics,
    /// whatever the frames are.
    ///
    /// Reserved keys pass, since control messages have them (see [`is_reserved`]).
    ///
    /// # Errors
    /// What breaks RFC 12's table of frames or a limit, the first that is found.
    #[inline]
    pub fn decode(message: Message<'a>, limits: &Limits) -> Result<KvMsg<'a>, DecodeError> {
        let &[key, sequence, uuid, properties, body] = message.frames() else {
            return Err(DecodeError::FrameCount { got: message.len() });
        };
        check_key_frame(key, limits)?;
        let sequence = match sequence.try_into() {
            Ok(bytes) => Sequence::from_wire(bytes),
            Err(_) => return Err(DecodeError::SequenceLength { got: sequence.len() }),
        };
        let uuid = match uuid.try_into() {
            Ok(bytes) => Some(Uuid(bytes)),
            Err(_) if uuid.is_empty() => None,
            Err(_) => return Err(DecodeError::UuidLength { got: uuid.len() }),
        };
        let properties = Properties::check(properties, limits)?;
        if body.len() > limits.max_value {
            return Err(DecodeError::ValueSize { got: body.len(), max: limits.max_value });
        }
        Ok(KvMsg { key, sequence, uuid, properties, body })
    }

    /// Hands the five frames to `f`, to be sent. Nothing is copied but the
    /// eight bytes of the sequence.
    #[inline]
    pub fn with_frames<R>(&self, f: impl FnOnce(&[&[u8]; FRAMES]) -> R) -> R {
        let sequence = self.sequence.to_wire();
        let uuid = self.uuid.as_ref().map_or(&[][..], |uuid| uuid.as_bytes());
        f(&[self.key, &sequence, uuid, self.properties.as_bytes(), self.body])
    }
}

impl fmt::Debug for KvMsg<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvMsg")
            .field("key", &String::from_utf8_lossy(self.key))
            .field("sequence", &self.sequence)
            .field("uuid", &self.uuid)
            .field("properties", &self.properties)
            .field("body", &self.body.escape_ascii().to_string())
            .finish()
    }
}

/// Why a message is not one of the protocol's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not five frames.
    FrameCount {
        /// How many there were.
        got: usize,
    },
    /// A key that is empty or too long.
    KeyLength {
        /// Its bytes.
        got: usize,
        /// How many are allowed.
        max: usize,
    },
    /// A key with a control byte (below 0x20, or 0x7f).
    KeyByte {
        /// The byte.
        byte: u8,
        /// Where in the key, from 0.
        position: usize,
    },
    /// A sequence that is not 8 bytes.
    SequenceLength {
        /// How many there were.
        got: usize,
    },
    /// A uuid that is neither empty nor 16 bytes.
    UuidLength {
        /// How many there were.
        got: usize,
    },
    /// A property line that is not `name=value`.
    PropertySyntax {
        /// Which line, from 1.
        line: usize,
    },
    /// Too many bytes of properties.
    PropertiesSize {
        /// How many there were.
        got: usize,
        /// How many are allowed.
        max: usize,
    },
    /// Too large a body.
    ValueSize {
        /// Its bytes.
        got: usize,
        /// How many are allowed.
        max: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            DecodeError::FrameCount { got } => {
                write!(f, "message: expected {FRAMES} frames, got {got}")
            }
            DecodeError::KeyLength { got, max } => {
                write!(f, "key frame: expected 1 to {max} bytes, got {got}")
            }
            DecodeError::KeyByte { byte, position } => {
                write!(f, "key frame: control byte 0x{byte:02x} at position {position}")
            }
            DecodeError::SequenceLength { got } => {
                write!(f, "sequence frame: expected 8 bytes, got {got}")
            }
            DecodeError::UuidLength { got } => {
                write!(f, "uuid frame: expected 0 or 16 bytes, got {got}")
            }
            DecodeError::PropertySyntax { line } => {
                write!(f, "properties frame: expected name=value in line {line}")
            }
            DecodeError::PropertiesSize { got, max } => {
                write!(f, "properties frame: expected at most {max} bytes, got {got}")
            }
            DecodeError::ValueSize { got, max } => {
                write!(f, "body frame: expected at most {max} bytes, got {got}")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

/// Whether `key` is kept for control messages, so that no entry may have it:
/// `KTHXBAI`, `ICANHAZ?`, `STATUS?`, `UUIDS` and whatever begins with `HUGZ`.
#[inline]
pub fn is_reserved(key: &[u8]) -> bool {
    // Nearly every key is told apart by its first byte.
    matches!(key.first(), Some(b'H' | b'K' | b'I' | b'S' | b'U'))
        && (key.starts_with(HUGZ)
            || key == KTHXBAI
            || key == ICANHAZ
            || key == STATUS
            || key == UUIDS)
}

/// Why a key cannot be that of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KeyError {
    /// It is empty or too long.
    Length {
        /// Its bytes.
        got: usize,
        /// How many are allowed.
        max: usize,
    },
    /// It has a control byte (below 0x20, or 0x7f).
    Byte {
        /// The byte.
        byte: u8,
        /// Where in the key, from 0.
        position: usize,
    },
    /// Control messages have it (see [`is_reserved`]).
    Reserved,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            KeyError::Length { got, max } => {
                write!(f, "key: expected 1 to {max} bytes, got {got}")
            }
            KeyError::Byte { byte, position } => {
                write!(f, "key: control byte 0x{byte:02x} at position {position}")
            }
            KeyError::Reserved => f.write_str(
                "key: reserved for the protocol (KTHXBAI, ICANHAZ?, STATUS?, UUIDS, HUGZ...)",
            ),
        }
    }
}

impl std::error::Error for KeyError {}

/// Whether an entry may have this key.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_key(key: &[u8], limits: &Limits) -> Result<(), KeyError> {
    if key.is_empty() || key.len() > limits.max_key {
        return Err(KeyError::Length { got: key.len(), max: limits.max_key });
    }
    if let Some((position, byte)) = control_byte(key) {
        return Err(KeyError::Byte { byte, position });
    }
    if is_reserved(key) {
        return Err(KeyError::Reserved);
    }
    Ok(())
}

/// A heartbeat's key is longer than a key by its `HUGZ`, so that every key can
/// be a subtree.
#[inline]
fn check_key_frame(key: &[u8], limits: &Limits) -> Result<(), DecodeError> {
    let max = limits.max_key;
    if key.is_empty() || key.len() > max {
        let heartbeat = key.starts_with(HUGZ) && key.len() - HUGZ.len() <= max;
        if !heartbeat {
            return Err(DecodeError::KeyLength { got: key.len(), max });
        }
    }
    match control_byte(key) {
        None => Ok(()),
        Some((position, byte)) => Err(DecodeError::KeyByte { byte, position }),
    }
}

/// The first control byte of a key and where it is.
#[inline]
fn control_byte(key: &[u8]) -> Option<(usize, u8)> {
    let is_control = |byte: &u8| *byte < 0x20 || *byte == 0x7f;
    // Without a way out in the middle the compiler checks many bytes at once.
    if !key.iter().fold(false, |found, byte| found | is_control(byte)) {
        return None;
    }
    key.iter().position(is_control).map(|position| (position, key[position]))
}

#[cfg(test)]
mod tests;
