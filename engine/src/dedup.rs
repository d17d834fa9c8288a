//! Recognising the same item when it is delivered again: keyed by (source, item), remembered for at least seven days
//! of received time.
//!
//! An entry is 128 bits of SHA-256; what is remembered expires by record time, so a replay forgets at the same places. Only so
//! many items are held here: beyond that they are handed over to the store, all at once, and whoever feeds the detector asks the store
//! which of the items to come it has seen. Where an item is held decides nothing.

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

/// The first record of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// Its index.
    pub index: u64,
    /// Record time at which it was received.
    pub received: Timestamp,
}

/// Items with their first records, sorted by name.
pub type Items = Vec<(ItemHash, First)>;

/// Items that a store remembers, those that were asked for.
pub type Known = HashMap<ItemHash, First>;

/// What has been seen.
#[derive(Clone, Debug, Default)]
pub struct Dedup {
    first: HashMap<ItemHash, u64>,
    by_age: VecDeque<(Timestamp, ItemHash)>,
}

impl Dedup {
    /// The index of the first record of this item, if it was seen before and is in `known` or held here; otherwise remembers `index`
    /// as the first.
    pub fn observe(&mut self, item: ItemHash, index: u64, received: Timestamp, known: &Known) -> Option<u64> {
        if let Some(first) = self.first.get(&item) {
            return Some(*first);
        }
        if let Some(first) = known.get(&item).filter(|first| first.received >= received.minus(REMEMBERED)) {
            return Some(first.index);
        }
        self.remember(item, index, received);
        None
    }

    /// Whether an item is held here.
    #[must_use]
    pub fn holds(&self, item: &ItemHash) -> bool {
        self.first.contains_key(item)
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

    /// Lets go of everything that is held, for a store to remember.
    pub fn hand_over(&mut self) -> Items {
        let mut items: Items = self.iter().map(|(item, index, received)| (item, First { index, received })).collect();
        items.sort_unstable_by_key(|(item, _)| *item);
        // Memory is given back as well.
        *self = Self::default();
        items
    }

    /// Everything held, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (ItemHash, u64, Timestamp)> {
        self.by_age.iter().filter_map(|(received, item)| Some((*item, *self.first.get(item)?, *received)))
    }

    /// How many items are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn an_item_is_recognised_for_seven_days_and_forgotten_after_eight() {
        let (start, nobody) = (Timestamp::from_secs(1_000_000), Known::new());
        let mut dedup = Dedup::default();
        let item = item_hash("a", "id:1");
        assert_eq!(dedup.observe(item, 4, start, &nobody), None);
        dedup.expire(start.plus(DAY * 7));
        assert_eq!(dedup.observe(item, 9, start.plus(DAY * 7), &nobody), Some(4));
        let other = item_hash("b", "id:1");
        assert_eq!(dedup.observe(other, 10, start, &nobody), None, "another source's item is another item");
        dedup.expire(start.plus(DAY * 9));
        assert_eq!(dedup.observe(item, 11, start.plus(DAY * 9), &nobody), None);
        assert_eq!(dedup.len(), 1);
    }

    proptest! {
        /// Handing items over, at any moment, changes no verdict.
        #[test]
        fn where_an_item_is_held_decides_nothing(
            steps in prop::collection::vec((0..12_u8, 0..30_u64, any::<bool>()), 1..80),
        ) {
            let (mut alone, mut handing) = (Dedup::default(), Dedup::default());
            let mut store: Vec<Items> = Vec::new();
            let mut now = Timestamp::from_secs(1_000_000);
            for (index, (item, hours, hands_over)) in (0_u64..).zip(steps) {
                now = now.plus(Duration::from_secs(hours * 3_600));
                let item = item_hash("a", &item.to_string());
                let mut known = Known::new();
                // The last set that has it tells of it.
                known.extend(store.iter().flatten().filter(|(of, _)| *of == item).copied());
                alone.expire(now);
                handing.expire(now);
                prop_assert_eq!(
                    alone.observe(item, index, now, &Known::new()),
                    handing.observe(item, index, now, &known)
                );
                if hands_over {
                    store.push(handing.hand_over());
                    prop_assert!(handing.is_empty());
                }
            }
        }
    }
}
