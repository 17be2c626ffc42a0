//! An active that stands still for a while, and comes back thinking that it is active.

use crate::clients::{Clients, check};
use crate::pair::{A, Pair};

#[test]
fn an_active_that_stood_still_yields_when_it_goes_on() {
    let mut pair = Pair::start(&["--heartbeat", "100ms", "--safe", "wait"]);
    let mut clients = Clients::start(&pair.list());
    let (mut epoch, _) = clients.applied_above(0, &pair);
    let mut active = A;
    for _ in 0..4 {
        pair.wait_for_progress(active);
        pair.process(active).signal("STOP");
        epoch = clients.applied_above(epoch, &pair).0;
        pair.process(active).signal("CONT");
        active = 1 - active;
        pair.wait_until(1 - active, "passive", |status| status["role"] == "passive");
    }
    pair.wait_for_standby(active);
    let records = clients.stop_writing();
    pair.wait_for_standby(active);
    let state = pair.state(active);
    check(&records, &state);
    clients.compare(state.clone());
    pair.kill(active);
    assert_eq!(pair.state(1 - active), state);
}
