//! Changes from a sender through a broker to a subscriber.
//!
//! Three threads over inproc: no I/O thread and no kernel lies between, so that
//! what the broker's thread does is the largest part of what is measured. The
//! sender stays at most [`WINDOW`] changes ahead of the subscriber; nothing is
//! ever dropped, and no queue grows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pollux::node::{BrokerNode, BrokerOptions};
use pollux::reactor::{Backend, Reactor};

use super::common::alloc;
use super::common::bare::{Bare, Part};
use super::common::measure::{interleave, median, median_ratio, per_second};
use super::common::uuid::numbered;
use super::outcome::Outcome;

const ROUNDS: usize = 31;
const WARM_UP: u64 = 10_000;
const UPDATES: u64 = 50_000;
const KEYS: u64 = 10_000;
const WINDOW: u64 = 4096;

pub(crate) fn small_values() -> Vec<Outcome> {
    measure("broker_64", 64)
}

pub(crate) fn large_values() -> Vec<Outcome> {
    measure("broker_800", 800)
}

/// Allocations of ours per update, by the broker's thread.
pub(crate) fn allocations() -> Vec<Outcome> {
    let mut brokered = Brokered::new(64);
    brokered.round();
    brokered.round();
    let (calls, updates) = (brokered.calls, brokered.updates);
    brokered.round();
    let (calls, updates) = (brokered.calls - calls, brokered.updates - updates);
    let ratio = calls as f64 / updates as f64;
    let figures = format!("{calls} allocations for {updates} updates of 64 bytes");
    vec![Outcome::new("broker_allocs_per_update", ratio, figures)]
}

fn measure(name: &'static str, value_len: usize) -> Vec<Outcome> {
    let (mut bare, mut brokered) = (Relay::new(value_len), Brokered::new(value_len));
    let [bare, brokered] = interleave(ROUNDS, [&mut || bare.round(), &mut || brokered.round()]);
    let figures = format!(
        "{:.0} updates/s, bare {:.0} (values of {value_len} bytes)",
        median(&brokered),
        median(&bare)
    );
    vec![Outcome::new(name, median_ratio(&brokered, &bare), figures)]
}

/// Where the two others connect to.
pub(crate) struct Endpoints {
    pub(crate) changes: String,
    pub(crate) updates: String,
}

/// The sender and the subscriber, the same for both sides.
pub(crate) struct Traffic {
    pub(crate) context: zmq::Context,
    pub(crate) endpoints: Endpoints,
    pub(crate) value_len: usize,
    /// Changes sent over all rounds; each has its own uuid.
    pub(crate) sent: u64,
}

impl Traffic {
    /// Runs the traffic of one round, with `serve` in this thread, which returns
    /// when the flag is set, or soon after. Updates per second at the subscriber.
    pub(crate) fn round(&mut self, serve: impl FnOnce(&AtomicBool)) -> f64 {
        let (received, done) = (AtomicU64::new(0), AtomicBool::new(false));
        let push = Bare::new(&self.context, zmq::PUSH);
        push.connect(&self.endpoints.changes);
        let sub = Bare::new(&self.context, zmq::SUB);
        sub.connect(&self.endpoints.updates);
        sub.zmq().set_subscribe(b"/").expect("SUBSCRIBE");
        let (first, value_len) = (self.sent, self.value_len);
        thread::scope(|scope| {
            let subscriber = scope.spawn(|| subscriber(sub, &received));
            let sender = scope.spawn(|| {
                // Closed when all has arrived: it keeps nothing that is still to be sent.
                let push = push;
                let sent = sender(&push, &received, first, value_len);
                // The subscriber has all; the server may go.
                let rate = subscriber.join().expect("subscriber");
                done.store(true, Ordering::Release);
                (sent, rate)
            });
            serve(&done);
            let (sent, rate) = sender.join().expect("sender");
            self.sent = sent;
            rate
        })
    }
}

/// Sends probes until the first came through, then the changes of one round.
fn sender(push: &Bare, received: &AtomicU64, first: u64, value_len: usize) -> u64 {
    let mut value = vec![0x5a; value_len];
    let mut number = first;
    let mut send = |key: &[u8]| {
        number += 1;
        value[..8].copy_from_slice(&number.to_be_bytes());
        push.send_all(&[key, &[0; 8], &numbered(number), b"", &value]);
    };
    while received.load(Ordering::Acquire) == 0 {
        send(b"/probe");
        thread::sleep(Duration::from_millis(1));
    }
    for count in 0..WARM_UP + UPDATES {
        while count % 64 == 0 && count > received.load(Ordering::Relaxed) + WINDOW {
            thread::yield_now();
        }
        send(format_key(count % KEYS, &mut [0; KEY_LEN]));
    }
    number
}

const KEY_LEN: usize = b"/relay/00000000".len();

