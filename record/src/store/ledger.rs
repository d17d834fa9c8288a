//! Small tables beside the path of detection: texts of rules that were in force, sealed packs, readers' cursors, counts.

use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row};

use super::checksum::{self, check};
use super::findings::{column, json, time};
use super::{SqliteStore, StoreError, number, unsigned};

/// The text of a rule, kept under its semantic digest so that a finding can be read with the rule that decided it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleText {
    /// Semantic digest.
    pub digest: String,
    /// Rule id.
    pub id: String,
    /// Title.
    pub title: String,
    /// File it came from.
    pub file: String,
    /// The document.
    pub body: String,
}

/// A sealed evidence pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pack {
    /// Its name.
    pub pack: String,
    /// Framework.
    pub framework: String,
    /// Start of the period.
    pub from: Timestamp,
    /// End of the period, exclusive.
    pub to: Timestamp,
    /// What was known then.
    pub as_of: Timestamp,
    /// Where its ZIP is.
    pub path: String,
    /// SHA-256 of its tag manifest, hexadecimal.
    pub digest: String,
    /// When it was sealed.
    pub created: Timestamp,
    /// Whatever else its maker keeps about it.
    pub body: serde_json::Value,
}

/// How much the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Counts {
    pub findings: u64,
    pub incidents: u64,
    pub incidents_open: u64,
    pub messages: u64,
    pub deliveries_queued: u64,
    pub deliveries_retry: u64,
    pub deliveries_delivered: u64,
    pub deliveries_dead: u64,
    pub duplicates: u64,
    pub dead_letters: u64,
}

