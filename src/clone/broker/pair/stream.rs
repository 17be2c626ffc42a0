//! [`Stream`]: the changes of an active on their way to its standby, many in one message.
//!
//! What a message of five frames costs libzmq, at both ends and in both I/O threads, is
//! several times what it costs the standby to apply the change in it. In this way the cost
//! is shared, and a standby takes little of the machine from the active.

use std::time::Duration;

use smallvec::SmallVec;

use super::super::{Broker, BrokerOutbox, warn_rarely};
use super::follow::{self, Follow};
use super::listeners::Listeners;
use super::{Pair, SILENT_INTERVALS};
use crate::clone::SendFailure;
use crate::clone::kvmsg::{HUGZ, KVPUBS, KvMsg, Uuid, is_reserved};
use crate::clone::pair::Role;
use crate::message::Message;
use crate::time::Time;

/// A message is sent when it has so many bytes, however short ago the last one was.
const FULL: usize = 32 << 10;

/// Else it is sent this long after the last one; the first in a while at the next chance. A
/// message costs both brokers a wake of each thread it goes through: at each chance, which
/// under load comes all the time, that is more than the changes in it.
const SEND_AFTER: Duration = Duration::from_millis(1);

/// Bytes before the frames of a change: the lengths of its key, uuid, properties and body.
const HEAD: usize = 4 * 4;
const SEQUENCE: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The standby's routing id on port P, and what it calls itself.
    to: Option<(SmallVec<[u8; 16]>, u64)>,
    /// Changes that are still to be sent.
    waiting: Vec<u8>,
    /// When the last were.
    sent_at: Time,
    /// It has to be found out anew who follows.
    pub(super) is_doubtful: bool,
}

impl Stream {
    /// The broker that gets it.
    pub(super) fn to(&self) -> Option<u64> {
        self.to.as_ref().map(|&(_, node)| node)
    }

    /// Under which id.
    pub(super) fn id(&self) -> Option<&[u8]> {
        self.to.as_ref().map(|(id, _)| &**id)
    }

    /// Turns to who asked for it and is the `peer`. True: that is another than before. Who
    /// has asked within `patience` keeps it, whoever else claims to be the peer.
    pub(super) fn turn_to(
        &mut self,
        listeners: &Listeners,
        peer: Option<u64>,
        (now, patience): (Time, Duration),
    ) -> bool {
        self.is_doubtful = false;
        let follower = peer.and_then(|node| {
            let id = listeners.follower(node, self.id(), (now, patience))?;
            Some((id.into(), node))
        });
        let is_other = self.to != follower;
        if is_other {
            self.waiting.clear();
            self.to = follower;
        }
        is_other
    }

    /// Nobody is told any more.
    pub(super) fn end(&mut self) {
        self.to = None;
        self.waiting.clear();
    }

    /// When what waits is to be sent.
    pub(super) fn deadline(&self) -> Time {
        if self.waiting.is_empty() { Time::NEVER } else { self.sent_at + SEND_AFTER }
    }

    /// Adds a change. True: the message is full, and is to be sent now.
    #[inline]
    pub(super) fn add(&mut self, change: &KvMsg<'_>) -> bool {
        if self.to.is_none() {
            return false;
        }
        let waiting = &mut self.waiting;
        change.with_frames(|&[key, sequence, uuid, properties, body]| {
            for frame in [key, uuid, properties, body] {
                // The limits of a message are far below 4 GiB.
                waiting.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            }
            for frame in [sequence, key, uuid, properties, body] {
                waiting.extend_from_slice(frame);
            }
        });
        waiting.len() >= FULL
    }

    /// Sends what waits. False: there was no room for it. The standby notices what is
    /// missing by the next one, and asks for it.
    pub(super) fn flush(&mut self, now: Time, out: &mut impl BrokerOutbox) -> bool {
        if self.waiting.is_empty() {
            return true;
        }
        let Some((id, _)) = &self.to else { return true };
        let sent = out.reply(id, &[KVPUBS, &self.waiting]);
        self.waiting.clear();
        self.sent_at = now;
        match sent {
            Ok(()) => true,
            Err(SendFailure::WouldBlock) => false,
            Err(SendFailure::Unreachable) => {
                self.end();
                // It may have asked already under another id.
                self.is_doubtful = true;
                true
            }
        }
    }
}

/// The changes of a message, each with its five frames.
pub(super) struct Changes<'a>(&'a [u8]);

/// It ends within a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CutShort;

impl<'a> Changes<'a> {
    /// `None`: it is no such message.
    pub(super) fn of(message: Message<'a>) -> Option<Changes<'a>> {
        match message.frames() {
            [KVPUBS, changes] => Some(Changes(changes)),
            _ => None,
        }
    }

    fn split_off(&mut self, length: usize) -> Result<&'a [u8], CutShort> {
        let (part, rest) = self.0.split_at_checked(length).ok_or(CutShort)?;
        self.0 = rest;
        Ok(part)
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Result<[&'a [u8]; 5], CutShort>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut read = || {
            let head = self.split_off(HEAD)?;
            let length = |at: usize| {
                let bytes = head[4 * at..][..4].try_into().expect("four bytes");
                u32::from_be_bytes(bytes) as usize
            };
            let sequence = self.split_off(SEQUENCE)?;
            let key = self.split_off(length(0))?;
            let uuid = self.split_off(length(1))?;
            let properties = self.split_off(length(2))?;
            Ok([key, sequence, uuid, properties, self.split_off(length(3))?])
        };
        let change = read();
        if change.is_err() {
            self.0 = &[];
        }
        Some(change)
    }
}

