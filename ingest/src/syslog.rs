//! Syslog over a stream: messages found in it (RFC 6587), and their parts (RFC 5424; RFC 3164 where a sender is older).

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use chrono::{DateTime, Datelike, NaiveDate};
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde_json::{Map, Value, json};
use syslog_loose::{ProcId, Variant};

use crate::unwrap::whole_words;

/// Most digits of an octet count: what is longer is no count.
const COUNT_DIGITS_MAX: usize = 9;
/// How far ahead of us the clock of a sender may be that names no year. What is further ahead is of the year before.
const AHEAD_MAX: Duration = Duration::from_secs(31 * 24 * 3_600);

/// The messages of a stream. Each is counted or ends with its line, whichever way it starts; both may occur in one stream.
#[derive(Debug)]
pub struct Frames {
    buffer: BytesMut,
    bytes_max: usize,
    /// Bytes of a counted message that are left out, because it is too long.
    skip: usize,
    /// A line is left out up to its end, because it is too long.
    skip_line: bool,
}

impl Frames {
    /// Messages of at most `bytes_max` bytes; of a longer one the beginning is told, up to the last whole word.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), bytes_max, skip: 0, skip_line: false }
    }

    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message.
    pub fn next_frame(&mut self) -> Option<Bytes> {
        loop {
            if !self.skipped() {
                return None;
            }
            // Senders may end counted messages with a line break, too.
            while self.buffer.first().is_some_and(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
                self.buffer.advance(1);
            }
            let frame = match self.count() {
                Count::Unknown => return None,
                Count::Octets { head, octets } => self.counted(head, octets)?,
                Count::Line => self.line()?,
            };
            if !frame.is_empty() {
                return Some(frame);
            }
        }
    }

    /// What is left when the stream ends: a last line without an end, or a message that was cut.
    pub fn last_frame(&mut self) -> Option<Bytes> {
        let whole = self.skipped() && !self.buffer.is_empty();
        let rest = self.buffer.split().freeze();
        let rest = rest.slice_ref(rest.trim_ascii());
        (whole && !rest.is_empty()).then_some(rest)
    }

    /// Leaves out what has to be; false if more of it is still to come.
    fn skipped(&mut self) -> bool {
        let here = self.skip.min(self.buffer.len());
        self.buffer.advance(here);
        self.skip -= here;
        if self.skip_line {
            match self.buffer.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.buffer.advance(end + 1);
                    self.skip_line = false;
                }
                None => self.buffer.clear(),
            }
        }
        self.skip == 0 && !self.skip_line
    }

    fn count(&self) -> Count {
        let digits = self.buffer.iter().take(COUNT_DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
        match self.buffer.get(digits) {
            None if digits <= COUNT_DIGITS_MAX => Count::Unknown,
            Some(b' ') if (1..=COUNT_DIGITS_MAX).contains(&digits) && self.buffer.first() != Some(&b'0') => {
                let text = self.buffer.get(..digits).and_then(|digits| std::str::from_utf8(digits).ok());
                let octets = text.and_then(|text| text.parse().ok());
                octets.map_or(Count::Line, |octets| Count::Octets { head: digits + 1, octets })
            }
            _ => Count::Line,
        }
    }

    fn counted(&mut self, head: usize, octets: usize) -> Option<Bytes> {
        let kept = octets.min(self.bytes_max);
        if self.buffer.len() < head + kept {
            return None;
        }
        self.buffer.advance(head);
        self.skip = octets - kept;
        let frame = self.buffer.split_to(kept).freeze();
        Some(if self.skip > 0 { beginning(&frame) } else { frame })
    }

    fn line(&mut self) -> Option<Bytes> {
        match self.buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) if end <= self.bytes_max => {
                let line = self.buffer.split_to(end + 1).freeze();
                Some(line.slice_ref(line.trim_ascii_end()))
            }
            None if self.buffer.len() <= self.bytes_max => None,
            _ => {
                self.skip_line = true;
                Some(beginning(&self.buffer.split_to(self.bytes_max).freeze()))
            }
        }
    }
}

/// What stays of a message that is too long. It was not redacted yet: half a secret must not stay.
fn beginning(frame: &Bytes) -> Bytes {
    frame.slice(..whole_words(frame))
}

