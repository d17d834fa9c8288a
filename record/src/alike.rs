//! Whether the lake tells what the store tells: the rows of the feeds that it copies, and the dead letters that it read itself.
//!
//! It goes through the store a page at a time and asks the lake for the same rows, so it needs memory for a page. What came to the store
//! behind the lake is not looked at.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use arrow_schema::ArrowError;

use crate::lake::{FeedRow, Snapshot, Table};
use crate::sql::{Answer, Limits, Sql, SqlError};
use crate::store::{SqliteStore, StoreError};

/// Rows that are compared at once: their numbers fit a query's text.
const PAGE: usize = 500;
/// Differences that are named at most, of each table.
const NAMED: usize = 20;

/// Why they cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum AlikeError {
    /// The lake cannot be asked.
    #[error(transparent)]
    Lake(#[from] SqlError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Rows of the store do not fit the lake's columns.
    #[error("cannot write rows of the store as columns of `{table}`")]
    Columns {
        /// Which table of the lake.
        table: &'static str,
        /// Why.
        #[source]
        source: ArrowError,
    },
}

/// What came of comparing one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Rows of the store that the lake was asked for.
    pub rows: u64,
    /// How they differ.
    pub differing: Vec<String>,
}

impl Compared {
    fn differs(&mut self, how: String) {
        if self.differing.len() < NAMED {
            self.differing.push(how);
        }
    }
}

/// How the rows of a table relate to those of the store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeps {
    /// Both have each.
    All,
    /// The lake also has what was replaced since.
    Replaced,
}

/// Compares incident steps, deliveries and source windows of the lake with those of the store.
///
/// # Errors
/// [`AlikeError`].
pub async fn feeds(snapshot: &Snapshot, store: &SqliteStore) -> Result<BTreeMap<&'static str, Compared>, AlikeError> {
    let sql = Sql::over(snapshot, None, Limits::EVIDENCE).await?;
    let mut all = BTreeMap::new();
    macro_rules! compare {
        ($table:expr, $read:ident, $keeps:expr) => {{
            let mut compared = Compared::default();
            let fed = greatest(&sql, $table).await?;
            let mut after = 0;
            while after < fed {
                let mut rows = store.$read(after, PAGE).await?;
                let is_last = rows.len() < PAGE;
                rows.retain(|row| row.seq <= fed);
                // Beyond the last row of the store, the lake has none either.
                let to = rows.last().filter(|_| !is_last).map_or(fed, |row| row.seq);
                compare(&sql, &rows, (after, to), $keeps, &mut compared).await?;
                after = to;
            }
            all.insert($table.name(), compared);
        }};
    }
    compare!(Table::IncidentSteps, steps_after, Keeps::All);
    compare!(Table::Deliveries, deliveries_after, Keeps::All);
    compare!(Table::SourceWindows, windows_after, Keeps::Replaced);
    Ok(all)
}

async fn greatest(sql: &Sql, table: Table) -> Result<u64, AlikeError> {
    let answer = sql.query(&format!("SELECT max(seq) AS seq FROM {}", table.name()), &[]).await?;
    Ok(numbers(&answer, "seq").into_iter().max().unwrap_or(0))
}

/// Rows with numbers in `(after, to]`.
async fn compare<R: FeedRow>(
    sql: &Sql,
    rows: &[R],
    (after, to): (u64, u64),
    keeps: Keeps,
    compared: &mut Compared,
) -> Result<(), AlikeError> {
    let table = R::TABLE.name();
    let which = match keeps {
        Keeps::All => format!("seq > {after} AND seq <= {to}"),
        Keeps::Replaced if rows.is_empty() => return Ok(()),
        Keeps::Replaced => {
            let seqs: Vec<String> = rows.iter().map(|row| row.seq().to_string()).collect();
            format!("seq IN ({})", seqs.join(", "))
        }
    };
    let columns: Vec<String> =
        R::TABLE.schema().fields().iter().map(|column| format!("\"{}\"", column.name())).collect();
    let query = format!("SELECT {} FROM {table} WHERE {which} ORDER BY seq", columns.join(", "));
    let answer = sql.query(&query, &[]).await?;
    let expected =
        R::batch(&rows.iter().collect::<Vec<_>>()).map_err(|source| AlikeError::Columns { table, source })?;
    let mut missing: BTreeMap<u64, usize> = rows.iter().enumerate().map(|(at, row)| (row.seq(), at)).collect();
    let mut seen = BTreeSet::new();
    for batch in answer.batches() {
        for (at, seq) in numbers_of(batch, "seq").into_iter().enumerate() {
            let row = missing.remove(&seq);
            match row {
                _ if !seen.insert(seq) => compared.differs(format!("row {seq} of `{table}` is in the lake twice")),
                None => compared.differs(format!("row {seq} of `{table}` is in the lake and not in the store")),
                Some(row) if !is_same(&expected, row, batch, at) => {
                    compared.differs(format!("row {seq} of `{table}` is not told alike by store and lake"));
                }
                Some(_) => {}
            }
        }
    }
    for seq in missing.keys() {
        compared.differs(format!("row {seq} of `{table}` is in the store and not in the lake"));
    }
    compared.rows += rows.len() as u64;
    Ok(())
}

