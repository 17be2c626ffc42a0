//! Every change ever made: the plain model that programs are held against.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use pollux::Time;
use pollux::clone::{KvMsg, Sequence, Uuid};

use crate::coverage::Coverage;
use crate::plan::DRIFT_PPM;

/// A change as an application asked for it.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    /// Who, and the how manyth of it.
    pub(crate) client: usize,
    pub(crate) number: u64,
    pub(crate) key: Rc<[u8]>,
    /// Empty: delete it.
    pub(crate) value: Rc<[u8]>,
    pub(crate) fate: Fate,
}

/// What its application was told became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    Applied(u64),
    /// It survives the loss of a broker, since then.
    Safe(Time),
    /// It has no effect, and never will; a broker that began before `since` may
    /// have applied it, and have lost it with its state.
    NoEffect {
        since: u64,
    },
    Unknown,
}

/// What a key was from one change on.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) sequence: u64,
    pub(crate) uuid: Option<Uuid>,
    /// Empty: it was deleted.
    pub(crate) value: Rc<[u8]>,
    pub(crate) at: Time,
    /// When it is to expire, by the clock of who published it and by ours.
    pub(crate) expires: Option<Expires>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Expires {
    /// `None` once another broker has taken it over, whose clock is another.
    pub(crate) local: Option<Time>,
    pub(crate) global: Time,
    pub(crate) after: Duration,
}

/// What one broker published while it was active without a break: the changes of
/// an epoch, on top of what it began with.
#[derive(Debug)]
pub(crate) struct Reign {
    pub(crate) host: usize,
    pub(crate) start: u64,
    /// The last sequence published.
    pub(crate) last: u64,
    pub(crate) began: Time,
    pub(crate) ended: Option<Time>,
    /// The start of the reign it goes on from, and the last sequence taken over.
    parent: Option<(u64, u64)>,
    /// The highest sequence it has called safe.
    pub(crate) stable: u64,
    keys: BTreeMap<Rc<[u8]>, Vec<Version>>,
    applied: HashMap<Uuid, u64>,
    /// The newest change of each client to each key, by its number.
    newest: HashMap<(usize, Rc<[u8]>), u64>,
}

impl Reign {
    /// The last version of a key up to a sequence.
    pub(crate) fn at(&self, key: &[u8], sequence: u64) -> Option<&Version> {
        let versions = self.keys.get(key)?;
        versions[..versions.partition_point(|version| version.sequence <= sequence)].last()
    }

    /// The keys under a prefix that ever were, with what became of them.
    pub(crate) fn under<'a>(
        &'a self,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a Rc<[u8]>, &'a [Version])> {
        let range = (Bound::Included(prefix), Bound::Unbounded);
        self.keys
            .range::<[u8], _>(range)
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, versions)| (key, &versions[..]))
    }

    /// All keys with their last versions up to a sequence, as another broker takes
    /// them over.
    fn state_at(&self, sequence: u64) -> BTreeMap<Rc<[u8]>, Vec<Version>> {
        let keys = self.keys.keys().filter_map(|key| {
            let mut version = self.at(key, sequence)?.clone();
            if let Some(expires) = &mut version.expires {
                expires.local = None;
            }
            Some((Rc::clone(key), vec![version]))
        });
        keys.collect()
    }

    pub(crate) fn knows(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key)
    }

    /// The sequence under which a change took effect here.
    pub(crate) fn applied(&self, uuid: Uuid) -> Option<u64> {
        self.applied.get(&uuid).copied()
    }
}

/// A message as a broker published it, and when.
pub(crate) struct Published<'a> {
    pub(crate) host: usize,
    pub(crate) message: KvMsg<'a>,
    /// By the broker's clock and by ours.
    pub(crate) local: Time,
    pub(crate) global: Time,
    /// Until when the broker's loop was last held up.
    pub(crate) hindered: Time,
}

