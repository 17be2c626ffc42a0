//! What loops, clients and broker have counted during a run, and what of it is a fault.

use std::collections::BTreeMap;

use pollux::clone::client::ClientStats;
use serde_json::{Map, Value, json};

use crate::args::Common;
use crate::exit::Failure;
use crate::session::Session;
use crate::status;
use crate::text::thousands;

/// A count of a client, with its name.
type Count = (&'static str, fn(&ClientStats) -> u64);

/// What should not happen to a client while its broker lives.
const FAULTS_OF_CLIENTS: [Count; 10] = [
    ("gaps", |stats| stats.gaps),
    ("missed", |stats| stats.missed),
    ("malformed", |stats| stats.malformed),
    ("truncated", |stats| stats.truncated),
    ("losts", |stats| stats.losts),
    ("limits", |stats| stats.limits),
    ("refused", |stats| stats.refused),
    ("timed_out", |stats| stats.timed_out),
    ("not_safe", |stats| stats.not_safe),
    ("overrun", |stats| stats.overrun),
];

/// What should not happen to a broker, by the names that it gives in its status.
const FAULTS_OF_BROKERS: [&str; 11] = [
    "changes_malformed",
    "changes_reserved",
    "changes_store_full",
    "changes_forgotten",
    // Of a relay alone.
    "changes_outside",
    "ttl_malformed",
    "snapshots_refused",
    "snapshots_abandoned",
    "requests_malformed",
    "watches_refused",
    "publish_failed",
];

/// What tells of a broker's work.
const EVENTS_OF_BROKERS: [&str; 7] = [
    "changes_applied",
    "changes_repeated",
    "expired",
    "snapshots_done",
    "entries_sent",
    "snapshot_stalls",
    "heartbeats",
];

/// Sums over clients and their loops.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientCounts {
    events: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
}

impl ClientCounts {
    pub(super) fn of<T: crate::session::Task>(session: &Session<'_, T>) -> ClientCounts {
        let (stats, reactor) = (session.app.client.machine().stats(), session.reactor.stats());
        let events = [
            ("turns", reactor.turns),
            ("polls", reactor.polls),
            ("polls_blocked", reactor.polls_blocked),
            ("spurious_wakes", reactor.spurious_wakes),
            ("messages_received", reactor.messages_received),
            ("messages_sent", reactor.messages_sent),
            ("receives_empty", reactor.receives_empty),
            ("synced_entries", stats.synced_entries),
            ("resent", stats.resent),
            ("stalled", stats.stalled),
        ];
        let faults = FAULTS_OF_CLIENTS.map(|(name, count)| (name, count(&stats)));
        ClientCounts { events: events.into(), faults: faults.into() }
    }

    pub(super) fn add(&mut self, other: &ClientCounts) {
        for (name, count) in &other.events {
            *self.events.entry(name).or_default() += count;
        }
        for (name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
    }
}

/// What a broker has counted since its start, or between two times.
#[derive(Debug, Clone, Default)]
pub(super) struct BrokerCounts(BTreeMap<&'static str, u64>);

impl BrokerCounts {
    /// Asks the broker, or all of those named. `None`: it is a server of RFC 12, which
    /// counts nothing.
    pub(super) fn ask(common: &Common) -> Result<Option<BrokerCounts>, Failure> {
        let mut counts = BrokerCounts::default();
        for endpoint in common.endpoint().split(',') {
            let Some(figures) = status::figures_of(endpoint, common.timeout)? else {
                return Ok(None);
            };
            for name in FAULTS_OF_BROKERS.iter().chain(&EVENTS_OF_BROKERS) {
                let figure = figures.iter().find(|(other, _)| other == name);
                let count = figure.and_then(|(_, text)| text.parse::<u64>().ok());
                *counts.0.entry(name).or_default() += count.unwrap_or(0);
            }
        }
        Ok(Some(counts))
    }

    pub(super) fn since(&self, before: &BrokerCounts) -> BrokerCounts {
        let since = |(name, count): (&&'static str, &u64)| {
            (*name, count.saturating_sub(before.0.get(name).copied().unwrap_or(0)))
        };
        BrokerCounts(self.0.iter().map(since).collect())
    }

    pub(super) fn expired(&self) -> u64 {
        self.0.get("expired").copied().unwrap_or(0)
    }
}

/// All that was counted in a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) clients: ClientCounts,
    pub(super) broker: Option<BrokerCounts>,
}

impl Counts {
    /// Names, with whose count it is, of what should not have happened.
    pub(super) fn faults(&self) -> Vec<(String, u64)> {
        let clients = self.clients.faults.iter().map(|(name, count)| (*name, "clients", *count));
        let broker = self.broker.iter().flat_map(|broker| {
            let of = |name: &&'static str| (*name, "broker", broker.0.get(name).copied());
            FAULTS_OF_BROKERS
                .iter()
                .map(of)
                .map(|(name, whose, count)| (name, whose, count.unwrap_or(0)))
        });
        clients
            .chain(broker)
            .filter(|&(_, _, count)| count > 0)
            .map(|(name, whose, count)| (format!("{whose}: {name}"), count))
            .collect()
    }

