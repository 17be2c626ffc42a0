//! What goes wrong: connections that break, messages twice, hosts cut off, loops that stand still.

use std::time::Duration;

use super::links::channel;
use super::{Event, Net, Port, Way};

impl Net {
    /// Breaks the connections of a client to a port; they are made again.
    pub(crate) fn cut_port(&mut self, client: usize, server: usize, port: Port) {
        for index in 0..self.links.len() {
            let link = &self.links[index];
            if link.client == client && link.server == server && link.port == port {
                self.cut(index);
            }
        }
    }

    /// Sends the next messages between two hosts twice each.
    pub(crate) fn double(&mut self, client: usize, server: usize, way: Way, count: usize) {
        for link in &mut self.links {
            if link.is_open && link.client == client && link.server == server {
                channel(link, way).doubled = count;
            }
        }
    }

    /// Nothing goes from one host to another for a while; it is not lost.
    pub(crate) fn block(&mut self, from: usize, to: usize, time: Duration) {
        let until = self.now + time;
        let blocked = &mut self.blocked_until[from * self.hosts.len() + to];
        *blocked = until.max(*blocked);
        self.at(until, Event::Heal { from, to });
    }

    /// A loop stands still for a while.
    pub(crate) fn stall(&mut self, host: usize, time: Duration) {
        let until = self.now + time;
        let host = &mut self.hosts[host];
        host.ready_at = host.ready_at.max(until);
        host.hindered = host.hindered.max(until);
    }

    /// A loop takes so long for each message, for a while.
    pub(crate) fn slow(&mut self, host: usize, each: Duration, time: Duration) {
        let host = &mut self.hosts[host];
        host.slow = each;
        host.slow_until = self.now + time;
        // What has piled up takes as long again.
        host.hindered = host.hindered.max(host.slow_until + time);
    }

    /// Nothing goes wrong any more.
    pub(crate) fn calm(&mut self) {
        self.is_calm = true;
        self.high_water.updates = usize::MAX;
        let hosts = self.hosts.len();
        for host in 0..hosts {
            let now = self.now;
            self.hosts[host].slow_until = now;
            self.hosts[host].ready_at = now;
            if self.hosts[host].will_wake {
                self.at(now, Event::Wake { host });
            }
        }
        for (from, to) in (0..hosts * hosts).map(|at| (at / hosts, at % hosts)) {
            if self.blocked_until[from * hosts + to] > self.now {
                self.blocked_until[from * hosts + to] = self.now;
                self.at(self.now, Event::Heal { from, to });
            }
        }
        for link in &mut self.links {
            (link.to_server.doubled, link.to_client.doubled) = (0, 0);
        }
    }
}
