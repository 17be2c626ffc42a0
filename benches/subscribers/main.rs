//! Thousands of subscribers, each of one of many subtrees, on one broker.
//!
//! ```text
//! cargo bench --bench subscribers                    # 5,000 of 1,000 subtrees, for 20 s
//! cargo bench --bench subscribers -- 500 100 10
//! ```
//!
//! The broker has a process of its own, so that its memory can be read; subscribers are
//! whole clients, a thousand to a process. All join at once. Then changes go to all
//! subtrees in turn, and each subscriber takes the time until it has them; a bare SUB
//! takes the times between the heartbeats of each subtree. The exit code is 1 if a
//! subscriber missed anything, or heard nothing for too long. `benches/README.md` says more.

#[path = "../common/mod.rs"]
mod common;

mod broker;
mod child;
mod heartbeats;
mod holder;

use std::env;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;

use self::child::Child;
use self::heartbeats::Heartbeats;
use common::bare::Bare;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Clients in one process.
const A_PROCESS: usize = 1000;
/// Changes a second, and the keys of each subtree.
const RATE: u32 = 1000;
const KEYS: usize = 10;
/// Descriptors that a client takes of the broker, and of its own process.
const OF_BROKER: usize = 3;
const OF_CLIENT: usize = 6;
/// For what is not per subscriber.
const SPARE: usize = 100;
/// Times between heartbeats of a subtree up to this many intervals are as promised: a
/// client that misses three asks, and calls itself not current.
const PROMISED: u32 = 2;
const HEARTBEAT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // Cargo says `--bench`; words come without dashes.
    let words: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["broker"] => broker::run().map(|()| true),
        ["hold", endpoint, from, count, subtrees] => {
            holder::run(endpoint, number(from), number(count), number(subtrees)).map(|()| true)
        }
        _ => {
            let figure = |at: usize, default| words.get(at).map_or(default, |word| number(word));
            lead(figure(0, 5000), figure(1, 1000), Duration::from_secs(figure(2, 20) as u64))
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("subscribers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(word: &str) -> usize {
    word.parse().unwrap_or_else(|_| panic!("expected a number, got {word:?}"))
}

/// What the subscribers of one subtree follow.
fn subtree(number: usize) -> String {
    format!("/tree/{number:05}/")
}

/// Nanoseconds of a clock that all processes share.
fn clock_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// False: something was not as promised.
fn lead(subscribers: usize, subtrees: usize, time: Duration) -> Outcome<bool> {
    child::check_descriptors(OF_BROKER * subscribers + SPARE)?;
    child::check_descriptors(OF_CLIENT * subscribers.min(A_PROCESS) + SPARE)?;
    let mut broker = Child::start(&["broker"])?;
    let endpoints = broker.line()?;
    let [changes, updates, snapshots] = endpoints.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!("expected three endpoints, got {endpoints:?}").into());
    };
    let mut producer = Producer::new(changes);
    producer.fill(subtrees);
    let before = broker.resident_kib()?;
    println!(
        "{subscribers} subscribers, {subtrees} subtrees of {KEYS} keys, heartbeat {HEARTBEAT:?}"
    );

    let began = Instant::now();
    let mut holders = Vec::new();
    for from in (0..subscribers).step_by(A_PROCESS) {
        let count = (subscribers - from).min(A_PROCESS);
        let words = [from, count, subtrees].map(|number| number.to_string());
        holders.push(Child::start(&["hold", snapshots, &words[0], &words[1], &words[2]])?);
    }
    let mut joins = new_histogram();
    for holder in &mut holders {
        read_histogram(&holder.line()?, &mut joins)?;
    }
    let joined = began.elapsed();
    println!("joins, all at once    {}, all after {joined:.1?}", times(&joins));
    let after = broker.resident_kib()?;
    println!(
        "memory of the broker  {before} KiB before, {after} KiB with all: {:.1} KiB a subscriber",
        after.saturating_sub(before) as f64 / subscribers as f64
    );
    let own: u64 = holders.iter().map(|holder| holder.resident_kib().unwrap_or(0)).sum();
    println!("memory of a client    {:.1} KiB", own as f64 / subscribers as f64);

    // Joining is over, and what it left behind is told before what counts begins.
    broker.say("reset")?;
    broker.line()?;
    let heartbeats = Heartbeats::follow(updates, subtrees);
    let sent = producer.produce(subtrees, time);
    let heartbeats = heartbeats.finish();
    broker.say("report")?;
    let of_broker = broker.line()?;
    let (mut delays, mut faults) = (new_histogram(), Vec::new());
    for holder in &mut holders {
        holder.say("report")?;
        read_histogram(&holder.line()?, &mut delays)?;
        faults.push(holder.line()?);
    }
    let peak = broker.resident_kib()?;
    let expected = (0..subscribers).map(|number| sent.of(number % subtrees)).sum::<u64>();
    println!("updates, {RATE}/s       {}, {} of {expected}", times(&delays), delays.len());
    println!("heartbeats apart      {}", heartbeats.report());
    println!("broker                {of_broker}, {peak} KiB at the end");
    faults.retain(|fault| fault != "none");
    let faults = if faults.is_empty() { "none".to_owned() } else { faults.join("; ") };
    println!("faults                {faults}");
    let is_in_time = heartbeats.most() <= HEARTBEAT * PROMISED;
    Ok(faults == "none" && is_in_time && delays.len() == expected && heartbeats.has_all())
}

