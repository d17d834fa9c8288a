//! The lake from outside: appends land once, crashes leave nothing half, leaves come back byte for byte.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use engine::commit::{Commit, Store};
use engine::event::{Event, EventId};
use engine::fields::{Field, Fields, Value};
use engine::record::{Authenticity, CollectionMode, Envelope, Position, Record, encode_parts};
use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::*;
use crate::sql::{Limits, Sql};
use crate::store::tests::{START, batch, clock, finding, message, window};

/// A record with its leaf.
pub(crate) fn record(index: u64, source: &str, source_type: SourceType, body: &str) -> (Bytes, Record) {
    let record = Record {
        envelope: Envelope {
            source: source.to_owned(),
            source_type,
            received: START.plus(Duration::from_secs(index)),
            auth: Authenticity::Hmac,
            key_id: Some("k1".into()),
            item: format!("id:{index}"),
            mode: CollectionMode::Live,
            attributes: BTreeMap::from([("x-github-event".into(), "push".into())]),
            redacted: Vec::new(),
        },
        salt: [u8::try_from(index % 256).unwrap(); 16],
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    (record.encode().unwrap().into(), record)
}

/// An event of a record.
pub(crate) fn event(
    position: Position,
    sub: u32,
    record: &Record,
    time: Timestamp,
    fields: &[(Field, Value)],
) -> Event {
    let mut set = Fields::default();
    for (field, value) in fields {
        set.set(*field, value.clone());
    }
    Event {
        id: EventId { position, sub },
        source: record.envelope.source.as_str().into(),
        source_type: record.envelope.source_type,
        item: record.envelope.item.as_str().into(),
        time,
        time_known: true,
        received: record.envelope.received,
        auth: record.envelope.auth,
        mode: record.envelope.mode,
        fields: set,
        native: record.body.clone(),
    }
}

pub(crate) fn rows(from: u64, to: u64) -> Vec<EventRow> {
    (from..to)
        .flat_map(|index| {
            let source = if index % 2 == 0 { "acme" } else { "acme/über prod" };
            let (leaf, record) = record(index, source, SourceType::Json, &format!("{{\"n\":{index}}}"));
            let position = Position { partition: 0, index };
            match index % 4 {
                3 => event_rows(position, &leaf, &record, &[], Some("not an object")).unwrap(),
                2 => event_rows(position, &leaf, &record, &[], None).unwrap(),
                _ => {
                    let action = [(Field::Action, Value::Text("cloud.api".into())), (Field::CiAttempt, Value::Int(2))];
                    let first = event(position, 0, &record, START, &action);
                    let second = event(position, 1, &record, START, &action);
                    event_rows(position, &leaf, &record, &[second, first], None).unwrap()
                }
            }
        })
        .collect()
}

pub(super) async fn count(snapshot: &Snapshot, what: &str) -> serde_json::Value {
    let sql = Sql::over(snapshot, None, Limits::CONSOLE).await.unwrap();
    sql.query(&format!("SELECT count(*) FROM {what}"), &[]).await.unwrap().json().unwrap().rows[0][0].clone()
}

#[tokio::test]
async fn appending_the_same_records_again_adds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    assert_eq!(lake.append_events(0, 0, 8, rows(0, 8)).await.unwrap(), 8);
    let versions = lake.pin().versions();
    assert_eq!(lake.append_events(0, 0, 8, rows(0, 8)).await.unwrap(), 8);
    assert_eq!(lake.append_events(0, 2, 6, rows(2, 6)).await.unwrap(), 8);
    assert_eq!(lake.pin().versions(), versions);
    // Cut elsewhere, the part that is there is left out.
    assert_eq!(lake.append_events(0, 4, 12, rows(4, 12)).await.unwrap(), 12);
    assert_eq!(count(&lake.pin(), "(SELECT DISTINCT \"index\", sub FROM events)").await, 12 + 6);
    assert_eq!(count(&lake.pin(), "events").await, 12 + 6);
    let lake = Lake::open(dir.path()).await.unwrap();
    assert_eq!(lake.archived(0).await.unwrap(), 12);
    assert_eq!(lake.archived(1).await.unwrap(), 0);
    assert_eq!(count(&lake.pin(), "events WHERE dead_letter = 'not an object'").await, 3);
}

