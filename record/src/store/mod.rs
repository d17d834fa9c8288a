//! The store: what detection decided and what became of it, in one SQLite database.
//!
//! All writes go through one connection; a commit of detection is one transaction. Readers have a small pool of their own
//! and see whole commits only. It is not the archive: events live in the [lake](crate::lake).

mod bloom_filter;
mod body;
mod checksum;
mod commit;
mod coverage;
mod deliveries;
mod excepted;
mod findings;
mod items;
mod ledger;
mod redact;
mod schema;
mod upkeep;
mod wal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::clock::Clock;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, SqlitePool};
use tokio::sync::{Mutex, MutexGuard};

pub use coverage::{ForgottenDuplicates, StoredDeadLetter, StoredWindow};
pub use deliveries::{Attempt, AttemptOutcome, Delivery, DeliveryChange, DeliveryFilter, DeliveryState, Due, Waiting};
pub use excepted::StoredExcepted;
pub use findings::{FindingFilter, IncidentFilter, StoredFinding, StoredIncident, StoredMessage, StoredStep};
pub use ledger::{Counts, Pack, RuleText};
pub use redact::StoreRedaction;
pub use schema::SCHEMA_VERSION;

pub(crate) use findings::state_name;

/// How long a statement waits for a lock that another process holds before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that only read.
const READERS: u32 = 4;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened.
    #[error("cannot open the store {}", path.display())]
    Open {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A newer program wrote the database.
    #[error(
        "the store {} has schema version {found}, this program knows versions up to {known}; use the newer program",
        path.display()
    )]
    Newer {
        /// Its file.
        path: PathBuf,
        /// Version in the file.
        found: i64,
        /// Version this program writes.
        known: i64,
    },
    /// The file is a database, but not one of ours.
    #[error("{} is a database of another program; nothing was changed in it", path.display())]
    Foreign {
        /// Its file.
        path: PathBuf,
    },
    /// The database refused or failed a statement.
    #[error("the store failed to {doing}")]
    Database {
        /// What was attempted.
        doing: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A commit does not continue where the store stands.
    #[error("refused a commit of partition {partition} from {from}: the store stands at {stands}")]
    Position {
        /// Log partition.
        partition: u32,
        /// Where the commit starts.
        from: u64,
        /// Where the store stands.
        stands: u64,
    },
    /// A commit or snapshot contradicts itself.
    #[error("refused a write to partition {partition}: {why}")]
    Malformed {
        /// Log partition.
        partition: u32,
        /// What is wrong.
        why: &'static str,
    },
    /// The state of detection is not what was written.
    #[error("the state of detection at record {position} is damaged: restore the store from a backup")]
    Damaged {
        /// Where it stood.
        position: u64,
    },
    /// A row is not what was written.
    #[error("row {row} of `{table}` in the store is damaged: restore the store from a backup")]
    DamagedRow {
        /// Which table.
        table: &'static str,
        /// What names the row.
        row: String,
    },
    /// The write-ahead log is not what was written: SQLite would drop the commits behind the damage without a word.
    #[error(
        "the store is damaged: byte {at} of {} is not what was written, and there are commits behind it; restore the store from a \
         backup, or move that file away: then detection goes on from what was folded before it and concludes the rest again",
        path.display()
    )]
    DamagedLog {
        /// Its file.
        path: PathBuf,
        /// Where the first frame that is wrong begins.
        at: u64,
    },
    /// A table or an index is defined otherwise.
    #[error("the store is damaged: {problem}; restore it from a backup")]
    Definition {
        /// Which.
        problem: String,
    },
    /// A row does not hold what this version writes.
    #[error("cannot read {what} `{id}` back from the store")]
    Corrupt {
        /// Kind of row.
        what: &'static str,
        /// Its id.
        id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A value cannot be written as JSON.
    #[error("cannot write {what} `{id}` to the store")]
    Encode {
        /// Kind of row.
        what: &'static str,
        /// Its id.
        id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A number does not fit the database's signed 64-bit integers.
    #[error("cannot store {what} {value}: it is larger than 2^63-1")]
    TooLarge {
        /// Which number.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// There is no such row.
    #[error("there is no {what} `{id}`")]
    Missing {
        /// Kind of row.
        what: &'static str,
        /// The id that was asked for.
        id: String,
    },
}

impl StoreError {
    /// For `map_err`: a database error with what was attempted.
    fn on(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }
}

/// The store on SQLite. Clones share its connections.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    options: SqliteConnectOptions,
    writer: Mutex<SqliteConnection>,
    readers: SqlitePool,
    items: items::ItemSets,
    clock: Arc<dyn Clock>,
}

impl SqliteStore {
    /// Opens the database at `path`, creating it if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Newer`] if a newer program wrote it, [`StoreError::Foreign`] if another program did,
    /// [`StoreError::Open`] if it cannot be opened, [`StoreError::DamagedLog`], [`StoreError::DamagedRow`] or
    /// [`StoreError::Definition`] if what a restart goes on with is not what was written.
    pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let open = |source| StoreError::Open { path: path.to_owned(), source };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit that was reported is on stable storage: the log may be retired behind it.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let log = wal_of(path);
        if let Some(at) = wal::damage(&log).map_err(|error| open(sqlx::Error::Io(error)))? {
            return Err(StoreError::DamagedLog { path: log, at });
        }
        // Takes effect where the database is made, or written anew by this connection.
        let of_writer = options.clone().auto_vacuum(SqliteAutoVacuum::Incremental);
        let mut writer = SqliteConnection::connect_with(&of_writer).await.map_err(open)?;
        schema::bring_up_to_date(&mut writer, path).await?;
        checksum::check_at_open(&mut writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.clone().create_if_missing(false).read_only(true))
            .await
            .map_err(open)?;
        let options = options.create_if_missing(false);
        let items = items::ItemSets::default();
        items.load(&mut writer).await?;
        let shared = Shared { path: path.to_owned(), options, writer: Mutex::new(writer), readers, items, clock };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Waits for running statements and closes all connections, which folds the write-ahead log into the database.
    pub async fn close(self) {
        self.shared.readers.close().await;
        if let Ok(shared) = Arc::try_unwrap(self.shared)
            && let Err(error) = shared.writer.into_inner().close().await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "closing the store failed; its data is safe");
        }
    }

    /// The connection that writes. After an input/output error SQLite has rolled back by itself and the connection believes to
    /// be in a transaction for good: then it is replaced, if that can be had.
    async fn writer(&self) -> MutexGuard<'_, SqliteConnection> {
        let mut writer = self.shared.writer.lock().await;
        // A rollback that was asked for before is done by then.
        let answers = writer.ping().await.is_ok();
        if !answers || writer.is_in_transaction() {
            match SqliteConnection::connect_with(&self.shared.options).await {
                Ok(fresh) => *writer = fresh,
                // The statement that is to come fails and says so.
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot connect to the store again")
                }
            }
        }
        writer
    }

    fn readers(&self) -> &SqlitePool {
        &self.shared.readers
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }
}

/// SQLite's write-ahead log of a database.
fn wal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// An index, size or sequence number as the database keeps it.
fn number(what: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::TooLarge { what, value })
}

/// An index, size or sequence number read back. The database holds no negative ones: only this crate writes it.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
