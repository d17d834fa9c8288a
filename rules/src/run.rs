//! Runs the tests inside rules through the detector that serves production, on a virtual clock.
//!
//! Only the rule under test and the rules it looks at are loaded. Time begins at a fixed instant; every event arrives in
//! a record of its own, after a tick, and ticks go on after the last one until every source's lateness has passed. Each
//! test runs in several deliveries of the same records, which must give the same findings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pipeproof_engine::commit::Restored;
use pipeproof_engine::control::{Control, OWN_SOURCE, SourceRecord};
use pipeproof_engine::detect::{Decoded, Detector, must_be_heard};
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

/// How the same records reach the detector. What is found must not depend on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// One batch a record: the run that is shown.
    Once,
    /// Every record of a source is delivered again right away.
    Twice,
    /// All records in one batch.
    OneBatch,
    /// After every record the detector is stopped and restored from its state.
    Restored,
}

impl Delivery {
    const OTHERS: [(Self, &'static str); 3] = [
        (Self::Twice, "with every record delivered twice"),
        (Self::OneBatch, "with all records in one batch"),
        (Self::Restored, "with a restart after every record"),
    ];
}

/// Runs one test and gives the findings of the rule.
fn run_test(set: &RuleSet, rule: usize, test: &RuleTest) -> Result<Vec<Got>, String> {
    let Some(id) = set.rules.get(rule).map(|rule| rule.meta().id.clone()) else { return Ok(Vec::new()) };
    let mut rules = needed(&set.rules, &id);
    if !test.lists.is_empty() {
        // Lists are part of the rules, so other lists make other rules.
        let mut lists: Lists = set.lists.clone();
        test.lists.iter().for_each(|(name, values)| lists.set(name, values.clone()));
        let ids: BTreeSet<&str> = rules.iter().map(|rule| rule.meta().id.as_str()).collect();
        let origins = set.rules.iter().zip(&set.origins).filter(|(rule, _)| ids.contains(rule.meta().id.as_str()));
        let paths: BTreeSet<&str> = origins.map(|(_, origin)| origin.file.as_str()).collect();
        let files: Vec<_> = set.files.iter().filter(|(path, _)| paths.contains(path.as_str())).cloned().collect();
        rules = needed(&load(&files, &lists).rules, &id);
    }
    let default = default_source(&rules, &id);
    let plan = Arc::new(Plan::compile(rules).map_err(|error| error.to_string())?);
    let records = script(test, default, &must_be_heard(&plan))?;
    let findings = deliver(&plan, &records, Delivery::Once)?;
    let ids =
        |findings: &[Finding]| -> BTreeSet<String> { findings.iter().map(|finding| finding.id.clone()).collect() };
    for (delivery, how) in Delivery::OTHERS {
        if ids(&deliver(&plan, &records, delivery)?) != ids(&findings) {
            return Err(format!("{how}, the findings are others: this is an error of the engine, not of the rule"));
        }
    }
    let own = findings.into_iter().filter(|finding| finding.rule_id == id);
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

/// The records of a test in the order in which they arrive, ticks among them.
fn script(test: &RuleTest, default: SourceType, heard: &[Vec<SourceType>]) -> Result<Vec<Decoded>, String> {
    let mut script = Script::default();
    let mut kinds: BTreeSet<SourceType> = test.events.iter().map(|event| event.source.unwrap_or(default)).collect();
    // In a test no source is silent: what a rule must hear of to find that something is missing speaks before every
    // tick, and has nothing to say.
    let speaking: Vec<SourceType> = heard
        .iter()
        .filter(|types| !types.iter().any(|kind| kinds.contains(kind)))
        .filter_map(|types| types.first().copied())
        .collect();
    kinds.extend(&speaking);
    let speaking: BTreeSet<SourceType> =
        kinds.iter().copied().filter(|kind| heard.iter().any(|types| types.contains(kind))).collect();
    for kind in &kinds {
        script.control(START.minus(DAY), &Control::SourceAdded(connected(*kind)))?;
    }
    let mut arrivals: Vec<&TestEvent> = test.events.iter().collect();
    arrivals.sort_by_key(|event| event.arrives);
    for event in &arrivals {
        script.tick(START.plus(event.arrives), &speaking)?;
        script.event(event, event.source.unwrap_or(default))?;
    }
    let last = arrivals.iter().map(|event| event.arrives.max(event.at)).max().unwrap_or_default();
    let end = test.until.unwrap_or_default().max(last);
    let lateness = kinds.iter().map(|kind| kind.info().lateness).max().unwrap_or_default();
    for at in [end, end.saturating_add(lateness).saturating_add(Duration::from_secs(1))] {
        script.tick(START.plus(at), &speaking)?;
    }
    Ok(script.0)
}

/// Feeds records to a new detector and gives all findings.
fn deliver(plan: &Arc<Plan>, records: &[Decoded], delivery: Delivery) -> Result<Vec<Finding>, String> {
    let mut log: Vec<Decoded> = Vec::new();
    for record in records {
        let again = delivery == Delivery::Twice && record.record.envelope.auth != Authenticity::Own;
        for _ in 0..=usize::from(again) {
            let index = log.len() as u64;
            let mut copy = Decoded { index, ..record.clone() };
            for event in copy.events.iter_mut().flatten() {
                event.id.position.index = index;
            }
            log.push(copy);
        }
    }
    let batches = match delivery {
        Delivery::OneBatch => vec![log],
        Delivery::Once | Delivery::Twice | Delivery::Restored => log.into_iter().map(|record| vec![record]).collect(),
    };
    let mut detector = Detector::new(Arc::clone(plan), 0);
    let mut findings = Vec::new();
    for batch in batches {
        let received = batch.last().map(|decoded| decoded.record.envelope.received).unwrap_or_default();
        let commit = detector.apply(batch, received).map_err(|error| error.to_string())?;
        if let Some(dead) = commit.dead_letters.first() {
            return Err(format!("the detector refused a record: {}", dead.reason));
        }
        findings.extend(commit.findings);
        if delivery == Delivery::Restored {
            let position = detector.position();
            let state = detector.snapshot().map_err(|error| error.to_string())?;
            let restored = Restored { position, snapshot: Some((position, state)), deltas: Vec::new() };
            detector = Detector::restore(Arc::clone(plan), 0, &restored).map_err(|error| error.to_string())?;
        }
    }
    Ok(findings)
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
        Rule::Correlation(_) | Rule::Sql(_) => None,
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

/// Records, one after the other.
#[derive(Default)]
struct Script(Vec<Decoded>);

impl Script {
    fn control(&mut self, received: Timestamp, control: &Control) -> Result<(), String> {
        let body = serde_json::to_vec(control).map_err(|error| error.to_string())?;
        let mut record = record(OWN_SOURCE, SourceType::Pipeproof, received, format!("id:{}", self.0.len()), body);
        record.envelope.auth = Authenticity::Own;
        self.0.push(Decoded { index: self.0.len() as u64, record, events: Ok(Vec::new()) });
        Ok(())
    }

    /// A second passes, and these sources are heard.
    fn tick(&mut self, received: Timestamp, speaking: &BTreeSet<SourceType>) -> Result<(), String> {
        for kind in speaking {
            let index = self.0.len() as u64;
            let record = record(kind.name(), *kind, received, format!("id:{index}"), b"{}".to_vec());
            self.0.push(Decoded { index, record, events: Ok(Vec::new()) });
        }
        self.control(received, &Control::Tick {})
    }

    fn event(&mut self, event: &TestEvent, kind: SourceType) -> Result<(), String> {
        let native = serde_json::to_vec(&event.fields).map_err(|error| error.to_string())?;
        let received = START.plus(event.arrives);
        let index = self.0.len() as u64;
        let record = record(kind.name(), kind, received, format!("id:{index}"), native.clone());
        let decoded = Event {
            id: EventId { position: Position { partition: 0, index }, sub: 0 },
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
        self.0.push(Decoded { index, record, events: Ok(vec![decoded]) });
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
