//! From a body to its items: arrays, NDJSON, concatenated JSON, and the wrappers in which items travel.
//!
//! One source item becomes one record. What cannot be taken apart is one item as it stands, and becomes a dead letter
//! when it is decoded; its neighbours are not affected.

mod bulk;
pub(crate) mod circleci_csv;
pub(crate) mod cloudevents;
mod encoded;
mod hec;
mod jenkins_log;
pub(crate) mod numbered;
mod otlp;
mod parts;
mod syslog;
mod wrappers;

use std::ops::Range;

use bytes::Bytes;
use engine::source::SourceType;
use engine::time::Timestamp;
use percent_encoding::percent_decode;
use pipeproof_engine as engine;

use crate::limits::Limits;
use crate::receive::Refusal;
use crate::skim;
use wrappers::Peel;

pub use self::bulk::{Action, actions};
pub use self::hec::Acks;
pub use self::parts::parts;

/// Attribute: why what came could not be taken apart, as a code.
pub(crate) const UNREAD: &str = "unread";

/// Longest word that is left out whole where a text is cut, bytes.
const WORD_BYTES_MAX: usize = 64 << 10;

/// How a body is put together, where the way it came says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// JSON values in any of the usual framings, in whatever wrappers their shape shows.
    #[default]
    Values,
    /// Splunk HEC: objects that hold an `event` each.
    Hec,
    /// Splunk HEC, raw: a line is an event.
    HecRaw,
    /// Elastic `_bulk`: lines that say what to do, each with a document after it.
    Bulk,
    /// Syslog messages, counted or line by line (RFC 6587).
    Syslog {
        /// When they were received: tells the year of what does not name it.
        received: Timestamp,
    },
    /// OTLP logs as JSON.
    OtlpJson,
    /// OTLP logs as Protocol Buffers.
    OtlpProtobuf,
}

/// One item of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Item {
    /// What its source wrote.
    pub(crate) bytes: Bytes,
    /// Its id on the way it came, for items that have none of their own.
    pub(crate) id: Option<String>,
    /// What its wrappers said about it.
    pub(crate) attributes: Vec<(&'static str, String)>,
}

impl Item {
    /// About something that is kept and cannot be taken apart.
    fn unread(code: &str) -> Self {
        Self { attributes: vec![(UNREAD, code.to_owned())], ..Self::default() }
    }
}

/// Takes a body of a source type apart.
pub(crate) fn items(kind: SourceType, framing: Framing, body: &Bytes, limits: &Limits) -> Result<Vec<Item>, Refusal> {
    // White space belongs to what is binary, and to counted messages.
    let exact = matches!(framing, Framing::OtlpProtobuf | Framing::Syslog { .. });
    let text = if exact { body } else { skim::trim(body) };
    if text.is_empty() {
        return Err(Refusal::Empty);
    }
    let text = body.slice_ref(text);
    let mut peel = Peel::new(kind, limits);
    match framing {
        Framing::Values if kind == SourceType::Jenkins && !matches!(text.first(), Some(b'{' | b'[')) => {
            let entries = jenkins_log::entries(&text, limits.items_max);
            peel.out.extend(entries.into_iter().map(|bytes| Item { bytes, ..Item::default() }));
        }
        Framing::Values if kind == SourceType::CircleciAudit && !matches!(text.first(), Some(b'{' | b'[')) => {
            let rows = circleci_csv::entries(&text, limits.items_max);
            peel.out.extend(rows.into_iter().map(|bytes| Item { bytes, ..Item::default() }));
        }
        Framing::Values => peel.text(&text, &Item::default(), 0),
        Framing::Hec => hec::events(&mut peel, &text),
        Framing::HecRaw => hec::lines(&mut peel, &text),
        Framing::Bulk => bulk::documents(&mut peel, &text),
        Framing::Syslog { received } => syslog::messages(&mut peel, &text, received),
        Framing::OtlpJson => otlp::json(&mut peel, &text),
        Framing::OtlpProtobuf => otlp::protobuf(&mut peel, &text),
    }
    peel.refusal().map_or(Ok(peel.out), Err)
}

