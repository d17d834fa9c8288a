//! The plan of one logsource: the conditions of all its rules over shared atoms, run on a batch of events.
//!
//! An atom is "some value of this column satisfies one of these predicates". A value is tried once against all
//! predicates on its column, and what it hits is remembered from batch to batch; atoms become bitmaps over the rows of
//! the batch; a rule is visited only if atoms it cannot do without were hit, and then only for those rows.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::columns::{Schema, Sink};
use crate::event::Event;
use crate::intern::{Kind, Known, ValueCache, seed};
use crate::keywords::KeywordFilter;
use crate::matcher::{ColumnMatcher, Hits};
use crate::predicate::{affix, fold};
use crate::reader::Reader;
use crate::rule::AffixKind;

/// Rows evaluated together.
pub(crate) const ROWS: usize = 1_024;
const WORDS: usize = ROWS / 64;
/// Spare memory kept per program: as many as threads match at once, within reason.
const SPARE_MAX: usize = 16;

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
    /// Atom "the field is there".
    pub(crate) present: Option<u32>,
    /// Whether some rule compares its values with another field's.
    pub(crate) referenced: bool,
}

/// The plan of one logsource.
#[derive(Debug)]
pub(crate) struct Program {
    schema: Schema,
    columns: Vec<ColumnAtoms>,
    /// How many atoms there are.
    atoms: usize,
    rules: Vec<Compiled>,
    /// Rules, as indices of `rules`, by the atoms of one of the sets each cannot do without.
    by_atom: Vec<Vec<u32>>,
    /// Rules that may match without any atom.
    always: Vec<u32>,
    keywords: Option<KeywordFilter>,
    /// Memory of batches before this one.
    spaces: Mutex<Vec<Space>>,
}

/// Memory of one program that is used again from batch to batch: the rows of the batch at hand, and what is known of
/// values.
#[derive(Debug)]
pub(crate) struct Space {
    columns: Vec<ColumnSpace>,
    hits: Hits,
    /// Rows so far.
    rows: usize,
    /// By atom: 0, or 1 + its place in `bitmaps`.
    slots: Vec<u32>,
    bitmaps: Vec<Rows>,
    touched: Vec<u32>,
    /// By rule: whether it is among `visits`.
    visited: Vec<bool>,
    visits: Vec<u32>,
    atoms: Vec<u32>,
}

#[derive(Debug)]
struct ColumnSpace {
    known: ValueCache,
    /// Row, and where in `texts` the scalar is, of a column that is compared with another.
    scalars: Vec<(usize, Range<usize>)>,
    texts: String,
}

impl Program {
    pub(crate) fn new(
        schema: Schema,
        columns: Vec<ColumnAtoms>,
        atoms: usize,
        rules: Vec<Compiled>,
        keywords: Option<KeywordFilter>,
    ) -> Self {
        let mut by_atom: Vec<Vec<u32>> = vec![Vec::new(); atoms];
        let mut always = Vec::new();
        for (number, rule) in (0_u32..).zip(&rules) {
            match rule.required.iter().min_by_key(|atoms| atoms.len()) {
                Some(set) => {
                    for atom in set {
                        if let Some(rules) = by_atom.get_mut(*atom as usize) {
                            rules.push(number);
                        }
                    }
                }
                None => always.push(number),
            }
        }
        Self { schema, columns, atoms, rules, by_atom, always, keywords, spaces: Mutex::default() }
    }

    /// What tells events apart in which no keyword of its rules can be.
    pub(crate) const fn keywords(&self) -> Option<&KeywordFilter> {
        self.keywords.as_ref()
    }

    /// Memory to gather a batch in, empty; give it back with [`Program::put_back`].
    pub(crate) fn space(&self) -> Space {
        let spare = self.spaces.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Space {
            columns: self.columns.iter().map(|_| ColumnSpace::new()).collect(),
            hits: Hits::default(),
            rows: 0,
            slots: vec![0; self.atoms],
            bitmaps: Vec::new(),
            touched: Vec::new(),
            visited: vec![false; self.rules.len()],
            visits: Vec::new(),
            atoms: Vec::new(),
        })
    }

    pub(crate) fn put_back(&self, space: Space) {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        if spaces.len() < SPARE_MAX {
            spaces.push(space);
        }
    }

    /// Which fields it reads.
    pub(crate) const fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Adds an event as the next row of a batch: its normalised fields, and what `native` hands on. There must be room
    /// for it, see [`Space::is_full`].
    pub(crate) fn take(&self, event: &Event, space: &mut Space, native: impl FnOnce(&mut Taking<'_>)) {
        let mut taking = Taking { program: self, space };
        self.schema.fields(event, &mut taking);
        native(&mut taking);
        space.rows += 1;
    }

    /// Evaluates the rows taken, gives (row, rule) for every match, in no order, and empties the batch.
    pub(crate) fn evaluate(&self, space: &mut Space, mut found: impl FnMut(usize, usize)) {
        let mut every = [0_u64; WORDS];
        (0..space.rows).for_each(|row| set(&mut every, row));
        for rule in self.always.iter().filter_map(|number| self.rules.get(*number as usize)) {
            let matched = Batch { space }.eval(&rule.expr, &every);
            ones(&matched).for_each(|row| found(row, rule.rule));
        }
        for atom in &space.touched {
            for number in self.by_atom.get(*atom as usize).into_iter().flatten() {
                if let Some(visited) = space.visited.get_mut(*number as usize)
                    && !std::mem::replace(visited, true)
                {
                    space.visits.push(*number);
                }
            }
        }
        for rule in space.visits.iter().filter_map(|number| self.rules.get(*number as usize)) {
            let batch = Batch { space };
            // The rarest of the sets the rule cannot do without, by what this batch holds.
            let rarest = rule.required.iter().min_by_key(|atoms| batch.weight(atoms));
            let mut mask = [0; WORDS];
            for rows in rarest.into_iter().flatten().filter_map(|atom| batch.bitmap(*atom)) {
                mask = zip(&mask, rows, |left, right| left | right);
            }
            if !is_empty(&mask) {
                let matched = batch.eval(&rule.expr, &mask);
                ones(&matched).for_each(|row| found(row, rule.rule));
            }
        }
        space.clear();
    }

    /// Evaluates one event, and gives every rule that matches it.
    pub(crate) fn run(&self, event: &Event, mut found: impl FnMut(usize)) {
        let mut space = self.space();
        self.take(event, &mut space, |taking| {
            let mut reader = Reader::default();
            reader.load(&event.native);
            reader.tape(|tape| tape.into_iter().for_each(|tape| self.schema.native(tape, taking)));
        });
        self.evaluate(&mut space, |_, rule| found(rule));
        self.put_back(space);
    }
}

