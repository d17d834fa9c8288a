//! What came in and what became of it: repetitions, dead letters, source windows.

use std::collections::BTreeSet;
use std::ops::Range;

use engine::commit::{DeadLetter, Duplicate, Heard, SourceWindow};
use engine::record::Position;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::Serialize;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteRow;

use super::checksum::{self, check};
use super::findings::{column, json, seq, time};
use super::{SqliteStore, StoreError, limit, number, unsigned};

/// Cursor that says below which index verdicts were forgotten, before the number of a partition.
const BELOW: &str = "duplicates.below.";
/// Cursor that says how many.
pub(super) const FORGOTTEN: &str = "duplicates.forgotten.";

/// What stays of duplicate verdicts that nobody asks for any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForgottenDuplicates {
    /// On records before this index.
    pub below: u64,
    /// How many of these were repetitions.
    pub count: u64,
}

/// A dead letter with its place in the feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredDeadLetter {
    /// Number in the feed.
    pub seq: u64,
    /// Log partition of the record.
    pub partition: u32,
    /// The dead letter.
    #[serde(flatten)]
    pub letter: DeadLetter,
}

impl StoredDeadLetter {
    /// Position of the record in the log.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { partition: self.partition, index: self.letter.index }
    }
}

/// A source window with its place in the feed of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredWindow {
    /// Number in the feed; a change gives the window a new one.
    pub seq: u64,
    /// Wall-clock time of its last change.
    pub changed: Timestamp,
    /// The window.
    #[serde(flatten)]
    pub window: SourceWindow,
}

