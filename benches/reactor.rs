//! The loop's own cost, event by event (criterion).
//!
//! ```text
//! cargo bench --bench reactor
//! cargo bench --bench reactor -- hot
//! ```
//!
//! After the figures comes what the loop has counted in a further run of the same: that
//! does not depend on how busy the machine is.

#[path = "common/mod.rs"]
mod common;

use std::hint::black_box;
use std::io;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use pollux::reactor::{Backend, Flow, Interest, Reactor, TimerKey};
use pollux::socket::Socket;

use common::alloc::{self, Counting};
use common::bare::{Bare, Part};
use common::measure::Random;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BACKENDS: [Backend; 2] = [Backend::Epoll, Backend::ZmqPoll];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    hot(&mut criterion);
    fairness(&mut criterion);
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

/// Times `once` and says what the loop counted when it ran a thousand times more.
fn bench<S>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    reactor: &mut Reactor<S>,
    mut once: impl FnMut(&mut Reactor<S>),
) {
    const RUNS: u32 = 1000;
    let mut is_wanted = false;
    group.bench_function(id, |bencher| {
        is_wanted = true;
        bencher.iter(|| once(reactor));
    });
    if is_wanted {
        counted(reactor, |reactor| (0..RUNS).for_each(|_| once(reactor)));
    }
}

/// Times `run`, which does its work so many times, and says what the loop counted when it
/// did so a thousand times more.
fn bench_many<S>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    reactor: &mut Reactor<S>,
    mut run: impl FnMut(&mut Reactor<S>, u64) -> Duration,
) {
    let mut is_wanted = false;
    group.bench_function(id, |bencher| {
        is_wanted = true;
        bencher.iter_custom(|count| run(reactor, count));
    });
    if is_wanted {
        counted(reactor, |reactor| _ = run(reactor, 1000));
    }
}

/// Times a call that is no event of the loop, and says what it allocates.
fn bench_call(group: &mut BenchmarkGroup<'_, WallTime>, id: BenchmarkId, mut call: impl FnMut()) {
    const RUNS: u32 = 1000;
    let mut is_wanted = false;
    group.bench_function(id, |bencher| {
        is_wanted = true;
        bencher.iter(&mut call);
    });
    if is_wanted {
        let before = alloc::calls();
        (0..RUNS).for_each(|_| call());
        let each = (alloc::calls() - before) as f64 / f64::from(RUNS);
        println!("{:24}a call: {each:.3} allocations, no polls", "");
    }
}

/// Prints what the loop counts in `run`.
fn counted<S>(reactor: &mut Reactor<S>, run: impl FnOnce(&mut Reactor<S>)) {
    let (before, calls) = (reactor.stats(), alloc::calls());
    run(reactor);
    let (after, calls) = (reactor.stats(), alloc::calls() - calls);
    let events = (after.events - before.events) as f64;
    let each = |count: u64| count as f64 / events;
    println!(
        "{:24}an event: {:.3} polls, {:.3} spurious wakes, {:.3} empty receives, {:.3} allocations; \
         {:.1} events a turn",
        "",
        each(after.polls - before.polls),
        each(after.spurious_wakes - before.spurious_wakes),
        each(after.receives_empty - before.receives_empty),
        each(calls),
        events / (after.turns - before.turns).max(1) as f64
    );
}

/// Fills the queues of `pushes` evenly and times how the loop empties them.
fn drain(reactor: &mut Reactor<u64>, pushes: &[Bare], count: u64) -> Duration {
    for index in 0..count {
        pushes[index as usize % pushes.len()].send(&mut Part::of(&[7; 32]), false);
    }
    let (mut left, began) = (count, Instant::now());
    reactor.run(&mut left).expect("the loop runs");
    began.elapsed()
}

