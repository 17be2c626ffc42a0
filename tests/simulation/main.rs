//! Brokers, relays and clients, the very machines of production, on a virtual network in
//! virtual time, with all that can go wrong: delays that differ by connection,
//! connections that break, partitions, queues that overflow, messages that come
//! twice, loops that stand still or are slow, clocks that drift, programs that are
//! killed and started again. Beside them programs of RFC 12, written from its text.
//!
//! Each seed is one run, and replays exactly:
//!
//!     POLLUX_SEED=17 cargo test simulation
//!     POLLUX_SEEDS=10000 POLLUX_SEED_START=2000 cargo test simulation
//!     POLLUX_SEEDS=1000000 cargo test --release simulation
//!
//! A run that fails is shortened to the steps that it takes, which are printed;
//! with `POLLUX_TRACE=1` each message of that short run is printed, too.
//!
//! `POLLUX_SURVEY=1` goes on behind failures, and counts them by their places.
//!
//! | file | what it knows |
//! |---|---|
//! | `plan.rs`, `plan/` | a run as data: hosts, limits, and the schedule of all that happens |
//! | `net.rs` | hosts, sockets, connections, time; nothing of what messages mean |
//! | `system.rs`, `system/` | which program runs where, what a step does to it, and what must hold at the end |
//! | `truth.rs` | every change ever made: the plain model |
//! | `checks.rs` | what is checked of a client, all along |
//! | `old.rs`, `asker.rs` | peers that are not ours |
//! | `impostor.rs` | what a peer of a pair cannot say, and who is none |
//! | `logged.rs` | what the machines write to the log |
//! | `run.rs` | many runs, and the shortest schedule of one that fails |
//! | `coverage.rs` | what must have happened at least once |

mod asker;
mod checks;
mod coverage;
mod frames;
mod impostor;
mod logged;
mod net;
mod old;
mod plan;
mod programs;
mod random;
mod run;
mod system;
mod truth;

use plan::Plan;

/// What `cargo test` runs.
const DEFAULT_SEEDS: u64 = 2000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, got {text:?}")))
}

#[test]
fn simulation_keeps_every_promise() {
    if let Some(seed) = number("POLLUX_SEED") {
        match run::run(&Plan::of(seed)) {
            Ok(coverage) => coverage.iter().for_each(|(name, count)| println!("{count:>9} {name}")),
            Err(failure) => panic!("{}", run::report(seed, &failure)),
        }
        return;
    }
    let start = number("POLLUX_SEED_START").unwrap_or(0);
    let count = number("POLLUX_SEEDS").unwrap_or(DEFAULT_SEEDS);
    println!("seeds {start} to {}", start + count - 1);
    match run::run_all(start..start + count) {
        Ok(coverage) => {
            coverage.iter().for_each(|(name, count)| println!("{count:>9} {name}"));
            let (missing, are_default) = (coverage.missing(), start == 0 && count >= DEFAULT_SEEDS);
            assert!(!are_default || missing.is_empty(), "it never happened: {missing:?}");
        }
        Err((seed, failure)) => panic!("{}", run::report(seed, &failure)),
    }
}

