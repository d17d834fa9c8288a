//! The rows of a table: what was there, and from when to when.
//!
//! A derived table is what openings and closings say, and nothing else: a row begins when its key is opened and ends at
//! the next closing or opening of the key, at the latest after `max_open`. That does not depend on the order in which
//! they are taken in, so they are taken in as they come; a lookup waits until the watermark has passed what it asks for,
//! and looks at nothing that happened after that. A closing without an opening closes nothing, until the opening comes.
//!
//! At one instant what was open is closed first and what opens then stays open; if nothing was open, the closing belongs
//! to what opens at the same instant, as with a job that is skipped.
//!
//! The table keeps a bounded number of openings and closings, of one key and in all; the oldest are evicted and counted.

mod few;
mod index;
mod texts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::few::Few;
use self::index::{Index, RowId, Span};
pub use self::texts::Texts;
use crate::event::EventId;
use crate::record::Position;
use crate::time::Timestamp;

/// Openings and closings a table keeps at most.
pub const ENTRIES_MAX: usize = 1 << 21;
/// Openings and closings that all tables of a plan together keep at most: each has an equal share.
pub const ENTRIES_IN_ALL: usize = 1 << 22;
/// Openings and closings a table keeps of one key at most.
pub const KEY_ENTRIES_MAX: usize = 4_096;

/// What happens to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Edge {
    /// It begins.
    Open,
    /// It ends.
    Close,
}

/// An opening or closing of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub time: Timestamp,
    /// By which event.
    pub event: EventId,
    /// Which of the two.
    pub edge: Edge,
    /// The key's values.
    pub key: Texts,
    /// The columns' values.
    pub columns: Texts,
}

type Order = (Timestamp, EventId, Edge);

/// What is settled about a table before it has rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Sets of columns, by number, that rows are looked up by.
    pub signatures: Vec<Vec<u16>>,
    /// How long a row that is never closed holds.
    pub max_open: Duration,
    /// How long after its end a row is kept.
    pub retain: Duration,
    /// How far a row's interval is widened.
    pub grace: Duration,
    /// Openings and closings it keeps at most; what is written down does not count.
    pub entries_max: usize,
}

impl Shape {
    /// Keeps to this table's share of what so many tables may keep together.
    pub(crate) fn share_with(&mut self, tables: usize) {
        self.entries_max = (ENTRIES_IN_ALL / tables.max(1)).clamp(1, ENTRIES_MAX);
    }
}

/// A change of a table, as deltas keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// An opening or closing was taken in.
    Put(Entry),
    /// These are gone.
    Gone(Vec<(Timestamp, EventId, Edge)>),
}

/// What is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Query<'q> {
    /// By which of the shape's sets of columns.
    pub signature: u16,
    /// Their values.
    pub values: &'q Texts,
    /// The row must hold at this time, widened by `grace`; `None`: no matter when.
    pub at: Option<Timestamp>,
    /// Nothing that happened more than `grace` after this is looked at.
    pub as_of: Timestamp,
}

/// A row as a lookup sees it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'r> {
    open: &'r Texts,
    close: Option<&'r Texts>,
}

impl<'r> Row<'r> {
    /// The value of a column: as the event that opened the row says it, or else the one that closed it.
    #[must_use]
    pub fn get(&self, column: u16) -> Option<&'r str> {
        let column = usize::from(column);
        self.open.get(column).or_else(|| self.close?.get(column))
    }
}

#[derive(Debug)]
struct Kept {
    key: Arc<Texts>,
    columns: Texts,
}

/// When a row ends, and what closes it then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct End {
    to: Timestamp,
    close: Option<RowId>,
}

#[derive(Debug, Default)]
struct Group {
    opens: Few<End>,
    closes: Few<()>,
}

/// The rows of one table.
#[derive(Debug, Default)]
pub struct Rows {
    shape: Arc<Shape>,
    /// Written down, not derived: known from the beginning.
    given: bool,
    entries: BTreeMap<Order, Kept>,
    groups: BTreeMap<Arc<Texts>, Group>,
    index: Index,
    changes: Vec<Change>,
    evicted: u64,
}

