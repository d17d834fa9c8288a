//! What is remembered of the values of one column: which atoms each hits, so that a value that comes again and again is
//! tried once.
//!
//! Memory is bounded, and a column whose values hardly ever come again is left alone. The hash is keyed with a seed that
//! differs per process, since the values come from outside; no answer depends on it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;

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

/// A quick keyed hash for tables in memory.
#[inline]
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

#[inline]
fn mix(word: u64) -> u64 {
    let wide = u128::from(word) * u128::from(MULTIPLIER);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// Most values remembered per column.
const VALUES_MAX: usize = 4_096;
/// Most bytes of their texts, per column.
const BYTES_MAX: usize = 256 << 10;
/// Longer values are not remembered.
const TEXT_MAX: usize = 1 << 10;
/// After so many lookups it is judged whether remembering helps.
const WINDOW: u32 = 512;
/// A value is remembered when it comes a second time: so many first times are kept apart.
const FIRST_TIMES: usize = 4_096;
/// For so many values it is left alone where it did not.
const PAUSE: u32 = 16_384;

/// The values of a column seen lately, and the atoms each hits.
#[derive(Debug)]
pub(crate) struct ValueCache {
    seed: u64,
    /// Open addressing; 0 is empty, else the number of the entry + 1. Its length is a power of two.
    slots: Vec<u32>,
    entries: Vec<Entry>,
    texts: Vec<u8>,
    atoms: Vec<u32>,
    /// By hash: the other half of the hash of a value that came once.
    first_times: Vec<u32>,
    looked: u32,
    known: u32,
    pause: u32,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    text: Range<u32>,
    atoms: Range<u32>,
    kind: Kind,
}

/// What is known of a value.
#[derive(Debug)]
pub(crate) enum Known<'c> {
    /// It hits these atoms.
    Hits(&'c [u32]),
    /// Nothing; tell [`ValueCache::learn`], with this hash.
    Unknown(u64),
    /// Nothing, and it is not to be remembered.
    Passing,
}

impl ValueCache {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            slots: Vec::new(),
            entries: Vec::new(),
            texts: Vec::new(),
            atoms: Vec::new(),
            first_times: Vec::new(),
            looked: 0,
            known: 0,
            pause: 0,
        }
    }

    #[inline]
    pub(crate) fn look(&mut self, kind: Kind, text: &str) -> Known<'_> {
        if self.pause > 0 {
            self.pause -= 1;
            return Known::Passing;
        }
        if text.len() > TEXT_MAX {
            return Known::Passing;
        }
        self.looked += 1;
        if self.looked == WINDOW {
            // Trying a value costs a few times what remembering it does.
            if self.known < WINDOW / 4 {
                self.pause = PAUSE;
            }
            (self.looked, self.known) = (0, 0);
        }
        let hash = hash(self.seed ^ kind as u64, text.as_bytes());
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        while let Some(number) = self.slots.get(at).and_then(|slot| slot.checked_sub(1)) {
            let Some(entry) = self.entries.get(number as usize) else { break };
            if entry.hash == hash
                && entry.kind == kind
                && self.texts.get(entry.text.start as usize..entry.text.end as usize) == Some(text.as_bytes())
            {
                self.known += 1;
                let atoms = self.atoms.get(entry.atoms.start as usize..entry.atoms.end as usize);
                return Known::Hits(atoms.unwrap_or_default());
            }
            at = (at + 1) & mask;
        }
        if self.first_times.is_empty() {
            self.first_times.resize(FIRST_TIMES, 0);
        }
        let half = (hash >> 32) as u32;
        match self.first_times.get_mut(hash as usize % FIRST_TIMES) {
            Some(first) if *first != half => {
                *first = half;
                Known::Passing
            }
            _ => Known::Unknown(hash),
        }
    }

    /// Remembers a value that [`ValueCache::look`] did not know.
    pub(crate) fn learn(&mut self, hash: u64, kind: Kind, text: &str, atoms: &[u32]) {
        // A value that hits more atoms than this would crowd out the others.
        if atoms.len() > VALUES_MAX {
            return;
        }
        if self.entries.len() >= VALUES_MAX
            || self.texts.len() + text.len() > BYTES_MAX
            || self.atoms.len() + atoms.len() > BYTES_MAX
        {
            self.slots.fill(0);
            self.entries.clear();
            self.texts.clear();
            self.atoms.clear();
        }
        if self.entries.len() * 2 >= self.slots.len() {
            self.grow();
        }
        // All of these are below the limits above.
        let place = |len: usize, more: usize| len as u32..(len + more) as u32;
        let (text_at, atoms_at) = (place(self.texts.len(), text.len()), place(self.atoms.len(), atoms.len()));
        self.texts.extend_from_slice(text.as_bytes());
        self.atoms.extend_from_slice(atoms);
        self.entries.push(Entry { hash, text: text_at, atoms: atoms_at, kind });
        self.place(hash, self.entries.len() as u32);
    }

    fn place(&mut self, hash: u64, number: u32) {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        while self.slots.get(at).is_some_and(|slot| *slot != 0) {
            at = (at + 1) & mask;
        }
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = number;
        }
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(64);
        self.slots.clear();
        self.slots.resize(len, 0);
        for number in 0..self.entries.len() {
            let hash = self.entries.get(number).map(|entry| entry.hash).unwrap_or_default();
            self.place(hash, number as u32 + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atoms(cache: &mut ValueCache, kind: Kind, text: &str) -> Option<Vec<u32>> {
        match cache.look(kind, text) {
            Known::Hits(atoms) => Some(atoms.to_vec()),
            Known::Unknown(_) | Known::Passing => None,
        }
    }

    fn learn(cache: &mut ValueCache, kind: Kind, text: &str, atoms: &[u32]) {
        cache.look(kind, text);
        if let Known::Unknown(hash) = cache.look(kind, text) {
            cache.learn(hash, kind, text, atoms);
        }
    }

    #[test]
    fn what_was_learnt_is_known_and_kinds_differ() {
        let mut cache = ValueCache::new(seed());
        for n in 0..100_u32 {
            learn(&mut cache, Kind::Text, &format!("value {n}"), &[n, n + 1]);
        }
        assert_eq!(atoms(&mut cache, Kind::Text, "value 50"), Some(vec![50, 51]));
        learn(&mut cache, Kind::Number, "5", &[7]);
        assert_eq!(atoms(&mut cache, Kind::Text, "5"), None);
        assert_eq!(atoms(&mut cache, Kind::Number, "5"), Some(vec![7]));
        learn(&mut cache, Kind::Text, "", &[]);
        assert_eq!(atoms(&mut cache, Kind::Text, ""), Some(vec![]));
        assert_eq!(atoms(&mut cache, Kind::Null, ""), None);
    }

    #[test]
    fn memory_is_bounded_and_answers_stay_right() {
        let mut cache = ValueCache::new(seed());
        for n in 0..200_000_u32 {
            let text = format!("value {}", n % 6_007);
            match cache.look(Kind::Text, &text) {
                Known::Hits(atoms) => assert_eq!(atoms, [n % 6_007]),
                Known::Unknown(hash) => cache.learn(hash, Kind::Text, &text, &[n % 6_007]),
                Known::Passing => {}
            }
            assert!(cache.entries.len() <= VALUES_MAX && cache.texts.len() <= BYTES_MAX);
        }
        assert_eq!(atoms(&mut cache, Kind::Text, &"x".repeat(TEXT_MAX + 1)), None);
    }

    #[test]
    fn values_that_never_come_again_are_not_remembered() {
        let mut cache = ValueCache::new(seed());
        for n in 0..WINDOW {
            cache.look(Kind::Text, &n.to_string());
        }
        assert!(matches!(cache.look(Kind::Text, "again"), Known::Passing));
        for _ in 1..PAUSE {
            cache.look(Kind::Text, "again");
        }
        assert!(matches!(cache.look(Kind::Text, "again"), Known::Passing));
        assert!(matches!(cache.look(Kind::Text, "again"), Known::Unknown(_)));
    }
}
