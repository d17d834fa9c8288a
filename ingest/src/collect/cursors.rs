//! How far a collector has come, by stream.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::CollectError;

/// Cursors of one collector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursors(BTreeMap<String, Value>);

impl Cursors {
    /// The cursor of a stream; `None` if nothing of it was ever fetched.
    ///
    /// # Errors
    /// [`CollectError::Cursor`] if it is of another version.
    pub fn read<T: DeserializeOwned>(&self, stream: &str) -> Result<Option<T>, CollectError> {
        let cursor = self.0.get(stream).map(|cursor| serde_json::from_value(cursor.clone())).transpose();
        cursor.map_err(|source| CollectError::Cursor { stream: stream.to_owned(), source })
    }

    /// Whether a stream has a cursor.
    #[must_use]
    pub fn has(&self, stream: &str) -> bool {
        self.0.contains_key(stream)
    }

    /// Every stream with its cursor.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(stream, cursor)| (stream.as_str(), cursor))
    }
}

impl FromIterator<(String, Value)> for Cursors {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(cursors: I) -> Self {
        Self(cursors.into_iter().collect())
    }
}

impl Extend<(String, Value)> for Cursors {
    /// Moves streams; null ends one.
    fn extend<I: IntoIterator<Item = (String, Value)>>(&mut self, cursors: I) {
        self.0.extend(cursors);
        self.0.retain(|_, cursor| !cursor.is_null());
    }
}

/// A cursor as it is written down.
pub(super) fn moved<T: Serialize>(stream: &str, cursor: &T) -> Result<(String, Value), CollectError> {
    let value = serde_json::to_value(cursor);
    value
        .map(|value| (stream.to_owned(), value))
        .map_err(|source| CollectError::Cursor { stream: stream.to_owned(), source })
}
