//! What happens when nothing happens: deadlines of the client.

use std::time::Duration;

use super::Client;
use super::attempt::Target;
use super::event::ResyncReason;
use super::outbox::ClientOutbox;
use super::presence::{ASK_AGAIN, REPLACED};
use super::servers::NOTHING;
use super::subtree::SubtreeState;
use crate::clone::fault::Fault;
use crate::time::Time;

/// So many requests for a subtree's heartbeat without an answer, the last two while others
/// were heard: the broker does not send it.
const ASKED_ENOUGH: u32 = 3;

/// So many times it is asked for before the plain heartbeat is, too.
const RENEWED_ENOUGH: u32 = 2;

/// For how long [`Client::handle_backlog`] holds.
const BEHIND: Duration = Duration::from_millis(20);

impl Client {
    /// Tells that messages of the broker wait which have not been handed in: the
    /// owner is behind.
    ///
    /// For the next 20 ms nothing is then judged by its absence: the broker is not
    /// taken for silent, a snapshot not for stalled, a change not for lost (and it
    /// is given up only after twice [`give_up_after`](super::ClientConfig::give_up_after)).
    /// To be said before [`handle_timeout`](Client::handle_timeout) as long as it is so.
    pub fn handle_backlog(&mut self, now: Time) {
        self.behind_until = now + BEHIND;
        self.wake_at(self.behind_until);
    }

    /// Does what is due. To be called at [`next_deadline`](Client::next_deadline),
    /// but at any time no harm.
    pub fn handle_timeout(&mut self, now: Time, out: &mut impl ClientOutbox) {
        if self.wake > now {
            return;
        }
        self.check_silence(now, out);
        for index in 0..self.subtrees.len() {
            self.check_subtree(now, index, out);
        }
        if let Some(attempt) =
            self.attempt.as_ref().filter(|attempt| self.judged_at(attempt.deadline) <= now)
        {
            self.stats.stalled += 1;
            match attempt.target {
                Target::Subtree(index) => self.fail(now, index, out),
                Target::Vote => self.attempt = None,
            }
        }
        self.ask_next(now, out);
        self.check_changes(now, out);
        self.wake = self.next_wake(now);
    }

    fn check_silence(&mut self, now: Time, out: &mut impl ClientOutbox) {
        if self.silent_at() <= now {
            self.leave(now, out);
        }
        self.check_servers(now, out);
        if self.judged_at(self.ask_kind_at) <= now {
            self.ask_kind_at = Time::NEVER;
            self.vote(now, NOTHING, out);
        }
        if self.judged_at(self.ask_unproven_at) <= now {
            self.ask_unproven_at = Time::NEVER;
            for index in 0..self.subtrees.len() {
                if self.subtrees[index].state == SubtreeState::Waiting {
                    self.queue(now, index);
                }
            }
        }
    }

    /// When the broker will have been silent for too long.
    fn silent_at(&self) -> Time {
        match self.broker {
            _ if Fault::NeverLost.is_planted() => Time::NEVER,
            Some(broker) if self.has_heartbeats && self.is_online => {
                self.judged_at(self.heard + broker.patience(&self.config))
            }
            // Only its snapshots came so far.
            Some(_) if !self.is_online => self.judged_at(self.heard + REPLACED),
            _ => Time::NEVER,
        }
    }

    fn check_subtree(&mut self, now: Time, index: usize, out: &mut impl ClientOutbox) {
        if self.unwatched_at(index) <= now {
            self.leave_current(index, ResyncReason::Unwatched);
            self.await_proof(now, index, out);
        }
        let is_behind = self.behind_until > now;
        let subtree = &mut self.subtrees[index];
        if subtree.watch.ask_at <= now && !is_behind {
            subtree.watch.renewed += 1;
            let is_missing = subtree.watch.renewed >= RENEWED_ENOUGH;
            // Nothing at all comes from a broker that is not heard.
            subtree.watch.asked += u32::from(self.is_online);
            if subtree.watch.renewed > ASKED_ENOUGH && subtree.watch.asked > 1 {
                // Its changes are asked for instead, as proof must do the
                // plain heartbeat.
                subtree.watch.is_absent = true;
                subtree.watch.ask_at = Time::NEVER;
                self.proven(now, index, out);
            } else {
                subtree.watch.ask_at = now + ASK_AGAIN;
                self.topics.renew(&subtree.topic, out);
                if is_missing {
                    // That tells whether it is the broker or the subtree that is silent.
                    self.subscribe_plain(out);
                }
            }
        }
        if self.subtrees[index].state == SubtreeState::Current
            && self.subtrees[index].poll_at <= now
        {
            self.poll_if_silent(now, index, out);
        }
    }

    /// Asks for changes that nothing else would tell of.
    fn poll_if_silent(&mut self, now: Time, index: usize, out: &mut impl ClientOutbox) {
        let subtree = &mut self.subtrees[index];
        let silent_at = self.heard + self.config.heartbeat_timeout;
        if subtree.watch.is_absent {
            // Perhaps the broker has room for another watch by now.
            self.topics.renew(&subtree.topic, out);
        } else if silent_at > now {
            subtree.poll_at = silent_at;
            return;
        }
        subtree.poll_at = Time::NEVER;
        self.poll(now, index, out);
    }

    /// When a subtree's own heartbeats will have been missing for too long.
    fn unwatched_at(&self, index: usize) -> Time {
        let watch = &self.subtrees[index].watch;
        match self.broker {
            Some(broker) if broker.extended && self.is_online && watch.baseline.is_some() => {
                self.judged_at(watch.heard + broker.watch_patience(&self.config))
            }
            _ => Time::NEVER,
        }
    }

    fn next_wake(&self, now: Time) -> Time {
        let mut wake = self.silent_at().min(self.judged_at(self.ask_unproven_at));
        wake = wake.min(self.judged_at(self.ask_kind_at));
        wake = wake.min(self.changes_deadline(now)).min(self.servers_deadline());
        if let Some(attempt) = &self.attempt {
            wake = wake.min(self.judged_at(attempt.deadline));
        }
        for (index, subtree) in self.subtrees.iter().enumerate() {
            wake = wake.min(self.unwatched_at(index));
            wake = wake.min(self.judged_at(subtree.watch.ask_at));
            match subtree.state {
                SubtreeState::Current => wake = wake.min(subtree.poll_at),
                SubtreeState::Queued if self.attempt.is_none() => wake = wake.min(subtree.ask_at),
                _ => {}
            }
        }
        wake
    }
}

/// How long a change may be unanswered before a server that sends heartbeats
/// all the time is taken for wedged.
pub(super) const WEDGED_AFTER: Duration = Duration::from_secs(2);
/// A wedged server is asked at most this often.
pub(super) const VOTE_EVERY: Duration = Duration::from_secs(5);
