//! Damage to the logs of a data folder: what opening them found is counted, named, and written down once. Records that are held nowhere
//! else are lost, and every window of a source that one of them may have come in has a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use pipeproof_engine::commit::SourceWindow;
use pipeproof_engine::control::{Control, Lost, RecordsDamaged};
use pipeproof_engine::merkle::{Hash, leaf_hash};
use pipeproof_engine::record::Record;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::log::{HashesChecked, Knowing, Log, LogError, LogOptions, OpenReport, Opened, Sealed};
use pipeproof_record::lake::{Lake, Table};
use pipeproof_record::sql::{Answer, Limits, Parameter, Sql};
use pipeproof_record::store::SqliteStore;
use serde_json::Value;

use crate::evidence::{raw_records, redacted};
use crate::node::{NodeError, PARTITION, Shared};

/// Name of the log of records, in control records and metrics.
pub(crate) const LOG: &str = "log";
/// Name of the log of the seal tree.
pub(crate) const SEAL: &str = "seal";
/// Ranges of one control record.
const RANGES: usize = 500;
/// Windows of one control record.
const WINDOWS: usize = 300;
/// Ranges that are told in words.
const TOLD: usize = 10;
/// Ranges of one question to the lake: its text has a bound.
const ASKED_RANGES: usize = 100;
/// Records of one range of such a question: their bodies come back.
const ASKED_RECORDS: u64 = 4_096;

/// An opened log, and what opening it found.
pub(crate) struct Found {
    pub(crate) log: Log,
    pub(crate) report: OpenReport,
}

/// Opens the log of the seal tree. Lake and packs name leaves of it: one that ends before them is an older copy, and to go on with it
/// would be to sign a second history with the same key.
pub(crate) async fn open_seal(data: &Path, lake: &Lake, store: &SqliteStore) -> Result<Found, NodeError> {
    let fed = lake.fed(Table::Checkpoints).await.map_err(NodeError::part("read which checkpoints the lake has"))?;
    let packs = store.packs().await.map_err(NodeError::part("list packs"))?;
    let packed = packs.iter().filter_map(|pack| pack.body.get("seal_size").and_then(Value::as_u64)).max().unwrap_or(0);
    let dir = data.join("seal");
    let options = LogOptions { partition: u32::MAX, ..LogOptions::default() };
    let knowing = Knowing { durable: fed.max(packed), ..Knowing::default() };
    match Log::open(&dir, knowing, options) {
        Ok(opened) => Ok(found(opened, &dir)),
        Err(LogError::Behind { known, end }) => {
            let by = if fed >= packed { "the lake has a checkpoint" } else { "an evidence pack was sealed" };
            Err(NodeError::part("continue the seal tree")(format!(
                "{} ends after {end} leaves, but {by} that is leaf {known} of it: the folder is an older copy, or was removed. \
                 Put the newest copy of it back, or restore the newest backup; a seal tree that began anew would say two things \
                 under one key",
                dir.display(),
            )))
        }
        Err(error) => Err(NodeError::part("open the log of the seal tree")(error)),
    }
}

/// Opens the log of records. Leaf hashes that are lost with their records are derived again from the lake, as far as it has them;
/// that they are the right ones the last sealed root says.
pub(crate) async fn open_log(
    data: &Path,
    lake: &Lake,
    known: u64,
    sealed: Option<Sealed>,
    options: LogOptions,
) -> Result<Found, NodeError> {
    let dir = data.join("log").join(PARTITION.to_string());
    let mut leaves = BTreeMap::new();
    loop {
        let knowing = Knowing { durable: known, sealed, leaves: Some(&leaves) };
        match Log::open(&dir, knowing, options.clone()) {
            Ok(opened) => {
                if !leaves.is_empty() {
                    tracing::warn!(
                        records = leaves.len(),
                        "leaf hashes of the log were lost and are derived from the lake"
                    );
                }
                return Ok(found(opened, &dir));
            }
            Err(LogError::HashLost { records }) => {
                let derived = leaves_of(lake, &records).await?;
                if derived.is_empty() {
                    return Err(NodeError::part("open the log")(LogError::HashLost { records }));
                }
                leaves.extend(derived);
            }
            Err(error) => return Err(NodeError::part("open the log")(error)),
        }
    }
}

