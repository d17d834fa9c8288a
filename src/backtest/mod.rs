//! A backtest: stored records once more through decoder and detector, with other rules or the same, and what that finds
//! against what the live run found. It writes nothing.
//!
//! Every record of the log is replayed in its order, control records among them: ticks, sources and steps of people mean the
//! same as then, and address files are those that were in force. Repetitions are not in the lake and count for nothing, as
//! live. Only findings whose time lies in the period asked for are told, but what came before it is replayed as well: state
//! reaches back as far as rules remember (windows, quiet times, first sightings), so by default a replay begins where the log
//! does. With the same binary and rules its finding ids are the live run's.

mod asked;
mod compare;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use pipeproof_engine::control::{Control, OWN_SOURCE};
use pipeproof_engine::detect::{Decoded, Detector};
use pipeproof_engine::finding::Finding;
use pipeproof_engine::plan::{Content, Plan};
use pipeproof_engine::record::{Authenticity, Position, Record};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::enrich::{AddressFiles, Decoder, History};
use pipeproof_record::lake::{Records, Skip, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;

use self::asked::SqlRuns;
use self::compare::Comparison;
use crate::config::ITEMS_IN_MEMORY;
use crate::node::{NodeError, PARTITION};
use crate::roles::by_set;
use crate::rules::kept_plan;

/// Records evaluated at once.
const BATCH_RECORDS: usize = 2_048;
/// Bytes of bodies evaluated at once.
const BATCH_BYTES: usize = 8 << 20;
/// Batches that are decoded ahead.
const BATCHES_AHEAD: usize = 3;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// How the records of a start and of a stop begin.
const STARTED: &[u8] = br#"{"kind":"started""#;
const STOPPED: &[u8] = br#"{"kind":"stopped""#;

/// Which rules a replay runs.
pub(crate) enum Deciding {
    /// These, from beginning to end.
    Fixed(Arc<Plan>),
    /// At each record the set that was in force there; sets are kept in this folder.
    InForce(PathBuf),
}

/// What is compared with what.
pub(crate) struct Request {
    /// The rules on trial.
    pub(crate) rules: Deciding,
    /// The rules they are compared with; without any, what the live run found.
    pub(crate) against: Option<Arc<Plan>>,
    /// Findings of this period are told, by their own time: from here …
    pub(crate) from: Timestamp,
    /// … up to, not including, here.
    pub(crate) to: Timestamp,
    /// How far before `from` the replay begins; without it, where the log does.
    pub(crate) warm_up: Option<Duration>,
    /// Nobody has the folder: what its last server did not archive is not replayed.
    pub(crate) offline: bool,
}

/// How a finding of the rules on trial relates to those it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    /// Both have it: under the same id, or under the same rule, key and event where the rule has another version.
    Identical,
    /// Only the rules on trial find it.
    Added,
    /// Only the other side has it.
    Removed,
}

/// What a backtest tells while it runs, one JSON line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Line {
    /// How far it is.
    Progress { done: u64, total: u64 },
    /// A finding.
    Finding(Box<Told>),
    /// The end.
    Summary(Summary),
    /// It failed.
    Error(String),
}

/// A finding as it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) change: Change,
    pub(crate) id: String,
    pub(crate) rule: Value,
    pub(crate) time: Timestamp,
    pub(crate) title: String,
    pub(crate) key: BTreeMap<String, String>,
    pub(crate) events: Vec<String>,
    pub(crate) because: Vec<String>,
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) identical: u64,
    pub(crate) added: u64,
    pub(crate) removed: u64,
    /// Those among the identical whose rule has another version.
    pub(crate) other_version: u64,
    /// Findings of the live run by rules that are not on trial; not compared.
    pub(crate) not_compared: u64,
    /// Findings of the live run that rest on redacted records; not compared.
    #[serde(default)]
    pub(crate) redacted: u64,
    pub(crate) records: u64,
    pub(crate) events: u64,
    pub(crate) dead_letters: u64,
    /// Records this version cannot read; left out, as live.
    pub(crate) unreadable: u64,
    pub(crate) seconds: f64,
    pub(crate) records_per_second: f64,
    /// What a reader should know before relying on the comparison.
    pub(crate) notes: Vec<String>,
}

impl Summary {
    /// The one line that says it.
    pub(crate) fn line(&self) -> String {
        format!("identical: {}, added: {}, removed: {}", self.identical, self.added, self.removed)
    }
}

