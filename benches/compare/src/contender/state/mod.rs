//! A client of shared state: it changes keys and watches them, or joins late. What is
//! measured is the server, so that each client is the leanest that its protocol allows.

mod nats;
mod redis;
mod text;
mod zmq_frames;

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::job::print_percentiles;
use crate::measure::nanos;

/// What goes wrong is the end of this process, and the table says it.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The side that changes keys.
pub(crate) trait Changes: Send {
    /// Sets a key; may wait in a buffer until `flush`.
    fn set(&mut self, key: &str, value: &[u8]) -> Outcome<()>;
    /// Sends what waits.
    fn flush(&mut self) -> Outcome<()>;
    /// Takes the server's answers to one change.
    fn settle(&mut self) -> Outcome<()>;
    /// From now on answers are taken by somebody else.
    fn settle_aside(&mut self) -> Outcome<()>;
}

/// The side that watches all keys.
pub(crate) trait Updates {
    /// Waits for an update; the number at the head of its value.
    fn next(&mut self) -> Outcome<u64>;
}

type Sides = (Box<dyn Changes>, Box<dyn Updates>);
/// The state as a late joiner has it.
pub(crate) type Map = HashMap<Vec<u8>, Vec<u8>>;

/// Keys that are changed, again and again.
const KEYS: u64 = 10_000;
/// Changes that may be under way.
const WINDOW: u64 = 4096;
/// Changes that are sent together.
const BATCH: u64 = 64;

pub(crate) fn run(
    kind: &str,
    scene: &str,
    count: u64,
    size: usize,
    address: &[&str],
) -> Outcome<()> {
    let sides = match (kind, address) {
        ("pollux" | "by_hand" | "relay", [changes, updates, ..]) => zmq_frames::connect(changes, updates),
        ("redis", [address]) => redis::connect(address),
        ("nats", [address]) => nats::connect(address),
        _ => Err("a server and where it is".into()),
    }?;
    match scene {
        "trip" => trips(sides, count, size)?,
        "updates" => println!("rate={:.0}", updates(sides, count, KEYS, size)?),
        "join" => {
            updates(sides, count, count, size)?;
            let began = Instant::now();
            let keys = match (kind, address) {
                ("pollux", [_, _, snapshots]) => zmq_frames::join(snapshots)?,
                ("by_hand", [_, _, snapshots]) => zmq_frames::join_by_hand(snapshots)?.len(),
                ("redis", [address]) => redis::join(address)?.len(),
                ("nats", [address]) => nats::join(address, count as usize)?.len(),
                _ => return Err("nobody can join that".into()),
            };
            let elapsed = began.elapsed();
            if keys < count as usize {
                return Err(format!("{keys} keys of {count} came").into());
            }
            println!("rate={:.0}", keys as f64 / elapsed.as_secs_f64());
        }
        _ => return Err("a scene: trip, updates or join".into()),
    }
    Ok(())
}

fn key(number: u64) -> String {
    format!("/state/{number:08}")
}

/// One change at a time, until it is seen.
fn trips(sides: Sides, count: u64, size: usize) -> Outcome<()> {
    let (mut changes, mut updates) = sides;
    let mut value = vec![0x5a; size];
    let mut samples = Vec::new();
    for number in 1..=count {
        let key = key(number % KEYS);
        value[..8].copy_from_slice(&number.to_be_bytes());
        let began = Instant::now();
        changes.set(&key, &value)?;
        changes.flush()?;
        // A probe of the beginning may have been late.
        while updates.next()? != number {}
        samples.push(nanos(began.elapsed()));
        changes.settle()?;
    }
    print_percentiles(&mut samples);
    Ok(())
}

/// As many as go through, with `WINDOW` of them under way: updates a second.
fn updates(sides: Sides, count: u64, keys: u64, size: usize) -> Outcome<f64> {
    let (mut changes, mut updates) = sides;
    changes.settle_aside()?;
    let seen = AtomicU64::new(0);
    let warm_up = count / 10;
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Outcome<()> {
            let mut value = vec![0x5a; size];
            for number in 1..=count {
                value[..8].copy_from_slice(&number.to_be_bytes());
                changes.set(&key(number % keys), &value)?;
                if number % BATCH == 0 || number == count {
                    changes.flush()?;
                    while number > seen.load(Ordering::Relaxed) + WINDOW {
                        thread::yield_now();
                    }
                }
            }
            Ok(())
        });
        let mut began = Instant::now();
        let mut last = 0;
        while last < count {
            last = updates.next()?;
            seen.store(last, Ordering::Relaxed);
            if last == warm_up {
                began = Instant::now();
            }
        }
        let elapsed = began.elapsed();
        sender.join().map_err(|_| "the sender has failed")??;
        Ok((count - warm_up) as f64 / elapsed.as_secs_f64())
    })
}

/// The number at the head of a value.
fn number(value: &[u8]) -> Outcome<u64> {
    let head = value.first_chunk().ok_or("a value has at least 8 bytes")?;
    Ok(u64::from_be_bytes(*head))
}
