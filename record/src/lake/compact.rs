//! Small files become large ones, and what nothing refers to any more goes.
//!
//! Files of one partition folder that are about equally small are merged once there are enough of them, so a row is rewritten
//! a few times in its life and not at every append. One commit puts the new file in the place of the old ones; these stay on
//! disk for a day, so whoever has pinned an earlier version reads on. Reading and compressing takes a minute for the largest, and
//! nobody waits for it: the table is free meanwhile, and what was replaced in that time is not committed. It goes on in pieces of a
//! batch each, on threads that come last on a busy machine, and for what is still to do after [`CALM`] on ordinary ones: whoever
//! appends more than the machine can merge beside it has small files wait, but not without end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_schema::SchemaRef;
use deltalake::kernel::Remove;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::operations::vacuum::{Clock, VacuumMode};
use engine::failpoint::Failpoint;
use engine::time::Timestamp;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::errors::ParquetError;
use pipeproof_engine as engine;
use tokio::runtime::Handle;

use super::columns::Table;
use super::delta::{LakeTable, NewFile, Replacing, least};
use super::parquet_file::{Effort, ParquetFile, batches};
use super::replay::append_of;
use super::{LakeError, check};

/// Files from this size on are left alone.
const LARGE_BYTES: i64 = 64 << 20;
/// Files of about one size that are merged.
const MERGE_FILES: usize = 16;
/// Bytes that go into one merged file at most.
const MERGE_BYTES: i64 = 128 << 20;
/// How long a merge makes way for everything else, counted between pieces.
const CALM: Duration = Duration::from_secs(120);
/// Bytes of files whose merge is over at once: it makes way for nothing, so that none waits for a turn of the machine.
const AT_ONCE_BYTES: i64 = 4 << 20;
/// How long files stay that only older versions refer to.
const KEPT: Duration = Duration::from_secs(86_400);
/// How often they are looked for.
const VACUUM_EVERY: Duration = Duration::from_secs(3_600);

struct Small {
    append: u64,
    path: PathBuf,
    bytes: i64,
    numbers: (u64, u64),
    partition: HashMap<String, Option<String>>,
    remove: Remove,
}

/// Small files of one folder that are to become one.
pub(super) struct Merge {
    table: Table,
    folder: PathBuf,
    group: Vec<Small>,
}

impl Merge {
    /// The rows of the files one after the other, as one file, and how many they are. Made on `calm` first. Ends with the piece it is at
    /// when it is dropped. Fails if one of the files is not what was written: it would be what was written, under a new name.
    pub(super) async fn merged(&self, calm: &Handle) -> Result<(Vec<u8>, usize), LakeError> {
        let began = Instant::now();
        let bytes: i64 = self.group.iter().map(|small| small.bytes).sum();
        let paths: Vec<PathBuf> = self.group.iter().map(|small| self.folder.join(&small.path)).collect();
        let mut work = Merging::of(self.table, paths)?;
        loop {
            let makes_way = bytes > AT_ONCE_BYTES && began.elapsed() < CALM;
            let threads = if makes_way { calm.clone() } else { Handle::current() };
            let piece = threads.spawn_blocking(move || work.step()).await;
            let ended = |error| on_parquet(self.table)(ParquetError::External(Box::new(error)));
            match piece.map_err(ended).flatten()? {
                Piece::More(rest) => work = *rest,
                Piece::Last(bytes, rows) => return Ok((bytes, rows)),
            }
        }
    }
}

/// A file as far as it has been written from others.
struct Merging {
    table: Table,
    schema: SchemaRef,
    paths: std::vec::IntoIter<PathBuf>,
    reading: Option<ParquetRecordBatchReader>,
    file: ParquetFile,
    rows: usize,
}

/// What a step came to.
enum Piece {
    More(Box<Merging>),
    Last(Vec<u8>, usize),
}

fn on_parquet(table: Table) -> impl FnOnce(ParquetError) -> LakeError {
    move |source| LakeError::Parquet { table: table.name(), source }
}

impl Merging {
    fn of(table: Table, paths: Vec<PathBuf>) -> Result<Self, LakeError> {
        let schema = table.stored_schema();
        let file = ParquetFile::new(&schema, Effort::Kept).map_err(on_parquet(table))?;
        Ok(Self { table, schema, paths: paths.into_iter(), reading: None, file, rows: 0 })
    }

