//! The write path of detection: a micro-batch in one transaction, snapshots of its state, and what a restart reads back.

use engine::commit::{Commit, Restored, Store};
use engine::failpoint::Failpoint;
use pipeproof_engine as engine;
use sha2::{Digest, Sha256};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};

use super::body::packed;
use super::checksum::{self, check};
use super::{SqliteStore, StoreError, number, unsigned};

/// What zstd begins with.
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Shorter states are kept as they are, bytes.
const COMPRESSED_FROM: usize = 1_024;

impl Store for SqliteStore {
    type Error = StoreError;

    async fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        if commit.to <= commit.from {
            return Err(StoreError::Malformed { partition: commit.partition, why: "a commit holds no record" });
        }
        let rows = Rows::encode(commit)?;
        let mut writer = self.writer().await;
        // Dropping the transaction on any error rolls all of it back.
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::on("begin a commit"))?;
        advance(&mut transaction, commit).await?;
        let changed: Vec<_> = commit.incidents.iter().map(|incident| incident.id.as_str().into()).collect();
        checksum::check_before(&mut transaction, &checksum::INCIDENTS, &changed).await?;
        rows.insert(&mut transaction, commit).await.map_err(StoreError::on("write a commit"))?;
        let items = self.shared.items.change(&mut transaction, commit).await?;
        checksum::seal(&mut transaction, &written(commit)).await.map_err(StoreError::on("write a commit"))?;
        Failpoint::StoreInTransaction.pass();
        transaction.commit().await.map_err(StoreError::on("commit a batch"))?;
        self.shared.items.changed(items);
        Ok(())
    }

    async fn snapshot(&self, partition: u32, position: u64, state: &[u8]) -> Result<(), StoreError> {
        let position_row = number("position", position)?;
        let state = compressed(state)?;
        let mut writer = self.writer().await;
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::on("begin a snapshot"))?;
        let stands = position_of(&mut transaction, partition).await?;
        if stands != position {
            return Err(StoreError::Position { partition, from: position, stands });
        }
        let write = async {
            sqlx::query(
                "INSERT INTO state_snapshots (partition, position, state, digest) VALUES (?, ?, ?, ?)
                 ON CONFLICT (partition) DO UPDATE
                 SET position = excluded.position, state = excluded.state, digest = excluded.digest, checksum = NULL",
            )
            .bind(partition)
            .bind(position_row)
            .bind(&state)
            .bind(&Sha256::digest(&state)[..])
            .execute(&mut *transaction)
            .await?;
            sqlx::query("DELETE FROM state_deltas WHERE partition = ? AND position <= ?")
                .bind(partition)
                .bind(position_row)
                .execute(&mut *transaction)
                .await?;
            checksum::seal(&mut transaction, &[&checksum::STATE_SNAPSHOTS]).await
        };
        write.await.map_err(StoreError::on("write a snapshot"))?;
        Failpoint::StoreInSnapshot.pass();
        transaction.commit().await.map_err(StoreError::on("commit a snapshot"))
    }

    async fn restore(&self, partition: u32) -> Result<Restored, StoreError> {
        let doing = "restore the detector's state";
        let mut reader = self.readers().begin().await.map_err(StoreError::on(doing))?;
        let position = position_of(&mut reader, partition).await?;
        let on = StoreError::on(doing);
        let snapshot = sqlx::query("SELECT * FROM state_snapshots WHERE partition = ?")
            .bind(partition)
            .fetch_optional(&mut *reader)
            .await
            .map_err(on)?;
        let deltas = sqlx::query("SELECT * FROM state_deltas WHERE partition = ? ORDER BY position")
            .bind(partition)
            .fetch_all(&mut *reader)
            .await
            .map_err(StoreError::on(doing))?;
        let snapshot = snapshot.as_ref().map(|row| undamaged(&checksum::STATE_SNAPSHOTS, row, "state")).transpose()?;
        let delta = |row| undamaged(&checksum::STATE_DELTAS, row, "delta").map(|(_, delta)| delta);
        let deltas = deltas.iter().map(delta).collect::<Result<_, _>>()?;
        Ok(Restored { position, snapshot, deltas })
    }
}

