//! A count far from what its group has had in earlier buckets: `value_spike`.
//!
//! Buckets are aligned to the epoch and half open. Those without events are no history, but may be a drop. What is
//! typical of a group is worked out once per bucket, not once per match.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::CITED_MAX;
use super::key::ValueId;
use super::signal::Signal;
use crate::redaction::Forgotten;
use crate::rule::{Comparison, CorrelationRule, Operator};
use crate::time::{Timestamp, micros};

/// Buckets one group keeps at most; the oldest are evicted and counted.
const BUCKETS_MAX: usize = 16_384;
/// Distinct values of one bucket that are told apart at most; further ones are evicted and counted.
const VALUES_MAX: usize = 65_536;
const HOUR_MICROS: i64 = 3_600_000_000;
const HOURS_OF_WEEK: i64 = 168;

/// The settings of a spike rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    comparison: Comparison,
    deviation: f64,
    floor: u64,
    width: i64,
    /// Buckets back.
    baseline: i64,
    hour_of_week: bool,
    learn_buckets: u64,
}

impl Settings {
    pub(super) fn of(rule: &CorrelationRule) -> Option<Self> {
        let Operator::Spike { comparison, deviation, floor, baseline, hour_of_week, learn_buckets, .. } =
            &rule.operator
        else {
            return None;
        };
        let width = micros(rule.timespan).max(1);
        Some(Self {
            comparison: *comparison,
            deviation: *deviation,
            floor: *floor,
            width,
            baseline: micros(*baseline) / width,
            hour_of_week: *hour_of_week,
            learn_buckets: (*learn_buckets).max(1),
        })
    }

    /// Whether counts are judged when their bucket ends.
    pub(super) const fn at_end(&self) -> bool {
        matches!(self.comparison, Comparison::Lt | Comparison::Lte)
    }

    pub(super) const fn bucket(&self, time: Timestamp) -> i64 {
        time.as_micros().div_euclid(self.width)
    }

    /// The end of a bucket, which is the start of the next.
    pub(super) const fn end(&self, bucket: i64) -> Timestamp {
        Timestamp::from_micros(bucket.saturating_add(1).saturating_mul(self.width))
    }

    /// How long after its last match nothing of a group matters any more.
    pub(super) const fn kept(&self) -> Duration {
        Duration::from_micros((self.baseline.saturating_add(2).saturating_mul(self.width)).unsigned_abs())
    }

    /// Whether a later bucket without events may be judged otherwise than this one was.
    const fn may_change(&self, bucket: i64, last: i64) -> bool {
        self.hour_of_week && bucket < last.saturating_add(self.baseline)
    }

    const fn hour(&self, bucket: i64) -> i64 {
        bucket.saturating_mul(self.width).div_euclid(HOUR_MICROS).rem_euclid(HOURS_OF_WEEK)
    }
}

/// What a spike or a drop was found by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deviation {
    /// What was counted in the bucket.
    pub count: u64,
    /// Its start.
    pub start: Timestamp,
    /// The median of earlier buckets.
    pub median: f64,
    /// The robust deviation from it; `None` in a cold group, where the floor alone decides.
    pub z: Option<f64>,
    /// How many earlier buckets there are.
    pub buckets: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Bucket {
    number: i64,
    count: u64,
    fired: bool,
}

/// One group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Buckets {
    list: VecDeque<Bucket>,
    /// The values of the bucket that live matches fall into, and of the one that is being taught.
    open: (i64, BTreeSet<ValueId>),
    taught: (i64, BTreeSet<ValueId>),
    /// The latest matches, for findings to cite.
    recent: Vec<Signal>,
    /// A drop was found: nothing more is said until a bucket is none.
    dropped: bool,
    /// The bucket to be judged next when it ends.
    pub(super) next: Option<i64>,
    /// Bucket, median, scale and number of earlier buckets, worked out for it.
    #[serde(skip)]
    typical: Option<(i64, f64, f64, u64)>,
}

impl Buckets {
    /// Takes in a match; what it was found by, if it is a spike. `live` is `None` while history is taught.
    pub(super) fn add(
        &mut self,
        settings: &Settings,
        time: Timestamp,
        value: Option<ValueId>,
        live: Option<&Signal>,
        evicted: &mut u64,
    ) -> Option<Deviation> {
        let number = settings.bucket(time);
        let mut counts = true;
        if let Some(value) = value {
            let open = if live.is_some() { &mut self.open } else { &mut self.taught };
            if open.0 != number {
                *open = (number, BTreeSet::new());
            }
            if open.1.len() >= VALUES_MAX && !open.1.contains(&value) {
                *evicted += 1;
                counts = false;
            } else {
                counts = open.1.insert(value);
            }
        }
        let place = self.list.partition_point(|bucket| bucket.number < number);
        if self.list.get(place).is_none_or(|bucket| bucket.number != number) {
            self.list.insert(place, Bucket { number, count: 0, fired: false });
        }
        if place + 1 < self.list.len() {
            self.typical = None;
        }
        let bucket = self.list.get_mut(place)?;
        bucket.count += u64::from(counts);
        let bucket = *bucket;
        self.expire(settings, evicted);
        let signal = live?;
        self.cite(settings, number, signal);
        if settings.at_end() || bucket.fired || bucket.count < settings.floor {
            return None;
        }
        let found = self.judge(settings, number, bucket.count)?;
        let place = self.list.partition_point(|bucket| bucket.number < number);
        if let Some(bucket) = self.list.get_mut(place) {
            bucket.fired = true;
        }
        Some(found)
    }

