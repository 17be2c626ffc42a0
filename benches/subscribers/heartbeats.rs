//! The times between the heartbeats of each subtree, as a bare SUB hears them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::common::bare::{Bare, Part};
use crate::{new_histogram, times};

/// All heartbeats but the plain one.
const TOPIC: &[u8] = b"HUGZ/";

/// A thread that listens.
pub(crate) struct Heartbeats {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Heard>,
}

/// What it has heard.
pub(crate) struct Heard {
    apart: Histogram<u64>,
    subtrees: usize,
    expected: usize,
}

impl Heartbeats {
    pub(crate) fn follow(updates: &str, subtrees: usize) -> Heartbeats {
        let is_over = Arc::new(AtomicBool::new(false));
        let (endpoint, flag) = (updates.to_owned(), Arc::clone(&is_over));
        let thread = thread::spawn(move || listen(&endpoint, subtrees, &flag));
        Heartbeats { is_over, thread }
    }

    pub(crate) fn finish(self) -> Heard {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().expect("the thread that listens")
    }
}

fn listen(endpoint: &str, expected: usize, is_over: &AtomicBool) -> Heard {
    let context = zmq::Context::new();
    let sub = Bare::new(&context, zmq::SUB);
    sub.zmq().set_subscribe(TOPIC).expect("SUBSCRIBE");
    sub.zmq().set_rcvtimeo(50).expect("RCVTIMEO");
    sub.connect(endpoint);
    let (mut last, mut apart, mut part) = (HashMap::new(), new_histogram(), Part::new());
    while !is_over.load(Ordering::SeqCst) {
        if !sub.receive(&mut part) {
            continue;
        }
        let now = Instant::now();
        // Its own subscription has a heartbeat, too, as if it were a subtree's.
        let is_own = part.bytes() == TOPIC;
        let before: Option<Instant> =
            if is_own { None } else { last.insert(part.bytes().to_vec(), now) };
        if let Some(before) = before {
            apart.record((now - before).as_nanos() as u64).expect("it grows");
        }
        while part.more() && sub.receive(&mut part) {}
    }
    Heard { apart, subtrees: last.len(), expected }
}

impl Heard {
    pub(crate) fn most(&self) -> Duration {
        Duration::from_nanos(self.apart.max())
    }

    /// Whether every subtree was heard.
    pub(crate) fn has_all(&self) -> bool {
        self.subtrees == self.expected
    }

    pub(crate) fn report(&self) -> String {
        format!("{}, of {} subtrees", times(&self.apart), self.subtrees)
    }
}
