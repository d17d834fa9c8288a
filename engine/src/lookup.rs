//! Lookups of a detection rule: what of its condition the event alone does not decide.
//!
//! When an event is a candidate for a rule with lookups, everything else of the condition is decided at once. What is
//! left is a [`Question`]: a small expression over lookups, with the event's values in it as text. It waits until the
//! watermark has passed what the tables need, and is answered then, without the event.

use serde::{Deserialize, Serialize};

use crate::explain::words;
use crate::intern::Kind;
use crate::matcher::{ColumnMatcher, Hits, MatcherBuilder};
use crate::rule::{Lookup, Predicate};
use crate::table::{Query, Row, Rows, Texts};
use crate::time::Timestamp;

/// Most values of one event that are looked up by one lookup: fields with several values are joined each with each.
pub const VALUES_MAX: usize = 256;

/// A lookup, compiled.
#[derive(Debug)]
pub struct CompiledLookup {
    /// Number of the table.
    pub table: usize,
    signature: u16,
    /// Fields of the event, in the order of the signature.
    pub(crate) keys: Vec<String>,
    /// The field that says at which time; `time` is the event's own.
    pub(crate) during: Option<String>,
    tests: Vec<(u16, ColumnTest)>,
    source: Lookup,
}

#[derive(Debug)]
enum ColumnTest {
    Present(bool),
    Value(Box<ColumnMatcher>),
    /// A test that is none of a table's value; the language refuses it.
    Never,
}

impl ColumnTest {
    fn of(predicate: &Predicate) -> Self {
        match predicate {
            Predicate::Exists(present) => Self::Present(*present),
            // A table's value is a text or missing.
            Predicate::Null => Self::Present(false),
            Predicate::FieldRef { .. } => Self::Never,
            Predicate::Text { .. }
            | Predicate::Number(_)
            | Predicate::Bool(_)
            | Predicate::Regex(_)
            | Predicate::Cidr(_)
            | Predicate::Compare(..)
            | Predicate::TimePart(..) => {
                let mut builder = MatcherBuilder::default();
                builder.add(predicate, 0);
                Self::Value(Box::new(builder.build()))
            }
        }
    }

    fn passes(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::Present(present), value) => value.is_some() == *present,
            (Self::Value(matcher), Some(value)) => {
                // A number is a text here, and a rule that says 1 means it too.
                [Kind::Text, Kind::Number].into_iter().any(|kind| {
                    let mut hits = Hits::default();
                    hits.start(1);
                    matcher.test(kind, value, &mut hits);
                    !hits.leaves.is_empty()
                })
            }
            (Self::Value(_), None) | (Self::Never, _) => false,
        }
    }
}

/// What an event brings to a lookup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The values of the keys; one set of them must be found.
    pub values: Vec<Texts>,
    /// At which time.
    pub at: Option<Timestamp>,
}

impl CompiledLookup {
    /// Compiles a lookup in the table with this number; `column` gives a column's number, `signature` that of a list of them.
    pub(crate) fn new(
        lookup: &Lookup,
        table: usize,
        column: impl Fn(&str) -> Option<u16>,
        signature: impl FnOnce(Vec<u16>) -> u16,
    ) -> Result<Self, String> {
        let number = |name: &String| column(name).ok_or_else(|| name.clone());
        let keys = lookup.keys.iter().map(|(_, name)| number(name)).collect::<Result<Vec<_>, _>>()?;
        let tests = lookup.columns.iter().map(|(name, predicate)| Ok((number(name)?, ColumnTest::of(predicate))));
        Ok(Self {
            table,
            tests: tests.collect::<Result<_, String>>()?,
            signature: signature(keys),
            keys: lookup.keys.iter().map(|(field, _)| field.clone()).collect(),
            during: lookup.during.clone(),
            source: lookup.clone(),
        })
    }

    /// What an event asks, given the values of each key and the time; `None` if it lacks one of them.
    pub(crate) fn ask(&self, keys: &[Vec<String>], at: Option<Timestamp>) -> Option<Asked> {
        if self.during.is_some() && at.is_none() {
            return None;
        }
        let mut sets: Vec<Vec<&str>> = vec![Vec::with_capacity(keys.len())];
        for values in keys {
            let mut longer = Vec::new();
            for set in &sets {
                let with = |value| set.iter().copied().chain([value]).collect();
                let room = VALUES_MAX - longer.len();
                longer.extend(values.iter().map(String::as_str).take(room).map(with));
            }
            sets = longer;
        }
        let values: Vec<Texts> = sets.into_iter().map(|set| Texts::of(set.into_iter().map(Some))).collect();
        (!values.is_empty()).then_some(Asked { values, at })
    }

    /// Whether some row answers.
    pub(crate) fn answer(&self, asked: &Asked, as_of: Timestamp, rows: &Rows) -> bool {
        let passes = |row: Row<'_>| self.tests.iter().all(|(column, test)| test.passes(row.get(*column)));
        asked.values.iter().any(|values| {
            let query = Query { signature: self.signature, values, at: asked.at, as_of };
            rows.any(&query, passes)
        })
    }

