//! Findings, incidents, their steps and the outbox, read back: by id, filtered, and as feeds.
//!
//! A feed is read with `..._after(seq, limit)`: rows in the order they were committed, each with its number. A reader that
//! keeps the last number it saw misses nothing and sees nothing twice.

use std::collections::BTreeMap;

use engine::commit::Message;
use engine::finding::Finding;
use engine::incident::{Incident, IncidentStep, Status, Verb};
use engine::rule::{Level, RuleState};
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};

use super::body::unpacked;
use super::checksum::{self, check};
use super::{SqliteStore, StoreError, limit, number, unsigned};

/// A finding with what the store adds to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredFinding {
    /// Number in the feed.
    pub seq: u64,
    /// Wall-clock time of the commit: when the finding became known.
    pub committed: Timestamp,
    /// The finding.
    #[serde(flatten)]
    pub finding: Finding,
}

/// An incident with what the store adds to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredIncident {
    /// Wall-clock time of the commit that opened it: when it was detected.
    pub committed: Timestamp,
    /// Wall-clock time of its last change.
    pub updated: Timestamp,
    /// The incident.
    #[serde(flatten)]
    pub incident: Incident,
}

/// An incident step with what the store adds to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredStep {
    /// Number in the feed.
    pub seq: u64,
    /// Wall-clock time of the commit.
    pub committed: Timestamp,
    /// The step.
    #[serde(flatten)]
    pub step: IncidentStep,
}

/// A message of the outbox with its number in the feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredMessage {
    /// Number in the feed.
    pub seq: u64,
    /// Wall-clock time of the commit.
    pub committed: Timestamp,
    /// The message.
    #[serde(flatten)]
    pub message: Message,
}

/// Which findings to list; what is left out does not restrict.
#[derive(Clone, Debug, Default)]
pub struct FindingFilter {
    /// Of this rule.
    pub rule: Option<String>,
    /// Of this incident.
    pub incident: Option<String>,
    /// At least this severe.
    pub level_min: Option<Level>,
    /// Fired in this state of the rule.
    pub state: Option<RuleState>,
    /// Event time from here on.
    pub from: Option<Timestamp>,
    /// Event time before this.
    pub to: Option<Timestamp>,
    /// Only numbers below this one: the page after the one that ended with it (newest come first).
    pub before: Option<u64>,
    /// At most so many; 0 means 100.
    pub limit: usize,
}

/// Which incidents to list; what is left out does not restrict.
#[derive(Clone, Debug, Default)]
pub struct IncidentFilter {
    /// Standing here.
    pub status: Option<Status>,
    /// Only those that are not over.
    pub open: bool,
    /// Opened (record time) from here on.
    pub from: Option<Timestamp>,
    /// Opened before this.
    pub to: Option<Timestamp>,
    /// Only those that come after this incident in the list (newest come first).
    pub after: Option<String>,
    /// At most so many; 0 means 100.
    pub limit: usize,
}

const PAGE: usize = 100;

fn page(limit: usize) -> i64 {
    super::limit(if limit == 0 { PAGE } else { limit })
}

