//! The sockets of a client of two servers, and what is on the way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::clone::client::ClientOutbox;
use crate::clone::client::tests::broker::Frames;
use crate::clone::client::tests::world::MS;
use crate::clone::kvmsg::FRAMES;
use crate::clone::{Collector, SendFailure};
use crate::time::Time;

/// A message on its way, to or from the socket with this number.
type Queue<T> = VecDeque<(Time, u64, T)>;

/// The client's sockets, each new one with a number of its own.
#[derive(Debug, Default)]
pub(super) struct Net {
    pub(super) now: Time,
    pub(super) at: usize,
    pub(super) sub: u64,
    pub(super) dealer: u64,
    push: u64,
    sockets: u64,
    pub(super) topics: BTreeSet<Vec<u8>>,
    /// To the servers, which each socket leads to.
    pub(super) subscriptions: Queue<Vec<u8>>,
    pub(super) requests: Queue<(usize, Frames)>,
    pub(super) changes: Queue<(usize, Frames)>,
    pub(super) updates: Queue<Frames>,
    pub(super) answers: Queue<Frames>,
    pub(super) turned_at: Vec<Time>,
    pub(super) reaches_all: bool,
    pub(super) lose_changes: u32,
    /// Of each key the newest change that was sent, by its uuid, which tells the order.
    newest: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Net {
    fn new_socket(&mut self) -> u64 {
        self.sockets += 1;
        self.sockets
    }

    /// When the next message arrives anywhere.
    pub(super) fn next_arrival(&self) -> Option<Time> {
        let fronts = [
            self.subscriptions.front().map(|&(at, ..)| at),
            self.requests.front().map(|&(at, ..)| at),
            self.changes.front().map(|&(at, ..)| at),
            self.updates.front().map(|&(at, ..)| at),
            self.answers.front().map(|&(at, ..)| at),
        ];
        fronts.into_iter().flatten().min()
    }

    fn send_change(&mut self, server: usize, frames: Frames) {
        self.changes.push_back((self.now + MS, self.push, (server, frames)));
    }
}

fn own(frames: &[&[u8]]) -> Frames {
    frames.iter().map(|frame| frame.to_vec()).collect()
}

pub(super) fn due<T>(queue: &mut Queue<T>, now: Time) -> Option<(u64, T)> {
    let is_due = queue.front().is_some_and(|&(at, ..)| at <= now);
    is_due.then(|| queue.pop_front().map(|(_, socket, item)| (socket, item))).flatten()
}

impl ClientOutbox for Net {
    fn subscribe(&mut self, topic: &[u8]) {
        assert!(self.topics.insert(topic.to_vec()), "subscribed twice");
        self.subscriptions.push_back((self.now + MS, self.sub, [b"+", topic].concat()));
    }

    fn unsubscribe(&mut self, topic: &[u8]) {
        assert!(self.topics.remove(topic), "was not subscribed");
        self.subscriptions.push_back((self.now + MS, self.sub, [b"-", topic].concat()));
    }

    fn open_requests(&mut self) {
        self.dealer = self.new_socket();
    }

    fn request(&mut self, frames: &[&[u8]]) -> Result<(), SendFailure> {
        self.requests.push_back((self.now + MS, self.dealer, (self.at, own(frames))));
        Ok(())
    }

    fn open_changes(&mut self, _: Collector) {
        self.push = self.new_socket();
        self.reaches_all = false;
    }

    fn open_changes_to_all(&mut self, collector: Collector) {
        assert_eq!(collector, Collector::Sub);
        self.push = self.new_socket();
        self.reaches_all = true;
    }

    fn change(&mut self, frames: &[&[u8]; FRAMES]) -> Result<(), SendFailure> {
        assert_ne!(self.push, 0, "the port for changes is not open");
        let [key, _, uuid, ..] = *frames;
        let newest = self.newest.insert(key.to_vec(), uuid.to_vec());
        assert!(newest.is_none_or(|newest| *newest <= *uuid), "sent again behind a newer one");
        if self.lose_changes > 0 {
            self.lose_changes -= 1;
        } else if self.reaches_all {
            (0..2).for_each(|server| self.send_change(server, own(frames)));
        } else {
            self.send_change(self.at, own(frames));
        }
        Ok(())
    }

    fn turn_to(&mut self, server: usize) {
        self.at = server;
        self.turned_at.push(self.now);
        self.sub = self.new_socket();
        self.dealer = 0;
        if !self.reaches_all {
            self.push = 0;
        }
        self.topics.clear();
    }
}
