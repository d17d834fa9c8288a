//! One Delta table of the lake: created, brought up to date, appended to with its position in the same commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use arrow_schema::{DataType, SchemaRef};
use deltalake::kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake::kernel::{Action, Add, Remove, StructField, Transaction};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTable, DeltaTableBuilder};
use engine::failpoint::Failpoint;
use engine::time::Timestamp;
use object_store::ObjectStoreExt;
use pipeproof_engine as engine;
use sha2::{Digest, Sha256};
use url::Url;

use super::columns::Table;
use super::durable::{DurableFileSystem, make_folder};
use super::{LakeError, PinnedTable, check, tip};

/// A Parquet file ready to be added.
pub(super) struct NewFile {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// Rows in it.
    pub(super) rows: usize,
    /// Smallest and largest value of the table's number column.
    pub(super) numbers: (u64, u64),
    /// Values of the partition columns, in their order.
    pub(super) partition: Vec<String>,
}

/// Why files give way to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replacing {
    /// It holds the same rows.
    Merging,
    /// Some of its rows have no payload any more.
    Redacting,
}

/// An open Delta table.
#[derive(Debug)]
pub(super) struct LakeTable {
    pub(super) table: Table,
    pub(super) folder: PathBuf,
    pub(super) delta: DeltaTable,
    /// Application transactions as far as they were asked for.
    transactions: HashMap<String, u64>,
    /// Data files that cannot be merged.
    pub(super) left_alone: BTreeSet<PathBuf>,
    /// Set when a commit failed: it may have landed or not, so the log is read again before the next.
    is_stale: bool,
    /// When files that nothing refers to were last removed by this process.
    pub(super) vacuumed: Option<Timestamp>,
    /// The version at which old ones are looked for next.
    pub(super) forget_at: u64,
    /// Versions that somebody in this process may hold, with what they hold.
    held: Vec<(u64, Weak<[PathBuf]>)>,
}

impl LakeTable {
    /// Opens the table in its folder under `lake`, creating it if it is not there.
    pub(super) async fn open(lake: &Path, table: Table) -> Result<Self, LakeError> {
        let (folder, builder) = builder(lake, table)?;
        let on_folder = |source| LakeError::Folder { path: folder.clone(), source };
        for torn in tip::move_torn_aside(&folder).map_err(on_folder)? {
            let path = torn.path.display().to_string();
            tracing::warn!(path, why = torn.why, "moved the torn end of a lake table aside: it is written again");
        }
        is_whole(&folder, table, u64::MAX)?;
        let delta = builder.build().map_err(LakeError::delta("open", table))?;
        let exists = delta.verify_deltatable_existence().await.map_err(LakeError::delta("open", table))?;
        let delta = if exists {
            let mut delta = delta;
            delta.load().await.map_err(LakeError::delta("open", table))?;
            delta
        } else {
            CreateBuilder::new()
                .with_log_store(delta.log_store())
                .with_table_name(table.name())
                .with_columns(delta_columns(table, &table.stored_schema())?)
                .with_partition_columns(table.partition_columns().iter().copied())
                .await
                .map_err(LakeError::delta("create", table))?
        };
        let transactions = HashMap::new();
        let mut this = Self {
            table,
            folder,
            delta,
            transactions,
            left_alone: BTreeSet::new(),
            is_stale: false,
            vacuumed: None,
            forget_at: 0,
            held: Vec::new(),
        };
        this.add_missing_columns().await?;
        check::note_commits(&this.folder).map_err(|source| LakeError::Folder { path: this.folder.clone(), source })?;
        Ok(this)
    }

