//! The archive role: follows detection through the same log and writes what it passed into the lake, repetitions left out.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use pipeproof_engine::control::OWN_SOURCE;
use pipeproof_engine::event::EventId;
use pipeproof_engine::failpoint::Failpoint;
use pipeproof_engine::fields::Fields;
use pipeproof_engine::record::{Authenticity, CollectionMode, LeafParts, Position, Record, RecordError};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::enrich::Decoder;
use pipeproof_record::lake::{EventRow, LeafColumns, Snapshot, event_rows};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::detect::decode_leaf;
use crate::damage;
use crate::node::{NodeError, PARTITION, Shared};
use crate::registry::is_source_name;

/// Records of one append at most.
const APPEND_RECORDS: usize = 20_000;
/// Bytes of one append at most; those of the next are held beside it.
const APPEND_BYTES: usize = 32 << 20;

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let reading = Arc::new(Mutex::new(Reading { decoder: shared.decoder(), taken: BTreeSet::new() }));
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
        let trouble = take_in(&shared, &reading).await.err().map(|error| crate::chain(&error));
        shared.set_trouble("lake", trouble);
        drop(turn);
        if stop {
            return;
        }
    }
}

/// Whoever decodes records for the lake has this to himself.
struct Reading {
    decoder: Decoder,
    /// Items of lost records that stand-ins of this turn have: they are on their way into the lake.
    taken: BTreeSet<(String, String)>,
}

/// Records ready for the lake.
struct Rows {
    /// Indexes of the records; those left out count.
    records: Range<u64>,
    rows: Vec<EventRow>,
}

async fn take_in(shared: &Arc<Shared>, reading: &Arc<Mutex<Reading>>) -> Result<(), NodeError> {
    let target = *shared.detected.borrow();
    let mut archived = *shared.archived.borrow();
    reading.lock().unwrap_or_else(PoisonError::into_inner).taken.clear();
    let mut next = rows(shared, reading, archived..target).await?;
    while let Some(Rows { records, rows: of }) = next.take() {
        // Who is behind decodes the next records while these are written.
        let append = shared.lake.append_events(PARTITION, records.start, records.end, of);
        let (appended, ahead) = tokio::join!(append, rows(shared, reading, records.end..target));
        archived = appended.map_err(NodeError::part("append events to the lake"))?;
        // The feeds follow before the mark moves: who waits for the mark finds the findings there as well.
        if archived < target {
            shared.archived.send_replace(archived);
        }
        next = ahead?;
    }
    Failpoint::ArchiveBeforeFeeds.pass();
    shared.lake.follow(&shared.store).await.map_err(NodeError::part("append findings and steps to the lake"))?;
    shared.archived.send_replace(archived);
    shared.check_invariants();
    Ok(())
}

/// The first of these records, if there is one.
async fn rows(
    shared: &Arc<Shared>,
    reading: &Arc<Mutex<Reading>>,
    records: Range<u64>,
) -> Result<Option<Rows>, NodeError> {
    let Range { start: from, end: target } = records;
    if from >= target {
        return Ok(None);
    }
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
        .duplicates_in(PARTITION, from..to)
        .await
        .map_err(NodeError::part("read which records repeat others"))?;
    let damaged = shared.registry().damaged.get(damage::LOG).cloned().unwrap_or_default();
    let repeated: BTreeMap<u64, bool> =
        repeated.iter().map(|duplicate| (duplicate.index, damaged.is_lost(duplicate.first))).collect();
    let reading = Arc::clone(reading);
    let lake = shared.lake.pin();
    let now = shared.clock.now();
    let decode = move || -> Result<Vec<EventRow>, NodeError> {
        let mut reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
        let Reading { decoder, taken } = &mut *reading;
        let mut stand_ins = StandIns { lake, now, taken };
        let mut rows = Vec::with_capacity(leaves.len());
        for (index, leaf) in &leaves {
            // The lake does without repetitions: it has what they repeat, unless that was lost.
            match repeated.get(index) {
                Some(true) if stand_ins.takes(leaf)? => {}
                Some(_) => continue,
                None => {}
            }
            let position = Position { partition: PARTITION, index: *index };
            let of_record = match decode_leaf(decoder, *index, leaf) {
                Ok(decoded) => {
                    let dead = decoded.events.as_ref().err().map(|dead| dead.reason.as_str());
                    event_rows(position, leaf, &decoded.record, decoded.events(), dead)
                }
                // Detection left it out, and counted that. Here it is kept: once the log is retired, nobody else has it.
                Err(reason) => unread(position, leaf, &reason, now).map(|row| vec![row]),
            };
            rows.extend(of_record.map_err(|error| {
                NodeError::part("take a record of the log into the lake")(format!(
                    "record {index} is of a form that this version does not know ({error}): start the version that wrote it; \
                     nothing is archived and nothing of the log is removed until then"
                ))
            })?);
        }
        Ok(rows)
    };
    let rows = tokio::task::spawn_blocking(decode).await.map_err(NodeError::part("decode records for the lake"))?;
    Ok(Some(Rows { records: from..to, rows: rows? }))
}

