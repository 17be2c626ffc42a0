//! Where a broker under test puts its messages; nothing passes that a peer of
//! RFC 12 would stop at.

use std::collections::{HashMap, HashSet};

use crate::clone::SendFailure;
use crate::clone::broker::BrokerOutbox;

/// Records what is sent, and checks it against the table of frames with a
/// decoder of its own.
#[derive(Default)]
pub(in crate::clone::broker) struct Network {
    pub(super) published: Vec<Wire>,
    /// By routing id.
    pub(super) replies: HashMap<Vec<u8>, Vec<Reply>>,
    /// How many messages a client's queue still takes; without limit if absent.
    pub(super) room: HashMap<Vec<u8>, usize>,
    /// Clients that have left.
    pub(super) gone: HashSet<Vec<u8>>,
    /// The updates port takes nothing.
    pub(super) publish_fails: bool,
    /// Replies refused, with either failure.
    pub(super) refused: usize,
}

impl BrokerOutbox for Network {
    fn reply(&mut self, peer: &[u8], frames: &[&[u8]]) -> Result<(), SendFailure> {
        if self.gone.contains(peer) {
            self.refused += 1;
            return Err(SendFailure::Unreachable);
        }
        if let Some(room) = self.room.get_mut(peer) {
            if *room == 0 {
                self.refused += 1;
                return Err(SendFailure::WouldBlock);
            }
            *room -= 1;
        }
        let reply = Reply(frames.iter().map(|frame| frame.to_vec()).collect());
        reply.check();
        self.replies.entry(peer.to_vec()).or_default().push(reply);
        Ok(())
    }

    fn publish(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        let wire = Wire::read(frames);
        assert!(wire.sequence > 0, "published without a sequence: {wire:?}");
        if wire.is_heartbeat() {
            assert!(wire.body.is_empty(), "a heartbeat with a body: {wire:?}");
            assert_eq!(wire.get("chp"), Some("2"), "{wire:?}");
        }
        if self.publish_fails {
            return Err(SendFailure::WouldBlock);
        }
        self.published.push(wire);
        Ok(())
    }
}

/// One message to one client.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply(pub(super) Vec<Vec<u8>>);

impl Reply {
    fn check(&self) {
        if self.0[0].is_empty() {
            assert_eq!((self.0.len() - 1) % 5, 0, "a whole answer is groups of five frames");
            self.groups();
        } else {
            self.five_frames();
        }
    }

    /// The one five-frame message that a DEALER gets.
    pub(super) fn five_frames(&self) -> Wire {
        Wire::read(&self.0)
    }

    /// The messages in the one answer that a REQ gets.
    pub(super) fn groups(&self) -> Vec<Wire> {
        assert!(self.0[0].is_empty(), "no delimiter");
        self.0[1..].chunks(5).map(Wire::read).collect()
    }
}

/// A five-frame message, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::clone::broker) struct Wire {
    pub(super) key: Vec<u8>,
    pub(super) sequence: i64,
    pub(super) uuid: Vec<u8>,
    properties: String,
    pub(super) body: Vec<u8>,
}

impl Wire {
    fn read(frames: &[impl AsRef<[u8]>]) -> Wire {
        let [key, sequence, uuid, properties, body] = frames else {
            panic!("expected 5 frames, got {}", frames.len());
        };
        let key = key.as_ref().to_vec();
        let most = if key.starts_with(b"HUGZ") { 259 } else { 255 };
        assert!((1..=most).contains(&key.len()), "a key of {} bytes", key.len());
        assert!(!key.iter().any(u8::is_ascii_control), "a control byte in {key:?}");
        let uuid = uuid.as_ref().to_vec();
        assert!(matches!(uuid.len(), 0 | 16), "a uuid of {} bytes", uuid.len());
        Wire {
            key,
            sequence: i64::from_be_bytes(sequence.as_ref().try_into().expect("8 bytes")),
            uuid,
            properties: read_properties(properties.as_ref()),
            body: body.as_ref().to_vec(),
        }
    }

    pub(super) fn is_heartbeat(&self) -> bool {
        self.key.starts_with(b"HUGZ")
    }

    pub(super) fn text_key(&self) -> String {
        String::from_utf8(self.key.clone()).unwrap()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }

    pub(super) fn property(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name).map(|value| value.parse().expect("a number"))
    }

    /// Names and values, for comparing.
    pub(super) fn pairs(&self) -> Vec<(&str, &str)> {
        self.lines().map(|line| line.split_once('=').expect("it was checked")).collect()
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        lines(&self.properties)
    }
}

fn lines(properties: &str) -> impl Iterator<Item = &str> {
    let lines = properties.strip_suffix('\n').unwrap_or(properties);
    lines.split('\n').filter(|_| !properties.is_empty())
}

fn read_properties(frame: &[u8]) -> String {
    let text = String::from_utf8_lossy(frame).into_owned();
    for line in lines(&text) {
        let is_pair = line.split_once('=').is_some_and(|(name, value)| {
            !name.is_empty() && !value.is_empty() && !value.contains('=')
        });
        assert!(is_pair, "no property: {line:?}");
    }
    text
}