/// Whoever listens; false ends the backtest.
pub(crate) type Tell<'a> = dyn FnMut(Line) -> bool + 'a;

/// Runs a backtest over a snapshot of the lake. Blocks; `handle` is the runtime its queries run on.
///
/// # Errors
/// [`NodeError`] if the lake cannot be read, or the state cannot be carried on.
pub(crate) fn run(
    lake: &Snapshot,
    addresses: AddressFiles,
    request: &Request,
    handle: &Handle,
    tell: &mut Tell<'_>,
) -> Result<Summary, NodeError> {
    let started = Instant::now();
    let mut comparison = Comparison::new(lake, request)?;
    let mut trial = Replay::new(&request.rules, request, lake, handle)?;
    let against = request.against.clone().map(Deciding::Fixed);
    let mut other = match &against {
        Some(rules) => Some(Replay::new(rules, request, lake, handle)?),
        None => None,
    };
    let mut summary = Summary::default();
    let total = lake.records_end();
    let begin = request.warm_up.map(|span| request.from.minus(span));
    if let Some(begin) = begin {
        summary.notes.push(format!(
            "the replay began with what was received on {}; findings that rest on earlier records may differ",
            begin.date()
        ));
    }
    let batches = decoded(lake, addresses, begin)?;
    let mut told = Instant::now();
    let mut in_order = true;
    for batch in batches {
        let Batch { records, unreadable } = batch?;
        summary.unreadable += unreadable;
        summary.records += records.len() as u64;
        let done = records.last().map_or(0, |last| last.index + 1);
        for record in records.iter().filter(|record| is_own(&record.record)) {
            in_order = match &record.record.body {
                body if body.starts_with(STARTED) => false,
                body if body.starts_with(STOPPED) => true,
                _ => in_order,
            };
        }
        if let Some(other) = &mut other {
            for finding in other.apply(records.clone(), &mut Summary::default())? {
                comparison.other(finding, tell);
            }
        }
        for finding in trial.apply(records, &mut summary)? {
            if !comparison.trial(finding, tell) {
                return Err(stopped());
            }
        }
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            if !tell(Line::Progress { done, total }) {
                return Err(stopped());
            }
        }
    }
    tell(Line::Progress { done: total, total });
    if request.offline && !in_order {
        summary.notes.push(format!(
            "the last server on this folder did not stop in order: records after {total} may not be in the lake yet, and are \
             not part of this; starting it once puts them there"
        ));
    }
    let without = comparison.redacted_records();
    if without > 0 {
        summary.notes.push(format!(
            "{without} records were redacted and are not part of this: findings that rest on them are not compared, and rules that \
             remember may conclude otherwise without them"
        ));
    }
    comparison.finish(lake, trial.now, &mut summary, tell)?;
    summary.notes.extend(trial.notes);
    summary.seconds = started.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    {
        summary.records_per_second = (summary.records as f64 / summary.seconds.max(1e-9)).round();
    }
    tell(Line::Summary(summary.clone()));
    Ok(summary)
}

fn stopped() -> NodeError {
    NodeError::part("run a backtest")("whoever asked for it is gone")
}

struct Batch {
    records: Vec<Decoded>,
    unreadable: u64,
}

/// Reads and decodes on a thread of its own, a few batches ahead.
fn decoded(
    lake: &Snapshot,
    addresses: AddressFiles,
    begin: Option<Timestamp>,
) -> Result<impl Iterator<Item = Result<Batch, NodeError>>, NodeError> {
    let skip = Skip { before: begin, kept: begin.map(|_| OWN_SOURCE.to_owned()) };
    let records = lake.records(PARTITION, &skip).map_err(NodeError::part("read the lake"))?;
    let (sender, receiver) = mpsc::sync_channel(BATCHES_AHEAD);
    let read = move || {
        let mut decoder = Decoder::new(addresses, History::default());
        let mut records = records;
        loop {
            let batch = next_batch(&mut records, &mut decoder, begin);
            let last = !matches!(&batch, Ok(Some(_)));
            // Nobody listens any more, or there is nothing left.
            if batch.transpose().is_some_and(|batch| sender.send(batch).is_err()) || last {
                return;
            }
        }
    };
    std::thread::Builder::new().name("backtest".to_owned()).spawn(read).map_err(NodeError::part("start a thread"))?;
    Ok(receiver.into_iter())
}

