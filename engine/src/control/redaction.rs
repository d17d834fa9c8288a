//! The control records of a redaction: a secret had slipped through, and what holds it is dropped.

use serde::{Deserialize, Serialize};

use super::Approval;
use crate::time::Timestamp;

/// The payload of these records is to be dropped everywhere. Their leaf hashes stay, and with them the root of the log and
/// every proof of other records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactionRecord {
    /// Indexes of the records: the one that was named, its repetitions, and what was read again of it.
    pub records: Vec<u64>,
    /// Name of the source they came from.
    pub source: String,
    /// When they were received, the first and the last.
    pub received: (Timestamp, Timestamp),
    /// When their events happened: what detection learnt from them is told by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moments: Vec<Timestamp>,
    /// Why, in the words of whoever asked for it.
    pub reason: String,
    /// Who asked for it.
    pub actor: String,
    /// Who approved it, as whoever asked says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// Whether that is somebody else.
    #[serde(default)]
    pub approval: Approval,
}

/// Nothing of the records is left where the program can reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactionDone {
    /// Index of the record that ordered it.
    pub redaction: u64,
    /// What was dropped.
    pub dropped: Dropped,
    /// Names of sealed packs that hold the records: they stay as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packs: Vec<String>,
    /// Targets that were sent messages which rest on the records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
}

/// How much a redaction dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Dropped {
    pub log_records: u64,
    pub lake_rows: u64,
    /// Files of the lake that were removed: each superseded by one without the payload.
    pub lake_files: u64,
    pub findings: u64,
    pub incidents: u64,
    pub messages: u64,
    pub deliveries: u64,
    pub dead_letters: u64,
}
