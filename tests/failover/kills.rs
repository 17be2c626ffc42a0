//! `kill -9` of the active, again and again.

use std::time::Duration;

use crate::clients::Clients;
use crate::pair::Pair;

/// Kills the active so often, in turns, and prints how long it takes until a change
/// is applied by the other.
fn kill_in_turns(times: usize, heartbeat: &str) {
    let mut pair = Pair::start(&["--heartbeat", heartbeat, "--safe", "wait"]);
    let clients = Clients::start(&pair.list());
    let mut took = Vec::new();
    for _ in 0..times {
        let active = pair.progressing();
        let killed = pair.kill(active.at);
        let (_, applied) = clients.applied_above(active.epoch, &pair);
        took.push(applied.duration_since(killed));
        pair.run(active.at);
    }
    pair.active();
    clients.end(&mut pair);
    took.sort();
    let ms = |time: Duration| time.as_millis();
    eprintln!(
        "from kill to the first change applied, heartbeat {heartbeat}, {times} times: median {} ms, \
         longest {} ms",
        ms(took[took.len() / 2]),
        ms(took[took.len() - 1]),
    );
}

#[test]
fn the_active_is_killed_twenty_times() {
    kill_in_turns(20, "50ms");
}

#[test]
fn the_active_is_killed_at_the_default_heartbeat() {
    kill_in_turns(3, "1s");
}
