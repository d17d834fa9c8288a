//! Rows of the `events` table: a record of the log, the events decoded from it, and the exact leaf to prove them by.
//!
//! The row with number 0 keeps envelope ([`whole_envelope`]), salt and body ([`super::whole_body`]), from which the leaf is written again byte for byte
//! ([`engine::record::encode_parts`]). A record without events (a dead letter, a tick) is such a row alone, so every
//! record that is no repetition can be proved.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow_schema::{ArrowError, DataType};
use bytes::Bytes;
use engine::event::{Event, EventId};
use engine::fields::{Field, FieldKind, Fields, Value};
use engine::record::{Authenticity, CollectionMode, LeafParts, Position, Record, RecordError};
use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::body::shortened;
use super::cells;
use super::columns::Table;

/// One row of `events`.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// Position of the record, and number of the event inside it.
    pub id: EventId,
    /// Source instance.
    pub source: Arc<str>,
    /// Its type.
    pub source_type: SourceType,
    /// What makes it the same item when it is delivered again.
    pub item: Arc<str>,
    /// When it happened; the received time if nothing says.
    pub time: Timestamp,
    /// Whether `time` is the source's.
    pub time_known: bool,
    /// When we received it.
    pub received: Timestamp,
    /// How we know who sent it.
    pub auth: Authenticity,
    /// Which key or token proved it.
    pub key_id: Option<String>,
    /// How it came.
    pub mode: CollectionMode,
    /// Normalised fields.
    pub fields: Fields,
    /// Why it could not be decoded.
    pub dead_letter: Option<String>,
    /// The record itself; on the row with number 0 only.
    pub leaf: Option<LeafColumns>,
}

/// What stands in an envelope of the lake in the place of its item, which is a column of its own and as hard to compress as a hash.
/// Items are texts, so no envelope has this of itself, and within a text the quotes would be escaped.
pub(crate) const NO_ITEM: &str = r#""item":null"#;

/// The envelope without its item, if the item can be put back as it is.
fn without_item(envelope: &str, item: &str) -> Option<String> {
    let short = envelope.replacen(&named(item), NO_ITEM, 1);
    (whole_envelope(&short, item) == envelope).then_some(short)
}

