//! The broker as one of a pair: what it knows of its peer, and what it does about it.
//!
//! | noun | file | what it knows |
//! |---|---|---|
//! | peer | `peer.rs` | what the other has said of itself, and whether that can be |
//! | line | `line.rs` | what the two say to each other of themselves |
//! | listeners | `listeners.rs` | who is to be told of us |
//! | verdict | `verdict.rs` | which role to take: pure |
//! | roles | `roles.rs` | what a change of role does |
//! | follow | `../follow.rs` | taking over the state of the active, and keeping up with it |
//! | ring | `ring.rs` | changes that came while passive |
//! | tail | `tail.rs` | what only we had, and what only the other had |
//! | refusals | `refusals.rs` | what only we have refused |
//! | stream | `stream.rs` | each change on its way to the standby |
//! | safe | `safe.rs` | what a standby has confirmed |

mod line;
mod listeners;
mod peer;
mod refusals;
mod ring;
mod roles;
mod safe;
mod stats;
mod stream;
mod tail;
mod verdict;

use std::collections::VecDeque;
use std::time::Duration;

use smallvec::SmallVec;

use self::listeners::Listeners;
use self::peer::PeerStatus;
use self::refusals::Refusals;
use self::ring::Ring;
use self::safe::Safe;
pub use self::stats::PairStats;
use self::stream::Stream;
use self::tail::{HandedOver, Tail};
use super::follow::{self, Follow, FollowStats};
use super::recent::Recent;
use super::snapshots::Request;
use super::{Broker, BrokerOutbox, warn_rarely};
use crate::clone::pair::{Lineage, PairConfig, Role, Root, Seat};
use crate::clone::properties::PropertiesBuf;
use crate::clone::sequence::Sequence;
use crate::clone::store::Store;
use crate::time::Time;

/// Heartbeat intervals of silence after which the peer counts as gone.
const SILENT_INTERVALS: u32 = 2;

/// Heartbeat intervals for which a client's request is a vote.
const VOTE_INTERVALS: u32 = 4;

/// What a broker of a pair knows beyond a lone one.
#[derive(Debug)]
pub(super) struct Pair {
    config: PairConfig,
    /// Its place, which a peer in the same place can change.
    seat: Seat,
    /// Whether the store holds a whole state, be it empty.
    has_state: bool,
    /// The highest epoch that was heard of.
    heard_epoch: u32,
    /// What the peer said last, and when.
    peer: Option<PeerStatus>,
    heard: Option<Time>,
    /// It was not heard since, and we have not been listening for a part of that.
    is_excused: bool,
    /// The longer heartbeat interval of the two brokers.
    interval: Duration,
    started: Time,
    /// When a verdict was last made.
    tended: Time,
    /// When our position was last seen to be what the peer said of its own.
    current_at: Time,
    /// Orders to promote (true) or demote, with who gave them.
    orders: Vec<(SmallVec<[u8; 16]>, bool)>,
    listeners: Listeners,
    hello_at: Time,
    push_at: Time,
    pushed: Sequence,
    stream: Stream,
    /// When a client asked last, unless that has no time yet.
    vote: Option<Time>,
    has_new_vote: bool,
    safe: Safe,
    ring: Ring,
    /// Told to promote: the active is asked to hand over until then.
    want_until: Option<Time>,
    /// Handed over at this sequence: does not take it back before then.
    yielded: Option<(Sequence, Time)>,
    tail: Option<Tail>,
    /// What we have refused while the other was active, too, until that one has it.
    refusals: Option<Refusals>,
    /// What the loser has handed over of that.
    refusals_handed: Option<refusals::Handed>,
    /// Where we were when the peer was last heard without a history other than ours.
    together: Sequence,
    /// The other history it was heard of with last, and where we were before that.
    apart: Option<(Root, Sequence)>,
    /// What the loser has handed over: who sent it, what it is based on.
    resubmits: VecDeque<(SmallVec<[u8; 16]>, Sequence, HandedOver)>,
    role_change: Option<(Role, u32)>,
    stats: PairStats,
}

impl Pair {
    pub(super) fn new(config: PairConfig, now: Time) -> Pair {
        Pair {
            config,
            seat: config.seat,
            has_state: false,
            heard_epoch: 0,
            peer: None,
            heard: None,
            is_excused: false,
            interval: Duration::ZERO,
            started: now,
            tended: now,
            current_at: now,
            orders: Vec::new(),
            listeners: Listeners::default(),
            hello_at: now,
            push_at: now,
            pushed: Sequence::ZERO,
            stream: Stream::default(),
            vote: None,
            has_new_vote: false,
            safe: Safe::new(config.policy),
            ring: Ring::new(&config),
            want_until: None,
            yielded: None,
            tail: None,
            refusals: None,
            refusals_handed: None,
            together: Sequence::ZERO,
            apart: None,
            resubmits: VecDeque::new(),
            role_change: None,
            stats: PairStats::default(),
        }
    }

