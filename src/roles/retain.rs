//! The retain role: removes segments of the log once nobody needs them as data any more. What is below the first record kept
//! is proved from the lake's leaf bytes and the log's leaf hashes, which stay.

use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::record::Record;
use pipeproof_engine::time::Timestamp;

use crate::node::{NodeError, Shared};

/// How much of the log is kept as data. A segment goes when it is past either limit and every reader has passed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// Received longer ago.
    pub(crate) age: Duration,
    /// Behind so many newer bytes.
    pub(crate) bytes: u64,
    /// How often it is looked at.
    pub(crate) every: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(7 * 86_400), bytes: 16 << 30, every: Duration::from_secs(60) }
    }
}

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    loop {
        if tokio::time::timeout(shared.retention.every, stopping.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
        if let Err(error) = retire(&shared).await {
            tracing::warn!(error = %crate::chain(&error), "cannot retire segments of the log");
        }
    }
}

async fn retire(shared: &Arc<Shared>) -> Result<(), NodeError> {
    // A backup copies segments by name.
    let _turn = shared.copying.lock().await;
    let below = due(shared)?;
    let before = shared.log.first();
    if below <= before {
        return Ok(());
    }
    let first = shared.log.retire(below).await.map_err(NodeError::part("retire segments of the log"))?;
    if first > before {
        tracing::info!(from = before, to = first, "retired records of the log; their hashes stay");
    }
    shared.check_invariants();
    Ok(())
}

/// Index up to which the log may go: past a limit, and passed by detection, lake, registry and seal.
fn due(shared: &Shared) -> Result<u64, NodeError> {
    let passed = (*shared.archived.borrow()).min(*shared.detected.borrow()).min(*shared.sealed.borrow());
    let oldest = shared.clock.now().minus(shared.retention.age);
    let segments = shared.log.segments();
    let mut newer: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let mut below = 0;
    for segment in segments {
        newer -= segment.bytes;
        let end = segment.records.end;
        let is_due = end <= passed && (newer >= shared.retention.bytes || is_received_before(shared, end, oldest)?);
        if !is_due {
            break;
        }
        below = end;
    }
    Ok(below)
}

/// Whether the record before `end` was received before `oldest`. One that cannot be read was received before the first one behind it that
/// can; where there is none, nobody knows, and it stays.
fn is_received_before(shared: &Shared, end: u64, oldest: Timestamp) -> Result<bool, NodeError> {
    let Some(last) = end.checked_sub(1) else { return Ok(false) };
    let leaves = shared.log.read(last, 1, 1).map_err(NodeError::part("read the log"))?;
    let record = leaves.first().and_then(|(_, leaf)| Record::decode(leaf).ok());
    Ok(record.is_some_and(|record| record.envelope.received < oldest))
}
