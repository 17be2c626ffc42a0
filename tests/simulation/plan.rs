//! What a run is made of: hosts, and the schedule of all that applications do
//! and all that goes wrong. A seed tells all of it; a failing run is shortened by
//! taking steps out.

mod limits;
mod relays;

use std::fmt;
use std::time::Duration;

use pollux::Time;
use pollux::clone::Collector;

pub(crate) use self::relays::RelayPlan;
use crate::impostor;
use crate::net::{HighWater, PORTS, Port, Way};
use crate::random::Random;

/// A run. Hosts are numbered: servers first, then clients, then relays.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) servers: Vec<ServerPlan>,
    pub(crate) clients: Vec<ClientPlan>,
    pub(crate) relays: Vec<RelayPlan>,
    /// Of each host.
    pub(crate) latencies_us: Vec<u64>,
    pub(crate) clocks: Vec<Clock>,
    pub(crate) high_water: HighWater,
    /// Names of keys below each directory.
    pub(crate) names: u64,
    /// Keys that are there from the start.
    pub(crate) preloaded: u64,
    /// When faults and changes end.
    pub(crate) end_ms: u64,
    /// In order of their time.
    pub(crate) steps: Vec<Step>,
}

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

/// A host's monotonic clock: where it began, and how fast it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    offset_ns: u64,
    drift_ppm: i64,
}

/// No clock goes faster or slower than this.
pub(crate) const DRIFT_PPM: i64 = 5000;

impl Clock {
    pub(crate) fn local(self, global: Time) -> Time {
        let ns = i128::from(global.as_nanos());
        let drifted = ns + ns * i128::from(self.drift_ppm) / 1_000_000;
        Time::from_nanos(drifted as u64 + self.offset_ns)
    }

    /// The first time at which the clock shows `local` or more.
    pub(crate) fn global(self, local: Time) -> Time {
        if local == Time::NEVER {
            return Time::NEVER;
        }
        let shown = i128::from(local.as_nanos().saturating_sub(self.offset_ns));
        let guess = shown * 1_000_000 / i128::from(1_000_000 + self.drift_ppm);
        let mut guess = Time::from_nanos(guess as u64);
        while self.local(guess) < local {
            guess += Duration::from_nanos(1);
        }
        guess
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) at_ms: u64,
    /// Its place in the schedule as it was made; names its values.
    pub(crate) number: u64,
    pub(crate) what: What,
}

/// A key, as a directory and a name in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    directory: usize,
    name: u64,
}

