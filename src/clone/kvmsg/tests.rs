use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Five legal frames, to be spoilt one at a time.
const GOOD: [&[u8]; 5] = [b"/key", &[0, 0, 0, 0, 0, 0, 0, 7], &[9; 16], b"ttl=1\n", b"value"];

fn decode(frames: &[&[u8]]) -> Result<(), DecodeError> {
    KvMsg::decode(Message::new(frames), &Limits::default()).map(|_| ())
}

/// What decoding says when frame `index` is `frame` instead.
fn spoilt(index: usize, frame: &[u8]) -> String {
    let mut frames = GOOD;
    frames[index] = frame;
    decode(&frames).unwrap_err().to_string()
}

#[test]
fn a_message_decodes_into_its_frames() {
    let kvmsg = KvMsg::decode(Message::new(&GOOD), &Limits::default()).unwrap();
    assert_eq!(kvmsg.key, b"/key");
    assert_eq!(kvmsg.sequence, Sequence::from_u64(7));
    assert_eq!(kvmsg.uuid, Some(Uuid::from_bytes([9; 16])));
    assert_eq!(kvmsg.properties.parse::<u32>("ttl"), Some(1));
    assert_eq!(kvmsg.body, b"value");
}

#[test]
fn an_error_says_what_was_expected_and_what_came() {
    assert_eq!(decode(&GOOD[..4]).unwrap_err().to_string(), "message: expected 5 frames, got 4");
    assert_eq!(decode(&[]).unwrap_err().to_string(), "message: expected 5 frames, got 0");
    assert_eq!(spoilt(0, b""), "key frame: expected 1 to 255 bytes, got 0");
    assert_eq!(spoilt(0, &[b'k'; 256]), "key frame: expected 1 to 255 bytes, got 256");
    assert_eq!(spoilt(0, b"a\nb"), "key frame: control byte 0x0a at position 1");
    assert_eq!(spoilt(0, b"ab\x7f"), "key frame: control byte 0x7f at position 2");
    assert_eq!(spoilt(1, &[0; 3]), "sequence frame: expected 8 bytes, got 3");
    assert_eq!(spoilt(2, &[0; 15]), "uuid frame: expected 0 or 16 bytes, got 15");
    assert_eq!(spoilt(3, b"a=1\nb\n"), "properties frame: expected name=value in line 2");
    assert_eq!(spoilt(3, &[b'p'; 4097]), "properties frame: expected at most 4096 bytes, got 4097");
    assert_eq!(
        spoilt(4, &vec![0; (1 << 20) + 1]),
        "body frame: expected at most 1048576 bytes, got 1048577"
    );
}

#[test]
fn what_is_just_within_the_limits_passes() {
    let limits = Limits { max_key: 3, max_value: 2, max_properties: 4 };
    let frames: [&[u8]; 5] = [b"abc", GOOD[1], b"", b"a=1\n", b"xy"];
    assert!(KvMsg::decode(Message::new(&frames), &limits).is_ok());
    assert!(check_key(b"abc", &limits).is_ok());
}

#[test]
fn a_heartbeat_may_have_the_longest_key_as_its_subtree() {
    let key = [HUGZ, &[b'k'; 255]].concat();
    let mut frames = GOOD;
    frames[0] = &key;
    assert_eq!(decode(&frames), Ok(()));
    assert_eq!(
        spoilt(0, &[HUGZ, &[b'k'; 256]].concat()),
        "key frame: expected 1 to 255 bytes, got 260"
    );
}

#[test]
fn a_negative_sequence_is_none_and_an_empty_uuid_too() {
    let frames: [&[u8]; 5] = [b"k", &[0xff; 8], b"", b"", b""];
    let kvmsg = KvMsg::decode(Message::new(&frames), &Limits::default()).unwrap();
    assert_eq!((kvmsg.sequence, kvmsg.uuid), (Sequence::ZERO, None));
}

