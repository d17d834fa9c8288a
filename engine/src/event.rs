//! The event: what a record means, decoded. Rules read its native JSON or its normalised fields.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::fields::Fields;
use crate::record::{Authenticity, CollectionMode, Position};
use crate::source::SourceType;
use crate::time::Timestamp;

/// Where an event stands: its record's position and its number inside the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId {
    /// Position of the record.
    pub position: Position,
    /// Number inside the record; a job-log chunk holds an event per detected leak besides its own.
    pub sub: u32,
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.position, self.sub)
    }
}

impl std::str::FromStr for EventId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "an event id is PARTITION-INDEX-NUMBER";
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(EXPECTED);
        let (partition, index, sub) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(EXPECTED);
        }
        Ok(Self {
            position: Position {
                partition: partition.parse().map_err(|_| EXPECTED)?,
                index: index.parse().map_err(|_| EXPECTED)?,
            },
            sub: sub.parse().map_err(|_| EXPECTED)?,
        })
    }
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Where it stands.
    pub id: EventId,
    /// Source instance.
    pub source: Arc<str>,
    /// Source type.
    pub source_type: SourceType,
    /// The record's item (see [`crate::record::Envelope::item`]): stable when the same item is delivered again.
    pub item: Arc<str>,
    /// When it happened, by the source's clock; the received time where the source gives none.
    pub time: Timestamp,
    /// Whether `time` is the source's.
    pub time_known: bool,
    /// When we received it.
    pub received: Timestamp,
    /// How we know who sent it.
    pub auth: Authenticity,
    /// How it came.
    pub mode: CollectionMode,
    /// Normalised fields.
    pub fields: Fields,
    /// The native JSON object (text of UTF-8), redacted. For free-text sources, a JSON object that holds the text.
    pub native: Bytes,
}

impl Event {
    /// How far the source's clock runs ahead of ours, if it says this happened later than we received it.
    #[must_use]
    pub fn ahead_micros(&self) -> i64 {
        self.time.micros_since(self.received).max(0)
    }
}
