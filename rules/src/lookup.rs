//! Lookups: the lines of a search that join an event with a row of a table.
//!
//! One row must satisfy all lines of the search: `field|lookup: table.column` says that the column equals the field,
//! `time|during: table` that the row holds at the time of the event, and `table.column: value` tests another column.

use std::collections::BTreeMap;

use pipeproof_engine::rule::{Condition, Lookup, Predicate};

use crate::detection::{Context, check_field, predicates};
use crate::diagnostic::{Code, Place, Report};
use crate::modifiers;
use crate::value::product;
use crate::yaml::{Key, Node};

/// Most alternatives that the columns of one lookup may be compared with.
const ALTERNATIVES_MAX: usize = 1_000;

/// A table, or one of its columns, that a detection names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableUse {
    pub(crate) table: String,
    pub(crate) column: Option<String>,
    pub(crate) place: Place,
}

type Entry = (Key, Node);

/// Takes the lookups out of a search: what they compile to, and the lines that are none.
pub(crate) fn take<'n>(
    entries: &'n [Entry],
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Option<(Vec<Condition>, Vec<&'n Entry>)> {
    let is_join = |key: &Key| key.text.split('|').skip(1).any(|name| matches!(name, "lookup" | "during"));
    let (joins, mut others): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|(key, _)| is_join(key));
    let mut lookups: BTreeMap<String, Lookup> = BTreeMap::new();
    let mut fine = true;
    for (key, node) in joins {
        fine &= join(key, node, &mut lookups, context, report).is_some();
    }
    let mut alternatives: BTreeMap<String, Vec<Vec<(String, Predicate)>>> = BTreeMap::new();
    let mut problem = false;
    others.retain(|(key, node)| {
        let name = key.text.split('|').next().unwrap_or_default();
        let Some((table, column)) = name.split_once('.').filter(|(table, _)| lookups.contains_key(*table)) else {
            return true;
        };
        let before = alternatives.remove(table).unwrap_or_else(|| vec![Vec::new()]);
        match columns(key, node, table, column, before, context, report) {
            Some(after) => drop(alternatives.insert(table.to_owned(), after)),
            None => problem = true,
        }
        false
    });
    if problem || !fine {
        return None;
    }
    let mut conditions = Vec::new();
    for (table, lookup) in lookups {
        // A row that agrees in one of several ways is as good as several lookups of which one holds.
        let mut ways: Vec<Condition> = alternatives
            .remove(&table)
            .unwrap_or_else(|| vec![Vec::new()])
            .into_iter()
            .map(|columns| Condition::Lookup(Lookup { columns, ..lookup.clone() }))
            .collect();
        conditions.push(if ways.len() == 1 { ways.remove(0) } else { Condition::Or(ways) });
    }
    Some((conditions, others))
}

/// `field|lookup: table.column` or `field|during: table`.
fn join(
    key: &Key,
    node: &Node,
    lookups: &mut BTreeMap<String, Lookup>,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Option<()> {
    let (field, modifier) = key.text.split_once('|').unwrap_or_default();
    if field.is_empty() || !matches!(modifier, "lookup" | "during") {
        let help = Some("write `field|lookup: table.column` or `time|during: table`".to_owned());
        report.add_help(Code::LookupUse, key.place, format!("`{}` is no lookup", key.text), help);
        return None;
    }
    let text = node.text().unwrap_or_default();
    let (table, column) = match (modifier, text.split_once('.')) {
        ("lookup", Some((table, column))) if !table.is_empty() && !column.is_empty() => (table, Some(column)),
        ("during", None) if !text.is_empty() => (text, None),
        _ => {
            let form = if modifier == "lookup" { "a column, as in `jobs.run_id`" } else { "a table, as in `jobs`" };
            report.add(Code::LookupUse, node.place, format!("`{modifier}` takes {form}"));
            return None;
        }
    };
    if field != "time" {
        check_field(field, key.place, context.taxonomy, report);
    }
    let used = TableUse { table: table.to_owned(), column: column.map(str::to_owned), place: node.place };
    context.tables.borrow_mut().push(used);
    let lookup = lookups.entry(table.to_owned()).or_insert_with(|| Lookup {
        table: table.to_owned(),
        keys: Vec::new(),
        columns: Vec::new(),
        during: None,
    });
    match column {
        Some(column) => lookup.keys.push((field.to_owned(), column.to_owned())),
        None if lookup.during.is_some() => {
            report.add(Code::LookupUse, key.place, format!("`during: {table}` stands in this search twice"));
            return None;
        }
        None => lookup.during = Some(field.to_owned()),
    }
    Some(())
}

/// `table.column|modifiers: values`, added to every alternative there is.
fn columns(
    key: &Key,
    node: &Node,
    table: &str,
    column: &str,
    before: Vec<Vec<(String, Predicate)>>,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Option<Vec<Vec<(String, Predicate)>>> {
    let (_, modifiers) = modifiers::read(key, report)?;
    if let Some(name) = ["neq", "fieldref"].into_iter().find(|name| modifiers.has(name)) {
        let help = Some("put it into a search of its own and negate that in the condition".to_owned());
        report.add_help(Code::LookupUse, key.place, format!("`{name}` cannot test the column of a table"), help);
        return None;
    }
    let used = TableUse { table: table.to_owned(), column: Some(column.to_owned()), place: key.place };
    context.tables.borrow_mut().push(used);
    let values: Vec<&Node> = node.list().map_or_else(|| vec![node], |items| items.iter().collect());
    let mut tests = Vec::new();
    for value in values {
        tests.push(predicates(column, value, &modifiers, context, report)?);
    }
    let steps = if modifiers.has("all") { tests } else { vec![tests.into_iter().flatten().collect()] };
    let mut ways = before;
    for step in steps {
        if ways.len().saturating_mul(step.len()) > ALTERNATIVES_MAX {
            let message = format!("the columns of one lookup are compared with more than {ALTERNATIVES_MAX} values");
            report.add(Code::LookupUse, key.place, message);
            return None;
        }
        let joined = product(&ways, &step, |way, test| {
            let mut way = way.clone();
            way.push((column.to_owned(), test.clone()));
            way
        });
        ways = joined.map_err(|message| report.add(Code::LookupUse, key.place, message)).ok()?;
    }
    Some(ways)
}
