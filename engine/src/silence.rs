//! How long a source is usually silent, learned from its own records (catalogue: LOG-01).
//!
//! A pause is the time from one live record of a source to the next, to the second. Of a pause only hours count in which the source
//! usually speaks: an hour of the week in which it said nothing for four weeks is a night or a Sunday. The 99th percentile of the pauses
//! is kept as a histogram with four steps per doubling, so it is up to a quarter too long.
//!
//! Nothing here decides that a source is silent for too long: whoever runs the node does, and writes it into the log
//! ([`crate::control::Control::SourceSilent`]), so that a replay concludes the same. Time in which we were not receiving is no silence.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Hours of a week.
const SLOTS: i64 = 168;
const HOUR_MICROS: i64 = 3_600_000_000;
/// For how many weeks an hour of the week is usual after the source spoke in it.
const USUAL_WEEKS: i64 = 4;
/// Pauses kept: above, all counts are halved, so that what is long ago weighs less.
const PAUSES_MAX: u32 = 4_096;
/// Longest pause that is looked at hour by hour; a longer one is taken as this long.
const PAUSE_MAX: Duration = Duration::from_secs(56 * 86_400);

/// What is known of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rhythm {
    /// When it first spoke.
    began: Timestamp,
    /// When it last spoke. Moved on by the time in which we did not listen.
    last: Timestamp,
    /// Pauses by step of length.
    pauses: BTreeMap<u8, u32>,
    /// By hour of the week: the week, counted from 1970, in which it last spoke in it; 0 if never.
    spoke: Vec<u32>,
    /// Since when it is silent, if that was said.
    told: Option<Timestamp>,
}

/// How a source speaks, and for how long it has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The source.
    pub source: String,
    /// When it first spoke.
    pub began: Timestamp,
    /// When it last spoke.
    pub last: Timestamp,
    /// 99 of 100 of its pauses are no longer than this; `None` before it paused.
    pub usual: Option<Duration>,
    /// How long it has been silent, as far as it usually speaks at such times.
    pub silent: Duration,
    /// Since when it is said to be silent.
    pub told: Option<Timestamp>,
}

/// What happened to rhythms. Doing it again gives the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RhythmChange {
    /// As it is, in a snapshot.
    Whole(String, RhythmState),
    Heard(String, Timestamp),
    /// Nobody listened for so many microseconds.
    Deaf(i64),
    Told(String, Option<Timestamp>),
    Removed(String),
}

/// A rhythm as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RhythmState(Rhythm);

/// The rhythms of all sources.
#[derive(Clone, Debug, Default)]
pub struct Rhythms {
    of: BTreeMap<String, Rhythm>,
    changes: Vec<RhythmChange>,
}

/// Week and hour of the week. 1970 began on a Thursday; where a week begins decides nothing.
const fn slot(time: Timestamp) -> (i64, i64) {
    let hour = time.as_micros().div_euclid(HOUR_MICROS);
    (hour.div_euclid(SLOTS), hour.rem_euclid(SLOTS))
}

/// The step of a pause of so many seconds.
fn step(secs: u64) -> u8 {
    let exponent = secs.max(1).ilog2();
    let quarter = if exponent < 2 { (secs << (2 - exponent)) & 3 } else { (secs >> (exponent - 2)) & 3 };
    // 64 exponents of four quarters.
    u8::try_from(exponent * 4).unwrap_or(u8::MAX).saturating_add(u8::try_from(quarter).unwrap_or(0))
}

/// The longest pause of a step, in seconds.
fn longest(step: u8) -> u64 {
    let (exponent, quarter) = (u32::from(step / 4), u64::from(step % 4));
    // Above what the step after it begins with.
    let next = (5 + quarter) << exponent;
    (next.div_ceil(4)).saturating_sub(1).max(1)
}

impl Rhythm {
    fn new(at: Timestamp) -> Self {
        let mut rhythm =
            Self { began: at, last: at, pauses: BTreeMap::new(), spoke: vec![0; SLOTS as usize], told: None };
        rhythm.speak(at);
        rhythm
    }

    fn speak(&mut self, at: Timestamp) {
        let (week, hour) = slot(at);
        if let (Ok(hour), Ok(week)) = (usize::try_from(hour), u32::try_from(week))
            && let Some(spoke) = self.spoke.get_mut(hour)
        {
            *spoke = week;
        }
    }

    /// Whether it usually speaks in the hour of a time. In its first week every hour counts.
    fn is_usual(&self, time: Timestamp) -> bool {
        let (week, hour) = slot(time);
        let spoke = usize::try_from(hour).ok().and_then(|hour| self.spoke.get(hour)).copied().unwrap_or(0);
        slot(self.began).0 + 1 >= week || (spoke > 0 && i64::from(spoke) + USUAL_WEEKS >= week)
    }

