//! The records of a test: its events and the ticks between them, in the order in which they arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use pipeproof_engine::control::{Control, OWN_SOURCE, SourceRecord};
use pipeproof_engine::detect::Decoded;
use pipeproof_engine::event::{Event, EventId};
use pipeproof_engine::feed;
use pipeproof_engine::fields::{Field, FieldKind, Fields, Value};
use pipeproof_engine::plan::Content;
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Position, Record};
use pipeproof_engine::rule::{Rule, TableRows};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;

use crate::inline::{RuleTest, TestEvent};

/// 2026-01-05T12:00:00Z, a Monday: when every test begins.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_767_614_400);
const DAY: Duration = Duration::from_secs(86_400);
const SECOND: Duration = Duration::from_secs(1);

/// An event on its way.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) time: Timestamp,
    pub(crate) received: Timestamp,
    pub(crate) source: String,
    pub(crate) kind: SourceType,
    /// Number in the test, by which it is the same event however it is delivered.
    pub(crate) number: usize,
    pub(crate) fields: BTreeMap<String, serde_json::Value>,
}

/// A test, set up for the rules it needs.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// Events, in the order in which they arrive.
    pub(crate) sent: Vec<Sent>,
    /// Every source that is connected: those of the events, and those the rules must hear.
    sources: BTreeMap<String, SourceType>,
    /// Until when time goes on.
    pub(crate) end: Timestamp,
    /// How much further it goes so that everything up to the end is decided.
    settle: Duration,
}

impl Stage {
    /// Of each list of `heard`, one type must be heard for a rule to believe that something did not happen: in a test no
    /// source is silent.
    pub(crate) fn new(test: &RuleTest, content: &Content, rule: &str, heard: &[Vec<SourceType>]) -> Self {
        let default = default_source(content, rule);
        let before = test.history.iter().map(|event| (START.minus(event.at), START.minus(event.arrives), event));
        let after = test.events.iter().map(|event| (START.plus(event.at), START.plus(event.arrives), event));
        let mut sent: Vec<Sent> = before
            .chain(after)
            .enumerate()
            .map(|(number, (time, received, event))| {
                let (source, kind) = source(event, &default);
                Sent { time, received, source, kind, number, fields: event.fields.clone() }
            })
            .collect();
        sent.sort_by_key(|event| event.received);
        let mut sources: BTreeMap<String, SourceType> =
            sent.iter().map(|event| (event.source.clone(), event.kind)).collect();
        for kinds in heard {
            if !kinds.iter().any(|kind| sources.values().any(|own| own == kind))
                && let Some(kind) = kinds.first()
            {
                sources.insert(kind.name().to_owned(), *kind);
            }
        }
        let last = sent.iter().map(|event| event.received.max(event.time)).max().unwrap_or(START);
        let end = START.plus(test.until.unwrap_or_default()).max(last);
        let lateness = sources.values().map(|kind| kind.info().lateness).max().unwrap_or_default();
        // A lookup waits for its table, and what looks at it for the lookup.
        let grace = content.tables.iter().map(|table| table.grace).fold(Duration::ZERO, Duration::saturating_add);
        Self { sent, sources, end, settle: lateness.saturating_add(grace).saturating_add(SECOND) }
    }

    /// The records, with only those events that `wanted` picks; time goes the same way without the others.
    pub(crate) fn records(&self, wanted: impl Fn(&Sent) -> bool) -> Result<Vec<Decoded>, String> {
        let mut records = Records::default();
        let first = self.sent.iter().map(|event| event.time.min(event.received)).min().unwrap_or(START).min(START);
        for (name, kind) in &self.sources {
            records.control(first.minus(DAY), &Control::SourceAdded(connected(name, *kind, first.minus(DAY))))?;
        }
        for event in &self.sent {
            // In production there is a tick every second.
            self.tick(event.received.minus(SECOND), &mut records)?;
            if wanted(event) {
                records.event(event)?;
            }
        }
        self.tick(self.end, &mut records)?;
        self.tick(self.end.plus(self.settle), &mut records)?;
        Ok(records.all)
    }

