//! Why an event matches a rule or not: the clauses of its condition, each with the values it saw and whether it held.
//!
//! It runs the same program as matching does, one leaf of the condition at a time, so that an explanation cannot
//! disagree with a match.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::compiler::{Compiler, Source};
use crate::event::Event;
use crate::fields::Field;
use crate::json::Json;
use crate::lookup::{Asked, CompiledLookup, Question, Reason, Residual};
use crate::program::Program;
use crate::rule::{
    AffixKind, Comparison, Condition, DetectionRule, Number, Predicate, Taxonomy, TextTest, WildcardPart,
};
use crate::spelling::{BySpelling, Spelling};
use crate::time::Timestamp;

/// Longest value shown, in characters.
const SHOWN_MAX: usize = 200;
/// Most values of one field shown.
const VALUES_MAX: usize = 8;
/// Most values of one field looked up in a table.
const VALUES_MAX_ASKED: usize = 64;

/// Why a rule matches an event, or why not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether the rule matches.
    pub matched: bool,
    /// Its clauses, in the order of the condition. Of a list of values those that held, or one clause for all of them.
    pub clauses: Vec<Clause>,
}

/// One test of a condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clause {
    /// The field, or `None` for a keyword.
    pub field: Option<String>,
    /// The test, in words: `= 'x'`, `contains 'x'`, `in 10.0.0.0/8`.
    pub predicate: String,
    /// It stands under `not`.
    pub negated: bool,
    /// The values the event has there; empty if it has none.
    pub values: Vec<String>,
    /// Whether it speaks for the match: the test held, or failed under `not`.
    pub held: bool,
    /// The clause as one line: `field test (values)`.
    pub text: String,
    /// For a lookup: its number in the condition. Whether it holds is not known from the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup: Option<u16>,
}

impl Explanation {
    /// The lines of the clauses that speak for the match.
    #[must_use]
    pub fn because(&self) -> Vec<String> {
        self.clauses.iter().filter(|clause| clause.held).map(|clause| clause.text.clone()).collect()
    }
}

impl Clause {
    fn new(field: Option<&str>, predicate: String, negated: bool, values: Vec<String>, passed: bool) -> Self {
        let mut clause = Self {
            field: field.map(str::to_owned),
            predicate,
            negated,
            values,
            held: passed != negated,
            text: String::new(),
            lookup: None,
        };
        clause.write();
        clause
    }

    /// The clause of a lookup: it may hold.
    fn of_lookup(number: u16, row: String, negated: bool) -> Self {
        let article = if negated { "no" } else { "a" };
        let text = format!("{article} {row}: not known from the event alone");
        Self { field: None, predicate: row, negated, values: Vec::new(), held: true, text, lookup: Some(number) }
    }

    fn write(&mut self) {
        let not = if self.negated { "not " } else { "" };
        let field = self.field.as_deref().unwrap_or("event");
        let values = match self.values.as_slice() {
            _ if self.field.is_none() => String::new(),
            [] => " (missing)".to_owned(),
            values => format!(" ({})", values.join(", ")),
        };
        self.text = format!("{not}{field} {}{values}", self.predicate);
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// What explains one rule: a program in which each leaf of its condition is a rule of its own.
#[derive(Debug)]
pub(crate) struct Explainer {
    programs: BySpelling<Program>,
    leaves: usize,
}

impl Explainer {
    pub(crate) fn new(rule: &DetectionRule) -> Self {
        let mut leaves = Vec::new();
        collect(&rule.condition, &mut leaves);
        Self { programs: BySpelling::default(), leaves: leaves.len() }
    }

    fn program(&self, rule: &DetectionRule, spelling: Spelling) -> &Program {
        self.programs.get_or_init(spelling, || {
            let mut leaves = Vec::new();
            collect(&rule.condition, &mut leaves);
            let mut compiler = Compiler::new(spelling);
            for (number, leaf) in leaves.iter().enumerate() {
                compiler.add(&Source { rule: number, taxonomy: rule.taxonomy, condition: leaf, category: None });
            }
            compiler.build()
        })
    }

    pub(crate) fn explain(&self, rule: &DetectionRule, lookups: &[CompiledLookup], event: &Event) -> Explanation {
        let (residual, walk) = self.walk(rule, lookups, event);
        Explanation { matched: residual.may_hold(), clauses: walk.clauses }
    }

    /// What is left of the rule's condition for this event, and the reasons that would speak for the match.
    pub(crate) fn question(&self, rule: &DetectionRule, lookups: &[CompiledLookup], event: &Event) -> Question {
        let (residual, walk) = self.walk(rule, lookups, event);
        let reason = |clause: Clause| match clause.lookup {
            Some(number) => Reason::Row { number, negated: clause.negated, row: clause.predicate },
            None => Reason::Known(clause.text),
        };
        let reasons = walk.clauses.into_iter().filter(|clause| clause.held).map(reason).collect();
        Question { residual, asked: walk.asked, reasons }
    }

    fn walk<'e>(&self, rule: &DetectionRule, lookups: &'e [CompiledLookup], event: &'e Event) -> (Residual, Walk<'e>) {
        let mut held = vec![false; self.leaves];
        self.program(rule, Spelling::of(event.source_type)).run(event, |leaf| {
            if let Some(slot) = held.get_mut(leaf) {
                *slot = true;
            }
        });
        let mut walk = Walk {
            held: held.into_iter(),
            taxonomy: rule.taxonomy,
            event,
            json: Json::parse(&event.native).ok(),
            lookups: lookups.iter(),
            asked: Vec::new(),
            clauses: Vec::new(),
        };
        let residual = walk.condition(&rule.condition, false);
        (residual, walk)
    }
}

fn collect<'c>(condition: &'c Condition, leaves: &mut Vec<&'c Condition>) {
    match condition {
        Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|part| collect(part, leaves)),
        Condition::Not(part) => collect(part, leaves),
        Condition::Field { .. } | Condition::Keyword(_) => leaves.push(condition),
        Condition::Lookup(_) => {}
    }
}