#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) submissions: HashMap<Uuid, Submission>,
    submitted: HashMap<usize, u64>,
    /// By their start.
    pub(crate) reigns: BTreeMap<u64, Reign>,
    /// Which of them goes on at each host.
    ruling: BTreeMap<usize, u64>,
    /// What standbys told to have of what they follow, and when.
    confirmed: Vec<(u64, Time)>,
    /// Changes of old clients that came to a host's port for changes.
    delivered: HashSet<(usize, Uuid)>,
}

/// How a change came that a passive broker keeps.
pub(crate) struct Came {
    pub(crate) at: Time,
    /// Where the state of the broker was, and where it had heard the active to be.
    pub(crate) position: u64,
    pub(crate) heard: u64,
    pub(crate) window: Window,
}

/// The uuids that a broker remembers, and back to where it would have to.
pub(crate) struct Window {
    pub(crate) since: u64,
    pub(crate) count: usize,
    pub(crate) age: Duration,
    pub(crate) now: Time,
}

/// The name that a change made of arbitrary bytes can have.
pub(crate) const GARBAGE: [u8; 16] = *b"0123456789abcdef";
/// A time to live is told in whole milliseconds, rounded up.
const ROUNDING: Duration = Duration::from_millis(1);
/// After a promotion nothing expires for a heartbeat interval, of which this is the longest.
const RESPITE: Duration = Duration::from_secs(1);
/// A broker that is not held up deletes what has expired at once, some hundreds
/// of keys at a time.
const PUNCTUAL: Duration = Duration::from_millis(100);

impl Truth {
    pub(crate) fn submit(&mut self, uuid: Uuid, client: usize, key: &[u8], value: &[u8]) {
        let number = self.submitted.entry(client).or_default();
        *number += 1;
        let submission = Submission {
            client,
            number: *number,
            key: key.into(),
            value: value.into(),
            fate: Fate::Open,
        };
        let before = self.submissions.insert(uuid, submission);
        assert!(before.is_none(), "{uuid} names two changes");
    }

    /// A broker becomes active above `start`: with nothing, or with the state that
    /// was at `fork`.
    pub(crate) fn begin(&mut self, host: usize, start: u64, fork: Option<u64>, now: Time) {
        self.end(host, now);
        let parent = fork.and_then(|fork| Some((self.reign_of(fork)?.start, fork)));
        let base = match parent {
            Some((parent, fork)) => self.reigns[&parent].state_at(fork),
            None => BTreeMap::new(),
        };
        // Of two that do not hear one another either may be ahead in epochs, but none
        // goes on where another was, or lower than it was itself before it was killed.
        for before in self.reigns.values() {
            let is_apart = start >= before.last || start < before.start && host != before.host;
            assert!(
                is_apart,
                "one history: host {host} begins at {start}, host {} gave {} to {}",
                before.host, before.start, before.last
            );
        }
        let reign = Reign {
            host,
            start,
            last: start,
            began: now,
            ended: None,
            parent,
            stable: 0,
            keys: base,
            applied: HashMap::new(),
            newest: HashMap::new(),
        };
        assert!(self.reigns.insert(start, reign).is_none(), "two histories begin at {start}");
        self.ruling.insert(host, start);
    }

    /// A broker is active no more.
    pub(crate) fn end(&mut self, host: usize, now: Time) {
        if let Some(start) = self.ruling.remove(&host) {
            self.reigns.get_mut(&start).expect("it began").ended = Some(now);
        }
    }

    /// The reign that a sequence belongs to.
    pub(crate) fn reign_of(&self, sequence: u64) -> Option<&Reign> {
        self.reigns.range(..=sequence).next_back().map(|(_, reign)| reign)
    }

    pub(crate) fn latest(&self) -> Option<&Reign> {
        self.reigns.last_key_value().map(|(_, reign)| reign)
    }

