//! How each source does, as metrics: by the source's name, of at most [`SOURCES_MAX`] sources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use pipeproof_engine::commit::{Commit, Heard};
use pipeproof_engine::control::OWN_SOURCE;
use pipeproof_engine::detect::{Decoded, StreamStatus};
use pipeproof_engine::fields::{Field, Value};
use pipeproof_engine::record::CollectionMode;
use pipeproof_engine::silence::Silence;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Sources with metrics of their own; those that come after share `OTHERS`.
const SOURCES_MAX: usize = 500;
/// The name that further sources share. No source can have it.
const OTHERS: &str = "(others)";
const LABEL: &[&str] = &["source"];
/// From the same second to a day late: webhooks, batched objects, job logs.
const LAGS: &[f64] = &[1.0, 5.0, 15.0, 60.0, 120.0, 300.0, 900.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0];

/// See the module.
#[derive(Debug)]
pub(crate) struct SourceMetrics {
    names: Mutex<BTreeSet<String>>,
    last_event: GaugeVec,
    records: IntCounterVec,
    events: IntCounterVec,
    left_out: IntCounterVec,
    duplicates: IntCounterVec,
    dead_letters: IntCounterVec,
    lag: HistogramVec,
    skew: GaugeVec,
    missing: IntGaugeVec,
    lost: IntGaugeVec,
    restarts: IntGaugeVec,
    silent: IntGaugeVec,
}

/// What a micro-batch brought, by source.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    by_source: BTreeMap<String, Arrived>,
    /// Where each record came from: which of them repeat others is known later.
    records: Vec<(u64, String)>,
}

#[derive(Debug, Default)]
struct Arrived {
    records: u64,
    events: u64,
    /// What records list beyond the events a record may give.
    left_out: u64,
    /// Seconds from when it happened to when we received it.
    lags: Vec<f64>,
}

impl Arrivals {
    /// Looks at a batch before it is evaluated.
    pub(crate) fn of(batch: &[Decoded]) -> Self {
        let mut all = Self::default();
        for decoded in batch {
            let envelope = &decoded.record.envelope;
            if envelope.source == OWN_SOURCE {
                continue;
            }
            let own = all.by_source.entry(envelope.source.clone()).or_default();
            own.records += 1;
            let events = decoded.events();
            own.events += events.len() as u64;
            all.records.push((decoded.index, envelope.source.clone()));
            let Some(first) = events.first() else { continue };
            if let Some(Value::Int(left_out)) = first.fields.get(Field::EventsLeftOut) {
                own.left_out += u64::try_from(*left_out).unwrap_or(0);
            }
            if first.time_known && first.mode == CollectionMode::Live {
                own.lags.push(first.received.micros_since(first.time) as f64 / 1e6);
            }
        }
        all
    }
}

