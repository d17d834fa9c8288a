//! Generic envelopes: the data is the event, the envelope fills in what it does not say.

use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde_json::{Value, json};

use super::{assert_fields, decoded};

#[test]
fn a_log_record_is_what_its_body_and_attributes_say() {
    let record = json!({"time": "2026-03-15T10:00:00Z", "timeUnixNano": "1773568800000000000", "eventName": "job.finished",
        "body": "{\"action\":\"run.finished\",\"outcome\":\"success\",\"more\":[1]}",
        "attributes": {"cicd.pipeline.run.id": 77, "vcs.repository.name": "acme/app", "runner.kind": "self-hosted"},
        "resource": {"service.name": "ci", "k8s.namespace.name": "builds"}});
    let event = &decoded(SourceType::Otlp, &[], record.to_string())[0];
    assert_fields(
        event,
        &[
            ("action", "run.finished"),
            ("outcome", "success"),
            ("ci.run_id", "77"),
            ("ci.repo", "acme/app"),
            ("runner.kind", "self-hosted"),
            ("k8s.namespace", "builds"),
        ],
    );
    assert_eq!(event.time, Timestamp::from_secs(1_773_568_800));
    let native: Value = serde_json::from_slice(&event.native).unwrap();
    assert_eq!(native, json!({"action": "run.finished", "outcome": "success", "more": [1]}));
    let plain =
        json!({"observedTimeUnixNano": "1773568800000000000", "body": "a line", "attributes": {"event.name": "x.y"}});
    let event = &decoded(SourceType::Otlp, &[], plain.to_string())[0];
    assert_fields(event, &[("action", "x.y"), ("message", "a line")]);
    assert!(event.time_known);
}

#[test]
fn the_data_of_a_cloudevent_is_the_event_in_whatever_form_it_comes() {
    let data = json!({"action": "deploy.finished", "ci.repo": "acme/app", "time": "2020-01-01T00:00:00Z"});
    // {"action":"token.used"}
    let encoded = "eyJhY3Rpb24iOiJ0b2tlbi51c2VkIn0=";
    for (member, value, action) in [
        ("data", data.clone(), "deploy.finished"),
        ("data", data.to_string().into(), "deploy.finished"),
        ("data_base64", encoded.into(), "token.used"),
        ("data", json!("text"), "com.example.thing"),
        ("data", json!([1]), "com.example.thing"),
    ] {
        let event = json!({"specversion": "1.0", "id": "1", "type": "com.example.thing", "source": "/s",
            "time": "2026-03-15T10:00:00Z", "subject": "it", member: value});
        let event = &decoded(SourceType::Cloudevents, &[], event.to_string())[0];
        assert_fields(event, &[("action", action), ("actor.id", "/s"), ("message", "it")]);
        assert_eq!(event.time, Timestamp::parse("2026-03-15T10:00:00Z").unwrap());
    }
}
