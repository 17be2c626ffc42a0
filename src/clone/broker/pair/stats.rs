//! What a broker counts as one of a pair.

use super::follow::FollowStats;
use super::verdict::Why;

/// Event counts of a broker of a pair since its start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PairStats {
    /// Times it became active.
    pub promotions: u64,
    /// Of these, by order, the peer being silent.
    pub promoted_ordered: u64,
    /// Of these, because the peer had handed over.
    pub promoted_handed_over: u64,
    /// Of these, because the peer was silent and a client asked.
    pub promoted_vote: u64,
    /// Of these, because the peer did not serve, and its state was the better one.
    pub promoted_better_state: u64,
    /// Of these, because the peer had begun from nothing without its state.
    pub promoted_older_state: u64,
    /// Of these, because both had started, and it was the primary.
    pub promoted_first: u64,
    /// Of these, because there was no peer, and no state.
    pub promoted_alone: u64,
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
    /// Messages with changes for the standby that found its queue full.
    pub stream_dropped: u64,
    /// Messages with changes of one that is not followed, or no more.
    pub stream_unasked: u64,
    /// Syncs during which more changes came than may wait: what was behind them was asked for.
    pub backlogs_cut: u64,
    /// Messages of the peer, or of one who claimed to be it, that cannot be.
    pub peer_refused: u64,
    /// Messages of a peer that sits in the same place.
    pub same_seat: u64,
    /// Requests for snapshots dropped because too many were held.
    pub held_dropped: u64,
    /// Changes kept while passive.
    pub ring_kept: u64,
    /// Of these, dropped: too old, too many, without a name, or such that nothing tells any more
    /// whether the active had them.
    pub ring_dropped: u64,
    /// Of these, applied at a promotion.
    pub ring_applied: u64,
    /// Of these, not applied because the active had them, or something newer, or because their
    /// time to live was over.
    pub ring_known: u64,
    /// Changes that only we had, sent to the winner.
    pub resubmitted: u64,
    /// Of these, lost to a newer change of the winner; each is in the log.
    pub resubmit_conflicts: u64,
    /// Of these, refused for a limit; each is in the log.
    pub resubmit_refused: u64,
    /// Changes that only the loser had, taken from it.
    pub taken_over: u64,
    /// Messages with what the loser had refused, taken from it.
    pub refusals_taken: u64,
    /// Changes of the loser that lost to ours; each is in the log.
    pub take_over_conflicts: u64,
}

impl PairStats {
    /// With what was counted while following.
    pub(super) fn with(self, followed: FollowStats) -> PairStats {
        let FollowStats { syncs, delta_syncs, syncs_failed, follow_gaps, followed, backlogs_cut } =
            followed;
        PairStats { syncs, delta_syncs, syncs_failed, follow_gaps, followed, backlogs_cut, ..self }
    }

    /// Each count with its name.
    pub fn fields(&self) -> [(&'static str, u64); 33] {
        [
            ("promotions", self.promotions),
            ("promoted_ordered", self.promoted_ordered),
            ("promoted_handed_over", self.promoted_handed_over),
            ("promoted_vote", self.promoted_vote),
            ("promoted_better_state", self.promoted_better_state),
            ("promoted_older_state", self.promoted_older_state),
            ("promoted_first", self.promoted_first),
            ("promoted_alone", self.promoted_alone),
            ("step_downs", self.step_downs),
            ("handovers", self.handovers),
            ("epochs_lifted", self.epochs_lifted),
            ("votes", self.votes),
            ("syncs", self.syncs),
            ("delta_syncs", self.delta_syncs),
            ("syncs_failed", self.syncs_failed),
            ("follow_gaps", self.follow_gaps),
            ("followed", self.followed),
            ("stream_dropped", self.stream_dropped),
            ("stream_unasked", self.stream_unasked),
            ("backlogs_cut", self.backlogs_cut),
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
            ("refusals_taken", self.refusals_taken),
            ("take_over_conflicts", self.take_over_conflicts),
        ]
    }

    /// Counts a promotion with its reason.
    pub(super) fn promoted(&mut self, why: Why) {
        self.promotions += 1;
        *match why {
            Why::Ordered => &mut self.promoted_ordered,
            Why::HandedOver => &mut self.promoted_handed_over,
            Why::Vote => &mut self.promoted_vote,
            Why::BetterState => &mut self.promoted_better_state,
            Why::OlderState => &mut self.promoted_older_state,
            Why::First => &mut self.promoted_first,
            Why::Alone => &mut self.promoted_alone,
        } += 1;
    }
}
