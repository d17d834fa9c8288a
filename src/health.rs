//! Whether a node is well: what must hold and does not, what cannot be written, and which configuration could not be read.

use std::sync::PoisonError;

use pipeproof_engine::commit::Heard;
use pipeproof_engine::control::Control;
use pipeproof_engine::invariant::{Invariant, Positions};
use pipeproof_engine::merkle::Nodes as _;
use pipeproof_engine::source::SourceType;
use pipeproof_ingest::log::LogState;
use pipeproof_record::store::StoreError;

use crate::node::Shared;

/// Longest part of a reason that goes into the log, in bytes.
const REASON_BYTES: usize = 2_000;

impl Shared {
    /// When the sources that there are were last heard of. One that was removed is none, and what came before it was connected
    /// anew was another's.
    pub(crate) async fn heard(&self) -> Result<Vec<Heard>, StoreError> {
        let mut heard = self.store.heard().await?;
        let registry = self.registry();
        heard.retain(|heard| match registry.sources.get(&heard.source) {
            Some(source) => heard.received >= source.connected,
            // A token for a type makes a source of that name.
            None => heard.source.parse().is_ok_and(|kind: SourceType| kind.is_external()),
        });
        drop(registry);
        Ok(heard)
    }

    /// Tells metrics what the store knows of sources. Without it they tell it from each source's next record on.
    pub(crate) async fn restore_metrics(&self) {
        match self.heard().await {
            Ok(heard) => {
                let registry = self.registry();
                self.metrics.sources.restore(registry.sources.keys().map(String::as_str), &heard);
            }
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "metrics tell of each source only from its next record on");
            }
        }
    }

    /// Counts and tells what must hold and does not.
    pub(crate) fn check_invariants(&self) {
        // In this order: each only grows, and none may pass the one after it.
        let retired = self.log.first();
        let archived = *self.archived.borrow();
        let detected = *self.detected.borrow();
        let durable = *self.log.durable().borrow();
        let leaves = self.log.leaves();
        let positions = Positions { retired, archived, detected, durable, leaves };
        for invariant in positions.violated() {
            tracing::error!(?positions, "an invariant is violated");
            self.violated(invariant);
        }
        if durable > 0 && self.log.root(durable).is_none() {
            self.violated(Invariant::TreeIsWhole);
        }
    }

    pub(crate) fn violated(&self, invariant: Invariant) {
        tracing::error!(invariant = invariant.name(), "what must hold does not");
        self.metrics.violations.with_label_values(&[invariant.name()]).inc();
    }

    /// Why events cannot be accepted just now, if so.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if *self.stopping.borrow() {
            return Some("stopping".to_owned());
        }
        if let LogState::Stopped(reason) = self.log.state() {
            return Some(format!("the log does not accept: {reason}"));
        }
        let trouble = self.trouble.read().unwrap_or_else(PoisonError::into_inner);
        trouble.iter().next().map(|(part, reason)| format!("{part}: {reason}"))
    }

    /// What is wrong with the configuration file, if it is broken.
    pub(crate) fn configuration_trouble(&self) -> Option<String> {
        self.configuration_trouble.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what reading the configuration again came to: a broken file keeps what was read before in force.
    pub(crate) async fn configuration_read(&self, outcome: Result<(), String>) {
        self.metrics.reloads_refused.set(i64::from(outcome.is_err()));
        let trouble = outcome.err();
        match &trouble {
            Some(reason) => tracing::error!(reason, "the configuration is broken; what is in force stays"),
            None => tracing::info!("the configuration was read again"),
        }
        *self.configuration_trouble.write().unwrap_or_else(PoisonError::into_inner) = trouble.clone();
        self.record_refusal("configuration", trouble).await;
    }

    /// Writes down that a file of the operator's cannot be used, or can be used again, if it is another word than the last one:
    /// a rule makes a finding of it.
    pub(crate) async fn record_refusal(&self, file: &str, reason: Option<String>) {
        let reason = reason.map(|mut reason| {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES));
            reason
        });
        let before = self.registry().refused.get(file).cloned();
        if before == reason {
            return;
        }
        let file = file.to_owned();
        let control = match reason {
            Some(reason) => Control::ConfigurationRefused { file, reason },
            None => Control::ConfigurationMended { file },
        };
        if let Err(error) = self.control(control).await {
            tracing::warn!(error = %error, "cannot write down what a file of the configuration came to");
        }
    }

    /// Whether a part has trouble.
    pub(crate) fn is_troubled(&self, part: &str) -> bool {
        self.trouble.read().unwrap_or_else(PoisonError::into_inner).contains_key(part)
    }

    /// Notes that a part has trouble, or no longer has.
    pub(crate) fn set_trouble(&self, part: &'static str, reason: Option<String>) {
        let mut trouble = self.trouble.write().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => {
                if trouble.insert(part, reason.clone()).is_none() {
                    tracing::error!(part, reason, "cannot go on; not ready until it can");
                }
            }
            None => {
                if trouble.remove(part).is_some() {
                    tracing::info!(part, "goes on again");
                }
            }
        }
    }
}