fn is_same(one: &RecordBatch, row: usize, other: &RecordBatch, at: usize) -> bool {
    let same = |(one, other): (&arrow_array::ArrayRef, &arrow_array::ArrayRef)| {
        one.data_type() == other.data_type() && one.slice(row, 1) == other.slice(at, 1)
    };
    one.num_columns() == other.num_columns() && one.columns().iter().zip(other.columns()).all(same)
}

fn numbers(answer: &Answer, column: &str) -> Vec<u64> {
    answer.batches().iter().flat_map(|batch| numbers_of(batch, column)).collect()
}

fn numbers_of(batch: &RecordBatch, column: &str) -> Vec<u64> {
    let column = batch.column_by_name(column).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let values = column.into_iter().flat_map(|column| column.iter());
    values.map(|value| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0)).collect()
}

/// Compares the dead letters of the store with the records of the lake that could not be decoded, before index `end` of a partition.
/// Records in `redacted` have no payload any more, and nothing to compare.
///
/// # Errors
/// [`AlikeError`].
pub async fn dead_letters(
    snapshot: &Snapshot,
    store: &SqliteStore,
    (partition, end): (u32, u64),
    redacted: &BTreeSet<u64>,
) -> Result<Compared, AlikeError> {
    let sql = Sql::over(snapshot, None, Limits::EVIDENCE).await?;
    let mut compared = Compared::default();
    let (mut after, mut from) = (0, 0);
    loop {
        let page = store.dead_letters(None, after, PAGE).await?;
        let is_last = page.len() < PAGE;
        after = page.last().map_or(after, |letter| letter.seq);
        let own = page.iter().filter(|letter| letter.partition == partition).map(|letter| &letter.letter);
        let letters: BTreeMap<u64, (&str, &str)> = own
            .filter(|letter| letter.index < end)
            .map(|letter| (letter.index, (letter.source.as_str(), letter.reason.as_str())))
            .collect();
        let to = if is_last { end } else { letters.last_key_value().map_or(from, |(index, _)| index + 1) };
        let query = format!(
            r#"SELECT "index", source, dead_letter FROM events WHERE sub = 0 AND "partition" = {partition}
               AND dead_letter IS NOT NULL AND "index" >= {from} AND "index" < {to} ORDER BY "index""#
        );
        let answer = sql.query(&query, &[]).await?;
        let told = told(&answer);
        for (index, letter) in letters.iter().filter(|(index, _)| !redacted.contains(index)) {
            match told.get(index) {
                None => compared.differs(format!("record {index} is a dead letter in the store and not in the lake")),
                Some((source, reason)) if (source.as_str(), reason.as_str()) != *letter => {
                    compared.differs(format!("dead letter {index} is not told alike by store and lake"));
                }
                Some(_) => {}
            }
        }
        for index in told.keys().filter(|index| !letters.contains_key(index)) {
            compared.differs(format!("record {index} is a dead letter in the lake and not in the store"));
        }
        compared.rows += letters.len() as u64;
        from = to;
        if is_last {
            return Ok(compared);
        }
    }
}

fn told(answer: &Answer) -> BTreeMap<u64, (String, String)> {
    let mut told = BTreeMap::new();
    for batch in answer.batches() {
        let text = |name: &str, row: usize| {
            let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            column.filter(|column| column.is_valid(row)).map_or_else(String::new, |column| column.value(row).to_owned())
        };
        for (row, index) in numbers_of(batch, "index").into_iter().enumerate() {
            told.insert(index, (text("source", row), text("dead_letter", row)));
        }
    }
    told
}

/// What makes a record a repetition of another: both are of one item of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Source instance.
    pub source: String,
    /// Name of the item.
    pub item: String,
}

/// Source and item of these records of the lake, by their indexes. Those that are not there, or are redacted, are missing.
///
/// # Errors
/// [`AlikeError::Lake`].
pub async fn items(
    snapshot: &Snapshot,
    partition: u32,
    indexes: &BTreeSet<u64>,
) -> Result<BTreeMap<u64, Item>, AlikeError> {
    let sql = Sql::over(snapshot, None, Limits::EVIDENCE).await?;
    let all: Vec<u64> = indexes.iter().copied().collect();
    let mut items = BTreeMap::new();
    for page in all.chunks(PAGE) {
        let list: Vec<String> = page.iter().map(u64::to_string).collect();
        let query = format!(
            r#"SELECT "index", source, item FROM events WHERE sub = 0 AND "partition" = {partition} AND envelope IS NOT NULL
               AND "index" IN ({})"#,
            list.join(", ")
        );
        let answer = sql.query(&query, &[]).await?;
        for batch in answer.batches() {
            let text = |name: &str, row: usize| {
                let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
                column
                    .filter(|column| column.is_valid(row))
                    .map_or_else(String::new, |column| column.value(row).to_owned())
            };
            for (row, index) in numbers_of(batch, "index").into_iter().enumerate() {
                items.insert(index, Item { source: text("source", row), item: text("item", row) });
            }
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests;
