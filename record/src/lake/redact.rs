//! Payloads that are dropped from the lake: rows stay, with what tells them apart and the leaf hash, and say that they were redacted.
//!
//! Each file that holds such a row is written again without the payload and takes the old one's place in one commit. Then the old
//! file is removed at once, and with it every file beside it that no version of today refers to and that holds such a row: what
//! compaction replaced in the last day, and what a crash left. Earlier versions of the table cannot be read there any more, which is
//! what was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, RecordBatch, StringArray};
use arrow_schema::SchemaRef;
use datafusion::arrow::compute::nullif;
use deltalake::kernel::Remove;
use engine::failpoint::Failpoint;
use engine::finding::Finding;
use engine::merkle::Hash;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use pipeproof_engine as engine;

use super::columns::Table;
use super::compact::{most, under};
use super::delta::{LakeTable, NewFile, Replacing, least};
use super::parquet_file::{Effort, ParquetFile, batches};
use super::replay::append_of;
use super::tip::TORN;
use super::{Lake, LakeError, Snapshot, check};

/// Columns of `events` that a redacted row keeps: where it stands, where it came from and when, and its leaf hash.
const KEPT: &[&str] = &[
    "date",
    "partition",
    "index",
    "sub",
    "event_id",
    "source",
    "source_type",
    "item",
    "time",
    "time_known",
    "received",
    "auth",
    "key_id",
    "mode",
];

/// What is dropped.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    /// Log partition of the records.
    pub partition: u32,
    /// Their indexes and leaf hashes.
    pub records: BTreeMap<u64, Hash>,
    /// What stands in the rows instead: when, by whom.
    pub note: String,
    /// Findings that cite the records, as they read now, by their numbers in the feed.
    pub findings: BTreeMap<u64, Finding>,
    /// Deliveries of messages about them: what targets answered may repeat the message.
    pub deliveries: BTreeSet<i64>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redacted {
    /// Rows without payload now.
    pub rows: u64,
    /// Files that were removed.
    pub files: u64,
}

impl Lake {
    /// Drops payloads from every file of the lake, old ones included. May be repeated, also after a crash anywhere in between. Whoever
    /// reads an earlier version meanwhile finds files missing: the caller sees to it that nobody does who cannot ask again.
    ///
    /// # Errors
    /// [`LakeError`]; what was done before it stays.
    pub async fn redact(&self, redaction: &Redaction) -> Result<Redacted, LakeError> {
        let redaction = Arc::new(redaction.clone());
        let mut all = Redacted::default();
        for &table in &[Table::Events, Table::Findings, Table::Deliveries] {
            if !redaction.touches(table) {
                continue;
            }
            let mut open = self.table(table)?.lock().await;
            let redacted = open.redact(&redaction).await;
            // Files may have been replaced before something failed.
            self.publish(table, &mut open)?;
            let redacted = redacted?;
            all.rows += redacted.rows;
            all.files += redacted.files;
        }
        Ok(all)
    }
}

/// A record of the lake without payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactedRecord {
    /// When it was redacted, and by whom.
    pub note: String,
    /// RFC 6962 hash of the leaf that was there.
    pub leaf_hash: Hash,
}

impl Snapshot {
    /// Records of a partition without payload. Of files that hold none, only the statistics are read. Blocks.
    ///
    /// # Errors
    /// [`LakeError::Read`] for a file that cannot be read.
    pub fn redacted(&self, partition: u32) -> Result<BTreeMap<u64, RedactedRecord>, LakeError> {
        let mut found = BTreeMap::new();
        for path in self.files(Table::Events) {
            read_redacted(path, partition, &mut found)
                .map_err(|source| LakeError::Read { path: path.clone(), source })?;
        }
        Ok(found)
    }
}

