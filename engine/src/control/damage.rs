//! What a control record says of records that are damaged on disk.

use serde::{Deserialize, Serialize};

use crate::commit::SourceWindow;
use crate::time::Timestamp;

/// Records of a log that were found damaged when it was opened, and were set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordsDamaged {
    /// Which log: `log`, or `seal` for that of the seal tree.
    pub name: String,
    /// The records, as ranges of indexes: first, and the one after the last.
    pub records: Vec<(u64, u64)>,
    /// Those of them that are held nowhere else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// What is known of source windows that they stood in and that detection may have closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<SourceWindow>,
    /// Another record goes on with the windows: only the last one says that all of it is written down.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// All of it in words.
    pub reason: String,
}

/// Records that are lost as data: nobody knows what stood in them, nor of which sources they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// Index of the first.
    pub first: u64,
    /// Index after the last.
    pub end: u64,
    /// None of them was received before.
    pub from: Timestamp,
    /// None of them was received after.
    pub to: Timestamp,
}
