//! [`Tail`]: what only the loser of two actives had, on its way to the winner.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use hashbrown::HashMap;

use super::super::owned::Owned;
use super::super::recent::{KeyHash, Recent, key_hash};
use super::super::snapshots::kvsync;
use super::super::{Broker, BrokerOutbox};
use super::peer;
use crate::clone::SendFailure;
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{FRAMES, KvMsg, RESUBMIT, Uuid, check_key};
use crate::clone::pair::Role;
use crate::clone::properties::{Properties, PropertiesBuf};
use crate::clone::sequence::Sequence;
use crate::clone::store::{Cursor, Entry, Store, Walk};
use crate::message::Message;
use crate::time::Time;

/// Changes without an answer.
const WINDOW: usize = 256;

/// Replaced changes that one message names, so that it stays below 64 KiB: the last ones.
const MAX_REPLACED: usize = 4000;

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
    /// To be sent in this order, and those that were sent and not answered.
    sent: VecDeque<HandedOver>,
    /// How many of them are on their way: the first ones.
    on_the_way: usize,
    /// The winner has them, by its answer at this sequence. Until we have followed it there,
    /// they would be lost with it.
    answered: VecDeque<(Sequence, HandedOver)>,
    /// The uuids of the tail that are still to be told of, by their keys, oldest first.
    uuids: HashMap<KeyHash, Vec<(Sequence, Uuid)>>,
    resend_at: Time,
    /// The line takes no more at the moment.
    is_blocked: bool,
}

/// A change of the tail, and the uuids of those that it replaced in it. These have had
/// their effect if it has: they go with it, and count for nothing if it is not taken.
#[derive(Debug)]
pub(super) struct HandedOver {
    change: Owned,
    /// 16 bytes each.
    replaced: Vec<u8>,
}

impl Tail {
    pub(super) fn new(mut store: Store, recent: &Recent, fork: Sequence) -> Tail {
        let since = Some(fork).filter(|&fork| fork > Sequence::ZERO);
        let reaches_back = since.is_some_and(|since| since >= store.history_floor());
        if !reaches_back && store.history_floor() > Sequence::ZERO {
            log::warn!("of what only this broker had, deletions may be forgotten (history)");
        }
        let cursor = match reaches_back {
            true => store.open(b"", since),
            false => store.open_in_order(),
        };
        let mut uuids = HashMap::<_, Vec<_>>::new();
        for (key, sequence, uuid) in recent.uuids_after(fork) {
            uuids.entry(key).or_default().push((sequence, uuid));
        }
        Tail {
            store,
            cursor,
            fork,
            sent: VecDeque::new(),
            on_the_way: 0,
            answered: VecDeque::new(),
            uuids,
            resend_at: Time::ZERO,
            is_blocked: false,
        }
    }

    pub(super) fn deadline(&self) -> Time {
        match self.cursor.is_some() && self.room() > 0 && !self.is_blocked {
            true => Time::ZERO,
            false => self.resend_at,
        }
    }

    /// How many more changes may be under way.
    fn room(&self) -> usize {
        WINDOW.saturating_sub(self.sent.len() + self.answered.len())
    }

    /// The next one that the winner has, and so have we, who have followed it to `position`.
    fn pop_settled(&mut self, position: Sequence) -> Option<HandedOver> {
        match self.answered.front() {
            Some((at, _)) if *at <= position => self.answered.pop_front().map(|(_, handed)| handed),
            _ => None,
        }
    }

    /// Sends what is to be sent and not on its way, while the line takes it.
    fn send(&mut self, out: &mut impl BrokerOutbox) {
        for change in self.sent.iter().skip(self.on_the_way) {
            if send_change(change, self.fork, out).is_err() {
                self.is_blocked = true;
                return;
            }
            self.on_the_way += 1;
        }
    }

    /// The next changes of the tail, about so many.
    fn take(
        &mut self,
        most: usize,
        now: Time,
        is_known: impl Fn(Uuid) -> bool,
        scratch: &mut PropertiesBuf,
    ) -> Vec<HandedOver> {
        let mut next = Vec::new();
        let Some(cursor) = &mut self.cursor else { return next };
        let (fork, uuids) = (self.fork, &mut self.uuids);
        let walk = self.store.walk(cursor, usize::MAX, |entry| {
            if next.len() == most {
                return ControlFlow::Break(());
            }
            if entry.sequence <= fork {
                return ControlFlow::Continue(());
            }
            let replaced = replaced(uuids, &entry);
            let is_known = entry.uuid.is_some_and(&is_known) && !Fault::TakeOverTwice.is_planted();
            if !replaced.is_empty() || !is_known {
                let change = Owned::new(&kvsync(&entry, now, scratch));
                next.push(HandedOver { change, replaced });
            }
            ControlFlow::Continue(())
        });
        if walk != Walk::More
            && let Some(cursor) = self.cursor.take()
        {
            self.store.close(cursor);
            // What is left belongs to keys whose deletion is forgotten: that is not handed
            // over, and so none of these has its effect with the winner.
            self.uuids = HashMap::new();
        }
        next
    }
}

