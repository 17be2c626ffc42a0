//! Time goes on: what is on the way arrives, waits for its host, and is handed over.

use std::cmp::Reverse;

use pollux::Time;

use super::links::{Item, channel, peer};
use super::{Event, Net, Occurrence, Port, Way};

impl Net {
    /// What happens next, up to this time.
    pub(crate) fn next(&mut self, until: Time) -> Option<Occurrence> {
        loop {
            if let Some(occurrence) = self.occurrences.pop_front() {
                return Some(occurrence);
            }
            let &Reverse((time, _, event)) = self.events.peek()?;
            if time > until {
                return None;
            }
            self.events.pop();
            self.now = self.now.max(time);
            match event {
                Event::Arrive { link, generation, way } => self.arrive(link, generation, way),
                Event::Connect { link } => self.connected(link),
                Event::Wake { host } => self.wake(host),
                Event::Heal { from, to } => self.heal(from, to),
            }
        }
    }

    pub(super) fn arrive(&mut self, index: usize, generation: u32, way: Way) {
        let link = &self.links[index];
        if link.generation != generation || !link.is_open {
            return;
        }
        let (from, to) = link.ends(way);
        let is_read = way == Way::ToServer || self.sockets[link.socket].is_read;
        if self.blocked(from, to) > self.now || !is_read {
            channel(&mut self.links[index], way).parked += 1;
        } else if self.hosts[to].ready_at > self.now || !self.hosts[to].inbox.is_empty() {
            self.hosts[to].inbox.push_back((index, generation, way));
            self.wake_later(to);
        } else {
            self.deliver(index, way);
        }
    }

    pub(super) fn wake_later(&mut self, host: usize) {
        if !self.hosts[host].will_wake {
            self.hosts[host].will_wake = true;
            self.at(self.hosts[host].ready_at, Event::Wake { host });
        }
    }

    pub(super) fn wake(&mut self, host: usize) {
        self.hosts[host].will_wake = false;
        if self.hosts[host].ready_at <= self.now
            && let Some((link, generation, way)) = self.hosts[host].inbox.pop_front()
            && self.links[link].generation == generation
            && self.links[link].is_open
        {
            self.deliver(link, way);
        }
        if !self.hosts[host].inbox.is_empty() {
            self.wake_later(host);
        }
    }

    pub(super) fn heal(&mut self, from: usize, to: usize) {
        if self.blocked(from, to) > self.now {
            return;
        }
        for link in 0..self.links.len() {
            for way in [Way::ToServer, Way::ToClient] {
                if self.links[link].ends(way) == (from, to) {
                    self.unpark(link, way);
                }
            }
        }
        self.retry(|link| link.ends(Way::ToServer) == (from, to));
        self.retry(|link| link.ends(Way::ToClient) == (from, to));
    }

    pub(super) fn unpark(&mut self, index: usize, way: Way) {
        let now = self.now;
        let link = &mut self.links[index];
        let generation = link.generation;
        for _ in 0..std::mem::take(&mut channel(link, way).parked) {
            self.at(now, Event::Arrive { link: index, generation, way });
        }
    }

    /// Hands the oldest message of a channel to its receiver.
    pub(super) fn deliver(&mut self, index: usize, way: Way) {
        let link = &mut self.links[index];
        let (_, to) = link.ends(way);
        let Some(item) = channel(link, way).queue.pop_front() else { return };
        let left = channel(link, way).queue.len();
        let (server, client, port, socket) = (link.server, link.client, link.port, link.socket);
        let host = &mut self.hosts[to];
        if host.slow_until > self.now {
            host.ready_at = host.ready_at.max(self.now + host.slow);
        }
        self.trace(|| {
            let text = match &self.links[index].peek_text(&item) {
                Some(text) => text.clone(),
                None => String::new(),
            };
            format!("{client} {way:?} {server} {port:?}: {text}")
        });
        let occurrence = match (item, way) {
            (Item::Subscription { subscribe, topic }, _) => {
                return self.subscription(index, subscribe, topic);
            }
            (Item::Message(frames), Way::ToServer) => {
                let peer = peer(index, self.links[index].generation);
                Occurrence::Request { server, port, peer, client, frames }
            }
            (Item::Message(frames), Way::ToClient) => {
                Occurrence::Message { client, socket, frames }
            }
        };
        self.occurrences.push_back(occurrence);
        if port == Port::Changes && left + 1 == self.high_water.changes {
            self.occurrences.push_back(Occurrence::Room { client, socket });
        } else if port == Port::Snapshots
            && way == Way::ToClient
            && left + 1 == self.high_water.snapshots
        {
            self.occurrences.push_back(Occurrence::RouterRoom { server });
        }
    }

    pub(super) fn subscription(&mut self, index: usize, subscribe: bool, topic: Vec<u8>) {
        let link = &mut self.links[index];
        let server = link.server;
        if subscribe {
            link.known.push(topic.clone());
        } else {
            link.known.retain(|known| *known != topic);
            if self.is_known(server, &topic) {
                return;
            }
        }
        let frame = [&[u8::from(subscribe)], topic.as_slice()].concat();
        self.occurrences.push_back(Occurrence::Subscription { server, frame });
    }

    pub(super) fn is_known(&self, server: usize, topic: &[u8]) -> bool {
        let links = &self.hosts[server].links;
        links.iter().any(|&link| self.links[link].known.iter().any(|known| known == topic))
    }
}
