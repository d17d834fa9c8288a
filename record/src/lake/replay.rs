//! Reading the lake back as a log: every record in the order of its index, and every finding in the order of its number.
//!
//! A file is opened when the smallest index in it is due, so as many are open as overlap: about one a source, however large the
//! lake is.
//! Everything here blocks: call it from a thread that may.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use engine::finding::Finding;
use engine::record::{Record, RecordError};
use engine::time::Timestamp;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use pipeproof_engine as engine;

use super::body::{cut_columns, whole_body};
use super::columns::Table;
use super::delta::folder_name;
use super::events::whole_envelope;
use super::parquet_file::batch_rows;
use super::{LakeError, Snapshot, delta};

/// What a record is made of, beside the values that its body leaves out.
const RECORD: &[&str] = &["partition", "index", "envelope", "salt", "body", "item_at", "packed"];
/// Rows read from one file at once: bodies may have up to 1 MiB each.
const ROWS: usize = 256;

/// A record as the lake keeps it.
#[derive(Clone, Debug)]
pub struct StoredRecord {
    /// Index in its partition.
    pub index: u64,
    /// The envelope's exact JSON text.
    pub envelope: String,
    /// The leaf's salt.
    pub salt: [u8; 16],
    /// The redacted body.
    pub body: Bytes,
}

impl StoredRecord {
    /// The record it is.
    ///
    /// # Errors
    /// [`RecordError::Envelope`] for an envelope this version does not know.
    pub fn decode(self) -> Result<Record, RecordError> {
        let envelope = serde_json::from_str(&self.envelope).map_err(RecordError::Envelope)?;
        Ok(Record { envelope, salt: self.salt, body: self.body })
    }
}

/// What to leave out of a replay.
#[derive(Clone, Debug, Default)]
pub struct Skip {
    /// Records received on days before this one's, except those of `kept`.
    pub before: Option<Timestamp>,
    /// Source whose records are read from the beginning all the same.
    pub kept: Option<String>,
}

/// Which records are wanted. Whole files are left out by it; those that are read may hold others.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Received from here on …
    pub from: Timestamp,
    /// … and before this.
    pub to: Timestamp,
    /// Of one source.
    pub source: Option<String>,
}

impl Snapshot {
    /// Index after the last record of the lake, as far as file names say; 0 for an empty one.
    #[must_use]
    pub fn records_end(&self) -> u64 {
        self.files(Table::Events).iter().filter_map(|path| append_of(path)).max().unwrap_or(0)
    }

    /// Every record of a partition that is no repetition, in the order of the log.
    ///
    /// # Errors
    /// [`LakeError::Name`] for a file that no version of this program wrote.
    pub fn records(&self, partition: u32, skip: &Skip) -> Result<Records, LakeError> {
        self.records_in(partition, |path| !skip.leaves_out(path))
    }

    /// The records of one source from an index on, in the order of the log. Files of other sources are not opened, nor those that hold
    /// earlier records alone.
    ///
    /// # Errors
    /// [`LakeError::Name`] for a file that no version of this program wrote.
    pub fn records_from(
        &self,
        partition: u32,
        source: &str,
        from: u64,
    ) -> Result<impl Iterator<Item = Result<StoredRecord, LakeError>> + use<>, LakeError> {
        let folder = folder_name(source);
        let is_read =
            |path: &Path| folders(path).1 == Some(folder.as_str()) && append_of(path).is_none_or(|end| end > from);
        let records = self.records_in(partition, is_read)?;
        Ok(records.filter(move |record| record.as_ref().map_or(true, |record| record.index >= from)))
    }

    /// The records of a partition in the files that may hold what is wanted, in the order of the log.
    ///
    /// # Errors
    /// [`LakeError::Name`] for a file that no version of this program wrote.
    pub fn records_of(&self, partition: u32, wanted: &Choice) -> Result<Records, LakeError> {
        self.records_in(partition, |path| wanted.may_hold(path))
    }

    fn records_in(&self, partition: u32, is_read: impl Fn(&Path) -> bool) -> Result<Records, LakeError> {
        let mut files: Vec<_> = self.in_order(Table::Events)?;
        files.retain(|(_, path)| is_read(path));
        Ok(Records {
            partition: i32::try_from(partition).unwrap_or(i32::MAX),
            files: files.into(),
            open: Vec::new(),
            _held: self.clone(),
        })
    }

    /// Every finding, in the order they were committed.
    ///
    /// # Errors
    /// [`LakeError::Name`] for a file that no version of this program wrote.
    pub fn findings(&self) -> Result<Findings, LakeError> {
        let files = self.in_order(Table::Findings)?;
        Ok(Findings {
            files: files.into_iter().map(|(_, path)| path).collect(),
            open: None,
            ready: VecDeque::new(),
            _held: self.clone(),
        })
    }

