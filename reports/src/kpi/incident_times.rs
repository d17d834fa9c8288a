//! The row a KPI is computed from: one incident and its times, as known at some moment.

use pipeproof_engine::incident::{Incident, IncidentStep, Verb};
use pipeproof_engine::rule::Level;
use pipeproof_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

/// An incident's times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentTimes {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its severity.
    pub level: Level,
    /// Found only in hindsight: by backfill, or in events older than the connection of their source.
    pub retro: bool,
    /// An exercise.
    pub is_test: bool,
    /// `t_occ`: start of the violation, if a source says one.
    pub occurred: Option<Timestamp>,
    /// `t_avail`: when its first event was received.
    pub available: Timestamp,
    /// `t_det`: when its earliest finding was committed (wall clock).
    pub detected: Timestamp,
    /// `t_ack`: first human ownership.
    pub acknowledged: Option<Timestamp>,
    /// `t_con`: containment.
    pub contained: Option<Timestamp>,
    /// `t_rem`: remediation; after a reopening the last one.
    pub remediated: Option<Timestamp>,
    /// Remediation before the first reopening.
    pub first_remediated: Option<Timestamp>,
    /// `t_ver`: the remedy was verified.
    pub verified: Option<Timestamp>,
    /// `t_close`.
    pub closed: Option<Timestamp>,
    /// How often it was reopened.
    pub reopened: u32,
    /// A false positive.
    pub dismissed: bool,
}

impl IncidentTimes {
    /// The times of `incident` as its `steps` up to `as_of` tell them; `None` if its first finding, committed at
    /// `detected`, was not known by then.
    ///
    /// Steps may come in any order; they are taken by number. Title, severity and start of the violation are those the
    /// incident has now: later findings may have raised or moved them.
    #[must_use]
    pub fn at(as_of: Timestamp, incident: &Incident, detected: Timestamp, steps: &[IncidentStep]) -> Option<Self> {
        if detected > as_of {
            return None;
        }
        let mut times = Self {
            id: incident.id.clone(),
            title: incident.title.clone(),
            level: incident.level,
            retro: incident.retro,
            is_test: false,
            occurred: incident.occurred,
            available: incident.available,
            detected,
            acknowledged: None,
            contained: None,
            remediated: None,
            first_remediated: None,
            verified: None,
            closed: None,
            reopened: 0,
            dismissed: false,
        };
        let mut known: Vec<_> = steps.iter().filter(|step| step.incident == incident.id && step.at <= as_of).collect();
        known.sort_by_key(|step| step.number);
        for step in known {
            times.take(step.verb, step.at);
        }
        Some(times)
    }

    fn take(&mut self, verb: Verb, at: Timestamp) {
        match verb {
            Verb::Open | Verb::Join | Verb::Resolve => {}
            Verb::Ack => {
                self.acknowledged.get_or_insert(at);
            }
            Verb::Contain => self.contained = Some(at),
            Verb::Remediate => {
                self.remediated = Some(at);
                self.first_remediated.get_or_insert(at);
            }
            Verb::Verify => self.verified = Some(at),
            Verb::Close => self.closed = Some(at),
            Verb::Dismiss => {
                self.closed = Some(at);
                self.dismissed = true;
            }
            Verb::Reopen => {
                self.remediated = None;
                self.verified = None;
                self.closed = None;
                self.dismissed = false;
                self.reopened += 1;
            }
        }
    }
}