/// [`drain`] as a bench: nanoseconds a message.
fn bench_drain(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    reactor: &mut Reactor<u64>,
    pushes: &[Bare],
) {
    const QUEUED: u64 = 10_000;
    let mut is_wanted = false;
    group.bench_function(id, |bencher| {
        is_wanted = true;
        bencher.iter_custom(|count| {
            let (whole, rest) = (count / QUEUED, count % QUEUED);
            let batches = (0..whole).map(|_| QUEUED).chain((rest > 0).then_some(rest));
            batches.map(|batch| drain(reactor, pushes, batch)).sum()
        });
    });
    if is_wanted {
        counted(reactor, |reactor| {
            drain(reactor, pushes, QUEUED);
        });
    }
}

/// Messages that wait already: what dispatch costs above `zmq_msg_recv`.
fn hot(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hot");
    group.throughput(Throughput::Elements(1));
    for backend in BACKENDS {
        for sockets in [1, 16, 256] {
            let context = zmq::Context::new();
            let mut reactor = reactor(backend);
            let busy = [pull(&mut reactor, &context, "busy")];
            let _silent = idle(&mut reactor, &context, sockets - 1);
            let mut armed = 0;
            for timers in [0, 1_000, 1_000_000] {
                for _ in armed..timers {
                    reactor.add_timer(Duration::from_secs(3600), |_, _| Ok(Flow::Continue));
                }
                armed = timers;
                let id = format!("{backend:?}/{sockets} sockets, {timers} timers");
                let id = BenchmarkId::from_parameter(id);
                bench_drain(&mut group, id, &mut reactor, &busy);
            }
        }
    }
    group.finish();
}

/// Sixteen busy sockets that take turns: the fewer messages each may have at a time,
/// the fairer, and the more turns there are.
fn fairness(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fairness");
    group.throughput(Throughput::Elements(1));
    for backend in BACKENDS {
        for budget in [1, 8, 64, 1024] {
            let context = zmq::Context::new();
            let builder = Reactor::builder().backend(backend).budget(budget);
            let mut reactor = builder.build().expect("a reactor");
            let busy: Vec<Bare> = (0..16)
                .map(|index| pull(&mut reactor, &context, &format!("busy-{index}")))
                .collect();
            let id = BenchmarkId::new(format!("budget {budget}"), format!("{backend:?}"));
            bench_drain(&mut group, id, &mut reactor, &busy);
        }
    }
    group.finish();
}

/// Sockets whose peers are connected and silent.
fn idle(reactor: &mut Reactor<u64>, context: &zmq::Context, count: usize) -> Vec<Bare> {
    (0..count).map(|index| pull(reactor, context, &format!("idle-{index}"))).collect()
}

/// One message in an idle loop: a whole turn, with the look at the sockets that
/// have nothing.
fn cold(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cold");
    for backend in BACKENDS {
        for sockets in [1, 16, 256] {
            let context = zmq::Context::new();
            let mut reactor = reactor(backend);
            let push = pull(&mut reactor, &context, "busy");
            let _silent = idle(&mut reactor, &context, sockets - 1);
            let id = BenchmarkId::from_parameter(format!("{backend:?}/{sockets} sockets"));
            bench(&mut group, id, &mut reactor, |reactor| {
                push.send(&mut Part::of(&[7; 32]), false);
                turns_until(reactor, |left| *left == 1, 2);
            });
        }
    }
    group.finish();
}

