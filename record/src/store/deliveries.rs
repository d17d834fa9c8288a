//! Deliveries: which message still has to reach which target, and the receipt of every attempt.
//!
//! A message is due at a target only when every earlier message of its incident is delivered there or dead, so a target
//! sees an incident's messages in their order. Nothing is sent here.

use std::time::Duration;

use engine::commit::Message;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, QueryBuilder, Sqlite};

use super::body::{packed_json, unpacked};
use super::checksum::{self, check};
use super::findings::{column, seq, time};
use super::{SqliteStore, StoreError, limit, number, unsigned};

/// Longest part of an answer that is kept, in bytes.
const RESPONSE_HEAD_BYTES: usize = 512;

/// A try that ended so much later than now was timed by a clock that has gone back since.
const CLOCK_WENT_BACK: Duration = Duration::from_secs(60);

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Never tried.
    Queued,
    /// Failed, and will be tried again.
    Retry,
    /// The target has it.
    Delivered,
    /// Given up.
    Dead,
}

impl DeliveryState {
    /// The word used in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Retry => "retry",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

/// One message on its way to one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Id of the delivery.
    pub id: i64,
    /// Name of the target.
    pub target: String,
    /// Id of the message: the idempotency key of every attempt.
    pub message: String,
    /// The message's number in the outbox.
    pub message_seq: u64,
    /// Incident whose messages keep their order.
    pub incident: Option<String>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: u32,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// Not before this.
    pub next_at: Timestamp,
    /// When it was last tried.
    pub last_at: Option<Timestamp>,
    /// HTTP status of the last answer.
    pub status: Option<u16>,
    /// Milliseconds until the last answer.
    pub latency_ms: Option<u64>,
    /// SHA-256 of the last answer's body, hexadecimal.
    pub response_sha256: Option<String>,
    /// Start of the last answer's body, redacted.
    pub response_head: Option<String>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When it was delivered.
    pub delivered_at: Option<Timestamp>,
}

/// A delivery that is due, with its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The delivery.
    pub delivery: Delivery,
    /// What to send.
    pub message: Message,
}

/// What one attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The target has it.
    Delivered,
    /// Try again, not before this.
    Retry(Timestamp),
    /// Give up.
    Dead,
}

/// One attempt: the receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it ended.
    pub at: Timestamp,
    /// What it came to.
    pub outcome: AttemptOutcome,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Milliseconds until the answer or the failure.
    pub latency_ms: u64,
    /// SHA-256 of the answer's body, hexadecimal.
    pub response_sha256: Option<String>,
    /// Start of the answer's body, already redacted; cut to 512 bytes here.
    pub response_head: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// What a target still has to be brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Messages that it neither has nor were given up.
    pub messages: u64,
    /// When the first of them was committed.
    pub since: Option<Timestamp>,
}

/// Which deliveries to list; what is left out does not restrict.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// To this target.
    pub target: Option<String>,
    /// Standing here.
    pub state: Option<DeliveryState>,
    /// Of this incident.
    pub incident: Option<String>,
    /// Only ids below this one: the page after the one that ended with it (newest come first).
    pub before: Option<i64>,
    /// At most so many; 0 means 100.
    pub limit: usize,
}

/// A change of a delivery: the delivery as it stood then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryChange {
    /// Number in the feed.
    pub seq: u64,
    /// When it changed.
    pub at: Timestamp,
    /// The delivery after the change.
    #[serde(flatten)]
    pub delivery: Delivery,
}

const COLUMNS: &str = "d.id, d.target, d.message, d.message_seq, d.incident, d.state, d.attempts, d.queued_at, d.next_at, \
     d.last_at, d.status, d.latency_ms, d.response_sha256, d.response_head, d.error, d.delivered_at";

