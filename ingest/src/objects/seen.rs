//! Which objects of a folder were read, in bounded room, and which folders can have new ones.
//!
//! Keys do not arrive in their order: regions and accounts write beside each other, and a late file has an early name. When
//! an object was stored is said by the store itself and only grows, so a folder is remembered as a time up to which
//! everything was read, and by name the objects stored shortly before it. A folder whose name is a day is looked at as long
//! as something may still be stored in it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{Datelike, NaiveDate};
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How far behind the newest object one may appear that was stored before it: an upload in parts carries the time it began.
pub const OVERLAP: Duration = Duration::from_secs(3_600);
/// How long after its day ended something may be stored in a day's folder.
pub const LATE_MAX: Duration = Duration::from_secs(3 * 86_400);
/// Most objects of a folder remembered by name. What is forgotten is read again and recognised by the ids in it.
const NAMED_MAX: usize = 10_000;

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Key.
    pub key: String,
    /// Entity tag or version: another one is another object.
    pub tag: Option<String>,
    /// When it was stored, by the store's clock.
    pub stored: Timestamp,
    /// Size in bytes.
    pub size: u64,
}

/// What was read of a folder. Its JSON form is a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Newest time at which an object was stored that was read; nothing was if not set.
    newest: Option<Timestamp>,
    /// Objects stored within [`OVERLAP`] of it that were read: a short hash of key and tag, and when they were stored.
    #[serde(default)]
    named: BTreeMap<String, Timestamp>,
    /// What was stored before counts as read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Timestamp>,
}

impl Seen {
    /// A folder of which everything stored before `from` counts as read.
    #[must_use]
    pub fn since(from: Timestamp) -> Self {
        Self { from: Some(from), ..Self::default() }
    }

    /// Whether an object is to be read.
    #[must_use]
    pub fn is_new(&self, object: &Listed) -> bool {
        if self.from.is_some_and(|from| object.stored < from) {
            return false;
        }
        match self.newest {
            Some(newest) if object.stored < newest.minus(OVERLAP) => false,
            _ => !self.named.contains_key(&name(object)),
        }
    }

    /// The objects of a listing that are to be read, those stored first at the beginning.
    #[must_use]
    pub fn unread<'a>(&self, listed: &'a [Listed]) -> Vec<&'a Listed> {
        let mut unread: Vec<_> = listed.iter().filter(|object| self.is_new(object)).collect();
        unread.sort_by(|one, other| (one.stored, &one.key).cmp(&(other.stored, &other.key)));
        unread
    }

    /// Remembers that an object was read. Objects of one listing are read in the order of [`Seen::unread`]: what is stored
    /// long before the newest counts as read from then on.
    pub fn read(&mut self, object: &Listed) {
        self.named.insert(name(object), object.stored);
        let newest = self.newest.map_or(object.stored, |newest| newest.max(object.stored));
        self.newest = Some(newest);
        self.named.retain(|_, stored| *stored >= newest.minus(OVERLAP));
        while self.named.len() > NAMED_MAX {
            let Some(oldest) = self.named.iter().min_by_key(|(_, stored)| **stored).map(|(name, _)| name.clone())
            else {
                break;
            };
            self.named.remove(&oldest);
        }
    }
}

/// A short name: 64 bits are enough among ten thousand, and a cursor stays small.
fn name(object: &Listed) -> String {
    let mut digest = Sha256::new();
    digest.update(object.key.as_bytes());
    digest.update([0]);
    digest.update(object.tag.as_deref().unwrap_or_default().as_bytes());
    hex::encode(digest.finalize().get(..8).unwrap_or_default())
}

/// Whether nothing new can be below a folder any more: its path ends in a year, a month or a day (`2026/11/26/`, also as
/// `year=2026/month=11/day=26/` or `dt=2026-11-26/`) that was over [`LATE_MAX`] before `now`, or before `from`.
#[must_use]
pub fn is_over(folder: &str, from: Timestamp, now: Timestamp) -> bool {
    let Some((_, end)) = dated(folder) else { return false };
    end <= from || end.plus(LATE_MAX) <= now
}

/// A span of time that a folder's path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// A year.
    Year,
    /// A month.
    Month,
    /// A day.
    Day,
}

/// The span that the last parts of a path name, if they do.
#[must_use]
pub fn span(folder: &str) -> Option<Span> {
    dated(folder).map(|(span, _)| span)
}

/// The year, month or day that the last parts of a path name, and when it ends.
fn dated(folder: &str) -> Option<(Span, Timestamp)> {
    let parts: Vec<&str> = folder.trim_end_matches('/').split('/').collect();
    let value = |part: &str| part.rsplit_once('=').map_or(part, |(_, value)| value).to_owned();
    let last = parts.last()?;
    if let Ok(day) = NaiveDate::parse_from_str(&value(last), "%Y-%m-%d") {
        return Some((Span::Day, midnight(day.succ_opt()?)?));
    }
    // The year is the first of at most three parts at the end, the others are two digits each.
    for count in (1..=3_usize.min(parts.len())).rev() {
        let tail: Vec<String> = parts.get(parts.len() - count..)?.iter().map(|part| value(part)).collect();
        let digits = |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
        let shaped = tail.iter().enumerate().all(|(at, part)| digits(part, if at == 0 { 4 } else { 2 }));
        if !shaped {
            continue;
        }
        let year: i32 = tail.first()?.parse().ok().filter(|year| (2000..2200).contains(year))?;
        let number = |at: usize| tail.get(at).and_then(|part| part.parse::<u32>().ok());
        let (span, end) = match (number(1), number(2)) {
            (None, _) => (Span::Year, NaiveDate::from_ymd_opt(year + 1, 1, 1)?),
            (Some(12), None) => (Span::Month, NaiveDate::from_ymd_opt(year + 1, 1, 1)?),
            (Some(month), None) => (Span::Month, NaiveDate::from_ymd_opt(year, month + 1, 1)?),
            (Some(month), Some(day)) => (Span::Day, NaiveDate::from_ymd_opt(year, month, day)?.succ_opt()?),
        };
        return Some((span, midnight(end)?));
    }
    None
}

