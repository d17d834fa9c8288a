//! Runs the tests inside rules through the detector that serves production, on a virtual clock.
//!
//! Only the rule under test and the rules it looks at are loaded. Time begins at a fixed instant; every event arrives in
//! a record of its own, after a tick, and ticks go on after the last one until every source's lateness has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pipeproof_engine::control::{Control, OWN_SOURCE, SourceRecord};
use pipeproof_engine::detect::{Decoded, Detector};
use pipeproof_engine::event::{Event, EventId};
use pipeproof_engine::fields::{Field, FieldKind, Fields, Value};
use pipeproof_engine::finding::Finding;
use pipeproof_engine::plan::Plan;
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Position, Record};
use pipeproof_engine::rule::{Rule, RuleState};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use serde::Serialize;

use crate::inline::{Expected, RuleTest, TestEvent};
use crate::lists::Lists;
use crate::load::{RuleSet, load};

/// 2026-01-05T12:00:00Z, a Monday: when every test begins.
const START: Timestamp = Timestamp::from_secs(1_767_614_400);
const DAY: Duration = Duration::from_secs(86_400);

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

/// Runs every test of the set.
#[must_use]
pub fn run_tests(set: &RuleSet) -> Vec<TestOutcome> {
    let mut outcomes = Vec::new();
    for tests in &set.tests {
        for test in &tests.tests {
            if let (Some(rule), Some(source)) = (set.rules.get(tests.rule), set.origins.get(tests.rule)) {
                let meta = rule.meta();
                let run = run_test(set, tests.rule, test);
                let (got, problem) = match run {
                    Ok(got) => (got, None),
                    Err(problem) => (Vec::new(), Some(problem)),
                };
                let message = problem.or_else(|| difference(&test.expect, &got));
                outcomes.push(TestOutcome {
                    rule: meta.id.clone(),
                    title: meta.title.clone(),
                    file: source.file.clone(),
                    line: test.line,
                    name: test.name.clone(),
                    passed: message.is_none(),
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
fn difference(expected: &[Expected], got: &[Got]) -> Option<String> {
    let fits = |expected: &Expected, got: &Got| {
        expected.at.is_none_or(|at| at == got.at)
            && expected.key.iter().all(|(name, value)| got.key.get(name) == Some(value))
    };
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
fn run_test(set: &RuleSet, rule: usize, test: &RuleTest) -> Result<Vec<Got>, String> {
    let Some(id) = set.rules.get(rule).map(|rule| rule.meta().id.clone()) else { return Ok(Vec::new()) };
    let replaced;
    let rules = if test.lists.is_empty() {
        &set.rules
    } else {
        // Lists are part of the rules, so other lists make other rules.
        let mut lists: Lists = set.lists.clone();
        test.lists.iter().for_each(|(name, values)| lists.set(name, values.clone()));
        replaced = load(&set.files, &lists).rules;
        &replaced
    };
    let rules = needed(rules, &id);
    let default = default_source(&rules, &id);
    let plan = Plan::compile(rules).map_err(|error| error.to_string())?;
    let mut bench = Bench { detector: Detector::new(Arc::new(plan), 0), index: 0, findings: Vec::new() };

    let kinds: BTreeSet<SourceType> = test.events.iter().map(|event| event.source.unwrap_or(default)).collect();
    for kind in &kinds {
        bench.control(START.minus(DAY), &Control::SourceAdded(connected(*kind)))?;
    }
    let mut arrivals: Vec<&TestEvent> = test.events.iter().collect();
    arrivals.sort_by_key(|event| event.arrives);
    for (number, event) in arrivals.iter().enumerate() {
        bench.control(START.plus(event.arrives), &Control::Tick {})?;
        bench.event(number, event, event.source.unwrap_or(default))?;
    }
    let last = arrivals.iter().map(|event| event.arrives.max(event.at)).max().unwrap_or_default();
    let end = test.until.unwrap_or_default().max(last);
    let lateness = kinds.iter().map(|kind| kind.info().lateness).max().unwrap_or_default();
    for at in [end, end.saturating_add(lateness).saturating_add(Duration::from_secs(1))] {
        bench.control(START.plus(at), &Control::Tick {})?;
    }

    let own = bench.findings.into_iter().filter(|finding| finding.rule_id == id);
    let mut got: Vec<Got> = own
        .map(|finding| Got {
            at: Duration::from_micros(u64::try_from(finding.time.micros_since(START)).unwrap_or_default()),
            key: finding.key,
            title: finding.title,
            because: finding.because,
        })
        .collect();
    got.sort_by(|left, right| (left.at, &left.key).cmp(&(right.at, &right.key)));
    Ok(got)
}

/// The rule under test, made active and loud, and every rule it looks at.
fn needed(rules: &[Rule], id: &str) -> Vec<Rule> {
    let find =
        |name: &str| rules.iter().position(|rule| rule.meta().id == name || rule.meta().name.as_deref() == Some(name));
    let mut numbers = BTreeSet::new();
    let mut open: Vec<usize> = find(id).into_iter().collect();
    while let Some(number) = open.pop() {
        if !numbers.insert(number) {
            continue;
        }
        if let Some(Rule::Correlation(rule)) = rules.get(number) {
            open.extend(rule.members.iter().filter_map(|member| find(member)));
        }
    }
    let mut needed: Vec<Rule> = numbers.into_iter().filter_map(|number| rules.get(number).cloned()).collect();
    for rule in &mut needed {
        let meta = rule.meta_mut();
        meta.state = RuleState::Active;
        meta.emits = meta.id == id;
    }
    needed
}

/// The type of source a test's events come from unless they say: the first the rule requires, else the one its
/// logsource is fed by.
fn default_source(rules: &[Rule], id: &str) -> SourceType {
    let required = rules.iter().filter(|rule| rule.meta().id == id).flat_map(|rule| &rule.meta().requires);
    if let Some(kind) = required.filter_map(|name| name.parse().ok()).next() {
        return kind;
    }
    let fed = rules.iter().filter_map(|rule| match rule {
        Rule::Detection(rule) => SourceType::ALL.iter().copied().find(|kind| {
            kind.info().native.is_some_and(|(product, service)| {
                rule.logsource.product.as_deref() == Some(product)
                    && rule.logsource.service.as_deref().is_none_or(|wanted| wanted == service)
            })
        }),
        Rule::Correlation(_) => None,
    });
    fed.into_iter().next().unwrap_or(SourceType::Json)
}

fn connected(kind: SourceType) -> SourceRecord {
    SourceRecord {
        name: kind.name().to_owned(),
        source_type: kind,
        labels: BTreeMap::new(),
        connected: START.minus(DAY),
        generation: 0,
        actor: "test".to_owned(),
    }
}

/// A detector fed record by record.
struct Bench {
    detector: Detector,
    index: u64,
    findings: Vec<Finding>,
}

impl Bench {
    fn control(&mut self, received: Timestamp, control: &Control) -> Result<(), String> {
        let body = serde_json::to_vec(control).map_err(|error| error.to_string())?;
        let record = record(OWN_SOURCE, SourceType::Pipeproof, received, format!("id:control-{}", self.index), body);
        self.apply(Record { envelope: Envelope { auth: Authenticity::Own, ..record.envelope }, ..record }, Vec::new())
    }

    fn event(&mut self, number: usize, event: &TestEvent, kind: SourceType) -> Result<(), String> {
        let native = serde_json::to_vec(&event.fields).map_err(|error| error.to_string())?;
        let received = START.plus(event.arrives);
        let record = record(kind.name(), kind, received, format!("id:event-{number}"), native.clone());
        let decoded = Event {
            id: EventId { position: Position { partition: 0, index: self.index }, sub: 0 },
            source: kind.name().into(),
            source_type: kind,
            item: record.envelope.item.as_str().into(),
            time: START.plus(event.at),
            time_known: true,
            received,
            auth: Authenticity::Bearer,
            mode: CollectionMode::Live,
            fields: normalised(&event.fields),
            native: Bytes::from(native),
        };
        self.apply(record, vec![decoded])
    }

    fn apply(&mut self, record: Record, events: Vec<Event>) -> Result<(), String> {
        let received = record.envelope.received;
        let decoded = Decoded { index: self.index, record, events: Ok(events) };
        self.index += 1;
        let commit = self.detector.apply(vec![decoded], received).map_err(|error| error.to_string())?;
        if let Some(dead) = commit.dead_letters.first() {
            return Err(format!("the detector refused a record: {}", dead.reason));
        }
        self.findings.extend(commit.findings);
        Ok(())
    }
}

fn record(source: &str, kind: SourceType, received: Timestamp, item: String, body: Vec<u8>) -> Record {
    Record {
        envelope: Envelope {
            source: source.to_owned(),
            source_type: kind,
            received,
            auth: Authenticity::Bearer,
            key_id: None,
            item,
            mode: CollectionMode::Live,
            attributes: BTreeMap::new(),
            redacted: Vec::new(),
        },
        salt: [0; 16],
        body: Bytes::from(body),
    }
}

/// The fields of a test event that are in the cicd taxonomy, in its types.
fn normalised(given: &BTreeMap<String, serde_json::Value>) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in given {
        let Some(field) = Field::from_name(name) else { continue };
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => continue,
            scalar => scalar.to_string(),
        };
        let typed = match field.kind() {
            FieldKind::Text => Some(Value::Text(text)),
            FieldKind::Int => text.parse().ok().map(Value::Int),
            FieldKind::Bool => text.parse().ok().map(Value::Bool),
            FieldKind::Time => Timestamp::parse(&text).map(Value::Time),
        };
        if let Some(typed) = typed {
            fields.set(field, typed);
        }
    }
    fields
}
