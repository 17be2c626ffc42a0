//! What a broker is made with, and the limits it keeps.

use std::time::Duration;

use super::SnapshotLimits;
use crate::clone::Collector;
use crate::clone::kvmsg::Limits;
use crate::clone::pair::PairConfig;
use crate::clone::sequence::Sequence;
use crate::clone::store::StoreLimits;

/// Identity, pace and limits of a [`Broker`](super::Broker).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct BrokerConfig {
    /// Names this run of the broker; random, new with each process.
    pub node: u64,
    /// Where sequences begin: above everything that an earlier run without
    /// its state at hand can have given.
    pub start: Sequence,
    /// Interval between heartbeats, 1 ms at least and an hour at most. Default 1 s.
    pub heartbeat: Duration,
    /// The kind of socket on the changes port, which clients must know.
    pub collector: Collector,
    /// Sizes of keys, values and properties.
    pub limits: Limits,
    /// Sizes of the store.
    pub store: StoreLimits,
    /// How many snapshots, how fast.
    pub snapshots: SnapshotLimits,
    /// Uuids remembered, so that a repeated change has no second effect, nor one that comes
    /// behind a later one of its sender; 0 is taken for 1.
    /// Default 1,048,576 (at most 70 MB, taken as needed).
    pub recent_count: usize,
    /// How long uuids are remembered. Default 60 s.
    pub recent_age: Duration,
    /// Subtrees with a heartbeat of their own. Default 10,000; a client over
    /// the limit falls back to asking for deltas.
    pub max_watched: usize,
    /// Its part in a pair; `None` for a broker that is alone. Default `None`.
    pub pair: Option<PairConfig>,
}

impl BrokerConfig {
    /// The defaults, for a broker named `node` whose sequences begin at `start`.
    pub fn new(node: u64, start: Sequence) -> BrokerConfig {
        BrokerConfig {
            node,
            start,
            heartbeat: Duration::from_secs(1),
            collector: Collector::Pull,
            limits: Limits::default(),
            store: StoreLimits::default(),
            snapshots: SnapshotLimits::default(),
            recent_count: 1 << 20,
            recent_age: Duration::from_secs(60),
            max_watched: 10_000,
            pair: None,
        }
    }
}