#[tokio::test]
async fn appends_that_leave_records_out_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    let gap = lake.append_events(0, 4, 8, rows(4, 8)).await.unwrap_err();
    assert!(matches!(gap, LakeError::Gap { from: 4, archived: 0, .. }), "{gap}");
    let outside = lake.append_events(0, 0, 4, rows(0, 5)).await.unwrap_err();
    assert!(matches!(outside, LakeError::Outside { index: 4, .. }), "{outside}");
    // Records that are all repetitions leave no row, but move the position.
    assert_eq!(lake.append_events(0, 0, 4, Vec::new()).await.unwrap(), 4);
    assert_eq!(Lake::open(dir.path()).await.unwrap().archived(0).await.unwrap(), 4);
}

#[tokio::test]
async fn a_crash_between_writing_and_committing_leaves_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    lake.append_events(0, 0, 4, rows(0, 4)).await.unwrap();
    fail::next_commit();
    lake.append_events(0, 4, 8, rows(4, 8)).await.unwrap_err();
    let written = walk(&dir.path().join("events")).iter().filter(|path| path.ends_with(".parquet")).count();
    assert!(written > lake.pin().files(Table::Events).len(), "the files were not written before the commit");
    for lake in [lake, Lake::open(dir.path()).await.unwrap()] {
        assert_eq!(lake.archived(0).await.unwrap(), 4);
        assert_eq!(count(&lake.pin(), "events").await, 6);
    }
    let lake = Lake::open(dir.path()).await.unwrap();
    lake.append_events(0, 4, 8, rows(4, 8)).await.unwrap();
    assert_eq!(count(&lake.pin(), "events").await, 12);
}

fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}

#[tokio::test]
async fn what_a_crash_left_staged_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    Lake::open(dir.path()).await.unwrap();
    let left = dir.path().join("events/_delta_log/.00000000000000000001.json.77-1.staged");
    std::fs::write(&left, b"half a comm").unwrap();
    Lake::open(dir.path()).await.unwrap().append_events(0, 0, 4, rows(0, 4)).await.unwrap();
    assert!(!left.exists());
}

#[tokio::test]
async fn every_record_comes_back_as_the_leaf_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    lake.append_events(0, 0, 9, rows(0, 9)).await.unwrap();
    let sql = Sql::over(&lake.pin(), None, Limits::EVIDENCE).await.unwrap();
    let query = r#"SELECT "index", encode(envelope, 'hex'), salt, body FROM events WHERE sub = 0 ORDER BY "index""#;
    let answer = sql.query(query, &[]).await.unwrap().json().unwrap();
    assert_eq!(answer.rows.len(), 9);
    for row in answer.rows {
        let bytes = |at: usize| hex::decode(row[at].as_str().unwrap()).unwrap();
        let leaf = encode_parts(&bytes(1), &bytes(2).try_into().unwrap(), &bytes(3)).unwrap();
        let index = row[0].as_u64().unwrap();
        let source = if index % 2 == 0 { "acme" } else { "acme/über prod" };
        let (expected, _) = record(index, source, SourceType::Json, &format!("{{\"n\":{index}}}"));
        assert_eq!(leaf, expected);
    }
    let parts = "events WHERE (sub = 0) <> (envelope IS NOT NULL AND salt IS NOT NULL AND body IS NOT NULL)";
    assert_eq!(count(&lake.pin(), parts).await, 0);
}

