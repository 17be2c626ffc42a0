use proptest::prelude::*;

use super::*;

fn check(bytes: &[u8]) -> Result<Properties<'_>, DecodeError> {
    Properties::check(bytes, &Limits::default())
}

#[test]
fn an_empty_frame_has_no_properties() {
    let properties = check(b"").unwrap();
    assert!(properties.is_empty());
    assert_eq!(properties.iter().count(), 0);
    assert_eq!(properties.get("ttl"), None);
}

#[test]
fn the_first_of_a_name_counts() {
    let properties = check(b"ttl=1\nttl=2\n").unwrap();
    assert_eq!(properties.get("ttl"), Some(&b"1"[..]));
    assert_eq!(properties.iter().count(), 2);
}

#[test]
fn the_last_line_may_lack_its_line_feed() {
    let properties = check(b"a=1\nb=2").unwrap();
    assert_eq!(properties.get("b"), Some(&b"2"[..]));
    assert_eq!(properties.as_bytes(), b"a=1\nb=2");
}

#[test]
fn a_name_is_found_whole_or_not_at_all() {
    let properties = check(b"ttlms=1\n").unwrap();
    assert_eq!(properties.get("ttl"), None);
    assert_eq!(properties.get("ttlms"), Some(&b"1"[..]));
}

#[test]
fn what_does_not_read_as_the_type_is_none() {
    let properties = check(b"a=12\nb=x\nc=\xff\n").unwrap();
    assert_eq!(properties.parse::<u8>("a"), Some(12));
    assert_eq!(properties.parse::<f64>("a"), Some(12.0));
    assert_eq!(properties.parse::<u8>("b"), None);
    assert_eq!(properties.parse::<String>("c"), None);
    assert_eq!(properties.parse::<u8>("d"), None);
}

#[test]
fn a_line_that_is_no_property_is_named_by_its_number() {
    for (bytes, line) in [
        (&b"\n"[..], 1),
        (b"a=1\n\nb=1\n", 2),
        (b"a=1\n\n", 2),
        (b"a", 1),
        (b"=1\n", 1),
        (b"a=1\nb=\n", 2),
        (b"a=1\nb=2\nc=3=4\n", 3),
    ] {
        assert_eq!(check(bytes), Err(DecodeError::PropertySyntax { line }), "{bytes:?}");
    }
}

#[test]
fn the_buffer_writes_lines_and_keeps_its_memory() {
    let mut buffer = PropertiesBuf::new();
    buffer.push("chp", 2).push("hb", format_args!("{}", 1000));
    assert_eq!(buffer.as_properties().as_bytes(), b"chp=2\nhb=1000\n");
    let room = buffer.0.capacity();
    buffer.clear().push("a", "b");
    assert_eq!(buffer.as_properties().as_bytes(), b"a=b\n");
    assert_eq!(buffer.0.capacity(), room);
}

#[test]
fn copying_leaves_names_out_and_the_rest_as_it_is() {
    let properties = check(b"ttl=1\nx=\xfe\nttlms=5\nttl=2\ny=3").unwrap();
    let mut buffer = PropertiesBuf::new();
    buffer.push("ttl", 9).copy_except(properties, &["ttl", "ttlms"]);
    assert_eq!(buffer.as_properties().as_bytes(), b"ttl=9\nx=\xfe\ny=3\n");
}

#[test]
fn debug_shows_names_and_values() {
    assert_eq!(format!("{:?}", check(b"a=1\nb=2\n").unwrap()), r#"{"a": "1", "b": "2"}"#);
}

/// The properties of a text, or the number of its first bad line, found the slow way.
fn naive(text: &str) -> Result<Vec<(String, String)>, usize> {
    let mut lines: Vec<&str> = text.split('\n').collect();
    if lines.last() == Some(&"") {
        lines.pop();
    }
    let read = |(index, line): (usize, &str)| {
        let (name, value) = line.split_once('=').ok_or(index + 1)?;
        if name.is_empty() || value.is_empty() || value.contains('=') {
            return Err(index + 1);
        }
        Ok((name.to_owned(), value.to_owned()))
    };
    lines.into_iter().enumerate().map(read).collect()
}

proptest! {
    #[test]
    fn reading_agrees_with_a_naive_parser(
        text in prop_oneof!["[ab=\n]{0,12}", "([ab]{1,2}=[cd]{1,2}\n){0,4}", "(a=b\n?|b=cc\n){0,3}"],
    ) {
        match (check(text.as_bytes()), naive(&text)) {
            (Ok(properties), Ok(expected)) => {
                let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let read: Vec<_> =
                    properties.iter().map(|(name, value)| (string(name), string(value))).collect();
                prop_assert_eq!(&read, &expected);
                for name in ["a", "b", "ab", "ba", "c"] {
                    let first = expected.iter().find(|(found, _)| found == name);
                    let first = first.map(|(_, value)| value.as_bytes());
                    prop_assert_eq!(properties.get(name), first);
                }
            }
            (Err(error), Err(line)) => {
                prop_assert_eq!(error, DecodeError::PropertySyntax { line });
            }
            (got, expected) => prop_assert!(false, "{got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn whatever_is_pushed_reads_back_as_one_property(name in any::<String>(), value in any::<String>()) {
        let mut buffer = PropertiesBuf::new();
        buffer.push("before", 1).push(&name, &value).push("after", 2);
        let bytes = buffer.as_properties().as_bytes();
        let properties = Properties::check(bytes, &Limits { max_properties: usize::MAX, ..Limits::default() });
        let read: Vec<_> = properties.unwrap().iter().collect();
        let written = |side: &str| match side.replace(['=', '\n'], "?") {
            side if side.is_empty() => b"?".to_vec(),
            side => side.into_bytes(),
        };
        prop_assert_eq!(read.len(), 3);
        prop_assert_eq!(read[1], (&written(&name)[..], &written(&value)[..]));
    }
}