/// Repetitions of records that are lost to damage: the first one that comes stands for its item.
struct StandIns<'a> {
    /// As far as the archive has come.
    lake: Snapshot,
    now: Timestamp,
    /// Items of what is on its way into the lake.
    taken: &'a mut BTreeSet<(String, String)>,
}

impl StandIns<'_> {
    /// Whether the lake has no record of this one's item yet.
    fn takes(&mut self, leaf: &Bytes) -> Result<bool, NodeError> {
        let Ok(Record { envelope, .. }) = Record::decode(leaf) else { return Ok(false) };
        let until = self.now.max(envelope.received);
        let known = self.lake.known_items(&envelope.source, until, &HashSet::from([envelope.item.clone()]));
        let known = known.map_err(NodeError::part("ask the lake for the item of a lost record"))?;
        Ok(known.is_empty() && self.taken.insert((envelope.source, envelope.item)))
    }
}

/// The row of a record whose envelope this version cannot read: as a dead letter, with the exact leaf, and what of the envelope can be
/// understood.
fn unread(position: Position, leaf: &Bytes, reason: &str, now: Timestamp) -> Result<EventRow, RecordError> {
    let parts = LeafParts::split(leaf)?;
    // The lake keeps the envelope as text: what is none cannot be written again.
    let envelope: Value = serde_json::from_slice(parts.envelope).map_err(RecordError::Envelope)?;
    let source = envelope.get("source").and_then(Value::as_str).filter(|name| is_source_name(name));
    let received = part(&envelope, "received").unwrap_or(now);
    Ok(EventRow {
        id: EventId { position, sub: 0 },
        source: source.unwrap_or(OWN_SOURCE).into(),
        source_type: part(&envelope, "type").unwrap_or(SourceType::Json),
        item: envelope.get("item").and_then(Value::as_str).unwrap_or_default().into(),
        time: received,
        time_known: false,
        received,
        auth: part(&envelope, "auth").unwrap_or(Authenticity::Unverified),
        key_id: part(&envelope, "key_id"),
        mode: part(&envelope, "mode").unwrap_or(CollectionMode::Live),
        fields: Fields::default(),
        dead_letter: Some(format!("this version cannot read the record: {reason}")),
        leaf: Some(LeafColumns {
            envelope: leaf.slice_ref(parts.envelope),
            salt: parts.salt,
            body: leaf.slice_ref(parts.body),
        }),
    })
}

/// A part of an envelope, if it is there and this version knows what it says.
fn part<T: DeserializeOwned>(envelope: &Value, name: &str) -> Option<T> {
    serde_json::from_value(envelope.get(name)?.clone()).ok()
}

#[cfg(test)]
mod tests {
    use pipeproof_engine::record::encode_parts;
    use pipeproof_record::lake::whole_envelope;

    use super::*;

    #[test]
    fn a_record_of_another_version_is_kept_whole_as_a_dead_letter() {
        let now = Timestamp::from_secs(9);
        let envelope = br#"{"source":"hooks","type":"of-tomorrow","received":"2026-01-01T00:00:00Z","auth":"hmac","item":"id:1","quantum":true}"#;
        let leaf = Bytes::from(encode_parts(envelope, &[7; 16], b"body").unwrap());
        let position = Position { partition: PARTITION, index: 4 };
        assert!(Record::decode(&leaf).is_err(), "this version cannot read it");
        let row = unread(position, &leaf, "unknown field `quantum`", now).unwrap();
        assert_eq!((&*row.source, row.source_type, row.auth), ("hooks", SourceType::Json, Authenticity::Hmac));
        assert_eq!(row.received, Timestamp::parse("2026-01-01T00:00:00Z").unwrap());
        assert!(row.dead_letter.unwrap().contains("quantum"));
        let kept = row.leaf.unwrap();
        let text = whole_envelope(std::str::from_utf8(&kept.envelope).unwrap(), &row.item);
        assert_eq!(encode_parts(text.as_bytes(), &kept.salt, &kept.body).unwrap(), leaf);
        assert!(matches!(unread(position, &Bytes::from_static(b"v2"), "", now), Err(RecordError::Magic)));
    }
}
