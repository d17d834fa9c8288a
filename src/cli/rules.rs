//! `check`, `test`, `eval` and `explain`: the rule language and the engine without a server.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pipeproof_engine::clock::{Clock, SystemClock};
use pipeproof_engine::control::{Control, OWN_SOURCE};
use pipeproof_engine::detect::{Decoded, Detector};
use pipeproof_engine::event::Event;
use pipeproof_engine::finding::Finding;
use pipeproof_engine::json::Json;
use pipeproof_engine::plan::Routing;
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Position, RECORD_BYTES_MAX, Record};
use pipeproof_engine::rule::Level;
use pipeproof_engine::source::{Logsource, SourceType};
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::decode::decode;
use pipeproof_rules::{Severity, run_tests};
use serde_json::{Value, json};

use super::arguments::{EvalOptions, ExplainOptions, Format, RuleFiles};
use super::{Failure, show};
use crate::rule_set;

/// Lines evaluated at once.
const BATCH: usize = 4_096;

fn read(paths: &[PathBuf]) -> Result<pipeproof_rules::RuleSet, Failure> {
    // Without any path, the shipped rules are meant.
    rule_set::read(paths.is_empty(), paths).map_err(|error| Failure::Usage(crate::chain(&error)))
}

pub(super) fn check(options: &RuleFiles, format: Option<Format>) -> Result<(), Failure> {
    let (configurations, rules): (Vec<PathBuf>, Vec<PathBuf>) =
        options.paths.iter().cloned().partition(|path| is_configuration(path));
    for path in &configurations {
        crate::config::Config::load(path).map_err(|error| Failure::Usage(crate::chain(&error)))?;
        show::diagnostic(&format!("{}: the configuration is valid", path.display()));
    }
    if rules.is_empty() && !configurations.is_empty() {
        return Ok(());
    }
    let set = read(&rules)?;
    if format.is_some_and(|format| format != Format::Human) {
        let rows: Vec<Value> =
            set.diagnostics.iter().filter_map(|problem| serde_json::to_value(problem).ok()).collect();
        show::rows(&rows, &["severity", "code", "file", "place.line", "place.column", "message", "help"], format)?;
    } else {
        for problem in &set.diagnostics {
            show::plain(&problem.render(set.text(&problem.file).unwrap_or_default()))?;
        }
    }
    let errors = set.diagnostics.iter().filter(|problem| problem.severity == Severity::Error).count();
    let others = set.diagnostics.len() - errors;
    show::diagnostic(&format!("{} rules, {errors} errors, {others} warnings", set.rules.len()));
    if errors > 0 { Err(Failure::Usage("the rules have errors".to_owned())) } else { Ok(()) }
}

/// Whether a file is a configuration by its name: `pipeproof.yaml`, `pipeproof.yml` or `ANYTHING.pipeproof.yaml`.
fn is_configuration(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
        let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml"));
        stem.is_some_and(|stem| stem == "pipeproof" || stem.ends_with(".pipeproof"))
    })
}

pub(super) fn test(options: &RuleFiles, format: Option<Format>) -> Result<(), Failure> {
    let set = read(&options.paths)?;
    if set.has_errors() {
        return Err(Failure::Usage(format!("the rules have errors:\n{}", rule_set::problems(&set))));
    }
    let outcomes = run_tests(&set);
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    match show::format(format) {
        Format::Junit => show::line(&junit(&outcomes, failed))?,
        Format::Human => {
            for outcome in &outcomes {
                let mark = if outcome.passed { "ok    " } else { "FAILED" };
                show::plain(&format!("{mark} {}:{} {} / {}", outcome.file, outcome.line, outcome.title, outcome.name))?;
                if let Some(message) = &outcome.message {
                    show::plain(&format!("         {message}"))?;
                }
            }
            show::plain(&format!("{} passed, {failed} failed", outcomes.len() - failed))?;
        }
        Format::Json | Format::Jsonl | Format::Csv => {
            let rows: Vec<Value> = outcomes.iter().filter_map(|outcome| serde_json::to_value(outcome).ok()).collect();
            show::rows(&rows, &["passed", "file", "line", "title", "name", "message"], format)?;
        }
    }
    if failed > 0 { Err(Failure::Found) } else { Ok(()) }
}