    /// How much of the time from its last word to `now` counts.
    fn silent(&self, now: Timestamp) -> Duration {
        let now = now.min(self.last.plus(PAUSE_MAX));
        let mut from = self.last;
        let mut micros = 0;
        while from < now {
            let end = from.hour().plus(Duration::from_secs(3_600)).min(now);
            if self.is_usual(from) {
                micros += end.micros_since(from);
            }
            from = end;
        }
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    fn hear(&mut self, at: Timestamp) {
        let secs = self.silent(at).as_secs();
        if secs > 0 {
            *self.pauses.entry(step(secs)).or_default() += 1;
            if self.pauses.values().sum::<u32>() > PAUSES_MAX {
                self.pauses.values_mut().for_each(|count| *count /= 2);
                self.pauses.retain(|_, count| *count > 0);
            }
        }
        self.speak(at);
        self.last = at;
    }

    fn usual(&self) -> Option<Duration> {
        let all: u32 = self.pauses.values().sum();
        let most = all.checked_sub(1)?;
        // The nearest rank: of 100 pauses the 99th.
        let rank = u64::from(most) * 99 / 100;
        let mut before = 0;
        let step = self.pauses.iter().find_map(|(step, count)| {
            before += u64::from(*count);
            (before > rank).then_some(*step)
        });
        step.map(|step| Duration::from_secs(longest(step)))
    }
}

impl Rhythms {
    /// A source has said something, whatever it was.
    pub fn hear(&mut self, source: &str, at: Timestamp) {
        // Less than a second is no pause, and not worth a change.
        let pauses = |rhythm: &Rhythm| at.micros_since(rhythm.last) >= 1_000_000;
        if self.of.get(source).is_none_or(pauses) {
            self.change(RhythmChange::Heard(source.to_owned(), at));
        }
    }

    /// Nobody listened from `from` to `to`.
    pub fn deaf(&mut self, from: Timestamp, to: Timestamp) {
        if !self.of.is_empty() {
            self.change(RhythmChange::Deaf(to.micros_since(from)));
        }
    }

    /// It was said that a source is silent since then, or that it speaks again.
    pub fn told(&mut self, source: &str, since: Option<Timestamp>) {
        if self.of.contains_key(source) {
            self.change(RhythmChange::Told(source.to_owned(), since));
        }
    }

    /// Forgets a source that was removed.
    pub fn remove(&mut self, source: &str) {
        if self.of.contains_key(source) {
            self.change(RhythmChange::Removed(source.to_owned()));
        }
    }

    fn change(&mut self, change: RhythmChange) {
        self.apply(&change);
        self.changes.push(change);
    }

    fn apply(&mut self, change: &RhythmChange) {
        match change {
            RhythmChange::Whole(source, state) => {
                self.of.insert(source.clone(), state.0.clone());
            }
            RhythmChange::Heard(source, at) => match self.of.get_mut(source) {
                Some(rhythm) => rhythm.hear(*at),
                None => {
                    self.of.insert(source.clone(), Rhythm::new(*at));
                }
            },
            RhythmChange::Deaf(micros) => {
                let micros = Duration::from_micros(u64::try_from(*micros).unwrap_or(0));
                for rhythm in self.of.values_mut() {
                    rhythm.last = rhythm.last.plus(micros);
                    rhythm.told = rhythm.told.map(|since| since.plus(micros));
                }
            }
            RhythmChange::Told(source, since) => {
                if let Some(rhythm) = self.of.get_mut(source) {
                    rhythm.told = *since;
                }
            }
            RhythmChange::Removed(source) => {
                self.of.remove(source);
            }
        }
    }

    /// How each source speaks, at record time `now`.
    pub fn silences(&self, now: Timestamp) -> impl Iterator<Item = Silence> + '_ {
        self.of.iter().map(move |(source, rhythm)| Silence {
            source: source.clone(),
            began: rhythm.began,
            last: rhythm.last,
            usual: rhythm.usual(),
            silent: rhythm.silent(now),
            told: rhythm.told,
        })
    }

    pub(crate) fn take_changes(&mut self) -> Vec<RhythmChange> {
        std::mem::take(&mut self.changes)
    }

    pub(crate) fn as_changes(&self) -> Vec<RhythmChange> {
        self.of
            .iter()
            .map(|(source, rhythm)| RhythmChange::Whole(source.clone(), RhythmState(rhythm.clone())))
            .collect()
    }

    pub(crate) fn restore(&mut self, changes: &[RhythmChange]) {
        changes.iter().for_each(|change| self.apply(change));
    }
}

#[cfg(test)]
mod tests;
