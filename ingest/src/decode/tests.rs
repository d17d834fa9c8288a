//! What the decoders make of real payloads, of hand-made ones for what no sample has, and of nonsense.

mod actor_types;
mod actors;
mod armour;
mod audit_logs;
mod aws;
mod azure;
mod builds;
mod carried;
mod changed;
mod cloud_snapshots;
mod envelopes;
mod excused;
mod github;
mod ids;
mod joblogs;
mod kubernetes;
mod leaks;
mod measured;
mod ocsf;
mod ocsf_schema;
mod plain;
mod refs;
mod room;
pub(crate) mod samples;
mod snapshots;
mod table;
mod vault;

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::event::Event;
use engine::record::{Authenticity, CollectionMode, Envelope, Position, Record};
use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;

pub(super) const RECEIVED: Timestamp = Timestamp::from_secs(1_800_000_000);

pub(super) fn record(kind: SourceType, attributes: &[(&str, &str)], body: impl Into<Bytes>) -> Record {
    Record {
        envelope: Envelope {
            source: "acme".to_owned(),
            source_type: kind,
            received: RECEIVED,
            auth: Authenticity::Bearer,
            key_id: None,
            item: "id:1".to_owned(),
            mode: CollectionMode::Live,
            attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            redacted: Vec::new(),
        },
        salt: [0; 16],
        body: body.into(),
    }
}

pub(super) fn decoded(kind: SourceType, attributes: &[(&str, &str)], body: impl Into<Bytes>) -> Vec<Event> {
    super::decode(Position::default(), &record(kind, attributes, body)).unwrap()
}

/// Fields of an event as text.
pub(super) fn fields(event: &Event) -> BTreeMap<&'static str, String> {
    event.fields.iter().map(|(field, value)| (field.name(), value.to_string())).collect()
}

/// Asserts that an event has these fields; a value of `-` stands for absent.
#[track_caller]
pub(super) fn assert_fields(event: &Event, expected: &[(&str, &str)]) {
    let fields = fields(event);
    for (name, value) in expected {
        let found = fields.get(name).map(String::as_str);
        let wanted = (*value != "-").then_some(*value);
        assert_eq!(found, wanted, "{name} of {fields:#?}");
    }
}