#[tokio::test]
async fn a_snapshot_does_not_change_and_can_be_had_again_by_its_versions() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    lake.append_events(0, 0, 4, rows(0, 4)).await.unwrap();
    let then = lake.pin();
    let versions: Versions = serde_json::from_str(&serde_json::to_string(&then.versions()).unwrap()).unwrap();
    lake.append_events(0, 4, 8, rows(4, 8)).await.unwrap();
    assert_eq!(count(&then, "events").await, 6);
    assert_eq!(count(&lake.pin(), "events").await, 12);
    let again = lake.pin_at(&versions).await.unwrap();
    assert_eq!(again.files(Table::Events), then.files(Table::Events));
    assert_eq!(again.versions(), then.versions());
    assert!(lake.pin_at(&Versions(BTreeMap::from([("events".into(), 99)]))).await.is_err());
}

#[tokio::test]
async fn the_feeds_of_the_store_are_copied_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("store.db"), clock()).await.unwrap();
    let lake = Lake::open(&dir.path().join("lake")).await.unwrap();
    let (first, step) = engine::incident::Incidents::default().admit(&finding(1));
    let one = Commit {
        findings: vec![finding(1), finding(2)],
        incidents: vec![first],
        steps: vec![step],
        outbox: vec![message(1, None)],
        windows: vec![window(0, 3)],
        ..batch(0, 3)
    };
    store.commit(&one).await.unwrap();
    store.enqueue("pager", &["m-1".into()]).await.unwrap();
    assert_eq!(lake.follow(&store).await.unwrap(), 5);
    assert_eq!(lake.follow(&store).await.unwrap(), 0);
    let findings = store.findings_after(0, 10).await.unwrap();
    assert_eq!(lake.append_findings(findings).await.unwrap(), 2);
    store.commit(&Commit { findings: vec![finding(3)], windows: vec![window(0, 4)], ..batch(3, 4) }).await.unwrap();
    assert_eq!(lake.follow(&store).await.unwrap(), 2);
    let lake = Lake::open(&dir.path().join("lake")).await.unwrap();
    assert_eq!(lake.fed(Table::Findings).await.unwrap(), 3);
    assert_eq!(count(&lake.pin(), "findings").await, 3);
    assert_eq!(count(&lake.pin(), "deliveries").await, 1);
    // Both versions of the window are kept, and the last one counts.
    assert_eq!(count(&lake.pin(), "source_windows").await, 2);
    assert_eq!(count(&lake.pin(), "source_window WHERE got_count = 4").await, 1);
    assert_eq!(count(&lake.pin(), "source_window").await, 1);
}

fn checkpoint(seq: u64) -> CheckpointRow {
    CheckpointRow {
        seq,
        log_id: "pipeproof/0".into(),
        tree_size: seq * 10,
        root_hash: "ab".repeat(32),
        at: START.plus(Duration::from_secs(seq)),
        consistent_with_prev: true,
        anchored_at: None,
        note: "a note".into(),
    }
}

#[tokio::test]
async fn a_long_log_is_checkpointed_and_still_read_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    for seq in 1..=105 {
        lake.append_checkpoints(vec![checkpoint(seq)]).await.unwrap();
    }
    let log = walk(&dir.path().join("checkpoints/_delta_log"));
    assert!(log.iter().any(|path| path.ends_with(".checkpoint.parquet")), "{log:?}");
    let lake = Lake::open(dir.path()).await.unwrap();
    assert_eq!(lake.fed(Table::Checkpoints).await.unwrap(), 105);
    assert_eq!(count(&lake.pin(), "checkpoint WHERE consistent_with_prev").await, 105);
    let third = lake.pin_at(&Versions(BTreeMap::from([("checkpoints".into(), 3)]))).await.unwrap();
    assert_eq!(count(&third, "checkpoints").await, 3);
}

