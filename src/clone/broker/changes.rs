//! Changes: what comes in on P+2, is stored, and goes out under its sequence.

use std::time::Duration;

use super::heartbeats::Answer;
use super::recent::Order;
use super::{Broker, BrokerOutbox, publish, warn_rarely};
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{KvMsg, Uuid, check_key, is_reserved};
use crate::clone::pair::Role;
use crate::clone::properties::{Properties, PropertiesBuf};
use crate::clone::sequence::Sequence;
use crate::clone::store::Change;
use crate::message::Message;
use crate::time::Time;

/// Properties that are between a client and the broker; what remains of a time
/// to live is told anew in each message.
pub(super) const HOP_BY_HOP: [&str; 3] = ["ttl", "ttlms", "retry"];

/// What the lines `ttl=` and `ttlms=` can add to the properties of an entry, which
/// must stay within the limit that clients keep.
const TTL_ROOM: usize = "ttl=\nttlms=\n".len() + 2 * 20;

/// What a store takes in memory may be in the caches of a processor up to here. Hardly
/// anything in tests, so that they come to what is beyond.
const FITS_INTO_CACHES: usize = if cfg!(test) { 2048 } else { 16 << 20 };

/// A processor has about as many accesses to memory under way at once.
const AT_ONCE: usize = 8;

/// Expired keys deleted in one call, between which everything else is served.
const EXPIRY_BATCH: usize = 256;

impl Broker {
    /// Handles a message from P+2: a `KVSET`.
    pub fn handle_change(&mut self, now: Time, message: Message<'_>, out: &mut impl BrokerOutbox) {
        if self.role != Role::Active {
            return match self.relay {
                None => self.keep_change(now, message),
                Some(_) => self.forward_change(now, message, out),
            };
        }
        self.snapshots.make_way(now);
        // Not moved out of the result: to read back at once what was just written takes long.
        let decoded = KvMsg::decode(message, &self.config.limits);
        let change = match &decoded {
            Ok(change) => change,
            Err(error) => {
                self.stats.changes_malformed += 1;
                warn_rarely(self.stats.changes_malformed, "change dropped", error);
                return self.refuse_malformed(message, out);
            }
        };
        if is_reserved(change.key) {
            self.stats.changes_reserved += 1;
            warn_rarely(self.stats.changes_reserved, "change dropped", &"the key is reserved");
            return self.answer(change, Answer::Refused("reserved-key"), out);
        }
        let order = self.order_of(change);
        if order != Order::Last
            && let Some(known) = change.uuid.and_then(|uuid| self.recent.get(&uuid))
            && !Fault::SkipDeduplication.is_planted()
        {
            self.stats.changes_repeated += 1;
            return self.answer(change, Answer::Applied(known), out);
        }
        if let Some(reason) = change.uuid.and_then(|uuid| self.refused.get(&uuid)) {
            self.stats.changes_repeated += 1;
            return self.answer(change, Answer::Refused(reason), out);
        }
        if self.may_be_a_forgotten_repeat(change) {
            self.stats.changes_forgotten += 1;
            return self.answer(change, Answer::Refused("forgotten"), out);
        }
        if self.is_overtaken(change, order) {
            self.stats.changes_overtaken += 1;
            // It needs no place among the refused: of any copy the same holds.
            return self.answer(change, Answer::Refused("overtaken"), out);
        }
        let ttl = self.read_ttl(change.properties);
        let size = change.properties.as_bytes().len();
        if ttl.is_some() && size + TTL_ROOM > self.config.limits.max_properties {
            self.stats.changes_malformed += 1;
            let why = "no room in its properties for the time to live";
            warn_rarely(self.stats.changes_malformed, "change refused", &why);
            return self.answer(change, Answer::Refused("properties-too-large"), out);
        }
        if let Err(reason) = self.apply(now, change, ttl, out) {
            warn_rarely(self.stats.changes_store_full, "change refused", &reason);
            self.refuse_for_good(now, change, reason, out);
        }
    }

    /// How many changes to receive before the first of them is handled, with a
    /// [`prefetch`](Broker::prefetch) between. 1: there is nothing to gain, for the state fits
    /// into the processor's caches, or it is another broker that applies them.
    pub fn prefetch_count(&self) -> usize {
        let is_small = self.store.footprint() < FITS_INTO_CACHES;
        if is_small || self.role != Role::Active { 1 } else { AT_ONCE }
    }

