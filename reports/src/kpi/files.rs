//! The KPI part of an evidence pack: the report, and the rows every figure can be recomputed from.

use pipeproof_engine::time::Timestamp;

use super::{IncidentTimes, KpiReport, secs};
use crate::controls::sheet::{Cell, Kind, Table, TableError};
use crate::pack_file::PackFile;

const COLUMNS: &[(&str, Kind)] = &[
    ("incident_id", Kind::Text),
    ("title", Kind::Text),
    ("level", Kind::Text),
    ("counted", Kind::Text),
    ("occurred_at", Kind::Time),
    ("available_at", Kind::Time),
    ("detected_at", Kind::Time),
    ("acknowledged_at", Kind::Time),
    ("contained_at", Kind::Time),
    ("remediated_at", Kind::Time),
    ("first_remediated_at", Kind::Time),
    ("verified_at", Kind::Time),
    ("closed_at", Kind::Time),
    ("reopened", Kind::Int),
    ("source_lag_secs", Kind::Float),
    ("detection_lag_secs", Kind::Float),
    ("time_to_acknowledge_secs", Kind::Float),
    ("time_to_contain_secs", Kind::Float),
    ("time_to_remediate_secs", Kind::Float),
    ("exposure_secs", Kind::Float),
];

/// `20_kpi/kpis.json` and `20_kpi/incidents.csv`, with the incidents detected in the report's period.
///
/// # Errors
/// [`TableError`] if a file cannot be written.
pub fn pack_files(report: &KpiReport, incidents: &[IncidentTimes]) -> Result<Vec<PackFile>, TableError> {
    let mut json = serde_json::to_vec_pretty(report).map_err(TableError::Json)?;
    json.push(b'\n');
    let sheet = incident_table(report, incidents);
    Ok(vec![
        PackFile::new("20_kpi/kpis.json", json, "MTTD and the MTTR family with n, spread and open incidents"),
        PackFile::new(
            "20_kpi/incidents.csv",
            sheet.to_csv(),
            "One row per incident detected in the period: the times every KPI is computed from",
        ),
    ])
}

/// The rows behind a report, in the order of detection.
#[must_use]
pub fn incident_table(report: &KpiReport, incidents: &[IncidentTimes]) -> Table {
    let mut rows: Vec<&IncidentTimes> = incidents
        .iter()
        .filter(|row| row.detected >= report.from && row.detected < report.to && row.detected <= report.as_of)
        .collect();
    rows.sort_by(|one, other| (one.detected, &one.id).cmp(&(other.detected, &other.id)));
    let columns = COLUMNS.iter().map(|&(name, kind)| (name.to_owned(), kind)).collect();
    Table { columns, rows: rows.into_iter().map(cells).collect() }
}

fn cells(row: &IncidentTimes) -> Vec<Cell> {
    let time = |time: Option<Timestamp>| time.map_or(Cell::Null, Cell::Time);
    // As measured: negative ones are not hidden here, they are what the report's data-quality list points to.
    let span = |from: Option<Timestamp>, to: Option<Timestamp>| match (from, to) {
        (Some(from), Some(to)) => Cell::Float(secs(to.micros_since(from))),
        _ => Cell::Null,
    };
    let counted = match (row.is_test, row.dismissed, row.retro) {
        (true, ..) => "no: exercise",
        (_, true, _) => "no: dismissed",
        (.., true) => "response only: found in hindsight",
        _ => "yes",
    };
    let detected = Some(row.detected);
    vec![
        Cell::Text(row.id.clone()),
        Cell::Text(row.title.clone()),
        Cell::Text(row.level.name().to_owned()),
        Cell::Text(counted.to_owned()),
        time(row.occurred),
        time(Some(row.available)),
        time(detected),
        time(row.acknowledged),
        time(row.contained),
        time(row.remediated),
        time(row.first_remediated),
        time(row.verified),
        time(row.closed),
        Cell::Int(i64::from(row.reopened)),
        span(row.occurred, Some(row.available)),
        span(Some(row.available), detected),
        span(detected, row.acknowledged),
        span(detected, row.contained),
        span(detected, row.verified.and(row.remediated)),
        span(row.occurred, row.contained),
    ]
}
