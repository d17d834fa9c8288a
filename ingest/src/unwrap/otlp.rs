//! OpenTelemetry logs, as Protocol Buffers and as JSON (OTLP 1.x, `opentelemetry/proto/collector/logs/v1`).
//!
//! A log record whose body is an object, or text that is one, is the event that its sender logged; otherwise the record
//! is the event, written as one object with the names of OTLP's JSON form and attributes as plain members.

mod messages;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use prost::Message;
use serde_json::{Map, Value, json};

use self::messages::{AnyValue, ExportLogsServiceRequest, KeyValue, LogRecord, Scope, any_value};
use super::Item;
use super::wrappers::Peel;

/// Deepest value of an attribute or body that is read; what is deeper is left out as null.
const DEPTH_MAX: usize = 32;

/// Log records in Protocol Buffers. A body that is none stays one item.
pub(super) fn protobuf(peel: &mut Peel, body: &Bytes) {
    let Ok(request) = ExportLogsServiceRequest::decode(body.clone()) else {
        return peel.push(body.clone(), &Item::unread("not_otlp"));
    };
    for resource_logs in request.resource_logs {
        let resource = attributes(&resource_logs.resource.unwrap_or_default().attributes);
        for scope_logs in resource_logs.scope_logs {
            let scope = scope_logs.scope.as_ref().map(scope);
            for record in &scope_logs.log_records {
                push(peel, read(record), &resource, scope.as_ref());
            }
        }
    }
}

/// Log records in JSON. Names are lowerCamelCase, ids hexadecimal, 64-bit numbers text or numbers.
pub(super) fn json(peel: &mut Peel, text: &Bytes) {
    let Ok(request) = serde_json::from_slice::<Value>(text) else {
        return peel.push(text.clone(), &Item::unread("not_otlp"));
    };
    let Some(all) = request.get("resourceLogs").and_then(Value::as_array) else {
        return peel.push(text.clone(), &Item::unread("not_otlp"));
    };
    for resource_logs in all {
        let resource = named(resource_logs.get("resource").and_then(|resource| resource.get("attributes")));
        for scope_logs in list(resource_logs.get("scopeLogs")) {
            let scope = scope_logs.get("scope").map(|scope| {
                let mut shown = Map::new();
                for name in ["name", "version"] {
                    if let Some(text) =
                        scope.get(name).filter(|text| text.as_str().is_some_and(|text| !text.is_empty()))
                    {
                        shown.insert(name.to_owned(), text.clone());
                    }
                }
                shown
            });
            for record in list(scope_logs.get("logRecords")) {
                push(peel, read_json(record), &resource, scope.as_ref());
            }
        }
    }
}

/// A log record in either form.
#[derive(Default)]
struct Log {
    /// Nanoseconds since 1970; 0 is unknown.
    time: u64,
    observed: u64,
    severity: i64,
    severity_text: String,
    event_name: String,
    trace_id: String,
    span_id: String,
    body: Value,
    attributes: Map<String, Value>,
}

fn push(peel: &mut Peel, log: Log, resource: &Map<String, Value>, scope: Option<&Map<String, Value>>) {
    if peel.is_full() {
        return;
    }
    let mut about = Item::default();
    if let Some(service) = resource.get("service.name").and_then(Value::as_str) {
        about.attributes.push(("otlp.service", service.to_owned()));
    }
    if !log.event_name.is_empty() {
        about.attributes.push(("otlp.event_name", log.event_name.clone()));
    }
    if peel.kind().name() != "otlp" {
        match &log.body {
            body @ Value::Object(object) if !object.is_empty() => {
                return peel.object(Bytes::from(body.to_string()), &about, 0);
            }
            Value::String(text) if peel.container(&Bytes::copy_from_slice(text.as_bytes()), &about, 0) => return,
            _ => {}
        }
    }
    let whole = whole(log, resource, scope);
    peel.push(Bytes::from(whole.to_string()), &about);
}

