//! Example events that rules carry for another engine (`rsigma.exemplars`), read as tests: an event, or events at offsets,
//! that the rule must or must not match. They stand under `custom_attributes`, or under that dotted key of the document.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::diagnostic::{Code, Report};
use crate::inline::{EVENTS_MAX, Expected, RuleTest, TestEvent, fields};
use crate::metadata::{closed, duration_of};
use crate::yaml::Node;

const KEY: &str = "rsigma.exemplars";

/// The examples of a document, wherever they stand.
fn find(document: &Node) -> Option<&Node> {
    document.get("custom_attributes").and_then(|own| own.get(KEY)).or_else(|| document.get(KEY))
}

/// Reads the examples of a rule.
pub(crate) fn read(document: &Node, correlation: bool, report: &mut Report<'_>) -> Vec<RuleTest> {
    let Some(node) = find(document) else { return Vec::new() };
    let Some(items) = node.list().filter(|items| !items.is_empty()) else {
        report.add(Code::Test, node.place, format!("`{KEY}` must be a list of examples"));
        return Vec::new();
    };
    items.iter().enumerate().filter_map(|(number, item)| example(number, item, correlation, report)).collect()
}

/// An exception has no examples: it matches nothing of its own.
pub(crate) fn refuse(document: &Node, report: &mut Report<'_>) {
    if let Some(node) = find(document) {
        report.add(Code::Test, node.place, format!("an exception has no `{KEY}`; the rules it is for have"));
    }
}

fn example(number: usize, node: &Node, correlation: bool, report: &mut Report<'_>) -> Option<RuleTest> {
    if node.map().is_none() {
        report.add(Code::Test, node.place, "an example must be a mapping");
        return None;
    }
    let before = report.errors();
    closed(node, "example", &["name", "expect", "event", "events"], report);
    let name = node.get("name").and_then(Node::text).map_or_else(|| number.to_string(), str::to_owned);
    let matches = match node.get("expect").and_then(Node::text) {
        Some("match") => true,
        Some("no-match") => false,
        _ => {
            let place = node.get("expect").map_or(node.place, |expect| expect.place);
            report.add(Code::Test, place, "an example says `expect: match` or `expect: no-match`");
            false
        }
    };
    let events = match (correlation, node.get("event"), node.get("events")) {
        (false, Some(event), None) => vec![at(Duration::ZERO, event, report)],
        (true, None, Some(events)) => timed(events, report),
        (false, ..) => {
            report.add(Code::Test, node.place, "the example of a detection has `event`");
            Vec::new()
        }
        (true, ..) => {
            report.add(Code::Test, node.place, "the example of a correlation has `events`, each with an `offset`");
            Vec::new()
        }
    };
    let expect = if matches { vec![Expected { at: None, key: BTreeMap::new() }] } else { Vec::new() };
    (report.errors() == before).then(|| RuleTest {
        name,
        line: node.place.line,
        history: Vec::new(),
        events,
        lists: BTreeMap::new(),
        until: None,
        expect,
        exact: !matches,
        routed: false,
    })
}

fn timed(node: &Node, report: &mut Report<'_>) -> Vec<TestEvent> {
    let Some(items) = node.list().filter(|items| !items.is_empty() && items.len() <= EVENTS_MAX) else {
        report.add(Code::Test, node.place, "`events` must be a list of `{offset, event}`");
        return Vec::new();
    };
    let mut last = Duration::ZERO;
    let mut events = Vec::new();
    for item in items {
        closed(item, "events", &["offset", "event"], report);
        let (Some(offset), Some(event)) = (duration_of(item, "offset", report), item.get("event")) else {
            if item.get("offset").is_none() || item.get("event").is_none() {
                report.add(Code::Test, item.place, "an event of an example needs `offset` and `event`");
            }
            continue;
        };
        if offset < last {
            report.add(Code::Test, item.place, "the offsets of an example do not go back");
        }
        last = offset;
        events.push(at(offset, event, report));
    }
    events
}

fn at(offset: Duration, event: &Node, report: &mut Report<'_>) -> TestEvent {
    TestEvent { at: offset, arrives: offset, source: None, fields: fields(event, report) }
}
