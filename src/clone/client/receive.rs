//! What comes on the updates port: changes and heartbeats.

use super::broker_info::BrokerInfo;
use super::changes::Answer;
use super::event::{Event, ResyncReason, Why};
use super::outbox::ClientOutbox;
use super::staging::Learned;
use super::stats::ClientStats;
use super::subtree::{Baseline, SubtreeState, Verified};
use super::{Client, ttl};
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{DecodeError, FRAMES, HUGZ, KvMsg, Limits, Uuid, is_reserved};
use crate::clone::properties::Properties;
use crate::clone::sequence::Sequence;
use crate::message::Message;
use crate::time::Time;

/// Room for a message of which a frame is left out.
pub(super) type Scratch<'a> = [&'a [u8]; FRAMES];

/// What the heartbeats of a server of RFC 12 tell. By its letter they always say zero; the
/// Guide's servers send the current sequence, which is zero only after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tells {
    /// None came that says which.
    Unknown,
    /// Zero, when we had this sequence: it has begun again, or is of the other kind. That shows
    /// by the number that it gives next.
    Doubtful(Sequence),
    /// Always zero.
    Nothing,
    /// The sequence.
    Sequence,
}

impl Tells {
    /// Whether zero in a heartbeat may mean that the server has begun again since it gave this.
    fn is_doubtful(self, had: Sequence) -> bool {
        match self {
            Tells::Unknown => had > Sequence::ZERO,
            Tells::Doubtful(before) => had > before,
            Tells::Nothing | Tells::Sequence => false,
        }
    }

    /// A change has this sequence.
    fn gave(&mut self, sequence: Sequence) {
        if let Tells::Doubtful(had) = *self {
            *self = if sequence > had { Tells::Nothing } else { Tells::Unknown };
        }
    }

    /// A snapshot ends here.
    pub(super) fn ended(&mut self, end: Sequence) {
        if matches!(*self, Tells::Doubtful(had) if end < had) {
            *self = Tells::Unknown;
        }
    }
}

/// Decodes a message; what cannot be read is counted. A frame that means
/// nothing to a client (a uuid of another length, properties of other servers)
/// does not cost the change.
pub(super) fn decode<'a>(
    message: Message<'a>,
    limits: &Limits,
    stats: &mut ClientStats,
    scratch: &'a mut Scratch<'a>,
) -> Option<KvMsg<'a>> {
    let error = match KvMsg::decode(message, limits) {
        Ok(kvmsg) => return Some(kvmsg),
        Err(error) => error,
    };
    let decoded = match (error, message.frames()) {
        (
            DecodeError::UuidLength { .. }
            | DecodeError::PropertySyntax { .. }
            | DecodeError::PropertiesSize { .. },
            &[key, sequence, uuid, properties, body],
        ) => {
            let uuid = if uuid.len() == 16 { uuid } else { &[] };
            let is_legible = Properties::check(properties, limits).is_ok();
            let properties = if is_legible { properties } else { &[] };
            *scratch = [key, sequence, uuid, properties, body];
            KvMsg::decode(Message::new(scratch), limits).ok()
        }
        _ => None,
    };
    match decoded {
        Some(_) => stats.lenient += 1,
        None => stats.malformed += 1,
    }
    decoded
}

/// Why a key was deleted, by the properties of its deletion.
pub(super) fn why(kvmsg: &KvMsg<'_>) -> Why {
    match kvmsg.properties.get("why") {
        Some(b"expired") => Why::Expired,
        _ => Why::Deleted,
    }
}