enum Count {
    Unknown,
    Octets { head: usize, octets: usize },
    Line,
}

/// Puts messages together as counted ones, the framing that takes any of them.
#[must_use]
pub fn counted(frames: &[Bytes]) -> Bytes {
    let mut out = Vec::with_capacity(frames.iter().map(|frame| frame.len() + 8).sum());
    for frame in frames {
        // rsyslog ends counted messages with a line break, too.
        let end = frame.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
        let frame = frame.get(..end).unwrap_or_default();
        // A count of nothing is no count (RFC 6587 §3.4.1): it would be read as a line, with all that follows.
        if frame.is_empty() {
            continue;
        }
        out.extend_from_slice(frame.len().to_string().as_bytes());
        out.push(b' ');
        out.extend_from_slice(frame);
    }
    Bytes::from(out)
}

/// A message's parts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parts {
    /// What is said about it, with the names of RFC 5424 in snake case; the message itself is not among it.
    pub(crate) header: Map<String, Value>,
    pub(crate) message: String,
}

/// Reads a message that was received at `received`. One of RFC 3164, which names no year, is taken to be of the latest year
/// that does not make it of the future: in the first hours of a year there are messages of the last one. A clock may run ahead.
pub(crate) fn parse(frame: &[u8], received: Timestamp) -> Parts {
    let text = String::from_utf8_lossy(frame);
    let parsed = syslog_loose::parse_message_with_year(&text, |date| year_of(date, received), Variant::Either);
    let mut header = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            header.insert(name.to_owned(), value);
        }
    };
    set("time", parsed.timestamp.map(|time| time.to_rfc3339().into()));
    set("facility", parsed.facility.map(|facility| facility.as_str().into()));
    set("severity", parsed.severity.map(|severity| severity.as_str().into()));
    set("host", parsed.hostname.map(Into::into));
    set("app", parsed.appname.map(Into::into));
    set(
        "procid",
        parsed.procid.map(|procid| match procid {
            ProcId::PID(number) => json!(number),
            ProcId::Name(name) => json!(name),
        }),
    );
    set("msgid", parsed.msgid.map(Into::into));
    let data: Map<String, Value> = parsed
        .structured_data
        .iter()
        .map(|element| {
            let params = element.params().map(|(name, value)| ((*name).to_owned(), value.into()));
            (element.id.to_owned(), Value::Object(params.collect()))
        })
        .collect();
    set("structured_data", (!data.is_empty()).then_some(Value::Object(data)));
    Parts { header, message: parsed.msg.trim_start_matches('\u{feff}').to_owned() }
}