    /// Takes in the next batch.
    fn step(mut self) -> Result<Piece, LakeError> {
        let table = self.table;
        if let Some(batch) = self.reading.as_mut().and_then(Iterator::next) {
            let batch = batch.map_err(ParquetError::from).and_then(|batch| under(&self.schema, &batch));
            let batch = batch.map_err(on_parquet(table))?;
            self.rows += batch.num_rows();
            self.file.write(&batch).map_err(on_parquet(table))?;
            return Ok(Piece::More(Box::new(self)));
        }
        match self.paths.next() {
            Some(path) => {
                let on = |source| LakeError::Read { path: path.clone(), source };
                if !check::is_as_named(&path).map_err(|error| on(error.into()))? {
                    return Err(LakeError::Damaged { path });
                }
                self.reading = Some(batches(&path).map_err(on)?);
                Ok(Piece::More(Box::new(self)))
            }
            None => Ok(Piece::Last(self.file.finish().map_err(on_parquet(table))?, self.rows)),
        }
    }
}

impl LakeTable {
    /// What is to be merged next.
    pub(super) async fn next_merge(&mut self) -> Result<Option<Merge>, LakeError> {
        self.refresh().await?;
        let (table, folder) = (self.table, self.folder.clone());
        Ok(self.mergeable()?.map(|group| Merge { table, folder, group }))
    }

    /// Puts the merged file in the place of those it was made of, unless one of them is not part of the table any more. Returns how
    /// many files it was.
    pub(super) async fn commit_merge(&mut self, merge: Merge, bytes: Vec<u8>, rows: usize) -> Result<usize, LakeError> {
        self.refresh().await?;
        let group = merge.group;
        let live: BTreeSet<PathBuf> = self.pinned()?.files.iter().cloned().collect();
        if !group.iter().all(|small| live.contains(&self.folder.join(&small.path))) {
            return Ok(0);
        }
        let count = group.len();
        let Some(version) = group.last().map(|small| small.append) else { return Ok(0) };
        let partition: Vec<String> = self.partition_of(group.first());
        let numbers = group.iter().map(|small| small.numbers);
        let numbers = numbers.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))).unwrap_or_default();
        let others = group.into_iter().map(|small| small.remove).collect();
        self.replace(version, NewFile { bytes, rows, numbers, partition }, others, Replacing::Merging).await?;
        Ok(count)
    }

    /// Remembers the file that a merge failed on: the next one does without it. It is named by the error and by whoever looks at all
    /// files, and stays as it is.
    pub(super) fn leave_alone(&mut self, error: &LakeError) {
        if let LakeError::Damaged { path } | LakeError::Read { path, .. } = error {
            self.left_alone.insert(path.clone());
        }
    }

    fn partition_of(&self, first: Option<&Small>) -> Vec<String> {
        let value = |name: &&str| first.and_then(|small| small.partition.get(*name)?.clone());
        self.table.partition_columns().iter().map(|name| value(name).unwrap_or_default()).collect()
    }

    /// The first group of enough files of one folder and about one size, in the order they were appended.
    fn mergeable(&self) -> Result<Option<Vec<Small>>, LakeError> {
        let state = self.delta.snapshot().map_err(LakeError::delta("list the files of", self.table))?;
        let data = state.snapshot().try_log_data().map_err(LakeError::delta("list the files of", self.table))?;
        let mut groups: BTreeMap<(PathBuf, u32), Vec<Small>> = BTreeMap::new();
        for file in data.iter().filter(|file| file.size() < LARGE_BYTES) {
            let path = PathBuf::from(file.path().as_ref());
            if self.left_alone.contains(&self.folder.join(&path)) {
                continue;
            }
            let Some(append) = append_of(&path) else { continue };
            // Four times the size is another tier.
            let tier = u64::try_from(file.size()).unwrap_or(0).max(1).ilog2() / 2;
            let stats = file.stats();
            let small = Small {
                append,
                path: path.clone(),
                bytes: file.size(),
                numbers: (least(self.table, stats.as_deref()), most(self.table.number_column(), stats.as_deref())),
                partition: file.partition_values_map(),
                remove: file.remove_action(false),
            };
            groups.entry((path.parent().map(PathBuf::from).unwrap_or_default(), tier)).or_default().push(small);
        }
        let group = groups.into_values().find(|group| group.len() >= MERGE_FILES);
        Ok(group.map(|mut group| {
            group.sort_by_key(|small| (small.append, small.numbers));
            let mut bytes = 0;
            let fits = group.iter().take_while(|small| {
                bytes += small.bytes;
                bytes <= MERGE_BYTES
            });
            let fits = fits.count().max(2);
            group.truncate(fits);
            group
        }))
    }

    /// Removes, once an hour, files to which neither a version of the day before `now` refers nor one that somebody in this process
    /// still has. Returns whether it did.
    pub(super) async fn vacuum(&mut self, now: Timestamp) -> Result<bool, LakeError> {
        if self.vacuumed.is_some_and(|last| now < last.plus(VACUUM_EVERY)) {
            return Ok(false);
        }
        self.refresh().await?;
        let kept = chrono::Duration::from_std(KEPT).unwrap_or(chrono::Duration::MAX);
        let done = LakeError::delta("vacuum", self.table);
        // Every version stays readable by its log; only data files go.
        let properties = CommitProperties::default().with_cleanup_expired_logs(Some(false));
        let vacuum = self.delta.clone().vacuum().with_retention_period(kept).with_mode(VacuumMode::Full);
        // Delta asks for a week, for writers that do not know of each other: here is one, and it holds the table.
        let vacuum = vacuum.with_enforce_retention_duration(false);
        let vacuum = vacuum.with_clock(Arc::new(At(now))).with_keep_versions(&self.held());
        let (delta, metrics) = vacuum.with_commit_properties(properties).await.map_err(done)?;
        self.delta = delta;
        self.vacuumed = Some(now);
        Failpoint::LakeAfterVacuum.pass();
        let noted = check::note_commits(&self.folder);
        noted.map_err(|source| LakeError::Folder { path: self.folder.clone(), source })?;
        if !metrics.files_deleted.is_empty() {
            tracing::info!(
                table = self.table.name(),
                files = metrics.files_deleted.len(),
                "removed old files of the lake"
            );
        }
        Ok(true)
    }
}

