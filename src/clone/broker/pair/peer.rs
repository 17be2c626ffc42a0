//! [`PeerStatus`]: what a broker says of itself to its peer, and whether it can be.

use std::fmt;
use std::time::Duration;

pub(super) use super::follow::limits;
use crate::clone::kvmsg::KvMsg;
use crate::clone::pair::{Lineage, Role, Seat};
use crate::clone::properties::PropertiesBuf;
use crate::clone::sequence::Sequence;

/// How far an epoch may lie above all that is known: six weeks of the clock. One
/// from beyond would use up the numbers there are.
const MAX_EPOCH_LEAD: u32 = 1 << 16;

/// Longer intervals are taken for this one.
const MAX_HEARTBEAT: Duration = Duration::from_secs(3600);

/// The state of a broker of a pair, as it tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeerStatus {
    pub(super) node: u64,
    pub(super) seat: Seat,
    pub(super) role: Role,
    pub(super) heartbeat: Duration,
    /// Everything up to here is in its store; zero without a state.
    pub(super) position: Sequence,
    /// Whom it follows.
    pub(super) of: Option<u64>,
    /// The history of its state, if it has one.
    pub(super) lineage: Option<Lineage>,
    pub(super) stable: Sequence,
    /// Whom it sends each change.
    pub(super) to: Option<u64>,
    /// So many changes it has refused.
    pub(super) refusals: u64,
    /// It was told to take over.
    pub(super) wants: bool,
    /// It has handed over here.
    pub(super) handover: Option<Sequence>,
}

impl Default for PeerStatus {
    fn default() -> PeerStatus {
        PeerStatus {
            node: 0,
            seat: Seat::Primary,
            role: Role::Starting,
            heartbeat: Duration::ZERO,
            position: Sequence::ZERO,
            of: None,
            lineage: None,
            stable: Sequence::ZERO,
            to: None,
            refusals: 0,
            wants: false,
            handover: None,
        }
    }
}

/// Why what the peer says is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disbelief {
    /// A property is missing or is no value of it.
    Unreadable(&'static str),
    /// It belongs to another pair, or refuses us because we do.
    OtherPair,
    /// It is ourselves.
    Ourselves,
    FarFuture {
        epoch: u32,
        known: u32,
    },
    /// It claims to have what we never gave.
    NeverSent {
        position: Sequence,
        sequence: Sequence,
    },
    WentBack {
        position: Sequence,
        before: Sequence,
    },
}

impl fmt::Display for Disbelief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Disbelief::Unreadable(name) => write!(f, "property {name}: missing or unreadable"),
            Disbelief::OtherPair => f.write_str("it belongs to another pair (--pair-name)"),
            Disbelief::Ourselves => f.write_str("the peer's endpoint is our own (--peer)"),
            Disbelief::FarFuture { epoch, known } => {
                write!(f, "epoch {epoch} lies far above all that is known ({known})")
            }
            Disbelief::NeverSent { position, sequence } => {
                write!(f, "it claims to have change {position}, we gave only {sequence}")
            }
            Disbelief::WentBack { position, before } => {
                write!(f, "its sequence went back from {before} to {position}")
            }
        }
    }
}

impl PeerStatus {
    pub(super) fn read(kvmsg: &KvMsg<'_>, pair: u64) -> Result<PeerStatus, Disbelief> {
        let properties = kvmsg.properties;
        let text = |name| properties.get(name).and_then(|value| str::from_utf8(value).ok());
        let hex = |name| properties.hex(name);
        let must = |name: &'static str| Disbelief::Unreadable(name);
        if properties.get("refused").is_some() || hex("pair").ok_or(must("pair"))? != pair {
            return Err(Disbelief::OtherPair);
        }
        let role = match text("role") {
            Some("starting") => Role::Starting,
            Some("passive") => Role::Passive,
            Some("active") => Role::Active,
            _ => return Err(must("role")),
        };
        let lineage = match (text("root"), text("lineage")) {
            (None, None) => None,
            (Some(root), Some(spans)) => Some(Lineage::parse(root, spans).ok_or(must("lineage"))?),
            _ => return Err(must("lineage")),
        };
        let position = kvmsg.sequence;
        let is_sound = match &lineage {
            Some(lineage) => lineage.contains(position, Sequence::ZERO),
            None => position == Sequence::ZERO && role != Role::Active,
        };
        if !is_sound {
            return Err(must("lineage"));
        }
        let heartbeat = properties.parse("hb").map(Duration::from_millis).ok_or(must("hb"))?;
        Ok(PeerStatus {
            node: hex("node").ok_or(must("node"))?,
            seat: match text("seat") {
                Some("primary") => Seat::Primary,
                Some("backup") => Seat::Backup,
                _ => return Err(must("seat")),
            },
            role,
            heartbeat: heartbeat.min(MAX_HEARTBEAT),
            position,
            of: hex("of"),
            lineage,
            stable: properties.parse("stable").unwrap_or_default(),
            to: hex("to"),
            refusals: properties.parse("refusals").unwrap_or(0),
            wants: text("want") == Some("handover"),
            handover: properties.parse("handover"),
        })
    }

    /// Whether it can be, by what was said `before` and by what we are.
    pub(super) fn check(
        &self,
        before: Option<&PeerStatus>,
        node: u64,
        sequence: Sequence,
        known_epoch: u32,
    ) -> Result<(), Disbelief> {
        if self.node == node {
            return Err(Disbelief::Ourselves);
        }
        let epoch = self.position.epoch();
        if epoch > known_epoch.saturating_add(MAX_EPOCH_LEAD) {
            return Err(Disbelief::FarFuture { epoch, known: known_epoch });
        }
        if self.of == Some(node) && self.position > sequence {
            return Err(Disbelief::NeverSent { position: self.position, sequence });
        }
        let Some(before) = before.filter(|before| before.node == self.node) else { return Ok(()) };
        let same_history =
            self.lineage.as_ref().map(Lineage::root) == before.lineage.as_ref().map(Lineage::root);
        // Who yields to another may lose numbers; who stays what it was may not.
        let stays = self.role == before.role && self.of == before.of && same_history;
        if stays && self.position < before.position {
            let (position, before) = (self.position, before.position);
            return Err(Disbelief::WentBack { position, before });
        }
        Ok(())
    }

    pub(super) fn write(&self, pair: u64, to: &mut PropertiesBuf) {
        to.clear();
        to.push("chp", 2);
        to.push("pair", format_args!("{pair:016x}"));
        to.push("node", format_args!("{:016x}", self.node));
        to.push("seat", self.seat);
        to.push("role", self.role);
        to.push("hb", self.heartbeat.as_millis());
        if let Some(of) = self.of {
            to.push("of", format_args!("{of:016x}"));
        }
        if let Some(lineage) = &self.lineage {
            to.push("root", lineage.root());
            to.push("lineage", lineage.spans());
        }
        to.push("stable", self.stable);
        if let Some(standby) = self.to {
            to.push("to", format_args!("{standby:016x}"));
        }
        if self.refusals > 0 {
            to.push("refusals", self.refusals);
        }
        if self.wants {
            to.push("want", "handover");
        }
        if let Some(handover) = self.handover {
            to.push("handover", handover);
        }
    }
}
