//! The rows of an answer, as Arrow and as JSON.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::Serialize;
use serde_json::Value;

use super::SqlError;

/// The answer to a query.
#[derive(Clone, Debug)]
pub struct Answer {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

/// The answer to a query as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct JsonRows {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows: numbers, booleans and texts; times as RFC 3339 in UTC, bytes as hexadecimal.
    pub rows: Vec<Vec<Value>>,
    /// Whether rows beyond the limit were left out.
    pub truncated: bool,
}

impl Answer {
    pub(super) const fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self { schema, batches }
    }

    /// Its columns; known also when there is no row.
    #[must_use]
    pub const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Its rows.
    #[must_use]
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// How many rows it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As JSON.
    ///
    /// # Errors
    /// [`SqlError::Failed`] for a value of a type that has no text form.
    pub fn json(&self) -> Result<JsonRows, SqlError> {
        let columns = self.schema.fields().iter().map(|column| column.name().clone()).collect();
        let mut rows = Vec::with_capacity(self.len());
        for batch in &self.batches {
            for row in 0..batch.num_rows() {
                rows.push(batch.columns().iter().map(|column| cell(column, row)).collect::<Result<_, _>>()?);
            }
        }
        Ok(JsonRows { columns, rows, truncated: false })
    }
}

/// One value as JSON.
fn cell(column: &dyn Array, row: usize) -> Result<Value, SqlError> {
    macro_rules! number {
        ($kind:ty) => {
            column.as_primitive::<$kind>().value(row).into()
        };
    }
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => number!(Float32Type),
        DataType::Float64 => number!(Float64Type),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).into(),
        DataType::Utf8View => column.as_string_view().value(row).into(),
        DataType::Binary => hex::encode(column.as_binary::<i32>().value(row)).into(),
        DataType::LargeBinary => hex::encode(column.as_binary::<i64>().value(row)).into(),
        DataType::BinaryView => hex::encode(column.as_binary_view().value(row)).into(),
        DataType::Date32 => {
            let days = i64::from(column.as_primitive::<Date32Type>().value(row));
            Timestamp::from_secs(days.saturating_mul(86_400)).date().into()
        }
        DataType::Timestamp(unit, _) => {
            let micros = match unit {
                TimeUnit::Second => column.as_primitive::<TimestampSecondType>().value(row).saturating_mul(1_000_000),
                TimeUnit::Millisecond => {
                    column.as_primitive::<TimestampMillisecondType>().value(row).saturating_mul(1_000)
                }
                TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().value(row),
                TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000),
            };
            Timestamp::from_micros(micros).to_string().into()
        }
        _ => {
            let failed = |error: arrow_schema::ArrowError| SqlError::Failed { source: Box::new(error.into()) };
            let format = ArrayFormatter::try_new(column, &FormatOptions::default()).map_err(failed)?;
            format.value(row).try_to_string().map_err(failed)?.into()
        }
    })
}