fn midnight(day: NaiveDate) -> Option<Timestamp> {
    let days = i64::from(day.num_days_from_ce()) - i64::from(NaiveDate::from_ymd_opt(1970, 1, 1)?.num_days_from_ce());
    Some(Timestamp::from_secs(days * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_800_000_000 + secs)
    }

    fn object(key: &str, stored: i64) -> Listed {
        Listed { key: key.to_owned(), tag: Some(format!("tag of {key}")), stored: at(stored), size: 1 }
    }

    #[test]
    fn each_object_is_read_once_whatever_the_order_of_keys() {
        let mut seen = Seen::default();
        let mut listed = vec![object("us-east-1/z", 10), object("eu-west-1/a", 5)];
        assert_eq!(
            seen.unread(&listed).iter().map(|object| object.key.as_str()).collect::<Vec<_>>(),
            ["eu-west-1/a", "us-east-1/z"]
        );
        for object in &listed {
            seen.read(object);
        }
        assert!(seen.unread(&listed).is_empty());
        // A late one with an early name, one stored in the same second, one whose upload began half an hour ago.
        listed.extend([object("ap-south-1/a", 20), object("us-east-1/b", 10), object("big", 10 - 1_800)]);
        assert_eq!(seen.unread(&listed).len(), 3);
        // Written again it is another object.
        let again = Listed { tag: Some("v2".to_owned()), ..object("us-east-1/z", 30) };
        assert!(seen.is_new(&again));
    }

    #[test]
    fn a_restart_from_the_cursor_reads_nothing_again_and_forgets_nothing() {
        let mut seen = Seen::since(at(0));
        assert!(!seen.is_new(&object("before", -1)));
        for number in 0..100 {
            seen.read(&object(&format!("{number}"), number * 60));
        }
        let restored: Seen = serde_json::from_value(serde_json::to_value(&seen).unwrap()).unwrap();
        assert_eq!(restored, seen);
        assert!((0..100).all(|number| !restored.is_new(&object(&format!("{number}"), number * 60))));
        assert!(restored.is_new(&object("100", 6_000)));
    }

    #[test]
    fn room_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..NAMED_MAX + 500 {
            seen.read(&object(&format!("{number}"), 0));
        }
        assert_eq!(seen.named.len(), NAMED_MAX);
        seen.read(&object("much later", 100_000));
        assert_eq!(seen.named.len(), 1, "what is long before the newest needs no name");
        assert!(!seen.is_new(&object("7", 0)));
    }

    #[test]
    fn folders_of_days_long_past_are_not_listed() {
        // 2026-11-26T10:00:00Z
        let now = Timestamp::parse("2026-11-26T10:00:00Z").unwrap();
        let from = Timestamp::parse("2026-01-15T00:00:00Z").unwrap();
        for (folder, over) in [
            ("AWSLogs/1/CloudTrail/eu-central-1/2026/11/26/", false),
            ("AWSLogs/1/CloudTrail/eu-central-1/2026/11/23/", false),
            ("AWSLogs/1/CloudTrail/eu-central-1/2026/11/22/", true),
            ("AWSLogs/1/CloudTrail/eu-central-1/2026/11/", false),
            ("AWSLogs/1/CloudTrail/eu-central-1/2026/10/", true),
            ("AWSLogs/1/CloudTrail/eu-central-1/2025/12/", true),
            ("AWSLogs/1/CloudTrail/eu-central-1/2025/", true),
            ("AWSLogs/1/CloudTrail/eu-central-1/2026/", false),
            ("AWSLogs/1/CloudTrail/eu-central-1/", false),
            ("AWSLogs/111122223333/", false),
            ("audit/year=2026/month=10/day=01/", true),
            ("audit/year=2026/month=11/day=26", false),
            ("audit/dt=2026-11-01/", true),
            ("audit/dt=2026-11-25/", false),
            ("audit/2026/13/", false),
            ("builds/1234/", false),
            ("builds/2026/99/99/", false),
            ("", false),
        ] {
            assert_eq!(is_over(folder, from, now), over, "{folder}");
        }
    }

    #[test]
    fn folders_say_which_span_they_are() {
        for (folder, named) in [
            ("AWSLogs/1/CloudTrail/eu-central-1/2026/11/26/", Some(Span::Day)),
            ("AWSLogs/1/CloudTrail/eu-central-1/2026/11", Some(Span::Month)),
            ("audit/year=2026/", Some(Span::Year)),
            ("audit/dt=2026-11-01/", Some(Span::Day)),
            ("2026/11/26/10/05/", None),
            ("AWSLogs/111122223333/", None),
        ] {
            assert_eq!(span(folder), named, "{folder}");
        }
    }

    #[test]
    fn what_was_before_the_beginning_is_not_listed_either() {
        let now = Timestamp::parse("2026-11-26T10:00:00Z").unwrap();
        assert!(is_over("x/2026/11/25/", Timestamp::parse("2026-11-26T00:00:00Z").unwrap(), now));
        assert!(!is_over("x/2026/11/25/", Timestamp::parse("2026-11-25T23:00:00Z").unwrap(), now));
    }
}
