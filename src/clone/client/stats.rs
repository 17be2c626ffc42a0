//! [`ClientStats`]: counts of what the client has seen and done.

/// Counts of what a client has seen and done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Messages on the updates port.
    pub updates: u64,
    /// Changes among them that became visible in the map.
    pub applied: u64,
    /// Changes among them that came again, or that the map had from a snapshot.
    pub repeated: u64,
    /// Changes among them for keys that the client does not follow.
    pub strays: u64,
    /// Heartbeats among them.
    pub heartbeats: u64,
    /// Heartbeats that proved that nothing was lost.
    pub verified: u64,
    /// Messages of any port that broke the protocol and were dropped.
    pub malformed: u64,
    /// Messages taken although a frame of no consequence broke the protocol.
    pub lenient: u64,
    /// Requests for snapshots.
    pub requests: u64,
    /// Entries of snapshots.
    pub synced_entries: u64,
    /// Snapshots completed.
    pub snapshots: u64,
    /// Those among them that brought changes only.
    pub deltas: u64,
    /// Snapshots that ended with fewer or more entries than were sent.
    pub truncated: u64,
    /// Requests and snapshots that made no progress.
    pub stalled: u64,
    /// Messages on the request port that no request had asked for, or for keys
    /// outside the one asked for.
    pub unasked: u64,
    /// Losses of changes noticed.
    pub gaps: u64,
    /// Changes known to be lost.
    pub missed: u64,
    /// Times a subtree stopped being current.
    pub resyncs: u64,
    /// Times the broker was silent for too long.
    pub losts: u64,
    /// Subtrees that the broker does not send heartbeats for at present: their
    /// changes are asked for every few heartbeats instead.
    pub unwatched: u64,
    /// Times a limit of the map was reached.
    pub limits: u64,
    /// Changes of ours taken by `set` and `delete`.
    pub submitted: u64,
    /// Changes of ours sent, repetitions included.
    pub sent: u64,
    /// Repetitions among them.
    pub resent: u64,
    /// Times the port for changes would take no more.
    pub blocked: u64,
    /// Changes of ours confirmed.
    pub confirmed: u64,
    /// Changes of ours that are safe, of those kept until they are.
    pub safe: u64,
    /// Changes of ours that were applied and not found safe in time.
    pub not_safe: u64,
    /// Times that the client turned to another server.
    pub turns: u64,
    /// Changes of ours refused by the broker.
    pub refused: u64,
    /// Changes of ours given up for a later one of the same key.
    pub superseded: u64,
    /// Changes of ours without an answer.
    pub timed_out: u64,
    /// Snapshots asked for only to be heard: because no change of ours was ever applied,
    /// or for a standby to take over.
    pub votes: u64,
    /// Events dropped because the application did not drain them.
    pub overrun: u64,
}
