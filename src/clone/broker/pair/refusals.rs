//! What the loser of two actives has refused for good, on its way to the winner: a copy of such
//! a change that comes there must have no effect either.

use std::time::Duration;

use smallvec::SmallVec;

use super::super::{Broker, BrokerOutbox};
use super::follow::Follow;
use crate::clone::kvmsg::{KvMsg, RESUBMIT};
use crate::clone::pair::Role;
use crate::clone::properties::Properties;
use crate::message::Message;
use crate::time::Time;

/// Refusals in one message.
const AT_ONCE: usize = 2000;

/// Bytes of them, at most.
const MAX_BYTES: usize = 64 << 10;

/// What has no answer after this long is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(1);

/// How far it has come: one message at a time.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The running number of the first one that the winner does not have.
    number: u64,
    resend_at: Time,
}

/// A message of them, until there is time for it.
#[derive(Debug)]
pub(super) struct Handed {
    id: SmallVec<[u8; 16]>,
    reason: Box<[u8]>,
    /// Where the loser goes on when it has the answer.
    next: u64,
    records: Box<[u8]>,
}

impl Broker {
    /// When they are to be sent. Not before the winner's state is followed: until then it need
    /// not know yet that we have stepped down.
    pub(super) fn refusals_deadline(&self) -> Option<Time> {
        self.follow.as_ref().and_then(Follow::followed)?;
        self.pair.as_ref()?.refusals.as_ref().map(|told| told.resend_at)
    }

    /// Sends the winner what it does not have.
    pub(super) fn tend_refusals(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if self.refusals_deadline().is_none_or(|at| at > now) {
            return;
        }
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let Some(told) = &mut pair.refusals else { return };
        told.resend_at = now + RESEND_AFTER;
        if pair.peer.as_ref().is_none_or(|peer| peer.role != Role::Active) {
            return;
        }
        let mut records = Vec::new();
        let written = self.refused.write_records(told.number, AT_ONCE, now, &mut records);
        let Some((reason, next)) = written else {
            pair.refusals = None;
            return;
        };
        let properties = self.scratch.clear().push("refused", reason).push("next", next);
        let properties = properties.as_properties().as_bytes();
        // No room, or nobody there: tried again.
        let _ = out.tell_peer(&[RESUBMIT, properties, &records]);
    }

    /// The winner has them up to this number.
    pub(super) fn refusals_taken(&mut self, now: Time, next: u64, out: &mut impl BrokerOutbox) {
        let last = self.refused.count();
        let Some(told) = self.pair.as_deref_mut().and_then(|pair| pair.refusals.as_mut()) else {
            return;
        };
        if next > told.number && next <= last {
            *told = Refusals { number: next, resend_at: now };
            self.tend_refusals(now, out);
        }
    }

    /// Takes them from the loser, which was seen to be that.
    pub(super) fn handle_refusals(&mut self, id: &[u8], request: Message<'_>) {
        let limits = &self.config.limits;
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let handed = match *request.frames() {
            [_, properties, records] if records.len() <= MAX_BYTES => {
                Properties::check(properties, limits).ok().and_then(|properties| {
                    let reason = properties.get("refused")?.into();
                    let next = properties.parse("next")?;
                    Some(Handed { id: id.into(), reason, next, records: records.into() })
                })
            }
            _ => None,
        };
        match handed {
            // It sends one at a time: this is that one again.
            Some(handed) => pair.refusals_handed = Some(handed),
            None => pair.refuse(&"unreadable refusals in a RESUBMIT"),
        }
    }

    /// Remembers what the loser has refused.
    pub(super) fn take_refusals(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let Some(handed) = pair.refusals_handed.take() else { return };
        let Handed { id, reason, next, records } = handed;
        if self.refused.read_records(now, &reason, &records).is_none() {
            return pair.refuse(&"unreadable refusals in a RESUBMIT");
        }
        pair.stats.refusals_taken += 1;
        let answer = KvMsg {
            key: RESUBMIT,
            sequence: self.sequence,
            uuid: None,
            properties: self.scratch.clear().push("next", next).as_properties(),
            body: b"",
        };
        // A lost answer is asked for again.
        let _ = answer.with_frames(|frames| out.reply(&id, frames));
    }
}
