//! kvmsg: five frames to five fields, and back (criterion).
//!
//! ```text
//! cargo bench --bench codec
//! cargo bench --bench codec -- decode
//! ```
//!
//! After the times come the instructions that one call takes, as callgrind counts
//! them: they do not depend on how busy the machine is.

#[path = "common/mod.rs"]
mod common;

use std::env;
use std::hint::black_box;
use std::process::Command;
use std::time::Duration;

use common::alloc::{self, Counting};
use criterion::{BenchmarkId, Criterion, Throughput};
use pollux::Message;
use pollux::clone::kvmsg::{KvMsg, Limits};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KEY: &[u8] = b"/room/17/sensor/4";
const SEQUENCE: [u8; 8] = 7_i64.to_be_bytes();
const UUID: [u8; 16] = [7; 16];
const PROPERTIES: [(&str, &[u8]); 2] =
    [("no properties", b""), ("3 properties", b"ttl=30\nunit=celsius\norigin=/plant/7\n")];
/// How this program calls itself under callgrind.
const COUNTED: &str = "--counted";

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let [_, counted, what, calls] = &arguments[..]
        && counted == COUNTED
    {
        return counted_calls(what, calls.parse().expect("a number of calls"));
    }
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    times(&mut criterion);
    criterion.final_summary();
    for what in ["decode", "encode"] {
        let before = alloc::calls();
        counted_calls(what, 1000);
        let allocations = alloc::calls() - before;
        match instructions(what) {
            Ok(count) => println!(
                "{what}, 64 bytes, no properties: {count:.1} instructions, \
                 {allocations} allocations in a thousand"
            ),
            Err(problem) => println!("{what}: no instructions counted: {problem}"),
        }
    }
}

/// What both directions do; never inlined, so that what is timed is what is counted.
#[inline(never)]
fn decode(frames: &[&[u8]; 5], limits: &Limits) -> bool {
    KvMsg::decode(Message::new(black_box(frames)), limits).is_ok()
}

#[inline(never)]
fn encode(message: &KvMsg<'_>) {
    black_box(message).with_frames(|frames| {
        black_box(frames);
    });
}

fn times(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut group = criterion.benchmark_group("codec");
    for (name, properties) in PROPERTIES {
        for size in [0, 8, 64, 800, 8_000, 100_000, 1_000_000] {
            let body = vec![0x5a; size];
            let frames: [&[u8]; 5] = [KEY, &SEQUENCE, &UUID, properties, &body];
            let bytes: usize = frames.iter().map(|frame| frame.len()).sum();
            group.throughput(Throughput::Bytes(bytes as u64));
            let id = |what: &str| BenchmarkId::new(what, format!("{size} bytes, {name}"));
            group.bench_function(id("decode"), |bencher| {
                bencher.iter(|| assert!(decode(&frames, &limits)));
            });
            let message = KvMsg::decode(Message::new(&frames), &limits).expect("it is valid");
            group.bench_function(id("encode"), |bencher| bencher.iter(|| encode(&message)));
        }
    }
    group.finish();
}

/// So many calls and nothing else, for callgrind.
fn counted_calls(what: &str, calls: u64) {
    let (limits, body) = (Limits::default(), [0x5a; 64]);
    let frames: [&[u8]; 5] = [KEY, &SEQUENCE, &UUID, b"", &body];
    let message = KvMsg::decode(Message::new(&frames), &limits).expect("it is valid");
    for _ in 0..calls {
        match what {
            "decode" => assert!(decode(&frames, &limits)),
            _ => encode(&message),
        }
    }
}

/// Instructions of one call: those of many calls less those of few.
fn instructions(what: &str) -> Result<f64, String> {
    const FEW: u64 = 1_000;
    const MANY: u64 = 11_000;
    Ok((total(what, MANY)? - total(what, FEW)?) / (MANY - FEW) as f64)
}

fn total(what: &str, calls: u64) -> Result<f64, String> {
    let own = env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args([COUNTED, what, &calls.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let report = String::from_utf8_lossy(&output.stderr);
    // "==123== Collected : 1234567"
    let collected = report.lines().find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count.ok_or_else(|| format!("not understood: {}", report.lines().last().unwrap_or("nothing")))
}
