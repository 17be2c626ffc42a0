//! Heartbeats: who follows which subtree, and what is told about it when.

use std::time::Duration;

use super::stats::BrokerStats;
use super::watched::{SLOTS, Watch};
use super::{Broker, BrokerOutbox, publish, warn_rarely};
use crate::clone::kvmsg::{HUGZ, KvMsg, STATUS, Uuid, check_key};
use crate::clone::pair::Role;
use crate::clone::properties::PropertiesBuf;
use crate::clone::sequence::Sequence;
use crate::message::Message;
use crate::time::Time;

/// Subscribers that come within this time of one another share a heartbeat, so
/// that a thousand joins do not send a million heartbeats.
const ANSWER_INTERVAL: Duration = Duration::from_millis(1);

/// And within up to this time, or a part of the heartbeat interval, when thousands come at
/// once: a heartbeat goes to all who wait for one, so that each answer to some of them
/// costs as much as one to all.
const LONGEST_ANSWER_INTERVAL: Duration = Duration::from_millis(64);
const ANSWER_INTERVALS_IN_HEARTBEAT: u32 = 8;

/// Subscriptions within an answer interval that make the next one twice as long; it
/// becomes half as long when fewer come.
const CROWD: usize = 8;

/// With more watched subtrees than this their heartbeats are spread over the interval.
/// Each costs a wake of the I/O thread for each of its subscribers; thousands in one go
/// would hold up everything else for a tenth of a second.
const SPREAD_FROM: usize = 64;

/// When heartbeats are due.
#[derive(Debug)]
pub(super) struct Rounds {
    /// The next round begins then, with the heartbeat of the whole tree.
    next_at: Time,
    /// This round began then.
    begun_at: Time,
    /// The slot that is next in this round, if subtrees have theirs spread over it.
    slot: Option<u8>,
    /// Heartbeats asked for by a subscription are due then.
    pub(super) answer_at: Time,
    answer_interval: Duration,
}

impl Rounds {
    pub(super) fn new(now: Time) -> Rounds {
        Rounds {
            next_at: now,
            begun_at: now,
            slot: None,
            answer_at: Time::ZERO,
            answer_interval: ANSWER_INTERVAL,
        }
    }

    /// When the next heartbeats are due that nobody asked for.
    pub(super) fn due_at(&self, interval: Duration) -> Time {
        match self.slot {
            Some(slot) if slot < SLOTS => {
                let left = interval / u32::from(SLOTS) * u32::from(SLOTS - slot);
                self.begun_at + (interval - left)
            }
            _ => self.next_at,
        }
    }

    fn answered(&mut self, now: Time, subscriptions: usize, heartbeat: Duration) {
        let longest = LONGEST_ANSWER_INTERVAL.min(heartbeat / ANSWER_INTERVALS_IN_HEARTBEAT);
        let interval = match subscriptions > CROWD {
            true => (self.answer_interval * 2).min(longest),
            false => self.answer_interval / 2,
        };
        self.answer_interval = interval.max(ANSWER_INTERVAL);
        self.answer_at = now + self.answer_interval;
    }

    /// All subtrees have had their heartbeats; the next round begins then.
    pub(super) fn restart(&mut self, next_at: Time) {
        (self.next_at, self.slot) = (next_at, None);
    }
}

impl Broker {
    /// Handles a message from the XPUB on P+1: a subscription (first byte 1)
    /// or its end (0), then the topic. The XPUB must pass on every
    /// subscription (`XPUB_VERBOSE`) and the last unsubscription of a topic.
    pub fn handle_subscription(&mut self, now: Time, message: Message<'_>) {
        let Some((&verb, topic)) = message.get(0).and_then(<[u8]>::split_first) else { return };
        if topic == STATUS && verb == 1 {
            // What it is, whatever its role: a heartbeat would call it active.
            self.rounds.answer_at = self.rounds.answer_at.max(now);
            self.status_asked = true;
        }
        let Some(prefix) = topic.strip_prefix(HUGZ) else { return };
        // Its heartbeat must be a message that clients can decode.
        let sound = prefix.is_empty() || check_key(prefix, &self.config.limits).is_ok();
        match verb {
            1 => {
                let first = !self.watched.any_asked();
                if !sound || !self.watched.subscribe(prefix, self.sequence, self.published) {
                    self.stats.watches_refused += 1;
                    warn_rarely(
                        self.stats.watches_refused,
                        "no heartbeat for a subtree",
                        &"it is no possible key, or the limit of watched subtrees is reached",
                    );
                } else if first {
                    self.rounds.answer_at = self.rounds.answer_at.max(now);
                }
            }
            0 => self.watched.unsubscribe(prefix),
            _ => {}
        }
    }

    /// Sends the heartbeats that are due: all at the beginning of a round, or those of
    /// some slots, and those that somebody asked for.
    pub(super) fn tend_heartbeats(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let interval = self.config.heartbeat;
        if now >= self.rounds.next_at {
            // Slots that the loop was too late for are made up for.
            let missed = self.rounds.slot;
            let spread = self.watched.len() > SPREAD_FROM;
            (self.rounds.begun_at, self.rounds.next_at) = (now, now + interval);
            self.rounds.slot = spread.then_some(1);
            // In the first round that is spread all have theirs at its beginning, too, lest
            // it be later than an interval after the one before.
            let is_due = |watch: &Watch| match missed {
                Some(next) if spread => watch.asked || watch.slot == 0 || watch.slot >= next,
                _ => true,
            };
            self.answer_subscriptions(now, is_due, out);
            self.watched.end_round();
        } else if now >= self.rounds.due_at(interval)
            && let Some(first) = self.rounds.slot
        {
            let mut end = first;
            while now >= self.rounds.due_at(interval) && end < SLOTS {
                end += 1;
                self.rounds.slot = Some(end);
            }
            self.send_heartbeats(now, |watch| (first..end).contains(&watch.slot), out);
        }
        if self.watched.any_asked() && now >= self.rounds.answer_at {
            self.answer_subscriptions(now, |watch| watch.asked, out);
        }
    }