fn read_redacted(path: &Path, partition: u32, found: &mut BTreeMap<u64, RedactedRecord>) -> Result<(), ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let schema = builder.parquet_schema();
    // A file of an earlier version has no such column, and none that is redacted.
    let Some(column) = schema.columns().iter().position(|column| column.name() == "redacted") else { return Ok(()) };
    let has_some = |group: &usize| {
        let group = builder.metadata().row_group(*group);
        let nulls = group.column(column).statistics().and_then(|statistics| statistics.null_count_opt());
        nulls.is_none_or(|nulls| i64::try_from(nulls).is_ok_and(|nulls| nulls < group.num_rows()))
    };
    let groups: Vec<usize> = (0..builder.metadata().num_row_groups()).filter(has_some).collect();
    if groups.is_empty() {
        return Ok(());
    }
    let mask = ProjectionMask::columns(schema, ["partition", "index", "leaf_hash", "redacted"]);
    let missing = || ParquetError::General("a column of `events` is missing or has another type".to_owned());
    for batch in builder.with_projection(mask).with_row_groups(groups).build()? {
        let batch = batch?;
        let column = |name: &str| batch.column_by_name(name).ok_or_else(missing);
        let partitions = column("partition")?.as_primitive_opt::<Int32Type>().ok_or_else(missing)?;
        let indexes = column("index")?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
        let hashes = column("leaf_hash")?.as_binary_opt::<i32>().ok_or_else(missing)?;
        let notes = column("redacted")?.as_string_opt::<i32>().ok_or_else(missing)?;
        for row in (0..batch.num_rows()).filter(|row| notes.is_valid(*row)) {
            if u32::try_from(partitions.value(row)).is_ok_and(|of| of == partition)
                && let Ok(index) = u64::try_from(indexes.value(row))
                && let Ok(hash) = Hash::try_from(hashes.value(row))
            {
                found.insert(index, RedactedRecord { note: notes.value(row).to_owned(), leaf_hash: hash });
            }
        }
    }
    Ok(())
}

/// A file of the table as it stands.
struct Live {
    path: PathBuf,
    append: u64,
    numbers: (u64, u64),
    partition: Vec<String>,
    remove: Remove,
}

impl LakeTable {
    async fn redact(&mut self, redaction: &Arc<Redaction>) -> Result<Redacted, LakeError> {
        self.refresh().await?;
        let mut done = Redacted::default();
        let mut folders = BTreeSet::new();
        for live in self.candidates(redaction)? {
            let (table, path) = (self.table, self.folder.join(&live.path));
            let (what, read) = (Arc::clone(redaction), path.clone());
            let rewritten = blocking(table, move || rewrite(table, &read, &what)).await?;
            let Some(rewritten) = rewritten else { continue };
            if rewritten.is_damaged {
                return Err(LakeError::Damaged { path });
            }
            folders.extend(path.parent().map(Path::to_owned));
            if let Some((bytes, rows, redacted)) = rewritten.file {
                let file = NewFile { bytes, rows, numbers: live.numbers, partition: live.partition };
                self.replace(live.append, file, vec![live.remove], Replacing::Redacting).await?;
                done.rows += redacted;
            }
        }
        Failpoint::RedactAfterLakeCommit.pass();
        done.files = self.remove_superseded(redaction, &folders).await?;
        Failpoint::RedactAfterLakeRemove.pass();
        Ok(done)
    }

    /// Files that may hold such rows, by their statistics.
    fn candidates(&self, redaction: &Redaction) -> Result<Vec<Live>, LakeError> {
        let state = self.delta.snapshot().map_err(LakeError::delta("list the files of", self.table))?;
        let data = state.snapshot().try_log_data().map_err(LakeError::delta("list the files of", self.table))?;
        let mut found = Vec::new();
        for file in data.iter() {
            let path = PathBuf::from(file.path().as_ref());
            let stats = file.stats();
            let numbers = (least(self.table, stats.as_deref()), most(self.table.number_column(), stats.as_deref()));
            let Some(append) = append_of(&path) else { continue };
            if redaction.may_be_in(self.table, numbers) {
                let partition = file.partition_values_map();
                let value = |name: &&str| partition.get(*name).cloned().flatten().unwrap_or_default();
                found.push(Live {
                    append,
                    numbers,
                    partition: self.table.partition_columns().iter().map(value).collect(),
                    remove: file.remove_action(true),
                    path,
                });
            }
        }
        Ok(found)
    }

