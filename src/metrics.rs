//! What `/metrics` shows, in Prometheus' text format. Base units, `_total` for counters, labels from closed tables only, but for the names of
//! sources, of which there is a bound, and of targets, which the configuration names.

mod sources;
mod targets;

use std::sync::Mutex;

use pipeproof_engine::commit::Commit;
use pipeproof_engine::detect::DetectCounters;
use pipeproof_engine::invariant::Invariant;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::damage;
use crate::upkeep::Upkeep;

pub(crate) use sources::{Arrivals, SourceMetrics};
pub(crate) use targets::TargetMetrics;

/// The metrics of one node.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Held while metrics of what may be gone are set and written.
    pub(crate) whole: Mutex<()>,
    pub(crate) requests: IntCounterVec,
    pub(crate) accepted: IntCounterVec,
    pub(crate) append_seconds: Histogram,
    pub(crate) duplicates: IntCounter,
    pub(crate) dead_letters: IntCounter,
    pub(crate) unreadable: IntCounter,
    pub(crate) listeners_dropped: IntCounter,
    pub(crate) collected: IntCounterVec,
    pub(crate) collect_failures: IntCounterVec,
    pub(crate) sql_runs: IntCounterVec,
    findings: IntCounterVec,
    quieted: IntGauge,
    late: IntGauge,
    evicted: IntGauge,
    pub(crate) log_durable: IntGauge,
    pub(crate) detected: IntGauge,
    pub(crate) archived: IntGauge,
    pub(crate) queued_bytes: IntGauge,
    pub(crate) ready: IntGauge,
    pub(crate) rules_deployed: IntCounterVec,
    pub(crate) rules_refused: IntGauge,
    pub(crate) log_first: IntGauge,
    pub(crate) clock_ahead: IntGauge,
    pub(crate) item_sets_made_room: IntGauge,
    pub(crate) reloads_refused: IntGauge,
    pub(crate) violations: IntCounterVec,
    pub(crate) log_damaged: IntCounterVec,
    pub(crate) tls_handshakes_failed: IntCounterVec,
    pub(crate) tls_not_after: IntGaugeVec,
    pub(crate) sealed: IntGauge,
    pub(crate) upkeep_failures: IntCounterVec,
    pub(crate) sources: SourceMetrics,
    pub(crate) targets: TargetMetrics,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        // From a fast disk's sync to a stalled one.
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
        let append = HistogramOpts::new("pipeproof_log_append_seconds", "time from append to stable storage");
        let append_seconds = Histogram::with_opts(append.buckets(buckets))?;
        registry.register(Box::new(append_seconds.clone()))?;
        let build = IntGauge::with_opts(
            Opts::new("pipeproof_build_info", "1, with the version as label")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1);
        registry.register(Box::new(build))?;
        let violations = counters(
            "pipeproof_invariant_violations_total",
            "what must hold and did not, since the start",
            &["invariant"],
        )?;
        // A counter that is there from the start can be alerted on.
        for invariant in Invariant::ALL {
            violations.with_label_values(&[invariant.name()]).reset();
        }
        let log_damaged = counters(
            "pipeproof_log_damaged_total",
            "records, leaf hashes and segment headers that were found damaged when a log was opened, by log",
            &["log", "what"],
        )?;
        for log in [damage::LOG, damage::SEAL] {
            for what in ["records", "hashes", "headers"] {
                log_damaged.with_label_values(&[log, what]).reset();
            }
        }
        let upkeep_failures = counters(
            "pipeproof_upkeep_failures_total",
            "work behind the events that failed and is tried again, by which",
            &["work"],
        )?;
        for work in Upkeep::ALL {
            upkeep_failures.with_label_values(&[work.name()]).reset();
        }
        let tls_not_after = IntGaugeVec::new(
            Opts::new(
                "pipeproof_tls_certificate_not_after_seconds",
                "when a listener's certificate ends, seconds since 1970",
            ),
            &["endpoint"],
        )?;
        registry.register(Box::new(tls_not_after.clone()))?;
        Ok(Self {
            sources: SourceMetrics::new(&registry)?,
            targets: TargetMetrics::new(&registry)?,
            upkeep_failures,
            sealed: gauge("pipeproof_sealed_records", "records that the last signed checkpoint covers")?,
            violations,
            log_damaged,
            tls_handshakes_failed: counters(
                "pipeproof_tls_handshakes_failed_total",
                "TLS connections that came to nothing, by listener",
                &["endpoint"],
            )?,
            tls_not_after,
            item_sets_made_room: gauge(
                "pipeproof_item_sets_forgotten_early",
                "sets of items seen that were forgotten before their time since the start, as too many came after them",
            )?,
            clock_ahead: gauge(
                "pipeproof_clock_ahead_seconds",
                "how far the machine's clock is ahead and not gone by",
            )?,
            log_first: gauge("pipeproof_log_first_record", "first record that the log still holds as data")?,
            reloads_refused: gauge(
                "pipeproof_configuration_refused",
                "1 while the configuration file is broken and what was read before stays in force",
            )?,
            requests: counters(
                "pipeproof_http_requests_total",
                "HTTP requests by route and status",
                &["route", "status"],
            )?,
            accepted: counters("pipeproof_ingest_records_total", "records accepted, by source type", &["source_type"])?,
            append_seconds,
            collected: counters("pipeproof_collected_items_total", "items fetched, by source type", &["source_type"])?,
            collect_failures: counters(
                "pipeproof_collect_failures_total",
                "pages that could not be fetched, by source type",
                &["source_type"],
            )?,
            duplicates: counter("pipeproof_duplicates_total", "records that repeat an earlier one")?,
            dead_letters: counter("pipeproof_dead_letters_total", "records that could not be decoded")?,
            unreadable: counter("pipeproof_unreadable_records_total", "log records this version cannot read")?,
            listeners_dropped: counter(
                "pipeproof_tail_listeners_dropped_total",
                "listeners of the live stream that were let go because they took nothing or fell behind",
            )?,
            sql_runs: counters(
                "pipeproof_sql_rule_runs_total",
                "runs of rules that ask the lake, by outcome",
                &["outcome"],
            )?,
            findings: counters("pipeproof_findings_total", "findings by severity", &["level"])?,
            quieted: gauge("pipeproof_findings_quieted", "findings held back by quiet time since the start")?,
            late: gauge("pipeproof_signals_late", "signals behind their rule's watermark since the start")?,
            evicted: gauge("pipeproof_state_evicted", "signals and groups dropped at a bound since the start")?,
            log_durable: gauge("pipeproof_log_durable_records", "records of the log on stable storage")?,
            detected: gauge("pipeproof_detected_records", "records evaluated and committed")?,
            archived: gauge("pipeproof_archived_records", "records the lake has taken in")?,
            queued_bytes: gauge("pipeproof_log_queue_bytes", "bytes waiting for the log's writer")?,
            ready: gauge("pipeproof_ready", "1 while events are accepted")?,
            rules_deployed: counters(
                "pipeproof_rule_sets_total",
                "rule sets put in force since the start, by what made them",
                &["change"],
            )?,
            rules_refused: gauge(
                "pipeproof_rules_refused",
                "1 while the rules of program and configuration have errors and the set before stays in force",
            )?,
            registry,
            whole: Mutex::default(),
        })
    }

    pub(crate) fn observe(&self, arrivals: &Arrivals, commit: &Commit, counters: &DetectCounters) {
        self.sources.observe(arrivals, commit);
        self.duplicates.inc_by(commit.duplicates.len() as u64);
        self.dead_letters.inc_by(commit.dead_letters.len() as u64);
        for finding in &commit.findings {
            self.findings.with_label_values(&[finding.level.name()]).inc();
        }
        let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.quieted, counters.quieted);
        set(&self.late, counters.late);
        set(&self.evicted, counters.evicted);
    }

    pub(crate) fn text(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(error = %error, "cannot write metrics");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}
