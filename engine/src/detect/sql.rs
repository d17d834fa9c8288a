//! Runs of `sql:` rules become findings, and rows of the tables they fill.

use std::collections::BTreeMap;

use super::text::{alert_title, described, entities};
use super::{Batch, Detector};
use crate::control::SqlRun;
use crate::event::EventId;
use crate::finding::{Finding, finding_id};
use crate::plan::Plan;
use crate::record::Position;
use crate::rule::{Rule, RuleState, TableRows};
use crate::sql::Begun;
use crate::table::Texts;
use crate::time::Timestamp;

impl Detector {
    /// Takes in a run. One of a rule that is not in force as it ran, or that was taken in before, changes nothing.
    pub(super) fn sql_run(&mut self, run: &SqlRun, now: Timestamp, batch: &mut Batch) {
        let plan = std::sync::Arc::clone(&self.plan);
        let of = |rule: &Rule| rule.meta().id == run.rule && rule.meta().digest == run.digest;
        let Some(number) = plan.rules().iter().position(of) else { return };
        let Some(Rule::Sql(rule)) = plan.rules().get(number) else { return };
        if rule.meta.state == RuleState::Paused {
            return;
        }
        let name = (run.rule.clone(), run.digest.clone());
        // Until the next run says otherwise, what the first one gives held for as long as it looked back.
        let since = if self.state.episodes.contains_key(&name) { now } else { run.from.min(now) };
        let Some((begun, forgotten)) = self.state.episodes.entry(name.clone()).or_default().run(rule, run) else {
            return;
        };
        self.counters.evicted += forgotten;
        self.counters.episodes_forgotten += forgotten;
        batch.episodes.insert(name);
        self.fill_tables(&plan, number, run, since);
        for begun in &begun {
            let Begun { key, row, start } = begun;
            let read = |field: &str| row.get(field).cloned();
            let meta = &rule.meta;
            let dedup: BTreeMap<String, String> =
                meta.alert.dedup.iter().filter_map(|field| Some((field.clone(), read(field)?))).collect();
            let same = if meta.alert.dedup.is_empty() { key } else { &dedup };
            if !meta.emits || self.is_quiet(meta, same, *start, batch) {
                continue;
            }
            let mut because = vec![format!("a row of the query over {} to {}", run.from, run.to)];
            because.extend(row.iter().map(|(column, value)| format!("{column} = {value}")));
            let finding = Finding {
                id: finding_id(&meta.id, &meta.digest, key, &begun.anchor()),
                time: *start,
                entities: entities(meta, &read),
                because,
                title: alert_title(meta, &read),
                key: key.clone(),
                ..described(meta, now)
            };
            self.report(finding, batch);
        }
    }
    /// The rows of a run are the rows of the tables its rule feeds, from `since` on.
    fn fill_tables(&mut self, plan: &Plan, number: usize, run: &SqlRun, since: Timestamp) {
        for (table, _) in plan.table_feeds(number) {
            let (Some(declared), Some(rows)) = (plan.tables().get(*table), self.state.tables.get_mut(*table)) else {
                continue;
            };
            let TableRows::Derived { key, columns, .. } = &declared.rows else { continue };
            let mut given = BTreeMap::new();
            for row in &run.rows {
                let values: Vec<Option<&str>> = key.iter().map(|column| row.get(column).map(String::as_str)).collect();
                // A row that names nothing opens nothing.
                if values.iter().any(Option::is_some) {
                    let key = Texts::of(values.into_iter().map(|value| Some(value.unwrap_or_default())));
                    let columns = columns.values().map(|column| row.get(column).map(String::as_str));
                    given.entry(key).or_insert_with(|| Texts::of(columns));
                }
            }
            let position = Position { partition: self.partition, index: self.state.position.saturating_sub(1) };
            rows.agree(since, EventId { position, sub: 0 }, &given, !run.truncated);
        }
    }
}
