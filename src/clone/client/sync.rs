//! How a subtree comes to be current: a request, a snapshot, and again when
//! something was lost.

use super::attempt::{Attempt, Target};
use super::broker_info::BrokerInfo;
use super::changes::Answer;
use super::event::{Event, ResyncReason};
use super::outbox::ClientOutbox;
use super::presence::{ASK_AGAIN, REPLACED};
use super::receive::{self, Scratch};
use super::servers::UNANSWERED;
use super::staging::{Learned, Staging};
use super::subtree::{SubtreeState, Verified, back_off};
use super::{Client, ttl};
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{ICANHAZ, KTHXBAI, KvMsg, is_reserved};
use crate::clone::sequence::Sequence;
use crate::message::Message;
use crate::time::Time;

/// A subtree without heartbeats is asked for changes every so many of them, but
/// not more often than once a second.
const POLL_HEARTBEATS: u32 = 3;
/// After a limit was reached: as after so many attempts in vain.
const LIMIT_BACK_OFF: u32 = 8;
/// The longest time a request may make no progress is this many doublings.
const TIMEOUT_DOUBLINGS: u32 = 4;

impl Client {
    /// Stands in line for a request, after a back-off that grows with each
    /// attempt in vain.
    pub(super) fn queue(&mut self, now: Time, index: usize) {
        let random = self.next_random();
        let subtree = &mut self.subtrees[index];
        subtree.state = SubtreeState::Queued;
        subtree.ask_at = now + back_off(subtree.fruitless, random);
        let ask_at = subtree.ask_at;
        self.wake_at(ask_at);
    }

    /// Changes up to `newest` may be lost.
    pub(super) fn gap(
        &mut self,
        now: Time,
        index: usize,
        newest: Sequence,
        missed: Option<u64>,
        out: &mut impl ClientOutbox,
    ) {
        self.stats.gaps += 1;
        self.stats.missed = self.stats.missed.saturating_add(missed.unwrap_or(0));
        let subtree = &mut self.subtrees[index];
        subtree.missed = subtree.missed.max(newest);
        if !subtree.is_current() {
            return;
        }
        self.events.push(Event::Gap { subtree: subtree.prefix.clone(), missed });
        self.resync(now, index, ResyncReason::Gap, out);
    }

    /// The subtree is not current any more: asks for what is missing.
    pub(super) fn resync(
        &mut self,
        now: Time,
        index: usize,
        reason: ResyncReason,
        out: &mut impl ClientOutbox,
    ) {
        self.leave_current(index, reason);
        if self.subtrees[index].state == SubtreeState::Current {
            self.queue(now, index);
            // Counts as in vain until the map is known to be right: who loses
            // changes all the time must not ask all the time.
            self.subtrees[index].fruitless += 1;
        }
        self.ask_next(now, out);
    }

    pub(super) fn leave_current(&mut self, index: usize, reason: ResyncReason) {
        if self.subtrees[index].is_current() {
            self.tell_resync(index, reason);
        }
        self.subtrees[index].is_quiet = false;
    }

    pub(super) fn tell_resync(&mut self, index: usize, reason: ResyncReason) {
        self.stats.resyncs += 1;
        self.events.push(Event::Resync { subtree: self.subtrees[index].prefix.clone(), reason });
    }

    /// Asks for changes as a matter of routine: the map stays current.
    pub(super) fn poll(&mut self, now: Time, index: usize, out: &mut impl ClientOutbox) {
        if self.subtrees[index].state == SubtreeState::Current {
            self.subtrees[index].is_quiet = true;
            self.queue(now, index);
            self.ask_next(now, out);
        }
    }

    /// The map would exceed a limit. Not current, and asked for again only
    /// after a long while.
    pub(super) fn limit_reached(
        &mut self,
        now: Time,
        index: usize,
        newest: Sequence,
        out: &mut impl ClientOutbox,
    ) {
        self.stats.limits += 1;
        if self.attempt.as_ref().is_some_and(|attempt| attempt.is_for(index)) {
            self.attempt = None;
        }
        let subtree = &mut self.subtrees[index];
        subtree.missed = subtree.missed.max(newest);
        subtree.fruitless = subtree.fruitless.max(LIMIT_BACK_OFF);
        self.events.push(Event::LimitReached { subtree: subtree.prefix.clone() });
        self.leave_current(index, ResyncReason::Limit);
        self.queue(now, index);
        self.ask_next(now, out);
    }

