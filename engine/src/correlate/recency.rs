//! Distinct values by when each was last seen: what `value_count` counts and what `value_new` remembers.
//!
//! It grows with the values, not with the matches. Few values are a short list; many have a map, and an entry each in an
//! order that is put right only when somebody looks: seeing a value again touches the map alone. Where nobody has to know
//! yet whether a value is new, many are taken in together: then waiting for memory is for all of them at once.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::key::ValueId;
use crate::intern;
use crate::time::Timestamp;

/// Up to how many values a list is quicker than a map.
const FEW: usize = 32;
/// How many values wait to be taken in together.
const PENDING_MAX: usize = 64;

/// Values and when they were last seen.
#[derive(Clone, Debug)]
pub(super) enum Recency {
    /// Ordered by (time, value).
    Few(Vec<(Timestamp, ValueId)>),
    Many(Box<Many>),
}

/// Every value has one entry, in the queue or the heap, with a time it was seen at, never later than the last.
#[derive(Clone, Debug, Default)]
pub(super) struct Many {
    last: HashMap<ValueId, Timestamp, Keyed>,
    /// In the order of time: values that came in order and were not looked at as the oldest since.
    queue: VecDeque<(Timestamp, ValueId)>,
    heap: BinaryHeap<Reverse<(Timestamp, ValueId)>>,
    /// Not taken in yet, in the order they were seen in.
    pending: Vec<(Timestamp, ValueId)>,
    /// What is older is forgotten when those are taken in.
    limit: Option<Timestamp>,
}

/// Values come from outside: where they fall in a map must not be foreseeable.
#[derive(Clone, Debug)]
struct Keyed(u64);

impl Default for Keyed {
    fn default() -> Self {
        Self(intern::seed())
    }
}

impl BuildHasher for Keyed {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher(self.0)
    }
}

#[derive(Debug)]
struct KeyedHasher(u64);

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = intern::hash(self.0, bytes);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Many {
    fn of(list: Vec<(Timestamp, ValueId)>) -> Self {
        let mut many = Self::default();
        many.last.extend(list.iter().map(|(time, value)| (*value, *time)));
        many.queue = list.into();
        many
    }

    /// When the value was seen before.
    fn see(&mut self, value: ValueId, time: Timestamp) -> Option<Timestamp> {
        if let Some(last) = self.last.get_mut(&value) {
            let before = *last;
            *last = before.max(time);
            return Some(before);
        }
        self.last.insert(value, time);
        if self.queue.back().is_none_or(|(last, _)| *last <= time) {
            self.queue.push_back((time, value));
        } else {
            self.heap.push(Reverse((time, value)));
        }
        None
    }

    /// Takes in what is pending.
    fn settle(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        for (time, value) in pending.drain(..) {
            self.see(value, time);
        }
        self.pending = pending;
        if let Some(limit) = self.limit.take() {
            self.expire(limit);
        }
    }

    /// The oldest by (time, value). An entry whose value was seen again since takes its new place: at most once for each
    /// time a value was seen.
    fn oldest(&mut self) -> Option<(Timestamp, ValueId)> {
        loop {
            // Entries of one time are in no order within the queue.
            while let Some((time, value)) = self.queue.front()
                && self.heap.peek().is_none_or(|Reverse((top, _))| time <= top)
            {
                let last = self.last.get(value).copied().unwrap_or(*time);
                self.heap.push(Reverse((last, *value)));
                self.queue.pop_front();
            }
            let mut top = self.heap.peek_mut()?;
            let Reverse((time, value)) = &mut *top;
            match self.last.get(value) {
                Some(last) if last != time => *time = *last,
                _ => return Some((*time, *value)),
            }
        }
    }

    fn drop_oldest(&mut self) {
        if self.oldest().is_some()
            && let Some(Reverse((_, value))) = self.heap.pop()
        {
            self.last.remove(&value);
        }
    }

    /// Forgets values last seen before `limit`.
    fn expire(&mut self, limit: Timestamp) {
        while let Some((_, value)) = self.queue.front().filter(|(time, _)| *time < limit) {
            match self.last.get(value) {
                Some(last) if *last >= limit => self.heap.push(Reverse((*last, *value))),
                _ => {
                    self.last.remove(value);
                }
            }
            self.queue.pop_front();
        }
        while let Some(mut top) = self.heap.peek_mut().filter(|top| top.0.0 < limit) {
            let Reverse((time, value)) = &mut *top;
            match self.last.get(value) {
                Some(last) if *last >= limit => *time = *last,
                _ => {
                    self.last.remove(value);
                    PeekMut::pop(top);
                }
            }
        }
    }

    fn in_order(&self) -> Vec<(Timestamp, ValueId)> {
        if self.limit.is_some() || !self.pending.is_empty() {
            let mut settled = self.clone();
            settled.settle();
            return settled.in_order();
        }
        let mut list: Vec<_> = self.last.iter().map(|(value, time)| (*time, *value)).collect();
        list.sort_unstable();
        list
    }
}

