//! The columns of the lake's tables: one list per table, from which the Delta schema, the Parquet files and the SQL
//! relations derive.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field as Column, Schema, SchemaRef, TimeUnit};
use engine::fields::{Field, FieldKind};
use pipeproof_engine as engine;

/// One table of the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Every record that is no repetition, and the events decoded from it.
    Events,
    /// Findings as they were committed.
    Findings,
    /// What happened to incidents.
    IncidentSteps,
    /// Every change of a delivery: the receipts.
    Deliveries,
    /// Every version of every source window; the last one counts.
    SourceWindows,
    /// Signed checkpoints of the log's trees.
    Checkpoints,
}

impl Table {
    /// Every table.
    pub const ALL: &'static [Self] =
        &[Self::Events, Self::Findings, Self::IncidentSteps, Self::Deliveries, Self::SourceWindows, Self::Checkpoints];

    /// Its name: the folder under the lake's, and the relation in SQL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Findings => "findings",
            Self::IncidentSteps => "incident_steps",
            Self::Deliveries => "deliveries",
            Self::SourceWindows => "source_windows",
            Self::Checkpoints => "checkpoints",
        }
    }

    /// The columns its files are split by. They are written inside the files as well, so that a file says all it holds.
    #[must_use]
    pub const fn partition_columns(self) -> &'static [&'static str] {
        match self {
            Self::Events => &["date", "source"],
            _ => &["date"],
        }
    }

    /// The column that numbers its rows.
    pub(super) const fn number_column(self) -> &'static str {
        match self {
            Self::Events => "index",
            _ => "seq",
        }
    }

    /// Its columns, as the relation has them.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<Vec<SchemaRef>> =
            LazyLock::new(|| Table::ALL.iter().map(|table| Arc::new(Schema::new(table.columns()))).collect());
        SCHEMAS.get(self as usize).cloned().unwrap_or_else(|| Arc::new(Schema::empty()))
    }

    /// The columns of its files: those of the relation, and behind them what these are put together from.
    pub(crate) fn stored_schema(self) -> SchemaRef {
        static EVENTS: LazyLock<SchemaRef> = LazyLock::new(|| {
            let stored = columns(STORED_COLUMNS);
            Arc::new(Schema::new(Table::Events.columns().into_iter().chain(stored).collect::<Vec<_>>()))
        });
        if self == Self::Events { Arc::clone(&EVENTS) } else { self.schema() }
    }

    fn columns(self) -> Vec<Column> {
        match self {
            Self::Events => event_columns(),
            Self::Findings => columns(FINDING_COLUMNS),
            Self::IncidentSteps => columns(STEP_COLUMNS),
            Self::Deliveries => columns(DELIVERY_COLUMNS),
            Self::SourceWindows => columns(WINDOW_COLUMNS),
            Self::Checkpoints => columns(CHECKPOINT_COLUMNS),
        }
    }
}

/// The type of a column.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Int,
    Long,
    Truth,
    Time,
    Date,
    Bytes,
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Truth => DataType::Boolean,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => DataType::Date32,
            Self::Bytes => DataType::Binary,
        }
    }
}

const FINDING_COLUMNS: &[(&str, Kind)] = &[
    ("date", Kind::Date),
    ("seq", Kind::Long),
    ("finding_id", Kind::Text),
    ("rule_id", Kind::Text),
    ("rule_title", Kind::Text),
    ("rule_digest", Kind::Text),
    ("level", Kind::Text),
    ("severity", Kind::Int),
    ("state", Kind::Text),
    ("title", Kind::Text),
    ("category", Kind::Text),
    ("entity", Kind::Text),
    ("time", Kind::Time),
    ("occurred", Kind::Time),
    ("available", Kind::Time),
    ("fired", Kind::Time),
    ("committed", Kind::Time),
    ("retro", Kind::Truth),
    ("incident", Kind::Text),
    ("event_id", Kind::Text),
    ("json", Kind::Text),
];

const STEP_COLUMNS: &[(&str, Kind)] = &[
    ("date", Kind::Date),
    ("seq", Kind::Long),
    ("incident", Kind::Text),
    ("number", Kind::Long),
    ("verb", Kind::Text),
    ("at", Kind::Time),
    ("actor", Kind::Text),
    ("note", Kind::Text),
    ("finding", Kind::Text),
    ("committed", Kind::Time),
];

