//! Tables as the plan knows them: which rules feed them, which look things up in them, and how long that takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::PlanError;
use crate::lookup::CompiledLookup;
use crate::rule::{Condition, DetectionRule, Lookup, Rule, Table, TableRows};
use crate::table::{ENTRIES_MAX, Edge, Rows, Shape, Texts};
use crate::time::Timestamp;

/// Columns of a written-down table that say when a row holds.
const VALID: [&str; 2] = ["valid_from", "valid_to"];

/// What the plan works out about tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// By table: what is settled about its rows.
    pub(super) shapes: Vec<Arc<Shape>>,
    /// By table: its rows, if they are written down.
    pub(super) given: Vec<Option<Rows>>,
    /// By table: the rules that open and close its rows.
    pub(super) feeders: Vec<BTreeSet<usize>>,
    /// By rule: the tables it feeds.
    pub(super) feeds: Vec<Vec<(usize, Edge)>>,
    /// By rule: its lookups, in the order of its condition.
    pub(super) lookups: Vec<Vec<CompiledLookup>>,
}

impl Tables {
    /// Works out tables. `by_name` gives the number of a rule.
    pub(super) fn compile(
        rules: &[Rule],
        tables: &[Table],
        by_name: &BTreeMap<&str, usize>,
    ) -> Result<Self, PlanError> {
        let mut compiled = Self { feeds: rules.iter().map(|_| Vec::new()).collect(), ..Self::default() };
        let mut shapes: Vec<Shape> = Vec::new();
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        for (number, table) in tables.iter().enumerate() {
            if numbers.insert(&table.name, number).is_some() {
                return Err(PlanError::Duplicate(table.name.clone()));
            }
            shapes.push(shape(table));
            let feeders = compiled.feeders_of(number, table, by_name)?;
            compiled.feeders.push(feeders);
        }
        for rule in rules {
            let mut lookups = Vec::new();
            if let Rule::Detection(rule) = rule {
                compile_lookups(rule, &rule.condition, &numbers, &mut shapes, &mut lookups)?;
            }
            compiled.lookups.push(lookups);
        }
        let sharers = shapes.len();
        shapes.iter_mut().for_each(|shape| shape.share_with(sharers));
        compiled.shapes = shapes.into_iter().map(Arc::new).collect();
        for (table, shape) in tables.iter().zip(&compiled.shapes) {
            compiled.given.push(given(table, shape)?);
        }
        Ok(compiled)
    }

    fn feeders_of(
        &mut self,
        number: usize,
        table: &Table,
        by_name: &BTreeMap<&str, usize>,
    ) -> Result<BTreeSet<usize>, PlanError> {
        let TableRows::Derived { open, close, .. } = &table.rows else { return Ok(BTreeSet::new()) };
        let mut feeders = BTreeSet::new();
        for (names, edge) in [(open, Edge::Open), (close, Edge::Close)] {
            for name in names {
                let unknown = || PlanError::UnknownFeeder { table: table.name.clone(), rule: name.clone() };
                let rule = *by_name.get(name.as_str()).ok_or_else(unknown)?;
                feeders.insert(rule);
                if let Some(feeds) = self.feeds.get_mut(rule) {
                    feeds.push((number, edge));
                }
            }
        }
        Ok(feeders)
    }

    /// The rules whose matches must be known before this rule's lookups can be answered.
    pub(super) fn needs(&self, rule: usize) -> BTreeSet<usize> {
        let lookups = self.lookups.get(rule).into_iter().flatten();
        lookups.filter_map(|lookup| self.feeders.get(lookup.table)).flatten().copied().collect()
    }