#[test]
fn reserved_keys_are_those_of_the_protocol_and_no_others() {
    for key in ["HUGZ", "HUGZ/a/", "HUGZX", "KTHXBAI", "ICANHAZ?", "STATUS?"] {
        assert!(is_reserved(key.as_bytes()), "{key}");
    }
    for key in ["", "/HUGZ", "HUG", "hugz", "KTHXBAI!", "KTHXBA", "ICANHAZ", "STATUS", "STATUS??"] {
        assert!(!is_reserved(key.as_bytes()), "{key}");
    }
}

#[test]
fn a_key_error_says_which_rule_was_broken() {
    let error = |key: &[u8]| check_key(key, &Limits::default()).unwrap_err().to_string();
    assert_eq!(error(b""), "key: expected 1 to 255 bytes, got 0");
    assert_eq!(error(&[b'k'; 300]), "key: expected 1 to 255 bytes, got 300");
    assert_eq!(error(b"/a\0"), "key: control byte 0x00 at position 2");
    assert_eq!(
        error(b"HUGZ/a"),
        "key: reserved for the protocol (KTHXBAI, ICANHAZ?, STATUS?, UUIDS, HUGZ...)"
    );
    assert_eq!(check_key("/schlüssel".as_bytes(), &Limits::default()), Ok(()));
}

#[test]
fn a_uuid_shows_as_hexadecimal_digits() {
    let uuid = Uuid::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
    assert_eq!(uuid.to_string(), "000102030405060708090a0b0c0d0eff");
    assert_eq!(format!("{uuid:?}"), uuid.to_string());
}

#[test]
fn debug_shows_text_where_there_is_text() {
    let kvmsg = KvMsg::decode(Message::new(&GOOD), &Limits::default()).unwrap();
    let text = format!("{kvmsg:?}");
    for part in ["\"/key\"", "0:7", "0909", "\"ttl\": \"1\"", "value"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// Frames that are mostly legal or nearly so: noise alone would be refused for
/// its frame count.
fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let key = prop_oneof![
        "[a-z/]{1,14}".prop_map(String::into_bytes),
        "HUGZ[a-z/]{0,12}".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..16),
    ];
    let sequence = prop_oneof![4 => vec(any::<u8>(), 8), 1 => vec(any::<u8>(), 0..20)];
    let uuid = prop_oneof![vec(any::<u8>(), 16), Just(vec![]), vec(any::<u8>(), 0..20)];
    let property = prop_oneof![4 => "[a-z]{1,3}=[0-9]{1,3}\n", 1 => "[a=\n]{0,4}"];
    let properties = vec(property, 0..4).prop_map(|lines| lines.concat().into_bytes());
    let body = vec(any::<u8>(), 0..36);
    let five = (key, sequence, uuid, properties, body).prop_map(
        |(key, sequence, uuid, properties, body)| vec![key, sequence, uuid, properties, body],
    );
    prop_oneof![9 => five, 1 => vec(vec(any::<u8>(), 0..20), 0..9)]
}

const SMALL: Limits = Limits { max_key: 12, max_value: 32, max_properties: 20 };

/// The table of the protocol's page, read out line by line.
fn is_legal(frames: &[&[u8]]) -> bool {
    let [key, sequence, uuid, properties, body] = frames else { return false };
    let subtree = key.strip_prefix(b"HUGZ").unwrap_or(key);
    let text = properties.strip_suffix(b"\n").unwrap_or(properties);
    let is_property = |line: &[u8]| {
        let sides: Vec<_> = line.split(|&byte| byte == b'=').collect();
        sides.len() == 2 && sides.iter().all(|side| !side.is_empty())
    };
    !key.is_empty()
        && subtree.len() <= 12
        && key.iter().all(|&byte| byte >= b' ' && byte != 127)
        && sequence.len() == 8
        && [0, 16].contains(&uuid.len())
        && properties.len() <= 20
        && (properties.is_empty() || text.split(|&byte| byte == b'\n').all(is_property))
        && body.len() <= 32
}

