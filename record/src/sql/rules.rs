//! What `sql:` rules ask: the relations of any session, with `events` in the names rules use.
//!
//! `events` has every column of the lake's table and, beside it, every normalised field under its dotted name
//! (`"ci.repo"`), `"src.lat"` and `"src.lon"` in degrees, and times in UTC without a zone, as `:from` and `:to` are. `source` is
//! the feed an event belongs to (`scm.audit`, `ci.jobs`, …), whoever sent it; the instance is `source_name`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use engine::feed;
use engine::fields::Field;
use engine::rule::SqlRule;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::{Limits, Parameter, Sql, SqlError, opened, relations};
use crate::lake::{EventRow, Snapshot, Table, events_batch, field_column};

/// Rows of one run of a rule that become findings at most.
pub const RULE_ROWS_MAX: usize = 10_000;

impl Limits {
    /// For rules: in the background, beside everything else.
    pub const RULES: Self = Self {
        memory_bytes: 256 << 20,
        time: Duration::from_secs(60),
        rows: RULE_ROWS_MAX,
        answer_bytes: 64 << 20,
        text_bytes: super::TEXT_BYTES,
    };
}

/// A row that a rule's query answered, by column.
pub type RuleRow = BTreeMap<String, serde_json::Value>;

/// What a rule's query answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleRows {
    /// Rows by column, in an order that depends on nothing but them.
    pub rows: Vec<RuleRow>,
    /// Whether there were more than the limit.
    pub truncated: bool,
}

/// A session that `sql:` rules run in.
#[derive(Clone, Debug)]
pub struct RuleSql(Sql);

impl RuleSql {
    /// A session over a snapshot of the lake; with `as_of`, over what was received before then.
    ///
    /// # Errors
    /// [`SqlError::Open`].
    pub async fn over(snapshot: &Snapshot, as_of: Option<Timestamp>) -> Result<Self, SqlError> {
        Self::with_names(Sql::over(snapshot, as_of, Limits::RULES).await?, as_of).await
    }

    /// A session over events in memory, as the tests inside rules have them.
    ///
    /// # Errors
    /// [`SqlError::Open`].
    pub async fn over_events(events: &[EventRow]) -> Result<Self, SqlError> {
        let sql = Sql::over(&Snapshot::default(), None, Limits::RULES).await?;
        let open = opened("the events of a test");
        let rows: Vec<&EventRow> = events.iter().collect();
        let batch: RecordBatch = events_batch(&rows).map_err(|error| open(error.into()))?;
        let table = MemTable::try_new(Table::Events.stored_schema(), vec![vec![batch]])
            .map_err(opened("the events of a test"))?;
        let name = TableReference::partial(relations::FILES, Table::Events.name());
        let replaced = sql.context.deregister_table(name.clone());
        replaced
            .and_then(|_| sql.context.register_table(name, Arc::new(table)))
            .map_err(opened("the events of a test"))?;
        Self::with_names(sql, None).await
    }

    async fn with_names(sql: Sql, as_of: Option<Timestamp>) -> Result<Self, SqlError> {
        // The fact views were bound to the lake's own names before this.
        sql.context.sql(&events_view(as_of)).await.map_err(opened("the events of rules"))?;
        Ok(Self(sql))
    }

    /// Runs a rule over `[from, to)`, bound to `:from` and `:to`.
    ///
    /// # Errors
    /// [`SqlError`].
    pub async fn run(&self, rule: &SqlRule, from: Timestamp, to: Timestamp) -> Result<RuleRows, SqlError> {
        self.query(&rule.query, &rule.key, from, to).await
    }