/// The uuids of the changes that this one replaced.
fn replaced(uuids: &mut HashMap<KeyHash, Vec<(Sequence, Uuid)>>, entry: &Entry<'_>) -> Vec<u8> {
    let Some(all) = uuids.remove(&key_hash(entry.key)) else { return Vec::new() };
    let count = all.partition_point(|&(sequence, _)| sequence < entry.sequence);
    let last = &all[count.saturating_sub(MAX_REPLACED)..count];
    last.iter().flat_map(|(_, uuid)| *uuid.as_bytes()).collect()
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
        self.settle_tail(now);
        let role = self.role;
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let Some(tail) = &mut pair.tail else { return };
        if role != Role::Passive || pair.peer.as_ref().is_none_or(|peer| peer.role != Role::Active)
        {
            tail.is_blocked = true;
            tail.resend_at = now + RESEND_AFTER;
            return;
        }
        tail.is_blocked = false;
        if now >= tail.resend_at {
            tail.on_the_way = 0;
            tail.resend_at = now + RESEND_AFTER;
        }
        tail.send(out);
        let room = tail.room();
        if !tail.is_blocked && room > 0 {
            let (recent, scratch) = (&self.recent, &mut self.scratch);
            let next = tail.take(room, now, |uuid| recent.get(&uuid).is_some(), scratch);
            pair.stats.resubmitted += next.len() as u64;
            tail.sent.extend(next);
            tail.send(out);
        }
        if tail.cursor.is_none() && tail.sent.is_empty() && tail.answered.is_empty() {
            pair.tail = None;
            log::info!("what only this broker had is with the active");
        }
    }

    /// Forgets what we have from the winner by now. What it replaced has had its effect.
    pub(super) fn settle_tail(&mut self, now: Time) {
        let position = self.position();
        let Some(tail) = self.pair.as_deref_mut().and_then(|pair| pair.tail.as_mut()) else {
            return;
        };
        while let Some(HandedOver { change, replaced }) = tail.pop_settled(position) {
            self.recent.adopt(now, position, key_hash(change.kvmsg().key), &replaced);
        }
    }

    /// The winner has answered.
    pub(super) fn handle_resubmitted(
        &mut self,
        now: Time,
        answer: &KvMsg<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        if let Some(next) = answer.properties.parse("next") {
            return self.refusals_taken(now, next, out);
        }
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let Some(tail) = &mut pair.tail else { return };
        let key = answer.body;
        let sent = tail.sent.iter().position(|change| {
            let change = change.change.kvmsg();
            change.uuid == answer.uuid && change.key == key
        });
        let Some(at) = sent else { return };
        let Some(handed) = tail.sent.remove(at) else { return };
        // The line has room again. An answer to what was sent before may come for what is not
        // on its way now.
        tail.on_the_way -= usize::from(at < tail.on_the_way);
        tail.resend_at = now + RESEND_AFTER;
        let change = handed.change.kvmsg();
        match answer.properties.get("refused") {
            None => tail.answered.push_back((answer.sequence, handed)),
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
        if request.len() == 3 {
            return self.handle_refusals(id, request);
        }
        let base = request.get(1).and_then(|properties| {
            let properties = Properties::check(properties, &self.config.limits).ok()?;
            properties.parse::<Sequence>("base")
        });
        let (frames, replaced) = match request.frames() {
            [_, _, change @ .., replaced] if change.len() == FRAMES => (change, *replaced),
            [_, _, change @ ..] => (change, &b""[..]),
            _ => (&[][..], &b""[..]),
        };
        let change = KvMsg::decode(Message::new(frames), &peer::limits(&self.config.limits));
        let is_whole = replaced.len().is_multiple_of(16) && replaced.len() / 16 <= MAX_REPLACED;
        let (Some(base), Ok(change), true) = (base, change, is_whole) else {
            return pair.refuse(&"an unreadable RESUBMIT");
        };
        if check_key(change.key, &self.config.limits).is_err() || pair.resubmits.len() > 2 * WINDOW
        {
            return pair
                .refuse(&"a RESUBMIT of no possible key, or more than there may be at a time");
        }
        // There is no clock in a request: the change is applied when there is.
        let change = HandedOver { change: Owned::new(&change), replaced: replaced.to_vec() };
        pair.resubmits.push_back((id.into(), base, change));
    }

    /// Applies what the loser has handed over.
    pub(super) fn take_resubmits(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let is_active = self.role == Role::Active;
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let resubmits = std::mem::take(&mut pair.resubmits);
        if !is_active {
            // It has stepped down since they came: they are sent again to who is active.
            pair.refusals_handed = None;
            return;
        }
        self.take_refusals(now, out);
        for (id, base, handed) in resubmits {
            let outcome = self.take_from_loser(now, &handed, base, out);
            let change = handed.change.kvmsg();
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
    /// in our history since `base`. What it replaced has had its effect if it has.
    fn take_from_loser(
        &mut self,
        now: Time,
        handed: &HandedOver,
        base: Sequence,
        out: &mut impl BrokerOutbox,
    ) -> Outcome {
        let change = handed.change.kvmsg();
        let outcome = self.take_change(now, handed, base, out);
        if matches!(outcome, Outcome::Applied | Outcome::Known) {
            self.recent.adopt(now, self.sequence, key_hash(change.key), &handed.replaced);
        }
        outcome
    }

    fn take_change(
        &mut self,
        now: Time,
        handed: &HandedOver,
        base: Sequence,
        out: &mut impl BrokerOutbox,
    ) -> Outcome {
        let change = &handed.change.kvmsg();
        if change.body.len() > self.config.limits.max_value {
            return Outcome::Refused("value-too-large");
        }
        if change.uuid.is_some_and(|uuid| self.recent.get(&uuid).is_some())
            && !Fault::TakeOverTwice.is_planted()
        {
            return Outcome::Known;
        }
        if let Some(reason) = change.uuid.and_then(|uuid| self.refused.get(&uuid)) {
            // Who sent it to the loser has sent it here as well, and was told.
            return Outcome::Refused(reason);
        }
        let is_newer = match self.store.changed(change.key) {
            Some(changed) => changed > base,
            // It may have been deleted since, and that forgotten.
            None => self.store.history_floor() > base.max(self.apart_since()),
        };
        let is_expiry = change.uuid.is_none() && change.properties.get("why") == Some(b"expired");
        if is_newer && is_expiry && handed.replaced.is_empty() {
            // Of what both had: it has expired here, too, or was set anew.
            return Outcome::Known;
        }
        if is_newer && !Fault::TakeOverTwice.is_planted() {
            self.count(|stats| stats.take_over_conflicts += 1);
            report("of the peer lost to a newer one of ours", change);
            return Outcome::Conflict;
        }
        let order = self.order_of(change);
        if self.is_overtaken(change, order) {
            // As above: who sent it was told.
            return Outcome::Refused("overtaken");
        }
        let ttl = self.read_ttl(change.properties);
        // What expires here is told so; what did elsewhere has replaced something and is gone.
        let properties = if is_expiry { Properties::EMPTY } else { change.properties };
        match self.apply(now, &KvMsg { properties, ..*change }, ttl, out) {
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
        let answered = tail.answered.drain(..).map(|(_, handed)| handed);
        let mut rest: Vec<HandedOver> = answered.chain(tail.sent.drain(..)).collect();
        let mut scratch = PropertiesBuf::new();
        rest.extend(tail.take(usize::MAX, now, |_| false, &mut scratch));
        for handed in rest {
            if let Outcome::Refused(reason) = self.take_from_loser(now, &handed, tail.fork, out) {
                self.count(|stats| stats.resubmit_refused += 1);
                report(&format!("could not be kept ({reason})"), &handed.change.kvmsg());
            }
        }
    }
}

fn send_change(
    handed: &HandedOver,
    fork: Sequence,
    out: &mut impl BrokerOutbox,
) -> Result<(), SendFailure> {
    let base = format!("base={fork}\n");
    handed.change.kvmsg().with_frames(|&[key, sequence, uuid, properties, body]| {
        let frames =
            [RESUBMIT, base.as_bytes(), key, sequence, uuid, properties, body, &handed.replaced];
        let count = frames.len() - usize::from(handed.replaced.is_empty());
        out.tell_peer(&frames[..count])
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