impl Pair {
    /// Adds a change that is published to what the standby gets. Kept out of the path of a
    /// broker that is alone.
    #[inline(never)]
    pub(in super::super) fn stream(
        &mut self,
        now: Time,
        change: &KvMsg<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        if self.stream.add(change) {
            self.flush_stream(now, out);
        }
    }

    pub(super) fn flush_stream(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if !self.stream.flush(now, out) {
            self.stats.stream_dropped += 1;
            let why = &"its queue is full; it will ask for them";
            warn_rarely(self.stats.stream_dropped, "changes not sent to the standby", why);
        }
    }
}

impl Broker {
    /// Sends the standby what waits for it, and finds out who it is if that is in doubt.
    pub(super) fn tend_stream(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let role = self.role;
        let Some(pair) = self.pair.as_deref_mut() else { return };
        if now >= pair.stream.deadline() {
            pair.flush_stream(now, out);
        }
        if !pair.stream.is_doubtful {
            return;
        }
        let peer = pair.peer.as_ref().map(|peer| peer.node).filter(|_| role == Role::Active);
        let patience = pair.interval * SILENT_INTERVALS;
        let is_other = pair.stream.turn_to(&pair.listeners, peer, (now, patience));
        if is_other && pair.stream.to().is_some() {
            self.push(now, out);
        }
    }

    /// Tells the standby of a change that was refused, in its place among the others.
    pub(in super::super) fn stream_refusal(
        &mut self,
        now: Time,
        uuid: Uuid,
        reason: &'static str,
        out: &mut impl BrokerOutbox,
    ) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let refusal = KvMsg {
            key: HUGZ,
            sequence: self.sequence,
            uuid: Some(uuid),
            properties: self.scratch.clear().push("refused", reason).as_properties(),
            body: b"",
        };
        pair.stream(now, &refusal, out);
    }

    /// Changes that the active has streamed to us.
    pub(super) fn hear_changes(
        &mut self,
        now: Time,
        changes: Changes<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        let limits = follow::limits(&self.config.limits);
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let Some(node) = self.follow.as_ref().map(Follow::node) else {
            // It is followed no more, and need not have heard of that.
            pair.stats.stream_unasked += 1;
            return;
        };
        if pair.peer.as_ref().is_some_and(|peer| peer.node == node) {
            self.status_asked |= !pair.is_live(now);
            pair.hear(now);
        }
        for change in changes {
            let Ok(frames) = change else {
                return self.refuse_followed(&"changes that end within one");
            };
            match KvMsg::decode(Message::new(&frames), &limits) {
                Ok(kvmsg) if kvmsg.key == HUGZ => self.hear_refusal(now, &kvmsg),
                Ok(kvmsg) if !is_reserved(kvmsg.key) => {
                    if let Some(pair) = self.pair.as_deref_mut() {
                        pair.hear_position(node, kvmsg.sequence);
                    }
                    self.hear_change(now, &kvmsg, out);
                }
                Ok(_) => self.refuse_followed(&"a change of a reserved key"),
                // The next one shows that it is missing.
                Err(error) => self.refuse_followed(&error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clone::kvmsg::Uuid;
    use crate::clone::properties::Properties;
    use crate::clone::sequence::Sequence;

    fn stream() -> Stream {
        Stream { to: Some((SmallVec::from_slice(b"id"), 1)), ..Stream::default() }
    }

    proptest! {
        #[test]
        fn what_was_added_is_read(changes in prop::collection::vec(
            ("[a-z/]{1,40}", any::<u64>(), any::<Option<[u8; 16]>>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)),
            0..20,
        )) {
            let mut stream = stream();
            for (key, sequence, uuid, has_properties, body) in &changes {
                let properties = if *has_properties { &b"ttl=1\n"[..] } else { b"" };
                stream.add(&KvMsg {
                    key: key.as_bytes(),
                    sequence: Sequence::from_u64(sequence >> 1),
                    uuid: uuid.map(Uuid::from_bytes),
                    properties: Properties::from_checked(properties),
                    body,
                });
            }
            let frames = [KVPUBS, &stream.waiting];
            let read: Result<Vec<_>, _> = Changes::of(Message::new(&frames)).unwrap().collect();
            let read = read.unwrap();
            prop_assert_eq!(read.len(), changes.len());
            for ([key, sequence, uuid, _, body], change) in read.into_iter().zip(&changes) {
                prop_assert_eq!(key, change.0.as_bytes());
                prop_assert_eq!(sequence, (change.1 >> 1).to_be_bytes());
                prop_assert_eq!(uuid.len(), if change.2.is_some() { 16 } else { 0 });
                prop_assert_eq!(body, &change.4[..]);
            }
        }

        #[test]
        fn whatever_comes_is_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let frames = [KVPUBS, &bytes];
            let total: usize = Changes::of(Message::new(&frames))
                .unwrap()
                .filter_map(Result::ok)
                .map(|frames| HEAD + frames.iter().map(|frame| frame.len()).sum::<usize>())
                .sum();
            prop_assert!(total <= bytes.len());
        }
    }

    #[test]
    fn a_message_that_ends_within_a_change_says_so() {
        let mut stream = stream();
        let change = KvMsg {
            key: b"/k",
            sequence: Sequence::from_u64(7),
            uuid: None,
            properties: Properties::EMPTY,
            body: b"value",
        };
        stream.add(&change);
        stream.add(&change);
        let whole = stream.waiting.clone();
        for length in whole.len() / 2 + 1..whole.len() {
            let frames = [KVPUBS, &whole[..length]];
            let mut read = Changes::of(Message::new(&frames)).unwrap();
            assert!(read.next().unwrap().is_ok());
            assert_eq!(read.next(), Some(Err(CutShort)));
            assert_eq!(read.next(), None);
        }
    }
}