    /// A broker published a change: it must be the next one, its own, and new.
    pub(crate) fn publish(&mut self, published: &Published<'_>, coverage: &mut Coverage) {
        let Published { host, message, global, .. } = *published;
        let start = *self.ruling.get(&host).expect("only who is active publishes");
        let inherited = message.uuid.and_then(|uuid| self.inherited(start, uuid));
        let reign = self.reigns.get_mut(&start).expect("it began");
        let sequence = message.sequence.get();
        assert_eq!(sequence, reign.last + 1, "one history: sequences rise by one");
        reign.last = sequence;
        let key: Rc<[u8]> = message.key.into();
        let before = reign.keys.get(&key).and_then(|versions| versions.last());
        if message.properties.get("why") == Some(b"expired") {
            check_expiry(before, published, reign.began);
            coverage.count("broker: expired");
        } else if let Some(uuid) = message.uuid {
            assert_eq!(
                inherited, None,
                "applied once: {uuid} again as {sequence}, after a failover"
            );
            let earlier = reign.applied.insert(uuid, sequence);
            assert_eq!(earlier, None, "applied once: {uuid} again as {sequence}");
            let is_known = self.submissions.contains_key(&uuid) || *uuid.as_bytes() == GARBAGE;
            assert!(is_known, "applied once: nobody has asked for {uuid}: {message:?}");
            if let Some(submission) = self.submissions.get(&uuid) {
                check_submission(submission, &message, uuid);
                let own = (submission.client, Rc::clone(&key));
                let newest = reign.newest.entry(own).or_default();
                assert!(
                    submission.number > *newest,
                    "order: change {} of client {} to {} after its change {newest}",
                    submission.number,
                    submission.client,
                    key.escape_ascii(),
                );
                // Old clients send each change to both of a pair, and number none. What one of
                // the two had from the other is in no order to what comes from the client itself.
                if is_numbered(uuid) || self.delivered.contains(&(host, uuid)) {
                    *newest = submission.number;
                }
            }
        }
        let version = Version {
            sequence,
            uuid: message.uuid,
            value: message.body.into(),
            at: global,
            expires: expires(published),
        };
        reign.keys.entry(key).or_default().push(version);
    }

    /// A change comes to a host's port for changes.
    pub(crate) fn deliver(&mut self, host: usize, uuid: &[u8]) {
        if let Ok(uuid) = uuid.try_into().map(Uuid::from_bytes)
            && !is_numbered(uuid)
        {
            self.delivered.insert((host, uuid));
        }
    }

    /// The epoch of a host's reign.
    pub(crate) fn epoch_of(&self, host: usize) -> Option<u32> {
        self.ruling.get(&host).map(|start| Sequence::from_u64(*start).epoch())
    }

    pub(crate) fn reign_at(&self, host: usize) -> Option<&Reign> {
        self.reigns.get(self.ruling.get(&host)?)
    }

    /// A broker calls changes safe up to here.
    pub(crate) fn stable(&mut self, host: usize, stable: u64) {
        if let Some(reign) = self.ruling.get(&host).and_then(|start| self.reigns.get_mut(start)) {
            reign.stable = reign.stable.max(stable);
        }
    }

    /// Whether a broker has called all safe up to here, in a history with that in it.
    pub(crate) fn is_called_safe(&self, sequence: u64) -> bool {
        let mut reigns = self.reigns.values().filter(|reign| reign.stable >= sequence);
        sequence == 0 || reigns.any(|reign| self.is_in_lineage(reign.start, sequence))
    }

    /// A standby says that it has everything up to here.
    pub(crate) fn confirm(&mut self, position: u64, now: Time) {
        if self.confirmed.last().is_none_or(|&(last, _)| last != position) {
            self.confirmed.push((position, now));
        }
    }

    /// Whether the broker that gave `sequence` has changed a key since, in an epoch in which it
    /// went on.
    pub(crate) fn is_changed_later(&self, key: &[u8], sequence: u64) -> bool {
        let Some(reign) = self.reign_of(sequence) else { return false };
        let mut later = self.reigns.range(reign.start + 1..).map(|(_, later)| later);
        later.any(|later| {
            let last = later.keys.get(key).and_then(|versions| versions.last());
            later.host == reign.host
                && last.is_some_and(|last| last.sequence > later.start)
                && self.is_in_lineage(later.start, sequence)
        })
    }