    /// How long after its time a rule's lookups can be answered, given how long each feeder takes.
    pub(super) fn lag(&self, rule: usize, of: impl Fn(usize) -> Duration) -> Duration {
        let wait = |lookup: &CompiledLookup| {
            let grace = self.shapes.get(lookup.table).map_or(Duration::ZERO, |shape| shape.grace);
            let feeders = self.feeders.get(lookup.table).into_iter().flatten();
            grace.saturating_add(feeders.map(|feeder| of(*feeder)).max().unwrap_or_default())
        };
        self.lookups.get(rule).into_iter().flatten().map(wait).max().unwrap_or_default()
    }
}

fn shape(table: &Table) -> Shape {
    match &table.rows {
        TableRows::Derived { columns, max_open, retain, .. } => Shape {
            columns: columns.keys().cloned().collect(),
            signatures: Vec::new(),
            max_open: *max_open,
            retain: *retain,
            grace: table.grace,
            entries_max: ENTRIES_MAX,
        },
        TableRows::Given(rows) => {
            let names: BTreeSet<&String> = rows.iter().flat_map(BTreeMap::keys).collect();
            let columns = names.into_iter().filter(|name| !VALID.contains(&name.as_str())).cloned().collect();
            Shape { columns, grace: table.grace, ..Shape::default() }
        }
    }
}

fn given(table: &Table, shape: &Arc<Shape>) -> Result<Option<Rows>, PlanError> {
    let TableRows::Given(rows) = &table.rows else { return Ok(None) };
    let mut read = Vec::with_capacity(rows.len());
    for row in rows {
        let time = |column: &str, otherwise: Timestamp| match row.get(column) {
            None => Ok(otherwise),
            Some(text) => Timestamp::parse(text).ok_or_else(|| PlanError::RowTime {
                table: table.name.clone(),
                column: column.to_owned(),
                text: text.clone(),
            }),
        };
        let (from, to) = (time(VALID[0], Timestamp::MIN)?, time(VALID[1], Timestamp::MAX)?);
        // A row that ends before it begins never holds.
        if from <= to {
            read.push((from, to, Texts::of(shape.columns.iter().map(|name| row.get(name).map(String::as_str)))));
        }
    }
    Ok(Some(Rows::given(Arc::clone(shape), read)))
}

fn compile_lookups(
    rule: &DetectionRule,
    condition: &Condition,
    numbers: &BTreeMap<&str, usize>,
    shapes: &mut [Shape],
    lookups: &mut Vec<CompiledLookup>,
) -> Result<(), PlanError> {
    match condition {
        Condition::And(parts) | Condition::Or(parts) => {
            parts.iter().try_for_each(|part| compile_lookups(rule, part, numbers, shapes, lookups))
        }
        Condition::Not(part) => compile_lookups(rule, part, numbers, shapes, lookups),
        Condition::Field { .. } | Condition::Keyword(_) => Ok(()),
        Condition::Lookup(lookup) => {
            lookups.push(compile_lookup(rule, lookup, numbers, shapes)?);
            Ok(())
        }
    }
}

fn compile_lookup(
    rule: &DetectionRule,
    lookup: &Lookup,
    numbers: &BTreeMap<&str, usize>,
    shapes: &mut [Shape],
) -> Result<CompiledLookup, PlanError> {
    let unknown = || PlanError::UnknownTable { rule: rule.meta.id.clone(), table: lookup.table.clone() };
    let table = *numbers.get(lookup.table.as_str()).ok_or_else(unknown)?;
    let shape = shapes.get_mut(table).ok_or_else(unknown)?;
    let Shape { columns, signatures, .. } = shape;
    let column = |name: &str| {
        let place = columns.iter().position(|column| column == name)?;
        u16::try_from(place).ok()
    };
    let signature = |keys: Vec<u16>| {
        let place = signatures.iter().position(|known| *known == keys).unwrap_or_else(|| {
            signatures.push(keys);
            signatures.len() - 1
        });
        u16::try_from(place).unwrap_or(u16::MAX)
    };
    CompiledLookup::new(lookup, table, column, signature).map_err(|column| PlanError::UnknownColumn {
        rule: rule.meta.id.clone(),
        table: lookup.table.clone(),
        column,
    })
}
