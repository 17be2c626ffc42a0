//! [`Event`]: what the client tells the application; and the queue of them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::difference::Difference;
use super::tree::Tree;
use crate::clone::kvmsg::Uuid;
use crate::clone::sequence::Sequence;

/// What happened, in order, as [`Client::poll_event`](super::Client::poll_event)
/// gives it. Keys and values are shared with the map: cloning one is cheap.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The map under `subtree` is whole and follows from here. Comes after the
    /// `Updated` and `Deleted` that say what the snapshot changed.
    Synced {
        /// Which subtree.
        subtree: Arc<[u8]>,
        /// Everything up to here is in the map.
        sequence: Sequence,
        /// How many keys it holds.
        keys: usize,
    },
    /// A key has a new value.
    Updated {
        /// The key.
        key: Arc<[u8]>,
        /// Its value, never empty.
        value: Arc<[u8]>,
        /// The sequence of the change.
        sequence: Sequence,
    },
    /// A key is gone.
    Deleted {
        /// The key.
        key: Arc<[u8]>,
        /// Why it went.
        why: Why,
    },
    /// Changes under `subtree` were lost on the way. `Resync` follows at once.
    Gap {
        /// Which subtree.
        subtree: Arc<[u8]>,
        /// How many are missing, where that can be told.
        missed: Option<u64>,
    },
    /// The map under `subtree` is no longer known to be right: it stays readable
    /// as it was until `Synced`.
    Resync {
        /// Which subtree.
        subtree: Arc<[u8]>,
        /// What made it so.
        reason: ResyncReason,
    },
    /// The map under `subtree` does not fit into the limits of the
    /// configuration. It stays as it was, not current; the client asks again
    /// from time to time.
    LimitReached {
        /// Which subtree.
        subtree: Arc<[u8]>,
    },
    /// Nothing was heard of the broker for the heartbeat timeout. Told once;
    /// no subtree is current. When it is heard again, each says `Resync`.
    Lost,
    /// The change took effect. Whether `Safe` or `NotSafe` is still to come,
    /// [`Client::is_kept`](super::Client::is_kept) tells once the events that are there
    /// already have been read.
    Applied {
        /// Which change.
        uuid: Uuid,
        /// Under this sequence.
        sequence: Sequence,
    },
    /// The change, which was applied, survives the loss of the broker that applied it: it
    /// or a later one of the same key by this client, which took its place. Told if changes
    /// are kept [until they are safe](super::ClientConfig::until_safe), once for each that
    /// was applied, unless `NotSafe` is.
    Safe {
        /// Which change.
        uuid: Uuid,
        /// Under this sequence, which after a failover can be another than `Applied` told.
        sequence: Sequence,
    },
    /// The change was applied, but it could not be learned that it is safe: no standby
    /// confirmed it within [`keep_for`](super::ClientConfig::keep_for), or the broker was
    /// lost, and the next one did not say whether it has it. It is not sent again.
    NotSafe {
        /// Which change.
        uuid: Uuid,
    },
    /// The client turned to another server, since the one before was silent or serves no
    /// more, and asks there.
    Turned {
        /// Which one, by its number from 0.
        server: usize,
    },
    /// The relay that serves us does not hear the broker that it follows any more. The map is
    /// what the relay has, and may be old; changes wait there.
    UpstreamLost,
    /// It hears it again, or another server was found. What was missed comes as ever.
    UpstreamBack,
    /// The broker refused the change: it has no effect.
    Refused {
        /// Which change.
        uuid: Uuid,
        /// What the broker said.
        reason: Arc<str>,
    },
    /// The change was lost on the way, or its confirmation was, and a later
    /// change of the same key by this client has been applied. Sending it again
    /// could undo the later one, so it is given up.
    Superseded {
        /// Which change.
        uuid: Uuid,
        /// The later one.
        by: Uuid,
    },
    /// No answer came before the time to give up, or the broker has forgotten
    /// by now whether it applied the change, or has refused it after another one, which
    /// was lost, had been sent it.
    TimedOut {
        /// Which change.
        uuid: Uuid,
        /// Whether it was sent at all. If not, it has no effect; if so, that is
        /// unknown.
        sent: bool,
    },
    /// The application did not drain the events: so many `Updated` and
    /// `Deleted` were dropped. The map itself is right.
    Overrun {
        /// How many.
        dropped: u64,
    },
}

