//! The groups of one rule: found by key, let go in the order of their last signal, without ever visiting all of them.
//!
//! A slab with an index of open addressing over it and a list through it. The hash is keyed per process, since keys come
//! from outside; nothing is ever read in its order.

use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::intern;
use crate::time::Timestamp;

const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Slot<T> {
    key: Box<str>,
    last: Timestamp,
    hash: u32,
    before: u32,
    after: u32,
    value: T,
}

/// Groups by key, in the order in which they were last touched.
#[derive(Clone, Debug)]
pub(super) struct Groups<T> {
    seed: u64,
    /// Slot + 1, or 0 for nothing. Its length is a power of two.
    index: Vec<u32>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
}

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self {
            seed: intern::seed(),
            index: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
        }
    }
}

impl<T: Default> Groups<T> {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn hash(&self, key: &str) -> u32 {
        (intern::hash(self.seed, key.as_bytes()) >> 16) as u32
    }

    fn place(&self, key: &str, hash: u32) -> Option<usize> {
        let mask = self.index.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots.get(self.index.get(at)?.checked_sub(1)? as usize)?;
            if slot.hash == hash && *slot.key == *key {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }

    /// The slot of a key.
    pub(super) fn find(&self, key: &str) -> Option<u32> {
        self.place(key, self.hash(key)).and_then(|at| self.index.get(at)?.checked_sub(1))
    }

    /// The slot of a key, and when it was last touched before; a new one if there is none.
    pub(super) fn touch(&mut self, key: &str, time: Timestamp) -> (u32, Option<Timestamp>) {
        let hash = self.hash(key);
        let found = self.place(key, hash).and_then(|at| self.index.get(at)?.checked_sub(1));
        if let Some(slot) = found {
            self.unlink(slot);
            self.link(slot);
            let before = self.slots.get_mut(slot as usize).map(|slot| {
                let before = slot.last;
                slot.last = before.max(time);
                before
            });
            return (slot, before);
        }
        if (self.len() + 1) * 4 > self.index.len() * 3 {
            self.grow();
        }
        let new = Slot { key: key.into(), last: time, hash, before: NONE, after: NONE, value: T::default() };
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.slots.get_mut(slot as usize) {
                    *place = new;
                }
                slot
            }
            None => {
                self.slots.push(new);
                u32::try_from(self.slots.len() - 1).unwrap_or(NONE - 1)
            }
        };
        self.enter(slot, hash);
        self.link(slot);
        (slot, None)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize).map(|slot| &mut slot.value)
    }

    /// The group that was touched longest ago, and when.
    pub(super) fn oldest(&self) -> Option<(u32, Timestamp)> {
        self.slots.get(self.oldest as usize).map(|slot| (self.oldest, slot.last))
    }

    /// The slot of the group that was touched next after this one.
    pub(super) fn after(&self, slot: u32) -> Option<u32> {
        self.slots.get(slot as usize).map(|slot| slot.after).filter(|after| *after != NONE)
    }

    /// Shows one group; what `see` says, false where there is none.
    pub(super) fn visit(&mut self, slot: u32, see: impl FnOnce(&str, Timestamp, &mut T) -> bool) -> bool {
        self.slots.get_mut(slot as usize).is_some_and(|slot| see(&slot.key, slot.last, &mut slot.value))
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let Some((key, hash)) = self.slots.get(slot as usize).map(|slot| (slot.key.clone(), slot.hash)) else { return };
        let Some(mut gap) = self.place(&key, hash) else { return };
        self.unlink(slot);
        if let Some(place) = self.slots.get_mut(slot as usize) {
            place.key = Box::default();
            place.value = T::default();
        }
        self.free.push(slot);
        // What follows the gap moves up where it belongs before it.
        let mask = self.index.len() - 1;
        let mut at = (gap + 1) & mask;
        while let Some(entry) = self.index.get(at).copied().filter(|entry| *entry != 0) {
            let home = self.slots.get(entry as usize - 1).map_or(at, |slot| slot.hash as usize & mask);
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                if let Some(place) = self.index.get_mut(gap) {
                    *place = entry;
                }
                gap = at;
            }
            at = (at + 1) & mask;
        }
        if let Some(place) = self.index.get_mut(gap) {
            *place = 0;
        }
    }

    /// Every group, the one touched longest ago first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Timestamp, &T)> {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            let slot = self.slots.get(at as usize)?;
            at = slot.after;
            Some((&*slot.key, slot.last, &slot.value))
        })
    }

    fn link(&mut self, slot: u32) {
        let before = self.newest;
        if let Some(place) = self.slots.get_mut(slot as usize) {
            place.before = before;
            place.after = NONE;
        }
        match self.slots.get_mut(before as usize) {
            Some(place) => place.after = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
    }

    fn unlink(&mut self, slot: u32) {
        let Some((before, after)) = self.slots.get(slot as usize).map(|slot| (slot.before, slot.after)) else { return };
        match self.slots.get_mut(before as usize) {
            Some(place) => place.after = after,
            None => self.oldest = after,
        }
        match self.slots.get_mut(after as usize) {
            Some(place) => place.before = before,
            None => self.newest = before,
        }
    }

    fn enter(&mut self, slot: u32, hash: u32) {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        while self.index.get(at).is_some_and(|entry| *entry != 0) {
            at = (at + 1) & mask;
        }
        if let Some(place) = self.index.get_mut(at) {
            *place = slot + 1;
        }
    }

    fn grow(&mut self) {
        let len = (self.index.len() * 2).max(8);
        self.index.clear();
        self.index.resize(len, 0);
        let mut at = self.oldest;
        while let Some((hash, after)) = self.slots.get(at as usize).map(|slot| (slot.hash, slot.after)) {
            self.enter(at, hash);
            at = after;
        }
    }
}

