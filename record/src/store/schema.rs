//! Versions of the store's schema: each is a file of statements, applied once, in order, in one transaction each.

use std::path::Path;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

use super::{StoreError, checksum};

/// Marks the file as ours: "ppst" as `PRAGMA application_id`.
const APPLICATION_ID: i64 = 0x7070_7374;

pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_first.sql"),
    include_str!("migrations/0002_digests.sql"),
    include_str!("migrations/0003_excepted.sql"),
    include_str!("migrations/0004_checksums.sql"),
    include_str!("migrations/0005_packed_bodies.sql"),
    include_str!("migrations/0006_items.sql"),
    include_str!("migrations/0007_heard.sql"),
];

/// The version from which on rows have checksums.
const SUMMED: i64 = 4;

/// The schema version this program writes.
#[allow(clippy::cast_possible_wrap, reason = "the number of migrations is small")]
pub const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

/// Applies the migrations the database lacks.
pub(super) async fn bring_up_to_date(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    let found = pragma(connection, "PRAGMA user_version").await.map_err(open)?;
    let application = pragma(connection, "PRAGMA application_id").await.map_err(open)?;
    let is_ours = application == APPLICATION_ID;
    if !is_ours {
        let tables = pragma(connection, "SELECT count(*) FROM sqlite_schema").await.map_err(open)?;
        if application != 0 || tables != 0 {
            return Err(StoreError::Foreign { path: path.to_owned() });
        }
    }
    if found > SCHEMA_VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    // A table that others refer to is replaced by another of its name. It is a setting of connections, not of transactions.
    sqlx::raw_sql("PRAGMA foreign_keys = OFF").execute(&mut *connection).await.map_err(open)?;
    for (version, statements) in (1_i64..).zip(MIGRATIONS) {
        if version <= found {
            continue;
        }
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(open)?;
        sqlx::raw_sql(*statements).execute(&mut *transaction).await.map_err(open)?;
        // Both pragmas are part of the transaction. They take no bound parameters.
        let stamp = format!("PRAGMA user_version = {version}; PRAGMA application_id = {APPLICATION_ID}");
        sqlx::raw_sql(AssertSqlSafe(stamp)).execute(&mut *transaction).await.map_err(open)?;
        if version == SUMMED {
            checksum::seal(&mut transaction, checksum::FIRST).await.map_err(open)?;
        }
        transaction.commit().await.map_err(open)?;
        tracing::info!(version, "store schema brought up to date");
    }
    sqlx::raw_sql("PRAGMA foreign_keys = ON").execute(&mut *connection).await.map_err(open)?;
    Ok(())
}

/// An empty database in memory with the tables of this version.
pub(super) async fn in_memory() -> Result<SqliteConnection, StoreError> {
    let on = || StoreError::on("define tables in memory");
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.map_err(on())?;
    sqlx::raw_sql("PRAGMA foreign_keys = OFF").execute(&mut connection).await.map_err(on())?;
    for statements in MIGRATIONS {
        sqlx::raw_sql(*statements).execute(&mut connection).await.map_err(on())?;
    }
    Ok(connection)
}

pub(super) async fn pragma(connection: &mut SqliteConnection, statement: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query(statement).fetch_one(connection).await?.try_get(0)
}
