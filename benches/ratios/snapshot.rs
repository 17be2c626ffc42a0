//! A late joiner takes everything, and what others feel of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pollux::node::{BrokerNode, BrokerOptions};
use pollux::reactor::{Backend, Reactor};

use super::common::bare::{Bare, Part};
use super::common::measure::{interleave, median, median_ratio, nanos, percentile};
use super::common::uuid::numbered;
use super::outcome::Outcome;

const ROUNDS: usize = 5;
const KEYS: u64 = 1_000_000;
const VALUE: [u8; 100] = [0x5a; 100];
/// Messages in flight for one joiner, on both sides: the broker's default.
const HWM: i32 = 4096;
/// Trips with and without a snapshot under way: enough for a p99 each.
const TRIPS: usize = 3000;

pub(crate) fn late_joiner() -> Vec<Outcome> {
    let (mut stream, mut broker) = (Stream::new(), Served::new());
    let [bare, ours] = interleave(
        ROUNDS,
        [&mut || stream.megabytes_per_second(), &mut || broker.megabytes_per_second()],
    );
    let speed = Outcome::new(
        "snapshot",
        median_ratio(&ours, &bare),
        format!("{:.0} MB/s, bare {:.0}", median(&ours), median(&bare)),
    );

    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(broker.round_trip_p99(Joiner::None));
        beside.push(broker.round_trip_p99(Joiner::Joins));
    }
    let (alone_ms, beside_ms) = (median(&alone) / 1e6, median(&beside) / 1e6);
    let p99 = Outcome {
        name: "snapshot_rtt_p99",
        ratio: median_ratio(&beside, &alone),
        excused: beside_ms <= 1.0,
        figures: format!("p99 {beside_ms:.3} ms during a snapshot, {alone_ms:.3} without"),
    };
    vec![speed, p99]
}

fn key(number: u64) -> Vec<u8> {
    format!("/snapshot/{number:08}").into_bytes()
}

/// Asks for everything and counts it: five parts a message until `KTHXBAI`.
/// Megabytes of content per second. In its own context, as another process
/// would be.
fn join(endpoint: &str) -> f64 {
    let context = zmq::Context::new();
    let dealer = Bare::new(&context, zmq::DEALER);
    dealer.connect(endpoint);
    let began = Instant::now();
    dealer.send_all(&[b"ICANHAZ?", b""]);
    let (mut part, mut messages, mut bytes) = (Part::new(), 0, 0);
    loop {
        assert!(dealer.receive(&mut part), "the context has ended");
        let is_last = part.bytes() == b"KTHXBAI";
        bytes += part.bytes().len();
        let mut parts = 1;
        while part.more() {
            assert!(dealer.receive(&mut part), "the context has ended");
            bytes += part.bytes().len();
            parts += 1;
        }
        assert_eq!(parts, 5);
        if is_last {
            break;
        }
        messages += 1;
    }
    assert!(messages >= KEYS, "{messages} entries of {KEYS} came");
    bytes as f64 / 1e6 / began.elapsed().as_secs_f64()
}

/// A ROUTER that sends prepared entries as fast as the joiner takes them.
struct Stream {
    _context: zmq::Context,
    router: Bare,
    endpoint: String,
    entries: Vec<Entry>,
}

struct Entry {
    key: Vec<u8>,
    sequence: [u8; 8],
    uuid: [u8; 16],
    value: Vec<u8>,
}

impl Stream {
    fn new() -> Stream {
        let context = zmq::Context::new();
        let router = Bare::new(&context, zmq::ROUTER);
        router.zmq().set_sndhwm(HWM).expect("SNDHWM");
        // With it a send waits for room instead of dropping the message.
        router.zmq().set_router_mandatory(true).expect("ROUTER_MANDATORY");
        let endpoint = router.bind("tcp://127.0.0.1:*");
        let entry = |number: u64| Entry {
            key: key(number),
            sequence: number.to_be_bytes(),
            uuid: [1; 16],
            value: VALUE.to_vec(),
        };
        Stream { _context: context, router, endpoint, entries: (0..KEYS).map(entry).collect() }
    }

    fn megabytes_per_second(&mut self) -> f64 {
        thread::scope(|scope| {
            let joiner = scope.spawn(|| join(&self.endpoint));
            self.serve_one();
            joiner.join().expect("joiner")
        })
    }

    fn serve_one(&self) {
        let (mut peer, mut part) = (Part::new(), Part::new());
        assert!(self.router.receive(&mut peer), "a routing id");
        while self.router.receive(&mut part) && part.more() {}
        for entry in &self.entries {
            self.router.send_all(&[
                peer.bytes(),
                &entry.key,
                &entry.sequence,
                &entry.uuid,
                b"",
                &entry.value,
            ]);
        }
        self.router.send_all(&[peer.bytes(), b"KTHXBAI", &KEYS.to_be_bytes(), b"", b"", b""]);
    }
}

