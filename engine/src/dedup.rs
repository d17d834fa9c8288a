//! Recognising the same item when it is delivered again: keyed by (source, item), remembered for at least seven days
//! of received time.
//!
//! An entry is 128 bits of SHA-256; what is remembered expires by record time, so a replay forgets at the same places.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::time::Timestamp;

/// How long an item is remembered, in received time: seven days as promised, and one for clock steps.
pub const REMEMBERED: Duration = Duration::from_secs(8 * 86_400);

/// The name of an item: 128 bits of SHA-256 over source and item.
pub type ItemHash = [u8; 16];

/// Names an item of a source.
#[must_use]
pub fn item_hash(source: &str, item: &str) -> ItemHash {
    let hash = Sha256::new()
        .chain_update((source.len() as u64).to_le_bytes())
        .chain_update(source)
        .chain_update(item)
        .finalize();
    let mut short = [0; 16];
    short.copy_from_slice(hash.get(..16).unwrap_or(&[0; 16]));
    short
}

/// What has been seen.
#[derive(Clone, Debug, Default)]
pub struct Dedup {
    first: HashMap<ItemHash, u64>,
    by_age: VecDeque<(Timestamp, ItemHash)>,
}

impl Dedup {
    /// The index of the first record of this item, if it was seen before; otherwise remembers `index` as the first.
    pub fn observe(&mut self, item: ItemHash, index: u64, received: Timestamp) -> Option<u64> {
        if let Some(first) = self.first.get(&item) {
            return Some(*first);
        }
        self.remember(item, index, received);
        None
    }

    /// Puts back what was remembered, as restoring does.
    pub fn remember(&mut self, item: ItemHash, index: u64, received: Timestamp) {
        self.first.insert(item, index);
        self.by_age.push_back((received, item));
    }

    /// Forgets what was received before `now` minus [`REMEMBERED`].
    pub fn expire(&mut self, now: Timestamp) {
        let limit = now.minus(REMEMBERED);
        while let Some((received, item)) = self.by_age.front() {
            if *received >= limit {
                break;
            }
            self.first.remove(item);
            self.by_age.pop_front();
        }
    }

    /// Everything remembered, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (ItemHash, u64, Timestamp)> {
        self.by_age.iter().filter_map(|(received, item)| Some((*item, *self.first.get(item)?, *received)))
    }

    /// How many items are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_recognised_for_seven_days_and_forgotten_after_eight() {
        let day = Duration::from_secs(86_400);
        let start = Timestamp::from_secs(1_000_000);
        let mut dedup = Dedup::default();
        let item = item_hash("a", "id:1");
        assert_eq!(dedup.observe(item, 4, start), None);
        dedup.expire(start.plus(day * 7));
        assert_eq!(dedup.observe(item, 9, start.plus(day * 7)), Some(4));
        assert_eq!(dedup.observe(item_hash("b", "id:1"), 10, start), None, "another source's item is another item");
        dedup.expire(start.plus(day * 9));
        assert_eq!(dedup.observe(item, 11, start.plus(day * 9)), None);
        assert_eq!(dedup.len(), 1);
    }
}
