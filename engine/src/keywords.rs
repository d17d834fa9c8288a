//! Which events may hold a keyword. Keywords are looked for in every value of an event, while hardly any event holds one:
//! one look at every four bytes of its text spares most events the rest.
//!
//! It errs on the side of looking: where it sees nothing, no rule with keywords can match; where it sees something, all
//! values of the event are tried.

use std::collections::{BTreeMap, BTreeSet};

/// Bits of the hash of four bytes, and how many there are.
const HASH_BITS: u32 = 17;
const WORDS: usize = 1 << (HASH_BITS - 6);

/// What is left of each keyword that can be looked for: lower-case ASCII that is written in JSON as it is.
#[derive(Debug)]
pub(crate) struct KeywordFilter {
    bits: Box<[u64; WORDS]>,
    /// By four bytes: the keywords they are from, and where in each they stand.
    grams: BTreeMap<u32, Vec<(Box<[u8]>, usize)>>,
}

/// The longest part of a folded keyword that can be looked for in the text of an event; `None` if it is too short.
pub(crate) fn part(keyword: &str) -> Option<&str> {
    let plain = |char: char| char.is_ascii() && !char.is_ascii_control() && !matches!(char, '"' | '\\' | '/');
    let parts = keyword.split(|char| !plain(char));
    parts.max_by_key(|part| part.len()).filter(|part| part.len() >= 3)
}

impl KeywordFilter {
    /// A filter for [`part`]s of keywords.
    pub(crate) fn new(parts: &BTreeSet<String>) -> Self {
        let mut filter = Self { bits: Box::new([0; WORDS]), grams: BTreeMap::new() };
        for part in parts {
            let lower = part.to_ascii_lowercase().into_bytes();
            let rarity = |gram: &[u8]| gram.iter().filter(|byte| !byte.is_ascii_alphanumeric()).count();
            match lower.windows(4).enumerate().max_by_key(|(_, gram)| rarity(gram)) {
                Some((offset, gram)) => filter.add(gram, &lower, offset),
                // Three bytes, and whatever follows them: something always does, if only a bracket.
                None => (0..=u8::MAX).for_each(|next| {
                    let gram: Vec<u8> = lower.iter().copied().chain([next]).collect();
                    filter.add(&gram, &lower, 0);
                }),
            }
        }
        filter
    }

    fn add(&mut self, gram: &[u8], part: &[u8], offset: usize) {
        let Some(gram) = gram.first_chunk::<4>() else { return };
        let word = u32::from_le_bytes(*gram);
        let hash = hash(word);
        if let Some(bits) = self.bits.get_mut((hash >> 6) as usize) {
            *bits |= 1 << (hash & 63);
        }
        self.grams.entry(word).or_default().push((part.into(), offset));
    }

    /// Whether a keyword may be in the text of an event, given in lower case.
    pub(crate) fn sees(&self, lower: &[u8]) -> bool {
        if !lower.is_ascii() {
            // Some letters fold to ASCII ones.
            return true;
        }
        for (at, gram) in lower.array_windows::<4>().enumerate() {
            let word = u32::from_le_bytes(*gram);
            let hash = hash(word);
            let bits = self.bits.get((hash >> 6) as usize).copied().unwrap_or_default();
            if bits >> (hash & 63) & 1 == 1 && self.confirms(word, lower, at) {
                return true;
            }
        }
        false
    }

    fn confirms(&self, word: u32, lower: &[u8], at: usize) -> bool {
        let held = |(part, offset): &(Box<[u8]>, usize)| {
            at.checked_sub(*offset).and_then(|start| lower.get(start..)).is_some_and(|text| text.starts_with(part))
        };
        self.grams.get(&word).is_some_and(|parts| parts.iter().any(held))
    }
}

fn hash(word: u32) -> u32 {
    word.wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_seen_wherever_they_stand() {
        let parts: BTreeSet<String> = ["drop", "={{", "or 1=1#", "union select"].map(str::to_owned).into();
        let filter = KeywordFilter::new(&parts);
        for text in [r#"{"a":"drop"}"#, r#"{"a":"x={{"}"#, r#"{"a":" or 1=1#"}"#, "union select x", "a={{}", "{\"ä\":1}"] {
            assert!(filter.sees(text.as_bytes()), "{text}");
        }
        for text in [r#"{"a":"dro","b":"p"}"#, "={", "", "dro", r#"{"a":"union  select or 1=1"}"#] {
            assert!(!filter.sees(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn only_what_json_writes_as_it_is_can_be_looked_for() {
        assert_eq!(part(" onload=\""), Some(" onload="));
        assert_eq!(part("/tmui/control/form"), Some("control"));
        assert_eq!(part("/${#"), Some("${#"));
        assert_eq!(part("äöü-ab"), Some("-ab"));
        assert_eq!(part("a/b"), None);
        assert_eq!(part(""), None);
    }
}
