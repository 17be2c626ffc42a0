//! Relays on their hosts, and what is checked of each: that it says what its upstream has
//! said, and nothing of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use pollux::Time;
use pollux::clone::broker::Broker;
use pollux::clone::pair::Role;
use pollux::clone::{KvMsg, Sequence};

use super::brokers::{BrokerProgram, PeerSockets, check_store, limits};
use super::{Program, STALENESS_EVERY, System};
use crate::plan::RelayPlan;
use crate::programs::{broker_config, relay_config};
use crate::truth::Truth;

/// A sync that makes no progress is begun anew after so long; it may be needed twice.
const SYNCS: Duration = Duration::from_secs(4);

/// What a relay has said, as far as it must go on from there.
#[derive(Debug, Default)]
pub(super) struct Relayed {
    /// Where it was last, and the last change that it published, in each epoch.
    positions: BTreeMap<u32, Sequence>,
    published: BTreeMap<u32, Sequence>,
    /// When it last said that it has lost its upstream, or nothing at all yet.
    cut: Time,
    /// When it last took over a whole state, and how many there were.
    pub(super) whole_at: Time,
    syncs: u64,
    checked_at: Time,
}

impl System<'_> {
    pub(super) fn start_relay(&mut self, host: usize, plan: &RelayPlan) {
        let config = broker_config(self.plan.seed, host, self.starts[host], &plan.server, 0);
        let now = self.clock(host).local(self.net.now);
        let machine = Broker::relay(config, relay_config(plan), now);
        let peer = PeerSockets { hosts: plan.upstreams.clone(), ..PeerSockets::default() };
        let relayed = Relayed { cut: self.net.now, ..Relayed::default() };
        let program = BrokerProgram::new(machine, peer, Some(relayed));
        self.programs[host] = Program::Broker(Box::new(program));
        self.net.listen(host, plan.server.collector);
    }

    /// What a relay says and has after each step of it.
    pub(super) fn follow_relay(&mut self, host: usize) {
        let Program::Broker(program) = &mut self.programs[host] else { return };
        let published = program.take_published();
        let BrokerProgram { machine, relayed: Some(relayed), .. } = &mut **program else { return };
        let now = self.net.now;
        for frames in published {
            frames.with(|message| {
                let message = KvMsg::decode(message, &limits()).expect("a sound message");
                if message.key.starts_with(b"HUGZ") {
                    check_heartbeat(&message, &self.truth, host);
                    if message.properties.get("upstream") != Some(b"live") {
                        relayed.cut = now;
                    }
                } else if message.key != b"STATUS?" {
                    check_relayed(&message, &self.truth, host);
                    rises(&mut relayed.published, message.sequence, host, "publishes");
                }
            });
        }
        if machine.role() != Role::Relay {
            relayed.cut = now;
            return;
        }
        let position = machine.sequence();
        // Back to an older history: what comes of a newer one may come again.
        relayed.published.retain(|epoch, _| *epoch <= position.epoch());
        let last = relayed.positions.entry(position.epoch()).or_default();
        assert!(*last <= position, "relay {host} was at {last:?}, and is at {position:?}");
        *last = position;
        let syncs = machine.relay_stats().map_or(0, |stats| stats.syncs);
        if std::mem::replace(&mut relayed.syncs, syncs) != syncs {
            relayed.whole_at = now;
        }
        let is_whole = |relay: &RelayPlan| relay.subtree.is_empty();
        let is_all = self.plan.relay_at(host).is_some_and(is_whole);
        if is_all && relayed.checked_at <= now {
            relayed.checked_at = now + STALENESS_EVERY;
            check_store(machine, &self.truth, position.get(), host);
            self.net.coverage.count("relay: store checked");
        }
    }

    /// How long a relay may lack something and not know it, as long as nothing holds up it or
    /// whom it follows; and until when something did.
    pub(super) fn relay_patience(&self, relay: usize) -> Option<(Duration, Time)> {
        let plan = self.plan.relay_at(relay)?;
        let Program::Broker(program) = &self.programs[relay] else { return None };
        let relayed = program.relayed.as_ref()?;
        let (mut patience, mut since) = (Duration::ZERO, relayed.cut);
        since = since.max(self.net.hindered(relay)).max(self.frozen_until[relay]);
        for &upstream in &plan.upstreams {
            let heartbeat = Duration::from_millis(self.plan.server_at(upstream).heartbeat_ms);
            let silence = (heartbeat * 4).max(Duration::from_secs(1)) + heartbeat / 2;
            let mut own = silence * 2 + heartbeat * 2 + SYNCS;
            since = since.max(self.hindered(upstream, relay));
            if self.plan.relay_at(upstream).is_some() {
                let (theirs, before) = self.relay_patience(upstream)?;
                (own, since) = (own + theirs, since.max(before));
            }
            patience = patience.max(own);
        }
        Some((patience, since))
    }
}

/// In each epoch it goes on.
fn rises(last: &mut BTreeMap<u32, Sequence>, sequence: Sequence, host: usize, what: &str) {
    let last = last.entry(sequence.epoch()).or_default();
    assert!(*last < sequence, "relay {host} {what} {sequence:?} after {last:?}");
    *last = sequence;
}

/// A relay publishes what was published, under the number that it had.
fn check_relayed(message: &KvMsg<'_>, truth: &Truth, host: usize) {
    let sequence = message.sequence.get();
    let version = truth.reign_of(sequence).and_then(|reign| reign.at(message.key, sequence));
    let is_it = version.is_some_and(|version| {
        version.sequence == sequence
            && version.uuid == message.uuid
            && *version.value == *message.body
    });
    assert!(is_it, "relay {host} publishes {message:?}, which was {version:?}");
}

/// It is nowhere where nobody was, and calls nothing safe that nobody else has.
fn check_heartbeat(message: &KvMsg<'_>, truth: &Truth, host: usize) {
    let sequence = message.sequence.get();
    let given = truth.reign_of(sequence).map_or(0, |reign| reign.last);
    assert!(sequence <= given, "one history: relay {host} is ahead of all: {message:?}");
    let stable = message.properties.parse("stable").unwrap_or(0);
    assert!(
        truth.is_called_safe(stable),
        "relay {host} calls safe what no other does: {message:?}"
    );
}