    /// The row it is about, in words: `row of jobs with run_id = r2 at 2026-01-01T00:00:00Z`.
    pub(crate) fn words(&self, keys: &[Vec<String>], at: Option<Timestamp>) -> String {
        let Lookup { table, keys: pairs, columns, during } = &self.source;
        let mut parts: Vec<String> = Vec::new();
        for ((field, column), values) in pairs.iter().zip(keys) {
            parts.push(match values.as_slice() {
                [] => format!("{column} = {field} (missing)"),
                values => format!("{column} = {}", values.join(" or ")),
            });
        }
        parts.extend(columns.iter().map(|(column, predicate)| format!("{column} {}", words(predicate))));
        let with = if parts.is_empty() { String::new() } else { format!(" with {}", parts.join(" and ")) };
        let when = match (during, at) {
            (None, _) => String::new(),
            (Some(_), Some(at)) => format!(" at {at}"),
            (Some(field), None) => format!(" at {field} (missing)"),
        };
        format!("row of {table}{with}{when}")
    }
}

/// What a condition has come down to: a boolean expression over lookups, by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Residual {
    /// Decided.
    Known(bool),
    /// The lookup with this number finds a row.
    Row(u16),
    /// All of them.
    All(Vec<Residual>),
    /// Any of them.
    Any(Vec<Residual>),
    /// Not this.
    Not(Box<Residual>),
}

impl Residual {
    /// All of these, made as small as can be.
    #[must_use]
    pub fn all(parts: Vec<Self>) -> Self {
        Self::join(parts, false, Self::All)
    }

    /// Any of these, made as small as can be.
    #[must_use]
    pub fn any(parts: Vec<Self>) -> Self {
        Self::join(parts, true, Self::Any)
    }

    fn join(parts: Vec<Self>, decides: bool, many: fn(Vec<Self>) -> Self) -> Self {
        let mut left: Vec<Self> = Vec::new();
        for part in parts {
            match part {
                Self::Known(known) if known == decides => return Self::Known(decides),
                Self::Known(_) => {}
                other => left.push(other),
            }
        }
        match left.len() {
            0 => Self::Known(!decides),
            1 => left.remove(0),
            _ => many(left),
        }
    }

    /// The opposite.
    #[must_use]
    pub fn negate(self) -> Self {
        match self {
            Self::Known(known) => Self::Known(!known),
            Self::Not(part) => *part,
            other => Self::Not(Box::new(other)),
        }
    }

    /// Its truth, given that of each lookup; one that is not given found nothing.
    #[must_use]
    pub fn holds(&self, found: &[bool]) -> bool {
        match self {
            Self::Known(known) => *known,
            Self::Row(number) => found.get(usize::from(*number)).copied().unwrap_or(false),
            Self::All(parts) => parts.iter().all(|part| part.holds(found)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(found)),
            Self::Not(part) => !part.holds(found),
        }
    }

    /// Whether some answers of the lookups make it hold, each taken for itself.
    #[must_use]
    pub fn may_hold(&self) -> bool {
        self.may(false)
    }

    fn may(&self, negated: bool) -> bool {
        match self {
            Self::Known(known) => *known,
            Self::Row(_) => !negated,
            Self::All(parts) => parts.iter().all(|part| part.may(negated)),
            Self::Any(parts) => parts.iter().any(|part| part.may(negated)),
            Self::Not(part) => !part.may(!negated),
        }
    }

    /// Whether finding nothing can make it hold: then silence of what feeds the table must not decide it.
    #[must_use]
    pub fn seeks_absence(&self) -> bool {
        match self {
            Self::Known(_) | Self::Row(_) => false,
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::seeks_absence),
            Self::Not(part) => part.mentions_row(),
        }
    }

    fn mentions_row(&self) -> bool {
        match self {
            Self::Known(_) => false,
            Self::Row(_) => true,
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::mentions_row),
            Self::Not(part) => part.mentions_row(),
        }
    }
}

/// A reason for a match, of which that of a lookup is known once it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Known.
    Known(String),
    /// A lookup.
    Row {
        /// Its number.
        number: u16,
        /// It stands under `not`.
        negated: bool,
        /// The row, in words.
        row: String,
    },
}

/// What an event asks the tables for a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What the condition has come down to.
    pub residual: Residual,
    /// By lookup: what is looked up; `None` where the event lacks a field and nothing can be found.
    pub asked: Vec<Option<Asked>>,
    /// Why it is a match if it is one.
    pub reasons: Vec<Reason>,
}

impl Question {
    /// Whether it is a match as of this time, and the reasons that speak for it. `rows` gives the rows of a table.
    #[must_use]
    pub fn answer<'r>(
        &self,
        lookups: &[CompiledLookup],
        as_of: Timestamp,
        rows: impl Fn(usize) -> Option<&'r Rows>,
    ) -> Option<Vec<String>> {
        let found = |(asked, lookup): (&Option<Asked>, &CompiledLookup)| {
            asked.as_ref().zip(rows(lookup.table)).is_some_and(|(asked, rows)| lookup.answer(asked, as_of, rows))
        };
        let found: Vec<bool> = self.asked.iter().zip(lookups).map(found).collect();
        self.residual.holds(&found).then(|| {
            let reason = |reason: &Reason| match reason {
                Reason::Known(text) => Some(text.clone()),
                Reason::Row { number, negated, row } => {
                    let found = found.get(usize::from(*number)).copied().unwrap_or(false);
                    (found != *negated).then(|| format!("{} {row}", if found { "a" } else { "no" }))
                }
            };
            self.reasons.iter().filter_map(reason).collect()
        })
    }
}

#[cfg(test)]
mod tests;
