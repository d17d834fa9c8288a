//! A table as it goes into a pack: CSV that Excel opens safely, and the totals that tie every copy of it together.
//!
//! It is not a query result (that is the record's business) and knows no control: columns and cells of text, no more.
//!
//! CSV is RFC 4180 (CRLF, header, UTF-8) with a byte order mark, because Excel reads UTF-8 only with one. A cell that a
//! spreadsheet would run as a formula is shown with a leading apostrophe (OWASP, "CSV injection"). Totals are taken over
//! cells as they are shown, so that they can be worked out from the CSV alone.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// UTF-8 byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";
/// Largest number of columns read back from a CSV file: far above what a control has, far below what hurts.
const COLUMNS_MAX: usize = 512;

/// Columns and rows of text, as they are shown. An absent value is an empty cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Column names.
    pub columns: Vec<String>,
    /// Rows, each with one cell per column.
    pub rows: Vec<Vec<String>>,
}

/// What must agree between every copy of one table: CSV, Parquet, and the query run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Number of rows, the header not counted.
    pub rows: u64,
    /// SHA-256, hexadecimal, over the rows in ascending byte order, each as a JSON array of the cells as they are shown
    /// (RFC 8785) and a line feed. Sorting a sheet does not change it; changing, adding or dropping a cell does.
    pub hash_total: String,
}

/// Why bytes are not a table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Not CSV.
    #[error("cannot read a CSV table")]
    Csv(#[source] csv::Error),
    /// Cannot be written.
    #[error("cannot write a table as {form}")]
    Write {
        /// What it was to become.
        form: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row whose number of cells is not the header's.
    #[error("row {row} has {cells} cells where the header has {columns}")]
    Ragged {
        /// Row, from 1, the header not counted.
        row: usize,
        /// Its cells.
        cells: usize,
        /// Columns of the header.
        columns: usize,
    },
    /// More columns than a table of a pack has.
    #[error("a table of {0} columns is wider than {COLUMNS_MAX}")]
    TooWide(usize),
}

impl Table {
    /// An empty table.
    pub fn new<C: Into<String>>(columns: impl IntoIterator<Item = C>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells that a spreadsheet would run are made harmless.
    pub fn push<C: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(|cell| shown(cell.as_ref()).into_owned()).collect());
    }

    /// The table as CSV. Equal tables give equal bytes.
    ///
    /// # Errors
    /// [`TableError::Ragged`] if a row does not have a cell per column.
    pub fn csv(&self) -> Result<Vec<u8>, TableError> {
        self.check()?;
        let mut writer =
            csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).flexible(false).from_writer(BOM.to_vec());
        writer.write_record(&self.columns).map_err(TableError::Csv)?;
        for row in &self.rows {
            writer.write_record(row).map_err(TableError::Csv)?;
        }
        writer.into_inner().map_err(|cause| TableError::Write { form: "csv", source: Box::new(cause.into_error()) })
    }

    /// Reads any CSV with a header; cells stay as they are shown.
    ///
    /// # Errors
    /// [`TableError`] when it is no CSV, or a row is longer or shorter than the header.
    pub fn from_csv(bytes: &[u8]) -> Result<Self, TableError> {
        let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
        let header = reader.headers().map_err(TableError::Csv)?;
        if header.len() > COLUMNS_MAX {
            return Err(TableError::TooWide(header.len()));
        }
        let mut table = Self::new(header.iter());
        for row in reader.records() {
            let row = row.map_err(TableError::Csv)?;
            table.rows.push(row.iter().map(str::to_owned).collect());
        }
        table.check()?;
        Ok(table)
    }

    /// Its totals.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut rows: Vec<String> = self.rows.iter().map(|row| canonical(row)).collect();
        rows.sort_unstable();
        let mut hash = Sha256::new();
        for row in rows {
            hash.update(row.as_bytes());
            hash.update(b"\n");
        }
        Totals { rows: self.rows.len() as u64, hash_total: hex::encode(hash.finalize()) }
    }

    /// The sum modulo 2^256 of the SHA-256 of every row in the form of [`Totals::hash_total`], big-endian and hexadecimal:
    /// it can be worked out without sorting.
    #[must_use]
    pub fn multiset_hash(&self) -> String {
        let mut sum = [0_u8; 32];
        for row in &self.rows {
            let mut carry = 0_u16;
            for (total, byte) in sum.iter_mut().zip(Sha256::digest(canonical(row))).rev() {
                let [high, low] = (u16::from(*total) + u16::from(byte) + carry).to_be_bytes();
                (*total, carry) = (low, u16::from(high));
            }
        }
        hex::encode(sum)
    }

    fn check(&self) -> Result<(), TableError> {
        let columns = self.columns.len();
        match self.rows.iter().enumerate().find(|(_, row)| row.len() != columns) {
            Some((at, row)) => Err(TableError::Ragged { row: at + 1, cells: row.len(), columns }),
            None => Ok(()),
        }
    }
}

