//! The lake: every record and everything decided about it, as Delta tables on local disk that anyone can open.
//!
//! An append carries its position in the same commit (Delta `txn`), so repeating it changes nothing: the archive is
//! exactly-once against the log. Rows are only ever added. Reading is through a [`Snapshot`]: the list of files of every
//! table at one moment, which no later append changes.

mod body;
mod cells;
mod check;
mod columns;
mod compact;
mod delta;
mod durable;
mod events;
mod feeds;
mod history;
mod known;
mod lapse;
mod parquet_file;
mod redact;
mod replay;
mod tip;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arrow_schema::ArrowError;
use deltalake::DeltaTableError;
use engine::time::Timestamp;
use parquet::errors::ParquetError;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use self::delta::{LakeTable, NewFile, group};
use self::history::KEPT_VERSIONS;
use self::lapse::Lapse;
use crate::store::{DeliveryChange, SqliteStore, StoreError, StoredFinding, StoredStep, StoredWindow};

pub(crate) use body::{cut_columns, whole_body};
pub use check::Damage;
pub use columns::{Table, field_column};
pub use durable::DurableFileSystem;
pub(crate) use events::NO_ITEM;
pub(crate) use events::batch as events_batch;
pub use events::{EventRow, LeafColumns, event_rows, whole_envelope};
pub use feeds::CheckpointRow;
pub(crate) use feeds::FeedRow;
pub use parquet_file::parquet_bytes;
pub use redact::{Redacted, RedactedRecord, Redaction};
pub use replay::{Choice, Findings, Records, Skip, StoredRecord};

/// Rows of a feed that are copied in one commit.
const FEED_ROWS: usize = 2_000;

