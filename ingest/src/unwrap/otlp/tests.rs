//! The same log records in both forms, and what neither is.

use engine::source::SourceType;

use super::messages::{KeyValueList, Resource, ResourceLogs, ScopeLogs};
use super::*;
use crate::limits::Limits;
use crate::unwrap::{Framing, items};

fn any(value: any_value::Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: any(value) }
}

fn text(text: &str) -> any_value::Value {
    any_value::Value::StringValue(text.to_owned())
}

fn request(records: Vec<LogRecord>) -> Vec<u8> {
    let scope = Scope { name: "ci".to_owned(), version: String::new() };
    let resource = Resource { attributes: vec![pair("service.name", text("runner"))] };
    let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records: records }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { resource: Some(resource), scope_logs }] }
        .encode_to_vec()
}

fn line() -> LogRecord {
    LogRecord {
        time_unix_nano: 1_700_000_000_123_456_789,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: any(text("a line")),
        attributes: vec![pair("n", any_value::Value::IntValue(7)), pair("b", any_value::Value::BoolValue(true))],
        trace_id: vec![0xab; 16],
        ..LogRecord::default()
    }
}

fn read_items(framing: Framing, body: Vec<u8>) -> Vec<Value> {
    let items = items(SourceType::Json, framing, &Bytes::from(body), &Limits::default()).unwrap();
    assert!(items.iter().all(|item| item.attributes.contains(&("otlp.service", "runner".to_owned()))));
    items.iter().map(|item| serde_json::from_slice(&item.bytes).unwrap()).collect()
}

#[test]
fn both_forms_give_the_same_items() {
    let event = any_value::Value::KvlistValue(KeyValueList { values: vec![pair("action", text("git.push"))] });
    let logged = LogRecord { body: any(event), ..LogRecord::default() };
    let quoted = LogRecord { body: any(text("{\"action\":\"git.push\"}")), ..LogRecord::default() };
    let protobuf = read_items(Framing::OtlpProtobuf, request(vec![line(), logged, quoted]));
    let json = serde_json::json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "runner"}}]},
        "scopeLogs": [{"scope": {"name": "ci"}, "logRecords": [
            {"timeUnixNano": "1700000000123456789", "severityNumber": 9, "severityText": "INFO",
             "body": {"stringValue": "a line"}, "traceId": "abababababababababababababababab",
             "attributes": [{"key": "n", "value": {"intValue": "7"}}, {"key": "b", "value": {"boolValue": true}}],
             "unknown": {}},
            {"body": {"kvlistValue": {"values": [{"key": "action", "value": {"stringValue": "git.push"}}]}}},
            {"body": {"stringValue": "{\"action\":\"git.push\"}"}}]}]}]});
    assert_eq!(read_items(Framing::OtlpJson, json.to_string().into_bytes()), protobuf);
    let whole = serde_json::json!({"time": "2023-11-14T22:13:20.123456Z", "timeUnixNano": "1700000000123456789",
        "severityNumber": 9, "severityText": "INFO", "traceId": "abababababababababababababababab", "body": "a line",
        "attributes": {"n": 7, "b": true}, "resource": {"service.name": "runner"}, "scope": {"name": "ci"}});
    let pushed = serde_json::json!({"action": "git.push"});
    assert_eq!(protobuf, [whole, pushed.clone(), pushed]);
}

#[test]
fn what_is_no_request_stays_one_item() {
    for (framing, body) in [
        (Framing::OtlpProtobuf, &b"\xff\xff\xff not a message"[..]),
        (Framing::OtlpJson, b"{\"resourceLogs\":"),
        (Framing::OtlpJson, b"{\"resourceSpans\":[]}"),
    ] {
        let items = items(SourceType::Json, framing, &Bytes::from_static(body), &Limits::default()).unwrap();
        assert_eq!(items.iter().map(|item| &item.bytes[..]).collect::<Vec<_>>(), [body]);
    }
}

#[test]
fn values_nested_without_end_are_cut_and_cost_no_stack() {
    let mut deep = any(text("x"));
    for _ in 0..60 {
        deep = any(any_value::Value::ArrayValue(super::messages::ArrayValue { values: deep.into_iter().collect() }));
    }
    let body = request(vec![LogRecord { body: deep, ..LogRecord::default() }]);
    let items = items(SourceType::Json, Framing::OtlpProtobuf, &Bytes::from(body), &Limits::default()).unwrap();
    assert_eq!(items.len(), 1);
    // A message nested deeper than its reader goes is no message.
    let bomb: Vec<u8> = (0..100_000).flat_map(|_| [0x2a, 0x80, 0x80, 0x04]).collect();
    drop(super::super::items(SourceType::Json, Framing::OtlpProtobuf, &Bytes::from(bomb), &Limits::default()));
}
