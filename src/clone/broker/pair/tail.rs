//! [`Tail`]: what only the loser of two actives had, on its way to the winner.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use super::super::changes::with_ttl;
use super::super::recent::Recent;
use super::super::{Broker, BrokerOutbox};
use super::follow::Owned;
use super::peer;
use crate::clone::SendFailure;
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{KvMsg, RESUBMIT, UUIDS, Uuid, check_key};
use crate::clone::pair::Role;
use crate::clone::properties::{Properties, PropertiesBuf};
use crate::clone::sequence::Sequence;
use crate::clone::store::{Cursor, Entry, Store, Walk};
use crate::message::Message;
use crate::time::Time;

/// Changes without an answer.
const WINDOW: usize = 256;

/// Uuids in one message.
const UUIDS_AT_ONCE: usize = 1024;

/// What has no answer after this long is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(1);

/// The state that a broker had before it took over another's.
#[derive(Debug)]
pub(super) struct Tail {
    store: Store,
    /// `None`: all is sent.
    cursor: Option<Cursor>,
    /// What both histories have up to here; the rest is the tail.
    fork: Sequence,
    /// Sent, in this order, and not answered.
    sent: VecDeque<Owned>,
    /// The uuids of the tail that are still to be told of: of changes that were
    /// replaced in it. They have had their effect.
    uuids: VecDeque<(Sequence, Uuid)>,
    resend_at: Time,
    /// The line takes no more at the moment.
    is_blocked: bool,
}

impl Tail {
    pub(super) fn new(mut store: Store, recent: &Recent, fork: Sequence) -> Tail {
        let since = Some(fork).filter(|&fork| fork > Sequence::ZERO);
        let cursor = match since.is_some_and(|since| since >= store.history_floor()) {
            true => store.open(b"", since),
            false => store.open_in_order(),
        };
        Tail {
            store,
            cursor,
            fork,
            sent: VecDeque::new(),
            uuids: recent.uuids_after(fork).collect(),
            resend_at: Time::ZERO,
            is_blocked: false,
        }
    }

    pub(super) fn deadline(&self) -> Time {
        match self.cursor.is_some() && self.sent.len() < WINDOW && !self.is_blocked {
            true => Time::ZERO,
            false => self.resend_at,
        }
    }

    /// The next messages of the tail, about so many: changes, and before each the
    /// uuids of those that were replaced until then.
    fn take(
        &mut self,
        most: usize,
        now: Time,
        is_known: impl Fn(Uuid) -> bool,
        scratch: &mut PropertiesBuf,
    ) -> Vec<Owned> {
        let mut next = Vec::new();
        let Some(cursor) = &mut self.cursor else { return next };
        let (fork, uuids, mut taken) = (self.fork, &mut self.uuids, 0);
        let walk = self.store.walk(cursor, usize::MAX, |entry| {
            if taken == most {
                return ControlFlow::Break(());
            }
            // Expiry is the business of whoever is active.
            let is_expiry = entry.properties.get("why") == Some(b"expired");
            if entry.sequence > fork {
                replaced(uuids, entry.sequence, &mut next);
            }
            let is_known = entry.uuid.is_some_and(&is_known);
            if entry.sequence > fork && !is_expiry && !is_known {
                taken += 1;
                next.push(Owned::new(&message(&entry, now, scratch)));
            }
            ControlFlow::Continue(())
        });
        if walk != Walk::More
            && let Some(cursor) = self.cursor.take()
        {
            self.store.close(cursor);
            replaced(&mut self.uuids, Sequence::MAX, &mut next);
        }
        next
    }
}

/// Takes the uuids before `sequence` out, into messages; that of the change with
/// this sequence goes with the change.
fn replaced(uuids: &mut VecDeque<(Sequence, Uuid)>, sequence: Sequence, next: &mut Vec<Owned>) {
    let count = uuids.partition_point(|&(before, _)| before < sequence);
    let all: Vec<[u8; 16]> = uuids.drain(..count).map(|(_, uuid)| *uuid.as_bytes()).collect();
    for some in all.chunks(UUIDS_AT_ONCE) {
        let properties = Properties::EMPTY;
        let body = some.as_flattened();
        next.push(Owned::new(&KvMsg { key: UUIDS, sequence, uuid: None, properties, body }));
    }
    if uuids.front().is_some_and(|&(at, _)| at == sequence) {
        uuids.pop_front();
    }
}

