//! Proxies against zmq_proxy(3): messages per second, the time of a round trip, and
//! what eight more proxies on the same loop change about both.
//!
//! Peers and proxy talk over inproc: no I/O thread and no kernel lies between, so that
//! what the proxy's thread does is the largest part of what is measured.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pollux::proxy::Proxy;
use pollux::reactor::{Backend, Flow, Reactor, Wait};
use pollux::socket::Socket;

use super::common::bare::{Bare, Part, poll_until_ended};
use super::common::cores::Thread;
use super::common::measure::{interleave, median, median_ratio, nanos, per_second, percentile};
use super::outcome::Outcome;

const ROUNDS: usize = 21;
/// Messages under way at most, so that no queue grows.
const WINDOW: usize = 4000;
/// And as many of the large ones, so that they stay in the caches.
const LARGE_WINDOW: usize = 500;
/// How long the peers sleep; the proxy has some hundred messages of the window meanwhile.
const NAP: Duration = Duration::from_micros(20);
/// What the documentation of proxies advises: about as long as zmq_proxy takes to poll
/// its sockets twice before it sleeps.
const SPIN: Duration = Duration::from_micros(5);
const TRIPS: usize = 1000;
/// A round of round trips ends then even if it has had fewer.
const ROUND_TIME: Duration = Duration::from_millis(200);
const SIZES: [(usize, &str); 2] = [(64, "64 B"), (8192, "8 KiB")];
const IDLE: usize = 8;
/// Messages that zmq_proxy moves one way before it looks at the other.
const BURST: usize = 1000;

/// Which sockets the proxy has.
#[derive(Clone, Copy, PartialEq)]
enum Pattern {
    /// Requests to a worker, and its replies.
    RouterDealer,
    /// One way.
    PullPush,
}

const PATTERNS: [(Pattern, &str); 2] =
    [(Pattern::RouterDealer, "ROUTER/DEALER"), (Pattern::PullPush, "PULL/PUSH")];

/// Where the threads of a round trip are: the proxy's core, of which the peers have the first.
///
/// Left to the scheduler, they come to lie on one core or on two from one second to the next,
/// and a trip on two, with a core to be woken for each message, takes four times as long.
const PLACES: [(usize, &str); 2] = [(0, " on one core"), (1, " on two")];

pub(crate) fn throughput() -> Vec<Outcome> {
    let names = ["proxy_throughput", "proxy_throughput_zmq"];
    against_libzmq(names, &[(0, "")], |stage, size, _| stage.throughput(size), f64::min)
}

/// What a loop of zmq_msg_recv(3), zmq_msg_more(3) and zmq_msg_send(3) has of zmq_proxy's
/// throughput, which calls its sockets without them: nobody outside of libzmq has more.
pub(crate) fn by_hand() -> Vec<Outcome> {
    let (mut worst, mut figures) = (f64::MAX, Vec::new());
    for (pattern, pattern_name) in PATTERNS {
        let (mut libzmq, mut bare) = (Stage::libzmq(pattern), Stage::by_hand(pattern));
        let mut ours = Stage::ours(pattern, Backend::Epoll, 0);
        for (size, size_name) in SIZES {
            let [theirs, bare, ours] = interleave(
                ROUNDS,
                [&mut || libzmq.throughput(size), &mut || bare.throughput(size), &mut || {
                    ours.throughput(size)
                }],
            );
            let ratio = median_ratio(&bare, &theirs);
            worst = worst.min(ratio);
            let ours = median_ratio(&ours, &bare);
            figures.push(format!("{pattern_name} {size_name} {ratio:.3}, ours of that {ours:.3}"));
        }
    }
    vec![Outcome::new("proxy_by_hand", worst, figures.join("; "))]
}

pub(crate) fn round_trip() -> Vec<Outcome> {
    let places = match thread::available_parallelism() {
        Ok(cores) if cores.get() > 1 => &PLACES[..],
        _ => &PLACES[..1],
    };
    let measure = |stage: &mut Stage, size, place| {
        let peers = Thread::current();
        peers.pin(Some(0));
        stage.thread_id.pin(Some(place));
        let median = stage.round_trip(size);
        peers.pin(None);
        stage.thread_id.pin(None);
        median
    };
    against_libzmq(["proxy_rtt", "proxy_rtt_zmq"], places, measure, f64::max)
}