impl SqliteStore {
    /// Index of the first record that detection has not evaluated: where the store stands.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn position(&self, partition: u32) -> Result<u64, StoreError> {
        let mut reader = self.readers().acquire().await.map_err(StoreError::on("read a position"))?;
        position_of(&mut reader, partition).await
    }
}

/// The tables a commit writes to.
fn written(commit: &Commit) -> Vec<&'static checksum::Table> {
    let mut tables = vec![&checksum::PROGRESS, &checksum::STATE_DELTAS];
    let mut add = |empty: bool, table| tables.extend((!empty).then_some(table));
    add(commit.findings.is_empty(), &checksum::FINDINGS);
    add(commit.incidents.is_empty(), &checksum::INCIDENTS);
    add(commit.steps.is_empty(), &checksum::INCIDENT_STEPS);
    add(commit.outbox.is_empty(), &checksum::OUTBOX);
    add(commit.duplicates.is_empty(), &checksum::DUPLICATES);
    add(commit.dead_letters.is_empty(), &checksum::DEAD_LETTERS);
    add(commit.excepted.is_empty(), &checksum::EXCEPTED);
    add(commit.windows.is_empty(), &checksum::SOURCE_WINDOWS);
    add(commit.handed_over.is_empty(), &checksum::ITEM_SETS);
    add(commit.handed_over.is_empty(), &checksum::ITEM_PAGES);
    add(commit.heard.is_empty(), &checksum::HEARD);
    tables
}

/// Position and bytes of a row, if they are what was written.
fn undamaged(table: &checksum::Table, row: &SqliteRow, bytes: &str) -> Result<(u64, Vec<u8>), StoreError> {
    let on = || StoreError::on("restore the detector's state");
    let position = unsigned(row.try_get("position").map_err(on())?);
    check(table, row)?;
    let bytes: Vec<u8> = row.try_get(bytes).map_err(on())?;
    let digest: Option<Vec<u8>> = row.try_get("digest").map_err(on())?;
    if digest.is_some_and(|digest| digest != Sha256::digest(&bytes)[..]) {
        return Err(StoreError::Damaged { position });
    }
    let bytes = if bytes.starts_with(ZSTD_MAGIC) {
        zstd::decode_all(bytes.as_slice()).map_err(|_| StoreError::Damaged { position })?
    } else {
        bytes
    };
    Ok((position, bytes))
}

/// A state as it is kept. Those of earlier versions, and short ones, are not compressed; no state begins as zstd does.
fn compressed(state: &[u8]) -> Result<Vec<u8>, StoreError> {
    if state.len() < COMPRESSED_FROM {
        return Ok(state.to_vec());
    }
    zstd::encode_all(state, 1).map_err(|error| StoreError::on("compress a state")(sqlx::Error::Io(error)))
}

async fn position_of(connection: &mut SqliteConnection, partition: u32) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT * FROM progress WHERE partition = ?")
        .bind(partition)
        .fetch_optional(connection)
        .await
        .map_err(StoreError::on("read a position"))?;
    let Some(row) = row else { return Ok(0) };
    check(&checksum::PROGRESS, &row)?;
    row.try_get("position").map(unsigned).map_err(StoreError::on("read a position"))
}

/// Moves the position from `commit.from` to `commit.to`, or refuses if it does not stand there.
async fn advance(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), StoreError> {
    let doing = "advance a position";
    let (from, to) = (number("position", commit.from)?, number("position", commit.to)?);
    sqlx::query("INSERT INTO progress (partition, position, committed) VALUES (?, 0, 0) ON CONFLICT DO NOTHING")
        .bind(commit.partition)
        .execute(&mut *connection)
        .await
        .map_err(StoreError::on(doing))?;
    let moved = sqlx::query(
        "UPDATE progress SET position = ?, committed = ?, checksum = NULL WHERE partition = ? AND position = ?",
    )
    .bind(to)
    .bind(commit.committed.as_micros())
    .bind(commit.partition)
    .bind(from)
    .execute(&mut *connection)
    .await
    .map_err(StoreError::on(doing))?;
    if moved.rows_affected() == 1 {
        return Ok(());
    }
    let stands = position_of(connection, commit.partition).await?;
    Err(StoreError::Position { partition: commit.partition, from: commit.from, stands })
}