/// The values of a body: several lines that are each a value (NDJSON), or values one after the other. Stops after
/// `max`: what is beyond is refused.
fn split(text: &[u8], max: usize) -> Vec<Range<usize>> {
    let whole_line = |line: Range<usize>| text.get(line).is_some_and(is_one_container);
    let several = lines(text).nth(1).is_some();
    if several && lines(text).next().is_some_and(whole_line) {
        return by_line(text, max);
    }
    if let Some(values) = concatenated(text, max) {
        return values;
    }
    if several && lines(text).any(whole_line) {
        return by_line(text, max);
    }
    // One item, whatever it is.
    std::iter::once(0..text.len()).collect()
}

/// Lines that are not blank, without white space around them.
fn lines(text: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    text.split_inclusive(|byte| *byte == b'\n').filter_map(move |line| {
        let at = start + (line.len() - line.trim_ascii_start().len());
        let len = line.trim_ascii().len();
        start += line.len();
        (len > 0).then_some(at..at + len)
    })
}

fn is_one_container(text: &[u8]) -> bool {
    matches!(text.first(), Some(b'{' | b'[')) && skim::value_end(text, 0) == Some(text.len())
}

/// NDJSON: a line that is not whole stays one item; one that holds several values gives several.
fn by_line(text: &[u8], max: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for line in lines(text) {
        match text.get(line.clone()).and_then(|text| concatenated(text, max)) {
            Some(values) => {
                found.extend(values.into_iter().map(|value| line.start + value.start..line.start + value.end));
            }
            None => found.push(line),
        }
        if found.len() > max {
            break;
        }
    }
    found
}

/// Objects and arrays one after the other, and nothing else.
fn concatenated(text: &[u8], max: usize) -> Option<Vec<Range<usize>>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() && found.len() <= max {
        if !matches!(text.get(at), Some(b'{' | b'[')) {
            return None;
        }
        let end = skim::value_end(text, at)?;
        found.push(at..end);
        at = skim::skip_space(text, end);
    }
    Some(found)
}

/// The JSON text of a form body (`payload=…`), as GitHub sends it when a webhook's content type is a form.
pub(crate) fn form_payload(body: &Bytes) -> Option<Bytes> {
    let encoded = body.split(|byte| *byte == b'&').find_map(|part| part.strip_prefix(b"payload="))?;
    let encoded: Vec<u8> = encoded.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Some(percent_decode(&encoded).collect())
}

/// Cuts text into chunks of whole lines of at most `bytes_max` bytes; a longer line is cut where it is full.
pub(crate) fn chunks(text: &[u8], bytes_max: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let rest = text.get(start..).unwrap_or_default();
        let len = if rest.len() <= bytes_max {
            rest.len()
        } else {
            let window = rest.get(..bytes_max).unwrap_or(rest);
            match window.iter().rposition(|byte| *byte == b'\n') {
                Some(newline) => newline + 1,
                None => char_boundary(rest, bytes_max),
            }
        };
        found.push(start..start + len);
        start += len;
    }
    found
}

/// How much of a text stays that has to be cut before its secrets are replaced: whole words. Half a secret is not recognised,
/// but is half a secret. No secret that is a word holds white space, quotes or angle brackets; of a word without end at least
/// [`WORD_BYTES_MAX`] go.
pub(crate) fn whole_words(text: &[u8]) -> usize {
    let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'`' | b'<' | b'>');
    let from = text.len().saturating_sub(WORD_BYTES_MAX);
    let last = text.get(from..).and_then(|tail| tail.iter().rposition(ends));
    last.map_or(from, |last| from + last + 1)
}

