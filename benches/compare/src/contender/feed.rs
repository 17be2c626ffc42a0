//! The other process: bare libzmq calls, the same for every contender.

use std::thread;
use std::time::Duration;

use crate::bare::{Bare, Part};
use crate::job::STREAM_HWM;

/// Sends `count` messages, `gap_us` apart, or as fast as they are taken.
pub(crate) fn feed(endpoint: &str, count: usize, size: usize, gap_us: u64) {
    let context = zmq::Context::new();
    let push = Bare::new(&context, zmq::PUSH);
    push.zmq().set_sndhwm(STREAM_HWM).expect("SNDHWM");
    push.zmq().set_linger(10_000).expect("LINGER");
    push.connect(endpoint);
    let payload = vec![7; size];
    for _ in 0..count {
        push.send(&mut Part::of(&payload), false);
        if gap_us > 0 {
            thread::sleep(Duration::from_micros(gap_us));
        }
    }
}

/// Greets, then sends everything back until something empty comes.
pub(crate) fn echo(endpoint: &str) {
    let context = zmq::Context::new();
    let dealer = Bare::new(&context, zmq::DEALER);
    dealer.connect(endpoint);
    let mut part = Part::of(b"hello");
    loop {
        dealer.send(&mut part, false);
        while !dealer.receive(&mut part) {}
        if part.bytes().is_empty() {
            return;
        }
    }
}
