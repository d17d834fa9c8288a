//! Tests of rules that ask the stored events. The query engine is not ours: whoever has one lends it through
//! [`SqlRunner`].

use std::collections::{BTreeMap, BTreeSet};

use pipeproof_engine::rule::SqlRule;
use pipeproof_engine::time::{Timestamp, micros};
use serde_json::Value;

use super::Got;
use super::stage::{START, Stage};

/// Most runs of one test.
const RUNS_MAX: i64 = 1_000;

/// An event as a row of the table `events` of a test.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlEvent {
    /// Column `time`.
    pub time: Timestamp,
    /// Column `received`.
    pub received: Timestamp,
    /// Column `source`: its source, by the name the test uses.
    pub source: String,
    /// Column `source_type`.
    pub source_type: &'static str,
    /// All other columns, under the names of the fields.
    pub fields: BTreeMap<String, Value>,
}

/// Runs queries over a few events.
pub trait SqlRunner {
    /// Runs a query over the table `events`, with `:from` and `:to` bound, and gives its rows by column. Fields of the
    /// `cicd` taxonomy that no event has are columns all the same.
    ///
    /// # Errors
    /// Why the query cannot be run, in words.
    fn run(
        &self,
        query: &str,
        events: &[SqlEvent],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<BTreeMap<String, Value>>, String>;
}

/// What a rule finds in the events of a test: a run at every multiple of `every` after the start, up to the end of the
/// test, and at least one after the last event. A key that the run before had too is no new finding.
pub(super) fn run(rule: &SqlRule, stage: &Stage, runner: &dyn SqlRunner) -> Result<Vec<Got>, String> {
    let every = micros(rule.every).max(1);
    let start = START.as_micros();
    let first = (start.div_euclid(every) + 1) * every;
    let last = stage.end.as_micros();
    // The end of the test, rounded up, is a run as well if nothing else is.
    let last = if last < first { first } else { last };
    if (last - first) / every >= RUNS_MAX {
        return Err(format!("the test asks for more than {RUNS_MAX} runs"));
    }
    let last_event = stage.sent.iter().map(|event| event.time.as_micros()).max().unwrap_or(start);
    let mut ends: Vec<i64> = (0..).map(|number| first + number * every).take_while(|to| *to <= last).collect();
    if ends.last().is_none_or(|to| *to < last_event) {
        ends.push((last_event.div_euclid(every) + 1) * every);
    }
    let mut found = Vec::new();
    let mut before: BTreeSet<Vec<String>> = BTreeSet::new();
    for to in ends.into_iter().map(Timestamp::from_micros) {
        let events: Vec<SqlEvent> = stage
            .sent
            .iter()
            .filter(|event| event.received <= to.plus(event.kind.info().lateness))
            .map(|event| SqlEvent {
                time: event.time,
                received: event.received,
                source: event.source.clone(),
                source_type: event.kind.name(),
                fields: event.fields.clone(),
            })
            .collect();
        let rows = runner.run(&rule.query, &events, to.minus(rule.lookback), to)?;
        let mut now = BTreeSet::new();
        for row in rows {
            let cell = |column: &str| row.get(column).map(text);
            let key: Vec<String> = rule
                .key
                .iter()
                .map(|column| cell(column).ok_or_else(|| format!("the query gives no column `{column}`, its key")))
                .collect::<Result<_, _>>()?;
            if now.insert(key.clone()) && !before.contains(&key) {
                let at = u64::try_from(to.micros_since(START)).unwrap_or_default();
                found.push(Got {
                    at: std::time::Duration::from_micros(at),
                    key: rule.key.iter().cloned().zip(key).collect(),
                    title: super::filled(rule.meta.alert.title.as_deref().unwrap_or(&rule.meta.title), &cell),
                    because: row.iter().map(|(column, value)| format!("{column} = {}", text(value))).collect(),
                });
            }
        }
        before = now;
    }
    Ok(found)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
