//! Findings as `eval` writes them.

use std::io::{self, Write};

use pipeproof_engine::finding::Finding;
use pipeproof_engine::rule::Level;
use serde_json::{Value, json};

use super::super::arguments::Format;
use super::super::show;
use super::{FILE_SHIFT, Failure};

/// Where findings go.
#[derive(Default)]
pub(super) struct Output {
    format: Option<Format>,
    pub(super) files: Vec<String>,
    /// Findings of an array, which is written at the end.
    all: Vec<Value>,
    pub(super) worst: Option<Level>,
}

const COLUMNS: [&str; 7] = ["time", "level", "title", "key", "events", "rule", "id"];

impl Output {
    pub(super) fn new(format: Option<Format>, files: Vec<String>) -> Result<Self, Failure> {
        match format {
            Some(Format::Junit) => return Err(Failure::Usage("findings have no JUnit form".to_owned())),
            Some(Format::Csv) => show::line(&COLUMNS.join(","))?,
            _ => {}
        }
        Ok(Self { format, files, ..Self::default() })
    }

    pub(super) fn write(&mut self, finding: &Finding) -> Result<(), Failure> {
        self.worst = self.worst.max(Some(finding.level));
        match self.format {
            None | Some(Format::Jsonl) => show::line(&self.in_short(finding).to_string()),
            Some(Format::Json | Format::Junit) => {
                let short = self.in_short(finding);
                self.all.push(short);
                Ok(())
            }
            Some(Format::Human) => {
                let key: Vec<String> = finding.key.iter().map(|(name, value)| format!("{name}={value}")).collect();
                show::plain(&format!(
                    "{} {:<13} {}  {}",
                    finding.time,
                    finding.level.name(),
                    finding.title,
                    key.join(" ")
                ))?;
                finding.because.iter().try_for_each(|reason| show::plain(&format!("    {reason}")))
            }
            Some(Format::Csv) => {
                let short = self.in_short(finding);
                let row = json!({
                    "time": finding.time, "level": finding.level, "title": finding.title, "key": short["key"],
                    "events": short["events"], "rule": finding.rule_id, "id": finding.id,
                });
                show::csv_row(&row, &COLUMNS)
            }
        }
    }

    pub(super) fn end(&mut self) -> Result<(), Failure> {
        if matches!(self.format, Some(Format::Json | Format::Junit)) {
            show::line(&serde_json::to_string_pretty(&self.all).unwrap_or_default())?;
        }
        match io::stdout().lock().flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(source) => Err(Failure::Io { doing: "write findings".to_owned(), source }),
            Ok(()) => Ok(()),
        }
    }

    /// A finding as `eval` writes it: `line` is 1-based; of several files, each event says which.
    fn in_short(&self, finding: &Finding) -> Value {
        let events: Vec<Value> = finding
            .events
            .iter()
            .map(|event| {
                let index = event.id.split('-').nth(1).and_then(|index| index.parse::<u64>().ok());
                let line = index.map(|index| index & ((1 << FILE_SHIFT) - 1));
                let file = index.and_then(|index| self.files.get(usize::try_from(index >> FILE_SHIFT).ok()?));
                match file.filter(|_| self.files.len() > 1) {
                    Some(file) => json!({ "file": file, "line": line, "id": event.id }),
                    None => json!({ "line": line, "id": event.id }),
                }
            })
            .collect();
        json!({
            "id": finding.id,
            "rule": { "id": finding.rule_id, "title": finding.rule_title, "level": finding.level },
            "time": finding.time,
            "key": finding.key,
            "events": events,
            "because": finding.because,
        })
    }
}
