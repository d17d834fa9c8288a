//! A number over the matches of one group within a window: `event_count`, `value_count`, `value_sum`, `value_avg`,
//! `value_percentile`.
//!
//! The window ends at the newest match and includes both its ends; a session begins anew after a gap. Every match costs the
//! same, however many the window holds: what a metric needs is kept up, and the matches themselves are kept only as far
//! as a finding cites them. Counts are kept no further than the bounds can tell apart, and no match is kept while so many
//! more are missing to a finding that it would cite only later ones.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::CITED_MAX;
use super::key::ValueId;
use super::numbers::{self, Decimal, Numbers};
use super::recency::Recency;
use super::signal::Signal;
use crate::redaction::Forgotten;
use crate::rule::{Bounds, Comparison, CorrelationRule, Metric, Number, Operator};
use crate::time::{Timestamp, micros};

/// Times or values a group keeps at most, whatever its bounds.
const ENTRIES_MAX: usize = 4_000_000;

/// What a match adds to a window.
#[derive(Clone, Copy, Debug)]
pub(super) enum Added {
    Match,
    Value(ValueId),
    Number(Decimal),
}

/// What became of a match.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Counted; the condition did not come true by it.
    Counted,
    /// The condition became true by it.
    Fired { value: String, count: u64 },
    /// Older than the window of what came before.
    Late,
}

/// What bounds say of counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Countable {
    /// The smallest count they can hold for.
    least: usize,
    /// The largest count they can tell from a larger one, and one more.
    most: usize,
}

/// One group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Window {
    /// The condition holds since it was found to: nothing more is said until it stops holding.
    holds: bool,
    /// Time of the first match of the session.
    first: Timestamp,
    tally: Tally,
    /// The latest matches, in order: what a finding cites.
    recent: VecDeque<(Signal, Option<ValueId>)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Tally {
    /// Times of matches that are not in `recent`.
    Count(VecDeque<Timestamp>),
    Distinct(Recency),
    Numbers(Box<Numbers>),
}

impl Default for Tally {
    fn default() -> Self {
        Self::Count(VecDeque::new())
    }
}

impl Countable {
    pub(super) fn of(bounds: &Bounds) -> Self {
        let rounded = |number: &Number| match number {
            Number::Int(number) => usize::try_from(*number).unwrap_or(if *number < 0 { 0 } else { ENTRIES_MAX }),
            Number::Float(number) => number.ceil().max(0.0) as usize,
        };
        let most = bounds.0.iter().map(|(_, number)| rounded(number)).max().unwrap_or(0);
        let from = bounds
            .0
            .iter()
            .filter(|(comparison, _)| matches!(comparison, Comparison::Gt | Comparison::Gte | Comparison::Eq));
        Self {
            least: from.map(|(_, number)| rounded(number)).max().unwrap_or(0),
            most: most.saturating_add(1).clamp(CITED_MAX, ENTRIES_MAX),
        }
    }
}

impl Window {
    /// Takes in a match. `last` is the time of the newest before it; `sorted` says that matches come in the order of time,
    /// but for late ones.
    pub(super) fn add(
        &mut self,
        rule: &CorrelationRule,
        (countable, sorted): (Countable, bool),
        last: Option<Timestamp>,
        signal: &Signal,
        added: Added,
        evicted: &mut u64,
    ) -> Outcome {
        let newest = last.map_or(signal.time, |last| last.max(signal.time));
        let limit = match (rule.session_gap, last) {
            (Some(gap), Some(last)) => {
                let over = signal.time.micros_since(last) > micros(gap)
                    || signal.time.micros_since(self.first) > micros(rule.timespan);
                if over { signal.time } else { self.first }
            }
            (Some(_), None) => signal.time,
            (None, _) => newest.minus(rule.timespan),
        };
        if signal.time < limit {
            return Outcome::Late;
        }
        let all = last.is_none_or(|last| last < limit);
        if all {
            // Nothing of what once held is left.
            *self = Self { first: signal.time, ..Self::default() };
        }
        self.first = self.first.min(signal.time);
        if sorted && self.is_far(countable.least) && self.enter_far(limit, signal.time, added) {
            self.holds = false;
            return Outcome::Counted;
        }
        self.expire(limit);
        self.enter(rule, countable.most, signal, added, evicted);
        let Operator::Aggregate { metric, bounds } = &rule.operator else { return Outcome::Counted };
        let (holds, count) = self.judge(metric, bounds);
        let fired = holds && !self.holds;
        self.holds = holds;
        if !fired {
            return Outcome::Counted;
        }
        let value = match (&self.tally, metric) {
            (Tally::Numbers(numbers), Metric::Average(_)) => numbers.mean().text(),
            (Tally::Numbers(numbers), Metric::Percentile(..)) => numbers.percentile().unwrap_or_default().text(),
            (Tally::Numbers(numbers), _) => numbers.sum().text(),
            _ => count.to_string(),
        };
        Outcome::Fired { value, count }
    }

    /// Whether so many matches are missing to the least count that a finding would not cite the one at hand.
    fn is_far(&self, least: usize) -> bool {
        let at_most = match &self.tally {
            Tally::Count(older) => older.len() + self.recent.len(),
            Tally::Distinct(values) => values.len_at_most(),
            Tally::Numbers(_) => return false,
        };
        at_most.saturating_add(1 + CITED_MAX) < least
    }

