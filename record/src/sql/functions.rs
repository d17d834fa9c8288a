//! Functions of our own, for questions SQL has no word for: how fast somebody travelled, how random a text is, which of two
//! versions is newer. A missing argument gives a missing answer.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, BinaryArray, Float64Array, Int32Array};
use arrow_schema::{DataType, TimeUnit};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use crate::lake::{cut_columns, whole_body};

/// Mean radius of the Earth in kilometres (IUGG).
const EARTH_KM: f64 = 6_371.008_8;
/// Two times closer than this are taken as this far apart: clocks are not better, and nothing is infinitely fast.
const APART_MIN_SECS: f64 = 1.0;

/// Every function.
pub(super) fn all() -> Vec<ScalarUDF> {
    let (degrees, time, text) = (DataType::Float64, DataType::Timestamp(TimeUnit::Microsecond, None), DataType::Utf8);
    let place = [degrees.clone(), degrees.clone()];
    let moment = [degrees.clone(), degrees.clone(), time];
    vec![
        // geo_km(lat1, lon1, lat2, lon2): great-circle distance in kilometres, of degrees.
        function("geo_km", [place.clone(), place].concat(), DataType::Float64, geo_km),
        // geo_kmh(lat1, lon1, t1, lat2, lon2, t2): the speed one must have travelled at.
        function("geo_kmh", [moment.clone(), moment].concat(), DataType::Float64, geo_kmh),
        // entropy(text): Shannon entropy in bits per character.
        function("entropy", vec![text.clone()], DataType::Float64, entropy),
        // semver_cmp(a, b): -1, 0 or 1 by semver.org 2.0.0; a leading `v` is allowed. NULL if one is no version.
        function("semver_cmp", vec![text.clone(), text], DataType::Int32, semver_cmp),
    ]
}

/// The function that our own views are made with.
pub(super) fn of_views() -> ScalarUDF {
    // whole_body(body, packed, item_at, VALUES): the exact bytes of a record's body; the values are those of the columns it leaves out.
    let values = cut_columns().map(|_| DataType::Utf8);
    let arguments = [DataType::Binary, DataType::Binary, DataType::Int32].into_iter().chain(values).collect();
    function("whole_body", arguments, DataType::Binary, body)
}

fn body(arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef, DataFusionError> {
    let whole = |row: usize| {
        let bytes = |at: usize| {
            let column = arrays.get(at)?.as_binary_opt::<i32>()?;
            column.is_valid(row).then(|| column.value(row))
        };
        let item_at = arrays.get(2)?.as_primitive_opt::<Int32Type>().filter(|column| column.is_valid(row));
        let item_at = item_at.map(|column| column.value(row));
        Some(whole_body(bytes(0)?, bytes(1), item_at, |number| text(arrays, 3 + number, row)))
    };
    Ok(Arc::new((0..rows).map(whole).collect::<BinaryArray>()))
}

type Body = fn(&[ArrayRef], usize) -> Result<ArrayRef, DataFusionError>;

fn function(name: &str, arguments: Vec<DataType>, answer: DataType, body: Body) -> ScalarUDF {
    let run = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let rows = arrays.first().map_or(0, |array| array.len());
        body(&arrays, rows).map(ColumnarValue::Array)
    };
    create_udf(name, arguments, answer, Volatility::Immutable, Arc::new(run))
}

/// The number in a column of degrees.
fn degrees(arrays: &[ArrayRef], at: usize, row: usize) -> Option<f64> {
    let column = arrays.get(at)?.as_primitive_opt::<Float64Type>()?;
    (!column.is_null(row)).then(|| column.value(row)).filter(|value| value.is_finite())
}

fn seconds(arrays: &[ArrayRef], at: usize, row: usize) -> Option<f64> {
    let column = arrays.get(at)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    #[allow(clippy::cast_precision_loss, reason = "microseconds of centuries fit 53 bits")]
    (!column.is_null(row)).then(|| column.value(row) as f64 / 1e6)
}

fn text(arrays: &[ArrayRef], at: usize, row: usize) -> Option<&str> {
    let column = arrays.get(at)?.as_string_opt::<i32>()?;
    (!column.is_null(row)).then(|| column.value(row))
}

/// Great-circle distance by the haversine formula.
fn kilometres(lat1: f64, lon1: f64, lat2: f64, lon2: f64) -> f64 {
    let half = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
    let chord = half(lat2 - lat1) + lat1.to_radians().cos() * lat2.to_radians().cos() * half(lon2 - lon1);
    2.0 * EARTH_KM * chord.clamp(0.0, 1.0).sqrt().asin()
}

fn geo_km(arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef, DataFusionError> {
    let distance = |row| {
        let at = |column| degrees(arrays, column, row);
        Some(kilometres(at(0)?, at(1)?, at(2)?, at(3)?))
    };
    Ok(Arc::new((0..rows).map(distance).collect::<Float64Array>()))
}

fn geo_kmh(arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef, DataFusionError> {
    let speed = |row| {
        let at = |column| degrees(arrays, column, row);
        let apart = (seconds(arrays, 5, row)? - seconds(arrays, 2, row)?).abs().max(APART_MIN_SECS);
        Some(kilometres(at(0)?, at(1)?, at(3)?, at(4)?) * 3_600.0 / apart)
    };
    Ok(Arc::new((0..rows).map(speed).collect::<Float64Array>()))
}

fn entropy(arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef, DataFusionError> {
    let bits = |row| {
        let text = text(arrays, 0, row)?;
        let mut counts: HashMap<char, u32> = HashMap::new();
        text.chars().for_each(|char| *counts.entry(char).or_default() += 1);
        let total: f64 = counts.values().copied().map(f64::from).sum();
        // Summed in one order, so that equal texts give equal bits.
        let mut counts: Vec<u32> = counts.into_values().collect();
        counts.sort_unstable();
        Some(counts.into_iter().map(|count| f64::from(count) / total).map(|share| -share * share.log2()).sum::<f64>())
    };
    Ok(Arc::new((0..rows).map(bits).collect::<Float64Array>()))
}

fn semver_cmp(arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef, DataFusionError> {
    let compared = |row| {
        let (left, right) = (version(text(arrays, 0, row)?)?, version(text(arrays, 1, row)?)?);
        Some(match left.cmp(&right) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        })
    };
    Ok(Arc::new((0..rows).map(compared).collect::<Int32Array>()))
}

/// A semantic version, in the order semver.org 2.0.0 §11 gives them.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Version<'a> {
    numbers: [u64; 3],
    /// A release comes after its pre-releases.
    is_release: bool,
    pre: Vec<Identifier<'a>>,
}

/// Numbers come before words.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Identifier<'a> {
    Number(u64),
    Word(&'a str),
}

fn version(text: &str) -> Option<Version<'_>> {
    let text = text.trim();
    let text = text.strip_prefix('v').unwrap_or(text);
    let without_build = text.split_once('+').map_or(text, |(version, _)| version);
    let (core, pre) = without_build.split_once('-').map_or((without_build, None), |(core, pre)| (core, Some(pre)));
    let mut parts = core.split('.');
    let mut next = || parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok();
    let numbers = [next()?, next()?, next()?];
    if parts.next().is_some() {
        return None;
    }
    let identifier = |part: &'_ str| -> Option<()> {
        (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')).then_some(())
    };
    let mut identifiers = Vec::new();
    for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
        identifier(part)?;
        let number = part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        identifiers.push(number.map_or(Identifier::Word(part), Identifier::Number));
    }
    Some(Version { numbers, is_release: pre.is_none(), pre: identifiers })
}