impl Rows {
    /// A derived table without rows.
    #[must_use]
    pub fn new(shape: Arc<Shape>) -> Self {
        Self { shape, ..Self::default() }
    }

    /// A table that is written down: from when to when each row holds, and its columns.
    #[must_use]
    pub fn given(shape: Arc<Shape>, rows: impl IntoIterator<Item = (Timestamp, Timestamp, Texts)>) -> Self {
        let mut table = Self { given: true, ..Self::new(shape) };
        for (number, (from, to, columns)) in rows.into_iter().enumerate() {
            let event = EventId { position: Position { partition: 0, index: number as u64 }, sub: 0 };
            // Every row for itself: none ends another.
            let key = Arc::new(Texts::of([Some(number.to_string().as_str())]));
            table.entries.insert((from, event, Edge::Open), Kept { key: Arc::clone(&key), columns });
            table.groups.entry(key).or_default().opens.set((from, event), End { to, close: None });
            table.index_row((from, event), End { to, close: None }, true);
        }
        table
    }

    /// Openings and closings kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Openings and closings that were dropped because a bound was reached, since the process started.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Takes in an opening or closing.
    pub fn feed(&mut self, entry: Entry) {
        self.changes.push(Change::Put(entry.clone()));
        let key = self.put(entry);
        let mut gone = Vec::new();
        while self.groups.get(&key).is_some_and(|group| group.opens.len() + group.closes.len() > KEY_ENTRIES_MAX) {
            let oldest = self.groups.get(&key).and_then(|group| {
                let open = group.opens.first().map(|row| (row.0, row.1, Edge::Open));
                let close = group.closes.first().map(|row| (row.0, row.1, Edge::Close));
                open.into_iter().chain(close).min()
            });
            let Some(oldest) = oldest else { break };
            gone.push(oldest);
            self.drop_entry(oldest);
        }
        while self.entries.len() > self.shape.entries_max
            && let Some((oldest, _)) = self.entries.first_key_value()
        {
            let oldest = *oldest;
            gone.push(oldest);
            self.drop_entry(oldest);
        }
        self.evicted += gone.len() as u64;
        if !gone.is_empty() {
            self.changes.push(Change::Gone(gone));
        }
    }

    /// Makes the rows that hold from `time` on those that are given, by key and columns: what is new or other opens, and
    /// what is missing closes if they are all there are. `event` names what said so, and numbers the changes.
    pub fn agree(&mut self, time: Timestamp, event: EventId, given: &BTreeMap<Texts, Texts>, all: bool) {
        let held = |(key, group): (&Arc<Texts>, &Group)| {
            let (open, _) = group.opens.split((time, event)).0.last().filter(|(_, end)| end.to > time)?;
            Some((Arc::clone(key), *open))
        };
        let held: BTreeMap<Arc<Texts>, RowId> = self.groups.iter().filter_map(held).collect();
        let mut entries: Vec<(Edge, Texts, Texts)> = Vec::new();
        for (key, columns) in given {
            let row = held.get(key).and_then(|row| self.entries.get(&(row.0, row.1, Edge::Open)));
            if row.is_none_or(|row| row.columns != *columns) {
                entries.push((Edge::Open, key.clone(), columns.clone()));
            }
        }
        let gone = held.into_keys().filter(|key| all && !given.contains_key(key));
        entries.extend(gone.map(|key| (Edge::Close, (*key).clone(), Texts::default())));
        for ((edge, key, columns), sub) in entries.into_iter().zip(0..) {
            self.feed(Entry { time, event: EventId { sub, ..event }, edge, key, columns });
        }
    }

    /// Lets go of rows that no lookup as of `oldest` or later can see.
    pub fn sweep(&mut self, oldest: Timestamp) {
        let cut = oldest.minus(self.shape.retain).minus(self.shape.grace);
        let over = self.entries.range(..(cut, EventId::default(), Edge::Open)).filter(|((time, event, edge), kept)| {
            let end = self.groups.get(&kept.key).and_then(|group| group.opens.get((*time, *event)));
            *edge == Edge::Close || end.is_none_or(|end| end.to < cut)
        });
        let gone: Vec<Order> = over.map(|(order, _)| *order).collect();
        for order in &gone {
            self.drop_entry(*order);
        }
        if !gone.is_empty() {
            self.changes.push(Change::Gone(gone));
        }
    }

