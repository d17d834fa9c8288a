//! Decoding beside `serde_json::Value`, for every source type in one table: how many times as fast it is.
//!
//! The yardstick makes a tree of values of the very bytes of the record, and nothing of the tree; decoding makes events
//! with all their fields. Both take turns in one process, each turn of decoding is divided by the turn of the yardstick
//! beside it, and the median counts. Time is this thread's own, so that other programs do not count.
//!
//! Where a record holds Base64 of further JSON, decoding has to read that as well: the second yardstick does too. Where
//! it is text and no JSON, there are no same bytes to parse: the yardstick reads a JSON array of its lines instead.

use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::record::{Position, Record};
use engine::source::SourceType;
use pipeproof_engine as engine;
use pipeproof_ingest::decode::decode;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::bodies;

/// Seconds that each source is measured for unless the caller says otherwise.
const SECONDS: f64 = 1.0;
/// Seconds of one turn: long beside the clock's steps, short beside what else a machine does.
const TURN: f64 = 0.002;

/// Where records hold Base64 of JSON that decoding reads.
const WRAPPED: &[(SourceType, &[&str])] = &[
    (SourceType::SigstoreBundle, &["/dsseEnvelope/payload"]),
    (SourceType::RekorEntry, &["/canonicalizedBody", "/body"]),
    (SourceType::IntotoStatement, &["/payload", "/dsseEnvelope/payload"]),
];

/// Prints the table: `--only TEXT` for sources with that in their names, `--seconds N` for each.
pub(crate) fn print(arguments: &[String]) {
    let after = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1);
    let seconds = after("--seconds").map_or(SECONDS, |text| text.parse().unwrap());
    let only = after("--only").map_or("", String::as_str);
    let receiver = bodies::receiver();
    println!(
        "| source type | records | bytes | events | decode, MB/s | `serde_json::Value`, MB/s | times as fast | with what is inside |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (kind, body) in bodies::all() {
        if kind.name().contains(only) {
            let records = bodies::receive(&receiver, &bodies::source(kind), &body);
            row(kind, &records, seconds);
        }
    }
}

fn row(kind: SourceType, records: &[Record], seconds: f64) {
    let bytes: usize = records.iter().map(|record| record.body.len()).sum();
    // One of the bundles has an unknown version and is a dead letter.
    let decodes = || {
        records
            .iter()
            .map(|record| decode(Position::default(), black_box(record)).map_or(0, |events| events.len()))
            .sum()
    };
    let as_json = |record: &Record| serde_json::from_slice::<Value>(&record.body).is_ok();
    let is_json = records.iter().all(as_json);
    let texts: Vec<Bytes> = if is_json {
        records.iter().map(|record| record.body.clone()).collect()
    } else {
        let lines = |record: &Record| String::from_utf8_lossy(&record.body).lines().map(Value::from).collect::<Value>();
        records.iter().map(|record| lines(record).to_string().into()).collect()
    };
    let yardstick = || texts.iter().map(|text| usize::from(parse(black_box(text)).is_some())).sum();
    let (own, beside, share) = turns(&decodes, &yardstick, seconds);
    let speed = |secs: f64| bytes as f64 / secs / 1e6;
    let inside = WRAPPED.iter().find(|(wrapping, _)| *wrapping == kind).map(|(_, places)| {
        let deep = || texts.iter().map(|text| usize::from(parse_inside(black_box(text), places).is_some())).sum();
        turns(&decodes, &deep, seconds).2
    });
    println!(
        "| `{kind}` | {} | {bytes} | {} | {:.0} | {:.0}{} | {share:.2} | {} |",
        records.len(),
        decodes(),
        speed(own),
        speed(beside),
        if is_json { "" } else { " (array of lines)" },
        inside.map(|share| format!("{share:.2}")).unwrap_or_default(),
    );
}

fn parse(text: &[u8]) -> Option<Value> {
    black_box(serde_json::from_slice(text).ok())
}

/// The tree, and the trees of what it holds as Base64.
fn parse_inside(text: &[u8], places: &[&str]) -> Option<Value> {
    let outer = parse(text)?;
    for place in places {
        let inner = outer.pointer(place).and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
        drop(black_box(inner.and_then(|inner| parse(&inner))));
    }
    Some(outer)
}

/// Seconds of one pass of each, and how many times as fast the first is: medians of turns.
fn turns(first: &dyn Fn() -> usize, second: &dyn Fn() -> usize, seconds: f64) -> (f64, f64, f64) {
    let passes = |of: &dyn Fn() -> usize| (TURN / timed(of, 3).max(1e-9)).ceil().max(1.0) as u32;
    let (of_first, of_second) = (passes(first), passes(second));
    let mut taken: Vec<(f64, f64)> = Vec::new();
    let mut spent = 0.0;
    while spent < seconds || taken.len() < 9 {
        let (one, other) = (timed(first, of_first), timed(second, of_second));
        spent += one * f64::from(of_first) + other * f64::from(of_second);
        taken.push((one, other));
    }
    let median = |of: &dyn Fn(&(f64, f64)) -> f64| {
        let mut all: Vec<f64> = taken.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    (median(&|turn| turn.0), median(&|turn| turn.1), median(&|turn| turn.1 / turn.0))
}

/// Seconds of this thread's own time that a pass takes, over so many.
fn timed(of: &dyn Fn() -> usize, passes: u32) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let begun = now();
    for _ in 0..passes {
        black_box(of());
    }
    (now() - begun) / f64::from(passes)
}
