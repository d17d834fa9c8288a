//! The texts that stand beside a test's rows: its procedure for people, its queries and parameters for re-performing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::definition::{Control, ParameterValue, Queries, Strength};
use super::outcome::Period;

const POPULATION: &str = "-- population";
const EXCEPTIONS: &str = "-- exceptions";

/// `query.sql`: both queries, as they ran but for the period, which `params.json` holds.
#[must_use]
pub fn query_sql(control: &Control, queries: &Queries) -> String {
    let Queries { population, exceptions } = queries;
    format!(
        "-- Control test {}: {}\n-- :P0 (inclusive), :P1 (exclusive) and :AS_OF stand for the times in params.json.\n\n\
         {POPULATION}\n{population}\n;\n\n{EXCEPTIONS}\n{exceptions}\n;\n",
        control.id, control.title
    )
}

/// Reads [`query_sql`] back; `None` if it is not such a text.
#[must_use]
pub fn read_query_sql(text: &str) -> Option<Queries> {
    let (_, rest) = text.split_once(&format!("\n{POPULATION}\n"))?;
    let (population, rest) = rest.split_once(&format!("\n;\n\n{EXCEPTIONS}\n"))?;
    let exceptions = rest.strip_suffix("\n;\n")?;
    Some(Queries { population: population.to_owned(), exceptions: exceptions.to_owned() })
}

/// `params.json`: the period and every parameter with its value, its default and what it decides.
#[must_use]
pub fn params(control: &Control, period: &Period, values: &BTreeMap<String, ParameterValue>) -> Value {
    let parameters: BTreeMap<&str, Value> = control
        .parameters
        .iter()
        .map(|(name, parameter)| {
            let value = values.get(name).unwrap_or(&parameter.default);
            let entry = json!({ "value": value, "default": parameter.default, "means": parameter.means });
            (name.as_str(), entry)
        })
        .collect();
    json!({ "P0": period.from, "P1": period.to, "AS_OF": period.as_of, "parameters": parameters })
}

/// `procedure.md`: the test in words.
#[must_use]
pub fn procedure(control: &Control, period: &Period, values: &BTreeMap<String, ParameterValue>) -> String {
    let strength = match control.strength {
        Strength::Design => "design",
        Strength::Operating => "operation",
        Strength::Both => "design and operation",
    };
    let mut text = format!(
        "# {}: {}\n\n{}\n\n\
         | | |\n|---|---|\n| Period (UTC) | from {} until before {} |\n| As known at | {} |\n| Evidence of | {strength} |\n\
         | The control acts | {} |\n| Reads | {} |\n\n\
         ## Population\n\nOne row is {}. {}\n\nRows are told apart by {}.\n\n\
         ## Exceptions\n\n{} Every row of the second query is an exception; the result counts them by {}.\n",
        control.id,
        control.title,
        control.checks.trim(),
        period.from,
        period.to,
        period.as_of,
        control.frequency,
        reads(control),
        control.population.row,
        control.population.scope,
        columns(&control.population.key),
        control.exceptions.row,
        columns(&control.exceptions.key),
    );
    if !control.parameters.is_empty() {
        text.push_str("\n## Parameters in force\n\n| name | value | decides |\n|---|---|---|\n");
        for (name, parameter) in &control.parameters {
            let value = values.get(name).unwrap_or(&parameter.default);
            text.push_str(&format!("| {name} | {} | {} |\n", plain(value), parameter.means));
        }
    }
    if let Some(note) = &control.note {
        text.push_str(&format!("\n## Note\n\n{}\n", note.trim()));
    }
    text.push_str(
        "\n## Steps\n\n\
         1. `params.json` holds the period and parameters, `query.sql` both queries with the parameters written in.\n\
         2. Run them over the pack's Parquet files or ask `pipeproof evidence verify --reperform` to.\n\
         3. Compare row count and hash totals with `ipe.json`, which says how the totals are computed.\n\
         4. Read `results.json` together with its qualifiers: they name the times for which the record does not stand.\n\n\
         A result is what the queries found. Whether the control is effective is for the auditor to conclude.\n",
    );
    text
}

fn reads(control: &Control) -> String {
    let groups: Vec<String> = control
        .sources
        .iter()
        .map(|group| group.types().iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" or "))
        .collect();
    if groups.is_empty() { "all sources".to_owned() } else { groups.join("; ") }
}

fn columns(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn plain(value: &ParameterValue) -> String {
    match value {
        ParameterValue::Span(text) | ParameterValue::Text(text) => text.clone(),
        ParameterValue::Number(number) => number.to_string(),
        ParameterValue::List(texts) => texts.join(", "),
    }
}