impl Client {
    /// Takes a message of the SUB.
    pub fn handle_update(&mut self, now: Time, message: Message<'_>, out: &mut impl ClientOutbox) {
        self.stats.updates += 1;
        let (limits, mut scratch) = (self.decode_limits(), Scratch::default());
        match decode(message, &limits, &mut self.stats, &mut scratch) {
            Some(kvmsg) if kvmsg.key.starts_with(HUGZ) => self.heartbeat(now, &kvmsg, out),
            Some(kvmsg) if Client::is_status(&kvmsg) => self.told_status(now, &kvmsg, out),
            Some(kvmsg) if is_reserved(kvmsg.key) || kvmsg.sequence == Sequence::ZERO => {
                self.stats.malformed += 1;
            }
            Some(kvmsg) => self.published(now, &kvmsg, out),
            None => self.unreadable(now, message, out),
        }
    }

    /// A change that cannot be read is a change lost. A broker that counts
    /// shows it with its next heartbeat; else it must be taken for one at once.
    fn unreadable(&mut self, now: Time, message: Message<'_>, out: &mut impl ClientOutbox) {
        let index = message.get(0).and_then(|key| self.subtree_of(key));
        if let Some(index) = index
            && !self.is_extended()
        {
            let newest = self.subtrees[index].sequence;
            self.gap(now, index, newest, Some(1), out);
        }
    }

    fn hear(&mut self, now: Time) {
        self.heard = now;
        self.is_online = true;
    }

    fn published(&mut self, now: Time, kvmsg: &KvMsg<'_>, out: &mut impl ClientOutbox) {
        self.hear(now);
        let sequence = kvmsg.sequence;
        self.heard_of = self.heard_of.max(sequence);
        self.tells.gave(sequence);
        let last = self.last;
        match last {
            Some(last) if sequence == last && !self.is_number_given_again(kvmsg) => {
                self.stats.repeated += 1;
                return;
            }
            Some(last) if sequence <= last => {
                self.restart(now, ResyncReason::SequenceDown, out);
            }
            Some(last) if sequence.epoch() != last.epoch() && sequence != last.next() => {
                self.restart(now, ResyncReason::NewBroker, out);
            }
            // The first since the subscription: what the map has may be of a history that was
            // given up, which a number of the new one on top would hide.
            None if self.begins_an_epoch(sequence) => {
                self.restart(now, ResyncReason::NewBroker, out);
            }
            // The first since a snapshot for which there was no proof.
            None if !self.is_extended() && self.is_below_snapshot(sequence) => {
                self.restart(now, ResyncReason::SequenceDown, out);
            }
            _ => {}
        }
        self.last = Some(sequence);
        if !self.is_extended() {
            self.last_named = kvmsg.uuid.map(|uuid| (sequence, uuid));
        }
        if let Some(uuid) = kvmsg.uuid {
            self.answer(now, uuid, Answer::Applied(sequence), out);
        }
        let Some(index) = self.subtree_of(kvmsg.key) else {
            self.stats.strays += 1;
            return;
        };
        let has_all = self.broker.is_none_or(|broker| !broker.partial);
        let is_extended = self.is_extended();
        let subtree = &mut self.subtrees[index];
        // Who follows everything sees every sequence.
        let last = match last {
            // A server of RFC 12 may have been asked before the subscription was live.
            None if !is_extended && subtree.state == SubtreeState::Current => {
                Some(subtree.snapshot_end)
            }
            None if !is_extended && subtree.is_whole() => {
                let before = Sequence::from_u64(sequence.get() - 1);
                subtree.missed = subtree.missed.max(before);
                None
            }
            last => last,
        };
        let missed = match last.filter(|_| subtree.is_whole() && has_all) {
            // Between two epochs there are numbers that nobody was given.
            Some(last) if last.epoch() != sequence.epoch() => 0,
            Some(last) => (sequence.get() - 1).saturating_sub(last.get()),
            None => 0,
        };
        if let Some(baseline) = &mut subtree.watch.baseline {
            // What is missed is known by now: the next heartbeat need not tell it again.
            baseline.received += 1 + missed;
            baseline.newest = sequence;
        }
        let newest = Sequence::from_u64(sequence.get() - 1);
        if missed > 0 && newest > subtree.snapshot_end {
            self.gap(now, index, newest, Some(missed), out);
        }
        self.stage(now, index, kvmsg, out);
        if self.subtrees[index].is_current() {
            self.apply(now, index, kvmsg, out);
        }
    }

