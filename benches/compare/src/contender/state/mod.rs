//! A client of shared state: it changes keys and watches them, or joins late. What is
//! measured is the server, so that each client is the leanest that its protocol allows.

mod connection;
mod libzmq;
mod nats;
mod redis;
mod zmtp;

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

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
    /// Takes the server's answers to one change, if there are others than the update.
    fn settle(&mut self) -> Outcome<()> {
        Ok(())
    }
    /// From now on answers are taken by somebody else.
    fn settle_aside(&mut self) -> Outcome<()> {
        Ok(())
    }
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
        ("libzmq", [changes, updates, ..]) => libzmq::connect(changes, updates),
        ("zmtp", [changes, updates, ..]) => zmtp::connect(changes, updates),
        ("redis", [address]) => redis::connect(address),
        ("nats", [address]) => nats::connect(address),
        _ => Err("a protocol and where its server is".into()),
    }?;
    match scene {
        "trip" => trips(sides, count, size)?,
        "updates" => println!("rate={:.0}", updates(sides, count, KEYS, size)?),
        "join" => {
            updates(sides, count, count, size)?;
            let began = Instant::now();
            let keys = match (kind, address) {
                ("libzmq", [_, _, snapshots]) => libzmq::join(snapshots)?,
                ("zmtp", [_, _, snapshots]) => zmtp::join(snapshots)?.len(),
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

/// Made before: what is measured is not how text is put together.
fn keys(count: u64) -> Vec<String> {
    (0..count).map(|number| format!("/state/{number:08}")).collect()
}

/// One change at a time, until it is seen.
fn trips(sides: Sides, count: u64, size: usize) -> Outcome<()> {
    let (mut changes, mut updates) = sides;
    let mut value = vec![0x5a; size];
    let (mut samples, keys) = (Vec::new(), keys(KEYS));
    for number in 1..=count {
        let key = &keys[(number % KEYS) as usize];
        value[..8].copy_from_slice(&number.to_be_bytes());
        let began = Instant::now();
        changes.set(key, &value)?;
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
    let (seen, keys) = (AtomicU64::new(0), self::keys(keys));
    let warm_up = count / 10;
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Outcome<()> {
            let mut value = vec![0x5a; size];
            let mut keys = keys.iter().cycle().skip(1);
            for number in 1..=count {
                value[..8].copy_from_slice(&number.to_be_bytes());
                changes.set(keys.next().ok_or("no keys")?, &value)?;
                if number % BATCH == 0 || number == count {
                    changes.flush()?;
                    // Half of them at a time, asleep: a wake for each, or turns that look
                    // whether there is room, take from the server what it is measured by.
                    if number > seen.load(Ordering::Relaxed) + WINDOW {
                        while number > seen.load(Ordering::Relaxed) + WINDOW / 2 {
                            thread::park();
                        }
                    }
                }
            }
            Ok(())
        });
        let mut watch = || -> Outcome<Duration> {
            let mut began = Instant::now();
            let mut last = 0;
            while last < count {
                last = updates.next()?;
                seen.store(last, Ordering::Relaxed);
                if last % (WINDOW / 4) == 0 {
                    sender.thread().unpark();
                }
                if last == warm_up {
                    began = Instant::now();
                }
            }
            Ok(began.elapsed())
        };
        let watched = watch();
        // If it failed nobody else lets the sender go on.
        seen.store(count, Ordering::Relaxed);
        sender.thread().unpark();
        let elapsed = watched?;
        sender.join().map_err(|_| "the sender has failed")??;
        Ok((count - warm_up) as f64 / elapsed.as_secs_f64())
    })
}

/// The uuids of changes, numbered behind what no other process begins its own with.
struct Uuids {
    last: [u8; 16],
    number: u64,
}

impl Uuids {
    fn new() -> Uuids {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = now.map_or(0, |now| now.as_nanos() as u64);
        let mut last = [0; 16];
        last[..8].copy_from_slice(&(nanos ^ (u64::from(std::process::id()) << 40)).to_be_bytes());
        Uuids { last, number: 0 }
    }

    fn next(&mut self) -> &[u8; 16] {
        self.number += 1;
        self.last[8..].copy_from_slice(&self.number.to_be_bytes());
        &self.last
    }
}

/// The number at the head of a value.
fn number(value: &[u8]) -> Outcome<u64> {
    let head = value.first_chunk().ok_or("a value has at least 8 bytes")?;
    Ok(u64::from_be_bytes(*head))
}
