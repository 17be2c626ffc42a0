//! Our changes: sent, sent again, answered once.

use std::time::Duration;

use super::broker::Dialect;
use super::world::{MS, SECOND, World};
use crate::clone::Collector;
use crate::clone::Uuid;
use crate::clone::client::{ClientConfig, Event, SetError};

impl World {
    /// What became of our changes, in order.
    fn answers(&self) -> Vec<(Uuid, &'static str)> {
        let answers = self.events.iter().filter_map(|event| {
            Some(match event {
                Event::Applied { uuid, .. } => (*uuid, "applied"),
                Event::Refused { uuid, .. } => (*uuid, "refused"),
                Event::Superseded { uuid, .. } => (*uuid, "superseded"),
                Event::TimedOut { uuid, sent: true } => (*uuid, "timed out"),
                Event::TimedOut { uuid, sent: false } => (*uuid, "never sent"),
                _ => return None,
            })
        });
        answers.collect()
    }
}

#[test]
fn a_change_is_applied_when_its_echo_comes() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    assert_eq!(world.net.collector, Some(Collector::Pull));
    let uuid = world.set("/a/1", "new");
    assert_eq!(uuid.as_bytes()[6] >> 4, 8, "a uuid of version 8");
    assert_eq!(uuid.as_bytes()[8] >> 6, 2, "of RFC 9562");
    assert_eq!(world.client.get_local(b"/a/1"), Some(&b"new"[..]));
    assert_eq!(world.client.get(b"/a/1").map(|entry| entry.value), Some(&b"old"[..]));
    world.run(2 * MS);
    assert_eq!(world.answers(), [(uuid, "applied")]);
    assert_eq!(world.client.get(b"/a/1").map(|entry| entry.value), Some(&b"new"[..]));
    assert_eq!(world.client.pending(), 0);
}
