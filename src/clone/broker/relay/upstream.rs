//! [`Upstream`]: which of the servers is followed, what it said, and when it is lost.

mod told;

use std::time::Duration;

use self::told::{Identity, Told};
use super::super::follow::{BacklogLimits, Follow};
use super::super::{Broker, BrokerOutbox};
use super::{Relay, property_text};
use crate::clone::collector::Collector;
use crate::clone::kvmsg::{HUGZ, ICANHAZ, KvMsg, STATUS};
use crate::clone::properties::PropertiesBuf;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// How long to stay at a server that says nothing, at least.
const SHORTEST_STAY: Duration = Duration::from_millis(500);
/// The longest pause before the next is tried, after a round in vain.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long to wait for a standby that is about to take over, beyond four intervals.
const TAKE_OVER: Duration = Duration::from_secs(1);
/// Votes are not cast more often.
const VOTE_EVERY: Duration = Duration::from_millis(100);
/// An upstream with an older epoch than one followed before is followed only after so
/// many heartbeat intervals without another.
const YIELD: u32 = 10;
/// The shortest silence that counts when there is no other server to turn to.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);
/// Heartbeat intervals that are believed.
const HEARTBEAT_MS: std::ops::RangeInclusive<u64> = 1..=3_600_000;
/// Relays behind one another, at most.
pub(super) const MAX_HOPS: usize = 8;

/// The server that is followed, or looked at.
#[derive(Debug)]
pub(super) struct Upstream {
    /// Its number in the list.
    server: usize,
    /// Found to serve.
    is_live: bool,
    /// Turned to since one was last found.
    turns: u32,
    /// While none is found: when to turn to the next, and when to vote again.
    leave_at: Time,
    vote_at: Time,
    heard: Time,
    /// It seems to be silent since then; its messages may wait to be handed in.
    suspected: Option<Time>,
    interval: Duration,
    node: Option<u64>,
    /// Those behind it, up to the broker with the history.
    via: Vec<u64>,
    /// When to tell of these two, which are news, and not before when.
    tell_at: Time,
    tell_from: Time,
    told: Told,
    /// What was safe of the history that is there, before another one was told of.
    safe: Sequence,
    /// Node and epoch of the last one that was sent changes.
    identity: Option<(u64, u32)>,
    /// The highest sequence that it told.
    position: Sequence,
    /// When we were last known to be where it is.
    current_at: Time,
    /// Since when only older ones are found.
    older_since: Option<Time>,
    /// Something may be missing below our position.
    is_doubtful: bool,
}

impl Upstream {
    pub(super) fn new(now: Time) -> Upstream {
        Upstream {
            server: 0,
            is_live: false,
            turns: 0,
            // The first is turned to at once.
            leave_at: now,
            vote_at: Time::NEVER,
            heard: now,
            suspected: None,
            interval: Duration::from_secs(1),
            node: None,
            via: Vec::new(),
            tell_at: Time::NEVER,
            tell_from: now,
            told: Told::default(),
            safe: Sequence::ZERO,
            identity: None,
            position: Sequence::ZERO,
            current_at: now,
            older_since: None,
            is_doubtful: false,
        }
    }

    pub(super) fn server(&self) -> usize {
        self.server
    }

    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    pub(super) fn stable(&self) -> Sequence {
        self.told.stable
    }

    /// Whether it has told of nothing beyond this position of ours.
    pub(super) fn is_at(&self, sequence: Sequence) -> bool {
        self.position <= sequence
    }

    /// What is safe of the history that is there up to here. While that is another than what
    /// the upstream tells of, it is what was safe before.
    fn stable_at(&self, sequence: Sequence) -> Sequence {
        match self.has(sequence) {
            true => self.told.stable.min(sequence),
            false => self.safe.min(sequence),
        }
    }

    /// As a client judges it.
    pub(super) fn is_safe(&self, sequence: Sequence) -> bool {
        self.has(sequence) && sequence <= self.told.stable
    }

