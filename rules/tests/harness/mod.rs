//! What tests of whole rule texts share: events from JSON texts, and a detector that is fed them on a virtual clock.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "every test target uses its part, and a test that cannot read its table has to stop"
)]

pub(crate) mod table;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pipeproof_engine::control::{Control, OWN_SOURCE, SourceRecord};
use pipeproof_engine::detect::{Decoded, DetectCounters, Detector};
use pipeproof_engine::event::{Event, EventId};
use pipeproof_engine::fields::Fields;
use pipeproof_engine::finding::Finding;
use pipeproof_engine::plan::{Plan, Routing};
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Position, Record};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_rules::{Lists, RuleSet, Severity, load};

/// 2026-01-05T12:00:00Z: when every stream of events begins.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_767_614_400);
const SOURCE: &str = "events";

/// An event as a test writes it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Time, after the start.
    pub(crate) at: Duration,
    /// When it arrives, after the start.
    pub(crate) arrives: Duration,
    /// Its JSON text.
    pub(crate) json: String,
}

impl Sample {
    /// Arrives when it happens.
    pub(crate) fn new(at: Duration, json: impl Into<String>) -> Self {
        Self { at, arrives: at, json: json.into() }
    }
}

/// The rules of one text.
pub(crate) fn load_text(text: &str, lists: &Lists) -> RuleSet {
    load(&[("rules.yml".to_owned(), text.to_owned())], lists)
}

/// The rules of one text that must be good.
pub(crate) fn load_good(text: &str, lists: &Lists) -> Result<RuleSet, String> {
    let set = load_text(text, lists);
    let errors = errors(&set);
    if errors.is_empty() { Ok(set) } else { Err(format!("refused: {}", errors.join("; "))) }
}

/// The errors of a set, in words.
pub(crate) fn errors(set: &RuleSet) -> Vec<String> {
    let errors = set.diagnostics.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

/// The plan of a set.
pub(crate) fn plan(set: &RuleSet) -> Result<Arc<Plan>, String> {
    Plan::compile(set.content()).map(Arc::new).map_err(|error| error.to_string())
}

/// An event that is only its JSON text, as number `index`.
pub(crate) fn event(index: u64, sample: &Sample) -> Event {
    Event {
        id: EventId { position: Position { partition: 0, index }, sub: 0 },
        source: SOURCE.into(),
        source_type: SourceType::Json,
        item: format!("id:{index}").as_str().into(),
        time: START.plus(sample.at),
        time_known: true,
        received: START.plus(sample.arrives),
        auth: Authenticity::Bearer,
        mode: CollectionMode::Live,
        fields: Fields::default(),
        native: Bytes::from(sample.json.clone()),
    }
}

/// A finding with the numbers of the events it cites, in order of time.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The finding.
    pub(crate) finding: Finding,
    /// Numbers of its events among those given.
    pub(crate) events: Vec<usize>,
}

/// What came of a stream of events.
#[derive(Debug)]
pub(crate) struct Run {
    /// In the order made.
    pub(crate) found: Vec<Found>,
    /// Counters at the end.
    pub(crate) counters: DetectCounters,
    /// Size of the state at the end.
    pub(crate) state_bytes: usize,
}

/// Shows the events to every rule of the plan in the order given, with a tick before each, and ticks until `until` and
/// all lateness has passed.
pub(crate) fn run(plan: &Arc<Plan>, samples: &[Sample], until: Duration) -> Result<Run, String> {
    let mut script = Script::default();
    let connected = START.minus(Duration::from_secs(86_400));
    script.control(connected, &Control::SourceAdded(source(connected)))?;
    let mut now = Duration::ZERO;
    for (number, sample) in samples.iter().enumerate() {
        now = now.max(sample.arrives);
        script.control(START.plus(now), &Control::Tick {})?;
        script.event(number, &Sample { arrives: now, ..sample.clone() });
    }
    let end = now.max(until);
    let lateness = SourceType::Json.info().lateness;
    for after in [Duration::ZERO, lateness + Duration::from_secs(1), lateness * 2] {
        script.control(START.plus(end + after), &Control::Tick {})?;
    }
    let numbers: BTreeMap<String, usize> =
        script.events.iter().map(|(index, number)| (format!("0-{index}-0"), *number)).collect();
    let mut detector = Detector::new(Arc::clone(plan), 0).with_routing(Routing::Unrouted).trusting_silence();
    let commit = detector.apply(script.records, START).map_err(|error| error.to_string())?;
    if let Some(dead) = commit.dead_letters.first() {
        return Err(format!("the detector refused a record: {}", dead.reason));
    }
    let found = commit.findings.into_iter().map(|finding| {
        let mut cited: Vec<_> = finding.events.iter().map(|event| (event.time, event.id.clone())).collect();
        cited.sort();
        let events = cited.iter().filter_map(|(_, id)| numbers.get(id).copied()).collect();
        Found { finding, events }
    });
    let state_bytes = detector.snapshot().map_err(|error| error.to_string())?.len();
    Ok(Run { found: found.collect(), counters: detector.counters(), state_bytes })
}

fn source(connected: Timestamp) -> SourceRecord {
    SourceRecord {
        name: SOURCE.to_owned(),
        source_type: SourceType::Json,
        labels: BTreeMap::new(),
        connected,
        generation: 0,
        actor: "test".to_owned(),
    }
}

#[derive(Default)]
struct Script {
    records: Vec<Decoded>,
    /// (index of the record, number of the sample).
    events: Vec<(u64, usize)>,
}

impl Script {
    fn control(&mut self, received: Timestamp, control: &Control) -> Result<(), String> {
        let body = serde_json::to_vec(control).map_err(|error| error.to_string())?;
        let index = self.records.len() as u64;
        let mut envelope = envelope(OWN_SOURCE, SourceType::Pipeproof, received, index);
        envelope.auth = Authenticity::Own;
        let record = Record { envelope, salt: [0; 16], body: Bytes::from(body) };
        self.records.push(Decoded { index, record, events: Ok(Vec::new()) });
        Ok(())
    }

    fn event(&mut self, number: usize, sample: &Sample) {
        let index = self.records.len() as u64;
        let event = event(index, sample);
        let envelope = envelope(SOURCE, SourceType::Json, event.received, index);
        let record = Record { envelope, salt: [0; 16], body: event.native.clone() };
        self.records.push(Decoded { index, record, events: Ok(vec![event]) });
        self.events.push((index, number));
    }
}

fn envelope(source: &str, source_type: SourceType, received: Timestamp, index: u64) -> Envelope {
    Envelope {
        source: source.to_owned(),
        source_type,
        received,
        auth: Authenticity::Bearer,
        key_id: None,
        item: format!("id:{index}"),
        mode: CollectionMode::Live,
        attributes: BTreeMap::new(),
        redacted: Vec::new(),
    }
}