    /// Forgets openings and closings by events that `of` says.
    pub fn forget(&mut self, of: impl Fn(EventId) -> bool) {
        if self.given {
            return;
        }
        let gone: Vec<Order> = self.entries.keys().filter(|(_, event, _)| of(*event)).copied().collect();
        for order in &gone {
            self.drop_entry(*order);
        }
        if !gone.is_empty() {
            self.changes.push(Change::Gone(gone));
        }
    }

    /// Whether some row answers the query and passes the test.
    pub fn any(&self, query: &Query<'_>, mut test: impl FnMut(Row<'_>) -> bool) -> bool {
        let Shape { max_open, retain, grace, .. } = *self.shape;
        let horizon = if self.given { Timestamp::MAX } else { query.as_of.plus(grace) };
        let kept = query.as_of.minus(retain).minus(grace);
        let (earliest, latest) = match query.at {
            Some(at) => (at.minus(grace), at.plus(grace).min(horizon)),
            None => (if self.given { Timestamp::MIN } else { kept }, horizon),
        };
        // What ended later than we may look holds as far as we can see, and then it may be found by no shorter end.
        let unseen = earliest > horizon;
        let span = Span { earliest, latest, at_least: if unseen { max_open } else { Duration::ZERO } };
        self.index.any(query.signature, query.values.clone(), span, |row| {
            let Some(kept_row) = self.entries.get(&(row.0, row.1, Edge::Open)) else { return false };
            let end = self.groups.get(&kept_row.key).and_then(|group| group.opens.get(row)).copied();
            let Some(end) = end else { return false };
            let (to, close) = if end.to > horizon { (row.0.plus(max_open), None) } else { (end.to, end.close) };
            if to < earliest || (!self.given && to < kept) {
                return false;
            }
            let close = close.and_then(|close| self.entries.get(&(close.0, close.1, Edge::Close)));
            let view = Row { open: &kept_row.columns, close: close.map(|close| &close.columns) };
            // The index also knows rows by what their closing adds.
            let agrees = self.signature(query.signature).iter().map(|column| view.get(*column)).eq(query.values.iter());
            agrees && test(view)
        })
    }

    fn signature(&self, number: u16) -> &[u16] {
        self.shape.signatures.get(usize::from(number)).map_or(&[], Vec::as_slice)
    }

    /// The changes since they were last taken.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// All of it as changes from nothing, for a snapshot.
    pub fn as_changes(&self) -> Vec<Change> {
        let put = |((time, event, edge), kept): (&Order, &Kept)| {
            let (key, columns) = ((*kept.key).clone(), kept.columns.clone());
            Change::Put(Entry { time: *time, event: *event, edge: *edge, key, columns })
        };
        self.entries.iter().map(put).collect()
    }

    /// Repeats a change, as restoring does.
    pub fn restore(&mut self, change: Change) {
        match change {
            Change::Put(entry) => {
                self.put(entry);
            }
            Change::Gone(gone) => gone.into_iter().for_each(|order| self.drop_entry(order)),
        }
    }

    fn put(&mut self, entry: Entry) -> Arc<Texts> {
        let Entry { time, event, edge, key, columns } = entry;
        let key = match self.groups.get_key_value(&key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::new(key),
        };
        let group = self.groups.entry(Arc::clone(&key)).or_default();
        match edge {
            Edge::Open => {
                if group.opens.get((time, event)).is_none() {
                    group.opens.set((time, event), End { to: Timestamp::MIN, close: None });
                }
            }
            Edge::Close => {
                group.closes.set((time, event), ());
            }
        }
        self.entries.entry((time, event, edge)).or_insert(Kept { key: Arc::clone(&key), columns });
        self.settle(&key, time);
        key
    }

    fn drop_entry(&mut self, order: Order) {
        let (time, event, edge) = order;
        let Some(key) = self.entries.get(&order).map(|kept| Arc::clone(&kept.key)) else { return };
        if let Some(group) = self.groups.get_mut(&key) {
            match edge {
                Edge::Open => {
                    if let Some(end) = group.opens.remove((time, event)) {
                        self.index_row((time, event), end, false);
                    }
                }
                Edge::Close => {
                    group.closes.remove((time, event));
                }
            }
        }
        self.settle(&key, time);
        self.entries.remove(&order);
        if self.groups.get(&key).is_some_and(|group| group.opens.is_empty() && group.closes.is_empty()) {
            self.groups.remove(&key);
        }
    }

    /// Works out anew how the rows of a key end, after something changed at `time`.
    fn settle(&mut self, key: &Arc<Texts>, time: Timestamp) {
        let Some(group) = self.groups.get(key) else { return };
        for (row, end) in group.ends(time, self.shape.max_open) {
            let Some(old) = self.groups.get_mut(key).and_then(|group| group.opens.set(row, end)) else { continue };
            if old != end {
                // A row that is new is not in the index, and taking it out does nothing.
                self.index_row(row, old, false);
                self.index_row(row, end, true);
            }
        }
    }

    /// Puts a row into the index or takes it out.
    fn index_row(&mut self, row: RowId, end: End, insert: bool) {
        let Some(open) = self.entries.get(&(row.0, row.1, Edge::Open)) else { return };
        let close = end.close.and_then(|close| self.entries.get(&(close.0, close.1, Edge::Close)));
        let early = Row { open: &open.columns, close: None };
        let late = Row { open: &open.columns, close: close.map(|close| &close.columns) };
        for (number, signature) in self.shape.signatures.iter().enumerate() {
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            let read = |view: Row<'_>| -> Option<Texts> {
                let values: Option<Vec<&str>> = signature.iter().map(|column| view.get(*column)).collect();
                values.map(|values| Texts::of(values.into_iter().map(Some)))
            };
            let (early, late) = (read(early), read(late));
            let late = late.filter(|late| Some(late) != early.as_ref());
            for values in early.into_iter().chain(late) {
                if insert {
                    self.index.insert(number, values, row, end.to);
                } else {
                    self.index.remove(number, values, row, end.to);
                }
            }
        }
    }
}

