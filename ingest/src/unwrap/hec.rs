//! Splunk's HTTP Event Collector (Splunk Enterprise, "Format events for HTTP Event Collector").

use bytes::Bytes;
use serde::Deserialize;

use super::wrappers::Peel;
use super::{Item, lines as lines_of, split};
use crate::skim;

/// What a client asks about acknowledgements (`/services/collector/ack`): the ids it was given.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Acks {
    /// The ids.
    pub acks: Vec<u64>,
}

/// Members of an event that say where it was read, kept as attributes.
const KEPT: &[(&str, &str)] = &[
    ("time", "hec.time"),
    ("host", "hec.host"),
    ("source", "hec.source"),
    ("sourcetype", "hec.sourcetype"),
    ("index", "hec.index"),
];

/// Objects one after the other, each with its `event`. An event that is a line of text stays in its object.
pub(super) fn events(peel: &mut Peel, text: &Bytes) {
    for range in split(text, peel.items_max) {
        if peel.is_full() {
            return;
        }
        let object = text.slice(range);
        match skim::elements(&object, peel.items_max) {
            Some(elements) => elements.into_iter().for_each(|element| event(peel, object.slice(element))),
            None => event(peel, object),
        }
    }
}

fn event(peel: &mut Peel, object: Bytes) {
    let mut about = Item::default();
    for (member, attribute) in KEPT {
        if let Some(text) = skim::text_at(&object, &[member]).filter(|text| !text.is_empty()) {
            about.attributes.push((attribute, text));
        }
    }
    match skim::member(&object, "event") {
        Some(event) if matches!(event.first(), Some(b'{' | b'[')) => {
            let event = object.slice_ref(event);
            peel.object(event, &about, 0);
        }
        Some(event) if peel.quoted(event, &about, 0) => {}
        Some(_) => peel.push(object, &about),
        None => peel.push(object, &Item::unread("no_event")),
    }
}

/// A line is an event. One that is not JSON becomes the `event` of an object.
pub(super) fn lines(peel: &mut Peel, text: &Bytes) {
    for range in lines_of(text) {
        if peel.is_full() {
            return;
        }
        let line = text.slice(range);
        if peel.container(&line, &Item::default(), 0) {
            continue;
        }
        let object = match std::str::from_utf8(&line) {
            Ok(line) => Bytes::from(serde_json::json!({ "event": line }).to_string()),
            Err(_) => line,
        };
        peel.push(object, &Item::default());
    }
}
