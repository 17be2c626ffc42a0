//! Changes of role: what starts one, and what it does.

use std::time::Duration;

use super::super::{Broker, BrokerOutbox};
use super::follow::{BacklogLimits, Follow, PATIENCE};
use super::refusals::Refusals;
use super::verdict::{Verdict, View, Why};
use super::{Pair, SILENT_INTERVALS};
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{DEMOTE, KvMsg, PROMOTE};
use crate::clone::pair::{Lineage, Role, RoleRefusal, Root, Seat};
use crate::clone::store::Store;
use crate::time::Time;

/// How long a broker that was told to take over asks the active to hand over.
const WANT_FOR: Duration = Duration::from_secs(5);

/// A standby further behind is not handed over to yet.
const MAX_HANDOVER_LAG: u64 = 100_000;

/// Numbers left in a counter below which the next epoch begins: more than a
/// heartbeat interval can use.
const COUNTER_RESERVE: u64 = 1 << 36;
const COUNTERS: u64 = 1 << 40;

impl Pair {
    fn grace(&self) -> Duration {
        match self.seat {
            Seat::Primary => self.config.start_grace,
            Seat::Backup => self.config.start_grace * 2,
        }
    }

    fn grace_over_at(&self) -> Time {
        self.heard.unwrap_or(self.started).max(self.started) + self.grace()
    }
}

impl Broker {
    /// When the verdict can change without anything being heard.
    pub(super) fn verdict_deadline(&self, pair: &Pair) -> Option<Time> {
        let waits_for = [
            pair.silent_at().filter(|_| self.role != Role::Active),
            Some(pair.grace_over_at()).filter(|_| self.role != Role::Active),
            pair.yielded.map(|(_, until)| until),
            pair.want_until,
        ];
        // What has passed was considered.
        let tended = pair.tended;
        waits_for.into_iter().flatten().filter(|&at| at > tended).min()
    }

    /// Takes the role that it should have.
    pub(super) fn decide(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let position = self.position();
        let Some(pair) = self.pair.as_deref_mut() else { return };
        pair.tended = now;
        pair.want_until = pair.want_until.filter(|&until| now < until);
        pair.yielded = pair.yielded.filter(|&(_, until)| now < until);
        let is_live = pair.is_live(now);
        let view = View {
            role: self.role,
            seat: pair.seat,
            node: self.config.node,
            position,
            lineage: Some(&self.lineage).filter(|_| pair.has_state),
            follows: self.follow.as_ref().map(Follow::node),
            live_peer: pair.peer.as_ref().filter(|_| is_live),
            has_vote: pair.has_vote(now),
            is_grace_over: now >= pair.grace_over_at(),
            is_ordered: pair.want_until.is_some(),
            has_yielded: pair.yielded.is_some(),
        };
        match view.verdict() {
            Verdict::Stay => {}
            Verdict::Promote(why) => return self.become_active(now, why, out),
            Verdict::Follow(node) => self.begin_follow(now, node, out),
            Verdict::StepDown => self.yield_to_peer(now, out),
            Verdict::LiftEpoch => {
                self.count(|stats| stats.epochs_lifted += 1);
                self.lift_epoch(now, out);
            }
        }
        self.serve_the_roles(now, out);
    }

    /// What an active does for its peer's sake, and for that of its own numbers.
    fn serve_the_roles(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if self.role != Role::Active {
            return;
        }
        let standby = self.standby_for_handover(now);
        let Some(pair) = &self.pair else { return };
        if standby && pair.peer.as_ref().is_some_and(|peer| peer.wants) {
            return self.hand_over(now, out);
        }
        if COUNTERS - self.sequence.counter() < COUNTER_RESERVE {
            self.lift_epoch(now, out);
        }
    }

    /// Goes on in an epoch of its own, above every one it has heard of.
    fn lift_epoch(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let first = pair.seat.epoch_above(pair.heard_epoch.max(self.sequence.epoch()));
        if first <= self.sequence {
            // The last epoch there is: better to end in it than to use numbers twice.
            return;
        }
        log::warn!("goes on in epoch {}", first.epoch());
        pair.heard_epoch = first.epoch();
        self.lineage.begin_epoch(self.sequence, first);
        self.sequence = first;
        self.store.advance(first);
        self.send_heartbeats(now, |_| true, out);
        self.push(now, out);
    }