    pub(super) fn json(&self) -> Value {
        let faults: Map<String, Value> =
            self.faults().into_iter().map(|(name, count)| (name, count.into())).collect();
        let broker = self.broker.as_ref().map(|broker| broker.events());
        json!({
            "events": { "clients": self.clients.events, "broker": broker },
            "faults": faults,
        })
    }

    /// Lines for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let broker = match &self.broker {
            Some(broker) => listed(broker.events().iter().map(|(name, count)| (*name, *count))),
            None => "it gives none".to_owned(),
        };
        let clients = self.clients.events.iter().map(|(name, count)| (*name, *count));
        let faults = self.faults();
        let faults = match faults[..] {
            [] => "none".to_owned(),
            _ => listed(faults.iter().map(|(name, count)| (name.as_str(), *count))),
        };
        vec![
            format!("events        clients: {}", listed(clients)),
            format!("              broker: {broker}"),
            format!("faults        {faults}"),
        ]
    }
}

impl BrokerCounts {
    fn events(&self) -> BTreeMap<&'static str, u64> {
        let count = |name: &&'static str| (*name, self.0.get(name).copied().unwrap_or(0));
        EVENTS_OF_BROKERS.iter().map(count).collect()
    }
}

fn listed<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    let each = counts.map(|(name, count)| format!("{name} {}", thousands(count)));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_should_not_happen_is_a_fault_and_says_whose_it_is() {
        let mut stats = ClientStats::default();
        (stats.gaps, stats.resyncs, stats.updates) = (2, 3, 5);
        let faults = FAULTS_OF_CLIENTS.map(|(name, count)| (name, count(&stats)));
        let clients = ClientCounts { events: BTreeMap::new(), faults: faults.into() };
        let mut sum = clients.clone();
        sum.add(&clients);
        let before = BrokerCounts([("publish_failed", 7), ("heartbeats", 1)].into());
        let after = BrokerCounts([("publish_failed", 8), ("heartbeats", 9)].into());
        let counts = Counts { clients: sum, broker: Some(after.since(&before)) };
        let faults = [("clients: gaps".to_owned(), 4), ("broker: publish_failed".to_owned(), 1)];
        assert_eq!(counts.faults(), faults);
        assert_eq!(counts.json()["events"]["broker"]["heartbeats"], 8);
        assert!(counts.lines().concat().contains("publish_failed 1"));
    }

    #[test]
    fn every_count_of_a_broker_is_one_that_it_gives() {
        let of_brokers = pollux::clone::broker::BrokerStats::default().fields();
        let of_relays = pollux::clone::broker::RelayStats::default().fields();
        let given: Vec<_> = of_brokers.iter().chain(&of_relays).map(|(name, _)| *name).collect();
        for name in FAULTS_OF_BROKERS.iter().chain(&EVENTS_OF_BROKERS) {
            assert!(given.contains(name), "{name}");
        }
    }
}
