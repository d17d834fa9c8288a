//! What control records do to detection: time goes on, sources come and go, people act on incidents.

use super::{Batch, Decoded, Detector};
use crate::commit::{Completeness, DeadLetter};
use crate::control::{Control, OWN_SOURCE};
use crate::time::Timestamp;

impl Detector {
    /// Applies a control record; true for a tick.
    pub(super) fn control(&mut self, decoded: &Decoded, now: Timestamp, batch: &mut Batch) -> bool {
        let control: Control = match serde_json::from_slice(&decoded.record.body) {
            Ok(control) => control,
            Err(error) => {
                batch.commit.dead_letters.push(DeadLetter {
                    index: decoded.index,
                    source: OWN_SOURCE.to_owned(),
                    received: now,
                    reason: format!("control record of another version: {error}"),
                });
                return false;
            }
        };
        let ticked = control.is_tick();
        match control {
            Control::Tick {} => {
                self.state.watermarks.tick(now);
                batch.marks_moved = true;
            }
            Control::SourceAdded(source) => {
                self.state.watermarks.connect(&source.name, source.source_type);
                self.state.coverage.open(&source.name, source.source_type, source.connected, now);
                batch.marks_moved = true;
                batch.sources.insert(source.name.clone(), Some(source.clone()));
                self.state.sources.insert(source.name.clone(), source);
            }
            Control::SourceRotated { name, generation, .. } => {
                if let Some(source) = self.state.sources.get_mut(&name) {
                    source.generation = generation;
                    batch.sources.insert(name, Some(source.clone()));
                }
            }
            Control::SourceRemoved { name, .. } => {
                self.state.watermarks.remove(&name);
                batch.marks_moved = true;
                self.state.coverage.remove(&name);
                self.state.rhythms.remove(&name);
                self.state.sources.remove(&name);
                batch.sources.insert(name, None);
            }
            Control::RulesDeployed(record) => self.state.rule_set = Some(record.set),
            Control::IncidentStep { incident, verb, actor, note } => {
                match self.state.incidents.apply(&incident, verb, now, &actor, note) {
                    Ok((incident, step)) => self.tell_step(&incident, step, batch),
                    Err(error) => batch.commit.dead_letters.push(DeadLetter {
                        index: decoded.index,
                        source: OWN_SOURCE.to_owned(),
                        received: now,
                        reason: error.to_string(),
                    }),
                }
            }
            Control::Collected(record) => {
                if let Some((from, to)) = record.whole {
                    self.state.coverage.whole(&record.name, from, to);
                }
                for list in record.signed.iter().filter(|list| list.status == Completeness::Gap) {
                    self.state.coverage.gap(&record.name, list);
                }
            }
            Control::RecordsDamaged(damaged) => self.state.coverage.lost(&damaged),
            Control::SourceSilent { name, since, .. } => self.state.rhythms.told(&name, Some(since)),
            Control::SourceHeard { name, .. } => self.state.rhythms.told(&name, None),
            Control::SqlRun(run) => self.sql_run(&run, now, batch),
            Control::Started { .. }
            | Control::Stopped { .. }
            | Control::TokenCreated(_)
            | Control::TokenRevoked { .. }
            | Control::EnrichmentLoaded { .. }
            | Control::ConfigurationRefused { .. }
            | Control::ConfigurationMended { .. }
            | Control::BoundReached { .. }
            | Control::DeadLettersReplayed { .. }
            // What is forgotten with the payload is no conclusion: whoever runs the detector sees to it.
            | Control::RecordsRedacted(_)
            | Control::RedactionDone(_)
            | Control::PackSealed { .. }
            | Control::PackDownloaded { .. } => {}
        }
        ticked
    }
}