/// The record as an object, with its time where readers look for one.
fn whole(log: Log, resource: &Map<String, Value>, scope: Option<&Map<String, Value>>) -> Value {
    let mut object = Map::new();
    let time = if log.time == 0 { log.observed } else { log.time };
    if time != 0 {
        let micros = i64::try_from(time / 1_000).unwrap_or(i64::MAX);
        object.insert("time".to_owned(), Timestamp::from_micros(micros).to_string().into());
    }
    for (name, nanos) in [("timeUnixNano", log.time), ("observedTimeUnixNano", log.observed)] {
        if nanos != 0 {
            object.insert(name.to_owned(), nanos.to_string().into());
        }
    }
    if log.severity != 0 {
        object.insert("severityNumber".to_owned(), log.severity.into());
    }
    for (name, text) in [
        ("severityText", log.severity_text),
        ("eventName", log.event_name),
        ("traceId", log.trace_id),
        ("spanId", log.span_id),
    ] {
        if !text.is_empty() {
            object.insert(name.to_owned(), text.into());
        }
    }
    object.insert("body".to_owned(), log.body);
    for (name, members) in [("attributes", Some(&log.attributes)), ("resource", Some(resource)), ("scope", scope)] {
        if let Some(members) = members.filter(|members| !members.is_empty()) {
            object.insert(name.to_owned(), Value::Object(members.clone()));
        }
    }
    Value::Object(object)
}

fn read(record: &LogRecord) -> Log {
    Log {
        time: record.time_unix_nano,
        observed: record.observed_time_unix_nano,
        severity: record.severity_number.into(),
        severity_text: record.severity_text.clone(),
        event_name: record.event_name.clone(),
        trace_id: hex::encode(&record.trace_id),
        span_id: hex::encode(&record.span_id),
        body: record.body.as_ref().map_or(Value::Null, |body| value(body, DEPTH_MAX)),
        attributes: attributes(&record.attributes),
    }
}

fn scope(scope: &Scope) -> Map<String, Value> {
    let parts = [("name", &scope.name), ("version", &scope.version)];
    parts
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| (name.to_owned(), text.as_str().into()))
        .collect()
}

fn attributes(all: &[KeyValue]) -> Map<String, Value> {
    members(all, DEPTH_MAX)
}

fn members(all: &[KeyValue], depth: usize) -> Map<String, Value> {
    let member =
        |pair: &KeyValue| (pair.key.clone(), pair.value.as_ref().map_or(Value::Null, |inner| value(inner, depth)));
    all.iter().map(member).collect()
}

fn value(any: &AnyValue, depth: usize) -> Value {
    let (Some(inner), Some(depth)) = (&any.value, depth.checked_sub(1)) else { return Value::Null };
    match inner {
        any_value::Value::StringValue(text) => text.as_str().into(),
        any_value::Value::BoolValue(truth) => (*truth).into(),
        any_value::Value::IntValue(number) => (*number).into(),
        any_value::Value::DoubleValue(number) => json!(number),
        any_value::Value::ArrayValue(array) => array.values.iter().map(|inner| value(inner, depth)).collect(),
        any_value::Value::KvlistValue(list) => Value::Object(members(&list.values, depth)),
        any_value::Value::BytesValue(bytes) => STANDARD.encode(bytes).into(),
    }
}

fn read_json(record: &Value) -> Log {
    let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let nanos = |name: &str| match record.get(name) {
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(number) => number.as_u64().unwrap_or(0),
        None => 0,
    };
    Log {
        time: nanos("timeUnixNano"),
        observed: nanos("observedTimeUnixNano"),
        severity: record.get("severityNumber").and_then(Value::as_i64).unwrap_or(0),
        severity_text: text("severityText"),
        event_name: text("eventName"),
        trace_id: text("traceId"),
        span_id: text("spanId"),
        body: record.get("body").map_or(Value::Null, |body| any_json(body, DEPTH_MAX)),
        attributes: named(record.get("attributes")),
    }
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A list of `{"key", "value"}` as members.
fn named(value: Option<&Value>) -> Map<String, Value> {
    named_within(value, DEPTH_MAX)
}

fn named_within(value: Option<&Value>, depth: usize) -> Map<String, Value> {
    let member = |pair: &Value| {
        let key = pair.get("key")?.as_str()?.to_owned();
        Some((key, pair.get("value").map_or(Value::Null, |value| any_json(value, depth))))
    };
    list(value).iter().filter_map(member).collect()
}

/// An `AnyValue` in JSON as the plain value it stands for.
fn any_json(any: &Value, depth: usize) -> Value {
    let (Some((name, inner)), Some(depth)) =
        (any.as_object().and_then(|object| object.iter().next()), depth.checked_sub(1))
    else {
        return Value::Null;
    };
    match (name.as_str(), inner) {
        ("intValue", Value::String(text)) => text.parse::<i64>().map_or_else(|_| inner.clone(), Value::from),
        ("arrayValue", array) => list(array.get("values")).iter().map(|inner| any_json(inner, depth)).collect(),
        ("kvlistValue", pairs) => Value::Object(named_within(pairs.get("values"), depth)),
        ("stringValue" | "boolValue" | "intValue" | "doubleValue" | "bytesValue", _) => inner.clone(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests;
