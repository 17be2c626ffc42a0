//! Changes of a relay's clients: sent upstream under their uuids, kept until they are safe
//! there, and their answers passed on.

use std::time::Duration;

use super::super::heartbeats::Answer;
use super::super::owned::Owned;
use super::super::{Broker, BrokerOutbox, warn_rarely};
use super::Relay;
use super::forwards::Forward;
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{KvMsg, Uuid, is_reserved};
use crate::clone::properties::{Properties, PropertiesBuf};
use crate::clone::sequence::Sequence;
use crate::message::Message;
use crate::time::Time;

/// A change that was sent and has no answer after this long is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(2);

/// When the socket for changes takes nothing, and does not say when it will.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Changes sent in one call, between which everything else is served.
const AT_ONCE: usize = 1000;

impl Broker {
    /// Takes a change of a client: sends it on, or keeps it until it can be sent.
    pub(in super::super) fn forward_change(
        &mut self,
        now: Time,
        message: Message<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        let change = match KvMsg::decode(message, &self.config.limits) {
            Ok(change) => change,
            Err(error) => {
                self.stats.changes_malformed += 1;
                warn_rarely(self.stats.changes_malformed, "change dropped", &error);
                return self.refuse_malformed(message, out);
            }
        };
        let Some(relay) = self.relay.as_deref_mut() else { return };
        let broken = if is_reserved(change.key) {
            Some((&mut self.stats.changes_reserved, "reserved-key"))
        } else if !change.key.starts_with(&relay.config.subtree) {
            Some((&mut relay.stats.changes_outside, "outside-subtree"))
        } else {
            None
        };
        if let Some((count, reason)) = broken {
            *count += 1;
            warn_rarely(*count, "change refused", &reason);
            return self.answer(&change, Answer::Refused(reason_for(&change, reason)), out);
        }
        if let Some(uuid) = change.uuid {
            if let Some(sequence) = self.recent.get(&uuid) {
                self.stats.changes_repeated += 1;
                return self.answer(&change, Answer::Applied(sequence), out);
            }
            if relay.forwards.contains(&uuid) {
                // Its answer is still to come.
                relay.stats.forwards_known += 1;
                return;
            }
            if let Some(reason) = self.refused.get(&uuid) {
                self.stats.changes_repeated += 1;
                return self.answer(&change, Answer::Refused(reason), out);
            }
        }
        self.forward(now, &change, out);
    }

    fn forward(&mut self, now: Time, change: &KvMsg<'_>, out: &mut impl BrokerOutbox) {
        let Some(relay) = self.relay.as_deref_mut() else { return };
        let known = self.sequence;
        let mut can_go = relay.can_send(now) && !relay.forwards.are_waiting();
        if can_go && change.uuid.is_none() {
            // Its sender waits for no answer, so it is kept only if it cannot go.
            can_go = relay.send_now(now, change, out);
            if can_go {
                return;
            }
        }
        let kept = Owned::new(change);
        let most = (relay.config.forward_count, relay.config.forward_bytes);
        // Before it is sent: of one that is not kept a copy could not be told from a new one.
        let Some(gone) = relay.forwards.make_room(kept.size(), most) else {
            relay.stats.forwards_refused += 1;
            let count = relay.stats.forwards_refused;
            warn_rarely(count, "change refused", &"too many wait for the upstream");
            return self.refuse_forward(now, change, "relay-full", out);
        };
        relay.stats.forwards_forgotten += gone;
        let sent = can_go && relay.send_now(now, change, out);
        relay.forwards.push(kept, now, sent.then_some(now), known);
        if sent && Fault::ConfirmWhatIsSent.is_planted() {
            self.answer(change, Answer::Applied(known.next()), out);
        }
    }

