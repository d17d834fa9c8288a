//! Whether the record of a source stands for a period: whole, with a gap, or not established either way.
//!
//! It works on source windows and decides nothing about events. A missing window counts as no coverage: what was never
//! received cannot be called whole.

use std::collections::BTreeMap;

use pipeproof_engine::commit::{Completeness, SourceWindow};
use pipeproof_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::definition::SourceGroup;
use super::outcome::Period;
use super::sheet::{Cell, Kind, Table};
use crate::kpi::{percent, secs};

/// Why a stretch of time is not evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The source's windows say that something is missing.
    Gap,
    /// There is no window.
    NoCoverage,
    /// No source of the type was connected yet, or none at all.
    NotConnected,
}

impl Missing {
    /// The word used in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::NoCoverage => "no_coverage",
            Self::NotConnected => "not_connected",
        }
    }
}

/// A stretch of the period for which a source's record does not stand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unevaluated {
    /// The source, or the source types where none is connected.
    pub source: String,
    /// Start, inclusive.
    pub from: Timestamp,
    /// End, exclusive.
    pub to: Timestamp,
    /// Why.
    pub status: Missing,
    /// In words.
    pub cause: String,
}

/// How far a test's sources carry it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assessment {
    /// Seconds of the period before `as_of`.
    pub period_secs: f64,
    /// Seconds of these for which every source's record stands.
    pub evaluated_secs: f64,
    /// The rest, by source and time.
    pub unevaluated: Vec<Unevaluated>,
    /// Sources whose record stands without proof that it is whole, with their basis.
    pub not_established: BTreeMap<String, String>,
    /// What was known of each source that is read.
    pub read: Vec<SourceWindow>,
}

impl Assessment {
    /// Why no part of the period could be evaluated, if so.
    #[must_use]
    pub fn nothing_evaluated(&self) -> Option<String> {
        if self.evaluated_secs > 0.0 {
            return None;
        }
        if self.period_secs <= 0.0 {
            return Some("nothing of the period lies before the time it is looked at".to_owned());
        }
        let mut reasons: Vec<String> = self
            .unevaluated
            .iter()
            .map(|part| format!("{} from {} to {}: {}", part.source, part.from, part.to, part.cause))
            .collect();
        let more = reasons.len().saturating_sub(5);
        reasons.truncate(5);
        if more > 0 {
            reasons.push(format!("and {more} more"));
        }
        Some(reasons.join("; "))
    }

    /// What limits a result that rests on this.
    #[must_use]
    pub fn qualifiers(&self, period: &Period) -> Vec<String> {
        let mut texts = Vec::new();
        if period.as_of < period.to {
            texts.push(format!("the period was not over at {}; nothing later is known", period.as_of));
        }
        if !self.unevaluated.is_empty() && self.evaluated_secs > 0.0 {
            let parts: Vec<String> = self
                .unevaluated
                .iter()
                .take(20)
                .map(|part| format!("{} {} to {} ({})", part.source, part.from, part.to, part.status.name()))
                .collect();
            let more = self.unevaluated.len().saturating_sub(20);
            let more = if more > 0 { format!(", and {more} more in 30_completeness/gaps.csv") } else { String::new() };
            texts.push(format!("not evaluated: {}{more}", parts.join(", ")));
        }
        for (source, basis) in &self.not_established {
            texts.push(format!("completeness of {source} is not established: {basis}"));
        }
        texts
    }
}

/// A half-open stretch of time.
type Span = (Timestamp, Timestamp);

/// Sorted, overlapping or touching ones joined, empty ones left out.
fn joined(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|(from, to)| from < to);
    spans.sort_unstable();
    let mut out: Vec<Span> = Vec::with_capacity(spans.len());
    for (from, to) in spans {
        match out.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => out.push((from, to)),
        }
    }
    out
}

/// The parts of `whole` that none of `spans` covers.
fn missing(whole: Span, spans: &[Span]) -> Vec<Span> {
    let mut at = whole.0;
    let mut out = Vec::new();
    for (from, to) in joined(spans.to_vec()) {
        if from > at {
            out.push((at, from.min(whole.1)));
        }
        at = at.max(to);
    }
    out.push((at, whole.1));
    out.retain(|(from, to)| from < to);
    out
}

