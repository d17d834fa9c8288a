//! Copying and checking the database while it is used.

use std::fs::File;
use std::path::Path;

use sqlx::{AssertSqlSafe, Row};

use super::{SqliteStore, StoreError, schema};

/// Problems that are told at most.
const PROBLEMS: usize = 20;
/// Free pages that are given back in one transaction: other writers wait for no more.
const PAGES_AT_ONCE: i64 = 1_000;

impl SqliteStore {
    /// Writes a copy as of one moment to `path`, which must not exist. Commits go on meanwhile. The copy is on stable storage
    /// when this returns.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Open`] if the copy cannot be synced.
    pub async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        sqlx::query("VACUUM INTO ?")
            .bind(path.display().to_string())
            .execute(self.readers())
            .await
            .map_err(StoreError::on("copy itself"))?;
        let synced = File::open(path).and_then(|file| file.sync_all());
        synced.map_err(|error| StoreError::Open { path: path.to_owned(), source: sqlx::Error::Io(error) })
    }

    /// Folds the write-ahead log into the database, so that its one file is the whole of it.
    ///
    /// # Errors
    /// [`StoreError::Database`]; nothing is lost, the log is read at the next start.
    pub async fn fold(&self) -> Result<(), StoreError> {
        let mut writer = self.writer().await;
        let folded = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *writer).await;
        folded.map(drop).map_err(StoreError::on("fold its log"))
    }

    /// Gives the space of deleted rows back to the file system, in small transactions. A database that an earlier version made keeps
    /// it for later rows, until it is written anew ([`SqliteStore::purge`]).
    ///
    /// # Errors
    /// [`StoreError::Database`]; nothing is lost, it may be repeated.
    pub async fn give_back(&self) -> Result<(), StoreError> {
        let on = || StoreError::on("give back free space");
        let mut before = i64::MAX;
        loop {
            let mut writer = self.writer().await;
            let free = schema::pragma(&mut writer, "PRAGMA freelist_count").await.map_err(on())?;
            if free == 0 || free >= before {
                return Ok(());
            }
            before = free;
            let statement = format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})");
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *writer).await.map_err(on())?;
        }
    }

    /// What is wrong with the database, by SQLite's own check of its structure and by the checksum of every row: nothing, for a whole
    /// one.
    ///
    /// # Errors
    /// [`StoreError::Database`] if it cannot even be read.
    pub async fn problems(&self) -> Result<Vec<String>, StoreError> {
        let on = || StoreError::on("check itself");
        let rows = sqlx::query("PRAGMA integrity_check").fetch_all(self.readers()).await.map_err(on())?;
        let texts = rows.iter().map(|row| row.try_get::<String, _>(0)).collect::<Result<Vec<_>, _>>().map_err(on())?;
        let problems: Vec<_> = texts.into_iter().filter(|text| text != "ok").take(PROBLEMS).collect();
        // Rows of a broken structure cannot be told from rows that were never there.
        if problems.is_empty() { self.damage(PROBLEMS).await } else { Ok(problems) }
    }
}