/// Turns of the loop until its state, at first `state`, is as wanted.
fn turns_until<S>(reactor: &mut Reactor<S>, is_wanted: impl Fn(&S) -> bool, mut state: S) {
    while !is_wanted(&state) {
        reactor.turn(&mut state, Duration::MAX).expect("a turn");
    }
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
        bench_call(&mut group, BenchmarkId::new("arm and cancel", live), || {
            let key = reactor.add_timer(anywhere(), |_, _| Ok(Flow::Continue));
            reactor.cancel(key).expect("it is armed");
        });
        let mut which = Random(2);
        bench_call(&mut group, BenchmarkId::new("re-arm, anywhere", live), || {
            let key = keys[which.below(live) as usize];
            let at = reactor.now() + anywhere();
            reactor.rearm(key, at).expect("it is armed");
        });
        let (mut which, mut later) = (Random(3), 2 * HOUR);
        bench_call(&mut group, BenchmarkId::new("re-arm, later", live), || {
            later += Duration::from_nanos(1);
            let key = keys[which.below(live) as usize];
            let at = reactor.now() + later;
            reactor.rearm(key, at).expect("it is armed");
        });
        bench(&mut group, BenchmarkId::new("arm and fire", live), &mut reactor, |reactor| {
            reactor.add_timer(Duration::ZERO, |fired, _| {
                *fired += 1;
                Ok(Flow::Continue)
            });
            turns_until(reactor, |fired| *fired == 1, 0);
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
        let id = BenchmarkId::new("waker, same thread", format!("{backend:?}"));
        bench(&mut group, id, &mut reactor, |reactor| {
            waker.wake();
            turns_until(reactor, |woken| *woken > 0, 0);
        });

        let sender = reactor
            .channel(1024, |sum, _, value: u64| {
                *sum += value;
                Ok(Flow::Continue)
            })
            .expect("a channel");
        let id = BenchmarkId::new("sender, same thread", format!("{backend:?}"));
        bench(&mut group, id, &mut reactor, |reactor| {
            sender.try_send(1).expect("there is room");
            turns_until(reactor, |sum| *sum > 0, 0);
        });
        group.throughput(Throughput::Elements(1));
        let id = BenchmarkId::new("sender, full speed", format!("{backend:?}"));
        bench_many(&mut group, id, &mut reactor, |reactor, count| {
            let began = Instant::now();
            thread::scope(|scope| {
                scope.spawn(|| {
                    for _ in 0..count {
                        while sender.try_send(1).is_err() {
                            thread::yield_now();
                        }
                    }
                });
                turns_until(reactor, |sum| *sum >= count, 0);
            });
            began.elapsed()
        });

        let id = BenchmarkId::new("waker, ping-pong", format!("{backend:?}"));
        bench_many(&mut group, id, &mut reactor, |reactor, count| {
            ping_pong(reactor, count, || waker.wake())
        });
        let id = BenchmarkId::new("sender, ping-pong", format!("{backend:?}"));
        bench_many(&mut group, id, &mut reactor, |reactor, count| {
            ping_pong(reactor, count, || sender.try_send(1).expect("there is room"))
        });
        let context = zmq::Context::new();
        let (push, pull) = (Bare::new(&context, zmq::PUSH), Bare::new(&context, zmq::PULL));
        pull.bind("inproc://ping-pong");
        push.connect("inproc://ping-pong");
        reactor
            .on_message(Socket::from_zmq(pull.into_zmq()).expect("a socket"), |seen, _, _| {
                *seen += 1;
                Ok(Flow::Continue)
            })
            .map_err(io::Error::from)
            .expect("registered");
        let push = Mutex::new(push);
        let id = BenchmarkId::new("message, ping-pong", format!("{backend:?}"));
        bench_many(&mut group, id, &mut reactor, |reactor, count| {
            ping_pong(reactor, count, || {
                let push = push.lock().expect("nobody panics");
                push.send(&mut Part::of(&[7; 32]), false);
            })
        });
    }
    group.finish();
}

/// The other thread wakes the loop, which sleeps, and sleeps itself until the loop has been:
/// two wakes of a sleeper.
fn ping_pong(reactor: &mut Reactor<u64>, count: u64, wake: impl Fn() + Sync) -> Duration {
    let (done, mut woken) = (AtomicBool::new(false), 0);
    let began = Instant::now();
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            loop {
                thread::park();
                if done.load(Ordering::Acquire) {
                    return;
                }
                wake();
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
        let id = BenchmarkId::new("byte", format!("{backend:?}"));
        bench(&mut group, id, &mut reactor, |reactor| {
            here.write_all(&[1]).expect("written");
            turns_until(reactor, |read| *read > 0, 0);
        });
    }
    group.finish();
}
