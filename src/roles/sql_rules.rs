//! The SQL rules role: runs each `sql:` rule when archive and watermarks have passed the end of its period, over a pinned
//! version of the lake, and writes what it answered into the log. Detection makes the findings from there.
//!
//! A run is done when its record is durable, and not before: killed in between, it is run again at the next start. Rules wait
//! for nobody but their turn; one that fails is tried again later and holds up none of the others.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use pipeproof_engine::control::{Control, SqlRun};
use pipeproof_engine::failpoint::Failpoint;
use pipeproof_engine::feed;
use pipeproof_engine::rule::{Rule, RuleState, SqlRule};
use pipeproof_engine::time::{Timestamp, micros};
use pipeproof_record::sql::{RuleRows, RuleSql};
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::node::{NodeError, Shared};

/// How often it is looked whether a rule is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Queries that run at once.
const AT_ONCE: usize = 2;
/// How long a run waits for detection and the lake to take in what was received.
const TAKE_IN: Duration = Duration::from_secs(60);
/// Wait after the first failure; doubled after each further one.
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// Longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(600);
/// Periods that are made up for after an outage; older ones are left out, and said.
const MISSED_MAX: u32 = 256;
/// Bytes of rows in one record, which must not be larger than the log allows.
const ROWS_BYTES_MAX: usize = 768 << 10;

/// How a rule's runs go, since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct SqlStatus {
    /// End of the last period that was run.
    pub(crate) last: Option<Timestamp>,
    /// Runs that were written.
    pub(crate) runs: u64,
    /// Rows of the last one.
    pub(crate) rows: usize,
    /// Whether rows beyond the limit were left out of it.
    pub(crate) truncated: bool,
    /// Runs that failed.
    pub(crate) failures: u64,
    /// Why the last try failed; none once one succeeds.
    pub(crate) error: Option<String>,
    #[serde(skip)]
    failed_in_a_row: u32,
    /// Not before this, after a failure.
    next_try: Option<Timestamp>,
}

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let mut running: JoinSet<()> = JoinSet::new();
    let mut busy: BTreeMap<tokio::task::Id, String> = BTreeMap::new();
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        while let Some(done) = running.try_join_next_with_id() {
            busy.remove(&done.map_or_else(|error| error.id(), |(id, ())| id));
        }
        let plan = Arc::clone(shared.rules.head().plan());
        for rule in plan.rules() {
            let Rule::Sql(rule) = rule else { continue };
            let runs = busy.values().any(|digest| *digest == rule.meta.digest);
            if rule.meta.state == RuleState::Paused || runs || running.len() >= AT_ONCE {
                continue;
            }
            let Some(to) = due(&shared, rule) else { continue };
            let digest = rule.meta.digest.clone();
            let (shared, rule) = (Arc::clone(&shared), rule.clone());
            let task = running.spawn(async move { turn(&shared, &rule, to).await });
            busy.insert(task.id(), digest);
        }
    }
    // What was answered is lost with the node, and asked again at the next start.
    running.shutdown().await;
}

/// The end of the period that is to be run next, if its time has come.
fn due(shared: &Shared, rule: &SqlRule) -> Option<Timestamp> {
    let now = shared.clock.now();
    let status = status(shared, rule);
    if status.next_try.is_some_and(|time| now < time) {
        return None;
    }
    let every = micros(rule.every).max(1);
    // By the meaning of lateness, everything up to here has arrived.
    let whole = now.minus(lateness(shared, rule)).minus(Duration::from_secs(1));
    let newest = whole.as_micros().div_euclid(every).saturating_mul(every);
    let last = shared.registry().sql_runs.get(&rule.meta.digest).map(|last| last.as_micros());
    let next = match last {
        // A rule begins with the period that ended last.
        None => newest,
        Some(last) => {
            let next = last.saturating_add(every);
            let oldest = newest.saturating_sub(every.saturating_mul(i64::from(MISSED_MAX)));
            if next < oldest {
                tracing::warn!(
                    rule = rule.meta.id,
                    "more than {MISSED_MAX} periods were missed: the oldest are left out"
                );
            }
            next.max(oldest)
        }
    };
    (next <= newest).then(|| Timestamp::from_micros(next))
}