/// Bytes as text, escaped where they are none.
struct Text<'a>(&'a [u8]);

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, subtree) = match self {
            Event::Synced { subtree, .. } => ("Synced", Some(subtree)),
            Event::Gap { subtree, .. } => ("Gap", Some(subtree)),
            Event::Resync { subtree, .. } => ("Resync", Some(subtree)),
            Event::LimitReached { subtree } => ("LimitReached", Some(subtree)),
            Event::Updated { .. } => ("Updated", None),
            Event::Deleted { .. } => ("Deleted", None),
            Event::Lost => ("Lost", None),
            Event::Applied { .. } => ("Applied", None),
            Event::Safe { .. } => ("Safe", None),
            Event::NotSafe { .. } => ("NotSafe", None),
            Event::Turned { .. } => ("Turned", None),
            Event::UpstreamLost => ("UpstreamLost", None),
            Event::UpstreamBack => ("UpstreamBack", None),
            Event::Refused { .. } => ("Refused", None),
            Event::Superseded { .. } => ("Superseded", None),
            Event::TimedOut { .. } => ("TimedOut", None),
            Event::Overrun { .. } => ("Overrun", None),
        };
        let mut f = f.debug_struct(name);
        if let Some(subtree) = subtree {
            f.field("subtree", &Text(subtree));
        }
        match self {
            Event::Synced { sequence, keys, .. } => {
                f.field("sequence", sequence).field("keys", keys)
            }
            Event::Gap { missed, .. } => f.field("missed", missed),
            Event::Resync { reason, .. } => f.field("reason", reason),
            Event::Updated { key, value, sequence } => {
                f.field("key", &Text(key)).field("value", &Text(value)).field("sequence", sequence)
            }
            Event::Deleted { key, why } => f.field("key", &Text(key)).field("why", why),
            Event::Applied { uuid, sequence } | Event::Safe { uuid, sequence } => {
                f.field("uuid", uuid).field("sequence", sequence)
            }
            Event::NotSafe { uuid } => f.field("uuid", uuid),
            Event::Turned { server } => f.field("server", server),
            Event::Refused { uuid, reason } => f.field("uuid", uuid).field("reason", reason),
            Event::Superseded { uuid, by } => f.field("uuid", uuid).field("by", by),
            Event::TimedOut { uuid, sent } => f.field("uuid", uuid).field("sent", sent),
            Event::Overrun { dropped } => f.field("dropped", dropped),
            Event::LimitReached { .. }
            | Event::Lost
            | Event::UpstreamLost
            | Event::UpstreamBack => &mut f,
        };
        f.finish()
    }
}

/// Why a key is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// Somebody deleted it.
    Deleted,
    /// Its time to live was over.
    Expired,
    /// A fresh snapshot does not have it; what became of it is unknown.
    Absent,
}

/// Why a subtree is synchronised again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResyncReason {
    /// Changes were lost on the way.
    Gap,
    /// The broker was silent and is heard again.
    Reconnected,
    /// Another broker, or another run of it, answers.
    NewBroker,
    /// The sequence went down, as after the restart of an RFC 12 server.
    SequenceDown,
    /// The subtree's heartbeats stopped while the broker is alive.
    Unwatched,
    /// A routine question after changes was not answered.
    Unanswered,
    /// Heartbeats come, but no change of ours is ever applied.
    Wedged,
    /// The map reached a limit of the configuration.
    Limit,
}

#[derive(Debug)]
pub(crate) enum Queued {
    Event(Event),
    /// The events of a snapshot, made when they are asked for.
    Difference(Difference),
}

/// Events in order, bounded.
#[derive(Debug)]
pub(crate) struct Events {
    queue: VecDeque<Queued>,
    /// Differences in the queue.
    differences: usize,
    max: usize,
    /// Dropped since the last `Overrun`.
    dropped: u64,
}

impl Events {
    pub(crate) fn new(max: usize) -> Events {
        Events { queue: VecDeque::new(), differences: 0, max, dropped: 0 }
    }

    /// Queues what must not be dropped: one for each change of ours or
    /// transition of a subtree, which have their own limits.
    pub(crate) fn push(&mut self, event: Event) {
        self.queue.push_back(Queued::Event(event));
    }

    /// Queues an event of a key of a subtree; gives false if the application has let
    /// the queue fill and it was dropped.
    ///
    /// A difference tells keys as they are when it is asked. What is queued behind one
    /// must do so, too, or it would tell what the key was before.
    pub(crate) fn push_key(&mut self, subtree: usize, event: Event) -> bool {
        let fits = self.queue.len() < self.max;
        match event {
            _ if !fits => self.dropped += 1,
            Event::Updated { key, .. } if self.differences > 0 => {
                self.changed(subtree, vec![(key, Why::Deleted)]);
            }
            Event::Deleted { key, why } if self.differences > 0 => {
                self.changed(subtree, vec![(key, why)]);
            }
            event => self.push(event),
        }
        fits
    }

    /// These keys of a subtree came out of a snapshot different.
    pub(crate) fn changed(&mut self, subtree: usize, keys: Vec<(Arc<[u8]>, Why)>) {
        self.push_difference(Difference::keys(subtree, keys));
    }

    fn push_difference(&mut self, difference: Difference) {
        self.differences += 1;
        self.queue.push_back(Queued::Difference(difference));
    }

    /// The map of a subtree was replaced, `old` is what it was.
    pub(crate) fn replaced(&mut self, subtree: usize, old: Tree) {
        let untold = self.queue.iter_mut().find_map(|queued| match queued {
            Queued::Difference(untold) if untold.replaces(subtree) => Some(untold),
            _ => None,
        });
        match untold {
            Some(untold) => untold.rebase(old),
            None => self.push_difference(Difference::full(subtree, old)),
        }
    }

    /// The oldest, to look at.
    pub(crate) fn front(&mut self) -> Option<&mut Queued> {
        if self.queue.is_empty() && self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            self.push(Event::Overrun { dropped });
        }
        self.queue.front_mut()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.dropped == 0
    }

    pub(crate) fn pop(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front();
        self.differences -= usize::from(matches!(queued, Some(Queued::Difference(_))));
        queued
    }
}
