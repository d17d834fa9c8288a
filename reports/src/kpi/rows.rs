//! Where incident times come from: the store for what is known now, the lake for a pack that must read the same again.

use pipeproof_engine::rule::Level;
use pipeproof_engine::time::Timestamp;
use pipeproof_record::sql::Sql;
use pipeproof_record::store::{IncidentFilter, SqliteStore, StoreError};

use super::IncidentTimes;
use crate::controls::lake_facts::FactsError;
use crate::controls::outcome::Period;
use crate::controls::run::Facts;
use crate::controls::sheet::{Cell, Table};

/// Incidents read in one go.
const PAGE: usize = 500;

/// The incidents that can have been detected before `to`, as known at `as_of`, from the store.
///
/// # Errors
/// [`StoreError`].
pub async fn from_store(
    store: &SqliteStore,
    to: Timestamp,
    as_of: Timestamp,
) -> Result<Vec<IncidentTimes>, StoreError> {
    let mut rows = Vec::new();
    // The record time of opening is never after the commit, so nothing detected before `to` is opened later.
    let mut filter = IncidentFilter { to: Some(to), limit: PAGE, ..IncidentFilter::default() };
    loop {
        let page = store.incidents(&filter).await?;
        for stored in &page {
            let steps = store.steps(&stored.incident.id).await?;
            let steps: Vec<_> = steps.into_iter().map(|stored| stored.step).collect();
            rows.extend(IncidentTimes::at(as_of, &stored.incident, stored.committed, &steps));
        }
        match page.last() {
            Some(last) if page.len() == PAGE => filter.after = Some(last.incident.id.clone()),
            _ => return Ok(rows),
        }
    }
}

/// The incidents detected in the period, from the fact views. `sql` decides what is known: open it as of the period's
/// `as_of`.
///
/// # Errors
/// [`FactsError`].
pub async fn from_lake(sql: &Sql, period: &Period) -> Result<Vec<IncidentTimes>, FactsError> {
    const QUERY: &str = "
        WITH told AS (
            SELECT incident, min(available) AS available_at, bool_and(retro) AS retro
            FROM findings WHERE incident IS NOT NULL GROUP BY incident
        ), opener AS (
            SELECT incident, title
            FROM (SELECT *, row_number() OVER (PARTITION BY incident ORDER BY seq) AS rank
                  FROM findings WHERE incident IS NOT NULL) ranked
            WHERE rank = 1
        ), first_fix AS (
            SELECT incident, min(at) AS at FROM incident_steps WHERE verb = 'remediate' GROUP BY incident
        )
        SELECT i.incident_id, o.title, i.severity, t.retro, i.is_test, i.occurred_at, t.available_at, i.detected_at,
               i.acknowledged_at, i.contained_at, i.remediated_at, f.at AS first_remediated_at, i.verified_at, i.closed_at,
               i.reopened, p.ended_by
        FROM incident i
        LEFT JOIN told t ON t.incident = i.incident_id
        LEFT JOIN opener o ON o.incident = i.incident_id
        LEFT JOIN first_fix f ON f.incident = i.incident_id
        LEFT JOIN incident_progress p ON p.incident = i.incident_id
        WHERE i.detected_at >= :P0 AND i.detected_at < :P1
        ORDER BY i.detected_at, i.incident_id";
    let table = Facts::query(sql, QUERY, period).await?;
    Ok(table.rows.iter().filter_map(|row| times(&table, row)).collect())
}

/// `None` for an incident whose first finding is not in the lake yet: it is not known there.
fn times(table: &Table, row: &[Cell]) -> Option<IncidentTimes> {
    let text = |name: &str| match table.get(row, name) {
        Some(Cell::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let time = |name: &str| match table.get(row, name) {
        Some(Cell::Time(time)) => Some(*time),
        _ => None,
    };
    let number = |name: &str| match table.get(row, name) {
        Some(Cell::Int(number)) => *number,
        _ => 0,
    };
    let truth = |name: &str| table.get(row, name) == Some(&Cell::Bool(true));
    Some(IncidentTimes {
        id: text("incident_id"),
        title: text("title"),
        level: level(number("severity")),
        retro: truth("retro"),
        is_test: truth("is_test"),
        occurred: time("occurred_at"),
        available: time("available_at")?,
        detected: time("detected_at")?,
        acknowledged: time("acknowledged_at"),
        contained: time("contained_at"),
        remediated: time("remediated_at"),
        first_remediated: time("first_remediated_at"),
        verified: time("verified_at"),
        closed: time("closed_at"),
        reopened: u32::try_from(number("reopened")).unwrap_or(0),
        dismissed: text("ended_by") == "dismiss",
    })
}

fn level(number: i64) -> Level {
    [Level::Informational, Level::Low, Level::Medium, Level::High, Level::Critical]
        .into_iter()
        .find(|level| level.number() == number)
        .unwrap_or_default()
}