/// How late events may come that the rule is about: of the sources it requires, or of all.
fn lateness(shared: &Shared, rule: &SqlRule) -> Duration {
    let required = feed::resolve_all(&rule.meta.requires);
    let registry = shared.registry();
    let connected = registry.sources.values().map(|source| source.source_type);
    let counted = connected.filter(|kind| required.is_empty() || required.contains(kind));
    counted.map(|kind| kind.info().lateness).max().unwrap_or_default()
}

async fn turn(shared: &Arc<Shared>, rule: &SqlRule, to: Timestamp) {
    let ran = run_rule(shared, rule, to).await;
    let mut status = status(shared, rule);
    let outcome = match ran {
        Ok((rows, truncated)) => {
            status = SqlStatus {
                last: Some(to),
                runs: status.runs + 1,
                rows,
                truncated,
                failures: status.failures,
                ..SqlStatus::default()
            };
            if truncated { "truncated" } else { "ok" }
        }
        Err(error) => {
            let error = crate::chain(&error);
            let wait = RETRY_FIRST.saturating_mul(1 << status.failed_in_a_row.min(16)).min(RETRY_MAX);
            tracing::warn!(rule = rule.meta.id, %to, error, retry_secs = wait.as_secs(), "a SQL rule failed");
            status.failures += 1;
            status.failed_in_a_row += 1;
            status.error = Some(error);
            status.next_try = Some(shared.clock.now().plus(wait));
            "failed"
        }
    };
    shared.metrics.sql_runs.with_label_values(&[outcome]).inc();
    shared.sql_rules.write().unwrap_or_else(PoisonError::into_inner).insert(rule.meta.digest.clone(), status);
}

fn status(shared: &Shared, rule: &SqlRule) -> SqlStatus {
    let all = shared.sql_rules.read().unwrap_or_else(PoisonError::into_inner);
    all.get(&rule.meta.digest).cloned().unwrap_or_default()
}

/// Runs a rule once and writes down what it answered. Returns how many rows that are, and whether there were more.
async fn run_rule(shared: &Arc<Shared>, rule: &SqlRule, to: Timestamp) -> Result<(usize, bool), NodeError> {
    let from = to.minus(rule.lookback);
    // The lake must hold everything received up to now, which includes whatever lies before `to`.
    let durable = *shared.log.durable().borrow();
    if !shared.wait_detected(durable.saturating_sub(1), TAKE_IN).await || !shared.flush_lake(TAKE_IN).await {
        return Err(NodeError::part("run a SQL rule")("the lake has not taken in what was received"));
    }
    let sql = RuleSql::over(&shared.lake.pin(), None).await.map_err(NodeError::part("open the lake for a SQL rule"))?;
    let answer = sql.run(rule, from, to).await.map_err(NodeError::part("run a SQL rule"))?;
    let (control, rows, truncated) = record(rule, from, to, answer);
    if truncated {
        tracing::warn!(rule = rule.meta.id, %to, rows, "a SQL rule found more than is taken in; narrow its query");
    }
    Failpoint::SqlBeforeRecord.pass();
    shared.control(control).await.map_err(NodeError::part("write to the log"))?;
    Failpoint::SqlAfterRecord.pass();
    Ok((rows, truncated))
}

/// The record of a run, with as many rows as fit.
pub(crate) fn record(rule: &SqlRule, from: Timestamp, to: Timestamp, answer: RuleRows) -> (Control, usize, bool) {
    let mut room = ROWS_BYTES_MAX;
    let mut truncated = answer.truncated;
    let mut rows = Vec::with_capacity(answer.rows.len());
    for row in answer.rows {
        let row: BTreeMap<String, String> =
            row.into_iter().filter_map(|(column, value)| Some((column, text(value)?))).collect();
        let bytes = serde_json::to_string(&row).map_or(usize::MAX, |text| text.len() + 1);
        let Some(left) = room.checked_sub(bytes) else {
            truncated = true;
            break;
        };
        room = left;
        rows.push(row);
    }
    let count = rows.len();
    let (rule, digest) = (rule.meta.id.clone(), rule.meta.digest.clone());
    (Control::SqlRun(SqlRun { rule, digest, from, to, rows, truncated }), count, truncated)
}

/// A null is missing.
fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}
