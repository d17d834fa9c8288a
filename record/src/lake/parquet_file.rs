//! Writing a batch as one Parquet file in memory, and reading files within bounded memory.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

/// Rows of one row group at most.
const ROW_GROUP_ROWS: usize = 16_384;
/// Uncompressed bytes of one row group.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Uncompressed bytes of rows that are read at once, about.
const BATCH_BYTES: i64 = 16 << 20;
/// Rows that are read at once at most.
const BATCH_ROWS: usize = 1_024;
/// Uncompressed bytes of one page: what is compressed at once.
const PAGE_BYTES: usize = 8 << 20;
/// Columns whose values are long or random: no dictionary.
const OPAQUE: &[&str] = &["envelope", "salt", "body", "packed", "leaf_hash", "json", "note"];
/// Columns whose values are all different: no dictionary.
const NAMES: &[&str] = &["event_id", "item", "finding_id"];
/// Share of row groups that are read for an item they do not have.
const FALSE_HITS: f64 = 1e-4;

/// How hard a file is compressed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Effort {
    /// It will soon be merged: zstd level 3.
    Fresh,
    /// It is kept for years and was merged once in the background: zstd level 12.
    Kept,
}

impl Effort {
    const fn level(self) -> i32 {
        match self {
            Self::Fresh => 3,
            Self::Kept => 12,
        }
    }
}

/// The batches as one Parquet file (zstd level 3). Equal input gives equal bytes.
///
/// # Errors
/// [`ParquetError`] if a batch does not have that schema.
pub fn parquet_bytes(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, ParquetError> {
    let mut file = ParquetFile::new(schema, Effort::Fresh)?;
    for batch in batches {
        file.write(batch)?;
    }
    file.finish()
}

/// A Parquet file that is being written in memory.
pub(super) struct ParquetFile(ArrowWriter<Vec<u8>>);

impl ParquetFile {
    pub(super) fn new(schema: &SchemaRef, effort: Effort) -> Result<Self, ParquetError> {
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties(effort)?))?;
        Ok(Self(writer))
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        self.0.write(batch)
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, ParquetError> {
        self.0.into_inner()
    }
}

/// The rows of a file, a batch at a time: fewer in a batch where rows are large, since one may hold a document of 16 MiB.
pub(super) fn batches(path: &Path) -> Result<ParquetRecordBatchReader, ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let rows = batch_rows(builder.metadata());
    builder.with_batch_size(rows).build()
}

/// How many rows of a file make a batch of about [`BATCH_BYTES`], by its largest row group.
pub(super) fn batch_rows(metadata: &ParquetMetaData) -> usize {
    let of_group = |group: &RowGroupMetaData| {
        let per_row = group.total_byte_size() / group.num_rows().max(1);
        usize::try_from(BATCH_BYTES / per_row.max(1)).unwrap_or(BATCH_ROWS)
    };
    metadata.row_groups().iter().map(of_group).min().unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS)
}

fn properties(effort: Effort) -> Result<WriterProperties, ParquetError> {
    let item = ColumnPath::from("item");
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(effort.level())?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_data_page_row_count_limit(ROW_GROUP_ROWS)
        // A column of a row group is one page: statistics of pages would say the same again.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_column_bloom_filter_enabled(item.clone(), true)
        .set_column_bloom_filter_fpp(item.clone(), FALSE_HITS)
        .set_column_bloom_filter_max_ndv(item, ROW_GROUP_ROWS as u64)
        .set_created_by(concat!("pipeproof ", env!("CARGO_PKG_VERSION")).to_owned());
    for name in OPAQUE.iter().chain(NAMES) {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(*name), false);
    }
    // The least and the largest of hashes tell nothing.
    for name in OPAQUE.iter().chain(&["item"]) {
        properties = properties.set_column_statistics_enabled(ColumnPath::from(*name), EnabledStatistics::None);
    }
    for name in ["envelope", "body", "packed", "leaf_hash", "json"] {
        // Lengths apart from texts: both compress better.
        properties = properties.set_column_encoding(ColumnPath::from(name), Encoding::DELTA_LENGTH_BYTE_ARRAY);
    }
    // Each begins as the one before.
    properties = properties.set_column_encoding(ColumnPath::from("event_id"), Encoding::DELTA_BYTE_ARRAY);
    for name in ["index", "seq", "received", "time", "item_at"] {
        let column = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}