/// Seeds that once failed, and what each showed. (Should the making of plans change, they are
/// runs as any others: what they showed of the machines has tests of its own there.)
const MENDED: &[(u64, &str)] = &[
    (197, "as 1,252, after a planned handover"),
    (1_252, "a change was sent again behind one that had replaced it and was safe"),
    (2_127, "a relay that was behind sent a change again behind a newer one of its key"),
    (2_514, "as 42,533, somebody else having changed the key since"),
    (3_541, "as 2,514, at a broker that began anew"),
    (3_621, "a copy from before a restart was applied, when the window had forgotten the first"),
    (4_000, "as 1,252"),
    (4_359, "a relay passed over what it had no room for at the end of a sync"),
    (4_989, "a change was sent again behind one that had been given up"),
    (6_272, "a copy told of a number of a history that was given up, and counted as new"),
    (6_913, "no sync ended at a relay that remembers few uuids"),
    (8_558, "a relay that was full refused the copy of a change that it had sent"),
    (11_223, "as 2,514, from a relay behind another"),
    (12_000, "as 2,514"),
    (13_300, "as 6,913"),
    (13_387, "a change was replaced in a later epoch of a history that is lost"),
    (20_517, "as 2,514, after a history was given up"),
    (20_799, "what only the loser of two actives had went over at four changes a second"),
    (20_863, "a change was replaced by one that was replaced in another history"),
    (22_249, "a change was replaced by one that was taken over, and a copy of it kept"),
    (23_570, "a server of RFC 12 began again before its first heartbeat, with the same numbers"),
    (24_352, "a new epoch hid what a relay's client had of a history that was given up"),
    (25_109, "as 8,558"),
    (26_202, "as 22,249, by a change without a uuid"),
    (30_468, "as 6,913, of the whole tree"),
    (33_131, "as 20,863, after an order to take over"),
    (33_268, "as 8,558"),
    (33_475, "a passive broker kept a change that it had forgotten, and applied it"),
    (35_901, "a snapshot ended in an epoch after the one in which it began"),
    (42_533, "a change that lay at a relay came behind a later one that its client sent elsewhere"),
    (42_938, "as 6,913, of a relay behind another"),
    (44_727, "what was heard before a change that was kept counted as newer than it"),
    (45_176, "as 6,913, of a relay that has turned to another server"),
    (46_201, "a relay forgot a change, and sent the one before it again"),
    (47_551, "a server of RFC 12 began again before it had told a number"),
    (48_997, "what an old client had sent to one of a pair came before what it sent to the other"),
    (54_060, "each request of a client that read nothing kept the one place in the store"),
    (55_199, "an old client had given up waiting for an answer that came after all"),
    (65_911, "of a change that was kept, the window of the active had lost what tells of it"),
    (72_962, "as 44,727"),
    (76_483, "what a standby had not heard yet counted as older than a change that it kept"),
];

#[test]
fn simulation_keeps_what_was_mended() {
    for &(seed, what) in MENDED {
        if let Err(failure) = run::run(&Plan::of(seed)) {
            panic!("{what}, and this now: {}", run::report(seed, &failure));
        }
    }
}

/// A checker that passes everything shows nothing: each mistake planted in the
/// machines must break a promise in the seeds that `cargo test` runs. (Those that have failed
/// once are the first of them: they show what seldom happens.)
#[cfg(debug_assertions)]
#[test]
fn simulation_notices_every_planted_fault() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let faults = pollux::clone::fault::Fault::ALL;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut missed = Vec::new();
        while let Some(&fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
            let seeds = MENDED.iter().map(|&(seed, _)| seed).chain(0..DEFAULT_SEEDS);
            match run::first_failure(fault, seeds) {
                Some((seed, failure)) => {
                    println!("{fault:?}: seed {seed}: {:.160}", failure.message);
                }
                None => missed.push(fault),
            }
        }
        missed
    };
    let missed: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..run::threads()).map(|_| scope.spawn(work)).collect();
        let missed = threads.into_iter().map(|thread| thread.join().expect("no thread panics"));
        missed.collect::<Vec<_>>().concat()
    });
    assert!(missed.is_empty(), "nothing noticed these: {missed:?}");
}

/// A failure comes with the few steps that it takes.
#[cfg(debug_assertions)]
#[test]
fn simulation_shortens_what_fails() {
    use pollux::clone::fault::Fault;

    let (seed, failure) =
        run::first_failure(Fault::SkipDeduplication, 0..DEFAULT_SEEDS).expect("one");
    Fault::plant(Some(Fault::SkipDeduplication));
    let plan = Plan::of(seed);
    let (shortest, _) = run::shrink(&plan, &failure);
    assert!(run::run(&shortest).is_err(), "it fails still");
    // A change, and what makes it be sent twice.
    assert!(
        shortest.steps.len() <= 5 && shortest.steps.len() * 10 < plan.steps.len(),
        "{} of {} steps are left: {:?}",
        shortest.steps.len(),
        plan.steps.len(),
        shortest.steps
    );
}

#[test]
fn simulation_replays_exactly() {
    for seed in [3, 14, 15, 92, 65, 35] {
        let plan = Plan::of(seed);
        let runs = [run::run(&plan), run::run(&plan)].map(|run| run.map_err(|f| f.message));
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}