fn junit(outcomes: &[pipeproof_rules::TestOutcome], failed: usize) -> String {
    let escape = |text: &str| {
        show::visible(text, false)
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;")
    };
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"pipeproof rules\" tests=\"{}\" failures=\"{failed}\">\n",
        outcomes.len()
    );
    for outcome in outcomes {
        xml.push_str(&format!(
            "  <testcase classname=\"{}\" name=\"{}\" file=\"{}\" line=\"{}\"",
            escape(&outcome.title),
            escape(&outcome.name),
            escape(&outcome.file),
            outcome.line
        ));
        match &outcome.message {
            Some(message) => xml.push_str(&format!("><failure message=\"{}\"/></testcase>\n", escape(message))),
            None => xml.push_str("/>\n"),
        }
    }
    xml.push_str("</testsuite>");
    xml
}

/// How the lines of an evaluation become events.
enum Reading {
    /// As this source type decodes them.
    Source(SourceType),
    /// As what they look like.
    Recognised,
}

pub(super) fn eval(options: &EvalOptions) -> Result<(), Failure> {
    let fail_on = options.fail_on.as_deref().map(level).transpose()?;
    let rules = rule_set::compile(read(&options.rules)?).map_err(|error| Failure::Usage(crate::chain(&error)))?;
    let source = options.source.as_deref().map(source_type).transpose()?;
    let reading = source.map_or(Reading::Recognised, Reading::Source);
    let routing = match &options.logsource {
        _ if options.no_routing => Routing::Unrouted,
        Some(text) => Routing::ByLogsource(logsource(text)),
        None if source.is_some() => Routing::BySource,
        None => Routing::Recognised,
    };
    let count = rules.plan.rules().len();
    let mut run = Evaluation {
        // A file is whole: what it does not say did not happen.
        detector: Detector::new(rules.plan, 0).with_routing(routing).trusting_silence().without_deltas(),
        reading,
        batch: Vec::new(),
        next: 0,
        lines: 0,
        bytes: 0,
        worst: None,
        skipped: 0,
        now: SystemClock.now(),
    };
    // The clock of statistics, not of detection.
    let started = Instant::now();
    if options.events.is_empty() {
        run.read(&mut io::stdin().lock())?;
    }
    for path in &options.events {
        if path.as_os_str() == "-" {
            run.read(&mut io::stdin().lock())?;
        } else {
            let file =
                File::open(path).map_err(|source| Failure::Io { doing: format!("read {}", path.display()), source })?;
            run.read(&mut BufReader::new(file))?;
        }
    }
    run.finish()?;
    if options.stats {
        let secs = started.elapsed().as_secs_f64().max(1e-9);
        let (lines, bytes) = (run.lines as f64, run.bytes as f64);
        show::diagnostic(&format!(
            "{} events, {:.0} events/s, {:.1} MB/s, {count} rules, {} lines skipped",
            run.lines,
            lines / secs,
            bytes / secs / 1e6,
            run.skipped
        ));
    }
    match (fail_on, run.worst) {
        (Some(limit), Some(worst)) if worst >= limit => Err(Failure::Found),
        _ => Ok(()),
    }
}

struct Evaluation {
    detector: Detector,
    reading: Reading,
    batch: Vec<Decoded>,
    next: u64,
    lines: u64,
    bytes: u64,
    skipped: u64,
    worst: Option<Level>,
    now: Timestamp,
}

