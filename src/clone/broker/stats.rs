//! What a broker counts.

/// Event counts of a [`Broker`](super::Broker) since its start.
///
/// Nothing that comes from the network is dropped without one of these going up.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerStats {
    /// Changes applied and published, expiries included.
    pub changes_applied: u64,
    /// Of these, keys deleted because their time had come.
    pub expired: u64,
    /// Changes that came again with a known uuid; confirmed, not applied.
    pub changes_repeated: u64,
    /// Messages on the changes port that were no five-frame message within the limits.
    pub changes_malformed: u64,
    /// Changes of reserved keys, which cannot be stored.
    pub changes_reserved: u64,
    /// Changes refused because the store has reached a limit, or no sequence is left.
    pub changes_store_full: u64,
    /// Repeated changes so old that they may have been applied and forgotten;
    /// refused, since *once* could not be promised.
    pub changes_forgotten: u64,
    /// Changes that came behind a later one of their sender to the same key; refused.
    pub changes_overtaken: u64,
    /// Values of `ttl` that are no positive number of seconds (zero not
    /// counted); the key does not expire.
    pub ttl_malformed: u64,
    /// Requests for a snapshot that were taken.
    pub snapshots_requested: u64,
    /// Snapshots sent to their end.
    pub snapshots_done: u64,
    /// Of these, only what had changed (`mode=delta`).
    pub snapshots_delta: u64,
    /// Snapshots given up because the client left or took nothing for too long.
    pub snapshots_abandoned: u64,
    /// Requests refused: the same client's is under way, or too many wait.
    pub snapshots_refused: u64,
    /// Entries sent in snapshots.
    pub entries_sent: u64,
    /// Times a snapshot had to wait for its client.
    pub snapshot_stalls: u64,
    /// Requests that are none: unknown verbs, wrong frame counts.
    pub requests_malformed: u64,
    /// `STATUS?` requests answered.
    pub status_requests: u64,
    /// Heartbeats published, those of subtrees included.
    pub heartbeats: u64,
    /// Subscriptions to a heartbeat over the limit of watched subtrees.
    pub watches_refused: u64,
    /// Messages the updates port did not take (nobody could).
    pub publish_failed: u64,
}

impl BrokerStats {
    /// Each count with its name, in the order of declaration: for `STATUS?`
    /// and for printing.
    pub fn fields(&self) -> [(&'static str, u64); 21] {
        [
            ("changes_applied", self.changes_applied),
            ("expired", self.expired),
            ("changes_repeated", self.changes_repeated),
            ("changes_malformed", self.changes_malformed),
            ("changes_reserved", self.changes_reserved),
            ("changes_store_full", self.changes_store_full),
            ("changes_forgotten", self.changes_forgotten),
            ("changes_overtaken", self.changes_overtaken),
            ("ttl_malformed", self.ttl_malformed),
            ("snapshots_requested", self.snapshots_requested),
            ("snapshots_done", self.snapshots_done),
            ("snapshots_delta", self.snapshots_delta),
            ("snapshots_abandoned", self.snapshots_abandoned),
            ("snapshots_refused", self.snapshots_refused),
            ("entries_sent", self.entries_sent),
            ("snapshot_stalls", self.snapshot_stalls),
            ("requests_malformed", self.requests_malformed),
            ("status_requests", self.status_requests),
            ("heartbeats", self.heartbeats),
            ("watches_refused", self.watches_refused),
            ("publish_failed", self.publish_failed),
        ]
    }
}
