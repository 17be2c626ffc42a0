//! The protocol and the state machines by themselves: no sockets, no loop
//! (criterion).
//!
//! ```text
//! cargo bench --bench clone
//! cargo bench --bench clone -- store
//! ```

#[path = "common/mod.rs"]
mod common;

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use pollux::clone::broker::{Broker, BrokerConfig, BrokerOutbox};
use pollux::clone::client::{Client, ClientConfig, ClientOutbox};
use pollux::clone::kvmsg::{KvMsg, Uuid};
use pollux::clone::properties::Properties;
use pollux::clone::store::{Change, Store, StoreLimits, Walk};
use pollux::clone::{Collector, SendFailure, Sequence};
use pollux::{Message, Time};

use common::measure::Random;

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
    client(&mut criterion);
    criterion.final_summary();
}

fn key(number: u64) -> Vec<u8> {
    format!("/tree/{:03}/{number:08}", number % 1000).into_bytes()
}

fn uuid(number: u64) -> Uuid {
    let mut uuid = [0xa7; 16];
    uuid[8..].copy_from_slice(&number.to_be_bytes());
    Uuid::from_bytes(uuid)
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
    group.bench_function(BenchmarkId::new("get", keys), |bencher| {
        bencher.iter(|| black_box(filled.store.get(any())).is_some());
    });
    group.bench_function(BenchmarkId::new("update", keys), |bencher| {
        bencher.iter(|| filled.put(any(), &[0x33; 100], None));
    });
    group.bench_function(BenchmarkId::new("update, with a deadline", keys), |bencher| {
        let mut at = Time::ZERO + Duration::from_secs(60);
        bencher.iter(|| {
            at += Duration::from_micros(1);
            filled.put(any(), &[0x33; 100], Some(at));
        });
    });
    group.bench_function(BenchmarkId::new("insert and delete", keys), |bencher| {
        let mut random = Random(2);
        bencher.iter(|| {
            let number = random.below(keys);
            let name = format!("/tree/{:03}/{number:08}/new", number % 1000);
            filled.put(name.as_bytes(), &[0x33; 100], None);
            filled.delete(name.as_bytes());
        });
    });
    group.finish();
}

/// One subtree, whole snapshots, and one slice of them.
fn store_walks(criterion: &mut Criterion, keys: u64) {
    let mut filled = Filled::of(keys);
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(keys / 1000));
    group.bench_function(BenchmarkId::new("subtree", keys), |bencher| {
        bencher.iter(|| {
            filled.store.iter(b"/tree/500/").map(|entry| entry.value.len()).sum::<usize>()
        });
    });
    group.throughput(Throughput::Elements(keys));
    group.bench_function(BenchmarkId::new("snapshot", keys), |bencher| {
        bencher.iter(|| walk(&mut filled.store, 256, usize::MAX));
    });
    // What the loop is held up by between two other events.
    group.throughput(Throughput::Elements(256));
    group.bench_function(BenchmarkId::new("first slice of 256", keys), |bencher| {
        bencher.iter(|| walk(&mut filled.store, 256, 1));
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
        group.bench_function(BenchmarkId::new("expire and insert", keys), |bencher| {
            bencher.iter(|| {
                now += tick;
                number += 1;
                while filled.store.pop_expired(now, &mut expired) {
                    filled.delete(&expired);
                }
                filled.put(&key(number), &[0x5a; 100], Some(now + life));
            });
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
    for keys in [10_000, 1_000_000] {
        for size in [64, 800] {
            let config = BrokerConfig::new(7, Sequence::new(1, 0));
            let mut broker = Broker::new(config, Time::ZERO);
            let (mut out, mut number, mut now) = (Void::default(), 0_u64, Time::ZERO);
            let names: Vec<Vec<u8>> = (0..keys).map(key).collect();
            let mut random = Random(1);
            let mut update = |name: &[u8]| {
                number += 1;
                now += Duration::from_micros(1);
                let mut value = [0x5a; 800];
                value[..8].copy_from_slice(&number.to_be_bytes());
                let (uuid, zero) = (uuid(number), [0; 8]);
                let frames: [&[u8]; 5] = [name, &zero, uuid.as_bytes(), b"", &value[..size]];
                broker.handle_change(now, Message::new(&frames), &mut out);
            };
            names.iter().for_each(|name| update(name));
            let id = BenchmarkId::new(format!("{size} bytes"), format!("{keys} keys"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| update(&names[random.below(keys) as usize]));
            });
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
            group.bench_function(id, |bencher| {
                bencher.iter(|| update(&names[random.below(keys) as usize]));
            });
        }
    }
    group.finish();
}
