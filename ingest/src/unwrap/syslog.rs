//! Syslog messages as items. A message that is JSON is what its program logged; any other is an object with the parts of
//! its header.

use bytes::Bytes;
use engine::record::ITEM_BYTES_MAX;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::wrappers::Peel;
use super::{Item, numbered};
use crate::syslog::{Frames, parse};

/// The messages of a stream, counted or line by line.
pub(super) fn messages(peel: &mut Peel, text: &Bytes, received: Timestamp) {
    let mut frames = Frames::new(ITEM_BYTES_MAX);
    frames.push(text);
    while let Some(frame) = frames.next_frame().or_else(|| frames.last_frame()) {
        if peel.is_full() {
            return;
        }
        let parts = parse(&frame, received);
        let mut about = Item::default();
        for (name, attribute) in [("host", "syslog.host"), ("app", "syslog.app")] {
            if let Some(text) = parts.header.get(name).and_then(serde_json::Value::as_str) {
                about.attributes.push((attribute, text.to_owned()));
            }
        }
        let host = parts.header.get("host").and_then(serde_json::Value::as_str);
        let sequence = parts.header.get("structured_data").and_then(|data| data["meta"]["sequenceId"].as_str());
        about.attributes.extend(sequence.and_then(|sequence| numbered::syslog(host, sequence)).into_iter().flatten());
        let message = Bytes::from(parts.message);
        if peel.container(&message, &about, 0) {
            continue;
        }
        let mut object = parts.header;
        object.insert("message".to_owned(), String::from_utf8_lossy(&message).into());
        peel.push(Bytes::from(serde_json::Value::Object(object).to_string()), &about);
    }
}
