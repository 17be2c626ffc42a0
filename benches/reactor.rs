//! The loop's own cost, event by event (criterion).
//!
//! ```text
//! cargo bench --bench reactor
//! cargo bench --bench reactor -- hot
//! ```

#[path = "common/mod.rs"]
mod common;

use std::hint::black_box;
use std::io;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use pollux::reactor::{Backend, Flow, Interest, Reactor, TimerKey};
use pollux::socket::Socket;

use common::bare::{Bare, Part};
use common::measure::Random;

const BACKENDS: [Backend; 2] = [Backend::Epoll, Backend::ZmqPoll];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    hot(&mut criterion);
    cold(&mut criterion);
    timers(&mut criterion);
    wakes(&mut criterion);
    descriptors(&mut criterion);
    criterion.final_summary();
}

fn reactor<S>(backend: Backend) -> Reactor<S> {
    Reactor::builder().backend(backend).build().expect("a reactor")
}

/// A PULL on the loop, and the PUSH that feeds it.
fn pull(reactor: &mut Reactor<u64>, context: &zmq::Context, name: &str) -> Bare {
    let (push, pull) = (Bare::new(context, zmq::PUSH), Bare::new(context, zmq::PULL));
    let endpoint = format!("inproc://{name}");
    pull.bind(&endpoint);
    push.connect(&endpoint);
    let pull = Socket::from_zmq(pull.into_zmq()).expect("a socket");
    reactor
        .on_message(pull, |left: &mut u64, _, message| {
            black_box(message[0].len());
            *left -= 1;
            Ok(if *left == 0 { Flow::Stop } else { Flow::Continue })
        })
        .map_err(io::Error::from)
        .expect("registered");
    push
}