    /// When the peer counts as silent, if it was ever heard.
    fn silent_at(&self) -> Option<Time> {
        Some(self.heard? + self.interval * SILENT_INTERVALS)
    }

    /// The peer has just been heard.
    fn hear(&mut self, now: Time) {
        (self.heard, self.is_excused) = (Some(now), false);
    }

    /// After a long call, a pause of the process or of the machine, what the peer has said
    /// meanwhile is still to be read. That must not pass for its silence, or both would be
    /// active: it has half an interval more to be heard, once.
    fn excuse_silence(&mut self, now: Time, heartbeat: Duration) {
        // A timer is due each heartbeat interval at least.
        let was_away = now.since(self.tended) > heartbeat * 5 / 4;
        if was_away && !self.is_excused && self.is_live(self.tended) {
            let heard = now.since(Time::ZERO).saturating_sub(self.interval * 3 / 2);
            self.heard = self.heard.max(Some(Time::ZERO + heard));
            self.is_excused = true;
        }
    }

    fn is_live(&self, now: Time) -> bool {
        self.silent_at().is_some_and(|at| now < at)
    }

    /// Whether a client has asked of late.
    fn has_vote(&self, now: Time) -> bool {
        self.vote.is_some_and(|at| now <= at + self.interval * VOTE_INTERVALS)
    }

    /// The peer in one word, for who asks what this broker is.
    pub(super) fn peer_state(&self, now: Time) -> &'static str {
        match self.heard {
            None => "none",
            Some(_) if self.is_live(now) => "live",
            Some(_) => "silent",
        }
    }

    /// What heartbeats say on top of those of a lone broker.
    pub(super) fn announce(&self, sequence: Sequence, lineage: &Lineage, to: &mut PropertiesBuf) {
        to.push("stable", self.safe.stable(sequence));
        to.push("standby", self.safe.standby().name());
        to.push("policy", self.config.policy.name());
        lineage.announce(to);
    }

    /// For how long the standby has lacked the oldest of what it lacks, as far as the
    /// broker that says it knows: the active by when its first change came that was not
    /// confirmed, the standby by when it was last where the active said to be.
    fn lag(&self, sequence: Sequence, recent: &Recent) -> Option<Duration> {
        let peer = self.peer.as_ref()?;
        let is_standby = peer.role == Role::Active;
        let behind = if is_standby { sequence } else { peer.position };
        if behind >= sequence.max(peer.position) {
            return Some(Duration::ZERO);
        }
        let now = self.tended.max(recent.last_at().unwrap_or_default());
        let since = match is_standby {
            true => self.current_at,
            false => recent.first_after(behind)?,
        };
        Some(now.since(since))
    }

    /// What `STATUS?` says on top.
    pub(super) fn figures(
        &self,
        sequence: Sequence,
        followed: FollowStats,
        recent: &Recent,
        to: &mut PropertiesBuf,
    ) {
        to.push("seat", self.seat);
        to.push("peer", self.peer_state(self.tended));
        to.push("state", if self.has_state { "whole" } else { "none" });
        if let Some(peer) = &self.peer {
            to.push("peer_node", format_args!("{:016x}", peer.node));
            to.push("peer_role", peer.role);
            to.push("peer_position", peer.position);
            to.push("peer_epoch", peer.position.epoch());
            let (ahead, behind) = (sequence.max(peer.position), sequence.min(peer.position));
            if ahead.epoch() == behind.epoch() {
                to.push("lag_changes", ahead.get() - behind.get());
                if let Some(lag) = self.lag(sequence, recent) {
                    to.push("lag_ms", lag.as_millis());
                }
            }
        }
        to.push("changes_held", self.ring.len());
        for (name, count) in self.stats.with(followed).fields() {
            to.push(name, count);
        }
    }

    /// The history of the peer's state, if it has one.
    pub(super) fn peer_lineage(&self) -> Option<&Lineage> {
        self.peer.as_ref()?.lineage.as_ref()
    }

    pub(super) fn has_state(&self) -> bool {
        self.has_state
    }

    pub(super) fn set_state(&mut self, has_state: bool) {
        self.has_state = has_state;
    }

    /// Keeps what only we had, when another's state takes its place, which is at `position`.
    pub(super) fn keep_tail(
        &mut self,
        store: Store,
        recent: &Recent,
        fork: Sequence,
        position: Sequence,
    ) {
        self.ring.begin_anew(fork, position);
        // Numbers of the former say nothing in this one, which the peer has, too.
        (self.together, self.apart) = (position, None);
        match &self.tail {
            _ if !self.has_state => {}
            None => self.tail = Some(Tail::new(store, recent, fork)),
            // What is given up now came from an active, which has given it up, too: only another
            // program in the peer's place can have done that.
            Some(_) => log::error!(
                "the state up to {:?} is lost beyond {fork:?}: it is given up before what was \
                 handed over before is with the active",
                store.sequence()
            ),
        }
    }

    /// The one that we follow was heard to be at this position.
    #[inline]
    pub(super) fn hear_position(&mut self, node: u64, position: Sequence) {
        self.ring.hear(node, position);
    }

    /// A message of the peer, or of one who claims to be it, was refused.
    pub(super) fn refuse(&mut self, why: &dyn std::fmt::Display) {
        self.stats.peer_refused += 1;
        warn_rarely(self.stats.peer_refused, "message of the peer refused", why);
    }
}

