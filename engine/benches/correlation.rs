//! What correlation costs: events per second of processor time and memory per group, through the detector, decoding left out.
//!
//! `cargo bench -p pipeproof-engine --bench correlation` prints a table. Every event feeds state. A batch is 4,096 records
//! and there is a tick for every 10,000 events, each of which arrives in the second it happens in. Each line is measured in
//! a process of its own, so that its memory is its own; memory includes what remembers repeated items.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark prints what it measured, or stops")]

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pipeproof_engine::control::{Control, OWN_SOURCE};
use pipeproof_engine::detect::{Decoded, Detector};
use pipeproof_engine::event::{Event, EventId};
use pipeproof_engine::fields::{Field, Fields, Value};
use pipeproof_engine::plan::{Content, Plan};
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Position, Record};
use pipeproof_engine::rule::{
    AffixKind, AlertSpec, Bounds, Comparison, Condition, CorrelationRule, DetectionRule, Level, Lookup, Metric, Number,
    Operator, Predicate, Rule, RuleMeta, RuleState, Table, TableRows, Taxonomy, TemporalClause, TextTest,
};
use pipeproof_engine::source::{Logsource, SourceType};
use pipeproof_engine::time::Timestamp;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const BATCH: usize = 4_096;
const PER_SECOND: u64 = 10_000;
const HOUR: Duration = Duration::from_secs(3_600);

struct Line {
    name: &'static str,
    /// None: the member rule alone.
    operator: Option<Operator>,
    members: &'static [&'static str],
    timespan: Duration,
    events: u64,
    keys: u64,
    values: u64,
    deltas: bool,
    /// Every match opens a row of a table by its key, where it can be looked up.
    table: bool,
}

fn at_least(metric: Metric, count: i128) -> Operator {
    Operator::Aggregate { metric, bounds: Bounds(vec![(Comparison::Gte, Number::Int(count))]) }
}

fn lines() -> Vec<Line> {
    let ip = || vec!["src.ip".to_owned()];
    let count = || Some(at_least(Metric::Events, 10));
    let distinct = |count| Some(at_least(Metric::Distinct(ip()), count));
    let line = |name, operator, keys, values| Line {
        name,
        operator,
        members: &["x"],
        timespan: HOUR,
        events: 1_500_000,
        keys,
        values,
        deltas: true,
        table: false,
    };
    let ordered =
        Operator::Temporal { ordered: true, clauses: vec![TemporalClause { present: vec![0, 1], absent: Vec::new() }] };
    let absent =
        Operator::Temporal { ordered: true, clauses: vec![TemporalClause { present: vec![0], absent: vec![1] }] };
    let spike = Operator::Spike {
        field: None,
        comparison: Comparison::Gte,
        deviation: 8.0,
        floor: 10,
        baseline: HOUR * 24,
        hour_of_week: false,
        learn_buckets: 5,
    };
    let median = at_least(Metric::Percentile("ci.attempt".into(), 50.0), 1_000_000);
    let minute = Duration::from_secs(60);
    vec![
        line("member rule alone", None, 1_000_000, 4),
        line("event_count, 1M keys", count(), 1_000_000, 4),
        Line { deltas: false, ..line("event_count, 1M keys, no delta", count(), 1_000_000, 4) },
        line("value_count, 1M keys", distinct(3), 1_000_000, 4),
        Line { deltas: false, ..line("value_count, 1M keys, no delta", distinct(3), 1_000_000, 4) },
        line("event_count, 1 key, gte 1,000,000", Some(at_least(Metric::Events, 1_000_000)), 1, 4),
        Line { events: 6_000_000, ..line("value_count, 20 distinct a window", distinct(100_000), 10, 20) },
        Line { events: 6_000_000, ..line("value_count, 20,000 distinct a window", distinct(100_000), 10, 20_000) },
        Line { events: 6_000_000, ..line("value_count, 20 distinct, one window", distinct(100_000), 1, 20) },
        Line { events: 6_000_000, ..line("value_count, 20,000 distinct, one window", distinct(100_000), 1, 20_000) },
        Line { timespan: minute, ..line("value_median, 10 keys, 60,000 a window", Some(median), 10, 4) },
        Line { members: &["x", "y"], ..line("temporal_ordered, 100k keys", Some(ordered), 100_000, 4) },
        Line { members: &["x", "y"], timespan: minute, ..line("absence, 100k keys", Some(absent), 100_000, 4) },
        Line { timespan: minute, ..line("value_spike, 100k keys", Some(spike), 100_000, 4) },
        line("event_count, every key once", count(), 10_000_000, 4),
        Line { table: true, events: 1_000_000, ..line("table, a row per event", None, 10_000_000, 4) },
    ]
}