    /// Runs a query over `[from, to)`, whose rows `key` identifies.
    ///
    /// # Errors
    /// [`SqlError`].
    pub async fn query(
        &self,
        query: &str,
        key: &[String],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<RuleRows, SqlError> {
        let period = [("from", Parameter::Time(from)), ("to", Parameter::Time(to))];
        let answer = self.0.query_json(query, &period).await?;
        if let Some(key) = key.iter().find(|key| !answer.columns.contains(key)) {
            return Err(SqlError::NoKey { key: key.clone(), columns: answer.columns.join(", ") });
        }
        let named = |row: Vec<serde_json::Value>| answer.columns.iter().cloned().zip(row).collect::<BTreeMap<_, _>>();
        let mut rows: Vec<RuleRow> = answer.rows.into_iter().map(named).collect();
        rows.sort_by_cached_key(|row| {
            let key: Vec<String> =
                key.iter().map(|key| row.get(key).map(ToString::to_string).unwrap_or_default()).collect();
            (key, serde_json::to_string(row).unwrap_or_default())
        });
        Ok(RuleRows { rows, truncated: answer.truncated })
    }
}

/// The feed of an event by what happened, whichever product said it.
const FEEDS: &[(&str, &str)] = &[
    ("scm", "scm.audit"),
    ("git", "scm.audit"),
    ("change", "scm.audit"),
    ("protection", "scm.audit"),
    ("job", "ci.jobs"),
    ("run", "ci.jobs"),
    ("token", "token.audit"),
    ("secret", "secret.audit"),
    ("signing", "signing.log"),
    ("artifact", "registry.push"),
    ("registry", "registry.push"),
    ("admission", "admission.decision"),
    ("deploy", "deploy.events"),
    ("leak", "secret.scan"),
    ("cloud", "cloud.api"),
    ("identity", "identity.signin"),
    ("runtime", "ci.runtime"),
];

fn events_view(as_of: Option<Timestamp>) -> String {
    let naive = |column: &str| format!("CAST({column} AS TIMESTAMP(6)) AS {column}");
    let mut columns: Vec<String> = Vec::new();
    for column in Table::Events.schema().fields() {
        columns.push(match column.name().as_str() {
            "time" | "received" => naive(column.name()),
            "envelope" => relations::whole_envelope(),
            "body" => relations::whole_body(),
            "source" => {
                let by = |of: &str| {
                    let whens = FEEDS.iter().map(|(word, feed)| format!(" WHEN '{word}' THEN '{feed}'"));
                    format!("CASE {of}{} END", whens.collect::<String>())
                };
                // Changes of settings and calls without a family of their own belong to whoever tells of them.
                let by_type = "CASE source_type WHEN 'github.webhook' THEN 'scm.audit' WHEN 'vault.audit' THEN 'secret.audit' \
                     WHEN 'kubernetes.audit' THEN 'kubernetes.api' WHEN 'aws.cloudtrail' THEN 'cloud.api' \
                     WHEN 'gcp.audit' THEN 'cloud.api' WHEN 'azure.activity' THEN 'cloud.api' \
                     WHEN 'azure.signin' THEN 'identity.signin' WHEN 'okta' THEN 'identity.signin' \
                     WHEN 'github.joblog' THEN 'ci.log' WHEN 'sigstore.bundle' THEN 'signing.log' END";
                let feeds: Vec<String> = feed::FEEDS.iter().map(|feed| format!("'{}'", feed.name)).collect();
                format!(
                    "coalesce(CASE WHEN source IN ({}) THEN source END, {}, {}, {by_type}, source) AS source, \
                     source AS source_name",
                    feeds.join(", "),
                    by("category"),
                    by("split_part(action, '.', 1)")
                )
            }
            name => format!("\"{name}\""),
        });
    }
    for field in Field::ALL.iter().filter(|field| field.name().contains('.')) {
        columns.push(format!("\"{}\" AS \"{}\"", field_column(*field), field.name()));
    }
    for name in ["lat", "lon"] {
        columns.push(format!("CAST(src_{name}_e6 AS DOUBLE) / 1e6 AS \"src.{name}\""));
    }
    let cut = relations::cut(Table::Events, as_of);
    format!("CREATE OR REPLACE VIEW events AS SELECT {} FROM {}.events{cut}", columns.join(", "), relations::FILES)
}
