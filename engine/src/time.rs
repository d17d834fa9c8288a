//! Points in time as the engine counts them: whole microseconds since the Unix epoch, UTC.
//!
//! Microseconds because that is what Delta tables hold; order below that comes from the position in the log.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time, in microseconds since 1970-01-01T00:00:00Z.
///
/// Serialises as an RFC 3339 string in text formats and as an integer in binary ones.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest time that can be written; used as "nothing seen yet".
    pub const MIN: Self = Self(i64::MIN);
    /// The latest time that can be written; used as "no limit".
    pub const MAX: Self = Self(i64::MAX);

    /// From microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From milliseconds since the Unix epoch, saturating.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// From seconds since the Unix epoch, saturating.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Reads an RFC 3339 time (any offset, any number of fractional digits; digits below a microsecond are cut),
    /// the same with an offset without a colon, a date-time without zone taken as UTC, or `YYYY-MM-DD HH:MM:SS UTC` and
    /// `YYYY-MM-DD HH:MM:SS +0200` as GitLab writes them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Some(Self(time.timestamp_micros()));
        }
        for format in ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f %z"] {
            if let Ok(time) = DateTime::parse_from_str(text, format) {
                return Some(Self(time.timestamp_micros()));
            }
        }
        let bare = text.strip_suffix(" UTC").or_else(|| text.strip_suffix('Z')).unwrap_or(text);
        for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"] {
            if let Ok(time) = NaiveDateTime::parse_from_str(bare, format) {
                return Some(Self(time.and_utc().timestamp_micros()));
            }
        }
        chrono::NaiveDate::parse_from_str(bare, "%Y-%m-%d")
            .ok()
            .and_then(|date| date.and_hms_opt(0, 0, 0))
            .map(|time| Self(time.and_utc().timestamp_micros()))
    }

    /// Later by `duration`, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// Earlier by `duration`, saturating.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// Microseconds from `earlier` to `self`; negative when `self` is the earlier one.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The UTC calendar day as `YYYY-MM-DD`.
    #[must_use]
    pub fn date(self) -> String {
        self.to_chrono().format("%Y-%m-%d").to_string()
    }

    /// The start of the UTC hour this time falls into.
    #[must_use]
    pub const fn hour(self) -> Self {
        const HOUR: i64 = 3_600_000_000;
        Self(self.0.div_euclid(HOUR).saturating_mul(HOUR))
    }

    fn to_chrono(self) -> DateTime<Utc> {
        // Outside chrono's range (±262,000 years) the nearest end is shown.
        DateTime::from_timestamp_micros(self.0).unwrap_or(if self.0 < 0 {
            DateTime::<Utc>::MIN_UTC
        } else {
            DateTime::<Utc>::MAX_UTC
        })
    }
}

/// A duration in whole microseconds, saturating.
#[must_use]
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Reads a span as Sigma writes it: a whole number and one of `s m h d w M y` (`M` is 2,629,746 s, as in pySigma).
#[must_use]
pub fn parse_span(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let secs: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        'M' => 2_629_746,
        'y' => 31_556_952,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(secs).map(Duration::from_secs)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = if self.0 % 1_000_000 == 0 { SecondsFormat::Secs } else { SecondsFormat::Micros };
        formatter.write_str(&self.to_chrono().to_rfc3339_opts(form, true))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("not an RFC 3339 time: {text}")))
        } else {
            i64::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forms_sources_write() {
        let second = Timestamp::from_secs(1_761_403_569);
        for text in [
            "2025-10-25T14:46:09Z",
            "2025-10-25T16:46:09+02:00",
            "2025-10-25 14:46:09 UTC",
            "2025-10-25T14:46:09",
            "2025-10-25T14:46:09.0000009Z",
        ] {
            assert_eq!(Timestamp::parse(text), Some(second), "{text}");
        }
        assert_eq!(Timestamp::parse("2025-10-25T14:46:09.6953658Z"), Some(second.plus(Duration::from_micros(695_365))));
        assert_eq!(Timestamp::parse("yesterday"), None);
        assert_eq!(Timestamp::parse("2025-10-25").map(Timestamp::date).as_deref(), Some("2025-10-25"));
    }

    #[test]
    fn spans_have_sigma_units() {
        assert_eq!(parse_span("15m"), Some(Duration::from_secs(900)));
        assert_eq!(parse_span("1M"), Some(Duration::from_secs(2_629_746)));
        for bad in ["", "m", "1.5h", "-1h", "5", "5 h", "99999999999999999999d"] {
            assert_eq!(parse_span(bad), None, "{bad}");
        }
    }
}
