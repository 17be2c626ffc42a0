//! What the store takes beyond keys and values.

use pollux::clone::kvmsg::Uuid;
use pollux::clone::properties::Properties;
use pollux::clone::sequence::Sequence;
use pollux::clone::store::{Change, Store, StoreLimits};

use super::common::alloc;
use super::outcome::Outcome;

const KEYS: u64 = 1_000_000;
const VALUE: [u8; 100] = [0x5a; 100];

/// Bytes of heap for each key, its uuid included, each block rounded up as
/// malloc(3) does.
pub(crate) fn store_bytes_per_key() -> Vec<Outcome> {
    let before = alloc::bytes();
    let mut limits = StoreLimits::default();
    (limits.max_keys, limits.max_bytes) = (KEYS as usize, usize::MAX);
    let mut store = Store::new(limits, Sequence::ZERO);
    let mut content = 0;
    for number in 0..KEYS {
        let key = format!("/memory/{number:08}");
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&number.to_be_bytes());
        content += key.len() + VALUE.len();
        store
            .put(&Change {
                key: key.as_bytes(),
                sequence: Sequence::new(1, number + 1),
                uuid: Some(Uuid::from_bytes(uuid)),
                properties: Properties::EMPTY,
                value: &VALUE,
                deadline: None,
            })
            .expect("there is room");
    }
    let held = alloc::bytes() - before;
    let beyond = (held - content as i64) as f64 / KEYS as f64;
    let figures =
        format!("{} MB for {} MB of keys and values", held / 1_000_000, content / 1_000_000);
    assert_eq!(store.len() as u64, KEYS);
    vec![Outcome::new("store_bytes_per_key", beyond, figures)]
}
