//! What a group has had before: `value_new` and `value_rare`.
//!
//! What is learnt does not depend on the order in which it is learnt, so that history may be loaded at any time.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::key::ValueId;
use super::numbers::{self, Decimal};
use super::recency::Recency;
use crate::rule::{Bounds, CorrelationRule, Learn};
use crate::time::{Timestamp, micros};

/// Values one group remembers at most; the ones seen longest ago are evicted and counted.
const VALUES_MAX: usize = 65_536;
/// Parts a rare rule's timespan is counted in: the oldest leaves as a whole.
const PARTS: i64 = 64;

/// A group of `value_new`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Seen {
    values: Recency,
    pub(super) events: u64,
    pub(super) first: Timestamp,
}

impl Seen {
    /// Whether the group has seen enough to find anything at `time`.
    pub(super) fn is_warm(&self, learn: &Learn, time: Timestamp) -> bool {
        let long_enough = self.events > 0 && time.micros_since(self.first) >= micros(learn.for_);
        self.events >= learn.events && (learn.for_.is_zero() || long_enough)
    }

    /// Forgets values last seen at a time that `of` says.
    pub(super) fn forget(&mut self, of: impl Fn(Timestamp) -> bool) {
        self.values.forget(of);
    }

    /// When it will have been watched for as long as the rule asks.
    pub(super) fn watched_until(&self, learn: &Learn) -> Option<Timestamp> {
        (self.events > 0).then(|| self.first.plus(learn.for_))
    }

    /// Takes in a value; true if the group is warm and has not had it within the timespan.
    pub(super) fn add(
        &mut self,
        rule: &CorrelationRule,
        learn: &Learn,
        last: Option<Timestamp>,
        (value, time): (ValueId, Timestamp),
        evicted: &mut u64,
    ) -> bool {
        // A group that was silent for twice the timespan begins anew; this is also when it is let go.
        if last.is_some_and(|last| last < time.minus(rule.timespan.saturating_mul(2))) {
            *self = Self::default();
        }
        let warm = self.is_warm(learn, time);
        self.values.keep(time.minus(rule.timespan), VALUES_MAX);
        let new = self.values.see(value, time).is_none();
        *evicted += self.values.keep(Timestamp::MIN, VALUES_MAX);
        self.first = if self.events == 0 { time } else { self.first.min(time) };
        self.events += 1;
        warm && new
    }
}

/// A group of `value_rare`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Shares {
    /// Part of time → events.
    total: Counts,
    values: BTreeMap<ValueId, Share>,
    order: Recency,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Share {
    counts: Counts,
    /// Nothing more is said about the value until it stops being rare.
    rare: bool,
}

/// Events by part of time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counts {
    parts: VecDeque<(i64, u64)>,
    all: u64,
}

impl Counts {
    fn add(&mut self, part: i64) {
        let place = self.parts.partition_point(|(other, _)| *other < part);
        match self.parts.get_mut(place).filter(|(other, _)| *other == part) {
            Some((_, count)) => *count += 1,
            None => self.parts.insert(place, (part, 1)),
        }
        self.all += 1;
    }

    fn expire(&mut self, oldest: i64) {
        while let Some((_, count)) = self.parts.front().filter(|(part, _)| *part < oldest) {
            self.all -= count;
            self.parts.pop_front();
        }
    }
}

impl Shares {
    /// Takes in a value; its count and the count of all, if it is rare now and was not.
    pub(super) fn add(
        &mut self,
        rule: &CorrelationRule,
        (bounds, min): (&Bounds, u64),
        value: ValueId,
        time: Timestamp,
        evicted: &mut u64,
    ) -> Option<(u64, u64)> {
        let width = (micros(rule.timespan) / PARTS).max(1);
        let part = time.as_micros().div_euclid(width);
        let limit = time.minus(rule.timespan);
        let oldest = limit.as_micros().div_euclid(width);
        self.total.expire(oldest);
        self.total.add(part);
        while let Some((_, gone)) = self.order.oldest().filter(|(seen, _)| seen.as_micros().div_euclid(width) < oldest)
        {
            self.drop_oldest(gone);
        }
        self.order.see(value, time);
        if self.order.len() > VALUES_MAX
            && let Some((_, gone)) = self.order.oldest()
        {
            self.drop_oldest(gone);
            *evicted += 1;
        }
        let share = self.values.entry(value).or_default();
        share.counts.expire(oldest);
        share.counts.add(part);
        let (own, all) = (share.counts.all, self.total.all);
        let own_decimal = Decimal::of_int(i128::from(own)).unwrap_or_default();
        let rare = all >= min && numbers::within(bounds, own_decimal, all);
        let fired = rare && !share.rare;
        share.rare = rare;
        fired.then_some((own, all))
    }

    fn drop_oldest(&mut self, value: ValueId) {
        self.values.remove(&value);
        self.order.drop_oldest();
    }

    /// Forgets values last seen at a time that `of` says.
    pub(super) fn forget(&mut self, of: impl Fn(Timestamp) -> bool) {
        let before = self.order.values();
        self.order.forget(of);
        let after: std::collections::BTreeSet<ValueId> = self.order.values().into_iter().collect();
        for value in before.iter().filter(|value| !after.contains(value)) {
            self.values.remove(value);
        }
    }

    /// Events within the timespan, as far as they were expired.
    pub(super) const fn total(&self) -> u64 {
        self.total.all
    }
}
