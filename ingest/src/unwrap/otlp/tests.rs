//! The same log records in both forms, and what neither is.

use engine::source::SourceType;
use proptest::prelude::{Strategy, prop, prop_assert, prop_assert_eq, proptest};

use super::messages::{ExportLogsServiceRequest, KeyValueList, Resource, ResourceLogs, ScopeLogs};
use super::*;
use crate::limits::Limits;
use crate::receive::Refusal;
use crate::unwrap::{Framing, UNREAD, items};

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

#[test]
fn more_records_than_a_request_may_hold_are_refused_before_they_are_read() {
    let limits = Limits { items_max: 1_000, ..Limits::default() };
    let refused = |framing, body: Vec<u8>| items(SourceType::Json, framing, &Bytes::from(body), &limits).unwrap_err();
    // Two bytes each.
    let empty = vec![LogRecord::default(); 1_001];
    assert_eq!(refused(Framing::OtlpProtobuf, request(empty)), Refusal::Items(1_000));
    let many = |list: &str| format!("[{}]", vec![list; 1_001].join(","));
    let records = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":{}}}]}}]}}"#, many("{}"));
    let scopes = format!(r#"{{"resourceLogs":[{{"scopeLogs":{}}}]}}"#, many("[]"));
    let resources = format!(r#"{{"resourceLogs":{}}}"#, many("{}"));
    for body in [records, scopes, resources] {
        assert_eq!(refused(Framing::OtlpJson, body.into_bytes()), Refusal::Items(1_000));
    }
}

#[test]
fn what_a_resource_says_is_not_multiplied_without_limit() {
    let attributes = vec![pair("service.name", text("runner")), pair("large", text(&"x".repeat(1 << 20)))];
    let scope_logs = vec![ScopeLogs { scope: None, log_records: vec![line(); 2_000] }];
    let logs = ResourceLogs { resource: Some(Resource { attributes }), scope_logs };
    let body = ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec();
    let limits = Limits { inflated_bytes_max: 8 << 20, ..Limits::default() };
    let refused = items(SourceType::Json, Framing::OtlpProtobuf, &Bytes::from(body), &limits).unwrap_err();
    assert!(
        matches!(refused, Refusal::TooLarge { bytes, limit } if limit == 16 << 20 && bytes < 20 << 20),
        "{refused}"
    );
}

#[test]
fn a_record_too_large_to_be_read_is_kept_beside_the_others() {
    let large = LogRecord { body: any(text(&"x".repeat(MESSAGE_BYTES_MAX))), ..LogRecord::default() };
    let body = request(vec![line(), large, line()]);
    let read = items(SourceType::Json, Framing::OtlpProtobuf, &Bytes::from(body), &Limits::default()).unwrap();
    let unread: Vec<bool> = read.iter().map(|item| item.attributes.iter().any(|(name, _)| *name == UNREAD)).collect();
    assert_eq!(unread, [false, true, false]);
}

proptest! {
    #[test]
    fn read_one_by_one_they_are_what_a_reader_of_the_whole_finds(
        shape in prop::collection::vec(prop::collection::vec(0_usize..4, 0..4), 0..4),
        cut in any_cut(),
        noise in prop::collection::vec(any_byte(), 0..40),
    ) {
        let mut number = 0_i64;
        let mut log = || {
            number += 1;
            let body = any(any_value::Value::IntValue(number));
            LogRecord { body, attributes: vec![pair("n", text("v"))], ..LogRecord::default() }
        };
        let resource_logs = shape.iter().enumerate().map(|(at, scopes)| {
            let resource = Resource { attributes: vec![pair("at", text(&at.to_string()))] };
            let scope_logs = scopes.iter().map(|count| {
                ScopeLogs { scope: None, log_records: std::iter::repeat_with(&mut log).take(*count).collect() }
            });
            ResourceLogs { resource: Some(resource), scope_logs: scope_logs.collect() }
        });
        let mut body = ExportLogsServiceRequest { resource_logs: resource_logs.collect() }.encode_to_vec();
        body.truncate(cut.unwrap_or(usize::MAX));
        body.extend(&noise);
        let body = Bytes::from(body);
        let records = ExportLogsServiceRequest::decode(body.clone()).map(|request| {
            request.resource_logs.iter().flat_map(|logs| &logs.scope_logs).map(|logs| logs.log_records.len()).sum::<usize>()
        });
        match (records, items(SourceType::Otlp, Framing::OtlpProtobuf, &body, &Limits::default())) {
            (_, Err(refusal)) => prop_assert_eq!(refusal, Refusal::Empty),
            (Ok(records), Ok(found)) => {
                // Groups, which nobody writes any more, are none of ours.
                let unread = found.iter().any(|item| item.attributes.iter().any(|(name, _)| *name == UNREAD));
                prop_assert!(found.len() == records || unread && !noise.is_empty());
            }
            // A reader of the whole rejects more: what no field of ours says is not looked into.
            (Err(_), Ok(_)) => {}
        }
    }
}

fn any_cut() -> impl Strategy<Value = Option<usize>> {
    prop::option::of(0_usize..200)
}

fn any_byte() -> impl Strategy<Value = u8> {
    0_u8..=255
}
