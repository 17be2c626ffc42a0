//! Following another broker: taking over its state, and keeping up with it. A standby
//! follows its active so, and a relay its upstream. `follow/sync.rs` takes over a state as a
//! whole; here is what comes before and after. What comes meanwhile waits in
//! `follow/backlog.rs`; what is missing of a subtree shows in `follow/counted.rs`.

mod backlog;
mod counted;
mod sync;

use std::time::Duration;

use self::backlog::Backlog;
pub(super) use self::backlog::BacklogLimits;
use self::counted::{Counted, proven};
use self::sync::Sync;
use super::changes::HOP_BY_HOP;
use super::{Broker, BrokerOutbox, publish, warn_rarely};
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{HUGZ, KvMsg, Limits, is_reserved};
use crate::clone::properties::PropertiesBuf;
use crate::clone::sequence::Sequence;
use crate::clone::store::{Change, Store, StoreFull};
use crate::message::Message;
use crate::time::Time;

/// A sync that makes no progress for so long is begun anew.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Changes that waited for a sync applied in one call, between which everything
/// else is served.
const BACKLOG_AT_ONCE: usize = 1000;

/// What is counted of the following.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct FollowStats {
    pub(super) syncs: u64,
    pub(super) delta_syncs: u64,
    pub(super) syncs_failed: u64,
    pub(super) follow_gaps: u64,
    pub(super) followed: u64,
    pub(super) backlogs_cut: u64,
}

/// How another broker is followed.
#[derive(Debug)]
pub(super) struct Follow {
    /// The run of the broker that is followed; zero before a relay's upstream was heard.
    node: u64,
    /// There was a sync with that one since.
    pub(super) has_position: bool,
    /// Keys that begin so are followed: all, for one of a pair.
    subtree: Box<[u8]>,
    /// Of a subtree: what came since it was last known to be whole.
    counted: Counted,
    stage: Stage,
    /// When the stage has lasted too long.
    until: Time,
    /// What the active published while a sync was under way.
    backlog: Backlog,
    /// A delta was too large to be kept until its end: the whole is asked for.
    needs_whole: bool,
    /// Changes that the active has refused, as far as they are known here.
    refusals: u64,
}

#[derive(Debug)]
enum Stage {
    /// Waits for a heartbeat, which proves that the subscription is live.
    Proving,
    /// A snapshot or a delta is under way.
    Syncing(Box<Sync>),
    /// Each change is applied as it comes, once the backlog is.
    Live,
}

impl Follow {
    pub(super) fn new(node: u64, subtree: &[u8], limits: BacklogLimits, until: Time) -> Follow {
        Follow {
            node,
            has_position: false,
            subtree: subtree.into(),
            counted: Counted::default(),
            stage: Stage::Proving,
            until,
            backlog: Backlog::new(limits),
            needs_whole: false,
            refusals: 0,
        }
    }

    pub(super) fn node(&self) -> u64 {
        self.node
    }

    /// Whether it is the whole tree that is followed.
    fn is_all(&self) -> bool {
        self.subtree.is_empty()
    }

    /// Whether something may be missing below our position.
    pub(super) fn is_doubtful(&self) -> bool {
        !self.is_all() && (self.needs_whole || self.counted.received > 0)
    }

    /// Nothing less than the whole will do.
    pub(super) fn ask_whole(&mut self) {
        self.needs_whole = true;
    }

    /// The upstream is another, or has begun another epoch: begins with a sync.
    pub(super) fn prove_again(&mut self) {
        self.stage = Stage::Proving;
        self.backlog.clear();
        self.until = Time::NEVER;
    }

    /// Another run is followed from now on. False: it was this one before.
    pub(super) fn turn_to(&mut self, node: u64) -> bool {
        std::mem::replace(&mut self.node, node) != node
    }