    /// Sends the next request, if none is under way and one may be sent.
    pub(super) fn ask_next(&mut self, now: Time, out: &mut impl ClientOutbox) {
        while self.attempt.is_none() {
            let queued = self.subtrees.iter().enumerate();
            let next = queued
                .filter(|(_, subtree)| subtree.state == SubtreeState::Queued)
                .map(|(index, subtree)| (subtree.ask_at, index))
                .min();
            match next {
                Some((ask_at, index)) if ask_at <= now => self.ask(now, index, out),
                Some((ask_at, _)) => return self.wake_at(ask_at),
                None => return,
            }
        }
    }

    fn ask(&mut self, now: Time, index: usize, out: &mut impl ClientOutbox) {
        let broker = self.broker.filter(|broker| broker.extended && broker.node.is_some());
        let subtree = &mut self.subtrees[index];
        subtree.state = SubtreeState::Syncing;
        // Whatever was lost before the request is in the answer.
        subtree.missed = Sequence::ZERO;
        let highest = subtree.sequence;
        let since = subtree
            .verified
            .filter(|verified| {
                broker.is_some_and(|broker| match broker.paired {
                    _ if Fault::TrustAnotherRun.is_planted() => true,
                    // The map must have nothing that only a lost active had: a delta would
                    // not take that back.
                    true => broker.has(highest),
                    false => verified.node == broker.node,
                })
            })
            .map(|verified| verified.sequence);
        let fruitless = subtree.fruitless;
        let prefix = subtree.prefix.clone();
        if !self.request(now, Target::Subtree(index), &prefix, since, fruitless, out) {
            self.fail(now, index, out);
        }
    }

    /// Sends a request on a new DEALER; gives whether it could be sent.
    fn request(
        &mut self,
        now: Time,
        target: Target,
        prefix: &[u8],
        since: Option<Sequence>,
        fruitless: u32,
        out: &mut impl ClientOutbox,
    ) -> bool {
        out.open_requests();
        let sent = match since {
            Some(since) => {
                let properties = self.properties.clear().push("since", since).as_properties();
                out.request(&[ICANHAZ, prefix, properties.as_bytes()])
            }
            None => out.request(&[ICANHAZ, prefix]),
        };
        self.stats.requests += 1;
        let timeout =
            self.config.request_timeout.saturating_mul(1 << fruitless.min(TIMEOUT_DOUBLINGS));
        self.attempt = Some(Attempt {
            target,
            since,
            epoch: self.broker.map(|broker| broker.epoch),
            staging: Staging::default(),
            received: 0,
            is_damaged: false,
            timeout,
            deadline: now + timeout,
        });
        self.wake_at(now + timeout);
        sent.is_ok()
    }

    /// Asks for a snapshot of one key only to be heard.
    pub(super) fn vote(&mut self, now: Time, key: &[u8], out: &mut impl ClientOutbox) {
        if self.attempt.is_none() && !self.request(now, Target::Vote, key, None, 0, out) {
            self.attempt = None;
        }
    }

    /// The attempt was in vain: another, after a while.
    pub(super) fn fail(&mut self, now: Time, index: usize, out: &mut impl ClientOutbox) {
        self.attempt = None;
        self.subtrees[index].fruitless += 1;
        self.leave_current(index, ResyncReason::Unanswered);
        self.queue(now, index);
        if self.is_online && !self.has_heartbeats && self.broker.is_some() {
            // Of a server without heartbeats that is the only sign.
            self.leave(now, out);
        } else if self.is_passed_over(index) {
            // A standby of RFC 12 sends heartbeats, but answers nothing.
            self.leave(now, out);
        }
        self.ask_next(now, out);
    }

    fn is_passed_over(&self, index: usize) -> bool {
        self.servers.are_many()
            && self.broker.is_some_and(|broker| !broker.extended)
            && self.subtrees[index].fruitless >= UNANSWERED
    }

