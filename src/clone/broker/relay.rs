//! The broker as a relay: serves what another one keeps, see [`relay`](crate::clone::relay).
//!
//! | noun | file | what it knows |
//! |---|---|---|
//! | upstream | `upstream.rs`, `upstream/told.rs` | which server it is, what that said of itself, when it is lost |
//! | forwards | `forwards.rs`, `forward.rs` | changes of clients on their way to it |
//! | follow | `../follow.rs` | taking over its state, and keeping up with it |

mod forward;
mod forwards;
mod stats;
mod upstream;

use std::collections::BTreeMap;
use std::time::Duration;

use smallvec::SmallVec;

use self::forwards::Forwards;
pub use self::stats::RelayStats;
use self::upstream::Upstream;
use super::follow::FollowStats;
use super::snapshots::{Request, kvsync};
use super::{Broker, BrokerConfig, BrokerOutbox, publish, warn_rarely};
use crate::clone::collector::Collector;
use crate::clone::kvmsg::Uuid;
use crate::clone::pair::{Lineage, Role};
use crate::clone::properties::PropertiesBuf;
use crate::clone::relay::RelayConfig;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// What the upstream says is safe is told after this long at most.
const TELL_AFTER: Duration = Duration::from_millis(5);

/// What a relay knows beyond a broker with a history of its own.
#[derive(Debug)]
pub(super) struct Relay {
    config: RelayConfig,
    /// Whether the store holds a whole state, be it empty.
    has_state: bool,
    upstream: Upstream,
    /// Of a subtree: up to here nothing is missing.
    proven: Sequence,
    /// The kind of socket that changes are forwarded on, and to which server.
    forward: Option<(Collector, usize)>,
    forwards: Forwards,
    /// The socket for changes takes no more: not before.
    blocked_until: Time,
    ahead: Ahead,
    /// What heartbeats said last that was safe, and when.
    told: Sequence,
    told_at: Time,
    /// When this relay was last looked after.
    tended: Time,
    stats: RelayStats,
}

/// A request, with the routing id of its client.
type Held = (SmallVec<[u8; 16]>, Request);

/// Requests of clients that may have more than we, by what they have, in order of
/// arrival.
#[derive(Debug, Default)]
struct Ahead {
    requests: BTreeMap<(Sequence, u64), Held>,
    next: u64,
}

impl Ahead {
    /// The first that is not ahead of this position.
    fn due(&self, position: Sequence) -> Option<(Sequence, u64)> {
        let is_due = |since: Sequence| since <= position || since.epoch() != position.epoch();
        let ends = [self.requests.first_key_value(), self.requests.last_key_value()];
        ends.into_iter().flatten().map(|(&key, _)| key).find(|&(since, _)| is_due(since))
    }

    /// Of those that must wait longest the oldest: who has not been answered for so long
    /// has asked again, or gone.
    fn drop_furthest(&mut self) -> Option<Held> {
        let (&(since, _), _) = self.requests.last_key_value()?;
        let (&key, _) = self.requests.range((since, 0)..).next()?;
        self.requests.remove(&key)
    }
}

impl Relay {
    fn new(config: RelayConfig, now: Time) -> Relay {
        Relay {
            has_state: false,
            upstream: Upstream::new(now),
            proven: Sequence::ZERO,
            forward: None,
            forwards: Forwards::default(),
            blocked_until: Time::ZERO,
            ahead: Ahead::default(),
            told: Sequence::ZERO,
            told_at: Time::ZERO,
            tended: now,
            stats: RelayStats::default(),
            config,
        }
    }

    pub(super) fn has_state(&self) -> bool {
        self.has_state
    }

    pub(super) fn set_state(&mut self, has_state: bool) {
        self.has_state = has_state;
    }

    /// Up to where nothing of the subtree is missing.
    pub(super) fn proven(&self) -> Sequence {
        self.proven
    }

    /// It is known that nothing up to here is missing, be it less than was known of another
    /// history.
    pub(super) fn prove(&mut self, proven: Sequence) {
        self.proven = proven;
    }

    /// A message of a snapshot came: a sign of life, too.
    pub(super) fn hear_snapshot(&mut self, now: Time) {
        self.upstream.hear_anything(now);
    }

