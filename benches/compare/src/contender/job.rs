//! What a contender is to do, and the clock that all of them share.

use std::hint::black_box;
use std::io;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::bare::{Bare, Part};
use crate::measure::{nanos, percentile};

/// Far beyond the end of any scene.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// A queue over inproc that is full before the loop starts.
    Hot,
    /// Messages from another process over tcp.
    Stream,
    /// Messages to another process over tcp, one at a time, and back.
    Trip,
}

impl Scene {
    pub(crate) fn named(name: &str) -> Option<Scene> {
        match name {
            "hot" => Some(Scene::Hot),
            "stream" => Some(Scene::Stream),
            "trip" => Some(Scene::Trip),
            _ => None,
        }
    }
}

pub(crate) struct Job {
    pub(crate) context: zmq::Context,
    pub(crate) scene: Scene,
    pub(crate) count: usize,
    pub(crate) size: usize,
    /// Further sockets, each with a peer that says nothing.
    pub(crate) idle: usize,
    /// Timers, none of which is due before the end.
    pub(crate) timers: usize,
}

/// Messages that may wait at a `stream`, in each of the two processes.
pub(crate) const STREAM_HWM: i32 = 100_000;

impl Job {
    pub(crate) fn new(scene: Scene, count: usize, size: usize, idle: usize, timers: usize) -> Job {
        Job { context: zmq::Context::new(), scene, count, size, idle, timers }
    }

    /// Where the busy socket binds.
    pub(crate) fn address(&self) -> &'static str {
        if self.scene == Scene::Hot { "inproc://busy" } else { "tcp://127.0.0.1:*" }
    }

    /// The high-water mark of the busy socket: none when all is queued before.
    pub(crate) fn hwm(&self) -> i32 {
        if self.scene == Scene::Hot { 0 } else { STREAM_HWM }
    }

    /// The busy socket, bound, and whatever its peer needs done. The second value
    /// must live as long as the scene.
    pub(crate) fn busy(&self) -> (Bare, Option<Bare>) {
        let is_trip = self.scene == Scene::Trip;
        let socket = Bare::new(&self.context, if is_trip { zmq::DEALER } else { zmq::PULL });
        socket.zmq().set_rcvhwm(self.hwm()).expect("RCVHWM");
        // What ends the echo is sent right before the socket is closed.
        socket.zmq().set_linger(1000).expect("LINGER");
        let endpoint = socket.bind(self.address());
        (socket, self.begin(&endpoint))
    }

    /// Fills the queue, or tells the other process where to connect to.
    pub(crate) fn begin(&self, endpoint: &str) -> Option<Bare> {
        if self.scene == Scene::Hot {
            let push = Bare::new(&self.context, zmq::PUSH);
            push.connect(endpoint);
            let payload = vec![7; self.size];
            for _ in 0..self.count {
                push.send(&mut Part::of(&payload), false);
            }
            return Some(push);
        }
        say_endpoint(endpoint);
        None
    }

    /// Idle sockets as (PULL that waits, PUSH that says nothing).
    pub(crate) fn idle_sockets(&self) -> (Vec<Bare>, Vec<Bare>) {
        (0..self.idle).map(|index| self.idle_pair(index)).unzip()
    }

    fn idle_pair(&self, index: usize) -> (Bare, Bare) {
        let pull = Bare::new(&self.context, zmq::PULL);
        pull.bind(&idle_address(index));
        (pull, self.silent(index))
    }

    /// The peer of an idle socket that is bound already.
    pub(crate) fn silent(&self, index: usize) -> Bare {
        let push = Bare::new(&self.context, zmq::PUSH);
        push.connect(&idle_address(index));
        push
    }
}

/// Where an idle socket binds.
pub(crate) fn idle_address(index: usize) -> String {
    format!("inproc://idle-{index}")
}

pub(crate) fn say_endpoint(endpoint: &str) {
    println!("endpoint {endpoint}");
    io::stdout().flush().expect("stdout");
}

/// Times from the first message to the last.
pub(crate) struct Meter {
    total: usize,
    left: usize,
    sum: u64,
    began: Instant,
}

impl Meter {
    pub(crate) fn new(job: &Job) -> Meter {
        Meter { total: job.count, left: job.count, sum: 0, began: Instant::now() }
    }

    /// What every handler does with a message: it looks at a byte and the length.
    /// True: it was the last, and the figure is printed.
    #[inline]
    pub(crate) fn take(&mut self, bytes: &[u8]) -> bool {
        if self.left == self.total {
            self.began = Instant::now();
        }
        self.sum += u64::from(bytes[0]) + bytes.len() as u64;
        self.left -= 1;
        self.left == 0 && self.finish()
    }

    #[cold]
    fn finish(&self) -> bool {
        let elapsed = self.began.elapsed();
        black_box(self.sum);
        println!("ns={:.2}", nanos(elapsed) as f64 / (self.total - 1) as f64);
        true
    }
}

/// Times each message that goes out until it is back.
pub(crate) struct Trips {
    pub(crate) payload: Vec<u8>,
    left: usize,
    samples: Vec<u64>,
    sent: Option<Instant>,
}

impl Trips {
    pub(crate) fn new(job: &Job) -> Trips {
        Trips {
            payload: vec![7; job.size],
            left: job.count,
            samples: Vec::with_capacity(job.count),
            sent: None,
        }
    }

    /// Something came; the first is the echo's greeting. True: the next one goes out
    /// now. False: that was the last, and the figures are printed.
    #[inline]
    pub(crate) fn next(&mut self) -> bool {
        let now = Instant::now();
        if let Some(sent) = self.sent {
            self.samples.push(nanos(now - sent));
            self.left -= 1;
        }
        if self.left == 0 {
            self.finish();
            return false;
        }
        self.sent = Some(Instant::now());
        true
    }

    #[cold]
    fn finish(&mut self) {
        print_percentiles(&mut self.samples);
    }
}

/// The first tenth warms up.
pub(crate) fn print_percentiles(samples: &mut [u64]) {
    let warm_up = samples.len() / 10;
    let samples = &mut samples[warm_up..];
    let [p50, p99] = [50, 99].map(|percent| percentile(samples, percent));
    println!("p50={p50:.0} p99={p99:.0}");
}