    /// Takes a message of the DEALER opened last.
    pub fn handle_snapshot(
        &mut self,
        now: Time,
        message: Message<'_>,
        out: &mut impl ClientOutbox,
    ) {
        let (limits, mut scratch) = (self.decode_limits(), Scratch::default());
        let Some(attempt) = &mut self.attempt else {
            self.stats.unasked += 1;
            return;
        };
        let Some(kvmsg) = receive::decode(message, &limits, &mut self.stats, &mut scratch) else {
            attempt.is_damaged = true;
            return;
        };
        attempt.deadline = now + attempt.timeout;
        if kvmsg.key == KTHXBAI {
            self.finish(now, &kvmsg, out);
        } else if is_reserved(kvmsg.key) {
            self.stats.malformed += 1;
        } else {
            self.entry(now, &kvmsg, out);
        }
    }

    /// An entry of the snapshot.
    fn entry(&mut self, now: Time, kvmsg: &KvMsg<'_>, out: &mut impl ClientOutbox) {
        let Some(attempt) = &mut self.attempt else { return };
        self.stats.synced_entries += 1;
        attempt.received += 1;
        if let Target::Subtree(index) = attempt.target {
            if !kvmsg.key.starts_with(&self.subtrees[index].prefix) {
                self.stats.unasked += 1;
                return;
            }
            attempt.staging.offer(&Learned {
                key: kvmsg.key,
                value: kvmsg.body,
                sequence: kvmsg.sequence,
                deadline: ttl::in_snapshot(kvmsg.properties, now),
                why: receive::why(kvmsg),
                given: true,
            });
        }
        if let Some(uuid) = kvmsg.uuid {
            self.answer(now, uuid, Answer::Applied(kvmsg.sequence), out);
        }
        self.check_staging(now, out);
    }

    /// The map in the making must fit into the limits beside the other subtrees.
    pub(super) fn check_staging(&mut self, now: Time, out: &mut impl ClientOutbox) {
        let Some(Attempt { target: Target::Subtree(index), staging, .. }) = &self.attempt else {
            return;
        };
        let tree = &self.subtrees[*index].tree;
        let keys = self.keys - tree.len() + staging.len();
        let bytes = self.bytes - tree.bytes() + staging.bytes();
        if keys > self.config.max_keys || bytes > self.config.max_bytes {
            let (index, newest) = (*index, staging.newest());
            self.limit_reached(now, index, newest, out);
        }
    }

    /// The snapshot has ended.
    fn finish(&mut self, now: Time, kvmsg: &KvMsg<'_>, out: &mut impl ClientOutbox) {
        let Some(attempt) = self.attempt.take() else { return };
        let info = BrokerInfo::read(kvmsg, &self.config);
        let index = match attempt.target {
            Target::Subtree(index) => index,
            Target::Vote => {
                self.vote_answered(now, info, out);
                return self.ask_next(now, out);
            }
        };
        let is_delta = kvmsg.properties.get("mode") == Some(b"delta");
        let is_whole = kvmsg
            .properties
            .parse::<u64>("count")
            .is_none_or(|count| count == attempt.received && !attempt.is_damaged);
        let Some(info) = info.filter(|info| {
            let is_ours = !info.extended || *kvmsg.body == *self.subtrees[index].prefix;
            is_ours && (!is_delta || attempt.since.is_some())
        }) else {
            self.stats.malformed += 1;
            return self.fail(now, index, out);
        };
        if !is_whole {
            self.stats.truncated += 1;
            return self.fail(now, index, out);
        }
        if attempt.is_damaged {
            // No count says how many there should be, but one at least is missing.
            return self.limit_reached(now, index, kvmsg.sequence, out);
        }
        if is_delta && attempt.epoch != Some(info.epoch) {
            // Whether that would do was judged by another history: it is asked anew.
            self.learn(now, info, out);
            if self.subtrees[index].state == SubtreeState::Syncing {
                self.leave_current(index, ResyncReason::NewBroker);
                self.queue(now, index);
            }
            return self.ask_next(now, out);
        }
        self.stats.snapshots += 1;
        let end = kvmsg.sequence;
        self.tells.ended(end);
        match is_delta {
            true => self.install_delta(index, attempt.staging, end),
            false => {
                let from = kvmsg.properties.parse("from").unwrap_or(end);
                self.install(index, attempt.staging, from, end);
            }
        }
        let sequence = kvmsg.sequence.min(info.proven);
        let verified = Verified { node: info.node, sequence };
        self.subtrees[index].verified = Some(verified);
        self.settle(now, index, info, out);
        self.ask_next(now, out);
        self.flush(now, out);
    }