    /// A tick, before which every source is heard from, so that none counts as silent.
    fn tick(&self, at: Timestamp, records: &mut Records) -> Result<(), String> {
        if records.ticked.is_some_and(|last| last >= at) {
            return Ok(());
        }
        records.ticked = Some(at);
        for (name, kind) in &self.sources {
            records.nothing(name, *kind, at)?;
        }
        records.control(at, &Control::Tick {})
    }

    /// The same events in another order of arrival: each comes later than it happened by less than its source may be
    /// late. What the test itself says comes later than that stays as it is.
    pub(crate) fn shuffled(&self, seed: u64) -> Self {
        let mut other = self.clone();
        for event in &mut other.sent {
            let lateness = event.kind.info().lateness;
            if event.received <= event.time.plus(lateness) {
                // Events of the same time keep their order, which decides what comes first.
                let part = scramble(event.time.as_micros().unsigned_abs().wrapping_add(seed)) % 1_000;
                let delay = lateness.mul_f64(0.95 * f64::from(u32::try_from(part).unwrap_or_default()) / 1_000.0);
                event.received = event.time.plus(delay);
            }
        }
        other.sent.sort_by_key(|event| (event.received, event.number));
        let last = other.sent.iter().map(|event| event.received).max().unwrap_or(START);
        // The end stays where it is, or what is found by then would be something else.
        other.settle = other
            .settle
            .max(Duration::from_micros(u64::try_from(last.micros_since(other.end)).unwrap_or_default()) + SECOND);
        other
    }
}