    /// Adds the columns this version has and the table lacks. Columns that only the table has belong to a newer version.
    async fn add_missing_columns(&mut self) -> Result<(), LakeError> {
        let doing = LakeError::delta("read the schema of", self.table);
        let state = self.delta.snapshot().map_err(doing)?;
        let mut missing = Vec::new();
        let kernel = state.schema();
        for column in self.table.stored_schema().fields() {
            match kernel.field(column.name()) {
                None => missing.push(column.clone()),
                Some(field) => {
                    let found: DataType = field.data_type().try_into_arrow().map_err(|_| LakeError::Schema {
                        table: self.table.name(),
                        column: column.name().clone(),
                        why: "has a type this program does not know",
                    })?;
                    if found != *column.data_type() {
                        let column = column.name().clone();
                        return Err(LakeError::Schema { table: self.table.name(), column, why: "has another type" });
                    }
                }
            }
        }
        if let Some(newer) = kernel.fields().find(|field| self.table.stored_schema().index_of(field.name()).is_err()) {
            return Err(LakeError::Schema {
                table: self.table.name(),
                column: newer.name().clone(),
                why: "is unknown: a newer program made it",
            });
        }
        if missing.is_empty() {
            return Ok(());
        }
        let schema = Arc::new(arrow_schema::Schema::new(missing));
        let columns = delta_columns(self.table, &schema)?;
        tracing::info!(table = self.table.name(), columns = columns.len(), "adding columns to a lake table");
        self.delta = self
            .delta
            .clone()
            .add_columns()
            .with_fields(columns)
            .await
            .map_err(LakeError::delta("add columns to", self.table))?;
        Ok(())
    }

    /// Reads the table's log again if it may have changed without our knowing.
    pub(super) async fn refresh(&mut self) -> Result<(), LakeError> {
        if self.is_stale {
            self.delta.update_state().await.map_err(LakeError::delta("read", self.table))?;
            self.transactions.clear();
            self.is_stale = false;
        }
        Ok(())
    }

    /// Puts one file in the place of others, in one commit.
    pub(super) async fn replace(
        &mut self,
        version: u64,
        file: NewFile,
        others: Vec<Remove>,
        why: Replacing,
    ) -> Result<(), LakeError> {
        self.is_stale = true;
        let add = Add { data_change: why == Replacing::Redacting, ..self.write(version, 0, file).await? };
        Failpoint::CompactAfterPut.pass();
        let mut actions: Vec<Action> = others.into_iter().map(Action::Remove).collect();
        actions.push(Action::Add(add));
        let (operation, doing) = match why {
            Replacing::Merging => (DeltaOperation::Optimize { predicate: None, target_size: 0 }, "compact"),
            Replacing::Redacting => (DeltaOperation::Update { predicate: None }, "redact rows of"),
        };
        let state = self.delta.snapshot().map_err(LakeError::delta(doing, self.table))?;
        CommitBuilder::from(CommitProperties::default().with_cleanup_expired_logs(Some(false)))
            .with_actions(actions)
            .build(Some(state as &dyn TableReference), self.delta.log_store(), operation)
            .await
            .map_err(LakeError::delta(doing, self.table))?;
        Failpoint::CompactAfterCommit.pass();
        self.refresh().await?;
        self.note_commit();
        Ok(())
    }

    /// Keeps the digest of the last commit. A failure is made good at the next start.
    fn note_commit(&self) {
        let noted = self.delta.version().map_or(Ok(()), |version| check::note_commit(&self.folder, version));
        if let Err(error) = noted {
            tracing::warn!(%error, table = self.table.name(), "cannot keep the digest of a commit");
        }
    }

    /// The version of an application's last transaction; 0 if it has none.
    pub(super) async fn transaction(&mut self, application: &str) -> Result<u64, LakeError> {
        self.refresh().await?;
        if let Some(version) = self.transactions.get(application) {
            return Ok(*version);
        }
        let doing = || LakeError::delta("read the position of", self.table);
        let log = self.delta.log_store();
        let state = self.delta.snapshot().map_err(doing())?;
        let version = state.transaction_version(&log, application).await.map_err(doing())?;
        let version = version.and_then(|version| u64::try_from(version).ok()).unwrap_or(0);
        self.transactions.insert(application.to_owned(), version);
        Ok(version)
    }

