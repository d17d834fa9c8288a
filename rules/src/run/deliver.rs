//! The ways in which the same records can reach the detector. What is found must not depend on it.

use std::collections::BTreeSet;
use std::sync::Arc;

use pipeproof_engine::commit::Restored;
use pipeproof_engine::detect::{Decoded, Detector};
use pipeproof_engine::finding::Finding;
use pipeproof_engine::plan::{Plan, Routing};
use pipeproof_engine::record::Authenticity;
use pipeproof_engine::rule::Rule;

use super::stage::{Sent, Stage};

/// Most restarts of one delivery; with more records, only every so many is followed by one.
const RESTARTS_MAX: usize = 400;

/// How records reach the detector.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// One batch a record: the run that is shown.
    Once,
    /// Every record of a source is delivered again right away.
    Twice,
    /// All records in one batch.
    OneBatch,
    /// After every record the detector is stopped and restored from a snapshot of its state.
    Restored,
    /// After every record the detector is stopped and restored from all changes of its state.
    Replayed,
}

impl Delivery {
    const OTHERS: [(Self, &'static str); 4] = [
        (Self::Twice, "with every record delivered twice"),
        (Self::OneBatch, "with all records in one batch"),
        (Self::Restored, "with a restart after every record"),
        (Self::Replayed, "with a restart after every record, from the changes of the state"),
    ];
}

/// A plan and how events reach its rules.
pub(super) struct Course<'p> {
    pub(super) plan: &'p Arc<Plan>,
    pub(super) routing: Routing,
}

impl Course<'_> {
    /// The findings of a test; an error if they depend on how its records are delivered.
    pub(super) fn run(&self, stage: &Stage, rule: &Rule) -> Result<Vec<Finding>, String> {
        let records = stage.records(|_| true)?;
        let findings = self.deliver(&records, Delivery::Once)?;
        let wanted = ids(&findings);
        let other = |how: &str| {
            Err(format!("{how}, the findings are others: this is an error of the engine, not of the rule"))
        };
        for (delivery, how) in Delivery::OTHERS {
            if ids(&self.deliver(&records, delivery)?) != wanted {
                return other(how);
            }
        }
        if in_time_order(rule) {
            for seed in [1, 2] {
                let records = stage.shuffled(seed).records(|_| true)?;
                if ids(&self.deliver(&records, Delivery::Once)?) != wanted {
                    return other("with events in another order within the lateness of their sources");
                }
            }
        }
        if let Some(fields) = splits(rule) {
            let key = |event: &Sent| fields.iter().map(|field| event.fields.get(*field).cloned()).collect::<Vec<_>>();
            let mut keys: Vec<_> = stage.sent.iter().map(key).collect();
            keys.sort_by_key(|key| format!("{key:?}"));
            keys.dedup();
            let mut found = BTreeSet::new();
            if keys.len() > 1 && keys.len() <= 50 {
                for own in &keys {
                    found.extend(ids(&self.deliver(&stage.records(|event| key(event) == *own)?, Delivery::Once)?));
                }
                if found != wanted {
                    return other("with the events of each key apart");
                }
            }
        }
        Ok(findings)
    }

    /// Feeds records to a new detector and gives all findings.
    fn deliver(&self, records: &[Decoded], delivery: Delivery) -> Result<Vec<Finding>, String> {
        let mut log: Vec<Decoded> = Vec::new();
        for record in records {
            let again = delivery == Delivery::Twice && record.record.envelope.auth != Authenticity::Own;
            for _ in 0..=usize::from(again) {
                let index = log.len() as u64;
                let mut copy = Decoded { index, ..record.clone() };
                for event in copy.events.iter_mut().flatten() {
                    event.id.position.index = index;
                }
                log.push(copy);
            }
        }
        let every = log.len().div_ceil(RESTARTS_MAX).max(1);
        let batches: Vec<Vec<Decoded>> = match delivery {
            Delivery::OneBatch => vec![log],
            _ => log.into_iter().map(|record| vec![record]).collect(),
        };
        let new = || Detector::new(Arc::clone(self.plan), 0).with_routing(self.routing.clone());
        let mut detector = new();
        let mut deltas = Vec::new();
        let mut findings = Vec::new();
        for (number, batch) in batches.into_iter().enumerate() {
            let received = batch.last().map(|decoded| decoded.record.envelope.received).unwrap_or_default();
            let commit = detector.apply(batch, received).map_err(|error| error.to_string())?;
            if let Some(dead) = commit.dead_letters.first() {
                return Err(format!("the detector refused a record: {}", dead.reason));
            }
            findings.extend(commit.findings);
            let restored = match delivery {
                Delivery::Replayed => {
                    deltas.push(commit.delta);
                    Restored { position: detector.position(), snapshot: None, deltas: deltas.clone() }
                }
                Delivery::Restored => {
                    let state = detector.snapshot().map_err(|error| error.to_string())?;
                    let position = detector.position();
                    Restored { position, snapshot: Some((position, state)), deltas: Vec::new() }
                }
                _ => continue,
            };
            if number % every == 0 {
                let next = Detector::restore(Arc::clone(self.plan), 0, &restored);
                detector = next.map_err(|error| error.to_string())?.with_routing(self.routing.clone());
            }
        }
        Ok(findings)
    }
}

fn ids(findings: &[Finding]) -> BTreeSet<String> {
    findings.iter().map(|finding| finding.id.clone()).collect()
}

/// Whether the rule takes its events in the order of their times, whenever they arrive. A rule that speaks at once and
/// then holds its tongue for a while speaks of whichever event came first.
fn in_time_order(rule: &Rule) -> bool {
    match rule {
        Rule::Detection(rule) => rule.condition.has_lookup() || rule.meta.alert.quiet.is_none(),
        Rule::Correlation(rule) => !rule.early,
        Rule::Sql(_) => false,
    }
}

/// The fields by which the events of a rule can be taken apart without changing what it finds.
fn splits(rule: &Rule) -> Option<Vec<&str>> {
    let fields: Vec<&str> = match rule {
        Rule::Detection(rule) if !rule.condition.has_lookup() => rule.meta.alert.dedup.iter().map(String::as_str).collect(),
        Rule::Correlation(rule) if rule.aliases.is_empty() => rule.group_by.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    (!fields.is_empty()).then_some(fields)
}

