//! Watermarks: up to which event time a source, or a rule over several sources, has been seen whole.
//!
//! Watermark of a source = max over its events of min(time, received) − lateness, moved on by ticks: an event from the
//! future proves nothing about the past, and at tick T everything up to T − lateness has arrived. A backfill is its own lane: it
//! cannot move or suffer the live one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::CollectionMode;
use crate::source::SourceType;
use crate::time::Timestamp;

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

/// How long a source may say nothing before it counts as silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(3_600);

/// One source's lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Type of the source, which gives its lateness.
    pub source_type: SourceType,
    /// Everything up to here has been seen.
    pub watermark: Timestamp,
    /// Latest received time of an event.
    pub received: Timestamp,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lanes {
    live: Option<Mark>,
    backfill: Option<Mark>,
}

impl Lanes {
    const fn of(&mut self, lane: Lane) -> &mut Option<Mark> {
        match lane {
            Lane::Live => &mut self.live,
            Lane::Backfill => &mut self.backfill,
        }
    }
}

/// The watermarks of all sources.
#[derive(Clone, Debug, Default)]
pub struct Watermarks {
    marks: BTreeMap<String, Lanes>,
}

/// The least watermark of the sources of each type, in one lane.
#[derive(Clone, Copy, Debug)]
pub struct Lowest {
    of: [Option<Timestamp>; SourceType::ALL.len()],
    /// What holds where no source of a type is connected.
    else_: Timestamp,
}

impl Lowest {
    /// The watermark of a rule over these source types: the least over their sources. Sources that are not connected
    /// hold nothing back; with none at all, the rule waits as long as those that are.
    #[must_use]
    pub fn over(&self, types: &[SourceType]) -> Timestamp {
        let known = types.iter().filter_map(|kind| self.of.get(*kind as usize).copied().flatten());
        known.min().unwrap_or(self.else_)
    }
}

impl Watermarks {
    fn lane(&mut self, source: &str, lane: Lane) -> &mut Option<Mark> {
        self.marks.entry(source.to_owned()).or_default().of(lane)
    }

    /// Makes a connected source count although nothing has come from it yet.
    pub fn connect(&mut self, source: &str, source_type: SourceType) {
        self.lane(source, Lane::Live).get_or_insert(Mark {
            source_type,
            watermark: Timestamp::MIN,
            received: Timestamp::MIN,
        });
    }

    /// Forgets a source that was removed: it holds nothing back any more.
    pub fn remove(&mut self, source: &str) {
        self.marks.remove(source);
    }

    /// Notes that a source has said something, whatever it was.
    pub fn hear(&mut self, source: &str, lane: Lane, received: Timestamp) {
        if let Some(mark) = self.marks.get_mut(source).and_then(|lanes| lanes.of(lane).as_mut()) {
            mark.received = mark.received.max(received);
        }
    }

    /// Takes in an event.
    pub fn observe(&mut self, source: &str, source_type: SourceType, lane: Lane, time: Timestamp, received: Timestamp) {
        let seen = time.min(received).minus(source_type.info().lateness);
        if let Some(mark) = self.marks.get_mut(source).and_then(|lanes| lanes.of(lane).as_mut()) {
            mark.watermark = mark.watermark.max(seen);
            mark.received = mark.received.max(received);
        } else {
            *self.lane(source, lane) = Some(Mark { source_type, watermark: seen, received });
        }
    }

    /// Takes in a tick at record time `now`.
    pub fn tick(&mut self, now: Timestamp) {
        for lanes in self.marks.values_mut() {
            if let Some(mark) = &mut lanes.live {
                mark.watermark = mark.watermark.max(now.minus(mark.source_type.info().lateness));
            }
            if let Some(mark) = &mut lanes.backfill
                && mark.received.plus(BACKFILL_IDLE) <= now
            {
                mark.watermark = Timestamp::MAX;
            }
        }
    }

    /// The least watermark of each type in a lane, at record time `now`. Live, it never runs ahead of `now`.
    #[must_use]
    pub fn lowest(&self, lane: Lane, now: Timestamp) -> Lowest {
        let most = match lane {
            Lane::Live => now,
            Lane::Backfill => Timestamp::MAX,
        };
        let mut lowest = Lowest { of: [None; SourceType::ALL.len()], else_: most };
        for (_, _, mark) in self.iter().filter(|(_, of, _)| *of == lane) {
            let watermark = mark.watermark.min(most);
            lowest.else_ = lowest.else_.min(watermark);
            if let Some(slot) = lowest.of.get_mut(mark.source_type as usize) {
                *slot = Some(slot.map_or(watermark, |other| other.min(watermark)));
            }
        }
        // Our own records are written where they are read: nothing of them is still under way.
        if let (Lane::Live, Some(own)) = (lane, lowest.of.get_mut(SourceType::Pipeproof as usize)) {
            *own = Some(now);
        }
        lowest
    }