    /// Files by the smallest number in them.
    fn in_order(&self, table: Table) -> Result<Vec<(u64, PathBuf)>, LakeError> {
        let Some(pinned) = self.tables.get(&table) else { return Ok(Vec::new()) };
        if let Some(path) = pinned.files.iter().find(|path| append_of(path).is_none()) {
            return Err(LakeError::Name { path: path.clone() });
        }
        let mut files: Vec<_> = pinned.least.iter().copied().zip(pinned.files.iter().cloned()).collect();
        files.sort_unstable();
        Ok(files)
    }

    /// The lake in `folder` as it stands, without changing anything in it: no table is created, no column added, nothing
    /// that a crash left is removed. Tables that are not there are empty.
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn read_only(folder: &Path) -> Result<Self, LakeError> {
        let on_folder = |source| LakeError::Folder { path: folder.to_owned(), source };
        let folder = std::fs::canonicalize(folder).map_err(on_folder)?;
        let mut snapshot = Self::default();
        for &table in Table::ALL {
            if folder.join(table.name()).join("_delta_log").is_dir() {
                snapshot.tables.insert(table, delta::latest(&folder, table).await?);
            }
        }
        Ok(snapshot)
    }
}

impl Skip {
    fn leaves_out(&self, path: &Path) -> bool {
        let Some(before) = self.before else { return false };
        let (date, source) = folders(path);
        date.is_some_and(|date| date < before.date().as_str()) && source != self.kept.as_deref()
    }
}

impl Choice {
    fn may_hold(&self, path: &Path) -> bool {
        let (date, source) = folders(path);
        let wanted = self.source.as_deref().map(folder_name);
        date.is_none_or(|date| date >= self.from.date().as_str() && date <= self.to.date().as_str())
            && (wanted.is_none() || source == wanted.as_deref())
    }
}

/// Files lie under `DATE/SOURCE/`.
fn folders(path: &Path) -> (Option<&str>, Option<&str>) {
    let source = path.parent();
    let date = source.and_then(Path::parent);
    (date.and_then(Path::file_name).and_then(OsStr::to_str), source.and_then(Path::file_name).and_then(OsStr::to_str))
}

/// The position an append moved its table to, by which its files are named.
pub(super) fn append_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
}

/// Records in the order of the log.
#[derive(Debug)]
pub struct Records {
    partition: i32,
    /// Files still to be read, by the smallest index in them.
    files: VecDeque<(u64, PathBuf)>,
    /// The files being read. Within a file, records are in the order of the log.
    open: Vec<Cursor>,
    /// Files stay while somebody reads them.
    _held: Snapshot,
}

impl Records {
    fn next_record(&mut self) -> Result<Option<StoredRecord>, LakeError> {
        loop {
            let next = |cursor: &Cursor| cursor.next.as_ref().map(|next| next.index);
            let first = self.open.iter().enumerate().min_by_key(|(_, cursor)| next(cursor));
            let first = first.and_then(|(at, cursor)| Some((at, next(cursor)?)));
            // A file that may hold an earlier record is opened first.
            let due = |(least, _): &mut (u64, PathBuf)| first.is_none_or(|(_, index)| *least <= index);
            if let Some((_, path)) = self.files.pop_front_if(due) {
                let cursor = Cursor::open(&path, self.partition)?;
                if cursor.next.is_some() {
                    self.open.push(cursor);
                }
                continue;
            }
            let Some(cursor) = first.and_then(|(at, _)| self.open.get_mut(at)) else { return Ok(None) };
            let record = cursor.take()?;
            if cursor.next.is_none() {
                self.open.retain(|cursor| cursor.next.is_some());
            }
            return Ok(record);
        }
    }
}

impl Iterator for Records {
    type Item = Result<StoredRecord, LakeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().transpose()
    }
}

/// One open file of `events`.
#[derive(Debug)]
struct Cursor {
    path: PathBuf,
    partition: i32,
    reader: ParquetRecordBatchReader,
    batch: Option<RecordBatch>,
    row: usize,
    next: Option<StoredRecord>,
}

impl Cursor {
    fn open(path: &Path, partition: i32) -> Result<Self, LakeError> {
        let columns: Vec<String> = RECORD.iter().map(|name| (*name).to_owned()).chain(cut_columns()).collect();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let reader = reader(path, Table::Events, &columns)?;
        let mut cursor = Self { path: path.to_owned(), partition, reader, batch: None, row: 0, next: None };
        cursor.next = cursor.read()?;
        Ok(cursor)
    }