/// What is in a commit's rows, written before the transaction starts so that nothing can fail half way but the database.
struct Rows {
    delta: Vec<u8>,
    findings: Vec<Vec<u8>>,
    incidents: Vec<Vec<u8>>,
    outbox: Vec<Vec<u8>>,
    windows: Vec<String>,
    duplicates: String,
    dead_letters: String,
    excepted: String,
}

impl Rows {
    fn encode(commit: &Commit) -> Result<Self, StoreError> {
        // SQLite reads JSON numbers above 2^63-1 as floating point.
        for index in commit.duplicates.iter().flat_map(|duplicate| [duplicate.index, duplicate.first]) {
            number("index", index)?;
        }
        for letter in &commit.dead_letters {
            number("index", letter.index)?;
        }
        let duplicates: Vec<_> = commit.duplicates.iter().map(|duplicate| (duplicate.index, duplicate.first)).collect();
        let dead_letters: Vec<_> = commit
            .dead_letters
            .iter()
            .map(|letter| (letter.index, &letter.source, letter.received.as_micros(), &letter.reason))
            .collect();
        let excepted: Vec<_> = commit
            .excepted
            .iter()
            .map(|own| {
                let names = (&own.filter, &own.filter_digest, &own.rule, &own.rule_digest, &own.event);
                (names, own.time.as_micros(), own.received.as_micros())
            })
            .collect();
        Ok(Self {
            delta: compressed(&commit.delta)?,
            findings: packed(encode_all("finding", &commit.findings, |finding| &finding.id)?)?,
            incidents: packed(encode_all("incident", &commit.incidents, |incident| &incident.id)?)?,
            outbox: packed(commit.outbox.iter().map(|message| message.body.to_string()))?,
            windows: encode_all("source window", &commit.windows, |window| &window.source)?,
            duplicates: encode("duplicates", "of a batch", &duplicates)?,
            dead_letters: encode("dead letters", "of a batch", &dead_letters)?,
            excepted: encode("matches let go", "of a batch", &excepted)?,
        })
    }