#[tokio::test]
async fn a_table_made_by_an_older_program_gets_the_new_columns() {
    use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
    use deltalake::kernel::{DataType, PrimitiveType, StructField};
    use deltalake::operations::create::CreateBuilder;

    let dir = tempfile::tempdir().unwrap();
    let make = async |name: &str, columns: Vec<StructField>| {
        let folder = dir.path().join(name).join("checkpoints");
        CreateBuilder::new()
            .with_location(folder.display().to_string())
            .with_columns(columns)
            .with_partition_columns(["date"])
            .await
            .unwrap();
        Lake::open(&dir.path().join(name)).await
    };
    let schema = Table::Checkpoints.schema();
    let columns: Vec<StructField> =
        schema.fields().iter().map(|column| column.as_ref().try_into_kernel().unwrap()).collect();
    let older: Vec<_> = columns.iter().filter(|column| column.name() != "note").cloned().collect();
    let lake = make("older", older).await.unwrap();
    lake.append_checkpoints(vec![checkpoint(1)]).await.unwrap();
    assert_eq!(count(&lake.pin(), "checkpoints WHERE note = 'a note'").await, 1);
    let newer: Vec<_> = columns.iter().cloned().chain([StructField::nullable("new", DataType::STRING)]).collect();
    let error = make("newer", newer).await.unwrap_err();
    assert!(matches!(&error, LakeError::Schema { column, .. } if column == "new"), "{error}");
    let other: Vec<_> = columns
        .iter()
        .map(|column| match column.name().as_str() {
            "tree_size" => StructField::nullable("tree_size", DataType::Primitive(PrimitiveType::String)),
            _ => column.clone(),
        })
        .collect();
    let error = make("other", other).await.unwrap_err();
    assert!(matches!(&error, LakeError::Schema { column, .. } if column == "tree_size"), "{error}");
}

#[tokio::test]
async fn merged_files_hold_the_same_rows_in_order_and_pinned_versions_stay() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    let read = |snapshot: &Snapshot| -> Vec<(u64, Bytes)> {
        let records = snapshot.records(0, &Skip::default()).unwrap();
        records.map(|record| record.map(|record| (record.index, record.body)).unwrap()).collect()
    };
    for at in 0..40 {
        lake.append_events(0, at * 3, at * 3 + 3, rows(at * 3, at * 3 + 3)).await.unwrap();
        // Files of one source are merged while those of the other are small: their records interleave.
        if at == 20 {
            assert!(lake.tidy(START, Duration::ZERO, &Handle::current()).await.unwrap() >= 16);
        }
    }
    let before = lake.pin();
    let (expected, all) = (read(&before), count(&before, "events").await);
    assert_eq!(expected.iter().map(|(index, _)| *index).collect::<Vec<_>>(), (0..120).collect::<Vec<_>>());
    while lake.tidy(START, Duration::ZERO, &Handle::current()).await.unwrap() > 0 {}
    let after = lake.pin();
    assert!(after.files(Table::Events).len() < before.files(Table::Events).len() / 2);
    for snapshot in [&after, &before, &lake.pin_at(&before.versions()).await.unwrap()] {
        assert_eq!(read(snapshot), expected);
        assert_eq!(count(snapshot, "events").await, all);
        assert_eq!(snapshot.damaged_files(), []);
    }
    assert_eq!(lake.archived(0).await.unwrap(), 120);
    let lake = Lake::open(dir.path()).await.unwrap();
    assert_eq!(lake.append_events(0, 117, 123, rows(117, 123)).await.unwrap(), 123);
    assert_eq!((read(&lake.pin()).len(), lake.pin().records_end()), (123, 123));
}

/// Names of the data files on disk.
fn data_files(dir: &std::path::Path) -> std::collections::BTreeSet<std::path::PathBuf> {
    let found = changes(&dir.join("events")).into_iter().map(|(path, _)| path);
    found.filter(|path| path.extension().is_some_and(|ending| ending == "parquet")).collect()
}

