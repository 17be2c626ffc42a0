//! Any frames into the decoder: no panic, what it takes it gives back, and what can be
//! encoded is decoded to the same.

use pollux::Message;
use pollux::clone::{KvMsg, Limits, Properties, Sequence, Uuid};

/// Input: each frame behind its length in one byte (255: 1,024 times the next one).
fn frames(mut input: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some((&length, rest)) = input.split_first() {
        let (length, rest) = match (length, rest.split_first()) {
            (255, Some((&kibibytes, rest))) => (usize::from(kibibytes) * 1024, rest),
            (length, _) => (usize::from(length), rest),
        };
        let (frame, rest) = rest.split_at(length.min(rest.len()));
        frames.push(frame);
        input = rest;
    }
    frames
}

pub fn run(input: &[u8]) {
    let frames = frames(input);
    let mut tight = Limits::default();
    (tight.max_key, tight.max_value, tight.max_properties) = (8, 16, 24);
    for limits in [Limits::default(), tight] {
        decode(&frames, &limits);
        encode(&frames, &limits);
    }
}

fn decode(frames: &[&[u8]], limits: &Limits) {
    let decoded = match KvMsg::decode(Message::new(frames), limits) {
        Ok(decoded) => decoded,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for (name, value) in decoded.properties.iter() {
        assert!(!name.is_empty() && !value.is_empty());
    }
    decoded.with_frames(|again| {
        for index in [0, 2, 3, 4] {
            assert_eq!(again[index], frames[index], "frame {index}");
        }
        // A negative sequence is none.
        assert!(again[1] == frames[1] || (frames[1][0] >= 128 && again[1] == [0; 8]));
        assert_eq!(KvMsg::decode(Message::new(again), limits), Ok(decoded));
    });
}

/// A message of the parts, if they can be those of one.
fn encode(frames: &[&[u8]], limits: &Limits) {
    let &[key, sequence, uuid, properties, body, ..] = frames else { return };
    let control = |byte: &u8| *byte < 0x20 || *byte == 0x7f;
    let fits = (1..=limits.max_key).contains(&key.len()) && body.len() <= limits.max_value;
    if !fits || key.iter().any(control) {
        return;
    }
    let Ok(properties) = Properties::check(properties, limits) else { return };
    let mut number = [0; 8];
    let mut name = [0; 16];
    let known = sequence.len().min(8);
    number[..known].copy_from_slice(&sequence[..known]);
    let known = uuid.len().min(16);
    name[..known].copy_from_slice(&uuid[..known]);
    let message = KvMsg {
        key,
        sequence: Sequence::from_u64(u64::from_le_bytes(number)),
        uuid: (!uuid.is_empty()).then(|| Uuid::from_bytes(name)),
        properties,
        body,
    };
    message.with_frames(|encoded| {
        assert_eq!(KvMsg::decode(Message::new(encoded), limits), Ok(message));
    });
}