fn meta(name: &str) -> RuleMeta {
    RuleMeta {
        id: name.to_owned(),
        name: None,
        title: name.to_owned(),
        level: Level::Medium,
        version: None,
        digest: format!("digest of {name}"),
        state: RuleState::Staging,
        emits: false,
        alert: AlertSpec::default(),
        tags: Vec::new(),
        controls: BTreeMap::new(),
        requires: vec!["json".to_owned()],
        author: None,
        risk: 0,
    }
}

fn plan(line: &Line) -> Arc<Plan> {
    let member = |name: &&str| {
        let test = TextTest::Plain { kind: AffixKind::Equals, text: (*name).to_owned() };
        Rule::Detection(DetectionRule {
            meta: meta(name),
            logsource: Logsource { product: Some("cicd".into()), ..Logsource::default() },
            taxonomy: Taxonomy::Cicd,
            condition: Condition::Field { field: "action".into(), predicate: Predicate::Text { test, cased: true } },
        })
    };
    let mut rules: Vec<Rule> = line.members.iter().map(member).collect();
    if let Some(operator) = &line.operator {
        rules.push(Rule::Correlation(CorrelationRule {
            meta: meta("correlation"),
            operator: operator.clone(),
            members: line.members.iter().map(|name| (*name).to_owned()).collect(),
            group_by: vec!["ci.repo".into()],
            aliases: BTreeMap::new(),
            timespan: line.timespan,
            session_gap: None,
            early: false,
            taxonomy: Taxonomy::Cicd,
        }));
    }
    let mut tables = Vec::new();
    if line.table {
        let field = |name: &str| (name.to_owned(), name.to_owned());
        tables.push(Table {
            name: "seen".to_owned(),
            title: "seen".to_owned(),
            digest: "digest of seen".to_owned(),
            grace: Duration::ZERO,
            rows: TableRows::Derived {
                key: vec!["ci.repo".to_owned()],
                open: vec!["x".to_owned()],
                close: Vec::new(),
                columns: BTreeMap::from([field("ci.repo"), field("actor.id")]),
                max_open: HOUR * 24,
                retain: HOUR * 24,
                taxonomy: Taxonomy::Cicd,
            },
        });
        // Nothing asks, or what waits for its answer would be measured as well.
        let Rule::Detection(asks) = member(&"never") else { unreachable!("members are detection rules") };
        let lookup = Lookup {
            table: "seen".to_owned(),
            keys: vec![field("ci.repo")],
            columns: Vec::new(),
            during: Some("time".to_owned()),
        };
        let condition = Condition::And(vec![asks.condition.clone(), Condition::Lookup(lookup)]);
        rules.push(Rule::Detection(DetectionRule { meta: meta("asks"), condition, ..asks }));
    }
    Arc::new(Plan::compile(Content { rules, tables, filters: Vec::new() }).expect("the rules compile"))
}

