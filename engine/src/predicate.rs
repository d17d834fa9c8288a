//! Tests on values: what each predicate of a rule means, and how all predicates on one column are tried on a value at once.
//!
//! Text is compared without regard to letter case unless a rule says `cased`: both sides are folded character by
//! character, so that positions and lengths stay the same.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;

use aho_corasick::{AhoCorasick, MatchKind};
use ipnet::IpNet;
use regex::{Regex, RegexSet};

use crate::intern::Kind;
use crate::rule::{AffixKind, Comparison, Number, Predicate, TextTest, WildcardPart};

/// Folds letter case: every character to its lower-case form where that is a single character.
#[must_use]
pub fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Cow::Owned(text.to_ascii_lowercase());
        }
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(fold_char).collect())
}

fn fold_char(char: char) -> char {
    let mut lower = char.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(single), None) => single,
        _ => char,
    }
}

/// Reads a decimal number as JSON or YAML write it; `None` for anything else, `inf` and `nan` included.
#[must_use]
pub fn parse_number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.bytes().next()?.is_ascii_digit() {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(number) = text.parse()
    {
        return Some(Number::Int(number));
    }
    let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    if !digits.bytes().all(plain) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Number::Float)
}

/// How two numbers compare, exactly: no integer is rounded to a float. `None` if one is not a number.
#[must_use]
pub fn compare(left: Number, right: Number) -> Option<Ordering> {
    match (left, right) {
        (Number::Int(left), Number::Int(right)) => Some(left.cmp(&right)),
        (Number::Float(left), Number::Float(right)) => left.partial_cmp(&right),
        (Number::Int(left), Number::Float(right)) => compare_int(left, right),
        (Number::Float(left), Number::Int(right)) => compare_int(right, left).map(Ordering::reverse),
    }
}

