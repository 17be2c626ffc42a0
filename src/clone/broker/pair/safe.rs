//! [`Safe`]: up to where changes survive the loss of the active.

use std::time::Duration;

use super::super::{Broker, BrokerOutbox};
use crate::clone::fault::Fault;
use crate::clone::pair::{Role, SafePolicy};
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// What has become safe is told after this long at most.
const TELL_AFTER: Duration = Duration::from_millis(5);

/// Heartbeat intervals of silence after which one proceeds without the standby.
const PROCEED_INTERVALS: u32 = 4;

/// What there is of a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standby {
    None,
    /// It is there, but does not have the state yet.
    Syncing,
    Live,
}

impl Standby {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Standby::None => "none",
            Standby::Syncing => "syncing",
            Standby::Live => "live",
        }
    }
}

#[derive(Debug)]
pub(super) struct Safe {
    policy: SafePolicy,
    standby: Standby,
    /// What was confirmed; never falls.
    confirmed: Sequence,
    /// Without a standby our own word counts.
    proceeds: bool,
    /// What the last heartbeats said, and when.
    told: Sequence,
    told_at: Time,
}

impl Safe {
    pub(super) fn new(policy: SafePolicy) -> Safe {
        Safe {
            policy,
            standby: Standby::None,
            confirmed: Sequence::ZERO,
            proceeds: false,
            told: Sequence::ZERO,
            told_at: Time::ZERO,
        }
    }

    /// What is safe for an active that is at `sequence`.
    pub(super) fn stable(&self, sequence: Sequence) -> Sequence {
        let is_safe = self.proceeds || Fault::SafeTooEarly.is_planted();
        if is_safe { sequence } else { self.confirmed.min(sequence) }
    }

    pub(super) fn standby(&self) -> Standby {
        self.standby
    }

    /// Begins as active, of a state whose former active had confirmed so much.
    pub(super) fn promoted(&mut self, sequence: Sequence, stable: Option<Sequence>) {
        self.standby = Standby::None;
        self.proceeds = self.policy == SafePolicy::Proceed;
        self.confirmed = self.confirmed.max(stable.unwrap_or_default()).min(sequence);
        self.told = self.stable(sequence);
    }

    pub(super) fn deadline(&self, sequence: Sequence, role: Role) -> Option<Time> {
        let has_news = role == Role::Active && self.stable(sequence) > self.told;
        has_news.then_some(self.told_at + TELL_AFTER)
    }
}

impl Broker {
    /// Takes in what the standby has confirmed, and tells clients of it.
    pub(super) fn tend_safe(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let (sequence, node, role) = (self.sequence, self.config.node, self.role);
        let Some(pair) = self.pair.as_deref_mut() else { return };
        if role != Role::Active {
            pair.safe.standby = Standby::None;
            return;
        }
        let silent_at = pair.silent_at();
        let gone_at = pair.heard.map(|heard| heard + pair.interval * PROCEED_INTERVALS);
        let peer = pair.peer.as_ref().filter(|peer| peer.role == Role::Passive);
        let ours = peer.filter(|peer| {
            let history = peer.lineage.as_ref().map(crate::clone::pair::Lineage::root);
            peer.of == Some(node) && history == Some(self.lineage.root())
        });
        let safe = &mut pair.safe;
        safe.standby = match (ours, peer) {
            (Some(_), _) if silent_at.is_some_and(|at| now < at) => Standby::Live,
            (_, Some(_)) if silent_at.is_some_and(|at| now < at) => Standby::Syncing,
            _ => Standby::None,
        };
        if safe.proceeds {
            // Falls back behind what was told by nothing.
            safe.confirmed = safe.confirmed.max(sequence);
        }
        let is_followed = ours.is_some() && gone_at.is_some_and(|at| now < at);
        safe.proceeds = safe.policy == SafePolicy::Proceed && !is_followed;
        if let Some(peer) = ours.filter(|peer| self.lineage.contains(peer.position, sequence)) {
            safe.confirmed = safe.confirmed.max(peer.position);
        }
        let stable = safe.stable(sequence);
        if stable > safe.told && now >= safe.told_at + TELL_AFTER {
            let before = std::mem::replace(&mut safe.told, stable);
            safe.told_at = now;
            self.send_heartbeats(now, |watch| watch.asked || watch.sequence > before, out);
        }
    }
}