    /// Writes the files, then commits them together with the application's new position.
    pub(super) async fn append(
        &mut self,
        application: &str,
        version: u64,
        files: Vec<NewFile>,
    ) -> Result<(), LakeError> {
        // Until the commit is known to have landed.
        self.is_stale = true;
        Failpoint::LakeBeforePut.pass();
        let mut actions = Vec::with_capacity(files.len());
        for (number, file) in files.into_iter().enumerate() {
            actions.push(Action::Add(self.write(version, number, file).await?));
        }
        Failpoint::LakeAfterPut.pass();
        #[cfg(test)]
        if let Some(error) = super::fail::between_write_and_commit() {
            return Err(error);
        }
        let position = i64::try_from(version).map_err(|_| LakeError::Position { table: self.table.name(), version })?;
        let properties = CommitProperties::default()
            .with_application_transaction(Transaction::new(application, position))
            // A pinned version stays readable; `history` decides about old ones.
            .with_cleanup_expired_logs(Some(false));
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(self.table.partition_columns().iter().map(|&name| name.to_owned()).collect()),
            predicate: None,
        };
        let state = self.delta.snapshot().map_err(LakeError::delta("append to", self.table))?;
        CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(state as &dyn TableReference), self.delta.log_store(), operation)
            .await
            .map_err(LakeError::delta("append to", self.table))?;
        Failpoint::LakeAfterCommit.pass();
        self.refresh().await?;
        self.transactions.insert(application.to_owned(), version);
        self.note_commit();
        Ok(())
    }

    async fn write(&self, version: u64, number: usize, file: NewFile) -> Result<Add, LakeError> {
        let folder: Vec<_> = file.partition.iter().map(|value| folder_name(value)).collect();
        let digest = hex::encode(Sha256::digest(&file.bytes).get(..6).unwrap_or_default());
        let path = format!("{}/{version:020}-{number}-{digest}.parquet", folder.join("/"));
        let size = i64::try_from(file.bytes.len()).unwrap_or(i64::MAX);
        let location = object_store::path::Path::from(path.as_str());
        let store = self.delta.object_store();
        store.put(&location, file.bytes.into()).await.map_err(|source| LakeError::Write {
            table: self.table.name(),
            path: path.clone(),
            source,
        })?;
        let modified = store.head(&location).await.map(|meta| meta.last_modified.timestamp_millis());
        let modified =
            modified.map_err(|source| LakeError::Write { table: self.table.name(), path: path.clone(), source })?;
        let column = self.table.number_column();
        let (least, most) = file.numbers;
        let stats = serde_json::json!({
            "numRecords": file.rows, "minValues": {column: least}, "maxValues": {column: most}, "nullCount": {column: 0},
        });
        let names = self.table.partition_columns().iter().map(|&name| name.to_owned());
        Ok(Add {
            path,
            partition_values: names.zip(file.partition.into_iter().map(Some)).collect(),
            size,
            modification_time: modified,
            data_change: true,
            stats: Some(stats.to_string()),
            ..Add::default()
        })
    }

    /// The table as it stands.
    pub(super) fn pinned(&mut self) -> Result<PinnedTable, LakeError> {
        let pinned = pinned(self.table, &self.folder, &self.delta)?;
        self.hold(&pinned);
        Ok(pinned)
    }

    /// What a version refers to stays as long as somebody has it.
    pub(super) fn hold(&mut self, pinned: &PinnedTable) {
        self.held.retain(|(_, files)| files.strong_count() > 0);
        self.held.push((pinned.version, Arc::downgrade(&pinned.files)));
    }

    /// The versions that somebody in this process has.
    pub(super) fn held(&self) -> Vec<u64> {
        let mut held: Vec<u64> =
            self.held.iter().filter(|(_, files)| files.strong_count() > 0).map(|(version, _)| *version).collect();
        held.sort_unstable();
        held.dedup();
        held
    }
}

/// Refuses a table of which something is damaged that is read for a version.
fn is_whole(folder: &Path, table: Table, version: u64) -> Result<(), LakeError> {
    match tip::damaged(folder, version).map_err(|source| LakeError::Folder { path: folder.to_owned(), source })? {
        Some(tip::Torn { path, why }) => Err(LakeError::Commit { table: table.name(), path, why }),
        None => Ok(()),
    }
}

