//! The relations of a session: the lake's files as tables of schema `lake`, and the views people ask.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use datafusion::datasource::TableProvider;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use url::Url;

use super::SqlError;
use crate::lake::{NO_ITEM, Table, cut_columns};

const VIEWS: &str = include_str!("views.sql");
/// Schema of the files themselves; the relation of the same name without it is cut at `as_of`.
pub(super) const FILES: &str = "lake";

/// Registers the files of a table as `lake.TABLE`.
pub(super) fn register(context: &SessionContext, table: Table, files: &[PathBuf]) -> Result<(), DataFusionError> {
    let catalog = context
        .catalog("datafusion")
        .ok_or_else(|| DataFusionError::Internal("the session has no catalog".to_owned()))?;
    if catalog.schema(FILES).is_none() {
        catalog.register_schema(FILES, Arc::new(MemorySchemaProvider::new()))?;
    }
    let provider: Arc<dyn TableProvider> = if files.is_empty() {
        Arc::new(MemTable::try_new(table.stored_schema(), vec![Vec::new()])?)
    } else {
        let paths = files.iter().map(|path| location(path)).collect::<Result<_, _>>()?;
        let options = ListingOptions::new(Arc::new(ParquetFormat::default()));
        let config = ListingTableConfig::new_with_multi_paths(paths)
            .with_listing_options(options)
            // Said, not inferred: a column that a file lacks is empty.
            .with_schema(table.stored_schema());
        Arc::new(ListingTable::try_new(config)?)
    };
    context.register_table(TableReference::partial(FILES, table.name()), provider)?;
    Ok(())
}

fn location(path: &Path) -> Result<ListingTableUrl, DataFusionError> {
    let url = Url::from_file_path(path)
        .map_err(|()| DataFusionError::Execution(format!("{} is not an absolute path", path.display())))?;
    ListingTableUrl::try_new(url, None)
}

/// The statements that create the views, each with its name.
pub(super) fn views(as_of: Option<Timestamp>) -> Vec<(String, String)> {
    let known = |table: Table| {
        let name = table.name();
        let columns = if table == Table::Events { whole_records() } else { "*".to_owned() };
        (name.to_owned(), format!("CREATE VIEW {name} AS SELECT {columns} FROM {FILES}.{name}{}", cut(table, as_of)))
    };
    let facts = VIEWS.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()).map(|statement| {
        let name = statement
            .lines()
            .find_map(|line| line.strip_prefix("CREATE VIEW ").and_then(|rest| rest.split(' ').next()))
            .unwrap_or_default();
        (name.to_owned(), statement.to_owned())
    });
    Table::ALL.iter().map(|table| known(*table)).chain(facts).collect()
}

/// All columns of events, envelopes and bodies with what the files keep apart.
fn whole_records() -> String {
    format!("* EXCLUDE (item_at, packed) REPLACE ({}, {})", whole_envelope(), whole_body())
}

/// [`crate::lake::whole_envelope`] in SQL.
pub(super) fn whole_envelope() -> String {
    format!(r#"replace(envelope, '{NO_ITEM}', concat('"item":"', item, '"')) AS envelope"#)
}

/// [`crate::lake::whole_body`] in SQL.
pub(super) fn whole_body() -> String {
    let values: Vec<String> = cut_columns().collect();
    format!("whole_body(body, packed, item_at, {}) AS body", values.join(", "))
}

/// What restricts a table to what was known before `as_of`.
pub(super) fn cut(table: Table, as_of: Option<Timestamp>) -> String {
    let known_by = match table {
        Table::Events => "received",
        Table::Findings | Table::IncidentSteps => "committed",
        Table::Deliveries | Table::Checkpoints => "at",
        Table::SourceWindows => "changed",
    };
    as_of.map_or_else(String::new, |as_of| {
        format!(" WHERE {known_by} < arrow_cast('{as_of}', 'Timestamp(Microsecond, Some(\"UTC\"))')")
    })
}

/// The Parquet files of a table in a folder: `TABLE.parquet`, `TABLE-*.parquet`, and all under `TABLE/`.
pub(super) fn files_of(folder: &Path, table: Table) -> Result<Vec<PathBuf>, SqlError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        let is_top = at == folder;
        let read = |source| SqlError::Folder { path: at.clone(), source };
        for entry in std::fs::read_dir(&at).map_err(read)? {
            let entry = entry.map_err(read)?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().map_err(read)?.is_dir() {
                if (!is_top && !name.starts_with('_')) || name == table.name() {
                    folders.push(path);
                }
                continue;
            }
            let Some(stem) = name.strip_suffix(".parquet") else { continue };
            let is_ours = stem.strip_prefix(table.name()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
            if !is_top || is_ours {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}
