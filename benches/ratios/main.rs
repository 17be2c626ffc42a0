//! What the library costs over doing the same by hand: one quick run that
//! prints a table and writes `target/bench-ratios.json`.
//!
//! ```text
//! cargo bench --bench ratios                    # all of it, about three minutes
//! cargo bench --bench ratios -- hot_1 timers    # some
//! ```
//!
//! The two sides of each ratio run in turns, so that a noisy machine harms both
//! alike. `benches/README.md` says what is measured, against what, and why that
//! is fair. The exit code judges nothing: figures of a busy machine are figures
//! of that machine.

#[path = "../common/mod.rs"]
mod common;

mod allocations;
mod hot;
mod memory;
mod outcome;
mod pair;
mod proxies;
mod relay;
mod round_trip;
mod snapshot;
mod timers;
mod traffic;

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use serde_json::{Map, Value};

use common::alloc::Counting;
use outcome::{Outcome, Target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Ratios that one measurement gives, with their targets.
struct Case {
    ratios: &'static [(&'static str, Target)],
    measure: fn() -> Vec<Outcome>,
}

const CASES: &[Case] = &[
    Case {
        ratios: &[("hot_1", Target::AtLeast(0.85)), ("hot_1_zmq", Target::AtLeast(0.75))],
        measure: hot::alone,
    },
    Case {
        ratios: &[("hot_16", Target::AtLeast(0.8)), ("hot_16_zmq", Target::AtLeast(0.6))],
        measure: hot::crowded,
    },
    Case {
        ratios: &[
            ("rtt_block_tcp", Target::AtMost(1.1)),
            ("rtt_block_tcp_zmq", Target::AtMost(1.1)),
        ],
        measure: round_trip::block_tcp,
    },
    Case {
        ratios: &[
            ("rtt_block_inproc", Target::AtMost(1.1)),
            ("rtt_block_inproc_zmq", Target::AtMost(1.1)),
        ],
        measure: round_trip::block_inproc,
    },
    Case {
        ratios: &[("rtt_spin_tcp", Target::AtMost(1.1)), ("rtt_spin_tcp_zmq", Target::AtMost(1.1))],
        measure: round_trip::spin_tcp,
    },
    Case {
        ratios: &[
            ("rtt_spin_inproc", Target::AtMost(1.1)),
            ("rtt_spin_inproc_zmq", Target::AtMost(1.1)),
        ],
        measure: round_trip::spin_inproc,
    },
    Case { ratios: &[("timers", Target::AtMost(2.5))], measure: timers::arm_and_cancel },
    Case { ratios: &[("allocs_per_event", Target::AtMost(0.0))], measure: allocations::per_event },
    Case {
        ratios: &[("broker_allocs_per_update", Target::AtMost(1.0))],
        measure: relay::allocations,
    },
    Case {
        ratios: &[
            ("broker_64", Target::AtLeast(0.9)),
            ("broker_once_64", Target::None),
            ("broker_live_64", Target::None),
        ],
        measure: relay::small_values,
    },
    Case {
        ratios: &[
            ("broker_800", Target::AtLeast(0.85)),
            ("broker_once_800", Target::None),
            ("broker_live_800", Target::None),
        ],
        measure: relay::large_values,
    },
    Case { ratios: &[("broker_pair", Target::AtLeast(0.8))], measure: pair::throughput },
    Case { ratios: &[("broker_relay", Target::AtLeast(0.5))], measure: pair::relay_throughput },
    Case {
        ratios: &[
            ("snapshot", Target::AtLeast(0.6)),
            ("snapshot_rtt_p99", Target::AtMostUnless(3.0, "the p99 is at most 1 ms")),
        ],
        measure: snapshot::late_joiner,
    },
    Case {
        ratios: &[
            ("proxy_throughput", Target::AtLeast(0.95)),
            ("proxy_throughput_zmq", Target::AtLeast(0.95)),
        ],
        measure: proxies::throughput,
    },
    Case { ratios: &[("proxy_by_hand", Target::None)], measure: proxies::by_hand },
    Case {
        ratios: &[("proxy_rtt", Target::AtMost(1.1)), ("proxy_rtt_zmq", Target::AtMost(1.1))],
        measure: proxies::round_trip,
    },
    Case { ratios: &[("proxies_8", Target::Below(0.1))], measure: proxies::among_idle },
    Case {
        ratios: &[("store_bytes_per_key", Target::Below(120.0))],
        measure: memory::store_bytes_per_key,
    },
];

fn main() -> Result<(), Box<dyn Error>> {
    pair::follow();
    // Cargo says `--bench`; names come without dashes.
    let wanted: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let known = || CASES.iter().flat_map(|case| case.ratios).map(|(name, _)| *name);
    if let Some(unknown) = wanted.iter().find(|name| !known().any(|known| known == *name)) {
        let known: Vec<&str> = known().collect();
        return Err(format!("no ratio is called {unknown}; there are {}", known.join(", ")).into());
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|other| other == name);

    let mut figures = Map::new();
    for case in CASES {
        let names: Vec<&str> =
            case.ratios.iter().map(|(name, _)| *name).filter(|name| is_wanted(name)).collect();
        if names.is_empty() {
            continue;
        }
        eprintln!("measuring {} ...", names.join(", "));
        for outcome in (case.measure)() {
            let Some((name, target)) =
                case.ratios.iter().find(|(name, _)| *name == outcome.name && is_wanted(name))
            else {
                continue;
            };
            println!("{}", outcome.line(target));
            figures.insert((*name).to_owned(), Value::from(outcome.ratio));
        }
    }
    let path = write(figures, wanted.is_empty())?;
    eprintln!("written to {}", path.display());
    Ok(())
}

/// Writes the figures of a whole run anew; those of some only replace their own.
fn write(figures: Map<String, Value>, whole: bool) -> Result<PathBuf, Box<dyn Error>> {
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let path = target.join("bench-ratios.json");
    let mut all = match fs::read(&path) {
        Ok(text) if !whole => serde_json::from_slice(&text)?,
        _ => Map::new(),
    };
    all.extend(figures);
    fs::create_dir_all(&target)?;
    fs::write(&path, format!("{:#}\n", Value::Object(all)))?;
    Ok(path)
}
