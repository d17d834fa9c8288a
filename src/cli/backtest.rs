//! `pipeproof backtest`: through the server that has the data, or straight from a folder that none has.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use pipeproof_ingest::enrich::AddressFiles;
use pipeproof_record::lake::Snapshot;
use pipeproof_rules::read_folder;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::arguments::{BacktestOptions, Format};
use super::{Failure, show};
use crate::backtest::{self, Change, Line, Summary, Told};
use crate::client::{Client, ClientError, Place};
use crate::http::backtest::{BacktestBody, RuleTexts};
use crate::node::{ADDRESS_FILES, NodeError, lock};

pub(super) async fn backtest(options: &BacktestOptions, place: &Place, format: Option<Format>) -> Result<(), Failure> {
    if options.from >= options.to {
        return Err(Failure::Usage("--from must be before --to".to_owned()));
    }
    let in_force = options.rules.is_empty() || options.rules.iter().any(|path| path.as_os_str() == "live");
    let live = options.against.iter().any(|path| path.as_os_str() == "live");
    if (live && options.against.len() > 1) || (in_force && options.rules.len() > 1) {
        return Err(Failure::Usage("--rules and --against are either `live` or files and folders".to_owned()));
    }
    let body = BacktestBody {
        rules: if in_force { None } else { Some(texts(&options.rules)?) },
        against: if live { None } else { Some(texts(&options.against)?) },
        from: options.from,
        to: options.to,
        warm_up_secs: options.warm_up.map(|span| span.as_secs()),
    };
    let mut output = Output::new(format);
    match Client::running(place).await? {
        Some(client) => {
            let each = |line: &[u8]| {
                let line = serde_json::from_slice(line).map_err(|error| ClientError::Answer(error.to_string()))?;
                output.take(line);
                Ok(())
            };
            client.lines("/v1/backtest", &body, each).await?;
        }
        None => output = offline(body, &place.data, output).await?,
    }
    output.finish()
}

/// Over a folder that no server has: the lake alone is read, and nothing is written.
async fn offline(body: BacktestBody, data: &Path, mut output: Output) -> Result<Output, Failure> {
    if !data.join("lake").is_dir() {
        return Err(Failure::Usage(format!("{} is not a data folder: it has no lake", data.display())));
    }
    // Nobody may start writing meanwhile.
    let _lock = lock(data)?;
    let mut request = body.compile(&data.join("rules")).map_err(|error| Failure::Usage(crate::chain(&error)))?;
    request.offline = true;
    let lake = Snapshot::read_only(&data.join("lake")).await.map_err(NodeError::part("open the lake"))?;
    let addresses = AddressFiles::new(data.join(ADDRESS_FILES));
    let handle = Handle::current();
    let work = move || {
        let mut tell = |line: Line| {
            output.take(line);
            output.failed.is_none()
        };
        let done = backtest::run(&lake, addresses, &request, &handle, &mut tell);
        (output, done.map(drop))
    };
    let (output, done) = tokio::task::spawn_blocking(work).await.map_err(NodeError::part("run a backtest"))?;
    done?;
    Ok(output)
}

/// Everything the rules in these files and folders are made of. Several may hold files of the same name.
fn texts(paths: &[PathBuf]) -> Result<RuleTexts, Failure> {
    let mut texts = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let files = read_folder(path).map_err(|error| Failure::Usage(crate::chain(&error)))?;
        let own = |(name, text)| if paths.len() == 1 { (name, text) } else { (format!("{}/{name}", number + 1), text) };
        texts.extend(files.into_iter().map(own));
    }
    Ok(texts)
}

/// Writes what a backtest tells.
struct Output {
    format: Format,
    asked: Option<Format>,
    bar: bool,
    rows: Vec<Value>,
    summary: Option<Summary>,
    error: Option<String>,
    failed: Option<Failure>,
}

impl Output {
    fn new(asked: Option<Format>) -> Self {
        let bar = io::stderr().is_terminal();
        let format = show::format(asked);
        Self { format, asked, bar, rows: Vec::new(), summary: None, error: None, failed: None }
    }

    fn take(&mut self, line: Line) {
        let taken = match line {
            Line::Progress { done, total } => self.progress(done, total),
            Line::Error(error) => {
                self.error = Some(error);
                Ok(())
            }
            Line::Summary(summary) => {
                self.summary = Some(summary);
                Ok(())
            }
            Line::Finding(told) => self.finding(&told),
        };
        if let Err(failure) = taken {
            self.failed.get_or_insert(failure);
        }
    }

    fn finding(&mut self, told: &Told) -> Result<(), Failure> {
        self.clear();
        let mark = match told.change {
            Change::Identical => "  ",
            Change::Added => "+ ",
            Change::Removed => "- ",
        };
        let row = serde_json::to_value(told).unwrap_or_default();
        match self.format {
            Format::Human => {
                let level = told.rule.get("level").and_then(Value::as_str).unwrap_or_default();
                show::plain(&format!("{mark}{} {level:<13} {} {}", told.time, told.title, told.id))
            }
            // As they come: a stream has no end to wait for.
            Format::Jsonl => show::line(&row.to_string()),
            Format::Json | Format::Csv | Format::Junit => {
                self.rows.push(row);
                Ok(())
            }
        }
    }

    /// One line on a terminal that is written over.
    fn progress(&self, done: u64, total: u64) -> Result<(), Failure> {
        const WIDTH: u64 = 30;
        if !self.bar {
            return Ok(());
        }
        let filled = usize::try_from(done.min(total) * WIDTH / total.max(1)).unwrap_or(0);
        let mut stderr = io::stderr().lock();
        let bar = format!("\r[{:<30}] {done} of {total} records ", "#".repeat(filled));
        let written = stderr.write_all(bar.as_bytes()).and_then(|()| stderr.flush());
        written.map_err(|source| Failure::Io { doing: "show progress".to_owned(), source })
    }

    fn clear(&self) {
        if self.bar {
            let mut stderr = io::stderr().lock();
            // If stderr is gone there is nobody to tell.
            let _gone = write!(stderr, "\r{:70}\r", "");
        }
    }

    fn finish(self) -> Result<(), Failure> {
        self.clear();
        if let Some(failure) = self.failed {
            return Err(failure);
        }
        if let Some(error) = self.error {
            return Err(Failure::Other(error));
        }
        let summary = self.summary.ok_or_else(|| Failure::Other("the backtest ended without a summary".to_owned()))?;
        let line = summary.line();
        match self.format {
            Format::Human => show::plain(&line)?,
            Format::Jsonl => {
                show::line(&json!({ "summary": summary }).to_string())?;
                show::diagnostic(&line);
            }
            Format::Csv => {
                let columns = ["change", "time", "rule.level", "rule.title", "title", "id"];
                show::rows(&self.rows, &columns, self.asked)?;
                show::diagnostic(&line);
            }
            Format::Json | Format::Junit => {
                show::object(&json!({ "findings": self.rows, "summary": summary }), self.asked)?;
                show::diagnostic(&line);
            }
        }
        show::diagnostic(&format!(
            "{} records, {} events, {:.0} records/s",
            summary.records, summary.events, summary.records_per_second
        ));
        if summary.other_version > 0 {
            show::diagnostic(&format!(
                "{} of the identical are by another version of their rule: same rule, key and event",
                summary.other_version
            ));
        }
        if summary.not_compared > 0 {
            show::diagnostic(&format!(
                "{} findings of the live run are by rules that are not among these, and were not compared",
                summary.not_compared
            ));
        }
        summary.notes.iter().for_each(|note| show::diagnostic(note));
        Ok(())
    }
}
