//! Any bytes as the properties frame: taken or refused by the rule as the plainest
//! program would have it, and never changed by a way through the buffer.

use pollux::clone::{DecodeError, Limits, Properties, PropertiesBuf};

pub fn run(input: &[u8]) {
    let (sides, frame) = input.split_at(input.len().min(16));
    for bytes in [input, frame] {
        read(bytes);
    }
    write(sides, frame);
}

type Property<'a> = (&'a [u8], &'a [u8]);

/// Name and value of each line, or the first line, from 1, that has none.
fn naive(bytes: &[u8]) -> Result<Vec<Property<'_>>, usize> {
    let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    // What is behind the last line feed is no line.
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    let lines = lines.into_iter().enumerate();
    lines.map(|(index, line)| property(line).ok_or(index + 1)).collect()
}

fn property(line: &[u8]) -> Option<Property<'_>> {
    let sides: Vec<&[u8]> = line.split(|&byte| byte == b'=').collect();
    match sides[..] {
        [name, value] if !name.is_empty() && !value.is_empty() => Some((name, value)),
        _ => None,
    }
}

fn read(bytes: &[u8]) {
    let limits = Limits::default();
    let max = limits.max_properties;
    let checked = Properties::check(bytes, &limits);
    if bytes.len() > max {
        assert_eq!(checked, Err(DecodeError::PropertiesSize { got: bytes.len(), max }));
        return;
    }
    let expected = match naive(bytes) {
        Ok(expected) => expected,
        Err(line) => return assert_eq!(checked, Err(DecodeError::PropertySyntax { line })),
    };
    let properties = checked.expect("each line is a property");
    assert_eq!(properties.as_bytes(), bytes);
    assert_eq!(properties.iter().collect::<Vec<_>>(), expected);
    assert_eq!(properties.is_empty(), expected.is_empty());
    for (name, _) in &expected {
        let Ok(text) = std::str::from_utf8(name) else { continue };
        let first = expected.iter().find(|(other, _)| other == name).map(|&(_, value)| value);
        assert_eq!(properties.get(text), first);
        let number = first.and_then(|value| std::str::from_utf8(value).ok()?.parse::<i64>().ok());
        assert_eq!(properties.parse::<i64>(text), number);
    }
    let mut copy = PropertiesBuf::new();
    copy.copy_except(properties, &["ttl"]);
    let left: Vec<_> = expected.iter().filter(|(name, _)| *name != b"ttl").copied().collect();
    assert_eq!(copy.as_properties().iter().collect::<Vec<_>>(), left);
}

/// Whatever is pushed, a line stays a line.
fn write(name: &[u8], value: &[u8]) {
    let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
    let mut buffer = PropertiesBuf::new();
    buffer.push(&name, &value).push("last", 1);
    let legal = |side: &str| match side {
        "" => "?".to_owned(),
        side => side.replace(['=', '\n'], "?"),
    };
    let expected = [(legal(&name), legal(&value)), ("last".to_owned(), "1".to_owned())];
    let lines = naive(buffer.as_properties().as_bytes()).expect("all are properties");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("as it was pushed");
    let lines: Vec<_> = lines.iter().map(|(name, value)| (text(name), text(value))).collect();
    assert_eq!(lines, expected);
}
