//! What must hold of each broker, whatever it is.

use std::collections::BTreeSet;

use pollux::Message;
use pollux::clone::broker::Broker;
use pollux::clone::pair::Role;
use pollux::clone::{KvMsg, Limits, Sequence, check_key};

/// A message must be one that the other side can read. What a broker tells its peer has
/// longer properties.
pub(super) fn check_message(frames: &[&[u8]]) {
    let mut limits = Limits::default();
    limits.max_properties = 64 << 10;
    if let Err(error) = KvMsg::decode(Message::new(frames), &limits) {
        panic!("sent what nobody can read: {error}: {frames:?}");
    }
}

/// The same for an answer, which can also be changes in one frame, or a snapshot in one message.
pub(super) fn check_reply(frames: &[&[u8]]) {
    match frames {
        [b"KVPUBS", changes] => assert!(!changes.is_empty()),
        [b"", groups @ ..] => {
            assert_eq!(groups.len() % 5, 0, "a whole answer is groups of five frames");
            groups.chunks(5).for_each(check_message);
        }
        _ => check_message(frames),
    }
}

/// The store is in order, its figures are those of its entries, and it keeps its limits.
pub(super) fn check_store(broker: &Broker) {
    let (store, config) = (broker.store(), broker.config());
    let (mut keys, mut bytes) = (0, 0);
    let mut sequences = BTreeSet::new();
    let mut last: Option<&[u8]> = None;
    let mut first_deadline = None;
    for entry in store.iter(b"") {
        assert!(last.is_none_or(|last| last < entry.key), "out of order");
        assert_eq!(check_key(entry.key, &Limits::default()), Ok(()));
        assert!(!entry.value.is_empty());
        assert!(entry.sequence > Sequence::ZERO && entry.sequence <= store.sequence());
        assert!(sequences.insert(entry.sequence), "two changes of one sequence");
        assert_eq!(store.get(entry.key), Some(entry));
        assert_eq!(broker.get(entry.key), Some(entry));
        let deadlines = [first_deadline, entry.deadline];
        first_deadline = deadlines.into_iter().flatten().min();
        keys += 1;
        bytes += entry.key.len() + entry.properties.as_bytes().len() + entry.value.len();
        last = Some(entry.key);
    }
    assert_eq!(store.len(), keys);
    assert!(bytes <= store.bytes() && (bytes == store.bytes() || store.tombstones() > 0));
    assert!(keys <= config.store.max_keys && store.bytes() <= config.store.max_bytes);
    assert!(store.cursors() <= config.store.max_cursors);
    assert_eq!(store.next_deadline().is_some(), first_deadline.is_some());
    assert!(store.next_deadline() <= first_deadline);
    // Who had no room for the whole of a delta has no state until it has been given another.
    assert!(store.sequence() <= broker.sequence() || broker.role() == Role::Starting);
}