/// Why the lake could not do something.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// A folder cannot be made or read.
    #[error("cannot use the lake's folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A folder's path has no form as a URL.
    #[error("the lake's folder {} is not an absolute path", path.display())]
    NoUrl {
        /// Which.
        path: PathBuf,
    },
    /// Delta refused or failed.
    #[error("cannot {doing} the lake table `{table}`")]
    Delta {
        /// What was attempted.
        doing: &'static str,
        /// On which table.
        table: &'static str,
        /// Why.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// A commit further up than the last one, or a checkpoint that cannot be done without, is not what was written. Nothing was touched.
    #[error("{} of the log of the lake table `{table}` is damaged: {why}; restore it from a backup", path.display())]
    Commit {
        /// Which table.
        table: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A data file cannot be written.
    #[error("cannot write {path} of the lake table `{table}`")]
    Write {
        /// Which table.
        table: &'static str,
        /// File, relative to the table.
        path: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// Rows do not fit the table's columns.
    #[error("cannot write rows of the lake table `{table}` as columns")]
    Batch {
        /// Which table.
        table: &'static str,
        /// Why.
        #[source]
        source: ArrowError,
    },
    /// A batch cannot be written as Parquet.
    #[error("cannot write rows of the lake table `{table}` as Parquet")]
    Parquet {
        /// Which table.
        table: &'static str,
        /// Why.
        #[source]
        source: ParquetError,
    },
    /// A data file cannot be read.
    #[error("cannot read {} of the lake", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: ParquetError,
    },
    /// A data file is not what was written: nothing is made of it.
    #[error("{} of the lake is damaged: its content is not what its name says; restore it from a backup", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// A data file is not named by the position its append moved to.
    #[error("{} is not named as a file of the lake", path.display())]
    Name {
        /// Which.
        path: PathBuf,
    },
    /// The table on disk has other columns than this program.
    #[error("column `{column}` of the lake table `{table}` {why}")]
    Schema {
        /// Which table.
        table: &'static str,
        /// Which column.
        column: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An append would leave records out.
    #[error("refused to archive partition {partition} from {from}: the lake stands at {archived}")]
    Gap {
        /// Log partition.
        partition: u32,
        /// Where the append starts.
        from: u64,
        /// Where the lake stands.
        archived: u64,
    },
    /// A row lies outside the range its append is for.
    #[error("refused to archive record {index} of partition {partition} in an append of {from}..{to}")]
    Outside {
        /// Log partition of the append.
        partition: u32,
        /// Index of the row.
        index: u64,
        /// Start of the append.
        from: u64,
        /// End of the append.
        to: u64,
    },
    /// A position that Delta cannot hold.
    #[error("position {version} of the lake table `{table}` is larger than 2^63-1")]
    Position {
        /// Which table.
        table: &'static str,
        /// The position.
        version: u64,
    },
    /// The feed that is copied cannot be read.
    #[error("cannot read a feed of the store for the lake")]
    Feed(#[from] StoreError),
}

impl LakeError {
    fn delta(doing: &'static str, table: Table) -> impl FnOnce(DeltaTableError) -> Self {
        move |source| Self::Delta { doing, table: table.name(), source: Box::new(source) }
    }
}

/// Versions of the lake's tables: names a [`Snapshot`] exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Versions(pub BTreeMap<String, u64>);

/// One table at one moment.
#[derive(Clone, Debug)]
struct PinnedTable {
    version: u64,
    folder: PathBuf,
    files: Arc<[PathBuf]>,
    /// For each file the smallest value of the table's number column.
    least: Arc<[u64]>,
}

/// The lake at one moment. Cheap to clone; appends after it do not change it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    tables: BTreeMap<Table, PinnedTable>,
}

impl Snapshot {
    /// Its name.
    #[must_use]
    pub fn versions(&self) -> Versions {
        Versions(self.tables.iter().map(|(table, pinned)| (table.name().to_owned(), pinned.version)).collect())
    }

    /// The Parquet files of a table.
    #[must_use]
    pub fn files(&self, table: Table) -> &[PathBuf] {
        self.tables.get(&table).map_or(&[], |pinned| &pinned.files)
    }
}

/// The lake. Clones share it.
#[derive(Clone, Debug)]
pub struct Lake {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    /// One writer at a time per table, in the order of [`Table::ALL`].
    tables: Vec<Mutex<LakeTable>>,
    snapshot: RwLock<Snapshot>,
    lapse: Mutex<Lapse>,
}

impl Lake {
    /// Opens the lake in `folder`, creating its tables where they are not there. The caller holds the lock of the data
    /// folder: nobody else writes.
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn open(folder: &Path) -> Result<Self, LakeError> {
        let on_folder = |source| LakeError::Folder { path: folder.to_owned(), source };
        durable::make_folder(folder).map_err(on_folder)?;
        let folder = std::fs::canonicalize(folder).map_err(on_folder)?;
        let removed = delta::remove_staged(&folder).map_err(on_folder)?;
        if removed > 0 {
            tracing::info!(removed, "removed files of the lake that a crash had left unfinished");
        }
        let mut tables = Vec::new();
        let mut snapshot = Snapshot::default();
        for &table in Table::ALL {
            let mut open = LakeTable::open(&folder, table).await?;
            snapshot.tables.insert(table, open.pinned()?);
            tables.push(Mutex::new(open));
        }
        let lapse = Mutex::new(Lapse::load(&folder));
        let shared = Shared { folder, tables, snapshot: RwLock::new(snapshot), lapse };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where the lake is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// The lake as it stands now.
    #[must_use]
    pub fn pin(&self) -> Snapshot {
        self.shared.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lake as it stood at these versions; tables that are not named are empty.
    ///
    /// # Errors
    /// [`LakeError::Delta`] if there is no such version.
    pub async fn pin_at(&self, versions: &Versions) -> Result<Snapshot, LakeError> {
        let mut snapshot = Snapshot::default();
        for &table in Table::ALL {
            if let Some(&version) = versions.0.get(table.name()) {
                // Held before anybody can remove what it refers to.
                let mut open = self.table(table)?.lock().await;
                let pinned = delta::at_version(&self.shared.folder, table, version).await?;
                open.hold(&pinned);
                snapshot.tables.insert(table, pinned);
            }
        }
        Ok(snapshot)
    }

    /// Index of the first record of a partition that is not in the lake.
    ///
    /// # Errors
    /// [`LakeError::Delta`].
    pub async fn archived(&self, partition: u32) -> Result<u64, LakeError> {
        self.table(Table::Events)?.lock().await.transaction(&events_application(partition)).await
    }

    /// Number of the last row of a feed that is in the lake; 0 if none is.
    ///
    /// # Errors
    /// [`LakeError::Delta`].
    pub async fn fed(&self, table: Table) -> Result<u64, LakeError> {
        self.table(table)?.lock().await.transaction(&feed_application(table)).await
    }

    /// Adds the rows of the records `from..to` of a partition (repetitions left out) and moves its position to `to`, in one
    /// commit. What is already there is skipped, so an append may be repeated, also with other bounds. Returns where the
    /// lake stands.
    ///
    /// # Errors
    /// [`LakeError::Gap`] if records before `from` are missing; [`LakeError::Outside`] for a row outside the range. After
    /// any error the append may be repeated.
    pub async fn append_events(
        &self,
        partition: u32,
        from: u64,
        to: u64,
        rows: Vec<EventRow>,
    ) -> Result<u64, LakeError> {
        let outside = |row: &&EventRow| {
            let position = row.id.position;
            position.partition != partition || position.index < from || position.index >= to
        };
        if let Some(row) = rows.iter().find(outside) {
            return Err(LakeError::Outside { partition, index: row.id.position.index, from, to });
        }
        let application = events_application(partition);
        let mut table = self.table(Table::Events)?.lock().await;
        let archived = table.transaction(&application).await?;
        if archived >= to {
            return Ok(archived);
        }
        if archived < from {
            return Err(LakeError::Gap { partition, from, archived });
        }
        let rows: Vec<_> = rows.into_iter().filter(|row| row.id.position.index >= archived).collect();
        let encode = move || -> Result<Vec<NewFile>, LakeError> {
            let groups = group(&rows, |row| vec![row.received.date(), row.source.to_string()]);
            groups
                .into_iter()
                .map(|(partition, rows)| {
                    let batch = events::batch(&rows).map_err(on_batch(Table::Events))?;
                    let numbers = rows.iter().map(|row| row.id.position.index);
                    new_file(Table::Events, partition, batch, span(numbers))
                })
                .collect()
        };
        let files = encoded(Table::Events, encode).await?;
        table.append(&application, to, files).await?;
        self.publish(Table::Events, &mut table)?;
        Ok(to)
    }

    /// Adds findings of the store's feed. Rows already there are skipped.
    ///
    /// # Errors
    /// [`LakeError`]; the append may be repeated.
    pub async fn append_findings(&self, rows: Vec<StoredFinding>) -> Result<u64, LakeError> {
        self.append_feed(rows).await
    }

    /// Adds incident steps of the store's feed. Rows already there are skipped.
    ///
    /// # Errors
    /// [`LakeError`]; the append may be repeated.
    pub async fn append_steps(&self, rows: Vec<StoredStep>) -> Result<u64, LakeError> {
        self.append_feed(rows).await
    }

    /// Adds changes of deliveries of the store's feed. Rows already there are skipped.
    ///
    /// # Errors
    /// [`LakeError`]; the append may be repeated.
    pub async fn append_deliveries(&self, rows: Vec<DeliveryChange>) -> Result<u64, LakeError> {
        self.append_feed(rows).await
    }

    /// Adds versions of source windows of the store's feed. Rows already there are skipped.
    ///
    /// # Errors
    /// [`LakeError`]; the append may be repeated.
    pub async fn append_windows(&self, rows: Vec<StoredWindow>) -> Result<u64, LakeError> {
        self.append_feed(rows).await
    }

    /// Adds signed checkpoints. Rows already there are skipped.
    ///
    /// # Errors
    /// [`LakeError`]; the append may be repeated.
    pub async fn append_checkpoints(&self, rows: Vec<CheckpointRow>) -> Result<u64, LakeError> {
        self.append_feed(rows).await
    }

    /// Copies what the store's feeds have and the lake lacks: findings, incident steps, deliveries, source windows. Returns
    /// how many rows that were.
    ///
    /// # Errors
    /// [`LakeError`]; what was copied before it stays.
    pub async fn follow(&self, store: &SqliteStore) -> Result<u64, LakeError> {
        let mut copied = 0;
        macro_rules! copy {
            ($table:expr, $read:ident) => {
                loop {
                    let rows = store.$read(self.fed($table).await?, FEED_ROWS).await?;
                    let count = rows.len();
                    if count > 0 {
                        self.append_feed(rows).await?;
                        copied += count as u64;
                    }
                    if count < FEED_ROWS {
                        break;
                    }
                }
            };
        }
        copy!(Table::Findings, findings_after);
        copy!(Table::IncidentSteps, steps_after);
        copy!(Table::Deliveries, deliveries_after);
        copy!(Table::SourceWindows, windows_after);
        Ok(copied)
    }

    /// Merges small files of each table, and once an hour removes what no version of the day before `now` refers to. Versions that are
    /// pinned meanwhile stay readable, and appends do not wait. `awake` is how long this
    /// process has run, by a clock that nobody sets: a day is not over because the other one was put forward. Merged files are made on
    /// `calm`, threads that make way for others. Returns how many files were merged. May be dropped at any time.
    ///
    /// # Errors
    /// [`LakeError`]; what was done before it stays.
    pub async fn tidy(&self, now: Timestamp, awake: Duration, calm: &Handle) -> Result<usize, LakeError> {
        let now = self.shared.lapse.lock().await.until(now, awake);
        let mut merged = 0;
        for &table in Table::ALL {
            let next = self.table(table)?.lock().await.next_merge().await?;
            let made = match next {
                Some(merge) => Some(merge.merged(calm).await.map(|(bytes, rows)| (merge, bytes, rows))),
                None => None,
            };
            let mut open = self.table(table)?.lock().await;
            let count = match made.transpose() {
                Ok(Some((merge, bytes, rows))) => open.commit_merge(merge, bytes, rows).await?,
                Ok(None) => 0,
                Err(error) => {
                    open.leave_alone(&error);
                    return Err(error);
                }
            };
            if open.vacuum(now).await? || count > 0 {
                self.publish(table, &mut open)?;
            }
            merged += count;
        }
        Ok(merged)
    }

    /// Forgets the commits of old versions that nobody here holds. Whoever copies the lake meanwhile would miss some of what it listed.
    ///
    /// # Errors
    /// [`LakeError::Folder`]; what was forgotten before it stays so.
    pub async fn forget_versions(&self) -> Result<(), LakeError> {
        for &table in Table::ALL {
            let forgotten = self.table(table)?.lock().await.forget_versions(KEPT_VERSIONS).await?;
            if forgotten > 0 {
                tracing::debug!(table = table.name(), files = forgotten, "removed commits of old versions");
            }
        }
        Ok(())
    }

    async fn append_feed<R: FeedRow + Send + 'static>(&self, rows: Vec<R>) -> Result<u64, LakeError> {
        let application = feed_application(R::TABLE);
        let mut table = self.table(R::TABLE)?.lock().await;
        let fed = table.transaction(&application).await?;
        let rows: Vec<R> = rows.into_iter().filter(|row| row.seq() > fed).collect();
        let Some(last) = rows.iter().map(R::seq).max() else { return Ok(fed) };
        let encode = move || -> Result<Vec<NewFile>, LakeError> {
            group(&rows, |row| vec![row.filed().date()])
                .into_iter()
                .map(|(partition, rows)| {
                    let batch = R::batch(&rows).map_err(on_batch(R::TABLE))?;
                    new_file(R::TABLE, partition, batch, span(rows.iter().map(|row| row.seq())))
                })
                .collect()
        };
        let files = encoded(R::TABLE, encode).await?;
        table.append(&application, last, files).await?;
        self.publish(R::TABLE, &mut table)?;
        Ok(last)
    }

    fn table(&self, table: Table) -> Result<&Mutex<LakeTable>, LakeError> {
        // One per row of `Table::ALL`, made by `open`.
        self.shared.tables.get(table as usize).ok_or(LakeError::Schema {
            table: table.name(),
            column: String::new(),
            why: "is not open",
        })
    }

    fn publish(&self, table: Table, open: &mut LakeTable) -> Result<(), LakeError> {
        let pinned = open.pinned()?;
        self.shared.snapshot.write().unwrap_or_else(PoisonError::into_inner).tables.insert(table, pinned);
        Ok(())
    }
}

fn events_application(partition: u32) -> String {
    format!("pipeproof.archive.{partition}")
}

fn feed_application(table: Table) -> String {
    format!("pipeproof.feed.{}", table.name())
}

fn on_batch(table: Table) -> impl FnOnce(ArrowError) -> LakeError {
    move |source| LakeError::Batch { table: table.name(), source }
}

fn new_file(
    table: Table,
    partition: Vec<String>,
    batch: arrow_array::RecordBatch,
    numbers: (u64, u64),
) -> Result<NewFile, LakeError> {
    let rows = batch.num_rows();
    let bytes = parquet_bytes(&table.stored_schema(), &[batch])
        .map_err(|source| LakeError::Parquet { table: table.name(), source })?;
    Ok(NewFile { bytes, rows, numbers, partition })
}

fn span(numbers: impl Iterator<Item = u64>) -> (u64, u64) {
    numbers.fold((u64::MAX, 0), |(least, most), number| (least.min(number), most.max(number)))
}

/// Encoding and compressing is work for a thread that may block.
async fn encoded(
    table: Table,
    encode: impl FnOnce() -> Result<Vec<NewFile>, LakeError> + Send + 'static,
) -> Result<Vec<NewFile>, LakeError> {
    tokio::task::spawn_blocking(encode)
        .await
        .map_err(|error| LakeError::Batch { table: table.name(), source: ArrowError::ExternalError(Box::new(error)) })?
}

/// Lets a test stop an append between writing its files and committing them, as a crash would.
#[cfg(test)]
mod fail {
    use std::cell::Cell;

    thread_local! {
        static NEXT: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn next_commit() {
        NEXT.set(true);
    }

    pub(super) fn between_write_and_commit() -> Option<super::LakeError> {
        NEXT.take().then(|| super::LakeError::Position { table: "events", version: 0 })
    }
}

#[cfg(test)]
pub(crate) mod tests;
