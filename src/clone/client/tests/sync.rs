//! Joining, following, noticing losses, joining again.

use super::broker::{Dialect, message};
use super::world::{MS, SECOND, World};
use crate::clone::client::{ClientConfig, Event, SubtreeState, Why};
use crate::clone::kvmsg::{HUGZ, KTHXBAI};
use crate::clone::sequence::Sequence;

#[test]
fn joins_and_follows() {
    for subtrees in [&[""][..], &["/a/"], &["/a/", "/b/"], &["zz"]] {
        let mut world = World::new(Dialect::Extended, subtrees);
        world.broker.put(b"/a/1", b"one");
        world.broker.put(b"/b/1", b"two");
        world.start();
        world.run(50 * MS);
        assert!(world.client.is_current(), "{subtrees:?} {:?}", world.client);
        assert_eq!(world.milestones(), vec!["Synced"; subtrees.len()]);
        world.assert_equal();
        for key in ["/a/1", "/a/2", "/b/1", "zz"] {
            world.broker.put(key.as_bytes(), b"three");
        }
        world.broker.put(b"/a/1", b"");
        world.run(5 * MS);
        world.assert_equal();
        world.run(10 * SECOND);
        assert_eq!(world.client.stats().gaps, 0, "{subtrees:?} {:?}", world.events);
        assert!(world.client.stats().verified >= 9, "{:?}", world.client.stats());
        assert_eq!(world.broker.requests.len(), subtrees.len());
        assert_eq!(world.client.stats().unwatched, 0);
    }
}
