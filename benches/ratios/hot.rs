//! Messages per second while more are waiting than can be taken.

use std::hint::black_box;
use std::time::{Duration, Instant};

use pollux::reactor::{Backend, Flow, Reactor};
use pollux::socket::Socket;

use super::common::bare::{Bare, Part};
use super::common::measure::{interleave, median, median_ratio, per_second};
use super::outcome::Outcome;

/// Few enough that a round mostly fits into one time slice of the scheduler.
const MESSAGES: usize = 200_000;
const ROUNDS: usize = 51;
/// Inside `zmq_msg_t`: libzmq allocates nothing for it.
const PAYLOAD: [u8; 32] = [7; 32];

/// One socket and nothing else.
pub(crate) fn alone() -> Vec<Outcome> {
    measure(0, 0, ["hot_1", "hot_1_zmq"])
}

/// One busy socket among idle ones and timers that are not due.
pub(crate) fn crowded() -> Vec<Outcome> {
    measure(16, 1000, ["hot_16", "hot_16_zmq"])
}

fn measure(idle_sockets: usize, timers: usize, names: [&'static str; 2]) -> Vec<Outcome> {
    let context = zmq::Context::new();
    let bare = BareLoop::new(&context);
    let mut epoll = Looped::new(&context, Backend::Epoll, idle_sockets, timers);
    let mut zmq_poll = Looped::new(&context, Backend::ZmqPoll, idle_sockets, timers);
    let [bare, epoll, zmq_poll] =
        interleave(ROUNDS, [&mut || bare.drain(), &mut || epoll.drain(), &mut || zmq_poll.drain()]);
    let outcome = |name, ours: &[f64]| {
        let ns = |rates: &[f64]| 1e9 / median(rates);
        let figures = format!("{:.1} ns a message, bare {:.1}", ns(ours), ns(&bare));
        Outcome::new(name, median_ratio(ours, &bare), figures)
    };
    vec![outcome(names[0], &epoll), outcome(names[1], &zmq_poll)]
}

/// A PUSH and the PULL that it feeds, in one thread.
fn pipe(context: &zmq::Context, name: &str) -> (Bare, Bare) {
    let (push, pull) = (Bare::new(context, zmq::PUSH), Bare::new(context, zmq::PULL));
    let endpoint = format!("inproc://{name}");
    pull.bind(&endpoint);
    push.connect(&endpoint);
    (push, pull)
}

fn fill(push: &Bare) {
    for _ in 0..MESSAGES {
        push.send(&mut Part::of(&PAYLOAD), false);
    }
}

/// What a handler does with a message, here and there: look at data and size.
#[inline]
fn look(bytes: &[u8]) -> u64 {
    u64::from(bytes[0]) + bytes.len() as u64
}

/// `zmq_msg_recv` in a loop, into the same message again and again.
struct BareLoop {
    push: Bare,
    pull: Bare,
}

impl BareLoop {
    fn new(context: &zmq::Context) -> BareLoop {
        let (push, pull) = pipe(context, "bare");
        BareLoop { push, pull }
    }

    fn drain(&self) -> f64 {
        fill(&self.push);
        let began = Instant::now();
        let (mut part, mut left, mut sum) = (Part::new(), MESSAGES, 0);
        while left > 0 {
            if self.pull.try_receive(&mut part) {
                sum += look(part.bytes());
                left -= 1;
            }
        }
        black_box(sum);
        per_second(MESSAGES, began)
    }
}

/// The same by `on_message`.
struct Looped {
    push: Bare,
    reactor: Reactor<Count>,
    /// The other ends of the idle sockets: they have a peer, who is silent.
    _silent: Vec<Bare>,
}

struct Count {
    left: usize,
    sum: u64,
}

impl Looped {
    fn new(context: &zmq::Context, backend: Backend, idle_sockets: usize, timers: usize) -> Looped {
        let mut reactor = Reactor::builder().backend(backend).build().expect("a reactor");
        let mut register = |name: &str| {
            let (push, pull) = pipe(context, name);
            let pull = Socket::from_zmq(pull.into_zmq()).expect("a socket");
            reactor
                .on_message(pull, |count: &mut Count, _, message| {
                    count.sum += look(&message[0]);
                    count.left -= 1;
                    Ok(if count.left == 0 { Flow::Stop } else { Flow::Continue })
                })
                .map_err(std::io::Error::from)
                .expect("registered");
            push
        };
        let push = register(&format!("busy-{backend:?}"));
        let silent =
            (0..idle_sockets).map(|index| register(&format!("idle-{backend:?}-{index}"))).collect();
        for index in 0..timers {
            let after = Duration::from_secs(3600) + Duration::from_millis(index as u64);
            reactor.add_timer(after, |_, _| Ok(Flow::Continue));
        }
        Looped { push, reactor, _silent: silent }
    }

    fn drain(&mut self) -> f64 {
        fill(&self.push);
        let mut count = Count { left: MESSAGES, sum: 0 };
        let began = Instant::now();
        self.reactor.run(&mut count).expect("the loop runs");
        assert_eq!(count.left, 0, "stopped early");
        black_box(count.sum);
        per_second(MESSAGES, began)
    }
}
