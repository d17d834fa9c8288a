//! Numbers in a window: sum, mean and percentile, kept up as numbers come and go.
//!
//! A number is a whole count of billionths, so that sums are exact whatever comes and goes in between; a number beyond
//! 10^20 is none. A percentile is kept by two ordered halves that meet at its rank.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::signal::FieldValue;
use crate::rule::{Bounds, Number};
use crate::time::Timestamp;

/// Numbers one group keeps at most; the oldest are evicted and counted.
pub(super) const NUMBERS_MAX: usize = 100_000;

const SCALE: i128 = 1_000_000_000;
const LARGEST: i128 = 100_000_000_000_000_000_000;

/// A count of billionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Decimal(i128);

impl Decimal {
    pub(super) fn of_int(number: i128) -> Option<Self> {
        (number.unsigned_abs() <= LARGEST.unsigned_abs()).then(|| Self(number * SCALE))
    }

    pub(super) fn of_float(number: f64) -> Option<Self> {
        let scaled = (number * SCALE as f64).round();
        (scaled.abs() <= LARGEST as f64 * SCALE as f64).then_some(Self(scaled as i128))
    }

    /// The number a field holds, or its text is.
    pub(super) fn of(value: FieldValue<'_>) -> Option<Self> {
        match value {
            FieldValue::Int(number) => Self::of_int(i128::from(number)),
            FieldValue::Float(number) => Self::of_float(number),
            FieldValue::Text(text) => match text.parse::<i128>() {
                Ok(number) => Self::of_int(number),
                // "inf" and "nan" are no numbers, and fall out by their size.
                Err(_) => text.parse().ok().filter(|number: &f64| number.is_finite()).and_then(Self::of_float),
            },
            FieldValue::Bool(_) | FieldValue::Time(_) => None,
        }
    }