    /// Whether a sequence of the epoch before is known to be in the history of the upstream.
    fn has_taken_over(&self, sequence: Sequence) -> bool {
        sequence <= self.told.fork && sequence.epoch() == self.told.fork.epoch()
    }

    /// Whether a sequence is of its epoch, or known to be in its history.
    fn has(&self, sequence: Sequence) -> bool {
        sequence.epoch() == self.told.epoch || self.has_taken_over(sequence)
    }

    /// When it is to be suspected, or if it is, counts as lost.
    fn lost_at(&self, are_many: bool) -> Time {
        if let Some(suspected) = self.suspected {
            return suspected + self.interval / 2;
        }
        self.heard
            + match are_many {
                true => self.interval * 2,
                false => (self.interval * 3).max(SHORTEST_SILENCE),
            }
    }

    pub(super) fn deadline(&self, are_many: bool) -> Time {
        match self.is_live {
            true => self.lost_at(are_many),
            false => self.leave_at.min(self.vote_at),
        }
    }

    /// Who it is, and who is behind it. News of that are told at once, but not twice within
    /// an interval: relays in a circle, which see it and make it the longer in turn, would do
    /// nothing else.
    fn learn(&mut self, now: Time, node: Option<u64>, via: Vec<u64>) {
        if self.node != node || self.via != via {
            self.tell_at = self.tell_from.max(now);
        }
        (self.node, self.via) = (node, via);
    }

    /// When there are news to tell.
    pub(super) fn tell_at(&self) -> Time {
        self.tell_at
    }

    /// Whether there are now; they count as told.
    fn take_news(&mut self, now: Time) -> bool {
        let is_due = now >= self.tell_at;
        if is_due {
            (self.tell_at, self.tell_from) = (Time::NEVER, now + self.interval);
        }
        is_due
    }

    /// A sign of life.
    pub(super) fn hear_anything(&mut self, now: Time) {
        (self.heard, self.suspected) = (now, None);
    }

    fn hear(&mut self, now: Time, sequence: Sequence, position: Sequence) {
        self.hear_anything(now);
        if sequence >= self.position {
            self.current_at = now;
        }
        self.position = position;
    }

    pub(super) fn announce(&self, sequence: Sequence, to: &mut PropertiesBuf) {
        to.push("stable", self.stable_at(sequence));
        // Whoever says this has a history that goes on at others.
        to.push("standby", self.told.standby.as_deref().unwrap_or("none"));
        if let Some(policy) = &self.told.policy {
            to.push("policy", policy);
        }
        let is_whole = self.is_live && !self.told.is_cut;
        to.push("upstream", if is_whole { "live" } else { "lost" });
        let via: Vec<String> =
            self.node.iter().chain(&self.via).map(|node| format!("{node:016x}")).collect();
        if !via.is_empty() {
            to.push("via", via.join(","));
        }
    }

    pub(super) fn figures(&self, sequence: Sequence, now: Time, to: &mut PropertiesBuf) {
        to.push("upstream_sequence", self.position);
        to.push("upstream_epoch", self.told.epoch);
        if let Some(node) = self.node {
            to.push("upstream_node", format_args!("{node:016x}"));
        }
        to.push("hops", self.via.len() + usize::from(self.node.is_some()));
        if self.position.epoch() == sequence.epoch() {
            to.push("lag_changes", self.position.get().saturating_sub(sequence.get()));
        }
        let lag = match self.is_live && sequence >= self.position {
            true => Duration::ZERO,
            false => now.since(self.current_at),
        };
        to.push("lag_ms", lag.as_millis());
    }
}

impl Broker {
    /// Looks for an upstream, or after the one that was found.
    pub(super) fn tend_upstream(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(relay) = self.relay.as_deref_mut() else { return };
        let are_many = relay.config.servers.len() > 1;
        let upstream = &mut relay.upstream;
        self.status_asked |= upstream.take_news(now);
        if now < upstream.deadline(are_many) {
            return;
        }
        if upstream.is_live && upstream.suspected.is_none() {
            // This process may have stood still, and not the upstream.
            upstream.suspected = Some(now);
        } else if upstream.is_live {
            self.leave_upstream(now, "it is silent", out);
        } else if now >= upstream.leave_at {
            self.turn_upstream(now, out);
        } else {
            vote(upstream, now, out);
        }
    }

