//! [`Sync`]: a state in the making, asked for and taken over whole from whom we follow.

use super::{BacklogLimits, Follow, PATIENCE, Stage, limits, proven, take_over};
use crate::clone::broker::owned::Owned;
use crate::clone::broker::recent::RECORD;
use crate::clone::broker::{Broker, BrokerOutbox, new_window, warn_rarely};
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{ICANHAZ, KTHXBAI, KvMsg, UUIDS, is_reserved};
use crate::clone::pair::{Lineage, Role};
use crate::clone::properties::PropertiesBuf;
use crate::clone::sequence::Sequence;
use crate::clone::store::Store;
use crate::message::Message;
use crate::time::Time;

/// A state in the making.
#[derive(Debug)]
pub(super) struct Sync {
    /// What was asked for: all, or only what changed after this.
    since: Option<Sequence>,
    /// For all: the new state, in which the entries are put as they come.
    whole: Store,
    /// For a delta: the entries, which count only together.
    delta: Vec<Owned>,
    delta_bytes: usize,
    /// Entries received.
    count: u64,
    /// Records of the uuids that are known there, the youngest.
    uuids: Vec<u8>,
    /// The end of the snapshot, once it is there.
    end: Option<Owned>,
    /// Whether the heartbeat that tells whether it is whole was asked for.
    pub(super) has_asked: bool,
}

impl Broker {
    /// Asks for what is missing, or for all.
    pub(in super::super) fn sync(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        let since = self.sync_since();
        let store = self.config.store;
        let Some(follow) = &mut self.follow else { return };
        follow.until = now + PATIENCE;
        follow.backlog.clear();
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
            UUIDS => sync.take_uuids(kvmsg.body, self.recent.max_count()),
            _ if is_reserved(kvmsg.key) => Err("neither an entry nor an end"),
            _ => sync.take(&kvmsg, now, follow.backlog.limits, &mut self.scratch),
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
    pub(super) fn finish_sync(&mut self, now: Time, out: &mut impl BrokerOutbox) {
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
        let mut goes_on = true;
        for _ in 0..waiting {
            if (self.sequence >= whole && !is_subtree) || !goes_on {
                break;
            }
            goes_on = self.drain_backlog(now, 1, out);
        }
        if !self.has_state() {
            // There was no room in the store for one of them, and that was logged.
            self.stop_relaying(now, out);
            return self.fail_sync(now, "what was published meanwhile could not be kept");
        }
        log::info!(
            "has the state of the other broker: {} keys at {:?}",
            self.store.len(),
            self.sequence
        );
        match goes_on {
            true => self.tend_follow(now, out),
            // It is of another epoch, as what is behind it.
            false => self.sync(now, out),
        }
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
        if self.relay.is_none() && end.properties.hex("node") != Some(follow.node) {
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
        let mut recent = new_window(&self.config);
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
            if let Err(full) = take_over(&mut self.store, &kvmsg, now, &mut self.scratch) {
                if taken > 0 {
                    // What is in the store by now is nobody's state.
                    self.set_state(false);
                    self.stop_relaying(now, out);
                }
                return Err(full.reason());
            }
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

    /// Takes records of uuids, which come oldest first. Of more than the window holds it keeps
    /// one too many at least: which are forgotten the window then tells by itself.
    fn take_uuids(&mut self, records: &[u8], window: usize) -> Result<(), &'static str> {
        if !records.len().is_multiple_of(RECORD) {
            return Err("unreadable uuids");
        }
        self.uuids.extend_from_slice(records);
        let kept = window.saturating_add(1).saturating_mul(RECORD);
        if self.uuids.len() > kept.saturating_mul(2) {
            self.uuids.drain(..self.uuids.len() - kept);
        }
        Ok(())
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
