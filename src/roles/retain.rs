//! The retain role: removes segments of the log once nobody needs them as data any more. What is below the first record kept
//! is proved from the lake's leaf bytes and the log's leaf hashes, which stay.

use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::record::Record;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::log::SegmentSpan;

use crate::node::{NodeError, Shared};
use crate::upkeep::Upkeep;

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

impl Retention {
    /// Nothing goes.
    pub(crate) const ALL: Self = Self { age: Duration::MAX, bytes: u64::MAX, every: Duration::from_secs(60) };
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(7 * 86_400), bytes: 1 << 30, every: Duration::from_secs(60) }
    }
}

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    loop {
        if tokio::time::timeout(shared.retention.every, stopping.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
        if let Err(error) = retire(&shared).await {
            shared.put_off(Upkeep::Retire, &crate::chain(&error));
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
    // After a crash the copy is older, and the rest is read behind it.
    shared.keep_registry().await?;
    let first = shared.log.retire(below).await.map_err(NodeError::part("retire segments of the log"))?;
    if first > before {
        tracing::info!(from = before, to = first, "retired records of the log; their hashes stay");
    }
    shared.check_invariants();
    Ok(())
}

/// Index up to which the log may go: past a limit, and passed by detection, lake, registry and seal.
fn due(shared: &Shared) -> Result<u64, NodeError> {
    let passed =
        [*shared.archived.borrow(), *shared.detected.borrow(), *shared.sealed.borrow(), shared.registry().position];
    let passed = passed.into_iter().min().unwrap_or(0);
    let oldest = shared.clock.now().minus(shared.retention.age);
    let last_received = |end| last_received(shared, end);
    end_of_due(&shared.log.segments(), passed, shared.retention.bytes, oldest, last_received)
}

fn end_of_due<E>(
    segments: &[SegmentSpan],
    passed: u64,
    bytes: u64,
    oldest: Timestamp,
    last_received: impl Fn(u64) -> Result<Option<Timestamp>, E>,
) -> Result<u64, E> {
    let mut newer: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let mut below = 0;
    for segment in segments {
        newer -= segment.bytes;
        let end = segment.records.end;
        let is_due = end <= passed && (newer >= bytes || last_received(end)?.is_some_and(|last| last < oldest));
        if !is_due {
            break;
        }
        below = end;
    }
    Ok(below)
}

/// When the record before `end` was received. One that cannot be read was received before the first one behind it that can; where
/// there is none, nobody knows.
fn last_received(shared: &Shared, end: u64) -> Result<Option<Timestamp>, NodeError> {
    let Some(last) = end.checked_sub(1) else { return Ok(None) };
    let leaves = shared.log.read(last, 1, 1).map_err(NodeError::part("read the log"))?;
    let record = leaves.first().and_then(|(_, leaf)| Record::decode(leaf).ok());
    Ok(record.map(|record| record.envelope.received))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_goes_for_its_age_only_if_that_is_known() {
        let segments: Vec<_> = (0..3).map(|at| SegmentSpan { records: at * 10..at * 10 + 10, bytes: 100 }).collect();
        let oldest = Timestamp::from_secs(1_000);
        let due = |passed, bytes, received: [Option<i64>; 3]| {
            let last =
                |end: u64| Ok::<_, ()>(received[usize::try_from(end / 10 - 1).unwrap()].map(Timestamp::from_secs));
            end_of_due(&segments, passed, bytes, oldest, last).unwrap()
        };
        assert_eq!(due(30, u64::MAX, [Some(998), Some(999), Some(1_000)]), 20);
        assert_eq!(due(19, u64::MAX, [Some(998), Some(999), Some(1_000)]), 10, "not passed");
        assert_eq!(due(30, u64::MAX, [None, Some(999), Some(1_000)]), 0, "nobody can read when it was");
        assert_eq!(due(30, 200, [None, None, None]), 10, "there are enough newer bytes");
    }

    #[test]
    fn a_command_on_a_stopped_folder_retires_nothing() {
        let Retention { age, bytes, .. } = crate::config::Config::of_commands().retention;
        let segments =
            [SegmentSpan { records: 0..10, bytes: 1 << 40 }, SegmentSpan { records: 10..20, bytes: 1 << 40 }];
        let oldest = Timestamp::from_secs(2_000_000_000).minus(age);
        let last = |_| Ok::<_, ()>(Some(Timestamp::from_secs(0)));
        assert_eq!(end_of_due(&segments, 20, bytes, oldest, last), Ok(0));
    }
}
