//! Round trips at a fixed rate, whatever the answers do (open loop).
//!
//! ```text
//! cargo bench --bench latency                    # two minutes
//! cargo bench --bench latency -- tcp block       # lines with all of these words
//! ```
//!
//! A message has a time at which it is due. Its latency counts from that time, also
//! when it was sent late because those before it were: no stall hides behind messages
//! that were not sent meanwhile (coordinated omission). `benches/README.md` says more.

#[path = "common/mod.rs"]
mod common;

use std::env;
use std::hint;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use pollux::reactor::{Flow, Reactor, Stats, Wait};
use pollux::socket::Socket;

use common::alloc::{self, Counting};
use common::bare::{Bare, Part};
use common::measure::nanos;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Below this rate the sender sleeps between messages; above it, it spins.
const SLEEPS_BELOW: u64 = 1_000;
/// A message that is not back by then is lost, and the bench has failed.
const PATIENCE: Duration = Duration::from_secs(10);

struct Line {
    transport: &'static str,
    wait: Wait,
    size: usize,
    every: Duration,
    count: u64,
    /// Threads that compute and never wait.
    load: usize,
}

fn main() {
    // Cargo says `--bench`; words come without dashes.
    let wanted: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    println!(
        "{:<44} {:>9} {:>9} {:>9} {:>9} {:>7}  events of the loop",
        "round trip, us", "p50", "p99", "p99.9", "max", "trips"
    );
    for line in lines() {
        let name = line.name();
        if wanted.iter().all(|word| name.split([' ', ',']).any(|part| part == word)) {
            let (histogram, counts) = line.measure();
            println!("{name:<44} {}", report(&histogram, &counts));
            if line.is_article() {
                println!("{:<44} 2,000 us, and 15,000 to 50,000 under load", "  the article has");
            }
        }
    }
}

fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for transport in ["tcp", "ipc", "inproc"] {
        for wait in [Wait::Block, Wait::Spin] {
            for size in [64, 800] {
                for (per_second, seconds) in [(100, 5), (10_000, 2), (100_000, 2)] {
                    let every = Duration::from_secs(1) / per_second;
                    let count = u64::from(per_second) * seconds;
                    lines.push(Line { transport, wait, size, every, count, load: 0 });
                }
            }
        }
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for load in [0, 2 * cores] {
        let every = Duration::from_millis(200);
        let (transport, wait, size) = ("tcp", Wait::Block, 800);
        lines.push(Line { transport, wait, size, every, count: 50, load });
    }
    lines
}

impl Line {
    fn name(&self) -> String {
        let Line { transport, size, .. } = self;
        let wait = if matches!(self.wait, Wait::Spin) { "spin" } else { "block" };
        let name = if self.is_article() {
            format!("article, {transport} {wait}, {size} bytes every 200 ms")
        } else {
            format!("{transport} {wait}, {size} bytes, {}/s", self.per_second())
        };
        match self.load {
            0 => name,
            threads => format!("{name}, {threads} busy threads"),
        }
    }

    /// The scene of the article that the project began with.
    fn is_article(&self) -> bool {
        self.every >= Duration::from_millis(200)
    }

    fn per_second(&self) -> u64 {
        1_000_000_000 / nanos(self.every)
    }

    fn measure(&self) -> (Histogram<u64>, Counts) {
        let directory = tempfile::tempdir().expect("a directory");
        let address = match self.transport {
            "tcp" => "tcp://127.0.0.1:*".to_owned(),
            "ipc" => format!("ipc://{}/trip", directory.path().display()),
            _ => "inproc://trip".to_owned(),
        };
        let context = zmq::Context::new();
        let (here, there) = (Bare::new(&context, zmq::PAIR), Bare::new(&context, zmq::PAIR));
        // What ends the echo is sent right before the socket is closed.
        here.zmq().set_linger(1000).expect("LINGER");
        here.zmq().set_rcvtimeo(PATIENCE.as_millis() as i32).expect("RCVTIMEO");
        there.connect(&here.bind(&address));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let echo = scope.spawn(|| echo(there, self.wait));
            for _ in 0..self.load {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        hint::spin_loop();
                    }
                });
            }
            // One by hand waits until they are connected.
            here.send(&mut Part::of(&[1; 8]), false);
            assert!(here.receive(&mut Part::new()), "no echo");
            let histogram = self.trips(&here);
            here.send(&mut Part::new(), false);
            done.store(true, Ordering::Relaxed);
            (histogram, echo.join().expect("the echo"))
        })
    }

    /// Sends what is due when it is due, and takes what is back.
    fn trips(&self, socket: &Bare) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("three digits");
        let sleeps = self.per_second() < SLEEPS_BELOW;
        let (mut payload, mut part) = (vec![7; self.size], Part::new());
        let mut record = |part: &Part, began: Instant| {
            let due = u64::from_le_bytes(*part.bytes().first_chunk().expect("a time"));
            histogram.record(nanos(began.elapsed()).saturating_sub(due).max(1)).expect("in range");
        };
        let began = Instant::now() + self.every;
        let (mut sent, mut received) = (0, 0);
        while received < self.count {
            let due = nanos(self.every) * sent;
            let until = began + Duration::from_nanos(due);
            if sleeps && received == sent {
                thread::sleep(until.saturating_duration_since(Instant::now()));
            }
            if sent < self.count && Instant::now() >= until {
                payload[..8].copy_from_slice(&due.to_le_bytes());
                socket.send(&mut Part::of(&payload), false);
                sent += 1;
            }
            // One that sleeps has its answer before it goes on: what is late then is
            // due at its time all the same.
            let is_back = match sleeps && received < sent {
                true => socket.receive(&mut part),
                false => socket.try_receive(&mut part),
            };
            if is_back {
                record(&part, began);
                received += 1;
            }
            assert!(until.elapsed() < PATIENCE, "{} are not back", sent - received);
        }
        histogram
    }
}

/// What the loop that is measured has counted, and what its thread has allocated meanwhile.
struct Counts {
    stats: Stats,
    allocations: u64,
}

/// The loop that is measured: sends everything back until something empty comes.
fn echo(socket: Bare, wait: Wait) -> Counts {
    let mut reactor = Reactor::builder().wait(wait).build().expect("a reactor");
    let socket = Socket::from_zmq(socket.into_zmq()).expect("a socket");
    reactor
        .on_message(socket, |_: &mut (), cx, message| {
            if message[0].is_empty() {
                return Ok(Flow::Stop);
            }
            let own = cx.own_socket().map_err(io::Error::other)?;
            own.send(&message[0][..]).map_err(io::Error::from)?;
            Ok(Flow::Continue)
        })
        .map_err(io::Error::from)
        .expect("registered");
    let before = alloc::calls();
    reactor.run(&mut ()).expect("the loop runs");
    Counts { stats: reactor.stats(), allocations: alloc::calls() - before }
}

fn report(histogram: &Histogram<u64>, counts: &Counts) -> String {
    let stats = &counts.stats;
    let us = |percentile| histogram.value_at_percentile(percentile) as f64 / 1e3;
    let each = |count: u64| count as f64 / stats.messages_received as f64;
    format!(
        "{:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>7}  {:.2} polls, {:.2} blocked, {:.2} spurious, \
         {:.3} allocations a message; {:.2} messages a turn",
        us(50.0),
        us(99.0),
        us(99.9),
        histogram.max() as f64 / 1e3,
        histogram.len(),
        each(stats.polls),
        each(stats.polls_blocked),
        each(stats.spurious_wakes),
        each(counts.allocations),
        stats.messages_received as f64 / stats.turns.max(1) as f64
    )
}
