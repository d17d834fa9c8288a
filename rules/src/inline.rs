//! The tests inside rules, as written: events at relative times, and what the rule must find.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::diagnostic::{Code, Report};
use crate::metadata::{closed, duration, duration_of, text, texts};
use crate::yaml::{Data, Node, Scalar};

/// Most events one test may have.
pub(crate) const EVENTS_MAX: usize = 100_000;

/// A test of a rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleTest {
    /// What it shows.
    pub name: String,
    /// Line of the file, from 1.
    pub line: usize,
    /// Events from before the start, the latest first: their times count backwards from it.
    pub history: Vec<TestEvent>,
    /// Events, in the order written.
    pub events: Vec<TestEvent>,
    /// Lists that replace those of the rule set.
    pub lists: BTreeMap<String, Vec<String>>,
    /// To where time goes on after the last event; a little beyond it if absent.
    pub until: Option<Duration>,
    /// The findings, in the order of their times.
    pub expect: Vec<Expected>,
    /// Whether those are all findings. If not, one finding is enough.
    pub exact: bool,
    /// Whether events reach only the rules that their sources feed, as in production.
    pub routed: bool,
}

/// An event of a test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TestEvent {
    /// When it happens, after the start.
    pub at: Duration,
    /// When it is received; at once if absent.
    pub arrives: Duration,
    /// Its source: a source type, a feed, or any other name. Chosen by what the rule requires, or by its logsource, if
    /// absent.
    pub source: Option<String>,
    /// Its fields, under the names as written.
    pub fields: BTreeMap<String, Value>,
}

/// A finding that a test expects.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expected {
    /// Time of the finding, after the start; any if absent.
    pub at: Option<Duration>,
    /// Entries its key must have.
    pub key: BTreeMap<String, String>,
}

/// Reads the `tests` of a document.
pub(crate) fn read(document: &Node, report: &mut Report<'_>) -> Vec<RuleTest> {
    let Some(node) = document.get("tests") else { return Vec::new() };
    let Some(items) = node.list() else {
        report.add(Code::Test, node.place, "`tests` must be a list");
        return Vec::new();
    };
    items.iter().filter_map(|item| test(item, report)).collect()
}

fn test(node: &Node, report: &mut Report<'_>) -> Option<RuleTest> {
    if node.map().is_none() {
        report.add(Code::Test, node.place, "a test must be a mapping");
        return None;
    }
    let before = report.errors();
    closed(node, "tests", &["name", "given", "events", "lists", "until", "expect", "history"], report);
    let name = text(node, "name", report).unwrap_or_default().to_owned();
    if node.get("name").is_none() {
        report.add(Code::Test, node.place, "the test has no `name`");
    }
    let given = node.get("given").map(|given| fields(given, report)).unwrap_or_default();
    let events = events(node, &given, report);
    let history = history(node, &given, report);
    if history.len() + events.len() > EVENTS_MAX {
        report.add(Code::Test, node.place, format!("a test has at most {EVENTS_MAX} events"));
    }
    let until = duration_of(node, "until", report);
    let expect = match node.get("expect").map(|expect| (expect, expect.list())) {
        Some((_, Some(items))) => items.iter().filter_map(|item| expected(item, report)).collect(),
        Some((expect, None)) => {
            report.add(Code::Test, expect.place, "`expect` must be a list; `[]` where nothing is found");
            Vec::new()
        }
        None => {
            report.add(Code::Test, node.place, "the test has no `expect`");
            Vec::new()
        }
    };
    let mut lists = BTreeMap::new();
    if let Some(given) = node.get("lists") {
        for (key, _) in given.map().unwrap_or_default() {
            let values = texts(given, &key.text, report).into_iter().map(|(value, _)| value);
            lists.insert(key.text.clone(), values.collect());
        }
    }
    let line = node.place.line;
    let (exact, routed) = (true, true);
    (report.errors() == before)
        .then(|| RuleTest { name, line, history, events, lists, until, expect, exact, routed })
}

/// `history: {every, times, count}`: the given event, `count` times at each of `times` moments before the start.
fn history(node: &Node, given: &BTreeMap<String, Value>, report: &mut Report<'_>) -> Vec<TestEvent> {
    let Some(found) = node.get("history") else { return Vec::new() };
    closed(found, "history", &["every", "times", "count", "given"], report);
    let every = duration_of(found, "every", report);
    let whole = |key: &str| match found.get(key).map(Node::scalar) {
        None => Some(1),
        Some(Some(Scalar::Int(number))) => usize::try_from(number).ok().filter(|number| (1..=EVENTS_MAX).contains(number)),
        Some(_) => None,
    };
    let (Some(every), Some(times), Some(count)) = (every, whole("times"), whole("count")) else {
        let message = "`history` has `every`, and the whole numbers `times` and `count`";
        report.add(Code::Test, found.place, message);
        return Vec::new();
    };
    if times.saturating_mul(count) > EVENTS_MAX {
        report.add(Code::Test, found.place, format!("a test has at most {EVENTS_MAX} events"));
        return Vec::new();
    }
    let mut own = given.clone();
    own.extend(found.get("given").map(|more| fields(more, report)).unwrap_or_default());
    let source = own.remove("source").and_then(|source| source.as_str().map(str::to_owned));
    let mut events = Vec::with_capacity(times * count);
    for number in 1..=u32::try_from(times).unwrap_or(u32::MAX) {
        for part in 0..u32::try_from(count).unwrap_or(u32::MAX) {
            // A little apart, so that they have an order; a moment stays inside its bucket.
            let at = every.saturating_mul(number).saturating_sub(Duration::from_millis(1).saturating_mul(part));
            events.push(TestEvent { at, arrives: at, source: source.clone(), fields: own.clone() });
        }
    }
    events
}

