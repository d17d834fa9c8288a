//! Read-only SQL over one [`Snapshot`](crate::lake::Snapshot) of the lake, or over plain Parquet files of the same tables.
//!
//! Every [`Sql`] is a session of its own that knows the lake's tables and the fact views (`views.sql`) and nothing else: no
//! other file, no statement that changes anything, and no more memory, time or rows than its [`Limits`] allow.

mod answer;
mod functions;
mod parameters;
mod relations;
mod rules;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use engine::time::Timestamp;
use futures::TryStreamExt;
use pipeproof_engine as engine;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::lake::{Snapshot, Table};

pub use answer::{Answer, JsonRows};
pub use parameters::Parameter;
pub use rules::{RULE_ROWS_MAX, RuleRow, RuleRows, RuleSql};

/// Stack of the thread a query runs on. Planning, copying and dropping an expression recurse once per operator, and text of
/// the allowed length holds thousands of them. Only what is touched is ever backed by memory.
const STACK_BYTES: usize = 256 << 20;
/// Longest text of a query. Planning cannot be interrupted, and for a chain of operators takes time in the square of it.
const TEXT_BYTES: usize = 16 << 10;

/// What a query may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory for sorting, joining and grouping. Nothing is spilled to disk: a query that needs more fails.
    pub memory_bytes: usize,
    /// How long it may run, planning included.
    pub time: Duration,
    /// Rows of an answer.
    pub rows: usize,
    /// Bytes of an answer in memory.
    pub answer_bytes: usize,
    /// Bytes of the query's text.
    pub text_bytes: usize,
}

impl Limits {
    /// For people at a console.
    pub const CONSOLE: Self = Self {
        memory_bytes: 256 << 20,
        time: Duration::from_secs(30),
        rows: 10_000,
        answer_bytes: 64 << 20,
        text_bytes: TEXT_BYTES,
    };
    /// For control tests and packs, whose populations must be whole.
    pub const EVIDENCE: Self = Self {
        memory_bytes: 1 << 30,
        time: Duration::from_secs(600),
        rows: 5_000_000,
        answer_bytes: 2 << 30,
        text_bytes: TEXT_BYTES,
    };
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The relations could not be set up.
    #[error("cannot open the lake for SQL: {doing}")]
    Open {
        /// What was attempted.
        doing: String,
        /// Why.
        #[source]
        source: Box<DataFusionError>,
    },
    /// A folder of Parquet files cannot be read.
    #[error("cannot read {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is longer than allowed.
    #[error("the query has {bytes} bytes, more than the {allowed} allowed")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// How many it may have.
        allowed: usize,
    },
    /// The query names a parameter that has no value.
    #[error("the query's parameter `:{0}` has no value")]
    NoParameter(String),
    /// The query is not SQL, names what is not there, or would change something.
    #[error("the query is refused: {}", first_line(source))]
    Refused {
        /// Why.
        #[source]
        source: Box<DataFusionError>,
    },
    /// The query failed while it ran.
    #[error("the query failed: {}", first_line(source))]
    Failed {
        /// Why.
        #[source]
        source: Box<DataFusionError>,
    },
    /// A rule's query answers without a column that identifies its findings.
    #[error("the answer has no column `{key}`, which is the rule's key (it has {columns})")]
    NoKey {
        /// The column.
        key: String,
        /// Those it has.
        columns: String,
    },
    /// It ran longer than allowed.
    #[error("the query was stopped after {} s", .0.as_secs())]
    TooSlow(Duration),
    /// It needs more memory than allowed.
    #[error("the query needs more than the {} MiB of memory allowed; narrow it", .0 >> 20)]
    TooBig(usize),
    /// Its answer has more rows than allowed.
    #[error("the answer has more than the {0} rows allowed; narrow the query or add a LIMIT")]
    TooManyRows(usize),
    /// Its answer has more bytes than allowed.
    #[error("the answer has more than the {} MiB allowed; ask for fewer columns or rows", .0 >> 20)]
    TooManyBytes(usize),
}

impl SqlError {
    /// Whether the asker can do something about it; otherwise it is ours.
    #[must_use]
    pub const fn is_askers(&self) -> bool {
        !matches!(self, Self::Open { .. } | Self::Folder { .. })
    }
}

fn first_line(error: &DataFusionError) -> String {
    // The outermost kind ("Error during planning: ") is part of the text and says what stage refused.
    error.strip_backtrace().lines().next().unwrap_or_default().to_owned()
}

/// A read-only SQL session.
#[derive(Clone)]
pub struct Sql {
    context: SessionContext,
    limits: Limits,
    /// Its files stay while the session does.
    held: Snapshot,
}

impl std::fmt::Debug for Sql {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Sql")
            .field("limits", &self.limits)
            .field("held", &self.held.versions())
            .finish_non_exhaustive()
    }
}

impl Sql {
    /// A session over a snapshot of the lake. With `as_of`, it sees what was received and committed before that time only,
    /// whatever came since: equal snapshots-or-later and equal `as_of` give equal answers.
    ///
    /// # Errors
    /// [`SqlError::Open`].
    pub async fn over(snapshot: &Snapshot, as_of: Option<Timestamp>, limits: Limits) -> Result<Self, SqlError> {
        let session = Self::with_files(|table| Ok(snapshot.files(table).to_vec()), as_of, limits).await?;
        Ok(Self { held: snapshot.clone(), ..session })
    }