impl SourceMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), LABEL)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<GaugeVec, prometheus::Error> {
            let gauge = GaugeVec::new(Opts::new(name, help), LABEL)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let count = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), LABEL)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let lag = HistogramOpts::new(
            "pipeproof_source_lag_seconds",
            "from when an event happened by its source's clock to when it was received; live events with a time of their own",
        );
        let lag = HistogramVec::new(lag.buckets(LAGS.to_vec()), LABEL)?;
        registry.register(Box::new(lag.clone()))?;
        Ok(Self {
            names: Mutex::default(),
            last_event: gauge(
                "pipeproof_source_last_event_timestamp_seconds",
                "when the source's latest event was received, seconds since 1970",
            )?,
            records: counter("pipeproof_source_records_total", "records of the source, repetitions included")?,
            events: counter("pipeproof_source_events_total", "events that those records were decoded to")?,
            left_out: counter(
                "pipeproof_source_events_left_out_total",
                "things that records of the source tell of beyond the events a record gives",
            )?,
            duplicates: counter(
                "pipeproof_source_duplicates_total",
                "records of the source that repeat an earlier one",
            )?,
            dead_letters: counter(
                "pipeproof_source_dead_letters_total",
                "records of the source that cannot be decoded",
            )?,
            lag,
            skew: gauge(
                "pipeproof_source_skew_seconds",
                "by how much the source's clock ran ahead of ours at most in the hour of its latest event",
            )?,
            missing: count(
                "pipeproof_source_sequence_missing",
                "numbered events of the source that did not come and are waited for",
            )?,
            lost: count(
                "pipeproof_source_sequence_lost",
                "numbered events of the source that did not come and are no longer waited for",
            )?,
            restarts: count("pipeproof_source_sequence_restarts", "how often the source's numbers began anew")?,
            silent: count("pipeproof_source_silent", "1 while the source is silent for longer than it usually is")?,
        })
    }

    /// The label of a source.
    fn label<'a>(&self, source: &'a str) -> &'a str {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(source) {
            return source;
        }
        if names.len() >= SOURCES_MAX {
            return OTHERS;
        }
        names.insert(source.to_owned());
        source
    }

    /// Counts what was committed.
    pub(crate) fn observe(&self, arrivals: &Arrivals, commit: &Commit) {
        for (source, arrived) in &arrivals.by_source {
            let label = &[self.label(source)];
            self.records.with_label_values(label).inc_by(arrived.records);
            self.events.with_label_values(label).inc_by(arrived.events);
            self.left_out.with_label_values(label).inc_by(arrived.left_out);
            self.begin(label);
            let lag = self.lag.with_label_values(label);
            arrived.lags.iter().for_each(|seconds| lag.observe(*seconds));
        }
        for duplicate in &commit.duplicates {
            if let Ok(at) = arrivals.records.binary_search_by_key(&duplicate.index, |(index, _)| *index)
                && let Some((_, source)) = arrivals.records.get(at)
            {
                self.duplicates.with_label_values(&[self.label(source)]).inc();
            }
        }
        for letter in commit.dead_letters.iter().filter(|letter| letter.source != OWN_SOURCE) {
            self.dead_letters.with_label_values(&[self.label(&letter.source)]).inc();
        }
        commit.heard.iter().for_each(|heard| self.heard(heard));
    }

    /// Tells when a source was last heard of. That of those that share a label which was last of all.
    fn heard(&self, heard: &Heard) {
        let label = &[self.label(&heard.source)];
        let last = self.last_event.with_label_values(label);
        last.set(last.get().max(heard.received.as_micros() as f64 / 1e6));
        self.skew.with_label_values(label).set(heard.max_skew_secs as f64);
    }

    /// Counters that are there before the first record can be alerted on.
    fn begin(&self, label: &[&str; 1]) {
        for counter in [&self.records, &self.events, &self.left_out, &self.duplicates, &self.dead_letters] {
            counter.with_label_values(label).inc_by(0);
        }
    }

    /// Goes on after a restart, with the sources that are connected and when each was last heard of.
    pub(crate) fn restore<'a>(&self, connected: impl Iterator<Item = &'a str>, heard: &[Heard]) {
        connected.for_each(|source| self.begin(&[self.label(source)]));
        heard.iter().for_each(|heard| self.heard(heard));
    }

    /// Tells how numberings stand; of transports' own numbers nothing is told.
    pub(crate) fn number(&self, streams: &[StreamStatus]) {
        let mut by_label: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
        for stream in streams.iter().filter(|stream| stream.by == "sender") {
            let sums = by_label.entry(self.label(&stream.source)).or_default();
            for (sum, more) in sums.iter_mut().zip([stream.missing, stream.lost, stream.restarts]) {
                *sum = sum.saturating_add(more);
            }
        }
        let gauges = [&self.missing, &self.lost, &self.restarts];
        gauges.iter().for_each(|gauge| gauge.reset());
        for (label, sums) in by_label {
            for (gauge, sum) in gauges.iter().zip(sums) {
                gauge.with_label_values(&[label]).set(i64::try_from(sum).unwrap_or(i64::MAX));
            }
        }
    }

    /// Tells which sources are silent.
    pub(crate) fn silent(&self, silences: &[Silence]) {
        self.silent.reset();
        for silence in silences {
            self.silent.with_label_values(&[self.label(&silence.source)]).set(i64::from(silence.told.is_some()));
        }
    }

    /// Forgets a source that was removed.
    pub(crate) fn remove(&self, source: &str) {
        if !self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(source) {
            return;
        }
        // What was never told cannot be forgotten.
        for counter in [&self.records, &self.events, &self.duplicates, &self.dead_letters] {
            let _never_told = counter.remove_label_values(&[source]);
        }
        for gauge in [&self.last_event, &self.skew] {
            let _never_told = gauge.remove_label_values(&[source]);
        }
        for gauge in [&self.missing, &self.lost, &self.restarts, &self.silent] {
            let _never_told = gauge.remove_label_values(&[source]);
        }
        let _never_told = self.lag.remove_label_values(&[source]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_names_is_bounded_and_a_removed_one_makes_room() {
        let metrics = SourceMetrics::new(&Registry::new()).unwrap();
        let names: Vec<String> = (0..=SOURCES_MAX).map(|number| format!("s{number}")).collect();
        let told = |metrics: &SourceMetrics| names.iter().filter(|name| metrics.label(name) == name.as_str()).count();
        assert_eq!(told(&metrics), SOURCES_MAX);
        assert_eq!(metrics.label("another"), OTHERS);
        metrics.remove("s0");
        assert_eq!(metrics.label("another"), "another");
    }
}
