//! Which role a broker should have by what it knows: pure, the table of the
//! protocol's section *Pair*.

use super::peer::PeerStatus;
use crate::clone::pair::{Lineage, Role, Seat};
use crate::clone::sequence::Sequence;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Stay,
    Promote(Why),
    /// Follow this active.
    Follow(u64),
    /// The other active wins.
    StepDown,
    /// The other active yields, but has the higher numbers.
    LiftEpoch,
}

/// Why a broker becomes active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Ordered,
    HandedOver,
    /// The peer is silent and a client has asked.
    Vote,
    /// The peer does not serve, and ours is the better state.
    BetterState,
    /// The peer serves a state that was begun from nothing while ours was there.
    OlderState,
    /// Both have just started.
    First,
    /// There is no peer, and no state.
    Alone,
}

impl Why {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Why::Ordered => "it was told to",
            Why::HandedOver => "the peer has handed over",
            Why::Vote => "the peer is silent, and a client asks",
            Why::BetterState => "the peer does not serve, and this is the better state",
            Why::OlderState => "the peer has begun from nothing, without this state",
            Why::First => "both start, and this is the primary",
            Why::Alone => "there is no peer",
        }
    }
}

/// What a verdict is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) role: Role,
    pub(super) seat: Seat,
    pub(super) node: u64,
    pub(super) position: Sequence,
    /// The history of the state it has, if it has one.
    pub(super) lineage: Option<&'a Lineage>,
    /// Whom it follows.
    pub(super) follows: Option<u64>,
    /// What the peer said last, if it is live.
    pub(super) live_peer: Option<&'a PeerStatus>,
    /// A client has asked of late.
    pub(super) has_vote: bool,
    /// For so long nothing was heard that there is nobody to wait for.
    pub(super) is_grace_over: bool,
    /// It was told to become active.
    pub(super) is_ordered: bool,
    /// It has handed over and waits for the peer.
    pub(super) has_yielded: bool,
}

impl View<'_> {
    pub(super) fn verdict(&self) -> Verdict {
        match (self.role, self.live_peer) {
            (Role::Active, Some(peer)) if peer.role == Role::Active => self.between_actives(peer),
            (Role::Active, _) => Verdict::Stay,
            (_, Some(peer)) if peer.role == Role::Active => self.below_active(peer),
            (_, Some(peer)) => self.nobody_serves(peer),
            (_, None) => self.without_peer(),
        }
    }

    fn between_actives(&self, peer: &PeerStatus) -> Verdict {
        let (Some(ours), Some(theirs)) = (self.lineage, &peer.lineage) else {
            return Verdict::Stay;
        };
        let (our_epoch, their_epoch) = (self.position.epoch(), peer.position.epoch());
        match ours.root().cmp(&theirs.root()) {
            std::cmp::Ordering::Greater => Verdict::StepDown,
            std::cmp::Ordering::Less if their_epoch > our_epoch => Verdict::LiftEpoch,
            std::cmp::Ordering::Less => Verdict::Stay,
            // Equal epochs only if both sit in the same place.
            std::cmp::Ordering::Equal if (our_epoch, peer.node) < (their_epoch, self.node) => {
                Verdict::StepDown
            }
            std::cmp::Ordering::Equal => Verdict::Stay,
        }
    }

    fn below_active(&self, peer: &PeerStatus) -> Verdict {
        let is_older = |ours: &Lineage| {
            peer.lineage.as_ref().is_some_and(|theirs| ours.root() < theirs.root())
        };
        if self.lineage.is_some_and(is_older) {
            return Verdict::Promote(Why::OlderState);
        }
        match self.follows == Some(peer.node) {
            true => Verdict::Stay,
            false => Verdict::Follow(peer.node),
        }
    }

    fn nobody_serves(&self, peer: &PeerStatus) -> Verdict {
        if self.has_yielded {
            return Verdict::Stay;
        }
        let is_better = match (self.lineage, &peer.lineage) {
            (None, Some(_)) => return Verdict::Stay,
            (Some(_), None) => true,
            (None, None) => {
                return match self.seat {
                    Seat::Primary => Verdict::Promote(Why::First),
                    Seat::Backup => Verdict::Stay,
                };
            }
            (Some(ours), Some(theirs)) => {
                let same = ours.root() == theirs.root();
                if same && peer.handover.is_some_and(|end| self.position >= end) {
                    return Verdict::Promote(Why::HandedOver);
                }
                // The older root, then the higher position, then the primary.
                let rank = |lineage: &Lineage, position: Sequence, seat| {
                    (std::cmp::Reverse(lineage.root()), position, seat == Seat::Primary)
                };
                rank(ours, self.position, self.seat) > rank(theirs, peer.position, peer.seat)
            }
        };
        if is_better { Verdict::Promote(Why::BetterState) } else { Verdict::Stay }
    }

    fn without_peer(&self) -> Verdict {
        if self.is_ordered {
            return Verdict::Promote(Why::Ordered);
        }
        match self.lineage {
            Some(_) if self.has_vote => Verdict::Promote(Why::Vote),
            Some(_) => Verdict::Stay,
            // It has nothing to offer: an active that only stood still for a moment is
            // worth waiting for.
            None if self.is_grace_over => Verdict::Promote(Why::Alone),
            None => Verdict::Stay,
        }
    }
}