    /// Refuses a change that was not sent here, and any copy of it that comes later.
    fn refuse_forward(
        &mut self,
        now: Time,
        change: &KvMsg<'_>,
        reason: &'static str,
        out: &mut impl BrokerOutbox,
    ) {
        let reason = reason_for(change, reason);
        if let Some(uuid) = change.uuid {
            self.refused.insert(uuid, reason, self.sequence, now);
        }
        self.answer(change, Answer::Refused(reason), out);
    }

    /// The upstream has answered a change in another way than by publishing it.
    pub(super) fn hear_answer(
        &mut self,
        uuid: Uuid,
        answer: &KvMsg<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        let Some(relay) = self.relay.as_deref_mut() else { return };
        if !relay.forwards.contains(&uuid) {
            return;
        }
        if let Some(sequence) = answer.properties.parse::<Sequence>("applied") {
            let key = relay.forwards.key_of(&uuid);
            relay.stats.forwards_forgotten += relay.forwards.apply(uuid, sequence);
            if let Some(key) = key {
                // Who sent it asked once more, since it had missed the first answer.
                let change = named(&key, uuid);
                self.answer(&change, Answer::Applied(sequence), out);
            }
        } else if let Some(reason) = answer.properties.get("refused")
            && let Some((forward, gone)) = relay.forwards.end(&uuid, reason != b"forgotten")
        {
            relay.stats.forwards_forgotten += gone;
            let reason = match forward.is_elsewhere {
                // The one before may have applied it.
                true => "forgotten".into(),
                false => String::from_utf8_lossy(reason),
            };
            self.answer(&forward.change.kvmsg(), Answer::Refused(&reason), out);
        }
    }

    /// The socket for changes takes more.
    pub fn handle_forward_room(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if let Some(relay) = self.relay.as_deref_mut() {
            relay.blocked_until = Time::ZERO;
            self.tend_forwards(now, out);
        }
    }

    /// Sends what waits, sends again what has no answer, and gives up what is too old.
    pub(super) fn tend_forwards(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        self.forget_old_forwards(now, out);
        let known = self.sequence;
        let Some(relay) = self.relay.as_deref_mut() else { return };
        let first_sent = relay.forwards.first().and_then(|(_, sent)| sent);
        // Whether its key was changed since is known only where the upstream is.
        let is_current = relay.upstream.is_at(known);
        let is_due = first_sent.is_some_and(|at| now >= at + RESEND_AFTER);
        if is_due && is_current && relay.can_send(now) {
            let store = &self.store;
            // A number above all that is here is of a history that was given up, and says nothing.
            let is_changed = |key: &[u8], sent: Sequence| {
                store.changed(key).is_some_and(|changed| changed > sent || sent > known)
            };
            relay.send_again(now, known, is_changed, out);
        }
        for _ in 0..AT_ONCE {
            if !relay.can_send(now) || !relay.send_next(now, known, out) {
                return;
            }
        }
    }

    fn forget_old_forwards(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(relay) = self.relay.as_deref_mut() else { return };
        let age = relay.config.forward_age;
        let mut old = Vec::new();
        while relay.forwards.first().is_some_and(|(since, _)| now >= since + age) {
            if let Some((forward, gone)) = relay.forwards.give_up_first() {
                relay.stats.forwards_forgotten += gone;
                old.push(forward);
            }
        }
        for forward in old {
            let Some(relay) = self.relay.as_deref_mut() else { return };
            let change = forward.change.kvmsg();
            if forward.sent.is_some() {
                // It may have been applied: to call it refused could be untrue.
                relay.stats.forwards_forgotten += 1;
                warn_rarely(relay.stats.forwards_forgotten, "change given up", &"it has no answer");
                continue;
            }
            relay.stats.forwards_refused += 1;
            let count = relay.stats.forwards_refused;
            warn_rarely(count, "change refused", &"the upstream is lost for too long");
            self.refuse_forward(now, &change, "upstream-lost", out);
        }
    }

