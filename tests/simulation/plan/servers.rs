//! The servers of a run, each with its limits and the pace of its loop.

use pollux::clone::Collector;

use crate::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerKind {
    Broker,
    /// One of a pair: the primary is host 0, the backup host 1.
    Pair,
    /// A program of RFC 12, as the Guide has them. It may be half of a wedged
    /// pair: it sends heartbeats, but serves only after it was asked for a snapshot.
    Old {
        beats: bool,
        wedges: bool,
    },
    /// Serves what another one keeps.
    Relay,
}

#[derive(Debug, Clone)]
pub(crate) struct ServerPlan {
    pub(crate) kind: ServerKind,
    pub(crate) collector: Collector,
    pub(crate) heartbeat_ms: u64,
    pub(crate) slice_entries: usize,
    pub(crate) history: usize,
    pub(crate) max_watched: usize,
    pub(crate) max_keys: usize,
    pub(crate) max_bytes: usize,
    pub(crate) max_cursors: usize,
    pub(crate) recent_count: usize,
    pub(crate) recent_age_ms: u64,
    pub(crate) snapshots_active: usize,
    pub(crate) snapshots_waiting: usize,
    pub(crate) snapshot_stall_ms: u64,
    pub(crate) whole_answer_bytes: usize,
    pub(crate) max_value: usize,
    /// Of a pair: what counts as safe without a standby, and what is kept while passive.
    pub(crate) waits_for_standby: bool,
    pub(crate) start_grace_ms: u64,
    pub(crate) ring_count: usize,
    pub(crate) ring_bytes: usize,
    pub(crate) backlog_count: usize,
    pub(crate) backlog_bytes: usize,
    pub(crate) held_requests: usize,
    /// How long one turn of its loop takes.
    pub(crate) turn_us: u64,
    pub(crate) starts_at_ms: u64,
}

impl ServerPlan {
    /// Whether all that comes while it is passive has room.
    pub(crate) fn ring_is_wide(&self) -> bool {
        self.ring_count > 1000 && self.ring_bytes > 100_000
    }

    /// Whether there may be no room for a key.
    pub(crate) fn is_small(&self) -> bool {
        self.max_keys < 1000 || self.max_bytes < 100_000 || self.max_value < 10_000
    }
}

pub(super) fn broker_plan(random: &mut Random) -> ServerPlan {
    let mut limit = |percent: u64, low: u64, high: u64, usual: usize| {
        if random.chance(percent) { random.between(low, high) as usize } else { usual }
    };
    ServerPlan {
        kind: ServerKind::Broker,
        max_watched: limit(15, 0, 4, 10_000),
        max_keys: limit(12, 5, 60, 1_000_000),
        max_bytes: limit(8, 500, 5000, 1 << 30),
        max_cursors: limit(10, 1, 4, 1024),
        recent_count: limit(12, 1, 30, 1 << 12),
        recent_age_ms: limit(12, 50, 2000, 60_000) as u64,
        snapshots_active: limit(15, 1, 3, 64),
        snapshots_waiting: limit(10, 1, 3, 4096),
        snapshot_stall_ms: limit(20, 50, 1000, 30_000) as u64,
        whole_answer_bytes: limit(30, 100, 3000, 4 << 20),
        max_value: limit(8, 100, 2000, 1 << 20),
        start_grace_ms: limit(50, 100, 3000, 2000) as u64,
        ring_count: limit(20, 1, 20, 100_000),
        ring_bytes: limit(10, 100, 2000, 1 << 20),
        backlog_count: limit(20, 1, 20, 100_000),
        backlog_bytes: 1 << 28,
        held_requests: limit(20, 1, 3, 4096),
        waits_for_standby: random.chance(50),
        collector: if random.chance(35) { Collector::Sub } else { Collector::Pull },
        heartbeat_ms: random.between(50, 1000),
        slice_entries: 1 + random.index(20),
        history: random.index(40),
        turn_us: random.pick(&[10, 100, 1000]),
        starts_at_ms: if random.chance(40) { random.below(3000) } else { 0 },
    }
}

/// Two brokers that are set up alike.
pub(super) fn pair_plan(random: &mut Random) -> Vec<ServerPlan> {
    let alone = broker_plan(random);
    let one = ServerPlan {
        kind: ServerKind::Pair,
        // What a store refuses for its limits depends on when it was promoted.
        max_keys: 1_000_000,
        max_bytes: 1 << 30,
        recent_count: 1 << 12,
        recent_age_ms: 60_000,
        max_value: 1 << 20,
        ..alone
    };
    let other = ServerPlan {
        turn_us: random.pick(&[10, 100, 1000]),
        starts_at_ms: if random.chance(50) { random.below(4000) } else { 0 },
        ..one.clone()
    };
    vec![one, other]
}

pub(super) fn old_server_plan(random: &mut Random) -> ServerPlan {
    let beats = random.chance(80);
    ServerPlan {
        kind: ServerKind::Old { beats, wedges: beats && random.chance(40) },
        collector: Collector::Sub,
        heartbeat_ms: 1000,
        max_keys: usize::MAX,
        max_bytes: usize::MAX,
        max_value: 1 << 20,
        ..broker_plan(random)
    }
}
