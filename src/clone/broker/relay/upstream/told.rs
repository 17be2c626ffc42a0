//! What a server says of itself, in heartbeats and when it is asked: who it is, and what a
//! relay passes on of the rest.

use crate::clone::kvmsg::KvMsg;
use crate::clone::sequence::Sequence;

/// What a server says of who it is.
pub(super) struct Identity {
    pub(super) node: u64,
    pub(super) via: Vec<u64>,
}

impl Identity {
    /// `None`: a server that does not know the extensions.
    pub(super) fn read(kvmsg: &KvMsg<'_>) -> Option<Identity> {
        let properties = kvmsg.properties;
        properties.parse::<u32>("chp").filter(|&version| version >= 2)?;
        let via =
            properties.get("via").and_then(|via| str::from_utf8(via).ok()).unwrap_or_default();
        let via = via.split(',').filter(|node| !node.is_empty());
        let via: Result<_, _> = via.map(|node| u64::from_str_radix(node, 16)).collect();
        Some(Identity { node: properties.hex("node")?, via: via.ok()? })
    }
}

/// What an upstream says of itself, as far as it is passed on.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) epoch: u32,
    pub(super) stable: Sequence,
    /// Whether its history goes on at others: of a pair, or of a relay.
    pub(super) standby: Option<Box<str>>,
    pub(super) policy: Option<Box<str>>,
    pub(super) fork: Sequence,
    /// It has lost its own upstream, or one before that has.
    pub(super) is_cut: bool,
    pub(super) max_value: Option<usize>,
}

impl Told {
    pub(super) fn read(kvmsg: &KvMsg<'_>) -> Told {
        let properties = kvmsg.properties;
        let text = |name| properties.get(name).and_then(|value| str::from_utf8(value).ok());
        Told {
            epoch: properties.parse("epoch").unwrap_or_else(|| kvmsg.sequence.epoch()),
            stable: properties.parse("stable").unwrap_or_default(),
            standby: text("standby").map(Box::from),
            policy: text("policy").map(Box::from),
            fork: properties.parse("fork").unwrap_or_default(),
            is_cut: text("upstream") == Some("lost"),
            max_value: properties.parse("maxval"),
        }
    }
}