    /// Whether a subtree is whole its next heartbeat tells: asks for it, once for each
    /// snapshot.
    fn ask_count(&mut self, out: &mut impl BrokerOutbox) {
        let is_all = self.is_all();
        if let Stage::Syncing(sync) = &mut self.stage
            && !is_all
            && !std::mem::replace(&mut sync.has_asked, true)
        {
            out.ask_heartbeat();
        }
    }

    /// Whether each change after `end` is in the backlog up to `whole`. `None`: one is
    /// missing, and will not come.
    fn covers(&self, end: Sequence, whole: Sequence) -> Option<bool> {
        match self.is_all() {
            true => self.backlog.covers(end, whole),
            false => Some(self.backlog.is_cut() || self.counted.whole_at >= whole),
        }
    }

    /// Whether each change is applied as it comes.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live)
    }

    /// Whose changes our position counts: nobody's before the first sync. From then on it
    /// does, also while a gap is healed.
    pub(super) fn followed(&self) -> Option<u64> {
        self.has_position.then_some(self.node)
    }

    pub(super) fn deadline(&self) -> Time {
        match self.stage {
            Stage::Live if self.backlog.is_empty() => Time::NEVER,
            Stage::Live => Time::ZERO,
            _ => self.until,
        }
    }
}

/// Puts a change of another broker into a store, under the number it has there.
/// Deadlines count from now, so they are never before the other's.
fn take_over(
    store: &mut Store,
    kvmsg: &KvMsg<'_>,
    now: Time,
    scratch: &mut PropertiesBuf,
) -> Result<(), StoreFull> {
    let mut properties = kvmsg.properties;
    let ttl = properties.parse::<u64>("ttlms").map(Duration::from_millis);
    if HOP_BY_HOP.iter().any(|name| properties.get(name).is_some()) {
        scratch.clear();
        scratch.copy_except(kvmsg.properties, &HOP_BY_HOP);
        properties = scratch.as_properties();
    }
    if kvmsg.body.is_empty() {
        store.bury(kvmsg.key, kvmsg.sequence, kvmsg.uuid, properties);
        return Ok(());
    }
    store.put(&Change {
        key: kvmsg.key,
        sequence: kvmsg.sequence,
        uuid: kvmsg.uuid,
        properties,
        value: kvmsg.body,
        deadline: ttl.map(|ttl| now + ttl),
    })
}

/// Limits for what comes from another broker: its properties are longer than a client's.
pub(super) fn limits(limits: &Limits) -> Limits {
    let mut limits = *limits;
    limits.max_properties = limits.max_properties.max(64 << 10);
    limits.max_value = limits.max_value.max(64 << 10);
    limits
}

impl Broker {
    /// Turns away from whom it follows: what that one published and we have is applied
    /// first.
    pub(super) fn end_follow(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        self.drain_backlog(now, usize::MAX, out);
        if self.follow.take().is_some() && self.relay.is_some() {
            out.close_follow();
        }
    }

    /// Goes on with what is under way, or begins it anew.
    pub(super) fn tend_follow(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if !self.drain_backlog(now, BACKLOG_AT_ONCE, out) {
            self.sync(now, out);
        }
        let Some(follow) = &mut self.follow else { return };
        if now < follow.until {
            return;
        }
        let node = follow.node;
        match follow.stage {
            Stage::Live => {}
            // The connection may be the trouble: a new one.
            Stage::Proving => match self.relay {
                None => self.begin_follow(now, node, out),
                Some(_) => self.leave_upstream(now, "it sends no heartbeats", out),
            },
            Stage::Syncing(_) => {
                self.follow_stats.syncs_failed += 1;
                let failed = self.follow_stats.syncs_failed;
                warn_rarely(failed, "sync begun anew", &"it made no progress");
                self.sync(now, out);
            }
        }
    }

