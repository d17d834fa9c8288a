//! Rules that ask the lake, in a replay: their runs are in the log, or are made up for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use pipeproof_engine::control::{Control, OWN_SOURCE};
use pipeproof_engine::detect::Decoded;
use pipeproof_engine::plan::Plan;
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Record};
use pipeproof_engine::rule::{Rule, RuleState, SqlRule};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::{Timestamp, micros};
use pipeproof_record::lake::Snapshot;
use pipeproof_record::sql::RuleSql;
use tokio::runtime::Handle;

use super::Request;
use crate::node::{NodeError, PARTITION};
use crate::roles::sql_record;

/// Rules that ask the lake: what they answered live is in the log and read from there. Those that never ran are run now, over
/// what had been received when their time would have come.
pub(super) struct SqlRuns<'a> {
    rules: Vec<(SqlRule, Timestamp)>,
    lateness: Duration,
    to: Timestamp,
    lake: &'a Snapshot,
    handle: &'a Handle,
}

impl<'a> SqlRuns<'a> {
    pub(super) fn new(
        plan: &Plan,
        request: &Request,
        lake: &'a Snapshot,
        handle: &'a Handle,
    ) -> Result<Self, NodeError> {
        let mut rules: Vec<(SqlRule, Timestamp)> = plan
            .rules()
            .iter()
            .filter_map(|rule| match rule {
                Rule::Sql(rule) if rule.meta.state != RuleState::Paused => Some(rule.clone()),
                _ => None,
            })
            .map(|rule| {
                let every = micros(rule.every).max(1);
                let first = request.from.as_micros().div_euclid(every).saturating_add(1).saturating_mul(every);
                (rule, Timestamp::from_micros(first))
            })
            .collect();
        if !rules.is_empty() {
            let ran = digests_that_ran(lake)?;
            rules.retain(|(rule, _)| !ran.contains(&rule.meta.digest));
        }
        let types = SourceType::ALL.iter().filter(|kind| kind.is_external());
        let lateness = types.map(|kind| kind.info().lateness).max().unwrap_or_default();
        Ok(Self { rules, lateness, to: request.to, lake, handle })
    }

    /// Records of the runs whose time has come by `now`.
    pub(super) fn due(
        &mut self,
        now: Timestamp,
        index: u64,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Decoded>, NodeError> {
        let mut records = Vec::new();
        let (lateness, end) = (self.lateness, self.to);
        for (rule, next) in &mut self.rules {
            while *next <= end && next.plus(lateness) <= now {
                let to = *next;
                *next = to.plus(rule.every);
                let from = to.minus(rule.lookback);
                let as_of = to.plus(lateness);
                let answer = self
                    .handle
                    .block_on(async { RuleSql::over(self.lake, Some(as_of)).await?.run(rule, from, to).await });
                match answer {
                    Ok(answer) => {
                        let (control, _, truncated) = sql_record(rule, from, to, answer);
                        if truncated {
                            notes.push(format!(
                                "rule {}: the run up to {to} found more rows than are taken in",
                                rule.meta.id
                            ));
                        }
                        records.push(own_record(&control, now, index));
                    }
                    Err(error) => {
                        notes.push(format!("rule {}: {}", rule.meta.id, crate::chain(&error)));
                        // It would fail the next time, too.
                        *next = Timestamp::MAX;
                    }
                }
            }
        }
        Ok(records)
    }
}

/// The digests of rules that have runs in the log.
fn digests_that_ran(lake: &Snapshot) -> Result<BTreeSet<String>, NodeError> {
    let mut digests = BTreeSet::new();
    for stored in lake.records_from(PARTITION, OWN_SOURCE, 0).map_err(NodeError::part("read the lake"))? {
        let stored = stored.map_err(NodeError::part("read the lake"))?;
        // Ticks are most of them.
        if stored.body.starts_with(br#"{"kind":"sql-run""#)
            && let Ok(Control::SqlRun(run)) = serde_json::from_slice(&stored.body)
        {
            digests.insert(run.digest);
        }
    }
    Ok(digests)
}

fn own_record(control: &Control, now: Timestamp, index: u64) -> Decoded {
    let record = Record {
        envelope: Envelope {
            source: OWN_SOURCE.to_owned(),
            source_type: SourceType::Pipeproof,
            received: now,
            auth: Authenticity::Own,
            key_id: None,
            item: "id:backtest".to_owned(),
            mode: CollectionMode::Live,
            attributes: BTreeMap::new(),
            redacted: Vec::new(),
        },
        salt: [0; 16],
        body: Bytes::from(serde_json::to_vec(control).unwrap_or_default()),
    };
    Decoded { index, record, events: Ok(Vec::new()) }
}
