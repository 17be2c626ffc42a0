//! The map at its limits.

use super::broker::Dialect;
use super::world::{MS, SECOND, World, frames};
use crate::clone::client::ClientConfig;
use crate::clone::kvmsg::HUGZ;

#[test]
fn a_map_over_its_limit_is_never_called_current() {
    for limit in ["keys", "bytes"] {
        let mut config = ClientConfig::follow(["/a/"]);
        match limit {
            "keys" => config.max_keys = 10,
            _ => config.max_bytes = 10 * "/a/10value".len(),
        }
        let mut world = World::with(Dialect::Extended, config);
        for index in 10..20 {
            world.broker.put(format!("/a/{index}").as_bytes(), b"value");
        }
        world.start();
        world.run(SECOND);
        assert_eq!(world.milestones(), ["Synced"]);
        // A live update too many.
        world.broker.put(b"/a/20", b"value");
        world.run(SECOND);
        let milestones = world.milestones();
        assert_eq!(milestones[..3], ["Synced", "LimitReached", "Resync Limit"], "{limit}");
        assert!(!world.client.is_current());
        assert_eq!(world.client.len(), 10);
        world.run(60 * SECOND);
        assert!(!world.client.is_current());
        let requests = world.broker.requests.len();
        assert!((4..12).contains(&requests), "{requests} requests for a map that does not fit");
        world.broker.put(b"/a/10", b"");
        world.run(20 * SECOND);
        assert!(world.client.is_current());
        world.assert_equal();
    }
}

#[test]
fn a_smaller_value_fits_at_the_limit() {
    let mut config = ClientConfig::follow(["/a/"]);
    config.max_keys = 1;
    let mut world = World::with(Dialect::Extended, config);
    world.broker.put(b"/a/1", b"value");
    world.start();
    world.run(SECOND);
    world.broker.put(b"/a/1", b"less");
    world.run(SECOND);
    assert_eq!(world.client.stats().limits, 0);
    world.broker.put(b"/a/1", b"longer");
    world.run(SECOND);
    assert_eq!(world.client.stats().limits, 0, "keys are at their limit, bytes are not");
    world.assert_equal();
}

#[test]
fn entries_over_the_limit_of_a_new_run_are_taken() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    let frames = frames(
        HUGZ,
        world.broker.sequence,
        b"chp=2\nnode=0000000000000abc\nmaxval=3\nmaxkey=4\n",
        b"",
    );
    world.inject_update(&frames);
    let now = world.now();
    assert!(world.client.set(now, b"/a/1", b"long", None, &mut world.net).is_err());
    world.broker.put(b"/a/long", b"and longer");
    world.run(5 * MS);
    world.assert_equal();
}
