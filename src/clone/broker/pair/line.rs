//! What the two brokers say to each other of themselves. One greets on its line, the standing
//! connection to the peer's port P; the other answers with its state, now and whenever there
//! is news.

use std::time::Duration;

use super::super::{Broker, BrokerOutbox};
use super::Pair;
use super::follow::Follow;
use super::peer::{self, PeerStatus};
use super::stream::Changes;
use crate::clone::kvmsg::{KvMsg, PEER, RESUBMIT};
use crate::clone::pair::{Lineage, Role};
use crate::clone::properties::Properties;
use crate::clone::sequence::Sequence;
use crate::message::Message;
use crate::time::Time;

/// A position that has moved is told after this long at most.
const PUSH_AFTER: Duration = Duration::from_millis(1);

impl Broker {
    /// Asks the peer to tell us of itself.
    pub(super) fn say_hello(&mut self, out: &mut impl BrokerOutbox) {
        let Some(pair) = &self.pair else { return };
        let to = self.scratch.clear();
        to.push("pair", format_args!("{:016x}", pair.config.pair));
        to.push("node", format_args!("{:016x}", self.config.node));
        to.push("seat", pair.seat);
        to.push("hb", self.config.heartbeat.as_millis());
        if let Some(follow) = &self.follow {
            to.push("follow", format_args!("{:016x}", follow.node()));
        }
        // Nobody there: then there is nothing to hear either.
        let _ = out.tell_peer(&[PEER, to.as_properties().as_bytes()]);
    }

    /// A request on P that only a broker of a pair knows.
    pub(in super::super) fn handle_pair_request(
        &mut self,
        id: &[u8],
        verb: &[u8],
        request: Message<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        match (verb, request.frames()) {
            (PEER, &[_, properties]) => self.handle_hello(id, properties, out),
            (RESUBMIT, _) => self.handle_resubmit(id, request),
            _ => {
                if let Some(pair) = self.pair.as_deref_mut() {
                    pair.refuse(&"a request of the wrong number of frames");
                }
            }
        }
    }