    /// For each type, whether some source of it has said something within [`SILENT_AFTER`] before `now`. We are never silent to
    /// ourselves.
    #[must_use]
    pub fn heard(&self, now: Timestamp) -> [bool; SourceType::ALL.len()] {
        let mut heard = [false; SourceType::ALL.len()];
        for mark in self.marks.values().filter_map(|lanes| lanes.live.as_ref()) {
            if let Some(slot) = heard.get_mut(mark.source_type as usize) {
                *slot |= mark.received >= now.minus(SILENT_AFTER);
            }
        }
        if let Some(own) = heard.get_mut(SourceType::Pipeproof as usize) {
            *own = true;
        }
        heard
    }

    /// After an idle backfill was decided, its lane starts anew.
    pub fn reset_idle_backfills(&mut self) {
        for lanes in self.marks.values_mut() {
            lanes.backfill = lanes.backfill.filter(|mark| mark.watermark != Timestamp::MAX);
        }
        self.marks.retain(|_, lanes| lanes.live.is_some() || lanes.backfill.is_some());
    }

    /// All marks.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Lane, &Mark)> {
        self.marks.iter().flat_map(|(source, lanes)| {
            let of = |mark, lane| Option::map(mark, |mark| (source.as_str(), lane, mark));
            of(lanes.live.as_ref(), Lane::Live).into_iter().chain(of(lanes.backfill.as_ref(), Lane::Backfill))
        })
    }

    /// Puts back marks, as restoring does.
    pub fn restore(&mut self, marks: Vec<(String, Lane, Mark)>) {
        self.marks.clear();
        for (source, lane, mark) in marks {
            *self.lane(&source, lane) = Some(mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1 << 40);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_rule_waits_for_the_slowest_source_it_names() {
        let mut marks = Watermarks::default();
        marks.observe("hooks", SourceType::GithubWebhook, Lane::Live, at(1_000), at(1_001));
        marks.observe("trail", SourceType::AwsCloudtrail, Lane::Live, at(1_000), at(1_001));
        assert_eq!(marks.lowest(Lane::Live, NOW).over(&[SourceType::GithubWebhook]), at(940));
        assert_eq!(
            marks.lowest(Lane::Live, NOW).over(&[SourceType::GithubWebhook, SourceType::AwsCloudtrail]),
            at(100)
        );
        marks.tick(at(2_000));
        assert_eq!(marks.lowest(Lane::Live, NOW).over(&[SourceType::GithubWebhook]), at(1_940));
        assert_eq!(marks.lowest(Lane::Live, NOW).over(&[SourceType::VaultAudit]), at(1_100), "as long as the others");
        assert_eq!(Watermarks::default().lowest(Lane::Live, NOW).over(&[SourceType::VaultAudit]), NOW);
    }

    #[test]
    fn a_source_is_silent_an_hour_after_it_last_spoke() {
        let mut marks = Watermarks::default();
        let heard = |marks: &Watermarks, now| marks.heard(at(now))[SourceType::VaultAudit as usize];
        marks.hear("vault", Lane::Live, at(500));
        assert!(!heard(&marks, 500), "not connected");
        marks.connect("vault", SourceType::VaultAudit);
        assert!(!heard(&marks, 500), "connected, and has never said anything");
        marks.hear("vault", Lane::Live, at(1_000));
        assert!(heard(&marks, 4_600));
        assert!(!heard(&marks, 4_601));
    }

    #[test]
    fn a_clock_that_runs_ahead_moves_the_mark_no_further_than_ours() {
        let mut marks = Watermarks::default();
        marks.observe("hooks", SourceType::GithubWebhook, Lane::Live, at(1_000_000), at(1_000));
        assert_eq!(marks.lowest(Lane::Live, NOW).over(&[SourceType::GithubWebhook]), at(1_000 - 60));
    }

    #[test]
    fn a_backfill_has_its_own_lane_and_is_decided_when_it_falls_silent() {
        let mut marks = Watermarks::default();
        marks.observe("hooks", SourceType::GithubWebhook, Lane::Live, at(10_000), at(10_000));
        marks.observe("hooks", SourceType::GithubWebhook, Lane::Backfill, at(500), at(10_000));
        marks.tick(at(10_030));
        assert_eq!(marks.lowest(Lane::Backfill, at(1 << 40)).over(&[SourceType::GithubWebhook]), at(440));
        assert_eq!(marks.lowest(Lane::Live, NOW).over(&[SourceType::GithubWebhook]), at(9_970));
        marks.tick(at(10_061));
        assert_eq!(marks.lowest(Lane::Backfill, at(1 << 40)).over(&[SourceType::GithubWebhook]), Timestamp::MAX);
        marks.reset_idle_backfills();
        assert_eq!(marks.iter().count(), 1);
    }
}
