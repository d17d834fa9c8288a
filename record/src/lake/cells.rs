//! Columns of values as Arrow arrays, in the types the lake's tables have.

use std::sync::Arc;

use arrow_array::{ArrayRef, Date32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use engine::time::Timestamp;
use pipeproof_engine as engine;

const DAY: i64 = 86_400_000_000;

/// The UTC day a time falls into, as days since 1970-01-01.
pub(super) fn day(time: Timestamp) -> i32 {
    i32::try_from(time.as_micros().div_euclid(DAY)).unwrap_or(i32::MAX)
}

pub(super) fn dates(values: impl Iterator<Item = Timestamp>) -> ArrayRef {
    Arc::new(Date32Array::from_iter_values(values.map(day)))
}

pub(super) fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub(super) fn maybe_texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

/// Indexes and counts; they stay below 2^63.
pub(super) fn numbers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(values.map(|value| i64::try_from(value).ok()).collect::<Int64Array>())
}

pub(super) fn times(values: impl Iterator<Item = Option<Timestamp>>) -> ArrayRef {
    let micros = values.map(|time| time.map(Timestamp::as_micros));
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}
