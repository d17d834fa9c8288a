//! Kaplan–Meier: what the durations say when some have not ended yet (Kaplan and Meier 1958; open incidents are
//! right-censored, not left out).

use serde::{Deserialize, Serialize};

use super::secs;

/// One duration, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// How long it lasted, or has lasted so far.
    pub length: i64,
    /// Whether it ended.
    pub ended: bool,
}

/// Figures of the Kaplan–Meier estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Survival {
    /// Observations, open ones included.
    pub n: u64,
    /// Time by which half have ended, seconds; absent: not reached.
    pub median_secs: Option<f64>,
    /// Time by which nine tenths have ended, seconds; absent: not reached.
    pub p90_secs: Option<f64>,
    /// Restricted mean: area under the survival curve up to `tau_secs`, seconds; absent without observations.
    pub rmst_secs: Option<f64>,
    /// Horizon of the restricted mean, seconds.
    pub tau_secs: f64,
}

/// Rounding must not decide whether a curve touched one half.
const EPSILON: f64 = 1e-12;

impl Survival {
    /// The estimate over `observations`, the restricted mean up to `tau` microseconds. An observation censored at the very
    /// time of an end counts as still at risk then, as is usual.
    #[must_use]
    pub fn of(mut observations: Vec<Observation>, tau: i64) -> Self {
        let n = observations.len() as u64;
        let mut figures = Self { n, tau_secs: secs(tau), ..Self::default() };
        if observations.is_empty() {
            return figures;
        }
        observations.sort_unstable_by_key(|observation| observation.length);
        let mut surviving = 1.0_f64;
        let mut at_risk = observations.len();
        let (mut area, mut since) = (0.0_f64, 0_i64);
        for same in observations.chunk_by(|one, other| one.length == other.length) {
            let length = same.first().map_or(0, |observation| observation.length);
            let ended = same.iter().filter(|observation| observation.ended).count();
            if ended > 0 {
                area += surviving * secs(length.min(tau) - since.min(tau));
                since = length;
                surviving *= 1.0 - ended as f64 / at_risk as f64;
                if surviving <= 0.5 + EPSILON {
                    figures.median_secs.get_or_insert(secs(length));
                }
                if surviving <= 0.1 + EPSILON {
                    figures.p90_secs.get_or_insert(secs(length));
                }
            }
            at_risk -= same.len();
        }
        // Past the last end the curve stays where it is.
        area += surviving * secs(tau - since.min(tau));
        // Whole microseconds, so that a report reads the same wherever it is computed.
        figures.rmst_secs = Some((area * 1e6).round() / 1e6);
        figures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn hours(ended: &[i64], open: &[i64]) -> Survival {
        let observation = |ended| move |hours: &i64| Observation { length: hours * HOUR, ended };
        Survival::of(
            ended.iter().map(observation(true)).chain(open.iter().map(observation(false))).collect(),
            72 * HOUR,
        )
    }

    #[test]
    fn golden_numbers() {
        let figures = hours(&[2, 3, 5, 8, 12, 30], &[40, 55, 70]);
        assert_eq!(figures.median_secs, Some(12.0 * 3_600.0));
        assert_eq!(figures.p90_secs, None);
        let rmst = figures.rmst_secs.unwrap() / 3_600.0;
        assert!((rmst - 92.0 / 3.0).abs() < 1e-6, "{rmst}");
    }

    #[test]
    fn corners() {
        assert_eq!(hours(&[], &[]).rmst_secs, None);
        assert_eq!(hours(&[], &[5]).median_secs, None);
        assert_eq!(hours(&[], &[5]).rmst_secs, Some(72.0 * 3_600.0));
        // Half of two is reached exactly.
        assert_eq!(hours(&[1, 9], &[]).median_secs, Some(3_600.0));
        assert_eq!(hours(&[1, 9], &[]).p90_secs, Some(9.0 * 3_600.0));
        // A tie of an end and a censored one: both were at risk.
        assert_eq!(hours(&[4], &[4]).median_secs, Some(4.0 * 3_600.0));
        // Ends past the horizon do not shorten the restricted mean.
        assert_eq!(hours(&[100], &[]).rmst_secs, Some(72.0 * 3_600.0));
    }

    proptest! {
        /// Without open ones and within the horizon, the restricted mean is the mean.
        #[test]
        fn without_censoring_it_is_the_plain_mean(lengths in prop::collection::vec(0..72 * HOUR, 1..60)) {
            let observations = lengths.iter().map(|&length| Observation { length, ended: true }).collect();
            let figures = Survival::of(observations, 72 * HOUR);
            let mean = secs(lengths.iter().sum::<i64>()) / lengths.len() as f64;
            prop_assert!((figures.rmst_secs.unwrap() - mean).abs() < 1e-3);
        }

        /// Leaving open incidents out can only make things look faster.
        #[test]
        fn open_ones_never_shorten(
            ended in prop::collection::vec(0..72 * HOUR, 1..30), open in prop::collection::vec(0..72 * HOUR, 0..30)
        ) {
            let done: Vec<_> = ended.iter().map(|&length| Observation { length, ended: true }).collect();
            let all = done.iter().copied().chain(open.iter().map(|&length| Observation { length, ended: false })).collect();
            let (without, with) = (Survival::of(done, 72 * HOUR), Survival::of(all, 72 * HOUR));
            prop_assert!(with.rmst_secs.unwrap() >= without.rmst_secs.unwrap() - 1e-3);
            prop_assert!(with.median_secs.unwrap_or(f64::MAX) >= without.median_secs.unwrap());
        }
    }
}
