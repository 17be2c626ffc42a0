//! Any frames into the decoder: no panic, and what it takes it gives back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pollux::Message;
use pollux::clone::{KvMsg, Limits};

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

fuzz_target!(|input: &[u8]| {
    let frames = frames(input);
    let limits = Limits::default();
    let Ok(decoded) = KvMsg::decode(Message::new(&frames), &limits) else { return };
    for (name, value) in decoded.properties.iter() {
        assert!(!name.is_empty() && !value.is_empty());
    }
    decoded.with_frames(|again| {
        assert_eq!(KvMsg::decode(Message::new(again), &limits), Ok(decoded));
    });
});
