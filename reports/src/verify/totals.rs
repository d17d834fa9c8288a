//! The totals: what `ipe.json` and `results.json` say of a table is worked out again from its CSV, and what a query gave when
//! it was run again is compared.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::pack::table::Table;
use crate::verify::report::{Check, Report};
use crate::verify::{Options, Reperformed, Unpacked};

/// The parts of `ipe.json` that can be worked out again.
#[derive(Deserialize)]
struct Ipe {
    identity: Identity,
    totals: Said,
    output: Vec<Output>,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(default)]
    key: Vec<String>,
}

#[derive(Deserialize)]
struct Said {
    rows: u64,
    hash_total: String,
    multiset_hash: Option<String>,
    distinct_keys: Option<u64>,
    time_column: Option<String>,
    rows_by_day: Option<BTreeMap<String, u64>>,
}

#[derive(Deserialize)]
struct Output {
    path: String,
    bytes: u64,
    sha256: String,
}

/// The parts of `results.json` that can be worked out again.
#[derive(Deserialize)]
struct Results {
    n: Option<u64>,
    exception_rows: Option<u64>,
}

pub(super) fn check(pack: &Unpacked, options: &Options, report: &mut Report) {
    let mut check = Check::new("totals");
    for (path, bytes) in pack.data() {
        if let Some(folder) = path.strip_suffix("ipe.json") {
            check.count();
            ipe(pack, (path, folder), bytes, &mut check);
        } else if let Some(folder) = path.strip_suffix("results.json") {
            check.count();
            results(pack, (path, folder), bytes, &mut check);
        }
    }
    if check.examined == 0 {
        check.not_done("the pack holds no population");
    }
    report.checks.push(check);
    if let Some(reperformed) = &options.reperformed {
        report.checks.push(again(pack, reperformed));
    }
}

fn table(pack: &Unpacked, path: &str) -> Result<Option<Table>, String> {
    let bytes = pack.get(&format!("data/{path}"));
    bytes.map(Table::from_csv).transpose().map_err(|cause| format!("data/{path}: {cause}"))
}

fn ipe(pack: &Unpacked, (path, folder): (&str, &str), bytes: &[u8], check: &mut Check) {
    let subject = format!("data/{path}");
    let ipe: Ipe = match serde_json::from_slice(bytes) {
        Ok(ipe) => ipe,
        Err(cause) => return check.fail(subject, format!("cannot be read: {cause}")),
    };
    for output in &ipe.output {
        let file = pack.get(&format!("data/{}", output.path));
        let same = file.is_some_and(|file| {
            file.len() as u64 == output.bytes && hex::encode(Sha256::digest(file)) == output.sha256
        });
        if !same {
            check.fail(&subject, format!("describes data/{}, which is missing or another file", output.path));
        }
    }
    let population = format!("{folder}population.csv");
    let table = match table(pack, &population) {
        Ok(Some(table)) => table,
        Ok(None) => return check.fail(subject, format!("describes data/{population}, which is missing")),
        Err(cause) => return check.fail(subject, cause),
    };
    let said = &ipe.totals;
    let mut differ = |what: &str, said: String, found: String| {
        if said != found {
            check.fail(format!("data/{population}"), format!("has {what} {found}, but {path} says {said}"));
        }
    };
    let totals = table.totals();
    differ("row count", said.rows.to_string(), totals.rows.to_string());
    differ("hash total", said.hash_total.clone(), totals.hash_total);
    if let Some(said) = &said.multiset_hash {
        differ("multiset hash", said.clone(), table.multiset_hash());
    }
    if let Some(said) = said.distinct_keys {
        differ("distinct keys", said.to_string(), distinct(&table, &ipe.identity.key).to_string());
    }
    if let (Some(column), Some(said)) = (&said.time_column, &said.rows_by_day) {
        differ("rows by day", format!("{said:?}"), format!("{:?}", by_day(&table, column)));
    }
}

fn distinct(table: &Table, key: &[String]) -> usize {
    let at: Vec<Option<usize>> =
        key.iter().map(|name| table.columns.iter().position(|column| column == name)).collect();
    let cell = |row: &[String], at: &Option<usize>| at.and_then(|at| row.get(at).cloned()).unwrap_or_default();
    table.rows.iter().map(|row| at.iter().map(|at| cell(row, at)).collect::<Vec<_>>()).collect::<BTreeSet<_>>().len()
}

fn by_day(table: &Table, column: &str) -> BTreeMap<String, u64> {
    let mut days = BTreeMap::new();
    let Some(at) = table.columns.iter().position(|name| name == column) else { return days };
    for day in table.rows.iter().filter_map(|row| row.get(at)?.get(..10)) {
        *days.entry(day.to_owned()).or_default() += 1;
    }
    days
}

fn results(pack: &Unpacked, (path, folder): (&str, &str), bytes: &[u8], check: &mut Check) {
    let results: Results = match serde_json::from_slice(bytes) {
        Ok(results) => results,
        Err(cause) => return check.fail(format!("data/{path}"), format!("cannot be read: {cause}")),
    };
    for (name, said) in [("population.csv", results.n), ("exceptions.csv", results.exception_rows)] {
        let Some(said) = said else { continue };
        match table(pack, &format!("{folder}{name}")) {
            Ok(Some(table)) if table.rows.len() as u64 == said => {}
            // A test that could not be evaluated has no tables, and says that it found nothing.
            Ok(None) if said == 0 => {}
            Ok(found) => {
                let rows = found.map_or("none".to_owned(), |table| table.rows.len().to_string());
                check.fail(format!("data/{path}"), format!("says {said} rows of {name}, but there are {rows}"));
            }
            Err(cause) => check.fail(format!("data/{path}"), cause),
        }
    }
}

/// The queries run again.
fn again(pack: &Unpacked, reperformed: &[Reperformed]) -> Check {
    let mut check = Check::new("reperformance");
    for run in reperformed {
        check.count();
        let subject = format!("data/{}", run.table);
        match (&run.outcome, table(pack, &run.table)) {
            (Err(cause), _) => check.fail(subject, format!("its query could not be run again: {cause}")),
            (_, Err(cause)) => check.fail(subject, cause),
            (_, Ok(None)) => check.fail(subject, "is missing"),
            (Ok(found), Ok(Some(table))) => {
                let said = table.totals();
                if *found != said {
                    check.fail(
                        subject,
                        format!(
                            "has {} rows, but its query gives {} when run again, or other ones",
                            said.rows, found.rows
                        ),
                    );
                }
            }
        }
    }
    if reperformed.is_empty() {
        check.not_done("no query was run again");
    }
    check
}
