//! Relays in a run: which there are, whom they follow, who follows them, and what happens to
//! them. All of it is drawn from a stream of its own: a run without relays is what it would be
//! if there were none.

use super::{ClientKind, Clock, Fault, Plan, ServerKind, ServerPlan, What, broker_plan};
use crate::net::{PORTS, Port, Way};
use crate::random::Random;

/// Of a hundred runs, so many have relays.
const SHARE: u64 = 20;
/// Names the stream.
const STREAM: u64 = 0x7e1a7;

/// A relay. Its host has the number behind those of all clients.
#[derive(Debug, Clone)]
pub(crate) struct RelayPlan {
    /// As a broker.
    pub(crate) server: ServerPlan,
    /// The hosts that it can follow.
    pub(crate) upstreams: Vec<usize>,
    pub(crate) subtree: &'static str,
    pub(crate) forward_count: usize,
    pub(crate) forward_bytes: usize,
    pub(crate) forward_age_ms: u64,
}

impl Plan {
    pub(crate) fn relay_host(&self, relay: usize) -> usize {
        self.servers.len() + self.clients.len() + relay
    }

    /// The relay on a host, if there is one.
    pub(crate) fn relay_at(&self, host: usize) -> Option<&RelayPlan> {
        self.relays.get(host.checked_sub(self.relay_host(0))?)
    }

    /// The server on a host, be it a relay.
    pub(crate) fn server_at(&self, host: usize) -> &ServerPlan {
        self.relay_at(host).map_or_else(|| &self.servers[host], |relay| &relay.server)
    }

    /// The hosts that a client knows.
    pub(crate) fn servers_of(&self, client: usize) -> Vec<usize> {
        match self.clients[client].relay {
            Some(relay) => vec![self.relay_host(relay)],
            None => (0..self.servers.len()).collect(),
        }
    }

    pub(super) fn add_relays(&mut self) {
        let mut random = Random::of(&[self.seed, STREAM]);
        let is_old = matches!(self.servers[0].kind, ServerKind::Old { .. });
        if !random.chance(SHARE) || is_old {
            return;
        }
        let mut upstreams: Vec<usize> = (0..self.servers.len()).collect();
        if random.chance(50) {
            upstreams.reverse();
        }
        let subtree = random.pick(&["", "", "/a/", "/"]);
        let first = self.relay_plan(&mut random, upstreams.clone(), subtree);
        self.relays.push(first);
        if random.chance(30) {
            let behind = match random.chance(50) {
                true => vec![self.relay_host(0)],
                false => [vec![self.relay_host(0)], upstreams].concat(),
            };
            let subtree = match subtree {
                "" => random.pick(&["", "/a/"]),
                all => all,
            };
            let second = self.relay_plan(&mut random, behind, subtree);
            self.relays.push(second);
        }
        let most = self.latencies_us.iter().max().map_or(20, |most| most + 1);
        for _ in 0..self.relays.len() {
            self.latencies_us.push(random.between(20, most.max(21)));
            self.clocks.push(Clock::any(&mut random));
        }
        self.move_clients(&mut random);
        self.add_relay_steps(&mut random);
    }

    fn relay_plan(
        &self,
        random: &mut Random,
        upstreams: Vec<usize>,
        subtree: &'static str,
    ) -> RelayPlan {
        let mut limit = |percent: u64, low: u64, high: u64, usual: usize| {
            if random.chance(percent) { random.between(low, high) as usize } else { usual }
        };
        let (forward_count, forward_bytes) =
            (limit(15, 1, 12, 100_000), limit(10, 200, 3000, 1 << 20));
        let forward_age_ms = limit(20, 500, 4000, 60_000) as u64;
        let backlog_bytes = limit(10, 200, 3000, 1 << 28);
        let is_small = limit(6, 1, 2, 0) == 1;
        let alone = broker_plan(random);
        // Too small for all that there is, or surely large enough.
        let max_keys = if is_small { random.between(2, 30) as usize } else { 1_000_000 };
        let server = ServerPlan {
            kind: ServerKind::Relay,
            backlog_bytes,
            max_keys,
            max_bytes: 1 << 30,
            max_value: 1 << 20,
            ..alone
        };
        RelayPlan { server, upstreams, subtree, forward_count, forward_bytes, forward_age_ms }
    }

