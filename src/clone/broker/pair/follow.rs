//! Taking over the state of the active, and keeping up with it: as an ordinary
//! client of the whole tree would.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::changes::HOP_BY_HOP;
use super::super::recent::{RECORD, Recent, key_hash};
use super::super::{Broker, BrokerOutbox, warn_rarely};
use super::tail::Tail;
use super::{SILENT_INTERVALS, peer};
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{HUGZ, ICANHAZ, KTHXBAI, KvMsg, UUIDS, Uuid, is_reserved};
use crate::clone::pair::{Lineage, Role};
use crate::clone::properties::{Properties, PropertiesBuf};
use crate::clone::sequence::Sequence;
use crate::clone::store::{Change, Store, StoreFull};
use crate::message::Message;
use crate::time::Time;

/// A sync that makes no progress for so long is begun anew.
const PATIENCE: Duration = Duration::from_secs(2);

/// Changes that waited for a sync applied in one call, between which everything
/// else is served.
const BACKLOG_AT_ONCE: usize = 1000;

/// How the active is followed.
#[derive(Debug)]
pub(super) struct Follow {
    /// The run of the active that is followed.
    node: u64,
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
}

impl Follow {
    fn new(node: u64, until: Time) -> Follow {
        Follow {
            node,
            stage: Stage::Proving,
            until,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            is_backlog_cut: false,
            needs_whole: false,
        }
    }

    pub(super) fn node(&self) -> u64 {
        self.node
    }

    /// Whose changes our position counts: nobody's before the first sync.
    pub(super) fn followed(&self) -> Option<u64> {
        matches!(self.stage, Stage::Live).then_some(self.node)
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

    fn keep(&mut self, kvmsg: &KvMsg<'_>, max_count: usize, max_bytes: usize) {
        let change = Owned::new(kvmsg);
        let is_full =
            self.backlog.len() >= max_count || self.backlog_bytes + change.size() > max_bytes;
        if is_full || self.is_backlog_cut {
            // The oldest are kept: they are applied first.
            self.is_backlog_cut = true;
            return;
        }
        self.backlog_bytes += change.size();
        self.backlog.push_back(change);
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

impl Broker {
    /// Turns to this active.
    pub(super) fn begin_follow(&mut self, now: Time, node: u64, out: &mut impl BrokerOutbox) {
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
        let until = now + PATIENCE.max(pair.interval * SILENT_INTERVALS);
        pair.follow = Some(Follow::new(node, until));
        out.open_follow();
    }

    /// Turns away from the active: what it published and we have is applied first.
    pub(super) fn end_follow(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        self.drain_backlog(now, usize::MAX);
        let Some(pair) = self.pair.as_deref_mut() else { return };
        if pair.follow.take().is_some() {
            out.close_follow();
        }
    }

    /// Goes on with what is under way, or begins it anew.
    pub(super) fn tend_follow(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if !self.drain_backlog(now, BACKLOG_AT_ONCE) {
            self.sync(now, out);
        }
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let Some(follow) = &mut pair.follow else { return };
        if now < follow.until {
            return;
        }
        let node = follow.node;
        match follow.stage {
            Stage::Live => {}
            // The connection may be the trouble: a new one.
            Stage::Proving => self.begin_follow(now, node, out),
            Stage::Syncing(_) => {
                pair.stats.syncs_failed += 1;
                warn_rarely(pair.stats.syncs_failed, "sync begun anew", &"it made no progress");
                self.sync(now, out);
            }
        }
    }

    /// Applies what came during a sync, at most so much. False: something is
    /// missing in it.
    fn drain_backlog(&mut self, now: Time, most: usize) -> bool {
        for _ in 0..most {
            let Some(follow) = self.following() else { return true };
            if !matches!(follow.stage, Stage::Live) {
                return true;
            }
            let Some(change) = follow.backlog.pop_front() else {
                return !std::mem::take(&mut follow.is_backlog_cut);
            };
            follow.backlog_bytes -= change.size();
            if !self.follow_change(now, &change.kvmsg()) {
                // What is behind it comes with the sync.
                return false;
            }
        }
        true
    }

    fn following(&mut self) -> Option<&mut Follow> {
        self.pair.as_deref_mut()?.follow.as_mut()
    }

    /// Asks for what is missing, or for all.
    fn sync(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let since = self.sync_since();
        let store = self.config.store;
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let Some(follow) = &mut pair.follow else { return };
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
        }));
        let to = self.scratch.clear();
        to.push("order", "changes").push("uuids", 1);
        if let Some(since) = since {
            to.push("since", since);
        }
        out.open_sync();
        if out.request_sync(&[ICANHAZ, b"", to.as_properties().as_bytes()]).is_err() {
            log::debug!("no connection to the peer for a snapshot: tried again");
        }
    }