fn length(spans: &[Span]) -> f64 {
    secs(spans.iter().map(|(from, to)| to.micros_since(*from)).sum())
}

fn by_source<'a>(windows: impl Iterator<Item = &'a SourceWindow>) -> BTreeMap<&'a str, Vec<&'a SourceWindow>> {
    let mut sources: BTreeMap<&str, Vec<&SourceWindow>> = BTreeMap::new();
    for window in windows {
        sources.entry(&window.source).or_default().push(window);
    }
    sources
}

/// Assesses the sources that a test reads. `windows` are those that overlap the period, of any source, in any order.
#[must_use]
pub fn assess(groups: &[SourceGroup], windows: &[SourceWindow], period: &Period) -> Assessment {
    let whole = (period.from, period.horizon());
    let mut assessment = Assessment { period_secs: length(&joined(vec![whole])), ..Assessment::default() };
    let inside = |window: &&SourceWindow| window.start < whole.1 && window.end > whole.0;
    for group in groups {
        let read: Vec<&SourceWindow> =
            windows.iter().filter(inside).filter(|window| group.types().contains(&window.source_type)).collect();
        let names: Vec<&str> = group.types().iter().map(|kind| kind.name()).collect();
        let names = names.join(" or ");
        let connected = read.iter().map(|window| window.start).min().unwrap_or(whole.1).max(whole.0);
        if whole.0 < connected {
            let cause = if read.is_empty() {
                format!("no source of type {names} was connected")
            } else {
                format!("no source of type {names} was connected before")
            };
            let status = Missing::NotConnected;
            assessment.unevaluated.push(Unevaluated { source: names, from: whole.0, to: connected, status, cause });
        }
        for (source, windows) in by_source(read.iter().copied()) {
            assessment.take_source(source, &windows, whole);
        }
        assessment.read.extend(read.into_iter().cloned());
    }
    assessment.unevaluated.sort();
    assessment.unevaluated.dedup();
    assessment.read.sort_by(|one, other| (&one.source, one.start).cmp(&(&other.source, other.start)));
    assessment.read.dedup();
    let spans = joined(assessment.unevaluated.iter().map(|part| (part.from, part.to)).collect());
    assessment.evaluated_secs = assessment.period_secs - length(&spans);
    assessment
}

impl Assessment {
    fn take_source(&mut self, source: &str, windows: &[&SourceWindow], whole: Span) {
        self.unevaluated.extend(holes(source, windows, whole));
        let open = windows.iter().filter(|window| window.status == Completeness::NotEstablished);
        if let Some(window) = open.max_by_key(|window| window.down_secs) {
            self.not_established.insert(source.to_owned(), window.basis.clone());
        }
    }
}

/// Where one source's record does not stand between its first window and the end of `whole`.
fn holes(source: &str, windows: &[&SourceWindow], whole: Span) -> Vec<Unevaluated> {
    let part = |(from, to): Span, status, cause: &str| Unevaluated {
        source: source.to_owned(),
        from,
        to,
        status,
        cause: cause.to_owned(),
    };
    let Some(first) = windows.iter().map(|window| window.start).min() else { return Vec::new() };
    let covered: Vec<Span> = windows.iter().map(|window| (window.start, window.end)).collect();
    let mut holes: Vec<Unevaluated> = missing((first.max(whole.0), whole.1), &covered)
        .into_iter()
        .map(|span| part(span, Missing::NoCoverage, "nothing was received, and we were not there to receive it"))
        .collect();
    for window in windows.iter().filter(|window| window.status == Completeness::Gap) {
        let span = (window.start.max(whole.0), window.end.min(whole.1));
        if span.0 < span.1 {
            holes.push(part(span, Missing::Gap, &window.basis));
        }
    }
    holes.sort();
    holes
}