impl SqliteStore {
    /// How much the store holds, from one consistent view.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM findings), (SELECT count(*) FROM incidents),
             (SELECT count(*) FROM incidents WHERE is_over = 0), (SELECT count(*) FROM outbox),
             d.queued, d.retry, d.delivered, d.dead,
             (SELECT count(*) FROM duplicates)
             + (SELECT coalesce(sum(seq), 0) FROM cursors WHERE substr(name, 1, length(?1)) = ?1),
             (SELECT count(*) FROM dead_letters)
             FROM (SELECT count(*) FILTER (WHERE state = 'queued') AS queued,
                          count(*) FILTER (WHERE state = 'retry') AS retry,
                          count(*) FILTER (WHERE state = 'delivered') AS delivered,
                          count(*) FILTER (WHERE state = 'dead') AS dead FROM deliveries) d",
        )
        .bind(super::coverage::FORGOTTEN)
        .fetch_one(self.readers())
        .await
        .map_err(StoreError::on("count what it holds"))?;
        let count = |at: usize| row.try_get(at).map(unsigned).map_err(StoreError::on("count what it holds"));
        Ok(Counts {
            findings: count(0)?,
            incidents: count(1)?,
            incidents_open: count(2)?,
            messages: count(3)?,
            deliveries_queued: count(4)?,
            deliveries_retry: count(5)?,
            deliveries_delivered: count(6)?,
            deliveries_dead: count(7)?,
            duplicates: count(8)?,
            dead_letters: count(9)?,
        })
    }

    /// Keeps the texts of rules; a digest that is already there keeps its first text.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn keep_rule_texts(&self, texts: &[RuleText]) -> Result<(), StoreError> {
        let rows: Vec<_> =
            texts.iter().map(|text| (&text.digest, &text.id, &text.title, &text.file, &text.body)).collect();
        let rows = super::commit::encode("rule texts", "of a set", &rows)?;
        let mut writer = self.writer().await;
        let on = || StoreError::on("keep rule texts");
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(on())?;
        sqlx::query(
            "INSERT INTO rule_texts (digest, id, title, file, body, stored)
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, ? FROM json_each(?) WHERE true
             ON CONFLICT DO NOTHING",
        )
        .bind(self.now().as_micros())
        .bind(rows)
        .execute(&mut *transaction)
        .await
        .map_err(on())?;
        checksum::seal(&mut transaction, &[&checksum::RULE_TEXTS]).await.map_err(on())?;
        transaction.commit().await.map_err(on())
    }

    /// The text of the rule with this semantic digest.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rule_text(&self, digest: &str) -> Result<Option<RuleText>, StoreError> {
        let row = sqlx::query("SELECT * FROM rule_texts WHERE digest = ?")
            .bind(digest)
            .fetch_optional(self.readers())
            .await
            .map_err(StoreError::on("read a rule text"))?;
        let text = |row: &SqliteRow| {
            check(&checksum::RULE_TEXTS, row)?;
            Ok(RuleText {
                digest: column(row, "digest")?,
                id: column(row, "id")?,
                title: column(row, "title")?,
                file: column(row, "file")?,
                body: column(row, "body")?,
            })
        };
        row.as_ref().map(text).transpose()
    }

    /// Records a sealed pack. A pack is sealed once: the same name again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn add_pack(&self, pack: &Pack) -> Result<(), StoreError> {
        let mut writer = self.writer().await;
        let on = || StoreError::on("record a pack");
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(on())?;
        sqlx::query(
            r#"INSERT INTO packs (pack, framework, "from", "to", as_of, path, digest, created, body)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (pack) DO NOTHING"#,
        )
        .bind(&pack.pack)
        .bind(&pack.framework)
        .bind(pack.from.as_micros())
        .bind(pack.to.as_micros())
        .bind(pack.as_of.as_micros())
        .bind(&pack.path)
        .bind(&pack.digest)
        .bind(pack.created.as_micros())
        .bind(pack.body.to_string())
        .execute(&mut *transaction)
        .await
        .map_err(on())?;
        checksum::seal(&mut transaction, &[&checksum::PACKS]).await.map_err(on())?;
        transaction.commit().await.map_err(on())
    }

    /// Sealed packs, the last one first.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn packs(&self) -> Result<Vec<Pack>, StoreError> {
        let rows = sqlx::query("SELECT * FROM packs ORDER BY seq DESC")
            .fetch_all(self.readers())
            .await
            .map_err(StoreError::on("list packs"))?;
        rows.iter().map(pack).collect()
    }

    /// A sealed pack by name.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] for a row this version cannot read.
    pub async fn pack(&self, name: &str) -> Result<Option<Pack>, StoreError> {
        let row = sqlx::query("SELECT * FROM packs WHERE pack = ?")
            .bind(name)
            .fetch_optional(self.readers())
            .await
            .map_err(StoreError::on("read a pack"))?;
        row.as_ref().map(pack).transpose()
    }

    /// How far the reader of that name has got in its feed; 0 if it has not begun.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn cursor(&self, name: &str) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT * FROM cursors WHERE name = ?")
            .bind(name)
            .fetch_optional(self.readers())
            .await
            .map_err(StoreError::on("read a cursor"))?;
        let Some(row) = row else { return Ok(0) };
        check(&checksum::CURSORS, &row)?;
        column(&row, "seq").map(unsigned)
    }

    /// Notes how far the reader of that name has got. A cursor never goes back.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn advance_cursor(&self, name: &str, seq: u64) -> Result<(), StoreError> {
        let mut writer = self.writer().await;
        let on = || StoreError::on("advance a cursor");
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(on())?;
        checksum::check_before(&mut transaction, &checksum::CURSORS, &[name.into()]).await?;
        sqlx::query(
            "INSERT INTO cursors (name, seq) VALUES (?, ?)
             ON CONFLICT (name) DO UPDATE SET seq = max(cursors.seq, excluded.seq), checksum = NULL",
        )
        .bind(name)
        .bind(number("sequence number", seq)?)
        .execute(&mut *transaction)
        .await
        .map_err(on())?;
        checksum::seal(&mut transaction, &[&checksum::CURSORS]).await.map_err(on())?;
        transaction.commit().await.map_err(on())
    }
}

fn pack(row: &SqliteRow) -> Result<Pack, StoreError> {
    check(&checksum::PACKS, row)?;
    let name: String = column(row, "pack")?;
    let body = json("pack", || name.clone(), column(row, "body")?)?;
    Ok(Pack {
        pack: name,
        framework: column(row, "framework")?,
        from: time(row, "from")?,
        to: time(row, "to")?,
        as_of: time(row, "as_of")?,
        path: column(row, "path")?,
        digest: column(row, "digest")?,
        created: time(row, "created")?,
        body,
    })
}
