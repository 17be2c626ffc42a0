//! Our changes: taken, sent, sent again, answered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Client;
use super::event::{Event, ResyncReason};
use super::outbox::ClientOutbox;
use super::pending::{Applied, Change, NewChange, Path, READY, Slot, UNWATCHED};
use super::servers::UNANSWERED;
use super::subtree::SubtreeState;
use super::timeouts::{VOTE_EVERY, WEDGED_AFTER};
use crate::clone::SendFailure;
use crate::clone::fault::Fault;
use crate::clone::kvmsg::{KeyError, KvMsg, Uuid, check_key};
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// A port that would block is tried again after this long, if nothing says
/// earlier that it may take more.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Servers of RFC 12 would apply a repetition again: give them more time.
const RFC12_RESEND_FACTOR: u32 = 4;
/// How long to wait for proof of a subscription for an echo: a broker that
/// knows the extensions answers within milliseconds, one of RFC 12 never.
const ECHO_PATIENCE: Duration = Duration::from_secs(1);
const RFC12_ECHO_PATIENCE: Duration = Duration::from_millis(250);

/// What became of a change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer<'a> {
    Applied(Sequence),
    Refused(&'a [u8]),
    /// The broker does not know any more whether it was applied.
    Forgotten,
}

impl Client {
    /// Gives a key a value, for `ttl` if it is not `None`.
    ///
    /// The change is applied when [`Event::Applied`] says so with the uuid that
    /// this returns; until then only [`get_local`](Client::get_local) shows it.
    /// It is kept and sent again as need be, in the order of this client's
    /// changes to the key.
    ///
    /// # Errors
    /// What the broker would not take, or that too many changes are under way.
    pub fn set(
        &mut self,
        now: Time,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
        out: &mut impl ClientOutbox,
    ) -> Result<Uuid, SetError> {
        if value.is_empty() {
            return Err(SetError::EmptyValue);
        }
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Err(SetError::ZeroTtl);
        }
        self.submit(now, key, value, ttl, out)
    }

    /// Deletes a key. To delete one that is not there is a change as well.
    ///
    /// # Errors
    /// As for [`set`](Client::set).
    pub fn delete(
        &mut self,
        now: Time,
        key: &[u8],
        out: &mut impl ClientOutbox,
    ) -> Result<Uuid, SetError> {
        self.submit(now, key, &[], None, out)
    }

    /// The changes port may take more.
    pub fn handle_writable(&mut self, now: Time, out: &mut impl ClientOutbox) {
        self.blocked_until = None;
        self.send_again(now, out);
        self.flush(now, out);
    }

    fn submit(
        &mut self,
        now: Time,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
        out: &mut impl ClientOutbox,
    ) -> Result<Uuid, SetError> {
        let limits = self.limits();
        check_key(key, &limits).map_err(SetError::Key)?;
        if value.len() > limits.max_value {
            return Err(SetError::ValueSize { got: value.len(), max: limits.max_value });
        }
        let size = key.len() + value.len();
        if self.pending.len() >= self.config.max_pending
            || self.pending.bytes() + size > self.config.max_pending_bytes
        {
            return Err(SetError::TooManyPending { changes: self.pending.len() });
        }
        self.stats.submitted += 1;
        let new = NewChange { key: Arc::from(key), value: Arc::from(value), ttl };
        let slot = self.pending.insert(now, new);
        let uuid = self.pending.uuid(self.pending.get(slot).number);
        self.admit(now, slot, out);
        self.flush(now, out);
        self.wake_at(now + self.config.give_up_after);
        Ok(uuid)
    }

    /// Puts a change that was never sent where it has to wait.
    fn admit(&mut self, now: Time, slot: Slot, out: &mut impl ClientOutbox) {
        if !self.pending.may_go(slot) {
            return;
        }
        if self.pending.get(slot).path == Path::None {
            let key = Arc::clone(&self.pending.get(slot).key);
            let path = self.echo_path(now, &key, out);
            self.pending.get_mut(slot).path = path;
        }
        let list = match self.pending.get(slot).path {
            Path::Subtree(index) => {
                let subtree = &self.subtrees[index as usize];
                if subtree.is_live { READY } else { subtree.held }
            }
            Path::Echo(id) if self.echo.is_live(id) => READY,
            Path::Echo(id) => self.echo.held(id),
            Path::None => UNWATCHED,
        };
        self.pending.list(slot, list);
    }

    /// By which echo a change of this key will be answered.
    fn echo_path(&mut self, now: Time, key: &Arc<[u8]>, out: &mut impl ClientOutbox) -> Path {
        if let Some(index) = self.subtree_of(key) {
            return Path::Subtree(index as u32);
        }
        if let Some(id) = self.echo.reuse(now, key) {
            return Path::Echo(id);
        }
        if !self.echo.has_room() {
            let pending = &mut self.pending;
            let close = |list| pending.close_list(list);
            self.echo.drop_idle(now, true, &mut self.topics, out, close);
            if !self.echo.has_room() {
                return Path::None;
            }
        }
        let held = self.pending.open_list();
        let id = self.echo.watch(now, key, held, &mut self.topics, out);
        self.wake_at(now + self.echo_patience());
        Path::Echo(id)
    }

    fn echo_patience(&self) -> Duration {
        match self.broker {
            Some(broker) if !broker.extended => RFC12_ECHO_PATIENCE,
            _ => ECHO_PATIENCE,
        }
    }

    fn may_send(&self, now: Time) -> bool {
        self.is_online
            && self.broker.is_some()
            && self.blocked_until.is_none_or(|until| until <= now)
    }

    /// Sends what is ready, in order, while the port takes it.
    pub(super) fn flush(&mut self, now: Time, out: &mut impl ClientOutbox) {
        while let Some(slot) = self.pending.first(READY) {
            if !self.may_send(now) || !self.transmit(now, slot, out) {
                return;
            }
            if let Some(newer) = self.pending.newer(slot) {
                self.admit(now, newer, out);
            }
        }
    }

    /// Sends what has been without an answer for too long.
    fn send_again(&mut self, now: Time, out: &mut impl ClientOutbox) {
        if self.behind_until > now {
            // Its answer may wait to be read.
            return;
        }
        while self.may_send(now)
            && let Some(slot) = self.pending.first_due(now)
        {
            let newer = self.pending.newer(slot);
            let is_overtaken = self.pending.get(slot).is_overtaken
                || newer.is_some_and(|newer| self.pending.get(newer).sends > 0);
            if is_overtaken && !Fault::ResendOutOfOrder.is_planted() {
                // It could arrive behind the newer one: see `Pending`.
                self.pending.unlist(slot);
            } else if self.transmit(now, slot, out) {
                self.stats.resent += 1;
            } else {
                return;
            }
        }
    }

    /// Sends one change; gives whether the port took it.
    fn transmit(&mut self, now: Time, slot: Slot, out: &mut impl ClientOutbox) -> bool {
        let is_extended = self.is_extended();
        if !self.pending.get(slot).was_ever_sent() {
            self.pending.get_mut(slot).known = self.heard_of;
        }
        let change = self.pending.get(slot);
        self.properties.clear();
        match change.ttl {
            // The Guide's C servers read whole seconds.
            Some(ttl) if !is_extended => {
                let seconds = ttl.as_secs().saturating_add((ttl.subsec_nanos() > 0).into());
                self.properties.push("ttl", seconds);
            }
            Some(ttl) => {
                self.properties.push("ttl", ttl.as_secs_f64());
            }
            None => {}
        }
        if is_extended && change.was_ever_sent() {
            // A broker that may have forgotten a change so old refuses it.
            self.properties.push("retry", change.known);
        }
        let kvmsg = KvMsg {
            key: &change.key,
            sequence: Sequence::ZERO,
            uuid: Some(self.pending.uuid(change.number)),
            properties: self.properties.as_properties(),
            body: &change.value,
        };
        match kvmsg.with_frames(|frames| out.change(frames)) {
            Ok(()) => {
                self.stats.sent += 1;
                let factor = if is_extended { 1 } else { RFC12_RESEND_FACTOR };
                let wait = self.config.resend_after.saturating_mul(factor);
                let due = self.pending.sent(now, slot, wait);
                self.wake_at(due.min(now + WEDGED_AFTER));
                true
            }
            Err(SendFailure::WouldBlock | SendFailure::Unreachable) => {
                self.stats.blocked += 1;
                self.blocked_until = Some(now + TRY_AGAIN);
                self.wake_at(now + TRY_AGAIN);
                false
            }
        }
    }

    /// The change with this uuid, if it is one of ours, has its answer.
    pub(super) fn answer(
        &mut self,
        now: Time,
        uuid: Uuid,
        answer: Answer<'_>,
        out: &mut impl ClientOutbox,
    ) {
        let Some(slot) = self.pending.find(uuid) else { return };
        self.servers.votes_in_vain = 0;
        let (older, newer) = (self.pending.older(slot), self.pending.newer(slot));
        let is_told = self.pending.get(slot).is_told;
        match answer {
            Answer::Applied(sequence) => self.applied(now, slot, sequence, out),
            Answer::Refused(_) | Answer::Forgotten if is_told => self.not_safe(now, slot, out),
            // Another history may have it, and its active hand it over or serve again.
            Answer::Refused(_) if self.pending.get(slot).was_sent_before() => {
                return self.answer(now, uuid, Answer::Forgotten, out);
            }
            Answer::Refused(reason) => {
                self.stats.refused += 1;
                let reason = Arc::from(String::from_utf8_lossy(reason));
                self.events.push(Event::Refused { uuid, reason });
                self.take(now, slot, out);
            }
            Answer::Forgotten => {
                self.pending.overtake(slot);
                self.stats.timed_out += 1;
                self.events.push(Event::TimedOut { uuid, sent: true });
                self.take(now, slot, out);
            }
        }
        if let Some(older) = older
            && matches!(answer, Answer::Refused(_))
            && !self.pending.get(older).is_kept()
            && !self.pending.get(older).is_overtaken
            && newer.is_none_or(|newer| self.pending.get(newer).sends == 0)
        {
            // Its answer should have come first: it is lost, and as the refused
            // one has no effect, it may be sent again.
            self.pending.due_again(now, older);
            self.wake_at(now);
        }
        // What is safe has gone by now.
        if let Some(newer) = newer.filter(|&newer| self.pending.contains(newer)) {
            self.admit_parked(now, newer, out);
        }
        self.flush(now, out);
    }

    /// The server has applied a change, under this sequence.
    fn applied(&mut self, now: Time, slot: Slot, sequence: Sequence, out: &mut impl ClientOutbox) {
        let uuid = self.pending.uuid(self.pending.get(slot).number);
        let safe_by = self.broker.map_or(sequence, |broker| broker.as_its_own(sequence));
        let applied = Applied { sequence, safe_by };
        let mut next = self.pending.older(slot);
        while let Some(older) = next {
            next = self.pending.older(older);
            if self.pending.get(older).is_kept() {
                break;
            }
            if self.pending.get(older).is_told {
                // It was applied before; if that is undone, this one has taken its place.
                self.pending.keep(now, older, applied);
                continue;
            }
            let change = self.take(now, older, out);
            self.stats.superseded += 1;
            let lost = self.pending.uuid(change.number);
            self.events.push(Event::Superseded { uuid: lost, by: uuid });
        }
        if !self.pending.get(slot).is_told {
            self.stats.confirmed += 1;
            self.events.push(Event::Applied { uuid, sequence });
        }
        // A server of RFC 12 never says what is safe.
        let is_rfc12 = self.broker.is_some_and(|broker| !broker.extended);
        if !self.keeps() || (is_rfc12 && !self.config.until_safe) {
            match self.pending.get(slot).is_told {
                // It was kept before the client turned to a server that never says.
                true => self.not_safe(now, slot, out),
                false => drop(self.take(now, slot, out)),
            }
            // Nor does it of those before.
            return self.check_safe(now, out);
        }
        let path = std::mem::replace(&mut self.pending.get_mut(slot).path, Path::None);
        self.pending.keep(now, slot, applied);
        self.release(now, path, out);
        self.wake_at(now + self.config.keep_for);
        self.check_safe(now, out);
    }

    /// Takes the changes that have become safe, or will not any more, out of the books.
    pub(super) fn check_safe(&mut self, now: Time, out: &mut impl ClientOutbox) {
        while let Some((slot, applied, since)) = self.pending.first_kept() {
            if self.broker.is_some_and(|broker| broker.is_safe(applied.safe_by)) {
                self.safe(now, slot, applied.sequence, out);
                continue;
            }
            // A server of RFC 12 will never say.
            let is_rfc12 = self.broker.is_some_and(|broker| !broker.extended);
            if !is_rfc12 && now < since + self.config.keep_for {
                return;
            }
            self.not_safe(now, slot, out);
        }
    }

    /// A change is safe, and with it those before it, whose place it has taken: none of
    /// them may stay, to be sent behind it when it is forgotten here.
    fn safe(&mut self, now: Time, slot: Slot, sequence: Sequence, out: &mut impl ClientOutbox) {
        let mut next = Some(slot);
        while let Some(slot) = next {
            next = self.pending.older(slot);
            debug_assert!(self.pending.get(slot).is_kept(), "what is before it is kept, too");
            self.stats.safe += 1;
            let change = self.take(now, slot, out);
            let sequence = change.applied.map_or(sequence, |applied| applied.sequence);
            let uuid = self.pending.uuid(change.number);
            self.events.push(Event::Safe { uuid, sequence });
        }
    }

    /// Nobody will say whether a change is safe. Since it may be, those before it are not
    /// sent again.
    fn not_safe(&mut self, now: Time, slot: Slot, out: &mut impl ClientOutbox) {
        self.pending.overtake(slot);
        self.stats.not_safe += 1;
        let number = self.take(now, slot, out).number;
        let uuid = self.pending.uuid(number);
        self.events.push(Event::NotSafe { uuid });
    }

    /// Another broker has taken over: it is sent what it may not have.
    pub(super) fn start_over(&mut self, now: Time, out: &mut impl ClientOutbox) {
        let broker = self.broker;
        let is_there = |sequence| broker.is_some_and(|broker| broker.took_over(sequence));
        for slot in self.pending.start_over(now, is_there) {
            match self.pending.get(slot).is_overtaken {
                // It cannot be sent in its order, and whether it is there nobody says.
                true => self.not_safe(now, slot, out),
                false => self.admit(now, slot, out),
            }
        }
        if let Some(oldest) = self.pending.oldest() {
            self.wake_at(self.given_up_at(now, oldest));
        }
        self.flush(now, out);
    }

    /// Takes a change out of the books, and gives the place it had among the
    /// watched keys to another.
    fn take(&mut self, now: Time, slot: Slot, out: &mut impl ClientOutbox) -> Change {
        let change = self.pending.remove(slot);
        self.release(now, change.path, out);
        change
    }

    fn release(&mut self, now: Time, path: Path, out: &mut impl ClientOutbox) {
        if let Path::Echo(id) = path {
            self.echo.release(now, id);
            self.wake_at(self.echo.next_deadline(self.echo_patience()));
            while let Some(waiting) = self.pending.first(UNWATCHED) {
                self.admit(now, waiting, out);
                if self.pending.get(waiting).path == Path::None {
                    break;
                }
            }
        }
    }

    fn admit_parked(&mut self, now: Time, slot: Slot, out: &mut impl ClientOutbox) {
        if self.pending.is_parked(slot) && self.pending.get(slot).sends == 0 {
            self.admit(now, slot, out);
        }
    }

    /// Does what is due for our changes.
    pub(super) fn check_changes(&mut self, now: Time, out: &mut impl ClientOutbox) {
        if self.blocked_until.is_some_and(|until| until <= now) {
            self.blocked_until = None;
        }
        self.give_up(now, out);
        self.check_safe(now, out);
        if self.is_online && self.broker.is_some() {
            let patience = self.echo_patience();
            let pending = &mut self.pending;
            self.echo.presume(now, patience, |held| pending.make_ready(held));
        }
        let pending = &mut self.pending;
        let close = |list| pending.close_list(list);
        self.echo.drop_idle(now, false, &mut self.topics, out, close);
        self.vote_if_wedged(now, out);
        self.send_again(now, out);
        self.flush(now, out);
    }

    fn give_up(&mut self, now: Time, out: &mut impl ClientOutbox) {
        while let Some(slot) = self.pending.oldest() {
            if self.given_up_at(now, slot) > now {
                return;
            }
            let newer = self.pending.newer(slot);
            if self.pending.get(slot).is_told {
                self.not_safe(now, slot, out);
            } else {
                if self.pending.get(slot).was_ever_sent() {
                    self.pending.overtake(slot);
                }
                let change = self.take(now, slot, out);
                self.stats.timed_out += 1;
                let uuid = self.pending.uuid(change.number);
                self.events.push(Event::TimedOut { uuid, sent: change.was_ever_sent() });
            }
            if let Some(newer) = newer {
                self.admit_parked(now, newer, out);
            }
        }
    }

    /// When a change is given up; twice as late if its answer may wait to be read.
    fn given_up_at(&self, now: Time, slot: Slot) -> Time {
        let at = self.pending.get(slot).submitted + self.config.give_up_after;
        match self.behind_until > now {
            true => self.behind_until.min(at + self.config.give_up_after).max(at),
            false => at,
        }
    }

    /// A server of RFC 12 that sends heartbeats but applies nothing may wait
    /// for somebody to ask for a snapshot: a restarted half of a pair does.
    fn vote_if_wedged(&mut self, now: Time, out: &mut impl ClientOutbox) {
        let Some(slot) = self.pending.oldest() else { return };
        if self.wedged_at(slot) > now {
            return;
        }
        if self.servers.are_many() && self.servers.votes_in_vain >= UNANSWERED {
            self.servers.votes_in_vain = 0;
            return self.leave(now, out);
        }
        self.stats.votes += 1;
        self.servers.votes_in_vain += 1;
        self.voted = Some(now);
        let change = self.pending.get(slot);
        match change.path {
            Path::Subtree(index)
                if self.subtrees[index as usize].state == SubtreeState::Current =>
            {
                self.resync(now, index as usize, ResyncReason::Wedged, out);
            }
            _ => {
                let key = Arc::clone(&change.key);
                self.vote(now, &key, out);
            }
        }
    }

    /// When the server is to be taken for wedged, the oldest change being this.
    fn wedged_at(&self, oldest: Slot) -> Time {
        let change = self.pending.get(oldest);
        let is_rfc12 = self.broker.is_some_and(|broker| !broker.extended);
        if change.sends == 0 || !is_rfc12 || !self.is_online || !self.has_heartbeats {
            return Time::NEVER;
        }
        let wedged_at = change.first_sent + WEDGED_AFTER;
        self.judged_at(self.voted.map_or(wedged_at, |voted| wedged_at.max(voted + VOTE_EVERY)))
    }

    /// When something is due for our changes.
    pub(super) fn changes_deadline(&self, now: Time) -> Time {
        // While the broker is not heard, nothing is taken for live.
        let is_heard = self.is_online && self.broker.is_some();
        let patience = if is_heard { self.echo_patience() } else { Duration::MAX };
        let mut deadline = self.echo.next_deadline(patience);
        if let Some(oldest) = self.pending.oldest() {
            deadline = deadline.min(self.given_up_at(now, oldest));
            deadline = deadline.min(self.wedged_at(oldest));
        }
        if let Some((.., since)) = self.pending.first_kept() {
            deadline = deadline.min(since + self.config.keep_for);
        }
        if let Some(until) = self.blocked_until {
            deadline = deadline.min(until);
        }
        if self.may_send(now) {
            deadline = deadline.min(self.judged_at(self.pending.next_due()));
        }
        deadline
    }
}

