//! The protocol and the state machines by themselves, without sockets and loop, and the
//! broker's path through libzmq (criterion). What each does is counted beside.
//!
//! ```text
//! cargo bench --bench clone
//! cargo bench --bench clone -- store
//! ```

#[path = "common/mod.rs"]
mod common;

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use pollux::clone::broker::{Broker, BrokerConfig, BrokerOutbox};
use pollux::clone::client::{Client, ClientConfig, ClientOutbox};
use pollux::clone::kvmsg::{KvMsg, Uuid};
use pollux::clone::properties::Properties;
use pollux::clone::store::{Change, Store, StoreLimits, Walk};
use pollux::clone::{Collector, SendFailure, Sequence};
use pollux::node::{BrokerNode, BrokerOptions};
use pollux::{Message, Reactor, Time};

use common::alloc::{self, Counting};
use common::bare::{Bare, Part};
use common::measure::Random;
use common::uuid::numbered;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIZES: [u64; 3] = [1_000, 100_000, 1_000_000];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for keys in SIZES {
        store_changes(&mut criterion, keys);
        store_walks(&mut criterion, keys);
    }
    store_expiry(&mut criterion);
    broker(&mut criterion);
    broker_through_libzmq(&mut criterion);
    client(&mut criterion);
    criterion.final_summary();
}

