//! The broker as one of a pair: what it knows of its peer, and what it does about it.
//!
//! | noun | file | what it knows |
//! |---|---|---|
//! | peer | `peer.rs` | what the other has said of itself, and whether that can be |
//! | listeners | `listeners.rs` | who is to be told of us |
//! | verdict | `verdict.rs` | which role to take: pure |
//! | roles | `roles.rs` | what a change of role does |
//! | follow | `../follow.rs` | taking over the state of the active, and keeping up with it |
//! | ring | `ring.rs` | changes that came while passive |
//! | tail | `tail.rs` | what only we had, and what only the other had |
//! | refusals | `refusals.rs` | what only we have refused |
//! | stream | `stream.rs` | each change on its way to the standby |
//! | safe | `safe.rs` | what a standby has confirmed |

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
use self::stream::{Changes, Stream};
use self::tail::{HandedOver, Tail};
use super::follow::{self, BacklogLimits, Follow, FollowStats, PATIENCE};
use super::recent::Recent;
use super::snapshots::Request;
use super::{Broker, BrokerOutbox, warn_rarely};
use crate::clone::kvmsg::{HUGZ, KvMsg, PEER, Uuid, is_reserved};
use crate::clone::pair::{Lineage, PairConfig, Role, Root, Seat};
use crate::clone::properties::PropertiesBuf;
use crate::clone::sequence::Sequence;
use crate::clone::store::Store;
use crate::message::Message;
use crate::time::Time;

/// A position that has moved is told after this long at most.
const PUSH_AFTER: Duration = Duration::from_millis(1);

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

    /// Adds a change that is published to what the standby gets. Kept out of the path of a
    /// broker that is alone.
    #[inline(never)]
    pub(super) fn stream(&mut self, now: Time, change: &KvMsg<'_>, out: &mut impl BrokerOutbox) {
        if self.stream.add(change) {
            self.flush_stream(now, out);
        }
    }

    fn flush_stream(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if !self.stream.flush(now, out) {
            self.stats.stream_dropped += 1;
            let why = &"its queue is full; it will ask for them";
            warn_rarely(self.stats.stream_dropped, "changes not sent to the standby", why);
        }
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
                "the state up to {:?} is lost beyond {fork:?}: it is given up before what was                  handed over before is with the active",
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
        let mut next = pair.hello_at.min(pair.push_at).min(pair.listeners.deadline());
        next = next.min(pair.stream.deadline());
        if self.position() != pair.pushed && self.role != Role::Active {
            next = next.min(pair.listeners.told_at() + PUSH_AFTER);
        }
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

    /// Asks the peer to tell us of itself.
    fn say_hello(&mut self, out: &mut impl BrokerOutbox) {
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

    /// Tells our state to those who asked, if something is new or it is time.
    fn push_if_due(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(pair) = &self.pair else { return };
        let moved = self.position() != pair.pushed && self.role != Role::Active;
        let soon = moved && now >= pair.listeners.told_at() + PUSH_AFTER;
        if soon || now >= pair.push_at || pair.listeners.waits() {
            self.push(now, out);
        }
    }

    /// Turns to this active.
    pub(super) fn begin_follow(&mut self, now: Time, node: u64, out: &mut impl BrokerOutbox) {
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

    /// Tells the standby of a change that was refused, in its place among the others.
    pub(super) fn stream_refusal(
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

    /// Sends the standby what waits for it, and finds out who it is if that is in doubt.
    fn tend_stream(&mut self, now: Time, out: &mut impl BrokerOutbox) {
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

    /// Tells our state to those who asked.
    pub(super) fn push(&mut self, now: Time, out: &mut impl BrokerOutbox) {
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
            crate::clone::kvmsg::RESUBMIT => self.handle_resubmitted(now, &kvmsg, out),
            _ => pair.refuse(&"neither PEER? nor RESUBMIT"),
        }
    }

    /// Changes that the active has streamed to us.
    fn hear_changes(&mut self, now: Time, changes: Changes<'_>, out: &mut impl BrokerOutbox) {
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