#[tokio::test]
async fn vacuum_removes_what_nobody_has_and_only_versions_of_more_than_a_day_ago_refer_to() {
    use engine::clock::{Clock as _, SystemClock};
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    for at in 0..40 {
        lake.append_events(0, at * 3, at * 3 + 3, rows(at * 3, at * 3 + 3)).await.unwrap();
    }
    let before = lake.pin();
    // When files were removed from the table is told by the machine's clock.
    let now = SystemClock.now();
    while lake.tidy(now, Duration::ZERO, &Handle::current()).await.unwrap() > 0 {}
    let merged = lake.pin();
    let read = |snapshot: &Snapshot| -> Vec<u64> {
        let records = snapshot.records(0, &Skip::default()).unwrap();
        records.map(|record| record.unwrap().index).collect()
    };
    let all: Vec<u64> = (0..120).collect();
    let hour = Duration::from_secs(3_600);
    // A process looks once an hour, and at its start.
    let lake = Lake::open(dir.path()).await.unwrap();
    lake.tidy(now, Duration::ZERO, &Handle::current()).await.unwrap();
    lake.tidy(now.plus(hour * 20), hour * 20, &Handle::current()).await.unwrap();
    assert_eq!(read(&before), all, "a version of today stays");
    assert_eq!(read(&lake.pin_at(&before.versions()).await.unwrap()), all);
    assert!(data_files(dir.path()).len() > merged.files(Table::Events).len());

    let pinned = lake.pin();
    lake.append_events(0, 120, 123, rows(120, 123)).await.unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    lake.tidy(now.plus(hour * 20), Duration::ZERO, &Handle::current()).await.unwrap();
    lake.tidy(now.plus(hour * 28), hour * 8, &Handle::current()).await.unwrap();
    let kept: std::collections::BTreeSet<_> = lake.pin().files(Table::Events).iter().cloned().collect();
    assert_eq!(data_files(&std::fs::canonicalize(dir.path()).unwrap()), kept, "nothing else is left on disk");
    assert_eq!(read(&pinned), all, "what is still part of the table stays for whoever has pinned it");
    assert_eq!(read(&lake.pin()).len(), 123);
    assert_eq!(lake.pin().damaged_files(), []);
    assert!(before.records(0, &Skip::default()).unwrap().any(|record| record.is_err()), "the old files are gone");
    assert_eq!(lake.archived(0).await.unwrap(), 123);
}

#[tokio::test]
async fn a_clock_that_is_put_forward_ends_no_day() {
    use engine::clock::{Clock as _, SystemClock};
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    for at in 0..40 {
        lake.append_events(0, at * 3, at * 3 + 3, rows(at * 3, at * 3 + 3)).await.unwrap();
    }
    let before = lake.pin().versions();
    let now = SystemClock.now();
    while lake.tidy(now, Duration::ZERO, &Handle::current()).await.unwrap() > 0 {}
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3_600));
    let day = hour * 24;
    let readable = async |lake: &Lake| {
        let records = lake.pin_at(&before).await.unwrap().records(0, &Skip::default()).unwrap();
        records.filter(Result::is_ok).count() == 120
    };
    // By a month, while it runs and over a start.
    lake.tidy(now.plus(day * 30), second * 5, &Handle::current()).await.unwrap();
    assert!(readable(&lake).await);
    let lake = Lake::open(dir.path()).await.unwrap();
    for awake in [Duration::ZERO, second * 5, hour * 8] {
        lake.tidy(now.plus(day * 30), awake, &Handle::current()).await.unwrap();
        assert!(readable(&lake).await, "after {awake:?}");
    }
    // It is made up for, at twice the pace.
    lake.tidy(now.plus(day * 30), hour * 14, &Handle::current()).await.unwrap();
    assert!(!readable(&lake).await);
}

