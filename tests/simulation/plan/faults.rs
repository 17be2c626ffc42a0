//! What goes wrong in a run, and what applications do besides changing something.

use super::{Plan, What};
use crate::impostor;
use crate::net::{PORTS, Port, Way};
use crate::random::Random;

/// Each kind of fault with its shortest mean distance, in milliseconds.
pub(super) type Fault = (fn(&Plan, &mut Random) -> What, u64);

pub(super) const FAULTS: &[Fault] = &[
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
