//! Runs the tests inside rules through the detector that serves production, on a virtual clock.
//!
//! Only the rule under test and what it builds on are loaded: rules, tables, and the exceptions to those rules. Time
//! begins at a fixed instant; every event arrives in a record of its own, after a tick, and ticks go on after the last
//! one until every source's lateness has passed. Each test runs in several deliveries of the same records, which must give
//! the same findings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::detect::must_be_heard;
use pipeproof_engine::feed;
use pipeproof_engine::plan::{Content, Plan, Routing};
use pipeproof_engine::rule::{Condition, Rule, RuleState};
use serde::Serialize;

use crate::inline::{Expected, RuleTest};
use crate::lists::Lists;
use crate::load::{RuleSet, load_with};

mod deliver;
mod query;
mod stage;

pub use query::{SqlEvent, SqlRunner};

use deliver::Course;
use stage::{START, Stage};

/// What came of one test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TestOutcome {
    /// Id of the rule.
    pub rule: String,
    /// Its title.
    pub title: String,
    /// The file.
    pub file: String,
    /// Line at which the test begins, from 1.
    pub line: usize,
    /// Name of the test.
    pub name: String,
    /// Whether the rule found exactly what the test expects.
    pub passed: bool,
    /// It was not run, and so has not passed; `message` says why.
    pub skipped: bool,
    /// What the test expects.
    pub expected: Vec<Expected>,
    /// What the rule found, in the order of times.
    pub got: Vec<Got>,
    /// Why it failed, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A finding of the rule under test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Got {
    /// Its time, after the start of the test.
    pub at: Duration,
    /// Its key.
    pub key: BTreeMap<String, String>,
    /// Its title.
    pub title: String,
    /// Why.
    pub because: Vec<String>,
}

/// What came of running a test.
enum Run {
    Got(Vec<Got>),
    Skipped(String),
}

/// Runs every test of the set; those of rules that ask the stored events are skipped.
#[must_use]
pub fn run_tests(set: &RuleSet) -> Vec<TestOutcome> {
    run_tests_with(set, None)
}

/// Runs every test of the set, those of rules that ask the stored events with the query engine given.
#[must_use]
pub fn run_tests_with(set: &RuleSet, sql: Option<&dyn SqlRunner>) -> Vec<TestOutcome> {
    let content = set.content();
    let mut outcomes = Vec::new();
    for tests in &set.tests {
        for test in &tests.tests {
            if let (Some(rule), Some(source)) = (set.rules.get(tests.rule), set.origins.get(tests.rule)) {
                let meta = rule.meta();
                let (got, skipped, message) = match run_test(set, &content, tests.rule, test, sql) {
                    Ok(Run::Got(got)) => {
                        let message = difference(test, &got);
                        (got, false, message)
                    }
                    Ok(Run::Skipped(why)) => (Vec::new(), true, Some(why)),
                    Err(problem) => (Vec::new(), false, Some(problem)),
                };
                outcomes.push(TestOutcome {
                    rule: meta.id.clone(),
                    title: meta.title.clone(),
                    file: source.file.clone(),
                    line: test.line,
                    name: test.name.clone(),
                    passed: message.is_none(),
                    skipped,
                    expected: test.expect.clone(),
                    got,
                    message,
                });
            }
        }
    }
    outcomes
}

/// How what was found differs from what was expected, if it does.
fn difference(test: &RuleTest, got: &[Got]) -> Option<String> {
    let expected = &test.expect;
    let fits = |expected: &Expected, got: &Got| {
        expected.at.is_none_or(|at| at == got.at)
            && expected.key.iter().all(|(name, value)| got.key.get(name) == Some(value))
    };
    if !test.exact && !got.is_empty() {
        return None;
    }
    let equal = expected.len() == got.len() && expected.iter().zip(got).all(|(expected, got)| fits(expected, got));
    if equal {
        return None;
    }
    let seconds = |at: Duration| format!("{}s", at.as_secs_f64());
    let expected: Vec<_> = expected
        .iter()
        .map(|expected| format!("{} {:?}", expected.at.map_or_else(|| "any time".to_owned(), seconds), expected.key))
        .collect();
    let got: Vec<_> = got.iter().map(|got| format!("{} {:?}", seconds(got.at), got.key)).collect();
    Some(format!(
        "expected {} findings [{}], got {} [{}]",
        expected.len(),
        expected.join(", "),
        got.len(),
        got.join(", ")
    ))
}