    async fn insert(&self, connection: &mut SqliteConnection, commit: &Commit) -> Result<(), sqlx::Error> {
        let committed = commit.committed.as_micros();
        // `advance` has checked both positions.
        let to = i64::try_from(commit.to).unwrap_or(i64::MAX);
        let delta = &self.delta;
        sqlx::query("INSERT INTO state_deltas (partition, position, delta, digest) VALUES (?, ?, ?, ?)")
            .bind(commit.partition)
            .bind(to)
            .bind(delta)
            .bind(&Sha256::digest(delta)[..])
            .execute(&mut *connection)
            .await?;
        for (finding, body) in commit.findings.iter().zip(&self.findings) {
            sqlx::query(
                "INSERT INTO findings
                 (id, rule_id, rule_digest, level, state, title, time, fired, retro, incident, committed, body)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            )
            .bind(&finding.id)
            .bind(&finding.rule_id)
            .bind(&finding.rule_digest)
            .bind(finding.level.number())
            .bind(super::findings::state_name(finding.state))
            .bind(&finding.title)
            .bind(finding.time.as_micros())
            .bind(finding.fired.as_micros())
            .bind(finding.retro)
            .bind(finding.incident.as_deref())
            .bind(committed)
            .bind(body)
            .execute(&mut *connection)
            .await?;
        }
        for (incident, body) in commit.incidents.iter().zip(&self.incidents) {
            sqlx::query(
                "INSERT INTO incidents (id, status, is_over, level, opened, committed, updated, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7)
                 ON CONFLICT (id) DO UPDATE SET status = ?2, is_over = ?3, level = ?4, opened = ?5, updated = ?6, body = ?7,
                 checksum = NULL",
            )
            .bind(&incident.id)
            .bind(super::findings::status_name(incident.status))
            .bind(incident.is_over())
            .bind(incident.level.number())
            .bind(incident.opened.as_micros())
            .bind(committed)
            .bind(body)
            .execute(&mut *connection)
            .await?;
        }
        for step in &commit.steps {
            sqlx::query(
                "INSERT INTO incident_steps (incident, number, verb, at, actor, note, finding, committed)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (incident, number) DO NOTHING",
            )
            .bind(&step.incident)
            .bind(i64::try_from(step.number).unwrap_or(i64::MAX))
            .bind(step.verb.name())
            .bind(step.at.as_micros())
            .bind(&step.actor)
            .bind(step.note.as_deref())
            .bind(step.finding.as_deref())
            .bind(committed)
            .execute(&mut *connection)
            .await?;
        }
        for (message, body) in commit.outbox.iter().zip(&self.outbox) {
            sqlx::query(
                "INSERT INTO outbox (id, kind, incident, at, body, committed) VALUES (?, ?, ?, ?, ?, ?)
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(&message.id)
            .bind(&message.kind)
            .bind(message.incident.as_deref())
            .bind(message.at.as_micros())
            .bind(body)
            .bind(committed)
            .execute(&mut *connection)
            .await?;
        }
        self.insert_coverage(connection, commit).await
    }

    async fn insert_coverage(&self, connection: &mut SqliteConnection, commit: &Commit) -> Result<(), sqlx::Error> {
        if !commit.duplicates.is_empty() {
            sqlx::query(
                "INSERT INTO duplicates (partition, record_index, first_index)
                 SELECT ?, value ->> 0, value ->> 1 FROM json_each(?) WHERE true ON CONFLICT DO NOTHING",
            )
            .bind(commit.partition)
            .bind(&self.duplicates)
            .execute(&mut *connection)
            .await?;
        }
        if !commit.dead_letters.is_empty() {
            sqlx::query(
                "INSERT INTO dead_letters (partition, record_index, source, received, reason)
                 SELECT ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?) WHERE true
                 ON CONFLICT DO NOTHING",
            )
            .bind(commit.partition)
            .bind(&self.dead_letters)
            .execute(&mut *connection)
            .await?;
        }
        if !commit.excepted.is_empty() {
            sqlx::query(
                "INSERT INTO excepted (filter, filter_digest, rule, rule_digest, event, time, received, committed)
                 SELECT value ->> '$[0][0]', value ->> '$[0][1]', value ->> '$[0][2]', value ->> '$[0][3]', value ->> '$[0][4]',
                        value ->> 1, value ->> 2, ?
                 FROM json_each(?) WHERE true ON CONFLICT DO NOTHING",
            )
            .bind(commit.committed.as_micros())
            .bind(&self.excepted)
            .execute(&mut *connection)
            .await?;
        }
        for (window, body) in commit.windows.iter().zip(&self.windows) {
            sqlx::query(
                r#"INSERT INTO source_windows (source, start, "end", seq, changed, body)
                   VALUES (?1, ?2, ?3, (SELECT coalesce(max(seq), 0) + 1 FROM source_windows), ?4, ?5)
                   ON CONFLICT (source, start) DO UPDATE
                   SET "end" = excluded."end", seq = excluded.seq, changed = excluded.changed, body = excluded.body,
                       checksum = NULL"#,
            )
            .bind(&window.source)
            .bind(window.start.as_micros())
            .bind(window.end.as_micros())
            .bind(commit.committed.as_micros())
            .bind(body)
            .execute(&mut *connection)
            .await?;
        }
        for heard in &commit.heard {
            sqlx::query(
                "INSERT INTO heard (source, received, max_skew_secs) VALUES (?, ?, ?)
                 ON CONFLICT (source) DO UPDATE
                 SET received = max(received, excluded.received), max_skew_secs = excluded.max_skew_secs, checksum = NULL",
            )
            .bind(&heard.source)
            .bind(heard.received.as_micros())
            .bind(heard.max_skew_secs)
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}

fn encode_all<T: serde::Serialize>(
    what: &'static str,
    items: &[T],
    id: impl Fn(&T) -> &String,
) -> Result<Vec<String>, StoreError> {
    items.iter().map(|item| encode(what, id(item), item)).collect()
}

pub(super) fn encode<T: serde::Serialize + ?Sized>(
    what: &'static str,
    id: &str,
    item: &T,
) -> Result<String, StoreError> {
    serde_json::to_string(item).map_err(|source| StoreError::Encode { what, id: id.to_owned(), source })
}