    /// Whether a change is of another epoch than the broker said it is in.
    fn begins_an_epoch(&self, sequence: Sequence) -> bool {
        self.broker.is_some_and(|broker| broker.extended && broker.epoch != sequence.epoch())
    }

    /// Whether a change has the number of the last one, and another name: the server has begun
    /// again, and come as far as before. Who knows the extensions gives no number twice.
    fn is_number_given_again(&self, kvmsg: &KvMsg<'_>) -> bool {
        let last = self.last_named.filter(|&(sequence, _)| sequence == kvmsg.sequence);
        let is_other = |(_, last)| kvmsg.uuid.is_some_and(|uuid| uuid != last);
        !self.is_extended() && last.is_some_and(is_other)
    }

    /// Whether a map that is current is of a higher sequence than this one: then either
    /// comes late, or is of a server that has begun again.
    fn is_below_snapshot(&self, sequence: Sequence) -> bool {
        let mut current = self.subtrees.iter().filter(|subtree| subtree.is_current());
        current.any(|subtree| sequence < subtree.snapshot_end)
    }

    /// Keeps a change for the snapshot that is under way.
    fn stage(&mut self, now: Time, index: usize, kvmsg: &KvMsg<'_>, out: &mut impl ClientOutbox) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.is_for(index)) else {
            return;
        };
        // A change of before that comes late: its key may be deleted by now, and
        // the delta has no reason to say so.
        if attempt.since.is_some_and(|since| kvmsg.sequence <= since)
            || Fault::ForgetWhatIsStaged.is_planted()
        {
            return;
        }
        attempt.staging.offer(&Learned {
            key: kvmsg.key,
            value: kvmsg.body,
            sequence: kvmsg.sequence,
            deadline: ttl::relative(kvmsg.properties, now),
            why: why(kvmsg),
            given: false,
        });
        self.check_staging(now, out);
    }

    fn apply(&mut self, now: Time, index: usize, kvmsg: &KvMsg<'_>, out: &mut impl ClientOutbox) {
        let subtree = &mut self.subtrees[index];
        if kvmsg.sequence <= subtree.sequence && !Fault::ApplyOlder.is_planted() {
            self.stats.repeated += 1;
            return;
        }
        let (keys, bytes) = (subtree.tree.len(), subtree.tree.bytes());
        let event = if kvmsg.body.is_empty() {
            let removed = subtree.tree.remove(kvmsg.key);
            removed.map(|(key, _)| Event::Deleted { key, why: why(kvmsg) })
        } else {
            let size = kvmsg.key.len() + kvmsg.body.len();
            if self.keys >= self.config.max_keys || self.bytes + size > self.config.max_bytes {
                let old = subtree.tree.get(kvmsg.key);
                let freed = old.map_or(0, |old| kvmsg.key.len() + old.value.len());
                if self.keys + usize::from(old.is_none()) > self.config.max_keys
                    || self.bytes + size - freed > self.config.max_bytes
                {
                    self.limit_reached(now, index, kvmsg.sequence, out);
                    return;
                }
            }
            let deadline = ttl::relative(kvmsg.properties, now);
            let put = subtree.tree.put(kvmsg.key, kvmsg.body, kvmsg.sequence, deadline);
            put.ok().map(|(key, value)| Event::Updated { key, value, sequence: kvmsg.sequence })
        };
        subtree.sequence = kvmsg.sequence;
        self.keys = self.keys - keys + subtree.tree.len();
        self.bytes = self.bytes - bytes + subtree.tree.bytes();
        self.stats.applied += 1;
        if let Some(event) = event {
            self.push_key_event(index, event);
        }
    }

    fn push_key_event(&mut self, subtree: usize, event: Event) {
        if !self.events.push_key(subtree, event) {
            self.stats.overrun += 1;
        }
    }

    fn heartbeat(&mut self, now: Time, kvmsg: &KvMsg<'_>, out: &mut impl ClientOutbox) {
        // A standby serves nobody: it is no sign of life.
        let Some(info) = BrokerInfo::read(kvmsg, &self.config) else {
            return self.turn_away(now, out);
        };
        if !self.may_follow(now, &info) {
            return self.turn_away(now, out);
        }
        self.hear(now);
        self.stats.heartbeats += 1;
        if !info.extended && kvmsg.key != HUGZ {
            self.stats.malformed += 1;
            return;
        }
        let is_first = !std::mem::replace(&mut self.has_heartbeats, true);
        let told = kvmsg.sequence.max(info.stable);
        self.heard_of = match info.extended && info.epoch < self.heard_of.epoch() {
            // Numbers of a history that was given up say nothing of what is sent from now on.
            true => told,
            false => self.heard_of.max(told),
        };
        self.learn(now, info, out);
        if info.extended {
            let subtree = self.subtree_with_topic(kvmsg.key);
            if let Some(index) = subtree {
                self.count(now, index, kvmsg, &info, out);
            }
            let (echo, pending) = (&mut self.echo, &mut self.pending);
            echo.heartbeat(kvmsg.key, &mut self.topics, out, |held| pending.make_ready(held));
        } else {
            self.rfc12_heartbeat(now, kvmsg.sequence, is_first, out);
        }
        if let Some(uuid) = kvmsg.uuid {
            self.confirm(now, uuid, kvmsg, out);
        }
        self.check_safe(now, out);
        self.flush(now, out);
    }

    fn subtree_with_topic(&self, topic: &[u8]) -> Option<usize> {
        let prefix = topic.strip_prefix(HUGZ)?;
        self.subtrees.binary_search_by(|subtree| (*subtree.prefix).cmp(prefix)).ok()
    }

    /// The answer to a change of ours that the broker had already, or refused.
    fn confirm(&mut self, now: Time, uuid: Uuid, kvmsg: &KvMsg<'_>, out: &mut impl ClientOutbox) {
        if let Some(sequence) = kvmsg.properties.parse("applied") {
            self.answer(now, uuid, Answer::Applied(sequence), out);
        } else if let Some(reason) = kvmsg.properties.get("refused") {
            let answer = match reason {
                b"forgotten" => Answer::Forgotten,
                _ => Answer::Refused(reason),
            };
            self.answer(now, uuid, answer, out);
        }
    }

    /// A subtree's heartbeat: as many changes must have come since the one
    /// before as the broker says it published, and none above what it says.
    fn count(
        &mut self,
        now: Time,
        index: usize,
        kvmsg: &KvMsg<'_>,
        info: &BrokerInfo,
        out: &mut impl ClientOutbox,
    ) {
        let subtree = &mut self.subtrees[index];
        let published = kvmsg.properties.parse::<u64>("published");
        if published.is_none() && !subtree.is_whole() {
            return;
        }
        let sequence = kvmsg.sequence;
        subtree.watch.heard = now;
        subtree.watch.ask_at = Time::NEVER;
        let is_absent = std::mem::take(&mut subtree.watch.is_absent);
        let next = Baseline { published, sequence, newest: sequence, received: 0 };
        let Some(before) = subtree.watch.baseline.replace(next) else {
            if subtree.is_whole() {
                self.last = self.last.max(Some(sequence));
            }
            if is_absent && subtree.is_current() {
                self.poll(now, index, out);
            }
            self.leave_plain_if_idle(out);
            self.proven(now, index, out);
            return;
        };
        let counted = match (before.published, published) {
            (Some(before), Some(after)) => after.checked_sub(before),
            _ => Some(before.received),
        };
        let newest = before.newest.max(sequence);
        let goes_on = sequence >= before.sequence && counted.is_some();
        let is_whole = goes_on && sequence <= before.newest && counted == Some(before.received);
        if is_whole || Fault::SkipGapCheck.is_planted() {
            self.stats.verified += 1;
            if subtree.state == SubtreeState::Current {
                let told = sequence.max(info.stable).min(info.proven);
                let before = subtree.verified.filter(|before| before.node == info.node);
                let sequence = before.map_or(told, |before| before.sequence.max(told));
                subtree.verified = Some(Verified { node: info.node, sequence });
                subtree.fruitless = 0;
            }
        } else {
            let missed = counted.and_then(|counted| counted.checked_sub(before.received));
            // Only who follows everything can tell how far the loss may reach:
            // of a subtree watched anew the broker need not know its last change.
            let is_bounded = subtree.is_whole() && goes_on;
            let newest = if is_bounded { newest } else { Sequence::MAX };
            if newest > subtree.snapshot_end {
                self.gap(now, index, newest, missed.filter(|&missed| missed > 0), out);
            }
        }
    }

    /// An RFC 12 server's heartbeat: its current sequence, nothing more.
    fn rfc12_heartbeat(
        &mut self,
        now: Time,
        sequence: Sequence,
        is_first: bool,
        out: &mut impl ClientOutbox,
    ) {
        if is_first {
            self.doubt_unproven(now, sequence, out);
        }
        let is_told = sequence != Sequence::ZERO || self.tells == Tells::Sequence;
        if is_told && self.last.is_some_and(|last| sequence < last) {
            self.restart(now, ResyncReason::SequenceDown, out);
        }
        if is_told {
            self.tells = Tells::Sequence;
            self.last = Some(sequence);
        } else if let Some(had) = self.newest_had().filter(|&had| self.tells.is_doubtful(had)) {
            self.restart(now, ResyncReason::SequenceDown, out);
            self.tells = Tells::Doubtful(had);
        } else if is_first {
            // What was heard before may be of a run that is over, whose numbers are given anew.
            self.last = None;
        }
        self.prove_all(now, out);
        let whole = self.subtrees.first().filter(|subtree| subtree.is_whole());
        if let Some(whole) = whole
            && whole.is_current()
            && sequence > whole.sequence
        {
            let missed = sequence.get() - whole.sequence.get();
            self.gap(now, 0, sequence, Some(missed), out);
        }
    }

    /// The highest sequence that the server gave, as far as a map that is current tells.
    fn newest_had(&self) -> Option<Sequence> {
        let current = self.subtrees.iter().filter(|subtree| subtree.is_current());
        let newest = current.map(|subtree| subtree.sequence).max()?;
        Some(self.last.map_or(newest, |last| last.max(newest)))
    }

    /// The first heartbeat of a server that was asked without one, since it seemed to send
    /// none. Between the snapshot and the first that came by the subscription changes may
    /// have gone by, or the server have begun again with nothing: unless the heartbeat says
    /// that it is where the snapshot ended, asks anew.
    fn doubt_unproven(&mut self, now: Time, sequence: Sequence, out: &mut impl ClientOutbox) {
        for index in 0..self.subtrees.len() {
            let subtree = &self.subtrees[index];
            let is_doubtful = match subtree.state {
                SubtreeState::Waiting | SubtreeState::Queued => false,
                SubtreeState::Syncing => true,
                // By the letter of RFC 12 it says nothing.
                SubtreeState::Current if sequence == Sequence::ZERO => true,
                // Who follows everything counts on from there.
                SubtreeState::Current if subtree.is_whole() => sequence < subtree.snapshot_end,
                SubtreeState::Current => sequence != subtree.snapshot_end,
            };
            if is_doubtful {
                self.leave_current(index, ResyncReason::Reconnected);
                self.await_proof(now, index, out);
            }
        }
    }
}
