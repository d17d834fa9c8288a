//! From conditions to a program: fields become columns, predicates become atoms shared between rules, and of each rule
//! it is worked out which atoms it cannot do without.

use std::collections::{BTreeMap, BTreeSet};

use crate::columns::{ColumnKey, Schema};
use crate::fields::Field;
use crate::keywords::{self, KeywordFilter};
use crate::matcher::MatcherBuilder;
use crate::predicate::{canonical, literal, reads_object_text};
use crate::program::{ColumnAtoms, Compiled, Expr, Program};
use crate::rule::{AffixKind, Condition, Predicate, Taxonomy, TextTest};
use crate::spelling::Spelling;

/// A rule to compile: its number in the plan, its names, its condition.
#[derive(Debug)]
pub(crate) struct Source<'r> {
    pub(crate) rule: usize,
    pub(crate) taxonomy: Taxonomy,
    pub(crate) condition: &'r Condition,
    /// The value the event's normalised `category` must have, and whether an event without one passes.
    pub(crate) category: Option<(&'r str, bool)>,
}

#[derive(Debug, Default)]
struct ColumnDraft {
    object_text: bool,
    leaves: BTreeMap<String, usize>,
    builder: MatcherBuilder,
    by_leaf: Vec<Vec<u32>>,
    present: Option<u32>,
    referenced: bool,
}

/// Collects columns, predicates and atoms while conditions are compiled.
#[derive(Debug, Default)]
pub(crate) struct Compiler {
    /// Those of the events it is for.
    spelling: Spelling,
    keys: BTreeMap<ColumnKey, usize>,
    columns: Vec<ColumnDraft>,
    /// (column, predicates) → atom.
    atoms: BTreeMap<(usize, Vec<String>), u32>,
    atom_count: u32,
    /// Of the atoms on keywords: the part of each keyword that can be looked for beforehand.
    keywords: BTreeMap<u32, Vec<Option<String>>>,
    rules: Vec<Compiled>,
}

impl Compiler {
    /// A compiler for events whose native names are these.
    pub(crate) fn new(spelling: Spelling) -> Self {
        Self { spelling, ..Self::default() }
    }