#[allow(clippy::cast_precision_loss, reason = "2^127 is exact")]
fn compare_int(int: i128, float: f64) -> Option<Ordering> {
    const LIMIT: f64 = 170_141_183_460_469_231_731_687_303_715_884_105_728.0; // 2^127
    if float.is_nan() {
        return None;
    }
    if float >= LIMIT {
        return Some(Ordering::Less);
    }
    if float < -LIMIT {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    Some(int.cmp(&(whole as i128)).then_with(|| 0.0_f64.partial_cmp(&(float - whole)).unwrap_or(Ordering::Equal)))
}

/// Whether `left` compares to `right` as `comparison` says.
#[must_use]
pub fn compares(left: Number, comparison: Comparison, right: Number) -> bool {
    let Some(order) = compare(left, right) else { return false };
    match comparison {
        Comparison::Lt => order.is_lt(),
        Comparison::Lte => order.is_le(),
        Comparison::Gt => order.is_gt(),
        Comparison::Gte => order.is_ge(),
        Comparison::Eq => order.is_eq(),
        Comparison::Neq => order.is_ne(),
    }
}

/// The text forms under which a number of a rule equals a text.
fn number_texts(number: Number) -> Vec<String> {
    match number {
        Number::Int(number) => vec![number.to_string()],
        Number::Float(number) => vec![format!("{number}"), format!("{number:?}")],
    }
}

/// Whether a text compares to another as `kind` says; both folded already unless letter case counts.
pub(crate) fn affix(kind: AffixKind, text: &str, part: &str) -> bool {
    match kind {
        AffixKind::Equals => text == part,
        AffixKind::Contains => text.contains(part),
        AffixKind::StartsWith => text.starts_with(part),
        AffixKind::EndsWith => text.ends_with(part),
    }
}

/// Whether the whole of `text` matches the pattern; both folded already unless letter case counts.
pub(crate) fn wildcard_matches(parts: &[WildcardPart], text: &str) -> bool {
    let mut runs = parts.split(|part| *part == WildcardPart::Any).peekable();
    let Some(first) = runs.next() else { return text.is_empty() };
    let Some(mut rest) = match_run(first, text) else { return false };
    if runs.peek().is_none() {
        return rest.is_empty();
    }
    // Between two `*` the earliest place is as good as any; the last run must end where the text ends.
    while let Some(run) = runs.next() {
        let last = runs.peek().is_none();
        if run.is_empty() {
            if last {
                return true;
            }
            continue;
        }
        let found = places(run, rest).find_map(|at| {
            let after = match_run(run, rest.get(at..)?)?;
            (!last || after.is_empty()).then_some(after)
        });
        match found {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

/// Where in `text` a run without `*` might begin, in order.
fn places<'t>(run: &'t [WildcardPart], text: &'t str) -> Box<dyn Iterator<Item = usize> + 't> {
    match run.first() {
        Some(WildcardPart::Literal(literal)) if !literal.is_empty() => {
            // `match_indices` steps over overlaps, which may begin a match too.
            let mut from = 0;
            Box::new(std::iter::from_fn(move || {
                let at = from + text.get(from..)?.find(literal.as_str())?;
                from = at + text.get(at..)?.chars().next().map_or(1, char::len_utf8);
                Some(at)
            }))
        }
        _ => Box::new(text.char_indices().map(|(at, _)| at)),
    }
}

/// Matches a run without `*` at the start of `text`, and gives the rest.
fn match_run<'t>(run: &[WildcardPart], text: &'t str) -> Option<&'t str> {
    run.iter().try_fold(text, |rest, part| match part {
        WildcardPart::Literal(literal) => rest.strip_prefix(literal.as_str()),
        WildcardPart::One => {
            let mut chars = rest.chars();
            chars.next().map(|_| chars.as_str())
        }
        WildcardPart::Any => Some(rest),
    })
}

/// A text test, reduced: patterns that are plain comparisons are told apart from those that are not.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Text {
    /// Any text, number, boolean or object.
    Anything,
    Plain(AffixKind, String),
    Pattern(Vec<WildcardPart>),
}

fn reduce(test: &TextTest, cased: bool) -> Text {
    let own = |text: &str| if cased { text.to_owned() } else { fold(text).into_owned() };
    match test {
        TextTest::Plain { kind, text } => {
            // Every text contains, starts and ends with the empty one.
            if text.is_empty() && *kind != AffixKind::Equals {
                return Text::Anything;
            }
            Text::Plain(*kind, own(text))
        }
        TextTest::Wildcard(parts) => {
            let mut reduced: Vec<WildcardPart> = Vec::with_capacity(parts.len());
            for part in parts {
                match (reduced.last_mut(), part) {
                    (Some(WildcardPart::Any), WildcardPart::Any) => {}
                    (Some(WildcardPart::Literal(before)), WildcardPart::Literal(more)) => before.push_str(&own(more)),
                    (_, WildcardPart::Literal(text)) if text.is_empty() => {}
                    (_, WildcardPart::Literal(text)) => reduced.push(WildcardPart::Literal(own(text))),
                    (_, WildcardPart::One) => reduced.push(WildcardPart::One),
                    (_, WildcardPart::Any) => reduced.push(WildcardPart::Any),
                }
            }
            match reduced.as_slice() {
                [] => Text::Plain(AffixKind::Equals, String::new()),
                [WildcardPart::Any] => Text::Anything,
                [WildcardPart::Literal(text)] => Text::Plain(AffixKind::Equals, text.clone()),
                [WildcardPart::Literal(text), WildcardPart::Any] => Text::Plain(AffixKind::StartsWith, text.clone()),
                [WildcardPart::Any, WildcardPart::Literal(text)] => Text::Plain(AffixKind::EndsWith, text.clone()),
                [WildcardPart::Any, WildcardPart::Literal(text), WildcardPart::Any] => {
                    Text::Plain(AffixKind::Contains, text.clone())
                }
                _ => Text::Pattern(reduced),
            }
        }
    }
}

/// A predicate in a form in which equal ones are equal texts.
pub(crate) fn canonical(predicate: &Predicate) -> String {
    match predicate {
        Predicate::Text { test, cased } => format!("text {cased} {:?}", reduce(test, *cased)),
        Predicate::Number(number) => match integral(*number) {
            Some(int) => format!("number {int}"),
            None => format!("number {number:?}"),
        },
        other => format!("{other:?}"),
    }
}

/// Whether the predicate looks at the JSON text of objects.
pub(crate) fn reads_object_text(predicate: &Predicate) -> bool {
    match predicate {
        Predicate::Text { test, cased } => match reduce(test, *cased) {
            Text::Anything => false,
            Text::Plain(kind, _) => kind == AffixKind::Contains,
            Text::Pattern(parts) => is_open(&parts),
        },
        Predicate::Regex(_) => true,
        _ => false,
    }
}

fn is_open(parts: &[WildcardPart]) -> bool {
    parts.first() == Some(&WildcardPart::Any) && parts.last() == Some(&WildcardPart::Any)
}

/// The integer a number is, if it is one.
fn integral(number: Number) -> Option<i128> {
    match number {
        Number::Int(int) => Some(int),
        // Beyond 2^96 no float is written as digits; those compare as floats.
        Number::Float(float) if float.fract() == 0.0 && float.abs() < 7.9e28 => Some(float as i128),
        Number::Float(_) => None,
    }
}

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
