//! [`Order`]: the keys of a tree in order.

use std::collections::VecDeque;
use std::sync::Arc;

/// Keys in a chunk, at most. A chunk that is full is split in halves, unless
/// the new key comes behind all others, as they do in a snapshot.
const CHUNK: usize = 512;

/// Keys in order of their bytes, in chunks: to add or to remove one moves at
/// most half a chunk of pointers.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// None is empty.
    chunks: VecDeque<VecDeque<Arc<[u8]>>>,
}

impl Order {
    /// Adds a key that is not there.
    pub(crate) fn insert(&mut self, key: &Arc<[u8]>) {
        match self.chunks.back_mut() {
            Some(last) if last.back().is_some_and(|greatest| greatest < key) => {
                match last.len() < CHUNK {
                    true => last.push_back(Arc::clone(key)),
                    false => self.chunks.push_back(VecDeque::from([Arc::clone(key)])),
                }
            }
            Some(_) => self.insert_within(key),
            None => self.chunks.push_back(VecDeque::from([Arc::clone(key)])),
        }
    }

    fn insert_within(&mut self, key: &Arc<[u8]>) {
        let index = self.chunk_of(key);
        let chunk = &mut self.chunks[index];
        let at = chunk.partition_point(|other| other < key);
        chunk.insert(at, Arc::clone(key));
        if chunk.len() > CHUNK {
            let upper = chunk.split_off(CHUNK / 2);
            self.chunks.insert(index + 1, upper);
        }
    }

    /// Removes a key that is there.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        let index = self.chunk_of(key);
        let Some(chunk) = self.chunks.get_mut(index) else { return };
        if let Ok(at) = chunk.binary_search_by(|other| (**other).cmp(key)) {
            chunk.remove(at);
        }
        if chunk.is_empty() {
            self.chunks.remove(index);
        }
    }

    /// Takes the first key out.
    pub(crate) fn pop_first(&mut self) -> Option<Arc<[u8]>> {
        let chunk = self.chunks.front_mut()?;
        let key = chunk.pop_front();
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        key
    }

    /// The first key.
    pub(crate) fn first(&self) -> Option<&Arc<[u8]>> {
        self.chunks.front()?.front()
    }

    /// The keys from the first on for which `is_before` does not hold; it must
    /// hold for all before that and for none behind.
    pub(crate) fn from(
        &self,
        is_before: impl Fn(&[u8]) -> bool,
    ) -> impl Iterator<Item = &Arc<[u8]>> {
        let later =
            self.chunks.partition_point(|chunk| chunk.front().is_some_and(|key| is_before(key)));
        // The chunk before may begin before it and end behind it.
        let index = later.saturating_sub(1);
        let at =
            self.chunks.get(index).map_or(0, |chunk| chunk.partition_point(|key| is_before(key)));
        let rest = self.chunks.range(index.min(self.chunks.len())..);
        rest.flatten().skip(at)
    }

    /// The chunk that a key lies in, or would.
    fn chunk_of(&self, key: &[u8]) -> usize {
        let later =
            self.chunks.partition_point(|chunk| chunk.front().is_some_and(|first| **first <= *key));
        later.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u16) -> Arc<[u8]> {
        Arc::from(number.to_be_bytes().as_slice())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn is_a_set_in_order(
            rising in 0..if cfg!(miri) { 200 } else { 3000u16 },
            acts in proptest::collection::vec((any::<bool>(), 0..4000u16), 0..if cfg!(miri) { 30 } else { 300 }),
        ) {
            let (mut order, mut model) = (Order::default(), BTreeSet::new());
            for number in 0..rising {
                order.insert(&key(number));
                model.insert(key(number));
            }
            for &(inserts, number) in &acts {
                let key = key(number);
                if inserts && model.insert(Arc::clone(&key)) {
                    order.insert(&key);
                } else if !inserts && model.remove(&key) {
                    order.remove(&key);
                }
                let behind = order.from(|other| *other <= *key).next();
                prop_assert_eq!(behind, model.range(Arc::clone(&key)..).find(|other| **other != key));
            }
            prop_assert!(order.from(|_| false).eq(model.iter()));
            prop_assert_eq!(order.from(|_| true).next(), None);
            prop_assert!(order.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
            prop_assert_eq!(order.first(), model.first());
            while let Some(first) = model.pop_first() {
                prop_assert_eq!(order.pop_first(), Some(first));
            }
            prop_assert_eq!(order.pop_first(), None);
        }
    }
}
