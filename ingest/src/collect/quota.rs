//! How often one may ask, as a provider said it: of an account, whoever asks in its name.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::time::Timestamp;
use pipeproof_engine as engine;

/// The part of a window's requests that is left to others by what may as well be asked later: one in so many.
const LEFT_TO_OTHERS: u64 = 10;
/// How long a window lasts at most (GitHub: an hour). What was said of it says nothing of the next, in which somebody has to ask first.
const WINDOW: Duration = Duration::from_secs(3_600);

/// What a provider said of how often one may ask: of an account, whoever asks in its name.
#[derive(Debug, Default)]
pub struct Quota {
    /// Until when not to ask, and why.
    held: Mutex<Option<(Timestamp, String)>>,
    /// Requests left in this window, how many it has, and when that was said.
    left: Mutex<Option<(u64, Option<u64>, Instant)>>,
}

impl Quota {
    /// Until then nobody asks. An answer that was on its way does not shorten what another said.
    pub(super) fn hold(&self, until: Timestamp, why: String) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_none_or(|(longer, _)| *longer < until) {
            *held = Some((until, why));
        }
    }

    /// Until when nobody asks, and why.
    pub(super) fn held(&self, now: Timestamp) -> Option<(Timestamp, String)> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|(until, _)| *until > now)
    }

    /// An answer said how many requests are left, and perhaps of how many.
    pub(super) fn told(&self, left: u64, total: Option<u64>) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some((left, total, Instant::now()));
    }

    /// Requests left in this window.
    pub(super) fn left(&self) -> Option<u64> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).map(|(left, ..)| left)
    }

    /// Whether few are left.
    pub(super) fn is_scarce(&self) -> bool {
        let said = *self.left.lock().unwrap_or_else(PoisonError::into_inner);
        said.filter(|(.., at)| at.elapsed() < WINDOW)
            .is_some_and(|(left, total, _)| total.is_some_and(|total| left < total / LEFT_TO_OTHERS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_on_its_way_does_not_shorten_how_long_nobody_asks() {
        let quota = Quota::default();
        for (until, holds) in [(20, 20), (10, 20), (30, 30)] {
            quota.hold(Timestamp::from_secs(until), "429".to_owned());
            assert_eq!(quota.held(Timestamp::from_secs(5)).unwrap().0, Timestamp::from_secs(holds));
        }
        assert_eq!(quota.held(Timestamp::from_secs(30)), None);
    }

    #[test]
    fn a_part_of_the_requests_is_left_to_others() {
        let quota = Quota::default();
        assert!(!quota.is_scarce(), "nobody said anything");
        for (left, total, scarce) in [(5_000, Some(5_000), false), (499, Some(5_000), true), (499, None, false)] {
            quota.told(left, total);
            assert_eq!((quota.left(), quota.is_scarce()), (Some(left), scarce));
        }
    }

    #[test]
    fn what_was_said_of_a_window_ends_with_it() {
        let quota = Quota::default();
        quota.told(1, Some(5_000));
        assert!(quota.is_scarce());
        // Nobody has asked since, so nobody was told of the next.
        if let Some((.., at)) = quota.left.lock().unwrap().as_mut() {
            *at = at.checked_sub(WINDOW).unwrap();
        }
        assert!(!quota.is_scarce());
    }
}