impl<T: Serialize + Default> Serialize for Groups<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.len()))?;
        for group in self.iter() {
            list.serialize_element(&group)?;
        }
        list.end()
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Groups<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Default> serde::de::Visitor<'de> for Visitor<T> {
            type Value = Groups<T>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("groups")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Groups<T>, A::Error> {
                let mut groups = Groups::default();
                while let Some((key, last, value)) = list.next_element::<(Box<str>, Timestamp, T)>()? {
                    let (slot, _) = groups.touch(&key, last);
                    if let Some(place) = groups.get_mut(slot) {
                        *place = value;
                    }
                }
                Ok(groups)
            }
        }
        deserializer.deserialize_seq(Visitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_plain_list(steps in proptest::collection::vec((0_u8..40, 0_u8..4), 0..400)) {
            let mut groups: Groups<u32> = Groups::default();
            let mut plain: Vec<(String, u32)> = Vec::new();
            for (number, (key, what)) in steps.into_iter().enumerate() {
                let key = format!("k{key}");
                if what == 0 {
                    if let Some((slot, _)) = groups.oldest() {
                        groups.remove(slot);
                        plain.remove(0);
                    }
                } else if what == 1 {
                    if let Some(slot) = groups.find(&key) {
                        groups.remove(slot);
                        plain.retain(|(name, _)| *name != key);
                    }
                } else {
                    let (slot, before) = groups.touch(&key, Timestamp::from_secs(number as i64));
                    let value = groups.get_mut(slot).unwrap();
                    let at = plain.iter().position(|(name, _)| *name == key);
                    prop_assert_eq!(at.is_some(), before.is_some());
                    let mut entry = at.map_or((key, 0), |at| plain.remove(at));
                    prop_assert_eq!(*value, entry.1);
                    entry.1 = number as u32;
                    *value = entry.1;
                    plain.push(entry);
                }
                let all: Vec<_> = groups.iter().map(|(key, _, value)| (key.to_owned(), *value)).collect();
                prop_assert_eq!(&all, &plain);
                prop_assert!(plain.iter().all(|(key, _)| groups.find(key).is_some()));
                prop_assert_eq!(groups.len(), plain.len());
            }
        }
    }
}