impl SqliteStore {
    /// Findings, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn findings(&self, filter: &FindingFilter) -> Result<Vec<StoredFinding>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM findings WHERE true");
        if let Some(rule) = &filter.rule {
            query.push(" AND rule_id = ").push_bind(rule.clone());
        }
        if let Some(incident) = &filter.incident {
            query.push(" AND incident = ").push_bind(incident.clone());
        }
        if let Some(level) = filter.level_min {
            query.push(" AND level >= ").push_bind(level.number());
        }
        if let Some(state) = filter.state {
            query.push(" AND state = ").push_bind(state_name(state));
        }
        if let Some(from) = filter.from {
            query.push(" AND time >= ").push_bind(from.as_micros());
        }
        if let Some(to) = filter.to {
            query.push(" AND time < ").push_bind(to.as_micros());
        }
        if let Some(before) = filter.before {
            query.push(" AND seq < ").push_bind(number("sequence number", before)?);
        }
        query.push(" ORDER BY seq DESC LIMIT ").push_bind(page(filter.limit));
        let rows = query.build().fetch_all(self.readers()).await.map_err(StoreError::on("list findings"))?;
        rows.iter().map(finding).collect()
    }

    /// A finding by id.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn finding(&self, id: &str) -> Result<Option<StoredFinding>, StoreError> {
        let row = sqlx::query("SELECT * FROM findings WHERE id = ?")
            .bind(id)
            .fetch_optional(self.readers())
            .await
            .map_err(StoreError::on("read a finding"))?;
        row.as_ref().map(finding).transpose()
    }

    /// The feed of findings: those after number `seq`, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn findings_after(&self, seq: u64, rows: usize) -> Result<Vec<StoredFinding>, StoreError> {
        let rows = sqlx::query("SELECT * FROM findings WHERE seq > ? ORDER BY seq LIMIT ?")
            .bind(number("sequence number", seq)?)
            .bind(limit(rows))
            .fetch_all(self.readers())
            .await
            .map_err(StoreError::on("read the feed of findings"))?;
        rows.iter().map(finding).collect()
    }

    /// Incidents, the one opened last first.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn incidents(&self, filter: &IncidentFilter) -> Result<Vec<StoredIncident>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM incidents WHERE true");
        if let Some(status) = filter.status {
            query.push(" AND status = ").push_bind(status_name(status));
        }
        if filter.open {
            query.push(" AND is_over = 0");
        }
        if let Some(from) = filter.from {
            query.push(" AND opened >= ").push_bind(from.as_micros());
        }
        if let Some(to) = filter.to {
            query.push(" AND opened < ").push_bind(to.as_micros());
        }
        if let Some(after) = &filter.after {
            query.push(" AND (opened, id) < (SELECT opened, id FROM incidents WHERE id = ");
            query.push_bind(after.clone()).push(")");
        }
        query.push(" ORDER BY opened DESC, id DESC LIMIT ").push_bind(page(filter.limit));
        let rows = query.build().fetch_all(self.readers()).await.map_err(StoreError::on("list incidents"))?;
        rows.iter().map(incident).collect()
    }

    /// How many findings there are by rule id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn findings_by_rule(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let doing = "count findings by rule";
        let rows = sqlx::query("SELECT rule_id, count(*) FROM findings GROUP BY rule_id")
            .fetch_all(self.readers())
            .await
            .map_err(StoreError::on(doing))?;
        let count = |row: &SqliteRow| Ok((row.try_get(0)?, unsigned(row.try_get(1)?)));
        rows.iter().map(count).collect::<Result<_, sqlx::Error>>().map_err(StoreError::on(doing))
    }

    /// An incident by id.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn incident(&self, id: &str) -> Result<Option<StoredIncident>, StoreError> {
        let row = sqlx::query("SELECT * FROM incidents WHERE id = ?")
            .bind(id)
            .fetch_optional(self.readers())
            .await
            .map_err(StoreError::on("read an incident"))?;
        row.as_ref().map(incident).transpose()
    }

    /// The steps of an incident in their order.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn steps(&self, incident: &str) -> Result<Vec<StoredStep>, StoreError> {
        let rows = sqlx::query("SELECT * FROM incident_steps WHERE incident = ? ORDER BY number")
            .bind(incident)
            .fetch_all(self.readers())
            .await
            .map_err(StoreError::on("read the steps of an incident"))?;
        rows.iter().map(step).collect()
    }

    /// The feed of incident steps: those after number `seq`, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn steps_after(&self, seq: u64, rows: usize) -> Result<Vec<StoredStep>, StoreError> {
        let rows = sqlx::query("SELECT * FROM incident_steps WHERE seq > ? ORDER BY seq LIMIT ?")
            .bind(number("sequence number", seq)?)
            .bind(limit(rows))
            .fetch_all(self.readers())
            .await
            .map_err(StoreError::on("read the feed of incident steps"))?;
        rows.iter().map(step).collect()
    }

    /// The outbox as a feed: messages after number `seq`, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn messages_after(&self, seq: u64, rows: usize) -> Result<Vec<StoredMessage>, StoreError> {
        let rows = sqlx::query("SELECT * FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?")
            .bind(number("sequence number", seq)?)
            .bind(limit(rows))
            .fetch_all(self.readers())
            .await
            .map_err(StoreError::on("read the outbox"))?;
        rows.iter().map(message).collect()
    }
}

