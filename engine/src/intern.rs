//! Interning of the values of one column: each distinct (kind, text) once, numbered in order of first sight.
//!
//! The hash is keyed with a seed that differs per process, since the values come from outside; numbers do not depend
//! on it.

use std::hash::{BuildHasher, Hasher, RandomState};

/// What kind of JSON value a text was written from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A string.
    Text,
    /// A number in the form JSON writes it.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`; no text.
    Null,
    /// An object, as compact JSON if a predicate wants it, else without text.
    Object,
    /// An empty array: present, but without a value.
    Empty,
}

/// A seed for [`hash`] that nobody outside knows.
pub(crate) fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// A quick keyed hash, good enough for tables that live as long as a batch.
pub(crate) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let mut rest = bytes;
    while let Some((word, more)) = rest.split_first_chunk::<8>() {
        state = mix(state ^ u64::from_le_bytes(*word));
        rest = more;
    }
    let mut last = [0_u8; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    mix(state ^ u64::from_le_bytes(last) ^ seed.rotate_left(32))
}

fn mix(word: u64) -> u64 {
    let wide = u128::from(word) * u128::from(MULTIPLIER);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// The distinct values of a column.
#[derive(Debug)]
pub(crate) struct Interner {
    seed: u64,
    /// Open addressing; 0 is empty, else number + 1. Its length is a power of two.
    slots: Vec<u32>,
    hashes: Vec<u64>,
    /// Texts, one after the other.
    pub(crate) bytes: Vec<u8>,
    /// Start of each text in `bytes`, and the end of the last.
    pub(crate) offsets: Vec<i32>,
    pub(crate) kinds: Vec<Kind>,
}

impl Interner {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, slots: Vec::new(), hashes: Vec::new(), bytes: Vec::new(), offsets: vec![0], kinds: Vec::new() }
    }

    /// The number of a value; `None` only when the texts of one column would pass 2 GiB.
    pub(crate) fn intern(&mut self, kind: Kind, text: &str) -> Option<u32> {
        if self.hashes.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let hash = hash(self.seed ^ kind as u64, text.as_bytes());
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots.get_mut(at)?;
            let Some(number) = slot.checked_sub(1) else {
                let end = i32::try_from(self.bytes.len().checked_add(text.len())?).ok()?;
                let number = u32::try_from(self.hashes.len()).ok()?;
                *slot = number.checked_add(1)?;
                self.hashes.push(hash);
                self.bytes.extend_from_slice(text.as_bytes());
                self.offsets.push(end);
                self.kinds.push(kind);
                return Some(number);
            };
            let index = number as usize;
            if self.hashes.get(index) == Some(&hash)
                && self.kinds.get(index) == Some(&kind)
                && self.text(index) == Some(text.as_bytes())
            {
                return Some(number);
            }
            at = (at + 1) & mask;
        }
    }

    fn text(&self, index: usize) -> Option<&[u8]> {
        let (start, end) = (*self.offsets.get(index)? as usize, *self.offsets.get(index + 1)? as usize);
        self.bytes.get(start..end)
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(16);
        self.slots.clear();
        self.slots.resize(len, 0);
        for (number, hash) in (1_u32..).zip(&self.hashes) {
            let mut at = *hash as usize & (len - 1);
            while self.slots.get(at).is_some_and(|slot| *slot != 0) {
                at = (at + 1) & (len - 1);
            }
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_one_number_and_kinds_differ() {
        let mut interner = Interner::new(seed());
        let numbers: Vec<_> = (0..1_000).map(|n| interner.intern(Kind::Text, &format!("value {n}")).unwrap()).collect();
        assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
        assert_eq!(interner.intern(Kind::Text, "value 500"), Some(500));
        assert_eq!(interner.intern(Kind::Number, "5"), Some(1_000));
        assert_eq!(interner.intern(Kind::Text, "5"), Some(1_001));
        assert_eq!(interner.intern(Kind::Null, ""), Some(1_002));
        assert_eq!(interner.intern(Kind::Text, ""), Some(1_003));
        assert_eq!(interner.intern(Kind::Null, ""), Some(1_002));
    }
}