    /// When a standby said that it has a change that was told to be safe at `told`: of each time
    /// it was applied the first, of these the last. That it is called safe for it comes to
    /// brokers, clients and applications later, and what has happened until then they cannot
    /// know.
    pub(crate) fn confirmed_at(&self, uuid: Uuid, told: Time) -> Option<Time> {
        let first = |applied: u64| {
            let has = |position: u64| {
                let Some(reign) = self.reign_of(position) else { return false };
                applied <= position && self.is_in_lineage(reign.start, applied)
            };
            self.confirmed.iter().find(|&&(position, _)| has(position)).map(|&(_, at)| at)
        };
        self.applied(uuid).filter_map(first).filter(|&at| at <= told).max()
    }

    /// The sequence under which a change took effect in what a reign went on from.
    fn inherited(&self, start: u64, uuid: Uuid) -> Option<u64> {
        let (mut parent, mut fork) = self.reigns[&start].parent?;
        loop {
            let reign = &self.reigns[&parent];
            if let Some(sequence) = reign.applied(uuid).filter(|sequence| *sequence <= fork) {
                return Some(sequence);
            }
            let (before, until) = reign.parent?;
            (parent, fork) = (before, until.min(fork));
        }
    }

    /// Whether a sequence was given in the history that led to a reign.
    fn is_in_lineage(&self, start: u64, sequence: u64) -> bool {
        let (mut start, mut until) = (start, self.reigns[&start].last);
        loop {
            if sequence > until {
                return false;
            }
            if sequence >= start {
                return true;
            }
            match self.reigns[&start].parent {
                Some((parent, fork)) => (start, until) = (parent, fork.min(until)),
                None => return false,
            }
        }
    }

    /// Whether a broker rules, or has come to rule after `lost` was given, to whose
    /// history `kept` belongs, but not `lost`: of two histories one is given up.
    pub(crate) fn is_given_up(&self, lost: u64, kept: u64) -> bool {
        let later = self.reigns.range(lost..).map(|(start, _)| start);
        later
            .chain(self.ruling.values())
            .any(|start| self.is_in_lineage(*start, kept) && !self.is_in_lineage(*start, lost))
    }

    /// Whether a change is in the history that a host's broker goes on with.
    pub(crate) fn is_in_history_of(&self, host: usize, uuid: Uuid) -> bool {
        let Some(&start) = self.ruling.get(&host) else { return false };
        self.reigns[&start].applied(uuid).is_some() || self.inherited(start, uuid).is_some()
    }

    /// Whether a change is in the history that a host's broker goes on with, or one that
    /// replaced it, in whatever history, or one that replaced that, and so on.
    ///
    /// Two that were on their way together may have come in another order elsewhere, even
    /// before this one: as long as one of those that replaced it is there, all is as if
    /// it had been applied first. Nor need it be one history in which each was replaced: the
    /// client of this one saw the next take its place, be it in a history that was lost since,
    /// and of the next the same is promised.
    fn has_effect_in(&self, host: usize, key: &[u8], uuid: Uuid) -> bool {
        let Some(reign) = self.reign_at(host) else { return false };
        let is_there = |version: &Version| self.is_taken_over(version, key, reign, reign.last);
        self.is_in_history_of(host, uuid) || self.is_replaced(key, uuid, is_there)
    }

    /// Whether a version is in the history that led to a reign, up to a sequence: as it was, or
    /// taken over from another history.
    fn is_taken_over(&self, version: &Version, key: &[u8], reign: &Reign, until: u64) -> bool {
        match version.uuid {
            Some(uuid) => {
                self.applied(uuid).any(|it| it <= until && self.is_in_lineage(reign.start, it))
            }
            // What has no name is known by what it says, and was not taken over before it was.
            None => reign.keys.get(key).into_iter().flatten().any(|taken| {
                let is_same = taken.uuid.is_none() && taken.value == version.value;
                is_same && taken.at >= version.at && taken.sequence <= until
            }),
        }
    }

