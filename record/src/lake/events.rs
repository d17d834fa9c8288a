//! Rows of the `events` table: a record of the log, the events decoded from it, and the exact leaf to prove them by.
//!
//! The row with number 0 keeps envelope ([`whole_envelope`]), salt and body ([`whole_body`]), from which the leaf is written again byte for byte
//! ([`engine::record::encode_parts`]). A record without events (a dead letter, a tick) is such a row alone, so every
//! record that is no repetition can be proved.

use std::borrow::Cow;
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

/// An item of fewer bytes is left where it is.
const CUT_BYTES_MIN: usize = 16;

/// The part of an item that is cut out of bodies, since it is as hard to compress as a hash and a column of its own: the source's own
/// id, up to what we put behind it.
fn cut(item: &str) -> Option<&str> {
    item.strip_prefix("id:")?.split('/').next().filter(|id| id.len() >= CUT_BYTES_MIN)
}

/// The body without its item, and at which byte that was.
fn without_cut<'a>(body: &'a [u8], item: &str) -> (Cow<'a, [u8]>, Option<i32>) {
    let found = cut(item).and_then(|id| {
        let at = memchr::memmem::find(body, id.as_bytes())?;
        let (before, rest) = body.split_at_checked(at)?;
        Some((Cow::Owned([before, rest.get(id.len()..)?].concat()), i32::try_from(at).ok()?))
    });
    found.map_or((Cow::Borrowed(body), None), |(body, at)| (body, Some(at)))
}

/// The exact bytes of a body, from what the lake keeps of it and the columns `item` and `item_at` of the same row. The relation
/// `events` does the same.
#[must_use]
pub fn whole_body(body: &[u8], item: &str, item_at: Option<i32>) -> Vec<u8> {
    let parts = || {
        let at = usize::try_from(item_at?).ok()?;
        let (before, behind) = body.split_at_checked(at)?;
        Some([before, cut(item)?.as_bytes(), behind].concat())
    };
    // What makes no sense was not written by us: its leaf hash will say so.
    parts().unwrap_or_else(|| body.to_vec())
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

/// The rows of one record: one per event, and always one with number 0.
///
/// # Errors
/// [`RecordError`] if `leaf` is not the leaf of a record.
pub fn event_rows(
    position: Position,
    leaf: &Bytes,
    record: &Record,
    decoded: Result<&[Event], &str>,
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
        dead_letter: decoded.err().map(str::to_owned),
        leaf: None,
    };
    let mut rows: Vec<_> = decoded
        .unwrap_or_default()
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
    columns.extend(Field::ALL.iter().map(|field| field_cells(rows, *field)));
    let envelope = |row: &EventRow| {
        // An envelope is JSON, checked when its record was read.
        let envelope = std::str::from_utf8(&row.leaf.as_ref()?.envelope).ok()?;
        Some(without_item(envelope, &row.item).unwrap_or_else(|| envelope.to_owned()))
    };
    let bodies: Vec<_> = each().map(|row| Some(without_cut(&row.leaf.as_ref()?.body, &row.item))).collect();
    columns.extend([
        cells::maybe_texts(each().map(|row| row.dead_letter.as_deref())),
        // Like the last, told once the payload is dropped.
        new_null_array(&DataType::Binary, rows.len()),
        Arc::new(each().map(envelope).collect::<StringArray>()),
        Arc::new(each().map(|row| row.leaf.as_ref().map(|leaf| leaf.salt)).collect::<BinaryArray>()),
        Arc::new(bodies.iter().map(|body| body.as_ref().map(|(body, _)| body)).collect::<BinaryArray>()),
        // Nothing is redacted when it is written.
        cells::maybe_texts(each().map(|_| None)),
        Arc::new(bodies.iter().map(|body| body.as_ref().and_then(|(_, at)| *at)).collect::<Int32Array>()),
    ]);
    RecordBatch::try_new(Table::Events.stored_schema(), columns)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_own_id_of_an_item_is_cut_out() {
        let id = "0f4d9a3e-7c52-4a0e-9a41-d1b2c3d4e5f6";
        let body = format!(r#"{{"id":"{id}","again":"{id}"}}"#);
        for (item, expected) in [(format!("id:{id}"), Some(7)), (format!("id:{id}/stage"), Some(7)), (id.into(), None)]
        {
            let (short, at) = without_cut(body.as_bytes(), &item);
            assert_eq!((at, short.len()), (expected, body.len() - expected.map_or(0, |_| id.len())), "{item}");
            assert_eq!(whole_body(&short, &item, at), body.as_bytes());
        }
        assert_eq!(without_cut(br#"{"id":"7"}"#, "id:7").1, None);
        assert_eq!(whole_body(b"short", &format!("id:{id}"), Some(6)), b"short");
    }

    proptest! {
        #[test]
        fn a_body_comes_back_whole(
            before in prop::collection::vec(any::<u8>(), 0..40),
            id in "[a-f0-9/]{0,40}",
            behind in prop::collection::vec(any::<u8>(), 0..40),
            has_id in any::<bool>(),
        ) {
            let middle = if has_id { id.as_bytes() } else { b"" };
            let body = [&before, middle, &behind].concat();
            let item = format!("id:{id}");
            let (short, at) = without_cut(&body, &item);
            prop_assert_eq!(whole_body(&short, &item, at), body);
        }
    }
}
