//! What the store drops when records are redacted: everything in findings, incidents, messages, receipts and dead letters that may
//! come from their payload.

use std::collections::{BTreeMap, BTreeSet};

use engine::finding::Finding;
use engine::incident::Incident;
use engine::redaction::{Forgotten, IncidentText};
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};

use super::body::{packed_json, unpacked};
use super::checksum::{self, check};
use super::findings::{column, finding, incident, message};
use super::{Delivery, SqliteStore, StoreError, number, unsigned};

/// Findings read at once.
const PAGE: usize = 1_000;
/// How often the write-ahead log is asked to fold while somebody reads.
const FOLD_ATTEMPTS: u32 = 300;
/// How long between two attempts.
const FOLD_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What was dropped from the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreRedaction {
    /// Findings that cite the records, as they read now, by their numbers in the feed.
    pub findings: BTreeMap<u64, Finding>,
    /// Incidents that changed.
    pub incidents: u64,
    /// Messages that changed.
    pub messages: u64,
    /// Deliveries of messages about what changed.
    pub deliveries: BTreeSet<i64>,
    /// Targets that were sent such a message.
    pub targets: BTreeSet<String>,
    /// Dead letters that lost their reason.
    pub dead_letters: u64,
}

impl SqliteStore {
    /// Indexes of the records that repeat this one, and of the one that it repeats.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn repetitions_of(&self, partition: u32, index: u64) -> Result<BTreeSet<u64>, StoreError> {
        let rows = sqlx::query(
            "SELECT record_index, first_index FROM duplicates WHERE partition = ?1 AND first_index IN
             (SELECT ?2 UNION SELECT first_index FROM duplicates WHERE partition = ?1 AND record_index = ?2)",
        )
        .bind(partition)
        .bind(number("index", index)?)
        .fetch_all(self.readers())
        .await
        .map_err(StoreError::on("look for repetitions of a record"))?;
        let mut all = BTreeSet::new();
        for row in &rows {
            all.insert(unsigned(column(row, "record_index")?));
            all.insert(unsigned(column(row, "first_index")?));
        }
        Ok(all)
    }

    /// What detection is to forget of records whose events happened at these moments.
    ///
    /// # Errors
    /// [`StoreError`] for what cannot be read.
    pub async fn to_forget(
        &self,
        partition: u32,
        records: BTreeSet<u64>,
        moments: impl IntoIterator<Item = Timestamp>,
        note: &str,
    ) -> Result<Forgotten, StoreError> {
        let moments = moments.into_iter().collect();
        let mut forgotten = Forgotten { partition, records, moments, incidents: BTreeMap::new() };
        let citing = self.findings_citing(&forgotten).await?;
        forgotten.moments.extend(citing.values().map(|finding| finding.time));
        let incidents: BTreeSet<String> = citing.into_values().filter_map(|finding| finding.incident).collect();
        for id in incidents {
            let rows = sqlx::query("SELECT * FROM findings WHERE incident = ? ORDER BY seq")
                .bind(&id)
                .fetch_all(self.readers())
                .await
                .map_err(StoreError::on("read the findings of an incident"))?;
            let findings = rows.iter().map(|row| {
                let mut found = finding(row)?.finding;
                if forgotten.is_cited_by(&found) {
                    forgotten.redact(&mut found, note);
                }
                Ok(found)
            });
            let findings = findings.collect::<Result<Vec<Finding>, StoreError>>()?;
            forgotten.incidents.insert(id, IncidentText::of(&findings));
        }
        Ok(forgotten)
    }

    async fn findings_citing(&self, of: &Forgotten) -> Result<BTreeMap<u64, Finding>, StoreError> {
        let mut citing = BTreeMap::new();
        let mut after = 0;
        loop {
            let page = self.findings_after(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(citing) };
            after = last.seq;
            let own = page.into_iter().filter(|stored| of.is_cited_by(&stored.finding));
            citing.extend(own.map(|stored| (stored.seq, stored.finding)));
        }
    }

    /// Drops what may come from the payload of these records, in one transaction. Doing it again changes nothing. What was there
    /// before stays in free pages and in the write-ahead log until [`SqliteStore::purge`].
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then.
    pub async fn redact(&self, of: &Forgotten, note: &str) -> Result<StoreRedaction, StoreError> {
        let on = || StoreError::on("redact what rests on a record");
        let mut done = StoreRedaction { findings: self.findings_citing(of).await?, ..StoreRedaction::default() };
        done.findings.values_mut().for_each(|finding| of.redact(finding, note));
        let mut writer = self.writer().await;
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(on())?;
        for (seq, finding) in &done.findings {
            sqlx::query("UPDATE findings SET title = ?, body = ?, checksum = NULL WHERE seq = ?")
                .bind(&finding.title)
                .bind(packed_json("finding", &finding.id, finding)?)
                .bind(number("sequence number", *seq)?)
                .execute(&mut *transaction)
                .await
                .map_err(on())?;
        }
        let mut messages = Vec::new();
        for id in of.incidents.keys() {
            done.incidents += redact_incident(&mut transaction, of, id).await?;
            messages.extend(redact_messages(&mut transaction, of, &done.findings, id).await?);
        }
        done.messages = messages.iter().filter(|(_, changed)| *changed).count() as u64;
        for (message, _) in &messages {
            redact_deliveries(&mut transaction, message, note, &mut done).await?;
        }
        for index in &of.records {
            let changed = sqlx::query(
                "UPDATE dead_letters SET reason = ?1, checksum = NULL
                 WHERE partition = ?2 AND record_index = ?3 AND reason <> ?1",
            )
            .bind(note)
            .bind(of.partition)
            .bind(number("index", *index)?)
            .execute(&mut *transaction)
            .await
            .map_err(on())?;
            done.dead_letters += changed.rows_affected();
        }
        let written = [
            &checksum::FINDINGS,
            &checksum::INCIDENTS,
            &checksum::OUTBOX,
            &checksum::DELIVERIES,
            &checksum::DELIVERY_CHANGES,
            &checksum::DEAD_LETTERS,
        ];
        checksum::seal(&mut transaction, &written).await.map_err(on())?;
        transaction.commit().await.map_err(on())?;
        Ok(done)
    }

    /// Writes the database anew without what was deleted or overwritten in it, and empties the write-ahead log. It takes as long, and
    /// as much free space, as copying it; commits wait.
    ///
    /// # Errors
    /// [`StoreError::Database`] if it fails, or if somebody read for so long that the log could not be emptied; it may be repeated.
    pub async fn purge(&self) -> Result<(), StoreError> {
        let on = || StoreError::on("write itself anew without what was redacted");
        let mut writer = self.writer().await;
        // Zeros where something was, also in what VACUUM writes.
        sqlx::query("PRAGMA secure_delete = ON").execute(&mut *writer).await.map_err(on())?;
        let vacuumed = sqlx::query("VACUUM").execute(&mut *writer).await;
        sqlx::query("PRAGMA secure_delete = OFF").execute(&mut *writer).await.map_err(on())?;
        vacuumed.map_err(on())?;
        for _ in 0..FOLD_ATTEMPTS {
            let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *writer).await.map_err(on())?;
            if row.try_get::<i64, _>(0).map_err(on())? == 0 {
                return Ok(());
            }
            tokio::time::sleep(FOLD_PAUSE).await;
        }
        Err(on()(sqlx::Error::Io(std::io::Error::other("readers kept the write-ahead log in use"))))
    }
}