/// Whether what an error says of the frames is so.
fn is_true(error: DecodeError, frames: &[&[u8]]) -> bool {
    match error {
        DecodeError::FrameCount { got } => got == frames.len() && got != 5,
        DecodeError::KeyLength { got, max } => {
            max == 12 && got == frames[0].len() && !(1..=12).contains(&got)
        }
        DecodeError::KeyByte { byte, position } => {
            let is_control = |byte: &u8| *byte < 32 || *byte == 127;
            frames[0].iter().position(is_control) == Some(position) && frames[0][position] == byte
        }
        DecodeError::SequenceLength { got } => got == frames[1].len() && got != 8,
        DecodeError::UuidLength { got } => got == frames[2].len() && ![0, 16].contains(&got),
        DecodeError::PropertySyntax { line } => {
            let line = frames[3].split(|&byte| byte == b'\n').nth(line - 1).unwrap();
            line.iter().filter(|&&byte| byte == b'=').count() != 1
                || line.starts_with(b"=")
                || line.ends_with(b"=")
        }
        DecodeError::PropertiesSize { got, max } => {
            max == 20 && got == frames[3].len() && got > max
        }
        DecodeError::ValueSize { got, max } => max == 32 && got == frames[4].len() && got > max,
    }
}

proptest! {
    #[test]
    fn any_frames_decode_or_are_refused_for_what_is_wrong_with_them(frames in frames()) {
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        match KvMsg::decode(Message::new(&frames), &SMALL) {
            Ok(kvmsg) => {
                prop_assert!(is_legal(&frames));
                prop_assert_eq!(kvmsg.key, frames[0]);
                prop_assert_eq!(kvmsg.body, frames[4]);
            }
            Err(error) => {
                prop_assert!(!is_legal(&frames), "{error}");
                prop_assert!(is_true(error, &frames), "{error}");
            }
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same(
        key in "[ -~]{1,12}",
        number in 0..=i64::MAX as u64,
        uuid in any::<Option<[u8; 16]>>(),
        properties in "([a-z]{1,2}=[ -<>-~]{1,3}\n){0,2}",
        body in vec(any::<u8>(), 0..33),
    ) {
        let kvmsg = KvMsg {
            key: key.as_bytes(),
            sequence: Sequence::from_u64(number),
            uuid: uuid.map(Uuid::from_bytes),
            properties: Properties::check(properties.as_bytes(), &SMALL).unwrap(),
            body: &body,
        };
        kvmsg.with_frames(|frames| {
            prop_assert_eq!(KvMsg::decode(Message::new(frames), &SMALL), Ok(kvmsg));
            Ok(())
        })?;
    }
}

#[test]
fn uuids_of_one_sender_are_in_the_order_of_its_changes() {
    let last = (1 << 58) - 1;
    for seed in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
        for number in [0, 1, 77, last] {
            let uuid = Uuid::numbered(seed, number);
            assert_eq!(uuid.number(seed), Some(number));
            assert_eq!(uuid.number(!seed), None);
            assert!(!uuid.is_before(&uuid));
            assert!(!uuid.is_before(&Uuid::numbered(seed ^ 1, last)), "another sender");
            assert!(!Uuid::numbered(seed ^ (1 << 63), 0).is_before(&uuid));
        }
        assert!(Uuid::numbered(seed, 76).is_before(&Uuid::numbered(seed, 77)));
        assert!(!Uuid::numbered(seed, 77).is_before(&Uuid::numbered(seed, 76)));
    }
    // Of version 4, all random.
    let random = |end: u8| {
        let mut bytes = *b"\x01\x02\x03\x04\x05\x06\x47\x08\x89\x0a\x0b\x0c\x0d\x0e\x0f\x00";
        bytes[15] = end;
        Uuid::from_bytes(bytes)
    };
    assert!(!random(1).is_before(&random(2)));
}
