//! Another set of rules at run time: which plan a restored detector goes on with, and the switch at a control record.

use std::sync::Arc;

use super::Detector;
use crate::commit::Restored;
use crate::plan::Plan;
use crate::redaction::Forgotten;
use crate::state::{Delta, State, StateError};

/// Why a detector cannot go on where the store stands.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError<E> {
    /// Its state is damaged or of a newer version.
    #[error("cannot read back the state of detection")]
    State(#[source] StateError),
    /// The rules it stands under are not there: what the caller said.
    #[error("cannot have the rules that detection stands under")]
    Rules(E),
}

impl Detector {
    /// Forgets what is remembered of records whose payload is dropped. The state must be kept as a [`Detector::snapshot`] then:
    /// deltas before it still tell of them. Doing it again changes nothing.
    pub fn forget(&mut self, of: &Forgotten) {
        for (lanes, link) in self.state.correlations.iter_mut().zip(&self.topology.links) {
            lanes.live.forget(&link.shape, of);
            lanes.backfill.forget(&link.shape, of);
        }
        self.state.tables.iter_mut().for_each(|rows| rows.forget(|event| of.has(event)));
        for lanes in self.state.deferred.values_mut() {
            lanes.live.forget(|event| of.has(event));
            lanes.backfill.forget(|event| of.has(event));
        }
        // A rule that spoke about it may speak again sooner: what it spoke about is the payload.
        self.state.quiet.retain(|_, time| !of.moments.contains(time));
        self.state.incidents.redact(of);
    }

    /// A detector that goes on where the store stands, under the set of rules that was in force there: `plan` is asked
    /// for it by the digest the log said last, or by `None` where it said nothing yet.
    ///
    /// # Errors
    /// [`RestoreError`] tells a damaged state from rules that cannot be had.
    pub fn restore_under<E>(
        partition: u32,
        restored: &Restored,
        plan: impl FnOnce(Option<&str>) -> Result<Arc<Plan>, E>,
    ) -> Result<Self, RestoreError<E>> {
        let snapshot = restored.snapshot.iter().map(|(_, bytes)| bytes.as_slice());
        let parts = snapshot.chain(restored.deltas.iter().map(Vec::as_slice));
        let deltas = Delta::decode_all(parts).map_err(RestoreError::State)?;
        let set = deltas.iter().rev().find_map(|delta| delta.rule_set.as_deref());
        let plan = plan(set).map_err(RestoreError::Rules)?;
        let (state, topology) = State::rebuild(&plan, deltas).map_err(RestoreError::State)?;
        Ok(Self::with_state(plan, partition, state, topology))
    }

    /// From the next record on, another plan decides. What is remembered for rules that decide as before is kept; what
    /// was remembered for others is let go. Whoever replays the same records must switch at the same one: the control
    /// record that names the set, before it is evaluated itself. The state must be kept as a [`Detector::snapshot`] then:
    /// deltas before and after the switch are not read back under one plan.
    pub fn replace_plan(&mut self, plan: Arc<Plan>) {
        self.topology = Arc::new(self.state.relink(&self.plan, &self.topology, &plan));
        self.plan = plan;
    }

    /// The plan that decides.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }
}
