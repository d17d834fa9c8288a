//! `table:` documents: what rules look things up in. Rows are opened and closed by rules, or stand in a file.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeproof_engine::rule::{Table, TableRows, Taxonomy};

use crate::detection::check_field;
use crate::diagnostic::{Code, Place, Report};
use crate::metadata::{check_keys, closed, duration_of, text, texts, title};
use crate::rows::{self, FileText};
use crate::yaml::Node;

/// How long a row that is never closed holds, unless the table says.
const MAX_OPEN: Duration = Duration::from_secs(86_400);
/// How long after its end a row is kept, unless the table says.
const RETAIN: Duration = Duration::from_secs(90 * 86_400);
/// Most columns.
const COLUMNS_MAX: usize = 64;

/// The same for rows that a query gives: they hold until it gives them no more.
const MAX_OPEN_ASKED: Duration = Duration::from_secs(100 * 366 * 86_400);

/// A table as written, with the places its names stand at.
pub(crate) struct Draft {
    pub(crate) table: Table,
    /// Rules that open or close rows.
    pub(crate) rules: Vec<(String, Place)>,
    pub(crate) place: Place,
    /// What rows are filled from: fields of events, or columns of a query.
    fields: Vec<(String, Place)>,
    /// The table says itself how long a row holds.
    bounded: bool,
}

impl Draft {
    /// Settles what depends on who feeds the table; `asked` is the place of each feeder that is a `sql:` rule.
    pub(crate) fn settle(&mut self, asked: &[Place], report: &mut Report<'_>) {
        let taxonomy = match &mut self.table.rows {
            TableRows::Given(_) => return,
            TableRows::Derived { max_open, taxonomy, .. } => {
                if !asked.is_empty() && !self.bounded {
                    *max_open = MAX_OPEN_ASKED;
                }
                *taxonomy
            }
        };
        match asked {
            [] => self.fields.iter().for_each(|(field, place)| check_field(field, *place, taxonomy, report)),
            [place, ..] if self.rules.len() > 1 => {
                let help = Some("name it alone under `open`; what it no longer gives is closed".to_owned());
                let message = "a table that a `sql:` rule fills is filled by no other rule";
                report.add_help(Code::TableUse, *place, message, help);
            }
            _ => {}
        }
    }

    /// The columns lookups may name.
    pub(crate) fn columns(table: &Table) -> Vec<&str> {
        match &table.rows {
            TableRows::Derived { columns, .. } => columns.keys().map(String::as_str).collect(),
            TableRows::Given(rows) => {
                let mut names: Vec<&str> = rows.iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
                names.sort_unstable();
                names.dedup();
                names
            }
        }
    }
}

/// Reads a `table:` document; `files` reads the file a table is given in.
pub(crate) fn read(
    document: &Node,
    node: &Node,
    taxonomy: Taxonomy,
    files: &FileText<'_>,
    report: &mut Report<'_>,
) -> Option<Draft> {
    let before = report.errors();
    check_keys(document, report);
    if node.map().is_none() {
        report.add(Code::WrongType, node.place, format!("`table` must be a mapping, not {}", node.kind()));
        return None;
    }
    let title = title(document, "table", report);
    let name = text(document, "name", report).unwrap_or_default().to_owned();
    if document.get("name").is_none() {
        report.add(Code::MissingKey, document.place, "the table has no `name`, by which rules look things up in it");
    } else if name.contains(['.', '|']) {
        let place = document.get("name").map_or(document.place, |found| found.place);
        report.add(Code::TableUse, place, "the name of a table holds neither `.` nor `|`: lookups could not name it");
    }
    if let Some(query) = node.get("query").or_else(|| node.get("sql")).or_else(|| document.get("sql")) {
        let help = Some("write a `sql:` rule, and name it under `open`".to_owned());
        report.add_help(Code::TableUse, query.place, "a table has no query of its own", help);
        return None;
    }
    let grace = duration_of(node, "grace", report).unwrap_or_default();
    let (mut rules, mut fields) = (Vec::new(), Vec::new());
    let rows = match node.get("from") {
        Some(from) => {
            closed(node, "table", &["from", "grace"], report);
            let file = from.text().unwrap_or_default();
            match rows::read(file, files) {
                Ok(rows) => Some(TableRows::Given(rows)),
                Err(message) => {
                    report.add(Code::TableFile, from.place, message);
                    None
                }
            }
        }
        None => derived(node, taxonomy, &mut rules, &mut fields, report),
    };
    if report.errors() > before {
        return None;
    }
    let table = Table { name, title, digest: String::new(), rows: rows?, grace };
    Some(Draft { table, rules, place: document.place, fields, bounded: node.get("max_open").is_some() })
}

fn derived(
    node: &Node,
    taxonomy: Taxonomy,
    rules: &mut Vec<(String, Place)>,
    fields: &mut Vec<(String, Place)>,
    report: &mut Report<'_>,
) -> Option<TableRows> {
    closed(node, "table", &["key", "open", "close", "columns", "grace", "max_open", "retain", "from"], report);
    let key = texts(node, "key", report);
    let open = texts(node, "open", report);
    let close = texts(node, "close", report);
    for (name, found) in [("key", &key), ("open", &open)] {
        if found.is_empty() {
            report.add(Code::MissingKey, node.place, format!("the table has no `{name}`"));
        }
    }
    let mut columns = BTreeMap::new();
    match node.get("columns").map(|found| (found, found.map())) {
        Some((_, Some(entries))) if entries.len() <= COLUMNS_MAX => {
            for (column, field) in entries {
                match field.text().filter(|field| !field.is_empty()) {
                    Some(name) => {
                        fields.push((name.to_owned(), field.place));
                        columns.insert(column.text.clone(), name.to_owned());
                    }
                    None => report.add(Code::WrongType, field.place, "a column is filled from a field, by its name"),
                }
            }
        }
        Some((found, _)) => {
            let message = format!("`columns` maps up to {COLUMNS_MAX} names to fields of the event that opens the row");
            report.add(Code::WrongType, found.place, message);
        }
        None => report.add(Code::MissingKey, node.place, "the table has no `columns`"),
    }
    fields.extend(key.iter().cloned());
    let max_open = duration_of(node, "max_open", report).unwrap_or(MAX_OPEN);
    let retain = duration_of(node, "retain", report).unwrap_or(RETAIN);
    if max_open.is_zero() {
        report.add(Code::TableUse, node.place, "with a `max_open` of nothing no row ever holds");
    }
    let names = |found: &[(String, Place)]| found.iter().map(|(name, _)| name.clone()).collect();
    let rows = TableRows::Derived {
        key: names(&key),
        open: names(&open),
        close: names(&close),
        columns,
        max_open,
        retain,
        taxonomy,
    };
    rules.extend(open.into_iter().chain(close));
    Some(rows)
}