struct Walk<'e> {
    /// Whether each leaf held, in the order of [`collect`].
    held: std::vec::IntoIter<bool>,
    taxonomy: Taxonomy,
    event: &'e Event,
    json: Option<Json>,
    /// The rule's lookups, in the order of its condition.
    lookups: std::slice::Iter<'e, CompiledLookup>,
    /// What was asked of each so far.
    asked: Vec<Option<Asked>>,
    clauses: Vec<Clause>,
}

impl Walk<'_> {
    /// What the condition comes down to; every leaf is visited, also where the answer is known before.
    fn condition(&mut self, condition: &Condition, negated: bool) -> Residual {
        match condition {
            Condition::And(parts) => Residual::all(parts.iter().map(|part| self.condition(part, negated)).collect()),
            Condition::Or(parts) => {
                let start = self.clauses.len();
                let any = Residual::any(parts.iter().map(|part| self.condition(part, negated)).collect());
                if parts.iter().all(|part| matches!(part, Condition::Field { .. } | Condition::Keyword(_))) {
                    shorten(&mut self.clauses, start);
                }
                any
            }
            Condition::Not(part) => self.condition(part, !negated).negate(),
            Condition::Field { field, predicate } => {
                let held = self.held.next().unwrap_or(false);
                let values = self.values(field);
                self.clauses.push(Clause::new(Some(field), words(predicate), negated, values, held));
                Residual::Known(held)
            }
            Condition::Lookup(_) => self.lookup(negated),
            Condition::Keyword(predicate) => {
                let held = self.held.next().unwrap_or(false);
                self.clauses.push(Clause::new(None, words(predicate), negated, Vec::new(), held));
                Residual::Known(held)
            }
        }
    }

    fn lookup(&mut self, negated: bool) -> Residual {
        let Ok(number) = u16::try_from(self.asked.len()) else { return Residual::Known(false) };
        let Some(lookup) = self.lookups.next() else { return Residual::Known(false) };
        let keys: Vec<Vec<String>> = lookup.keys.iter().map(|field| self.texts(field)).collect();
        let at = lookup.during.as_deref().and_then(|field| self.instant(field));
        let asked = lookup.ask(&keys, at);
        let mut clause = Clause::of_lookup(number, lookup.words(&keys, at), negated);
        let residual = if asked.is_some() { Residual::Row(number) } else { Residual::Known(false) };
        if asked.is_none() {
            clause.held = negated;
            clause.text = format!("no {}", clause.predicate);
        }
        self.asked.push(asked);
        self.clauses.push(clause);
        residual
    }

    /// The texts a field has, whole.
    fn texts(&self, field: &str) -> Vec<String> {
        if self.taxonomy == Taxonomy::Cicd
            && let Some(field) = Field::from_name(field)
        {
            return self.event.fields.get(field).map(ToString::to_string).into_iter().collect();
        }
        let Some(json) = &self.json else { return Vec::new() };
        let values = Spelling::of(self.event.source_type)
            .find(json.root(), field)
            .into_iter()
            .filter(|value| !value.is_null() && !value.is_array());
        values.take(VALUES_MAX_ASKED).map(|value| value.text().into_owned()).collect()
    }

    /// The time a field says; `time` is the event's.
    fn instant(&self, field: &str) -> Option<Timestamp> {
        if field == "time" {
            return Some(self.event.time);
        }
        self.texts(field).iter().find_map(|text| Timestamp::parse(text))
    }

    fn values(&self, field: &str) -> Vec<String> {
        if self.taxonomy == Taxonomy::Cicd
            && let Some(field) = Field::from_name(field)
        {
            return self.event.fields.get(field).map(|value| shown(&value.to_string())).into_iter().collect();
        }
        let Some(json) = &self.json else { return Vec::new() };
        Spelling::of(self.event.source_type)
            .find(json.root(), field)
            .into_iter()
            .take(VALUES_MAX)
            .map(|value| shown(&value.text()))
            .collect()
    }
}

