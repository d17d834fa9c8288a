//! Distinct values by when each was last seen: what `value_count` counts and what `value_new` remembers.
//!
//! It grows with the values, not with the matches. Few values are a short list; many have a map beside an order.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::key::ValueId;
use crate::time::Timestamp;

/// Up to how many values a list is quicker than a map.
const FEW: usize = 32;

/// Values and when they were last seen.
#[derive(Clone, Debug)]
pub(super) enum Recency {
    /// Ordered by (time, value).
    Few(Vec<(Timestamp, ValueId)>),
    Many(Box<Many>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Many {
    last: HashMap<ValueId, Timestamp>,
    order: BTreeSet<(Timestamp, ValueId)>,
}

impl Default for Recency {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Recency {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(many) => many.last.len(),
        }
    }

    /// Takes in a value seen at a time; true if it was not there.
    pub(super) fn see(&mut self, value: ValueId, time: Timestamp) -> bool {
        match self {
            Self::Few(list) => {
                let at = list.iter().position(|(_, other)| *other == value);
                let before = at.map(|at| list.remove(at).0);
                let entry = (before.map_or(time, |before| before.max(time)), value);
                if list.capacity() == 0 {
                    list.reserve_exact(1);
                }
                let place = list.partition_point(|other| *other < entry);
                list.insert(place, entry);
                if list.len() > FEW {
                    let last = list.iter().map(|(time, value)| (*value, *time)).collect();
                    *self = Self::Many(Box::new(Many { last, order: std::mem::take(list).into_iter().collect() }));
                }
                before.is_none()
            }
            Self::Many(many) => match many.last.get_mut(&value) {
                Some(before) => {
                    if *before < time {
                        many.order.remove(&(*before, value));
                        many.order.insert((time, value));
                        *before = time;
                    }
                    false
                }
                None => {
                    many.last.insert(value, time);
                    many.order.insert((time, value));
                    true
                }
            },
        }
    }

    /// Forgets values last seen before `limit`, and of the others the oldest above `most`; gives how many those were.
    pub(super) fn keep(&mut self, limit: Timestamp, most: usize) -> u64 {
        match self {
            Self::Few(list) => {
                let old = list.partition_point(|(time, _)| *time < limit);
                let above = (list.len() - old).saturating_sub(most);
                list.drain(..old + above);
                above as u64
            }
            Self::Many(many) => {
                let mut above = 0;
                while let Some((time, value)) = many.order.first().copied() {
                    if time >= limit {
                        if many.order.len() <= most {
                            break;
                        }
                        above += 1;
                    }
                    many.order.pop_first();
                    many.last.remove(&value);
                }
                above
            }
        }
    }

    /// The value seen longest ago.
    pub(super) fn oldest(&self) -> Option<(Timestamp, ValueId)> {
        match self {
            Self::Few(list) => list.first().copied(),
            Self::Many(many) => many.order.first().copied(),
        }
    }

    /// Forgets the value seen longest ago.
    pub(super) fn drop_oldest(&mut self) {
        match self {
            Self::Few(list) => {
                list.drain(..list.len().min(1));
            }
            Self::Many(many) => {
                if let Some((_, value)) = many.order.pop_first() {
                    many.last.remove(&value);
                }
            }
        }
    }
}

impl Serialize for Recency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Few(list) => serializer.collect_seq(list),
            Self::Many(many) => serializer.collect_seq(&many.order),
        }
    }
}

impl<'de> Deserialize<'de> for Recency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::<(Timestamp, ValueId)>::deserialize(deserializer)?;
        if list.len() <= FEW {
            return Ok(Self::Few(list));
        }
        let last = list.iter().map(|(time, value)| (*value, *time)).collect();
        Ok(Self::Many(Box::new(Many { last, order: list.into_iter().collect() })))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn few_and_many_behave_like_a_map(steps in proptest::collection::vec((0_u16..80, 0_i64..50), 0..500)) {
            let mut seen = Recency::default();
            let mut plain: BTreeMap<ValueId, Timestamp> = BTreeMap::new();
            for (number, (value, behind)) in steps.into_iter().enumerate() {
                let time = Timestamp::from_secs(number as i64 - behind);
                let value = ValueId::of(&value.to_string());
                let old = plain.insert(value, time.max(plain.get(&value).copied().unwrap_or(time)));
                prop_assert_eq!(seen.see(value, time), old.is_none());
                if number % 7 == 0 {
                    let limit = Timestamp::from_secs(number as i64 - 60);
                    seen.keep(limit, usize::MAX);
                    plain.retain(|_, time| *time >= limit);
                }
                prop_assert_eq!(seen.len(), plain.len());
                let oldest = plain.iter().map(|(value, time)| (*time, *value)).min();
                prop_assert_eq!(seen.oldest(), oldest);
            }
            let bytes = postcard::to_stdvec(&seen).unwrap();
            let mut again: Recency = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(again.keep(Timestamp::MIN, 3), plain.len().saturating_sub(3) as u64);
        }
    }
}
