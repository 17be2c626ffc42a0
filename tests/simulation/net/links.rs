//! Connections: made, broken and made again, and what is sent on them.

use std::collections::VecDeque;
use std::time::Duration;

use pollux::Time;
use pollux::clone::Collector;

use super::{Event, Net, Occurrence, Port, SocketKind, Way};
use crate::frames::Frames;
use crate::random::Random;

pub(super) enum Item {
    Message(Frames),
    Subscription { subscribe: bool, topic: Vec<u8> },
}

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Channel {
    /// Sent and not handled, in order.
    pub(super) queue: VecDeque<Item>,
    pub(super) last_arrival: Time,
    /// So many of them have arrived at a partition or a socket that is not read.
    pub(super) parked: usize,
    /// So many of the next messages are sent twice.
    pub(super) doubled: usize,
}

/// A connection from a socket to a port.
pub(super) struct Link {
    pub(super) socket: usize,
    pub(super) client: usize,
    pub(super) server: usize,
    pub(super) port: Port,
    /// What its delays are drawn from.
    pub(super) name: u64,
    pub(super) sent: u64,
    /// Rises each time the connection is lost: what is older is gone.
    pub(super) generation: u32,
    pub(super) is_connected: bool,
    /// An attempt to connect is under way.
    pub(super) is_trying: bool,
    pub(super) is_open: bool,
    pub(super) to_server: Channel,
    pub(super) to_client: Channel,
    /// What the XPUB knows of the socket's subscriptions.
    pub(super) known: Vec<Vec<u8>>,
    /// Requests that wait for the connection.
    pub(super) waiting: Vec<Frames>,
    /// Updates that its subscriber missed, by a full queue or a lost connection.
    pub(super) missed: u64,
}

impl Link {
    /// From which host to which.
    pub(super) fn ends(&self, way: Way) -> (usize, usize) {
        match way {
            Way::ToServer => (self.client, self.server),
            Way::ToClient => (self.server, self.client),
        }
    }

    pub(super) fn peek_text(&self, item: &Item) -> Option<String> {
        Some(match item {
            Item::Message(frames) => frames.text(),
            Item::Subscription { subscribe, topic } => {
                format!("subscribe {subscribe} {}", topic.escape_ascii())
            }
        })
    }
}

pub(super) fn channel(link: &mut Link, way: Way) -> &mut Channel {
    match way {
        Way::ToServer => &mut link.to_server,
        Way::ToClient => &mut link.to_client,
    }
}

/// The routing id of a connection, as a ROUTER makes one up.
pub(super) fn peer(link: usize, generation: u32) -> Vec<u8> {
    let (link, generation) = ((link as u32).to_be_bytes(), generation.to_be_bytes());
    [&[0], &link[..], &generation[..]].concat()
}

pub(super) fn parse_peer(peer: &[u8]) -> Option<(usize, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(peer.get(at..at + 4)?.try_into().ok()?));
    Some((number(1)? as usize, number(5)?))
}

impl Net {
    pub(super) fn send(&mut self, index: usize, way: Way, item: Item) {
        let now = self.now;
        let link = &mut self.links[index];
        link.sent += 1;
        let latency_us = self.hosts[link.client].latency_us + self.hosts[link.server].latency_us;
        let mut random = Random::of(&[link.name, u64::from(link.generation), link.sent]);
        let mut delay_us = 10 + random.below(latency_us);
        if self.is_calm {
            // Who waits for two heartbeats of 50 ms must not find them late by chance.
            delay_us /= 2;
        } else if random.chance(2) {
            self.coverage.count("fault: segment lost");
            delay_us *= 10;
        }
        let copies = match &item {
            Item::Message(frames) if channel(link, way).doubled > 0 => {
                channel(link, way).doubled -= 1;
                vec![Item::Message(frames.clone()), item]
            }
            _ => vec![item],
        };
        if copies.len() > 1 {
            self.coverage.count("net: message doubled");
        }
        for item in copies {
            let link = &mut self.links[index];
            let generation = link.generation;
            let channel = channel(link, way);
            let arrival = now + Duration::from_micros(delay_us);
            channel.last_arrival = arrival.max(channel.last_arrival + Duration::from_nanos(1));
            channel.queue.push_back(item);
            let arrival = channel.last_arrival;
            self.at(arrival, Event::Arrive { link: index, generation, way });
        }
    }

    /// A connection breaks and is made again.
    pub(super) fn cut(&mut self, link: usize) {
        if self.links[link].is_connected {
            self.coverage.count("net: connection broken");
            self.break_link(link);
            self.try_to_connect(link, true);
        }
    }

    /// A connection breaks, with all that is on the way.
    pub(super) fn break_link(&mut self, index: usize) {
        let link = &mut self.links[index];
        link.generation += 1;
        link.missed += 1;
        link.is_connected = false;
        let doubled = [link.to_server.doubled, link.to_client.doubled];
        (link.to_server, link.to_client) = (Channel::default(), Channel::default());
        [link.to_server.doubled, link.to_client.doubled] = doubled;
        let (server, known) = (link.server, std::mem::take(&mut link.known));
        for topic in known {
            if self.hosts[server].is_listening && !self.is_known(server, &topic) {
                let frame = [&[0], topic.as_slice()].concat();
                self.occurrences.push_back(Occurrence::Subscription { server, frame });
            }
        }
    }

    /// Connections of this kind that do not stand are tried again.
    pub(super) fn retry(&mut self, is_it: impl Fn(&Link) -> bool) {
        for link in 0..self.links.len() {
            if is_it(&self.links[link]) {
                self.try_to_connect(link, true);
            }
        }
    }

    pub(super) fn try_to_connect(&mut self, index: usize, again: bool) {
        let link = &mut self.links[index];
        if !link.is_open || link.is_connected || link.is_trying {
            return;
        }
        link.is_trying = true;
        let names = [link.name, 0xc0_44ec7, u64::from(link.generation)];
        let latency_us = self.hosts[link.client].latency_us + self.hosts[link.server].latency_us;
        let wait_us = if again { 100_000 } else { 1000 };
        let wait = 100 + Random::of(&names).below(2 * latency_us + wait_us);
        self.at(self.now + Duration::from_micros(wait), Event::Connect { link: index });
    }

    /// An attempt to connect ends. If it was in vain, the next is made when the
    /// server is back, or the partition is healed.
    pub(super) fn connected(&mut self, index: usize) {
        let link = &mut self.links[index];
        link.is_trying = false;
        let (client, server, socket) = (link.client, link.server, link.socket);
        let blocked = [link.ends(Way::ToServer), link.ends(Way::ToClient)];
        let is_blocked = blocked.iter().any(|&(from, to)| self.blocked(from, to) > self.now);
        let collector = self.hosts[server].collector;
        let is_refused = match self.sockets[socket].kind {
            SocketKind::Push => collector != Some(Collector::Pull),
            SocketKind::Pub => collector != Some(Collector::Sub),
            SocketKind::Sub | SocketKind::Dealer => false,
        };
        let link = &mut self.links[index];
        let can = link.is_open && self.hosts[server].is_listening;
        if !can || link.is_connected || is_blocked || is_refused {
            return;
        }
        link.is_connected = true;
        for frames in std::mem::take(&mut link.waiting) {
            self.send(index, Way::ToServer, Item::Message(frames));
        }
        for topic in self.sockets[socket].topics.clone() {
            self.send(index, Way::ToServer, Item::Subscription { subscribe: true, topic });
        }
        if self.links[index].port == Port::Changes {
            self.occurrences.push_back(Occurrence::Room { client, socket });
        }
    }
}
