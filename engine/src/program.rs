//! The plan of one logsource: the conditions of all its rules over shared atoms, run on a batch of events.
//!
//! An atom is "some value of this column satisfies one of these predicates". Every distinct value of a column is tried
//! once against all predicates on it; atoms become bitmaps over the rows of the batch; a rule is visited only if atoms
//! it cannot do without were hit, and then only for those rows.

use std::collections::BTreeMap;

use crate::columns::{Column, ColumnKey, Schema, Scratch};
use crate::event::Event;
use crate::intern::Kind;
use crate::predicate::{ColumnMatcher, Hits, MatcherBuilder, affix, canonical, fold, reads_object_text};
use crate::rule::{AffixKind, Condition, Predicate, Taxonomy};

/// Rows evaluated together.
pub(crate) const ROWS: usize = 1_024;
const WORDS: usize = ROWS / 64;

/// A set of rows.
type Rows = [u64; WORDS];

/// A rule to compile: its number in the plan, its names, its condition.
#[derive(Debug)]
pub(crate) struct Source<'r> {
    pub(crate) rule: usize,
    pub(crate) taxonomy: Taxonomy,
    pub(crate) condition: &'r Condition,
    /// The value the event's normalised `category` must have, and whether an event without one passes.
    pub(crate) category: Option<(&'r str, bool)>,
}

/// A boolean expression over atoms.
#[derive(Clone, Debug)]
enum Expr {
    True,
    False,
    Atom(u32),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    /// Some value of one column compares to some value of another.
    Ref {
        left: u32,
        right: u32,
        kind: AffixKind,
        cased: bool,
    },
}

#[derive(Debug)]
struct Compiled {
    rule: usize,
    expr: Expr,
    /// Sets of atoms of each of which at least one holds wherever the rule does.
    required: Vec<Vec<u32>>,
}

/// The atoms that a column's values can hit.
#[derive(Debug, Default)]
struct ColumnAtoms {
    matcher: ColumnMatcher,
    /// Atoms by leaf of the matcher.
    by_leaf: Vec<Vec<u32>>,
    /// Atoms "the field is there".
    present: Vec<u32>,
}

/// The plan of one logsource.
#[derive(Debug)]
pub(crate) struct Program {
    schema: Schema,
    columns: Vec<ColumnAtoms>,
    atoms: usize,
    rules: Vec<Compiled>,
}

/// Memory that is used again from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    columns: Scratch,
    hits: Hits,
    /// By atom: 0, or 1 + its place in `bitmaps`.
    slots: Vec<u32>,
    bitmaps: Vec<Rows>,
    touched: Vec<u32>,
}

#[derive(Debug, Default)]
struct ColumnDraft {
    object_text: bool,
    leaves: BTreeMap<String, usize>,
    builder: MatcherBuilder,
    by_leaf: Vec<Vec<u32>>,
    present: Option<u32>,
}

/// Collects columns, predicates and atoms while conditions are compiled.
#[derive(Debug, Default)]
pub(crate) struct Compiler {
    keys: BTreeMap<ColumnKey, usize>,
    columns: Vec<ColumnDraft>,
    /// (column, predicates) → atom.
    atoms: BTreeMap<(usize, Vec<String>), u32>,
    atom_count: u32,
    rules: Vec<Compiled>,
}

impl Compiler {
    /// Adds a rule.
    pub(crate) fn add(&mut self, source: &Source<'_>) {
        let mut expr = self.condition(source.taxonomy, source.condition);
        if let Some((category, absent_passes)) = source.category {
            let column = self.column(&ColumnKey::Normalised(crate::fields::Field::Category));
            let equals = Predicate::Text {
                test: crate::rule::TextTest::Plain { kind: AffixKind::Equals, text: category.to_owned() },
                cased: false,
            };
            let mut passes = vec![Expr::Atom(self.atom(column, &[&equals]))];
            if absent_passes {
                passes.push(Expr::Not(Box::new(self.present(column))));
            }
            expr = Expr::And(vec![expr, Expr::Or(passes)]);
        }
        let required = required(&expr);
        self.rules.push(Compiled { rule: source.rule, expr, required });
    }

    /// The plan of everything added.
    pub(crate) fn build(self) -> Program {
        let mut keys: Vec<_> = self.keys.into_iter().collect();
        keys.sort_by_key(|(_, column)| *column);
        let schema = keys.into_iter().map(|(key, _)| key).zip(self.columns.iter().map(|draft| draft.object_text));
        Program {
            schema: Schema::new(schema.collect()),
            columns: self.columns.into_iter().map(ColumnDraft::build).collect(),
            atoms: self.atom_count as usize,
            rules: self.rules,
        }
    }