/// A row as a JSON array of strings in RFC 8785 form: no white space, and only the escapes that JSON demands, which
/// is what `serde_json` writes for strings.
fn canonical(cells: &[String]) -> String {
    serde_json::Value::from_iter(cells.iter().map(|cell| cell.as_str())).to_string()
}

/// The cell as it may stand in a spreadsheet. What is shown already stays as it is.
fn shown(cell: &str) -> std::borrow::Cow<'_, str> {
    const STARTS: [char; 10] = ['=', '+', '-', '@', '\t', '\r', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];
    let formula = cell.trim_start_matches([' ', '\n', '\u{a0}']).starts_with(STARTS);
    if formula && !is_number(cell) { format!("'{cell}").into() } else { cell.into() }
}

/// A plain negative number is no formula, and stays a number.
fn is_number(cell: &str) -> bool {
    cell.strip_prefix('-').is_some_and(|digits| {
        digits.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
            && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formulas_are_shown_as_text() {
        for (cell, written) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-2", "-2"),
            ("-2.5", "-2.5"),
            ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"),
            ("@SUM(A1)", "'@SUM(A1)"),
            (" =1", "' =1"),
            ("\u{ff1d}1", "'\u{ff1d}1"),
            ("'quoted", "'quoted"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(shown(cell), written);
            assert_eq!(shown(written), written, "shown twice");
        }
    }

    #[test]
    fn excel_finds_a_byte_order_mark_and_crlf() {
        let mut table = Table::new(["a", "b"]);
        table.push(["1", "x,\"y\""]);
        assert_eq!(table.csv().unwrap(), b"\xef\xbb\xbfa,b\r\n1,\"x,\"\"y\"\"\"\r\n");
    }

    #[test]
    fn totals_ignore_order_and_see_every_cell() {
        let mut table = Table::new(["a"]);
        table.push(["1"]);
        table.push(["2"]);
        let mut sorted = table.clone();
        sorted.rows.reverse();
        assert_eq!(table.totals(), sorted.totals());
        let mut changed = table.clone();
        changed.rows[1][0] = "3".to_owned();
        assert_ne!(table.totals().hash_total, changed.totals().hash_total);
        assert_eq!(table.totals().hash_total, hex::encode(Sha256::digest(b"[\"1\"]\n[\"2\"]\n")));
    }

    #[test]
    fn ragged_rows_are_refused_both_ways() {
        let mut table = Table::new(["a", "b"]);
        table.push(["1"]);
        assert!(matches!(table.csv(), Err(TableError::Ragged { row: 1, cells: 1, columns: 2 })));
        assert!(matches!(Table::from_csv(b"a,b\r\n1\r\n"), Err(TableError::Ragged { .. })));
    }

    proptest! {
        #[test]
        fn any_table_survives_csv(rows in prop::collection::vec(prop::collection::vec("\\PC{0,12}|[=+@'\\t\\r\\n-].{0,4}", 3), 0..8)) {
            let mut table = Table::new(["x", "y", "z"]);
            for row in &rows {
                table.push(row);
            }
            let back = Table::from_csv(&table.csv().unwrap()).unwrap();
            prop_assert_eq!(back.totals(), table.totals());
            prop_assert_eq!(back, table);
        }

        #[test]
        fn reading_hostile_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _outcome = Table::from_csv(&bytes);
        }
    }
}
