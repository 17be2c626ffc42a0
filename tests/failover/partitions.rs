//! Two brokers that do not see one another, with clients at one of them, and at both.

use crate::clients::Clients;
use crate::common::free_endpoint;
use crate::pair::{A, B, Pair};
use crate::relay::Relay;

/// Both ways between two brokers, and the ways of clients to either, each in our hands.
struct Network {
    pair: Pair,
    /// From A to B and from B to A.
    between: [Relay; 2],
    /// For clients, to A and to B.
    to: [Relay; 2],
    client_endpoints: [String; 2],
}

impl Network {
    fn start() -> Network {
        let ends = [free_endpoint(), free_endpoint()];
        let [from_a, from_b, to_a, to_b] = [(); 4].map(|()| free_endpoint());
        let between = [Relay::start(&from_a, &ends[B]), Relay::start(&from_b, &ends[A])];
        let to = [Relay::start(&to_a, &ends[A]), Relay::start(&to_b, &ends[B])];
        let args = ["--heartbeat", "100ms", "--safe", "wait"];
        let pair = Pair::start_at(ends, [from_a, from_b], &args);
        Network { pair, between, to, client_endpoints: [to_a, to_b] }
    }

    /// The brokers do not see one another.
    fn cut(&self) {
        self.between.iter().for_each(Relay::cut);
    }

    /// They do again; it is over when one of them is active and the other its standby.
    fn heal(&self, heal: fn(&Relay), winner: usize) {
        self.between.iter().for_each(heal);
        self.to.iter().for_each(heal);
        self.pair.wait_for_standby(winner);
        self.pair.wait_until(1 - winner, "passive", |status| status["role"] == "passive");
    }

    /// Everybody has the same, and nothing that was safe is missing.
    fn finish(mut self, clients: Clients, winner: usize) {
        self.pair.wait_for_standby(winner);
        clients.end(&mut self.pair);
    }
}

fn active_is_isolated(heal: fn(&Relay)) {
    let network = Network::start();
    let list = format!("{},{}", network.client_endpoints[A], network.pair.endpoints[B]);
    let clients = Clients::start(&list);
    let (epoch, _) = clients.applied_above(0, &network.pair);
    network.cut();
    network.to[A].cut();
    clients.applied_above(epoch, &network.pair);
    network.heal(heal, B);
    network.finish(clients, B);
}

#[test]
fn an_active_that_nobody_sees_yields_when_it_is_seen_again() {
    active_is_isolated(Relay::heal_and_drop);
}

#[test]
fn what_a_partition_held_up_arrives_late_and_does_no_harm() {
    active_is_isolated(Relay::heal);
}

#[test]
fn two_actives_with_writers_each_become_one_history() {
    let network = Network::start();
    let [a, b] = &network.pair.endpoints;
    let [to_a, to_b] = &network.client_endpoints;
    let (near_a, near_b) = (format!("{a},{to_b}"), format!("{to_a},{b}"));
    let at = [&*near_a, &near_a, &near_b, &near_b];
    let clients = Clients::start_at(&at, &at);
    let (epoch, _) = clients.applied_above(0, &network.pair);
    network.cut();
    network.to.iter().for_each(Relay::cut);
    // Those near B make it active; those near A stay there.
    clients.applied_above(epoch, &network.pair);
    network.pair.wait_until(A, "still active", |status| status["role"] == "active");
    network.heal(Relay::heal_and_drop, B);
    network.finish(clients, B);
}

#[test]
fn brokers_that_do_not_see_one_another_but_share_their_clients_stay_what_they_are() {
    let network = Network::start();
    let clients = Clients::start(&network.pair.list());
    clients.applied_above(0, &network.pair);
    network.cut();
    // Longer than it takes to think the other dead.
    network.pair.wait_until(B, "without its peer", |status| {
        status["role"] == "passive" && status["peer"] == "silent"
    });
    network.pair.wait_until(A, "without its standby", |status| {
        status["role"] == "active" && status["standby"] == "none"
    });
    network.heal(Relay::heal, A);
    network.finish(clients, A);
}
