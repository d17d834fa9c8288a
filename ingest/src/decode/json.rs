//! JSON of any shape: what is named as in the `cicd` taxonomy is taken over, dotted or nested; all of it stays native.

use engine::fields::{Field, FieldKind, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, github_audit, object, time_at, time_of};

const EXPECTED: &str = "a JSON event";
/// The deepest dotted name has three parts.
const NAME_PARTS_MAX: usize = 3;
/// Members that hold the time, the first one wins.
const TIMES: &[&str] = &["time", "@timestamp", "timestamp", "created_at"];

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let mut draft = Draft::default();
    taxonomy(&mut draft, root);
    github_audit::recognise(&mut draft, root);
    Ok(vec![draft])
}

/// Takes over what an object names as in the taxonomy, and its time.
pub(super) fn taxonomy(draft: &mut Draft, root: Value<'_>) {
    draft.time = TIMES.iter().find_map(|key| time_at(root, &[key]));
    let mut open = Vec::new();
    let mut dotted = String::new();
    let mut next = Some((String::new(), root, 1));
    while let Some((prefix, object, parts)) = next {
        for (key, value) in object.entries() {
            let name = if prefix.is_empty() {
                key
            } else {
                dotted.clear();
                dotted.push_str(&prefix);
                dotted.push_str(key);
                &dotted
            };
            if let Some(field) = Field::from_name(name) {
                set(&mut draft.fields, field, value);
            }
            if value.is_object() && parts < NAME_PARTS_MAX {
                open.push((format!("{name}."), value, parts + 1));
            }
        }
        next = open.pop();
    }
}

/// Sets a field from text, if that is of its kind.
pub(super) fn set_text(fields: &mut Fields, field: Field, text: &str) {
    match field.kind() {
        FieldKind::Text => fields.text(field, Some(text)),
        FieldKind::Int => fields.int(field, text.parse().ok()),
        FieldKind::Bool => fields.truth(field, text.parse().ok()),
        FieldKind::Time => fields.time(field, engine::time::Timestamp::parse(text)),
    }
}

/// Sets a field if the value is of its kind; another kind is no value.
fn set(fields: &mut Fields, field: Field, value: Value<'_>) {
    match field.kind() {
        FieldKind::Text => fields.text(field, value.scalar()),
        FieldKind::Int => {
            fields.int(field, value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok())));
        }
        FieldKind::Bool => {
            let text = value.as_str().and_then(|text| text.parse().ok());
            fields.truth(field, value.as_bool().or(text));
        }
        FieldKind::Time => fields.time(field, time_of(value)),
    }
}