    /// Applies what came during a sync, at most so much. False: something is
    /// missing in it.
    fn drain_backlog(&mut self, now: Time, most: usize, out: &mut impl BrokerOutbox) -> bool {
        for _ in 0..most {
            let Some(follow) = &mut self.follow else { return true };
            if !matches!(follow.stage, Stage::Live) {
                return true;
            }
            let Some(change) = follow.backlog.pop() else {
                return !follow.backlog.take_cut();
            };
            if !self.follow_change(now, &change.kvmsg(), out) {
                // What is behind it comes with the sync.
                return false;
            }
        }
        true
    }

    /// Takes a message of the SUB at a relay's upstream.
    pub fn handle_peer_update(
        &mut self,
        now: Time,
        message: Message<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        let limits = limits(&self.config.limits);
        if self.follow.is_none() {
            return;
        }
        let kvmsg = match KvMsg::decode(message, &limits) {
            Ok(kvmsg) => kvmsg,
            // If it was a change, the next one shows that it is missing.
            Err(error) => return self.refuse_followed(&error),
        };
        if self.relay.is_some() && !self.hear_upstream(now, &kvmsg, out) {
            return;
        }
        let Some(follow) = &mut self.follow else { return };
        if kvmsg.key.strip_prefix(HUGZ) == Some(&*follow.subtree) {
            return self.followed_heartbeat(now, &kvmsg, out);
        }
        if is_reserved(kvmsg.key) || !kvmsg.key.starts_with(&follow.subtree) {
            // Heartbeats of other subtrees, and what answers other subscriptions.
            return;
        }
        follow.counted.take(kvmsg.sequence);
        self.hear_change(now, &kvmsg, out);
    }

    /// A change of whom we follow has come.
    pub(super) fn hear_change(
        &mut self,
        now: Time,
        kvmsg: &KvMsg<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        let Some(follow) = &mut self.follow else { return };
        match follow.stage {
            // The snapshot that is asked for after the proof has it.
            Stage::Proving => {}
            Stage::Live if follow.backlog.is_empty() => {
                if !self.follow_change(now, kvmsg, out) {
                    self.gap(now, kvmsg, out);
                }
            }
            Stage::Live => follow.backlog.keep(kvmsg, &mut self.follow_stats),
            Stage::Syncing(_) => {
                follow.backlog.keep(kvmsg, &mut self.follow_stats);
                self.finish_sync(now, out);
            }
        }
    }

    /// A message of whom we follow, or of one who claims to be it, was refused.
    pub(super) fn refuse_followed(&mut self, why: &dyn std::fmt::Display) {
        match (&mut self.pair, &mut self.relay) {
            (Some(pair), _) => pair.refuse(why),
            (None, Some(relay)) => relay.refuse(why),
            _ => {}
        }
    }

    fn followed_heartbeat(&mut self, now: Time, kvmsg: &KvMsg<'_>, out: &mut impl BrokerOutbox) {
        let sequence = self.sequence;
        let Some(follow) = &mut self.follow else { return };
        if kvmsg.properties.hex("node") != Some(follow.node) {
            return;
        }
        let is_whole = follow.is_all() || follow.counted.check(kvmsg);
        let proven = follow.counted.whole_at;
        if follow.is_live()
            && follow.backlog.is_empty()
            && let Some(relay) = self.relay.as_deref_mut()
        {
            relay.prove(proven.max(relay.proven()));
        }
        match follow.stage {
            Stage::Proving => self.sync(now, out),
            Stage::Live if !is_whole => {
                // What is missing may be older than what has come since.
                follow.needs_whole = true;
                self.follow_stats.follow_gaps += 1;
                self.sync(now, out);
            }
            Stage::Live if follow.backlog.is_empty() && kvmsg.sequence > sequence => {
                self.follow_stats.follow_gaps += 1;
                self.sync(now, out);
            }
            Stage::Syncing(_) if !is_whole => self.sync(now, out),
            Stage::Syncing(_) if !follow.is_all() => self.finish_sync(now, out),
            _ => {}
        }
    }

