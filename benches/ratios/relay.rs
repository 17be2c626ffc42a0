//! Changes from a sender through a broker to a subscriber.
//!
//! All over inproc: no I/O thread and no kernel lies between, so that what the broker
//! does is the largest part of what is measured. With the queue filled before, one thread
//! does everything in turns, and the time of the server's turns counts; live, sender and
//! subscriber are threads of their own, at most a window apart, so that nothing is ever
//! dropped and no queue grows.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::HashSet;
use pollux::node::{BrokerNode, BrokerOptions};
use pollux::reactor::{Backend, Reactor};

use super::common::alloc;
use super::common::bare::{Bare, Part};
use super::common::measure::{interleave, median, median_ratio};
use super::outcome::Outcome;
use super::traffic::{Endpoints, Traffic};

const ROUNDS: usize = 31;

pub(crate) fn small_values() -> Vec<Outcome> {
    measure(64, ["broker_64", "broker_once_64", "broker_live_64"])
}

pub(crate) fn large_values() -> Vec<Outcome> {
    measure(800, ["broker_800", "broker_once_800", "broker_live_800"])
}

/// Allocations of ours per update, by the broker's thread.
pub(crate) fn allocations() -> Vec<Outcome> {
    let mut brokered = Brokered::new(64);
    brokered.live();
    brokered.live();
    let (calls, updates) = (brokered.calls, brokered.updates);
    brokered.live();
    let (calls, updates) = (brokered.calls - calls, brokered.updates - updates);
    let ratio = calls as f64 / updates as f64;
    let figures = format!("{calls} allocations for {updates} updates of 64 bytes");
    vec![Outcome::new("broker_allocs_per_update", ratio, figures)]
}

fn measure(value_len: usize, [filled, once, live]: [&'static str; 3]) -> Vec<Outcome> {
    let (mut bare, mut brokered) = (Relay::new(value_len), Brokered::new(value_len));
    let mut careful = Relay::new(value_len);
    careful.window = Some(Window::default());
    let outcome = |name, brokered: &[f64], bare: &[f64]| {
        let figures = format!(
            "{:.0} updates/s, bare {:.0} (values of {value_len} bytes)",
            median(brokered),
            median(bare)
        );
        Outcome::new(name, median_ratio(brokered, bare), figures)
    };
    let contenders: [&mut dyn FnMut() -> f64; 3] =
        [&mut || bare.filled(), &mut || careful.filled(), &mut || brokered.filled()];
    let [of_bare, of_careful, of_filled] = interleave(ROUNDS, contenders);
    let [of_bare_live, of_live] =
        interleave(ROUNDS, [&mut || bare.live(), &mut || brokered.live()]);
    vec![
        outcome(filled, &of_filled, &of_bare),
        outcome(once, &of_filled, &of_careful),
        outcome(live, &of_live, &of_bare_live),
    ]
}

/// A relay by hand: the parts received are the parts sent, but for the
/// sequence; a hash map keeps the values, overwriting in place.
struct Relay {
    traffic: Traffic,
    changes: Bare,
    updates: Bare,
    map: HashMap<Vec<u8>, Vec<u8>>,
    sequence: u64,
    window: Option<Window>,
}

/// The uuids of the last changes: what it takes at least to apply none of them twice.
#[derive(Default)]
struct Window {
    uuids: HashSet<[u8; 16]>,
    order: VecDeque<[u8; 16]>,
}

impl Window {
    /// As many as a broker remembers by default.
    const COUNT: usize = 1_000_000;

    /// Whether this one is new.
    #[inline]
    fn insert(&mut self, uuid: &[u8]) -> bool {
        let Ok(uuid) = <[u8; 16]>::try_from(uuid) else { return true };
        if !self.uuids.insert(uuid) {
            return false;
        }
        if self.order.len() >= Window::COUNT
            && let Some(oldest) = self.order.pop_front()
        {
            self.uuids.remove(&oldest);
        }
        self.order.push_back(uuid);
        true
    }
}

impl Relay {
    fn new(value_len: usize) -> Relay {
        let context = zmq::Context::new();
        let (changes, updates) = (Bare::new(&context, zmq::PULL), Bare::new(&context, zmq::XPUB));
        let endpoints = Endpoints {
            changes: changes.bind("inproc://changes"),
            updates: updates.bind("inproc://updates"),
        };
        // One that waits for ever would never see that the round is over.
        changes.zmq().set_rcvtimeo(10).expect("RCVTIMEO");
        let traffic = Traffic::new(context, endpoints, value_len);
        Relay { traffic, changes, updates, map: HashMap::new(), sequence: 0, window: None }
    }

    fn live(&mut self) -> f64 {
        let Relay { traffic, changes, updates, map, sequence, window } = self;
        let mut parts: [Part; 5] = std::array::from_fn(|_| Part::new());
        traffic.live(|done| {
            while !done.load(Ordering::Acquire) {
                if changes.receive(&mut parts[0]) {
                    relay((changes, updates), &mut parts, map, sequence, window.as_mut());
                }
            }
        })
    }

    fn filled(&mut self) -> f64 {
        let Relay { traffic, changes, updates, map, sequence, window } = self;
        let mut parts: [Part; 5] = std::array::from_fn(|_| Part::new());
        let mut subscription = Part::new();
        traffic.filled(|count| {
            while updates.try_receive(&mut subscription) {}
            let end = *sequence + count;
            while *sequence < end {
                if changes.receive(&mut parts[0]) {
                    relay((changes, updates), &mut parts, map, sequence, window.as_mut());
                }
            }
        })
    }
}

/// Takes the rest of a change whose key is there, stores it, and sends it on.
#[inline]
fn relay(
    (changes, updates): (&Bare, &Bare),
    parts: &mut [Part; 5],
    map: &mut HashMap<Vec<u8>, Vec<u8>>,
    sequence: &mut u64,
    window: Option<&mut Window>,
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
    if window.is_some_and(|window| !window.insert(parts[2].bytes())) {
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
        let traffic = Traffic::new(context, endpoints, value_len);
        Brokered { traffic, reactor, node, calls: 0, updates: 0 }
    }

    fn live(&mut self) -> f64 {
        let Brokered { traffic, reactor, node, calls, updates } = self;
        traffic.live(|done| {
            let before = (alloc::calls(), node.machine().stats().changes_applied);
            while !done.load(Ordering::Acquire) {
                reactor.turn(node, Duration::from_millis(10)).expect("a turn");
            }
            *calls += alloc::calls() - before.0;
            *updates += node.machine().stats().changes_applied - before.1;
        })
    }

    fn filled(&mut self) -> f64 {
        let Brokered { traffic, reactor, node, .. } = self;
        traffic.filled(|count| {
            let end = node.machine().stats().changes_applied + count;
            while node.machine().stats().changes_applied < end {
                reactor.turn(node, Duration::from_millis(10)).expect("a turn");
            }
        })
    }
}
