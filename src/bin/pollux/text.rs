//! Bytes shown to people: text as it is, everything else escaped.

use std::fmt;

/// Shows bytes on one line, safe for a terminal: printable UTF-8 as it is,
/// control characters and what is no UTF-8 as `\n`, `\t`, `\xff`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => f.write_str("\\\\")?,
                    '\n' | '\r' | '\t' => write!(f, "{}", character.escape_default())?,
                    c if is_unsafe(c) => write!(f, "{}", c.escape_unicode())?,
                    c => write!(f, "{c}")?,
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        Ok(())
    }
}

/// The same for a value by itself, in which lines, tabs and backslashes stay what they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShownLines<'a>(pub(crate) &'a [u8]);

impl fmt::Display for ShownLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\n' | '\t' => write!(f, "{character}")?,
                    c if is_unsafe(c) => write!(f, "{}", c.escape_unicode())?,
                    c => write!(f, "{c}")?,
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        Ok(())
    }
}

/// Control characters, and those that change the direction of what follows.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A number with its thousands apart: 1,234,567.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many of them: 1 key, 1,234 keys.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_and_the_rest_escaped() {
        for (bytes, shown) in [
            (&b"plain text"[..], "plain text"),
            ("Grüße".as_bytes(), "Grüße"),
            (b"a\nb\tc\\", "a\\nb\\tc\\\\"),
            (b"\x1b[2J", "\\u{1b}[2J"),
            (b"\xff\xfe ok", "\\xff\\xfe ok"),
            ("\u{202e}x".as_bytes(), "\\u{202e}x"),
        ] {
            assert_eq!(Shown(bytes).to_string(), shown);
        }
    }

    #[test]
    fn a_value_keeps_its_lines_but_not_its_hold_on_the_terminal() {
        for (bytes, shown) in [
            (&b"a\tb\nc\\"[..], "a\tb\nc\\"),
            (b"\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            (b"a\rb\xff", "a\\u{d}b\\xff"),
        ] {
            assert_eq!(ShownLines(bytes).to_string(), shown);
        }
    }

    #[test]
    fn thousands_are_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(counted(1, "key"), "1 key");
        assert_eq!(counted(1_000, "key"), "1,000 keys");
    }
}
