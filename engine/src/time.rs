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
        if let Some(micros) = usual(text.as_bytes()) {
            return Some(Self(micros));
        }
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

/// Microseconds of a time as nearly every source writes it, `YYYY-MM-DDTHH:MM:SS[.FRACTION]Z` or with an offset for the
/// `Z`; `None` for all else, also what is out of range.
fn usual(text: &[u8]) -> Option<i64> {
    let number = |from: usize, digits: usize| {
        text.get(from..from + digits)?
            .iter()
            .try_fold(0_u32, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')))
    };
    let is = |at: usize, byte: u8| text.get(at) == Some(&byte);
    if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
        return None;
    }
    let date = chrono::NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(5, 2)?, number(8, 2)?)?;
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut fraction = 0;
    if is(at, b'.') {
        let digits = text.get(at + 1..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || digits > 9 {
            return None;
        }
        let micros = number(at + 1, digits.min(6))?;
        fraction = i64::from(micros) * 10_i64.pow(u32::try_from(6 - digits.min(6)).ok()?);
        at += 1 + digits;
    }
    let offset = match text.get(at..)? {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(at + 1, 2)?, number(at + 4, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours * 3_600 + minutes * 60);
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let days = date.signed_duration_since(chrono::NaiveDate::default()).num_days();
    let seconds = days * 86_400 + i64::from(hour * 3_600 + minute * 60 + second) - offset;
    Some(seconds * 1_000_000 + fraction)
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
    fn the_usual_form_is_read_as_chrono_reads_it() {
        let mut read = 0;
        for date in ["2024-02-29", "2023-02-29", "1969-12-31", "0001-01-01", "2025-13-01", "2025-1-01", "9999-12-31"] {
            for time in ["00:00:00", "23:59:59", "24:00:00", "12:60:00", "12:00:60", "12:0a:00", "12-00-00"] {
                for fraction in ["", ".5", ".000001", ".123456789", ".1234567891", ".", ".x"] {
                    for zone in ["Z", "+00:00", "-07:30", "+23:59", "+24:00", "+0100", "", "z", "+01:60", "+1:000"] {
                        let text = format!("{date}T{time}{fraction}{zone}");
                        if let Some(micros) = usual(text.as_bytes()) {
                            let expected = DateTime::parse_from_rfc3339(&text).unwrap().timestamp_micros();
                            assert_eq!(micros, expected, "{text}");
                            read += 1;
                        }
                    }
                }
            }
        }
        // Four of the dates exist; two of the times, four of the fractions and four of the zones are of this form.
        assert_eq!(read, 4 * 2 * 4 * 4);
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