    /// The upstream serves no more, or must not be followed.
    pub(in super::super) fn leave_upstream(
        &mut self,
        now: Time,
        why: &str,
        out: &mut impl BrokerOutbox,
    ) {
        let Some(relay) = self.relay.as_deref_mut() else { return };
        if std::mem::take(&mut relay.upstream.is_live) {
            relay.stats.upstreams_lost += 1;
            log::warn!(
                "upstream {} is lost: {why}; goes on with what was there at {:?}",
                relay.name(),
                self.sequence
            );
        }
        self.turn_upstream(now, out);
    }

    /// Turns to the next server of the list, or anew to the only one.
    fn turn_upstream(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let is_doubtful = self.follow.as_ref().is_some_and(Follow::is_doubtful);
        let was_open = self.follow.is_some();
        self.end_follow(now, out);
        let random = self.config.node;
        let Some(relay) = self.relay.as_deref_mut() else { return };
        let (count, upstream) = (relay.config.servers.len().max(1), &mut relay.upstream);
        upstream.is_doubtful |= is_doubtful;
        upstream.server = (upstream.server + usize::from(was_open)) % count;
        let stay = (upstream.interval * 2).max(SHORTEST_STAY);
        upstream.leave_at = now + stay + pause(upstream.turns / count as u32, random);
        upstream.turns = upstream.turns.saturating_add(1);
        // Opened anew where one is found: it may have failed.
        relay.forward = None;
        let limits =
            BacklogLimits { count: relay.config.backlog_count, bytes: relay.config.backlog_bytes };
        let mut follow = Follow::new(0, &relay.config.subtree, limits, Time::NEVER);
        if upstream.is_doubtful {
            follow.ask_whole();
        }
        self.follow = Some(follow);
        out.open_upstream(upstream.server, &relay.config.subtree);
        vote(upstream, now, out);
    }

    /// Takes in what a message of the upstream says of it. Whether it goes on to who
    /// follows it.
    pub(in super::super) fn hear_upstream(
        &mut self,
        now: Time,
        kvmsg: &KvMsg<'_>,
        out: &mut impl BrokerOutbox,
    ) -> bool {
        let sequence = self.sequence;
        let Some(relay) = self.relay.as_deref_mut() else { return true };
        match kvmsg.key.strip_prefix(HUGZ) {
            Some(subtree) if subtree == relay.config.subtree => {
                self.upstream_heartbeat(now, kvmsg, out)
            }
            // Of subtrees that others follow.
            Some(_) => false,
            None if kvmsg.key == STATUS => {
                self.upstream_status(now, kvmsg, out);
                false
            }
            // Before it was found to serve, nobody knows whose it is.
            None if !relay.upstream.is_live => false,
            None => {
                relay.upstream.hear(now, sequence, kvmsg.sequence);
                true
            }
        }
    }

    fn upstream_heartbeat(
        &mut self,
        now: Time,
        kvmsg: &KvMsg<'_>,
        out: &mut impl BrokerOutbox,
    ) -> bool {
        let Some(relay) = self.relay.as_deref_mut() else { return false };
        let Some(identity) = Identity::read(kvmsg) else {
            let why = format!("{} speaks plain RFC 12, which a relay cannot follow", relay.name());
            relay.refuse(&why);
            return false;
        };
        if kvmsg.properties.get("role") == Some(b"passive") {
            match relay.upstream.is_live {
                true => self.leave_upstream(now, "it has become passive", out),
                false => relay.upstream.leave_at = relay.upstream.leave_at.min(now + VOTE_EVERY),
            }
            return false;
        }
        if self.refuses(now, &identity, out) || !self.may_follow(now, kvmsg) {
            return false;
        }
        self.adopt(now, identity, kvmsg, out);
        if let Some(uuid) = kvmsg.uuid {
            self.hear_answer(uuid, kvmsg, out);
        }
        self.tend_forwards(now, out);
        true
    }

