//! [`Servers`]: which of several servers the client is at, and when it turns to the next.

use std::time::Duration;

use super::Client;
use super::attempt::Target;
use super::broker_info::BrokerInfo;
use super::event::Event;
use super::outbox::ClientOutbox;
use super::subtree::{SubtreeState, back_off};
use crate::clone::kvmsg::{HUGZ, ICANHAZ, KvMsg, STATUS};
use crate::time::Time;

/// How long to stay at a server that says nothing at all, at least two heartbeat
/// intervals: those that know the extensions answer at once.
const SHORTEST_STAY: Duration = Duration::from_millis(300);
/// The same from the second round on, if none that does was ever heard: servers of RFC 12
/// send a heartbeat each second.
const RFC12_STAY: Duration = Duration::from_millis(1200);
/// A server without heartbeats that has answered is given so much longer.
const ANSWERED_STAY: Duration = Duration::from_secs(3);
/// How long to wait for a standby that is about to take over, beyond four intervals.
const TAKE_OVER: Duration = Duration::from_secs(1);
/// Heartbeat intervals within which a standby finds out that an active is silent which a
/// client has left for its silence: what it heard last may be an interval younger, and
/// both may be late.
const FINDS_OUT: u32 = 2;
/// A connection takes its time: votes are not cast more often.
const VOTE_EVERY: Duration = Duration::from_millis(100);
/// A server with an older history than one seen before is followed only after so many
/// heartbeat intervals without another.
const YIELD: u32 = 10;
/// A server of RFC 12 that answers so many requests with nothing serves nobody.
pub(super) const UNANSWERED: u32 = 2;

/// What to ask for only to be heard: no key begins so.
pub(super) const NOTHING: &[u8] = ICANHAZ;

#[derive(Debug)]
pub(super) struct Servers {
    count: usize,
    current: usize,
    /// Turns since one was last found to serve.
    turns: u32,
    /// While none does: when to turn to the next.
    pub(super) leave_at: Time,
    /// The server it is at has said that it serves.
    serves: bool,
    /// When to ask again to be heard.
    pub(super) vote_at: Time,
    /// The heartbeat interval last told.
    heartbeat: Duration,
    /// Whether one that knows the extensions was ever heard.
    are_extended: bool,
    /// Node and epoch of the one that last served.
    last: Option<(Option<u64>, u32)>,
    /// The highest epoch in which one served.
    epoch: u32,
    /// Since when only older ones are found.
    older_since: Option<Time>,
    /// When one that served was last left.
    left_at: Option<Time>,
    /// Votes since one of our changes had an answer.
    pub(super) votes_in_vain: u32,
}

impl Servers {
    pub(super) fn new(count: usize) -> Servers {
        Servers {
            count,
            current: 0,
            turns: 0,
            leave_at: Time::NEVER,
            serves: false,
            vote_at: Time::NEVER,
            heartbeat: Duration::from_secs(1),
            are_extended: false,
            last: None,
            epoch: 0,
            older_since: None,
            left_at: None,
            votes_in_vain: 0,
        }
    }

    /// Whether there is another one to turn to.
    pub(super) fn are_many(&self) -> bool {
        self.count > 1
    }

    /// Whether any that is found will answer at once.
    pub(super) fn are_extended(&self) -> bool {
        self.are_many() && self.are_extended
    }
}

impl Client {
    /// The number of the server it is at, from 0.
    pub fn server(&self) -> usize {
        self.servers.current
    }

    fn is_seeking(&self) -> bool {
        self.servers.are_many() && self.broker.is_none()
    }

    /// Begins to look whether the server it is at serves.
    pub(super) fn seek(&mut self, now: Time, out: &mut impl ClientOutbox) {
        if !self.servers.are_many() {
            return;
        }
        let rounds = self.servers.turns / self.servers.count as u32;
        let pause = back_off(rounds, self.next_random());
        let servers = &mut self.servers;
        servers.serves = false;
        let stay = match servers.are_extended {
            true => (servers.heartbeat * 2).max(SHORTEST_STAY),
            false if rounds == 0 => SHORTEST_STAY,
            false => RFC12_STAY,
        };
        servers.leave_at = now + stay + pause;
        self.vote_to_be_heard(now, out);
        self.wake_at(self.servers.leave_at);
    }

    /// A standby takes over only if somebody asks.
    fn vote_to_be_heard(&mut self, now: Time, out: &mut impl ClientOutbox) {
        self.servers.vote_at = now + self.servers.heartbeat.max(VOTE_EVERY);
        self.wake_at(self.servers.vote_at);
        if self.attempt.as_ref().is_none_or(|attempt| attempt.target == Target::Vote) {
            self.stats.votes += 1;
            self.attempt = None;
            self.vote(now, NOTHING, out);
        }
    }

    /// A vote was answered by this server, or what was asked to find out what it is.
    pub(super) fn vote_answered(
        &mut self,
        now: Time,
        info: Option<BrokerInfo>,
        out: &mut impl ClientOutbox,
    ) {
        if let (None, Some(info)) = (self.broker, info) {
            self.found_out(now, info, out);
        }
        if self.is_seeking() && !self.servers.are_extended {
            self.servers.leave_at = self.servers.leave_at.max(now + ANSWERED_STAY);
        }
    }

    /// Does what is due while no server serves.
    pub(super) fn check_servers(&mut self, now: Time, out: &mut impl ClientOutbox) {
        if !self.is_seeking() {
            return;
        }
        if self.judged_at(self.servers.leave_at) <= now {
            self.turn(now, out);
        } else if self.servers.vote_at <= now {
            if self.servers.serves {
                // It may have no room for heartbeats of our subtrees.
                self.subscribe_plain(out);
            }
            self.vote_to_be_heard(now, out);
        }
    }