/// The worst of all patterns, sizes and places, for both backends; the figures name each.
fn against_libzmq(
    names: [&'static str; 2],
    places: &[(usize, &str)],
    measure: impl Fn(&mut Stage, usize, usize) -> f64,
    worse: impl Fn(f64, f64) -> f64 + Copy,
) -> Vec<Outcome> {
    let mut all: [Vec<(f64, String)>; 2] = [Vec::new(), Vec::new()];
    for (pattern, pattern_name) in PATTERNS {
        let mut libzmq = Stage::libzmq(pattern);
        let mut epoll = Stage::ours(pattern, Backend::Epoll, 0);
        let mut zmq_poll = Stage::ours(pattern, Backend::ZmqPoll, 0);
        let cases = SIZES.iter().flat_map(|size| places.iter().map(move |place| (*size, *place)));
        for ((size, size_name), (place, place_name)) in cases {
            let [theirs, epoll, zmq_poll] = interleave(
                ROUNDS,
                [
                    &mut || measure(&mut libzmq, size, place),
                    &mut || measure(&mut epoll, size, place),
                    &mut || measure(&mut zmq_poll, size, place),
                ],
            );
            for (all, ours) in all.iter_mut().zip([epoll, zmq_poll]) {
                let ratio = median_ratio(&ours, &theirs);
                let (ours, theirs) = (median(&ours), median(&theirs));
                let figures = format!(
                    "{pattern_name} {size_name}{place_name} {ratio:.3} ({} to {})",
                    short(ours),
                    short(theirs)
                );
                all.push((ratio, figures));
            }
        }
    }
    let worst = |name, ratios: &[(f64, String)]| {
        let ratio = ratios.iter().map(|(ratio, _)| *ratio).reduce(worse).expect("some ratios");
        let figures: Vec<&str> = ratios.iter().map(|(_, figures)| figures.as_str()).collect();
        Outcome::new(name, ratio, figures.join("; "))
    };
    vec![worst(names[0], &all[0]), worst(names[1], &all[1])]
}

/// Messages a second, or microseconds.
fn short(figure: f64) -> String {
    if figure >= 10_000.0 { format!("{:.0}k/s", figure / 1e3) } else { format!("{figure:.1} us") }
}

/// How much worse a proxy is among eight idle ones.
pub(crate) fn among_idle() -> Vec<Outcome> {
    let mut alone = Stage::ours(Pattern::RouterDealer, Backend::Epoll, 0);
    let mut among = Stage::ours(Pattern::RouterDealer, Backend::Epoll, IDLE);
    let size = SIZES[0].0;
    let [rate, rate_among] =
        interleave(ROUNDS, [&mut || alone.throughput(size), &mut || among.throughput(size)]);
    let [trip, trip_among] =
        interleave(ROUNDS, [&mut || alone.round_trip(size), &mut || among.round_trip(size)]);
    let slower = 1.0 - median_ratio(&rate_among, &rate);
    let later = median_ratio(&trip_among, &trip) - 1.0;
    let figures = format!(
        "throughput {:+.1} %, round trip {:+.1} % (ROUTER/DEALER, 64 B)",
        -100.0 * slower,
        100.0 * later
    );
    vec![Outcome::new("proxies_8", slower.max(later), figures)]
}

/// A proxy in a thread of its own, and where its peers connect to.
struct Stage {
    pattern: Pattern,
    context: zmq::Context,
    thread: Option<JoinHandle<()>>,
    /// That one, to be pinned.
    thread_id: Thread,
    /// The same through all rounds: what is sent to one that is just going is lost.
    peers: Option<[Bare; 2]>,
}

const FRONTEND: &str = "inproc://frontend";
const BACKEND: &str = "inproc://backend";

/// The two sockets of a proxy, the same for both sides.
fn sockets(context: &zmq::Context, pattern: Pattern, suffix: &str) -> (Bare, Bare) {
    let (frontend, backend) = match pattern {
        Pattern::RouterDealer => (zmq::ROUTER, zmq::DEALER),
        Pattern::PullPush => (zmq::PULL, zmq::PUSH),
    };
    let (frontend, backend) = (Bare::new(context, frontend), Bare::new(context, backend));
    frontend.bind(&format!("{FRONTEND}{suffix}"));
    backend.bind(&format!("{BACKEND}{suffix}"));
    (frontend, backend)
}

impl Stage {
    fn libzmq(pattern: Pattern) -> Stage {
        Stage::start(pattern, move |context, ready| {
            let (frontend, backend) = sockets(&context, pattern, "");
            drop(context);
            ready.send(Thread::current()).expect("somebody waits");
            let (frontend, backend) = (frontend.into_zmq(), backend.into_zmq());
            assert_eq!(zmq::proxy(&frontend, &backend), Err(zmq::Error::ETERM));
        })
    }

    fn by_hand(pattern: Pattern) -> Stage {
        Stage::start(pattern, move |context, ready| {
            let (frontend, backend) = sockets(&context, pattern, "");
            drop(context);
            ready.send(Thread::current()).expect("somebody waits");
            let mut items = [frontend.poll_item(), backend.poll_item()];
            let waits_for = match pattern {
                Pattern::RouterDealer => &mut items[..],
                Pattern::PullPush => &mut items[..1],
            };
            // It looks again for as long as ours does before it sleeps.
            let mut idle_since = None;
            loop {
                let mut moved = forward(&frontend, &backend);
                if pattern == Pattern::RouterDealer {
                    moved += forward(&backend, &frontend);
                }
                if moved > 0 {
                    idle_since = None;
                } else if idle_since.get_or_insert_with(Instant::now).elapsed() > SPIN {
                    if !poll_until_ended(waits_for) {
                        return;
                    }
                    idle_since = None;
                }
            }
        })
    }

    fn ours(pattern: Pattern, backend: Backend, idle: usize) -> Stage {
        Stage::start(pattern, move |context, ready| {
            let reactor = Reactor::builder().backend(backend).wait(Wait::SpinFor(SPIN));
            let mut reactor = reactor.build().expect("a reactor");
            let mut proxies = Proxies(Vec::new());
            let mut silent = Vec::new();
            for index in 0..=idle {
                let suffix = if index == 0 { String::new() } else { format!("-{index}") };
                let (frontend, backend) = sockets(&context, pattern, &suffix);
                if index > 0 {
                    silent.extend(peers(&context, pattern, &suffix));
                }
                let [frontend, backend] = [frontend, backend]
                    .map(|bare| Socket::from_zmq(bare.into_zmq()).expect("a socket"));
                let proxy = Proxy::builder(frontend, backend).build().expect("they go together");
                proxies.0.push(proxy);
                Proxy::attach(&mut reactor, &mut proxies, move |proxies| &mut proxies.0[index])
                    .expect("attached");
            }
            drop(context);
            // That the context has ended is how this ends.
            reactor.on_error(|_, _, _| Flow::Remove);
            ready.send(Thread::current()).expect("somebody waits");
            while proxies.0[0].socket_key(pollux::proxy::Side::Frontend).is_some() {
                reactor.turn(&mut proxies, Duration::MAX).expect("a turn");
            }
        })
    }

    fn start(
        pattern: Pattern,
        serve: impl FnOnce(zmq::Context, mpsc::Sender<Thread>) + Send + 'static,
    ) -> Stage {
        let context = zmq::Context::new();
        let (ready, is_ready) = mpsc::channel();
        let theirs = context.clone();
        let thread = thread::spawn(move || serve(theirs, ready));
        let thread_id = is_ready.recv().expect("it serves");
        let peers = Some(peers(&context, pattern, ""));
        Stage { pattern, context, thread: Some(thread), thread_id, peers }
    }

    /// Messages a second that come out, or come back. The peers take turns in this thread,
    /// and sleep when they have nothing to do, so that the proxy is what is waited for.
    fn throughput(&mut self, size: usize) -> f64 {
        let (messages, window) =
            if size > 1024 { (10_000, LARGE_WINDOW) } else { (50_000, WINDOW) };
        let [here, there] = self.peers.as_ref().expect("they are back");
        let payload = vec![7; size];
        let (mut id, mut part) = (Part::new(), Part::new());
        let (mut sent, mut received, mut first, mut began) = (0, 0, 0, Instant::now());
        while received < messages {
            let before = (sent, received);
            while sent < messages && sent - received < window {
                here.send(&mut Part::of(&payload), false);
                sent += 1;
            }
            match self.pattern {
                Pattern::RouterDealer => {
                    while there.try_receive(&mut id) {
                        assert!(there.try_receive(&mut part), "a request has two frames");
                        there.send(&mut id, true);
                        there.send(&mut part, false);
                    }
                    while here.try_receive(&mut part) {
                        received += 1;
                    }
                }
                Pattern::PullPush => {
                    while there.try_receive(&mut part) {
                        received += 1;
                    }
                }
            }
            if before.1 < messages / 10 && received >= messages / 10 {
                (began, first) = (Instant::now(), received);
            }
            if before == (sent, received) {
                thread::sleep(NAP);
            }
        }
        per_second(messages - first, began)
    }

    /// The median of there and back again, in microseconds.
    fn round_trip(&mut self, size: usize) -> f64 {
        let [here, there] = self.peers.take().expect("they are back");
        let payload = vec![7; size];
        let (there, median) = match self.pattern {
            Pattern::RouterDealer => thread::scope(|scope| {
                let worker = scope.spawn(move || echo(there));
                let median = trips(&payload, |part| {
                    here.send(part, false);
                    here.receive(part)
                });
                here.send(&mut Part::new(), false);
                assert!(here.receive(&mut Part::new()), "the context has ended");
                (worker.join().expect("it ended in order"), median)
            }),
            Pattern::PullPush => {
                let median = trips(&payload, |part| {
                    here.send(part, false);
                    there.receive(part)
                });
                (there, median)
            }
        };
        self.peers = Some([here, there]);
        median
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.peers = None;
        // Ends the proxy of libzmq, which knows no other way without a control socket,
        // and ours.
        let mut context = std::mem::replace(&mut self.context, zmq::Context::new());
        context.destroy().expect("destroyed");
        // It has freed what dropping it would use once more (zmq 0.10).
        std::mem::forget(context);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it ended in order");
        }
    }
}

