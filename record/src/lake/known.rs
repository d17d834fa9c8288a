//! Which items the lake has already: history that is loaded again is recognised at any age.
//!
//! Detection remembers items for some days. What is older is looked up here: the files of the source's earlier days, in each of
//! their row groups the Bloom filter of the item column, and where that says maybe, the column itself. Memory is bounded by the items
//! asked for and one row group's items.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use engine::time::Timestamp;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use pipeproof_engine as engine;

use super::columns::Table;
use super::delta::folder_name;
use super::{LakeError, Snapshot};

/// Rows read at once.
const ROWS: usize = 4_096;

impl Snapshot {
    /// The first record of each of these items of a source that was received on the day of `until` or before. Blocks.
    ///
    /// # Errors
    /// [`LakeError::Read`] for a file that cannot be read: what is in it is not known.
    pub fn known_items(
        &self,
        source: &str,
        until: Timestamp,
        items: &HashSet<String>,
    ) -> Result<HashMap<String, u64>, LakeError> {
        let mut known = HashMap::new();
        if items.is_empty() {
            return Ok(known);
        }
        let (folder, last) = (folder_name(source), until.date());
        for path in self.files(Table::Events) {
            if is_of(path, &folder, &last) {
                look_up(path, items, &mut known).map_err(|source| LakeError::Read { path: path.clone(), source })?;
            }
        }
        Ok(known)
    }
}

/// Files lie under `DATE/SOURCE/`.
fn is_of(path: &Path, source: &str, last: &str) -> bool {
    let name = |path: Option<&Path>| path.and_then(Path::file_name).and_then(|name| name.to_str()).map(str::to_owned);
    let folder = path.parent();
    name(folder).is_some_and(|name| name == source)
        && name(folder.and_then(Path::parent)).is_some_and(|date| date.as_str() <= last)
}

fn look_up(path: &Path, items: &HashSet<String>, known: &mut HashMap<String, u64>) -> Result<(), ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let schema = builder.parquet_schema();
    let Some(column) = schema.columns().iter().position(|column| column.name() == "item") else { return Ok(()) };
    let mask = ProjectionMask::columns(schema, ["index", "item"]);
    let mut groups = Vec::new();
    for group in 0..builder.metadata().num_row_groups() {
        // A file of an earlier version has no filter: all of it is read.
        let filter = builder.get_row_group_column_bloom_filter(group, column)?;
        if filter.is_none_or(|filter| items.iter().any(|item| filter.check(item.as_str()))) {
            groups.push(group);
        }
    }
    if groups.is_empty() {
        return Ok(());
    }
    let missing = || ParquetError::General("a column of `events` is missing or has another type".to_owned());
    for batch in builder.with_projection(mask).with_row_groups(groups).with_batch_size(ROWS).build()? {
        let batch = batch?;
        let column = |name: &str| batch.column_by_name(name).ok_or_else(missing);
        let indexes = column("index")?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
        let found = column("item")?.as_string_opt::<i32>().ok_or_else(missing)?;
        for (index, item) in indexes.iter().zip(found) {
            let (Some(index), Some(item)) = (index.and_then(|index| u64::try_from(index).ok()), item) else { continue };
            if items.contains(item) {
                known
                    .entry(item.to_owned())
                    .and_modify(|first: &mut u64| *first = (*first).min(index))
                    .or_insert(index);
            }
        }
    }
    Ok(())
}