async fn redact_incident(connection: &mut SqliteConnection, of: &Forgotten, id: &str) -> Result<u64, StoreError> {
    let on = || StoreError::on("redact an incident");
    let row = sqlx::query("SELECT * FROM incidents WHERE id = ?").bind(id).fetch_optional(&mut *connection).await;
    let Some(row) = row.map_err(on())? else { return Ok(0) };
    let before = incident(&row)?.incident;
    let mut after = before.clone();
    of.redact_incident(&mut after);
    if after == before {
        return Ok(0);
    }
    sqlx::query("UPDATE incidents SET body = ?, checksum = NULL WHERE id = ?")
        .bind(packed_json("incident", id, &after)?)
        .bind(id)
        .execute(connection)
        .await
        .map_err(on())?;
    Ok(1)
}

/// The messages about redacted findings of an incident, and about the incident itself; and whether they changed.
async fn redact_messages(
    connection: &mut SqliteConnection,
    of: &Forgotten,
    findings: &BTreeMap<u64, Finding>,
    incident: &str,
) -> Result<Vec<(String, bool)>, StoreError> {
    let on = || StoreError::on("redact messages");
    let by_id: BTreeMap<&str, &Finding> = findings.values().map(|finding| (finding.id.as_str(), finding)).collect();
    let rows = sqlx::query("SELECT * FROM outbox WHERE incident = ?")
        .bind(incident)
        .fetch_all(&mut *connection)
        .await
        .map_err(on())?;
    let mut about = Vec::new();
    for row in &rows {
        let stored = message(row)?;
        let (id, before) = (stored.message.id, stored.message.body);
        let mut after = before.clone();
        let mut is_about = false;
        if let Some(told) = after.get_mut("finding")
            && let Some(finding) = told.get("id").and_then(Value::as_str).and_then(|id| by_id.get(id))
        {
            *told = serde_json::to_value(finding).map_err(|source| StoreError::Encode {
                what: "finding",
                id: finding.id.clone(),
                source,
            })?;
            is_about = true;
        }
        if let Some(told) = after.get_mut("incident")
            && let Ok(mut incident) = serde_json::from_value::<Incident>(told.clone())
            && of.redact_incident(&mut incident)
        {
            *told = serde_json::to_value(&incident).map_err(|source| StoreError::Encode {
                what: "incident",
                id: incident.id.clone(),
                source,
            })?;
            is_about = true;
        }
        let changed = after != before;
        if changed {
            sqlx::query("UPDATE outbox SET body = ?, checksum = NULL WHERE id = ?")
                .bind(packed_json("message", &id, &after)?)
                .bind(&id)
                .execute(&mut *connection)
                .await
                .map_err(on())?;
        }
        if is_about {
            about.push((id, changed));
        }
    }
    Ok(about)
}

