//! The records behind a pack as Parquet: what the exact leaf was made of, so that anyone can hash it again.
//!
//! | column | |
//! |---|---|
//! | `partition`, `index` | position in the log; the index is the leaf's in the partition's tree |
//! | `received`, `source`, `source_type`, `item` | from the envelope, for queries |
//! | `envelope`, `salt`, `body` | the leaf's parts, byte for byte |
//! | `leaf_hash` | SHA-256 over `0x00 ‖ leaf` |
//!
//! The columns are named as in the lake's `events` table: files of that table in the same folder are read alike, and
//! records that they hold are not written again. Their rows without a salt are further events of a record above, or, where
//! `redacted` says so, of a record whose payload was dropped: its leaf hash is proved all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{
    Array as _, ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::DataType;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use pipeproof_engine::merkle::{Hash, leaf_hash};
use pipeproof_engine::record::{Envelope, LeafParts, Position, encode_parts};

use crate::pack::table::Table;
use crate::pack::{PackError, PackFile, RawRecord};

/// Folder of the records below `data/`.
pub const FOLDER: &str = "60_raw/";
/// Rows in one file.
const ROWS: usize = 20_000;
/// Rows decoded at a time when reading: bodies are up to 1 MiB each.
const BATCH: usize = 256;
/// Most rows read from one file.
const ROWS_MAX: i64 = 50_000_000;

struct Row {
    index: i64,
    envelope_text: String,
    envelope: Envelope,
    salt: [u8; 16],
    body: Bytes,
    leaf_hash: Hash,
}

/// The Parquet files of the records that `given` does not hold, and the table of what was redacted from all of them. Order
/// and repetition of the records make no difference.
///
/// # Errors
/// [`PackError::Record`] for bytes that are no record, [`PackError::Parquet`].
pub fn files(records: &[RawRecord], given: &[PackFile]) -> Result<Vec<PackFile>, PackError> {
    let mut held = BTreeSet::new();
    for file in given.iter().filter(|file| is_raw(&file.path)) {
        read(&Bytes::copy_from_slice(&file.bytes), |row| {
            if row.leaf.is_some() {
                held.insert(row.position);
            }
        })
        .map_err(PackError::Parquet)?;
    }
    let mut partitions: BTreeMap<u32, BTreeMap<u64, Row>> = BTreeMap::new();
    let mut redactions: BTreeMap<Position, (String, Vec<(String, u32)>)> = BTreeMap::new();
    for record in records {
        let row = row(record)?;
        if !row.envelope.redacted.is_empty() {
            let what = row.envelope.redacted.iter().map(|what| (what.family.clone(), what.count)).collect();
            redactions.insert(record.position, (row.envelope.source.clone(), what));
        }
        if !held.contains(&record.position) {
            partitions.entry(record.position.partition).or_default().insert(record.position.index, row);
        }
    }
    let mut files = Vec::new();
    for (partition, rows) in partitions {
        let rows: Vec<Row> = rows.into_values().collect();
        for (number, chunk) in rows.chunks(ROWS).enumerate() {
            files.push(PackFile::new(
                format!("{FOLDER}records-{partition}-{number:05}.parquet"),
                parquet(partition, chunk)?,
                "records of the log as they were hashed: envelope, salt, body, leaf hash",
            ));
        }
    }
    files.push(redacted(redactions.into_values())?);
    Ok(files)
}

fn redacted(records: impl Iterator<Item = (String, Vec<(String, u32)>)>) -> Result<PackFile, PackError> {
    let mut sums: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for (source, secrets) in records {
        for (family, count) in secrets {
            let sum = sums.entry((source.clone(), family)).or_default();
            *sum = (sum.0 + 1, sum.1 + u64::from(count));
        }
    }
    let mut table = Table::new(["source", "family", "records", "secrets", "method"]);
    for ((source, family), (records, secrets)) in sums {
        let method = "replaced by a keyed fingerprint before the record was hashed";
        table.push([source, family, records.to_string(), secrets.to_string(), method.to_owned()]);
    }
    let path = "90_custody/redactions.csv";
    let bytes = table.csv().map_err(|source| PackError::Table { path: path.to_owned(), source })?;
    Ok(PackFile::new(path, bytes, "secrets redacted from the records of this pack, by source and family"))
}