impl Default for Recency {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Recency {
    /// How many there are.
    pub(super) fn len(&mut self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(many) => {
                many.settle();
                many.last.len()
            }
        }
    }

    /// How many there are at most: values that are pending count as new, and what they make old still counts.
    pub(super) fn len_at_most(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(many) => many.last.len() + many.pending.len(),
        }
    }

    /// As [`Recency::see`] and [`Recency::keep`], for who need not know what they say.
    pub(super) fn see_later(&mut self, value: ValueId, time: Timestamp, limit: Timestamp) {
        match self {
            Self::Few(_) => {
                self.see(value, time);
                self.keep(limit, usize::MAX);
            }
            Self::Many(many) => {
                many.pending.push((time, value));
                many.limit = Some(limit);
                if many.pending.len() >= PENDING_MAX {
                    many.settle();
                }
            }
        }
    }

    /// Takes in a value seen at a time; when it was last seen before, if it was.
    pub(super) fn see(&mut self, value: ValueId, time: Timestamp) -> Option<Timestamp> {
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
                    *self = Self::Many(Box::new(Many::of(std::mem::take(list))));
                }
                before
            }
            Self::Many(many) => {
                many.settle();
                many.see(value, time)
            }
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
                many.settle();
                many.expire(limit);
                let above = many.last.len().saturating_sub(most);
                (0..above).for_each(|_| many.drop_oldest());
                above as u64
            }
        }
    }

    /// Forgets values last seen at a time that `of` says.
    pub(super) fn forget(&mut self, of: impl Fn(Timestamp) -> bool) {
        match self {
            Self::Few(list) => list.retain(|(time, _)| !of(*time)),
            Self::Many(many) => {
                let mut list = many.in_order();
                let all = many.last.len() + many.pending.len();
                list.retain(|(time, _)| !of(*time));
                if list.len() < all {
                    **many = Many::of(list);
                }
            }
        }
    }

    /// The values, in no order.
    pub(super) fn values(&self) -> Vec<ValueId> {
        match self {
            Self::Few(list) => list.iter().map(|(_, value)| *value).collect(),
            Self::Many(many) => many.in_order().into_iter().map(|(_, value)| value).collect(),
        }
    }

    /// The value seen longest ago.
    pub(super) fn oldest(&mut self) -> Option<(Timestamp, ValueId)> {
        match self {
            Self::Few(list) => list.first().copied(),
            Self::Many(many) => {
                many.settle();
                many.oldest()
            }
        }
    }

    /// Forgets the value seen longest ago.
    pub(super) fn drop_oldest(&mut self) {
        match self {
            Self::Few(list) => {
                list.drain(..list.len().min(1));
            }
            Self::Many(many) => {
                many.settle();
                many.drop_oldest();
            }
        }
    }
}

impl Serialize for Recency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Few(list) => serializer.collect_seq(list),
            Self::Many(many) => serializer.collect_seq(many.in_order()),
        }
    }
}

impl<'de> Deserialize<'de> for Recency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::<(Timestamp, ValueId)>::deserialize(deserializer)?;
        if list.len() <= FEW {
            return Ok(Self::Few(list));
        }
        Ok(Self::Many(Box::new(Many::of(list))))
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
                if number / 100 % 2 == 1 {
                    let limit = Timestamp::from_secs(number as i64 - 100);
                    seen.see_later(value, time, limit);
                    plain.retain(|_, time| *time >= limit);
                    prop_assert!(seen.len_at_most() >= plain.len());
                    if number % 40 != 0 {
                        continue;
                    }
                } else {
                    prop_assert_eq!(seen.see(value, time), old);
                }
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
