//! What rules, tables and exceptions hold right now, for lists of them.

use serde::Serialize;

use super::Detector;
use super::topology::heard_for;
use crate::correlate::Size;
use crate::exception::ExceptionCount;
use crate::plan::Plan;
use crate::rule::{Filter, Rule, Table};
use crate::silence::Silence;
use crate::source::SourceType;
use crate::table::Rows;
use crate::time::Timestamp;

/// What a correlation, or a rule with lookups, holds, both lanes together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleStatus {
    /// Id of the rule.
    pub rule: String,
    /// What it holds.
    #[serde(flatten)]
    pub size: Size,
    /// Signals that came after the watermark had passed their time, since the process started.
    pub late: u64,
    /// What was dropped at a bound, since the process started.
    pub evicted: u64,
}

/// What a table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableStatus {
    /// Name of the table.
    pub table: String,
    /// Openings and closings kept; rows of a table that is written down.
    pub entries: usize,
    /// Those dropped at a bound, since the process started.
    pub evicted: u64,
}

/// What an exception has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExceptionStatus {
    /// Id of the exception.
    pub id: String,
    /// Whether it has expired by now.
    pub expired: bool,
    /// What it let go, and what it would have.
    #[serde(flatten)]
    pub count: ExceptionCount,
}

/// How a numbering of a source's events stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamStatus {
    /// The source.
    #[serde(skip)]
    pub source: String,
    /// What is numbered: see [`crate::sequence`].
    pub stream: String,
    /// Who numbers: `sender`, or `transport`, whose numbers prove nothing.
    pub by: &'static str,
    /// Lowest number of this numbering that counts.
    pub first: u64,
    /// Highest number that came.
    pub last: u64,
    /// When it was received.
    pub heard: Timestamp,
    /// Numbers that did not come and are waited for.
    pub missing: u64,
    /// The first ranges of those, both ends included.
    pub ranges: Vec<(u64, u64)>,
    /// Numbers that did not come and are given up.
    pub lost: u64,
    /// How often the numbering began anew.
    pub restarts: u64,
}

/// Ranges of missing numbers that are told one by one.
const RANGES_TOLD: usize = 10;

impl Detector {
    /// How each source speaks, and for how long it has not, at the time detection has come to.
    #[must_use]
    pub fn silences(&self) -> Vec<Silence> {
        self.state.rhythms.silences(self.state.now).collect()
    }

    /// How the numberings of all sources stand, by source and stream.
    #[must_use]
    pub fn stream_status(&self) -> Vec<StreamStatus> {
        let numberings = self.state.coverage.numberings();
        let of = |source: &str| {
            let source = source.to_owned();
            numberings
                .of(&source)
                .map(|(name, stream)| StreamStatus {
                    source: source.clone(),
                    stream: name.to_owned(),
                    by: if stream.sparse { "transport" } else { "sender" },
                    first: stream.first,
                    last: stream.last,
                    heard: stream.heard,
                    missing: stream.open(),
                    ranges: stream.ranges().take(RANGES_TOLD).collect(),
                    lost: stream.lost,
                    restarts: stream.restarts,
                })
                .collect::<Vec<_>>()
        };
        numberings.sources().flat_map(of).collect()
    }

    /// What each table holds.
    #[must_use]
    pub fn table_status(&self) -> Vec<TableStatus> {
        let tables = self.plan.tables().iter().zip(&self.state.tables).enumerate();
        let status = |(number, (table, rows)): (usize, (&Table, &Rows))| TableStatus {
            table: table.name.clone(),
            entries: self.plan.given_rows(number).unwrap_or(rows).len(),
            evicted: rows.evicted(),
        };
        tables.map(status).collect()
    }

    /// What each exception has done, in the order of their ids.
    #[must_use]
    pub fn exception_status(&self) -> Vec<ExceptionStatus> {
        let status = |filter: &Filter| ExceptionStatus {
            id: filter.id.clone(),
            expired: filter.expires.is_some_and(|expires| expires <= self.state.now),
            count: self.state.exceptions.get(&(filter.id.clone(), filter.digest.clone())).copied().unwrap_or_default(),
        };
        let mut all: Vec<_> = self.plan.filters().iter().map(status).collect();
        all.sort_by(|left, right| left.id.cmp(&right.id));
        all
    }

    /// What each correlation and each rule with lookups holds. Walks all groups of learning rules.
    #[must_use]
    pub fn rule_status(&self) -> Vec<RuleStatus> {
        let mut all = Vec::with_capacity(self.topology.links.len());
        for (link, lanes) in self.topology.links.iter().zip(&self.state.correlations) {
            let Some(Rule::Correlation(rule)) = self.plan.rules().get(link.number) else { continue };
            let mut status = RuleStatus { rule: rule.meta.id.clone(), ..RuleStatus::default() };
            for lane in [&lanes.live, &lanes.backfill] {
                let Size { groups, waiting, obligations, blind, learning, learning_until } = lane.size(rule);
                status.size.groups += groups;
                status.size.waiting += waiting;
                status.size.obligations += obligations;
                status.size.blind += blind;
                status.size.learning += learning;
                // Groups that were watched for long enough, but lack events, have no time to name.
                let until = learning_until.filter(|until| *until > self.state.now);
                status.size.learning_until = status.size.learning_until.max(until);
                status.late += lane.counts().late;
                status.evicted += lane.counts().evicted;
            }
            all.push(status);
        }
        for (number, lanes) in &self.state.deferred {
            let Some(rule) = self.plan.rules().get(*number) else { continue };
            let mut status = RuleStatus { rule: rule.meta().id.clone(), ..RuleStatus::default() };
            for lane in [&lanes.live, &lanes.backfill] {
                let (waiting, parked) = lane.len();
                status.size.waiting += waiting;
                status.size.blind += parked;
                status.evicted += lane.evicted();
            }
            all.push(status);
        }
        all
    }
}

/// The sources without which the plan's rules cannot say that something did not happen: of each list, one of its types
/// must be heard. A live run in which none is parks what these rules would find.
#[must_use]
pub fn must_be_heard(plan: &Plan) -> Vec<Vec<SourceType>> {
    let all = (0..plan.rules().len()).flat_map(|number| heard_for(plan, number));
    all.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}
