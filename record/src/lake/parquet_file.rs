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
    let mut file = ParquetFile::new(schema)?;
    for batch in batches {
        file.write(batch)?;
    }
    file.finish()
}

/// A Parquet file that is being written in memory.
pub(super) struct ParquetFile(ArrowWriter<Vec<u8>>);

impl ParquetFile {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, ParquetError> {
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties()?))?;
        Ok(Self(writer))
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        self.0.write(batch)
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, ParquetError> {
        self.0.into_inner()
    }
}

fn properties() -> Result<WriterProperties, ParquetError> {
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
    Ok(properties.build())
}
