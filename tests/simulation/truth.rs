//! Every change ever made: the plain model that programs are held against.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use pollux::Time;
use pollux::clone::{KvMsg, Sequence, Uuid};

use crate::coverage::Coverage;

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
    /// Empty: it was deleted.
    pub(crate) value: Rc<[u8]>,
    pub(crate) at: Time,
    pub(crate) uuid: Option<Uuid>,
    /// When it is to expire, by the clock of who published it and by ours.
    pub(crate) expires: Option<Expires>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Expires {
    pub(crate) local: Time,
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
    pub(crate) ended: Option<Time>,
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
    /// Whether what was refused once is refused for ever: a change that is sent
    /// again may find room in a store that was full.
    pub(crate) refusals_hold: bool,
    pub(crate) submissions: HashMap<Uuid, Submission>,
    submitted: HashMap<usize, u64>,
    /// By their start.
    pub(crate) reigns: BTreeMap<u64, Reign>,
    /// Which of them goes on at each host.
    ruling: BTreeMap<usize, u64>,
}

/// A time to live is told in whole milliseconds, rounded up.
const ROUNDING: Duration = Duration::from_millis(1);
/// A broker that is not held up deletes what has expired at once, some hundreds
/// of keys at a time.
const PUNCTUAL: Duration = Duration::from_millis(100);

impl Truth {
    pub(crate) fn new(refusals_hold: bool) -> Truth {
        Truth { refusals_hold, ..Truth::default() }
    }

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

    /// A broker becomes active above `start`, with what is in its store.
    pub(crate) fn begin(
        &mut self,
        host: usize,
        start: Sequence,
        base: BTreeMap<Rc<[u8]>, Version>,
    ) {
        let start = start.get();
        if let Some((_, before)) = self.reigns.last_key_value() {
            assert!(
                start >= before.last,
                "one history: host {host} begins at {start}, but {} was given by host {}",
                before.last,
                before.host
            );
        }
        let reign = Reign {
            host,
            start,
            last: start,
            ended: None,
            keys: base.into_iter().map(|(key, version)| (key, vec![version])).collect(),
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
        let reign = self.reigns.get_mut(&start).expect("it began");
        let sequence = message.sequence.get();
        assert_eq!(sequence, reign.last + 1, "one history: sequences rise by one");
        reign.last = sequence;
        let key: Rc<[u8]> = message.key.into();
        let before = reign.keys.get(&key).and_then(|versions| versions.last());
        if message.properties.get("why") == Some(b"expired") {
            check_expiry(before, published);
            coverage.count("broker: expired");
        } else if let Some(uuid) = message.uuid {
            let earlier = reign.applied.insert(uuid, sequence);
            assert_eq!(earlier, None, "applied once: {uuid} again as {sequence}");
            if let Some(submission) = self.submissions.get(&uuid) {
                check_submission(submission, &message, uuid);
                let own = (submission.client, Rc::clone(&key));
                let newest = reign.newest.entry(own).or_default();
                assert!(
                    submission.number > *newest || !self.refusals_hold,
                    "order: change {} of client {} to {} after its change {newest}",
                    submission.number,
                    submission.client,
                    key.escape_ascii(),
                );
                *newest = submission.number.max(*newest);
            }
        }
        let version = Version {
            sequence,
            value: message.body.into(),
            at: global,
            uuid: message.uuid,
            expires: expires(published),
        };
        reign.keys.entry(key).or_default().push(version);
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

fn expires(published: &Published<'_>) -> Option<Expires> {
    let properties = published.message.properties;
    let after = Duration::from_millis(properties.parse::<u64>("ttlms")?);
    if published.message.body.is_empty() {
        return None;
    }
    Some(Expires { local: published.local + after, global: published.global + after, after })
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
fn check_expiry(before: Option<&Version>, published: &Published<'_>) {
    let key = published.message.key.escape_ascii();
    let Some(Version { expires: Some(expires), .. }) = before else {
        panic!("{key} expires, which is to stay: {before:?}");
    };
    assert!(
        published.local + ROUNDING >= expires.local,
        "{key} expires at {:?}, {:?} early",
        published.local,
        expires.local.since(published.local)
    );
    let due = expires.global.max(published.hindered);
    assert!(
        published.global <= due + PUNCTUAL,
        "{key} expires {:?} late",
        published.global.since(expires.global)
    );
}