    /// Puts a full snapshot, which began at `from`, in the place of the map.
    fn install(&mut self, index: usize, staging: Staging, from: Sequence, end: Sequence) {
        let subtree = &mut self.subtrees[index];
        subtree.sequence = staging.newest().max(end);
        subtree.snapshot_end = end;
        let old = std::mem::replace(&mut subtree.tree, staging.into_tree(from));
        self.keys = self.keys - old.len() + subtree.tree.len();
        self.bytes = self.bytes - old.bytes() + subtree.tree.bytes();
        self.events.replaced(index, old);
    }

    /// Lays what a delta brought over the map.
    fn install_delta(&mut self, index: usize, staging: Staging, end: Sequence) {
        self.stats.deltas += 1;
        let subtree = &mut self.subtrees[index];
        let (keys, bytes) = (subtree.tree.len(), subtree.tree.bytes());
        subtree.sequence = subtree.sequence.max(staging.newest()).max(end);
        subtree.snapshot_end = end;
        let changed = staging.lay_over(&mut subtree.tree);
        self.keys = self.keys - keys + subtree.tree.len();
        self.bytes = self.bytes - bytes + subtree.tree.bytes();
        self.events.changed(index, changed);
    }

    /// Decides what the subtree is after a snapshot that `info` sent.
    fn settle(&mut self, now: Time, index: usize, info: BrokerInfo, out: &mut impl ClientOutbox) {
        let is_known = self.broker.is_some_and(|broker| broker.is_same(&info));
        if !info.extended {
            self.subscribe_plain(out);
        }
        if !info.extended && self.broker.is_none() {
            // A server without heartbeats: to have waited is all the proof there is.
            self.heard = now;
            self.is_online = true;
            self.learn(now, info, out);
            self.subtrees[index].state = SubtreeState::Current;
            self.prove_all(now, out);
            return self.current(now, index);
        }
        if !self.is_online {
            // It lives, but its updates do not come: not for ever.
            self.heard = now;
            self.wake_at(now + REPLACED);
        }
        self.learn(now, info, out);
        if !is_known {
            // A good start, but changes may have gone by before the
            // subscription was live: the proof is awaited, then the rest asked for.
            return;
        }
        let subtree = &mut self.subtrees[index];
        if subtree.missed > subtree.snapshot_end {
            subtree.fruitless += 1;
            return self.queue(now, index);
        }
        self.current(now, index);
        if self.keys > self.config.max_keys || self.bytes > self.config.max_bytes {
            self.limit_reached(now, index, Sequence::ZERO, out);
        }
    }

    /// The map is the broker's.
    fn current(&mut self, now: Time, index: usize) {
        let poll_at = self.poll_time(now, index);
        let is_counted = self.is_extended();
        let subtree = &mut self.subtrees[index];
        subtree.state = SubtreeState::Current;
        subtree.missed = Sequence::ZERO;
        subtree.was_synced = true;
        subtree.poll_at = poll_at;
        if !is_counted || subtree.watch.is_absent {
            // No heartbeat will confirm it.
            subtree.fruitless = 0;
        }
        if !std::mem::take(&mut subtree.is_quiet) {
            self.events.push(Event::Synced {
                subtree: subtree.prefix.clone(),
                sequence: subtree.sequence,
                keys: subtree.tree.len(),
            });
        }
        self.wake_at(poll_at);
    }

    /// When a subtree must be asked whether anything changed.
    fn poll_time(&self, now: Time, index: usize) -> Time {
        match self.broker {
            Some(broker) if self.subtrees[index].watch.is_absent => {
                now + (broker.heartbeat * POLL_HEARTBEATS).max(ASK_AGAIN)
            }
            Some(_) if !self.has_heartbeats => now + self.config.heartbeat_timeout,
            _ => Time::NEVER,
        }
    }
}
