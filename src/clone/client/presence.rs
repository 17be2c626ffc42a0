//! Whether the broker is there: who it is, whether its updates reach us, and
//! that it is silent.

use std::time::Duration;

use super::attempt::Target;
use super::broker_info::BrokerInfo;
use super::event::{Event, ResyncReason};
use super::outbox::ClientOutbox;
use super::receive::Tells;
use super::subtree::SubtreeState;
use super::{Client, HEARTBEATLESS};
use crate::clone::collector::Collector;
use crate::time::Time;

/// How long to wait for a subtree's heartbeat before asking for it again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long heartbeats may be missing that are on their way from a broker that knows the
/// extensions, before it is asked without proof.
const ASKED_FOR: Duration = Duration::from_secs(4);
/// A broker that knows the extensions answers the subscription to its heartbeat
/// when it is back: after it was lost, ask without proof only after this long,
/// in case that another kind of server takes its place.
pub(super) const REPLACED: Duration = Duration::from_secs(15);

impl Client {
    /// Takes what the broker told of itself.
    pub(super) fn learn(&mut self, now: Time, info: BrokerInfo, out: &mut impl ClientOutbox) {
        let before = self.broker.replace(info);
        self.reach(&info, out);
        match before {
            Some(before) if before.is_same(&info) => {}
            Some(_) => self.restart(now, ResyncReason::NewBroker, out),
            None => self.greet(now, &info, out),
        }
        if self.found(&info) {
            self.start_over(now, out);
        }
        if std::mem::replace(&mut self.upstream_lost, info.upstream_lost) != info.upstream_lost {
            self.events.push(match info.upstream_lost {
                true => Event::UpstreamLost,
                false => Event::UpstreamBack,
            });
        }
    }

    /// Opens the socket for changes that the broker wants.
    fn reach(&mut self, info: &BrokerInfo, out: &mut impl ClientOutbox) {
        let all = self.servers.are_many() && !info.extended && info.collector == Collector::Sub;
        if self.collector == Some(info.collector) && self.reaches_all == all {
            return;
        }
        (self.collector, self.reaches_all) = (Some(info.collector), all);
        self.blocked_until = None;
        match all {
            true => out.open_changes_to_all(info.collector),
            false => out.open_changes(info.collector),
        }
    }

    /// The broker is heard for the first time, or again.
    fn greet(&mut self, now: Time, info: &BrokerInfo, out: &mut impl ClientOutbox) {
        (self.ask_unproven_at, self.ask_kind_at) = (Time::NEVER, Time::NEVER);
        if self.attempt.as_ref().is_some_and(|attempt| attempt.target == Target::Vote) {
            self.attempt = None;
        }
        let reason = match self.servers.are_many() && self.is_another(info) {
            true => ResyncReason::NewBroker,
            false => ResyncReason::Reconnected,
        };
        for index in 0..self.subtrees.len() {
            if self.subtrees[index].was_synced {
                self.tell_resync(index, reason);
            }
            self.await_proof(now, index, out);
        }
        self.wake_at(now);
    }

    /// A server that was not heard yet has answered a question about nothing: it is none
    /// that knows the extensions, and sends the plain heartbeat alone if any; or it does, and
    /// the heartbeats of the subtrees are on their way.
    pub(super) fn found_out(&mut self, now: Time, info: BrokerInfo, out: &mut impl ClientOutbox) {
        if !info.extended {
            self.subscribe_plain(out);
        } else if !self.servers.are_many() {
            self.ask_unproven_at = self.ask_unproven_at.max(now + ASKED_FOR);
            for subtree in &mut self.subtrees {
                subtree.watch.ask_at = now + ASK_AGAIN;
            }
            self.wake_at(now + ASK_AGAIN);
        }
    }

    /// Nothing that is known of the broker's sequences holds any more.
    pub(super) fn restart(&mut self, now: Time, reason: ResyncReason, out: &mut impl ClientOutbox) {
        self.last = None;
        for index in 0..self.subtrees.len() {
            self.leave_current(index, reason);
            self.await_proof(now, index, out);
        }
        if !self.is_extended() {
            // The message that told it proves the connection.
            self.prove_all(now, out);
        }
    }

    /// Waits for the heartbeat that proves that the subtree's subscription is
    /// live, and asks for it.
    pub(super) fn await_proof(&mut self, now: Time, index: usize, out: &mut impl ClientOutbox) {
        let is_extended = self.is_extended();
        if self.needs_plain() {
            self.subscribe_plain(out);
        }
        if self.attempt.as_ref().is_some_and(|attempt| attempt.is_for(index)) {
            // Asked before the proof that is awaited now, perhaps in another
            // dialect: its answer may have a hole.
            self.attempt = None;
        }
        let subtree = &mut self.subtrees[index];
        let before = std::mem::replace(&mut subtree.state, SubtreeState::Waiting);
        subtree.is_live = false;
        let watch = &mut subtree.watch;
        (watch.baseline, watch.is_absent, watch.asked) = (None, false, 0);
        if before != SubtreeState::Waiting {
            watch.renewed = 0;
        }
        watch.ask_at = Time::NEVER;
        if is_extended {
            if !subtree.is_whole() && !subtree.watch.is_subscribed {
                subtree.watch.is_subscribed = true;
                self.topics.add(&subtree.topic, out);
            }
            subtree.watch.ask_at = now + ASK_AGAIN;
            self.wake_at(now + ASK_AGAIN);
        }
    }

    /// The subtree's subscription is live: what is published from here on will
    /// be received, so a snapshot may be asked for, and changes may be sent.
    pub(super) fn proven(&mut self, now: Time, index: usize, out: &mut impl ClientOutbox) {
        let subtree = &mut self.subtrees[index];
        if !subtree.is_live {
            subtree.is_live = true;
            self.pending.make_ready(subtree.held);
        }
        if subtree.state == SubtreeState::Waiting {
            self.queue(now, index);
            self.ask_next(now, out);
        }
    }

    pub(super) fn prove_all(&mut self, now: Time, out: &mut impl ClientOutbox) {
        for index in 0..self.subtrees.len() {
            if !self.subtrees[index].is_live {
                self.proven(now, index, out);
            }
        }
    }

    /// The broker is silent. Subscriptions stay; the transport connects again.
    pub(super) fn lost(&mut self, now: Time, out: &mut impl ClientOutbox) {
        self.stats.losts += 1;
        self.events.push(Event::Lost);
        let patience = if self.is_extended() { REPLACED } else { HEARTBEATLESS };
        self.is_online = false;
        self.has_heartbeats = false;
        self.tells = Tells::Unknown;
        self.broker = None;
        self.last = None;
        self.blocked_until = None;
        self.echo.lost(now);
        for index in 0..self.subtrees.len() {
            self.subtrees[index].is_quiet = false;
            self.await_proof(now, index, out);
        }
        self.ask_unproven_at = match self.servers.are_extended() {
            true => Time::NEVER,
            false => now + patience,
        };
        self.ask_kind_soon(now);
        self.wake_at(self.ask_unproven_at);
    }
}
