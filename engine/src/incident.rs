//! Incidents: findings about the same entities, and what people did about them.
//!
//! A pure state machine over findings and control records. Times are record times.

mod kept;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::finding::{Finding, short_hex};
use crate::rule::Level;
use crate::time::Timestamp;

pub use kept::Incidents;

/// How long after it was closed a finding about its entities opens a new incident that points back, instead of reopening it.
pub const REOPEN_WITHIN: Duration = Duration::from_secs(30 * 86_400);

/// Findings that an incident names by their ids: half of them the first, half the last. Each finding names its incident.
pub const FINDINGS_NAMED: usize = 100;
/// Entities of an incident at most. Findings of others do not join it for them.
pub const ENTITIES_MAX: usize = 100;

/// Incidents that are open at most. What would open one more joins the one that was opened last.
pub const OPEN_MAX: usize = 20_000;
/// Incidents that are over and remembered at most.
pub const OVER_MAX: usize = 20_000;

/// What can be done about an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// A finding opened it.
    Open,
    /// A further finding joined it.
    Join,
    /// What a finding of it said was missing has come after all.
    Resolve,
    /// Somebody took ownership.
    Ack,
    /// The damage was stopped.
    Contain,
    /// The cause was removed.
    Remediate,
    /// The remedy was checked.
    Verify,
    /// It is over.
    Close,
    /// It was not over.
    Reopen,
    /// It was no incident: a false positive.
    Dismiss,
}

impl Verb {
    /// The verbs a person may use.
    pub const BY_PEOPLE: &'static [Self] =
        &[Self::Ack, Self::Contain, Self::Remediate, Self::Verify, Self::Close, Self::Reopen, Self::Dismiss];

    /// The word used in commands and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Join => "join",
            Self::Resolve => "resolve",
            Self::Ack => "ack",
            Self::Contain => "contain",
            Self::Remediate => "remediate",
            Self::Verify => "verify",
            Self::Close => "close",
            Self::Reopen => "reopen",
            Self::Dismiss => "dismiss",
        }
    }

    /// The verb of that name that a person may use.
    #[must_use]
    pub fn by_people(name: &str) -> Option<Self> {
        Self::BY_PEOPLE.iter().copied().find(|verb| verb.name() == name)
    }
}

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Nobody has taken it.
    Open,
    /// Somebody has.
    Acknowledged,
    /// The damage is stopped.
    Contained,
    /// The cause is removed.
    Remediated,
    /// Over.
    Closed,
    /// A false positive.
    Dismissed,
}

/// An incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Derived from the finding that opened it.
    pub id: String,
    /// Title of that finding.
    pub title: String,
    /// Highest severity of its findings.
    pub level: Level,
    /// Where it stands.
    pub status: Status,
    /// Who or what it is about; [`ENTITIES_MAX`] at most.
    pub entities: Vec<String>,
    /// Ids of its findings, in the order they joined; of more than [`FINDINGS_NAMED`] the first and the last.
    pub findings: Vec<String>,
    /// Start of the violation: earliest event time the sources state; `None` where no source says one.
    pub occurred: Option<Timestamp>,
    /// Received time of its first related event.
    pub available: Timestamp,
    /// Record time of the finding that opened it.
    pub opened: Timestamp,
    /// Whether it was found only in hindsight (backfill, or events older than the source's connection).
    pub retro: bool,
    /// First acknowledgement.
    pub acknowledged: Option<Timestamp>,
    /// Containment.
    pub contained: Option<Timestamp>,
    /// Final remediation; cleared by a reopening.
    pub remediated: Option<Timestamp>,
    /// Remediation before the first reopening.
    pub first_remediated: Option<Timestamp>,
    /// Verification.
    pub verified: Option<Timestamp>,
    /// Closing or dismissal.
    pub closed: Option<Timestamp>,
    /// How often it was reopened.
    pub reopened: u32,
    /// A closed incident about the same entities that this one recurs from.
    pub recurs: Option<String>,
    /// Steps so far; the next one has this number.
    pub steps: u64,
}

/// One thing that happened to an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentStep {
    /// Which incident.
    pub incident: String,
    /// Number of the step, from 0.
    pub number: u64,
    /// What happened.
    pub verb: Verb,
    /// Record time.
    pub at: Timestamp,
    /// Who did it; `pipeproof` for findings.
    pub actor: String,
    /// In their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The finding that opened or joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
}