    /// Counts a match and keeps nothing of it to cite; false if it has to be entered in full.
    fn enter_far(&mut self, limit: Timestamp, time: Timestamp, added: Added) -> bool {
        match (&mut self.tally, added) {
            (Tally::Count(times), Added::Match) => {
                let place = times.partition_point(|other| *other <= time);
                times.insert(place, time);
                self.expire(limit);
            }
            (Tally::Distinct(values), Added::Value(value)) => {
                values.see_later(value, time, limit);
                self.expire_cited(limit);
            }
            _ => return false,
        }
        true
    }

    fn judge(&mut self, metric: &Metric, bounds: &Bounds) -> (bool, u64) {
        match &mut self.tally {
            Tally::Count(older) => {
                let count = (older.len() + self.recent.len()) as u64;
                (numbers::within(bounds, Decimal::of_int(i128::from(count)).unwrap_or_default(), 1), count)
            }
            Tally::Distinct(values) => {
                let count = values.len() as u64;
                (numbers::within(bounds, Decimal::of_int(i128::from(count)).unwrap_or_default(), 1), count)
            }
            Tally::Numbers(numbers) => {
                let count = numbers.len() as u64;
                let holds = match metric {
                    Metric::Average(_) => numbers::within(bounds, numbers.sum(), count),
                    Metric::Percentile(..) => numbers::within(bounds, numbers.percentile().unwrap_or_default(), 1),
                    _ => numbers::within(bounds, numbers.sum(), 1),
                };
                (holds, count)
            }
        }
    }

    fn expire_cited(&mut self, limit: Timestamp) {
        while self.recent.front().is_some_and(|(signal, _)| signal.time < limit) {
            self.recent.pop_front();
        }
    }

    fn expire(&mut self, limit: Timestamp) {
        self.expire_cited(limit);
        match &mut self.tally {
            Tally::Count(older) => {
                while older.front().is_some_and(|time| *time < limit) {
                    older.pop_front();
                }
            }
            Tally::Distinct(values) => {
                values.keep(limit, usize::MAX);
            }
            Tally::Numbers(numbers) => numbers.expire(limit),
        }
    }

    fn enter(&mut self, rule: &CorrelationRule, most: usize, signal: &Signal, added: Added, evicted: &mut u64) {
        match added {
            Added::Match => {}
            Added::Value(value) => {
                if !matches!(self.tally, Tally::Distinct(_)) {
                    self.tally = Tally::Distinct(Recency::default());
                }
                if let Tally::Distinct(values) = &mut self.tally
                    && let Some(before) = values.see(value, signal.time)
                    && self.recent.front().is_some_and(|(oldest, _)| oldest.time <= before)
                {
                    // One match of each value is cited, the latest.
                    self.recent.retain(|(_, other)| *other != Some(value));
                }
            }
            Added::Number(number) => {
                if !matches!(self.tally, Tally::Numbers(_)) {
                    let percentile = match &rule.operator {
                        Operator::Aggregate { metric: Metric::Percentile(_, percentile), .. } => Some(*percentile),
                        _ => None,
                    };
                    self.tally = Tally::Numbers(Box::new(Numbers::new(percentile)));
                }
                if let Tally::Numbers(numbers) = &mut self.tally {
                    *evicted += numbers.add(signal.time, number);
                }
            }
        }
        if let Tally::Distinct(values) = &mut self.tally {
            let above = values.keep(Timestamp::MIN, most);
            *evicted += if most == ENTRIES_MAX { above } else { 0 };
        }
        // Most come in order: then the newest alone is looked at.
        let at = match self.recent.back() {
            Some((newest, _)) if newest.order() > signal.order() => {
                self.recent.partition_point(|(other, _)| other.order() <= signal.order())
            }
            _ => self.recent.len(),
        };
        // Most groups have one match, and there may be a million of them.
        if self.recent.capacity() == 0 {
            self.recent.reserve_exact(1);
        }
        let value = if let Added::Value(value) = added { Some(value) } else { None };
        self.recent.insert(at, (signal.clone(), value));
        if self.recent.len() > CITED_MAX
            && let Some((oldest, _)) = self.recent.pop_front()
            && let Tally::Count(older) = &mut self.tally
        {
            let place = older.partition_point(|time| *time <= oldest.time);
            older.insert(place, oldest.time);
            if older.len() + self.recent.len() > most {
                older.pop_front();
                *evicted += u64::from(most == ENTRIES_MAX);
            }
        }
    }

    /// Forgets matches that are of records; true if nothing is left.
    pub(super) fn forget(&mut self, of: &Forgotten) -> bool {
        self.recent.retain(|(signal, _)| !of.has(signal.event));
        let older = match &mut self.tally {
            Tally::Count(older) => older.len(),
            Tally::Distinct(values) => {
                values.forget(|time| of.moments.contains(&time));
                values.len()
            }
            // Numbers by their times: no text.
            Tally::Numbers(_) => 0,
        };
        self.recent.is_empty() && older == 0
    }

    /// The matches a finding cites.
    pub(super) fn cited(&self) -> Vec<Signal> {
        self.recent.iter().map(|(signal, _)| signal.clone()).collect()
    }
}