    /// Removes what nothing of today refers to and what holds such a row, in these folders.
    async fn remove_superseded(
        &mut self,
        redaction: &Arc<Redaction>,
        folders: &BTreeSet<PathBuf>,
    ) -> Result<u64, LakeError> {
        let live: BTreeSet<PathBuf> = self.pinned()?.files.iter().cloned().collect();
        let (table, what, folders) = (self.table, Arc::clone(redaction), folders.clone());
        blocking(table, move || {
            let mut removed = 0;
            for folder in &folders {
                let mut gone = false;
                for entry in fs::read_dir(folder)? {
                    let path = entry?.path();
                    let ends = |with: &str| path.extension().is_some_and(|ending| ending == with);
                    let is_old = ends("parquet") && !live.contains(&path);
                    // What a power cut left of a file cannot be read, and may hold such a row all the same.
                    if ends(TORN) || (is_old && holds(table, &path, &what)?) {
                        fs::remove_file(&path)?;
                        (removed, gone) = (removed + 1, true);
                    }
                }
                if gone {
                    File::open(folder)?.sync_all()?;
                }
            }
            Ok(removed)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    table: Table,
    work: impl FnOnce() -> Result<T, ParquetError> + Send + 'static,
) -> Result<T, LakeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ParquetError::External(Box::new(error)))
        .flatten()
        .map_err(|source| LakeError::Parquet { table: table.name(), source })
}

impl Redaction {
    fn touches(&self, table: Table) -> bool {
        match table {
            Table::Events => !self.records.is_empty(),
            Table::Findings => !self.findings.is_empty(),
            Table::Deliveries => !self.deliveries.is_empty(),
            _ => false,
        }
    }

    fn may_be_in(&self, table: Table, (least, most): (u64, u64)) -> bool {
        match table {
            Table::Events => self.records.range(least..=most.max(least)).next().is_some(),
            Table::Findings => self.findings.range(least..=most.max(least)).next().is_some(),
            // Their numbers are those of changes.
            _ => true,
        }
    }

    /// Columns that say which rows are meant.
    const fn naming(table: Table) -> &'static [&'static str] {
        match table {
            Table::Events => &["partition", "index"],
            Table::Findings => &["seq"],
            _ => &["delivery_id"],
        }
    }

    /// Which rows are meant.
    fn rows(&self, table: Table, batch: &RecordBatch) -> Result<BooleanArray, ParquetError> {
        let missing = || ParquetError::General(format!("a column of `{}` is missing or of another type", table.name()));
        let long = |name: &str| {
            batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(missing)
        };
        let rows = match table {
            Table::Events => {
                let partitions = batch.column_by_name("partition").ok_or_else(missing)?;
                let partitions = partitions.as_primitive_opt::<Int32Type>().ok_or_else(missing)?;
                let own = |(index, partition): (Option<i64>, Option<i32>)| {
                    let index = index.and_then(|index| u64::try_from(index).ok());
                    let partition = partition.and_then(|partition| u32::try_from(partition).ok());
                    partition == Some(self.partition) && index.is_some_and(|index| self.records.contains_key(&index))
                };
                long("index")?.iter().zip(partitions).map(|row| Some(own(row))).collect()
            }
            Table::Findings => {
                let own = |seq: i64| u64::try_from(seq).is_ok_and(|seq| self.findings.contains_key(&seq));
                long("seq")?.iter().map(|seq| Some(seq.is_some_and(own))).collect()
            }
            _ => {
                let own = |id: i64| self.deliveries.contains(&id);
                long("delivery_id")?.iter().map(|id| Some(id.is_some_and(own))).collect()
            }
        };
        Ok(rows)
    }