/// A change of the tail as a message, with what remains of its time to live.
fn message<'a>(entry: &Entry<'a>, now: Time, scratch: &'a mut PropertiesBuf) -> KvMsg<'a> {
    let properties = match entry.deadline {
        None => entry.properties,
        Some(deadline) => with_ttl(entry.properties, deadline.since(now), scratch),
    };
    KvMsg {
        key: entry.key,
        sequence: entry.sequence,
        uuid: entry.uuid,
        properties,
        body: entry.value,
    }
}

/// Why a change of the loser is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Applied,
    Known,
    Conflict,
    Refused(&'static str),
}

impl Broker {
    /// Sends what only we had to the winner.
    pub(super) fn tend_tail(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let role = self.role;
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let Some(tail) = &mut pair.tail else { return };
        if role != Role::Passive || pair.peer.as_ref().is_none_or(|peer| peer.role != Role::Active)
        {
            tail.is_blocked = true;
            tail.resend_at = now + RESEND_AFTER;
            return;
        }
        let mut failed = false;
        let send = |change: &Owned, out: &mut _| send_change(change, tail.fork, out);
        if now >= tail.resend_at {
            tail.is_blocked = false;
            tail.resend_at = now + RESEND_AFTER;
            failed = tail.sent.iter().any(|change| send(change, out).is_err());
        }
        let room = WINDOW.saturating_sub(tail.sent.len());
        if !failed && room > 0 {
            let (recent, scratch) = (&self.recent, &mut self.scratch);
            for change in tail.take(room, now, |uuid| recent.get(&uuid).is_some(), scratch) {
                failed |= send_change(&change, tail.fork, out).is_err();
                pair.stats.resubmitted += u64::from(change.kvmsg().key != UUIDS);
                tail.sent.push_back(change);
            }
        }
        tail.is_blocked = failed;
        if tail.cursor.is_none() && tail.sent.is_empty() {
            pair.tail = None;
            log::info!("what only this broker had is with the active");
        }
    }

    /// The winner has answered.
    pub(super) fn handle_resubmitted(
        &mut self,
        now: Time,
        answer: &KvMsg<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let Some(tail) = &mut pair.tail else { return };
        let key = answer.body;
        let sent = tail.sent.iter().position(|change| {
            let change = change.kvmsg();
            change.uuid == answer.uuid && change.key == key
        });
        let Some(change) = sent.and_then(|at| tail.sent.remove(at)) else { return };
        tail.resend_at = now + RESEND_AFTER;
        let change = change.kvmsg();
        match answer.properties.get("refused") {
            None if change.key == UUIDS => self.recent.adopt(now, self.sequence, change.body),
            None => {}
            Some(b"conflict") => {
                pair.stats.resubmit_conflicts += 1;
                report("lost to a newer change of the active", &change);
            }
            Some(reason) => {
                pair.stats.resubmit_refused += 1;
                let reason = String::from_utf8_lossy(reason).into_owned();
                report(&format!("refused by the active ({reason})"), &change);
            }
        }
        self.tend_tail(now, out);
    }

    /// The loser hands over what only it had.
    pub(super) fn handle_resubmit(&mut self, id: &[u8], request: Message<'_>) {
        let role = self.role;
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let is_peer = pair
            .peer
            .as_ref()
            .is_some_and(|peer| peer.role == Role::Passive && pair.listeners.is(id, peer.node));
        if role != Role::Active || !is_peer {
            return pair
                .refuse(&"RESUBMIT from who is not the passive peer, or to who is not active");
        }
        let base = request.get(1).and_then(|properties| {
            Properties::check(properties, &self.config.limits).ok()?.parse::<Sequence>("base")
        });
        let change = KvMsg::decode(request.skip(2), &peer::limits(&self.config.limits));
        let (Some(base), Ok(change)) = (base, change) else {
            return pair.refuse(&"an unreadable RESUBMIT");
        };
        let is_one = change.key == UUIDS || check_key(change.key, &self.config.limits).is_ok();
        if !is_one || pair.resubmits.len() > 2 * WINDOW {
            return pair
                .refuse(&"a RESUBMIT of no possible key, or more than there may be at a time");
        }
        // There is no clock in a request: the change is applied when there is.
        pair.resubmits.push_back((id.into(), base, Owned::new(&change)));
    }

