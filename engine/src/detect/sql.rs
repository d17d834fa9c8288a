//! Runs of `sql:` rules become findings.

use std::collections::BTreeMap;

use super::text::{alert_title, described, entities};
use super::{Batch, Detector};
use crate::control::SqlRun;
use crate::finding::{Finding, finding_id};
use crate::rule::{Rule, RuleState};
use crate::sql::Begun;
use crate::time::Timestamp;

impl Detector {
    /// Takes in a run. One of a rule that is not in force as it ran, or that was taken in before, changes nothing.
    pub(super) fn sql_run(&mut self, run: &SqlRun, now: Timestamp, batch: &mut Batch) {
        let plan = std::sync::Arc::clone(&self.plan);
        let of = |rule: &&Rule| rule.meta().id == run.rule && rule.meta().digest == run.digest;
        let Some(Rule::Sql(rule)) = plan.rules().iter().find(of) else { return };
        if rule.meta.state == RuleState::Paused {
            return;
        }
        let name = (run.rule.clone(), run.digest.clone());
        let Some((begun, forgotten)) = self.state.episodes.entry(name.clone()).or_default().run(rule, run) else {
            return;
        };
        self.counters.evicted += forgotten;
        batch.episodes.insert(name);
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
}
