//! What detection forgets when records are redacted.
//!
//! The payload of a record lives on in what detection remembers: signals, rows of tables, candidates, groups by their keys, values
//! that were learnt, incidents by their titles. Signals, rows and candidates say which record they are of. What was learnt does not:
//! it is told by the time of the event, so what was learnt of another event at the same microsecond is forgotten too, and a group's
//! name stays as long as other records have it as well.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::EventId;
use crate::finding::{CitedEvent, Finding};
use crate::incident::{Incident, add_entities};
use crate::time::Timestamp;

/// What stands where a payload was.
pub const REDACTED: &str = "redacted";

/// What is to be forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Log partition of the records.
    pub partition: u32,
    /// Their indexes.
    pub records: BTreeSet<u64>,
    /// When their events happened, and when findings that rest on them say they did.
    pub moments: BTreeSet<Timestamp>,
    /// Title and entities that incidents have from now on, by id.
    pub incidents: BTreeMap<String, IncidentText>,
}

/// What an incident says that comes from payloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncidentText {
    /// Its title.
    pub title: String,
    /// Who or what it is about.
    pub entities: Vec<String>,
}

impl IncidentText {
    /// What findings, in the order they joined, make of it.
    pub fn of<'f>(findings: impl IntoIterator<Item = &'f Finding>) -> Self {
        let mut text = Self::default();
        for (number, finding) in findings.into_iter().enumerate() {
            if number == 0 {
                text.title.clone_from(&finding.title);
            }
            // What found no room when it joined finds none now.
            drop(add_entities(&mut text.entities, finding));
        }
        text
    }
}

impl Forgotten {
    /// Whether an event is of one of the records.
    #[must_use]
    pub fn has(&self, event: EventId) -> bool {
        event.position.partition == self.partition && self.records.contains(&event.position.index)
    }

    /// Whether a finding cites one of the records.
    #[must_use]
    pub fn is_cited_by(&self, finding: &Finding) -> bool {
        finding.events.iter().any(|event| self.is_cited(event))
    }

    fn is_cited(&self, event: &CitedEvent) -> bool {
        event.id.parse().is_ok_and(|id| self.has(id))
    }

    /// Drops from a finding what may come from the records; what rule, when and how severe stays, and which events it cites.
    /// Doing it again changes nothing.
    pub fn redact(&self, finding: &mut Finding, note: &str) {
        finding.title.clone_from(&finding.rule_title);
        finding.key.values_mut().for_each(|value| REDACTED.clone_into(value));
        finding.entities.clear();
        finding.because = vec![note.to_owned()];
        for event in &mut finding.events {
            if self.is_cited(event) {
                event.fields.clear();
            }
        }
    }

    /// Drops from an incident what only redacted findings brought into it. False if it is none of those.
    pub fn redact_incident(&self, incident: &mut Incident) -> bool {
        let Some(text) = self.incidents.get(&incident.id) else { return false };
        incident.title.clone_from(&text.title);
        incident.entities.clone_from(&text.entities);
        true
    }
}