#[tokio::test]
async fn what_is_being_read_stays_whatever_its_age() {
    use engine::clock::{Clock as _, SystemClock};
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    for at in 0..40 {
        lake.append_events(0, at * 3, at * 3 + 3, rows(at * 3, at * 3 + 3)).await.unwrap();
    }
    let (read, versions) = (lake.pin(), lake.pin().versions());
    let mut records = read.records(0, &Skip::default()).unwrap();
    let sql = Sql::over(&read, None, Limits::EVIDENCE).await.unwrap();
    drop(read);
    assert_eq!(records.next().unwrap().unwrap().index, 0);
    let now = SystemClock.now();
    while lake.tidy(now, Duration::ZERO, &Handle::current()).await.unwrap() > 0 {}
    let day = Duration::from_secs(86_400);
    lake.tidy(now.plus(day * 30), day * 30, &Handle::current()).await.unwrap();
    // A version that is opened by its number is held as well.
    let again = lake.pin_at(&versions).await.unwrap();
    assert_eq!(records.by_ref().map(|record| record.unwrap().index).collect::<Vec<_>>(), (1..120).collect::<Vec<_>>());
    drop(records);
    lake.tidy(now.plus(day * 40), day * 40, &Handle::current()).await.unwrap();
    assert_eq!(
        sql.query("SELECT count(DISTINCT \"index\") FROM events", &[]).await.unwrap().json().unwrap().rows[0][0],
        120
    );
    drop(sql);
    lake.tidy(now.plus(day * 50), day * 50, &Handle::current()).await.unwrap();
    assert!(again.records(0, &Skip::default()).unwrap().all(|record| record.is_ok()));
    drop(again);
    lake.tidy(now.plus(day * 60), day * 60, &Handle::current()).await.unwrap();
    let left = lake.pin_at(&versions).await.unwrap();
    assert!(left.records(0, &Skip::default()).unwrap().any(|record| record.is_err()), "nobody has it any more");
}

#[tokio::test]
async fn items_of_earlier_days_are_known_by_their_first_record() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    lake.append_events(0, 0, 40, rows(0, 40)).await.unwrap();
    lake.append_events(0, 40, 80, rows(40, 80)).await.unwrap();
    let items = |numbers: &[u64]| -> std::collections::HashSet<String> {
        numbers.iter().map(|number| format!("id:{number}")).collect()
    };
    let snapshot = lake.pin();
    let known = |source: &str, until, numbers: &[u64]| snapshot.known_items(source, until, &items(numbers)).unwrap();
    // Records with even indexes are of `acme`, the others of another source, whose folder is not named after it.
    let asked = [4, 5, 62, 500];
    assert_eq!(known("acme", START, &asked), HashMap::from([("id:4".to_owned(), 4), ("id:62".to_owned(), 62)]));
    assert_eq!(known("acme/über prod", START, &asked), HashMap::from([("id:5".to_owned(), 5)]));
    assert!(known("nobody", START, &asked).is_empty());
    assert!(known("acme", START.minus(Duration::from_secs(86_400)), &asked).is_empty(), "of that day or before");
    assert!(known("acme", START, &[]).is_empty());
}

