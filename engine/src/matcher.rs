//! All predicates on one column, tried on a value at once: a hash table for equals, an automaton for contains, starts
//! with, ends with and patterns, a set for regular expressions, the rest one by one.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use ipnet::IpNet;
use regex::{Regex, RegexSet};

use crate::intern::{Kind, hash};
use crate::predicate::{
    Text, compare, compares, fold, fold_into, integral, is_open, number_texts, parse_number, reduce, time_part,
    wildcard_matches, written_date,
};
use crate::rule::{AffixKind, Comparison, Number, Predicate, TimePart, WildcardPart};

/// All predicates on one column.
#[derive(Debug, Default)]
pub(crate) struct ColumnMatcher {
    /// Hold for every value but null: `*`, `contains ''`.
    anything: Vec<u32>,
    null: Vec<u32>,
    equals: Texts,
    equals_cased: Texts,
    integers: HashMap<i128, Vec<u32>>,
    floats: Vec<(f64, u32)>,
    parts: Substrings,
    parts_cased: Substrings,
    regex: Option<Regexes>,
    cidrs: Vec<(IpNet, u32)>,
    compares: Vec<(Comparison, Number, u32)>,
    times: Vec<(TimePart, Comparison, i64, u32)>,
}

/// Whole texts, and the leaves of each.
#[derive(Debug, Default)]
struct Texts {
    /// Which lengths there are: bit n for n bytes, the last for all that are longer.
    lengths: u64,
    /// Open addressing; 0 is empty, else the number of the entry + 1. Its length is a power of two.
    slots: Vec<u32>,
    entries: Vec<(u64, Box<str>, Vec<u32>)>,
}

/// Literals of up to so many bytes together are looked for with a table of all transitions: twice as quick, and a few
/// hundred bytes of memory for each byte of a literal.
const TABLE_BYTES_MAX: usize = 16 << 10;

/// Contains, starts with, ends with, and patterns by their longest literal, tried together.
#[derive(Debug, Default)]
struct Substrings {
    /// Where letter case does not count, it takes upper-case ASCII letters of the text as it finds them.
    automaton: Option<AhoCorasick>,
    /// Whether a test needs more than that a literal is somewhere: then the text must be folded.
    needs_text: bool,
    /// By pattern of the automaton.
    uses: Vec<Vec<Use>>,
    /// Patterns without a literal, and everything if the automaton cannot be built.
    rest: Vec<(String, Use)>,
}

#[derive(Clone, Debug)]
struct Use {
    leaf: u32,
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    Contains,
    StartsWith,
    EndsWith,
    Pattern { parts: Vec<WildcardPart>, open: bool },
}

/// So many regular expressions are not made a set.
const REGEXES_APART: usize = 8;

#[derive(Debug)]
enum Regexes {
    Set(RegexSet, Vec<u32>),
    Each(Vec<(Regex, u32)>),
}

/// A column's predicates while they are collected.
#[derive(Debug, Default)]
pub(crate) struct MatcherBuilder {
    matcher: ColumnMatcher,
    equals: BTreeMap<String, Vec<u32>>,
    equals_cased: BTreeMap<String, Vec<u32>>,
    parts: Vec<(String, Use)>,
    parts_cased: Vec<(String, Use)>,
    regexes: Vec<(String, u32)>,
}