    fn become_active(&mut self, now: Time, why: Why, out: &mut impl BrokerOutbox) {
        self.end_follow(now, out);
        self.settle_tail(now);
        let Some(pair) = self.pair.as_deref_mut() else { return };
        // Above what was heard of, and above what an earlier run of this broker may have
        // given that nobody else has heard of.
        let above = pair.seat.epoch_above(pair.heard_epoch.max(self.sequence.epoch()));
        let above = above.max(pair.seat.start(self.config.start));
        let above = match Fault::PromoteInTheSameEpoch.is_planted() {
            true => self.sequence,
            false => above,
        };
        if pair.has_state {
            self.lineage.begin_epoch(self.sequence, above);
            self.sequence = above;
            self.store.advance(above);
            self.expire_from = now + self.config.heartbeat;
        } else {
            // The start is above all that an earlier run can have given.
            let start = pair.seat.start(self.config.start);
            let start = if pair.heard_epoch < start.epoch() { start } else { above };
            self.lineage = Lineage::new(Root { start, node: self.config.node });
            self.sequence = start;
            self.store = Store::new(self.config.store, start);
            pair.has_state = true;
        }
        // What it gives is taken, also if it yields and comes back with another's state.
        pair.heard_epoch = pair.heard_epoch.max(self.sequence.epoch());
        (pair.want_until, pair.yielded, pair.refusals) = (None, None, None);
        // The other may have asked for the changes already.
        pair.stream.is_doubtful = true;
        pair.stats.promoted(why);
        pair.role_change = Some((Role::Active, self.sequence.epoch()));
        pair.safe.promoted(self.sequence, pair.peer.as_ref().map(|peer| peer.stable));
        self.role = Role::Active;
        log::warn!(
            "active from now on, in epoch {} with {} keys: {}",
            self.sequence.epoch(),
            self.store.len(),
            why.text()
        );
        let (lineage, sequence) = (&self.lineage, self.sequence);
        self.snapshots.check_since(|since| {
            lineage.contains(since, sequence) || Fault::TrustAnotherRun.is_planted()
        });
        self.watched.restart(self.sequence, self.published);
        self.rounds.restart(now + self.config.heartbeat);
        self.send_heartbeats(now, |_| true, out);
        self.publish_status(now, out);
        self.apply_ring(now, out);
        self.apply_tail(now, out);
        self.push(now, out);
    }

    /// Turns to this active.
    pub(in super::super) fn begin_follow(
        &mut self,
        now: Time,
        node: u64,
        out: &mut impl BrokerOutbox,
    ) {
        let known = self.follow.as_ref().and_then(Follow::followed);
        self.end_follow(now, out);
        if self.role == Role::Starting {
            self.role = Role::Passive;
            if let Some(pair) = self.pair.as_deref_mut() {
                pair.role_change = Some((Role::Passive, pair.heard_epoch));
            }
            log::info!("passive: broker {node:016x} is active");
            self.publish_status(now, out);
        }
        let Some(pair) = self.pair.as_deref_mut() else { return };
        // What was handed over is taken: it can be handed back at once.
        pair.yielded = None;
        let until = now + PATIENCE.max(pair.interval * SILENT_INTERVALS);
        let limits =
            BacklogLimits { count: pair.config.backlog_count, bytes: pair.config.backlog_bytes };
        let mut follow = Follow::new(node, b"", limits, until);
        follow.has_position = known == Some(node);
        self.follow = Some(follow);
        self.say_hello(out);
    }

    /// The other active wins: what only we have is its business from now on.
    fn yield_to_peer(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let Some(peer) = &pair.peer else { return };
        let (node, epoch) = (peer.node, peer.position.epoch());
        log::warn!(
            "steps down: broker {node:016x} is active in epoch {epoch}, we were in {}",
            self.sequence.epoch()
        );
        if self.refused.count() > 0 {
            pair.refusals = Some(Refusals::default());
        }
        self.step_down(now, out);
        self.begin_follow(now, node, out);
    }

    /// Stops at this sequence, for a standby that has it or will in a moment.
    fn hand_over(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        pair.stats.handovers += 1;
        pair.yielded = Some((self.sequence, now + pair.interval * SILENT_INTERVALS));
        log::warn!("hands over at {:?}", self.sequence);
        self.step_down(now, out);
        self.push(now, out);
    }

