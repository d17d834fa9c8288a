//! Rows of the tables that follow the store's numbered feeds, and of the checkpoints.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow_schema::ArrowError;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};

use super::cells::{dates, maybe_texts, numbers, texts, times};
use super::columns::Table;
use crate::store::{DeliveryChange, StoredFinding, StoredStep, StoredWindow};

/// A signed checkpoint of one of the log's trees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRow {
    /// Number in the feed of checkpoints, from 1, ascending without repetition.
    pub seq: u64,
    /// Origin line: which tree.
    pub log_id: String,
    /// Leaves.
    pub tree_size: u64,
    /// Root, hexadecimal.
    pub root_hash: String,
    /// When it was signed.
    pub at: Timestamp,
    /// Whether it was checked to extend the one before it.
    pub consistent_with_prev: bool,
    /// When somebody else took note of it.
    pub anchored_at: Option<Timestamp>,
    /// The signed note.
    pub note: String,
}

/// A row of a numbered feed.
pub(crate) trait FeedRow: Sized {
    const TABLE: Table;
    fn seq(&self) -> u64;
    /// The time whose day the row is filed under.
    fn filed(&self) -> Timestamp;
    fn batch(rows: &[&Self]) -> Result<RecordBatch, ArrowError>;
}

impl FeedRow for StoredFinding {
    const TABLE: Table = Table::Findings;

    fn seq(&self) -> u64 {
        self.seq
    }

    fn filed(&self) -> Timestamp {
        self.committed
    }

    fn batch(rows: &[&Self]) -> Result<RecordBatch, ArrowError> {
        let each = || rows.iter().map(|row| &row.finding);
        let json = each()
            .map(serde_json::to_string)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
        let severities: Int32Array = each().map(|finding| i32::try_from(finding.level.number()).ok()).collect();
        let columns: Vec<ArrayRef> = vec![
            dates(rows.iter().map(|row| row.committed)),
            numbers(rows.iter().map(|row| row.seq)),
            texts(each().map(|finding| &*finding.id)),
            texts(each().map(|finding| &*finding.rule_id)),
            texts(each().map(|finding| &*finding.rule_title)),
            texts(each().map(|finding| &*finding.rule_digest)),
            texts(each().map(|finding| finding.level.name())),
            Arc::new(severities),
            texts(each().map(|finding| crate::store::state_name(finding.state))),
            texts(each().map(|finding| &*finding.title)),
            maybe_texts(each().map(|finding| category(&finding.tags))),
            maybe_texts(each().map(|finding| finding.entities.first().map(String::as_str))),
            times(each().map(|finding| Some(finding.time))),
            times(each().map(|finding| finding.occurred)),
            times(each().map(|finding| Some(finding.available))),
            times(each().map(|finding| Some(finding.fired))),
            times(rows.iter().map(|row| Some(row.committed))),
            Arc::new(each().map(|finding| Some(finding.retro)).collect::<BooleanArray>()),
            maybe_texts(each().map(|finding| finding.incident.as_deref())),
            maybe_texts(each().map(|finding| finding.events.last().map(|event| event.id.as_str()))),
            texts(json.iter().map(String::as_str)),
        ];
        RecordBatch::try_new(Self::TABLE.schema(), columns)
    }
}

/// The ATT&CK tactic or technique a rule names first; any first tag where it names none.
fn category(tags: &[String]) -> Option<&str> {
    tags.iter().find(|tag| tag.starts_with("attack.")).or_else(|| tags.first()).map(String::as_str)
}

impl FeedRow for StoredStep {
    const TABLE: Table = Table::IncidentSteps;

    fn seq(&self) -> u64 {
        self.seq
    }

    fn filed(&self) -> Timestamp {
        self.committed
    }

    fn batch(rows: &[&Self]) -> Result<RecordBatch, ArrowError> {
        let each = || rows.iter().map(|row| &row.step);
        let columns: Vec<ArrayRef> = vec![
            dates(rows.iter().map(|row| row.committed)),
            numbers(rows.iter().map(|row| row.seq)),
            texts(each().map(|step| &*step.incident)),
            numbers(each().map(|step| step.number)),
            texts(each().map(|step| step.verb.name())),
            times(each().map(|step| Some(step.at))),
            texts(each().map(|step| &*step.actor)),
            maybe_texts(each().map(|step| step.note.as_deref())),
            maybe_texts(each().map(|step| step.finding.as_deref())),
            times(rows.iter().map(|row| Some(row.committed))),
        ];
        RecordBatch::try_new(Self::TABLE.schema(), columns)
    }
}