/// The table as it stood at an earlier version.
pub(super) async fn at_version(lake: &Path, table: Table, version: u64) -> Result<PinnedTable, LakeError> {
    let (folder, builder) = builder(lake, table)?;
    is_whole(&folder, table, version)?;
    let delta = builder.with_version(version).load().await.map_err(LakeError::delta("open a version of", table))?;
    pinned(table, &folder, &delta)
}

/// The table as it stands, read without opening it for writing. Its folder must be there.
pub(super) async fn latest(lake: &Path, table: Table) -> Result<PinnedTable, LakeError> {
    let (folder, builder) = builder(lake, table)?;
    is_whole(&folder, table, u64::MAX)?;
    let delta = builder.load().await.map_err(LakeError::delta("open", table))?;
    pinned(table, &folder, &delta)
}

fn pinned(table: Table, folder: &Path, delta: &DeltaTable) -> Result<PinnedTable, LakeError> {
    let state = delta.snapshot().map_err(LakeError::delta("list the files of", table))?;
    let data = state.snapshot().try_log_data().map_err(LakeError::delta("list the files of", table))?;
    let mut files: Vec<(PathBuf, u64)> =
        data.iter().map(|file| (folder.join(file.path().as_ref()), least(table, file.stats().as_deref()))).collect();
    files.sort_unstable();
    let (files, least): (Vec<_>, Vec<_>) = files.into_iter().unzip();
    Ok(PinnedTable { version: state.version(), folder: folder.to_owned(), files: files.into(), least: least.into() })
}

/// Smallest value of the table's number column, as a file's statistics say; 0 where they do not.
pub(super) fn least(table: Table, stats: Option<&str>) -> u64 {
    let stats: serde_json::Value = stats.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    stats.get("minValues").and_then(|values| values.get(table.number_column())?.as_u64()).unwrap_or(0)
}

fn builder(lake: &Path, table: Table) -> Result<(PathBuf, DeltaTableBuilder), LakeError> {
    let folder = lake.join(table.name());
    let create = |source| LakeError::Folder { path: folder.clone(), source };
    make_folder(&folder).map_err(create)?;
    let folder = std::fs::canonicalize(&folder).map_err(create)?;
    let url = Url::from_directory_path(&folder).map_err(|()| LakeError::NoUrl { path: folder.clone() })?;
    let store = Arc::new(DurableFileSystem::default());
    let builder = DeltaTableBuilder::from_url(url.clone())
        .map_err(LakeError::delta("open", table))?
        .with_storage_backend(store, url);
    Ok((folder, builder))
}

fn delta_columns(table: Table, schema: &SchemaRef) -> Result<Vec<StructField>, LakeError> {
    let convert = |column: &arrow_schema::FieldRef| column.as_ref().try_into_kernel();
    schema
        .fields()
        .iter()
        .map(convert)
        .collect::<Result<_, _>>()
        .map_err(|source| LakeError::Batch { table: table.name(), source })
}

/// A folder for the files of a partition. Only its look depends on the value: readers take that from the files and the
/// table's log. No `NAME=VALUE`, so that nobody reads the value out of the path instead.
pub(super) fn folder_name(value: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !value.is_empty() && value.len() <= 80 && !value.starts_with(['.', '_']) && value.bytes().all(is_plain) {
        return value.to_owned();
    }
    format!("x-{}", hex::encode(Sha256::digest(value).get(..16).unwrap_or_default()))
}

/// An error unless the folders of the lake hold nothing but whole files: what a crash left staged is removed.
pub(super) fn remove_staged(folder: &Path) -> std::io::Result<u64> {
    let mut removed = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == super::durable::STAGED) {
                std::fs::remove_file(&path)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// Rows grouped by the values of the table's partition columns.
pub(super) fn group<'a, R>(rows: &'a [R], values: impl Fn(&R) -> Vec<String>) -> BTreeMap<Vec<String>, Vec<&'a R>> {
    let mut groups: BTreeMap<Vec<String>, Vec<&'a R>> = BTreeMap::new();
    for row in rows {
        groups.entry(values(row)).or_default().push(row);
    }
    groups
}