const DIRECTORIES: [&str; 5] = ["/a/", "/b/", "/c/", "HA", "/a/deep/"];

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", DIRECTORIES[self.directory], self.name)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Key {
    pub(crate) fn any(random: &mut Random, names: u64) -> Key {
        Key { directory: random.index(DIRECTORIES.len()), name: random.below(names) }
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum What {
    // Applications
    Set {
        client: usize,
        key: Key,
        bytes: usize,
        ttl_ms: Option<u64>,
    },
    Delete {
        client: usize,
        key: Key,
    },
    /// Many changes at once.
    Burst {
        client: usize,
        count: u64,
    },
    /// In the broker itself.
    SetInBroker {
        server: usize,
        key: Key,
        ttl_ms: Option<u64>,
    },
    DeleteInBroker {
        server: usize,
        key: Key,
    },
    /// An application does not take its events.
    LeaveEvents {
        client: usize,
        ms: u64,
    },
    /// Raw requests on port P, of a peer that may not read the answers.
    Ask {
        client: usize,
        subtree: &'static str,
        delimited: bool,
        times: u64,
        reads: bool,
    },
    AskStatus {
        client: usize,
    },
    // Faults
    Cut {
        client: usize,
        server: usize,
        port: Port,
    },
    Block {
        from: usize,
        to: usize,
        ms: u64,
        both: bool,
    },
    Stall {
        host: usize,
        ms: u64,
    },
    Slow {
        host: usize,
        each_us: u64,
        ms: u64,
    },
    Double {
        client: usize,
        server: usize,
        way: Way,
        count: usize,
    },
    /// Ends and begins anew, without state.
    Restart {
        host: usize,
        ms: u64,
    },
    /// The same, while the other of a pair is cut off from everybody.
    Usurp {
        server: usize,
        ms: u64,
    },
    /// Stands still without a connection, and goes on with its state.
    Freeze {
        host: usize,
        ms: u64,
    },
    /// A role command.
    Promote {
        server: usize,
    },
    Demote {
        server: usize,
    },
    /// Bytes that are no message, from a peer that means harm.
    Garbage {
        server: usize,
        port: Port,
    },
    /// What the other of a pair cannot say, and what is said by who is not the other.
    Claim {
        server: usize,
        kind: u64,
    },
}

const SUBTREES: [&[&str]; 7] =
    [&[""], &["/a/"], &["/a/", "/b/"], &["/b/"], &[], &["HA", "/c/"], &[""]];

impl Plan {
    pub(crate) fn of(seed: u64) -> Plan {
        let mut random = Random::of(&[seed]);
        let old_server = random.chance(10);
        let servers = match random.below(100) {
            _ if old_server => vec![old_server_plan(&mut random)],
            0..50 => pair_plan(&mut random),
            _ => vec![broker_plan(&mut random)],
        };
        let pushes = servers[0].collector == Collector::Pull;
        let clients = 1 + random.index(5);
        let mut clients: Vec<_> =
            (0..clients).map(|_| client_plan(&mut random, !pushes && !old_server)).collect();
        if !old_server && random.chance(30) {
            clients.push(ClientPlan { kind: ClientKind::Asker, ..client_plan(&mut random, false) });
        }
        if servers[0].kind == (ServerKind::Old { beats: false, wedges: false }) {
            // Who follows nothing would never hear of a server without heartbeats.
            let idle = clients.iter_mut().filter(|client| client.subtrees.is_empty());
            idle.for_each(|client| client.subtrees = vec![""]);
        }
        let hosts = servers.len() + clients.len();
        let latency_us = random.pick(&[50, 1000, 1000, 10_000, 30_000]);
        let is_tight = random.chance(50);
        let most = |tight: u64, wide: u64| if is_tight { tight } else { wide };
        let mut plan = Plan {
            seed,
            latencies_us: (0..hosts).map(|_| 20 + random.below(latency_us)).collect(),
            clocks: (0..hosts)
                .map(|_| Clock {
                    offset_ns: random.below(1 << 40),
                    drift_ppm: random.below(2 * DRIFT_PPM as u64) as i64 - DRIFT_PPM,
                })
                .collect(),
            high_water: HighWater {
                updates: 5 + random.below(most(40, 400)) as usize,
                // A server of RFC 12 would cut its snapshots there, and never say so.
                snapshots: match old_server {
                    true => usize::MAX,
                    false => 2 + random.below(most(10, 200)) as usize,
                },
                changes: 1 + random.below(most(10, 200)) as usize,
            },
            names: random.pick(&[1, 3, 8, 8, 20, 60]),
            preloaded: if random.chance(20) { random.below(300) } else { 0 },
            end_ms: random.between(4_000, 12_000),
            servers,
            clients,
            relays: Vec::new(),
            steps: Vec::new(),
        };
        plan.add_steps(&mut random);
        plan.narrow_limits();
        plan.add_relays();
        plan
    }

    pub(crate) fn client_host(&self, client: usize) -> usize {
        self.servers.len() + client
    }

    /// When a step is.
    pub(crate) fn time_of(at_ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(1000 + at_ms)
    }

    fn add_steps(&mut self, random: &mut Random) {
        let pace_ms = random.pick(&[5, 15, 30, 60]);
        let mut steps = Vec::new();
        self.add_kind(random, &mut steps, pace_ms, Plan::change);
        // Not all faults in one run: each is there or not, often or rarely.
        for (kind, shortest_ms) in FAULTS {
            if random.chance(50) {
                let pace_ms = shortest_ms * random.pick(&[1, 3, 10]);
                self.add_kind(random, &mut steps, pace_ms, *kind);
            }
        }
        steps.sort_by_key(|&(at_ms, _)| at_ms);
        let number = |(number, (at_ms, what))| Step { at_ms, number: number as u64, what };
        self.steps = steps.into_iter().enumerate().map(number).collect();
    }

    fn add_kind(
        &self,
        random: &mut Random,
        steps: &mut Vec<(u64, What)>,
        pace_ms: u64,
        kind: fn(&Plan, &mut Random) -> What,
    ) {
        let mut at_ms = random.below(2 * pace_ms);
        while at_ms < self.end_ms {
            steps.push((at_ms, kind(self, random)));
            at_ms += 1 + random.below(2 * pace_ms);
        }
    }

    /// An application changes something.
    fn change(&self, random: &mut Random) -> What {
        let key = Key::any(random, self.names);
        let ttl_ms = random.chance(12).then(|| random.between(1, 3000));
        let client = random.index(self.clients.len() + 1);
        let is_broker = matches!(self.servers[0].kind, ServerKind::Broker | ServerKind::Pair);
        let server = self.any_server(random);
        let deletes = random.chance(20);
        if client == self.clients.len() || self.clients[client].kind == ClientKind::Asker {
            match (is_broker, deletes) {
                (true, true) => What::DeleteInBroker { server, key },
                (true, false) => What::SetInBroker { server, key, ttl_ms },
                (false, _) => What::Set { client: 0, key, bytes: 10, ttl_ms: None },
            }
        } else if deletes {
            What::Delete { client, key }
        } else {
            let bytes = if random.chance(5) { random.between(10, 3000) } else { 10 };
            let ttl_ms = ttl_ms.filter(|_| is_broker);
            What::Set { client, key, bytes: bytes as usize, ttl_ms }
        }
    }

    fn any_host(&self, random: &mut Random) -> usize {
        // Servers as often as clients.
        match random.chance(40) {
            true => random.index(self.servers.len()),
            false => self.client_host(random.index(self.clients.len())),
        }
    }

    fn any_client(&self, random: &mut Random) -> usize {
        random.index(self.clients.len())
    }

    fn any_server(&self, random: &mut Random) -> usize {
        random.index(self.servers.len())
    }
}

/// Each kind of fault with its shortest mean distance, in milliseconds.
type Fault = (fn(&Plan, &mut Random) -> What, u64);

const FAULTS: &[Fault] = &[
    (
        |plan, random| What::Burst {
            client: plan.any_client(random),
            count: random.between(5, 80),
        },
        500,
    ),
    (
        |plan, random| What::LeaveEvents {
            client: plan.any_client(random),
            ms: random.between(10, 2000),
        },
        1000,
    ),
    (
        |plan, random| What::Ask {
            client: plan.any_client(random),
            subtree: random.pick(&["", "/a/", "/nothing/", "H"]),
            delimited: random.chance(50),
            times: random.pick(&[1, 1, 2, 30]),
            reads: random.chance(70),
        },
        200,
    ),
    (|plan, random| What::AskStatus { client: plan.any_client(random) }, 500),
    (
        |plan, random| What::Cut {
            client: plan.client_host(plan.any_client(random)),
            server: plan.any_server(random),
            port: random.pick(&PORTS),
        },
        50,
    ),
    (
        |plan, random| {
            let server = plan.any_server(random);
            let client = plan.client_host(plan.any_client(random));
            let other =
                if plan.servers.len() > 1 && random.chance(50) { 1 - server } else { client };
            let (from, to) = if random.chance(50) { (server, other) } else { (other, server) };
            let both = random.chance(50);
            What::Block { from, to, ms: random.between(20, 5000), both }
        },
        300,
    ),
    (
        |plan, random| {
            let longest = random.pick(&[100, 3000]);
            What::Stall { host: plan.any_host(random), ms: random.between(10, longest) }
        },
        200,
    ),
    (
        |plan, random| What::Slow {
            host: plan.client_host(plan.any_client(random)),
            each_us: random.between(500, 50_000),
            ms: random.between(100, 3000),
        },
        500,
    ),
    (
        |plan, random| What::Double {
            client: plan.client_host(plan.any_client(random)),
            server: plan.any_server(random),
            way: random.pick(&[Way::ToServer, Way::ToClient]),
            count: 1 + random.index(5),
        },
        100,
    ),
    (
        |plan, random| What::Restart {
            host: plan.any_server(random),
            ms: random.between(10, 4000),
        },
        2000,
    ),
    (
        |plan, random| What::Restart {
            host: plan.client_host(plan.any_client(random)),
            ms: random.between(10, 1000),
        },
        1000,
    ),
    (|plan, random| What::Promote { server: plan.any_server(random) }, 1500),
    (|plan, random| What::Demote { server: plan.any_server(random) }, 1500),
    (
        |plan, random| What::Cut {
            client: plan.any_server(random),
            server: plan.any_server(random),
            port: random.pick(&[Port::Snapshots, Port::Updates]),
        },
        200,
    ),
    (
        |plan, random| What::Freeze { host: plan.any_host(random), ms: random.between(100, 6000) },
        2000,
    ),
    (
        |plan, random| What::Garbage { server: plan.any_server(random), port: random.pick(&PORTS) },
        100,
    ),
    (
        |plan, random| What::Claim {
            server: plan.any_server(random),
            kind: random.below(impostor::KINDS),
        },
        100,
    ),
    // Between the two of a pair.
    (
        |plan, random| What::Usurp {
            server: plan.any_server(random),
            ms: random.between(2000, 8000),
        },
        4000,
    ),
    (
        |plan, random| What::Double {
            client: plan.any_server(random),
            server: plan.any_server(random),
            way: random.pick(&[Way::ToServer, Way::ToClient]),
            count: 1 + random.index(5),
        },
        200,
    ),
    (
        |plan, random| What::Slow {
            host: plan.any_server(random),
            each_us: random.between(500, 20_000),
            ms: random.between(100, 3000),
        },
        2000,
    ),
];

fn broker_plan(random: &mut Random) -> ServerPlan {
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
fn pair_plan(random: &mut Random) -> Vec<ServerPlan> {
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

fn old_server_plan(random: &mut Random) -> ServerPlan {
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

fn client_plan(random: &mut Random, may_be_old: bool) -> ClientPlan {
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
