//! The store port: what one micro-batch of detection leaves behind, committed in one transaction or not at all.

use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::dedup::Items;
use crate::finding::Finding;
use crate::incident::{Incident, IncidentStep};
use crate::source::SourceType;
use crate::time::Timestamp;

/// Everything one micro-batch changed.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Log partition.
    pub partition: u32,
    /// Index of the first record of the batch: the store must stand here, or the commit is refused.
    pub from: u64,
    /// Index after the last record of the batch.
    pub to: u64,
    /// Wall-clock time of the commit: when a finding became known. Not part of what is decided.
    pub committed: Timestamp,
    /// Encoded change of the detector's state.
    pub delta: Vec<u8>,
    /// Findings.
    pub findings: Vec<Finding>,
    /// Incidents as they stand after the batch, those that changed.
    pub incidents: Vec<Incident>,
    /// Incident steps.
    pub steps: Vec<IncidentStep>,
    /// Messages to deliver.
    pub outbox: Vec<Message>,
    /// Records that repeat an earlier one.
    pub duplicates: Vec<Duplicate>,
    /// Records that could not be decoded.
    pub dead_letters: Vec<DeadLetter>,
    /// Source windows as they stand after the batch, those that changed.
    pub windows: Vec<SourceWindow>,
    /// The sources that the batch has events of, repetitions included.
    pub heard: Vec<Heard>,
    /// Matches that an exception let go.
    pub excepted: Vec<Excepted>,
    /// Items that the detector no longer holds and the store has to remember from now on.
    pub handed_over: Items,
    /// Items received before this need not be remembered any more.
    pub remembered_since: Timestamp,
}

/// A match that an exception let go: what the rule would have found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excepted {
    /// Id of the exception.
    pub filter: String,
    /// Its digest.
    pub filter_digest: String,
    /// Id of the rule.
    pub rule: String,
    /// Semantic digest of the rule.
    pub rule_digest: String,
    /// Event id, `PARTITION-INDEX-NUMBER`.
    pub event: String,
    /// When the event happened.
    pub time: Timestamp,
    /// When it was received.
    pub received: Timestamp,
}

/// A message for whoever is configured to receive it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Derived id: the idempotency key of every delivery attempt to every target.
    pub id: String,
    /// `finding.created`, `incident.opened`, `incident.ack`, ...
    pub kind: String,
    /// Incident, whose messages keep their order.
    pub incident: Option<String>,
    /// Record time.
    pub at: Timestamp,
    /// JSON body.
    pub body: serde_json::Value,
}

/// A record that repeats an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicate {
    /// Index of the repetition.
    pub index: u64,
    /// Index of the first.
    pub first: u64,
}

/// A record that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Index of the record.
    pub index: u64,
    /// Source instance.
    pub source: String,
    /// When it was received.
    pub received: Timestamp,
    /// Why.
    pub reason: String,
}

/// When a source was last heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Source instance.
    pub source: String,
    /// When its latest event was received.
    pub received: Timestamp,
    /// By how much its clock ran ahead at most in the hour of that event, in seconds.
    pub max_skew_secs: i64,
}

/// Whether we can say that a source's window is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// Proven whole.
    Complete,
    /// Proven not whole.
    Gap,
    /// Nothing proves it either way.
    NotEstablished,
}

impl Completeness {
    /// The word used in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Gap => "gap",
            Self::NotEstablished => "not_established",
        }
    }
}

/// What came from one source in one UTC hour of received time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceWindow {
    /// Source instance.
    pub source: String,
    /// Its type.
    pub source_type: SourceType,
    /// Start of the hour, or of the connection inside it.
    pub start: Timestamp,
    /// End of the hour.
    pub end: Timestamp,
    /// Records received, repetitions included.
    pub records: u64,
    /// Events decoded from them.
    pub events: u64,
    /// Repetitions.
    pub duplicates: u64,
    /// Records that could not be decoded.
    pub dead_letters: u64,
    /// Largest received time minus event time, in seconds.
    pub max_lag_secs: i64,
    /// Largest event time minus received time, in seconds: a source clock that runs ahead.
    pub max_skew_secs: i64,
    /// Seconds of the window in which we were not receiving.
    pub down_secs: i64,
    /// Whether it is whole.
    pub status: Completeness,
    /// What that rests on.
    pub basis: String,
}

/// What a restart reads back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Index of the first record not yet evaluated.
    pub position: u64,
    /// The last snapshot of the detector's state, with the position it stands at.
    pub snapshot: Option<(u64, Vec<u8>)>,
    /// Deltas after the snapshot, oldest first.
    pub deltas: Vec<Vec<u8>>,
}

/// What keeps the results of detection.
pub trait Store: Send + Sync {
    /// Its failures.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Commits a micro-batch: all of it in one transaction, and only if the store stands at `commit.from`.
    fn commit(&self, commit: &Commit) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Replaces the deltas up to `position` by a snapshot. `position` must be the store's.
    fn snapshot(
        &self,
        partition: u32,
        position: u64,
        state: &[u8],
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Reads back where detection stands.
    fn restore(&self, partition: u32) -> impl Future<Output = Result<Restored, Self::Error>> + Send;
}
