//! The plan of one logsource: the conditions of all its rules over shared atoms, run on a batch of events.
//!
//! An atom is "some value of this column satisfies one of these predicates". Every distinct value of a column is tried
//! once against all predicates on it; atoms become bitmaps over the rows of the batch; a rule is visited only if atoms
//! it cannot do without were hit, and then only for those rows.

use crate::columns::{Column, Schema, Scratch};
use crate::event::Event;
use crate::intern::Kind;
use crate::matcher::{ColumnMatcher, Hits};
use crate::predicate::{affix, fold};
use crate::rule::AffixKind;

/// Rows evaluated together.
pub(crate) const ROWS: usize = 1_024;
const WORDS: usize = ROWS / 64;

/// A set of rows.
type Rows = [u64; WORDS];

/// A boolean expression over atoms.
#[derive(Clone, Debug)]
pub(crate) enum Expr {
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

/// A rule, compiled.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// Its number in the plan.
    pub(crate) rule: usize,
    pub(crate) expr: Expr,
    /// Sets of atoms of each of which at least one holds wherever the rule does.
    pub(crate) required: Vec<Vec<u32>>,
}

/// The atoms that a column's values can hit.
#[derive(Debug, Default)]
pub(crate) struct ColumnAtoms {
    pub(crate) matcher: ColumnMatcher,
    /// Atoms by leaf of the matcher.
    pub(crate) by_leaf: Vec<Vec<u32>>,
    /// Atoms "the field is there".
    pub(crate) present: Vec<u32>,
}

/// The plan of one logsource.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) schema: Schema,
    pub(crate) columns: Vec<ColumnAtoms>,
    /// How many atoms there are.
    pub(crate) atoms: usize,
    pub(crate) rules: Vec<Compiled>,
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
