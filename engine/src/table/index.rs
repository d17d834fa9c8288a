//! Finds rows by the values of their columns and by the time they hold, without looking at the others.
//!
//! Rows with equal values are sorted by class of length, then by begin. A row of a class lasts less than the class's
//! length, so the rows that may hold at an instant are a short range of each class: for every row looked at in vain
//! there is room for no more than one that could have been right.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::texts::Texts;
use crate::event::EventId;
use crate::record::Position;
use crate::time::Timestamp;

/// What names a row: when it opened, and by which event.
pub(super) type RowId = (Timestamp, EventId);

const FIRST: EventId = EventId { position: Position { partition: 0, index: 0 }, sub: 0 };
const LAST: EventId = EventId { position: Position { partition: u32::MAX, index: u64::MAX }, sub: u32::MAX };

/// From this class on rows last longer (35,000 years) than time can be counted.
const ENDLESS: u8 = 40;

/// Up to how many rows with the same values are a list: most have one, and the node of a tree has room for eleven.
const FEW: usize = 16;

/// A row with its class.
type Entry = (u8, Timestamp, EventId);

/// Rows by class, begin and event.
#[derive(Debug)]
enum Classed {
    /// Sorted.
    Few(Vec<Entry>),
    Many(BTreeSet<Entry>),
}

impl Default for Classed {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Classed {
    fn insert(&mut self, entry: Entry) {
        match self {
            Self::Many(tree) => {
                tree.insert(entry);
            }
            Self::Few(list) => {
                let Err(place) = list.binary_search(&entry) else { return };
                list.reserve_exact(1);
                list.insert(place, entry);
                if list.len() > FEW {
                    *self = Self::Many(std::mem::take(list).into_iter().collect());
                }
            }
        }
    }

    fn remove(&mut self, entry: &Entry) {
        match self {
            Self::Many(tree) => {
                tree.remove(entry);
            }
            Self::Few(list) => {
                if let Ok(place) = list.binary_search(entry) {
                    list.remove(place);
                }
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Many(tree) => tree.len(),
            Self::Few(list) => list.len(),
        }
    }

    /// The first one from here on.
    fn first_from(&self, from: Entry) -> Option<Entry> {
        match self {
            Self::Many(tree) => tree.range(from..).next().copied(),
            Self::Few(list) => list.get(list.partition_point(|entry| *entry < from)).copied(),
        }
    }

    /// Whether one of these, the last first, is accepted.
    fn any(&self, from: Entry, to: Entry, mut accept: impl FnMut(RowId) -> bool) -> bool {
        let mut accept = |(_, time, event): &Entry| accept((*time, *event));
        match self {
            Self::Many(tree) => tree.range(from..=to).rev().any(&mut accept),
            Self::Few(list) => {
                let (first, end) =
                    (list.partition_point(|entry| *entry < from), list.partition_point(|entry| *entry <= to));
                list.get(first..end).unwrap_or_default().iter().rev().any(&mut accept)
            }
        }
    }
}

/// Rows by the values of some of their columns.
#[derive(Debug, Default)]
pub(super) struct Index(BTreeMap<(u16, Texts), Classed>);

/// What a search is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The row must not end before.
    pub(super) earliest: Timestamp,
    /// The row must not begin after.
    pub(super) latest: Timestamp,
    /// Rows may have to be taken for as long as this although they ended sooner.
    pub(super) at_least: Duration,
}

/// The class of a row: it lasts less than 2^class seconds.
fn class(from: Timestamp, to: Timestamp) -> u8 {
    let secs = u64::try_from(to.micros_since(from)).unwrap_or_default() / 1_000_000;
    u8::try_from(u64::BITS - secs.leading_zeros()).unwrap_or(ENDLESS)
}

impl Index {
    pub(super) fn insert(&mut self, signature: u16, values: Texts, row: RowId, to: Timestamp) {
        self.0.entry((signature, values)).or_default().insert((class(row.0, to), row.0, row.1));
    }

    pub(super) fn remove(&mut self, signature: u16, values: Texts, row: RowId, to: Timestamp) {
        let name = (signature, values);
        if let Some(rows) = self.0.get_mut(&name) {
            rows.remove(&(class(row.0, to), row.0, row.1));
            if rows.len() == 0 {
                self.0.remove(&name);
            }
        }
    }

    /// Whether a row with these values that may hold within the span is accepted.
    pub(super) fn any(&self, signature: u16, values: Texts, span: Span, mut accept: impl FnMut(RowId) -> bool) -> bool {
        let Some(rows) = self.0.get(&(signature, values)) else { return false };
        let mut from = 0;
        while let Some((class, ..)) = rows.first_from((from, Timestamp::MIN, FIRST)) {
            let first = if class >= ENDLESS {
                Timestamp::MIN
            } else {
                span.earliest.minus(Duration::from_secs(1 << class).max(span.at_least))
            };
            if first <= span.latest && rows.any((class, first, FIRST), (class, span.latest, LAST), &mut accept) {
                return true;
            }
            match class.checked_add(1) {
                Some(next) => from = next,
                None => break,
            }
        }
        false
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.values().map(Classed::len).sum()
    }
}
