//! What exceptions let go of, counted in the transaction of the batch that met it.

use std::collections::BTreeMap;

use engine::commit::Commit;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::findings::{column, time};
use super::{SqliteStore, StoreError, unsigned};

/// How often an exception let a rule's match go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExceptionUse {
    /// Id of the exception.
    pub filter: String,
    /// Id of the rule.
    pub rule: String,
    /// Matches it let go.
    pub matches: u64,
    /// Received time of the first.
    pub first: Timestamp,
    /// Received time of the last.
    pub last: Timestamp,
}

impl SqliteStore {
    /// What every exception let go of, by exception and rule.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn exceptions_used(&self) -> Result<Vec<ExceptionUse>, StoreError> {
        let rows = sqlx::query("SELECT filter, rule, matches, first, last FROM exceptions_used ORDER BY filter, rule")
            .fetch_all(self.readers())
            .await
            .map_err(StoreError::on("read what exceptions let go"))?;
        rows.iter().map(used).collect()
    }
}

fn used(row: &SqliteRow) -> Result<ExceptionUse, StoreError> {
    Ok(ExceptionUse {
        filter: column(row, "filter")?,
        rule: column(row, "rule")?,
        matches: row.try_get("matches").map(unsigned).map_err(StoreError::on("read a column"))?,
        first: time(row, "first")?,
        last: time(row, "last")?,
    })
}

/// Adds what a commit's exceptions let go of. A repeated batch is never committed twice, so nothing is counted twice.
pub(super) async fn count(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), sqlx::Error> {
    let mut counts: BTreeMap<(&str, &str), (i64, Timestamp, Timestamp)> = BTreeMap::new();
    for excepted in &commit.excepted {
        let received = excepted.received;
        let count = counts.entry((&excepted.filter, &excepted.rule)).or_insert((0, received, received));
        *count = (count.0 + 1, count.1.min(received), count.2.max(received));
    }
    for ((filter, rule), (matches, first, last)) in counts {
        sqlx::query(
            "INSERT INTO exceptions_used (filter, rule, matches, first, last) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (filter, rule) DO UPDATE SET matches = matches + ?3, first = min(first, ?4), last = max(last, ?5)",
        )
        .bind(filter)
        .bind(rule)
        .bind(matches)
        .bind(first.as_micros())
        .bind(last.as_micros())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
