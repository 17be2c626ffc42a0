//! [`Subtree`]: one of the subtrees that a client follows, and how far it is.

use std::sync::Arc;
use std::time::Duration;

use super::pending::ListId;
use super::tree::Tree;
use crate::clone::kvmsg::HUGZ;
use crate::clone::sequence::Sequence;
use crate::time::Time;

/// Heartbeats of subtrees with longer topics may never come: brokers have limits, and
/// libzmq 4.3.4 sends no subscription longer than this.
const LONGEST_SURE: usize = 245;

/// How far a subtree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubtreeState {
    /// It waits for the heartbeat that proves its subscription.
    Waiting,
    /// It waits its turn to ask for a snapshot, or for the time to ask again.
    Queued,
    /// Its snapshot is under way.
    Syncing,
    /// Its map follows the broker's.
    Current,
}

/// A subtree as [`Client::status`](super::Client::status) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubtreeStatus {
    /// Its prefix.
    pub subtree: Arc<[u8]>,
    /// How far it is.
    pub state: SubtreeState,
    /// Whether its map is known to follow the broker's. Routine questions of a
    /// subtree without heartbeats leave it so.
    pub is_current: bool,
    /// The highest sequence in its map.
    pub sequence: Sequence,
    /// Nothing up to here is missing.
    pub verified: Sequence,
    /// Its keys.
    pub keys: usize,
    /// Bytes of its keys and values.
    pub bytes: usize,
}

/// A sequence up to which a map is complete, and in whose count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) node: Option<u64>,
    pub(crate) sequence: Sequence,
}

/// The last heartbeat of a subtree, from which received changes are counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Baseline {
    /// What it said was published; `None` if it does not count.
    pub(crate) published: Option<u64>,
    pub(crate) sequence: Sequence,
    /// The highest sequence of a change received since, at least `sequence`.
    pub(crate) newest: Sequence,
    /// Changes received since.
    pub(crate) received: u64,
}

/// The heartbeats of a subtree.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) baseline: Option<Baseline>,
    pub(crate) is_subscribed: bool,
    /// When the last one came.
    pub(crate) heard: Time,
    /// When to ask for one again, while there is none.
    pub(crate) ask_at: Time,
    pub(crate) asked: u32,
    /// How often it was asked for again since it is waited for.
    pub(crate) renewed: u32,
    /// The broker does not send them: ask for changes instead.
    pub(crate) is_absent: bool,
}

#[derive(Debug)]
pub(crate) struct Subtree {
    pub(crate) prefix: Arc<[u8]>,
    /// Of its heartbeats.
    pub(crate) topic: Box<[u8]>,
    pub(crate) tree: Tree,
    pub(crate) state: SubtreeState,
    /// While `Queued`: not before.
    pub(crate) ask_at: Time,
    /// Its snapshot is a routine question: the map is current meanwhile.
    pub(crate) is_quiet: bool,
    /// When to ask it next, if it must be asked.
    pub(crate) poll_at: Time,
    /// Changes up to here are in the tree or outdated.
    pub(crate) sequence: Sequence,
    pub(crate) verified: Option<Verified>,
    /// Where the last snapshot ended.
    pub(crate) snapshot_end: Sequence,
    /// Changes up to here were perhaps lost since a snapshot was asked for.
    pub(crate) missed: Sequence,
    pub(crate) watch: Watch,
    /// Its subscription is live: an echo of a change cannot be missed.
    pub(crate) is_live: bool,
    /// Changes of ours that wait for that.
    pub(crate) held: ListId,
    /// Attempts since the map was last known to be right.
    pub(crate) fruitless: u32,
    /// Whether `Synced` was ever told.
    pub(crate) was_synced: bool,
}

impl Subtree {
    pub(crate) fn new(prefix: &[u8], held: ListId) -> Subtree {
        Subtree {
            prefix: Arc::from(prefix),
            topic: [HUGZ, prefix].concat().into(),
            tree: Tree::default(),
            state: SubtreeState::Waiting,
            ask_at: Time::NEVER,
            is_quiet: false,
            poll_at: Time::NEVER,
            sequence: Sequence::ZERO,
            verified: None,
            snapshot_end: Sequence::ZERO,
            missed: Sequence::ZERO,
            watch: Watch {
                baseline: None,
                is_subscribed: false,
                heard: Time::ZERO,
                ask_at: Time::NEVER,
                asked: 0,
                renewed: 0,
                is_absent: false,
            },
            is_live: false,
            held,
            fruitless: 0,
            was_synced: false,
        }
    }

    /// Whether it is the whole tree, whose heartbeat is the plain one.
    pub(crate) fn is_whole(&self) -> bool {
        self.prefix.is_empty()
    }

    /// Whether its own heartbeat, subscribed to together with it, proves that it is live:
    /// however often a transport connects, it then subscribes in byte order.
    pub(crate) fn proves_itself(&self) -> bool {
        *self.prefix < *self.topic && (HUGZ.len() + 1..=LONGEST_SURE).contains(&self.topic.len())
    }

    pub(crate) fn is_current(&self) -> bool {
        self.state == SubtreeState::Current || self.is_quiet
    }

    pub(crate) fn status(&self) -> SubtreeStatus {
        SubtreeStatus {
            subtree: Arc::clone(&self.prefix),
            state: self.state,
            is_current: self.is_current(),
            sequence: self.sequence,
            verified: self.verified.map_or(Sequence::ZERO, |verified| verified.sequence),
            keys: self.tree.len(),
            bytes: self.tree.bytes(),
        }
    }
}

/// How long to wait after `fruitless` attempts in vain: nothing at first, then
/// 0.1 s, doubling up to 12.8 s, less up to half of it by chance, so that the
/// clients of a broker do not all ask at the same moment.
pub(crate) fn back_off(fruitless: u32, random: u64) -> Duration {
    let Some(doublings) = fruitless.checked_sub(1) else { return Duration::ZERO };
    let longest = Duration::from_millis(100) * (1 << doublings.min(7));
    longest - longest.mul_f64((random >> 11) as f64 / (1u64 << 54) as f64)
}
