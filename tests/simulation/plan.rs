//! What a run is made of: hosts, and the schedule of all that applications do
//! and all that goes wrong. A seed tells all of it; a failing run is shortened by
//! taking steps out.

mod clients;
mod clock;
mod faults;
mod limits;
mod relays;
mod servers;

use std::fmt;
use std::time::Duration;

use pollux::Time;
use pollux::clone::Collector;

use self::clients::client_plan;
pub(crate) use self::clients::{ClientKind, ClientPlan};
pub(crate) use self::clock::{Clock, DRIFT_PPM};
use self::faults::{FAULTS, Fault};
pub(crate) use self::relays::RelayPlan;
pub(crate) use self::servers::{ServerKind, ServerPlan};
use self::servers::{broker_plan, old_server_plan, pair_plan};
use crate::net::{HighWater, Port, Way};
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
            clocks: (0..hosts).map(|_| Clock::any(&mut random)).collect(),
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
        self.add_faults(random, &mut steps, FAULTS);
        self.number(steps);
    }

    /// Not all faults in one run: each is there or not, often or rarely.
    fn add_faults(&self, random: &mut Random, steps: &mut Vec<(u64, What)>, faults: &[Fault]) {
        for (kind, shortest_ms) in faults {
            if random.chance(50) {
                let pace_ms = shortest_ms * random.pick(&[1, 3, 10]);
                self.add_kind(random, steps, pace_ms, *kind);
            }
        }
    }

    /// Makes the schedule of these, each with its time.
    fn number(&mut self, mut steps: Vec<(u64, What)>) {
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