fn events(node: &Node, given: &BTreeMap<String, Value>, report: &mut Report<'_>) -> Vec<TestEvent> {
    let Some(events) = node.get("events") else {
        report.add(Code::Test, node.place, "the test has no `events`");
        return Vec::new();
    };
    if let Some(items) = events.list() {
        return items.iter().filter_map(|item| event(item, given, report)).collect();
    }
    // `{repeat: N, every: SPAN}`: the given event, again and again.
    let repeat = events.get("repeat").and_then(Node::scalar);
    let every = duration_of(events, "every", report);
    let (Some(Scalar::Int(repeat)), Some(every)) = (repeat, every) else {
        report.add(Code::Test, events.place, "`events` must be a list, or have `repeat` and `every`");
        return Vec::new();
    };
    closed(events, "events", &["repeat", "every"], report);
    let mut given = given.clone();
    let source = given.remove("source").and_then(|source| source.as_str().map(str::to_owned));
    let Some(count) = usize::try_from(repeat).ok().filter(|count| *count <= EVENTS_MAX) else {
        report.add(Code::Test, events.place, format!("a test has at most {EVENTS_MAX} events"));
        return Vec::new();
    };
    (0..count)
        .map(|number| {
            let at = every.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
            TestEvent { at, arrives: at, source: source.clone(), fields: given.clone() }
        })
        .collect()
}

fn event(node: &Node, given: &BTreeMap<String, Value>, report: &mut Report<'_>) -> Option<TestEvent> {
    let own = fields(node, report);
    let span = |key: &str, report: &mut Report<'_>| duration_of(node, key, report);
    let Some(at) = span("at", report) else {
        if node.get("at").is_none() {
            report.add(Code::Test, node.place, "an event of a test needs `at`");
        }
        return None;
    };
    let arrives = span("arrives", report).unwrap_or(at);
    let mut fields = given.clone();
    fields.extend(own);
    let source = fields.remove("source").and_then(|source| source.as_str().map(str::to_owned));
    for key in ["at", "arrives"] {
        fields.remove(key);
    }
    Some(TestEvent { at, arrives, source, fields })
}

/// The fields of an event, under the names as written.
pub(crate) fn fields(node: &Node, report: &mut Report<'_>) -> BTreeMap<String, Value> {
    let Some(entries) = node.map() else {
        report.add(Code::Test, node.place, "an event of a test must be a mapping");
        return BTreeMap::new();
    };
    entries.iter().map(|(key, value)| (key.text.clone(), json(value))).collect()
}

fn json(node: &Node) -> Value {
    match &node.data {
        Data::List(items) => items.iter().map(json).collect(),
        Data::Map(entries) => entries.iter().map(|(key, value)| (key.text.clone(), json(value))).collect(),
        Data::Scalar(text, _) => match node.scalar() {
            Some(Scalar::Int(number)) => {
                i64::try_from(number).map(Value::from).unwrap_or_else(|_| Value::from(text.as_str()))
            }
            Some(Scalar::Float(number)) => Value::from(number),
            Some(Scalar::Bool(truth)) => Value::from(truth),
            Some(Scalar::Null) => Value::Null,
            Some(Scalar::Text(_)) | None => Value::from(text.as_str()),
        },
    }
}

fn expected(node: &Node, report: &mut Report<'_>) -> Option<Expected> {
    if node.map().is_none() {
        report.add(Code::Test, node.place, "what is expected must be a mapping, as in `{at: 5m}`");
        return None;
    }
    closed(node, "expect", &["at", "key"], report);
    let at = match node.get("at").map(|at| (at, at.text().and_then(duration))) {
        None => None,
        Some((_, Some(at))) => Some(at),
        Some((at, None)) => {
            report.add(Code::Test, at.place, "`at` is no length of time");
            return None;
        }
    };
    let key = node.get("key").and_then(Node::map).unwrap_or_default();
    let key = key.iter().filter_map(|(name, value)| Some((name.text.clone(), value.text()?.to_owned()))).collect();
    Some(Expected { at, key })
}