/// The present of one vacuum.
#[derive(Debug)]
struct At(Timestamp);

impl Clock for At {
    fn current_timestamp_millis(&self) -> i64 {
        self.0.as_micros().div_euclid(1_000)
    }
}

pub(super) fn most(column: &str, stats: Option<&str>) -> u64 {
    let stats: serde_json::Value = stats.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    stats.get("maxValues").and_then(|values| values.get(column)?.as_u64()).unwrap_or(0)
}

/// The batch with the columns of today: those its file was written without are empty.
pub(super) fn under(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, ParquetError> {
    let column = |field: &Arc<arrow_schema::Field>| -> ArrayRef {
        let found = batch.column_by_name(field.name());
        found.map_or_else(|| new_null_array(field.data_type(), batch.num_rows()), Arc::clone)
    };
    let columns = schema.fields().iter().map(column).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(ParquetError::from)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::tests::rows;
    use super::super::{Lake, Redaction, Skip};
    use super::*;
    use crate::store::tests::START;

    async fn lake_of(dir: &std::path::Path, appends: u64) -> Lake {
        let lake = Lake::open(dir).await.unwrap();
        for at in 0..appends {
            lake.append_events(0, at * 4, at * 4 + 4, rows(at * 4, at * 4 + 4)).await.unwrap();
        }
        lake
    }

    fn indexes(lake: &Lake) -> Vec<u64> {
        let records = lake.pin().records(0, &Skip::default()).unwrap();
        records.map(|record| record.unwrap().index).collect()
    }

    #[tokio::test]
    async fn appends_go_on_while_files_are_merged() {
        let dir = tempfile::tempdir().unwrap();
        let lake = lake_of(dir.path(), 16).await;
        let events = || async { lake.table(Table::Events).unwrap().lock().await };
        let merge = events().await.next_merge().await.unwrap().unwrap();
        let (bytes, rows_of_it) = merge.merged(&Handle::current()).await.unwrap();
        lake.append_events(0, 64, 68, rows(64, 68)).await.unwrap();
        assert_eq!(events().await.commit_merge(merge, bytes, rows_of_it).await.unwrap(), 16);
        lake.append_events(0, 68, 72, rows(68, 72)).await.unwrap();
        assert_eq!(indexes(&lake), (0..72).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_damaged_file_is_left_as_it_is_and_the_others_are_merged() {
        let dir = tempfile::tempdir().unwrap();
        let lake = lake_of(dir.path(), 20).await;
        let victim = lake.pin().files(Table::Events)[3].clone();
        let mut bytes = std::fs::read(&victim).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&victim, &bytes).unwrap();
        let error = lake.tidy(START, Duration::ZERO, &Handle::current()).await.unwrap_err();
        assert!(matches!(&error, LakeError::Damaged { path } if *path == victim), "{error}");
        while lake.tidy(START, Duration::ZERO, &Handle::current()).await.unwrap() > 0 {}
        assert!(lake.pin().files(Table::Events).len() < 20 && lake.pin().files(Table::Events).contains(&victim));
        let damaged = lake.pin().damaged_files();
        assert_eq!(damaged.iter().map(|damage| &damage.path).collect::<Vec<_>>(), [&victim]);
    }

    #[tokio::test]
    async fn what_was_redacted_meanwhile_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let lake = lake_of(dir.path(), 16).await;
        let events = || async { lake.table(Table::Events).unwrap().lock().await };
        let merge = events().await.next_merge().await.unwrap().unwrap();
        let (bytes, rows_of_it) = merge.merged(&Handle::current()).await.unwrap();
        // Either source has one of these.
        let records = [(8, [8; 32]), (9, [9; 32])].into();
        let note = "2026-01-05T00:00:00Z by anna".to_owned();
        lake.redact(&Redaction { partition: 0, records, note, ..Redaction::default() }).await.unwrap();
        assert_eq!(events().await.commit_merge(merge, bytes, rows_of_it).await.unwrap(), 0);
        assert_eq!(indexes(&lake), (0..64).filter(|index| ![8, 9].contains(index)).collect::<Vec<_>>());
        assert_eq!(lake.pin().redacted(0).unwrap().len(), 2);
        // The next one takes the files as they are now.
        for at in 16..20 {
            lake.append_events(0, at * 4, at * 4 + 4, rows(at * 4, at * 4 + 4)).await.unwrap();
        }
        assert!(lake.tidy(START, Duration::ZERO, &Handle::current()).await.unwrap() >= 16);
        assert_eq!(lake.pin().redacted(0).unwrap().len(), 2);
    }

    #[tokio::test]
    async fn it_is_made_on_the_threads_given_and_may_be_dropped_at_any_piece() {
        let dir = tempfile::tempdir().unwrap();
        let lake = lake_of(dir.path(), 16).await;
        let started = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&started);
        let calm = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || {
                counted.fetch_add(1, Ordering::SeqCst);
            })
            .build()
            .unwrap();
        let mut merge = lake.table(Table::Events).unwrap().lock().await.next_merge().await.unwrap().unwrap();
        // What takes no time makes way for nothing.
        merge.merged(calm.handle()).await.unwrap();
        let at_once = started.load(Ordering::SeqCst);
        merge.group[0].bytes = AT_ONCE_BYTES;
        {
            let mut work = std::pin::pin!(merge.merged(calm.handle()));
            // Begun, and dropped before it is done.
            drop(futures::poll!(work.as_mut()));
        }
        let (bytes, rows) = merge.merged(calm.handle()).await.unwrap();
        let calmly = started.load(Ordering::SeqCst);
        calm.shutdown_background();
        assert!(at_once <= 1 && calmly > 1, "{at_once}, {calmly}: the runtime's worker, then threads for pieces");
        let mut table = lake.table(Table::Events).unwrap().lock().await;
        assert_eq!(table.commit_merge(merge, bytes, rows).await.unwrap(), 16);
        lake.publish(Table::Events, &mut table).unwrap();
        assert_eq!(indexes(&lake), (0..64).collect::<Vec<_>>());
    }
}