fn year_of((month, day, hour, minute, second): (u32, u32, u32, u32, u32), received: Timestamp) -> i32 {
    let latest = received.plus(AHEAD_MAX);
    let latest = DateTime::from_timestamp_micros(latest.as_micros()).unwrap_or_default().naive_utc();
    let this = latest.year();
    // A leap day is not in every year, nor in every fourth.
    let fits = |year: &i32| {
        let time = NaiveDate::from_ymd_opt(*year, month, day).and_then(|date| date.and_hms_opt(hour, minute, second));
        time.is_some_and(|time| time <= latest)
    };
    (0..=8).map(|back| this.saturating_sub(back)).find(fits).unwrap_or(this)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-26T12:00:00Z.
    const NOVEMBER: Timestamp = Timestamp::from_secs(1_795_694_400);

    #[test]
    fn the_year_that_a_message_does_not_name_makes_it_of_the_past_or_of_soon() {
        let time = |received: &str, text: &str| {
            let received = Timestamp::parse(received).unwrap();
            let parts = parse(format!("<34>{text} host su: x").as_bytes(), received);
            parts.header["time"].as_str().unwrap().get(..19).unwrap().to_owned()
        };
        for (received, text, expected) in [
            ("2027-01-01T00:00:03Z", "Dec 31 23:59:59", "2026-12-31T23:59:59"),
            ("2026-12-31T23:59:58Z", "Jan  1 00:00:01", "2027-01-01T00:00:01"),
            ("2026-11-26T12:00:00Z", "Nov 26 11:59:59", "2026-11-26T11:59:59"),
            ("2026-11-26T12:00:00Z", "Mar  2 10:00:00", "2026-03-02T10:00:00"),
            ("2026-11-26T12:00:00Z", "Nov 28 10:00:00", "2026-11-28T10:00:00"),
            ("2029-01-15T00:00:00Z", "Feb 29 10:00:00", "2028-02-29T10:00:00"),
        ] {
            assert_eq!(time(received, text), expected, "{text} received {received}");
        }
    }

    fn all(frames: &mut Frames) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(frame) = frames.next_frame() {
            found.push(String::from_utf8(frame.to_vec()).unwrap());
        }
        found
    }

    #[test]
    fn counted_and_ended_messages_in_one_stream() {
        let mut frames = Frames::new(100);
        frames.push(b"11 <13>1 a\nb c<14>1 line one\r\n<15>two\n\n5 <1>x\n9 <16>1 cut");
        assert_eq!(all(&mut frames), ["<13>1 a\nb c", "<14>1 line one", "<15>two", "<1>x\n", "<16>1 cut"]);
        frames.push(b"7 <1>");
        assert_eq!(all(&mut frames), Vec::<String>::new());
        assert_eq!(frames.last_frame().unwrap(), "7 <1>", "cut by the end, kept all the same");
        frames.push(b"<17>no end");
        assert_eq!((all(&mut frames).len(), frames.last_frame().unwrap()), (0, Bytes::from("<17>no end")));
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_and_costs_the_next_nothing() {
        let mut frames = Frames::new(6);
        frames.push(b"12 0123 56789ab<1>x\n");
        assert_eq!(all(&mut frames), ["0123 ", "<1>x"], "half a word may be half a secret");
        frames.push(b"abc defgh");
        assert_eq!(all(&mut frames), ["abc "]);
        frames.push(b"ijklm\n<2>y\n");
        assert_eq!(all(&mut frames), ["<2>y"]);
        frames.push(b"9999999999 x y\n1 z");
        assert_eq!(all(&mut frames), ["z"], "no count, a line");
    }

    #[test]
    fn the_example_of_rfc_5424() {
        // RFC 5424 §6.5, example 3.
        let text = "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"Application\" eventID=\"1011\"] \u{feff}An application event log entry...";
        let parts = parse(text.as_bytes(), NOVEMBER);
        assert_eq!(parts.message, "An application event log entry...");
        let expected = json!({"time": "2003-10-11T22:14:15.003+00:00", "facility": "local4", "severity": "notice",
            "host": "mymachine.example.com", "app": "evntslog", "msgid": "ID47",
            "structured_data": {"exampleSDID@32473": {"iut": "3", "eventSource": "Application", "eventID": "1011"}}});
        assert_eq!(Value::Object(parts.header), expected);
        let old = parse(b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed", NOVEMBER);
        assert_eq!((old.message.as_str(), &old.header["host"]), ("'su root' failed", &json!("mymachine")));
    }

    #[test]
    fn only_line_breaks_are_left_out_at_the_end_of_a_message() {
        let frames = ["<1>a \n", "\n", "<1>b\r\n", "<1>c  "].map(|text| Bytes::from_static(text.as_bytes()));
        assert_eq!(counted(&frames), "5 <1>a 4 <1>b6 <1>c  ");
    }

    proptest! {
        #[test]
        fn where_reads_end_changes_nothing(
            texts in proptest::collection::vec("<[0-9]{1,2}>[ -~]{1,30}", 1..8), cuts in proptest::collection::vec(1..20_usize, 0..20),
        ) {
            let stream = counted(&texts.iter().map(|text| Bytes::from(text.clone())).collect::<Vec<_>>());
            let mut frames = Frames::new(1_000);
            let (mut found, mut rest) = (Vec::new(), &stream[..]);
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                frames.push(head);
                found.extend(all(&mut frames));
                rest = tail;
            }
            frames.push(rest);
            found.extend(all(&mut frames));
            prop_assert_eq!(found, texts);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::new(50);
            frames.push(&bytes);
            while let Some(frame) = frames.next_frame() {
                prop_assert!(frame.len() <= 50);
            }
            drop(frames.last_frame());
            drop(parse(&bytes, NOVEMBER));
        }
    }
}
