//! A map for the few rows of one key: a sorted list, which takes no more memory than what is in it.

use super::index::RowId;

/// A part of the list.
type Part<'f, T> = &'f [(RowId, T)];

/// Values by row, in the order of rows.
#[derive(Debug)]
pub(super) struct Few<T>(Vec<(RowId, T)>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Few<T> {
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn first(&self) -> Option<RowId> {
        self.0.first().map(|(row, _)| *row)
    }

    fn place(&self, row: RowId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&row, |(row, _)| *row)
    }

    pub(super) fn get(&self, row: RowId) -> Option<&T> {
        self.0.get(self.place(row).ok()?).map(|(_, value)| value)
    }

    /// Sets a value and gives the one before.
    pub(super) fn set(&mut self, row: RowId, value: T) -> Option<T> {
        match self.place(row) {
            Ok(place) => self.0.get_mut(place).map(|(_, old)| std::mem::replace(old, value)),
            Err(place) => {
                self.0.reserve_exact(1);
                self.0.insert(place, (row, value));
                None
            }
        }
    }

    pub(super) fn remove(&mut self, row: RowId) -> Option<T> {
        let place = self.place(row).ok()?;
        Some(self.0.remove(place).1)
    }

    /// Those before `row`, and those from it on.
    pub(super) fn split(&self, row: RowId) -> (Part<'_, T>, Part<'_, T>) {
        self.0.split_at(self.0.partition_point(|(other, _)| *other < row))
    }
}
