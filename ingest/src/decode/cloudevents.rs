//! CloudEvents 1.0 of any kind: the envelope gives id, type, source and time, the data is the event.
//!
//! Source: cloudevents/spec, structured mode; events in binary mode are put back together when they are received. Data that
//! is no JSON object stays in its envelope.

use bytes::Bytes;
use engine::fields::Field;
use engine::json::{Parsed, Value};
use engine::record::Record;
use pipeproof_engine as engine;

use super::{DEPTH_MAX, Draft, Undecodable, armour, json, object, said, time_of};

const EXPECTED: &str = "a CloudEvent";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let [version, kind, source, subject, time, data, encoded] =
        root.members(["specversion", "type", "source", "subject", "time", "data", "data_base64"]);
    let (Some(_), Some(kind), Some(source)) = (said(version), said(kind), said(source)) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `specversion`, `type` and `source`" });
    };
    let mut draft = within(data, encoded).unwrap_or_default();
    draft.time = time.and_then(time_of).or(draft.time);
    let fields = &mut draft.fields;
    let nobody = fields.get(Field::ActorId).is_none() && fields.get(Field::ActorType).is_none();
    // What the data says in our words holds; the envelope fills in. Its source is who reports.
    for (field, text) in [
        (Field::Action, Some(kind)),
        (Field::ActorId, Some(source)),
        (Field::ActorType, Some("service").filter(|_| nobody)),
        (Field::Message, said(subject)),
    ] {
        if fields.get(field).is_none() {
            fields.text(field, text);
        }
    }
    Ok(vec![draft])
}

/// What the data says, if it is a JSON object: as such, as text, or in base64.
fn within(data: Option<Value<'_>>, encoded: Option<Value<'_>>) -> Option<Draft> {
    match (data, encoded) {
        (Some(data), _) if data.is_object() => Some(native(data, Bytes::from(data.compact()))),
        (Some(data), _) => text(data.as_str()?),
        (None, Some(encoded)) => text(std::str::from_utf8(&armour::standard(encoded.as_str()?)?).ok()?),
        (None, None) => None,
    }
}

fn text(text: &str) -> Option<Draft> {
    let json = Parsed::of(text.as_bytes(), DEPTH_MAX, &[]).ok()?;
    json.root().is_object().then(|| native(json.root(), Bytes::copy_from_slice(text.as_bytes())))
}

fn native(data: Value<'_>, text: Bytes) -> Draft {
    let mut draft = Draft { native: Some(text), ..Draft::default() };
    json::taxonomy(&mut draft, data);
    draft
}
