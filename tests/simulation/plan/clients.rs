//! The clients of a run: what they follow, and their limits.

use crate::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    New,
    /// As the Guide's `clone.c` does it.
    Old,
    /// Asks raw questions on the snapshot port.
    Asker,
}

#[derive(Debug, Clone)]
pub(crate) struct ClientPlan {
    pub(crate) kind: ClientKind,
    pub(crate) subtrees: Vec<&'static str>,
    /// It follows this one of the relays, and not the servers.
    pub(crate) relay: Option<usize>,
    pub(crate) give_up_ms: u64,
    pub(crate) max_pending: usize,
    pub(crate) max_pending_bytes: usize,
    pub(crate) max_keys: usize,
    pub(crate) max_bytes: usize,
    pub(crate) max_events: usize,
    pub(crate) max_echo_keys: usize,
    pub(crate) echo_directories: bool,
    pub(crate) until_safe: bool,
    pub(crate) starts_at_ms: u64,
    /// Taken out of the run, when it is shortened.
    pub(crate) is_absent: bool,
}

const SUBTREES: [&[&str]; 7] =
    [&[""], &["/a/"], &["/a/", "/b/"], &["/b/"], &[], &["HA", "/c/"], &[""]];

pub(super) fn client_plan(random: &mut Random, may_be_old: bool) -> ClientPlan {
    let kind = match may_be_old && random.chance(50) {
        true => ClientKind::Old,
        false => ClientKind::New,
    };
    let mut limit = |percent: u64, low: u64, high: u64, usual: usize| {
        if random.chance(percent) { random.between(low, high) as usize } else { usual }
    };
    let mut plan = ClientPlan {
        kind,
        subtrees: Vec::new(),
        relay: None,
        give_up_ms: limit(30, 200, 3000, 30_000) as u64,
        max_pending: limit(10, 1, 20, 100_000),
        max_pending_bytes: limit(5, 100, 2000, 1 << 20),
        max_keys: limit(6, 1, 40, 1_000_000),
        max_bytes: limit(6, 200, 3000, 1 << 30),
        max_events: limit(30, 1, 10, 65_536),
        max_echo_keys: limit(30, 1, 4, 256),
        echo_directories: random.chance(30),
        until_safe: random.chance(50),
        starts_at_ms: if random.chance(30) { random.below(5000) } else { 0 },
        is_absent: false,
    };
    plan.subtrees = match kind {
        // Its one subtree, or all.
        ClientKind::Old => vec![random.pick(&["", "/a/", "/b/"])],
        _ => random.pick(&SUBTREES).to_vec(),
    };
    plan
}