impl SqliteStore {
    /// Records of `[range.start, range.end)` that repeat an earlier one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn duplicates_in(&self, partition: u32, range: Range<u64>) -> Result<Vec<Duplicate>, StoreError> {
        self.duplicates(partition, range, usize::MAX).await
    }

    /// The first `rows` records from `from` on that repeat an earlier one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn duplicates_from(&self, partition: u32, from: u64, rows: usize) -> Result<Vec<Duplicate>, StoreError> {
        self.duplicates(partition, from..u64::MAX >> 1, rows).await
    }

    async fn duplicates(&self, partition: u32, range: Range<u64>, most: usize) -> Result<Vec<Duplicate>, StoreError> {
        let doing = "read duplicate verdicts";
        let rows = sqlx::query(
            "SELECT * FROM duplicates
             WHERE partition = ? AND record_index >= ? AND record_index < ? ORDER BY record_index LIMIT ?",
        )
        .bind(partition)
        .bind(number("index", range.start)?)
        .bind(number("index", range.end)?)
        .bind(limit(most))
        .fetch_all(self.readers())
        .await
        .map_err(StoreError::on(doing))?;
        let duplicate = |row: &SqliteRow| {
            check(&checksum::DUPLICATES, row)?;
            Ok(Duplicate {
                index: unsigned(column(row, "record_index")?),
                first: unsigned(column(row, "first_index")?),
            })
        };
        rows.iter().map(duplicate).collect()
    }

    /// The same as a set of indexes, as the archive asks for it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn duplicate_indexes(&self, partition: u32, range: Range<u64>) -> Result<BTreeSet<u64>, StoreError> {
        Ok(self.duplicates_in(partition, range).await?.iter().map(|duplicate| duplicate.index).collect())
    }

    /// Forgets the verdicts on records before `index`, which nobody asks for once these are archived and no longer in the log. How
    /// many there were stays. Returns how many went.
    ///
    /// # Errors
    /// [`StoreError::Database`]; nothing was forgotten then.
    pub async fn forget_duplicates(&self, partition: u32, index: u64) -> Result<u64, StoreError> {
        let before = self.forgotten_duplicates(partition).await?;
        if index <= before.below {
            return Ok(0);
        }
        let on = || StoreError::on("forget duplicate verdicts");
        let mut writer = self.writer().await;
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(on())?;
        let gone = sqlx::query("DELETE FROM duplicates WHERE partition = ? AND record_index < ?")
            .bind(partition)
            .bind(number("index", index)?)
            .execute(&mut *transaction)
            .await
            .map_err(on())?
            .rows_affected();
        for (name, value) in [(BELOW, index), (FORGOTTEN, before.count + gone)] {
            let name = format!("{name}{partition}");
            checksum::check_before(&mut transaction, &checksum::CURSORS, &[name.as_str().into()]).await?;
            sqlx::query(
                "INSERT INTO cursors (name, seq) VALUES (?, ?)
                 ON CONFLICT (name) DO UPDATE SET seq = excluded.seq, checksum = NULL",
            )
            .bind(name)
            .bind(number("number of repetitions", value)?)
            .execute(&mut *transaction)
            .await
            .map_err(on())?;
        }
        checksum::seal(&mut transaction, &[&checksum::CURSORS]).await.map_err(on())?;
        transaction.commit().await.map_err(on())?;
        Ok(gone)
    }

    /// What stays of the verdicts that were forgotten.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::DamagedRow`].
    pub async fn forgotten_duplicates(&self, partition: u32) -> Result<ForgottenDuplicates, StoreError> {
        Ok(ForgottenDuplicates {
            below: self.cursor(&format!("{BELOW}{partition}")).await?,
            count: self.cursor(&format!("{FORGOTTEN}{partition}")).await?,
        })
    }

    /// Dead letters after number `seq`, oldest first; of one source if it is named.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn dead_letters(
        &self,
        source: Option<&str>,
        seq: u64,
        rows: usize,
    ) -> Result<Vec<StoredDeadLetter>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM dead_letters
             WHERE seq > ?1 AND (?2 IS NULL OR source = ?2) ORDER BY seq LIMIT ?3",
        )
        .bind(number("sequence number", seq)?)
        .bind(source)
        .bind(limit(rows))
        .fetch_all(self.readers())
        .await
        .map_err(StoreError::on("list dead letters"))?;
        rows.iter().map(dead_letter).collect()
    }

    /// Source windows that overlap `[from, to)`, by start and source.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn windows(&self, from: Timestamp, to: Timestamp) -> Result<Vec<StoredWindow>, StoreError> {
        let rows = sqlx::query(
            r#"SELECT * FROM source_windows
               WHERE start < ? AND "end" > ? ORDER BY start, source"#,
        )
        .bind(to.as_micros())
        .bind(from.as_micros())
        .fetch_all(self.readers())
        .await
        .map_err(StoreError::on("read source windows"))?;
        rows.iter().map(window).collect()
    }

    /// The feed of source windows: those that changed after number `seq`, each as it stands now, oldest change first.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn windows_after(&self, seq: u64, rows: usize) -> Result<Vec<StoredWindow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM source_windows WHERE seq > ? ORDER BY seq LIMIT ?")
            .bind(number("sequence number", seq)?)
            .bind(limit(rows))
            .fetch_all(self.readers())
            .await
            .map_err(StoreError::on("read the feed of source windows"))?;
        rows.iter().map(window).collect()
    }

    /// When each source was last heard of, by name.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::DamagedRow`].
    pub async fn heard(&self) -> Result<Vec<Heard>, StoreError> {
        let rows = sqlx::query("SELECT * FROM heard ORDER BY source")
            .fetch_all(self.readers())
            .await
            .map_err(StoreError::on("read when sources were last heard of"))?;
        let heard = |row: &SqliteRow| {
            check(&checksum::HEARD, row)?;
            Ok(Heard {
                source: column(row, "source")?,
                received: time(row, "received")?,
                max_skew_secs: column(row, "max_skew_secs")?,
            })
        };
        rows.iter().map(heard).collect()
    }
}

fn dead_letter(row: &SqliteRow) -> Result<StoredDeadLetter, StoreError> {
    check(&checksum::DEAD_LETTERS, row)?;
    Ok(StoredDeadLetter {
        seq: seq(row)?,
        partition: column(row, "partition")?,
        letter: DeadLetter {
            index: unsigned(column(row, "record_index")?),
            source: column(row, "source")?,
            received: time(row, "received")?,
            reason: column(row, "reason")?,
        },
    })
}

fn window(row: &SqliteRow) -> Result<StoredWindow, StoreError> {
    check(&checksum::SOURCE_WINDOWS, row)?;
    let source: String = column(row, "source")?;
    let window = json("source window", || source, column(row, "body")?)?;
    Ok(StoredWindow { seq: seq(row)?, changed: time(row, "changed")?, window })
}