    /// Whether one that replaced a change, or one that replaced that, and so on, is such a one.
    fn is_replaced(&self, key: &[u8], uuid: Uuid, is_it: impl Fn(&Version) -> bool) -> bool {
        let (mut open, mut seen) = (vec![uuid], HashSet::from([uuid]));
        while let Some(uuid) = open.pop() {
            for reign in self.reigns.values() {
                // Given there, or in what it goes on from.
                let given = reign.applied(uuid).or_else(|| self.inherited(reign.start, uuid));
                let Some(sequence) = given else { continue };
                let versions = reign.keys.get(key).into_iter().flatten();
                for later in versions.filter(|version| version.sequence > sequence) {
                    if is_it(later) {
                        return true;
                    }
                    open.extend(later.uuid.filter(|&uuid| seen.insert(uuid)));
                }
            }
        }
        false
    }

    /// Whether a change was applied under a sequence, or counts as applied there since that is
    /// in a history that took over what had replaced it in another one, up to there.
    pub(crate) fn is_applied_as(&self, uuid: Uuid, sequence: u64) -> bool {
        let Some(submission) = self.submissions.get(&uuid) else { return false };
        let Some(reign) = self.reign_of(sequence) else { return false };
        let key = &submission.key;
        let is_there = |version: &Version| self.is_taken_over(version, key, reign, sequence);
        self.applied(uuid).any(|applied| applied == sequence)
            || self.is_replaced(key, uuid, is_there)
    }

    /// Whether a key that had `sequence` was deleted, or never there, in a history that was
    /// given up for one in which it has that still.
    pub(crate) fn was_gone_in_a_lost_history(&self, key: &[u8], sequence: u64) -> bool {
        self.reigns.values().any(|reign| match self.is_in_lineage(reign.start, sequence) {
            false => self.is_given_up(reign.last, sequence),
            true => {
                let versions = reign.keys.get(key).into_iter().flatten();
                let mut gone = versions.filter(|version| version.value.is_empty());
                gone.any(|gone| {
                    gone.sequence > sequence && self.is_given_up(gone.sequence, sequence)
                })
            }
        })
    }

    /// Whether a change [has its effect](Truth::has_effect_in) in the history that a host's
    /// broker goes on with, or a later one of its key, by which all is as if it had been
    /// applied just before that.
    pub(crate) fn is_kept_by(&self, host: usize, submission: &Submission, uuid: Uuid) -> bool {
        let key = &submission.key;
        let versions = self.reigns.values().filter_map(|reign| {
            let sequence = reign.applied(uuid)?;
            reign.at(key, sequence)
        });
        let applied_at = versions.map(|version| version.at);
        let last = self.reign_at(host).and_then(|reign| reign.keys.get(key)?.last());
        let last = last.map(|last| last.at);
        self.has_effect_in(host, key, uuid)
            || applied_at.min().is_some_and(|at| last.is_some_and(|last| last > at))
    }

    /// A change that a host kept while it was passive has its effect in the history that it goes
    /// on with, unless its key was changed since by who was active before: by the numbers there,
    /// from where the host was or had heard the active to be, or by the time, if the state was
    /// given up since and no number says anything in the history after it. (A change that was
    /// replaced in a history that is lost counts as applied with what had replaced it: no copy of
    /// it may come behind that.) Nor need it, if the window has lost one from after where its
    /// client says that this one was not applied: it may have been that one.
    pub(crate) fn check_kept(&self, host: usize, uuid: Uuid, key: &[u8], came: &Came) {
        let Some(reign) = self.reign_at(host) else { return };
        let Came { at, position, heard, ref window } = *came;
        let is_inherited = |&number: &u64| {
            let fork = reign.parent.map_or(0, |(_, fork)| fork);
            number <= fork && self.is_in_lineage(reign.start, number)
        };
        let reached = [position, heard].into_iter().filter(is_inherited).max();
        let reached = reached.unwrap_or(position);
        let taken_over = reign.at(key, reign.start);
        let is_newer = taken_over.is_some_and(|last| last.sequence > reached || last.at > at);
        assert!(
            is_newer || self.has_effect_in(host, key, uuid) || self.has_lost(reign, window),
            "no lost change: {uuid} of {} was kept for the takeover at {position}, and is gone",
            key.escape_ascii()
        );
    }

