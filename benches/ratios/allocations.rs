//! Allocations for events in steady state: messages, timers, wakes.

use std::time::Duration;

use pollux::reactor::{Backend, Flow, Missed, Reactor};
use pollux::socket::Socket;
use zmq::Context;

use super::common::alloc;
use super::common::bare::{Bare, Part};
use super::outcome::Outcome;

const WARM_UP: usize = 2_000;
const EVENTS: usize = 20_000;

/// What the loop's thread allocates, over the events that it handles meanwhile.
pub(crate) fn per_event() -> Vec<Outcome> {
    let (mut calls, mut events) = (0, 0);
    for backend in [Backend::Epoll, Backend::ZmqPoll] {
        let mut steady = Steady::new(backend);
        steady.pass(WARM_UP);
        let before = (alloc::calls(), steady.handled);
        steady.pass(EVENTS);
        calls += alloc::calls() - before.0;
        events += steady.handled - before.1;
    }
    let figures = format!("{calls} allocations for {events} events");
    vec![Outcome::new("allocs_per_event", calls as f64 / events as f64, figures)]
}

/// A loop with one of each.
struct Steady {
    reactor: Reactor<u64>,
    push: Bare,
    waker: pollux::reactor::Waker,
    sender: pollux::reactor::Sender<u64>,
    handled: u64,
}

impl Steady {
    fn new(backend: Backend) -> Steady {
        let context = Context::new();
        let mut reactor = Reactor::builder().backend(backend).build().expect("a reactor");
        let (push, pull) = (Bare::new(&context, zmq::PUSH), Bare::new(&context, zmq::PULL));
        pull.bind("inproc://steady");
        push.connect("inproc://steady");
        let pull = Socket::from_zmq(pull.into_zmq()).expect("a socket");
        // A timeout that each message puts off, and one that comes often.
        let timeout = reactor.add_timer(Duration::from_secs(60), |_, _| Ok(Flow::Continue));
        reactor
            .on_message(pull, move |handled: &mut u64, cx, message| {
                *handled += u64::from(message[0].len() == 33);
                let later = cx.now() + Duration::from_secs(60);
                cx.rearm(timeout, later)?;
                let passing = cx.add_timer(Duration::from_secs(1), |_, _| Ok(Flow::Continue));
                cx.cancel(passing)?;
                Ok(Flow::Continue)
            })
            .map_err(std::io::Error::from)
            .expect("registered");
        reactor.add_periodic(Duration::from_micros(10), Missed::Skip, |handled, _| {
            *handled += 1;
            Ok(Flow::Continue)
        });
        let waker = reactor
            .add_waker(|handled, _| {
                *handled += 1;
                Ok(Flow::Continue)
            })
            .expect("a waker");
        let sender = reactor
            .channel(64, |handled, _, value| {
                *handled += value;
                Ok(Flow::Continue)
            })
            .expect("a channel");
        Steady { reactor, push, waker, sender, handled: 0 }
    }

    /// Messages one at a time and in batches, each turn with a wake and a value.
    fn pass(&mut self, events: usize) {
        let goal = self.handled + events as u64;
        let mut batch = 0;
        while self.handled < goal {
            batch = (batch + 1) % 100;
            for _ in 0..=batch {
                self.push.send(&mut Part::of(&[7; 33]), false);
            }
            self.waker.wake();
            self.sender.try_send(1).expect("there is room");
            let until = self.handled + batch as u64;
            while self.handled < until {
                self.reactor.turn(&mut self.handled, Duration::from_millis(10)).expect("a turn");
            }
        }
    }
}
