//! How each target of messages does, as metrics: by the target's name, of which the configuration has as many as it has.

use pipeproof_engine::time::Timestamp;
use pipeproof_record::store::Waiting;
use pipeproof_reports::deliver::run::{TargetState, TargetStatus};
use prometheus::{IntGaugeVec, Opts, Registry};

const LABEL: &[&str] = &["target"];

/// The metrics of targets.
#[derive(Debug)]
pub(crate) struct TargetMetrics {
    waiting: IntGaugeVec,
    oldest: IntGaugeVec,
    stopped: IntGaugeVec,
    given_up: IntGaugeVec,
}

impl TargetMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), LABEL)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            waiting: gauge("pipeproof_target_waiting_messages", "messages that still have to reach the target")?,
            oldest: gauge(
                "pipeproof_target_oldest_waiting_seconds",
                "how long ago the first of them was committed; 0 when nothing waits",
            )?,
            stopped: gauge(
                "pipeproof_target_stopped",
                "1 while the target is paused (401, 403, or its address is refused) or disabled (410)",
            )?,
            given_up: gauge(
                "pipeproof_target_given_up",
                "messages the target was not brought, since targets were last read",
            )?,
        })
    }

    /// Tells how the targets in force do, and what waits for them if the store can say. Targets that are no more have no metrics any
    /// more.
    pub(crate) fn tell(&self, targets: &[TargetStatus], waiting: &[Option<Waiting>], now: Timestamp) {
        for gauge in [&self.waiting, &self.oldest, &self.stopped, &self.given_up] {
            gauge.reset();
        }
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for (target, waiting) in targets.iter().zip(waiting) {
            let label = &[target.name.as_str()];
            self.stopped.with_label_values(label).set(i64::from(target.state != TargetState::Active));
            self.given_up.with_label_values(label).set(number(target.given_up));
            if let Some(waiting) = waiting {
                let oldest = waiting.since.map_or(0, |since| now.micros_since(since).max(0) / 1_000_000);
                self.waiting.with_label_values(label).set(number(waiting.messages));
                self.oldest.with_label_values(label).set(oldest);
            }
        }
    }
}