impl MatcherBuilder {
    /// Adds a predicate under the number `leaf`. `Exists` and `FieldRef` are not tests of a value and not for here.
    pub(crate) fn add(&mut self, predicate: &Predicate, leaf: u32) {
        let matcher = &mut self.matcher;
        match predicate {
            Predicate::Text { test, cased } => match reduce(test, *cased) {
                Text::Anything => matcher.anything.push(leaf),
                Text::Plain(AffixKind::Equals, text) => {
                    let table = if *cased { &mut self.equals_cased } else { &mut self.equals };
                    table.entry(text).or_default().push(leaf);
                }
                Text::Plain(kind, text) => {
                    let how = match kind {
                        AffixKind::StartsWith => How::StartsWith,
                        AffixKind::EndsWith => How::EndsWith,
                        AffixKind::Contains | AffixKind::Equals => How::Contains,
                    };
                    let parts = if *cased { &mut self.parts_cased } else { &mut self.parts };
                    parts.push((text, Use { leaf, how }));
                }
                Text::Pattern(pattern) => {
                    let open = is_open(&pattern);
                    let literals = pattern.iter().filter_map(|part| match part {
                        WildcardPart::Literal(text) => Some(text.as_str()),
                        WildcardPart::One | WildcardPart::Any => None,
                    });
                    let literal = literals.max_by_key(|text| text.len()).unwrap_or_default().to_owned();
                    let how = How::Pattern { parts: pattern, open };
                    let parts = if *cased { &mut self.parts_cased } else { &mut self.parts };
                    parts.push((literal, Use { leaf, how }));
                }
            },
            Predicate::Number(number) => {
                match integral(*number) {
                    Some(int) => matcher.integers.entry(int).or_default().push(leaf),
                    None => {
                        if let Number::Float(float) = number {
                            matcher.floats.push((*float, leaf));
                        }
                    }
                }
                for text in number_texts(*number) {
                    self.equals.entry(fold(&text).into_owned()).or_default().push(leaf);
                }
            }
            Predicate::Bool(truth) => {
                self.equals.entry(truth.to_string()).or_default().push(leaf);
            }
            Predicate::Null => matcher.null.push(leaf),
            Predicate::Regex(pattern) => self.regexes.push((pattern.clone(), leaf)),
            Predicate::Cidr(net) => matcher.cidrs.push((*net, leaf)),
            Predicate::Compare(comparison, number) => matcher.compares.push((*comparison, *number, leaf)),
            Predicate::TimePart(part, comparison, number) => matcher.times.push((*part, *comparison, *number, leaf)),
            Predicate::Exists(_) | Predicate::FieldRef { .. } => {}
        }
    }

    pub(crate) fn build(self) -> ColumnMatcher {
        let mut matcher = self.matcher;
        matcher.equals = Texts::build(self.equals);
        matcher.equals_cased = Texts::build(self.equals_cased);
        matcher.parts = Substrings::build(self.parts, true);
        matcher.parts_cased = Substrings::build(self.parts_cased, false);
        matcher.regex = Regexes::build(self.regexes);
        matcher
    }
}

impl Texts {
    fn build(texts: BTreeMap<String, Vec<u32>>) -> Self {
        let mut built = Self::default();
        let len = (texts.len() * 2).next_power_of_two();
        if !texts.is_empty() {
            built.slots.resize(len, 0);
        }
        for (number, (text, leaves)) in (1_u32..).zip(texts) {
            built.lengths |= length_bit(&text);
            // The texts are the rules' own, so nobody gains by a hash that is known.
            let hash = hash(0, text.as_bytes());
            let mut at = hash as usize & (len - 1);
            while built.slots.get(at).is_some_and(|slot| *slot != 0) {
                at = (at + 1) & (len - 1);
            }
            if let Some(slot) = built.slots.get_mut(at) {
                *slot = number;
            }
            built.entries.push((hash, text.into(), leaves));
        }
        built
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a text of this length can be among them.
    #[inline]
    fn may_have(&self, text: &str) -> bool {
        self.lengths & length_bit(text) != 0
    }

    fn get(&self, text: &str) -> &[u32] {
        if !self.may_have(text) {
            return &[];
        }
        let hash = hash(0, text.as_bytes());
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        while let Some(number) = self.slots.get(at).and_then(|slot| slot.checked_sub(1)) {
            match self.entries.get(number as usize) {
                Some((other, known, leaves)) if *other == hash && **known == *text => return leaves,
                _ => at = (at + 1) & mask,
            }
        }
        &[]
    }
}

fn length_bit(text: &str) -> u64 {
    1 << text.len().min(63)
}

impl Substrings {
    fn build(parts: Vec<(String, Use)>, any_case: bool) -> Self {
        let mut patterns: Vec<String> = Vec::new();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut built = Self::default();
        let (with, without): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(literal, _)| !literal.is_empty());
        built.rest = without;
        for (literal, use_) in &with {
            let number = *numbers.entry(literal.clone()).or_insert_with(|| {
                patterns.push(literal.clone());
                built.uses.push(Vec::new());
                patterns.len() - 1
            });
            if let Some(uses) = built.uses.get_mut(number) {
                uses.push(use_.clone());
            }
        }
        if !patterns.is_empty() {
            let bytes: usize = patterns.iter().map(String::len).sum();
            let kind = if bytes <= TABLE_BYTES_MAX { AhoCorasickKind::DFA } else { AhoCorasickKind::ContiguousNFA };
            let automaton = AhoCorasick::builder()
                .match_kind(MatchKind::Standard)
                .ascii_case_insensitive(any_case)
                .kind(Some(kind))
                .build(&patterns);
            match automaton {
                Ok(automaton) => built.automaton = Some(automaton),
                // More patterns than an automaton has room for: tried one by one.
                Err(_) => built.rest.extend(with),
            }
        }
        let patterns = built.uses.iter().flatten().any(|use_| matches!(use_.how, How::Pattern { .. }));
        built.needs_text = patterns || !built.rest.is_empty();
        built
    }

