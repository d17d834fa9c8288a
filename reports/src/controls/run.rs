//! Runs control tests and makes their part of an evidence pack.
//!
//! The facts are behind a port, so that a test runs the same over the lake, over a pack's own Parquet files, and over rows
//! made by hand. Equal facts and requests give equal bytes.

use std::collections::BTreeMap;
use std::future::Future;

use pipeproof_engine::commit::SourceWindow;
use serde_json::Value;

use super::completeness::{Assessment, assess, coverage_table, gaps_table};
use super::definition::{Control, ControlError, ParameterValue, Queries};
use super::ipe::{Extraction, distinct, record};
use super::outcome::{ControlResult, Outcome, Period, decide, sentence};
use super::render::{params, procedure, query_sql};
use super::sheet::{Table, TableError};
use crate::pack_file::PackFile;

/// The fact views.
pub trait Facts: Send + Sync {
    /// Its failures.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Runs a query with `:P0`, `:P1` and `:AS_OF` bound to the period's times, and returns all rows.
    fn query(&self, sql: &str, period: &Period) -> impl Future<Output = Result<Table, Self::Error>> + Send;
}

/// What tests are run for.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// Period and state of knowledge.
    pub period: Period,
    /// Parameters that differ from the defaults, by test.
    pub parameters: BTreeMap<String, BTreeMap<String, ParameterValue>>,
    /// Versions of what took part, for the IPE record: program, schema, rules.
    pub versions: BTreeMap<String, String>,
    /// Checkpoints of the log at the start and the end, for the IPE record.
    pub checkpoints: Vec<Value>,
    /// Source windows that overlap the period.
    pub windows: Vec<SourceWindow>,
}

/// What one test produced.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlRun {
    /// The result.
    pub result: ControlResult,
    /// `10_controls/<id>/…`.
    pub files: Vec<PackFile>,
}

/// Why a test could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The test or its parameters are wrong.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The period ends before it begins.
    #[error("a period from {} to {} is empty", .0.from, .0.to)]
    Period(Period),
    /// Its rows cannot be written.
    #[error("cannot write the rows of control test {control}")]
    Table {
        /// Which test.
        control: String,
        /// Why.
        #[source]
        source: TableError,
    },
    /// A query does not return the columns the test names.
    #[error("the {query} of control test {control} returns no column `{column}`")]
    Column {
        /// Which test.
        control: String,
        /// `population` or `exceptions`.
        query: &'static str,
        /// The column.
        column: String,
    },
}

/// Everything tests contribute to a pack.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlReport {
    /// Results, in the order of the tests.
    pub results: Vec<ControlResult>,
    /// `10_controls/…` and `30_completeness/…`.
    pub files: Vec<PackFile>,
}

/// Runs tests one after the other.
///
/// # Errors
/// [`RunError`] if a test is wrong. A query that fails is no error: its test is not evaluated and says why.
pub async fn run_all<F: Facts>(
    facts: &F,
    controls: &[&Control],
    request: &RunRequest,
) -> Result<ControlReport, RunError> {
    let mut results = Vec::with_capacity(controls.len());
    let mut files = Vec::new();
    for control in controls {
        let run = run(facts, control, request).await?;
        results.push(run.result);
        files.extend(run.files);
    }
    files.extend(completeness_files(&results, request));
    Ok(ControlReport { results, files })
}

/// `30_completeness/source_coverage.csv` and `gaps.csv`.
#[must_use]
pub fn completeness_files(results: &[ControlResult], request: &RunRequest) -> Vec<PackFile> {
    let touched: Vec<_> = results.iter().map(|result| (result.control.clone(), result.not_evaluated.clone())).collect();
    vec![
        PackFile::new(
            "30_completeness/source_coverage.csv",
            coverage_table(&request.windows, &request.period).to_csv(),
            "How much of the period each source covers, and what is known about its completeness",
        ),
        PackFile::new(
            "30_completeness/gaps.csv",
            gaps_table(&request.windows, &request.period, &touched).to_csv(),
            "Every stretch of time for which a source's record does not stand, and the tests it touches",
        ),
    ]
}

