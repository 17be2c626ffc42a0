//! What has happened in runs, by name: a simulation in which nothing goes wrong
//! shows nothing.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    pub(crate) fn count(&mut self, name: &str) {
        self.add(name, 1);
    }

    pub(crate) fn add(&mut self, name: &str, count: u64) {
        match self.0.get_mut(name) {
            Some(known) => *known += count,
            None => {
                self.0.insert(name.to_owned(), count);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Coverage) {
        other.0.iter().for_each(|(name, count)| self.add(name, *count));
    }

    /// What must have happened in the seeds that `cargo test` runs, and has not.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let is_missing = |name: &&str| !self.0.contains_key(*name) || self.0[*name] == 0;
        EXPECTED.iter().copied().filter(is_missing).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }
}

const EXPECTED: &[&str] = &[
    // Whatever makes a client ask again.
    "resync: Gap",
    "resync: Reconnected",
    "resync: NewBroker",
    "resync: SequenceDown",
    "resync: Unwatched",
    "resync: Unanswered",
    "resync: Wedged",
    "resync: Limit",
    // Each limit, and what happens there.
    "limit: history",
    "limit: tombstones",
    "limit: cursors",
    "limit: keys",
    "limit: value size",
    "limit: client pending",
    "refused: store-full-keys",
    "refused: store-full-bytes",
    "broker: changes_forgotten",
    "broker: watches_refused",
    "broker: snapshots_refused",
    "broker: snapshots_abandoned",
    "broker: snapshot_stalls",
    "client: limits",
    "client: overrun",
    "client: unwatched",
    "client: blocked",
    "client: timed_out",
    // Of a pair: it is that which reaches them.
    "limit of a pair: ring",
    "limit of a pair: store",
    "limit of a pair: uuids",
    "pair: backlogs_cut",
    "pair: resubmit_refused",
    // Of a relay.
    "limit of a relay: store",
    "refused: outside-subtree",
    "refused: relay-full",
    "refused: upstream-lost",
    "relay: backlogs_cut",
    "relay: changes_outside",
    "relay: forwards_forgotten",
    "relay: forwards_refused",
    "relay: held_dropped",
    // What a relay does.
    "relay: delta_syncs",
    "relay: follow_gaps",
    "relay: followed",
    "relay: forwarded",
    "relay: forwards_known",
    "relay: forwards_repeated",
    "relay: requests_ahead",
    "relay: store checked",
    "relay: syncs",
    "relay: syncs_failed",
    "relay: upstreams_found",
    "relay: upstreams_lost",
    // What a client tells.
    "event: Applied",
    "event: Deleted",
    "event: Gap",
    "event: LimitReached",
    "event: Lost",
    "event: Overrun",
    "event: Refused",
    "event: Superseded",
    "event: Synced",
    "event: TimedOut",
    "event: Updated",
    // What goes on in a broker and a client.
    "broker: changes_malformed",
    "broker: changes_repeated",
    "broker: changes_reserved",
    "broker: expired",
    "broker: requests_malformed",
    "broker: snapshots_delta",
    "broker: snapshots_done",
    "client: deltas",
    "client: repeated",
    "client: resent",
    "client: snapshots",
    "client: stalled",
    "client: truncated",
    "client: verified",
    "client: votes",
    // What goes wrong.
    "fault: freeze",
    "fault: garbage",
    "fault: partition",
    "fault: restart",
    "fault: segment lost",
    "fault: slow reader",
    "fault: stall",
    "fault: usurped",
    "net: connection broken",
    "net: message doubled",
    "net: pub dropped",
    "net: push full",
    "net: router full",
    "net: update dropped",
    // What cannot be, or comes from who is not the peer.
    "claim: another pair",
    "claim: no node",
    "claim: ourselves",
    "claim: no role",
    "claim: far future",
    "claim: never sent",
    "claim: outside of its history",
    "claim: active without a history",
    "claim: refusal",
    "claim: no message",
    "claim: went back",
    "claim: greeting",
    "claim: claim of a client",
    "claim: another greeting",
    "claim: handed over by a client",
    "claim logged: another pair",
    "claim logged: no node",
    "claim logged: ourselves",
    "claim logged: no role",
    "claim logged: far future",
    "claim logged: never sent",
    "claim logged: outside of its history",
    "claim logged: active without a history",
    "claim logged: refusal",
    "claim logged: no message",
    "claim logged: went back",
    "claim logged: claim of a client",
    "claim logged: another greeting",
    "claim logged: handed over by a client",
    // What a pair does.
    "event: NotSafe",
    "event: Safe",
    "event: Turned",
    "event: UpstreamBack",
    "event: UpstreamLost",
    // There is no other way from role to role.
    "pair: starting to active",
    "pair: starting to passive",
    "pair: passive to active",
    "pair: active to passive",
    "pair: becomes active",
    "pair: becomes passive",
    "pair: begins anew",
    "pair: delta_syncs",
    "pair: demote: no-standby",
    "pair: demote: passive",
    "pair: epochs_lifted",
    "pair: follow_gaps",
    "pair: followed",
    "pair: goes on",
    "pair: handovers",
    "pair: held_dropped",
    "pair: peer_refused",
    "pair: promote: active",
    "pair: promoted_alone",
    "pair: promoted_better_state",
    "pair: promoted_first",
    "pair: promoted_handed_over",
    "pair: promoted_older_state",
    "pair: promoted_ordered",
    "pair: promoted_vote",
    "pair: promote: no-state",
    "pair: promote: passive",
    "pair: refusals_taken",
    "pair: resubmit_conflicts",
    "pair: resubmitted",
    "pair: take_over_conflicts",
    "pair: ring checked",
    "pair: ring_applied",
    "pair: ring_dropped",
    "pair: ring_known",
    "pair: step_downs",
    "pair: syncs",
    "pair: syncs_failed",
    "pair: taken_over",
    "pair: votes",
    // Peers that are not ours.
    "asker: snapshot",
    "asker: status",
    "asker: whole answer",
    "old client: in step",
    "old client: server died",
    "old client: snapshot",
];