impl Group {
    /// How the rows end that are open at `time` or begin then or later.
    fn ends(&self, time: Timestamp, max_open: Duration) -> Vec<(RowId, End)> {
        let edge = (time, EventId::default());
        let mut ends = Vec::new();
        // Of those before, only the last can be open still, and only if nothing ended it before.
        let (before, after) = self.opens.split(edge);
        let before = before.last().filter(|(_, end)| end.to >= time);
        let mut open: Option<RowId> = before.map(|(row, _)| *row);
        let mut opens = after.iter().map(|(row, _)| *row).peekable();
        let mut closes = self.closes.split(edge).1.iter().map(|(row, ())| *row).peekable();
        while let Some(at) = [opens.peek(), closes.peek()].into_iter().flatten().map(|(time, _)| *time).min() {
            if let Some(row) = open
                && row.0.plus(max_open) < at
            {
                ends.push((row, End { to: row.0.plus(max_open), close: None }));
                open = None;
            }
            let closing = closes.next_if(|close| close.0 == at);
            while closes.next_if(|close| close.0 == at).is_some() {}
            let opening = opens.peek().is_some_and(|row| row.0 == at);
            let was_open = open.is_some();
            if let Some(row) = open.filter(|_| closing.is_some() || opening) {
                ends.push((row, End { to: at, close: closing }));
                open = None;
            }
            while let Some(row) = opens.next_if(|row| row.0 == at) {
                if let Some(earlier) = open.replace(row) {
                    ends.push((earlier, End { to: at, close: None }));
                }
            }
            if let Some(row) = open.filter(|_| opening && !was_open && closing.is_some()) {
                ends.push((row, End { to: at, close: closing }));
                open = None;
            }
        }
        ends.extend(open.map(|row| (row, End { to: row.0.plus(max_open), close: None })));
        ends
    }
}

#[cfg(test)]
mod tests;