    /// Somebody wants to be told of us.
    fn handle_hello(&mut self, id: &[u8], properties: &[u8], out: &mut impl BrokerOutbox) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let Ok(properties) = Properties::check(properties, &self.config.limits) else {
            return pair.refuse(&"a greeting with unreadable properties");
        };
        match (properties.hex("pair"), properties.hex("node")) {
            (Some(name), Some(node)) if name == pair.config.pair => {
                let follows = properties.hex("follow") == Some(self.config.node);
                pair.listeners.hear(id, node, follows, pair.stream.id());
                pair.stream.is_doubtful = true;
            }
            _ => {
                pair.refuse(&"a greeting from another pair (--pair-name)");
                let answer = KvMsg {
                    key: PEER,
                    sequence: Sequence::ZERO,
                    uuid: None,
                    properties: Properties::from_checked(b"refused=pair\n"),
                    body: b"",
                };
                let _ = answer.with_frames(|frames| out.reply(id, frames));
            }
        }
    }

    /// Tells our state to those who asked, if something is new or it is time.
    pub(super) fn push_if_due(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if self.pair.as_deref().is_some_and(|pair| now >= self.push_deadline(pair)) {
            self.push(now, out);
        }
    }

    /// When they are to be told next.
    pub(super) fn push_deadline(&self, pair: &Pair) -> Time {
        let has_moved = self.position() != pair.pushed && self.role != Role::Active;
        let soon = if has_moved { pair.listeners.told_at() + PUSH_AFTER } else { Time::NEVER };
        soon.min(pair.push_at).min(pair.listeners.deadline())
    }

    /// Tells our state to those who asked.
    pub(in super::super) fn push(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let position = self.position();
        let status = self.own_status(position);
        let Some(pair) = self.pair.as_deref_mut() else { return };
        // Its position is that of the changes before it.
        pair.flush_stream(now, out);
        (pair.push_at, pair.pushed) = (now + self.config.heartbeat, position);
        status.write(pair.config.pair, &mut self.scratch);
        let message = KvMsg {
            key: PEER,
            sequence: position,
            uuid: None,
            properties: self.scratch.as_properties(),
            body: b"",
        };
        message.with_frames(|frames| pair.listeners.tell(now, frames, out));
    }

    fn own_status(&self, position: Sequence) -> PeerStatus {
        let mut status = PeerStatus {
            node: self.config.node,
            heartbeat: self.config.heartbeat,
            role: self.role,
            position,
            ..PeerStatus::default()
        };
        if let Some(pair) = &self.pair {
            status.seat = pair.seat;
            let of = self.follow.as_ref().and_then(Follow::followed);
            status.of = of.filter(|_| pair.has_state);
            status.lineage = pair.has_state.then(|| {
                let mut lineage = self.lineage.clone();
                lineage.extend(position);
                lineage
            });
            status.stable = pair.safe.stable(self.sequence);
            status.to = pair.stream.to();
            status.refusals = self.refused.count();
            status.wants = pair.want_until.is_some();
            status.handover = pair.yielded.map(|(sequence, _)| sequence);
        }
        status
    }

    /// Takes a message of the line, the connection that was made to the peer.
    pub fn handle_peer(&mut self, now: Time, message: Message<'_>, out: &mut impl BrokerOutbox) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        if let Some(changes) = Changes::of(message) {
            return self.hear_changes(now, changes, out);
        }
        let kvmsg = match KvMsg::decode(message, &peer::limits(&self.config.limits)) {
            Ok(kvmsg) => kvmsg,
            Err(error) => return pair.refuse(&error),
        };
        match kvmsg.key {
            PEER => self.hear_peer(now, &kvmsg, out),
            RESUBMIT => self.handle_resubmitted(now, &kvmsg, out),
            _ => pair.refuse(&"neither PEER? nor RESUBMIT"),
        }
    }

    fn hear_peer(&mut self, now: Time, kvmsg: &KvMsg<'_>, out: &mut impl BrokerOutbox) {
        let (sequence, node) = (self.sequence, self.config.node);
        let clock = self.config.start.epoch();
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let status = PeerStatus::read(kvmsg, pair.config.pair).and_then(|status| {
            let known = pair.heard_epoch.max(sequence.epoch()).max(clock);
            status.check(pair.peer.as_ref(), node, sequence, known)?;
            Ok(status)
        });
        let status = match status {
            Ok(status) => status,
            Err(why) => return pair.refuse(&why),
        };
        if pair.peer.as_ref().is_none_or(|peer| peer.node != status.node) {
            log::info!("the peer is broker {:016x}, {}", status.node, status.role);
        }
        pair.interval = self.config.heartbeat.max(status.heartbeat);
        let epochs = status.lineage.as_ref().map_or(0, |lineage| lineage.first().epoch());
        pair.heard_epoch = pair.heard_epoch.max(status.position.epoch()).max(epochs);
        let was_live = pair.is_live(now);
        self.status_asked |= !was_live;
        match status.lineage.as_ref().map(Lineage::root) {
            Some(root) if root != self.lineage.root() => {
                if pair.apart.is_none_or(|(before, _)| before != root) {
                    pair.apart = Some((root, pair.together));
                }
            }
            _ => pair.together = sequence,
        }
        pair.stream.is_doubtful |= pair.peer.as_ref().is_none_or(|peer| peer.node != status.node);
        let is_active = status.role == Role::Active;
        let (peer, position, to) = (status.node, status.position, status.to);
        let refusals = status.refusals;
        pair.peer = Some(status);
        pair.hear(now);
        self.resolve_seats();
        self.decide(now, out);
        if is_active {
            self.hear_position(now, (peer, position), refusals, to == Some(node), out);
        }
        self.tend_safe(now, out);
    }
}
