//! Durations and sizes as people write them: `500ms`, `10s`, `64K`.

use std::time::Duration;

/// Units of time with their nanoseconds. Longer names first where one is the
/// end of another.
const TIMES: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// A positive duration: a decimal number and one of `ns us ms s m h d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number and a unit, as in 500ms, 10s or 1.5m".to_owned();
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(unit_at);
    let &(_, unit_ns) = TIMES
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| format!("unknown unit {unit:?}; {}", expected()))?;
    let ns = decimal_times(number, unit_ns).ok_or_else(expected)?;
    match u64::try_from(ns) {
        Ok(0) => Err("expected more than zero".to_owned()),
        Ok(ns) => Ok(Duration::from_nanos(ns)),
        Err(_) => Err("expected less than 580 years".to_owned()),
    }
}

/// `number * factor`, without the rounding of floating point: what lies below
/// one is cut off.
fn decimal_times(number: &str, factor: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| {
        (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let (whole, fraction): (u128, u128) = (whole.parse().ok()?, fraction.parse().ok()?);
    Some(whole * u128::from(factor) + fraction * u128::from(factor) / scale)
}

/// A positive number of bytes, in units of 1024 with `K`, `M` or `G` behind it.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let expected = || "expected a number of bytes, as in 4096, 64K or 1M".to_owned();
    let (number, factor) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1_usize),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected());
    }
    match number.parse::<usize>().ok().and_then(|number| number.checked_mul(factor)) {
        None => Err(expected()),
        Some(0) => Err("expected more than zero".to_owned()),
        Some(bytes) => Ok(bytes),
    }
}

/// A duration for people: two or three digits that matter.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ns = duration.as_nanos();
    let (unit, unit_ns) = match ns {
        0..1_000 => ("ns", 1),
        1_000..1_000_000 => ("us", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let decimals = if ns >= 100 * unit_ns || ns.is_multiple_of(unit_ns) { 0 } else { 1 };
    let value = ns as f64 / unit_ns as f64;
    format!("{value:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, ns) in [
            ("10s", 10_000_000_000),
            ("500ms", 500_000_000),
            ("1m", 60_000_000_000),
            ("1.5s", 1_500_000_000),
            ("0.001s", 1_000_000),
            ("2h", 7_200_000_000_000),
            ("1d", 86_400_000_000_000),
            ("7us", 7_000),
            ("1ns", 1),
            ("0.1s", 100_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(ns)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_what_was_expected() {
        for (text, reason) in [
            ("", "a number and a unit"),
            ("10", "a number and a unit"),
            ("s", "a number and a unit"),
            ("-1s", "a number and a unit"),
            ("1.s", "a number and a unit"),
            (".5s", "a number and a unit"),
            ("1e3s", "unknown unit \"e3s\""),
            ("1 s", "a number and a unit"),
            ("1S", "unknown unit \"S\""),
            ("0s", "more than zero"),
            ("0.1ns", "more than zero"),
            ("1000000d", "580 years"),
            ("99999999999999999999s", "a number and a unit"),
        ] {
            let error = duration(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, size) in [("1", 1), ("4096", 4096), ("64K", 65_536), ("2M", 2 << 20)] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "K", "-1", "+1", "1.5M", "1MB", "99999999999999999999", "0", "0K"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_with_the_digits_that_matter() {
        for (ns, text) in [
            (950, "950ns"),
            (1_000, "1us"),
            (41_234, "41.2us"),
            (412_345, "412us"),
            (5_000_000_000, "5s"),
            (1_500_000_000, "1.5s"),
        ] {
            assert_eq!(show_duration(Duration::from_nanos(ns)), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn every_duration_in_nanoseconds_is_read_back(ns in 1..u64::MAX / 2) {
            let exact = Duration::from_nanos(ns);
            proptest::prop_assert_eq!(duration(&format!("{ns}ns")).ok(), Some(exact).filter(|_| ns < 10_u64.pow(18)));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = duration(&text);
            let _ = bytes(&text);
        }
    }
}