    /// Sends heartbeats, those that somebody asked for among them.
    fn answer_subscriptions(
        &mut self,
        now: Time,
        due: impl Fn(&Watch) -> bool,
        out: &mut impl BrokerOutbox,
    ) {
        let subscriptions = self.watched.take_subscriptions();
        self.rounds.answered(now, subscriptions, self.config.heartbeat);
        self.send_heartbeats(now, due, out);
    }

    pub(super) fn send_heartbeats(
        &mut self,
        now: Time,
        due: impl Fn(&Watch) -> bool,
        out: &mut impl BrokerOutbox,
    ) {
        self.refresh_capabilities();
        self.rounds.answer_at = self.rounds.answer_at.max(now + ANSWER_INTERVAL);
        let whole = self.whole_tree();
        let watched = self.watched.due(&due);
        // The heartbeat of RFC 12 goes out whether or not somebody was seen to subscribe.
        let has_plain = watched.first().is_some_and(|(prefix, _)| prefix.is_empty());
        let plain = (!has_plain && due(&whole)).then_some((&b""[..], whole));
        for (prefix, watch) in plain.into_iter().chain(watched) {
            let watch = if prefix.is_empty() { whole } else { watch };
            let beat = Heartbeat { prefix, watch, at: whole.sequence, answer: None };
            beat.publish(&self.capabilities, &mut self.scratch, &mut self.stats, out);
        }
        self.watched.clear_asked(&due);
    }

    /// Tells the sender of a change what became of it, by a heartbeat to each
    /// watched subtree that covers the key.
    pub(super) fn answer(
        &mut self,
        change: &KvMsg<'_>,
        answer: Answer<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        // Who does not serve sends no heartbeats, not for this either.
        let Some(uuid) = change.uuid.filter(|_| self.serves()) else { return };
        self.refresh_capabilities();
        let whole = self.whole_tree();
        for (prefix, watch) in self.watched.covering(change.key) {
            let watch = if prefix.is_empty() { whole } else { watch };
            let at = whole.sequence;
            let beat = Heartbeat { prefix, watch, at, answer: Some((uuid, answer)) };
            beat.publish(&self.capabilities, &mut self.scratch, &mut self.stats, out);
        }
    }

    /// Tells those who asked what it is, be it active or passive.
    pub(super) fn publish_status(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        self.status_asked = false;
        self.rounds.answer_at = now + ANSWER_INTERVAL;
        self.refresh_capabilities();
        let peer = match (&self.pair, &self.relay) {
            (Some(pair), _) => pair.peer_state(now),
            // Without a state it has nothing to offer: another server may.
            (None, Some(_)) if !self.serves() => "live",
            _ => "none",
        };
        self.scratch.clear();
        self.scratch.copy_except(self.capabilities.as_properties(), &[]);
        self.scratch.push("peer", peer);
        let message = KvMsg {
            key: STATUS,
            sequence: self.sequence,
            uuid: None,
            properties: self.scratch.as_properties(),
            body: b"",
        };
        publish(&message, &mut self.stats, out);
    }

    fn whole_tree(&self) -> Watch {
        Watch::new(self.sequence, self.published)
    }

    pub(super) fn refresh_capabilities(&mut self) {
        let serves = self.serves();
        let (config, to) = (&self.config, &mut self.capabilities);
        to.clear();
        to.push("chp", 2);
        to.push("node", format_args!("{:016x}", config.node));
        to.push("epoch", self.sequence.epoch());
        // A broker that looks for its peer serves no more than one that follows it.
        to.push("role", if serves { self.role } else { Role::Passive });
        to.push("collector", config.collector.name());
        to.push("hb", config.heartbeat.as_millis());
        to.push("maxkey", config.limits.max_key);
        to.push("maxval", config.limits.max_value);
        match (&self.pair, &self.relay) {
            (Some(pair), _) => pair.announce(self.sequence, &self.lineage, to),
            (None, Some(relay)) => relay.announce(self.sequence, &self.lineage, to),
            (None, None) => _ = to.push("stable", self.sequence.get()),
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer<'a> {
    Applied(Sequence),
    Refused(&'a str),
}

struct Heartbeat<'a> {
    prefix: &'a [u8],
    watch: Watch,
    /// The sequence of the whole tree.
    at: Sequence,
    answer: Option<(Uuid, Answer<'a>)>,
}

impl Heartbeat<'_> {
    fn publish(
        &self,
        capabilities: &PropertiesBuf,
        scratch: &mut PropertiesBuf,
        stats: &mut BrokerStats,
        out: &mut impl BrokerOutbox,
    ) {
        scratch.clear();
        scratch.copy_except(capabilities.as_properties(), &[]);
        scratch.push("published", self.watch.published);
        if !self.prefix.is_empty() {
            scratch.push("at", self.at);
        }
        match self.answer {
            Some((_, Answer::Applied(sequence))) => scratch.push("applied", sequence.get()),
            Some((_, Answer::Refused(reason))) => scratch.push("refused", reason),
            None => scratch,
        };
        let mut key = Vec::with_capacity(HUGZ.len() + self.prefix.len());
        key.extend_from_slice(HUGZ);
        key.extend_from_slice(self.prefix);
        let message = KvMsg {
            key: &key,
            sequence: self.watch.sequence,
            uuid: self.answer.map(|(uuid, _)| uuid),
            properties: scratch.as_properties(),
            body: b"",
        };
        stats.heartbeats += 1;
        publish(&message, stats, out);
    }
}