/// Messages that wait already: what dispatch costs above `zmq_msg_recv`.
fn hot(criterion: &mut Criterion) {
    const QUEUED: u64 = 10_000;
    let mut group = criterion.benchmark_group("hot");
    group.throughput(Throughput::Elements(1));
    for backend in BACKENDS {
        for (idle_sockets, timers) in [(0, 0), (0, 1000), (16, 0), (16, 1000)] {
            let context = zmq::Context::new();
            let mut reactor = reactor(backend);
            let push = pull(&mut reactor, &context, "busy");
            let _silent: Vec<Bare> = (0..idle_sockets)
                .map(|index| pull(&mut reactor, &context, &format!("idle-{index}")))
                .collect();
            for _ in 0..timers {
                reactor.add_timer(Duration::from_secs(3600), |_, _| Ok(Flow::Continue));
            }
            let id = format!("{backend:?}/{idle_sockets} idle sockets, {timers} timers");
            group.bench_function(BenchmarkId::from_parameter(id), |bencher| {
                bencher.iter_custom(|count| {
                    let (mut left, mut spent) = (count, Duration::ZERO);
                    while left > 0 {
                        let batch = left.min(QUEUED);
                        for _ in 0..batch {
                            push.send(&mut Part::of(&[7; 32]), false);
                        }
                        let (mut batch_left, began) = (batch, Instant::now());
                        reactor.run(&mut batch_left).expect("the loop runs");
                        spent += began.elapsed();
                        left -= batch;
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

/// One message in an idle loop: a whole turn, with the look at the sockets that
/// have nothing.
fn cold(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cold");
    for backend in BACKENDS {
        for idle_sockets in [0, 16] {
            let context = zmq::Context::new();
            let mut reactor = reactor(backend);
            let push = pull(&mut reactor, &context, "busy");
            let _silent: Vec<Bare> = (0..idle_sockets)
                .map(|index| pull(&mut reactor, &context, &format!("idle-{index}")))
                .collect();
            let id = format!("{backend:?}/{idle_sockets} idle sockets");
            group.bench_function(BenchmarkId::from_parameter(id), |bencher| {
                bencher.iter(|| {
                    push.send(&mut Part::of(&[7; 32]), false);
                    let mut left = 2;
                    while left == 2 {
                        reactor.turn(&mut left, Duration::MAX).expect("a turn");
                    }
                });
            });
        }
    }
    group.finish();
}

/// Timers among a thousand, a hundred thousand, a million live ones.
fn timers(criterion: &mut Criterion) {
    const HOUR: Duration = Duration::from_secs(3600);
    let mut group = criterion.benchmark_group("timers");
    for live in [1_000, 100_000, 1_000_000] {
        let mut reactor = Reactor::new().expect("a reactor");
        let mut random = Random(1);
        let mut anywhere =
            move || HOUR + Duration::from_nanos(random.below(HOUR.as_nanos() as u64));
        let keys: Vec<TimerKey> = (0..live)
            .map(|_| reactor.add_timer(anywhere(), |_: &mut u64, _| Ok(Flow::Continue)))
            .collect();
        group.bench_function(BenchmarkId::new("arm and cancel", live), |bencher| {
            bencher.iter(|| {
                let key = reactor.add_timer(anywhere(), |_, _| Ok(Flow::Continue));
                reactor.cancel(key).expect("it is armed");
            });
        });
        group.bench_function(BenchmarkId::new("re-arm, anywhere", live), |bencher| {
            let mut random = Random(2);
            bencher.iter(|| {
                let key = keys[random.below(live) as usize];
                let at = reactor.now() + anywhere();
                reactor.rearm(key, at).expect("it is armed");
            });
        });
        group.bench_function(BenchmarkId::new("re-arm, later", live), |bencher| {
            let (mut random, mut later) = (Random(3), 2 * HOUR);
            bencher.iter(|| {
                later += Duration::from_nanos(1);
                let key = keys[random.below(live) as usize];
                let at = reactor.now() + later;
                reactor.rearm(key, at).expect("it is armed");
            });
        });
        group.bench_function(BenchmarkId::new("arm and fire", live), |bencher| {
            bencher.iter(|| {
                reactor.add_timer(Duration::ZERO, |fired, _| {
                    *fired += 1;
                    Ok(Flow::Continue)
                });
                let mut fired = 0;
                while fired == 0 {
                    reactor.turn(&mut fired, Duration::ZERO).expect("a turn");
                }
            });
        });
    }
    group.finish();
}

/// Another thread asks for the loop's attention.
fn wakes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wake");
    for backend in BACKENDS {
        let mut reactor: Reactor<u64> = reactor(backend);
        let waker = reactor
            .add_waker(|woken, _| {
                *woken += 1;
                Ok(Flow::Continue)
            })
            .expect("a waker");
        group.bench_function(BenchmarkId::new("waker, same thread", format!("{backend:?}")), |b| {
            b.iter(|| {
                waker.wake();
                let mut woken = 0;
                while woken == 0 {
                    reactor.turn(&mut woken, Duration::MAX).expect("a turn");
                }
            });
        });

        let sender = reactor
            .channel(1024, |sum, _, value: u64| {
                *sum += value;
                Ok(Flow::Continue)
            })
            .expect("a channel");
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("sender, full speed", format!("{backend:?}")), |b| {
            b.iter_custom(|count| {
                let began = Instant::now();
                thread::scope(|scope| {
                    scope.spawn(|| {
                        for _ in 0..count {
                            while sender.try_send(1).is_err() {
                                thread::yield_now();
                            }
                        }
                    });
                    let mut sum = 0;
                    while sum < count {
                        reactor.turn(&mut sum, Duration::MAX).expect("a turn");
                    }
                });
                began.elapsed()
            });
        });

        // The other thread answers each call of the handler: two wakes of a sleeper.
        group.bench_function(BenchmarkId::new("waker, ping-pong", format!("{backend:?}")), |b| {
            b.iter_custom(|count| {
                let (done, mut woken) = (AtomicBool::new(false), 0);
                let began = Instant::now();
                thread::scope(|scope| {
                    let other = scope.spawn(|| {
                        while !done.load(Ordering::Acquire) {
                            thread::park();
                            waker.wake();
                        }
                    });
                    while woken < count {
                        let before = woken;
                        other.thread().unpark();
                        while woken == before {
                            reactor.turn(&mut woken, Duration::MAX).expect("a turn");
                        }
                    }
                    done.store(true, Ordering::Release);
                    other.thread().unpark();
                });
                began.elapsed()
            });
        });
    }
    group.finish();
}

/// A byte through a stream to a handler of the loop.
fn descriptors(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("descriptor");
    for backend in BACKENDS {
        let mut reactor: Reactor<u64> = reactor(backend);
        let (mut here, there) = UnixStream::pair().expect("a pair");
        there.set_nonblocking(true).expect("nonblocking");
        reactor
            .add_fd(there, Interest::READABLE, |read, _, there, _| {
                let mut buffer = [0; 64];
                loop {
                    match there.read(&mut buffer) {
                        Ok(count) => *read += count as u64,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            return Ok(Flow::Continue);
                        }
                        Err(error) => return Err(error),
                    }
                }
            })
            .map_err(io::Error::from)
            .expect("registered");
        group.bench_function(BenchmarkId::new("byte", format!("{backend:?}")), |bencher| {
            bencher.iter(|| {
                here.write_all(&[1]).expect("written");
                let mut read = 0;
                while read == 0 {
                    reactor.turn(&mut read, Duration::MAX).expect("a turn");
                }
            });
        });
    }
    group.finish();
}