    /// Its upstream has applied a change.
    pub(super) fn applied(&mut self, uuid: Uuid, sequence: Sequence) {
        self.stats.forwards_forgotten += self.forwards.apply(uuid, sequence);
    }

    /// A message of the upstream, or of one who claims to be it, was refused.
    pub(super) fn refuse(&mut self, why: &dyn std::fmt::Display) {
        self.stats.upstream_refused += 1;
        warn_rarely(self.stats.upstream_refused, "message of the upstream refused", why);
    }

    /// What heartbeats say on top of those of a lone broker.
    pub(super) fn announce(&self, sequence: Sequence, lineage: &Lineage, to: &mut PropertiesBuf) {
        self.upstream.announce(sequence, to);
        lineage.announce(to);
        if !self.config.subtree.is_empty() {
            to.push("subtree", property_text(&self.config.subtree));
            to.push("proven", self.proven);
        }
    }

    /// What `STATUS?` says on top.
    pub(super) fn figures(
        &self,
        sequence: Sequence,
        followed: FollowStats,
        to: &mut PropertiesBuf,
    ) {
        to.push("state", if self.has_state { "whole" } else { "none" });
        let server = self.config.servers.get(self.upstream.server());
        to.push("upstream_at", property_text(server.map_or("none", String::as_str).as_bytes()));
        self.upstream.figures(sequence, self.tended, to);
        to.push("forwards_unsent", self.forwards.unsent());
        to.push("forwards_unanswered", self.forwards.unanswered());
        to.push("forwards_not_safe", self.forwards.applied());
        to.push("requests_held", self.ahead.requests.len());
        for (name, count) in self.stats.with(followed).fields() {
            to.push(name, count);
        }
    }
}

/// Bytes as the value of a property may have them.
fn property_text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace('=', "\\x3d")
}

impl Broker {
    /// A relay with an empty store, which begins to look for its upstream at the next
    /// [`handle_timeout`](Broker::handle_timeout). [`BrokerConfig::start`] and
    /// [`pair`](BrokerConfig::pair) mean nothing to it: it gives no sequences.
    pub fn relay(mut config: BrokerConfig, relay: RelayConfig, now: Time) -> Broker {
        (config.pair, config.start) = (None, Sequence::ZERO);
        let mut broker = Broker::new(config, now);
        broker.role = Role::Starting;
        broker.relay = Some(Box::new(Relay::new(relay, now)));
        broker
    }

    /// What it counted as a relay; `None` for another broker.
    pub fn relay_stats(&self) -> Option<RelayStats> {
        self.relay.as_ref().map(|relay| relay.stats.with(self.follow_stats))
    }

    /// Does what is due between a relay and its upstream.
    pub(super) fn tend_relay(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(relay) = self.relay.as_deref_mut() else { return };
        relay.tended = now;
        self.tend_upstream(now, out);
        self.tend_follow(now, out);
        self.tend_forwards(now, out);
        self.tell_safe(now, out);
        self.serve_ahead();
    }

    pub(super) fn next_relay_deadline(&self) -> Time {
        let Some(relay) = &self.relay else { return Time::NEVER };
        let upstream = &relay.upstream;
        let mut next = upstream.deadline(relay.config.servers.len() > 1).min(upstream.tell_at());
        next = next.min(self.forwards_deadline(relay));
        if self.role == Role::Relay && relay.upstream.stable() > relay.told {
            next = next.min(relay.told_at + TELL_AFTER);
        }
        if self.role == Role::Relay && relay.ahead.due(self.sequence).is_some() {
            return Time::ZERO;
        }
        next.min(self.follow.as_ref().map_or(Time::NEVER, super::follow::Follow::deadline))
    }

    /// A sync has ended: clients are served from what is there now.
    pub(super) fn relay_synced(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(relay) = self.relay.as_deref_mut() else { return };
        // Changes of ours may be among what was missing.
        let recent = &self.recent;
        let replaced = relay.forwards.find_applied(|uuid| recent.get(uuid));
        relay.stats.forwards_forgotten += replaced;
        if self.role != Role::Relay {
            self.role = Role::Relay;
            self.published += 1;
            log::warn!(
                "serves from now on, in epoch {} with {} keys",
                self.sequence.epoch(),
                self.store.len()
            );
            self.watched.restart(self.sequence, self.published);
        }
        let (lineage, sequence) = (&self.lineage, self.sequence);
        self.snapshots.check_since(|since| lineage.contains(since, sequence));
        self.rounds.restart(now + self.config.heartbeat);
        self.send_heartbeats(now, |_| true, out);
        self.status_asked = true;
        self.tend_forwards(now, out);
    }