impl SqliteStore {
    /// Queues messages for a target; those already queued for it are left alone. Returns how many are new.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if the outbox has no such message (nothing is queued then); [`StoreError::Database`].
    pub async fn enqueue(&self, target: &str, message_ids: &[String]) -> Result<usize, StoreError> {
        let doing = "queue deliveries";
        let now = self.now();
        let mut writer = self.writer().await;
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::on(doing))?;
        let mut new = 0;
        for id in message_ids {
            let inserted: Option<i64> = sqlx::query_scalar(
                "INSERT INTO deliveries (target, message, message_seq, incident, state, queued_at, next_at)
                 SELECT ?1, id, seq, incident, 'queued', ?3, ?3 FROM outbox WHERE id = ?2
                 ON CONFLICT (target, message) DO NOTHING RETURNING id",
            )
            .bind(target)
            .bind(id)
            .bind(now.as_micros())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(StoreError::on(doing))?;
            if let Some(delivery) = inserted {
                new += 1;
                note_change(&mut transaction, delivery, now).await?;
                continue;
            }
            let known: Option<i64> = sqlx::query_scalar("SELECT seq FROM outbox WHERE id = ?")
                .bind(id)
                .fetch_optional(&mut *transaction)
                .await
                .map_err(StoreError::on(doing))?;
            if known.is_none() {
                return Err(StoreError::Missing { what: "message", id: id.clone() });
            }
        }
        seal(&mut transaction).await?;
        transaction.commit().await.map_err(StoreError::on(doing))?;
        Ok(new)
    }

    /// Deliveries to a target that may be tried at `now`, oldest message first, at most one of an incident.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn due(&self, target: &str, now: Timestamp, rows: usize) -> Result<Vec<Due>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
        query.push(COLUMNS).push(
            ", o.kind, o.at, o.body FROM deliveries d JOIN outbox o ON o.id = d.message
             WHERE d.state IN ('queued', 'retry') AND d.target = ",
        );
        query.push_bind(target.to_owned());
        // A clock that went back must not keep an alert for as long as it was ahead: what was never tried is due, and so is what was
        // tried in the future.
        query.push(" AND (d.state = 'queued' OR d.next_at <= ").push_bind(now.as_micros());
        query.push(" OR d.last_at > ").push_bind(now.plus(CLOCK_WENT_BACK).as_micros());
        query.push(
            ") AND (d.incident IS NULL OR NOT EXISTS (
                SELECT 1 FROM deliveries e WHERE e.target = d.target AND e.incident = d.incident
                AND e.incident IS NOT NULL AND e.message_seq < d.message_seq AND e.state IN ('queued', 'retry')))
              ORDER BY d.message_seq LIMIT ",
        );
        query.push_bind(limit(rows));
        let rows = query.build().fetch_all(self.readers()).await.map_err(StoreError::on("list due deliveries"))?;
        let due = |row: &SqliteRow| {
            let delivery = delivery(row)?;
            let body = unpacked("message", || delivery.message.clone(), row)?;
            let message = Message {
                id: delivery.message.clone(),
                kind: column(row, "kind")?,
                incident: delivery.incident.clone(),
                at: time(row, "at")?,
                body,
            };
            Ok(Due { delivery, message })
        };
        rows.iter().map(due).collect()
    }

    /// Records an attempt and what it came to, and returns the delivery after it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is no such delivery, or it is delivered or dead; [`StoreError::Database`].
    pub async fn record_attempt(&self, id: i64, attempt: &Attempt) -> Result<Delivery, StoreError> {
        let doing = "record a delivery attempt";
        let (state, next_at) = match attempt.outcome {
            AttemptOutcome::Delivered => (DeliveryState::Delivered, attempt.at),
            AttemptOutcome::Retry(next) => (DeliveryState::Retry, next),
            AttemptOutcome::Dead => (DeliveryState::Dead, attempt.at),
        };
        let delivered_at = (state == DeliveryState::Delivered).then(|| attempt.at.as_micros());
        let mut writer = self.writer().await;
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::on(doing))?;
        checksum::check_before(&mut transaction, &checksum::DELIVERIES, &[id.into()]).await?;
        let changed = sqlx::query(
            "UPDATE deliveries SET state = ?, attempts = attempts + 1, next_at = ?, last_at = ?, status = ?,
             latency_ms = ?, response_sha256 = ?, response_head = ?, error = ?, delivered_at = ?, checksum = NULL
             WHERE id = ? AND state IN ('queued', 'retry')",
        )
        .bind(state.name())
        .bind(next_at.as_micros())
        .bind(attempt.at.as_micros())
        .bind(attempt.status)
        .bind(number("latency", attempt.latency_ms)?)
        .bind(attempt.response_sha256.as_deref())
        .bind(attempt.response_head.as_deref().map(head))
        .bind(attempt.error.as_deref())
        .bind(delivered_at)
        .bind(id)
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::on(doing))?;
        if changed.rows_affected() == 0 {
            return Err(StoreError::Missing { what: "pending delivery", id: id.to_string() });
        }
        let delivery = note_change(&mut transaction, id, attempt.at).await?;
        seal(&mut transaction).await?;
        transaction.commit().await.map_err(StoreError::on(doing))?;
        Ok(delivery)
    }

    /// Queues a dead or waiting delivery again, at once; its attempts so far stay counted.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is no such delivery, or it is delivered; [`StoreError::Database`].
    pub async fn retry(&self, id: i64) -> Result<Delivery, StoreError> {
        let doing = "queue a delivery again";
        let now = self.now();
        let mut writer = self.writer().await;
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::on(doing))?;
        checksum::check_before(&mut transaction, &checksum::DELIVERIES, &[id.into()]).await?;
        let changed =
            sqlx::query("UPDATE deliveries SET state = 'queued', next_at = ?, checksum = NULL WHERE id = ? AND state <> 'delivered'")
                .bind(now.as_micros())
                .bind(id)
                .execute(&mut *transaction)
                .await
                .map_err(StoreError::on(doing))?;
        if changed.rows_affected() == 0 {
            return Err(StoreError::Missing { what: "undelivered delivery", id: id.to_string() });
        }
        let delivery = note_change(&mut transaction, id, now).await?;
        seal(&mut transaction).await?;
        transaction.commit().await.map_err(StoreError::on(doing))?;
        Ok(delivery)
    }

    /// Deliveries, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<Delivery>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
        query.push(COLUMNS).push(" FROM deliveries d WHERE true");
        if let Some(target) = &filter.target {
            query.push(" AND d.target = ").push_bind(target.clone());
        }
        if let Some(state) = filter.state {
            query.push(" AND d.state = ").push_bind(state.name());
        }
        if let Some(incident) = &filter.incident {
            query.push(" AND d.incident = ").push_bind(incident.clone());
        }
        if let Some(before) = filter.before {
            query.push(" AND d.id < ").push_bind(before);
        }
        let rows = if filter.limit == 0 { 100 } else { filter.limit };
        query.push(" ORDER BY d.id DESC LIMIT ").push_bind(limit(rows));
        let rows = query.build().fetch_all(self.readers()).await.map_err(StoreError::on("list deliveries"))?;
        rows.iter().map(delivery).collect()
    }

    /// What waits for a target for which the outbox was queued up to message number `queued`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn waiting(&self, target: &str, queued: u64) -> Result<Waiting, StoreError> {
        let doing = "count messages that wait";
        // Both are counted in indexes.
        let row = sqlx::query(
            "SELECT d.waiting + o.waiting AS messages,
                    (SELECT committed FROM outbox WHERE seq = coalesce(d.first, o.first)) AS since
             FROM (SELECT count(*) AS waiting, min(message_seq) AS first FROM deliveries
                   WHERE target = ?1 AND state IN ('queued', 'retry')) d,
                  (SELECT count(*) AS waiting, min(seq) AS first FROM outbox WHERE seq > ?2) o",
        )
        .bind(target)
        .bind(number("sequence number", queued)?)
        .fetch_one(self.readers())
        .await
        .map_err(StoreError::on(doing))?;
        let since: Option<i64> = column(&row, "since")?;
        Ok(Waiting { messages: column(&row, "messages").map(unsigned)?, since: since.map(Timestamp::from_micros) })
    }

    /// A delivery by id.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn delivery(&self, id: i64) -> Result<Option<Delivery>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
        query.push(COLUMNS).push(" FROM deliveries d WHERE d.id = ").push_bind(id);
        let row = query.build().fetch_optional(self.readers()).await.map_err(StoreError::on("read a delivery"))?;
        row.as_ref().map(delivery).transpose()
    }

    /// The feed of deliveries: every change after number `seq`, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn deliveries_after(&self, seq: u64, rows: usize) -> Result<Vec<DeliveryChange>, StoreError> {
        let rows = sqlx::query("SELECT * FROM delivery_changes WHERE seq > ? ORDER BY seq LIMIT ?")
            .bind(number("sequence number", seq)?)
            .bind(limit(rows))
            .fetch_all(self.readers())
            .await
            .map_err(StoreError::on("read the feed of deliveries"))?;
        rows.iter().map(change).collect()
    }
}

