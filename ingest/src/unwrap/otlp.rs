//! OpenTelemetry logs, as Protocol Buffers and as JSON (OTLP 1.x, `opentelemetry/proto/collector/logs/v1`).
//!
//! A log record whose body is an object, or text that is one, is the event that its sender logged; otherwise the record
//! is the event, written as one object with the names of OTLP's JSON form and attributes as plain members.

mod messages;
mod wire;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use prost::Message;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use self::messages::{AnyValue, KeyValue, LogRecord, Resource, Scope, any_value};
use self::wire::NotOtlp;
use super::Item;
use super::wrappers::Peel;
use crate::skim;

/// Deepest value of an attribute or body that is read; what is deeper is left out as null.
const DEPTH_MAX: usize = 32;
/// Largest message that is decoded whole, bytes. No log record in reach of a record of ours is larger.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// How much of a name goes with every record of a service.
const NAME_CHARS_MAX: usize = 512;

/// `ExportLogsServiceRequest.resource_logs`.
const RESOURCE_LOGS: usize = 1;
/// `ResourceLogs.resource` and `.scope_logs`.
const RESOURCE: usize = 1;
const SCOPE_LOGS: usize = 2;
/// `ScopeLogs.scope` and `.log_records`.
const SCOPE: usize = 1;
const LOG_RECORDS: usize = 2;

/// Log records in Protocol Buffers. A body that is none stays one item.
///
/// They are read one by one: two bytes of a body can be a message of hundreds in memory, and a request has room for millions.
pub(super) fn protobuf(peel: &mut Peel, body: &Bytes) {
    let before = peel.out.len();
    if wire::each(body, RESOURCE_LOGS, |logs| resource_logs(peel, &logs)).is_err() {
        peel.out.truncate(before);
        peel.push(body.clone(), &Item::unread("not_otlp"));
    }
}

fn resource_logs(peel: &mut Peel, logs: &Bytes) -> Result<(), NotOtlp> {
    if peel.is_full() {
        return Ok(());
    }
    let mut resource = Resource::default();
    wire::each(logs, RESOURCE, |part| Ok(resource.merge(within(part)?)?))?;
    let resource = attributes(&resource.attributes);
    wire::each(logs, SCOPE_LOGS, |logs| {
        let mut scope = None;
        wire::each(&logs, SCOPE, |part| Ok(Scope::merge(scope.get_or_insert_default(), within(part)?)?))?;
        let scope = scope.as_ref().map(shown);
        wire::each(&logs, LOG_RECORDS, |record| {
            if peel.is_full() {
                return Ok(());
            }
            if record.len() > MESSAGE_BYTES_MAX {
                peel.push(record, &Item::unread("large_log_record"));
                return Ok(());
            }
            push(peel, read(&LogRecord::decode(record)?), &resource, scope.as_ref());
            Ok(())
        })
    })
}

/// A message that may be decoded whole.
fn within(message: Bytes) -> Result<Bytes, NotOtlp> {
    if message.len() > MESSAGE_BYTES_MAX { Err(NotOtlp) } else { Ok(message) }
}

/// Log records in JSON. Names are lowerCamelCase, ids hexadecimal, 64-bit numbers text or numbers.
pub(super) fn json(peel: &mut Peel, text: &Bytes) {
    let is_json = serde_json::from_slice::<IgnoredAny>(text).is_ok();
    let Some(all) = skim::member(text, "resourceLogs").filter(|all| is_json && all.starts_with(b"[")) else {
        return peel.push(text.clone(), &Item::unread("not_otlp"));
    };
    for resource_logs in list_of(peel, Some(all)) {
        let resource = skim::member(resource_logs, "resource").map(parsed).unwrap_or_default();
        let resource = named(resource.get("attributes"));
        for scope_logs in list_of(peel, skim::member(resource_logs, "scopeLogs")) {
            let scope = skim::member(scope_logs, "scope").map(|scope| {
                let scope = parsed(scope);
                let named = |name: &str| {
                    let text = scope.get(name)?.as_str().filter(|text| !text.is_empty())?;
                    Some((name.to_owned(), Value::from(text)))
                };
                ["name", "version"].into_iter().filter_map(named).collect::<Map<_, _>>()
            });
            for record in list_of(peel, skim::member(scope_logs, "logRecords")) {
                if record.len() > MESSAGE_BYTES_MAX {
                    peel.push(Bytes::copy_from_slice(record), &Item::unread("large_log_record"));
                } else {
                    push(peel, read_json(&parsed(record)), &resource, scope.as_ref());
                }
            }
        }
    }
}

/// The elements of a list, none if it is no list. More than a request may hold fill it.
fn list_of<'t>(peel: &mut Peel, list: Option<&'t [u8]>) -> Vec<&'t [u8]> {
    if peel.is_full() {
        return Vec::new();
    }
    let list = list.unwrap_or_default();
    let elements = skim::elements(list, peel.items_max).unwrap_or_default();
    if elements.len() > peel.items_max {
        peel.refuse();
        return Vec::new();
    }
    elements.into_iter().filter_map(|element| list.get(element)).collect()
}

/// A value of a text that is JSON. Null if it is too large to be read whole.
fn parsed(text: &[u8]) -> Value {
    let text = if text.len() > MESSAGE_BYTES_MAX { b"null" } else { text };
    serde_json::from_slice(text).unwrap_or_default()
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
        about.attributes.push(("otlp.service", service.chars().take(NAME_CHARS_MAX).collect()));
    }
    if !log.event_name.is_empty() {
        about.attributes.push(("otlp.event_name", log.event_name.chars().take(NAME_CHARS_MAX).collect()));
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

fn shown(scope: &Scope) -> Map<String, Value> {
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
