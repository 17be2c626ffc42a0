//! Following another broker: taking over its state, and keeping up with it. A standby
//! follows its active so, and a relay its upstream: as an ordinary client would.

use std::collections::VecDeque;
use std::time::Duration;

use super::changes::HOP_BY_HOP;
use super::recent::{RECORD, Recent, key_hash};
use super::{Broker, BrokerOutbox, publish, warn_rarely};
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{HUGZ, ICANHAZ, KTHXBAI, KvMsg, Limits, UUIDS, Uuid, is_reserved};
use crate::clone::pair::{Lineage, Role};
use crate::clone::properties::{Properties, PropertiesBuf};
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

/// How much may wait while a snapshot is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct BacklogLimits {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl BacklogLimits {
    fn is_exceeded(self, count: usize, bytes: usize) -> bool {
        count > self.count || bytes > self.bytes
    }
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
    limits: BacklogLimits,
    /// Of a subtree: what came since it was last known to be whole.
    counted: Counted,
    stage: Stage,
    /// When the stage has lasted too long.
    until: Time,
    /// What the active published while a sync was under way.
    backlog: VecDeque<Owned>,
    backlog_bytes: usize,
    /// Not all of it could be kept: after the sync, the rest is asked for.
    is_backlog_cut: bool,
    /// A delta was too large to be kept until its end: the whole is asked for.
    needs_whole: bool,
    /// Changes that the active has refused, as far as they are known here.
    refusals: u64,
}