/// Other people's readers see the same rows. Needs Python with `deltalake` and `duckdb`; says so where they are missing.
#[tokio::test]
async fn duckdb_and_delta_rs_for_python_open_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    lake.append_events(0, 0, 8, rows(0, 8)).await.unwrap();
    lake.append_events(0, 8, 12, rows(8, 12)).await.unwrap();
    let python = std::env::var("PIPEPROOF_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let present = Command::new(&python).args(["-c", "import deltalake, duckdb, pyarrow"]).output();
    if !present.is_ok_and(|output| output.status.success()) {
        println!("skipped: {python} has no deltalake, duckdb and pyarrow (pip install deltalake duckdb pyarrow)");
        return;
    }
    let script = r#"
import sys, duckdb
from deltalake import DeltaTable
table = DeltaTable(sys.argv[1])
events = table.to_pyarrow_table()
assert events.num_rows == 18, events.num_rows
assert sorted(set(events["source"].to_pylist())) == ["acme", "acme/über prod"], set(events["source"].to_pylist())
assert table.metadata().partition_columns == ["date", "source"]
assert duckdb.sql("select count(*) from events where ci_attempt = 2").fetchall() == [(12,)]
files = [path.removeprefix("file://") for path in table.file_uris()]
plain = duckdb.sql('select count(*), count(distinct "index"), min(source), min(epoch_us(time)) from read_parquet($files)', params={"files": files}).fetchall()[0]
assert plain == (18, 12, "acme", 1763900000000000), plain
assert len(DeltaTable(sys.argv[1], version=1).file_uris()) < len(files)
"#;
    let folder = dir.path().join("events");
    let output = Command::new(&python).arg("-c").arg(script).arg(&folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_lake_is_read_back_as_the_log_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path()).await.unwrap();
    // Appends of several sources and days, with holes where repetitions were.
    let kept = |from: u64, to: u64| rows(from, to).into_iter().filter(|row| row.id.position.index % 7 != 5).collect();
    for (from, to) in [(0, 3), (3, 40), (40, 41), (41, 500)] {
        lake.append_events(0, from, to, kept(from, to)).await.unwrap();
    }
    let snapshot = lake.pin();
    assert_eq!(snapshot.records_end(), 500);
    let read = |snapshot: &Snapshot, skip: &Skip| -> Vec<StoredRecord> {
        snapshot.records(0, skip).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let all = read(&snapshot, &Skip::default());
    let expected: Vec<u64> = (0..500).filter(|index| index % 7 != 5).collect();
    assert_eq!(all.iter().map(|record| record.index).collect::<Vec<_>>(), expected);
    for stored in all {
        let source = if stored.index % 2 == 0 { "acme" } else { "acme/über prod" };
        let (leaf, original) = record(stored.index, source, SourceType::Json, &format!("{{\"n\":{}}}", stored.index));
        assert_eq!(encode_parts(stored.envelope.as_bytes(), &stored.salt, &stored.body).unwrap(), leaf);
        assert_eq!(stored.decode().unwrap(), original);
    }
    let later = Skip { before: Some(START.plus(Duration::from_secs(86_400))), kept: Some("acme".into()) };
    assert!(read(&snapshot, &later).iter().all(|record| record.index % 2 == 0), "only the source that is kept");
    assert!(snapshot.records(1, &Skip::default()).unwrap().next().is_none(), "another partition");

    // The same without opening it for writing.
    let before: Vec<_> = changes(dir.path());
    let read_only = Snapshot::read_only(dir.path()).await.unwrap();
    assert_eq!(read_only.versions(), snapshot.versions());
    assert_eq!(read(&read_only, &Skip::default()).len(), expected.len());
    assert_eq!(changes(dir.path()), before);
    assert!(read_only.findings().unwrap().next().is_none());
    let empty = tempfile::tempdir().unwrap();
    let nothing = Snapshot::read_only(empty.path()).await.unwrap();
    assert!(nothing.records(0, &Skip::default()).unwrap().next().is_none());
    assert!(std::fs::read_dir(empty.path()).unwrap().next().is_none(), "nothing was made");

    // Of one source from one record on: nothing else is opened.
    let hers = |from: u64| expected.iter().copied().filter(move |index| *index >= from && index % 2 == 0);
    for from in [0, 39, 40, 41, 400, 600] {
        let records = snapshot.records_from(0, "acme", from).unwrap();
        let indices: Vec<u64> = records.map(|record| record.unwrap().index).collect();
        assert_eq!(indices, hers(from).collect::<Vec<_>>(), "from {from}");
    }
    let (own, others): (Vec<_>, Vec<_>) =
        snapshot.files(Table::Events).iter().partition(|path| path.parent().unwrap().ends_with("acme"));
    let (later, earlier): (Vec<_>, Vec<_>) = own.into_iter().partition(|path| replay::append_of(path) == Some(500));
    for path in others.into_iter().chain(earlier) {
        std::fs::remove_file(path).unwrap();
    }
    assert!(!later.is_empty());
    let records = snapshot.records_from(0, "acme", 41).unwrap();
    assert_eq!(records.map(|record| record.unwrap().index).collect::<Vec<_>>(), hers(41).collect::<Vec<_>>());
}

fn changes(folder: &std::path::Path) -> Vec<(std::path::PathBuf, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.push((path.clone(), path.metadata().unwrap().modified().unwrap()));
        if path.is_dir() {
            found.extend(changes(&path));
        }
    }
    found.sort();
    found
}
