//! A backtest: stored records once more through decoder and detector, with other rules or the same, and what that finds
//! against what the live run found. It writes nothing.
//!
//! Every record of the log is replayed in its order, control records among them: ticks, sources and steps of people mean the
//! same as then, and address files are those that were in force. Repetitions are not in the lake and count for nothing, as
//! live. Only findings whose time lies in the period asked for are told, but what came before it is replayed as well: state
//! reaches back as far as rules remember (windows, quiet times, first sightings), so by default a replay begins where the log
//! does. With the same binary and rules its finding ids are the live run's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pipeproof_engine::control::{Control, OWN_SOURCE};
use pipeproof_engine::detect::{Decoded, Detector};
use pipeproof_engine::finding::Finding;
use pipeproof_engine::plan::{Content, Plan};
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Position, Record};
use pipeproof_engine::rule::{Rule, RuleState, SqlRule};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::{Timestamp, micros};
use pipeproof_ingest::enrich::{AddressFiles, Decoder, History};
use pipeproof_record::lake::{Records, Skip, Snapshot};
use pipeproof_record::sql::RuleSql;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use crate::node::{NodeError, PARTITION};
use crate::roles::{by_set, sql_record};
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

/// 9999-12-31: later than anything was received.
const END_OF_DAYS: Timestamp = Timestamp::from_secs(253_402_214_400);

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
        let events = decoder.decode(position, &record).map_err(|error| error.to_string());
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
        Ok(Self {
            detector: Detector::new(plan, PARTITION),
            sets,
            from: request.from,
            to: request.to,
            now: Timestamp::MIN,
            sql,
            notes: Vec::new(),
        })
    }

    /// The findings of the period.
    fn apply(&mut self, records: Vec<Decoded>, summary: &mut Summary) -> Result<Vec<Finding>, NodeError> {
        let last = records.last().map(|record| record.index);
        for record in &records {
            self.now = self.now.max(record.record.envelope.received);
            summary.events += record.events.as_ref().map_or(0, |events| events.len() as u64);
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

/// Rules that ask the lake: what they answered live is in the log and read from there. Those that never ran are run now, over
/// what had been received when their time would have come.
struct SqlRuns<'a> {
    rules: Vec<(SqlRule, Timestamp)>,
    lateness: Duration,
    to: Timestamp,
    lake: &'a Snapshot,
    handle: &'a Handle,
}

impl<'a> SqlRuns<'a> {
    fn new(plan: &Plan, request: &Request, lake: &'a Snapshot, handle: &'a Handle) -> Result<Self, NodeError> {
        let mut rules: Vec<(SqlRule, Timestamp)> = plan
            .rules()
            .iter()
            .filter_map(|rule| match rule {
                Rule::Sql(rule) if rule.meta.state != RuleState::Paused => Some(rule.clone()),
                _ => None,
            })
            .map(|rule| {
                let every = micros(rule.every).max(1);
                let first = request.from.as_micros().div_euclid(every).saturating_add(1).saturating_mul(every);
                (rule, Timestamp::from_micros(first))
            })
            .collect();
        if !rules.is_empty() {
            let ran = digests_that_ran(lake)?;
            rules.retain(|(rule, _)| !ran.contains(&rule.meta.digest));
        }
        let types = SourceType::ALL.iter().filter(|kind| kind.is_external());
        let lateness = types.map(|kind| kind.info().lateness).max().unwrap_or_default();
        Ok(Self { rules, lateness, to: request.to, lake, handle })
    }

    /// Records of the runs whose time has come by `now`.
    fn due(&mut self, now: Timestamp, index: u64, notes: &mut Vec<String>) -> Result<Vec<Decoded>, NodeError> {
        let mut records = Vec::new();
        let (lateness, end) = (self.lateness, self.to);
        for (rule, next) in &mut self.rules {
            while *next <= end && next.plus(lateness) <= now {
                let to = *next;
                *next = to.plus(rule.every);
                let from = to.minus(rule.lookback);
                let as_of = to.plus(lateness);
                let answer = self
                    .handle
                    .block_on(async { RuleSql::over(self.lake, Some(as_of)).await?.run(rule, from, to).await });
                match answer {
                    Ok(answer) => {
                        let (control, _, truncated) = sql_record(rule, from, to, answer);
                        if truncated {
                            notes.push(format!(
                                "rule {}: the run up to {to} found more rows than are taken in",
                                rule.meta.id
                            ));
                        }
                        records.push(own_record(&control, now, index));
                    }
                    Err(error) => {
                        notes.push(format!("rule {}: {}", rule.meta.id, crate::chain(&error)));
                        // It would fail the next time, too.
                        *next = Timestamp::MAX;
                    }
                }
            }
        }
        Ok(records)
    }
}

/// The digests of rules that have runs in the log.
fn digests_that_ran(lake: &Snapshot) -> Result<BTreeSet<String>, NodeError> {
    let skip = Skip { before: Some(END_OF_DAYS), kept: Some(OWN_SOURCE.to_owned()) };
    let mut digests = BTreeSet::new();
    for stored in lake.records(PARTITION, &skip).map_err(NodeError::part("read the lake"))? {
        let stored = stored.map_err(NodeError::part("read the lake"))?;
        // Ticks are most of them.
        if stored.body.starts_with(br#"{"kind":"sql-run""#)
            && let Ok(Control::SqlRun(run)) = serde_json::from_slice(&stored.body)
        {
            digests.insert(run.digest);
        }
    }
    Ok(digests)
}

fn own_record(control: &Control, now: Timestamp, index: u64) -> Decoded {
    let record = Record {
        envelope: Envelope {
            source: OWN_SOURCE.to_owned(),
            source_type: SourceType::Pipeproof,
            received: now,
            auth: Authenticity::Own,
            key_id: None,
            item: "id:backtest".to_owned(),
            mode: CollectionMode::Live,
            attributes: BTreeMap::new(),
            redacted: Vec::new(),
        },
        salt: [0; 16],
        body: Bytes::from(serde_json::to_vec(control).unwrap_or_default()),
    };
    Decoded { index, record, events: Ok(Vec::new()) }
}

/// What identifies a finding, shortened: enough that two different ones never agree.
type Name = [u8; 16];

fn name(parts: &[&str]) -> Name {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut short = [0; 16];
    short.copy_from_slice(hash.finalize().get(..16).unwrap_or(&[0; 16]));
    short
}

fn by_id(finding: &Finding) -> Name {
    name(&[&finding.id])
}

/// The same across versions of a rule: rule, key, and the event it hangs on.
fn by_anchor(finding: &Finding) -> Name {
    let mut parts = vec![finding.rule_id.as_str()];
    parts.extend(finding.key.iter().flat_map(|(field, value)| [field.as_str(), value.as_str()]));
    let time = finding.time.to_string();
    parts.push(finding.events.last().map_or(time.as_str(), |event| &event.id));
    name(&parts)
}

/// One finding of the side that is compared with.
struct Known {
    id: Name,
    digest: Name,
    fired: Timestamp,
    /// Kept where it is not in the lake, to be told if nothing matches it.
    told: Option<Box<Told>>,
    matched: bool,
}

struct Comparison {
    against_live: bool,
    known: Vec<Known>,
    ids: HashMap<Name, usize>,
    anchors: HashMap<Name, Vec<usize>>,
    /// Findings on trial that nothing matched yet; the other side may still find them.
    waiting: BTreeMap<usize, Finding>,
    waiting_ids: HashMap<Name, usize>,
    waiting_anchors: HashMap<Name, usize>,
    not_compared: u64,
    identical: u64,
    other_version: u64,
    added: u64,
}

impl Comparison {
    fn new(lake: &Snapshot, request: &Request) -> Result<Self, NodeError> {
        let mut this = Self {
            against_live: request.against.is_none(),
            known: Vec::new(),
            ids: HashMap::new(),
            anchors: HashMap::new(),
            waiting: BTreeMap::new(),
            waiting_ids: HashMap::new(),
            waiting_anchors: HashMap::new(),
            not_compared: 0,
            identical: 0,
            other_version: 0,
            added: 0,
        };
        if this.against_live {
            let on_trial: Option<BTreeSet<&str>> = match &request.rules {
                Deciding::Fixed(plan) => Some(plan.rules().iter().map(|rule| rule.meta().id.as_str()).collect()),
                Deciding::InForce(_) => None,
            };
            for finding in lake.findings().map_err(NodeError::part("read the findings of the live run"))? {
                let finding = finding.map_err(NodeError::part("read the findings of the live run"))?;
                if finding.time < request.from || finding.time >= request.to {
                    continue;
                }
                if on_trial.as_ref().is_none_or(|rules| rules.contains(finding.rule_id.as_str())) {
                    this.learn(&finding, None);
                } else {
                    this.not_compared += 1;
                }
            }
        }
        Ok(this)
    }

    fn learn(&mut self, finding: &Finding, told: Option<Box<Told>>) -> usize {
        let at = self.known.len();
        let (id, digest) = (by_id(finding), name(&[&finding.rule_digest]));
        self.known.push(Known { id, digest, fired: finding.fired, told, matched: false });
        self.ids.insert(id, at);
        self.anchors.entry(by_anchor(finding)).or_default().push(at);
        at
    }

    /// A finding of the other set of rules.
    fn other(&mut self, finding: Finding, tell: &mut Tell<'_>) {
        let told = Box::new(in_short(&finding, Change::Removed));
        self.learn(&finding, Some(told));
        let by_anchor = self.waiting_anchors.get(&by_anchor(&finding));
        let other_version =
            by_anchor.filter(|at| self.waiting.get(*at).is_some_and(|found| found.rule_digest != finding.rule_digest));
        let at = self.waiting_ids.get(&by_id(&finding)).or(other_version).copied();
        if let Some(waiting) = at.and_then(|at| self.waiting.remove(&at)) {
            self.trial(waiting, tell);
        }
    }

    /// A finding of the rules on trial. False if nobody listens.
    fn trial(&mut self, finding: Finding, tell: &mut Tell<'_>) -> bool {
        let digest = name(&[&finding.rule_digest]);
        let same = self.ids.get(&by_id(&finding)).copied();
        let anchor = by_anchor(&finding);
        let found = same.or_else(|| {
            // The rule under another version: the id says that version, rule, key and event do not.
            let of = |at: &&usize| self.known.get(**at).is_some_and(|known| known.digest != digest && !known.matched);
            self.anchors.get(&anchor).and_then(|known| known.iter().find(of)).copied()
        });
        if let Some(at) = found
            && let Some(known) = self.known.get_mut(at)
        {
            known.matched = true;
            known.told = None;
            self.identical += 1;
            self.other_version += u64::from(same.is_none());
            return tell(Line::Finding(Box::new(in_short(&finding, Change::Identical))));
        }
        if self.against_live {
            self.added += 1;
            return tell(Line::Finding(Box::new(in_short(&finding, Change::Added))));
        }
        let at = self.waiting.last_key_value().map_or(0, |(last, _)| last + 1);
        self.waiting_ids.insert(by_id(&finding), at);
        self.waiting_anchors.insert(anchor, at);
        self.waiting.insert(at, finding);
        true
    }

    /// Tells what one side alone has.
    fn finish(
        self,
        lake: &Snapshot,
        now: Timestamp,
        summary: &mut Summary,
        tell: &mut Tell<'_>,
    ) -> Result<(), NodeError> {
        summary.identical = self.identical;
        summary.other_version = self.other_version;
        summary.not_compared = self.not_compared;
        summary.added = self.added + self.waiting.len() as u64;
        for finding in self.waiting.values() {
            tell(Line::Finding(Box::new(in_short(finding, Change::Added))));
        }
        // What fired after the last record of the lake is not part of this replay.
        let missing = |known: &&Known| !known.matched && (!self.against_live || known.fired <= now);
        summary.removed = self.known.iter().filter(missing).count() as u64;
        if !self.against_live {
            for told in self.known.into_iter().filter(|known| !known.matched).filter_map(|known| known.told) {
                tell(Line::Finding(told));
            }
            return Ok(());
        }
        let missing: BTreeSet<Name> = self.known.iter().filter(missing).map(|known| known.id).collect();
        if !missing.is_empty() {
            for finding in lake.findings().map_err(NodeError::part("read the findings of the live run"))? {
                let finding = finding.map_err(NodeError::part("read the findings of the live run"))?;
                if missing.contains(&by_id(&finding)) {
                    tell(Line::Finding(Box::new(in_short(&finding, Change::Removed))));
                }
            }
        }
        Ok(())
    }
}

fn in_short(finding: &Finding, change: Change) -> Told {
    Told {
        change,
        id: finding.id.clone(),
        rule: json!({
            "id": finding.rule_id, "title": finding.rule_title, "level": finding.level, "digest": finding.rule_digest,
        }),
        time: finding.time,
        title: finding.title.clone(),
        key: finding.key.clone(),
        events: finding.events.iter().map(|event| event.id.clone()).collect(),
        because: finding.because.clone(),
    }
}