    pub(super) fn forwards_deadline(&self, relay: &Relay) -> Time {
        let Some((since, sent)) = relay.forwards.first() else { return Time::NEVER };
        let mut next = since + relay.config.forward_age;
        if !relay.upstream.is_live() {
            return next;
        }
        if let Some(sent) = sent.filter(|_| relay.upstream.is_at(self.sequence)) {
            next = next.min((sent + RESEND_AFTER).max(relay.blocked_until));
        }
        if relay.forwards.are_waiting() && relay.forward.is_some() {
            next = next.min(relay.blocked_until);
        }
        next
    }
}

impl Relay {
    /// Sends a change upstream, or does not try again for a while.
    fn send_now(&mut self, now: Time, change: &KvMsg<'_>, out: &mut impl BrokerOutbox) -> bool {
        if !send(change, out) {
            self.blocked_until = now + TRY_AGAIN;
            return false;
        }
        self.stats.forwarded += 1;
        if Fault::ForwardTwice.is_planted() {
            let other = change.uuid.map(|uuid| Uuid::from_bytes(uuid.as_bytes().map(|b| !b)));
            send(&KvMsg { uuid: other, ..*change }, out);
        }
        true
    }

    fn can_send(&self, now: Time) -> bool {
        self.upstream.is_live() && self.forward.is_some() && now >= self.blocked_until
    }

    /// Sends the first that waits. False: none does, or it goes on waiting.
    fn send_next(&mut self, now: Time, known: Sequence, out: &mut impl BrokerOutbox) -> bool {
        match self.forwards.next_unsent() {
            Some(number) => self.send_kept(number, now, known, out),
            None => false,
        }
    }

    fn send_kept(
        &mut self,
        number: u64,
        now: Time,
        known: Sequence,
        out: &mut impl BrokerOutbox,
    ) -> bool {
        let Some(forward) = self.forwards.get(number) else { return false };
        let is_repeated = forward.sent.is_some();
        let mut scratch = PropertiesBuf::new();
        if !send(&repetition(forward, &mut scratch), out) {
            self.blocked_until = now + TRY_AGAIN;
            return false;
        }
        self.stats.forwarded += u64::from(!is_repeated);
        self.stats.forwards_repeated += u64::from(is_repeated);
        self.forwards.set_sent(number, now, known);
        true
    }

    /// Sends again, in their order, those that had no answer for so long.
    fn send_again(
        &mut self,
        now: Time,
        known: Sequence,
        is_changed: impl Fn(&[u8], Sequence) -> bool,
        out: &mut impl BrokerOutbox,
    ) {
        let (due, replaced) = self.forwards.repeat(now - RESEND_AFTER, is_changed);
        self.stats.forwards_forgotten += replaced;
        for number in due {
            if !self.can_send(now) || !self.send_kept(number, now, known, out) {
                return;
            }
        }
    }
}

/// Hands a change to the socket. False: it has to wait, since there is no room, or no socket.
fn send(change: &KvMsg<'_>, out: &mut impl BrokerOutbox) -> bool {
    change.with_frames(|frames| out.forward(frames)).is_ok()
}

/// A change as it goes out: one that is sent again says up to where it is known not to
/// have been applied, unless its sender has said so.
fn repetition<'a>(forward: &'a Forward, scratch: &'a mut PropertiesBuf) -> KvMsg<'a> {
    let change = forward.change.kvmsg();
    if forward.sent.is_none() || change.properties.get("retry").is_some() {
        return change;
    }
    scratch.clear();
    scratch.copy_except(change.properties, &[]);
    scratch.push("retry", forward.known);
    KvMsg { properties: scratch.as_properties(), ..change }
}

/// What its sender has sent before, here or elsewhere, may have been applied: to call it
/// refused could be untrue.
fn reason_for(change: &KvMsg<'_>, reason: &'static str) -> &'static str {
    if change.properties.get("retry").is_some() { "forgotten" } else { reason }
}

fn named(key: &[u8], uuid: Uuid) -> KvMsg<'_> {
    let properties = Properties::EMPTY;
    KvMsg { key, sequence: Sequence::ZERO, uuid: Some(uuid), properties, body: b"" }
}