/// The values of an event on their way into a batch.
#[derive(Debug)]
pub(crate) struct Taking<'t> {
    program: &'t Program,
    space: &'t mut Space,
}

impl Sink for Taking<'_> {
    fn value(&mut self, column: u32, kind: Kind, text: &str) {
        let space = &mut *self.space;
        let row = space.rows;
        let Some(atoms) = self.program.columns.get(column as usize) else { return };
        let Some(own) = space.columns.get_mut(column as usize) else { return };
        if let Some(atom) = atoms.present {
            hit(&mut space.slots, &mut space.bitmaps, &mut space.touched, atom, row);
        }
        if atoms.referenced && matches!(kind, Kind::Text | Kind::Number | Kind::Bool) {
            let start = own.texts.len();
            own.texts.push_str(text);
            own.scalars.push((row, start..own.texts.len()));
        }
        let quick = atoms.matcher.is_quick();
        let known = if quick { Known::Passing } else { own.known.look(kind, text) };
        let hash = match known {
            Known::Hits(known) => {
                for atom in known {
                    hit(&mut space.slots, &mut space.bitmaps, &mut space.touched, *atom, row);
                }
                return;
            }
            Known::Unknown(hash) => Some(hash),
            Known::Passing => None,
        };
        space.hits.start(atoms.by_leaf.len());
        atoms.matcher.test(kind, text, &mut space.hits);
        space.atoms.clear();
        for leaf in &space.hits.leaves {
            space.atoms.extend(atoms.by_leaf.get(*leaf as usize).into_iter().flatten());
        }
        for atom in &space.atoms {
            hit(&mut space.slots, &mut space.bitmaps, &mut space.touched, *atom, row);
        }
        if let Some(hash) = hash {
            own.known.learn(hash, kind, text, &space.atoms);
        }
    }
}

fn hit(slots: &mut [u32], bitmaps: &mut Vec<Rows>, touched: &mut Vec<u32>, atom: u32, row: usize) {
    let Some(slot) = slots.get_mut(atom as usize) else { return };
    if *slot == 0 {
        bitmaps.push([0; WORDS]);
        *slot = u32::try_from(bitmaps.len()).unwrap_or_default();
        touched.push(atom);
    }
    if let Some(rows) = bitmaps.get_mut((*slot as usize).wrapping_sub(1)) {
        set(rows, row);
    }
}

impl ColumnSpace {
    /// The scalars of a row that are compared with another column's.
    fn scalars(&self, row: usize) -> impl Iterator<Item = &str> {
        let from = self.scalars.partition_point(|(other, _)| *other < row);
        let own = self.scalars.iter().skip(from).take_while(move |(other, _)| *other == row);
        own.filter_map(|(_, text)| self.texts.get(text.clone()))
    }

    fn new() -> Self {
        Self { known: ValueCache::new(seed()), scalars: Vec::new(), texts: String::new() }
    }
}

impl Space {
    /// Whether the batch has to be evaluated before another event fits.
    pub(crate) const fn is_full(&self) -> bool {
        self.rows >= ROWS
    }

    fn clear(&mut self) {
        for atom in self.touched.drain(..) {
            if let Some(slot) = self.slots.get_mut(atom as usize) {
                *slot = 0;
            }
        }
        for rule in self.visits.drain(..) {
            if let Some(visited) = self.visited.get_mut(rule as usize) {
                *visited = false;
            }
        }
        self.bitmaps.clear();
        for column in self.columns.iter_mut().filter(|column| !column.scalars.is_empty()) {
            column.scalars.clear();
            column.texts.clear();
        }
        self.rows = 0;
    }
}

/// One batch while its rules are evaluated.
struct Batch<'b> {
    space: &'b Space,
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
                let columns = &self.space.columns;
                if let Some((left, right)) = columns.get(*left as usize).zip(columns.get(*right as usize)) {
                    for row in ones(mask) {
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
fn refers(left: &ColumnSpace, right: &ColumnSpace, row: usize, kind: AffixKind, cased: bool) -> bool {
    let folded = |text| if cased { Cow::Borrowed(text) } else { fold(text) };
    left.scalars(row).any(|text| {
        let text = folded(text);
        right.scalars(row).any(|other| affix(kind, &text, &folded(other)))
    })
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
