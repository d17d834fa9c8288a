//! The numbers that senders give their events, as attributes of the records (see `engine::sequence`).

use engine::sequence::{NUMBER, STREAM};
use http::HeaderMap;
use percent_encoding::percent_decode;
use pipeproof_engine as engine;

use crate::skim;

/// The largest number of both numberings: 2³¹ − 1.
const LARGEST: i64 = i32::MAX as i64;

/// What a record says about its number.
pub(crate) type Attributes = [(&'static str, String); 2];

/// The number of a CloudEvent in structured form.
pub(super) fn cloudevent(event: &[u8]) -> Option<Attributes> {
    // Most events have none.
    memchr::memmem::find(event, b"\"sequencetype\"")?;
    skim::member(event, "specversion")?;
    of_cloudevent(|name| skim::text_at(event, &[name]))
}

/// The number of a CloudEvent in binary mode.
pub(crate) fn cloudevent_headers(headers: &HeaderMap) -> Option<Attributes> {
    headers.get("ce-specversion")?;
    of_cloudevent(|name| {
        let value = headers.get(format!("ce-{name}"))?.as_bytes();
        Some(percent_decode(value).decode_utf8().ok()?.into_owned())
    })
}

/// CloudEvents 1.0.1, "Sequence" extension: of type `Integer` are signed 32-bit numbers without a gap, from 1 up and on to the
/// smallest. Of any other type nobody knows which numbers there are.
fn of_cloudevent(attribute: impl Fn(&str) -> Option<String>) -> Option<Attributes> {
    if attribute("sequencetype")? != "Integer" {
        return None;
    }
    let number: i64 = attribute("sequence")?.parse::<i32>().ok()?.into();
    let number = if number < 0 { number + 2 * (LARGEST + 1) } else { number };
    numbered(format!("cloudevents/{}", attribute("source")?), number)
}

/// RFC 5424 §7.3.1: 1 when the originator starts, one more with every message, up to the largest.
pub(super) fn syslog(host: Option<&str>, sequence: &str) -> Option<Attributes> {
    let number: i64 = sequence.parse::<i32>().ok().filter(|number| *number > 0)?.into();
    numbered(format!("syslog/{}", host.unwrap_or("-")), number)
}

fn numbered(stream: String, number: i64) -> Option<Attributes> {
    (number > 0).then(|| [(STREAM, stream), (NUMBER, number.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: &str, kind: &str) -> Option<(String, String)> {
        let event = serde_json::json!({
            "specversion": "1.0", "id": "a", "source": "/ci/acme", "type": "x",
            "sequence": sequence, "sequencetype": kind, "data": {},
        });
        let [(_, stream), (_, number)] = cloudevent(event.to_string().as_bytes())?;
        Some((stream, number))
    }

    #[test]
    fn only_integers_are_numbers_that_nobody_skips() {
        let of = |number: &str| Some(("cloudevents//ci/acme".to_owned(), number.to_owned()));
        assert_eq!(event("7", "Integer"), of("7"));
        assert_eq!(event("-2147483648", "Integer"), of("2147483648"), "after the largest comes the smallest");
        assert_eq!(event("-1", "Integer"), of("4294967295"));
        for (sequence, kind) in [("0", "Integer"), ("2147483648", "Integer"), ("a", "Integer"), ("7", "Timestamp")] {
            assert_eq!(event(sequence, kind), None, "{sequence} {kind}");
        }
        assert_eq!(cloudevent(br#"{"sequence": "7", "sequencetype": "Integer", "source": "a"}"#), None, "no event");
    }

    #[test]
    fn both_modes_give_the_same_number() {
        let named = [
            ("ce-specversion", "1.0"),
            ("ce-source", "/ci/acme%20app"),
            ("ce-sequence", "12"),
            ("ce-sequencetype", "Integer"),
        ];
        let headers: HeaderMap =
            named.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect();
        let [(_, stream), (_, number)] = cloudevent_headers(&headers).unwrap();
        assert_eq!((stream.as_str(), number.as_str()), ("cloudevents//ci/acme app", "12"));
    }

    #[test]
    fn syslog_counts_from_one_per_host() {
        let of = |sequence| syslog(Some("build-7"), sequence).map(|[(_, stream), (_, number)]| (stream, number));
        assert_eq!(of("2147483647"), Some(("syslog/build-7".to_owned(), "2147483647".to_owned())));
        for wrong in ["0", "-1", "2147483648", "1.5", ""] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
