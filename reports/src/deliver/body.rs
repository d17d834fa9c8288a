//! The body of a message: `{"type", "timestamp", "data"}` in less than 20 kB (Standard Webhooks 1.0.0, "Payload structure").
//!
//! What does not fit is left out, events first, and `data.trimmed` says so: a pager with a short message beats none.

use pipeproof_engine::commit::Message;
use serde_json::{Map, Value, json};

/// Largest body, in bytes.
pub const BODY_BYTES_MAX: usize = 20_000;
/// Longest text left in a body that had to be trimmed hard, in characters.
const TEXT_CHARS_MAX: usize = 200;

/// The bytes sent for a message: equal in every attempt.
#[must_use]
pub fn body(message: &Message) -> Vec<u8> {
    let mut data = message.body.clone();
    let whole = render(message, &data);
    if whole.len() < BODY_BYTES_MAX {
        return whole;
    }
    let room = |data: &Value| render(message, data).len() < BODY_BYTES_MAX;
    let events = longest_events(&data);
    let mut keep = events;
    while keep > 0 {
        keep /= 2;
        cut_events(&mut data, keep);
        note(&mut data, format!("{keep} of {events} cited events kept; the finding holds all"));
        if room(&data) {
            return render(message, &data);
        }
    }
    cut_texts(&mut data);
    note(&mut data, "events left out and long texts cut; the finding holds all".to_owned());
    if room(&data) {
        return render(message, &data);
    }
    let mut rest = match data {
        Value::Object(fields) => {
            fields.into_iter().filter(|(_, value)| !value.is_array() && !value.is_object()).collect()
        }
        _ => Map::new(),
    };
    rest.truncate_to(64);
    let mut data = Value::Object(rest);
    note(&mut data, "only the plain fields kept; the finding holds all".to_owned());
    if !room(&data) {
        data = json!({ "trimmed": "everything but the message id left out; the finding holds all" });
    }
    render(message, &data)
}

/// Keeps the first `count` entries of a map.
trait TruncateTo {
    fn truncate_to(&mut self, count: usize);
}

impl TruncateTo for Map<String, Value> {
    fn truncate_to(&mut self, count: usize) {
        *self = std::mem::take(self).into_iter().take(count).collect();
    }
}

fn render(message: &Message, data: &Value) -> Vec<u8> {
    json!({ "type": message.kind, "timestamp": message.at.to_string(), "id": message.id, "data": data })
        .to_string()
        .into_bytes()
}

fn note(data: &mut Value, text: String) {
    if let Value::Object(fields) = data {
        fields.insert("trimmed".to_owned(), Value::String(text));
    }
}

fn longest_events(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match value {
                Value::Array(items) if name == "events" => items.len(),
                _ => longest_events(value),
            })
            .max()
            .unwrap_or(0),
        Value::Array(items) => items.iter().map(longest_events).max().unwrap_or(0),
        _ => 0,
    }
}

fn cut_events(value: &mut Value, keep: usize) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match value {
                    Value::Array(items) if name == "events" => items.truncate(keep),
                    _ => cut_events(value, keep),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| cut_events(item, keep)),
        _ => {}
    }
}

fn cut_texts(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some((at, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
                text.truncate(at);
                text.push('…');
            }
        }
        Value::Array(items) => items.iter_mut().for_each(cut_texts),
        Value::Object(fields) => fields.values_mut().for_each(cut_texts),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use pipeproof_engine::time::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn message(body: Value) -> Message {
        Message {
            id: "m-1".to_owned(),
            kind: "finding.created".to_owned(),
            incident: None,
            at: Timestamp::from_secs(1),
            body,
        }
    }

    fn parsed(body_of: &Message) -> Value {
        let bytes = body(body_of);
        assert!(bytes.len() < BODY_BYTES_MAX, "{} bytes", bytes.len());
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_small_message_goes_out_whole() {
        let sent = parsed(&message(json!({ "title": "t", "events": [{ "id": "0-1-0" }] })));
        let expected = json!({ "type": "finding.created", "timestamp": "1970-01-01T00:00:01Z", "id": "m-1",
                               "data": { "title": "t", "events": [{ "id": "0-1-0" }] } });
        assert_eq!(sent, expected);
    }

    #[test]
    fn events_go_first_and_the_message_says_so() {
        let events: Vec<_> = (0..200).map(|number| json!({ "id": number, "text": "x".repeat(300) })).collect();
        let sent = parsed(&message(json!({ "title": "t", "finding": { "because": ["why"], "events": events } })));
        let kept = sent["data"]["finding"]["events"].as_array().unwrap().len();
        assert!((25..200).contains(&kept), "{kept}");
        assert_eq!(sent["data"]["trimmed"], format!("{kept} of 200 cited events kept; the finding holds all"));
        assert_eq!(sent["data"]["finding"]["because"][0], "why");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let sent = parsed(&message(json!({ "title": "ä".repeat(30_000) })));
        assert_eq!(sent["data"]["title"].as_str().unwrap().chars().count(), TEXT_CHARS_MAX + 1);
        let many: Map<_, _> = (0..5_000).map(|number| (format!("field-{number}"), json!(["x"]))).collect();
        assert!(parsed(&message(Value::Object(many)))["data"]["trimmed"].is_string());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof!["\\PC{0,300}".prop_map(Value::String), any::<i64>().prop_map(Value::from)];
        leaf.prop_recursive(4, 400, 60, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..60).prop_map(Value::Array),
                prop::collection::btree_map(prop_oneof![Just("events".to_owned()), "[a-z]{1,40}"], inner, 0..20)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_body_fits_and_is_the_same_each_time(data in any_json()) {
            let message = message(data);
            parsed(&message);
            prop_assert_eq!(body(&message), body(&message));
        }
    }
}
