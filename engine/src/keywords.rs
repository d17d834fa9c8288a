//! Which events may hold a keyword. Keywords are looked for in every value of an event, while hardly any event holds one:
//! one look at every four bytes of its text spares most events the rest.
//!
//! It errs on the side of looking: where it sees nothing, no rule with keywords can match. Where it sees something, the
//! values at those places are tried, or all of the event where they alone would not decide.

use std::collections::{BTreeMap, HashMap};

/// Pairs of bytes are told apart by so many bits: six of each, those that tell ASCII apart but for letter case (and some
/// characters that are then alike).
const PAIR_BITS: u32 = 12;
const PAIRS: usize = 1 << PAIR_BITS;
/// So many groups of four bytes are told apart by their first two.
const GROUPS: u32 = 16;
/// Looked at where the groups fit: one bit for each hash of four bytes, in so many words.
const WORD_BITS: u32 = 11;
const WORDS: usize = 1 << WORD_BITS;
/// So many times eight bytes are looked at before what was seen is looked at closer.
const RUN: usize = 64;
/// With more places than this, all values are tried.
const PLACES_MAX: usize = 32;

/// What is left of each keyword that can be looked for: lower-case ASCII that is written in JSON as it is.
#[derive(Debug)]
pub(crate) struct KeywordFilter {
    /// By two bytes: the groups of those four bytes that begin so (low half), and that end so (high half).
    table: Box<[u32; PAIRS]>,
    /// By a hash of four bytes: whether they may be among `grams`.
    bits: Box<[u64; WORDS]>,
    /// Each part, and whether the values it is in decide for the rules it is from.
    parts: Vec<(Box<[u8]>, bool)>,
    /// By four bytes: the parts they are from, and where in each they stand; before the start of one at -1.
    grams: HashMap<u32, Vec<(usize, isize)>>,
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
        let mut filter =
            Self { table: Box::new([0; PAIRS]), bits: Box::new([0; WORDS]), parts: Vec::new(), grams: HashMap::new() };
        for (part, decides) in parts {
            let lower = part.to_ascii_lowercase().into_bytes();
            filter.add_part(&lower);
            filter.parts.push((lower.into(), decides));
        }
        filter
    }

    /// Only every second place of a text is looked at, so of each part there are four bytes for both cases.
    fn add_part(&mut self, part: &[u8]) {
        let rarest = |five: &[u8]| five.windows(4).map(rarity).min();
        if let Some((at, five)) = part.windows(5).enumerate().max_by_key(|(_, five)| rarest(five)) {
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
        let gram = self::gram(*gram);
        let (first, second) = (gram as usize >> PAIR_BITS, gram as usize & (PAIRS - 1));
        let group = 1 << (first.wrapping_mul(0x9E37_79B1) >> 16 & (GROUPS as usize - 1));
        for (pair, groups) in [(first, group), (second, group << GROUPS)] {
            if let Some(known) = self.table.get_mut(pair) {
                *known |= groups;
            }
        }
        let (word, bit) = place(gram);
        if let Some(word) = self.bits.get_mut(word) {
            *word |= bit;
        }
        let part = (self.parts.len(), offset);
        let known = self.grams.entry(gram).or_default();
        if !known.contains(&part) {
            known.push(part);
        }
    }

    /// Looks for keywords in the text of an event, behind which there are at least 16 bytes that are zero; `escaped` says
    /// whether it has a backslash. Adds the places where some may be, and says true where all values have to be tried.
    #[inline(never)]
    pub(crate) fn look(&self, padded: &[u8], escaped: bool, places: &mut Vec<u32>) -> bool {
        // A slash is the one character of a part that may be written as an escape.
        if escaped && memchr::memchr_iter(b'\\', padded).any(|at| padded.get(at + 1) == Some(&b'/')) {
            return true;
        }
        let groups = |pair: usize| self.table.get(pair).copied().unwrap_or_default();
        let (mut last, mut all) = (0, 0);
        for (run, blocks) in padded.as_chunks::<8>().0.chunks(RUN).enumerate() {
            // Where the groups fit is only noted: which way a branch goes here cannot be foreseen.
            let mut seen = [0_u8; RUN];
            let mut count = 0;
            for (number, block) in (0..).zip(blocks) {
                let text = u64::from_le_bytes(*block);
                all |= text;
                let [first, second, third, fourth] = pairs(text).map(groups);
                let fits = last & (first >> GROUPS) | first & (second >> GROUPS);
                let fits = fits | second & (third >> GROUPS) | third & (fourth >> GROUPS);
                last = fourth;
                if let Some(seen) = seen.get_mut(count) {
                    *seen = number;
                }
                count += usize::from(fits & ((1 << GROUPS) - 1) != 0);
            }
            for number in seen.get(..count).unwrap_or_default() {
                if self.look_closer(padded, (run * RUN + usize::from(*number)) * 8, places) {
                    return true;
                }
            }
        }
        // Some other letters fold to ASCII ones.
        all & 0x8080_8080_8080_8080 != 0 || places.len() > PLACES_MAX
    }

    /// Looks for the four bytes that end in the eight at `block`.
    fn look_closer(&self, text: &[u8], block: usize, places: &mut Vec<u32>) -> bool {
        for at in (block.saturating_sub(2)..block + 6).step_by(2) {
            let Some(four) = text.get(at..).and_then(|text| text.first_chunk::<4>()) else { continue };
            let gram = gram(*four);
            let (word, bit) = place(gram);
            if self.bits.get(word).is_some_and(|word| word & bit != 0) && self.confirm(gram, text, at, places) {
                return true;
            }
        }
        false
    }

    #[cold]
    fn confirm(&self, gram: u32, text: &[u8], at: usize, places: &mut Vec<u32>) -> bool {
        for (part, offset) in self.grams.get(&gram).into_iter().flatten() {
            let Some((part, decides)) = self.parts.get(*part) else { continue };
            let Some(start) = at.checked_add_signed(-offset) else { continue };
            let there = text.get(start..).and_then(|text| text.get(..part.len()));
            if there.is_some_and(|there| there.eq_ignore_ascii_case(part)) {
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

/// Pairs of letters that names and words are full of.
const COMMON: &str = "ac al ar as at ca ce ch co ct de di ea ec ed el em en er es ge he ic il in io is it la le li ll ma me nd ne \
                      ng ns nt of ol om on or ou pe po pr ra re ri ro rs se si ss st ta te th ti to tr ts un ur us ve";

/// How rare some bytes are in JSON that programs write, roughly: the rarer what is looked for, the less often is looked
/// closer.
fn rarity(bytes: &[u8]) -> i32 {
    let alone = bytes.iter().map(|byte| match byte {
        b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' | b'l' | b'c' | b'd' | b'u' => 0,
        b'k' | b'v' | b'x' | b'j' | b'q' | b'z' => 6,
        b'a'..=b'z' | b'0'..=b'9' => 2,
        b'"' | b':' | b',' | b'.' | b'-' | b'_' | b'/' | b'{' | b'}' | b'[' | b']' | b' ' => 2,
        _ => 10,
    });
    let common = bytes.windows(2).filter(|pair| COMMON.split(' ').any(|known| known.as_bytes() == *pair));
    alone.sum::<i32>() - common.count() as i32
}

/// Where the bit of four bytes is.
#[inline]
fn place(gram: u32) -> (usize, u64) {
    let hash = gram.wrapping_mul(0x9E37_79B1);
    ((hash >> (32 - WORD_BITS)) as usize, 1 << (hash >> (32 - WORD_BITS - 6) & 63))
}

/// The two pairs of four bytes, as one number.
#[inline]
fn gram(bytes: [u8; 4]) -> u32 {
    let [first, second, ..] = pairs(u32::from_le_bytes(bytes).into());
    (first << PAIR_BITS | second) as u32
}

/// The pairs in eight bytes of ASCII, told apart by [`PAIR_BITS`] bits.
#[inline]
fn pairs(text: u64) -> [usize; 4] {
    // Of each byte the bits 0 to 4 and 6: 5 is the letter case, 7 is not set in ASCII.
    let six = text & 0x1F1F_1F1F_1F1F_1F1F | (text & 0x4040_4040_4040_4040) >> 1;
    let twelve = six & 0x003F_003F_003F_003F | (six & 0x3F00_3F00_3F00_3F00) >> 2;
    [0, 16, 32, 48].map(|shift| (twelve >> shift) as usize & (PAIRS - 1))
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
        let padded = [text.as_bytes(), &[0; 16]].concat();
        (!filter.look(&padded, text.contains('\\'), &mut places)).then_some(places)
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
                    let text = format!("[{}{open}{part}{close}]", " ".repeat(before));
                    let at = u32::try_from(1 + before + open.len()).unwrap();
                    assert_eq!(places(&filter, &text), Some(vec![at]), "{text}");
                    assert_eq!(places(&filter, &text.to_ascii_uppercase()), Some(vec![at]), "{text}");
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
