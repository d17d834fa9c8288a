//! Mean, median, 90th percentile and maximum of exact durations; no sketches, no interpolation.

use serde::{Deserialize, Serialize};

use super::secs;

/// Below this many values a percentile says nothing: the values themselves are given as well.
pub const LIST_BELOW: usize = 10;
/// Resamples behind the interval of the mean.
const RESAMPLES: usize = 2_000;

/// Exact figures over durations. Everything is absent when there is none: "no occurrence" is not zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Number of durations.
    pub n: u64,
    /// Arithmetic mean, seconds.
    pub mean_secs: Option<f64>,
    /// 95 % bootstrap interval of the mean (percentile method, 2,000 resamples, fixed seed), from 10 values on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_interval_secs: Option<(f64, f64)>,
    /// Median by nearest rank, seconds.
    pub median_secs: Option<f64>,
    /// 90th percentile by nearest rank, seconds. Below 10 values read `values_secs` instead.
    pub p90_secs: Option<f64>,
    /// Largest, seconds.
    pub max_secs: Option<f64>,
    /// The values in ascending order, if there are fewer than 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values_secs: Vec<f64>,
}

impl Distribution {
    /// Over durations in microseconds.
    #[must_use]
    pub fn of(mut micros: Vec<i64>) -> Self {
        micros.sort_unstable();
        let few = micros.len() < LIST_BELOW;
        Self {
            n: micros.len() as u64,
            mean_secs: mean(&micros),
            mean_interval_secs: if few { None } else { interval(&micros) },
            median_secs: nearest_rank(&micros, 50).map(secs),
            p90_secs: nearest_rank(&micros, 90).map(secs),
            max_secs: micros.last().copied().map(secs),
            values_secs: if few { micros.iter().copied().map(secs).collect() } else { Vec::new() },
        }
    }
}

fn mean(micros: &[i64]) -> Option<f64> {
    if micros.is_empty() {
        return None;
    }
    let sum: i128 = micros.iter().copied().map(i128::from).sum();
    // Whole microseconds: the same everywhere, whatever the order of summation.
    let mean = sum.div_euclid(i128::from(micros.len() as u64));
    Some(secs(i64::try_from(mean).unwrap_or(i64::MAX)))
}

/// The smallest value with at least `percent` of the values at or below it.
fn nearest_rank(sorted: &[i64], percent: usize) -> Option<i64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

fn interval(sorted: &[i64]) -> Option<(f64, f64)> {
    let mut random = SplitMix64(0x7069_7065_7072_6f6f);
    let mut means: Vec<i64> = (0..RESAMPLES)
        .map(|_| {
            let sum: i128 = (0..sorted.len()).map(|_| i128::from(random.pick(sorted))).sum();
            i64::try_from(sum.div_euclid(i128::from(sorted.len() as u64))).unwrap_or(i64::MAX)
        })
        .collect();
    means.sort_unstable();
    let low = means.get(RESAMPLES / 40)?;
    let high = means.get(RESAMPLES - RESAMPLES / 40 - 1)?;
    Some((secs(*low), secs(*high)))
}

/// Steele, Lea and Flood's generator (OOPSLA 2014): small, and the same numbers for ever.
struct SplitMix64(u64);

impl SplitMix64 {
    fn pick(&mut self, values: &[i64]) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // The high half times the length: even enough for a resample.
        let at = (u128::from(mixed) * values.len() as u128) >> 64;
        usize::try_from(at).ok().and_then(|at| values.get(at)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_no_occurrence_and_not_zero() {
        let none = Distribution::of(Vec::new());
        assert_eq!(
            (none.n, none.mean_secs, none.median_secs, none.p90_secs, none.max_secs),
            (0, None, None, None, None)
        );
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<i64> = (1..=20).map(|value| value * 1_000_000).collect();
        let of = Distribution::of(values);
        assert_eq!((of.median_secs, of.p90_secs, of.max_secs), (Some(10.0), Some(18.0), Some(20.0)));
        assert_eq!(of.mean_secs, Some(10.5));
        assert!(of.values_secs.is_empty());
        let (low, high) = of.mean_interval_secs.unwrap();
        assert!(low > 7.0 && low < 10.5 && high > 10.5 && high < 14.0, "{low} to {high}");
        let few = Distribution::of(vec![2_000_000, 1_000_000]);
        assert_eq!((few.median_secs, few.p90_secs), (Some(1.0), Some(2.0)));
        assert_eq!(few.values_secs, [1.0, 2.0]);
    }
}
