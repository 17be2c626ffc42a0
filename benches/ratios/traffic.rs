//! [`Traffic`]: a sender and a subscriber of a server between them, the same for all
//! contenders.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::common::bare::{Bare, Part};
use super::common::measure::per_second;
use super::common::uuid::numbered;

const WARM_UP: u64 = 10_000;
const UPDATES: u64 = 50_000;
const KEYS: u64 = 10_000;

/// Changes that the sender is ahead of the subscriber at most.
const WINDOW: u64 = 4096;

/// Changes that are there before the server begins, when it has the thread to itself: of
/// several turns.
const FILLED: u64 = 512;

const KEY_LEN: usize = b"/relay/00000000".len();

/// Where the two others connect to.
pub(crate) struct Endpoints {
    pub(crate) changes: String,
    pub(crate) updates: String,
}

/// The sender and the subscriber, the same for both sides.
pub(crate) struct Traffic {
    pub(crate) context: zmq::Context,
    pub(crate) endpoints: Endpoints,
    value: Vec<u8>,
    /// Changes sent over all rounds; each has its own uuid.
    sent: u64,
}

impl Traffic {
    pub(crate) fn new(context: zmq::Context, endpoints: Endpoints, value_len: usize) -> Traffic {
        Traffic { context, endpoints, value: vec![0x5a; value_len], sent: 0 }
    }

    /// Changes sent until now, over all rounds.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    fn ends(&self) -> (Bare, Bare) {
        let push = Bare::new(&self.context, zmq::PUSH);
        push.connect(&self.endpoints.changes);
        let sub = Bare::new(&self.context, zmq::SUB);
        sub.connect(&self.endpoints.updates);
        sub.zmq().set_subscribe(b"/").expect("SUBSCRIBE");
        (push, sub)
    }

    fn send(&mut self, push: &Bare, key: &[u8]) {
        self.sent += 1;
        self.value[..8].copy_from_slice(&self.sent.to_be_bytes());
        push.send_all(&[key, &[0; 8], &numbered(self.sent), b"", &self.value]);
    }

    /// Changes sent and received by two other threads while `serve` runs in this one, which
    /// returns when the flag is set, or soon after. Updates per second at the subscriber.
    pub(crate) fn live(&mut self, serve: impl FnOnce(&AtomicBool)) -> f64 {
        let (received, done) = (AtomicU64::new(0), AtomicBool::new(false));
        let (push, sub) = self.ends();
        thread::scope(|scope| {
            let subscriber = scope.spawn(|| subscriber(sub, &received));
            let sender = scope.spawn(|| {
                // Closed when all has arrived: it keeps nothing that is still to be sent.
                let push = push;
                self.send_live(&push, &received);
                // The subscriber has all; the server may go.
                let rate = subscriber.join().expect("subscriber");
                done.store(true, Ordering::Release);
                rate
            });
            serve(&done);
            sender.join().expect("sender")
        })
    }

    /// Sends probes until the first came through, then the changes of one round.
    fn send_live(&mut self, push: &Bare, received: &AtomicU64) {
        while received.load(Ordering::Acquire) == 0 {
            self.send(push, b"/probe");
            thread::sleep(Duration::from_millis(1));
        }
        for count in 0..WARM_UP + UPDATES {
            while count % 64 == 0 && count > received.load(Ordering::Relaxed) + WINDOW {
                thread::yield_now();
            }
            self.send(push, format_key(count % KEYS, &mut [0; KEY_LEN]));
        }
    }

    /// All in this thread, by turns: changes are sent, `serve` handles as many as it is
    /// told, what it has published is received. Updates per second of `serve` alone.
    pub(crate) fn filled(&mut self, mut serve: impl FnMut(u64)) -> f64 {
        let (push, sub) = self.ends();
        let mut part = Part::new();
        let mut has_joined = false;
        while !has_joined {
            self.send(&push, b"/probe");
            serve(1);
            while sub.try_receive(&mut part) {
                receive_rest(&sub, &mut part);
                has_joined = true;
            }
        }
        let mut spent = Duration::ZERO;
        let (warm_up, updates) = (WARM_UP / FILLED, UPDATES / FILLED);
        for turn in 0..warm_up + updates {
            for count in turn * FILLED..(turn + 1) * FILLED {
                self.send(&push, format_key(count % KEYS, &mut [0; KEY_LEN]));
            }
            let began = Instant::now();
            serve(FILLED);
            if turn >= warm_up {
                spent += began.elapsed();
            }
            for _ in 0..FILLED {
                assert!(sub.receive(&mut part), "the context has ended");
                receive_rest(&sub, &mut part);
            }
        }
        (updates * FILLED) as f64 / spent.as_secs_f64()
    }
}

fn format_key(number: u64, key: &mut [u8; KEY_LEN]) -> &[u8] {
    key.copy_from_slice(b"/relay/00000000");
    let mut rest = number;
    for digit in key[7..].iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// The parts of an update behind its first.
fn receive_rest(sub: &Bare, part: &mut Part) {
    let mut parts = 1;
    while part.more() {
        assert!(sub.receive(part), "the context has ended");
        parts += 1;
    }
    assert_eq!(parts, 5);
}

/// Counts what comes after the probes; the rate from the end of the warm-up on.
fn subscriber(sub: Bare, received: &AtomicU64) -> f64 {
    let mut part = Part::new();
    let (mut count, mut began) = (0, Instant::now());
    loop {
        assert!(sub.receive(&mut part), "the context has ended");
        let is_probe = part.bytes() == b"/probe";
        receive_rest(&sub, &mut part);
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
