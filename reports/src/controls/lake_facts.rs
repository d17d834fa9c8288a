//! The fact views of the record's SQL as facts of control tests, and the source windows read from them.

use pipeproof_engine::commit::{Completeness, SourceWindow};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_record::sql::{Parameter, Sql, SqlError};

use super::outcome::Period;
use super::run::Facts;
use super::sheet::{Cell, Table, TableError};

/// Why the fact views give no rows.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The query has no answer.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// Its answer is no sheet.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A row of a view does not hold what it should.
    #[error("a row of `source_window` has no {0} that this version knows")]
    Window(&'static str),
}

impl Facts for Sql {
    type Error = FactsError;

    async fn query(&self, sql: &str, period: &Period) -> Result<Table, FactsError> {
        let parameters = [
            ("P0", Parameter::Time(period.from)),
            ("P1", Parameter::Time(period.to)),
            ("AS_OF", Parameter::Time(period.as_of)),
        ];
        let answer = Self::query(self, sql, &parameters).await?;
        Ok(Table::from_batches(answer.schema(), answer.batches())?)
    }
}

/// The windows of all sources that overlap the period, in the order of source and time.
///
/// # Errors
/// [`FactsError`].
pub async fn source_windows(sql: &Sql, period: &Period) -> Result<Vec<SourceWindow>, FactsError> {
    const QUERY: &str = "SELECT * FROM source_window WHERE w_start < :P1 AND w_end > :P0 ORDER BY source_id, w_start";
    let table = Facts::query(sql, QUERY, period).await?;
    table.rows.iter().map(|row| window(&table, row)).collect()
}

fn window(table: &Table, row: &[Cell]) -> Result<SourceWindow, FactsError> {
    let text = |name: &'static str| match table.get(row, name) {
        Some(Cell::Text(text)) => Ok(text.clone()),
        _ => Err(FactsError::Window(name)),
    };
    let time = |name: &'static str| match table.get(row, name) {
        Some(Cell::Time(time)) => Ok(*time),
        _ => Err(FactsError::Window(name)),
    };
    let number = |name: &str| match table.get(row, name) {
        Some(Cell::Int(number)) => *number,
        _ => 0,
    };
    let count = |name: &str| u64::try_from(number(name)).unwrap_or(0);
    let status = match text("status")?.as_str() {
        "complete" => Completeness::Complete,
        "gap" => Completeness::Gap,
        "not_established" => Completeness::NotEstablished,
        _ => return Err(FactsError::Window("status")),
    };
    let (start, end): (Timestamp, Timestamp) = (time("w_start")?, time("w_end")?);
    Ok(SourceWindow {
        source: text("source_id")?,
        source_type: text("source_type")?.parse::<SourceType>().map_err(|_| FactsError::Window("source_type"))?,
        start,
        end,
        records: count("got_count"),
        events: count("events"),
        duplicates: count("duplicates"),
        dead_letters: count("dead_letters"),
        max_lag_secs: number("max_lag_s"),
        max_skew_secs: number("max_skew_s"),
        down_secs: number("down_s"),
        status,
        basis: text("basis")?,
    })
}

#[cfg(test)]
mod tests;
