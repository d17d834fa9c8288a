//! When a delivery is tried again, and what an answer means: pure functions, the randomness is handed in.

use std::time::Duration;

use pipeproof_engine::time::Timestamp;

/// Longest wait a receiver can ask for with `Retry-After`.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);
/// Cap of the exponential back-off of pages.
pub const PAGE_DELAY_MAX: Duration = Duration::from_secs(15 * 60);
/// How long pages are tried before they become dead letters.
pub const PAGE_GIVE_UP: Duration = Duration::from_secs(24 * 3_600);
/// How often pages are tried at least.
pub const PAGE_ATTEMPTS_MIN: u32 = 10;
/// Wait before attempt 1, 2, ... of the Standard Webhooks schedule (1.0.0, "Retry schedule"); about 75 hours in all.
const STANDARD_SECS: [u64; 10] = [0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// A retry schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Standard Webhooks: ten attempts in about 75 hours; up to a fifth is added at random so that many
    /// failed deliveries do not return at once.
    #[default]
    StandardWebhooks,
    /// For pages: full jitter, exponential from 1 s to 15 min, for 24 hours.
    Page,
}

impl Schedule {
    /// How long to wait after `attempts` attempts (at least 1), on a message queued `since` ago; `None` when it is
    /// time to give up. `random` is uniform in `[0, 1)`.
    #[must_use]
    pub fn delay(self, attempts: u32, since: Duration, random: f64) -> Option<Duration> {
        let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.0 };
        match self {
            Self::StandardWebhooks => {
                let base = *STANDARD_SECS.get(usize::try_from(attempts).ok()?)?;
                Some(Duration::from_secs(base).mul_f64(1.0 + 0.2 * random))
            }
            Self::Page => {
                // A message may have waited for a day before we could try it at all.
                if since >= PAGE_GIVE_UP && attempts >= PAGE_ATTEMPTS_MIN {
                    return None;
                }
                // Full jitter: uniform between nothing and the exponential step; a floor keeps a broken
                // receiver from being asked again within the same instant.
                let step = Duration::from_secs(1 << attempts.saturating_sub(1).min(10)).min(PAGE_DELAY_MAX);
                Some(step.mul_f64(random).max(Duration::from_millis(50)))
            }
        }
    }
}

/// How an attempt ended, from the sender's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The receiver answered with this status.
    Status(u16),
    /// No answer: connection refused, reset, TLS failure, timeout.
    NoAnswer,
    /// The egress policy forbade the connection.
    Refused,
}

/// What follows from how an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has it.
    Delivered,
    /// Try again later.
    Retry,
    /// The receiver wants nothing any more (410): stop sending to this target.
    DisableTarget,
    /// Our credentials or secret are refused (401, 403), or the egress policy refuses the target: keep the messages
    /// until somebody changes that.
    PauseTarget,
    /// It will never be taken: a redirect (never followed), or a payload the receiver calls wrong.
    DeadLetter,
}

/// Classifies the end of an attempt.
#[must_use]
pub const fn classify(ended: &Ended) -> Verdict {
    match ended {
        Ended::NoAnswer => Verdict::Retry,
        Ended::Refused => Verdict::PauseTarget,
        Ended::Status(status) => match *status {
            200..=299 => Verdict::Delivered,
            408 | 425 | 429 | 500..=599 => Verdict::Retry,
            410 => Verdict::DisableTarget,
            401 | 403 => Verdict::PauseTarget,
            _ => Verdict::DeadLetter,
        },
    }
}

/// Reads a `Retry-After` value, seconds or an HTTP date (RFC 9110 §10.2.3), as a wait from `now`; at most
/// [`RETRY_AFTER_MAX`].
#[must_use]
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long wait, not an error.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = chrono::DateTime::parse_from_rfc2822(value).ok()?;
        let micros = Timestamp::from_micros(date.timestamp_micros()).micros_since(now);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_standard_schedule_waits_as_written_and_then_gives_up() {
        let waits: Vec<_> = (1..=10)
            .map(|attempts| Schedule::StandardWebhooks.delay(attempts, Duration::ZERO, 0.0).map(|wait| wait.as_secs()))
            .collect();
        let expected = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400].map(Some);
        assert_eq!(waits[..9], expected);
        assert_eq!(waits[9], None);
        assert_eq!(Schedule::StandardWebhooks.delay(1, Duration::ZERO, 1.0), Some(Duration::from_secs(6)));
    }

    #[test]
    fn answers_are_classified() {
        use Verdict::{Delivered, DisableTarget, PauseTarget, Retry};
        let table = [
            (200, Delivered),
            (204, Delivered),
            (408, Retry),
            (425, Retry),
            (429, Retry),
            (500, Retry),
            (501, Retry),
            (503, Retry),
            (410, DisableTarget),
            (401, PauseTarget),
            (403, PauseTarget),
            (301, Verdict::DeadLetter),
            (307, Verdict::DeadLetter),
            (400, Verdict::DeadLetter),
            (404, Verdict::DeadLetter),
            (422, Verdict::DeadLetter),
            (100, Verdict::DeadLetter),
            (600, Verdict::DeadLetter),
        ];
        for (status, expected) in table {
            assert_eq!(classify(&Ended::Status(status)), expected, "{status}");
        }
        assert_eq!(classify(&Ended::NoAnswer), Retry);
        assert_eq!(classify(&Ended::Refused), PauseTarget);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_capped() {
        let now = Timestamp::parse("2026-11-22T10:00:00Z").unwrap();
        let table = [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("999999", Some(900)),
            ("99999999999999999999999999", Some(900)),
            ("Sun, 22 Nov 2026 10:00:30 GMT", Some(30)),
            ("Sun, 22 Nov 2026 09:00:00 GMT", Some(0)),
            ("Sun, 22 Nov 2026 23:00:00 GMT", Some(900)),
            ("", None),
            ("-5", None),
            ("soon", None),
            ("1.5", None),
        ];
        for (text, expected) in table {
            assert_eq!(retry_after(text, now).map(|wait| wait.as_secs()), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn page_waits_stay_between_the_floor_and_the_step(attempts in 1_u32.., random in 0.0..1.0_f64) {
            let wait = Schedule::Page.delay(attempts, Duration::ZERO, random).unwrap();
            let step = Duration::from_secs(1 << (attempts - 1).min(10)).min(PAGE_DELAY_MAX);
            prop_assert!(wait >= Duration::from_millis(50) && wait <= step);
        }

        #[test]
        fn pages_are_given_up_after_a_day_and_not_before(attempts in 1_u32..30, secs in 0_u64..200_000) {
            let wait = Schedule::Page.delay(attempts, Duration::from_secs(secs), 0.5);
            prop_assert_eq!(wait.is_some(), secs < 86_400 || attempts < PAGE_ATTEMPTS_MIN);
        }

        #[test]
        fn retry_after_never_panics(text in ".{0,40}") {
            let wait = retry_after(&text, Timestamp::from_secs(0));
            prop_assert!(wait.is_none_or(|wait| wait <= RETRY_AFTER_MAX));
        }
    }
}
