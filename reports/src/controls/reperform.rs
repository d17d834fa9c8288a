//! Runs the queries of a pack again and takes the totals of what comes out, for a verifier to compare.
//!
//! It trusts nothing in the pack but its queries and times, and does not compare: that is the verifier's part.

use std::collections::BTreeMap;

use pipeproof_engine::time::Timestamp;
use serde::Deserialize;

use super::outcome::Period;
use super::render::read_query_sql;
use super::run::Facts;
use crate::pack::table::Totals;

/// What running a query again gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Again {
    /// Path below `data/` of the CSV that holds the rows of the first time.
    pub table: String,
    /// Totals of the rows now, or why there are none.
    pub outcome: Result<Totals, String>,
}

#[derive(Deserialize)]
struct Times {
    #[serde(rename = "P0")]
    from: Timestamp,
    #[serde(rename = "P1")]
    to: Timestamp,
    #[serde(rename = "AS_OF")]
    as_of: Timestamp,
}

/// Runs both queries of every control test among `files` (path below `data/` → bytes) over `facts`.
///
/// Open the facts as of [`as_of`] where they hold more than the pack does.
pub async fn reperform<F: Facts>(facts: &F, files: &BTreeMap<String, Vec<u8>>) -> Vec<Again> {
    let mut done = Vec::new();
    for (path, query) in files {
        let Some(folder) = path.strip_suffix("/query.sql").filter(|path| path.starts_with("10_controls/")) else {
            continue;
        };
        let read = || {
            let times = files.get(&format!("{folder}/params.json")).ok_or("there is no params.json beside it")?;
            let times: Times = serde_json::from_slice(times).map_err(|_| "params.json does not say the period")?;
            let text = std::str::from_utf8(query).map_err(|_| "query.sql is not text")?;
            let queries = read_query_sql(text).ok_or("query.sql does not hold two queries")?;
            Ok((Period { from: times.from, to: times.to, as_of: times.as_of }, queries))
        };
        let read: Result<_, &str> = read();
        let tables = [format!("{folder}/population.csv"), format!("{folder}/exceptions.csv")];
        match read {
            Err(reason) => {
                done.extend(tables.map(|table| Again { table, outcome: Err(format!("{path}: {reason}")) }));
            }
            Ok((period, queries)) => {
                for (table, sql) in tables.into_iter().zip([queries.population, queries.exceptions]) {
                    let outcome = facts.query(&sql, &period).await.map_err(|error| error.to_string());
                    let outcome =
                        outcome.map(|rows| Totals { rows: rows.rows.len() as u64, hash_total: rows.hash_total() });
                    done.push(Again { table, outcome });
                }
            }
        }
    }
    done
}

/// The state of knowledge that a pack's control tests were run with, if they agree on one.
#[must_use]
pub fn as_of(files: &BTreeMap<String, Vec<u8>>) -> Option<Timestamp> {
    let params = files.iter().filter(|(path, _)| path.starts_with("10_controls/") && path.ends_with("/params.json"));
    let mut times = params.map(|(_, bytes)| serde_json::from_slice::<Times>(bytes).ok().map(|times| times.as_of));
    let first = times.next()??;
    times.all(|time| time == Some(first)).then_some(first)
}
