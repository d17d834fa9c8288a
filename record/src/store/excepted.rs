//! Matches that an exception let go, read back.

use engine::commit::Excepted;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::Serialize;
use sqlx::sqlite::SqliteRow;

use super::checksum::{self, check};
use super::findings::{column, seq, time};
use super::{SqliteStore, StoreError, limit, number};

/// A match that an exception let go, with what the store adds to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredExcepted {
    /// Number in the feed.
    pub seq: u64,
    /// Wall-clock time of the commit.
    pub committed: Timestamp,
    /// The match.
    #[serde(flatten)]
    pub excepted: Excepted,
}

impl SqliteStore {
    /// Matches let go after number `seq`, oldest first; of one exception if it is named.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn excepted(
        &self,
        filter: Option<&str>,
        seq: u64,
        rows: usize,
    ) -> Result<Vec<StoredExcepted>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM excepted
             WHERE seq > ?1 AND (?2 IS NULL OR filter = ?2) ORDER BY seq LIMIT ?3",
        )
        .bind(number("sequence number", seq)?)
        .bind(filter)
        .bind(limit(rows))
        .fetch_all(self.readers())
        .await
        .map_err(StoreError::on("list what exceptions let go"))?;
        rows.iter().map(excepted).collect()
    }
}

fn excepted(row: &SqliteRow) -> Result<StoredExcepted, StoreError> {
    check(&checksum::EXCEPTED, row)?;
    Ok(StoredExcepted {
        seq: seq(row)?,
        committed: time(row, "committed")?,
        excepted: Excepted {
            filter: column(row, "filter")?,
            filter_digest: column(row, "filter_digest")?,
            rule: column(row, "rule")?,
            rule_digest: column(row, "rule_digest")?,
            event: column(row, "event")?,
            time: time(row, "time")?,
            received: time(row, "received")?,
        },
    })
}