/// What targets answered may repeat what they were told.
async fn redact_deliveries(
    connection: &mut SqliteConnection,
    message: &str,
    note: &str,
    done: &mut StoreRedaction,
) -> Result<(), StoreError> {
    let on = || StoreError::on("redact receipts");
    let rows = sqlx::query("SELECT * FROM deliveries WHERE message = ?")
        .bind(message)
        .fetch_all(&mut *connection)
        .await
        .map_err(on())?;
    for row in &rows {
        check(&checksum::DELIVERIES, row)?;
        let (id, attempts): (i64, i64) = (column(row, "id")?, column(row, "attempts")?);
        done.deliveries.insert(id);
        if attempts > 0 {
            done.targets.insert(column(row, "target")?);
        }
        sqlx::query(
            "UPDATE deliveries SET response_head = NULL, error = CASE WHEN error IS NULL THEN NULL ELSE ?1 END,
             checksum = NULL WHERE id = ?2 AND (response_head IS NOT NULL OR error <> ?1)",
        )
        .bind(note)
        .bind(id)
        .execute(&mut *connection)
        .await
        .map_err(on())?;
        let changes = sqlx::query("SELECT * FROM delivery_changes WHERE delivery = ?")
            .bind(id)
            .fetch_all(&mut *connection)
            .await
            .map_err(on())?;
        for change in &changes {
            redact_change(connection, change, note).await?;
        }
    }
    Ok(())
}

async fn redact_change(connection: &mut SqliteConnection, row: &SqliteRow, note: &str) -> Result<(), StoreError> {
    check(&checksum::DELIVERY_CHANGES, row)?;
    let seq: i64 = column(row, "seq")?;
    let before: Delivery = unpacked("delivery change", || seq.to_string(), row)?;
    let error = before.error.as_ref().map(|_| note.to_owned());
    let after = Delivery { response_head: None, error, ..before.clone() };
    if after != before {
        sqlx::query("UPDATE delivery_changes SET body = ?, checksum = NULL WHERE seq = ?")
            .bind(packed_json("delivery", &after.id.to_string(), &after)?)
            .bind(seq)
            .execute(connection)
            .await
            .map_err(StoreError::on("redact receipts"))?;
    }
    Ok(())
}
