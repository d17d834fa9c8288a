//! What an answer says about how often one may ask.
//!
//! Sources: GitHub "Rate limits for the REST API" (`x-ratelimit-remaining`, `x-ratelimit-reset` in seconds since 1970,
//! `retry-after`, secondary limits answered 403 or 429), GitLab "Rate limits" (`RateLimit-Remaining`, `RateLimit-Reset` in
//! seconds since 1970, `Retry-After`), Buildkite "API rate limits" (`RateLimit-Reset` in seconds from now), RFC 9110 §10.2.3.

use std::time::Duration;

use engine::time::Timestamp;
use http::{HeaderMap, StatusCode};
use pipeproof_engine as engine;

/// What a provider without a word on how long gets: GitHub asks for a minute at least.
const UNSAID: Duration = Duration::from_secs(60);
/// The longest a provider can ask for. GitHub's windows are an hour.
const LONGEST: Duration = Duration::from_secs(2 * 3_600);
/// Clocks differ; a moment more costs nothing.
const MARGIN: Duration = Duration::from_secs(1);

/// Until when not to ask again, and why: this answer is a refusal for asking too often.
pub(super) fn refused(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Option<(Timestamp, String)> {
    let asked = headers.get("retry-after").and_then(|value| retry_after(value.to_str().ok()?, now));
    let spent = remaining(headers) == Some(0);
    let secondary = || contains(body, b"secondary rate limit") || contains(body, b"abuse detection");
    let limited = match status.as_u16() {
        429 => true,
        // Also what a missing permission is answered with.
        403 => asked.is_some() || spent || secondary(),
        // Overload, with a time.
        503 => asked.is_some(),
        _ => false,
    };
    if !limited {
        return None;
    }
    let (until, why) = match (asked, reset(headers, now).filter(|_| spent)) {
        (Some(until), _) => (until, "retry-after"),
        (None, Some(until)) => (until, "no requests are left in this window"),
        (None, None) => (now.plus(UNSAID), "it does not say for how long"),
    };
    Some((bounded(until, now), format!("{}: {why}", status.as_u16())))
}

/// Until when not to ask again after an answer that was given: it was the last one of its window.
pub(super) fn spent(headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    (remaining(headers)? == 0).then(|| reset(headers, now)).flatten().map(|until| bounded(until, now))
}

/// Requests left in this window.
pub(super) fn remaining(headers: &HeaderMap) -> Option<u64> {
    number(headers, &["x-ratelimit-remaining", "ratelimit-remaining"])
}

/// Requests that a window has at all.
pub(super) fn total(headers: &HeaderMap) -> Option<u64> {
    number(headers, &["x-ratelimit-limit", "ratelimit-limit"])
}

fn reset(headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    let seconds = i64::try_from(number(headers, &["x-ratelimit-reset", "ratelimit-reset"])?).ok()?;
    // Below a year it is a span.
    let until = if seconds < 31_536_000 {
        now.plus(Duration::from_secs(seconds.unsigned_abs()).min(LONGEST))
    } else {
        Timestamp::from_secs(seconds)
    };
    Some(until.plus(MARGIN))
}

fn number(headers: &HeaderMap, names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| headers.get(*name)?.to_str().ok()?.trim().parse().ok())
}

/// Seconds, or a date.
fn retry_after(value: &str, now: Timestamp) -> Option<Timestamp> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(now.plus(Duration::from_secs(value.parse().unwrap_or(u64::MAX)).min(LONGEST)));
    }
    let date = chrono::DateTime::parse_from_rfc2822(value).ok()?;
    Some(Timestamp::from_secs(date.timestamp()))
}

fn bounded(until: Timestamp, now: Timestamp) -> Timestamp {
    until.clamp(now.plus(MARGIN), now.plus(LONGEST))
}

fn contains(body: &[u8], words: &[u8]) -> bool {
    body.windows(words.len()).any(|part| part.eq_ignore_ascii_case(words))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_600_000);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn wait(status: u16, pairs: &[(&'static str, &str)], body: &str) -> Option<i64> {
        let status = StatusCode::from_u16(status).unwrap();
        let until = refused(status, &headers(pairs), body.as_bytes(), NOW)?.0;
        Some(until.micros_since(NOW) / 1_000_000)
    }

    #[test]
    fn a_refusal_for_asking_too_often_says_until_when() {
        assert_eq!(wait(429, &[("retry-after", "30")], ""), Some(30));
        assert_eq!(wait(403, &[("retry-after", "30"), ("x-ratelimit-remaining", "4000")], ""), Some(30));
        let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1795600600")];
        assert_eq!(wait(403, &spent, ""), Some(601));
        assert_eq!(wait(429, &[("ratelimit-remaining", "0"), ("ratelimit-reset", "45")], ""), Some(46));
        assert_eq!(wait(403, &[], "You have exceeded a secondary rate limit."), Some(60));
        assert_eq!(wait(429, &[("retry-after", "Thu, 26 Nov 2026 00:00:00 GMT")], ""), Some(7_200));
        assert_eq!(wait(429, &[], ""), Some(60));
        assert_eq!(wait(503, &[("retry-after", "5")], ""), Some(5));
    }

    #[test]
    fn a_missing_permission_is_no_rate_limit() {
        assert_eq!(wait(403, &[("x-ratelimit-remaining", "4000")], "Resource not accessible by integration"), None);
        assert_eq!(wait(500, &[], "secondary rate limit"), None);
    }

    #[test]
    fn what_a_provider_can_ask_for_has_bounds() {
        for asked in ["999999999999999999999", "86400"] {
            assert_eq!(wait(429, &[("retry-after", asked)], ""), Some(7_200), "{asked}");
        }
        assert_eq!(wait(429, &[("retry-after", "0")], ""), Some(1));
        assert_eq!(wait(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1")], ""), Some(2));
    }

    #[test]
    fn the_last_answer_of_a_window_says_so() {
        let last = headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1795600100")]);
        assert_eq!(spent(&last, NOW), Some(Timestamp::from_secs(1_795_600_101)));
        let more = headers(&[("x-ratelimit-remaining", "1"), ("x-ratelimit-reset", "1795600100")]);
        assert_eq!(spent(&more, NOW), None);
    }
}