fn record(index: u64, second: u64, own: bool) -> Record {
    Record {
        envelope: Envelope {
            source: if own { OWN_SOURCE } else { "hooks" }.to_owned(),
            source_type: if own { SourceType::Pipeproof } else { SourceType::Json },
            received: Timestamp::from_secs(1_767_600_000 + i64::try_from(second).expect("a second")),
            auth: if own { Authenticity::Own } else { Authenticity::Bearer },
            key_id: None,
            item: format!("id:{index:020}"),
            mode: CollectionMode::Live,
            attributes: BTreeMap::new(),
            redacted: Vec::new(),
        },
        salt: [0; 16],
        body: Bytes::from_static(if own { br#"{"kind":"tick"}"# } else { b"{}" }),
    }
}

/// Spreads numbers out, so that neighbours are not neighbours in memory.
const fn scatter(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

fn event(line: &Line, number: u64, index: u64, record: &Record) -> Event {
    let mut fields = Fields::default();
    // The first round touches every key once.
    let key = if number < line.keys { number } else { scatter(number) % line.keys };
    let member = usize::try_from(number / line.keys.min(line.events / 2)).expect("a round") % line.members.len();
    fields.set(Field::Action, Value::Text(line.members[member].into()));
    fields.set(Field::CiRepo, Value::Text(format!("acme/service-{key:07}").into()));
    fields.set(Field::ActorId, Value::Text(format!("robot-{}", key % 100).into()));
    // Of one length, however many there are: the length is not what is asked about.
    fields.set(Field::SrcIp, Value::Text(format!("10.0.{:05}", scatter(number / 7) % line.values).into()));
    fields.set(Field::CiAttempt, Value::Int(i64::try_from(scatter(number) % 1_000).expect("small")));
    Event {
        id: EventId { position: Position { partition: 0, index }, sub: 0 },
        source: record.envelope.source.as_str().into(),
        source_type: record.envelope.source_type,
        item: record.envelope.item.as_str().into(),
        time: record.envelope.received.plus(Duration::from_micros(number % PER_SECOND * 100)),
        time_known: true,
        received: record.envelope.received.plus(Duration::from_secs(1)),
        auth: record.envelope.auth,
        mode: record.envelope.mode,
        fields,
        native: Bytes::from_static(b"{}"),
    }
}

fn resident_mb() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4_096.0 / 1e6
}

/// How long this thread has run on a processor: the clock on the wall would count what else the machine does.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

fn measure(line: &Line) {
    let mut detector = Detector::new(plan(line), 0);
    if !line.deltas {
        detector = detector.without_deltas();
    }
    let before = resident_mb();
    let mut busy = Duration::ZERO;
    let (mut number, mut index, mut delta) = (0_u64, 0_u64, 0);
    while number < line.events {
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH && number < line.events {
            let second = number / PER_SECOND;
            if number.is_multiple_of(PER_SECOND) {
                let body = serde_json::to_vec(&Control::Tick {}).expect("a tick");
                let record = Record { body: Bytes::from(body), ..record(index, second, true) };
                batch.push(Decoded { index, record, events: Ok(Vec::new()) });
                index += 1;
            }
            let record = record(index, second, false);
            let event = event(line, number, index, &record);
            batch.push(Decoded { index, record, events: Ok(vec![event]) });
            (number, index) = (number + 1, index + 1);
        }
        let started = processor_time();
        let commit = detector.apply(batch, Timestamp::default()).expect("a commit");
        busy += processor_time().saturating_sub(started);
        delta += commit.delta.len();
    }
    let status = detector.rule_status();
    let (groups, waiting) = status.first().map_or((0, 0), |status| (status.size.groups, status.size.waiting));
    let counters = detector.counters();
    let rows: usize = detector.table_status().iter().map(|status| status.entries).sum();
    println!(
        "{:<42} {:>9.0} events/s {:>6.0} MB {:>9} groups or rows {:>8} waiting {:>5.0} B/event in deltas {:>6} evicted",
        line.name,
        line.events as f64 / busy.as_secs_f64(),
        resident_mb() - before,
        groups + rows,
        waiting,
        delta as f64 / line.events as f64,
        counters.evicted,
    );
}

fn main() {
    let lines = lines();
    if let Some(line) = std::env::var("PIPEPROOF_BENCH_LINE").ok().and_then(|line| line.parse::<usize>().ok()) {
        return lines.get(line).map(measure).unwrap_or_default();
    }
    let own = std::env::current_exe().expect("its own path");
    for number in 0..lines.len() {
        Command::new(&own).env("PIPEPROOF_BENCH_LINE", number.to_string()).status().expect("a line is measured");
    }
}