impl Evaluation {
    fn read(&mut self, input: &mut dyn BufRead) -> Result<(), Failure> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = RECORD_BYTES_MAX as u64;
            let read = (&mut *input).take(limit).read_until(b'\n', &mut line);
            let read = read.map_err(|source| Failure::Io { doing: "read events".to_owned(), source })?;
            if read == 0 {
                return Ok(());
            }
            if read as u64 == limit && line.last() != Some(&b'\n') {
                // Longer than a record may be: the rest of the line goes by unread.
                skip_line(input)?;
                self.lines += 1;
                self.skip("longer than 1 MiB");
                continue;
            }
            self.lines += 1;
            self.bytes += read as u64;
            let text = line.trim_ascii();
            if !text.is_empty() {
                self.push(Bytes::copy_from_slice(text))?;
            }
        }
    }

    fn skip(&mut self, why: &str) {
        self.skipped += 1;
        show::diagnostic(&format!("line {}: {why}", self.lines));
    }

    fn push(&mut self, body: Bytes) -> Result<(), Failure> {
        let source_type = match self.reading {
            Reading::Source(source_type) => source_type,
            Reading::Recognised => recognise(&body),
        };
        let record = Record {
            envelope: Envelope {
                source: source_type.name().to_owned(),
                source_type,
                received: self.now,
                auth: Authenticity::Bearer,
                key_id: None,
                item: format!("id:line-{}", self.lines),
                // As it happened, so that rules that learn find something; the order of its own times decides, since
                // the one tick comes at the end.
                mode: CollectionMode::Live,
                attributes: std::collections::BTreeMap::new(),
                redacted: Vec::new(),
            },
            salt: [0; 16],
            body,
        };
        let position = Position { partition: 0, index: self.lines };
        match decode(position, &record) {
            Ok(events) => self.batch.push(Decoded { index: self.lines, record, events: Ok(events) }),
            Err(error) => self.skip(&error.to_string()),
        }
        self.next = self.lines + 1;
        if self.batch.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.batch);
        let commit = self.detector.apply(batch, self.now).map_err(|error| Failure::Other(crate::chain(&error)))?;
        for finding in &commit.findings {
            self.worst = self.worst.max(Some(finding.level));
            show::line(&in_short(finding).to_string())?;
        }
        Ok(())
    }

    /// The end of the file is the end of history: ticks let every window that is still open be decided.
    fn finish(&mut self) -> Result<(), Failure> {
        // Far enough for every lateness, every window, and for events whose clocks ran ahead.
        for days in [3_650, 3_651] {
            let now = self.now.plus(std::time::Duration::from_secs(days * 86_400));
            let tick = Control::Tick {};
            let record = Record {
                envelope: Envelope {
                    source: OWN_SOURCE.to_owned(),
                    source_type: SourceType::Pipeproof,
                    received: now,
                    auth: Authenticity::Own,
                    key_id: None,
                    item: format!("id:end-{days}"),
                    mode: CollectionMode::Live,
                    attributes: std::collections::BTreeMap::new(),
                    redacted: Vec::new(),
                },
                salt: [0; 16],
                body: Bytes::from(serde_json::to_vec(&tick).unwrap_or_default()),
            };
            self.batch.push(Decoded { index: self.next + days, record, events: Ok(Vec::new()) });
        }
        self.flush()?;
        written(io::stdout().lock().flush())
    }
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(source) => Err(Failure::Io { doing: "write findings".to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

fn skip_line(input: &mut dyn BufRead) -> Result<(), Failure> {
    loop {
        let failed = |source| Failure::Io { doing: "read events".to_owned(), source };
        let (used, done) = {
            let buffer = input.fill_buf().map_err(failed)?;
            match buffer.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            }
        };
        input.consume(used);
        if done {
            return Ok(());
        }
    }
}

/// A finding as `eval` writes it: `line` is 1-based.
fn in_short(finding: &Finding) -> Value {
    let events: Vec<Value> = finding
        .events
        .iter()
        .map(|event| {
            let line = event.id.split('-').nth(1).and_then(|line| line.parse::<u64>().ok());
            json!({ "line": line, "id": event.id })
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

/// The source type an event looks like; `json` where it looks like none.
fn recognise(body: &[u8]) -> SourceType {
    let Ok(json) = Json::parse(body) else { return SourceType::Json };
    let text = |name: &str| json.at(&[name]).and_then(|value| value.as_str().map(str::to_owned));
    let has = |name: &str| json.at(&[name]).is_some();
    if has("eventSource") && has("eventName") && has("eventVersion") {
        SourceType::AwsCloudtrail
    } else if text("apiVersion").is_some_and(|version| version.starts_with("audit.k8s.io/")) {
        SourceType::KubernetesAudit
    } else if text("mediaType").is_some_and(|media| media.starts_with("application/vnd.dev.sigstore.bundle")) {
        SourceType::SigstoreBundle
    } else if has("request")
        && has("auth")
        && has("time")
        && text("type").is_some_and(|kind| matches!(&*kind, "request" | "response"))
    {
        SourceType::VaultAudit
    } else {
        SourceType::Json
    }
}

fn level(text: &str) -> Result<Level, Failure> {
    serde_json::from_value(text.into()).map_err(|_| {
        Failure::Usage(format!("unknown level `{text}` (known: informational, low, medium, high, critical)"))
    })
}

fn source_type(text: &str) -> Result<SourceType, Failure> {
    text.parse().map_err(|error: pipeproof_engine::source::UnknownSourceType| Failure::Usage(error.to_string()))
}

/// `product/service`; either may be left empty.
fn logsource(text: &str) -> Logsource {
    let (product, service) = text.split_once('/').unwrap_or((text, ""));
    let part = |text: &str| (!text.is_empty() && text != "*").then(|| text.to_lowercase());
    Logsource { product: part(product), service: part(service), category: None }
}

pub(super) fn explain(options: &ExplainOptions, format: Option<Format>) -> Result<(), Failure> {
    let mut paths = options.rules.clone();
    let as_file = Path::new(&options.rule);
    if as_file.exists() {
        paths.push(as_file.to_owned());
    }
    let rules = rule_set::compile(read(&paths)?).map_err(|error| Failure::Usage(crate::chain(&error)))?;
    let wanted = |meta: &pipeproof_engine::rule::RuleMeta| {
        meta.id == options.rule || meta.name.as_deref() == Some(&*options.rule) || as_file.exists()
    };
    let numbers: Vec<usize> = rules
        .plan
        .rules()
        .iter()
        .enumerate()
        .filter(|(_, rule)| wanted(rule.meta()))
        .map(|(number, _)| number)
        .collect();
    if numbers.is_empty() {
        return Err(Failure::Usage(format!("there is no rule with id, name or file `{}`", options.rule)));
    }
    let mut text = Vec::new();
    let limit = RECORD_BYTES_MAX as u64;
    let path = options.event.display().to_string();
    let read = if path == "-" {
        io::stdin().lock().take(limit).read_to_end(&mut text)
    } else {
        File::open(&options.event).and_then(|file| file.take(limit).read_to_end(&mut text))
    };
    read.map_err(|source| Failure::Io { doing: format!("read {path}"), source })?;
    let events = one_event(Bytes::from(text), options.source.as_deref())?;
    let mut matched = false;
    for event in &events {
        for number in &numbers {
            let explanation = Arc::clone(&rules.plan).explain(*number, event);
            let title = rules.plan.rules().get(*number).map_or("", |rule| rule.meta().title.as_str());
            matched |= explanation.matched;
            if show::format(format) == Format::Human {
                let verdict = if explanation.matched { "matches" } else { "does not match" };
                show::plain(&format!("{title}: {verdict}"))?;
                for clause in &explanation.clauses {
                    show::plain(&format!("  {} {}", if clause.held { "yes" } else { "no " }, clause.text))?;
                }
            } else {
                show::object(
                    &json!({ "rule": title, "event": event.id.to_string(), "explanation": explanation }),
                    format,
                )?;
            }
        }
    }
    if matched { Ok(()) } else { Err(Failure::Found) }
}

fn one_event(body: Bytes, source: Option<&str>) -> Result<Vec<Event>, Failure> {
    let body = Bytes::copy_from_slice(body.trim_ascii());
    let source_type = match source {
        Some(name) => source_type(name)?,
        None => recognise(&body),
    };
    let record = Record {
        envelope: Envelope {
            source: source_type.name().to_owned(),
            source_type,
            received: SystemClock.now(),
            auth: Authenticity::Bearer,
            key_id: None,
            item: "id:1".to_owned(),
            mode: CollectionMode::Backfill,
            attributes: std::collections::BTreeMap::new(),
            redacted: Vec::new(),
        },
        salt: [0; 16],
        body,
    };
    decode(Position::default(), &record)
        .map_err(|error| Failure::Usage(format!("the event cannot be decoded: {error}")))
}
