//! Rows as an auditor gets them: typed cells, CSV that a spreadsheet opens without harm, Parquet beside it, and hashes
//! that tie a re-sorted copy out.
//!
//! CSV: UTF-8 with byte order mark, CRLF, text always in quotes, absent values empty and unquoted, times as RFC 3339 in
//! UTC; text that a spreadsheet would run as a formula starts with an apostrophe.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use pipeproof_engine::time::Timestamp;
use sha2::{Digest as _, Sha256};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Whole numbers.
    Int,
    /// Other numbers.
    Float,
    /// True or false.
    Bool,
    /// Points in time.
    Time,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Absent.
    Null,
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A point in time.
    Time(Timestamp),
}

impl Cell {
    /// The value as text, exactly as CSV shows it apart from quotes; an absent one is empty.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Text(text) => harmless(text),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Bool(truth) => truth.to_string(),
            Self::Time(time) => time.to_string(),
        }
    }
}

/// Puts an apostrophe before text that a spreadsheet would take for a formula (OWASP, "CSV Injection").
fn harmless(text: &str) -> String {
    const STARTS: [char; 10] = ['=', '+', '-', '@', '\t', '\r', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];
    let formula = text.trim_start_matches([' ', '\n', '\u{a0}']).starts_with(STARTS);
    if formula && !is_number(text) { format!("'{text}") } else { text.to_owned() }
}

/// A plain negative number is no formula.
fn is_number(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|digits| {
        digits.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
            && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    })
}

/// Why rows cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A column of a type that sheets do not hold.
    #[error("column `{column}` has type {found}, which a sheet cannot hold; cast it in the query")]
    Type {
        /// The column.
        column: String,
        /// Its type.
        found: String,
    },
    /// A row has fewer or more cells than there are columns, or of another kind.
    #[error("column `{0}` holds a value of another kind")]
    Mixed(String),
    /// Parquet.
    #[error("cannot write Parquet")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Arrow.
    #[error("cannot build an Arrow batch")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// JSON.
    #[error("cannot write JSON")]
    Json(#[source] serde_json::Error),
}