fn named(item: &str) -> String {
    format!(r#""item":"{item}""#)
}

/// The exact text of an envelope, from what the lake keeps of it and the column `item` of the same row. The relation `events` says the
/// same in SQL.
#[must_use]
pub fn whole_envelope(envelope: &str, item: &str) -> String {
    envelope.replacen(NO_ITEM, &named(item), 1)
}

/// A record as the lake keeps it.
#[derive(Clone, Debug)]
pub struct LeafColumns {
    /// The envelope's exact JSON text.
    pub envelope: Bytes,
    /// The leaf's salt.
    pub salt: [u8; 16],
    /// The redacted body.
    pub body: Bytes,
}

/// The rows of one record: one per event, and always one with number 0, on which stands why it is a dead letter if it is one.
///
/// # Errors
/// [`RecordError`] if `leaf` is not the leaf of a record.
pub fn event_rows(
    position: Position,
    leaf: &Bytes,
    record: &Record,
    events: &[Event],
    dead_letter: Option<&str>,
) -> Result<Vec<EventRow>, RecordError> {
    let parts = LeafParts::split(leaf)?;
    let columns =
        LeafColumns { envelope: leaf.slice_ref(parts.envelope), salt: parts.salt, body: leaf.slice_ref(parts.body) };
    let envelope = &record.envelope;
    let bare = EventRow {
        id: EventId { position, sub: 0 },
        source: envelope.source.as_str().into(),
        source_type: envelope.source_type,
        item: envelope.item.as_str().into(),
        time: envelope.received,
        time_known: false,
        received: envelope.received,
        auth: envelope.auth,
        key_id: envelope.key_id.clone(),
        mode: envelope.mode,
        fields: Fields::default(),
        dead_letter: None,
        leaf: None,
    };
    let mut rows: Vec<_> = events
        .iter()
        .map(|event| EventRow {
            id: EventId { position, sub: event.id.sub },
            time: event.time,
            time_known: event.time_known,
            fields: event.fields.clone(),
            ..bare.clone()
        })
        .collect();
    rows.sort_by_key(|row| row.id.sub);
    if rows.first().is_none_or(|row| row.id.sub != 0) {
        rows.insert(0, bare);
    }
    if let Some(first) = rows.first_mut() {
        first.leaf = Some(columns);
        first.dead_letter = dead_letter.map(str::to_owned);
    }
    Ok(rows)
}

/// The rows as one batch, in the order given.
pub(crate) fn batch(rows: &[&EventRow]) -> Result<RecordBatch, ArrowError> {
    let each = || rows.iter().copied();
    let ids: Vec<String> = each().map(|row| row.id.to_string()).collect();
    let mut columns: Vec<ArrayRef> = vec![
        cells::dates(each().map(|row| row.received)),
        Arc::new(each().map(|row| i32::try_from(row.id.position.partition).ok()).collect::<Int32Array>()),
        cells::numbers(each().map(|row| row.id.position.index)),
        Arc::new(each().map(|row| i32::try_from(row.id.sub).ok()).collect::<Int32Array>()),
        cells::texts(ids.iter().map(String::as_str)),
        cells::texts(each().map(|row| &*row.source)),
        cells::texts(each().map(|row| row.source_type.name())),
        cells::texts(each().map(|row| &*row.item)),
        cells::times(each().map(|row| Some(row.time))),
        Arc::new(each().map(|row| Some(row.time_known)).collect::<BooleanArray>()),
        cells::times(each().map(|row| Some(row.received))),
        cells::texts(each().map(|row| auth_name(row.auth))),
        cells::maybe_texts(each().map(|row| row.key_id.as_deref())),
        cells::texts(each().map(|row| mode_name(row.mode))),
    ];
    // Most columns have no value in any of the rows.
    let mut set = BTreeSet::new();
    set.extend(each().flat_map(|row| row.fields.iter().map(|(field, _)| field)));
    let schema = Table::Events.stored_schema();
    for (field, column) in Field::ALL.iter().zip(schema.fields().iter().skip(columns.len())) {
        columns.push(match set.contains(field) {
            true => field_cells(rows, *field),
            false => new_null_array(column.data_type(), rows.len()),
        });
    }
    let envelope = |row: &EventRow| {
        // An envelope is JSON, checked when its record was read.
        let envelope = std::str::from_utf8(&row.leaf.as_ref()?.envelope).ok()?;
        Some(without_item(envelope, &row.item).unwrap_or_else(|| envelope.to_owned()))
    };
    let bodies: Vec<_> = each().map(|row| Some(shortened(&row.leaf.as_ref()?.body, &row.item, &row.fields))).collect();
    columns.extend([
        cells::maybe_texts(each().map(|row| row.dead_letter.as_deref())),
        // Like the last, told once the payload is dropped.
        new_null_array(&DataType::Binary, rows.len()),
        Arc::new(each().map(envelope).collect::<StringArray>()),
        Arc::new(each().map(|row| row.leaf.as_ref().map(|leaf| leaf.salt)).collect::<BinaryArray>()),
        Arc::new(bodies.iter().map(|body| body.as_ref().map(|(body, _)| body)).collect::<BinaryArray>()),
        // Nothing is redacted when it is written.
        cells::maybe_texts(each().map(|_| None)),
        new_null_array(&DataType::Int32, rows.len()),
        Arc::new(bodies.iter().map(|body| body.as_ref()?.1.as_deref()).collect::<BinaryArray>()),
    ]);
    RecordBatch::try_new(schema, columns)
}

fn field_cells(rows: &[&EventRow], field: Field) -> ArrayRef {
    let values = rows.iter().map(|row| row.fields.get(field));
    match field.kind() {
        FieldKind::Text => cells::maybe_texts(values.map(|value| match value {
            Some(Value::Text(text)) => Some(text.as_str()),
            _ => None,
        })),
        FieldKind::Int => Arc::new(
            values
                .map(|value| match value {
                    Some(Value::Int(number)) => Some(*number),
                    _ => None,
                })
                .collect::<Int64Array>(),
        ),
        FieldKind::Bool => Arc::new(
            values
                .map(|value| match value {
                    Some(Value::Bool(truth)) => Some(*truth),
                    _ => None,
                })
                .collect::<BooleanArray>(),
        ),
        FieldKind::Time => Arc::new(
            values
                .map(|value| match value {
                    Some(Value::Time(time)) => Some(time.as_micros()),
                    _ => None,
                })
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
    }
}

const fn auth_name(auth: Authenticity) -> &'static str {
    match auth {
        Authenticity::Own => "own",
        Authenticity::Hmac => "hmac",
        Authenticity::Bearer => "bearer",
        Authenticity::Token => "token",
        Authenticity::Jwt => "jwt",
        Authenticity::Fetched => "fetched",
        Authenticity::Unverified => "unverified",
        Authenticity::Mtls => "mtls",
    }
}

const fn mode_name(mode: CollectionMode) -> &'static str {
    match mode {
        CollectionMode::Live => "live",
        CollectionMode::Collected => "collected",
        CollectionMode::Backfill => "backfill",
    }
}
