//! Small files become large ones, and what nothing refers to any more goes.
//!
//! Files of one partition folder that are about equally small are merged once there are enough of them, so a row is rewritten
//! a few times in its life and not at every append. One commit puts the new file in the place of the old ones; these stay on
//! disk for a week, so whoever has pinned an earlier version reads on.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_schema::SchemaRef;
use deltalake::kernel::Remove;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::operations::vacuum::{Clock, VacuumMode};
use engine::time::Timestamp;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use pipeproof_engine as engine;

use super::delta::{LakeTable, NewFile, Replacing, least};
use super::parquet_file::{Effort, ParquetFile};
use super::replay::append_of;
use super::{LakeError, check};

/// Files from this size on are left alone.
const LARGE_BYTES: i64 = 64 << 20;
/// Files of about one size that are merged.
const MERGE_FILES: usize = 16;
/// Bytes that go into one merged file at most.
const MERGE_BYTES: i64 = 128 << 20;
/// How long files stay that only older versions refer to.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How often they are looked for.
const VACUUM_EVERY: Duration = Duration::from_secs(86_400);

struct Small {
    append: u64,
    path: PathBuf,
    bytes: i64,
    numbers: (u64, u64),
    partition: HashMap<String, Option<String>>,
    remove: Remove,
}

impl LakeTable {
    /// Merges one group of small files, if there is one. Returns how many files it was.
    pub(super) async fn compact(&mut self) -> Result<usize, LakeError> {
        self.refresh().await?;
        let Some(group) = self.mergeable()? else { return Ok(0) };
        let count = group.len();
        let Some(version) = group.last().map(|small| small.append) else { return Ok(0) };
        let paths: Vec<PathBuf> = group.iter().map(|small| self.folder.join(&small.path)).collect();
        let partition: Vec<String> = self.partition_of(group.first());
        let (table, schema) = (self.table, self.table.stored_schema());
        let merge = move || merged(&schema, &paths);
        let (bytes, rows) = tokio::task::spawn_blocking(merge)
            .await
            .map_err(|error| ParquetError::External(Box::new(error)))
            .flatten()
            .map_err(|source| LakeError::Parquet { table: table.name(), source })?;
        let numbers = group.iter().map(|small| small.numbers);
        let numbers = numbers.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))).unwrap_or_default();
        let others = group.into_iter().map(|small| small.remove).collect();
        self.replace(version, NewFile { bytes, rows, numbers, partition }, others, Replacing::Merging).await?;
        Ok(count)
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

    /// Removes, once a day, files to which neither a version of the week before `now` refers nor one that somebody in this process
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
        let vacuum = vacuum.with_clock(Arc::new(At(now))).with_keep_versions(&self.held());
        let (delta, metrics) = vacuum.with_commit_properties(properties).await.map_err(done)?;
        self.delta = delta;
        self.vacuumed = Some(now);
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

/// The rows of the files one after the other, as one file, and how many they are.
fn merged(schema: &SchemaRef, paths: &[PathBuf]) -> Result<(Vec<u8>, usize), ParquetError> {
    let mut file = ParquetFile::new(schema, Effort::Kept)?;
    let mut rows = 0;
    for path in paths {
        for batch in ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?.build()? {
            let batch = under(schema, &batch?)?;
            rows += batch.num_rows();
            file.write(&batch)?;
        }
    }
    Ok((file.finish()?, rows))
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