    /// Where a delta can begin: at our position, if that is in the history of the
    /// active.
    fn sync_since(&self) -> Option<Sequence> {
        let pair = self.pair.as_deref()?;
        let theirs = pair.peer.as_ref()?.lineage.as_ref()?;
        let follow = pair.follow.as_ref()?;
        if !pair.has_state || follow.needs_whole || theirs.root() != self.lineage.root() {
            return None;
        }
        // Of its present epoch we have only what it gave us.
        let is_its_epoch = theirs.first() == self.lineage.first();
        let is_known = is_its_epoch || theirs.contains(self.sequence, Sequence::ZERO);
        is_known.then_some(self.sequence)
    }

    /// Takes a message of the SUB at the peer.
    pub fn handle_peer_update(
        &mut self,
        now: Time,
        message: Message<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        let limits = peer::limits(&self.config.limits);
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let Some(follow) = &mut pair.follow else { return };
        let kvmsg = match KvMsg::decode(message, &limits) {
            Ok(kvmsg) => kvmsg,
            // If it was a change, the next one shows that it is missing.
            Err(error) => return pair.refuse(&error),
        };
        if kvmsg.key == HUGZ {
            return self.followed_heartbeat(now, &kvmsg, out);
        }
        if is_reserved(kvmsg.key) {
            // Heartbeats of subtrees.
            return;
        }
        let (max_count, max_bytes) = (pair.config.backlog_count, pair.config.backlog_bytes);
        match follow.stage {
            // The snapshot that is asked for after the proof has it.
            Stage::Proving => {}
            Stage::Live if follow.backlog.is_empty() => {
                if !self.follow_change(now, &kvmsg) {
                    self.gap(now, &kvmsg, out);
                }
            }
            Stage::Live => follow.keep(&kvmsg, max_count, max_bytes),
            Stage::Syncing(_) => {
                follow.keep(&kvmsg, max_count, max_bytes);
                self.finish_sync(now, out);
            }
        }
    }

    fn followed_heartbeat(&mut self, now: Time, kvmsg: &KvMsg<'_>, out: &mut impl BrokerOutbox) {
        let sequence = self.sequence;
        let Some(follow) = self.following() else { return };
        let node = kvmsg.properties.get("node").and_then(|node| str::from_utf8(node).ok());
        let node = node.and_then(|node| u64::from_str_radix(node, 16).ok());
        if node != Some(follow.node) || kvmsg.properties.get("role") != Some(b"active") {
            return;
        }
        match follow.stage {
            Stage::Proving => self.sync(now, out),
            Stage::Live if follow.backlog.is_empty() && kvmsg.sequence > sequence => {
                self.count(|stats| stats.follow_gaps += 1);
                self.sync(now, out);
            }
            _ => {}
        }
    }