    /// The batch without the payload of these rows.
    fn without(&self, table: Table, batch: &RecordBatch, rows: &BooleanArray) -> Result<RecordBatch, ParquetError> {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns());
        let columns = columns.map(|(field, column)| self.column(table, field.name(), column, batch, rows));
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)?)
    }

    fn column(
        &self,
        table: Table,
        name: &str,
        column: &ArrayRef,
        batch: &RecordBatch,
        rows: &BooleanArray,
    ) -> Result<ArrayRef, ParquetError> {
        let texts = |of: &dyn Fn(usize) -> Option<String>| -> ArrayRef {
            let old = column.as_string_opt::<i32>();
            let kept = |row: usize| old.filter(|old| old.is_valid(row)).map(|old| old.value(row).to_owned());
            let value = |row| if rows.value(row) { of(row) } else { kept(row) };
            Arc::new((0..column.len()).map(value).collect::<StringArray>())
        };
        match (table, name) {
            (Table::Events, "redacted") => Ok(texts(&|_| Some(self.note.clone()))),
            (Table::Events, "leaf_hash") => {
                let old = column.as_binary_opt::<i32>();
                let indexes = batch.column_by_name("index").and_then(|column| column.as_primitive_opt::<Int64Type>());
                let hash = |row: usize| self.records.get(&u64::try_from(indexes?.value(row)).ok()?);
                let value = |row: usize| match hash(row).filter(|_| rows.value(row)) {
                    Some(hash) => Some(hash.as_slice()),
                    None => old.filter(|old| old.is_valid(row)).map(|old| old.value(row)),
                };
                Ok(Arc::new((0..column.len()).map(value).collect::<BinaryArray>()))
            }
            (Table::Events, name) if KEPT.contains(&name) => Ok(Arc::clone(column)),
            (Table::Events, _) => Ok(nullif(column, rows)?),
            (Table::Findings, "title" | "entity" | "json") => {
                let seqs = batch.column_by_name("seq").and_then(|column| column.as_primitive_opt::<Int64Type>());
                let finding = |row: usize| self.findings.get(&u64::try_from(seqs?.value(row)).ok()?);
                Ok(texts(&|row| {
                    let finding = finding(row)?;
                    match name {
                        "title" => Some(finding.title.clone()),
                        "entity" => finding.entities.first().cloned(),
                        _ => serde_json::to_string(finding).ok(),
                    }
                }))
            }
            (Table::Deliveries, "response_head") => Ok(nullif(column, rows)?),
            (Table::Deliveries, "error") => {
                let was = |row: usize| column.is_valid(row).then(|| self.note.clone());
                Ok(texts(&was))
            }
            _ => Ok(Arc::clone(column)),
        }
    }
}

/// Whether a file holds such a row.
fn holds(table: Table, path: &Path, redaction: &Redaction) -> Result<bool, ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), Redaction::naming(table).iter().copied());
    for batch in builder.with_projection(mask).build()? {
        if redaction.rows(table, &batch?)?.true_count() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A file that holds such rows.
struct Rewritten {
    /// It is not what was written: what was made of it would be, under a new name.
    is_damaged: bool,
    /// Bytes, rows and rows that lost their payload; `None` if they had none before.
    file: Option<(Vec<u8>, usize, u64)>,
}

/// The file without the payload of such rows; `None` if it holds none of them.
fn rewrite(table: Table, path: &Path, redaction: &Redaction) -> Result<Option<Rewritten>, ParquetError> {
    if !holds(table, path, redaction)? {
        return Ok(None);
    }
    if !check::is_as_named(path)? {
        return Ok(Some(Rewritten { is_damaged: true, file: None }));
    }
    let schema: SchemaRef = table.stored_schema();
    let mut file = ParquetFile::new(&schema, Effort::Kept)?;
    let (mut rows, mut redacted) = (0, 0);
    for batch in batches(path)? {
        let batch = under(&schema, &batch?)?;
        let mask = redaction.rows(table, &batch)?;
        let without = redaction.without(table, &batch, &mask)?;
        let changed = |row: &usize| mask.value(*row) && without.slice(*row, 1) != batch.slice(*row, 1);
        redacted += (0..batch.num_rows()).filter(changed).count() as u64;
        rows += batch.num_rows();
        file.write(&without)?;
    }
    let file = (redacted > 0).then(|| file.finish().map(|bytes| (bytes, rows, redacted))).transpose()?;
    Ok(Some(Rewritten { is_damaged: false, file }))
}