    fn column(&mut self, key: &ColumnKey) -> usize {
        if let Some(column) = self.keys.get(key) {
            return *column;
        }
        let column = self.columns.len();
        self.columns.push(ColumnDraft::default());
        self.keys.insert(key.clone(), column);
        column
    }

    fn new_atom(&mut self) -> u32 {
        self.atom_count += 1;
        self.atom_count - 1
    }

    /// The atom "some value of the column satisfies one of the predicates".
    fn atom(&mut self, column: usize, predicates: &[&Predicate]) -> u32 {
        let mut keyed: Vec<_> = predicates.iter().map(|predicate| (canonical(predicate), *predicate)).collect();
        keyed.sort_by(|left, right| left.0.cmp(&right.0));
        keyed.dedup_by(|left, right| left.0 == right.0);
        let key = (column, keyed.iter().map(|(key, _)| key.clone()).collect());
        if let Some(atom) = self.atoms.get(&key) {
            return *atom;
        }
        let atom = self.new_atom();
        self.atoms.insert(key, atom);
        if let Some(draft) = self.columns.get_mut(column) {
            for (key, predicate) in keyed {
                draft.add(key, predicate, atom);
            }
        }
        atom
    }

    fn present(&mut self, column: usize) -> Expr {
        if let Some(atom) = self.columns.get(column).and_then(|draft| draft.present) {
            return Expr::Atom(atom);
        }
        let atom = self.new_atom();
        if let Some(draft) = self.columns.get_mut(column) {
            draft.present = Some(atom);
        }
        Expr::Atom(atom)
    }

    fn condition(&mut self, taxonomy: Taxonomy, condition: &Condition) -> Expr {
        match condition {
            Condition::And(parts) => {
                let parts = parts.iter().map(|part| self.condition(taxonomy, part)).collect();
                all(parts)
            }
            Condition::Or(parts) => self.any(taxonomy, parts),
            Condition::Not(part) => not(self.condition(taxonomy, part)),
            Condition::Field { field, predicate } => {
                let column = self.column(&ColumnKey::of(taxonomy, field));
                self.field(taxonomy, column, predicate)
            }
            Condition::Keyword(predicate) => {
                let column = self.column(&ColumnKey::Everything);
                Expr::Atom(self.atom(column, &[predicate]))
            }
        }
    }

    /// Alternatives on the same column become one atom, so that a list of a thousand values is one test.
    fn any(&mut self, taxonomy: Taxonomy, parts: &[Condition]) -> Expr {
        let mut by_column: BTreeMap<usize, Vec<&Predicate>> = BTreeMap::new();
        let mut alternatives = Vec::new();
        for part in parts {
            let (key, predicate) = match part {
                Condition::Field { field, predicate } => (ColumnKey::of(taxonomy, field), predicate),
                Condition::Keyword(predicate) => (ColumnKey::Everything, predicate),
                other => {
                    alternatives.push(self.condition(taxonomy, other));
                    continue;
                }
            };
            let column = self.column(&key);
            match predicate {
                Predicate::Null | Predicate::Exists(_) | Predicate::FieldRef { .. } => {
                    alternatives.push(self.field(taxonomy, column, predicate));
                }
                test => by_column.entry(column).or_default().push(test),
            }
        }
        for (column, predicates) in by_column {
            alternatives.push(Expr::Atom(self.atom(column, &predicates)));
        }
        any(alternatives)
    }

    fn field(&mut self, taxonomy: Taxonomy, column: usize, predicate: &Predicate) -> Expr {
        match predicate {
            Predicate::Exists(true) => self.present(column),
            Predicate::Exists(false) => not(self.present(column)),
            Predicate::Null => {
                let missing = not(self.present(column));
                any(vec![missing, Expr::Atom(self.atom(column, &[predicate]))])
            }
            Predicate::FieldRef { field, kind, cased } => {
                let right = self.column(&ColumnKey::of(taxonomy, field));
                let (left, right) = (u32::try_from(column), u32::try_from(right));
                match (left, right) {
                    (Ok(left), Ok(right)) => Expr::Ref { left, right, kind: *kind, cased: *cased },
                    _ => Expr::False,
                }
            }
            test => Expr::Atom(self.atom(column, &[test])),
        }
    }
}

impl ColumnDraft {
    fn add(&mut self, key: String, predicate: &Predicate, atom: u32) {
        self.object_text |= reads_object_text(predicate);
        let next = self.leaves.len();
        let leaf = *self.leaves.entry(key).or_insert(next);
        if leaf == next {
            self.by_leaf.push(Vec::new());
            // There cannot be 2^32 predicates in memory.
            self.builder.add(predicate, u32::try_from(leaf).unwrap_or(u32::MAX));
        }
        if let Some(atoms) = self.by_leaf.get_mut(leaf) {
            atoms.push(atom);
        }
    }

