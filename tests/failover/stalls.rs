//! An active that stands still for a while, and comes back thinking that it is active.

use crate::clients::Clients;
use crate::pair::Pair;

#[test]
fn an_active_that_stood_still_yields_when_it_goes_on() {
    let mut pair = Pair::start(&["--heartbeat", "100ms", "--safe", "wait"]);
    let clients = Clients::start(&pair.list());
    for _ in 0..4 {
        let active = pair.progressing();
        pair.process(active.at).signal("STOP");
        clients.applied_above(active.epoch, &pair);
        pair.process(active.at).signal("CONT");
        pair.wait_until(active.at, "passive", |status| status["role"] == "passive");
    }
    pair.active();
    clients.end(&mut pair);
}