    /// A change is missing before this one.
    fn gap(&mut self, now: Time, kvmsg: &KvMsg<'_>, out: &mut impl BrokerOutbox) {
        self.count(|stats| stats.follow_gaps += 1);
        self.sync(now, out);
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let (max_count, max_bytes) = (pair.config.backlog_count, pair.config.backlog_bytes);
        if let Some(follow) = &mut pair.follow {
            follow.keep(kvmsg, max_count, max_bytes);
        }
    }

    /// Applies the next change of the active. False: it is not the next one.
    fn follow_change(&mut self, now: Time, kvmsg: &KvMsg<'_>) -> bool {
        if kvmsg.sequence <= self.sequence {
            // It was in the snapshot.
            return true;
        }
        if kvmsg.sequence != self.sequence.next() {
            return false;
        }
        if let Err(full) = take_over(&mut self.store, kvmsg, now, &mut self.scratch) {
            // Better no standby than one that lacks something and does not know.
            let failed = self.pair.as_deref_mut().map_or(0, |pair| {
                pair.has_state = false;
                pair.stats.syncs_failed += 1;
                pair.stats.syncs_failed
            });
            warn_rarely(failed, "the state of the active has no room here", &full);
            return false;
        }
        if let Some(uuid) = kvmsg.uuid.filter(|_| !Fault::ForgetWhatWasFollowed.is_planted()) {
            self.recent.insert(uuid, kvmsg.sequence, key_hash(kvmsg.key), now);
        }
        self.sequence = kvmsg.sequence;
        self.published += 1;
        self.count(|stats| stats.followed += 1);
        true
    }

    /// Takes a message of the DEALER that was opened last for a request.
    pub fn handle_peer_snapshot(
        &mut self,
        now: Time,
        message: Message<'_>,
        out: &mut impl BrokerOutbox,
    ) {
        let limits = peer::limits(&self.config.limits);
        let Some(pair) = self.pair.as_deref_mut() else { return };
        let kvmsg = match KvMsg::decode(message, &limits) {
            Ok(kvmsg) => kvmsg,
            Err(error) => return pair.refuse(&error),
        };
        let Some(follow) = &mut pair.follow else { return };
        let Stage::Syncing(sync) = &mut follow.stage else { return };
        follow.until = now + PATIENCE;
        let taken = match kvmsg.key {
            KTHXBAI => {
                sync.end = Some(Owned::new(&kvmsg));
                return self.finish_sync(now, out);
            }
            UUIDS if sync.uuids.len() < self.config.recent_count.saturating_mul(2 * RECORD) => {
                sync.uuids.extend_from_slice(kvmsg.body);
                Ok(())
            }
            _ if is_reserved(kvmsg.key) => Err("neither an entry nor an end"),
            _ => sync.take(&kvmsg, now, &pair.config, &mut self.scratch),
        };
        if let Err(why) = taken {
            follow.needs_whole = sync.since.is_some();
            self.fail_sync(now, why);
        }
    }

    /// The sync came to nothing: another, after a while.
    fn fail_sync(&mut self, now: Time, why: &str) {
        let Some(pair) = self.pair.as_deref_mut() else { return };
        pair.stats.syncs_failed += 1;
        warn_rarely(pair.stats.syncs_failed, "sync failed", &why);
        if let Some(follow) = &mut pair.follow {
            follow.stage = Stage::Proving;
            follow.until = now + PATIENCE;
        }
    }

