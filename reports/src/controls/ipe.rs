//! The record of how a population came about: what an auditor asks of information the audited party produced itself.
//!
//! It holds nothing about when or by whom it was run, so that equal requests give equal bytes; the pack's custody log
//! holds that.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::completeness::Assessment;
use super::definition::{Control, ParameterValue, Queries};
use super::run::RunRequest;
use super::sheet::{Cell, Table};
use crate::pack_file::PackFile;

/// How the hash totals can be recomputed.
pub const HASH_METHOD: &str = "A canonical row is the compact JSON array of a row's cells as the CSV shows them (RFC 8259, no \
     spaces, only required escapes, UTF-8; absent cells are empty text). hash_total: SHA-256 over the canonical rows in byte \
     order, each followed by a line feed. multiset_hash: the sum modulo 2^256 of the SHA-256 of every canonical row, \
     big-endian; it does not depend on the order of rows.";

/// What [`record`] describes.
#[derive(Debug)]
pub struct Extraction<'a> {
    /// The test.
    pub control: &'a Control,
    /// What was asked for.
    pub request: &'a RunRequest,
    /// The queries that ran.
    pub queries: &'a Queries,
    /// Parameters in force.
    pub parameters: &'a BTreeMap<String, ParameterValue>,
    /// The rows.
    pub population: &'a Table,
    /// How far the sources carry it.
    pub assessment: &'a Assessment,
}

/// `ipe.json`; `outputs` are the files made from the population.
#[must_use]
pub fn record(extraction: &Extraction<'_>, outputs: &[&PackFile]) -> Value {
    let Extraction { control, request, queries, parameters, population, assessment } = extraction;
    let period = &request.period;
    let outputs: Vec<Value> = outputs
        .iter()
        .map(|file| {
            json!({
                "path": file.path,
                "bytes": file.bytes.len(),
                "rows": population.rows.len(),
                "sha256": hex::encode(Sha256::digest(&file.bytes)),
            })
        })
        .collect();
    json!({
        "format": "pipeproof ipe v1",
        "identity": {
            "population_id": format!("{}/population", control.id),
            "title": control.title,
            "used_by": [control.id],
            "row": control.population.row,
            "scope": control.population.scope,
            "key": control.population.key,
        },
        "source": sources(assessment),
        "extraction": {
            "query_sha256": hex::encode(Sha256::digest(&queries.population)),
            "exceptions_query_sha256": hex::encode(Sha256::digest(&queries.exceptions)),
            "control_digest": control.digest(),
            "dialect": "DataFusion SQL; :P0 inclusive, :P1 exclusive, UTC",
            "parameters": parameters,
            "valid_time": { "from": period.from, "to": period.to },
            "as_of": period.as_of,
            "versions": request.versions,
            "run": "who ran it, when and where stands in the pack's custody log, so that equal requests give equal bytes",
        },
        "totals": totals(control, population),
        "completeness": {
            "period_secs": assessment.period_secs,
            "evaluated_secs": assessment.evaluated_secs,
            "not_evaluated": assessment.unevaluated,
            "not_established": assessment.not_established,
        },
        "integrity": { "checkpoints": request.checkpoints },
        "transformations": "Records are redacted before they are stored; repeated deliveries of an item are dropped by its id or \
             keyed hash; events are decoded to the fields of the taxonomy; the fact views join them as the query says.",
        "output": outputs,
        "manual_edits": "none: the files are written by the program and sealed as written",
    })
}

fn sources(assessment: &Assessment) -> Value {
    let mut sources: BTreeMap<&str, Value> = BTreeMap::new();
    for window in &assessment.read {
        let entry = sources.entry(&window.source).or_insert_with(|| {
            json!({
                "type": window.source_type,
                "first_window": window.start,
                "last_window": window.end,
                "windows": 0,
                "records": 0,
                "events": 0,
                "duplicates_removed": 0,
                "dead_letters": 0,
            })
        });
        entry["last_window"] = json!(window.end);
        for (name, count) in [
            ("windows", 1),
            ("records", window.records),
            ("events", window.events),
            ("duplicates_removed", window.duplicates),
            ("dead_letters", window.dead_letters),
        ] {
            entry[name] = json!(entry[name].as_u64().unwrap_or(0).saturating_add(count));
        }
    }
    json!(sources)
}

fn totals(control: &Control, population: &Table) -> Value {
    let time = control.population.time.as_str();
    let times: Vec<_> = population
        .rows
        .iter()
        .filter_map(|row| match population.get(row, time) {
            Some(Cell::Time(time)) => Some(*time),
            _ => None,
        })
        .collect();
    let mut days: BTreeMap<String, u64> = BTreeMap::new();
    for time in &times {
        *days.entry(time.date()).or_default() += 1;
    }
    let key = &control.population.key;
    let nulls: BTreeMap<&str, usize> = key
        .iter()
        .map(|name| {
            let null = population.rows.iter().filter(|row| population.get(row, name) == Some(&Cell::Null)).count();
            (name.as_str(), null)
        })
        .collect();
    json!({
        "rows": population.rows.len(),
        "distinct_keys": distinct(population, key),
        "null_key_cells": nulls,
        "time_column": time,
        "min_time": times.iter().min(),
        "max_time": times.iter().max(),
        "rows_by_day": days,
        "hash_total": population.hash_total(),
        "multiset_hash": population.multiset_hash(),
        "hash_method": HASH_METHOD,
    })
}

/// How many different keys the rows have.
#[must_use]
pub fn distinct(table: &Table, key: &[String]) -> u64 {
    let keys: BTreeSet<Vec<String>> = table
        .rows
        .iter()
        .map(|row| key.iter().map(|name| table.get(row, name).map(Cell::text).unwrap_or_default()).collect())
        .collect();
    keys.len() as u64
}