/// Who else is there while round trips are timed.
#[derive(Clone, Copy, PartialEq)]
enum Joiner {
    None,
    Joins,
}

/// A broker with as many entries, served by this thread.
struct Served {
    _context: zmq::Context,
    reactor: Reactor<BrokerNode>,
    node: BrokerNode,
    /// Changes sent over all rounds; each has its own uuid.
    sent: u64,
}

impl Served {
    fn new() -> Served {
        let context = zmq::Context::new();
        let mut reactor = Reactor::builder().backend(Backend::Epoll).build().expect("a reactor");
        let mut node = BrokerNode::bind(&context, "tcp://127.0.0.1:*", BrokerOptions::default())
            .expect("a broker");
        BrokerNode::attach(&mut reactor, &mut node, |node| node).expect("attached");
        let mut served = Served { _context: context, reactor, node, sent: 0 };
        served.fill();
        served
    }

    /// Over the wire, so that the entries carry uuids, as the prepared ones do.
    fn fill(&mut self) {
        let changes = self.node.endpoints().changes.clone();
        let first = self.sent;
        self.serve(move || {
            let context = zmq::Context::new();
            let push = Bare::new(&context, zmq::PUSH);
            push.zmq().set_sndhwm(HWM).expect("SNDHWM");
            push.zmq().set_linger(10_000).expect("LINGER");
            push.connect(&changes);
            for number in 0..KEYS {
                push.send_all(&[&key(number), &[0; 8], &numbered(first + number), b"", &VALUE]);
            }
        });
        self.sent += KEYS;
        while (self.node.machine().store().len() as u64) < KEYS {
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.reactor.turn(&mut self.node, Duration::from_millis(10)).expect("a turn");
    }

    /// Serves until `client` is done.
    fn serve<R: Send>(&mut self, client: impl FnOnce() -> R + Send) -> R {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let client = scope.spawn(|| {
                let result = client();
                done.store(true, Ordering::Release);
                result
            });
            while !done.load(Ordering::Acquire) {
                self.turn();
            }
            client.join().expect("client")
        })
    }

    fn megabytes_per_second(&mut self) -> f64 {
        let endpoint = self.node.endpoints().snapshots.clone();
        self.serve(move || join(&endpoint))
    }

    /// The p99 of changes that come back as updates. With a joiner only the trips
    /// count that end before its snapshot does; it joins again until there are
    /// enough.
    fn round_trip_p99(&mut self, joiner: Joiner) -> f64 {
        let endpoints = self.node.endpoints().clone();
        let first = self.sent;
        self.sent += (2 * TRIPS) as u64;
        let done = AtomicBool::new(false);
        let mut samples = self.serve(|| {
            thread::scope(|scope| {
                let joins = (joiner == Joiner::Joins).then(|| {
                    scope.spawn(|| {
                        while !done.load(Ordering::Acquire) {
                            join(&endpoints.snapshots);
                        }
                    })
                });
                let trips = Trips::connect(&endpoints.changes, &endpoints.updates);
                let samples = trips.time(first, &done);
                drop(joins);
                samples
            })
        });
        percentile(&mut samples, 99)
    }
}

/// Another client: sends a change and waits until it comes back.
struct Trips {
    _context: zmq::Context,
    push: Bare,
    sub: Bare,
}

impl Trips {
    fn connect(changes: &str, updates: &str) -> Trips {
        let context = zmq::Context::new();
        let push = Bare::new(&context, zmq::PUSH);
        push.connect(changes);
        let sub = Bare::new(&context, zmq::SUB);
        sub.zmq().set_subscribe(b"/trip").expect("SUBSCRIBE");
        sub.connect(updates);
        Trips { _context: context, push, sub }
    }

    fn time(&self, first: u64, done: &AtomicBool) -> Vec<u64> {
        let mut part = Part::new();
        let mut number = first;
        let mut send = || {
            number += 1;
            self.push.send_all(&[b"/trip", &[0; 8], &numbered(number), b"", &VALUE]);
        };
        // Until the first is heard the subscription may be under way.
        self.sub.zmq().set_rcvtimeo(10).expect("RCVTIMEO");
        loop {
            send();
            if self.receive(&mut part) {
                break;
            }
        }
        // Those that were late are still to come.
        while self.receive(&mut part) {}
        self.sub.zmq().set_rcvtimeo(-1).expect("RCVTIMEO");
        let samples = (0..TRIPS).map(|_| {
            let began = Instant::now();
            send();
            assert!(self.receive(&mut part), "the context has ended");
            nanos(began.elapsed())
        });
        let samples = samples.collect();
        done.store(true, Ordering::Release);
        samples
    }

    fn receive(&self, part: &mut Part) -> bool {
        if !self.sub.receive(part) {
            return false;
        }
        while part.more() && self.sub.receive(part) {}
        true
    }
}