/// Runs one test.
///
/// # Errors
/// As [`run_all`].
pub async fn run<F: Facts>(facts: &F, control: &Control, request: &RunRequest) -> Result<ControlRun, RunError> {
    let period = &request.period;
    if period.from >= period.to {
        return Err(RunError::Period(*period));
    }
    let set = request.parameters.get(&control.id).cloned().unwrap_or_default();
    let values = control.values(&set)?;
    let queries = control.queries(&set)?;
    let assessment = assess(&control.sources, &request.windows, period);
    let path = |name: &str| format!("10_controls/{}/{name}", control.id);
    let mut files = vec![
        PackFile::new(
            path("procedure.md"),
            procedure(control, period, &values),
            format!("Control test {} in words", control.id),
        ),
        PackFile::new(path("query.sql"), query_sql(control, &queries), format!("Both queries of {}", control.id)),
        PackFile::new(
            path("params.json"),
            pretty(&params(control, period, &values)),
            format!("Period and parameters of {}", control.id),
        ),
    ];
    let result = match rows(facts, control, &queries, period).await? {
        Ok(rows) => {
            let extraction = Extraction {
                control,
                request,
                queries: &queries,
                parameters: &values,
                population: &rows.population,
                assessment: &assessment,
            };
            files.extend(row_files(control, &rows, &extraction)?);
            let n = rows.population.rows.len() as u64;
            let k = distinct(&rows.exceptions, &control.exceptions.key);
            result(control, period, decide(n, k, &assessment), &assessment, rows.exceptions.rows.len() as u64)
        }
        Err(why) => result(control, period, Outcome::NotEvaluated { why }, &assessment, 0),
    };
    let json = serde_json::to_value(&result).map_err(|source| table_error(control, TableError::Json(source)))?;
    files.push(PackFile::new(path("results.json"), pretty(&json), format!("Result of {}", control.id)));
    Ok(ControlRun { result, files })
}

struct Rows {
    population: Table,
    exceptions: Table,
}

/// Runs both queries; the inner error is why one of them failed.
async fn rows<F: Facts>(
    facts: &F,
    control: &Control,
    queries: &Queries,
    period: &Period,
) -> Result<Result<Rows, String>, RunError> {
    let mut population = match facts.query(&queries.population, period).await {
        Ok(table) => table,
        Err(error) => return Ok(Err(format!("the population query failed: {}", chain(&error)))),
    };
    let mut exceptions = match facts.query(&queries.exceptions, period).await {
        Ok(table) => table,
        Err(error) => return Ok(Err(format!("the exceptions query failed: {}", chain(&error)))),
    };
    let definition = &control.population;
    let wanted = definition.key.iter().chain([&definition.time]).map(|column| ("population", &population, column));
    let wanted = wanted.chain(control.exceptions.key.iter().map(|column| ("exceptions", &exceptions, column)));
    for (query, table, column) in wanted {
        if table.column(column).is_none() {
            return Err(RunError::Column { control: control.id.clone(), query, column: column.clone() });
        }
    }
    let order: Vec<&str> = std::iter::once(&definition.time).chain(&definition.key).map(String::as_str).collect();
    population.sort_by_columns(&order);
    let order: Vec<&str> =
        std::iter::once(&definition.time).chain(&control.exceptions.key).map(String::as_str).collect();
    exceptions.sort_by_columns(&order);
    Ok(Ok(Rows { population, exceptions }))
}

fn row_files(control: &Control, rows: &Rows, extraction: &Extraction<'_>) -> Result<Vec<PackFile>, RunError> {
    let id = &control.id;
    let path = |name: &str| format!("10_controls/{id}/{name}");
    let parquet = rows.population.to_parquet().map_err(|source| table_error(control, source))?;
    let csv = PackFile::new(path("population.csv"), rows.population.to_csv(), format!("Population of {id}"));
    let parquet = PackFile::new(path("population.parquet"), parquet, format!("Population of {id} as Parquet"));
    let exceptions = PackFile::new(path("exceptions.csv"), rows.exceptions.to_csv(), format!("Exceptions of {id}"));
    let ipe = record(extraction, &[&csv, &parquet]);
    let ipe = PackFile::new(path("ipe.json"), pretty(&ipe), format!("How the population of {id} came about"));
    Ok(vec![csv, parquet, exceptions, ipe])
}

fn result(
    control: &Control,
    period: &Period,
    outcome: Outcome,
    assessment: &Assessment,
    exception_rows: u64,
) -> ControlResult {
    ControlResult {
        control: control.id.clone(),
        title: control.title.clone(),
        digest: control.digest(),
        period: *period,
        sentence: sentence(&outcome, assessment),
        outcome,
        qualifiers: assessment.qualifiers(period),
        evaluated_secs: assessment.evaluated_secs,
        period_secs: assessment.period_secs,
        not_evaluated: assessment.unevaluated.clone(),
        exception_rows,
    }
}

fn table_error(control: &Control, source: TableError) -> RunError {
    RunError::Table { control: control.id.clone(), source }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