    fn step_down(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        self.role = Role::Passive;
        let epoch = self.sequence.epoch();
        if let Some(pair) = self.pair.as_deref_mut() {
            pair.flush_stream(now, out);
            pair.stream.end();
            pair.stats.step_downs += 1;
            pair.role_change = Some((Role::Passive, epoch));
            // Who asked before the active was heard of did not ask for this one.
            pair.vote = None;
        }
        self.lineage.extend(self.sequence);
        // The farewell: clients turn to the other at once.
        self.send_heartbeats(now, |_| true, out);
        self.publish_status(now, out);
        self.snapshots.abandon(&mut self.store);
    }

    /// Whether there is a standby that a handover would not lose anything with.
    fn standby_for_handover(&self, now: Time) -> bool {
        let Some(pair) = &self.pair else { return false };
        pair.is_live(now)
            && pair.peer.as_ref().is_some_and(|peer| {
                peer.of == Some(self.config.node)
                    && peer.position.epoch() == self.sequence.epoch()
                    && self.sequence.get().saturating_sub(peer.position.get()) <= MAX_HANDOVER_LAG
            })
    }

    /// Takes over: at once if the peer is silent, else by a planned handover, which
    /// takes a moment ([`poll_role`](Broker::poll_role)). Gives the role it has now.
    ///
    /// # Errors
    /// It is not one of a pair, or has no state while the peer has.
    pub fn promote(&mut self, now: Time, out: &mut impl BrokerOutbox) -> Result<Role, RoleRefusal> {
        let Some(pair) = self.pair.as_deref_mut() else { return Err(RoleRefusal::NoPair) };
        if self.role == Role::Active {
            return Ok(self.role);
        }
        if !pair.has_state && pair.is_live(now) {
            return Err(RoleRefusal::NoState);
        }
        pair.want_until = Some(now + WANT_FOR);
        self.decide(now, out);
        self.push(now, out);
        Ok(self.role)
    }

    /// Hands over to the live standby. Gives the role it has now.
    ///
    /// # Errors
    /// It is not one of a pair, or there is no standby to hand over to.
    pub fn demote(&mut self, now: Time, out: &mut impl BrokerOutbox) -> Result<Role, RoleRefusal> {
        if self.pair.is_none() {
            return Err(RoleRefusal::NoPair);
        }
        if self.role == Role::Active {
            if !self.standby_for_handover(now) {
                return Err(RoleRefusal::NoStandby);
            }
            self.hand_over(now, out);
        }
        Ok(self.role)
    }

    /// An order has no time yet: it is carried out at once, by the timer.
    pub(in super::super) fn take_order(
        &mut self,
        id: &[u8],
        verb: &[u8],
        out: &mut impl BrokerOutbox,
    ) {
        let is_promotion = verb == PROMOTE;
        match self.pair.as_deref_mut() {
            None => self.answer_order(id, is_promotion, Err(RoleRefusal::NoPair), out),
            Some(pair) if pair.orders.len() == pair.config.held_requests => {
                pair.refuse(&"too many orders to change the role wait");
            }
            Some(pair) => pair.orders.push((id.into(), is_promotion)),
        }
    }

    /// Carries out the orders that have come.
    pub(super) fn obey(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        for (id, is_promotion) in std::mem::take(&mut pair.orders) {
            let result = match is_promotion {
                true => self.promote(now, out),
                false => self.demote(now, out),
            };
            self.answer_order(&id, is_promotion, result, out);
        }
    }

    fn answer_order(
        &mut self,
        id: &[u8],
        is_promotion: bool,
        result: Result<Role, RoleRefusal>,
        out: &mut impl BrokerOutbox,
    ) {
        let to = self.scratch.clear();
        match result {
            Ok(role) => to.push("ok", role),
            Err(refusal) => to.push("refused", refusal.name()),
        };
        let key = if is_promotion { PROMOTE } else { DEMOTE };
        let (properties, sequence) = (to.as_properties(), self.sequence);
        let answer = KvMsg { key, sequence, uuid: None, properties, body: b"" };
        // Who asked and has left is not told.
        let _ = answer.with_frames(|frames| out.reply(id, frames));
    }
}