/// Changes to all subtrees in turn.
struct Producer {
    _context: zmq::Context,
    push: Bare,
    uuid: [u8; 16],
    sent: u64,
}

/// How many changes went to the first of the subtrees, and each after it.
struct Sent {
    total: u64,
    subtrees: u64,
}

impl Sent {
    fn of(&self, subtree: usize) -> u64 {
        (self.total + self.subtrees - 1 - subtree as u64) / self.subtrees
    }
}

impl Producer {
    fn new(changes: &str) -> Producer {
        let context = zmq::Context::new();
        let push = Bare::new(&context, zmq::PUSH);
        push.zmq().set_linger(5000).expect("LINGER");
        push.connect(changes);
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&clock_ns().to_be_bytes());
        Producer { _context: context, push, uuid, sent: 0 }
    }

    fn set(&mut self, key: &str) {
        self.sent += 1;
        self.uuid[8..].copy_from_slice(&self.sent.to_be_bytes());
        let mut value = [0x5a; 64];
        value[..8].copy_from_slice(&clock_ns().to_be_bytes());
        self.push.send_all(&[key.as_bytes(), &[0; 8], &self.uuid, b"", &value]);
    }

    fn fill(&mut self, subtrees: usize) {
        for key in 0..subtrees * KEYS {
            self.set(&format!("{}{}", subtree(key % subtrees), key / subtrees));
        }
    }

    /// Each when it is due, for so long.
    fn produce(&mut self, subtrees: usize, time: Duration) -> Sent {
        let began = Instant::now();
        let count = (time.as_secs_f64() * f64::from(RATE)) as usize;
        for number in 0..count {
            let due = began + number as u32 * (Duration::from_secs(1) / RATE);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let turn = number / subtrees;
            self.set(&format!("{}{}", subtree(number % subtrees), turn % KEYS));
        }
        // What is under way arrives, and the next heartbeats, which would tell of a loss.
        thread::sleep(HEARTBEAT * 2);
        Sent { total: count as u64, subtrees: subtrees as u64 }
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits")
}

/// As one line: values and how often.
fn written(histogram: &Histogram<u64>) -> String {
    let pairs = histogram
        .iter_recorded()
        .map(|step| format!("{}:{}", step.value_iterated_to(), step.count_since_last_iteration()));
    pairs.collect::<Vec<_>>().join(" ")
}

fn read_histogram(line: &str, to: &mut Histogram<u64>) -> Outcome<()> {
    for pair in line.split_whitespace() {
        let (value, count) = pair.split_once(':').ok_or("expected VALUE:COUNT")?;
        to.record_n(value.parse()?, count.parse()?)?;
    }
    Ok(())
}

fn times(histogram: &Histogram<u64>) -> String {
    let ms = |ns: u64| ns as f64 / 1e6;
    format!(
        "p50 {:.2} ms, p99 {:.2}, p99.9 {:.2}, max {:.2}",
        ms(histogram.value_at_quantile(0.5)),
        ms(histogram.value_at_quantile(0.99)),
        ms(histogram.value_at_quantile(0.999)),
        ms(histogram.max())
    )
}