/// Times `once`, which does `each` of what is measured, and says what a thousand times
/// more allocate for one.
fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    each: u64,
    mut once: impl FnMut(),
) {
    let mut is_wanted = false;
    group.bench_function(id, |bencher| {
        is_wanted = true;
        bencher.iter(&mut once);
    });
    if is_wanted {
        let runs = (100_000 / each).clamp(1, 1000);
        let (calls, bytes) = (alloc::calls(), alloc::bytes());
        (0..runs).for_each(|_| once());
        let count = (runs * each) as f64;
        println!(
            "{:24}each: {:.3} allocations, {:+.1} bytes kept",
            "",
            (alloc::calls() - calls) as f64 / count,
            (alloc::bytes() - bytes) as f64 / count
        );
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("/tree/{:03}/{number:08}", number % 1000).into_bytes()
}

fn uuid(number: u64) -> Uuid {
    Uuid::from_bytes(numbered(number))
}

/// A store and the sequence of the next change.
struct Filled {
    store: Store,
    next: Sequence,
}

impl Filled {
    fn of(keys: u64) -> Filled {
        let start = Sequence::new(1, 0);
        let store = Store::new(StoreLimits::default(), start);
        let mut filled = Filled { store, next: start };
        for number in 0..keys {
            filled.put(&key(number), &[0x5a; 100], None);
        }
        filled
    }

    fn advance(&mut self) -> Sequence {
        self.next = self.next.next();
        self.next
    }

    fn put(&mut self, key: &[u8], value: &[u8], deadline: Option<Time>) {
        let sequence = self.advance();
        let uuid = Some(uuid(sequence.get()));
        let properties = Properties::EMPTY;
        self.store
            .put(&Change { key, sequence, uuid, properties, value, deadline })
            .expect("there is room");
    }

    fn delete(&mut self, key: &[u8]) {
        let sequence = self.advance();
        self.store.delete(key, sequence, None, Properties::EMPTY);
    }
}

/// Changes and look-ups, each of a random key among so many.
fn store_changes(criterion: &mut Criterion, keys: u64) {
    let mut filled = Filled::of(keys);
    let names: Vec<Vec<u8>> = (0..keys).map(key).collect();
    let mut random = Random(1);
    let mut any = || &names[random.below(keys) as usize];
    let mut group = criterion.benchmark_group("store");
    bench(&mut group, BenchmarkId::new("get", keys), 1, || {
        black_box(filled.store.get(any()));
    });
    bench(&mut group, BenchmarkId::new("update", keys), 1, || {
        filled.put(any(), &[0x33; 100], None);
    });
    let mut at = Time::ZERO + Duration::from_secs(60);
    bench(&mut group, BenchmarkId::new("update, with a deadline", keys), 1, || {
        at += Duration::from_micros(1);
        filled.put(any(), &[0x33; 100], Some(at));
    });
    let new = |number: u64| format!("/tree/{:03}/{number:08}/new", number % 1000).into_bytes();
    let (mut random, mut name) = (Random(2), new(0));
    bench(&mut group, BenchmarkId::new("insert and delete", keys), 1, || {
        write_number(&mut name, random.below(keys));
        filled.put(&name, &[0x33; 100], None);
        filled.delete(&name);
    });
    group.bench_function(BenchmarkId::new("insert", keys), |bencher| {
        bencher.iter_custom(|count| insert(&mut filled, &mut name, keys, count));
    });
    group.finish();
}

/// Times the insertion of so many keys, some at a time: they are deleted again, which does not
/// count, so that the store stays as large as it is.
fn insert(filled: &mut Filled, name: &mut [u8], keys: u64, count: u64) -> Duration {
    const BATCH: u64 = 256;
    // All over the keys, and none twice in a batch: a prime that does not divide their number.
    const STRIDE: u64 = 7919;
    let mut inserting = Duration::ZERO;
    for first in (0..count).step_by(BATCH as usize) {
        let numbers = first..(first + BATCH).min(count);
        let began = Instant::now();
        for number in numbers.clone() {
            write_number(name, number * STRIDE % keys);
            filled.put(name, &[0x33; 100], None);
        }
        inserting += began.elapsed();
        for number in numbers {
            write_number(name, number * STRIDE % keys);
            filled.delete(name);
        }
    }
    inserting
}

/// Another number in a name of the same length, without an allocation.
fn write_number(name: &mut [u8], number: u64) {
    let tail = name.len() - "/00000000/new".len() + 1;
    let mut left = number;
    for digit in name[tail..tail + 8].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

/// One subtree, whole snapshots, and one slice of them.
fn store_walks(criterion: &mut Criterion, keys: u64) {
    let mut filled = Filled::of(keys);
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(keys / 1000));
    bench(&mut group, BenchmarkId::new("subtree", keys), keys / 1000, || {
        let entries = filled.store.iter(b"/tree/500/");
        black_box(entries.map(|entry| entry.value.len()).sum::<usize>());
    });
    group.throughput(Throughput::Elements(keys));
    bench(&mut group, BenchmarkId::new("snapshot", keys), keys, || {
        black_box(walk(&mut filled.store, 256, usize::MAX));
    });
    // What the loop is held up by between two other events.
    group.throughput(Throughput::Elements(256));
    bench(&mut group, BenchmarkId::new("first slice of 256", keys), 256, || {
        black_box(walk(&mut filled.store, 256, 1));
    });
    group.finish();
}

fn walk(store: &mut Store, budget: usize, slices: usize) -> usize {
    let mut cursor = store.open(b"", None).expect("a cursor");
    let mut bytes = 0;
    for _ in 0..slices {
        let walk = store.walk(&mut cursor, budget, |entry| {
            bytes += entry.key.len() + entry.value.len();
            ControlFlow::Continue(())
        });
        if walk != Walk::More {
            break;
        }
    }
    store.close(cursor);
    bytes
}

/// Keys that come with a deadline and go when it is reached.
fn store_expiry(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    for keys in SIZES {
        let mut filled = Filled::of(0);
        let mut now = Time::ZERO;
        let tick = Duration::from_micros(1);
        let life = tick * keys as u32;
        for number in 0..keys {
            now += tick;
            filled.put(&key(number), &[0x5a; 100], Some(now + life));
        }
        let mut number = keys;
        let mut expired = Vec::new();
        bench(&mut group, BenchmarkId::new("expire and insert", keys), 1, || {
            now += tick;
            number += 1;
            while filled.store.pop_expired(now, &mut expired) {
                filled.delete(&expired);
            }
            filled.put(&key(number), &[0x5a; 100], Some(now + life));
        });
    }
    group.finish();
}

/// Where the machines' messages go: nowhere.
#[derive(Default)]
struct Void {
    frames: usize,
}

impl BrokerOutbox for Void {
    fn reply(&mut self, _peer: &[u8], frames: &[&[u8]]) -> Result<(), SendFailure> {
        self.frames += black_box(frames).len();
        Ok(())
    }
    fn publish(&mut self, frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        self.frames += black_box(frames).len();
        Ok(())
    }
}

impl ClientOutbox for Void {
    fn subscribe(&mut self, _topic: &[u8]) {}
    fn unsubscribe(&mut self, _topic: &[u8]) {}
    fn open_requests(&mut self) {}
    fn request(&mut self, _frames: &[&[u8]]) -> Result<(), SendFailure> {
        Ok(())
    }
    fn open_changes(&mut self, _collector: Collector) {}
    fn change(&mut self, _frames: &[&[u8]; 5]) -> Result<(), SendFailure> {
        Ok(())
    }
}

/// A change from the frames received to the frames published.
fn broker(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("broker update");
    group.throughput(Throughput::Elements(1));
    for keys in [10_000, 100_000, 1_000_000] {
        for size in [64, 800] {
            let config = BrokerConfig::new(7, Sequence::new(1, 0));
            let mut broker = Broker::new(config, Time::ZERO);
            let (mut out, mut number, mut now) = (Void::default(), 0_u64, Time::ZERO);
            let names: Vec<Vec<u8>> = (0..keys).map(key).collect();
            let mut random = Random(1);
            let mut update = |broker: &mut Broker, name: &[u8]| {
                number += 1;
                now += Duration::from_micros(1);
                let mut value = [0x5a; 800];
                value[..8].copy_from_slice(&number.to_be_bytes());
                let (uuid, zero) = (uuid(number), [0; 8]);
                let frames: [&[u8]; 5] = [name, &zero, uuid.as_bytes(), b"", &value[..size]];
                broker.handle_change(now, Message::new(&frames), &mut out);
            };
            names.iter().for_each(|name| update(&mut broker, name));
            let id = |how| BenchmarkId::new(format!("{size} bytes{how}"), format!("{keys} keys"));
            let mut any = || names[random.below(keys) as usize].as_slice();
            bench(&mut group, id(""), 1, || update(&mut broker, any()));
            // As a node does it once there are many.
            group.throughput(Throughput::Elements(8));
            bench(&mut group, id(", 8 fetched"), 8, || {
                let eight: [&[u8]; 8] = std::array::from_fn(|_| any());
                broker.prefetch(eight.into_iter());
                eight.iter().for_each(|name| update(&mut broker, name));
            });
            group.throughput(Throughput::Elements(1));
        }
    }
    group.finish();
}

/// Changes sent before the loop has its turn; what is measured is the path of one.
const BURST: u64 = 64;

/// The same from a PUSH by libzmq through the loop to a SUB, all in this thread over
/// inproc: what two bare peers do is in it, the switching between threads is not.
fn broker_through_libzmq(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("broker update through libzmq");
    group.throughput(Throughput::Elements(BURST));
    for (keys, size) in [(10_000, 64), (10_000, 800), (1_000_000, 64), (1_000_000, 800)] {
        let context = zmq::Context::new();
        let name = format!("inproc://bench-{keys}-{size}");
        let mut node = BrokerNode::bind(&context, &name, BrokerOptions::default()).expect("bound");
        let (push, sub) = (Bare::new(&context, zmq::PUSH), Bare::new(&context, zmq::SUB));
        push.connect(&node.endpoints().changes);
        sub.zmq().set_subscribe(b"/tree/").expect("SUBSCRIBE");
        sub.connect(&node.endpoints().updates);
        let mut reactor = Reactor::new().expect("a reactor");
        BrokerNode::attach(&mut reactor, &mut node, |node| node).expect("attached");
        // The subscription is taken.
        while reactor.turn(&mut node, Duration::ZERO).expect("a turn") > 0 {}
        let names: Vec<Vec<u8>> = (0..keys).map(key).collect();
        let (mut random, mut number, mut part) = (Random(1), 0_u64, Part::new());
        let mut once = |reactor: &mut Reactor<BrokerNode>| {
            for _ in 0..BURST {
                number += 1;
                // Each of them once, then at random.
                let index = if number <= keys { number - 1 } else { random.below(keys) };
                let (uuid, key) = (uuid(number), &names[index as usize]);
                push.send_all(&[key, &[0; 8], uuid.as_bytes(), b"", &[0x5a; 800][..size]]);
            }
            let mut missing = BURST;
            while missing > 0 {
                reactor.turn(&mut node, Duration::ZERO).expect("a turn");
                while sub.try_receive(&mut part) {
                    missing -= u64::from(!part.more());
                }
            }
        };
        let id = BenchmarkId::new(format!("{size} bytes"), format!("{keys} keys"));
        let mut is_wanted = false;
        let mut is_filled = false;
        group.bench_function(id, |bencher| {
            is_wanted = true;
            if !std::mem::replace(&mut is_filled, true) {
                (0..keys.div_ceil(BURST)).for_each(|_| once(&mut reactor));
            }
            bencher.iter(|| once(&mut reactor));
        });
        if is_wanted {
            const RUNS: u64 = 1000;
            let (before, calls) = (reactor.stats(), alloc::calls());
            (0..RUNS).for_each(|_| once(&mut reactor));
            let (after, updates) = (reactor.stats(), (RUNS * BURST) as f64);
            println!(
                "{:24}each: {:.3} allocations, {:.3} polls, {:.3} spurious wakes, {:.3} empty receives; \
                 {:.1} a turn",
                "",
                (alloc::calls() - calls) as f64 / updates,
                (after.polls - before.polls) as f64 / updates,
                (after.spurious_wakes - before.spurious_wakes) as f64 / updates,
                (after.receives_empty - before.receives_empty) as f64 / updates,
                updates / (after.turns - before.turns) as f64
            );
        }
    }
    group.finish();
}

/// A client of the whole tree that has its (empty) snapshot, from a server of
/// RFC 12: two messages make it current.
fn current_client() -> (Client, Void, Sequence) {
    let (mut out, sequence) = (Void::default(), Sequence::new(1, 1));
    let mut client = Client::new(ClientConfig::follow([""]), 7).expect("a configuration");
    let message = |key: &'static [u8], body: &'static [u8]| KvMsg {
        key,
        sequence,
        uuid: None,
        properties: Properties::EMPTY,
        body,
    };
    client.start(Time::ZERO, &mut out);
    message(b"HUGZ", b"").with_frames(|frames| {
        client.handle_update(Time::ZERO, Message::new(frames), &mut out);
    });
    message(b"KTHXBAI", b"").with_frames(|frames| {
        client.handle_snapshot(Time::ZERO, Message::new(frames), &mut out);
    });
    while client.poll_event().is_some() {}
    assert!(client.is_current(), "the handshake with an RFC 12 server has changed");
    (client, out, sequence)
}

/// An update from the frames received to the map and the event.
fn client(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("client update");
    group.throughput(Throughput::Elements(1));
    for keys in [10_000, 1_000_000] {
        for size in [64, 800] {
            let (mut client, mut out, mut sequence) = current_client();
            let names: Vec<Vec<u8>> = (0..keys).map(key).collect();
            let (mut random, mut now) = (Random(1), Time::ZERO);
            let mut update = |name: &[u8]| {
                sequence = sequence.next();
                now += Duration::from_micros(1);
                let mut value = [0x5a; 800];
                value[..8].copy_from_slice(&sequence.get().to_be_bytes());
                let message = KvMsg {
                    key: name,
                    sequence,
                    uuid: Some(uuid(sequence.get())),
                    properties: Properties::EMPTY,
                    body: &value[..size],
                };
                message.with_frames(|frames| {
                    client.handle_update(now, Message::new(frames), &mut out);
                });
                let mut events = 0;
                while let Some(event) = client.poll_event() {
                    black_box(event);
                    events += 1;
                }
                assert!(events > 0, "the update was not taken");
            };
            names.iter().for_each(|name| update(name));
            let id = BenchmarkId::new(format!("{size} bytes"), format!("{keys} keys"));
            bench(&mut group, id, 1, || update(&names[random.below(keys) as usize]));
        }
    }
    group.finish();
}