    /// The active has refused a change, and told its sender. Should a copy of it come here
    /// after a takeover, it must have no effect either.
    pub(super) fn hear_refusal(&mut self, now: Time, kvmsg: &KvMsg<'_>) {
        let (Some(uuid), Some(reason)) = (kvmsg.uuid, kvmsg.properties.get("refused")) else {
            return self.refuse_followed(&"a refusal of nothing");
        };
        let is_new = self.refused.adopt(uuid, reason, kvmsg.sequence, now);
        if let Some(follow) = &mut self.follow {
            follow.refusals += u64::from(is_new);
        }
    }

    /// The active of a pair says that it has published everything up to here, and has refused
    /// so many changes, on the connection on which both come if it sends them to us.
    pub(super) fn hear_position(
        &mut self,
        now: Time,
        (node, position): (u64, Sequence),
        refusals: u64,
        is_sent_to_us: bool,
        out: &mut impl BrokerOutbox,
    ) {
        let sequence = self.sequence;
        let Some(follow) = self.follow.as_mut().filter(|follow| follow.node == node) else {
            return;
        };
        if let Some(pair) = self.pair.as_deref_mut() {
            pair.hear_position(node, position);
        }
        match follow.stage {
            Stage::Proving if is_sent_to_us => self.sync(now, out),
            Stage::Proving => {}
            // It does not know us any more: what it has published since will not come.
            _ if !is_sent_to_us => self.begin_follow(now, node, out),
            Stage::Live
                if follow.backlog.is_empty()
                    && (position > sequence || refusals > follow.refusals) =>
            {
                self.follow_stats.follow_gaps += 1;
                self.sync(now, out);
            }
            _ => {}
        }
    }

    /// A change is missing before this one.
    fn gap(&mut self, now: Time, kvmsg: &KvMsg<'_>, out: &mut impl BrokerOutbox) {
        self.follow_stats.follow_gaps += 1;
        self.sync(now, out);
        if let Some(follow) = &mut self.follow {
            follow.backlog.keep(kvmsg, &mut self.follow_stats);
        }
    }

    /// Applies the next change of whom we follow. False: it is not the next one.
    fn follow_change(&mut self, now: Time, kvmsg: &KvMsg<'_>, out: &mut impl BrokerOutbox) -> bool {
        if kvmsg.sequence <= self.sequence {
            // It was in the snapshot.
            return true;
        }
        let is_subtree = self.follow.as_ref().is_some_and(|follow| !follow.is_all());
        let is_next = match is_subtree {
            false => kvmsg.sequence == self.sequence.next(),
            // What an epoch begins with only its upstream knows.
            true => kvmsg.sequence.epoch() == self.sequence.epoch(),
        };
        if !is_next {
            return false;
        }
        if let Err(full) = take_over(&mut self.store, kvmsg, now, &mut self.scratch) {
            // Better no copy than one that lacks something and does not know.
            self.set_state(false);
            self.follow_stats.syncs_failed += 1;
            let failed = self.follow_stats.syncs_failed;
            warn_rarely(failed, "the state of the other broker has no room here", &full);
            return false;
        }
        if let Some(uuid) = kvmsg.uuid.filter(|_| !Fault::ForgetWhatWasFollowed.is_planted()) {
            let key = self.recent.key_hash(kvmsg.key, self.store.hash(kvmsg.key));
            self.recent.insert(uuid, kvmsg.sequence, key, now);
        }
        self.sequence = kvmsg.sequence;
        self.published += 1;
        self.follow_stats.followed += 1;
        if self.relay.is_some() {
            self.pass_on(kvmsg, out);
        }
        true
    }

    /// Tells those who follow a relay of a change that it has applied.
    pub(super) fn pass_on(&mut self, kvmsg: &KvMsg<'_>, out: &mut impl BrokerOutbox) {
        self.watched.published(kvmsg.key, kvmsg.sequence);
        publish(kvmsg, &mut self.stats, out);
        if let (Some(uuid), Some(relay)) = (kvmsg.uuid, self.relay.as_deref_mut()) {
            relay.applied(uuid, kvmsg.sequence);
        }
    }
}
