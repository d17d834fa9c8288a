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
    parts: Vec<Box<[u8]>>,
    /// By four bytes: the parts they are from, and where in each they stand; before the start of one at -1.
    grams: BTreeMap<u32, Vec<(usize, isize)>>,
}

/// The longest part of a folded keyword that can be looked for in the text of an event; `None` if it is too short.
pub(crate) fn part(keyword: &str) -> Option<&str> {
    let plain = |char: char| char.is_ascii() && !char.is_ascii_control() && !matches!(char, '"' | '\\');
    let parts = keyword.split(|char| !plain(char));
    parts.max_by_key(|part| part.len()).filter(|part| part.len() >= 3)
}

impl KeywordFilter {
    /// A filter for [`part`]s of keywords.
    pub(crate) fn new(parts: &BTreeSet<String>) -> Self {
        let mut filter = Self { bits: Box::new([0; WORDS]), parts: Vec::new(), grams: BTreeMap::new() };
        for part in parts {
            let lower = part.to_ascii_lowercase().into_bytes();
            filter.add_part(&lower);
            filter.parts.push(lower.into());
        }
        filter
    }

    /// Only every second place of a text is looked at, so of each part there are four bytes for both cases.
    fn add_part(&mut self, part: &[u8]) {
        let rarity = |bytes: &[u8]| bytes.iter().filter(|byte| !byte.is_ascii_alphanumeric()).count();
        if let Some((at, five)) = part.windows(5).enumerate().max_by_key(|(_, five)| rarity(five)) {
            for (more, gram) in five.windows(4).enumerate() {
                self.add(gram, (at + more) as isize);
            }
            return;
        }
        // What stands before and after a short one in JSON: anything in a string, or what may surround a number.
        for other in (0x20..0x80).chain(*b"\t\n\r") {
            let before: Vec<u8> = [other].into_iter().chain(part.iter().copied()).collect();
            let after: Vec<u8> = part.iter().copied().chain([other]).collect();
            self.add(before.get(..4).unwrap_or_default(), -1);
            self.add(after.get(..4).unwrap_or_default(), 0);
        }
    }

    fn add(&mut self, gram: &[u8], offset: isize) {
        let Some(gram) = gram.first_chunk::<4>() else { return };
        let word = u32::from_le_bytes(*gram);
        let hash = hash(word);
        if let Some(bits) = self.bits.get_mut((hash >> 6) as usize) {
            *bits |= 1 << (hash & 63);
        }
        let part = (self.parts.len(), offset);
        let known = self.grams.entry(word).or_default();
        if !known.contains(&part) {
            known.push(part);
        }
    }

    /// Whether a keyword may be in the text of an event, given in lower case.
    pub(crate) fn sees(&self, lower: &[u8]) -> bool {
        if !lower.is_ascii() {
            // Some letters fold to ASCII ones.
            return true;
        }
        // A slash is the one character of a part that may be written as an escape.
        if memchr::memmem::find(lower, b"\\/").is_some() {
            return true;
        }
        for (half, gram) in lower.array_windows::<4>().step_by(2).enumerate() {
            let word = u32::from_le_bytes(*gram);
            let hash = hash(word);
            let bits = self.bits.get((hash >> 6) as usize).copied().unwrap_or_default();
            if bits >> (hash & 63) & 1 == 1 && self.confirms(word, lower, half * 2) {
                return true;
            }
        }
        false
    }

    fn confirms(&self, word: u32, lower: &[u8], at: usize) -> bool {
        let held = |(part, offset): &(usize, isize)| {
            let part = self.parts.get(*part).map_or(&[][..], |part| part);
            at.checked_add_signed(-offset).and_then(|start| lower.get(start..)).is_some_and(|text| text.starts_with(part))
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
        for text in [r#"{"a":"drop"}"#, r#"{"a":"x={{"}"#, r#"{"a":" or 1=1#"}"#, "union select x", "a={{}", "{\"ä\":1}", "[\"\\/\"]"] {
            assert!(filter.sees(text.as_bytes()), "{text}");
        }
        for text in [r#"{"a":"dro","b":"p"}"#, "={", "", "dro", r#"{"a":"union  select or 1=1"}"#] {
            assert!(!filter.sees(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn keywords_are_seen_at_every_place() {
        for part in ["abc", "abcd", "abcde", "abcdefgh", "=b={"] {
            let filter = KeywordFilter::new(&[part.to_owned()].into());
            for before in 0..9 {
                for (open, close) in [("\"", "\""), ("\"x", "y\""), (":", "\n"), ("\"Z", " \"")] {
                    let text = format!("[{}{open}{part}{close}]", " ".repeat(before)).to_ascii_lowercase();
                    assert!(filter.sees(text.as_bytes()), "{text}");
                    let other = text.replace(part, part.get(1..).unwrap());
                    assert!(!filter.sees(other.as_bytes()), "{other}");
                }
            }
        }
    }

    #[test]
    fn only_what_json_writes_as_it_is_can_be_looked_for() {
        assert_eq!(part(" onload=\""), Some(" onload="));
        assert_eq!(part("c:\\windows\\x"), Some("windows"));
        assert_eq!(part("äöü-ab"), Some("-ab"));
        assert_eq!(part("a\\b"), None);
        assert_eq!(part(""), None);
    }
}