fn row(record: &RawRecord) -> Result<Row, PackError> {
    let refuse = |reason| PackError::Record { position: record.position, reason };
    let parts = LeafParts::split(&record.leaf).map_err(|_| refuse("is not the bytes of a record"))?;
    let envelope = serde_json::from_slice(parts.envelope).map_err(|_| refuse("has an envelope that cannot be read"))?;
    let text = std::str::from_utf8(parts.envelope).map_err(|_| refuse("has an envelope that is not utf-8"))?;
    Ok(Row {
        index: i64::try_from(record.position.index).map_err(|_| refuse("has an index beyond 2^63"))?,
        envelope_text: text.to_owned(),
        envelope,
        salt: parts.salt,
        body: record.leaf.slice_ref(parts.body),
        leaf_hash: leaf_hash(&record.leaf),
    })
}

fn parquet(partition: u32, rows: &[Row]) -> Result<Vec<u8>, PackError> {
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| PackError::Parquet(cause);
    let partition = i32::try_from(partition).map_err(|cause| failed(Box::new(cause)))?;
    let text = |of: fn(&Row) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
    let received = rows.iter().map(|row| row.envelope.received.as_micros());
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("partition", Arc::new(Int32Array::from_iter_values(rows.iter().map(|_| partition)))),
        ("index", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.index)))),
        ("received", Arc::new(TimestampMicrosecondArray::from_iter_values(received).with_timezone("UTC"))),
        ("source", text(|row| &row.envelope.source)),
        ("source_type", text(|row| row.envelope.source_type.name())),
        ("item", text(|row| &row.envelope.item)),
        ("leaf_hash", Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| row.leaf_hash)))),
        ("envelope", text(|row| &row.envelope_text)),
        ("salt", Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| row.salt)))),
        ("body", Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| &row.body)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).map_err(|cause| failed(Box::new(cause)))?;
    let level = ZstdLevel::try_new(3).map_err(|cause| failed(Box::new(cause)))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by("pipeproof".to_owned())
        .build();
    let mut writer =
        ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).map_err(|cause| failed(Box::new(cause)))?;
    writer.write(&batch).map_err(|cause| failed(Box::new(cause)))?;
    writer.into_inner().map_err(|cause| failed(Box::new(cause)))
}

/// Whether a file below `data/` holds records: ours, or one of the lake's `events` table. Files of other tables may lie
/// beside them.
#[must_use]
pub fn is_raw(path: &str) -> bool {
    let name = path.strip_prefix(FOLDER).and_then(|name| name.strip_suffix(".parquet"));
    name.is_some_and(|name| {
        name == "events" || ["events-", "events/", "records-"].iter().any(|start| name.starts_with(start))
    })
}

/// One row of a Parquet file of records.
#[derive(Debug)]
pub struct RawRow {
    /// Row of the file, from 1.
    pub number: u64,
    /// Where its record stands, as the row says.
    pub position: Position,
    /// The leaf's hash, as the row says; rows of the lake say none.
    pub leaf_hash: Option<Hash>,
    /// The leaf, written again from its parts; `None` if the row has no parts, as one for a further event of a record.
    pub leaf: Option<Vec<u8>>,
    /// The record was redacted: when and by whom. Its leaf hash is all there is.
    pub redacted: Option<String>,
}

/// Reads a Parquet file of records row by row. What the rows say is not checked here.
///
/// # Errors
/// If the file is no Parquet, lacks a column, or a cell cannot be what it should be.
pub fn read(file: &Bytes, mut each: impl FnMut(RawRow)) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file.clone())?;
    if builder.metadata().file_metadata().num_rows() > ROWS_MAX {
        return Err("the file has more rows than are read".into());
    }
    // Files of earlier versions lack the last.
    let columns = ["partition", "index", "leaf_hash", "envelope", "salt", "body", "redacted"];
    let mask = parquet::arrow::ProjectionMask::columns(builder.parquet_schema(), columns);
    let mut number = 0;
    for batch in builder.with_projection(mask).with_batch_size(BATCH).build()? {
        let batch = batch?;
        let column =
            |name: &str| batch.column_by_name(name).cloned().ok_or_else(|| format!("the file has no column {name:?}"));
        let columns = Columns {
            partition: column("partition")?,
            index: column("index")?,
            leaf_hash: batch.column_by_name("leaf_hash").cloned(),
            envelope: column("envelope")?,
            salt: column("salt")?,
            body: column("body")?,
            redacted: batch.column_by_name("redacted").cloned(),
        };
        for at in 0..batch.num_rows() {
            number += 1;
            each(columns.row(at, number).map_err(|cause| format!("row {number}: {cause}"))?);
        }
    }
    Ok(())
}