    fn is_empty(&self) -> bool {
        self.automaton.is_none() && self.rest.is_empty()
    }

    fn test(&self, text: &str, object: bool, hits: &mut Hits) {
        for (literal, use_) in &self.rest {
            let at = match use_.how {
                How::StartsWith => text.starts_with(literal.as_str()).then_some(0),
                How::EndsWith => text.ends_with(literal.as_str()).then(|| text.len() - literal.len()),
                How::Contains | How::Pattern { .. } => text.find(literal.as_str()),
            };
            if let Some(at) = at {
                use_.test(text, at, at + literal.len(), object, hits);
            }
        }
        let Some(automaton) = &self.automaton else { return };
        for found in automaton.find_overlapping_iter(text) {
            for use_ in self.uses.get(found.pattern().as_usize()).into_iter().flatten() {
                use_.test(text, found.start(), found.end(), object, hits);
            }
        }
    }
}

impl Use {
    /// The literal was seen at `start..end`; does the test hold?
    fn test(&self, text: &str, start: usize, end: usize, object: bool, hits: &mut Hits) {
        let holds = match &self.how {
            How::Contains => true,
            How::StartsWith => start == 0 && !object,
            How::EndsWith => end == text.len() && !object,
            How::Pattern { parts, open } => {
                (*open || !object) && hits.first_try(self.leaf) && wildcard_matches(parts, text)
            }
        };
        if holds {
            hits.add(self.leaf);
        }
    }
}

impl Regexes {
    fn build(regexes: Vec<(String, u32)>) -> Option<Self> {
        if regexes.is_empty() {
            return None;
        }
        let (patterns, leaves): (Vec<_>, Vec<_>) = regexes.into_iter().unzip();
        if patterns.len() > REGEXES_APART
            && let Ok(set) = RegexSet::new(&patterns)
        {
            return Some(Self::Set(set, leaves));
        }
        // So few that each alone, which can look for its literals first, is quicker; or together they are too large. Each
        // was compiled when the plan was.
        let each = patterns.iter().zip(leaves).filter_map(|(pattern, leaf)| Some((Regex::new(pattern).ok()?, leaf)));
        Some(Self::Each(each.collect()))
    }

    fn test(&self, text: &str, hits: &mut Hits) {
        match self {
            Self::Set(set, leaves) => {
                for index in set.matches(text) {
                    if let Some(leaf) = leaves.get(index) {
                        hits.add(*leaf);
                    }
                }
            }
            Self::Each(each) => {
                each.iter().filter(|(regex, _)| regex.is_match(text)).for_each(|(_, leaf)| hits.add(*leaf));
            }
        }
    }
}

/// Which predicates held for the value at hand, each once.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    pub(crate) leaves: Vec<u32>,
    folded: String,
    /// By leaf: number of the value for which it was last seen, and for which its pattern was last tried.
    seen: Vec<(u64, u64)>,
    value: u64,
}

impl Hits {
    /// Begins with the next value of a column with `leaves` predicates at most numbered so.
    #[inline]
    pub(crate) fn start(&mut self, leaves: usize) {
        self.leaves.clear();
        self.value += 1;
        if self.seen.len() < leaves {
            self.seen.resize(leaves, (0, 0));
        }
    }

