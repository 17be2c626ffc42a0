//! libzmq by hand: the receive loop that nothing can beat, and the loop over
//! `zmq_poll` as it is written first, with one receive a turn.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::bare::{Bare, Part};
use crate::job::{Job, Meter, NEVER, Trips};

/// One socket and nothing else, whatever else the others have to look after.
pub(crate) fn bare(job: &Job) {
    let (pull, _peer) = job.busy();
    let (mut part, mut meter) = (Part::new(), Meter::new(job));
    loop {
        if pull.receive(&mut part) && meter.take(part.bytes()) {
            return;
        }
    }
}

pub(crate) fn bare_trip(job: &Job) {
    let (dealer, _) = job.busy();
    let (mut part, mut trips) = (Part::new(), Trips::new(job));
    loop {
        while !dealer.receive(&mut part) {}
        if !trips.next() {
            break;
        }
        dealer.send(&mut Part::of(&trips.payload), false);
    }
    dealer.send(&mut Part::new(), false);
}

/// Sockets and a heap of deadlines.
struct Poll {
    sockets: Vec<Bare>,
    items: Vec<zmq_sys::zmq_pollitem_t>,
    deadlines: BinaryHeap<Reverse<Instant>>,
}

impl Poll {
    fn new(job: &Job, busy: Bare, mut idle: Vec<Bare>) -> Poll {
        idle.insert(0, busy);
        let items = idle.iter().map(Bare::poll_item).collect();
        let now = Instant::now();
        let deadline = |index| Reverse(now + NEVER + Duration::from_millis(index as u64));
        Poll { sockets: idle, items, deadlines: (0..job.timers).map(deadline).collect() }
    }

    /// Waits; calls `handle` with each socket that is ready. True: it said so.
    fn turn(&mut self, mut handle: impl FnMut(&Bare) -> bool) -> bool {
        let timeout = match self.deadlines.peek() {
            Some(Reverse(at)) => at.saturating_duration_since(Instant::now()).as_millis() as i64,
            None => -1,
        };
        crate::bare::poll_all(&mut self.items, timeout);
        let mut is_over = false;
        for (item, socket) in self.items.iter().zip(&self.sockets) {
            if item.revents != 0 {
                is_over |= handle(socket);
            }
        }
        while self.deadlines.peek().is_some_and(|Reverse(at)| *at <= Instant::now()) {
            self.deadlines.pop();
        }
        is_over
    }
}

pub(crate) fn zmq_poll(job: &Job) {
    let ((pull, _peer), (idle, _silent)) = (job.busy(), job.idle_sockets());
    let mut poll = Poll::new(job, pull, idle);
    let (mut part, mut meter) = (Part::new(), Meter::new(job));
    while !poll.turn(|socket| socket.try_receive(&mut part) && meter.take(part.bytes())) {}
}

pub(crate) fn zmq_poll_trip(job: &Job) {
    let ((dealer, _), (idle, _silent)) = (job.busy(), job.idle_sockets());
    let mut poll = Poll::new(job, dealer, idle);
    let (mut part, mut trips) = (Part::new(), Trips::new(job));
    let turn = |socket: &Bare| {
        if !socket.try_receive(&mut part) {
            return false;
        }
        let goes_on = trips.next();
        if goes_on {
            socket.send(&mut Part::of(&trips.payload), false);
        } else {
            socket.send(&mut Part::new(), false);
        }
        !goes_on
    };
    let mut turn = turn;
    while !poll.turn(&mut turn) {}
}