    pub(super) fn servers_deadline(&self) -> Time {
        match self.is_seeking() {
            true => self.judged_at(self.servers.leave_at).min(self.servers.vote_at),
            false => Time::NEVER,
        }
    }

    /// The server serves no more: to the next one, if there is one.
    pub(super) fn leave(&mut self, now: Time, out: &mut impl ClientOutbox) {
        self.lost(now, out);
        if self.servers.are_many() {
            self.servers.left_at = Some(now);
            self.turn(now, out);
        }
    }

    fn turn(&mut self, now: Time, out: &mut impl ClientOutbox) {
        let servers = &mut self.servers;
        servers.current = (servers.current + 1) % servers.count;
        servers.turns = servers.turns.saturating_add(1);
        self.stats.turns += 1;
        self.events.push(Event::Turned { server: self.servers.current });
        self.attempt = None;
        if !self.reaches_all {
            self.collector = None;
        }
        let is_plain = !self.servers.are_extended || self.needs_plain();
        for subtree in &mut self.subtrees {
            // It may have asked a server without heartbeats.
            subtree.state = SubtreeState::Waiting;
            // Subscribed only when the server is heard, unless it proves itself.
            let stays = subtree.proves_itself();
            if !stays && std::mem::take(&mut subtree.watch.is_subscribed) {
                self.topics.forget(&subtree.topic);
            }
        }
        if !is_plain && std::mem::take(&mut self.has_plain) {
            self.topics.forget(HUGZ);
        }
        out.turn_to(self.servers.current);
        self.topics.renew_all(out);
        if !self.servers.are_extended {
            self.ask_unproven_at = now + super::HEARTBEATLESS;
        }
        self.seek(now, out);
        self.wake_at(self.ask_unproven_at);
    }

    /// A server said what it does: the answer to a subscription that means nothing to
    /// servers of RFC 12.
    pub(super) fn told_status(
        &mut self,
        now: Time,
        kvmsg: &KvMsg<'_>,
        out: &mut impl ClientOutbox,
    ) {
        if !self.servers.are_many() {
            return;
        }
        let properties = kvmsg.properties;
        let is_active = matches!(properties.get("role"), Some(b"active" | b"relay"));
        if let Some(info) = BrokerInfo::read_any(kvmsg, &self.config) {
            self.servers.heartbeat = info.heartbeat;
            self.servers.are_extended = true;
            self.ask_unproven_at = Time::NEVER;
        }
        if !self.is_seeking() {
            if !is_active {
                self.leave(now, out);
            }
            return;
        }
        let interval = self.servers.heartbeat;
        let servers = &mut self.servers;
        servers.serves = is_active;
        match properties.get("peer") {
            // Its heartbeats come.
            _ if is_active => servers.leave_at = servers.leave_at.max(now + interval * 2),
            Some(b"live") => {
                // It may find out in a moment what we know of the other one.
                let finds_out = interval * FINDS_OUT;
                servers.leave_at = servers.left_at.map_or(now, |left| now.max(left + finds_out));
                let rounds = servers.turns / servers.count as u32;
                let pause = back_off(rounds, self.next_random());
                self.servers.leave_at += pause;
            }
            _ => servers.leave_at = now + (interval * 4).max(TAKE_OVER),
        }
        self.wake_at(self.servers.leave_at);
    }

    /// Whether to follow the server that says this of itself. It may have come back with
    /// an older history than the one we followed.
    pub(super) fn may_follow(&mut self, now: Time, info: &BrokerInfo) -> bool {
        let servers = &mut self.servers;
        if !servers.are_many() || !info.extended {
            return true;
        }
        servers.heartbeat = info.heartbeat;
        servers.are_extended = true;
        if info.epoch < servers.epoch {
            let since = *servers.older_since.get_or_insert(now);
            if now < since + info.heartbeat * YIELD {
                return false;
            }
        }
        servers.epoch = info.epoch;
        servers.older_since = None;
        true
    }

    /// One that must not be followed, or does not serve, is heard.
    pub(super) fn turn_away(&mut self, now: Time, out: &mut impl ClientOutbox) {
        if !self.servers.are_many() {
            return;
        }
        if !self.is_seeking() {
            return self.leave(now, out);
        }
        let rounds = self.servers.turns / self.servers.count as u32;
        let pause = back_off(rounds, self.next_random());
        self.servers.leave_at = self.servers.leave_at.min(now + pause);
        self.wake_at(self.servers.leave_at);
    }

    /// A server is found that serves. True: another one than before, or in another
    /// epoch, which may not have what the one before was sent.
    pub(super) fn found(&mut self, info: &BrokerInfo) -> bool {
        let servers = &mut self.servers;
        servers.turns = 0;
        (servers.leave_at, servers.vote_at) = (Time::NEVER, Time::NEVER);
        let identity = (info.node, info.epoch);
        let before = servers.last.replace(identity);
        info.extended && before.is_some_and(|before| before != identity)
    }

    /// Whether the server found is another than the last one.
    pub(super) fn is_another(&self, info: &BrokerInfo) -> bool {
        self.servers.last.is_some_and(|(node, _)| node != info.node)
    }

    pub(super) fn is_status(kvmsg: &KvMsg<'_>) -> bool {
        kvmsg.key == STATUS
    }
}
