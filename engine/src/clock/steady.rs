//! A clock that does not believe a sudden step forward.
//!
//! What is received is dated by the machine's clock, and detection's time never goes back: one wrong reading far ahead would let it
//! forget every item, end every window and call all that follows late. So a step forward counts only once it has lasted.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Clock;
use crate::time::Timestamp;

/// A clock ahead of what has passed by more than this is not believed at once …
const STEP_MAX: Duration = Duration::from_secs(10 * 60);
/// … but when it has been for this long: the clock was wrong before.
const BELIEVED_AFTER: Duration = Duration::from_secs(5 * 60);

/// A clock over another one. Steps back and steps at the start are passed on as they are.
#[derive(Debug)]
pub struct SteadyClock<C> {
    clock: C,
    heard: Mutex<Heard>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    /// The latest time that was believed, and what had passed then.
    latest: Timestamp,
    passed: Duration,
    /// What had passed when the clock stepped ahead, while that is not believed, and by how much.
    ahead: Option<(Duration, Duration)>,
}

impl<C: Clock> SteadyClock<C> {
    /// Begins with the present time of `clock`.
    pub fn new(clock: C) -> Self {
        let heard = Heard { latest: clock.now(), passed: clock.passed(), ahead: None };
        Self { clock, heard: Mutex::new(heard) }
    }
}

impl Heard {
    /// The time to go by where the clock says `now` after `passed`.
    fn hear(&mut self, now: Timestamp, passed: Duration) -> Timestamp {
        let expected = self.latest.plus(passed.saturating_sub(self.passed));
        let ahead = Duration::from_micros(u64::try_from(now.micros_since(expected)).unwrap_or(0));
        if ahead > STEP_MAX {
            let (since, _) = *self.ahead.get_or_insert((passed, ahead));
            if passed.saturating_sub(since) < BELIEVED_AFTER {
                self.ahead = Some((since, ahead));
                return expected;
            }
        }
        self.ahead = None;
        if now > expected {
            (self.latest, self.passed) = (now, passed);
        }
        now
    }
}

impl<C: Clock> Clock for SteadyClock<C> {
    fn now(&self) -> Timestamp {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.hear(self.clock.now(), self.clock.passed())
    }

    fn passed(&self) -> Duration {
        self.clock.passed()
    }

    fn ahead(&self) -> Duration {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).ahead.map_or(Duration::ZERO, |(_, ahead)| ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is gone by for readings of a clock, seconds: what had passed, and what it said.
    fn heard(readings: &[(u64, i64)]) -> Vec<i64> {
        let at = |seconds| Timestamp::from_secs(seconds);
        let mut heard = Heard { latest: at(1_000_000), passed: Duration::ZERO, ahead: None };
        let seconds = |time: Timestamp| time.micros_since(at(0)) / 1_000_000;
        readings
            .iter()
            .map(|(passed, now)| seconds(heard.hear(at(1_000_000 + now), Duration::from_secs(*passed))))
            .map(|time| time - 1_000_000)
            .collect()
    }

    #[test]
    fn a_wrong_reading_far_ahead_changes_nothing() {
        let month = 30 * 86_400;
        assert_eq!(heard(&[(1, 1), (2, month), (3, month + 1), (4, 4), (5, 5)]), [1, 2, 3, 4, 5]);
        // Again, later: each is one of its own.
        assert_eq!(heard(&[(1, month), (299, 299), (300, month), (301, 301)]), [1, 299, 300, 301]);
    }

    #[test]
    fn a_step_that_lasts_is_believed() {
        assert_eq!(heard(&[(1, 3_601), (299, 3_899), (301, 3_901), (302, 3_902)]), [1, 299, 3_901, 3_902]);
    }

    #[test]
    fn small_steps_and_steps_back_are_passed_on() {
        assert_eq!(heard(&[(1, 601), (2, 2), (3, 3), (4, -7_200), (5, 5)]), [601, 2, 3, -7_200, 5]);
    }

    #[test]
    fn the_way_back_from_a_step_back_is_no_step_ahead() {
        assert_eq!(heard(&[(10, 10), (11, -86_400), (7_200, -79_000), (7_201, 7_201)]), [10, -86_400, -79_000, 7_201]);
    }
}
