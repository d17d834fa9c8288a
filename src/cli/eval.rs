//! `eval`: the engine over files, without a server. Lines go in, findings come out.
//!
//! Nothing here reads a clock that decides anything: the times in the events are the clock. Where rules look at several
//! events, the files are merged by time, lines that are out of order are put in order as far as they fit a buffer, and a
//! tick follows as time goes on, as it would in a server. After the last line, time goes on until nothing waits any more.

mod input;
mod output;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pipeproof_engine::clock::{Clock, SystemClock};
use pipeproof_engine::control::{Control, OWN_SOURCE, SourceRecord};
use pipeproof_engine::detect::{Decoded, Detector};
use pipeproof_engine::event::Event;
use pipeproof_engine::json::Json;
use pipeproof_engine::plan::{Plan, Routing};
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Position, Record};
use pipeproof_engine::rule::{Level, Operator, Rule};
use pipeproof_engine::source::{Logsource, SourceType};
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::decode::decode;

use input::{EventClock, Input, Pending};
use output::Output;

use super::arguments::{EvalOptions, Format};
use super::rules::read;
use super::{Failure, show};
use crate::rules as rule_sets;

/// Records evaluated at once.
const BATCH: usize = 4_096;
/// Events kept back to be put in order.
const REORDER: usize = 16_384;
/// A tick follows after this many events at most, if a second has passed.
const TICK_EVENTS: usize = 64;
/// Where the number of the file begins in an index; the line stands below.
const FILE_SHIFT: u32 = 40;
/// Longest that time goes on after the last line.
const SETTLE_MAX: Duration = Duration::from_secs(400 * 86_400);

/// How the lines of an evaluation become events.
#[derive(Clone, Copy)]
enum Reading {
    /// As this source type decodes them.
    Source(SourceType),
    /// As what they look like.
    Recognised,
}

impl Reading {
    /// Makes a record of a line. What it says of times is preliminary where the line tells none.
    fn decode(self, file: usize, line: u64, body: Bytes, wall: Timestamp) -> Result<Decoded, String> {
        let source_type = match self {
            Self::Source(source_type) => source_type,
            Self::Recognised => recognise(&body),
        };
        let item = if file == 0 { format!("id:line-{line}") } else { format!("id:file-{file}-line-{line}") };
        let record = Record { envelope: envelope(source_type, wall, item), salt: [0; 16], body };
        let index = ((file as u64) << FILE_SHIFT) | line;
        let events = decode(Position { partition: 0, index }, &record).map_err(|error| error.to_string())?;
        Ok(Decoded { index, record, events: Ok(events) })
    }
}

pub(super) fn eval(options: &EvalOptions, format: Option<Format>) -> Result<(), Failure> {
    let fail_on = options.fail_on.as_deref().map(level).transpose()?;
    let rules = rule_sets::compile(read(&options.rules)?).map_err(|error| Failure::Usage(crate::chain(&error)))?;
    let source = options.source.as_deref().map(source_type).transpose()?;
    let routing = match &options.logsource {
        _ if options.no_routing => Routing::Unrouted,
        Some(text) => Routing::ByLogsource(logsource(text)),
        None if source.is_some() => Routing::BySource,
        None => Routing::Recognised,
    };
    let count = rules.plan.rules().len();
    let reading = source.map_or(Reading::Recognised, Reading::Source);
    // What a record without a time counts as before any record has one.
    let wall = SystemClock.now();
    let mut inputs = Vec::new();
    let paths: Vec<String> = options.events.iter().map(|path| path.display().to_string()).collect();
    let paths = if paths.is_empty() { vec!["-".to_owned()] } else { paths };
    let files = paths.len();
    for (file, path) in paths.into_iter().enumerate() {
        inputs.push(Input::open(path, files, move |line, body| reading.decode(file, line, body, wall))?);
    }
    let mut run = Evaluation::new(rules.plan, routing, wall);
    run.output = Output::new(format, inputs.iter().map(|input| input.name.clone()).collect())?;
    // The clock of statistics, not of detection.
    let started = Instant::now();
    run.read(&mut inputs)?;
    run.finish()?;
    if options.stats {
        let secs = started.elapsed().as_secs_f64().max(1e-9);
        let lines: u64 = inputs.iter().map(|input| input.line).sum();
        let bytes: u64 = inputs.iter().map(|input| input.bytes).sum();
        let late = run.detector.counters().late;
        show::diagnostic(&format!(
            "{lines} events, {:.0} events/s, {:.1} MB/s, {count} rules, {} lines skipped, {late} signals too late",
            lines as f64 / secs,
            bytes as f64 / secs / 1e6,
            run.skipped,
        ));
    }
    match (fail_on, run.output.worst) {
        (Some(limit), Some(worst)) if worst >= limit => Err(Failure::Found),
        _ => Ok(()),
    }
}

