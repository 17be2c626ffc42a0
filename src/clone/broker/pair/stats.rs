//! What a broker counts as one of a pair.

use super::follow::FollowStats;

/// Event counts of a broker of a pair since its start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PairStats {
    /// Times it became active.
    pub promotions: u64,
    /// Times it became passive after having been active.
    pub step_downs: u64,
    /// Planned handovers it gave.
    pub handovers: u64,
    /// Times it lifted its epoch above that of a peer which yields.
    pub epochs_lifted: u64,
    /// Requests of clients while it did not serve: votes.
    pub votes: u64,
    /// Whole states taken over from the active.
    pub syncs: u64,
    /// Of the active's changes, what was missing was taken over.
    pub delta_syncs: u64,
    /// Attempts at either that came to nothing.
    pub syncs_failed: u64,
    /// Changes of the active that were missed and asked for.
    pub follow_gaps: u64,
    /// Changes applied as the active published them.
    pub followed: u64,
    /// Messages of the peer, or of one who claimed to be it, that cannot be.
    pub peer_refused: u64,
    /// Messages of a peer that sits in the same place.
    pub same_seat: u64,
    /// Requests for snapshots dropped because too many were held.
    pub held_dropped: u64,
    /// Changes kept while passive.
    pub ring_kept: u64,
    /// Of these, dropped: too old, too many, or without a name.
    pub ring_dropped: u64,
    /// Of these, applied at a promotion.
    pub ring_applied: u64,
    /// Of these, not applied because the active had them, or something newer.
    pub ring_known: u64,
    /// Changes that only we had, sent to the winner.
    pub resubmitted: u64,
    /// Of these, lost to a newer change of the winner; each is in the log.
    pub resubmit_conflicts: u64,
    /// Of these, refused for a limit; each is in the log.
    pub resubmit_refused: u64,
    /// Changes that only the loser had, taken from it.
    pub taken_over: u64,
    /// Changes of the loser that lost to ours; each is in the log.
    pub take_over_conflicts: u64,
}

impl PairStats {
    /// With what was counted while following.
    pub(super) fn with(self, followed: FollowStats) -> PairStats {
        let FollowStats { syncs, delta_syncs, syncs_failed, follow_gaps, followed } = followed;
        PairStats { syncs, delta_syncs, syncs_failed, follow_gaps, followed, ..self }
    }

    /// Each count with its name.
    pub fn fields(&self) -> [(&'static str, u64); 22] {
        [
            ("promotions", self.promotions),
            ("step_downs", self.step_downs),
            ("handovers", self.handovers),
            ("epochs_lifted", self.epochs_lifted),
            ("votes", self.votes),
            ("syncs", self.syncs),
            ("delta_syncs", self.delta_syncs),
            ("syncs_failed", self.syncs_failed),
            ("follow_gaps", self.follow_gaps),
            ("followed", self.followed),
            ("peer_refused", self.peer_refused),
            ("same_seat", self.same_seat),
            ("held_dropped", self.held_dropped),
            ("ring_kept", self.ring_kept),
            ("ring_dropped", self.ring_dropped),
            ("ring_applied", self.ring_applied),
            ("ring_known", self.ring_known),
            ("resubmitted", self.resubmitted),
            ("resubmit_conflicts", self.resubmit_conflicts),
            ("resubmit_refused", self.resubmit_refused),
            ("taken_over", self.taken_over),
            ("take_over_conflicts", self.take_over_conflicts),
        ]
    }
}