    /// What is here lacks something: nobody must be served from it until there is a whole
    /// state again.
    pub(super) fn stop_relaying(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if self.role != Role::Relay {
            return;
        }
        self.role = Role::Starting;
        log::error!("serves nobody: what the upstream has is more than may be kept here");
        // The farewell: clients turn to another server if they know one.
        self.send_heartbeats(now, |_| true, out);
        self.publish_status(now, out);
        self.snapshots.abandon(&mut self.store);
    }

    /// The whole state has been replaced: publishes what is newer than before, for those
    /// who do not count. (What is gone has no number of its own that could be published.)
    /// Who counts notices that it is not all, and resynchronises.
    pub(super) fn pass_on_newer(
        &mut self,
        now: Time,
        before: Sequence,
        out: &mut impl BrokerOutbox,
    ) {
        let entries = self.store.iter(b"");
        let mut newer: Vec<_> = entries.filter(|entry| entry.sequence > before).collect();
        newer.sort_unstable_by_key(|entry| entry.sequence);
        // More than was published: nobody's count may fit by accident.
        self.published += newer.len() as u64 + 1;
        for entry in newer {
            publish(&kvsync(&entry, now, &mut self.ttl_scratch), &mut self.stats, out);
        }
        self.watched.restart(self.sequence, self.published);
    }

    /// Passes on what the upstream has said is safe.
    fn tell_safe(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if self.role != Role::Relay {
            return;
        }
        let Some(relay) = self.relay.as_deref_mut() else { return };
        let stable = relay.upstream.stable();
        if stable > relay.told && now >= relay.told_at + TELL_AFTER {
            let before = std::mem::replace(&mut relay.told, stable);
            relay.told_at = now;
            self.send_heartbeats(now, |watch| watch.asked || watch.sequence > before, out);
        }
    }

    /// Whether to hold the request of a client that asks for what changed since then: it
    /// may have been at a server that is ahead of us, and an answer before we have come as
    /// far would take it back in time.
    pub(super) fn holds(&self, since: Sequence) -> bool {
        let is_ahead = since > self.sequence && since.epoch() == self.sequence.epoch();
        self.relay.is_some() && (self.role != Role::Relay || is_ahead)
    }

    pub(super) fn hold_request(&mut self, peer: &[u8], request: Request) {
        let Some(relay) = self.relay.as_deref_mut() else { return };
        relay.stats.requests_ahead += 1;
        let (ahead, stats) = (&mut relay.ahead, &mut relay.stats);
        ahead
            .requests
            .insert((request.since.unwrap_or_default(), ahead.next), (peer.into(), request));
        ahead.next += 1;
        if ahead.requests.len() > relay.config.held_requests && ahead.drop_furthest().is_some() {
            stats.held_dropped += 1;
            warn_rarely(stats.held_dropped, "request dropped", &"too many are held");
        }
    }

    /// A client has asked before there was a state to serve it from.
    pub(super) fn hold_without_state(&mut self) {
        let Some(relay) = self.relay.as_deref_mut() else { return };
        if self.snapshots.make_room(relay.config.held_requests) {
            relay.stats.held_dropped += 1;
            warn_rarely(relay.stats.held_dropped, "request dropped", &"too many are held");
        }
    }

    /// Serves those whose position is reached.
    fn serve_ahead(&mut self) {
        if self.role != Role::Relay {
            return;
        }
        let position = self.sequence;
        while let Some(relay) = self.relay.as_deref_mut()
            && let Some(key) = relay.ahead.due(position)
            && let Some((peer, mut request)) = relay.ahead.requests.remove(&key)
        {
            request.since = request.since.filter(|&since| self.lineage.contains(since, position));
            self.take_request(&peer, request);
        }
    }
}
