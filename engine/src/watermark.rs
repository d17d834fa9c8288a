//! Watermarks: up to which event time a source, or a rule over several sources, has been seen whole.
//!
//! Watermark of a source = max over its events of min(time, received + skew limit) − lateness, moved on by ticks: by
//! the meaning of lateness, at tick T everything up to T − lateness has arrived. A backfill is its own lane: it
//! cannot move or suffer the live one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::CollectionMode;
use crate::source::SourceType;
use crate::time::Timestamp;

/// How far ahead of ours a source's clock may run before it is held at our time plus this.
pub const SKEW_MAX: Duration = Duration::from_secs(300);

/// How long a backfill must be silent before what it left open is decided.
pub const BACKFILL_IDLE: Duration = Duration::from_secs(60);

/// Which stream of a source an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// As it happens.
    Live,
    /// History loaded later.
    Backfill,
}

impl From<CollectionMode> for Lane {
    fn from(mode: CollectionMode) -> Self {
        match mode {
            CollectionMode::Live | CollectionMode::Collected => Self::Live,
            CollectionMode::Backfill => Self::Backfill,
        }
    }
}

/// One source's lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Type of the source, which gives its lateness.
    pub source_type: SourceType,
    /// Everything up to here has been seen.
    pub watermark: Timestamp,
    /// Latest received time.
    pub received: Timestamp,
}

/// The watermarks of all sources.
#[derive(Clone, Debug, Default)]
pub struct Watermarks {
    marks: BTreeMap<(String, Lane), Mark>,
}

impl Watermarks {
    /// Makes a connected source count although nothing has come from it yet.
    pub fn connect(&mut self, source: &str, source_type: SourceType) {
        self.marks.entry((source.to_owned(), Lane::Live)).or_insert(Mark {
            source_type,
            watermark: Timestamp::MIN,
            received: Timestamp::MIN,
        });
    }

    /// Forgets a source that was removed: it holds nothing back any more.
    pub fn remove(&mut self, source: &str) {
        self.marks.retain(|(name, _), _| name != source);
    }

    /// Takes in an event.
    pub fn observe(&mut self, source: &str, source_type: SourceType, lane: Lane, time: Timestamp, received: Timestamp) {
        let seen = time.min(received.plus(SKEW_MAX)).minus(source_type.info().lateness);
        match self.marks.get_mut(&(source.to_owned(), lane)) {
            Some(mark) => {
                mark.watermark = mark.watermark.max(seen);
                mark.received = mark.received.max(received);
            }
            None => {
                self.marks.insert((source.to_owned(), lane), Mark { source_type, watermark: seen, received });
            }
        }
    }

    /// Takes in a tick at record time `now`.
    pub fn tick(&mut self, now: Timestamp) {
        for ((_, lane), mark) in &mut self.marks {
            let seen = match lane {
                Lane::Live => now.minus(mark.source_type.info().lateness),
                Lane::Backfill if mark.received.plus(BACKFILL_IDLE) <= now => Timestamp::MAX,
                Lane::Backfill => continue,
            };
            mark.watermark = mark.watermark.max(seen);
        }
    }

    /// The watermark of a rule over these source types: the least over their sources. Sources that are not connected
    /// hold nothing back; with none at all nothing is held back either.
    #[must_use]
    pub fn of(&self, types: &[SourceType], lane: Lane) -> Timestamp {
        self.marks
            .iter()
            .filter(|((_, of), mark)| *of == lane && types.contains(&mark.source_type))
            .map(|(_, mark)| mark.watermark)
            .min()
            .unwrap_or(Timestamp::MAX)
    }

    /// After an idle backfill was decided, its lane starts anew.
    pub fn reset_idle_backfills(&mut self) {
        self.marks.retain(|(_, lane), mark| *lane == Lane::Live || mark.watermark != Timestamp::MAX);
    }

    /// All marks.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Lane, &Mark)> {
        self.marks.iter().map(|((source, lane), mark)| (source.as_str(), *lane, mark))
    }

    /// Puts back marks, as restoring does.
    pub fn restore(&mut self, marks: Vec<(String, Lane, Mark)>) {
        self.marks = marks.into_iter().map(|(source, lane, mark)| ((source, lane), mark)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_rule_waits_for_the_slowest_source_it_names() {
        let mut marks = Watermarks::default();
        marks.observe("hooks", SourceType::GithubWebhook, Lane::Live, at(1_000), at(1_001));
        marks.observe("trail", SourceType::AwsCloudtrail, Lane::Live, at(1_000), at(1_001));
        assert_eq!(marks.of(&[SourceType::GithubWebhook], Lane::Live), at(940));
        assert_eq!(marks.of(&[SourceType::GithubWebhook, SourceType::AwsCloudtrail], Lane::Live), at(100));
        marks.tick(at(2_000));
        assert_eq!(marks.of(&[SourceType::GithubWebhook], Lane::Live), at(1_940));
        assert_eq!(marks.of(&[SourceType::VaultAudit], Lane::Live), Timestamp::MAX);
    }

    #[test]
    fn a_clock_that_runs_ahead_moves_the_mark_by_the_skew_limit_at_most() {
        let mut marks = Watermarks::default();
        marks.observe("hooks", SourceType::GithubWebhook, Lane::Live, at(1_000_000), at(1_000));
        assert_eq!(marks.of(&[SourceType::GithubWebhook], Lane::Live), at(1_000 + 300 - 60));
    }

    #[test]
    fn a_backfill_has_its_own_lane_and_is_decided_when_it_falls_silent() {
        let mut marks = Watermarks::default();
        marks.observe("hooks", SourceType::GithubWebhook, Lane::Live, at(10_000), at(10_000));
        marks.observe("hooks", SourceType::GithubWebhook, Lane::Backfill, at(500), at(10_000));
        marks.tick(at(10_030));
        assert_eq!(marks.of(&[SourceType::GithubWebhook], Lane::Backfill), at(440));
        assert_eq!(marks.of(&[SourceType::GithubWebhook], Lane::Live), at(9_970));
        marks.tick(at(10_061));
        assert_eq!(marks.of(&[SourceType::GithubWebhook], Lane::Backfill), Timestamp::MAX);
        marks.reset_idle_backfills();
        assert_eq!(marks.iter().count(), 1);
    }
}
