//! There and back again: the median time of a request to an echo thread.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use pollux::reactor::{Backend, Flow, Reactor, Wait};
use pollux::socket::Socket;

use super::common::bare::{Bare, Part};
use super::common::measure::{interleave, median, median_ratio, nanos, percentile};
use super::outcome::Outcome;

const ROUNDS: usize = 7;
const TRIPS: usize = 4000;
/// A round ends then even if it has had fewer: threads that spin on a busy
/// machine can take a scheduler's time slice for every trip.
const ROUND_TIME: Duration = Duration::from_millis(800);
const PAYLOAD: [u8; 32] = [7; 32];

/// How both sides wait.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// In the system: `Wait::Block`, and by hand zmq_poll(3) and then a receive, which
    /// is how one waits who may have more than one thing to wait for.
    Block,
    /// `zmq_msg_recv(DONTWAIT)` again and again; `Wait::Spin`.
    Spin,
    /// In `zmq_msg_recv`, for one socket and nothing else; the echo thread does so in
    /// style `Block`.
    Receive,
}

pub(crate) fn block_tcp() -> Vec<Outcome> {
    measure(Style::Block, "tcp://127.0.0.1:*", ["rtt_block_tcp", "rtt_block_tcp_zmq"])
}

pub(crate) fn block_inproc() -> Vec<Outcome> {
    measure(Style::Block, "inproc://echo", ["rtt_block_inproc", "rtt_block_inproc_zmq"])
}

pub(crate) fn spin_tcp() -> Vec<Outcome> {
    measure(Style::Spin, "tcp://127.0.0.1:*", ["rtt_spin_tcp", "rtt_spin_tcp_zmq"])
}

pub(crate) fn spin_inproc() -> Vec<Outcome> {
    measure(Style::Spin, "inproc://echo", ["rtt_spin_inproc", "rtt_spin_inproc_zmq"])
}

fn measure(style: Style, endpoint: &str, names: [&'static str; 2]) -> Vec<Outcome> {
    let looped = |backend| with_echo(style, endpoint, |socket| looped(socket, style, backend));
    let bare = |style| with_echo(style, endpoint, |socket| bare(socket, style));
    let [bare, receive, epoll, zmq_poll] = interleave(
        ROUNDS,
        [
            &mut || bare(style),
            &mut || if style == Style::Block { bare(Style::Receive) } else { 0.0 },
            &mut || looped(Backend::Epoll),
            &mut || looped(Backend::ZmqPoll),
        ],
    );
    let outcome = |name, ours: &[f64]| {
        let (ours_us, bare_us) = (median(ours) / 1e3, median(&bare) / 1e3);
        let mut figures = format!("p50 {ours_us:.2} us, bare {bare_us:.2}");
        if style == Style::Block {
            figures += &format!(", in a blocking receive {:.2}", median(&receive) / 1e3);
        }
        Outcome::new(name, median_ratio(ours, &bare), figures)
    };
    vec![outcome(names[0], &epoll), outcome(names[1], &zmq_poll)]
}

/// Runs one contender against a fresh echo thread, which ends with it: one that
/// spins must not be in the way of the next.
fn with_echo(style: Style, endpoint: &str, contender: impl FnOnce(Bare) -> Samples) -> f64 {
    let context = zmq::Context::new();
    let (here, there) = (Bare::new(&context, zmq::PAIR), Bare::new(&context, zmq::PAIR));
    // What ends the echo thread is sent just before its socket is closed.
    here.zmq().set_linger(1000).expect("LINGER");
    there.connect(&here.bind(endpoint));
    let mut samples = thread::scope(|scope| {
        let style = if style == Style::Spin { Style::Spin } else { Style::Receive };
        scope.spawn(move || echo(there, style));
        // One by hand waits until they are connected.
        here.send(&mut Part::of(&PAYLOAD), false);
        assert!(here.receive(&mut Part::new()), "the context has ended");
        contender(here)
    });
    let warm_up = samples.ns.len() / 10;
    percentile(&mut samples.ns[warm_up..], 50)
}

/// Sends everything back, until it gets an empty message.
fn echo(socket: Bare, style: Style) {
    let mut part = Part::new();
    loop {
        receive(&socket, &mut part, style);
        if part.bytes().is_empty() {
            return;
        }
        socket.send(&mut part, false);
    }
}

#[inline]
fn receive(socket: &Bare, part: &mut Part, style: Style) {
    match style {
        Style::Block => {
            socket.poll();
            while !socket.try_receive(part) {
                socket.poll();
            }
        }
        Style::Spin => while !socket.try_receive(part) {},
        Style::Receive => while !socket.receive(part) {},
    }
}

/// What each trip took.
struct Samples {
    ns: Vec<u64>,
    began: Instant,
    sent: Instant,
}

impl Samples {
    fn new() -> Samples {
        let now = Instant::now();
        Samples { ns: Vec::with_capacity(TRIPS), began: now, sent: now }
    }

    /// A trip begins.
    #[inline]
    fn begin(&mut self) {
        self.sent = Instant::now();
    }

    /// It is over; true if it was the last.
    #[inline]
    fn end(&mut self) -> bool {
        let now = Instant::now();
        self.ns.push(nanos(now - self.sent));
        self.ns.len() == TRIPS || now - self.began > ROUND_TIME
    }
}

fn bare(socket: Bare, style: Style) -> Samples {
    let (mut samples, mut part) = (Samples::new(), Part::new());
    loop {
        samples.begin();
        socket.send(&mut Part::of(&PAYLOAD), false);
        receive(&socket, &mut part, style);
        assert_eq!(part.bytes().len(), PAYLOAD.len());
        if samples.end() {
            break;
        }
    }
    socket.send(&mut Part::new(), false);
    samples
}

fn looped(socket: Bare, style: Style, backend: Backend) -> Samples {
    let wait = if style == Style::Spin { Wait::Spin } else { Wait::Block };
    let mut reactor = Reactor::builder().backend(backend).wait(wait).build().expect("a reactor");
    let socket = Socket::from_zmq(socket.into_zmq()).expect("a socket");
    let key = reactor
        .on_message(socket, |samples: &mut Samples, cx, message| {
            assert_eq!(message[0].len(), PAYLOAD.len());
            if samples.end() {
                return Ok(Flow::Stop);
            }
            samples.begin();
            let pollux::reactor::Key::Socket(own) = cx.key() else { unreachable!("a socket") };
            cx.socket(own)?.send(&PAYLOAD).map_err(io::Error::from)?;
            Ok(Flow::Continue)
        })
        .map_err(io::Error::from)
        .expect("registered");
    let mut samples = Samples::new();
    samples.begin();
    reactor.socket(key).expect("its key").send(&PAYLOAD).expect("sent");
    reactor.run(&mut samples).expect("the loop runs");
    reactor.socket(key).expect("its key").send("").expect("sent");
    samples
}