/// Rows of named, typed columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Names and kinds.
    pub columns: Vec<(String, Kind)>,
    /// One cell per column.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// The number of the column of that name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(column, _)| column == name)
    }

    /// A row's cell in the column of that name.
    #[must_use]
    pub fn get<'a>(&self, row: &'a [Cell], name: &str) -> Option<&'a Cell> {
        row.get(self.column(name)?)
    }

    /// Reads Arrow batches of one schema.
    ///
    /// # Errors
    /// [`TableError::Type`] for a type that a sheet does not hold.
    pub fn from_batches(schema: &Schema, batches: &[RecordBatch]) -> Result<Self, TableError> {
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let kind = kind_of(field.data_type()).ok_or_else(|| TableError::Type {
                column: field.name().clone(),
                found: field.data_type().to_string(),
            })?;
            columns.push((field.name().clone(), kind));
        }
        let mut rows = Vec::new();
        for batch in batches {
            let cells: Result<Vec<Vec<Cell>>, _> =
                batch.columns().iter().zip(&columns).map(|(array, (name, _))| read_column(name, array)).collect();
            let mut cells: Vec<_> = cells?.into_iter().map(Vec::into_iter).collect();
            for _ in 0..batch.num_rows() {
                rows.push(cells.iter_mut().map(|column| column.next().unwrap_or(Cell::Null)).collect());
            }
        }
        Ok(Self { columns, rows })
    }

    /// Sorts rows by these columns and then by all, so that equal rows give equal files.
    pub fn sort_by_columns(&mut self, first: &[&str]) {
        let order: Vec<usize> = first.iter().filter_map(|name| self.column(name)).collect();
        self.rows.sort_by_cached_key(|row| {
            let key: Vec<String> = order.iter().filter_map(|&at| row.get(at)).map(sort_key).collect();
            (key, canonical(row))
        });
    }

    /// The CSV file.
    #[must_use]
    pub fn to_csv(&self) -> Vec<u8> {
        let mut text = String::from("\u{feff}");
        let names: Vec<String> = self.columns.iter().map(|(name, _)| quoted(name)).collect();
        text.push_str(&names.join(","));
        text.push_str("\r\n");
        for row in &self.rows {
            let cells: Vec<String> = row
                .iter()
                .map(|cell| match cell {
                    Cell::Text(_) => quoted(&cell.text()),
                    other => other.text(),
                })
                .collect();
            text.push_str(&cells.join(","));
            text.push_str("\r\n");
        }
        text.into_bytes()
    }

    /// The Parquet file: the same rows, text as it is (no apostrophes), times in microseconds UTC.
    ///
    /// # Errors
    /// [`TableError`] if a row does not fit its columns or the file cannot be written.
    pub fn to_parquet(&self) -> Result<Vec<u8>, TableError> {
        let fields: Vec<Field> =
            self.columns.iter().map(|(name, kind)| Field::new(name, arrow_type(*kind), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let arrays: Result<Vec<ArrayRef>, TableError> = (0..self.columns.len()).map(|at| self.array(at)).collect();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_created_by("pipeproof".to_owned())
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
        if !self.columns.is_empty() {
            writer.write(&RecordBatch::try_new(schema, arrays?)?)?;
        }
        Ok(writer.into_inner()?)
    }

    fn array(&self, at: usize) -> Result<ArrayRef, TableError> {
        let (name, kind) = self.columns.get(at).cloned().unwrap_or((String::new(), Kind::Text));
        let cells = self.rows.iter().map(|row| row.get(at).unwrap_or(&Cell::Null));
        macro_rules! array {
            ($array:ty, $variant:ident, $take:expr) => {{
                let values: Option<Vec<Option<_>>> = cells
                    .map(|cell| match cell {
                        Cell::Null => Some(None),
                        Cell::$variant(value) => Some(Some($take(value))),
                        _ => None,
                    })
                    .collect();
                values.map(|values| Arc::new(<$array>::from_iter(values)) as ArrayRef)
            }};
        }
        let array = match kind {
            Kind::Text => array!(StringArray, Text, String::as_str),
            Kind::Int => array!(Int64Array, Int, |value: &i64| *value),
            Kind::Float => array!(Float64Array, Float, |value: &f64| *value),
            Kind::Bool => array!(BooleanArray, Bool, |value: &bool| *value),
            Kind::Time => array!(TimestampMicrosecondArray, Time, |value: &Timestamp| value.as_micros()).map(|array| {
                Arc::new(array.as_primitive::<TimestampMicrosecondType>().clone().with_timezone("UTC")) as ArrayRef
            }),
        };
        array.ok_or(TableError::Mixed(name))
    }

    /// SHA-256 over the canonical rows in the order of their bytes, each followed by a line feed.
    ///
    /// A canonical row is the compact JSON array of the cells' text as the CSV shows it, so the hash can be recomputed
    /// from the CSV in whatever order its rows are.
    #[must_use]
    pub fn hash_total(&self) -> String {
        let mut rows: Vec<String> = self.rows.iter().map(|row| canonical(row)).collect();
        rows.sort_unstable();
        let mut hash = Sha256::new();
        for row in rows {
            hash.update(row);
            hash.update(b"\n");
        }
        hex::encode(hash.finalize())
    }

    /// The sum modulo 2^256 of the SHA-256 (big-endian) of every canonical row: independent of the order without sorting.
    #[must_use]
    pub fn multiset_hash(&self) -> String {
        let mut sum = [0_u8; 32];
        for row in &self.rows {
            let hash: [u8; 32] = Sha256::digest(canonical(row)).into();
            let mut carry = 0_u16;
            for (total, byte) in sum.iter_mut().zip(hash).rev() {
                let added = u16::from(*total) + u16::from(byte) + carry;
                *total = added.to_be_bytes()[1];
                carry = added >> 8;
            }
        }
        hex::encode(sum)
    }
}

/// The compact JSON array of a row's cells as text.
fn canonical(row: &[Cell]) -> String {
    serde_json::Value::Array(row.iter().map(|cell| serde_json::Value::String(cell.text())).collect()).to_string()
}

/// Text that sorts as the cell does: numbers and times by value, absent ones first.
fn sort_key(cell: &Cell) -> String {
    let number = |number: i64| format!("{:020}", i128::from(number) - i128::from(i64::MIN));
    match cell {
        Cell::Null => String::new(),
        Cell::Int(value) => number(*value),
        Cell::Time(time) => number(time.as_micros()),
        other => other.text(),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn arrow_type(kind: Kind) -> DataType {
    match kind {
        Kind::Text => DataType::Utf8,
        Kind::Int => DataType::Int64,
        Kind::Float => DataType::Float64,
        Kind::Bool => DataType::Boolean,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}

fn kind_of(data_type: &DataType) -> Option<Kind> {
    Some(match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Kind::Text,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Kind::Int,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Kind::Int,
        DataType::Float32 | DataType::Float64 => Kind::Float,
        DataType::Boolean => Kind::Bool,
        DataType::Timestamp(_, _) => Kind::Time,
        _ => return None,
    })
}

fn read_column(name: &str, array: &ArrayRef) -> Result<Vec<Cell>, TableError> {
    macro_rules! cells {
        ($array:expr, $cell:expr) => {
            $array.iter().map(|value| value.map_or(Cell::Null, $cell)).collect()
        };
    }
    let text = |text: &str| Cell::Text(text.to_owned());
    Ok(match array.data_type() {
        DataType::Null => vec![Cell::Null; array.len()],
        DataType::Utf8 => cells!(array.as_string::<i32>(), text),
        DataType::LargeUtf8 => cells!(array.as_string::<i64>(), text),
        DataType::Utf8View => cells!(array.as_string_view(), text),
        DataType::Int8 => cells!(array.as_primitive::<Int8Type>(), |value| Cell::Int(value.into())),
        DataType::Int16 => cells!(array.as_primitive::<Int16Type>(), |value| Cell::Int(value.into())),
        DataType::Int32 => cells!(array.as_primitive::<Int32Type>(), |value| Cell::Int(value.into())),
        DataType::Int64 => cells!(array.as_primitive::<Int64Type>(), Cell::Int),
        DataType::UInt8 => cells!(array.as_primitive::<UInt8Type>(), |value| Cell::Int(value.into())),
        DataType::UInt16 => cells!(array.as_primitive::<UInt16Type>(), |value| Cell::Int(value.into())),
        DataType::UInt32 => cells!(array.as_primitive::<UInt32Type>(), |value| Cell::Int(value.into())),
        DataType::UInt64 => {
            let cells: Result<Vec<_>, _> = array
                .as_primitive::<UInt64Type>()
                .iter()
                .map(|value| value.map_or(Ok(Cell::Null), |value| i64::try_from(value).map(Cell::Int)))
                .collect();
            cells.map_err(|_| TableError::Type { column: name.to_owned(), found: "UInt64 above 2^63-1".to_owned() })?
        }
        DataType::Float32 => cells!(array.as_primitive::<Float32Type>(), |value| Cell::Float(value.into())),
        DataType::Float64 => cells!(array.as_primitive::<Float64Type>(), Cell::Float),
        DataType::Boolean => cells!(array.as_boolean(), Cell::Bool),
        DataType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => {
                cells!(array.as_primitive::<TimestampSecondType>(), |value| Cell::Time(Timestamp::from_secs(value)))
            }
            TimeUnit::Millisecond => {
                cells!(array.as_primitive::<TimestampMillisecondType>(), |value| Cell::Time(Timestamp::from_millis(
                    value
                )))
            }
            TimeUnit::Microsecond => {
                cells!(array.as_primitive::<TimestampMicrosecondType>(), |value| Cell::Time(Timestamp::from_micros(
                    value
                )))
            }
            TimeUnit::Nanosecond => cells!(array.as_primitive::<TimestampNanosecondType>(), |value| {
                Cell::Time(Timestamp::from_micros(value.div_euclid(1_000)))
            }),
        },
        other => return Err(TableError::Type { column: name.to_owned(), found: other.to_string() }),
    })
}

#[cfg(test)]
mod tests {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use proptest::prelude::*;

    use super::*;

    fn table() -> Table {
        let columns =
            [("id", Kind::Text), ("n", Kind::Int), ("at", Kind::Time), ("ok", Kind::Bool), ("x", Kind::Float)];
        let columns = columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec();
        let row = |id: &str, number: i64| {
            vec![
                Cell::Text(id.to_owned()),
                Cell::Int(number),
                Cell::Time(Timestamp::from_secs(number)),
                Cell::Bool(true),
                Cell::Null,
            ]
        };
        Table { columns, rows: vec![row("b", -2), row("=1+1", 10), row("a \"q\",\nline", 9)] }
    }

    #[test]
    fn csv_is_safe_to_open_and_exact() {
        let csv = String::from_utf8(table().to_csv()).unwrap();
        let expected = "\u{feff}\"id\",\"n\",\"at\",\"ok\",\"x\"\r\n\
                        \"b\",-2,1969-12-31T23:59:58Z,true,\r\n\
                        \"'=1+1\",10,1970-01-01T00:00:10Z,true,\r\n\
                        \"a \"\"q\"\",\nline\",9,1970-01-01T00:00:09Z,true,\r\n";
        assert_eq!(csv, expected);
        for (text, safe) in [
            ("@SUM(1)", "'@SUM(1)"),
            ("-2+3", "'-2+3"),
            ("-2.5", "-2.5"),
            ("\tx", "'\tx"),
            ("  =x", "'  =x"),
            ("＝x", "'＝x"),
            ("a=b", "a=b"),
            ("9007199254740993", "9007199254740993"),
        ] {
            assert_eq!(Cell::Text(text.to_owned()).text(), safe);
        }
    }

    #[test]
    fn sorting_is_by_value_and_total() {
        let mut sorted = table();
        sorted.sort_by_columns(&["n"]);
        let numbers: Vec<_> = sorted.rows.iter().map(|row| row[1].text()).collect();
        assert_eq!(numbers, ["-2", "9", "10"]);
    }

    #[test]
    fn parquet_reads_back_and_is_the_same_each_time() {
        let table = table();
        let bytes = table.to_parquet().unwrap();
        assert_eq!(bytes, table.to_parquet().unwrap());
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
        let batches: Vec<_> = reader.map(Result::unwrap).collect();
        assert_eq!(Table::from_batches(&batches[0].schema(), &batches).unwrap(), table);
        let empty = Table { columns: table.columns.clone(), rows: Vec::new() };
        assert!(ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(empty.to_parquet().unwrap())).is_ok());
    }

    #[test]
    fn a_cell_of_another_kind_is_an_error() {
        let mut wrong = table();
        wrong.rows[0][1] = Cell::Text("two".to_owned());
        assert!(matches!(wrong.to_parquet(), Err(TableError::Mixed(column)) if column == "n"));
    }

    proptest! {
        #[test]
        fn hashes_tie_out_from_the_csv_in_any_order(
            cells in prop::collection::vec(("\\PC{0,20}|[=+@\"\n,-]{0,5}", any::<i64>()), 0..20), turn in any::<usize>()
        ) {
            let columns = vec![("a".to_owned(), Kind::Text), ("b".to_owned(), Kind::Int)];
            let rows: Vec<_> = cells.iter().map(|(text, number)| vec![Cell::Text(text.clone()), Cell::Int(*number)]).collect();
            let table = Table { columns: columns.clone(), rows: rows.clone() };
            let mut turned = rows;
            if !turned.is_empty() {
                let by = turn % turned.len();
                turned.rotate_left(by);
            }
            let turned = Table { columns: columns.clone(), rows: turned };
            prop_assert_eq!(table.hash_total(), turned.hash_total());
            prop_assert_eq!(table.multiset_hash(), turned.multiset_hash());
            // A reader of the CSV alone gets the same hashes.
            let csv = turned.to_csv();
            let mut reader = csv::Reader::from_reader(csv.strip_prefix("\u{feff}".as_bytes()).unwrap());
            let read: Vec<_> = reader.records()
                .map(|record| record.unwrap().iter().map(|cell| Cell::Text(cell.to_owned())).collect::<Vec<_>>())
                .collect();
            let mut lines: Vec<_> = read.iter().map(|row| {
                let cells: Vec<String> = row.iter().map(|cell| match cell { Cell::Text(text) => text.clone(), _ => String::new() }).collect();
                serde_json::to_string(&cells).unwrap()
            }).collect();
            lines.sort_unstable();
            let joined: String = lines.iter().map(|line| format!("{line}\n")).collect();
            prop_assert_eq!(hex::encode(Sha256::digest(joined)), table.hash_total());
        }
    }
}