    /// Brings what changes of these keys will touch into the processor's caches. Most of what
    /// a change takes is waiting for that, if there are a hundred thousand keys or more: for
    /// several changes it is done at the same time. Nothing else comes of it, and the changes
    /// need not come.
    pub fn prefetch<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        // What is longer is refused.
        let max_key = self.config.limits.max_key;
        keys.filter(|key| key.len() <= max_key).for_each(|key| self.store.prefetch(key));
    }

    /// Refuses a change, and any copy of it that comes later.
    fn refuse_for_good(
        &mut self,
        now: Time,
        change: &KvMsg<'_>,
        reason: &'static str,
        out: &mut impl BrokerOutbox,
    ) {
        if let Some(uuid) = change.uuid {
            self.refused.insert(uuid, reason, self.sequence, now);
            self.stream_refusal(now, uuid, reason, out);
        }
        self.answer(change, Answer::Refused(reason), out);
    }

    /// Sets a key from within the process, as a change without uuid.
    ///
    /// # Errors
    /// The limit that refuses it, in words.
    pub fn set(
        &mut self,
        now: Time,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
        out: &mut impl BrokerOutbox,
    ) -> Result<Sequence, String> {
        if self.role != Role::Active {
            return Err(format!("the broker is {}, not active", self.role));
        }
        let limits = &self.config.limits;
        check_key(key, limits).map_err(|error| error.to_string())?;
        if value.is_empty() || value.len() > limits.max_value {
            return Err(format!(
                "value: expected 1 to {} bytes, got {}",
                limits.max_value,
                value.len()
            ));
        }
        let change = local_change(key, value);
        self.apply(now, &change, ttl, out).map_err(|reason| format!("store: {reason}"))?;
        Ok(self.sequence)
    }

    /// Deletes a key from within the process. False: it was not there.
    pub fn delete(&mut self, now: Time, key: &[u8], out: &mut impl BrokerOutbox) -> bool {
        // A deletion of a key that is there reaches no limit but the last sequence.
        self.role == Role::Active
            && self.get(key).is_some()
            && self.apply(now, &local_change(key, b""), None, out).is_ok()
    }

    /// Gives a change its sequence, stores and publishes it.
    pub(super) fn apply(
        &mut self,
        now: Time,
        change: &KvMsg<'_>,
        ttl: Option<Duration>,
        out: &mut impl BrokerOutbox,
    ) -> Result<(), &'static str> {
        if self.sequence == Sequence::MAX {
            // To give a number twice would be worse than to stop.
            self.stats.changes_store_full += 1;
            return Err("no-sequence-left");
        }
        let sequence = self.sequence.next();
        let mut properties = change.properties;
        if !properties.is_empty() && HOP_BY_HOP.iter().any(|name| properties.get(name).is_some()) {
            self.scratch.clear();
            self.scratch.copy_except(change.properties, &HOP_BY_HOP);
            properties = self.scratch.as_properties();
        }
        let hash = self.store.hash(change.key);
        if change.body.is_empty() {
            // Also of a key that is not there. The other of a pair may have it: if this history
            // is given up for its, the deletion must be there to be handed over. And what its
            // sender has set before may still be on its way.
            self.store.bury(change.key, sequence, change.uuid, properties);
        } else {
            let change = Change {
                key: change.key,
                sequence,
                uuid: change.uuid,
                properties,
                value: change.body,
                deadline: ttl.map(|ttl| match Fault::ExpireEarly.is_planted() {
                    true => now + ttl / 2,
                    false => now + ttl,
                }),
            };
            let stored = self.store.put_hashed(&change, hash);
            if let Err(full) = stored {
                self.stats.changes_store_full += 1;
                return Err(full.reason());
            }
        }
        if let Some(uuid) = change.uuid {
            let key = self.recent.key_hash(change.key, hash);
            self.recent.insert(uuid, sequence, key, now);
        }
        self.sequence = sequence;
        let properties = match ttl.filter(|_| !change.body.is_empty()) {
            None => properties,
            Some(ttl) => with_ttl(properties, ttl, &mut self.ttl_scratch),
        };
        self.published += 1;
        self.watched.published(change.key, sequence);
        self.stats.changes_applied += 1;
        let message = KvMsg { sequence, properties, ..*change };
        publish(&message, &mut self.stats, out);
        if let Some(pair) = self.pair.as_deref_mut() {
            pair.stream(now, &message, out);
        }
        Ok(())
    }

    /// What a `ttl` property means: `None` for none, zero and nonsense.
    pub(super) fn read_ttl(&mut self, properties: Properties<'_>) -> Option<Duration> {
        if properties.is_empty() {
            return None;
        }
        if let Some(ms) = properties.parse::<u64>("ttlms") {
            return (ms > 0).then(|| Duration::from_millis(ms));
        }
        let text = properties.get("ttl")?;
        let seconds = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
        match seconds {
            Some(0.0) => None,
            Some(seconds) if seconds > 0.0 => Duration::try_from_secs_f64(seconds).ok(),
            _ => {
                self.stats.ttl_malformed += 1;
                warn_rarely(
                    self.stats.ttl_malformed,
                    "ttl ignored",
                    &format_args!("expected seconds, got \"{}\"", text.escape_ascii()),
                );
                None
            }
        }
    }

    /// A change that says it was sent before, first when its client knew of
    /// nothing beyond a sequence that the window of uuids does not reach back to.
    /// Sequences and not times, since a message may be on the way for any time.
    pub(super) fn may_be_a_forgotten_repeat(&self, change: &KvMsg<'_>) -> bool {
        change.uuid.is_some()
            && self.first_sent(change).is_some_and(|known| self.may_have_forgotten(known))
    }

    /// Up to where a change that was sent again was not applied, by its own word.
    pub(super) fn first_sent(&self, change: &KvMsg<'_>) -> Option<Sequence> {
        if change.properties.is_empty() {
            return None;
        }
        let known = change.properties.parse("retry")?;
        // A number of an epoch that is none of ours says nothing here: it was sent first when the
        // history that was given up had begun.
        Some(if self.lineage.orders(known) { known } else { self.apart_since() })
    }

    /// Whether a change may have been applied or refused, and forgotten, that was not up to
    /// `known`.
    pub(super) fn may_have_forgotten(&self, known: Sequence) -> bool {
        !Fault::TrustTheWindow.is_planted()
            && (self.recent.may_have_forgotten(known) || self.refused.may_have_forgotten(known))
    }

    /// How a change stands to those of its sender that were applied. What comes last of all is
    /// no repeated one either, and needs no look at the window.
    #[inline]
    pub(super) fn order_of(&mut self, change: &KvMsg<'_>) -> Order {
        change.uuid.map_or(Order::Last, |uuid| self.recent.order(&uuid))
    }

    /// Whether its sender has changed the key by a later change already, which came over
    /// another way: this one lay at a relay, say, or on the connection before.
    ///
    /// The change that the key was last changed by tells, for ever; what somebody else has
    /// changed since, the window of uuids.
    pub(super) fn is_overtaken(&self, change: &KvMsg<'_>, order: Order) -> bool {
        if matches!(order, Order::Last | Order::Unnumbered) || Fault::TakeTheOvertaken.is_planted()
        {
            return false;
        }
        let Some(uuid) = change.uuid else { return false };
        if self.store.changed_by(change.key).is_some_and(|last| uuid.is_before(&last)) {
            return true;
        }
        order == Order::Late && {
            // It may have been deleted, and that forgotten.
            let floor = self.store.history_floor();
            let changed = self.store.changed(change.key).unwrap_or(floor);
            let key = self.recent.key_hash(change.key, self.store.hash(change.key));
            self.recent.has_later(&uuid, key, changed)
        }
    }

    /// Refuses a change that broke a limit, if its sender can still be made out.
    pub(super) fn refuse_malformed(&mut self, message: Message<'_>, out: &mut impl BrokerOutbox) {
        let (Some(key), Some(uuid)) = (message.get(0), message.get(2)) else { return };
        if let Ok(uuid) = uuid.try_into() {
            let uuid = Some(Uuid::from_bytes(uuid));
            let change = KvMsg { uuid, ..local_change(key, b"") };
            self.answer(&change, Answer::Refused("malformed"), out);
        }
    }

    pub(super) fn expire(&mut self, now: Time, out: &mut impl BrokerOutbox) {
        if now < self.expire_from {
            return;
        }
        let mut key = std::mem::take(&mut self.expired_key);
        for _ in 0..EXPIRY_BATCH {
            if !self.store.pop_expired(now, &mut key) {
                break;
            }
            let properties = Properties::from_checked(b"why=expired\n");
            let change = KvMsg { properties, ..local_change(&key, b"") };
            self.stats.expired += 1;
            if let Err(reason) = self.apply(now, &change, None, out) {
                log::error!("a key could not be expired: {reason}");
            }
        }
        self.expired_key = key;
    }
}

fn local_change<'a>(key: &'a [u8], body: &'a [u8]) -> KvMsg<'a> {
    KvMsg { key, sequence: Sequence::ZERO, uuid: None, properties: Properties::EMPTY, body }
}

/// `properties` with what remains of a time to live: whole seconds, rounded up,
/// for peers of RFC 12, and milliseconds. At least one of each, since zero
/// means *for ever*.
pub(super) fn with_ttl<'a>(
    properties: Properties<'_>,
    remaining: Duration,
    scratch: &'a mut PropertiesBuf,
) -> Properties<'a> {
    let ms = remaining.as_nanos().div_ceil(1_000_000).max(1);
    scratch.clear();
    scratch.copy_except(properties, &[]);
    scratch.push("ttl", ms.div_ceil(1000));
    scratch.push("ttlms", ms);
    scratch.as_properties()
}