const DELIVERY_COLUMNS: &[(&str, Kind)] = &[
    ("date", Kind::Date),
    ("seq", Kind::Long),
    ("at", Kind::Time),
    ("delivery_id", Kind::Long),
    ("target", Kind::Text),
    ("message", Kind::Text),
    ("incident", Kind::Text),
    ("state", Kind::Text),
    ("attempts", Kind::Int),
    ("queued_at", Kind::Time),
    ("next_at", Kind::Time),
    ("last_at", Kind::Time),
    ("status", Kind::Int),
    ("latency_ms", Kind::Long),
    ("response_sha256", Kind::Text),
    ("response_head", Kind::Text),
    ("error", Kind::Text),
    ("delivered_at", Kind::Time),
];

const WINDOW_COLUMNS: &[(&str, Kind)] = &[
    ("date", Kind::Date),
    ("seq", Kind::Long),
    ("changed", Kind::Time),
    ("source", Kind::Text),
    ("source_type", Kind::Text),
    ("window_start", Kind::Time),
    ("window_end", Kind::Time),
    ("records", Kind::Long),
    ("events", Kind::Long),
    ("duplicates", Kind::Long),
    ("dead_letters", Kind::Long),
    ("max_lag_secs", Kind::Long),
    ("max_skew_secs", Kind::Long),
    ("down_secs", Kind::Long),
    ("status", Kind::Text),
    ("basis", Kind::Text),
];

const CHECKPOINT_COLUMNS: &[(&str, Kind)] = &[
    ("date", Kind::Date),
    ("seq", Kind::Long),
    ("log_id", Kind::Text),
    ("tree_size", Kind::Long),
    ("root_hash", Kind::Text),
    ("at", Kind::Time),
    ("consistent_with_prev", Kind::Truth),
    ("anchored_at", Kind::Time),
    ("note", Kind::Text),
];

/// The columns of `events` before the normalised fields.
const EVENT_COLUMNS: &[(&str, Kind)] = &[
    ("date", Kind::Date),
    ("partition", Kind::Int),
    ("index", Kind::Long),
    ("sub", Kind::Int),
    ("event_id", Kind::Text),
    ("source", Kind::Text),
    ("source_type", Kind::Text),
    ("item", Kind::Text),
    ("time", Kind::Time),
    ("time_known", Kind::Truth),
    ("received", Kind::Time),
    ("auth", Kind::Text),
    ("key_id", Kind::Text),
    ("mode", Kind::Text),
];

/// The columns of `events` after the normalised fields: the record as it stands in the log.
const RECORD_COLUMNS: &[(&str, Kind)] = &[
    ("dead_letter", Kind::Text),
    // SHA-256 over 0x00 and the leaf, where the payload was dropped: everywhere else the columns after it tell it.
    ("leaf_hash", Kind::Bytes),
    ("envelope", Kind::Text),
    ("salt", Kind::Bytes),
    ("body", Kind::Bytes),
    // When the payload was dropped and by whom; envelope, salt, body and normalised fields are empty then.
    ("redacted", Kind::Text),
];

/// Columns of `events` that its relation does not show.
const STORED_COLUMNS: &[(&str, Kind)] = &[
    // At which byte of the body the item is missing, in rows of the version before.
    ("item_at", Kind::Int),
    // Digits of the body, two to a byte; null where the body is whole.
    ("packed", Kind::Bytes),
];

fn columns(list: &[(&str, Kind)]) -> Vec<Column> {
    // All nullable: a column added later is missing from older files.
    list.iter().map(|(name, kind)| Column::new(*name, kind.data_type(), true)).collect()
}

fn event_columns() -> Vec<Column> {
    let fields = Field::ALL.iter().map(|field| {
        let kind = match field.kind() {
            FieldKind::Text => Kind::Text,
            FieldKind::Int => Kind::Long,
            FieldKind::Bool => Kind::Truth,
            FieldKind::Time => Kind::Time,
        };
        Column::new(field_column(*field), kind.data_type(), true)
    });
    columns(EVENT_COLUMNS).into_iter().chain(fields).chain(columns(RECORD_COLUMNS)).collect()
}

/// The column of `events` that holds a normalised field: its name with dots replaced by underscores.
#[must_use]
pub fn field_column(field: Field) -> String {
    field.name().replace('.', "_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn columns_have_one_name_each() {
        for table in Table::ALL {
            let schema = table.schema();
            let names: BTreeSet<_> = schema.fields().iter().map(|column| column.name()).collect();
            assert_eq!(names.len(), schema.fields().len(), "{}", table.name());
            for column in table.partition_columns() {
                assert!(names.contains(&(*column).to_owned()), "{} lacks {column}", table.name());
            }
        }
    }
}