struct Evaluation {
    detector: Detector,
    /// Rules look at several events, so order and time matter.
    ordered: bool,
    settle: Duration,
    waiting: BinaryHeap<Pending>,
    batch: Vec<Decoded>,
    clock: EventClock,
    /// What a record without a time counts as before any record has one.
    wall: Timestamp,
    ticked: Timestamp,
    since_tick: usize,
    controls: u64,
    connected: BTreeSet<SourceType>,
    skipped: u64,
    output: Output,
}

impl Evaluation {
    fn new(plan: Arc<Plan>, routing: Routing, wall: Timestamp) -> Self {
        Self {
            ordered: looks_back(&plan),
            settle: settle(&plan),
            // What the files do not tell did not happen.
            detector: Detector::new(plan, 0).with_routing(routing).trusting_silence().without_deltas(),
            waiting: BinaryHeap::new(),
            batch: Vec::new(),
            clock: EventClock::default(),
            wall,
            ticked: Timestamp::MIN,
            since_tick: 0,
            controls: 0,
            connected: BTreeSet::new(),
            skipped: 0,
            output: Output::default(),
        }
    }

    fn read(&mut self, inputs: &mut [Input]) -> Result<(), Failure> {
        if !self.ordered {
            for input in inputs.iter_mut() {
                while let Some(pending) = self.next(input)? {
                    self.push(pending)?;
                }
            }
            return Ok(());
        }
        for input in inputs.iter_mut() {
            let next = self.next(input)?;
            input.keep(next);
        }
        // The input whose next record is the earliest goes on.
        let earliest = |inputs: &[Input]| {
            let heads = inputs.iter().enumerate().filter_map(|(at, input)| Some((input.turn?, at)));
            heads.min().map(|(_, at)| at)
        };
        while let Some(at) = earliest(inputs) {
            let Some(input) = inputs.get_mut(at) else { break };
            let next = self.next(input)?;
            if let Some(pending) = input.keep(next) {
                self.waiting.push(pending);
            }
            if self.waiting.len() > REORDER
                && let Some(pending) = self.waiting.pop()
            {
                self.push(pending)?;
            }
        }
        while let Some(pending) = self.waiting.pop() {
            self.push(pending)?;
        }
        Ok(())
    }

    /// The next record of an input.
    fn next(&mut self, input: &mut Input) -> Result<Option<Pending>, Failure> {
        loop {
            match input.next()? {
                None => return Ok(None),
                Some((_, Ok(decoded))) => {
                    let known = decoded.events().iter().filter(|event| event.time_known);
                    let time = known.map(|event| event.time).max();
                    let order = (time.unwrap_or(self.clock.newest.unwrap_or(self.wall)), decoded.index);
                    return Ok(Some(Pending { order, decoded }));
                }
                Some((line, Err(why))) => {
                    self.skipped += 1;
                    let file = if self.output.files.len() > 1 { format!("{}: ", input.name) } else { String::new() };
                    show::diagnostic(&format!("{file}line {line}: {why}"));
                }
            }
        }
    }

