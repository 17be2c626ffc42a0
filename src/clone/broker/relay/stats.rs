//! What a relay counts.

use crate::clone::broker::follow::FollowStats;

/// Event counts of a relay since its start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Whole states taken over from the upstream.
    pub syncs: u64,
    /// Of the upstream's changes, what was missing was taken over.
    pub delta_syncs: u64,
    /// Attempts at either that came to nothing.
    pub syncs_failed: u64,
    /// Times that changes of the upstream were missed and asked for.
    pub follow_gaps: u64,
    /// Changes applied as the upstream published them.
    pub followed: u64,
    /// Syncs during which more changes came than may wait: what was behind them was asked for.
    pub backlogs_cut: u64,
    /// Times an upstream was found.
    pub upstreams_found: u64,
    /// Times it was lost again.
    pub upstreams_lost: u64,
    /// Messages of the upstream that cannot be.
    pub upstream_refused: u64,
    /// Times that what was to be followed followed this relay itself, or over too many others.
    pub loops_refused: u64,
    /// Changes of clients sent upstream.
    pub forwarded: u64,
    /// Of these, sent once more: without an answer, or to another upstream.
    pub forwards_repeated: u64,
    /// Changes that came again while they were under way.
    pub forwards_known: u64,
    /// Changes refused because too many wait, or waited too long.
    pub forwards_refused: u64,
    /// Changes of keys outside its subtree; refused.
    pub changes_outside: u64,
    /// Changes forgotten before they were known to be applied, or to be safe.
    pub forwards_forgotten: u64,
    /// Requests held because the client has, or may have, more than this relay.
    pub requests_ahead: u64,
    /// Requests dropped because too many were held.
    pub held_dropped: u64,
}

impl RelayStats {
    /// With what was counted while following.
    pub(super) fn with(self, followed: FollowStats) -> RelayStats {
        let FollowStats { syncs, delta_syncs, syncs_failed, follow_gaps, followed, backlogs_cut } =
            followed;
        RelayStats { syncs, delta_syncs, syncs_failed, follow_gaps, followed, backlogs_cut, ..self }
    }

    /// Each count with its name.
    pub fn fields(&self) -> [(&'static str, u64); 18] {
        [
            ("syncs", self.syncs),
            ("delta_syncs", self.delta_syncs),
            ("syncs_failed", self.syncs_failed),
            ("follow_gaps", self.follow_gaps),
            ("followed", self.followed),
            ("backlogs_cut", self.backlogs_cut),
            ("upstreams_found", self.upstreams_found),
            ("upstreams_lost", self.upstreams_lost),
            ("upstream_refused", self.upstream_refused),
            ("loops_refused", self.loops_refused),
            ("forwarded", self.forwarded),
            ("forwards_repeated", self.forwards_repeated),
            ("forwards_known", self.forwards_known),
            ("forwards_refused", self.forwards_refused),
            ("changes_outside", self.changes_outside),
            ("forwards_forgotten", self.forwards_forgotten),
            ("requests_ahead", self.requests_ahead),
            ("held_dropped", self.held_dropped),
        ]
    }
}
