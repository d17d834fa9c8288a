//! Exceptions (Sigma filters): which of them apply to a rule, and which lets a match go.
//!
//! An exception is applied to matches of detection rules and never to correlations; it changes no rule's digest. One
//! that has expired, judged on the time the event was received, lets nothing go any more: what it would have let go is
//! a match, and is counted, so that an exception that ran out is seen.

use serde::{Deserialize, Serialize};

use crate::compiler::{Compiler, Source};
use crate::event::Event;
use crate::program::Program;
use crate::rule::{DetectionRule, Filter};
use crate::source::Logsource;
use crate::spelling::{BySpelling, Spelling};
use crate::time::Timestamp;

/// What an exception has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionCount {
    /// Matches it let go.
    pub let_go: u64,
    /// Record time of the first of them.
    pub first: Option<Timestamp>,
    /// Record time of the last of them.
    pub last: Option<Timestamp>,
    /// Matches it would have let go had it not expired.
    pub unfiltered: u64,
}

/// What exceptions say about a match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Number of the exception that lets it go.
    pub let_go: Option<usize>,
    /// Numbers of the expired exceptions that would have.
    pub expired: Vec<usize>,
}

/// The exceptions that apply to one rule, compiled when it first matches.
#[derive(Debug, Default)]
pub(crate) struct RuleExceptions {
    /// Numbers of the exceptions, in the order of their ids.
    filters: Vec<usize>,
    programs: BySpelling<Box<Program>>,
}

impl RuleExceptions {
    pub(crate) fn of(rule: &DetectionRule, filters: &[Filter]) -> Self {
        let mut own: Vec<usize> = (0..filters.len()).collect();
        own.retain(|number| filters.get(*number).is_some_and(|filter| applies(filter, rule)));
        own.sort_by_key(|number| filters.get(*number).map(|filter| &filter.id));
        Self { filters: own, programs: BySpelling::default() }
    }

    /// What they say about an event that matches the rule.
    pub(crate) fn judge(&self, filters: &[Filter], event: &Event) -> Verdict {
        let mut verdict = Verdict::default();
        if self.filters.is_empty() {
            return verdict;
        }
        let spelling = Spelling::of(event.source_type);
        let program = self.programs.get_or_init(spelling, || {
            let mut compiler = Compiler::new(spelling);
            for (place, number) in self.filters.iter().enumerate() {
                if let Some(Filter { taxonomy, condition, .. }) = filters.get(*number) {
                    compiler.add(&Source { rule: place, taxonomy: *taxonomy, condition, category: None });
                }
            }
            Box::new(compiler.build())
        });
        let mut held = vec![false; self.filters.len()];
        program.run(event, |place| {
            if let Some(slot) = held.get_mut(place) {
                *slot = true;
            }
        });
        for (number, _) in self.filters.iter().zip(held).filter(|(_, held)| !held) {
            let expires = filters.get(*number).and_then(|filter| filter.expires);
            if expires.is_some_and(|expires| expires <= event.received) {
                verdict.expired.push(*number);
            } else if verdict.let_go.is_none() {
                verdict.let_go = Some(*number);
            }
        }
        verdict
    }
}

/// Whether an exception is about a rule: it names it or any, and its logsource covers the rule's.
fn applies(filter: &Filter, rule: &DetectionRule) -> bool {
    let meta = &rule.meta;
    let named = |name: &String| *name == meta.id || Some(name) == meta.name.as_ref();
    filter.rules.as_ref().is_none_or(|rules| rules.iter().any(named)) && covers(&filter.logsource, &rule.logsource)
}

/// Whether everything the first logsource says, the second says too.
fn covers(wide: &Logsource, narrow: &Logsource) -> bool {
    let part = |wide: &Option<String>, narrow: &Option<String>| wide.is_none() || wide == narrow;
    part(&wide.product, &narrow.product)
        && part(&wide.service, &narrow.service)
        && part(&wide.category, &narrow.category)
}

#[cfg(test)]
mod tests;
