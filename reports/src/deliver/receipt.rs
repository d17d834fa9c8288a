//! Receipts: what is kept of every delivery attempt, delivered or not.

use pipeproof_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How much of a response is kept.
pub const RESPONSE_HEAD_BYTES: usize = 512;

/// One attempt to deliver one message to one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Message id, sent as `webhook-id`.
    pub message: String,
    /// Name of the target.
    pub target: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When the attempt began; sent, in seconds, as `webhook-timestamp`.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub latency_ms: u64,
    /// Status of the answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong where there was no answer, or why the answer is final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// SHA-256 (hexadecimal) of the response body as far as it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_sha256: Option<String>,
    /// The first 512 bytes of the response body as text, our secrets and control characters replaced.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub response_head: String,
    /// What became of the message.
    #[serde(flatten)]
    pub state: DeliveryState,
}

/// What became of a message at a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DeliveryState {
    /// The receiver has it.
    Delivered,
    /// It is tried again.
    Retry {
        /// Not before.
        next: Timestamp,
    },
    /// It is not tried again unless somebody replays it.
    Dead,
}

impl DeliveryState {
    /// The word used in tables.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry { .. } => "retry",
            Self::Dead => "dead",
        }
    }
}