    fn take(&mut self) -> Result<Option<StoredRecord>, LakeError> {
        let next = self.read()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    fn read(&mut self) -> Result<Option<StoredRecord>, LakeError> {
        loop {
            let Some(batch) = self.batch.as_ref().filter(|batch| self.row < batch.num_rows()) else {
                match self.reader.next() {
                    None => return Ok(None),
                    Some(batch) => self.batch = Some(batch.map_err(|source| unreadable(&self.path, source.into()))?),
                }
                self.row = 0;
                continue;
            };
            let row = self.row;
            self.row += 1;
            // Further events of a record repeat nothing of it.
            if let Some(record) = stored(batch, row, self.partition).map_err(|source| unreadable(&self.path, source))? {
                return Ok(Some(record));
            }
        }
    }
}

fn stored(batch: &RecordBatch, row: usize, partition: i32) -> Result<Option<StoredRecord>, ParquetError> {
    let missing = || ParquetError::General("a column of `events` is missing or has another type".to_owned());
    let column = |name: &str| batch.column_by_name(name).ok_or_else(missing);
    let partitions = column("partition")?.as_primitive_opt::<Int32Type>().ok_or_else(missing)?;
    let indexes = column("index")?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
    let items = column("item")?.as_string_opt::<i32>().ok_or_else(missing)?;
    let envelopes = column("envelope")?.as_string_opt::<i32>().ok_or_else(missing)?;
    let salts = column("salt")?.as_binary_opt::<i32>().ok_or_else(missing)?;
    let bodies = column("body")?.as_binary_opt::<i32>().ok_or_else(missing)?;
    // Files of earlier versions may lack them.
    let packed = batch.column_by_name("packed").and_then(|column| column.as_binary_opt::<i32>());
    let packed = packed.filter(|column| column.is_valid(row)).map(|column| column.value(row));
    let item_at = batch.column_by_name("item_at").and_then(|column| column.as_primitive_opt::<Int32Type>());
    let item_at = item_at.filter(|column| column.is_valid(row)).map(|column| column.value(row));
    let cut: Vec<String> = cut_columns().collect();
    let value = |number: usize| {
        let column = batch.column_by_name(cut.get(number)?)?.as_string_opt::<i32>()?;
        column.is_valid(row).then(|| column.value(row))
    };
    if partitions.value(row) != partition || envelopes.is_null(row) {
        return Ok(None);
    }
    let salt: [u8; 16] =
        salts.value(row).try_into().map_err(|_| ParquetError::General("a salt is not 16 bytes".to_owned()))?;
    Ok(Some(StoredRecord {
        index: u64::try_from(indexes.value(row)).unwrap_or(0),
        envelope: whole_envelope(envelopes.value(row), items.value(row)),
        salt,
        body: Bytes::from(whole_body(bodies.value(row), packed, item_at, value).into_owned()),
    }))
}

/// Findings in the order they were committed.
#[derive(Debug)]
pub struct Findings {
    files: VecDeque<PathBuf>,
    open: Option<(PathBuf, ParquetRecordBatchReader)>,
    ready: VecDeque<Finding>,
    /// Files stay while somebody reads them.
    _held: Snapshot,
}

impl Findings {
    fn next_finding(&mut self) -> Result<Option<Finding>, LakeError> {
        loop {
            if let Some(finding) = self.ready.pop_front() {
                return Ok(Some(finding));
            }
            let Some((path, reader)) = &mut self.open else {
                let Some(path) = self.files.pop_front() else { return Ok(None) };
                let reader = reader(&path, Table::Findings, &["json"])?;
                self.open = Some((path, reader));
                continue;
            };
            match reader.next() {
                None => self.open = None,
                Some(batch) => {
                    let batch = batch.map_err(|source| unreadable(path, source.into()))?;
                    let texts = batch.column(0).as_string_opt::<i32>();
                    for text in texts.into_iter().flatten().flatten() {
                        let finding = serde_json::from_str(text)
                            .map_err(|error| unreadable(path, ParquetError::External(Box::new(error))))?;
                        self.ready.push_back(finding);
                    }
                }
            }
        }
    }
}

impl Iterator for Findings {
    type Item = Result<Finding, LakeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_finding().transpose()
    }
}

/// Columns that files of earlier versions lack.
const LATER: &[&str] = &["item_at", "packed"];

fn reader(path: &Path, table: Table, columns: &[&str]) -> Result<ParquetRecordBatchReader, LakeError> {
    let file = File::open(path).map_err(|source| LakeError::Folder { path: path.to_owned(), source })?;
    let fail = |source| unreadable(path, source);
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(fail)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    let has = |name: &str| builder.schema().column_with_name(name).is_some();
    if !columns.iter().all(|name| has(name) || LATER.contains(name)) {
        return Err(LakeError::Schema { table: table.name(), column: columns.join(", "), why: "is missing in a file" });
    }
    let rows = ROWS.min(batch_rows(builder.metadata()));
    builder.with_projection(mask).with_batch_size(rows).build().map_err(fail)
}

fn unreadable(path: &Path, source: ParquetError) -> LakeError {
    LakeError::Read { path: path.to_owned(), source }
}