    /// As people write it.
    pub(super) fn text(self) -> String {
        let whole = self.0 / SCALE;
        let part = (self.0 % SCALE).unsigned_abs();
        let sign = if self.0 < 0 && whole == 0 { "-" } else { "" };
        let text = format!("{sign}{whole}.{part:09}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// A bound in billionths; one beyond all numbers compares as the largest.
fn bound(number: Number) -> i128 {
    let limit = LARGEST * SCALE * 1_000_000;
    match number {
        Number::Int(number) => number.saturating_mul(SCALE).clamp(-limit, limit),
        // `as` saturates; no number is NaN once it has passed the rule language.
        Number::Float(number) => ((number * SCALE as f64).round() as i128).clamp(-limit, limit),
    }
}

/// Whether `sum / count` lies within bounds, without dividing.
pub(super) fn within(bounds: &Bounds, sum: Decimal, count: u64) -> bool {
    let count = i128::from(count);
    bounds.0.iter().all(|(comparison, number)| comparison.holds(&sum.0, &bound(*number).saturating_mul(count)))
}

/// The numbers of a window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Numbers {
    entries: VecDeque<(Timestamp, Decimal)>,
    sum: i128,
    /// Only for a percentile.
    ranked: Option<Ranked>,
}

impl Numbers {
    pub(super) fn new(percentile: Option<f64>) -> Self {
        Self { ranked: percentile.map(Ranked::new), ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn add(&mut self, time: Timestamp, number: Decimal) -> u64 {
        let at = self.entries.partition_point(|(other, _)| *other <= time);
        self.entries.insert(at, (time, number));
        self.sum += number.0;
        if let Some(ranked) = &mut self.ranked {
            ranked.add(number);
        }
        let above = self.entries.len() > NUMBERS_MAX;
        if above {
            self.drop_oldest();
        }
        u64::from(above)
    }

    pub(super) fn expire(&mut self, limit: Timestamp) {
        while self.entries.front().is_some_and(|(time, _)| *time < limit) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((_, number)) = self.entries.pop_front() else { return };
        self.sum -= number.0;
        if let Some(ranked) = &mut self.ranked {
            ranked.remove(number);
        }
    }

    pub(super) const fn sum(&self) -> Decimal {
        Decimal(self.sum)
    }

    /// Rounded down to a billionth: for people.
    pub(super) fn mean(&self) -> Decimal {
        Decimal(self.sum.checked_div(self.entries.len() as i128).unwrap_or(0))
    }

    pub(super) fn percentile(&self) -> Option<Decimal> {
        self.ranked.as_ref().and_then(Ranked::at_rank)
    }
}

/// Numbers in two ordered halves: the lower one holds as many as the rank says, so its largest is the percentile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Ranked {
    /// Parts in a million.
    part: u64,
    low: Counted,
    high: Counted,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counted {
    numbers: BTreeMap<Decimal, u32>,
    len: u64,
}

impl Counted {
    fn add(&mut self, number: Decimal) {
        *self.numbers.entry(number).or_default() += 1;
        self.len += 1;
    }

    fn remove(&mut self, number: Decimal) -> bool {
        let Some(count) = self.numbers.get_mut(&number) else { return false };
        *count -= 1;
        if *count == 0 {
            self.numbers.remove(&number);
        }
        self.len -= 1;
        true
    }
}

impl Ranked {
    fn new(percentile: f64) -> Self {
        Self { part: (percentile.clamp(0.0, 100.0) * 10_000.0).round() as u64, ..Self::default() }
    }

    fn add(&mut self, number: Decimal) {
        if self.at_rank().is_some_and(|rank| number > rank) {
            self.high.add(number);
        } else {
            self.low.add(number);
        }
        self.balance();
    }

    fn remove(&mut self, number: Decimal) {
        // Equal numbers may lie on both sides; it does not matter which one goes.
        if !self.high.remove(number) {
            self.low.remove(number);
        }
        self.balance();
    }

    fn balance(&mut self) {
        let all = self.low.len + self.high.len;
        let rank = (all * self.part).div_ceil(1_000_000).max(1).min(all);
        while self.low.len > rank {
            let Some((number, _)) = self.low.numbers.last_key_value().map(|(number, count)| (*number, *count)) else {
                break;
            };
            self.low.remove(number);
            self.high.add(number);
        }
        while self.low.len < rank {
            let Some((number, _)) = self.high.numbers.first_key_value().map(|(number, count)| (*number, *count)) else {
                break;
            };
            self.high.remove(number);
            self.low.add(number);
        }
    }

    fn at_rank(&self) -> Option<Decimal> {
        self.low.numbers.last_key_value().map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rule::Comparison;

    #[test]
    fn numbers_are_exact() {
        let mut numbers = Numbers::new(None);
        for (at, text) in ["0.1", "0.2", "1e3", "-7", "0.1"].iter().enumerate() {
            numbers.add(Timestamp::from_secs(at as i64), Decimal::of(FieldValue::Text(text)).unwrap());
        }
        numbers.expire(Timestamp::from_secs(4));
        assert_eq!(numbers.sum().text(), "0.1", "what left took nothing else with it");
        for none in ["", "12px", "NaN", "inf", "1e300", "-1e21", "200000000000000000000000000000"] {
            assert_eq!(Decimal::of(FieldValue::Text(none)), None, "{none}");
        }
        assert_eq!(Decimal::of_float(-0.25).unwrap().text(), "-0.25");
        assert_eq!(Decimal::of_int(-12).unwrap().text(), "-12");
        let third = Bounds(vec![(Comparison::Gt, Number::Float(0.333)), (Comparison::Lt, Number::Float(0.334))]);
        assert!(within(&third, Decimal::of_int(1).unwrap(), 3));
        assert!(!within(&third, Decimal::of_int(2).unwrap(), 3));
    }

    proptest! {
        #[test]
        fn a_percentile_is_the_nearest_rank(
            numbers in proptest::collection::vec(-20_i64..20, 1..200),
            percentile in 0_u8..=100,
            window in 1_usize..40,
        ) {
            let mut kept = Numbers::new(Some(f64::from(percentile)));
            for (at, number) in numbers.iter().enumerate() {
                kept.expire(Timestamp::from_secs(at as i64 + 1 - window as i64));
                kept.add(Timestamp::from_secs(at as i64), Decimal::of_int(i128::from(*number)).unwrap());
                let mut sorted = numbers[(at + 1).saturating_sub(window)..=at].to_vec();
                sorted.sort_unstable();
                let rank = (sorted.len() * usize::from(percentile)).div_ceil(100).max(1);
                prop_assert_eq!(kept.percentile(), Decimal::of_int(i128::from(sorted[rank - 1])));
                prop_assert_eq!(kept.sum(), Decimal::of_int(sorted.iter().map(|number| i128::from(*number)).sum()).unwrap());
            }
        }
    }
}