struct Proxies(Vec<Proxy<Proxies>>);

/// Moves what is there, as many messages at a time as zmq_proxy does. Gives how many.
fn forward(from: &Bare, to: &Bare) -> usize {
    let mut part = Part::new();
    for count in 0..BURST {
        if !from.try_receive(&mut part) {
            return count;
        }
        let mut more = part.more();
        to.send(&mut part, more);
        while more {
            assert!(from.try_receive(&mut part), "the parts of a message come together");
            more = part.more();
            to.send(&mut part, more);
        }
    }
    BURST
}

/// Who talks with a proxy: client and worker, or sender and receiver.
fn peers(context: &zmq::Context, pattern: Pattern, suffix: &str) -> [Bare; 2] {
    let (here, there) = match pattern {
        Pattern::RouterDealer => (zmq::DEALER, zmq::DEALER),
        Pattern::PullPush => (zmq::PUSH, zmq::PULL),
    };
    let (here, there) = (Bare::new(context, here), Bare::new(context, there));
    there.connect(&format!("{BACKEND}{suffix}"));
    here.connect(&format!("{FRONTEND}{suffix}"));
    [here, there]
}

/// Sends requests back, until it has sent an empty one.
fn echo(worker: Bare) -> Bare {
    let (mut id, mut body) = (Part::new(), Part::new());
    loop {
        assert!(worker.receive(&mut id) && worker.receive(&mut body), "the context has ended");
        let last = body.bytes().is_empty();
        worker.send(&mut id, true);
        worker.send(&mut body, false);
        if last {
            return worker;
        }
    }
}

fn trips(payload: &[u8], mut trip: impl FnMut(&mut Part) -> bool) -> f64 {
    let (mut samples, began) = (Vec::with_capacity(TRIPS), Instant::now());
    while samples.len() < TRIPS && began.elapsed() < ROUND_TIME {
        let mut part = Part::of(payload);
        let sent = Instant::now();
        assert!(trip(&mut part), "the context has ended");
        samples.push(nanos(sent.elapsed()));
        assert_eq!(part.bytes().len(), payload.len());
    }
    let warm_up = samples.len() / 10;
    percentile(&mut samples[warm_up..], 50) / 1e3
}
