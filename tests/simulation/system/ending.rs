//! The end of a run: faults end, and then everything comes right.

use std::collections::BTreeMap;

use pollux::Time;
use pollux::clone::broker::{PairStats, RelayStats};
use pollux::clone::pair::Role;

use super::{Program, System};
use crate::checks::Told;
use crate::plan::RelayPlan;
use crate::truth::Fate;

impl System<'_> {
    /// Faults end: what is down comes up, what was held up goes on.
    pub(super) fn calm(&mut self) {
        self.is_calm = true;
        self.net.calm();
        self.timers.clear();
        for host in 0..self.programs.len() {
            self.start(host);
            if let Program::Client(program) = &mut self.programs[host] {
                program.takes_events_at = Time::ZERO;
            }
        }
    }

    /// Why not everything is right, if it is not: every map is the broker's, and
    /// every change has its answer.
    pub(super) fn problem(&self) -> Option<String> {
        let Some(active) = self.active() else {
            return Some("not exactly one broker is active".to_owned());
        };
        (0..self.programs.len()).find_map(|host| {
            if let Some(relay) = self.plan.relay_at(host) {
                return self.relay_problem(active, host, relay);
            }
            let Program::Client(program) = &self.programs[host] else { return None };
            let plan = &self.plan.clients[host - self.plan.servers.len()];
            let Told { open, .. } = &program.told;
            if !open.is_empty() {
                return Some(format!("host {host} waits for answers: {open:?}"));
            }
            if !program.sockets.servers.iter().all(|&server| self.has_room(server)) {
                // Whom it follows may rightly never have all of it.
                return None;
            }
            if plan.max_keys < 1000 || plan.max_bytes < 100_000 {
                // It may rightly never be.
                return None;
            }
            if !program.machine.is_current() {
                let status: Vec<_> = program.machine.status().collect();
                return Some(format!("host {host} is not current: {status:?}"));
            }
            if !program.told.applied.is_empty() {
                return Some(format!("host {host}: are these safe? {:?}", program.told.applied));
            }
            let is_counted = matches!(self.programs[0], Program::Broker(_));
            if !is_counted && plan.subtrees != [""] {
                // Of a server that does not count, a loss under a part goes unnoticed.
                return None;
            }
            plan.subtrees.iter().find_map(|subtree| {
                let entries = program.machine.iter(subtree.as_bytes());
                let map = entries.map(|entry| (entry.key, entry.value)).collect();
                self.difference(active, map, subtree)
            })
        })
    }

    /// The server that serves, if there is one and no other.
    fn active(&self) -> Option<usize> {
        let mut active = (0..self.plan.servers.len()).filter(|&host| match &self.programs[host] {
            Program::Broker(broker) => broker.machine.role() == Role::Active,
            program => matches!(program, Program::OldServer(_)),
        });
        active.next().filter(|_| active.next().is_none())
    }

    /// What a relay lacks of the state that it should have by now.
    fn relay_problem(&self, active: usize, host: usize, plan: &RelayPlan) -> Option<String> {
        let Program::Broker(program) = &self.programs[host] else { return None };
        if !self.has_room(host) {
            return None;
        }
        let machine = &program.machine;
        if machine.role() != Role::Relay {
            return Some(format!("relay {host} does not serve: {:?}", machine.relay_stats()));
        }
        let entries = machine.store().iter(b"").map(|entry| (entry.key, entry.value));
        let problem = self.difference(active, entries.collect(), plan.subtree)?;
        Some(format!("relay {host}: {problem}"))
    }

    /// Whether a relay, and those before it, can hold all that there is, and are told of the
    /// subtree that they follow.
    pub(super) fn has_room(&self, host: usize) -> bool {
        let Some(relay) = self.plan.relay_at(host) else { return true };
        let is_watched =
            |upstream| relay.subtree.is_empty() || self.plan.server_at(upstream).max_watched > 100;
        let are_wide = |&upstream: &usize| is_watched(upstream) && self.has_room(upstream);
        !relay.server.is_small() && relay.upstreams.iter().all(are_wide)
    }

    /// Where a map is not what the active broker has under a subtree.
    fn difference(
        &self,
        active: usize,
        map: BTreeMap<&[u8], &[u8]>,
        subtree: &str,
    ) -> Option<String> {
        let subtree = subtree.as_bytes();
        let truth: BTreeMap<&[u8], &[u8]> = match &self.programs[active] {
            Program::Broker(broker) => {
                broker.machine.store().iter(subtree).map(|entry| (entry.key, entry.value)).collect()
            }
            Program::OldServer(server) => {
                let entries = server.map.iter().filter(|(key, _)| key.starts_with(subtree));
                entries.map(|(key, (_, value))| (&**key, &**value)).collect()
            }
            _ => return Some("there is no server".to_owned()),
        };
        let keys = truth.keys().chain(map.keys());
        keys.map(|key| (key, map.get(key), truth.get(key)))
            .find(|(_, map, truth)| map != truth)
            .map(|(key, map, truth)| {
                let text =
                    |value: Option<&&[u8]>| value.map(|value| value.escape_ascii().to_string());
                format!("{} is {:?}, not {:?}", key.escape_ascii(), text(map), text(truth))
            })
    }

    /// What was called safe is there at the end, as long as one broker that had it
    /// lives: by the policy that waits for a standby, both had it.
    pub(super) fn check_safe(&self) {
        let Some(active) = self.active().filter(|_| self.plan.servers[0].waits_for_standby) else {
            return;
        };
        if self.plan.servers.len() == 1 {
            // Alone, its word is all there is.
            return;
        }
        for (uuid, submission) in &self.truth.submissions {
            let Fate::Safe(since) = submission.fate else { continue };
            if self.truth.is_kept_by(active, submission, *uuid) {
                continue;
            }
            let since = self.truth.confirmed_at(*uuid, since).unwrap_or(since);
            let survives = (0..self.plan.servers.len()).any(|host| self.started[host] <= since);
            assert!(
                !survives,
                "no lost change: {uuid}, safe since {since:?}, is gone: {submission:?}"
            );
        }
    }

    /// Clients of RFC 12 cannot know what they have missed; who missed nothing
    /// has what the broker has.
    pub(super) fn check_old_clients(&mut self) {
        for program in &self.programs {
            let Program::OldClient(client) = program else { continue };
            let Some(Program::Broker(broker)) =
                client.active_with().map(|host| &self.programs[host])
            else {
                continue;
            };
            // What a server learned while it was passive it has not published, nor a relay what
            // is gone with a whole state: a client that did not notice has no way to know.
            let serves_since = match &broker.relayed {
                Some(relayed) => relayed.whole_at,
                None => {
                    let reign = client.active_with().and_then(|host| self.truth.reign_at(host));
                    reign.map_or(Time::NEVER, |reign| reign.began)
                }
            };
            if !client.is_clean(&self.net) || client.synced_at < serves_since {
                continue;
            }
            self.net.coverage.count("old client: in step");
            if !matches!(broker.machine.role(), Role::Active | Role::Relay) {
                continue;
            }
            for entry in broker.machine.store().iter(client.subtree()) {
                let value = client.map.get(entry.key).map(|(_, value)| &**value);
                assert!(
                    value == Some(entry.value) || client.own.contains(entry.key),
                    "an old client has {} as {value:?}, the broker as {entry:?}",
                    entry.key.escape_ascii()
                );
            }
        }
    }

    pub(super) fn count_machines(&mut self) {
        for host in 0..self.programs.len() {
            self.count_machine(host);
        }
    }

    /// Adds the counts of a program to what has happened.
    pub(super) fn count_machine(&mut self, host: usize) {
        let coverage = &mut self.net.coverage;
        match &self.programs[host] {
            Program::Broker(broker) => {
                let relay = broker.machine.relay_stats();
                for (name, count) in relay.iter().flat_map(RelayStats::fields) {
                    coverage.add(&format!("relay: {name}"), count);
                }
                let (stats, plan) = (broker.machine.stats(), self.plan.server_at(host));
                let pair = broker.machine.pair_stats();
                let ring_dropped = pair.map_or(0, |pair| pair.ring_dropped);
                let syncs_failed = relay.map_or(0, |relay| relay.syncs_failed);
                for (name, count) in [
                    ("pair: store", pair.map_or(0, |_| stats.changes_store_full)),
                    ("pair: uuids", pair.map_or(0, |_| stats.changes_forgotten)),
                    ("pair: ring", if plan.ring_is_wide() { 0 } else { ring_dropped }),
                    ("relay: store", if plan.is_small() { syncs_failed } else { 0 }),
                ] {
                    coverage.add(&format!("limit of a {name}"), count);
                }
                for (name, count) in broker.machine.stats().fields() {
                    coverage.add(&format!("broker: {name}"), count);
                }
                for (name, count) in broker.machine.pair_stats().iter().flat_map(PairStats::fields)
                {
                    coverage.add(&format!("pair: {name}"), count);
                }
            }
            Program::Client(program) => {
                let stats = program.machine.stats();
                for (name, count) in [
                    ("applied", stats.applied),
                    ("repeated", stats.repeated),
                    ("strays", stats.strays),
                    ("verified", stats.verified),
                    ("snapshots", stats.snapshots),
                    ("deltas", stats.deltas),
                    ("truncated", stats.truncated),
                    ("stalled", stats.stalled),
                    ("gaps", stats.gaps),
                    ("unwatched", stats.unwatched),
                    ("limits", stats.limits),
                    ("submitted", stats.submitted),
                    ("resent", stats.resent),
                    ("blocked", stats.blocked),
                    ("votes", stats.votes),
                    ("overrun", stats.overrun),
                    ("timed_out", stats.timed_out),
                    ("superseded", stats.superseded),
                ] {
                    coverage.add(&format!("client: {name}"), count);
                }
                assert_eq!(stats.malformed, 0, "malformed messages came to host {host}");
            }
            _ => {}
        }
    }
}