fn next_batch(
    records: &mut Records,
    decoder: &mut Decoder,
    begin: Option<Timestamp>,
) -> Result<Option<Batch>, NodeError> {
    let mut batch = Batch { records: Vec::new(), unreadable: 0 };
    let mut bytes = 0;
    while batch.records.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
        let Some(stored) = records.next() else { break };
        let stored = stored.map_err(NodeError::part("read the lake"))?;
        let index = stored.index;
        bytes += stored.body.len();
        let Ok(record) = stored.decode() else {
            batch.unreadable += 1;
            continue;
        };
        // Before the warm-up, only what people and the program did counts: which sources there are, which files hold.
        if begin.is_some_and(|begin| record.envelope.received < begin) && (!is_own(&record) || is_tick(&record)) {
            continue;
        }
        let position = Position { partition: PARTITION, index };
        let events = decoder.read(position, &record);
        batch.records.push(Decoded { index, record, events });
    }
    Ok((!batch.records.is_empty() || batch.unreadable > 0).then_some(batch))
}

fn is_own(record: &Record) -> bool {
    record.envelope.auth == Authenticity::Own && record.envelope.source_type == SourceType::Pipeproof
}

fn is_tick(record: &Record) -> bool {
    is_own(record) && serde_json::from_slice::<Control>(&record.body).is_ok_and(|control| control.is_tick())
}

/// One set of rules over the records.
struct Replay<'a> {
    detector: Detector,
    /// Where sets of rules are kept, if those in force decide.
    sets: Option<PathBuf>,
    from: Timestamp,
    to: Timestamp,
    /// Largest received time so far.
    now: Timestamp,
    sql: SqlRuns<'a>,
    notes: Vec<String>,
}

impl<'a> Replay<'a> {
    fn new(rules: &Deciding, request: &Request, lake: &'a Snapshot, handle: &'a Handle) -> Result<Self, NodeError> {
        let (plan, sets) = match rules {
            Deciding::Fixed(plan) => (Arc::clone(plan), None),
            // Before anything was deployed nothing decides.
            Deciding::InForce(folder) => {
                let none = Plan::compile(Content::default()).map_err(NodeError::part("compile no rules"))?;
                (Arc::new(none), Some(folder.clone()))
            }
        };
        let sql = SqlRuns::new(&plan, request, lake, handle)?;
        let mut detector = Detector::new(plan, PARTITION);
        // The lake has no repetitions that would have to be recognised: what is handed over is let go.
        detector.hand_over_items_at(ITEMS_IN_MEMORY);
        Ok(Self { detector, sets, from: request.from, to: request.to, now: Timestamp::MIN, sql, notes: Vec::new() })
    }

    /// The findings of the period.
    fn apply(&mut self, records: Vec<Decoded>, summary: &mut Summary) -> Result<Vec<Finding>, NodeError> {
        let last = records.last().map(|record| record.index);
        for record in &records {
            self.now = self.now.max(record.record.envelope.received);
            summary.events += record.events().len() as u64;
        }
        let mut findings = self.evaluate(records, summary)?;
        if let Some(last) = last {
            let runs = self.sql.due(self.now, last, &mut self.notes)?;
            if !runs.is_empty() {
                findings.extend(self.evaluate(runs, summary)?);
            }
        }
        findings.retain(|finding| finding.time >= self.from && finding.time < self.to);
        Ok(findings)
    }

    fn evaluate(&mut self, records: Vec<Decoded>, summary: &mut Summary) -> Result<Vec<Finding>, NodeError> {
        let Some(folder) = self.sets.clone() else { return self.evaluate_part(records, summary) };
        let mut findings = Vec::new();
        for (set, part) in by_set(records) {
            if let Some(set) = set {
                self.detector.replace_plan(
                    kept_plan(&folder, &set).map_err(NodeError::part("read a set of rules that was in force"))?,
                );
            }
            findings.extend(self.evaluate_part(part, summary)?);
        }
        Ok(findings)
    }

    fn evaluate_part(&mut self, records: Vec<Decoded>, summary: &mut Summary) -> Result<Vec<Finding>, NodeError> {
        let commit = self.detector.apply(records, self.now).map_err(NodeError::part("replay records"))?;
        summary.dead_letters += commit.dead_letters.len() as u64;
        Ok(commit.findings)
    }
}
