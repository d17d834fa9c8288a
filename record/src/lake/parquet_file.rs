//! Writing a batch as one Parquet file in memory.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

/// Rows of one row group: small enough that a reader of bodies up to 1 MiB keeps within memory.
const ROW_GROUP_ROWS: usize = 16_384;
/// Uncompressed bytes of one row group.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Columns whose values are long or random: no dictionary, no statistics.
const OPAQUE: &[&str] = &["envelope", "salt", "body", "leaf_hash", "json", "note"];

/// The batches as one Parquet file (zstd level 3). Equal input gives equal bytes.
///
/// # Errors
/// [`ParquetError`] if a batch does not have that schema.
pub fn parquet_bytes(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_created_by(concat!("pipeproof ", env!("CARGO_PKG_VERSION")).to_owned());
    for name in OPAQUE {
        let column = ColumnPath::from(*name);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties.build()))?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.into_inner()
}
