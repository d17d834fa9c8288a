//! `sql:` documents: rules that ask the stored events on a schedule.
//!
//! The query is checked here as far as its text tells: one `SELECT` or `WITH`, with both ends of the time it is asked
//! for. Whether the query engine can run it is found out by whoever has one.

use pipeproof_engine::rule::{RuleMeta, SqlRule};

use crate::diagnostic::{Code, Report};
use crate::metadata::{closed, duration_of, text, texts};
use crate::yaml::Node;

/// Longest query, in bytes.
const QUERY_BYTES_MAX: usize = 100_000;

/// Reads the `sql` mapping of a document.
pub(crate) fn read(node: &Node, meta: RuleMeta, report: &mut Report<'_>) -> Option<SqlRule> {
    let before = report.errors();
    if node.map().is_none() {
        report.add(Code::WrongType, node.place, format!("`sql` must be a mapping, not {}", node.kind()));
        return None;
    }
    closed(node, "sql", &["every", "lookback", "key", "query"], report);
    for key in ["every", "lookback", "key", "query"] {
        if node.get(key).is_none() {
            report.add(Code::MissingKey, node.place, format!("the rule's `sql` has no `{key}`"));
        }
    }
    let every = duration_of(node, "every", report);
    let lookback = duration_of(node, "lookback", report);
    for (key, span) in [("every", every), ("lookback", lookback)] {
        if span.is_some_and(|span| span.as_secs() < 1) {
            let place = node.get(key).map_or(node.place, |found| found.place);
            report.add(Code::Sql, place, format!("`{key}` is at least a second"));
        }
    }
    let key = texts(node, "key", report);
    let query = text(node, "query", report);
    if let (Some(query), Some(found)) = (query, node.get("query"))
        && let Err(message) = check(query)
    {
        report.add(Code::Sql, found.place, message);
    }
    if report.errors() > before {
        return None;
    }
    let key = key.into_iter().map(|(column, _)| column).collect();
    Some(SqlRule { meta, every: every?, lookback: lookback?, key, query: query?.trim().to_owned() })
}

/// Whether a text can be the query of a rule, as far as words tell.
fn check(query: &str) -> Result<(), String> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(format!("the query has more than {QUERY_BYTES_MAX} bytes"));
    }
    let code = code(query)?;
    let statement = code.trim().trim_end_matches(';').trim_end();
    if statement.contains(';') {
        return Err("the query holds more than one statement".to_owned());
    }
    let first = statement.split(|char: char| !char.is_ascii_alphabetic()).next().unwrap_or_default();
    if !first.eq_ignore_ascii_case("select") && !first.eq_ignore_ascii_case("with") {
        return Err(format!("the query begins with `{first}`; it must be a SELECT, or a WITH before one"));
    }
    let has = |wanted: &str| {
        let ends = |rest: &str| !rest.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '_');
        statement.match_indices(wanted).any(|(at, _)| statement.get(at + wanted.len()..).is_none_or(ends))
    };
    for parameter in [":from", ":to"] {
        if !has(parameter) {
            return Err(format!("the query does not use `{parameter}`, so it would ask for all time at every run"));
        }
    }
    Ok(())
}

/// A query without comments and without what stands in quotes.
fn code(query: &str) -> Result<String, String> {
    let mut code = String::with_capacity(query.len());
    let mut rest = query;
    while let Some(char) = rest.chars().next() {
        let after = rest.get(char.len_utf8()..).unwrap_or_default();
        let (close, kept) = match char {
            '\'' | '"' => (char.to_string(), " '' "),
            _ if rest.starts_with("--") => ("\n".to_owned(), "\n"),
            _ if rest.starts_with("/*") => ("*/".to_owned(), " "),
            _ => {
                code.push(char);
                rest = after;
                continue;
            }
        };
        code.push_str(kept);
        let inner = if kept == " " { rest.get(2..).unwrap_or_default() } else { after };
        rest = match inner.find(&close) {
            Some(end) => inner.get(end + close.len()..).unwrap_or_default(),
            // A comment may end with the text.
            None if close == "\n" => "",
            None => return Err(format!("the query has no `{close}` to what opens with {char}")),
        };
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_query_over_a_time_is_let_through() {
        for fine in [
            "SELECT 1 FROM events WHERE time BETWEEN :from AND :to",
            "with a AS (select 1) SELECT * FROM a WHERE time >= :from and time<:to ;",
            "-- all; of it\nselect ';' as \"a;b\" /* ; */ where time > :from and time < :to",
            "SELECT 'it''s; fine' WHERE time IN (:from,:to)",
        ] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        for (bad, said) in [
            ("DELETE FROM events WHERE time BETWEEN :from AND :to", "begins with `DELETE`"),
            ("SELECT 1 WHERE :from < :to; DROP TABLE events", "more than one"),
            ("SELECT 1", ":from"),
            ("SELECT :from, ':to'", "`:to`"),
            ("SELECT :from, :tomorrow", "`:to`"),
            ("SELECT 'x :from :to", "no `'`"),
            ("SELECT /* :from :to", "no `*/`"),
            ("", "begins with ``"),
        ] {
            assert!(check(bad).unwrap_err().contains(said), "{bad}: {:?}", check(bad));
        }
    }
}