/// The word a rule state is stored under.
pub(crate) const fn state_name(state: RuleState) -> &'static str {
    match state {
        RuleState::Active => "active",
        RuleState::Staging => "staging",
        RuleState::Paused => "paused",
    }
}

/// The word an incident's status is stored under.
pub(super) const fn status_name(status: Status) -> &'static str {
    match status {
        Status::Open => "open",
        Status::Acknowledged => "acknowledged",
        Status::Contained => "contained",
        Status::Remediated => "remediated",
        Status::Closed => "closed",
        Status::Dismissed => "dismissed",
    }
}

/// Reads a column as JSON text.
pub(super) fn json<T: DeserializeOwned>(
    what: &'static str,
    id: impl FnOnce() -> String,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Corrupt { what, id: id(), source })
}

pub(super) fn column<'r, T>(row: &'r SqliteRow, name: &'static str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
{
    row.try_get(name).map_err(StoreError::on("read a column"))
}

pub(super) fn seq(row: &SqliteRow) -> Result<u64, StoreError> {
    column(row, "seq").map(unsigned)
}

pub(super) fn time(row: &SqliteRow, name: &'static str) -> Result<Timestamp, StoreError> {
    column(row, name).map(Timestamp::from_micros)
}

pub(super) fn finding(row: &SqliteRow) -> Result<StoredFinding, StoreError> {
    check(&checksum::FINDINGS, row)?;
    let id: String = column(row, "id")?;
    let finding = unpacked("finding", || id, row)?;
    Ok(StoredFinding { seq: seq(row)?, committed: time(row, "committed")?, finding })
}

pub(super) fn incident(row: &SqliteRow) -> Result<StoredIncident, StoreError> {
    check(&checksum::INCIDENTS, row)?;
    let id: String = column(row, "id")?;
    let incident = unpacked("incident", || id, row)?;
    Ok(StoredIncident { committed: time(row, "committed")?, updated: time(row, "updated")?, incident })
}

fn step(row: &SqliteRow) -> Result<StoredStep, StoreError> {
    check(&checksum::INCIDENT_STEPS, row)?;
    let incident: String = column(row, "incident")?;
    let number = unsigned(column(row, "number")?);
    let verb: String = column(row, "verb")?;
    let verb: Verb = serde_json::from_value(verb.into()).map_err(|source| StoreError::Corrupt {
        what: "incident step",
        id: format!("{incident}/{number}"),
        source,
    })?;
    Ok(StoredStep {
        seq: seq(row)?,
        committed: time(row, "committed")?,
        step: IncidentStep {
            incident,
            number,
            verb,
            at: time(row, "at")?,
            actor: column(row, "actor")?,
            note: column(row, "note")?,
            finding: column(row, "finding")?,
        },
    })
}

pub(super) fn message(row: &SqliteRow) -> Result<StoredMessage, StoreError> {
    check(&checksum::OUTBOX, row)?;
    let id: String = column(row, "id")?;
    let body = unpacked("message", || id.clone(), row)?;
    Ok(StoredMessage {
        seq: seq(row)?,
        committed: time(row, "committed")?,
        message: Message {
            id,
            kind: column(row, "kind")?,
            incident: column(row, "incident")?,
            at: time(row, "at")?,
            body,
        },
    })
}