fn change(row: &SqliteRow) -> Result<DeliveryChange, StoreError> {
    check(&checksum::DELIVERY_CHANGES, row)?;
    let seq = seq(row)?;
    let delivery = unpacked("delivery change", || seq.to_string(), row)?;
    Ok(DeliveryChange { seq, at: time(row, "at")?, delivery })
}

async fn seal(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let tables = [&checksum::DELIVERIES, &checksum::DELIVERY_CHANGES];
    checksum::seal(connection, &tables).await.map_err(StoreError::on("write a delivery"))
}

/// Appends the delivery as it stands now to the feed.
async fn note_change(connection: &mut SqliteConnection, id: i64, at: Timestamp) -> Result<Delivery, StoreError> {
    let doing = "append to the feed of deliveries";
    let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
    query.push(COLUMNS).push(" FROM deliveries d WHERE d.id = ").push_bind(id);
    let row = query.build().fetch_one(&mut *connection).await.map_err(StoreError::on(doing))?;
    let delivery = delivery(&row)?;
    sqlx::query("INSERT INTO delivery_changes (delivery, at, body) VALUES (?, ?, ?)")
        .bind(id)
        .bind(at.as_micros())
        .bind(packed_json("delivery", &id.to_string(), &delivery)?)
        .execute(connection)
        .await
        .map_err(StoreError::on(doing))?;
    Ok(delivery)
}

