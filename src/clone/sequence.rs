//! [`Sequence`]: the number of a change, epoch and counter in one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Bits of the counter; the epoch has the 23 above them, the sign stays clear.
const COUNTER_BITS: u32 = 40;
/// The largest number that is positive as the signed integer of the wire.
const MAX: u64 = i64::MAX as u64;
/// 2025-01-01 00:00 UTC in seconds of Unix time: where epochs count from.
const EPOCH_ZERO_S: u64 = 1_735_689_600;
/// A starting counter is the millisecond of the minute, shifted by this.
const MILLISECOND_SHIFT: u32 = 24;

/// The number of a change: `epoch << 40 | counter`, from 0 to `i64::MAX`.
///
/// Peers of RFC 12 compare the whole; those that know better read the epoch
/// from the top. Zero means *none*: no change has it.
///
/// ```
/// use pollux::clone::Sequence;
///
/// let sequence = Sequence::new(7, 41).next();
/// assert_eq!((sequence.epoch(), sequence.counter()), (7, 42));
/// assert!(sequence < Sequence::new(8, 0));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// No sequence: lower than that of any change.
    pub const ZERO: Sequence = Sequence(0);
    /// The highest number the wire can carry.
    pub const MAX: Sequence = Sequence(MAX);

    /// Sequence `counter` of `epoch`. What exceeds 40 bits of counter carries
    /// into the epoch; what exceeds the whole gives [`Sequence::MAX`].
    pub const fn new(epoch: u32, counter: u64) -> Sequence {
        Sequence::from_u64(((epoch as u64) << COUNTER_BITS).saturating_add(counter))
    }

    /// The sequence with this number; above `i64::MAX`, [`Sequence::MAX`].
    pub const fn from_u64(number: u64) -> Sequence {
        Sequence(if number > MAX { MAX } else { number })
    }

    /// From the eight bytes of the wire, a signed number in network order.
    /// A negative one is [`Sequence::ZERO`].
    pub const fn from_wire(bytes: [u8; 8]) -> Sequence {
        let number = i64::from_be_bytes(bytes);
        Sequence(if number < 0 { 0 } else { number as u64 })
    }

    /// The eight bytes for the wire.
    pub const fn to_wire(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Where a broker begins that starts without its state at `unix_time`
    /// (time since 1970, UTC): above all that an earlier run can have given,
    /// unless the clock was set back. The epoch is the minutes since 2025, the
    /// counter the milliseconds of that minute in its upper bits.
    ///
    /// Earlier than 2025 it is [`Sequence::ZERO`]. The 23 bits of minutes last
    /// until December 2040, from when on it is [`Sequence::MAX`].
    pub const fn at_start(unix_time: Duration) -> Sequence {
        let Some(seconds) = unix_time.as_secs().checked_sub(EPOCH_ZERO_S) else {
            return Sequence::ZERO;
        };
        let millisecond = seconds % 60 * 1000 + unix_time.subsec_millis() as u64;
        let minutes = seconds / 60;
        if minutes > MAX >> COUNTER_BITS {
            return Sequence::MAX;
        }
        Sequence::new(minutes as u32, millisecond << MILLISECOND_SHIFT)
    }

    /// The run of numbers it belongs to, from 0 to 8,388,607.
    pub const fn epoch(self) -> u32 {
        (self.0 >> COUNTER_BITS) as u32
    }

    /// Its place within the epoch, below 2^40.
    pub const fn counter(self) -> u64 {
        self.0 & ((1 << COUNTER_BITS) - 1)
    }

    /// The number of the change after this one. A full counter carries into
    /// the epoch; [`Sequence::MAX`] stays where it is.
    pub const fn next(self) -> Sequence {
        Sequence::from_u64(self.0 + 1)
    }

    /// The whole as one number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch(), self.counter())
    }
}

/// From decimal digits, as in the property `since`.
impl FromStr for Sequence {
    type Err = ParseSequenceError;
    fn from_str(text: &str) -> Result<Sequence, ParseSequenceError> {
        match text.parse::<u64>() {
            Ok(number) if number <= MAX => Ok(Sequence(number)),
            _ => Err(ParseSequenceError),
        }
    }
}

/// A text is not a sequence: a decimal number from 0 to `i64::MAX`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseSequenceError;

impl fmt::Display for ParseSequenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sequence: expected a decimal number from 0 to {MAX}")
    }
}

impl std::error::Error for ParseSequenceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_and_counter_share_a_number() {
        let sequence = Sequence::new(3, 9);
        assert_eq!(sequence.get(), (3 << 40) | 9);
        assert_eq!((sequence.epoch(), sequence.counter()), (3, 9));
        assert_eq!(format!("{sequence} {sequence:?}"), "3298534883337 3:9");
    }

    #[test]
    fn a_full_counter_carries_into_the_epoch() {
        let last = Sequence::new(3, (1 << 40) - 1);
        assert_eq!(last.next(), Sequence::new(4, 0));
        assert_eq!(Sequence::new(3, 1 << 40), Sequence::new(4, 0));
    }

    #[test]
    fn nothing_lies_beyond_the_sign_bit() {
        assert_eq!(Sequence::MAX.next(), Sequence::MAX);
        assert_eq!(Sequence::new(u32::MAX, u64::MAX), Sequence::MAX);
        assert_eq!(Sequence::from_u64(1 << 63), Sequence::MAX);
        assert_eq!(Sequence::from_wire((-1i64).to_be_bytes()), Sequence::ZERO);
        assert_eq!(Sequence::from_wire(i64::MIN.to_be_bytes()), Sequence::ZERO);
    }

    #[test]
    fn the_wire_is_big_endian() {
        assert_eq!(Sequence::from_u64(0x0102).to_wire(), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(Sequence::from_wire([0, 0, 0, 0, 0, 0, 1, 2]).get(), 0x0102);
    }

    #[test]
    fn a_start_lies_above_all_that_an_earlier_one_gave() {
        let start = |millis| Sequence::at_start(Duration::from_millis(millis));
        let new_year = EPOCH_ZERO_S * 1000;
        assert_eq!(start(0), Sequence::ZERO);
        assert_eq!(start(new_year - 1), Sequence::ZERO);
        assert_eq!(start(new_year), Sequence::new(0, 0));
        assert_eq!(start(new_year + 61_002), Sequence::new(1, 1_002 << 24));
        // The last millisecond of a minute leaves its changes room below the next minute.
        let before = start(new_year + 59_999);
        assert_eq!(before.epoch(), 0);
        assert!(before.get() + (1 << 24) <= start(new_year + 60_000).get());
    }

    #[test]
    fn starts_run_out_in_december_2040() {
        let last_minute = EPOCH_ZERO_S + 60 * ((1 << 23) - 1);
        assert_eq!(Sequence::at_start(Duration::from_secs(last_minute)).epoch(), (1 << 23) - 1);
        assert_eq!(Sequence::at_start(Duration::from_secs(last_minute + 60)), Sequence::MAX);
        assert_eq!(Sequence::at_start(Duration::MAX), Sequence::MAX);
    }

    #[test]
    fn texts_that_are_no_sequence_are_refused() {
        assert_eq!("3298534883337".parse(), Ok(Sequence::new(3, 9)));
        for text in ["", "-1", "x", "1.0", "9223372036854775808"] {
            assert_eq!(text.parse::<Sequence>(), Err(ParseSequenceError), "{text}");
        }
        assert_eq!(
            ParseSequenceError.to_string(),
            "sequence: expected a decimal number from 0 to 9223372036854775807"
        );
    }
}