    /// A session over Parquet files in a folder, as an evidence pack holds them: `TABLE.parquet`, `TABLE-*.parquet` and
    /// everything under `TABLE/`. A table without files is empty.
    ///
    /// # Errors
    /// [`SqlError::Folder`], [`SqlError::Open`].
    pub async fn over_parquet(folder: &Path, as_of: Option<Timestamp>, limits: Limits) -> Result<Self, SqlError> {
        let folder =
            std::fs::canonicalize(folder).map_err(|source| SqlError::Folder { path: folder.to_owned(), source })?;
        Self::with_files(|table| relations::files_of(&folder, table), as_of, limits).await
    }

    async fn with_files(
        files: impl Fn(Table) -> Result<Vec<PathBuf>, SqlError>,
        as_of: Option<Timestamp>,
        limits: Limits,
    ) -> Result<Self, SqlError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory_bytes)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(opened("start the query engine"))?;
        let config = SessionConfig::new()
            // One partition: an answer without ORDER BY is the same every time, too.
            .with_target_partitions(1)
            .with_information_schema(true)
            .set_bool("datafusion.execution.collect_statistics", false)
            .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
        let context = SessionContext::new_with_config_rt(config, runtime);
        functions::all().into_iter().for_each(|function| context.register_udf(function));
        context.register_udf(functions::of_views());
        for &table in Table::ALL {
            relations::register(&context, table, &files(table)?).map_err(opened(table.name()))?;
        }
        for (name, statement) in relations::views(as_of) {
            // Ours, so it may create; only the text in `query` comes from outside.
            context.sql(&statement).await.map_err(opened(&name))?;
        }
        Ok(Self { context, limits, held: Snapshot::default() })
    }

    /// Runs one query to its end. Parameters are written as `:NAME` in the text.
    ///
    /// # Errors
    /// [`SqlError`]; [`SqlError::TooManyRows`] rather than a part of the answer.
    pub async fn query(&self, text: &str, parameters: &[(&str, Parameter)]) -> Result<Answer, SqlError> {
        let (answer, is_cut) = self.run(text, parameters).await?;
        if is_cut { Err(SqlError::TooManyRows(self.limits.rows)) } else { Ok(answer) }
    }

    /// Runs one query and gives its rows as JSON, at most as many as allowed; whether there were more stands in the answer.
    ///
    /// # Errors
    /// [`SqlError`].
    pub async fn query_json(&self, text: &str, parameters: &[(&str, Parameter)]) -> Result<JsonRows, SqlError> {
        let (answer, is_cut) = self.run(text, parameters).await?;
        let mut rows = answer.json()?;
        rows.truncated = is_cut;
        Ok(rows)
    }

    async fn run(&self, text: &str, parameters: &[(&str, Parameter)]) -> Result<(Answer, bool), SqlError> {
        if text.len() > self.limits.text_bytes {
            return Err(SqlError::TooLong { bytes: text.len(), allowed: self.limits.text_bytes });
        }
        let text = parameters::substitute(text, parameters)?;
        let (mut answer, receiver) = oneshot::channel();
        let (this, runtime) = (self.clone(), Handle::current());
        let work = move || {
            runtime.block_on(async {
                let result = tokio::select! {
                    result = this.execute(&text) => result,
                    // Nobody waits any more: too slow, or the asker is gone.
                    () = answer.closed() => return,
                };
                drop(answer.send(result));
            });
        };
        let thread = std::thread::Builder::new().name("sql".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(work).map_err(|error| failed(DataFusionError::IoError(error)))?;
        tokio::time::timeout(self.limits.time, receiver)
            .await
            .map_err(|_| SqlError::TooSlow(self.limits.time))?
            .map_err(|_| failed(DataFusionError::Internal("the query's thread ended without an answer".to_owned())))?
    }

    async fn execute(&self, text: &str) -> Result<(Answer, bool), SqlError> {
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let refused = |source| SqlError::Refused { source: Box::new(source) };
        let frame = self.context.sql_with_options(text, read_only).await.map_err(refused)?;
        let mut stream = frame.execute_stream().await.map_err(|error| self.failed(error))?;
        let schema = stream.schema();
        let mut batches: Vec<RecordBatch> = Vec::new();
        let mut room = self.limits.rows;
        let mut bytes = 0_usize;
        while let Some(batch) = stream.try_next().await.map_err(|error| self.failed(error))? {
            if batch.num_rows() > room {
                batches.push(batch.slice(0, room));
                return Ok((Answer::new(schema, batches), true));
            }
            room -= batch.num_rows();
            bytes = bytes.saturating_add(batch.get_array_memory_size());
            if bytes > self.limits.answer_bytes {
                return Err(SqlError::TooManyBytes(self.limits.answer_bytes));
            }
            if batch.num_rows() > 0 {
                batches.push(batch);
            }
        }
        Ok((Answer::new(schema, batches), false))
    }

    fn failed(&self, error: DataFusionError) -> SqlError {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => SqlError::TooBig(self.limits.memory_bytes),
            _ => failed(error),
        }
    }
}

fn opened(doing: &str) -> impl Fn(DataFusionError) -> SqlError {
    let doing = doing.to_owned();
    move |source| SqlError::Open { doing: doing.clone(), source: Box::new(source) }
}

fn failed(error: DataFusionError) -> SqlError {
    SqlError::Failed { source: Box::new(error) }
}

#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod tests;
