//! How the plan of a host becomes the configuration of its machine.

use std::time::Duration;

use pollux::clone::Sequence;
use pollux::clone::broker::BrokerConfig;
use pollux::clone::client::ClientConfig;
use pollux::clone::pair::{PairConfig, SafePolicy, Seat, pair_id};
use pollux::clone::relay::RelayConfig;

use crate::plan::{ClientPlan, RelayPlan, ServerKind, ServerPlan};
use crate::random::Random;

/// The configuration of the `run`th run of a broker, of which each begins above
/// everything that was given before, `last`.
pub(crate) fn broker_config(
    seed: u64,
    host: usize,
    run: u64,
    plan: &ServerPlan,
    last: u64,
) -> BrokerConfig {
    let mut random = Random::of(&[seed, 0xb207e2, host as u64, run]);
    let epoch = Sequence::from_u64(last).epoch() + 1;
    let start = Sequence::new(epoch, random.below(1000));
    let mut config = BrokerConfig::new(random.next(), start);
    config.collector = plan.collector;
    config.heartbeat = Duration::from_millis(plan.heartbeat_ms);
    config.limits.max_value = plan.max_value;
    config.store.max_keys = plan.max_keys;
    config.store.max_bytes = plan.max_bytes;
    config.store.history = plan.history;
    config.store.max_cursors = plan.max_cursors;
    config.snapshots.active = plan.snapshots_active;
    config.snapshots.waiting = plan.snapshots_waiting;
    config.snapshots.slice_entries = plan.slice_entries;
    config.snapshots.stall = Duration::from_millis(plan.snapshot_stall_ms);
    if plan.snapshot_stall_ms < 10_000 {
        // With so little patience nobody could keep a pace over such short queues.
        config.snapshots.min_rate = 0;
    }
    config.snapshots.whole_answer_bytes = plan.whole_answer_bytes;
    config.recent_count = plan.recent_count;
    config.recent_age = Duration::from_millis(plan.recent_age_ms);
    config.max_watched = plan.max_watched;
    if plan.kind == ServerKind::Pair {
        let seat = if host == 0 { Seat::Primary } else { Seat::Backup };
        let mut pair = PairConfig::new(pair_id("simulated"), seat);
        pair.policy = match plan.waits_for_standby {
            true => SafePolicy::Wait,
            false => SafePolicy::Proceed,
        };
        pair.start_grace = Duration::from_millis(plan.start_grace_ms);
        pair.ring_count = plan.ring_count;
        pair.ring_bytes = plan.ring_bytes;
        pair.backlog_count = plan.backlog_count;
        pair.backlog_bytes = plan.backlog_bytes;
        pair.held_requests = plan.held_requests;
        config.pair = Some(pair);
    }
    config
}

pub(crate) fn relay_config(plan: &RelayPlan) -> RelayConfig {
    let names = plan.upstreams.iter().map(|host| format!("host-{host}"));
    let mut config = RelayConfig::new(names.collect());
    config.subtree = plan.subtree.into();
    config.forward_count = plan.forward_count;
    config.forward_bytes = plan.forward_bytes;
    config.forward_age = Duration::from_millis(plan.forward_age_ms);
    config.backlog_count = plan.server.backlog_count;
    config.backlog_bytes = plan.server.backlog_bytes;
    config.held_requests = plan.server.held_requests;
    config
}

pub(crate) fn client_config(plan: &ClientPlan, servers: usize) -> ClientConfig {
    let mut config = ClientConfig::follow(&plan.subtrees);
    config.servers = servers;
    config.until_safe = plan.until_safe;
    config.keep_for = Duration::from_secs(20);
    config.give_up_after = Duration::from_millis(plan.give_up_ms);
    config.max_pending = plan.max_pending;
    config.max_pending_bytes = plan.max_pending_bytes;
    config.max_keys = plan.max_keys;
    config.max_bytes = plan.max_bytes;
    config.max_events = plan.max_events;
    config.max_echo_keys = plan.max_echo_keys;
    config.echo_directories = plan.echo_directories;
    config
}
