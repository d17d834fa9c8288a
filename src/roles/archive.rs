//! The archive role: follows detection through the same log and writes what it passed into the lake, repetitions left out.

use std::sync::{Arc, Mutex, PoisonError};

use pipeproof_engine::event::Event;
use pipeproof_engine::failpoint::Failpoint;
use pipeproof_engine::record::Position;
use pipeproof_ingest::enrich::Decoder;
use pipeproof_record::lake::{EventRow, event_rows};

use super::detect::decode_leaf;
use crate::node::{NodeError, PARTITION, Shared};

/// Records of one append at most.
const APPEND_RECORDS: usize = 20_000;
/// Bytes of one append at most.
const APPEND_BYTES: usize = 64 << 20;

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let decoder = Arc::new(Mutex::new(shared.decoder()));
    loop {
        let stop = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => true,
            () = shared.archive_now.notified() => false,
            () = tokio::time::sleep(shared.archive_every) => false,
        };
        if stop {
            // Detection ends first, so that what it passed is archived before the node is gone.
            let durable = *shared.log.durable().borrow();
            shared.wait_detected(durable.saturating_sub(1), std::time::Duration::from_secs(20)).await;
        }
        let turn = shared.archiving.lock().await;
        let trouble = take_in(&shared, &decoder).await.err().map(|error| crate::chain(&error));
        shared.set_trouble("lake", trouble);
        drop(turn);
        if stop {
            return;
        }
    }
}

async fn take_in(shared: &Arc<Shared>, decoder: &Arc<Mutex<Decoder>>) -> Result<(), NodeError> {
    let target = *shared.detected.borrow();
    let mut from = *shared.archived.borrow();
    while from < target {
        let (to, rows) = rows(shared, decoder, from, target).await?;
        from = shared
            .lake
            .append_events(PARTITION, from, to, rows)
            .await
            .map_err(NodeError::part("append events to the lake"))?;
        // The feeds follow before the mark moves: who waits for the mark finds the findings there as well.
        if from < target {
            shared.archived.send_replace(from);
        }
    }
    Failpoint::ArchiveBeforeFeeds.pass();
    shared.lake.follow(&shared.store).await.map_err(NodeError::part("append findings and steps to the lake"))?;
    shared.archived.send_replace(from);
    shared.check_invariants();
    Ok(())
}

/// The rows of the next records, and where they end.
async fn rows(
    shared: &Arc<Shared>,
    decoder: &Arc<Mutex<Decoder>>,
    from: u64,
    target: u64,
) -> Result<(u64, Vec<EventRow>), NodeError> {
    let reader = Arc::clone(shared);
    let read = move || {
        let count = usize::try_from(target - from).unwrap_or(usize::MAX).min(APPEND_RECORDS);
        reader.log.read(from, count, APPEND_BYTES)
    };
    let mut leaves = tokio::task::spawn_blocking(read)
        .await
        .map_err(NodeError::part("read the log"))?
        .map_err(NodeError::part("read the log"))?;
    leaves.retain(|(index, _)| *index < target);
    let to = leaves.last().map_or(target, |(index, _)| index + 1);
    let repeated = shared
        .store
        .duplicate_indexes(PARTITION, from..to)
        .await
        .map_err(NodeError::part("read which records repeat others"))?;
    let decoder = Arc::clone(decoder);
    let decode = move || {
        let mut decoder = decoder.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = Vec::with_capacity(leaves.len());
        for (index, leaf) in leaves.iter().filter(|(index, _)| !repeated.contains(index)) {
            let position = Position { partition: PARTITION, index: *index };
            // A leaf this version cannot read was left out by detection, and counted there.
            let Ok(decoded) = decode_leaf(&mut decoder, *index, leaf) else { continue };
            let events: Result<&[Event], &str> = decoded.events.as_deref().map_err(String::as_str);
            if let Ok(of_record) = event_rows(position, leaf, &decoded.record, events) {
                rows.extend(of_record);
            }
        }
        rows
    };
    let rows = tokio::task::spawn_blocking(decode).await.map_err(NodeError::part("decode records for the lake"))?;
    Ok((to, rows))
}
