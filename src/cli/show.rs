//! Writing results: tables for people, JSON and CSV for programs. Control characters of event text never reach a terminal.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use super::Failure;
use super::arguments::Format;

/// A line on stderr.
pub(crate) fn diagnostic(text: &str) {
    let mut stderr = io::stderr().lock();
    // If stderr is gone there is nobody to tell.
    let _gone = writeln!(stderr, "{}", visible(text, true));
}

/// A line on stdout.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    written(writeln!(stdout, "{text}"))
}

/// A line on stdout for people: without control characters.
pub(crate) fn plain(text: &str) -> Result<(), Failure> {
    line(&visible(text, true))
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        // Who closed the pipe has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(source) => Err(Failure::Io { doing: "write the result".to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

/// The format in force: what was asked for, or people's on a terminal and JSON elsewhere.
pub(crate) fn format(asked: Option<Format>) -> Format {
    asked.unwrap_or_else(|| if io::stdout().is_terminal() { Format::Human } else { Format::Json })
}

/// Rows of objects: as a table with the given columns, or whole.
pub(crate) fn rows(rows: &[Value], columns: &[&str], asked: Option<Format>) -> Result<(), Failure> {
    match format(asked) {
        Format::Json | Format::Junit => line(&serde_json::to_string_pretty(rows).unwrap_or_default()),
        Format::Jsonl => rows.iter().try_for_each(|row| line(&row.to_string())),
        Format::Csv => {
            line(&columns.join(","))?;
            rows.iter().try_for_each(|row| csv_row(row, columns))
        }
        Format::Human => table(rows, columns),
    }
}

/// One row of CSV.
pub(crate) fn csv_row(row: &Value, columns: &[&str]) -> Result<(), Failure> {
    let cells: Vec<String> = columns.iter().map(|column| quoted(&cell(row, column))).collect();
    line(&cells.join(","))
}

/// One object.
pub(crate) fn object(value: &Value, asked: Option<Format>) -> Result<(), Failure> {
    match format(asked) {
        Format::Jsonl => line(&value.to_string()),
        Format::Human | Format::Json | Format::Csv | Format::Junit => {
            line(&serde_json::to_string_pretty(value).unwrap_or_default())
        }
    }
}

fn table(rows: &[Value], columns: &[&str]) -> Result<(), Failure> {
    const WIDTH_MAX: usize = 72;
    let body: Vec<Vec<String>> = rows
        .iter()
        .map(|row| columns.iter().map(|column| shorten(&visible(&cell(row, column), false), WIDTH_MAX)).collect())
        .collect();
    let mut widths: Vec<usize> = columns.iter().map(|column| column.chars().count()).collect();
    for row in &body {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let write = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line(padded.join("  ").trim_end())
    };
    write(&mut columns.iter().copied())?;
    for row in &body {
        write(&mut row.iter().map(String::as_str))?;
    }
    Ok(())
}

/// The text of `a.b` in an object.
pub(crate) fn cell(row: &Value, column: &str) -> String {
    let value = column.split('.').try_fold(row, |value, name| value.get(name));
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(" "),
        Some(other) => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    // A cell that starts like a formula is one to a spreadsheet.
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width - 1).collect();
    short.push('…');
    short
}

/// Without control characters, and without marks that turn the direction of text.
pub(crate) fn visible(text: &str, keep_lines: bool) -> String {
    let hidden = |char: char| {
        (char.is_control() && !(keep_lines && matches!(char, '\n' | '\t')))
            || matches!(char, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|char| if hidden(char) { '\u{fffd}' } else { char }).collect()
}