    fn add(&mut self, leaf: u32) {
        if let Some((seen, _)) = self.seen.get_mut(leaf as usize)
            && *seen != self.value
        {
            *seen = self.value;
            self.leaves.push(leaf);
        }
    }

    fn add_all(&mut self, leaves: &[u32]) {
        leaves.iter().for_each(|leaf| self.add(*leaf));
    }

    fn first_try(&mut self, leaf: u32) -> bool {
        match self.seen.get_mut(leaf as usize) {
            Some((_, tried)) if *tried != self.value => {
                *tried = self.value;
                true
            }
            _ => false,
        }
    }
}

impl ColumnMatcher {
    /// Whether trying a value costs no more than remembering what it hits would.
    #[inline]
    pub(crate) fn is_quick(&self) -> bool {
        self.parts.is_empty()
            && self.parts_cased.is_empty()
            && self.regex.is_none()
            && self.cidrs.is_empty()
            && self.compares.is_empty()
            && self.times.is_empty()
            && self.floats.is_empty()
            && self.integers.is_empty()
    }

    /// Tries all predicates on a value and adds those that hold to `hits`.
    pub(crate) fn test(&self, kind: Kind, text: &str, hits: &mut Hits) {
        match kind {
            Kind::Empty => return,
            Kind::Null => return hits.add_all(&self.null),
            Kind::Text | Kind::Number | Kind::Bool | Kind::Object => {}
        }
        hits.add_all(&self.anything);
        let object = kind == Kind::Object;
        if !self.parts_cased.is_empty() {
            self.parts_cased.test(text, object, hits);
        }
        if let Some(regex) = &self.regex {
            regex.test(text, hits);
        }
        self.test_folded(object, text, hits);
        if object {
            return;
        }
        if !self.equals_cased.is_empty() {
            hits.add_all(self.equals_cased.get(text));
        }
        if kind != Kind::Bool && !self.times.is_empty() {
            self.test_time(text, hits);
        }
        if kind != Kind::Bool {
            self.test_number(kind, text, hits);
        }
        if kind == Kind::Text
            && !self.cidrs.is_empty()
            && let Ok(address) = text.parse::<IpAddr>()
        {
            let address = address.to_canonical();
            self.cidrs.iter().filter(|(net, _)| net.contains(&address)).for_each(|(_, leaf)| hits.add(*leaf));
        }
    }

    /// The predicates for which letter case does not count.
    fn test_folded(&self, object: bool, text: &str, hits: &mut Hits) {
        let ascii = text.is_ascii();
        // Folding may change how long a text is, but not one of ASCII.
        let equals = !object && !self.equals.is_empty() && (!ascii || self.equals.may_have(text));
        let parts = !self.parts.is_empty();
        if !equals && !parts {
            return;
        }
        if ascii && !equals && !self.parts.needs_text {
            return self.parts.test(text, object, hits);
        }
        let mut folded = std::mem::take(&mut hits.folded);
        fold_into(text, &mut folded);
        if parts {
            self.parts.test(&folded, object, hits);
        }
        if equals {
            hits.add_all(self.equals.get(&folded));
        }
        hits.folded = folded;
    }

    fn test_time(&self, text: &str, hits: &mut Hits) {
        let Some(date) = written_date(text) else { return };
        for (part, comparison, right, leaf) in &self.times {
            if comparison.holds(&time_part(&date, *part), right) {
                hits.add(*leaf);
            }
        }
    }

    fn test_number(&self, kind: Kind, text: &str, hits: &mut Hits) {
        let equal = kind == Kind::Number && (!self.integers.is_empty() || !self.floats.is_empty());
        if !equal && self.compares.is_empty() {
            return;
        }
        let Some(number) = parse_number(text) else { return };
        if equal {
            match integral(number) {
                Some(int) => hits.add_all(self.integers.get(&int).map_or(&[], Vec::as_slice)),
                None => {
                    for (float, leaf) in &self.floats {
                        if compare(Number::Float(*float), number).is_some_and(Ordering::is_eq) {
                            hits.add(*leaf);
                        }
                    }
                }
            }
        }
        for (comparison, right, leaf) in &self.compares {
            if compares(number, *comparison, *right) {
                hits.add(*leaf);
            }
        }
    }
}