    fn build(self) -> ColumnAtoms {
        ColumnAtoms {
            matcher: self.builder.build(),
            by_leaf: self.by_leaf,
            present: self.present.into_iter().collect(),
        }
    }
}

fn all(parts: Vec<Expr>) -> Expr {
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Expr::True => {}
            Expr::False => return Expr::False,
            Expr::And(more) => flat.extend(more),
            other => flat.push(other),
        }
    }
    match flat.len() {
        0 => Expr::True,
        1 => flat.remove(0),
        _ => Expr::And(flat),
    }
}

fn any(parts: Vec<Expr>) -> Expr {
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Expr::False => {}
            Expr::True => return Expr::True,
            Expr::Or(more) => flat.extend(more),
            other => flat.push(other),
        }
    }
    match flat.len() {
        0 => Expr::False,
        1 => flat.remove(0),
        _ => Expr::Or(flat),
    }
}

fn not(part: Expr) -> Expr {
    match part {
        Expr::True => Expr::False,
        Expr::False => Expr::True,
        Expr::Not(inner) => *inner,
        other => Expr::Not(Box::new(other)),
    }
}

/// Sets of atoms of each of which one must hold for the expression to hold; none if it can hold without any.
fn required(expr: &Expr) -> Vec<Vec<u32>> {
    match expr {
        Expr::False => vec![Vec::new()],
        Expr::Atom(atom) => vec![vec![*atom]],
        Expr::And(parts) => parts.iter().flat_map(required).collect(),
        Expr::Or(parts) => {
            let mut union = Vec::new();
            for part in parts {
                match required(part).into_iter().min_by_key(Vec::len) {
                    Some(atoms) => union.extend(atoms),
                    None => return Vec::new(),
                }
            }
            union.sort_unstable();
            union.dedup();
            vec![union]
        }
        Expr::True | Expr::Not(_) | Expr::Ref { .. } => Vec::new(),
    }
}

impl Program {
    /// Evaluates the events at `rows` (at most [`ROWS`] of them) and gives (event, rule) for every match, in no order.
    pub(crate) fn run(
        &self,
        events: &[Event],
        rows: &[usize],
        space: &mut Workspace,
        mut found: impl FnMut(usize, usize),
    ) {
        let batch = rows.iter().take(ROWS).filter_map(|row| events.get(*row));
        let columns = self.schema.extract(batch, &mut space.columns);
        space.clear(self.atoms);
        for (column, atoms) in columns.iter().zip(&self.columns) {
            atoms.scatter(column, rows.len().min(ROWS), space);
        }
        let mut every = [0_u64; WORDS];
        (0..rows.len().min(ROWS)).for_each(|row| set(&mut every, row));
        let batch = Batch { columns: &columns, space, rows: rows.len().min(ROWS) };
        for rule in &self.rules {
            let mut mask = every;
            // The rarest of the sets the rule cannot do without, by what this batch holds.
            if !rule.required.is_empty() {
                let rarest = rule.required.iter().min_by_key(|atoms| batch.weight(atoms));
                mask = [0; WORDS];
                for atom in rarest.into_iter().flatten() {
                    if let Some(rows) = batch.bitmap(*atom) {
                        mask = zip(&mask, rows, |left, right| left | right);
                    }
                }
            }
            if is_empty(&mask) {
                continue;
            }
            let matched = batch.eval(&rule.expr, &mask);
            for row in ones(&matched) {
                if let Some(event) = rows.get(row) {
                    found(*event, rule.rule);
                }
            }
        }
    }
}

impl ColumnAtoms {
    /// Tries every distinct value, and sets the rows that hold it in the bitmaps of the atoms it hits.
    fn scatter(&self, column: &Column, rows: usize, space: &mut Workspace) {
        if column.keys.is_empty() {
            return;
        }
        // Atoms by value: ranges of `atoms`.
        let mut atoms: Vec<u32> = Vec::new();
        let mut ends: Vec<u32> = Vec::with_capacity(column.kinds.len());
        for key in 0..column.kinds.len() {
            let (kind, text) = column.value(u32::try_from(key).unwrap_or(u32::MAX));
            space.hits.start(self.by_leaf.len());
            self.matcher.test(kind, text, &mut space.hits);
            for leaf in &space.hits.leaves {
                atoms.extend(self.by_leaf.get(*leaf as usize).into_iter().flatten());
            }
            ends.push(u32::try_from(atoms.len()).unwrap_or(u32::MAX));
        }
        if atoms.is_empty() && self.present.is_empty() {
            return;
        }
        for row in 0..rows {
            let keys = column.row(row);
            if keys.is_empty() {
                continue;
            }
            for atom in &self.present {
                space.set(*atom, row);
            }
            for key in keys {
                let key = *key as usize;
                let end = ends.get(key).copied().unwrap_or_default() as usize;
                let start =
                    key.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or_default() as usize;
                for atom in atoms.get(start..end).unwrap_or_default() {
                    space.set(*atom, row);
                }
            }
        }
    }
}