/// Of alternatives, keeps those that decided, or puts one clause in the place of all of a field.
fn shorten(clauses: &mut Vec<Clause>, start: usize) {
    let alternatives = clauses.split_off(start);
    // Under `not` it takes all of them to fail; otherwise one that held.
    let passed = |clause: &Clause| clause.held != clause.negated;
    if alternatives.iter().any(passed) {
        clauses.extend(alternatives.into_iter().filter(passed));
        return;
    }
    let mut grouped: Vec<(Clause, usize)> = Vec::new();
    for clause in alternatives {
        match grouped.iter_mut().find(|(first, _)| first.field == clause.field) {
            Some((first, count)) => {
                *count += 1;
                if *count <= VALUES_MAX {
                    first.predicate = format!("{} or {}", first.predicate, clause.predicate);
                }
            }
            None => grouped.push((clause, 1)),
        }
    }
    clauses.extend(grouped.into_iter().map(|(mut clause, count)| {
        if count > VALUES_MAX {
            clause.predicate = format!("{} or {} more", clause.predicate, count - VALUES_MAX);
        }
        clause.write();
        clause
    }));
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A predicate in words.
#[must_use]
pub fn words(predicate: &Predicate) -> String {
    let affix = |kind: AffixKind| match kind {
        AffixKind::Equals => "=",
        AffixKind::Contains => "contains",
        AffixKind::StartsWith => "starts with",
        AffixKind::EndsWith => "ends with",
    };
    let mark = |cased: bool| if cased { " (case-sensitive)" } else { "" };
    match predicate {
        Predicate::Text { test: TextTest::Plain { kind, text }, cased } => {
            format!("{} '{}'{}", affix(*kind), shown(text), mark(*cased))
        }
        Predicate::Text { test: TextTest::Wildcard(parts), cased } => {
            let pattern: String = parts
                .iter()
                .map(|part| match part {
                    WildcardPart::Literal(text) => text.replace('*', "\\*").replace('?', "\\?"),
                    WildcardPart::One => "?".to_owned(),
                    WildcardPart::Any => "*".to_owned(),
                })
                .collect();
            format!("matches '{}'{}", shown(&pattern), mark(*cased))
        }
        Predicate::Number(number) => format!("= {}", number_words(*number)),
        Predicate::Bool(truth) => format!("= {truth}"),
        Predicate::Null => "is missing or null".to_owned(),
        Predicate::Exists(true) => "is present".to_owned(),
        Predicate::Exists(false) => "is not present".to_owned(),
        Predicate::Regex(pattern) => format!("matches /{}/", shown(pattern)),
        Predicate::Cidr(net) => format!("in {net}"),
        Predicate::Compare(comparison, number) => {
            let sign = match comparison {
                Comparison::Lt => "<",
                Comparison::Lte => "<=",
                Comparison::Gt => ">",
                Comparison::Gte => ">=",
                Comparison::Eq => "=",
                Comparison::Neq => "!=",
            };
            format!("{sign} {}", number_words(*number))
        }
        Predicate::TimePart(part, comparison, number) => format!("{part:?} {comparison:?} {number}").to_lowercase(),
        Predicate::FieldRef { field, kind, cased } => format!("{} field {field}{}", affix(*kind), mark(*cased)),
    }
}

fn number_words(number: Number) -> String {
    match number {
        Number::Int(number) => number.to_string(),
        Number::Float(number) => number.to_string(),
    }
}
