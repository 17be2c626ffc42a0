//! Pairs whose limits are narrow: each of them is reached, and what is promised holds there.
//! Drawn from a stream of its own, so that all other runs are what they would be without.

use super::{ClientKind, Plan, ServerKind};
use crate::random::Random;

/// Of a hundred runs of a pair, so many have narrow limits.
const SHARE: u64 = 15;
/// Names the stream.
const STREAM: u64 = 0x11_317;

impl Plan {
    pub(super) fn narrow_limits(&mut self) {
        let mut random = Random::of(&[self.seed, STREAM]);
        if self.servers[0].kind != ServerKind::Pair || !random.chance(SHARE) {
            return;
        }
        let mut narrow = |percent: u64, low: u64, high: u64, limit: &mut usize| {
            if random.chance(percent) {
                *limit = random.between(low, high) as usize;
            }
        };
        let mut one = self.servers[0].clone();
        narrow(40, 1, 30, &mut one.recent_count);
        narrow(40, 5, 60, &mut one.max_keys);
        narrow(20, 500, 5000, &mut one.max_bytes);
        narrow(30, 100, 2000, &mut one.max_value);
        narrow(40, 1, 20, &mut one.ring_count);
        narrow(30, 100, 2000, &mut one.ring_bytes);
        narrow(40, 1, 20, &mut one.backlog_count);
        narrow(40, 200, 3000, &mut one.backlog_bytes);
        narrow(40, 1, 3, &mut one.held_requests);
        narrow(30, 1, 4, &mut one.max_cursors);
        narrow(30, 1, 3, &mut one.snapshots_active);
        let mut age_ms = 0;
        narrow(30, 50, 2000, &mut age_ms);
        if age_ms > 0 {
            one.recent_age_ms = age_ms as u64;
        }
        if self.clients.iter().any(|client| client.kind == ClientKind::Old) {
            // They send to both brokers, and never say that they have sent before: uuids must
            // be remembered for as long as changes are kept by who is passive.
            one.recent_count = self.servers[0].recent_count;
            one.recent_age_ms = self.servers[0].recent_age_ms;
        }
        // What is not safe yet is kept within these.
        for client in self.clients.iter_mut().filter(|client| client.kind == ClientKind::New) {
            narrow(30, 1, 20, &mut client.max_pending);
            narrow(20, 100, 2000, &mut client.max_pending_bytes);
        }
        for server in &mut self.servers {
            *server = super::ServerPlan {
                turn_us: server.turn_us,
                starts_at_ms: server.starts_at_ms,
                ..one.clone()
            };
        }
    }
}
