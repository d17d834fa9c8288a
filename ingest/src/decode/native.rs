//! The native object of a derived event: what it is, what it was derived from, and its fields. A report has one for each of
//! its findings, so it is written as text at once and no tree is made of it.

use bytes::Bytes;
use engine::fields::{Field, Fields, Value};
use engine::source::SourceType;
use pipeproof_engine as engine;

/// What a field takes besides its name and its text, and what the beginning takes; a few more if there are escapes.
const AROUND: usize = 6;
const BEGINNING: usize = 96;

pub(super) fn derived(kind: SourceType, fields: &Fields) -> Bytes {
    let room = |(field, value): (Field, &Value)| {
        AROUND + field.name().len() + if let Value::Text(text) = value { text.len() } else { 32 }
    };
    let mut out = Vec::with_capacity(BEGINNING + fields.iter().map(room).sum::<usize>());
    out.extend_from_slice(b"{\"derived\":");
    text(&mut out, fields.get_text(Field::Action).unwrap_or_default());
    out.extend_from_slice(b",\"from\":");
    text(&mut out, kind.name());
    for (field, value) in fields.iter() {
        // Names of fields are letters, digits, dots and underscores.
        out.extend_from_slice(b",\"");
        out.extend_from_slice(field.name().as_bytes());
        out.extend_from_slice(b"\":");
        match value {
            Value::Text(value) => text(&mut out, value),
            Value::Time(value) => text(&mut out, &value.to_string()),
            Value::Int(_) | Value::Bool(_) => out.extend_from_slice(value.to_string().as_bytes()),
        }
    }
    out.push(b'}');
    out.into()
}

fn text(out: &mut Vec<u8>, text: &str) {
    // Nearly all text is written as it is; to look at all of it at once is quicker than to look for the first that is not.
    let is_escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if text.bytes().fold(false, |found, byte| found | is_escaped(byte)) {
        // It is written to memory, which does not fail.
        drop(serde_json::to_writer(out, text));
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_object_a_tree_would_give() {
        let mut fields = Fields::default();
        fields.text(Field::Action, Some("scan.found"));
        fields.text(Field::Message, Some("a \"quoted\" line\n\u{1}é"));
        fields.int(Field::ScanFindings, Some(-3));
        fields.truth(Field::ConfigWeakens, Some(true));
        fields.time(Field::TokenExpires, engine::time::Timestamp::parse("2026-03-15T10:00:00.5Z"));
        let mut tree = serde_json::Map::new();
        tree.insert("derived".to_owned(), "scan.found".into());
        tree.insert("from".to_owned(), "sarif".into());
        tree.extend(fields.to_json());
        assert_eq!(derived(SourceType::Sarif, &fields), serde_json::Value::Object(tree).to_string());
    }
}