/// A well mixed number for another; the same every time.
fn scramble(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Name and type of an event's source: a name that is a source type or a feed stands for that, any other for events of
/// whatever shape.
fn source(event: &TestEvent, default: &(String, SourceType)) -> (String, SourceType) {
    match &event.source {
        None => default.clone(),
        Some(name) => (name.clone(), kind_of(name).unwrap_or(SourceType::Json)),
    }
}

fn kind_of(name: &str) -> Option<SourceType> {
    feed::resolve(name).ok()?.first().copied()
}

/// Where a test's events come from unless they say: from the first source the rule requires, else from one its
/// logsource is fed by.
fn default_source(content: &Content, id: &str) -> (String, SourceType) {
    let own = content.rules.iter().filter(|rule| rule.meta().id == id);
    let required = own.flat_map(|rule| &rule.meta().requires);
    if let Some(found) = required.filter_map(|name| Some((name.clone(), kind_of(name)?))).next() {
        return found;
    }
    let fed: Option<SourceType> = content.rules.iter().find_map(|rule| match rule {
        Rule::Detection(rule) if rule.logsource.product.as_deref() != Some("cicd") => {
            feed::of_logsource(&rule.logsource).into_iter().next()
        }
        _ => None,
    });
    let kind = fed.unwrap_or(SourceType::Json);
    (kind.name().to_owned(), kind)
}

fn connected(name: &str, kind: SourceType, connected: Timestamp) -> SourceRecord {
    SourceRecord {
        name: name.to_owned(),
        source_type: kind,
        labels: BTreeMap::new(),
        connected,
        generation: 0,
        actor: "test".to_owned(),
    }
}

/// Records, one after the other.
#[derive(Default)]
struct Records {
    all: Vec<Decoded>,
    ticked: Option<Timestamp>,
}

impl Records {
    fn push(&mut self, record: Record, events: Vec<Event>) {
        self.all.push(Decoded { index: self.all.len() as u64, record, events: Ok(events) });
    }

    fn control(&mut self, received: Timestamp, control: &Control) -> Result<(), String> {
        let body = serde_json::to_vec(control).map_err(|error| error.to_string())?;
        let mut record = record(OWN_SOURCE, SourceType::Pipeproof, received, format!("id:{}", self.all.len()), body);
        record.envelope.auth = Authenticity::Own;
        self.push(record, Vec::new());
        Ok(())
    }

    /// A sign of life: an event that says nothing.
    fn nothing(&mut self, source: &str, kind: SourceType, received: Timestamp) -> Result<(), String> {
        let item = format!("beat:{}", received.as_micros());
        self.push(record(source, kind, received, item, b"{}".to_vec()), Vec::new());
        Ok(())
    }

    fn event(&mut self, event: &Sent) -> Result<(), String> {
        let native = serde_json::to_vec(&event.fields).map_err(|error| error.to_string())?;
        let index = self.all.len() as u64;
        let item = format!("id:{}", event.number);
        let record = record(&event.source, event.kind, event.received, item, native.clone());
        let decoded = Event {
            id: EventId { position: Position { partition: 0, index }, sub: 0 },
            source: event.source.as_str().into(),
            source_type: event.kind,
            item: record.envelope.item.as_str().into(),
            time: event.time,
            time_known: true,
            received: event.received,
            auth: Authenticity::Bearer,
            mode: CollectionMode::Live,
            fields: normalised(&event.fields),
            native: Bytes::from(native),
        };
        self.push(record, vec![decoded]);
        Ok(())
    }
}

fn record(source: &str, kind: SourceType, received: Timestamp, item: String, body: Vec<u8>) -> Record {
    Record {
        envelope: Envelope {
            source: source.to_owned(),
            source_type: kind,
            received,
            auth: Authenticity::Bearer,
            key_id: None,
            item,
            mode: CollectionMode::Live,
            attributes: BTreeMap::new(),
            redacted: Vec::new(),
        },
        salt: [0; 16],
        body: Bytes::from(body),
    }
}

/// The fields of a test event that are in the cicd taxonomy, in its types.
fn normalised(given: &BTreeMap<String, serde_json::Value>) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in given {
        let Some(field) = Field::from_name(name) else { continue };
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => continue,
            scalar => scalar.to_string(),
        };
        let typed = match field.kind() {
            FieldKind::Text => Some(Value::Text(text.into())),
            FieldKind::Int => text.parse().ok().map(Value::Int),
            FieldKind::Bool => text.parse().ok().map(Value::Bool),
            FieldKind::Time => Timestamp::parse(&text).map(Value::Time),
        };
        if let Some(typed) = typed {
            fields.set(field, typed);
        }
    }
    fields
}

/// The rules a rule builds on, itself included, by their numbers; and the tables.
pub(crate) fn needed(content: &Content, rule: usize) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let by_name: BTreeMap<&str, usize> = content
        .rules
        .iter()
        .enumerate()
        .flat_map(|(number, rule)| {
            let meta = rule.meta();
            std::iter::once(meta.id.as_str()).chain(meta.name.as_deref()).map(move |name| (name, number))
        })
        .collect();
    let (mut rules, mut tables) = (BTreeSet::new(), BTreeSet::new());
    let mut open = vec![rule];
    while let Some(number) = open.pop() {
        if !rules.insert(number) {
            continue;
        }
        match content.rules.get(number) {
            Some(Rule::Correlation(rule)) => {
                open.extend(rule.members.iter().filter_map(|name| by_name.get(name.as_str())));
            }
            Some(Rule::Detection(rule)) if rule.condition.has_lookup() => {
                for (at, table) in content.tables.iter().enumerate() {
                    if super::names_table(&rule.condition, &table.name)
                        && tables.insert(at)
                        && let TableRows::Derived { open: opens, close, .. } = &table.rows
                    {
                        open.extend(opens.iter().chain(close).filter_map(|name| by_name.get(name.as_str())));
                    }
                }
            }
            _ => {}
        }
    }
    (rules, tables)
}
