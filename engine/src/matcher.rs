//! All predicates on one column, tried on a value at once: a hash table for equals, an automaton for contains, starts
//! with, ends with and patterns, a set for regular expressions, the rest one by one.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;

use aho_corasick::{AhoCorasick, MatchKind};
use ipnet::IpNet;
use regex::{Regex, RegexSet};

use crate::intern::Kind;
use crate::predicate::{
    Text, compare, compares, fold, integral, is_open, number_texts, parse_number, reduce, time_part, wildcard_matches,
    written_date,
};
use crate::rule::{AffixKind, Comparison, Number, Predicate, TimePart, WildcardPart};

/// All predicates on one column.
#[derive(Debug, Default)]
pub(crate) struct ColumnMatcher {
    /// Hold for every value but null: `*`, `contains ''`.
    anything: Vec<u32>,
    null: Vec<u32>,
    equals: HashMap<Box<str>, Vec<u32>>,
    equals_cased: HashMap<Box<str>, Vec<u32>>,
    integers: HashMap<i128, Vec<u32>>,
    floats: Vec<(f64, u32)>,
    parts: Substrings,
    parts_cased: Substrings,
    regex: Option<Regexes>,
    cidrs: Vec<(IpNet, u32)>,
    compares: Vec<(Comparison, Number, u32)>,
    times: Vec<(TimePart, Comparison, i64, u32)>,
}

/// Contains, starts with, ends with, and patterns by their longest literal, tried together.
#[derive(Debug, Default)]
struct Substrings {
    automaton: Option<AhoCorasick>,
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

#[derive(Debug)]
enum Regexes {
    Set(RegexSet, Vec<u32>),
    Each(Vec<(Regex, u32)>),
}

/// A column's predicates while they are collected.
#[derive(Debug, Default)]
pub(crate) struct MatcherBuilder {
    matcher: ColumnMatcher,
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
                    let table = if *cased { &mut matcher.equals_cased } else { &mut matcher.equals };
                    table.entry(text.into()).or_default().push(leaf);
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
                    matcher.equals.entry(fold(&text).into()).or_default().push(leaf);
                }
            }
            Predicate::Bool(truth) => {
                matcher.equals.entry(truth.to_string().into()).or_default().push(leaf);
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
        matcher.parts = Substrings::build(self.parts);
        matcher.parts_cased = Substrings::build(self.parts_cased);
        matcher.regex = Regexes::build(self.regexes);
        matcher
    }
}

impl Substrings {
    fn build(parts: Vec<(String, Use)>) -> Self {
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
        if patterns.is_empty() {
            return built;
        }
        match AhoCorasick::builder().match_kind(MatchKind::Standard).build(&patterns) {
            Ok(automaton) => built.automaton = Some(automaton),
            // More patterns than an automaton has room for: tried one by one.
            Err(_) => built.rest.extend(with),
        }
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
        if let Ok(set) = RegexSet::new(&patterns) {
            return Some(Self::Set(set, leaves));
        }
        // Together they are too large; each alone was compiled when the plan was.
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
    /// By leaf: number of the value for which it was last seen, and for which its pattern was last tried.
    seen: Vec<(u64, u64)>,
    value: u64,
}

impl Hits {
    /// Begins with the next value of a column with `leaves` predicates at most numbered so.
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

    fn add_all(&mut self, leaves: Option<&Vec<u32>>) {
        leaves.into_iter().flatten().for_each(|leaf| self.add(*leaf));
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
    /// Tries all predicates on a value and adds those that hold to `hits`.
    pub(crate) fn test(&self, kind: Kind, text: &str, hits: &mut Hits) {
        match kind {
            Kind::Empty => return,
            Kind::Null => return hits.add_all(Some(&self.null)),
            Kind::Text | Kind::Number | Kind::Bool | Kind::Object => {}
        }
        hits.add_all(Some(&self.anything));
        let object = kind == Kind::Object;
        if !self.parts_cased.is_empty() {
            self.parts_cased.test(text, object, hits);
        }
        if let Some(regex) = &self.regex {
            regex.test(text, hits);
        }
        if !self.parts.is_empty() || (!object && !self.equals.is_empty()) {
            let folded = fold(text);
            if !self.parts.is_empty() {
                self.parts.test(&folded, object, hits);
            }
            if !object {
                hits.add_all(self.equals.get(&*folded));
            }
        }
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
                Some(int) => hits.add_all(self.integers.get(&int)),
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
