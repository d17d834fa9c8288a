//! A checksum over the content of each row: what was changed on disk is told from what was written.
//!
//! SQLite checks the structure of its pages, not what stands in them. A row is written without a checksum, and gets one before
//! its transaction ends: the start of SHA-256 over the table's name and each value with its column's name and its type. Values
//! that are null are left out, so a column that is added later changes no row before it.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Column, Decode, Row, Sqlite, TypeInfo, ValueRef};

use super::{SqliteStore, StoreError, schema};

/// Rows that get their checksums with one statement.
const AT_ONCE: usize = 1_000;
/// Left out in tables of states, which have SHA-256 digests of these in a column that is not left out.
const STATES: &[&str] = &["state", "delta"];
/// A column of bytes that is summed as text.
const BODY: &str = "body";
/// The columns of such a table that are read for its checksums.
const OF_STATES: &str = "partition, position, digest, checksum";

/// A table and the columns that name a row of it.
#[derive(Debug)]
pub(super) struct Table {
    name: &'static str,
    keys: &'static [&'static str],
    columns: &'static str,
}

impl Table {
    const fn new(name: &'static str, keys: &'static [&'static str]) -> Self {
        Self { name, keys, columns: "*" }
    }

    /// A table of states, which are not read for their checksums.
    const fn of_states(name: &'static str, keys: &'static [&'static str]) -> Self {
        Self { name, keys, columns: OF_STATES }
    }

    fn leaves_out(&self, column: &str) -> bool {
        column == "checksum" || (self.columns == OF_STATES && STATES.contains(&column))
    }

    /// What names the row.
    fn key(&self, row: &SqliteRow) -> Result<Vec<Value>, sqlx::Error> {
        let value = |name: &&str| {
            let raw = row.try_get_raw(*name)?;
            if raw.type_info().name() == "INTEGER" {
                row.try_get::<i64, _>(*name).map(Value::from)
            } else {
                row.try_get_unchecked::<Vec<u8>, _>(*name).map(|text| String::from_utf8_lossy(&text).into())
            }
        };
        self.keys.iter().map(value).collect()
    }
}

pub(super) const PROGRESS: Table = Table::new("progress", &["partition"]);
pub(super) const STATE_SNAPSHOTS: Table = Table::of_states("state_snapshots", &["partition"]);
pub(super) const STATE_DELTAS: Table = Table::of_states("state_deltas", &["partition", "position"]);
pub(super) const FINDINGS: Table = Table::new("findings", &["seq"]);
pub(super) const INCIDENTS: Table = Table::new("incidents", &["id"]);
pub(super) const INCIDENT_STEPS: Table = Table::new("incident_steps", &["seq"]);
pub(super) const OUTBOX: Table = Table::new("outbox", &["seq"]);
pub(super) const DELIVERIES: Table = Table::new("deliveries", &["id"]);
pub(super) const DELIVERY_CHANGES: Table = Table::new("delivery_changes", &["seq"]);
pub(super) const DUPLICATES: Table = Table::new("duplicates", &["partition", "record_index"]);
pub(super) const DEAD_LETTERS: Table = Table::new("dead_letters", &["seq"]);
pub(super) const SOURCE_WINDOWS: Table = Table::new("source_windows", &["source", "start"]);
pub(super) const RULE_TEXTS: Table = Table::new("rule_texts", &["digest"]);
pub(super) const PACKS: Table = Table::new("packs", &["seq"]);
pub(super) const CURSORS: Table = Table::new("cursors", &["name"]);
pub(super) const EXCEPTED: Table = Table::new("excepted", &["seq"]);
pub(super) const ITEM_SETS: Table = Table::new("item_sets", &["number"]);
pub(super) const ITEM_PAGES: Table = Table::new("item_pages", &["item_set", "page"]);
pub(super) const HEARD: Table = Table::new("heard", &["source"]);

/// Every table, in the order they came.
pub(super) const ALL: &[&Table] = &[
    &PROGRESS,
    &STATE_SNAPSHOTS,
    &STATE_DELTAS,
    &FINDINGS,
    &INCIDENTS,
    &INCIDENT_STEPS,
    &OUTBOX,
    &DELIVERIES,
    &DELIVERY_CHANGES,
    &DUPLICATES,
    &DEAD_LETTERS,
    &SOURCE_WINDOWS,
    &RULE_TEXTS,
    &PACKS,
    &CURSORS,
    &EXCEPTED,
    &ITEM_SETS,
    &ITEM_PAGES,
    &HEARD,
];

/// Those that the version with the first checksums had.
pub(super) const FIRST: &[&Table] = ALL.split_at(16).0;

/// Those without which a restart cannot go on; they are small.
const AT_OPEN: &[&Table] = &[&PROGRESS, &STATE_SNAPSHOTS, &STATE_DELTAS, &CURSORS];

/// The checksum of a row.
fn sum(table: &Table, row: &SqliteRow) -> Result<i64, sqlx::Error> {
    let mut hash = Sha256::new_with_prefix(table.name);
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (place, column) in row.columns().iter().enumerate() {
        if table.leaves_out(column.name()) {
            continue;
        }
        let value = row.try_get_raw(place)?;
        if value.is_null() {
            continue;
        }
        let decoded = |source| sqlx::Error::ColumnDecode { index: column.name().to_owned(), source };
        part(column.name().as_bytes());
        let kind = value.type_info().name().to_owned();
        // Bodies were texts before they were bytes: sums of that time stay right.
        let kind = if column.name() == BODY { "TEXT".to_owned() } else { kind };
        part(kind.as_bytes());
        match kind.as_str() {
            "INTEGER" => part(&<i64 as Decode<Sqlite>>::decode(value).map_err(decoded)?.to_le_bytes()),
            "REAL" => part(&<f64 as Decode<Sqlite>>::decode(value).map_err(decoded)?.to_le_bytes()),
            // Text as its bytes: what was damaged need not be UTF-8.
            _ => part(&<Vec<u8> as Decode<Sqlite>>::decode(value).map_err(decoded)?),
        }
    }
    let digest = hash.finalize();
    let mut start = [0; 8];
    start.copy_from_slice(digest.get(..8).unwrap_or(&[0; 8]));
    Ok(i64::from_le_bytes(start))
}

/// Gives the rows that have been written since their checksums. To be called last in a transaction, with the tables it wrote to.
pub(super) async fn seal(connection: &mut SqliteConnection, tables: &[&Table]) -> Result<(), sqlx::Error> {
    for table in tables {
        let Table { name, keys, columns } = table;
        let unsummed = format!("SELECT {columns} FROM {name} WHERE checksum IS NULL LIMIT {AT_ONCE}");
        let same: Vec<_> =
            keys.iter().enumerate().map(|(place, key)| format!("{name}.{key} = j.value ->> {place}")).collect();
        let update = format!(
            "UPDATE {name} SET checksum = j.value ->> {} FROM json_each(?) AS j WHERE {}",
            keys.len(),
            same.join(" AND ")
        );
        loop {
            let rows = sqlx::query(AssertSqlSafe(unsummed.clone())).fetch_all(&mut *connection).await?;
            let sums = rows.iter().map(|row| {
                let mut line = table.key(row)?;
                line.push(sum(table, row)?.into());
                Ok(Value::Array(line))
            });
            let sums = sums.collect::<Result<Vec<_>, sqlx::Error>>()?;
            if sums.is_empty() {
                break;
            }
            let written = sqlx::query(AssertSqlSafe(update.clone()))
                .bind(Value::Array(sums).to_string())
                .execute(&mut *connection);
            // None is left out, or this would go on for ever.
            if written.await?.rows_affected() != rows.len() as u64 {
                return Err(sqlx::Error::RowNotFound);
            }
            if rows.len() < AT_ONCE {
                break;
            }
        }
    }
    Ok(())
}

/// An error if the row, read with all its columns, is not what was written.
pub(super) fn check(table: &Table, row: &SqliteRow) -> Result<(), StoreError> {
    let on = || StoreError::on("check a row");
    let stored: Option<i64> = row.try_get("checksum").map_err(on())?;
    if stored == Some(sum(table, row).map_err(on())?) {
        return Ok(());
    }
    let key = table.key(row).map_err(on())?;
    let key: Vec<_> = key.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
    Err(StoreError::DamagedRow { table: table.name, row: key.join("/") })
}

/// Checks the rows that a change is about to build on, so that damage is not made good by it.
pub(super) async fn check_before(
    connection: &mut SqliteConnection,
    table: &Table,
    keys: &[Value],
) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    let (name, columns) = (table.name, table.columns);
    let Some(key) = table.keys.first() else { return Ok(()) };
    let query = format!("SELECT {columns} FROM {name} WHERE {key} IN (SELECT value FROM json_each(?))");
    let rows =
        sqlx::query(AssertSqlSafe(query)).bind(Value::from(keys.to_vec()).to_string()).fetch_all(connection).await;
    rows.map_err(StoreError::on("check rows before a change"))?.iter().try_for_each(|row| check(table, row))
}

/// Checks what a restart goes on with, and that the tables are defined as this version defines them.
pub(super) async fn check_at_open(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    if let Some(problem) = definitions(connection).await?.into_iter().next() {
        return Err(StoreError::Definition { problem });
    }
    for table in AT_OPEN {
        if let Some(problem) = damaged(connection, table, 1).await?.into_iter().next() {
            return Err(problem);
        }
    }
    Ok(())
}

/// The first so many damaged rows of a table.
async fn damaged(connection: &mut SqliteConnection, table: &Table, most: usize) -> Result<Vec<StoreError>, StoreError> {
    let (name, columns) = (table.name, table.columns);
    let on = || StoreError::on("check its rows");
    let mut found = Vec::new();
    let mut rows = sqlx::query(AssertSqlSafe(format!("SELECT {columns} FROM {name}"))).fetch(connection);
    while let Some(row) = rows.try_next().await.map_err(on())? {
        found.extend(check(table, &row).err());
        if found.len() >= most {
            break;
        }
    }
    Ok(found)
}

/// How the definitions of tables and indexes differ from those of this version.
async fn definitions(connection: &mut SqliteConnection) -> Result<Vec<String>, StoreError> {
    let mut fresh = schema::in_memory().await?;
    let (found, expected) = (defined(connection).await?, defined(&mut fresh).await?);
    let other = expected.iter().filter(|(name, text)| found.get(*name) != Some(text));
    Ok(other.map(|(name, _)| format!("`{name}` is not defined as this version defines it")).collect())
}

async fn defined(connection: &mut SqliteConnection) -> Result<BTreeMap<String, String>, StoreError> {
    let on = || StoreError::on("read how its tables are defined");
    let query =
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'";
    let rows = sqlx::query(query).fetch_all(connection).await.map_err(on())?;
    let line = |row: &SqliteRow| {
        let texts: Vec<String> = (0..4).map(|place| row.try_get(place)).collect::<Result<_, _>>()?;
        Ok((texts.get(1).cloned().unwrap_or_default(), texts.join("\n")))
    };
    rows.iter().map(line).collect::<Result<_, sqlx::Error>>().map_err(on())
}

impl SqliteStore {
    /// Rows that are not what was written, and definitions that are not this version's; so many at most.
    pub(super) async fn damage(&self, most: usize) -> Result<Vec<String>, StoreError> {
        let mut reader = self.readers().acquire().await.map_err(StoreError::on("check its rows"))?;
        let mut found = definitions(&mut reader).await?;
        for table in ALL {
            let rows = damaged(&mut reader, table, most.saturating_sub(found.len()).max(1)).await?;
            found.extend(rows.iter().map(ToString::to_string));
        }
        found.truncate(most);
        Ok(found)
    }
}