/// Reads leaf hashes again that opening the log left unread: those of record `first` and as many after it as are checked at once. What
/// is damaged is mended, with what the lake has if it has to be. Returns how many were, or what is wrong.
pub(crate) async fn check_hashes(shared: &Arc<Shared>, first: u64) -> Result<Result<u64, String>, NodeError> {
    let mut known = BTreeMap::new();
    loop {
        let (log, leaves) = (shared.log.clone(), known.clone());
        let checked = tokio::task::spawn_blocking(move || log.check_hashes(first, &leaves)).await;
        let checked = checked.map_err(NodeError::part("read leaf hashes"))?;
        let lost = match checked.map_err(NodeError::part("read leaf hashes"))? {
            HashesChecked::Whole => return Ok(Ok(0)),
            HashesChecked::Mended(count) => return Ok(Ok(count)),
            HashesChecked::Lost(lost) => lost,
        };
        let derived = leaves_of(&shared.lake, &lost).await?;
        if derived.iter().all(|(index, hash)| known.get(index) == Some(hash)) {
            let records = ranges_of(lost, u64::MAX).into_iter().map(|(first, end)| named(first, end));
            return Ok(Err(format!(
                "the leaf hashes of {} are damaged: restore the log from a copy",
                told(records, ", ")
            )));
        }
        known.extend(derived);
    }
}