    /// Takes the new state, once all of it is there: the end of the snapshot, and the
    /// changes up to where the store was when that was sent. Keys that changed meanwhile
    /// are missing in the snapshot, or old; until those changes are there, too, the new
    /// state would claim a position that it does not have, and the old one has.
    fn finish_sync(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let Some(follow) = self.following() else { return };
        let Stage::Syncing(sync) = &follow.stage else { return };
        let Some(end) = &sync.end else { return };
        let end = end.kvmsg();
        let whole = end.properties.parse("whole").unwrap_or(end.sequence);
        match follow.covers(end.sequence, whole) {
            Some(true) => {}
            Some(false) => return,
            None => {
                return self.fail_sync(now, "changes are missing that were published meanwhile");
            }
        }
        let Stage::Syncing(mut sync) = std::mem::replace(&mut follow.stage, Stage::Proving) else {
            return;
        };
        let Some(end) = sync.end.take() else { return };
        if let Err(why) = self.install_sync(now, *sync, &end.kvmsg()) {
            return self.fail_sync(now, why);
        }
        self.finish_window(&end.kvmsg());
        if let Some(pair) = self.pair.as_deref_mut() {
            pair.has_state = true;
            if let Some(follow) = &mut pair.follow {
                follow.stage = Stage::Live;
            }
        }
        let waiting = self.following().map_or(0, |follow| follow.backlog.len());
        for _ in 0..waiting {
            if self.sequence >= whole || !self.drain_backlog(now, 1) {
                break;
            }
        }
        if self.sequence < whole {
            // There was no room in the store for one of them: no state, and that was logged.
            return self.fail_sync(now, "what was published meanwhile could not be kept");
        }
        log::info!("has the state of the active: {} keys at {:?}", self.store.len(), self.sequence);
        self.tend_follow(now, out);
        self.push(now, out);
    }

    fn install_sync(&mut self, now: Time, sync: Sync, end: &KvMsg<'_>) -> Result<(), &'static str> {
        let Some(follow) = self.following() else { return Err("nobody is followed") };
        let text = |name| end.properties.get(name).and_then(|value| str::from_utf8(value).ok());
        let node = text("node").and_then(|node| u64::from_str_radix(node, 16).ok());
        if node != Some(follow.node) {
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
                self.install_delta(now, sync, end)?;
            }
            Some("full") => self.install(now, sync, end, &lineage)?,
            _ => return Err("its end tells no mode"),
        }
        self.lineage = lineage;
        Ok(())
    }

    /// Puts the new state in the place of the old one.
    fn install(
        &mut self,
        now: Time,
        mut sync: Sync,
        end: &KvMsg<'_>,
        lineage: &Lineage,
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
        let old_store = std::mem::replace(&mut self.store, store);
        let old_recent = std::mem::replace(&mut self.recent, recent);
        let was_ours = self.sequence;
        self.sequence = end.sequence;
        let Some(pair) = self.pair.as_deref_mut() else { return Ok(()) };
        pair.stats.syncs += 1;
        if pair.has_state && was_ours > fork && pair.tail.is_none() {
            pair.tail = Some(Tail::new(old_store, &old_recent, fork));
        }
        Ok(())
    }

    fn install_delta(
        &mut self,
        now: Time,
        sync: Sync,
        end: &KvMsg<'_>,
    ) -> Result<(), &'static str> {
        for change in &sync.delta {
            let kvmsg = change.kvmsg();
            if kvmsg.sequence <= self.store.sequence() {
                continue;
            }
            take_over(&mut self.store, &kvmsg, now, &mut self.scratch)
                .map_err(|full| full.reason())?;
        }
        if end.sequence > self.store.sequence() {
            self.store.advance(end.sequence);
        }
        self.sequence = self.store.sequence();
        self.recent.read_records(now, &sync.uuids).ok_or("unreadable uuids")?;
        self.count(|stats| stats.delta_syncs += 1);
        Ok(())
    }

    /// What the active has forgotten is unknown here, too.
    fn finish_window(&mut self, end: &KvMsg<'_>) {
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
        config: &crate::clone::pair::PairConfig,
        scratch: &mut PropertiesBuf,
    ) -> Result<(), &'static str> {
        self.count += 1;
        if self.since.is_none() {
            return self.put(kvmsg, now, scratch);
        }
        let change = Owned::new(kvmsg);
        self.delta_bytes += change.size();
        self.delta.push(change);
        match self.delta.len() > config.backlog_count || self.delta_bytes > config.backlog_bytes {
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
