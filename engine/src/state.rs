//! What detection remembers, and how it is written: one encoded delta per micro-batch, and snapshots that are a delta
//! from nothing. Encoded with postcard behind a version byte; a version this binary does not know is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::commit::SourceWindow;
use crate::control::SourceRecord;
use crate::correlate::{Change, Correlation, CorrelationName};
use crate::coverage::Coverage;
use crate::dedup::{Dedup, ItemHash};
use crate::incident::{Incident, Incidents};
use crate::time::Timestamp;
use crate::watermark::{Lane, Mark, Watermarks};

/// Version of the encoding.
const VERSION: u8 = 1;

/// Why a state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Written by a newer binary, or not a state at all.
    #[error(
        "detector state has version {0:?}, this binary reads version {VERSION}: run the binary that wrote it, or a newer one"
    )]
    Version(Option<u8>),
    /// Damaged.
    #[error("cannot read detector state")]
    Encoding(#[source] postcard::Error),
}

/// When a rule last spoke about a key: (rule digest, dedup values).
pub(crate) type QuietKey = (String, Vec<String>);

/// Everything detection remembers.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) position: u64,
    /// Largest received time of any record: the clock of detection.
    pub(crate) now: Timestamp,
    /// The interval of record time in which things were last let go.
    pub(crate) swept: i64,
    pub(crate) dedup: Dedup,
    pub(crate) sources: BTreeMap<String, SourceRecord>,
    pub(crate) watermarks: Watermarks,
    pub(crate) correlations: BTreeMap<CorrelationName, Correlation>,
    pub(crate) quiet: BTreeMap<QuietKey, Timestamp>,
    pub(crate) incidents: Incidents,
    pub(crate) coverage: Coverage,
    /// Digest of the rule set the log says is in force.
    pub(crate) rule_set: Option<String>,
}

/// What a micro-batch changed, or the whole state as a change from nothing.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Delta {
    pub(crate) position: u64,
    pub(crate) now: Timestamp,
    pub(crate) swept: i64,
    pub(crate) seen: Vec<(ItemHash, u64, Timestamp)>,
    pub(crate) sources: Vec<(String, Option<SourceRecord>)>,
    pub(crate) marks: Option<Vec<(String, Lane, Mark)>>,
    pub(crate) correlations: Vec<(CorrelationName, Vec<Change>)>,
    pub(crate) quiet: Vec<(QuietKey, Option<Timestamp>)>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) forgotten_incidents: Vec<String>,
    pub(crate) windows: Vec<SourceWindow>,
    pub(crate) rule_set: Option<String>,
}

impl Delta {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StateError> {
        postcard::to_extend(self, vec![VERSION]).map_err(StateError::Encoding)
    }

    fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(StateError::Encoding),
            other => Err(StateError::Version(other.map(|(version, _)| *version))),
        }
    }
}

impl State {
    /// Rebuilds the state from a snapshot and the deltas after it.
    pub(crate) fn restore<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Result<Self, StateError> {
        let mut state = Self::default();
        for part in parts {
            state.apply(Delta::decode(part)?);
        }
        Ok(state)
    }

    fn apply(&mut self, delta: Delta) {
        self.position = delta.position;
        self.now = delta.now;
        self.swept = delta.swept;
        for (item, index, received) in delta.seen {
            self.dedup.remember(item, index, received);
        }
        self.dedup.expire(self.now);
        for (name, source) in delta.sources {
            match source {
                Some(source) => self.sources.insert(name, source),
                None => self.sources.remove(&name),
            };
        }
        if let Some(marks) = delta.marks {
            self.watermarks.restore(marks);
        }
        for (name, changes) in delta.correlations {
            let correlation = self.correlations.entry(name).or_default();
            for change in changes {
                correlation.restore(change);
            }
        }
        for (key, time) in delta.quiet {
            match time {
                Some(time) => self.quiet.insert(key, time),
                None => self.quiet.remove(&key),
            };
        }
        for incident in delta.incidents {
            self.incidents.insert(incident);
        }
        for id in delta.forgotten_incidents {
            self.incidents.remove(&id);
        }
        for window in delta.windows {
            self.coverage.insert(window);
        }
        self.coverage.close(self.now);
        if delta.rule_set.is_some() {
            self.rule_set = delta.rule_set;
        }
    }

    /// The whole state as one delta from nothing.
    pub(crate) fn snapshot(&self) -> Result<Vec<u8>, StateError> {
        Delta {
            position: self.position,
            now: self.now,
            swept: self.swept,
            seen: self.dedup.iter().collect(),
            sources: self.sources.iter().map(|(name, source)| (name.clone(), Some(source.clone()))).collect(),
            marks: Some(self.marks()),
            correlations: self
                .correlations
                .iter()
                .map(|(name, correlation)| (name.clone(), correlation.as_changes()))
                .collect(),
            quiet: self.quiet.iter().map(|(key, time)| (key.clone(), Some(*time))).collect(),
            incidents: self.incidents.iter().cloned().collect(),
            forgotten_incidents: Vec::new(),
            windows: self.coverage.iter().cloned().collect(),
            rule_set: self.rule_set.clone(),
        }
        .encode()
    }

    pub(crate) fn marks(&self) -> Vec<(String, Lane, Mark)> {
        self.watermarks.iter().map(|(source, lane, mark)| (source.to_owned(), lane, *mark)).collect()
    }
}