/// The last place up to `at` that does not split a UTF-8 character; `at` itself if the text is not UTF-8 there.
pub(crate) fn char_boundary(text: &[u8], at: usize) -> usize {
    (at.saturating_sub(3)..=at)
        .rev()
        .find(|place| text.get(*place).is_none_or(|byte| byte & 0xc0 != 0x80))
        .unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAMINGS: &[Framing] = &[
        Framing::Values,
        Framing::Hec,
        Framing::HecRaw,
        Framing::Bulk,
        Framing::OtlpJson,
        Framing::OtlpProtobuf,
        Framing::Syslog { received: Timestamp::from_secs(1_795_694_400) },
    ];

    type Frame = fn(&[String]) -> (Framing, Vec<u8>);

    /// A field of Protocol Buffers that has a length: number, length, bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut len = bytes.len();
        while len > 0x7f {
            out.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
            len >>= 7;
        }
        out.push(u8::try_from(len).unwrap());
        [out, bytes.to_vec()].concat()
    }

    /// Ways to send the same events.
    const FRAMES: &[(SourceType, Frame)] = &[
        (SourceType::Json, |events| (Framing::Values, events.join("\n").into_bytes())),
        (SourceType::Json, |events| (Framing::Values, events.concat().into_bytes())),
        (SourceType::Json, |events| (Framing::Values, format!("[{}]", events.join(" , ")).into_bytes())),
        (SourceType::Json, |events| {
            (
                Framing::Hec,
                events.iter().map(|event| format!(r#"{{"event":{event},"time":1}}"#)).collect::<String>().into(),
            )
        }),
        (SourceType::Json, |events| (Framing::HecRaw, events.join("\n").into_bytes())),
        (SourceType::Json, |events| {
            let lines = events.iter().map(|event| format!("<13>1 2026-11-26T00:00:00Z h app - - - {event}\n"));
            (Framing::Syslog { received: Timestamp::from_secs(1_795_694_400) }, lines.collect::<String>().into())
        }),
        (SourceType::Json, |events| {
            let counted = events.iter().map(|event| {
                let message = format!("<13>1 2026-11-26T00:00:00Z h app - - - {event}");
                format!("{} {message}", message.len())
            });
            (Framing::Syslog { received: Timestamp::from_secs(1_795_694_400) }, counted.collect::<String>().into())
        }),
        (SourceType::Json, |events| {
            let record = |event: &String| {
                format!(r#"{{"timeUnixNano":"1","body":{{"stringValue":{}}}}}"#, serde_json::to_string(event).unwrap())
            };
            let records: Vec<String> = events.iter().map(record).collect();
            let body = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#, records.join(","));
            (Framing::OtlpJson, body.into_bytes())
        }),
        (SourceType::Json, |events| {
            // LogRecord.body is field 5, AnyValue.string_value field 1.
            let records: Vec<u8> =
                events.iter().flat_map(|event| field(2, &field(5, &field(1, event.as_bytes())))).collect();
            (Framing::OtlpProtobuf, field(1, &field(2, &records)))
        }),
        (SourceType::Json, |events| {
            (
                Framing::Bulk,
                events.iter().map(|event| format!("{{\"create\":{{}}}}\n{event}\n")).collect::<String>().into(),
            )
        }),
        (SourceType::AwsCloudtrail, |events| {
            (Framing::Values, format!(r#"{{"Records":[{}]}}"#, events.join(",")).into_bytes())
        }),
        (SourceType::KubernetesAudit, |events| {
            (Framing::Values, format!(r#"{{"kind":"EventList","items":[{}]}}"#, events.join(",")).into_bytes())
        }),
        (SourceType::AwsCloudtrail, |events| {
            use base64::Engine as _;
            let data = |event: &String| base64::engine::general_purpose::STANDARD.encode(event);
            let records: Vec<String> = events.iter().map(|event| format!(r#"{{"data":"{}"}}"#, data(event))).collect();
            (Framing::Values, format!(r#"{{"requestId":"r","records":[{}]}}"#, records.join(",")).into_bytes())
        }),
        (SourceType::AwsCloudtrail, |events| {
            let records = events.iter().map(|event| format!(r#"{{"detail-type":"x","source":"y","detail":{event}}}"#));
            (Framing::Values, records.collect::<Vec<_>>().join("\n").into_bytes())
        }),
        (SourceType::AwsCloudtrail, |events| {
            let logs: Vec<String> = events
                .iter()
                .map(|event| {
                    format!(r#"{{"id":"1","timestamp":1,"message":{}}}"#, serde_json::to_string(event).unwrap())
                })
                .collect();
            let body = format!(r#"{{"messageType":"DATA_MESSAGE","logEvents":[{}]}}"#, logs.join(","));
            (Framing::Values, body.into_bytes())
        }),
    ];

    fn texts(kind: SourceType, body: &str) -> Vec<String> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let items = items(kind, Framing::Values, &body, &Limits::default()).unwrap();
        items.iter().map(|item| String::from_utf8(item.bytes.to_vec()).unwrap()).collect()
    }

    #[test]
    fn framings() {
        let table: &[(SourceType, &str, &[&str])] = &[
            (SourceType::Json, r#"{"a":1}"#, &[r#"{"a":1}"#]),
            (SourceType::Json, "\u{feff} {\"a\":1}\r\n", &[r#"{"a":1}"#]),
            (SourceType::Json, r#"[{"a":1}, 2 ,{"b":[3]}]"#, &[r#"{"a":1}"#, "2", r#"{"b":[3]}"#]),
            (SourceType::Json, "[]", &[]),
            (SourceType::Json, "{\"a\":1}\n\n{\"b\":2}\r\n", &[r#"{"a":1}"#, r#"{"b":2}"#]),
            (SourceType::Json, "{\"a\":1}{\"b\":2} [3]", &[r#"{"a":1}"#, r#"{"b":2}"#, "3"]),
            (SourceType::Json, "{\n \"a\": 1\n}\n{\n \"b\": 2\n}", &["{\n \"a\": 1\n}", "{\n \"b\": 2\n}"]),
            // One bad line, at the start, in the middle, at the end: its neighbours are whole.
            (SourceType::Json, "{\"a\":\n{\"b\":2}\n{\"c\":3}", &["{\"a\":", r#"{"b":2}"#, r#"{"c":3}"#]),
            (SourceType::Json, "{\"a\":1}\n{\"b\":\n{\"c\":3}", &[r#"{"a":1}"#, "{\"b\":", r#"{"c":3}"#]),
            (SourceType::Json, "{\"a\":1}\nnonsense\n{\"c\"", &[r#"{"a":1}"#, "nonsense", "{\"c\""]),
            (SourceType::Json, "not json\nat all", &["not json\nat all"]),
            (
                SourceType::AwsCloudtrail,
                r#"{"Records":[{"eventName":"A"},{"eventName":"B"}]}"#,
                &[r#"{"eventName":"A"}"#, r#"{"eventName":"B"}"#],
            ),
            (SourceType::AwsCloudtrail, r#"{"Records":[]}"#, &[]),
            (SourceType::AwsCloudtrail, r#"{"Records":"no"}"#, &[r#"{"Records":"no"}"#]),
            (
                SourceType::AwsCloudtrail,
                r#"{"EventId":"1","CloudTrailEvent":"{\"eventName\":\"A\"}"}"#,
                &[r#"{"eventName":"A"}"#],
            ),
            (SourceType::AwsCloudtrail, r#"{"id":"x","detail":{"eventName":"A"}}"#, &[r#"{"eventName":"A"}"#]),
            (
                SourceType::KubernetesAudit,
                r#"{"kind":"EventList","items":[{"auditID":"1"},{"auditID":"2"}]}"#,
                &[r#"{"auditID":"1"}"#, r#"{"auditID":"2"}"#],
            ),
            (SourceType::VaultAudit, r#"{"items":[1]}"#, &[r#"{"items":[1]}"#]),
        ];
        for (kind, body, expected) in table {
            assert_eq!(texts(*kind, body), *expected, "{body}");
        }
    }

    #[test]
    fn empty_and_too_many() {
        for empty in ["", " \n ", "\u{feff}"] {
            let body = Bytes::copy_from_slice(empty.as_bytes());
            assert!(matches!(items(SourceType::Json, Framing::Values, &body, &Limits::default()), Err(Refusal::Empty)));
        }
        let limits = Limits { items_max: 2, ..Limits::default() };
        let body = Bytes::from_static(b"[1,2,3]");
        assert!(matches!(items(SourceType::Json, Framing::Values, &body, &limits), Err(Refusal::Items(2))));
    }

    #[test]
    fn forms() {
        let payload = |body: &'static str| form_payload(&Bytes::from_static(body.as_bytes()));
        assert_eq!(payload("payload=%7B%22a%22%3A+1%7D").unwrap(), "{\"a\": 1}");
        assert_eq!(payload("x=1&payload=a").unwrap(), "a");
        assert_eq!(payload("payload=%7").unwrap(), "%7", "an escape that is cut stands for itself");
        assert_eq!(payload("{}"), None);
    }

    #[test]
    fn what_is_cut_ends_with_a_whole_word() {
        for (text, kept) in [
            ("token ghp_abc", "token "),
            ("{\"a\":\"ghp_abc", "{\"a\":\""),
            ("https://u:pass@h x", "https://u:pass@h "),
            ("whole words\n", "whole words\n"),
            ("abc", ""),
        ] {
            assert_eq!(&text[..whole_words(text.as_bytes())], kept);
        }
        let endless = "x".repeat(WORD_BYTES_MAX + 7);
        assert_eq!(whole_words(endless.as_bytes()), 7);
    }

    #[test]
    fn log_chunks_are_whole_lines() {
        let chunked = |text: &str, max| -> Vec<String> {
            let bytes = text.as_bytes();
            chunks(bytes, max).into_iter().map(|range| String::from_utf8(bytes[range].to_vec()).unwrap()).collect()
        };
        assert_eq!(chunked("ab\ncd\nef\n", 6), ["ab\ncd\n", "ef\n"]);
        assert_eq!(chunked("abcdefgh\nij", 3), ["abc", "def", "gh\n", "ij"]);
        assert_eq!(chunked("aäöü", 4), ["aä", "öü"], "characters stay whole");
        assert!(chunked("", 4).is_empty());
    }

    proptest! {
        #[test]
        fn chunks_are_the_text(text in "[a\\näé]{0,60}", max in 4..20_usize) {
            let ranges = chunks(text.as_bytes(), max);
            prop_assert!(ranges.iter().all(|range| range.len() <= max && !range.is_empty()));
            let joined: Vec<u8> = ranges.into_iter().flat_map(|range| text.as_bytes()[range].to_vec()).collect();
            prop_assert_eq!(joined, text.as_bytes());
        }

        #[test]
        fn every_body_gives_items_or_is_refused(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            for kind in SourceType::ALL {
                for framing in FRAMINGS {
                    drop(items(*kind, *framing, &Bytes::from(body.clone()), &Limits::default()));
                }
            }
        }

        /// Where a sender cuts its batches decides nothing, in whatever framing and wrapper they travel.
        #[test]
        fn a_batch_split_anywhere_gives_the_same_items(
            numbers in proptest::collection::vec(any::<u32>(), 1..12), cut in 0..12_usize, framing in 0..FRAMES.len(),
        ) {
            let (kind, frame) = FRAMES[framing];
            let events: Vec<String> = numbers.iter().map(|n| format!(r#"{{"eventName":"A","eventID":"{n}","text":"a\n{n}"}}"#)).collect();
            let (first, second) = events.split_at(cut.min(events.len()));
            let of = |events: &[String]| -> Vec<Bytes> {
                if events.is_empty() {
                    return Vec::new();
                }
                let (framing, body) = frame(events);
                let items = items(kind, framing, &Bytes::from(body), &Limits::default()).unwrap();
                items.into_iter().map(|item| item.bytes).collect()
            };
            let whole = of(&events);
            prop_assert_eq!(&whole, &[of(first), of(second)].concat());
            prop_assert_eq!(whole, events.iter().map(|event| Bytes::from(event.clone())).collect::<Vec<_>>());
        }

        #[test]
        fn ndjson_lines_survive_one_another(bad in "[^\\n]{0,20}", good in 1..5_u8) {
            prop_assume!(!bad.contains(['{', '}', '[', ']', '"']) && !bad.trim().is_empty());
            let lines: Vec<String> = (0..good).map(|number| format!("{{\"n\":{number}}}")).collect();
            let body = format!("{}\n{bad}\n{}", lines.join("\n"), lines.join("\n"));
            prop_assert_eq!(texts(SourceType::Json, &body).len(), usize::from(good) * 2 + 1);
        }
    }
}
