//! OpenTelemetry log records. One record of ours holds one of theirs, as the receiver writes it: names of OTLP's JSON form,
//! with attributes, resource and scope as plain objects. A request that was not taken apart gives an event for each.
//!
//! Source: opentelemetry-proto `logs/v1/logs.proto`, OTLP "JSON Protobuf Encoding"; the attributes of the CI/CD semantic
//! conventions become `ci` fields. A body that is an object, or text that holds one, is the event.

use bytes::Bytes;
use engine::fields::{Field, Fields};
use engine::json::{Json, Value};
use engine::record::Record;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde_json::Value as Tree;

use super::{DEPTH_MAX, Draft, Undecodable, json, object};

const EXPECTED: &str = "OTLP logs";
/// Attributes of the semantic conventions, and the field each becomes.
const ATTRIBUTES: &[(&str, Field)] = &[
    ("cicd.pipeline.name", Field::CiWorkflow),
    ("cicd.pipeline.run.id", Field::CiRunId),
    ("cicd.pipeline.task.run.id", Field::CiJobId),
    ("cicd.worker.name", Field::RunnerName),
    ("vcs.repository.name", Field::CiRepo),
    ("vcs.ref.head.revision", Field::CiSha),
    ("vcs.ref.head.name", Field::CiRef),
    ("deployment.environment.name", Field::Environment),
    ("k8s.cluster.name", Field::K8sCluster),
    ("k8s.namespace.name", Field::K8sNamespace),
    ("container.image.name", Field::ArtifactName),
    ("client.address", Field::SrcIp),
    ("enduser.id", Field::ActorId),
    ("user.id", Field::ActorId),
];

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let Some(request) = root.get("resourceLogs") else {
        if root.get("body").is_none() && root.get("attributes").is_none() {
            return Err(Undecodable::Shape {
                expected: EXPECTED,
                problem: "it has no `body`, `attributes` or `resourceLogs`",
            });
        }
        let members = ["resource", "scope", "attributes"].iter().filter_map(|key| root.get(key));
        let attributes = members.flat_map(Value::entries).map(|(name, value)| (name, tree(value))).collect();
        return Ok(vec![event(root, root.get("body").map_or(Tree::Null, tree), attributes)]);
    };
    let mut drafts = Vec::new();
    for resource in request.items() {
        for scope in resource.get("scopeLogs").into_iter().flat_map(Value::items) {
            for log in scope.get("logRecords").into_iter().flat_map(Value::items) {
                let lists = [
                    resource.at(&["resource", "attributes"]),
                    scope.at(&["scope", "attributes"]),
                    log.get("attributes"),
                ];
                let pairs = lists.into_iter().flatten().flat_map(Value::items);
                let attributes =
                    pairs.filter_map(|one| Some((one.str_at(&["key"])?, any(one.get("value")?, 0)))).collect();
                let mut draft = event(log, log.get("body").map_or(Tree::Null, |body| any(body, 0)), attributes);
                draft.native = draft.native.or_else(|| Some(Bytes::from(log.compact())));
                drafts.push(draft);
            }
        }
    }
    if drafts.is_empty() {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "its `resourceLogs` hold no log record" });
    }
    Ok(drafts)
}

fn event(log: Value<'_>, body: Tree, attributes: Vec<(&str, Tree)>) -> Draft {
    let mut draft = Draft::default();
    let inner = match &body {
        Tree::Object(_) => Some(body.to_string()),
        Tree::String(text) if text.trim_start().starts_with('{') => Some(text.clone()),
        _ => None,
    };
    let inner = inner.and_then(|text| Some((Json::parse_within(text.as_bytes(), DEPTH_MAX).ok()?, text)));
    if let Some((json, text)) = inner.filter(|(json, _)| json.root().is_object()) {
        json::taxonomy(&mut draft, json.root());
        draft.native = Some(Bytes::from(text));
    } else {
        draft.fields.text(Field::Message, body.as_str());
    }
    for (name, value) in &attributes {
        attribute(&mut draft.fields, name, value);
    }
    // The record's own time; where the producer had none, when a collector first saw it.
    let nanos = ["timeUnixNano", "observedTimeUnixNano"]
        .iter()
        .find_map(|key| log.get(key)?.scalar()?.parse::<i64>().ok().filter(|nanos| *nanos > 0));
    draft.time = nanos.map(|nanos| Timestamp::from_micros(nanos / 1_000)).or(draft.time);
    let fields = &mut draft.fields;
    if fields.get(Field::Action).is_none() {
        let named = attributes.iter().find(|(name, _)| *name == "event.name").and_then(|(_, value)| value.as_str());
        let named = log.str_at(&["eventName"]).filter(|name| !name.is_empty()).or(named);
        fields.text(Field::Action, named.or(Some("log.recorded")));
    }
    draft
}

fn attribute(fields: &mut Fields, name: &str, value: &Tree) {
    let text = match value {
        Tree::String(text) => text.clone(),
        Tree::Number(number) => number.to_string(),
        Tree::Bool(truth) => truth.to_string(),
        _ => return,
    };
    let field = ATTRIBUTES.iter().find(|(attribute, _)| *attribute == name).map(|(_, field)| *field);
    if let Some(field) = field {
        fields.text(field, Some(text));
    } else if let Some(field) = Field::from_name(name) {
        json::set_text(fields, field, &text);
    }
}

fn tree(value: Value<'_>) -> Tree {
    serde_json::from_str(&value.compact()).unwrap_or_default()
}

fn values(list: Value<'_>) -> impl Iterator<Item = Value<'_>> {
    list.get("values").into_iter().flat_map(Value::items)
}

/// An `AnyValue` as plain JSON. It is nested no deeper than the text it was parsed from, which is limited.
fn any(value: Value<'_>, depth: usize) -> Tree {
    if depth > DEPTH_MAX {
        return Tree::Null;
    }
    let Some((kind, inner)) = value.entries().find(|(kind, _)| kind.ends_with("Value")) else { return Tree::Null };
    match kind {
        "stringValue" | "bytesValue" => inner.as_str().map_or(Tree::Null, Into::into),
        "boolValue" => inner.as_bool().map_or(Tree::Null, Into::into),
        // 64-bit numbers may be text.
        "intValue" => inner.scalar().and_then(|text| text.parse::<i64>().ok()).map_or(Tree::Null, Into::into),
        "doubleValue" => inner.as_f64().map_or(Tree::Null, Into::into),
        "arrayValue" => values(inner).map(|item| any(item, depth + 1)).collect::<Vec<_>>().into(),
        "kvlistValue" => {
            let member = |one: Value<'_>| Some((one.str_at(&["key"])?.to_owned(), any(one.get("value")?, depth + 1)));
            Tree::Object(values(inner).filter_map(member).collect())
        }
        _ => Tree::Null,
    }
}
