//! What makes no sense, or was not asked for.

use super::broker::Dialect;
use super::world::{MS, SECOND, World, frames};
use crate::clone::kvmsg::KTHXBAI;
use crate::clone::sequence::Sequence;

#[test]
fn answers_that_make_no_sense_are_counted_and_asked_for_again() {
    let ends: [(&[u8], &[u8]); 4] = [
        (b"chp=2\nnode=0000000000000abc\nmode=delta\ncount=0\n", b"/a/"),
        (b"chp=2\nnode=0000000000000abc\ncount=0\n", b"/b/"),
        (b"chp=2\nnode=0000000000000abc\ncount=7\n", b"/a/"),
        (b"chp=2\nnode=0000000000000abc\ncount=0\nrole=passive\n", b"/a/"),
    ];
    for (properties, body) in ends {
        let mut world = World::new(Dialect::Extended, &["/a/"]);
        world.broker.put(b"/a/1", b"one");
        world.net.request_delay = 50 * MS;
        world.start();
        world.run_until("the request", |world| world.client.stats().requests == 1);
        world.inject_answer(&frames(KTHXBAI, Sequence::new(1, 101), properties, body));
        let stats = world.client.stats();
        assert_eq!(stats.malformed + stats.truncated, 1, "{properties:?}");
        assert!(!world.client.is_current());
        world.run(2 * SECOND);
        assert_eq!(world.milestones(), ["Synced"]);
        world.assert_equal();
    }
}

#[test]
fn what_nobody_asked_for_is_counted() {
    let mut world = World::synced(Dialect::Extended, &["/a/"]);
    world.inject_answer(&frames(b"/a/1", Sequence::new(1, 500), b"", b"evil"));
    world.inject_answer(&frames(KTHXBAI, Sequence::new(1, 500), b"", b"/a/"));
    assert_eq!(world.client.stats().unasked, 2);
    world.inject_update(&frames(KTHXBAI, Sequence::new(1, 500), b"", b"/a/"));
    world.inject_update(&frames(b"/a/1", Sequence::ZERO, b"", b"evil"));
    world.inject_update(&[b"/a/1", b"short"]);
    assert_eq!(world.client.stats().malformed, 3);
    world.inject_update(&frames(b"/elsewhere", world.broker.sequence.next(), b"", b"x"));
    assert_eq!(world.client.stats().strays, 1);
    world.assert_equal();
    assert_eq!(world.milestones(), Vec::<String>::new());
}