impl Workspace {
    fn clear(&mut self, atoms: usize) {
        for atom in self.touched.drain(..) {
            if let Some(slot) = self.slots.get_mut(atom as usize) {
                *slot = 0;
            }
        }
        self.bitmaps.clear();
        if self.slots.len() < atoms {
            self.slots.resize(atoms, 0);
        }
    }

    fn set(&mut self, atom: u32, row: usize) {
        let Some(slot) = self.slots.get_mut(atom as usize) else { return };
        if *slot == 0 {
            self.bitmaps.push([0; WORDS]);
            *slot = u32::try_from(self.bitmaps.len()).unwrap_or_default();
            self.touched.push(atom);
        }
        if let Some(rows) = self.bitmaps.get_mut((*slot as usize).wrapping_sub(1)) {
            set(rows, row);
        }
    }
}

/// One batch while its rules are evaluated.
struct Batch<'b> {
    columns: &'b [Column],
    space: &'b Workspace,
    rows: usize,
}

impl Batch<'_> {
    fn bitmap(&self, atom: u32) -> Option<&Rows> {
        let slot = *self.space.slots.get(atom as usize)? as usize;
        self.space.bitmaps.get(slot.checked_sub(1)?)
    }

    /// In how many rows one of the atoms holds, at most.
    fn weight(&self, atoms: &[u32]) -> u32 {
        let counts = atoms.iter().filter_map(|atom| self.bitmap(*atom));
        counts.map(|rows| rows.iter().map(|word| word.count_ones()).sum::<u32>()).sum()
    }

    /// The rows of `mask` for which the expression holds.
    fn eval(&self, expr: &Expr, mask: &Rows) -> Rows {
        match expr {
            Expr::True => *mask,
            Expr::False => [0; WORDS],
            Expr::Atom(atom) => {
                self.bitmap(*atom).map_or([0; WORDS], |rows| zip(rows, mask, |left, right| left & right))
            }
            Expr::And(parts) => {
                let mut left = *mask;
                for part in parts {
                    left = self.eval(part, &left);
                    if is_empty(&left) {
                        break;
                    }
                }
                left
            }
            Expr::Or(parts) => {
                let mut open = *mask;
                for part in parts {
                    let held = self.eval(part, &open);
                    open = zip(&open, &held, |left, right| left & !right);
                    if is_empty(&open) {
                        break;
                    }
                }
                zip(mask, &open, |left, right| left & !right)
            }
            Expr::Not(part) => {
                let held = self.eval(part, mask);
                zip(mask, &held, |left, right| left & !right)
            }
            Expr::Ref { left, right, kind, cased } => {
                let mut held = [0; WORDS];
                let columns = self.columns.get(*left as usize).zip(self.columns.get(*right as usize));
                if let Some((left, right)) = columns {
                    for row in ones(mask).filter(|row| *row < self.rows) {
                        if refers(left, right, row, *kind, *cased) {
                            set(&mut held, row);
                        }
                    }
                }
                held
            }
        }
    }
}

/// Whether some value of `left` in this row compares to some value of `right` in this row.
fn refers(left: &Column, right: &Column, row: usize, kind: AffixKind, cased: bool) -> bool {
    let scalars = |column: &Column| -> Vec<String> {
        let values = column.row(row).iter().map(|key| column.value(*key));
        let scalars = values.filter(|(kind, _)| matches!(kind, Kind::Text | Kind::Number | Kind::Bool));
        scalars.map(|(_, text)| if cased { text.to_owned() } else { fold(text).into_owned() }).collect()
    };
    let others = scalars(right);
    !others.is_empty() && scalars(left).iter().any(|text| others.iter().any(|other| affix(kind, text, other)))
}

fn set(rows: &mut Rows, row: usize) {
    if let Some(word) = rows.get_mut(row / 64) {
        *word |= 1 << (row % 64);
    }
}

fn zip(left: &Rows, right: &Rows, op: impl Fn(u64, u64) -> u64) -> Rows {
    let mut out = [0; WORDS];
    for ((to, left), right) in out.iter_mut().zip(left).zip(right) {
        *to = op(*left, *right);
    }
    out
}

fn is_empty(rows: &Rows) -> bool {
    rows.iter().all(|word| *word == 0)
}

fn ones(rows: &Rows) -> impl Iterator<Item = usize> + '_ {
    rows.iter().enumerate().flat_map(|(index, word)| {
        let mut left = *word;
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros() as usize;
            left = left.checked_sub(1)? & left;
            Some(index * 64 + bit)
        })
    })
}
