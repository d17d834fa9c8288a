//! Why a page could not be fetched.

use std::time::Duration;

use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::http::TransportError;

/// How long to wait before somebody has mended what a provider refuses.
const REFUSED_AGAIN: Duration = Duration::from_secs(5 * 60);

/// Why a page could not be fetched. Nothing is lost: it is fetched later.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The provider asks to wait.
    #[error("{host} asks to wait until {until} ({why})")]
    Limited {
        /// Whom we asked.
        host: String,
        /// Until when.
        until: Timestamp,
        /// Which limit, in its words.
        why: String,
    },
    /// The provider does not let us.
    #[error(
        "{asked} was refused with {status} ({answer}): check that the token is valid and has the permissions in docs/ways-in.md"
    )]
    Refused {
        /// Method and address without its query.
        asked: String,
        /// HTTP status.
        status: u16,
        /// What it said, shortened.
        answer: String,
    },
    /// It is not there.
    #[error("{asked} was answered {status} ({answer}): is it spelled right, and may the token see it?")]
    Missing {
        /// Method and address without its query.
        asked: String,
        /// 404, 410 or 451.
        status: u16,
        /// What it said, shortened.
        answer: String,
    },
    /// The provider failed.
    #[error("{asked} was answered {status} ({answer})")]
    Answer {
        /// Method and address without its query.
        asked: String,
        /// HTTP status.
        status: u16,
        /// What it said, shortened.
        answer: String,
    },
    /// It answered something else than it documents.
    #[error("{asked} was answered with what cannot be used: {problem}")]
    Content {
        /// Method and address without its query.
        asked: String,
        /// What is wrong.
        problem: String,
    },
    /// No answer came.
    #[error("{asked} brought no answer")]
    Transport {
        /// Method and address without its query.
        asked: String,
        /// Why not.
        #[source]
        source: TransportError,
    },
    /// What was written down about how far we came is of another version.
    #[error("the cursor of `{stream}` cannot be read or written by this version")]
    Cursor {
        /// Whose cursor.
        stream: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// We cannot prove who we are.
    #[error("cannot sign in: {0}")]
    Credentials(String),
    /// What this node holds could not be asked.
    #[error("cannot ask what is held already")]
    Held(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl CollectError {
    /// Whether it is about what was asked for alone, so that asking for something else may go well: it is gone, its feature is
    /// off, its list cannot be used. A rate limit, or credentials that nobody takes, are about everything.
    #[must_use]
    pub const fn is_of_one(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status != 401,
            Self::Missing { .. } | Self::Content { .. } => true,
            Self::Answer { status, .. } => matches!(*status, 400..=499) && *status != 408,
            _ => false,
        }
    }

    /// Whether it may pass by itself: the provider failed, or the way to it.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        !self.is_of_one() && matches!(self, Self::Answer { .. } | Self::Transport { .. })
    }

    /// Whether the page that was asked for is no page of its list (any more).
    #[must_use]
    pub const fn is_no_page(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Answer { status: 400 | 405 | 416 | 422, .. })
    }

    /// When to try again, where the error says; otherwise a back-off decides.
    #[must_use]
    pub fn again(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Limited { until, .. } => Some(*until),
            Self::Refused { .. } | Self::Missing { .. } | Self::Credentials(_) | Self::Cursor { .. } => {
                Some(now.plus(REFUSED_AGAIN))
            }
            _ => None,
        }
    }
}

/// How long to wait after `failures` failures in a row (at least 1): exponential from a second to five minutes, the upper half
/// of it at random, so that many collectors do not come back at once. `random` is uniform in [0, 1).
#[must_use]
pub fn back_off(failures: u32, random: f64) -> Duration {
    let step = Duration::from_secs(1 << failures.saturating_sub(1).min(9)).min(Duration::from_secs(300));
    let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.0 };
    step.mul_f64(0.5 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_to_all_is_not_about_one() {
        let (asked, answer) = (String::new, String::new);
        let refused = |status| CollectError::Refused { asked: asked(), status, answer: answer() };
        let answered = |status| CollectError::Answer { asked: asked(), status, answer: answer() };
        let missing = CollectError::Missing { asked: asked(), status: 404, answer: answer() };
        for error in [refused(403), answered(409), answered(422), missing] {
            assert!(error.is_of_one() && !error.is_passing(), "{error}");
        }
        let limited = CollectError::Limited { host: asked(), until: Timestamp::from_secs(0), why: answer() };
        for error in [refused(401), limited, CollectError::Credentials(asked())] {
            assert!(!error.is_of_one() && !error.is_passing(), "{error}");
        }
        assert!(answered(502).is_passing() && answered(408).is_passing());
        assert!(answered(422).is_no_page() && !answered(502).is_no_page() && !refused(403).is_no_page());
    }

    #[test]
    fn the_back_off_grows_to_five_minutes_and_is_spread() {
        assert_eq!(back_off(1, 0.0), Duration::from_millis(500));
        assert_eq!(back_off(1, 1.0), Duration::from_secs(1));
        assert_eq!(back_off(4, 1.0), Duration::from_secs(8));
        for failures in [10, 100, u32::MAX] {
            assert_eq!(back_off(failures, 1.0), Duration::from_secs(300));
            assert_eq!(back_off(failures, f64::NAN), Duration::from_secs(150));
        }
    }
}