    /// Takes the next record in order.
    fn push(&mut self, pending: Pending) -> Result<(), Failure> {
        let Pending { order: (time, _), mut decoded } = pending;
        let now = self.clock.observe(time);
        let known = |event: &Event| event.time_known;
        decoded.record.envelope.received = now;
        for event in decoded.events.iter_mut().flatten() {
            event.received = now;
            if !known(event) {
                event.time = now;
            }
        }
        if self.ordered {
            self.connect(decoded.record.envelope.source_type, now);
            self.since_tick += 1;
            if self.since_tick >= TICK_EVENTS && now >= self.ticked.plus(Duration::from_secs(1)) {
                self.tick(now);
            }
        }
        self.batch.push(decoded);
        if self.batch.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    /// What a file holds was connected all along.
    fn connect(&mut self, source_type: SourceType, now: Timestamp) {
        if self.connected.insert(source_type) {
            let source = SourceRecord {
                name: source_type.name().to_owned(),
                source_type,
                labels: BTreeMap::new(),
                connected: Timestamp::MIN,
                generation: 0,
                actor: "eval".to_owned(),
            };
            self.control(&Control::SourceAdded(source), now);
        }
    }

    fn tick(&mut self, now: Timestamp) {
        self.ticked = now;
        self.since_tick = 0;
        self.control(&Control::Tick {}, now);
    }

    fn control(&mut self, control: &Control, now: Timestamp) {
        self.controls += 1;
        let mut envelope = envelope(SourceType::Pipeproof, now, format!("id:control-{}", self.controls));
        envelope.source = OWN_SOURCE.to_owned();
        envelope.auth = Authenticity::Own;
        let body = Bytes::from(serde_json::to_vec(control).unwrap_or_default());
        let record = Record { envelope, salt: [0; 16], body };
        let index = self.batch.last().map_or(0, |decoded| decoded.index);
        self.batch.push(Decoded { index, record, events: Ok(Vec::new()) });
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.batch);
        let now = batch.last().map_or(self.wall, |decoded| decoded.record.envelope.received);
        let commit = self.detector.apply(batch, now).map_err(|error| Failure::Other(crate::chain(&error)))?;
        commit.findings.iter().try_for_each(|finding| self.output.write(finding))
    }

    /// The end of the files is the end of history: time goes on until everything that waits is decided.
    fn finish(&mut self) -> Result<(), Failure> {
        if self.ordered {
            let end = self.clock.newest.unwrap_or(self.wall);
            let lateness = self.connected.iter().map(|kind| kind.info().lateness).max().unwrap_or_default();
            // First only what has become certain, then what waits for something that never came.
            let certain = end.plus(lateness).plus(Duration::from_secs(1));
            for now in [end, certain, certain.plus(self.settle)] {
                self.tick(now);
            }
        }
        self.flush()?;
        self.output.end()
    }
}

/// Whether any rule looks at more than the event itself.
fn looks_back(plan: &Plan) -> bool {
    plan.rules().iter().any(|rule| match rule {
        Rule::Detection(rule) => rule.condition.has_lookup(),
        Rule::Correlation(_) => true,
        Rule::Sql(_) => false,
    })
}

/// How long something may wait after the last event: for what must be missing, for tables, one rule upon another.
fn settle(plan: &Plan) -> Duration {
    let absences = plan.rules().iter().map(|rule| match rule {
        Rule::Correlation(rule) => match &rule.operator {
            Operator::Temporal { clauses, .. } if clauses.iter().any(|clause| !clause.absent.is_empty()) => {
                rule.timespan
            }
            _ => Duration::ZERO,
        },
        Rule::Detection(_) | Rule::Sql(_) => Duration::ZERO,
    });
    let graces = plan.tables().iter().map(|table| table.grace);
    let total = absences.chain(graces).fold(Duration::from_secs(1), Duration::saturating_add);
    total.min(SETTLE_MAX)
}

fn envelope(source_type: SourceType, received: Timestamp, item: String) -> Envelope {
    Envelope {
        source: source_type.name().to_owned(),
        source_type,
        received,
        auth: Authenticity::Bearer,
        key_id: None,
        item,
        mode: CollectionMode::Live,
        attributes: BTreeMap::new(),
        redacted: Vec::new(),
    }
}

/// The source type an event looks like; `json` where it looks like none.
pub(super) fn recognise(body: &[u8]) -> SourceType {
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

pub(super) fn source_type(text: &str) -> Result<SourceType, Failure> {
    text.parse().map_err(|error: pipeproof_engine::source::UnknownSourceType| Failure::Usage(error.to_string()))
}

/// `product/service`; either may be left empty.
fn logsource(text: &str) -> Logsource {
    let (product, service) = text.split_once('/').unwrap_or((text, ""));
    let part = |text: &str| (!text.is_empty() && text != "*").then(|| text.to_lowercase());
    Logsource { product: part(product), service: part(service), category: None }
}