/// Why a verb does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// There is no such incident.
    #[error("there is no incident `{0}`")]
    Unknown(String),
    /// Not from where it stands.
    #[error("cannot {} an incident that is {status:?}", verb.name())]
    NotNow {
        /// What was asked.
        verb: Verb,
        /// Where it stands.
        status: Status,
    },
    /// Only findings do that.
    #[error("`{}` is not something a person does", .0.name())]
    NotByPeople(Verb),
}

impl Incident {
    /// The incident a finding opens.
    #[must_use]
    pub fn open(finding: &Finding, recurs: Option<String>) -> Self {
        let hash = Sha256::new_with_prefix(b"pipeproof incident v1\n").chain_update(&finding.id).finalize();
        Self {
            id: format!("i-{}", short_hex(&hash)),
            title: finding.title.clone(),
            level: finding.level,
            status: Status::Open,
            entities: finding.entities.iter().take(ENTITIES_MAX).cloned().collect(),
            findings: vec![finding.id.clone()],
            occurred: finding.occurred,
            available: finding.available,
            opened: finding.fired,
            retro: finding.retro,
            acknowledged: None,
            contained: None,
            remediated: None,
            first_remediated: None,
            verified: None,
            closed: None,
            reopened: 0,
            recurs,
            steps: 0,
        }
    }

    /// Whether it is over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.status, Status::Closed | Status::Dismissed)
    }

    /// Takes in a further finding. Returns its entities that found no room.
    pub fn join<'f>(&mut self, finding: &'f Finding) -> Vec<&'f str> {
        self.level = self.level.max(finding.level);
        let no_room = add_entities(&mut self.entities, finding);
        if self.findings.len() >= FINDINGS_NAMED {
            self.findings.remove(FINDINGS_NAMED / 2);
        }
        self.findings.push(finding.id.clone());
        self.occurred = match (self.occurred, finding.occurred) {
            (Some(before), Some(now)) => Some(before.min(now)),
            (before, now) => before.or(now),
        };
        self.available = self.available.min(finding.available);
        self.retro &= finding.retro;
        no_room
    }

    /// Takes in a finding that shares nothing with it: its entities stay its own.
    fn join_unrelated(&mut self, finding: &Finding) {
        let entities = std::mem::take(&mut self.entities);
        self.join(finding);
        self.entities = entities;
    }

    /// Applies what a person did at record time `at`. Steps skipped on the way are not invented: closing at once
    /// leaves acknowledgement and the others unset.
    ///
    /// # Errors
    /// [`StepError`] if the verb does not apply from where it stands; nothing is changed then.
    pub fn apply(&mut self, verb: Verb, at: Timestamp) -> Result<(), StepError> {
        let allowed = match verb {
            Verb::Open | Verb::Join | Verb::Resolve => return Err(StepError::NotByPeople(verb)),
            Verb::Reopen => self.is_over(),
            Verb::Ack => self.status == Status::Open,
            Verb::Verify => self.status == Status::Remediated && self.verified.is_none(),
            Verb::Contain => !self.is_over() && self.contained.is_none() && self.remediated.is_none(),
            Verb::Remediate => !self.is_over() && self.remediated.is_none(),
            Verb::Close | Verb::Dismiss => !self.is_over(),
        };
        if !allowed {
            return Err(StepError::NotNow { verb, status: self.status });
        }
        match verb {
            Verb::Open | Verb::Join | Verb::Resolve => {}
            Verb::Ack => {
                self.acknowledged.get_or_insert(at);
                self.status = Status::Acknowledged;
            }
            Verb::Contain => {
                self.contained = Some(at);
                self.status = Status::Contained;
            }
            Verb::Remediate => {
                self.remediated = Some(at);
                self.first_remediated.get_or_insert(at);
                self.status = Status::Remediated;
            }
            Verb::Verify => self.verified = Some(at),
            Verb::Close => {
                self.closed = Some(at);
                self.status = Status::Closed;
            }
            Verb::Dismiss => {
                self.closed = Some(at);
                self.status = Status::Dismissed;
            }
            Verb::Reopen => {
                self.closed = None;
                self.remediated = None;
                self.verified = None;
                self.reopened += 1;
                self.status = if self.acknowledged.is_some() { Status::Acknowledged } else { Status::Open };
            }
        }
        Ok(())
    }
}

/// Adds the entities of a finding that are not there yet, as long as there is room. Returns the others.
pub(crate) fn add_entities<'f>(entities: &mut Vec<String>, finding: &'f Finding) -> Vec<&'f str> {
    let mut no_room = Vec::new();
    for entity in &finding.entities {
        if entities.contains(entity) {
            continue;
        }
        if entities.len() < ENTITIES_MAX {
            entities.push(entity.clone());
        } else {
            no_room.push(entity.as_str());
        }
    }
    no_room
}
