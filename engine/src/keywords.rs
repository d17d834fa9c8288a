//! Which events may hold a keyword. Keywords are looked for in every value of an event, while hardly any event holds one:
//! one look at every four bytes of its text spares most events the rest.
//!
//! It errs on the side of looking: where it sees nothing, no rule with keywords can match. Where it sees something, the
//! values at those places are tried, or all of the event where they alone would not decide.

use std::collections::BTreeMap;

/// Bits of the hash of four bytes, and how many there are.
const HASH_BITS: u32 = 17;
const WORDS: usize = 1 << (HASH_BITS - 6);
/// With more places than this, all values are tried.
const PLACES_MAX: usize = 32;

/// What is left of each keyword that can be looked for: lower-case ASCII that is written in JSON as it is.
#[derive(Debug)]
pub(crate) struct KeywordFilter {
    bits: Box<[u64; WORDS]>,
    /// The same by another hash, asked second.
    second: Box<[u64; WORDS]>,
    /// Each part, and whether the values it is in decide for the rules it is from.
    parts: Vec<(Box<[u8]>, bool)>,
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
    /// A filter for [`part`]s of keywords; of each it is said whether the values it is in decide alone: whether of the
    /// rules it is from every keyword is looked for.
    pub(crate) fn new(parts: BTreeMap<String, bool>) -> Self {
        let empty = || Box::new([0; WORDS]);
        let mut filter = Self { bits: empty(), second: empty(), parts: Vec::new(), grams: BTreeMap::new() };
        for (part, decides) in parts {
            let lower = part.to_ascii_lowercase().into_bytes();
            filter.add_part(&lower);
            filter.parts.push((lower.into(), decides));
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
        for (bits, hash) in [(&mut self.bits, hash(word)), (&mut self.second, second_hash(word))] {
            if let Some(bits) = bits.get_mut((hash >> 6) as usize) {
                *bits |= 1 << (hash & 63);
            }
        }
        let part = (self.parts.len(), offset);
        let known = self.grams.entry(word).or_default();
        if !known.contains(&part) {
            known.push(part);
        }
    }

    /// Looks for keywords in the text of an event, given in lower case. Adds the places where some may be, and says true
    /// where all values have to be tried.
    #[inline(never)]
    pub(crate) fn look(&self, lower: &[u8], places: &mut Vec<u32>) -> bool {
        // Some other letters fold to ASCII ones. A slash is the one character of a part that may be written as an escape.
        if !lower.is_ascii() || memchr::memchr_iter(b'\\', lower).any(|at| lower.get(at + 1) == Some(&b'/')) {
            return true;
        }
        let bits = &*self.bits;
        for (half, gram) in lower.array_windows::<4>().step_by(2).enumerate() {
            let word = u32::from_le_bytes(*gram);
            if has(bits, hash(word))
                && has(&self.second, second_hash(word))
                && self.confirm(word, lower, half * 2, places)
            {
                return true;
            }
        }
        places.len() > PLACES_MAX
    }

    #[cold]
    fn confirm(&self, word: u32, lower: &[u8], at: usize, places: &mut Vec<u32>) -> bool {
        for (part, offset) in self.grams.get(&word).into_iter().flatten() {
            let Some((part, decides)) = self.parts.get(*part) else { continue };
            let Some(start) = at.checked_add_signed(-offset) else { continue };
            if lower.get(start..).is_some_and(|text| text.starts_with(part)) {
                if !decides {
                    return true;
                }
                // An event is far shorter than 4 GiB; the parser has refused longer ones.
                places.push(start as u32);
            }
        }
        false
    }
}

fn has(bits: &[u64; WORDS], hash: u32) -> bool {
    bits.get((hash >> 6) as usize).copied().unwrap_or_default() >> (hash & 63) & 1 == 1
}

fn second_hash(word: u32) -> u32 {
    word.wrapping_mul(0x85EB_CA6B) >> (32 - HASH_BITS)
}

fn hash(word: u32) -> u32 {
    word.wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(parts: &[&str]) -> KeywordFilter {
        KeywordFilter::new(parts.iter().map(|part| ((*part).to_owned(), true)).collect())
    }

    /// Where keywords may be, or `None` for anywhere.
    fn places(filter: &KeywordFilter, text: &str) -> Option<Vec<u32>> {
        let mut places = Vec::new();
        (!filter.look(text.as_bytes(), &mut places)).then_some(places)
    }

    #[test]
    fn keywords_are_seen_where_they_stand() {
        let filter = filter(&["drop", "={{", "or 1=1#", "union select"]);
        for (text, at) in [
            (r#"{"a":"drop"}"#, vec![6]),
            (r#"{"a":"x={{"}"#, vec![7]),
            (r#"{"a":" or 1=1#"}"#, vec![7]),
            ("union select x", vec![0]),
            ("a={{}={{}", vec![1, 5]),
            (r#"{"a":"dro","b":"p"}"#, vec![]),
            ("={", vec![]),
            ("", vec![]),
            ("dro", vec![]),
            (r#"{"a":"union  select or 1=1"}"#, vec![]),
        ] {
            assert_eq!(places(&filter, text), Some(at), "{text}");
        }
        assert_eq!(places(&filter, "{\"ä\":1}"), None);
        assert_eq!(places(&filter, r#"["\/"]"#), None);
        assert_eq!(places(&filter, &"drop ".repeat(100)), None);
        let undecided = KeywordFilter::new([("drop".to_owned(), false)].into());
        assert_eq!(places(&undecided, r#"["drop"]"#), None);
        assert_eq!(places(&undecided, r#"["dro"]"#), Some(vec![]));
    }

    #[test]
    fn keywords_are_seen_at_every_place() {
        for part in ["abc", "abcd", "abcde", "abcdefgh", "=b={"] {
            let filter = filter(&[part]);
            for before in 0..9 {
                for (open, close) in [("\"", "\""), ("\"x", "y\""), (":", "\n"), ("\"Z", " \"")] {
                    let text = format!("[{}{open}{part}{close}]", " ".repeat(before)).to_ascii_lowercase();
                    let at = u32::try_from(1 + before + open.len()).unwrap();
                    assert_eq!(places(&filter, &text), Some(vec![at]), "{text}");
                    let other = text.replace(part, part.get(1..).unwrap());
                    assert_eq!(places(&filter, &other), Some(vec![]), "{other}");
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