    /// Adds a rule.
    pub(crate) fn add(&mut self, source: &Source<'_>) {
        let mut expr = self.condition(source.taxonomy, source.condition);
        if let Some((category, absent_passes)) = source.category {
            let column = self.column(&ColumnKey::Normalised(Field::Category));
            let equals = Predicate::Text {
                test: TextTest::Plain { kind: AffixKind::Equals, text: category.to_owned() },
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

    /// What tells events apart in which no keyword can be; `None` if nothing does.
    fn filter(&self) -> Option<KeywordFilter> {
        let mut wanted: BTreeMap<String, bool> = BTreeMap::new();
        for rule in &self.rules {
            let telling = self.telling(&rule.expr)?;
            let decides = self.are_all(&rule.expr, &telling);
            for part in telling {
                wanted.entry(part).and_modify(|known| *known &= decides).or_insert(decides);
            }
        }
        (!self.keywords.is_empty()).then(|| KeywordFilter::new(wanted))
    }

    /// Whether every keyword of the expression has its part among these.
    fn are_all(&self, expr: &Expr, parts: &BTreeSet<String>) -> bool {
        match expr {
            Expr::And(inner) | Expr::Or(inner) => inner.iter().all(|inner| self.are_all(inner, parts)),
            Expr::Not(inner) => self.are_all(inner, parts),
            Expr::Atom(atom) => {
                let mut own = self.keywords.get(atom).into_iter().flatten();
                own.all(|part| part.as_ref().is_some_and(|part| parts.contains(part)))
            }
            Expr::True | Expr::False | Expr::Ref { .. } => true,
        }
    }

    /// Parts of keywords: an event with none of them may be judged as if it had no keyword at all. `None` if there are no
    /// such parts.
    fn telling(&self, expr: &Expr) -> Option<BTreeSet<String>> {
        match expr {
            Expr::And(parts) => {
                let all = parts.iter().map(|part| self.telling(part)).collect::<Option<Vec<_>>>();
                rarest(all.map(|all| all.into_iter().flatten().collect()).into_iter().chain(self.needed(expr)))
            }
            Expr::Or(parts) => {
                let all = parts.iter().map(|part| self.telling(part)).collect::<Option<Vec<_>>>()?;
                Some(all.into_iter().flatten().collect())
            }
            Expr::Not(part) => self.telling(part),
            Expr::Atom(atom) if self.keywords.contains_key(atom) => self.needed(expr),
            Expr::Atom(_) | Expr::True | Expr::False | Expr::Ref { .. } => Some(BTreeSet::new()),
        }
    }

    /// Parts of keywords without any of which the expression does not hold. `None` if it may.
    fn needed(&self, expr: &Expr) -> Option<BTreeSet<String>> {
        match expr {
            Expr::Atom(atom) => self.keywords.get(atom)?.iter().cloned().collect(),
            Expr::And(parts) => rarest(parts.iter().filter_map(|part| self.needed(part))),
            Expr::Or(parts) => {
                let all = parts.iter().map(|part| self.needed(part)).collect::<Option<Vec<_>>>()?;
                Some(all.into_iter().flatten().collect())
            }
            Expr::False => Some(BTreeSet::new()),
            Expr::True | Expr::Not(_) | Expr::Ref { .. } => None,
        }
    }

    /// The plan of everything added.
    pub(crate) fn build(self) -> Program {
        let filter = self.filter();
        let mut keys: Vec<_> = self.keys.into_iter().collect();
        keys.sort_by_key(|(_, column)| *column);
        let schema = keys.into_iter().map(|(key, _)| key).zip(self.columns.iter().map(|draft| draft.object_text));
        let schema = Schema::new(schema.collect(), self.spelling);
        let columns = self.columns.into_iter().map(ColumnDraft::build).collect();
        Program::new(schema, columns, self.atom_count as usize, self.rules, filter)
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
        if self.keys.get(&ColumnKey::Everything) == Some(&column) {
            let part = |literal: String| keywords::part(&literal).map(str::to_owned);
            let parts = keyed.iter().map(|(_, predicate)| literal(predicate).and_then(part));
            self.keywords.insert(atom, parts.collect());
        }
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
                let column = self.column(&ColumnKey::of(taxonomy, self.spelling, field));
                self.field(taxonomy, column, predicate)
            }
            Condition::Keyword(predicate) => {
                let column = self.column(&ColumnKey::Everything);
                Expr::Atom(self.atom(column, &[predicate]))
            }
            // The plan takes lookups out before it compiles (`Condition::without_lookups`).
            Condition::Lookup(_) => Expr::True,
        }
    }

    /// Alternatives on the same column become one atom, so that a list of a thousand values is one test.
    fn any(&mut self, taxonomy: Taxonomy, parts: &[Condition]) -> Expr {
        let mut by_column: BTreeMap<usize, Vec<&Predicate>> = BTreeMap::new();
        let mut alternatives = Vec::new();
        for part in parts {
            let (key, predicate) = match part {
                Condition::Field { field, predicate } => (ColumnKey::of(taxonomy, self.spelling, field), predicate),
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
                let right = self.column(&ColumnKey::of(taxonomy, self.spelling, field));
                for column in [column, right] {
                    if let Some(draft) = self.columns.get_mut(column) {
                        draft.referenced = true;
                    }
                }
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
            present: self.present,
            referenced: self.referenced,
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

/// The set whose shortest member is longest: it is seen least. None at all is best.
fn rarest(sets: impl Iterator<Item = BTreeSet<String>>) -> Option<BTreeSet<String>> {
    sets.max_by_key(|set| set.iter().map(String::len).min().unwrap_or(usize::MAX))
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
