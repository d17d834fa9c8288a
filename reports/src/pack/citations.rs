//! Which events the rows of a pack's tables cite: the records that must be in the pack and be proven.
//!
//! A column cites events if it is named `event_id` or `event_ids`, or its name ends in `_event_id` or `_event_ids`. A cell holds
//! none, one, or several ids, separated by spaces, commas or semicolons.

use pipeproof_engine::event::EventId;

use crate::pack::PackFile;
use crate::pack::table::{Table, TableError};

/// One cell's citation of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Citation {
    /// Path of the table below `data/`.
    pub path: String,
    /// Row, from 1, the header not counted.
    pub row: usize,
    /// Column.
    pub column: String,
    /// The id as it stands there.
    pub text: String,
    /// The event; `None` if the text is no event id.
    pub event: Option<EventId>,
}

/// Whether the rows of this file cite events that must be proven.
#[must_use]
pub fn is_citing(path: &str) -> bool {
    path.ends_with(".csv") && ["10_controls/", "20_kpi/", "30_completeness/"].iter().any(|top| path.starts_with(top))
}

/// The citations of one table.
///
/// # Errors
/// [`TableError`] if the file is no table.
pub fn of_table(path: &str, bytes: &[u8]) -> Result<Vec<Citation>, TableError> {
    let table = Table::from_csv(bytes)?;
    let cites: Vec<bool> = table.columns.iter().map(|column| cites(column)).collect();
    let mut found = Vec::new();
    for (at, row) in table.rows.iter().enumerate() {
        for ((cell, column), _) in row.iter().zip(&table.columns).zip(&cites).filter(|(_, cites)| **cites) {
            for text in cell.split([' ', ',', ';']).filter(|text| !text.is_empty()) {
                found.push(Citation {
                    path: path.to_owned(),
                    row: at + 1,
                    column: column.clone(),
                    text: text.to_owned(),
                    event: text.parse().ok(),
                });
            }
        }
    }
    Ok(found)
}

/// The citations of all of a pack's files, in order.
///
/// # Errors
/// The path of the file that is no table, and why.
pub fn of_files(files: &[PackFile]) -> Result<Vec<Citation>, (String, TableError)> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| is_citing(&file.path)) {
        found.extend(of_table(&file.path, &file.bytes).map_err(|cause| (file.path.clone(), cause))?);
    }
    Ok(found)
}

fn cites(column: &str) -> bool {
    ["event_id", "event_ids"]
        .iter()
        .any(|name| column.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('_')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_cite_are_told_by_their_names() {
        for (column, expected) in [
            ("event_id", true),
            ("event_ids", true),
            ("push_event_id", true),
            ("evidence_event_ids", true),
            ("event", false),
            ("prevent_id", false),
            ("event_id_count", false),
            ("preevent_id", false),
        ] {
            assert_eq!(cites(column), expected, "{column}");
        }
    }

    #[test]
    fn cells_hold_none_one_or_several() {
        let csv = b"event_id,other,x_event_ids\r\n0-1-0,0-9-0,\"0-2-0 0-3-1,bad\"\r\n,,\r\n";
        let found = of_table("10_controls/X/a.csv", csv).unwrap();
        let seen: Vec<(usize, &str, bool)> =
            found.iter().map(|citation| (citation.row, citation.text.as_str(), citation.event.is_some())).collect();
        assert_eq!(seen, [(1, "0-1-0", true), (1, "0-2-0", true), (1, "0-3-1", true), (1, "bad", false)]);
    }
}