    /// Applies what the loser has handed over.
    pub(super) fn take_resubmits(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let is_active = self.role == Role::Active;
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let resubmits = std::mem::take(&mut pair.resubmits);
        if !is_active {
            // It has stepped down since they came: they are sent again to who is active.
            return;
        }
        for (id, base, change) in resubmits {
            let change = change.kvmsg();
            let outcome = self.take_from_loser(now, &change, base, out);
            let to = self.scratch.clear();
            match outcome {
                Outcome::Applied => to.push("applied", self.sequence),
                Outcome::Known => to.push("known", 1),
                Outcome::Conflict => to.push("refused", "conflict"),
                Outcome::Refused(reason) => to.push("refused", reason),
            };
            let answer = KvMsg {
                key: RESUBMIT,
                sequence: self.sequence,
                uuid: change.uuid,
                properties: to.as_properties(),
                body: change.key,
            };
            // Lost answers are asked for again.
            let _ = answer.with_frames(|frames| out.reply(&id, frames));
        }
    }

    /// Applies a change that only the loser had, unless its key has been changed
    /// in our history since `base`.
    fn take_from_loser(
        &mut self,
        now: Time,
        change: &KvMsg<'_>,
        base: Sequence,
        out: &mut impl BrokerOutbox,
    ) -> Outcome {
        if change.key == UUIDS {
            self.recent.adopt(now, self.sequence, change.body);
            return Outcome::Known;
        }
        if change.body.len() > self.config.limits.max_value {
            return Outcome::Refused("value-too-large");
        }
        if change.uuid.is_some_and(|uuid: Uuid| self.recent.get(&uuid).is_some())
            && !Fault::TakeOverTwice.is_planted()
        {
            return Outcome::Known;
        }
        let is_newer = match self.store.changed(change.key) {
            Some(changed) => changed > base,
            // It may have been deleted since, and that forgotten.
            None => base > Sequence::ZERO && self.store.history_floor() > base,
        };
        if is_newer {
            self.count(|stats| stats.take_over_conflicts += 1);
            report("of the peer lost to a newer one of ours", change);
            return Outcome::Conflict;
        }
        let ttl = self.read_ttl(change.properties);
        match self.apply(now, change, ttl, out) {
            Ok(()) => {
                self.count(|stats| stats.taken_over += 1);
                Outcome::Applied
            }
            Err(reason) => Outcome::Refused(reason),
        }
    }

    /// At a promotion: what the winner did not get any more is applied here, by
    /// the rule it would have kept.
    pub(super) fn apply_tail(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(mut tail) = self.pair.as_deref_mut().and_then(|pair| pair.tail.take()) else {
            return;
        };
        let mut rest: Vec<Owned> = tail.sent.drain(..).collect();
        let mut scratch = PropertiesBuf::new();
        rest.extend(tail.take(usize::MAX, now, |_| false, &mut scratch));
        for change in rest {
            if let Outcome::Refused(reason) =
                self.take_from_loser(now, &change.kvmsg(), tail.fork, out)
            {
                self.count(|stats| stats.resubmit_refused += 1);
                report(&format!("could not be kept ({reason})"), &change.kvmsg());
            }
        }
    }
}

fn send_change(
    change: &Owned,
    fork: Sequence,
    out: &mut impl BrokerOutbox,
) -> Result<(), SendFailure> {
    let base = format!("base={fork}\n");
    change.kvmsg().with_frames(|&[key, sequence, uuid, properties, body]| {
        out.tell_peer(&[RESUBMIT, base.as_bytes(), key, sequence, uuid, properties, body])
    })
}

/// A change that is lost is named, so that somebody can look after it.
fn report(what: &str, change: &KvMsg<'_>) {
    let uuid = change.uuid.map_or_else(|| "none".to_owned(), |uuid| uuid.to_string());
    log::warn!(
        "change {what}: key \"{}\", {} bytes, uuid {uuid}, sequence {:?}",
        change.key.escape_ascii(),
        change.body.len(),
        change.sequence
    );
}