fn format_key(number: u64, key: &mut [u8; KEY_LEN]) -> &[u8] {
    key.copy_from_slice(b"/relay/00000000");
    let mut rest = number;
    for digit in key[7..].iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Counts what comes after the probes; the rate from the end of the warm-up on.
fn subscriber(sub: Bare, received: &AtomicU64) -> f64 {
    let mut part = Part::new();
    let (mut count, mut began) = (0, Instant::now());
    loop {
        assert!(sub.receive(&mut part), "the context has ended");
        let is_probe = part.bytes() == b"/probe";
        let mut parts = 1;
        while part.more() {
            assert!(sub.receive(&mut part), "the context has ended");
            parts += 1;
        }
        assert_eq!(parts, 5);
        if is_probe {
            // Never more than the sender will have sent: it counts from here.
            received.fetch_max(1, Ordering::Release);
            continue;
        }
        count += 1;
        received.store(count, Ordering::Relaxed);
        match count {
            WARM_UP => began = Instant::now(),
            count if count == WARM_UP + UPDATES => return per_second(UPDATES as usize, began),
            _ => {}
        }
    }
}

/// A relay by hand: the parts received are the parts sent, but for the
/// sequence; a hash map keeps the values, overwriting in place.
struct Relay {
    traffic: Traffic,
    changes: Bare,
    updates: Bare,
    map: HashMap<Vec<u8>, Vec<u8>>,
    sequence: u64,
}

impl Relay {
    fn new(value_len: usize) -> Relay {
        let context = zmq::Context::new();
        let (changes, updates) = (Bare::new(&context, zmq::PULL), Bare::new(&context, zmq::XPUB));
        let endpoints = Endpoints {
            changes: changes.bind("inproc://changes"),
            updates: updates.bind("inproc://updates"),
        };
        let traffic = Traffic { context, endpoints, value_len, sent: 0 };
        Relay { traffic, changes, updates, map: HashMap::new(), sequence: 0 }
    }

    fn round(&mut self) -> f64 {
        let Relay { traffic, changes, updates, map, sequence } = self;
        // One that waits for ever would never see the flag.
        changes.zmq().set_rcvtimeo(10).expect("RCVTIMEO");
        traffic.round(|done| {
            let mut parts: [Part; 5] = std::array::from_fn(|_| Part::new());
            while !done.load(Ordering::Acquire) {
                if changes.receive(&mut parts[0]) {
                    relay(changes, updates, &mut parts, map, sequence);
                }
            }
        })
    }
}

/// Takes the rest of a change whose key is there, stores it, and sends it on.
#[inline]
fn relay(
    changes: &Bare,
    updates: &Bare,
    parts: &mut [Part; 5],
    map: &mut HashMap<Vec<u8>, Vec<u8>>,
    sequence: &mut u64,
) {
    for index in 1..5 {
        if !parts[index - 1].more() || !changes.receive(&mut parts[index]) {
            return;
        }
    }
    let Ok(theirs) = <[u8; 8]>::try_from(parts[1].bytes()) else { return };
    if i64::from_be_bytes(theirs) < 0 {
        return;
    }
    *sequence += 1;
    let (key, value) = (parts[0].bytes(), parts[4].bytes());
    match map.get_mut(key) {
        Some(old) => {
            old.clear();
            old.extend_from_slice(value);
        }
        None => drop(map.insert(key.to_vec(), value.to_vec())),
    }
    parts[1] = Part::of(&sequence.to_be_bytes());
    for (index, part) in parts.iter_mut().enumerate() {
        updates.send(part, index < 4);
    }
}

/// The same by a [`BrokerNode`] on a reactor.
struct Brokered {
    traffic: Traffic,
    reactor: Reactor<BrokerNode>,
    node: BrokerNode,
    /// Allocations by this thread while it served, and updates applied then.
    calls: u64,
    updates: u64,
}

impl Brokered {
    fn new(value_len: usize) -> Brokered {
        let context = zmq::Context::new();
        let mut options = BrokerOptions::default();
        // As for the relay: nothing is dropped, the window bounds the queues.
        (options.updates_hwm, options.changes_hwm) = (0, 0);
        let mut node = BrokerNode::bind(&context, "inproc://broker", options).expect("a broker");
        let endpoints = Endpoints {
            changes: node.endpoints().changes.clone(),
            updates: node.endpoints().updates.clone(),
        };
        let mut reactor = Reactor::builder().backend(Backend::Epoll).build().expect("a reactor");
        BrokerNode::attach(&mut reactor, &mut node, |node| node).expect("attached");
        let traffic = Traffic { context, endpoints, value_len, sent: 0 };
        Brokered { traffic, reactor, node, calls: 0, updates: 0 }
    }

    fn round(&mut self) -> f64 {
        let Brokered { traffic, reactor, node, calls, updates } = self;
        traffic.round(|done| {
            let before = (alloc::calls(), node.machine().stats().changes_applied);
            while !done.load(Ordering::Acquire) {
                reactor.turn(node, Duration::from_millis(10)).expect("a turn");
            }
            *calls += alloc::calls() - before.0;
            *updates += node.machine().stats().changes_applied - before.1;
        })
    }
}