    /// Whether a window of uuids may not reach back so far in the history that led to a reign.
    fn has_lost(&self, reign: &Reign, window: &Window) -> bool {
        let given = self.reigns.values().flat_map(|reign| {
            let own = reign.keys.values().flatten();
            own.filter(|version| version.uuid.is_some() && version.sequence > reign.start)
        });
        let after = given.filter(|version| {
            version.sequence > window.since && self.is_in_lineage(reign.start, version.sequence)
        });
        let times: Vec<_> = after.map(|version| version.at).collect();
        let drift = window.age.mul_f64(4.0 * DRIFT_PPM as f64 / 1e6);
        let is_old = |&at: &Time| at + window.age <= window.now + drift;
        times.len() > window.count || times.iter().any(is_old)
    }

    /// Where a change took effect, if anywhere.
    pub(crate) fn applied(&self, uuid: Uuid) -> impl Iterator<Item = u64> + '_ {
        self.reigns.values().filter_map(move |reign| reign.applied(uuid))
    }

    /// What was told to have no effect has none.
    pub(crate) fn check_fates(&self) {
        for (uuid, submission) in &self.submissions {
            if let Fate::NoEffect { since } = submission.fate {
                let applied =
                    self.reigns.range(since..).find_map(|(_, reign)| reign.applied(*uuid));
                assert_eq!(
                    applied, None,
                    "{uuid} took effect, though it was not to: {submission:?}"
                );
            }
        }
    }
}

/// Whether a uuid is one of our clients', which tells the order: of version 8.
fn is_numbered(uuid: Uuid) -> bool {
    uuid.as_bytes()[6] >> 4 == 8 && uuid.as_bytes()[8] >> 6 == 0b10
}

fn expires(published: &Published<'_>) -> Option<Expires> {
    let properties = published.message.properties;
    let after = Duration::from_millis(properties.parse::<u64>("ttlms")?);
    if published.message.body.is_empty() {
        return None;
    }
    Some(Expires { local: Some(published.local + after), global: published.global + after, after })
}

fn check_submission(submission: &Submission, message: &KvMsg<'_>, uuid: Uuid) {
    assert!(
        *submission.key == *message.key && *submission.value == *message.body,
        "{uuid} was submitted as {submission:?}, published as {message:?}"
    );
    let is_over = matches!(submission.fate, Fate::NoEffect { .. });
    assert!(!is_over, "{uuid} takes effect after all");
}

/// A deletion by expiry is neither early nor late.
fn check_expiry(before: Option<&Version>, published: &Published<'_>, began: Time) {
    let key = published.message.key.escape_ascii();
    let Some(Version { expires: Some(expires), .. }) = before else {
        panic!("{key} expires, which is to stay: {before:?}");
    };
    let Some(local) = expires.local else {
        // As it came to its standby, whose clock goes its own way.
        let drift = expires.after.mul_f64(4.0 * DRIFT_PPM as f64 / 1e6);
        let early = expires.global.since(published.global);
        assert!(early <= ROUNDING + drift, "{key} expires {early:?} early, after a failover");
        return;
    };
    let early = local.since(published.local);
    assert!(early <= ROUNDING, "{key} expires at {:?}, {early:?} early", published.local);
    let late = published.global.since(expires.global.max(published.hindered).max(began + RESPITE));
    assert!(late <= PUNCTUAL, "{key} expires {late:?} late");
}