/// The leaf hashes of records, of those that the lake has.
async fn leaves_of(lake: &Lake, records: &[u64]) -> Result<BTreeMap<u64, Hash>, NodeError> {
    let doing = "derive leaf hashes from the lake";
    let sql = Sql::over(&lake.pin(), None, Limits::EVIDENCE).await.map_err(NodeError::part(doing))?;
    let mut leaves = BTreeMap::new();
    for ranges in ranges_of(records.iter().copied(), ASKED_RECORDS).chunks(ASKED_RANGES) {
        let within: Vec<String> =
            ranges.iter().map(|(first, end)| format!(r#"("index" >= {first} AND "index" < {end})"#)).collect();
        let query = format!(
            r#"SELECT * FROM events WHERE "partition" = {PARTITION} AND sub = 0 AND ({})"#,
            within.join(" OR ")
        );
        let answer = sql.query(&query, &[]).await.map_err(NodeError::part(doing))?;
        let (raw, _) = raw_records(&answer).map_err(NodeError::part(doing))?;
        leaves.extend(raw.iter().map(|record| (record.position.index, leaf_hash(&record.leaf))));
        let without = redacted(&answer).map_err(NodeError::part(doing))?;
        leaves.extend(without.into_iter().map(|(index, (hash, _))| (index, hash)));
    }
    Ok(leaves)
}

/// Names what opening a log found.
fn found(opened: Opened, dir: &Path) -> Found {
    let Opened { log, report } = opened;
    let dir = dir.display();
    if report.torn_bytes > 0 {
        tracing::warn!(bytes = report.torn_bytes, log = %dir, "cut a torn tail that was never acknowledged");
    }
    for range in &report.quarantined {
        tracing::error!(
            from = range.records.start,
            to = range.records.end,
            segment = range.segment,
            reason = range.reason,
            log = %dir,
            "records are damaged and were set aside; evidence over what is held nowhere else shows a gap"
        );
    }
    for segment in &report.bad_headers {
        tracing::error!(segment, log = %dir, "the header of a segment is damaged; its records were read by the file's name");
    }
    if report.hashes_damaged > 0 {
        tracing::error!(hashes = report.hashes_damaged, log = %dir, "leaf hashes were damaged and were written again");
    }
    let missing = report.hashes_rewritten - report.hashes_damaged.min(report.hashes_rewritten);
    if missing > 0 {
        tracing::warn!(hashes = missing, log = %dir, "leaf hashes were missing, as after a crash, and were written again");
    }
    if report.blocks_rewritten > 0 {
        tracing::warn!(blocks = report.blocks_rewritten, log = %dir, "kept roots of the tree were not right and were computed again");
    }
    Found { log, report }
}

/// Counts and writes down what is not on record yet of the damage that was found. Comes before any role runs: the windows of what came
/// last are still open in detection's state, and the archive passes nothing by that is not known to be lost.
pub(crate) async fn record(shared: &Arc<Shared>) -> Result<(), NodeError> {
    for (name, report) in &shared.damage {
        let count = |what, count| shared.metrics.log_damaged.with_label_values(&[*name, what]).inc_by(count);
        count("records", report.quarantined.iter().map(|it| it.records.end - it.records.start).sum());
        count("hashes", report.hashes_damaged);
        count("headers", report.bad_headers.len() as u64);
        let known = shared.registry().damaged.get(*name).map(|damaged| damaged.records.clone()).unwrap_or_default();
        let new = report.quarantined.iter().flat_map(|it| without((it.records.start, it.records.end), &known));
        for ranges in new.collect::<Vec<_>>().chunks(RANGES) {
            write_down(shared, name, report, ranges).await?;
        }
    }
    Ok(())
}

async fn write_down(
    shared: &Arc<Shared>,
    name: &str,
    report: &OpenReport,
    ranges: &[(u64, u64)],
) -> Result<(), NodeError> {
    let lost = if name == LOG { lost(shared, ranges).await? } else { Vec::new() };
    let windows = touched(shared, &lost).await?;
    let reason = reason(name, report, ranges, &lost);
    let mut parts: Vec<&[SourceWindow]> = windows.chunks(WINDOWS).collect();
    if parts.is_empty() {
        parts.push(&[]);
    }
    for (number, windows) in (1..).zip(&parts) {
        let control = Control::RecordsDamaged(RecordsDamaged {
            name: name.to_owned(),
            records: ranges.to_vec(),
            lost: lost.clone(),
            windows: windows.to_vec(),
            more: number < parts.len(),
            reason: reason.clone(),
        });
        shared.control(control).await.map_err(NodeError::part("write to the log"))?;
    }
    Ok(())
}

/// Those of the records that are held nowhere else, with the times between which they were received.
async fn lost(shared: &Shared, ranges: &[(u64, u64)]) -> Result<Vec<Lost>, NodeError> {
    let lake = shared.lake.pin();
    let sql = Sql::over(&lake, None, Limits::EVIDENCE);
    let sql = sql.await.map_err(NodeError::part("look for damaged records in the lake"))?;
    let mut lost = Vec::new();
    for &(first, end) in ranges {
        // A lake that is damaged as well is no reason not to start.
        let held = held(shared, &sql, first, end).await.unwrap_or_else(|error| {
            let error = crate::chain(&error);
            tracing::error!(
                first,
                end,
                error,
                "cannot see whether the lake has these records: they are taken for lost"
            );
            BTreeSet::new()
        });
        for (first, end) in ranges_of((first..end).filter(|index| !held.contains(index)), u64::MAX) {
            let (before, after) = (received_before(shared, &sql, first).await?, received_after(shared, end)?);
            // A clock that was set back may have the later record received first.
            lost.push(Lost { first, end, from: before.min(after), to: before.max(after) });
        }
    }
    Ok(lost)
}

/// The records of a range that the lake has, and those that repeat others and are no evidence.
async fn held(shared: &Shared, sql: &Sql, first: u64, end: u64) -> Result<BTreeSet<u64>, NodeError> {
    let mut held = in_lake(sql, first, end).await?;
    let repeated = shared.store.duplicate_indexes(PARTITION, first..end).await;
    held.extend(repeated.map_err(NodeError::part("read which records repeat others"))?);
    Ok(held)
}

/// The records of a range that the lake has.
pub(crate) async fn in_lake(sql: &Sql, first: u64, end: u64) -> Result<BTreeSet<u64>, NodeError> {
    let doing = "look for records in the lake";
    let query = format!(
        r#"SELECT "index" FROM events WHERE "partition" = {PARTITION} AND sub = 0 AND "index" >= :FIRST AND "index" < :END"#
    );
    let number = |number| Parameter::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let answer = sql.query(&query, &[("FIRST", number(first)), ("END", number(end))]).await;
    indexes(&answer.map_err(NodeError::part(doing))?)
        .ok_or_else(|| NodeError::part(doing)("the column `index` is not there"))
}

fn indexes(answer: &Answer) -> Option<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    for batch in answer.batches() {
        let column = batch.column_by_name("index")?.as_primitive_opt::<Int64Type>()?;
        found.extend((0..column.len()).filter_map(|row| u64::try_from(column.value(row)).ok()));
    }
    Some(found)
}

/// When the last record before `first` was received that anybody has; the beginning of time if there is none.
async fn received_before(shared: &Shared, sql: &Sql, first: u64) -> Result<Timestamp, NodeError> {
    let doing = "find when damaged records were received";
    if let Some(before) = shared.log.last_before(first)
        && let Some(received) = received_from(shared, before)?
    {
        return Ok(received);
    }
    let query = format!(r#"SELECT max(received) FROM events WHERE "partition" = {PARTITION} AND "index" < :FIRST"#);
    let first = Parameter::Int(i64::try_from(first).unwrap_or(i64::MAX));
    let answer = sql.query_json(&query, &[("FIRST", first)]).await.map_err(NodeError::part(doing))?;
    let received = answer.rows.first().and_then(|row| row.first()?.as_str()).and_then(Timestamp::parse);
    Ok(received.unwrap_or_default())
}

/// When the first record from `end` on was received that can be read; now if there is none.
fn received_after(shared: &Shared, end: u64) -> Result<Timestamp, NodeError> {
    Ok(received_from(shared, end)?.unwrap_or_else(|| shared.clock.now()))
}

/// When the first record from `index` on was received that can be read.
fn received_from(shared: &Shared, index: u64) -> Result<Option<Timestamp>, NodeError> {
    let leaves = shared.log.read(index, 1, 1).map_err(NodeError::part("read the log"))?;
    let record = leaves.first().and_then(|(_, leaf)| Record::decode(leaf).ok());
    Ok(record.map(|record| record.envelope.received))
}

/// The windows that lost records may have come in, as the store has them.
async fn touched(shared: &Shared, lost: &[Lost]) -> Result<Vec<SourceWindow>, NodeError> {
    let mut touched = BTreeMap::new();
    for lost in lost {
        let windows = shared.store.windows(lost.from, lost.to.plus(Duration::from_micros(1))).await;
        let windows = windows.map_err(NodeError::part("read the windows of sources"))?;
        touched.extend(windows.into_iter().map(|it| ((it.window.source.clone(), it.window.start), it.window)));
    }
    Ok(touched.into_values().collect())
}

/// What was found, in words.
fn reason(name: &str, report: &OpenReport, ranges: &[(u64, u64)], lost: &[Lost]) -> String {
    let files: BTreeSet<String> = report
        .quarantined
        .iter()
        .filter(|it| ranges.iter().any(|(first, end)| *first < it.records.end && it.records.start < *end))
        .map(|it| format!("{}: {}", it.segment, it.reason))
        .collect();
    let files = told(files.into_iter(), "; ");
    let records = told(ranges.iter().map(|(first, end)| named(*first, *end)), ", ");
    let gap = |lost: &Lost| format!("{} of {} to {}", named(lost.first, lost.end), lost.from, lost.to);
    let what = match (name, lost.is_empty()) {
        (LOG, true) => "the lake has all of them".to_owned(),
        (LOG, false) => format!("held nowhere else: {}", told(lost.iter().map(gap), ", ")),
        _ => "their hashes stay".to_owned(),
    };
    format!("{records} of the {name} ({files}); {what}")
}

fn told(all: impl Iterator<Item = String>, between: &str) -> String {
    let all: Vec<String> = all.collect();
    let more = all.len().saturating_sub(TOLD);
    let told = all.iter().take(TOLD).cloned().collect::<Vec<_>>().join(between);
    if more > 0 { format!("{told} and {more} more") } else { told }
}

/// A range of records in words.
pub(crate) fn named(first: u64, end: u64) -> String {
    match end.saturating_sub(1) {
        last if last <= first => format!("record {first}"),
        last => format!("records {first} to {last}"),
    }
}

/// The ranges of indexes that ascend, each of so many at most.
pub(crate) fn ranges_of(indexes: impl IntoIterator<Item = u64>, most: u64) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some((first, end)) if *end == index && index - *first < most => *end += 1,
            _ => ranges.push((index, index + 1)),
        }
    }
    ranges
}

/// What of a range is in none of the others.
pub(crate) fn without((first, end): (u64, u64), others: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut others: Vec<_> = others.iter().filter(|other| other.0 < end && first < other.1).collect();
    others.sort_unstable();
    let mut left = Vec::new();
    let mut from = first;
    for other in others {
        if from < other.0 {
            left.push((from, other.0));
        }
        from = from.max(other.1);
    }
    if from < end {
        left.push((from, end));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_and_joined() {
        assert_eq!(ranges_of([3, 4, 5, 9, 10], u64::MAX), [(3, 6), (9, 11)]);
        assert_eq!(ranges_of(3..8, 2), [(3, 5), (5, 7), (7, 8)]);
        assert_eq!(without((3, 9), &[(5, 6), (0, 4)]), [(4, 5), (6, 9)]);
        assert_eq!(without((3, 9), &[(0, 20)]), []);
        assert_eq!(without((3, 9), &[(9, 20), (0, 3)]), [(3, 9)]);
        assert_eq!((named(3, 4), named(3, 5)), ("record 3".to_owned(), "records 3 to 4".to_owned()));
        let many = told((0..12).map(|number| number.to_string()), ", ");
        assert_eq!(many, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
    }
}