/// Under a subtree sequences have gaps; what is missing shows in the counts of its
/// heartbeats.
#[derive(Debug, Default)]
struct Counted {
    /// What the last heartbeat said that was published.
    published: Option<u64>,
    /// Changes that came since, and the last of them: it may come twice.
    received: u64,
    last: Sequence,
    /// A heartbeat that fitted said that the whole tree was here.
    whole_at: Sequence,
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

/// A state in the making.
#[derive(Debug)]
struct Sync {
    /// What was asked for: all, or only what changed after this.
    since: Option<Sequence>,
    /// For all: the new state, in which the entries are put as they come.
    whole: Store,
    /// For a delta: the entries, which count only together.
    delta: Vec<Owned>,
    delta_bytes: usize,
    /// Entries received.
    count: u64,
    uuids: Vec<u8>,
    /// The end of the snapshot, once it is there.
    end: Option<Owned>,
    /// Whether the heartbeat that tells whether it is whole was asked for.
    has_asked: bool,
}

impl Follow {
    pub(super) fn new(node: u64, subtree: &[u8], limits: BacklogLimits, until: Time) -> Follow {
        Follow {
            node,
            has_position: false,
            subtree: subtree.into(),
            limits,
            counted: Counted::default(),
            stage: Stage::Proving,
            until,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            is_backlog_cut: false,
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
        (self.backlog_bytes, self.is_backlog_cut) = (0, false);
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

    /// Whether each change after `end` is in the backlog up to `whole`. `None`: one is
    /// missing, and will not come.
    fn covers(&self, end: Sequence, whole: Sequence) -> Option<bool> {
        if !self.is_all() {
            return Some(self.is_backlog_cut || self.counted.whole_at >= whole);
        }
        let last = self.backlog.back().map_or(end, |last| last.sequence.max(end));
        if last < whole && !self.is_backlog_cut {
            return Some(false);
        }
        let mut reached = end;
        for change in self.backlog.iter().filter(|change| change.sequence > end) {
            if reached >= whole {
                break;
            }
            if change.sequence != reached.next() {
                return None;
            }
            reached = change.sequence;
        }
        (reached >= whole).then_some(true)
    }

    fn keep(&mut self, kvmsg: &KvMsg<'_>, stats: &mut FollowStats) {
        let change = Owned::new(kvmsg);
        let (count, bytes) = (self.backlog.len() + 1, self.backlog_bytes + change.size());
        if self.limits.is_exceeded(count, bytes) || self.is_backlog_cut {
            // The oldest are kept: they are applied first.
            if !std::mem::replace(&mut self.is_backlog_cut, true) {
                stats.backlogs_cut += 1;
                let why = "more changes came meanwhile than may wait, the rest is asked for then";
                warn_rarely(stats.backlogs_cut, "sync is not the last", &why);
            }
            return;
        }
        self.backlog_bytes += change.size();
        self.backlog.push_back(change);
    }
}

impl Counted {
    fn take(&mut self, sequence: Sequence) {
        let before = std::mem::replace(&mut self.last, sequence);
        self.received += u64::from(before != sequence);
    }

    /// A heartbeat of the subtree. False: something is missing.
    fn check(&mut self, kvmsg: &KvMsg<'_>) -> bool {
        let told = kvmsg.properties.parse::<u64>("published");
        let received = std::mem::take(&mut self.received);
        let is_whole = match (self.published, told) {
            (Some(before), Some(now)) => now.checked_sub(before) == Some(received),
            _ => false,
        };
        self.published = told;
        self.whole_at = match is_whole {
            true => proven(kvmsg, kvmsg.properties.parse("at").unwrap_or(kvmsg.sequence)),
            false => Sequence::ZERO,
        };
        is_whole
    }
}

/// A message with its frames in one allocation.
#[derive(Debug)]
pub(super) struct Owned {
    bytes: Box<[u8]>,
    key_len: u32,
    properties_len: u32,
    sequence: Sequence,
    uuid: Option<Uuid>,
}

impl Owned {
    pub(super) fn new(kvmsg: &KvMsg<'_>) -> Owned {
        let parts = [kvmsg.key, kvmsg.properties.as_bytes(), kvmsg.body];
        Owned {
            bytes: parts.concat().into_boxed_slice(),
            // The limits of a message are far below 4 GiB.
            key_len: kvmsg.key.len() as u32,
            properties_len: kvmsg.properties.as_bytes().len() as u32,
            sequence: kvmsg.sequence,
            uuid: kvmsg.uuid,
        }
    }

    /// The memory that it takes, about.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + size_of::<Owned>()
    }

    pub(super) fn kvmsg(&self) -> KvMsg<'_> {
        let (key, rest) = self.bytes.split_at(self.key_len as usize);
        let (properties, body) = rest.split_at(self.properties_len as usize);
        KvMsg {
            key,
            sequence: self.sequence,
            uuid: self.uuid,
            properties: Properties::from_checked(properties),
            body,
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

/// Where nothing is missing at who says this of itself: a relay of a subtree may be further.
fn proven(kvmsg: &KvMsg<'_>, position: Sequence) -> Sequence {
    kvmsg.properties.parse("proven").map_or(position, |proven: Sequence| proven.min(position))
}

/// The run of the broker that says this.
pub(super) fn node_of(kvmsg: &KvMsg<'_>) -> Option<u64> {
    let node = str::from_utf8(kvmsg.properties.get("node")?).ok()?;
    u64::from_str_radix(node, 16).ok()
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
            let Some(change) = follow.backlog.pop_front() else {
                return !std::mem::take(&mut follow.is_backlog_cut);
            };
            follow.backlog_bytes -= change.size();
            if !self.follow_change(now, &change.kvmsg(), out) {
                // What is behind it comes with the sync.
                return false;
            }
        }
        true
    }

    /// Asks for what is missing, or for all.
    pub(super) fn sync(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let since = self.sync_since();
        let store = self.config.store;
        let Some(follow) = &mut self.follow else { return };
        follow.until = now + PATIENCE;
        follow.backlog.clear();
        (follow.backlog_bytes, follow.is_backlog_cut) = (0, false);
        follow.stage = Stage::Syncing(Box::new(Sync {
            since,
            whole: Store::new(store, Sequence::ZERO),
            delta: Vec::new(),
            delta_bytes: 0,
            count: 0,
            uuids: Vec::new(),
            end: None,
            has_asked: false,
        }));
        let to = self.scratch.clear();
        to.push("order", "changes").push("uuids", 1);
        if self.pair.is_some() {
            to.push("refusals", 1);
        }
        if let Some(since) = since {
            to.push("since", since);
        }
        out.open_sync();
        let properties = to.as_properties().as_bytes();
        if out.request_sync(&[ICANHAZ, &follow.subtree, properties]).is_err() {
            log::debug!("no connection for a snapshot: tried again");
        }
    }

    /// Where a delta can begin: at our position, if that is in the history of whom we
    /// follow. A relay leaves that to its upstream to judge.
    fn sync_since(&self) -> Option<Sequence> {
        let follow = self.follow.as_ref()?;
        if !self.has_state() || follow.needs_whole {
            return None;
        }
        let Some(pair) = self.pair.as_deref() else {
            // Of a subtree it must be known that nothing is missing up to there.
            let proven = self.relay.as_ref().map_or(Sequence::MAX, |relay| relay.proven());
            let is_proven = follow.counted.received == 0 && proven >= self.sequence;
            return (follow.is_all() || is_proven).then_some(self.sequence);
        };
        let theirs = pair.peer_lineage()?;
        if theirs.root() != self.lineage.root() {
            return None;
        }
        // Of its present epoch we have only what it gave us.
        let is_its_epoch = theirs.first() == self.lineage.first();
        let is_known = is_its_epoch || theirs.contains(self.sequence, Sequence::ZERO);
        is_known.then_some(self.sequence)
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
            Stage::Live => follow.keep(kvmsg, &mut self.follow_stats),
            Stage::Syncing(_) => {
                follow.keep(kvmsg, &mut self.follow_stats);
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
        if node_of(kvmsg) != Some(follow.node) {
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
            follow.keep(kvmsg, &mut self.follow_stats);
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
            self.recent.insert(uuid, kvmsg.sequence, key_hash(kvmsg.key), now);
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

    /// Takes a message of the DEALER that was opened last for a request.
    pub fn handle_peer_snapshot(
        &mut self,
        now: Time,
        message: Message<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        let limits = limits(&self.config.limits);
        let kvmsg = match KvMsg::decode(message, &limits) {
            Ok(kvmsg) => kvmsg,
            Err(error) => return self.refuse_followed(&error),
        };
        let Some(follow) = &mut self.follow else { return };
        let Stage::Syncing(sync) = &mut follow.stage else { return };
        follow.until = now + PATIENCE;
        if let Some(relay) = &mut self.relay {
            relay.hear_snapshot(now);
        }
        let taken = match kvmsg.key {
            KTHXBAI => {
                sync.end = Some(Owned::new(&kvmsg));
                return self.finish_sync(now, out);
            }
            UUIDS if kvmsg.properties.get("refused").is_some() => {
                // They are known whatever becomes of the rest: those changes have no effect.
                let reason = kvmsg.properties.get("refused").unwrap_or_default();
                let read = self.refused.read_records(now, reason, kvmsg.body);
                read.ok_or("unreadable refusals")
            }
            UUIDS if sync.uuids.len() < self.config.recent_count.saturating_mul(2 * RECORD) => {
                sync.uuids.extend_from_slice(kvmsg.body);
                Ok(())
            }
            _ if is_reserved(kvmsg.key) => Err("neither an entry nor an end"),
            _ => sync.take(&kvmsg, now, follow.limits, &mut self.scratch),
        };
        if let Err(why) = taken {
            follow.needs_whole = sync.since.is_some();
            self.fail_sync(now, why);
        }
    }

    /// The sync came to nothing: another, after a while.
    fn fail_sync(&mut self, now: Time, why: &str) {
        self.follow_stats.syncs_failed += 1;
        warn_rarely(self.follow_stats.syncs_failed, "sync failed", &why);
        if let Some(follow) = &mut self.follow {
            follow.stage = Stage::Proving;
            follow.until = now + PATIENCE;
        }
    }

    /// Takes the new state, once all of it is there: the end of the snapshot, and the
    /// changes up to where the store was when that was sent. Keys that changed meanwhile
    /// are missing in the snapshot, or old; until those changes are there, too, the new
    /// state would claim a position that it does not have, and the old one has.
    fn finish_sync(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(follow) = &mut self.follow else { return };
        let Stage::Syncing(sync) = &follow.stage else { return };
        let Some(end) = &sync.end else { return };
        let end = end.kvmsg();
        let (sequence, whole) = (end.sequence, end.properties.parse("whole"));
        let whole = whole.unwrap_or(sequence);
        match follow.covers(sequence, whole) {
            Some(true) => {}
            Some(false) => return follow.ask_count(out),
            None => {
                return self.fail_sync(now, "changes are missing that were published meanwhile");
            }
        }
        let is_subtree = !follow.is_all();
        let Stage::Syncing(mut sync) = std::mem::replace(&mut follow.stage, Stage::Proving) else {
            return;
        };
        let Some(end) = sync.end.take() else { return };
        if let Err(why) = self.install_sync(now, *sync, &end.kvmsg(), out) {
            return self.fail_sync(now, why);
        }
        self.finish_window(&end.kvmsg());
        self.set_state(true);
        if let Some(follow) = &mut self.follow {
            (follow.stage, follow.has_position) = (Stage::Live, true);
        }
        let waiting = self.follow.as_ref().map_or(0, |follow| follow.backlog.len());
        for _ in 0..waiting {
            if (self.sequence >= whole && !is_subtree) || !self.drain_backlog(now, 1, out) {
                break;
            }
        }
        if self.sequence < whole && !is_subtree {
            // There was no room in the store for one of them: no state, and that was logged.
            self.stop_relaying(now, out);
            return self.fail_sync(now, "what was published meanwhile could not be kept");
        }
        log::info!(
            "has the state of the other broker: {} keys at {:?}",
            self.store.len(),
            self.sequence
        );
        self.tend_follow(now, out);
        match self.relay {
            Some(_) => self.relay_synced(now, out),
            None => self.push(now, out),
        }
    }

    fn install_sync(
        &mut self,
        now: Time,
        sync: Sync,
        end: &KvMsg<'_>,
        out: &mut impl BrokerOutbox,
    ) -> Result<(), &'static str> {
        let Some(follow) = &mut self.follow else { return Err("nobody is followed") };
        let text = |name| end.properties.get(name).and_then(|value| str::from_utf8(value).ok());
        let node = text("node").and_then(|node| u64::from_str_radix(node, 16).ok());
        if self.relay.is_none() && node != Some(follow.node) {
            // Whether to follow that one is for its PEER? to tell: ours may be the better state.
            return Err("it is of another run of the peer");
        }
        let needed_whole = std::mem::take(&mut follow.needs_whole);
        let lineage =
            text("root").zip(text("lineage")).and_then(|(root, all)| Lineage::parse(root, all));
        let lineage = lineage
            .filter(|lineage| lineage.contains(end.sequence, Sequence::ZERO))
            .ok_or("its end tells no history")?;
        if end.properties.parse("count") != Some(sync.count) {
            return Err("it was cut short");
        }
        match text("mode") {
            Some("delta") if sync.since == Some(self.sequence) && !needed_whole => {
                self.install_delta(now, sync, end, out)?;
            }
            Some("full") => self.install(now, sync, end, &lineage, out)?,
            _ => return Err("its end tells no mode"),
        }
        self.lineage = lineage;
        if let Some(relay) = self.relay.as_deref_mut() {
            relay.prove(proven(end, end.sequence));
        }
        Ok(())
    }

    /// Puts the new state in the place of the old one.
    fn install(
        &mut self,
        now: Time,
        mut sync: Sync,
        end: &KvMsg<'_>,
        lineage: &Lineage,
        out: &mut impl BrokerOutbox,
    ) -> Result<(), &'static str> {
        if sync.since.is_some() {
            // It was asked for less, and got everything.
            for change in std::mem::take(&mut sync.delta) {
                sync.put(&change.kvmsg(), now, &mut self.scratch)?;
            }
        }
        let mut store = sync.whole;
        if end.sequence < store.sequence() {
            return Err("its end lies before its entries");
        }
        if end.sequence > store.sequence() {
            store.advance(end.sequence);
        }
        store.raise_floor(end.properties.parse("floor").unwrap_or(end.sequence));
        let mut recent = Recent::new(self.config.recent_count, self.config.recent_age);
        recent.read_records(now, &sync.uuids).ok_or("unreadable uuids")?;
        let fork = self.lineage.last_common(lineage);
        self.snapshots.drop_under_way(&mut self.store);
        let old_store = std::mem::replace(&mut self.store, store);
        let old_recent = std::mem::replace(&mut self.recent, recent);
        let was_ours = self.sequence;
        self.sequence = end.sequence;
        self.follow_stats.syncs += 1;
        if let Some(pair) = self.pair.as_deref_mut()
            && was_ours > fork
        {
            pair.keep_tail(old_store, &old_recent, fork, end.sequence);
        } else if self.role == Role::Relay {
            self.pass_on_newer(now, was_ours, out);
        }
        Ok(())
    }

    fn install_delta(
        &mut self,
        now: Time,
        sync: Sync,
        end: &KvMsg<'_>,
        out: &mut impl BrokerOutbox,
    ) -> Result<(), &'static str> {
        let is_all = self.follow.as_ref().is_none_or(Follow::is_all);
        let (before, mut taken) = (self.sequence, 0);
        for change in &sync.delta {
            let kvmsg = change.kvmsg();
            if kvmsg.sequence <= self.store.sequence() {
                continue;
            }
            if self.relay.is_some() && kvmsg.body.is_empty() && Fault::KeepWhatIsGone.is_planted() {
                continue;
            }
            take_over(&mut self.store, &kvmsg, now, &mut self.scratch)
                .map_err(|full| full.reason())?;
            taken += 1;
            if self.relay.is_some() {
                self.pass_on(&kvmsg, out);
            }
        }
        if end.sequence > self.store.sequence() {
            self.store.advance(end.sequence);
        }
        self.sequence = self.store.sequence();
        self.published += match is_all && self.sequence.epoch() == before.epoch() {
            // As many as there were: changes of a key that another followed are not in it.
            true => self.sequence.get() - before.get(),
            false => taken,
        };
        self.recent.read_records(now, &sync.uuids).ok_or("unreadable uuids")?;
        self.follow_stats.delta_syncs += 1;
        Ok(())
    }

    /// What the active has forgotten is unknown here, too.
    fn finish_window(&mut self, end: &KvMsg<'_>) {
        if let (Some(follow), Some(count)) = (&mut self.follow, end.properties.parse("refusals")) {
            follow.refusals = follow.refusals.max(count);
        }
        if let Some(until) = end.properties.parse("refusals_forgotten") {
            self.refused.forget_until(until);
        }
        if let Some(until) = end.properties.parse("forgotten") {
            self.recent.forget_until(until);
        }
    }
}

impl Sync {
    fn take(
        &mut self,
        kvmsg: &KvMsg<'_>,
        now: Time,
        limits: BacklogLimits,
        scratch: &mut PropertiesBuf,
    ) -> Result<(), &'static str> {
        self.count += 1;
        if self.since.is_none() {
            return self.put(kvmsg, now, scratch);
        }
        let change = Owned::new(kvmsg);
        self.delta_bytes += change.size();
        self.delta.push(change);
        match limits.is_exceeded(self.delta.len(), self.delta_bytes) {
            true => Err("too much has changed for a delta"),
            false => Ok(()),
        }
    }

    fn put(
        &mut self,
        kvmsg: &KvMsg<'_>,
        now: Time,
        scratch: &mut PropertiesBuf,
    ) -> Result<(), &'static str> {
        if kvmsg.sequence <= self.whole.sequence() {
            return Err("its entries are not in order");
        }
        take_over(&mut self.whole, kvmsg, now, scratch).map_err(|full| full.reason())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_comes_twice_does_not_stand_for_another() {
        let mut counted = Counted::default();
        for counter in [7, 7, 9] {
            counted.take(Sequence::new(1, counter));
        }
        assert_eq!(counted.received, 2);
    }
}