impl FeedRow for DeliveryChange {
    const TABLE: Table = Table::Deliveries;

    fn seq(&self) -> u64 {
        self.seq
    }

    fn filed(&self) -> Timestamp {
        self.at
    }

    fn batch(rows: &[&Self]) -> Result<RecordBatch, ArrowError> {
        let each = || rows.iter().map(|row| &row.delivery);
        let attempts: Int32Array = each().map(|delivery| i32::try_from(delivery.attempts).ok()).collect();
        let latencies: Int64Array =
            each().map(|delivery| delivery.latency_ms.and_then(|millis| i64::try_from(millis).ok())).collect();
        let columns: Vec<ArrayRef> = vec![
            dates(rows.iter().map(|row| row.at)),
            numbers(rows.iter().map(|row| row.seq)),
            times(rows.iter().map(|row| Some(row.at))),
            Arc::new(each().map(|delivery| Some(delivery.id)).collect::<Int64Array>()),
            texts(each().map(|delivery| &*delivery.target)),
            texts(each().map(|delivery| &*delivery.message)),
            maybe_texts(each().map(|delivery| delivery.incident.as_deref())),
            texts(each().map(|delivery| delivery.state.name())),
            Arc::new(attempts),
            times(each().map(|delivery| Some(delivery.queued_at))),
            times(each().map(|delivery| Some(delivery.next_at))),
            times(each().map(|delivery| delivery.last_at)),
            Arc::new(each().map(|delivery| delivery.status.map(i32::from)).collect::<Int32Array>()),
            Arc::new(latencies),
            maybe_texts(each().map(|delivery| delivery.response_sha256.as_deref())),
            maybe_texts(each().map(|delivery| delivery.response_head.as_deref())),
            maybe_texts(each().map(|delivery| delivery.error.as_deref())),
            times(each().map(|delivery| delivery.delivered_at)),
        ];
        RecordBatch::try_new(Self::TABLE.schema(), columns)
    }
}

impl FeedRow for StoredWindow {
    const TABLE: Table = Table::SourceWindows;

    fn seq(&self) -> u64 {
        self.seq
    }

    fn filed(&self) -> Timestamp {
        self.window.start
    }

    fn batch(rows: &[&Self]) -> Result<RecordBatch, ArrowError> {
        let each = || rows.iter().map(|row| &row.window);
        let secs = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let columns: Vec<ArrayRef> = vec![
            dates(each().map(|window| window.start)),
            numbers(rows.iter().map(|row| row.seq)),
            times(rows.iter().map(|row| Some(row.changed))),
            texts(each().map(|window| &*window.source)),
            texts(each().map(|window| window.source_type.name())),
            times(each().map(|window| Some(window.start))),
            times(each().map(|window| Some(window.end))),
            numbers(each().map(|window| window.records)),
            numbers(each().map(|window| window.events)),
            numbers(each().map(|window| window.duplicates)),
            numbers(each().map(|window| window.dead_letters)),
            secs(each().map(|window| window.max_lag_secs).collect()),
            secs(each().map(|window| window.max_skew_secs).collect()),
            secs(each().map(|window| window.down_secs).collect()),
            texts(each().map(|window| window.status.name())),
            texts(each().map(|window| &*window.basis)),
        ];
        RecordBatch::try_new(Self::TABLE.schema(), columns)
    }
}

impl FeedRow for CheckpointRow {
    const TABLE: Table = Table::Checkpoints;

    fn seq(&self) -> u64 {
        self.seq
    }

    fn filed(&self) -> Timestamp {
        self.at
    }

    fn batch(rows: &[&Self]) -> Result<RecordBatch, ArrowError> {
        let each = || rows.iter();
        let columns: Vec<ArrayRef> = vec![
            dates(each().map(|row| row.at)),
            numbers(each().map(|row| row.seq)),
            texts(each().map(|row| &*row.log_id)),
            numbers(each().map(|row| row.tree_size)),
            texts(each().map(|row| &*row.root_hash)),
            times(each().map(|row| Some(row.at))),
            Arc::new(each().map(|row| Some(row.consistent_with_prev)).collect::<BooleanArray>()),
            times(each().map(|row| row.anchored_at)),
            texts(each().map(|row| &*row.note)),
        ];
        RecordBatch::try_new(Self::TABLE.schema(), columns)
    }
}