impl Broker {
    /// The role it has. A lone broker is always active.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What it counted as one of a pair; `None` for a lone broker.
    pub fn pair_stats(&self) -> Option<PairStats> {
        self.pair.as_ref().map(|pair| pair.stats.with(self.follow_stats))
    }

    /// The role that it has come into since this was last asked, and the epoch of
    /// its state: what `--on-active` and `--on-passive` hang on. If there were several,
    /// the last.
    pub fn poll_role(&mut self) -> Option<(Role, u32)> {
        self.pair.as_mut()?.role_change.take()
    }

    /// Whether [`poll_role`](Broker::poll_role) has something to tell.
    pub(crate) fn has_role_change(&self) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.role_change.is_some())
    }

    /// Where its state is: all up to here is in the store; zero without a whole state.
    fn position(&self) -> Sequence {
        if self.has_state() { self.sequence } else { Sequence::ZERO }
    }

    /// Does what is due between the two brokers.
    pub(super) fn tend_pair(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let (heartbeat, position) = (self.config.heartbeat, self.position());
        let Some(pair) = self.pair.as_deref_mut() else { return };
        pair.interval = pair.interval.max(heartbeat);
        pair.excuse_silence(now, heartbeat);
        if pair.peer.as_ref().is_none_or(|peer| position >= peer.position) {
            pair.current_at = now;
        }
        if std::mem::take(&mut pair.has_new_vote) {
            pair.vote = Some(now);
        }
        pair.stream.is_doubtful |= pair.listeners.tend(now, pair.interval);
        pair.ring.forget_old(now, &mut pair.stats);
        self.tend_stream(now, out);
        let Some(pair) = self.pair.as_deref_mut() else { return };
        if now >= pair.hello_at {
            pair.hello_at = now + heartbeat;
            self.say_hello(out);
        }
        self.obey(now, out);
        self.take_resubmits(now, out);
        self.decide(now, out);
        self.tend_follow(now, out);
        self.tend_tail(now, out);
        self.tend_refusals(now, out);
        self.tend_safe(now, out);
        self.push_if_due(now, out);
    }

    pub(super) fn next_pair_deadline(&self) -> Time {
        let Some(pair) = &self.pair else { return Time::NEVER };
        if pair.stream.is_doubtful
            || pair.has_new_vote
            || !pair.orders.is_empty()
            || !pair.resubmits.is_empty()
            || pair.refusals_handed.is_some()
        {
            return Time::ZERO;
        }
        let mut next = pair.hello_at.min(self.push_deadline(pair)).min(pair.stream.deadline());
        for other in [
            self.verdict_deadline(pair),
            self.follow.as_ref().map(Follow::deadline),
            pair.tail.as_ref().map(Tail::deadline),
            self.refusals_deadline(),
            pair.safe.deadline(self.sequence, self.role),
        ] {
            next = next.min(other.unwrap_or(Time::NEVER));
        }
        next
    }

    /// No change of ours up to here is newer than the beginning of the other history that the
    /// peer had last.
    pub(super) fn apart_since(&self) -> Sequence {
        let apart = self.pair.as_deref().and_then(|pair| pair.apart);
        apart.map_or(Sequence::ZERO, |(_, since)| since).max(self.lineage.root().start)
    }

    /// Two brokers in one place: one of them takes the other.
    fn resolve_seats(&mut self) {
        let (role, node) = (self.role, self.config.node);
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let Some(peer) = pair.peer.as_ref().filter(|peer| peer.seat == pair.seat) else { return };
        pair.stats.same_seat += 1;
        if pair.stats.same_seat.is_power_of_two() {
            log::error!(
                "the peer {:016x} calls itself {}, too: one of the two must be given the other \
                 --pair",
                peer.node,
                pair.seat
            );
        }
        let yields = match (role == Role::Active, peer.role == Role::Active) {
            (false, true) => true,
            (true, false) => false,
            _ => node > peer.node,
        };
        if yields {
            pair.seat = pair.seat.other();
        }
    }

    /// A client has asked while nobody could be served here.
    pub(super) fn vote(&mut self, request: &Request) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        if request.replica {
            return;
        }
        pair.stats.votes += 1;
        pair.has_new_vote = true;
        if self.snapshots.make_room(pair.config.held_requests) {
            pair.stats.held_dropped += 1;
            warn_rarely(pair.stats.held_dropped, "request dropped", &"too many are held");
        }
    }
}
