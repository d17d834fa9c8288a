//! The records behind a pack as Parquet: what the exact leaf was made of, so that anyone can hash it again.
//!
//! | column | |
//! |---|---|
//! | `partition`, `record_index` | position in the log; the index is the leaf's in the partition's tree |
//! | `received`, `source`, `source_type`, `item` | from the envelope, for queries |
//! | `envelope`, `salt`, `body` | the leaf's parts, byte for byte |
//! | `leaf_hash` | SHA-256 over `0x00 ‖ leaf`, hexadecimal |

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use pipeproof_engine::merkle::leaf_hash;
use pipeproof_engine::record::{Envelope, LeafParts};

use crate::pack::table::Table;
use crate::pack::{PackError, PackFile, RawRecord};

/// Folder of the records below `data/`.
pub const FOLDER: &str = "60_raw";
/// Columns that the verifier needs.
pub const PARTITION: &str = "partition";
/// See [`PARTITION`].
pub const INDEX: &str = "record_index";
/// See [`PARTITION`].
pub const ENVELOPE: &str = "envelope";
/// See [`PARTITION`].
pub const SALT: &str = "salt";
/// See [`PARTITION`].
pub const BODY: &str = "body";
/// See [`PARTITION`].
pub const LEAF_HASH: &str = "leaf_hash";
/// Rows in one file: a spreadsheet tool that opens Parquet still opens it.
const ROWS: usize = 20_000;

struct Row {
    index: i64,
    envelope_text: String,
    envelope: Envelope,
    salt: [u8; 16],
    body: bytes::Bytes,
    leaf_hash: String,
}

/// The Parquet files of the records, and the table of what was redacted from them. Order and repetition of the records
/// make no difference.
///
/// # Errors
/// [`PackError::Record`] for bytes that are no record, [`PackError::Parquet`].
pub fn files(records: &[RawRecord]) -> Result<Vec<PackFile>, PackError> {
    let mut partitions: BTreeMap<u32, BTreeMap<u64, Row>> = BTreeMap::new();
    for record in records {
        let row = row(record)?;
        partitions.entry(record.position.partition).or_default().insert(record.position.index, row);
    }
    let mut files = Vec::new();
    let mut redactions: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for (partition, rows) in partitions {
        let rows: Vec<Row> = rows.into_values().collect();
        for redacted in rows.iter().flat_map(|row| row.envelope.redacted.iter().map(move |what| (row, what))) {
            let (row, what) = redacted;
            let sum = redactions.entry((row.envelope.source.clone(), what.family.clone())).or_default();
            *sum = (sum.0 + 1, sum.1 + u64::from(what.count));
        }
        for (number, chunk) in rows.chunks(ROWS).enumerate() {
            files.push(PackFile::new(
                format!("{FOLDER}/records-{partition}-{number:05}.parquet"),
                parquet(partition, chunk)?,
                "records of the log as they were hashed: envelope, salt, body, leaf hash",
            ));
        }
    }
    let mut table = Table::new(["source", "family", "records", "secrets", "method"]);
    for ((source, family), (records, secrets)) in redactions {
        table.push([
            source,
            family,
            records.to_string(),
            secrets.to_string(),
            "replaced by a keyed fingerprint before the record was hashed".to_owned(),
        ]);
    }
    let path = "90_custody/redactions.csv";
    let bytes = table.csv().map_err(|source| PackError::Table { path: path.to_owned(), source })?;
    files.push(PackFile::new(path, bytes, "secrets redacted from the records of this pack, by source and family"));
    Ok(files)
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
        leaf_hash: hex::encode(leaf_hash(&record.leaf)),
    })
}

fn parquet(partition: u32, rows: &[Row]) -> Result<Vec<u8>, PackError> {
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| PackError::Parquet(cause);
    let text = |of: fn(&Row) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
    let received = rows.iter().map(|row| row.envelope.received.as_micros());
    let columns: Vec<(&str, ArrayRef)> = vec![
        (PARTITION, Arc::new(Int64Array::from_iter_values(rows.iter().map(|_| i64::from(partition))))),
        (INDEX, Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.index)))),
        ("received", Arc::new(TimestampMicrosecondArray::from_iter_values(received).with_timezone("UTC"))),
        ("source", text(|row| &row.envelope.source)),
        ("source_type", text(|row| row.envelope.source_type.name())),
        ("item", text(|row| &row.envelope.item)),
        (ENVELOPE, text(|row| &row.envelope_text)),
        (SALT, Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| row.salt)))),
        (BODY, Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| &row.body)))),
        (LEAF_HASH, text(|row| &row.leaf_hash)),
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
