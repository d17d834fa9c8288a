//! CloudEvents 1.0 of any kind: the envelope gives id, type, source and time, the data is the event.
//!
//! Source: cloudevents/spec, structured mode; events in binary mode are put back together when they are received. Data that
//! is no JSON object stays in its envelope.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::fields::Field;
use engine::json::{Json, Value};
use engine::record::Record;
use pipeproof_engine as engine;

use super::{DEPTH_MAX, Draft, Undecodable, json, object, time_at};

const EXPECTED: &str = "a CloudEvent";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let text = |key: &str| root.str_at(&[key]).filter(|text| !text.is_empty());
    let (Some(_), Some(kind), Some(source)) = (text("specversion"), text("type"), text("source")) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `specversion`, `type` and `source`" });
    };
    let mut draft = Draft::default();
    if let Some((data, text)) = data(root) {
        json::taxonomy(&mut draft, data.root());
        draft.native = Some(Bytes::from(text));
    }
    draft.time = time_at(root, &["time"]).or(draft.time);
    let fields = &mut draft.fields;
    if fields.get(Field::ActorId).is_none() && fields.get(Field::ActorType).is_none() {
        fields.text(Field::ActorType, Some("service"));
    }
    // What the data says in our words holds; the envelope fills in. Its source is who reports.
    for (field, text) in
        [(Field::Action, Some(kind)), (Field::ActorId, Some(source)), (Field::Message, text("subject"))]
    {
        if fields.get(field).is_none() {
            fields.text(field, text);
        }
    }
    Ok(vec![draft])
}

/// The data, if it is a JSON object: as such, as text, or in base64.
fn data(root: Value<'_>) -> Option<(Json, String)> {
    let text = match (root.get("data"), root.str_at(&["data_base64"])) {
        (Some(data), _) => data.text().into_owned(),
        (None, Some(encoded)) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?,
        (None, None) => return None,
    };
    let json = Json::parse_within(text.as_bytes(), DEPTH_MAX).ok()?;
    json.root().is_object().then_some((json, text))
}