/// `30_completeness/source_coverage.csv`: one row per source.
#[must_use]
pub fn coverage_table(windows: &[SourceWindow], period: &Period) -> Table {
    let whole = (period.from, period.horizon());
    let columns = [
        ("source", Kind::Text),
        ("source_type", Kind::Text),
        ("first_window_at", Kind::Time),
        ("period_secs", Kind::Float),
        ("covered_secs", Kind::Float),
        ("covered_percent", Kind::Float),
        ("complete_secs", Kind::Float),
        ("gap_secs", Kind::Float),
        ("not_established_secs", Kind::Float),
        ("no_coverage_secs", Kind::Float),
        ("records", Kind::Int),
        ("events", Kind::Int),
        ("duplicates", Kind::Int),
        ("dead_letters", Kind::Int),
        ("down_secs", Kind::Int),
        ("max_lag_secs", Kind::Int),
        ("max_skew_secs", Kind::Int),
    ];
    let mut rows = Vec::new();
    let inside = windows.iter().filter(|window| window.start < whole.1 && window.end > whole.0);
    for (source, windows) in by_source(inside) {
        let spans = |status: Option<Completeness>| {
            let matching = windows.iter().filter(|window| status.is_none_or(|status| window.status == status));
            length(&joined(matching.map(|window| (window.start.max(whole.0), window.end.min(whole.1))).collect()))
        };
        let sum = |count: fn(&SourceWindow) -> u64| {
            Cell::Int(i64::try_from(windows.iter().map(|window| count(window)).sum::<u64>()).unwrap_or(i64::MAX))
        };
        let max = |value: fn(&SourceWindow) -> i64| {
            Cell::Int(windows.iter().map(|window| value(window)).max().unwrap_or_default())
        };
        let (covered, total) = (spans(None), length(&joined(vec![whole])));
        rows.push(vec![
            Cell::Text(source.to_owned()),
            windows.first().map_or(Cell::Null, |window| Cell::Text(window.source_type.name().to_owned())),
            windows.iter().map(|window| window.start).min().map_or(Cell::Null, Cell::Time),
            Cell::Float(total),
            Cell::Float(covered),
            percent(covered as u64, total as u64).map_or(Cell::Null, Cell::Float),
            Cell::Float(spans(Some(Completeness::Complete))),
            Cell::Float(spans(Some(Completeness::Gap))),
            Cell::Float(spans(Some(Completeness::NotEstablished))),
            Cell::Float(total - covered),
            sum(|window| window.records),
            sum(|window| window.events),
            sum(|window| window.duplicates),
            sum(|window| window.dead_letters),
            Cell::Int(windows.iter().map(|window| window.down_secs).sum()),
            max(|window| window.max_lag_secs),
            max(|window| window.max_skew_secs),
        ]);
    }
    Table { columns: columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec(), rows }
}

/// `30_completeness/gaps.csv`: every stretch for which a source's record does not stand, with the tests it touches.
/// `touched` gives each test's id and what was not evaluated in it.
#[must_use]
pub fn gaps_table(windows: &[SourceWindow], period: &Period, touched: &[(String, Vec<Unevaluated>)]) -> Table {
    let whole = (period.from, period.horizon());
    let mut parts: BTreeMap<Unevaluated, Vec<String>> = BTreeMap::new();
    let inside = windows.iter().filter(|window| window.start < whole.1 && window.end > whole.0);
    for (source, windows) in by_source(inside) {
        for part in holes(source, &windows, whole) {
            parts.entry(part).or_default();
        }
    }
    for (control, unevaluated) in touched {
        for part in unevaluated {
            parts.entry(part.clone()).or_default().push(control.clone());
        }
    }
    let columns = [
        ("source", Kind::Text),
        ("from", Kind::Time),
        ("to", Kind::Time),
        ("secs", Kind::Float),
        ("status", Kind::Text),
        ("cause", Kind::Text),
        ("controls_not_evaluated", Kind::Text),
    ];
    let rows = parts.into_iter().map(|(part, controls)| {
        vec![
            Cell::Text(part.source),
            Cell::Time(part.from),
            Cell::Time(part.to),
            Cell::Float(secs(part.to.micros_since(part.from))),
            Cell::Text(part.status.name().to_owned()),
            Cell::Text(part.cause),
            Cell::Text(controls.join(" ")),
        ]
    });
    Table { columns: columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec(), rows: rows.collect() }
}