    /// Some clients follow a relay instead; the first one always does.
    fn move_clients(&mut self, random: &mut Random) {
        for index in 0..self.clients.len() {
            let relay = random.index(self.relays.len());
            if index > 0 && random.chance(30) {
                continue;
            }
            let subtree = self.relays[relay].subtree;
            let client = &mut self.clients[index];
            client.relay = Some(relay);
            client.subtrees = match (client.kind, subtree) {
                (_, "") => continue,
                // It asks for what it likes: a part of the tree is no whole answer to that.
                (ClientKind::Asker, _) => {
                    client.relay = None;
                    continue;
                }
                (ClientKind::Old, "/a/") => vec!["/a/"],
                (ClientKind::Old, _) => vec![random.pick(&["/a/", "/b/"])],
                (ClientKind::New, "/a/") => {
                    random.pick(&[&["/a/"][..], &["/a/deep/"], &[]]).to_vec()
                }
                (ClientKind::New, _) => {
                    random.pick(&[&["/a/", "/b/"][..], &["/a/"], &["/c/"], &["/"], &[]]).to_vec()
                }
            };
        }
        // Programs of RFC 12 send changes by PUB.
        let is_old = |client: &super::ClientPlan, at| {
            client.kind == ClientKind::Old && client.relay == Some(at)
        };
        for (at, relay) in self.relays.iter_mut().enumerate() {
            if self.clients.iter().any(|client| is_old(client, at)) {
                relay.server.collector = pollux::clone::Collector::Sub;
            }
        }
    }

    fn add_relay_steps(&mut self, random: &mut Random) {
        let mut steps: Vec<_> = std::mem::take(&mut self.steps)
            .into_iter()
            .map(|step| (step.at_ms, step.what))
            .collect();
        self.add_faults(random, &mut steps, FAULTS);
        self.number(steps);
    }

    fn any_relay(&self, random: &mut Random) -> usize {
        self.relay_host(random.index(self.relays.len()))
    }

    fn any_upstream(&self, random: &mut Random, host: usize) -> usize {
        match self.relay_at(host) {
            Some(relay) => random.pick(&relay.upstreams),
            None => 0,
        }
    }

    /// A connection of a relay's client, or of the relay to whom it follows: who makes it, and
    /// to whom.
    fn any_connection(&self, random: &mut Random) -> (usize, usize) {
        let relay = self.any_relay(random);
        match random.chance(50) {
            true => (relay, self.any_upstream(random, relay)),
            false => (self.client_host(self.any_client(random)), relay),
        }
    }
}

/// Each kind of fault with its shortest mean distance, in milliseconds.
const FAULTS: &[Fault] = &[
    (
        |plan, random| {
            let (client, server) = plan.any_connection(random);
            What::Cut { client, server, port: random.pick(&PORTS) }
        },
        100,
    ),
    // What it follows comes with gaps.
    (
        |plan, random| {
            let client = plan.any_relay(random);
            What::Cut { client, server: plan.any_upstream(random, client), port: Port::Updates }
        },
        200,
    ),
    (
        |plan, random| {
            let (client, server) = plan.any_connection(random);
            let (from, to) = if random.chance(50) { (server, client) } else { (client, server) };
            What::Block { from, to, ms: random.between(20, 5000), both: random.chance(50) }
        },
        500,
    ),
    (
        |plan, random| {
            let longest = random.pick(&[100, 3000]);
            What::Stall { host: plan.any_relay(random), ms: random.between(10, longest) }
        },
        400,
    ),
    (
        |plan, random| What::Slow {
            host: plan.any_relay(random),
            each_us: random.between(500, 20_000),
            ms: random.between(100, 3000),
        },
        1000,
    ),
    (
        |plan, random| {
            let (client, server) = plan.any_connection(random);
            let way = random.pick(&[Way::ToServer, Way::ToClient]);
            What::Double { client, server, way, count: 1 + random.index(5) }
        },
        100,
    ),
    (
        |plan, random| What::Restart { host: plan.any_relay(random), ms: random.between(10, 4000) },
        2000,
    ),
    (
        |plan, random| What::Freeze { host: plan.any_relay(random), ms: random.between(100, 6000) },
        2000,
    ),
    (
        |plan, random| What::Garbage { server: plan.any_relay(random), port: random.pick(&PORTS) },
        200,
    ),
];
