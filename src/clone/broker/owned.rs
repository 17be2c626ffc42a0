//! [`Owned`]: a message that outlives the call it came in.

use crate::clone::kvmsg::{KvMsg, Uuid};
use crate::clone::properties::Properties;
use crate::clone::sequence::Sequence;

/// A message with its frames in one allocation.
#[derive(Debug)]
pub(super) struct Owned {
    bytes: Box<[u8]>,
    key_len: u32,
    properties_len: u32,
    pub(super) sequence: Sequence,
    uuid: Option<Uuid>,
}

impl Owned {
    pub(super) fn new(kvmsg: &KvMsg<'_>) -> Owned {
        let parts = [kvmsg.key, kvmsg.properties.as_bytes(), kvmsg.body];
        Owned {
            bytes: parts.concat().into_boxed_slice(),
            // The limits of a message are far below 4 GiB.
            key_len: kvmsg.key.len() as u32,
            properties_len: kvmsg.properties.as_bytes().len() as u32,
            sequence: kvmsg.sequence,
            uuid: kvmsg.uuid,
        }
    }

    /// The memory that it takes, about.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + size_of::<Owned>()
    }

    pub(super) fn kvmsg(&self) -> KvMsg<'_> {
        let (key, rest) = self.bytes.split_at(self.key_len as usize);
        let (properties, body) = rest.split_at(self.properties_len as usize);
        KvMsg {
            key,
            sequence: self.sequence,
            uuid: self.uuid,
            properties: Properties::from_checked(properties),
            body,
        }
    }
}