/// Why a change was not taken. Nothing was sent and nothing kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetError {
    /// No entry can have this key.
    Key(KeyError),
    /// An empty value means deletion: use [`Client::delete`].
    EmptyValue,
    /// The value is over the broker's limit.
    ValueSize {
        /// Its bytes.
        got: usize,
        /// How many are allowed.
        max: usize,
    },
    /// A time to live of zero.
    ZeroTtl,
    /// The client is not on a loop yet: attach its node first.
    NotStarted,
    /// Too many changes have no answer yet, or too large ones: wait for events.
    TooManyPending {
        /// How many.
        changes: usize,
    },
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetError::Key(error) => error.fmt(f),
            SetError::EmptyValue => f.write_str("value: an empty one means deletion, use delete"),
            SetError::ValueSize { got, max } => {
                write!(f, "value: expected at most {max} bytes, got {got}")
            }
            SetError::ZeroTtl => f.write_str("ttl: expected more than zero"),
            SetError::NotStarted => f.write_str("the client is on no loop: attach its node first"),
            SetError::TooManyPending { changes } => {
                write!(f, "{changes} changes have no answer yet: wait for some")
            }
        }
    }
}

impl std::error::Error for SetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SetError::Key(error) => Some(error),
            _ => None,
        }
    }
}
