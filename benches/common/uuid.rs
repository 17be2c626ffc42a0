//! The names of changes.

/// As our clients make them: version 8, random once, the number in the last 58 bits.
pub(crate) fn numbered(number: u64) -> [u8; 16] {
    let mut uuid = [0xa7; 16];
    uuid[6] = 0x87;
    uuid[8..].copy_from_slice(&(1 << 63 | number).to_be_bytes());
    uuid
}