    /// Whether this server must not be followed: because it follows us, be it over
    /// others, or because there are too many between it and the history.
    fn refuses(&mut self, now: Time, identity: &Identity, out: &mut impl BrokerOutbox) -> bool {
        let own = self.config.node;
        let Some(relay) = self.relay.as_deref_mut() else { return false };
        let is_loop = identity.node == own || identity.via.contains(&own);
        if !is_loop && identity.via.len() < MAX_HOPS {
            return false;
        }
        relay.stats.loops_refused += 1;
        let count = relay.stats.loops_refused;
        let server = relay.name().to_owned();
        let why = match (identity.node == own, is_loop) {
            (true, _) => format!("{server} is this relay itself"),
            (_, true) => format!("{server} follows this relay: they would go in a circle"),
            _ => format!("{server} is behind {MAX_HOPS} other relays, which are too many"),
        };
        if count.is_power_of_two() {
            log::error!("--follow: {why} ({count} so far); it is not followed");
        }
        // So that it notices the circle, too; who is behind it would make the way longer with
        // each turn.
        let next = Some(identity.node).filter(|&node| node != own);
        relay.upstream.learn(now, next, Vec::new());
        if relay.upstream.is_live {
            self.leave_upstream(now, "it must not be followed", out);
        }
        true
    }

    /// Whether what it has is what we want: of our subtree, and no older than what we have.
    fn may_follow(&mut self, now: Time, kvmsg: &KvMsg<'_>) -> bool {
        let (sequence, has_state) = (self.sequence, self.has_state());
        let Some(relay) = self.relay.as_deref_mut() else { return false };
        let own = property_text(&relay.config.subtree);
        if let Some(subtree) = kvmsg.properties.get("subtree")
            && !own.as_bytes().starts_with(subtree)
        {
            let why = format!(
                "the relay at {} has only {}",
                relay.name(),
                String::from_utf8_lossy(subtree)
            );
            relay.refuse(&why);
            return false;
        }
        let told = Told::read(kvmsg);
        let upstream = &mut relay.upstream;
        if !has_state {
            return true;
        }
        if told.epoch < sequence.epoch() {
            let since = *upstream.older_since.get_or_insert(now);
            return now >= since + upstream.interval * YIELD;
        }
        upstream.older_since = None;
        // A relay that is behind us will come to where we are.
        let at = kvmsg.properties.parse("at").unwrap_or(kvmsg.sequence);
        upstream.is_live || told.epoch > sequence.epoch() || at >= sequence
    }