struct Columns {
    partition: ArrayRef,
    index: ArrayRef,
    leaf_hash: Option<ArrayRef>,
    envelope: ArrayRef,
    salt: ArrayRef,
    body: ArrayRef,
    redacted: Option<ArrayRef>,
}

impl Columns {
    fn row(&self, at: usize, number: u64) -> Result<RawRow, String> {
        let position = Position {
            partition: whole(&self.partition, at).and_then(|value| value.try_into().ok()).ok_or("no partition")?,
            index: whole(&self.index, at).and_then(|value| value.try_into().ok()).ok_or("no index")?,
        };
        let leaf_hash = self.leaf_hash.as_ref().map(|column| cell(column, at)).transpose()?.flatten();
        let leaf_hash =
            leaf_hash.map(|bytes| <Hash>::try_from(bytes).map_err(|_| "a leaf hash is 32 bytes")).transpose()?;
        let leaf = match (cell(&self.envelope, at)?, cell(&self.salt, at)?, cell(&self.body, at)?) {
            (Some(envelope), Some(salt), Some(body)) => {
                let salt = <[u8; 16]>::try_from(salt).map_err(|_| "a salt is 16 bytes")?;
                Some(encode_parts(envelope, &salt, body).map_err(|cause| cause.to_string())?)
            }
            (_, None, None) => None,
            _ => return Err("envelope, salt and body go together".to_owned()),
        };
        let redacted = self.redacted.as_ref().map(|column| cell(column, at)).transpose()?.flatten();
        let redacted = redacted.map(|text| String::from_utf8_lossy(text).into_owned());
        if redacted.is_some() && (leaf.is_some() || leaf_hash.is_none()) {
            return Err("a redacted record has a leaf hash and no parts".to_owned());
        }
        Ok(RawRow { number, position, leaf_hash, leaf, redacted })
    }
}

fn whole(array: &ArrayRef, at: usize) -> Option<i64> {
    if array.is_null(at) {
        return None;
    }
    match array.data_type() {
        DataType::Int32 => Some(i64::from(array.as_primitive::<Int32Type>().value(at))),
        DataType::Int64 => Some(array.as_primitive::<Int64Type>().value(at)),
        _ => None,
    }
}

/// A cell's bytes; `None` if it is absent.
fn cell(array: &ArrayRef, at: usize) -> Result<Option<&[u8]>, String> {
    if array.is_null(at) {
        return Ok(None);
    }
    Ok(Some(match array.data_type() {
        DataType::Binary => array.as_binary::<i32>().value(at),
        DataType::LargeBinary => array.as_binary::<i64>().value(at),
        DataType::BinaryView => array.as_binary_view().value(at),
        DataType::Utf8 => array.as_string::<i32>().value(at).as_bytes(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(at).as_bytes(),
        DataType::Utf8View => array.as_string_view().value(at).as_bytes(),
        other => return Err(format!("a column has type {other}")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_records_are_told_by_their_names() {
        for (path, expected) in [
            ("60_raw/events.parquet", true),
            ("60_raw/events-2026-02.parquet", true),
            ("60_raw/events/2026/a.parquet", true),
            ("60_raw/records-0-00000.parquet", true),
            ("60_raw/findings.parquet", false),
            ("60_raw/eventsother.parquet", false),
            ("60_raw/events-1.csv", false),
            ("10_controls/CM-06/events.parquet", false),
        ] {
            assert_eq!(is_raw(path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_parquet_is_refused() {
        for bytes in [&b""[..], b"PAR1", b"PAR1\xff\xff\xff\xff\xff\xff\xff\x7fPAR1"] {
            assert!(read(&Bytes::copy_from_slice(bytes), |_| {}).is_err());
        }
    }
}