fn delivery(row: &SqliteRow) -> Result<Delivery, StoreError> {
    let id: i64 = column(row, "id")?;
    let state: String = column(row, "state")?;
    let state = serde_json::from_value(state.into()).map_err(|source| StoreError::Corrupt {
        what: "delivery",
        id: id.to_string(),
        source,
    })?;
    let maybe_time = |name| -> Result<Option<Timestamp>, StoreError> {
        Ok(column::<Option<i64>>(row, name)?.map(Timestamp::from_micros))
    };
    Ok(Delivery {
        id,
        target: column(row, "target")?,
        message: column(row, "message")?,
        message_seq: unsigned(column(row, "message_seq")?),
        incident: column(row, "incident")?,
        state,
        attempts: column(row, "attempts")?,
        queued_at: time(row, "queued_at")?,
        next_at: time(row, "next_at")?,
        last_at: maybe_time("last_at")?,
        status: column(row, "status")?,
        latency_ms: column::<Option<i64>>(row, "latency_ms")?.map(unsigned),
        response_sha256: column(row, "response_sha256")?,
        response_head: column(row, "response_head")?,
        error: column(row, "error")?,
        delivered_at: maybe_time("delivered_at")?,
    })
}

/// The first bytes of an answer, cut between characters.
fn head(text: &str) -> &str {
    let mut end = text.len().min(RESPONSE_HEAD_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