    fn expire(&mut self, settings: &Settings, evicted: &mut u64) {
        let oldest = self.list.back().map_or(0, |newest| newest.number).saturating_sub(settings.baseline);
        while self.list.front().is_some_and(|bucket| bucket.number < oldest) {
            self.list.pop_front();
        }
        while self.list.len() > BUCKETS_MAX {
            self.list.pop_front();
            *evicted += 1;
        }
    }

    fn cite(&mut self, settings: &Settings, number: i64, signal: &Signal) {
        if self.recent.last().is_some_and(|last| settings.bucket(last.time) < number) {
            self.recent.clear();
        }
        if self.recent.capacity() == 0 {
            self.recent.reserve_exact(1);
        }
        self.recent.push(signal.clone());
        if self.recent.len() > CITED_MAX {
            self.recent.remove(0);
        }
    }

    /// The bucket ends: what it was found by, if it is a drop.
    pub(super) fn end(&mut self, settings: &Settings, number: i64) -> Option<Deviation> {
        let place = self.list.partition_point(|bucket| bucket.number < number);
        let count = self.list.get(place).filter(|bucket| bucket.number == number).map_or(0, |bucket| bucket.count);
        let last = self.list.back().map_or(number, |bucket| bucket.number);
        let found = self.judge(settings, number, count);
        let fired = found.filter(|_| !self.dropped);
        self.dropped = found.is_some();
        let goes_on = last > number || count > 0 || settings.may_change(number, last);
        self.next = goes_on.then_some(number + 1);
        fired
    }

    /// What a count in a bucket is found by, if it is far from what is typical.
    fn judge(&mut self, settings: &Settings, number: i64, count: u64) -> Option<Deviation> {
        let (median, scale, buckets) = self.typical(settings, number);
        let start = settings.end(number - 1);
        if buckets < settings.learn_buckets {
            let found = Deviation { count, start, median, z: None, buckets };
            return (!settings.at_end()).then_some(found);
        }
        let z = (count as f64 - median) / scale;
        let found = Deviation { count, start, median, z: Some(z), buckets };
        settings.comparison.holds(&z, &settings.deviation).then_some(found)
    }

    /// Median, scale and number of the buckets before this one.
    fn typical(&mut self, settings: &Settings, number: i64) -> (f64, f64, u64) {
        if let Some((of, median, scale, buckets)) = self.typical
            && of == number
        {
            return (median, scale, buckets);
        }
        let oldest = number.saturating_sub(settings.baseline);
        let hour = settings.hour(number);
        let mut counts: Vec<f64> = self
            .list
            .iter()
            .filter(|bucket| bucket.number < number && bucket.number >= oldest && bucket.count > 0)
            .filter(|bucket| !settings.hour_of_week || settings.hour(bucket.number) == hour)
            .map(|bucket| bucket.count as f64)
            .collect();
        let middle = median(&mut counts);
        counts.iter_mut().for_each(|count| *count = (*count - middle).abs());
        let spread = median(&mut counts);
        let scale = (1.4826 * spread).max(middle.sqrt()).max(1.0);
        let buckets = counts.len() as u64;
        self.typical = Some((number, middle, scale, buckets));
        (middle, scale, buckets)
    }

    /// Forgets matches that are of records, and their values where those of the bucket are told apart.
    pub(super) fn forget(&mut self, of: &Forgotten, value: &mut impl FnMut(&Signal) -> Option<ValueId>) {
        for signal in self.recent.iter().filter(|signal| of.has(signal.event)) {
            if let Some(value) = value(signal) {
                self.open.1.remove(&value);
                self.taught.1.remove(&value);
            }
        }
        self.recent.retain(|signal| !of.has(signal.event));
    }

    /// Everything that was counted.
    pub(super) fn events(&self) -> u64 {
        self.list.iter().map(|bucket| bucket.count).sum()
    }

    /// The matches a finding cites.
    pub(super) fn cited(&self) -> Vec<Signal> {
        self.recent.clone()
    }

    /// Buckets with events.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }
}

/// The median; of an even number, the mean of the middle two; of nothing, zero.
fn median(numbers: &mut [f64]) -> f64 {
    let middle = numbers.len() / 2;
    if numbers.is_empty() {
        return 0.0;
    }
    let even = numbers.len().is_multiple_of(2);
    let (below, upper, _) = numbers.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if even { below.iter().copied().max_by(f64::total_cmp).map_or(upper, |lower| (lower + upper) / 2.0) } else { upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&mut []), 0.0);
        assert_eq!(median(&mut [3.0]), 3.0);
        assert_eq!(median(&mut [9.0, 1.0, 4.0]), 4.0);
        assert_eq!(median(&mut [9.0, 1.0, 4.0, 2.0]), 3.0);
    }
}