    /// It is followed from now on, or still.
    fn adopt(
        &mut self,
        now: Time,
        identity: Identity,
        kvmsg: &KvMsg<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        let (sequence, limits) = (self.sequence, self.config.limits);
        let Some(relay) = self.relay.as_deref_mut() else { return };
        let told = Told::read(kvmsg);
        let name = relay.name().to_owned();
        let upstream = &mut relay.upstream;
        if let Some(ms) = kvmsg.properties.parse::<u64>("hb") {
            let ms = ms.clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end());
            upstream.interval = Duration::from_millis(ms);
        }
        upstream.hear(now, sequence, kvmsg.sequence);
        let Identity { node, via } = identity;
        upstream.learn(now, Some(node), via);
        if !std::mem::replace(&mut upstream.is_live, true) {
            upstream.turns = 0;
            (upstream.leave_at, upstream.vote_at) = (Time::NEVER, Time::NEVER);
            relay.stats.upstreams_found += 1;
            log::warn!("follows {name}, broker {node:016x} in epoch {}", told.epoch);
            if told.max_value.is_some_and(|max| max > limits.max_value) {
                log::error!(
                    "{name} takes values of up to {} bytes, this relay only {}: give it the same \
                     --max-value",
                    told.max_value.unwrap_or_default(),
                    limits.max_value
                );
            }
        }
        let epoch = told.epoch;
        upstream.safe = upstream.stable_at(sequence);
        upstream.told = told;
        let identity = (node, epoch);
        let is_another = upstream.identity.replace(identity) != Some(identity);
        if let Some(follow) = &mut self.follow {
            let is_older = epoch < sequence.epoch();
            if is_older {
                follow.ask_whole();
            }
            if follow.turn_to(node) || (is_another && follow.is_live()) {
                follow.prove_again();
            }
        }
        let collector = kvmsg.properties.parse("collector").unwrap_or(Collector::Pull);
        let socket = Some((collector, relay.upstream.server));
        if relay.forward != socket {
            relay.forward = socket;
            relay.blocked_until = Time::ZERO;
            out.open_forward(collector);
        }
        let upstream = &relay.upstream;
        if is_another {
            relay.forwards.begin_anew(now, |sequence| upstream.has_taken_over(sequence));
        }
        relay.forwards.settle(|sequence| upstream.is_safe(sequence));
    }

    /// A server says what it is: the answer to a subscription that active and passive
    /// ones give alike.
    fn upstream_status(&mut self, now: Time, kvmsg: &KvMsg<'_>, out: &mut impl BrokerOutbox) {
        let Some(identity) = Identity::read(kvmsg) else { return };
        if self.refuses(now, &identity, out) {
            return;
        }
        let random = self.config.node;
        let Some(relay) = self.relay.as_deref_mut() else { return };
        let properties = kvmsg.properties;
        let serves = matches!(properties.get("role"), Some(b"active" | b"relay"));
        if relay.upstream.is_live {
            if !serves {
                self.leave_upstream(now, "it has become passive", out);
            }
            return;
        }
        let count = relay.config.servers.len().max(1) as u32;
        let upstream = &mut relay.upstream;
        // Also of one that does not serve: a circle of relays without a state is told so.
        let Identity { node, via } = identity;
        upstream.learn(now, Some(node), via);
        let interval = upstream.interval;
        upstream.leave_at = match properties.get("peer") {
            _ if serves => upstream.leave_at.max(now + interval * 2),
            Some(b"live") => now + pause(upstream.turns / count, random),
            _ => now + (interval * 4).max(TAKE_OVER),
        };
    }
}

impl Relay {
    /// The server that is followed, or looked at.
    fn name(&self) -> &str {
        self.config.servers.get(self.upstream.server).map_or("none", String::as_str)
    }
}

/// A standby takes over only if somebody asks, be it for nothing: no key begins so.
fn vote(upstream: &mut Upstream, now: Time, out: &mut impl BrokerOutbox) {
    upstream.vote_at = now + upstream.interval.max(VOTE_EVERY);
    out.open_sync();
    // It is cast again.
    let _ = out.request_sync(&[ICANHAZ, ICANHAZ]);
}

/// How long to stay longer after so many rounds in vain. Relays started together must
/// not go on together: the number of the run tells them apart.
fn pause(rounds: u32, random: u64) -> Duration {
    let mix = random.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(rounds * 7) >> 54;
    let longest = (Duration::from_millis(100) * (1 << rounds.min(6))).min(LONGEST_PAUSE);
    longest / 2 + longest / 2 * mix as u32 / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_lost_history_no_more_is_safe_than_was() {
        let at = Sequence::new;
        let mut upstream = Upstream::new(Time::ZERO);
        upstream.told = Told { epoch: 4, stable: at(4, 90), ..Told::default() };
        assert_eq!(upstream.stable_at(at(4, 100)), at(4, 90));
        assert_eq!(upstream.stable_at(at(4, 80)), at(4, 80));
        // Another has taken over at 90: what came behind it here never was safe.
        upstream.safe = upstream.stable_at(at(4, 100));
        upstream.told = Told { epoch: 5, stable: at(5, 20), fork: at(4, 90), ..Told::default() };
        assert_eq!(upstream.stable_at(at(4, 100)), at(4, 90));
        assert_eq!(upstream.stable_at(at(5, 30)), at(5, 20));
    }
}