/// Runs one test and gives the findings of the rule.
fn run_test(
    set: &RuleSet,
    content: &Content,
    rule: usize,
    test: &RuleTest,
    sql: Option<&dyn SqlRunner>,
) -> Result<Run, String> {
    let Some(id) = content.rules.get(rule).map(|rule| rule.meta().id.clone()) else {
        return Err("the rule is gone".to_owned());
    };
    let mut needed = needed(content, rule);
    if !test.lists.is_empty() {
        needed = with_lists(set, &needed, test, &id)?;
    }
    let own = needed.rules.iter().find(|rule| rule.meta().id == id).cloned();
    let Some(own) = own else { return Err("the rule is gone".to_owned()) };
    let unfed = needed
        .rules
        .iter()
        .any(|rule| matches!(rule, Rule::Detection(rule) if feed::of_logsource(&rule.logsource).is_empty()));
    let routing = if test.routed && !unfed { Routing::BySource } else { Routing::Unrouted };
    let plan = Arc::new(Plan::compile(needed.clone()).map_err(|error| error.to_string())?);
    let stage = Stage::new(test, &needed, &id, &must_be_heard(&plan));
    if let Rule::Sql(own) = &own {
        let Some(runner) = sql else {
            return Ok(Run::Skipped("there is no query engine here to run the rule's query".to_owned()));
        };
        return query::run(own, &stage, runner).map(Run::Got);
    }
    let findings = Course { plan: &plan, routing }.run(&stage, &own)?;
    // What history alone has led to is no matter of the test, nor what happens after its end.
    let own = findings.into_iter().filter(|finding| finding.rule_id == id);
    let own = own.filter(|finding| (START..=stage.end).contains(&finding.time));
    let mut got: Vec<Got> = own
        .map(|finding| Got {
            at: Duration::from_micros(u64::try_from(finding.time.micros_since(START)).unwrap_or_default()),
            key: finding.key,
            title: finding.title,
            because: finding.because,
        })
        .collect();
    got.sort_by(|left, right| (left.at, &left.key).cmp(&(right.at, &right.key)));
    Ok(Run::Got(got))
}

/// The rule under test, made active and loud, with all it builds on.
fn needed(content: &Content, rule: usize) -> Content {
    let (rules, tables) = stage::needed(content, rule);
    let mut needed = Content {
        rules: rules.iter().filter_map(|number| content.rules.get(*number).cloned()).collect(),
        tables: tables.iter().filter_map(|number| content.tables.get(*number).cloned()).collect(),
        filters: content.filters.clone(),
    };
    let own = content.rules.get(rule).map(|rule| rule.meta().id.clone()).unwrap_or_default();
    for rule in &mut needed.rules {
        let meta = rule.meta_mut();
        meta.state = RuleState::Active;
        meta.emits = meta.id == own;
    }
    let handles: BTreeSet<String> = needed
        .rules
        .iter()
        .flat_map(|rule| std::iter::once(rule.meta().id.clone()).chain(rule.meta().name.clone()))
        .collect();
    for filter in &mut needed.filters {
        // An exception may be for rules that are not here.
        if let Some(rules) = &mut filter.rules {
            rules.retain(|name| handles.contains(name));
        }
    }
    needed.filters.retain(|filter| filter.rules.as_ref().is_none_or(|rules| !rules.is_empty()));
    needed
}

/// The same with the lists of a test: lists are part of the rules, so other lists make other rules.
fn with_lists(set: &RuleSet, needed_before: &Content, test: &RuleTest, id: &str) -> Result<Content, String> {
    let mut lists: Lists = set.lists.clone();
    test.lists.iter().for_each(|(name, values)| lists.set(name, values.clone()));
    let rules: BTreeSet<&str> = needed_before.rules.iter().map(|rule| rule.meta().id.as_str()).collect();
    let tables: BTreeSet<&str> = needed_before.tables.iter().map(|table| table.name.as_str()).collect();
    let filters: BTreeSet<&str> = needed_before.filters.iter().map(|filter| filter.id.as_str()).collect();
    let of_rules = set.rules.iter().zip(&set.origins).filter(|(rule, _)| rules.contains(rule.meta().id.as_str()));
    let of_tables = set.tables.iter().zip(&set.table_origins).filter(|(table, _)| tables.contains(table.name.as_str()));
    let of_filters =
        set.filters.iter().zip(&set.filter_origins).filter(|(filter, _)| filters.contains(filter.id.as_str()));
    let paths: BTreeSet<&str> = of_rules
        .map(|(_, origin)| origin)
        .chain(of_tables.map(|(_, origin)| origin))
        .chain(of_filters.map(|(_, origin)| origin))
        .map(|origin| origin.file.as_str())
        .collect();
    let files: Vec<_> = set.files.iter().filter(|(path, _)| paths.contains(path.as_str())).cloned().collect();
    let attached = |path: &Path| {
        let found = set.attached.iter().find(|(own, _)| Path::new(own) == path).map(|(_, text)| text.clone());
        found.ok_or_else(|| format!("{} was not read with the rules", path.display()))
    };
    let other = load_with(&files, &lists, &attached);
    let rule = other.rules.iter().position(|rule| rule.meta().id == *id);
    let Some(rule) = rule else {
        let why = other.diagnostics.iter().find(|problem| problem.severity == crate::Severity::Error);
        let why = why.map(|problem| format!(": {problem}")).unwrap_or_default();
        return Err(format!("with the lists of the test, the rule cannot be loaded{why}"));
    };
    Ok(needed(&other.content(), rule))
}

/// Whether a condition looks something up in a table.
fn names_table(condition: &Condition, table: &str) -> bool {
    match condition {
        Condition::And(parts) | Condition::Or(parts) => parts.iter().any(|part| names_table(part, table)),
        Condition::Not(part) => names_table(part, table),
        Condition::Lookup(lookup) => lookup.table == table,
        Condition::Field { .. } | Condition::Keyword(_) => false,
    }
}

/// A text with its `{field}` filled in; `?` stands for what is not there.
fn filled(template: &str, read: &dyn Fn(&str) -> Option<String>) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let Some((field, after)) = after.split_once('}') else {
            text.push('{');
            rest = after;
            continue;
        };
        text.push_str(&read(field).unwrap_or_else(|| "?".to_owned()));
        rest = after;
    }
    text.push_str(rest);
    text
}
